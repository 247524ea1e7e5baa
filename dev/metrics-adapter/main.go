// A metrics adapter for tests: the one of custom-metrics-apiserver, which serves the metrics that are written to it,
// with a configurable port to write to.
package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/emicklei/go-restful/v3"
	"k8s.io/klog/v2"

	basecmd "sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/test-adapter/provider"
)

func main() {
	adapter := &basecmd.AdapterBase{Name: "metrics-adapter"}
	write := adapter.Flags().String("write-address", "", "where metrics are written to, over HTTP")
	if err := adapter.Flags().Parse(os.Args); err != nil {
		klog.Fatalf("cannot read the flags: %v", err)
	}
	client, err := adapter.DynamicClient()
	if err != nil {
		klog.Fatalf("cannot connect to the cluster: %v", err)
	}
	mapper, err := adapter.RESTMapper()
	if err != nil {
		klog.Fatalf("cannot list the cluster's kinds: %v", err)
	}
	metrics, service := provider.NewFakeProvider(client, mapper)
	adapter.WithCustomMetrics(metrics)
	adapter.WithExternalMetrics(metrics)
	go receive(*write, service)
	if err := adapter.Run(context.Background()); err != nil {
		klog.Fatalf("cannot serve: %v", err)
	}
}

// receive serves the endpoint that metrics are written to.
func receive(address string, service *restful.WebService) {
	restful.DefaultContainer.Add(service)
	server := &http.Server{Addr: address, ReadHeaderTimeout: 3 * time.Second}
	klog.Fatalf("cannot listen on %s: %v", address, server.ListenAndServe())
}
