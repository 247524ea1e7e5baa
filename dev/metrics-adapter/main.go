// A metrics adapter for tests: that of custom-metrics-apiserver, which serves what is written to it, with a port of one's
// own choice to write to.
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
		klog.Fatalf("cannot learn the kinds of the cluster: %v", err)
	}
	metrics, service := provider.NewFakeProvider(client, mapper)
	adapter.WithCustomMetrics(metrics)
	adapter.WithExternalMetrics(metrics)
	go receive(*write, service)
	if err := adapter.Run(context.Background()); err != nil {
		klog.Fatalf("cannot serve: %v", err)
	}
}

// receive serves what metrics are written with.
func receive(address string, service *restful.WebService) {
	restful.DefaultContainer.Add(service)
	server := &http.Server{Addr: address, ReadHeaderTimeout: 3 * time.Second}
	klog.Fatalf("cannot listen on %s: %v", address, server.ListenAndServe())
}
