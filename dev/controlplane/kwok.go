package main

import (
	"strings"

	"sigs.k8s.io/kwok/kustomize/metrics/resource"
	"sigs.k8s.io/kwok/kustomize/metrics/usage"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	"sigs.k8s.io/kwok/kustomize/stage/node/heartbeat"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
)

// kwokConfiguration is what KWOK simulates, all of it from its own module: a node is ready at once, a pod as soon as it
// is scheduled, a Job's pod completes, and every container uses what the annotations kwok.x-k8s.io/usage-cpu and
// kwok.x-k8s.io/usage-memory of its pod say (1m and 1Mi by default).
var kwokConfiguration = []string{
	nodefast.DefaultNodeInit,
	heartbeat.DefaultNodeHeartbeat,
	podfast.DefaultPodReady,
	podfast.DefaultPodComplete,
	podfast.DefaultPodDelete,
	usage.DefaultUsageFromAnnotation,
	neverZero(resource.DefaultMetricsResource),
}

// neverZero starts the counters of used CPU above zero: KWOK counts from the first query, and metrics-server drops a
// container whose counter is 0, which would cost a new pod ten more seconds.
func neverZero(metrics string) string {
	const used = `pod.CumulativeUsage("cpu", container.name)`
	return strings.ReplaceAll(metrics, used, used+" + 0.001")
}

// kwokConfigurationFile is the path of KWOK's configuration.
func kwokConfigurationFile(folder Folder) string { return folder.Path("run", "kwok.yaml") }

func writeKWOKConfiguration(folder Folder) error {
	return writeFile(kwokConfigurationFile(folder), []byte(strings.Join(kwokConfiguration, "\n---\n")))
}
