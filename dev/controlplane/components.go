package main

import "fmt"

// Component is a program of the control plane.
type Component struct {
	// Name is the program's file name, and the component's in logs, files and subcommands.
	Name string
	// Flags are those that it is always started with.
	Flags []string
	// Health is a URL that answers 200 when it is ready; empty if it only has to run.
	Health string
}

func etcd(folder Folder, ports Ports) Component {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports.Etcd), fmt.Sprintf("http://127.0.0.1:%d", ports.EtcdPeer)
	return Component{
		Name: "etcd",
		Flags: []string{
			"--data-dir=" + folder.Path("etcd"),
			"--listen-client-urls=" + client,
			"--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer,
			"--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
			"--unsafe-no-fsync",
		},
		Health: client + "/readyz",
	}
}

func kubeAPIServer(folder Folder, ports Ports) Component {
	return Component{
		Name: "kube-apiserver",
		Flags: []string{
			fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", ports.Etcd),
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", ports.APIServer),
			"--tls-cert-file=" + certificateFile(folder, "kube-apiserver-server"),
			"--tls-private-key-file=" + keyFile(folder, "kube-apiserver-server"),
			"--client-ca-file=" + certificateFile(folder, authorityName),
			"--authorization-mode=Node,RBAC",
			"--allow-privileged=true",
			"--service-cluster-ip-range=" + serviceRange,
			// The reconciler does not accept a loopback address as an endpoint of the Service `kubernetes`.
			"--endpoint-reconciler-type=none",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + keyFile(folder, serviceAccountKey),
			"--service-account-signing-key-file=" + keyFile(folder, serviceAccountKey),
			"--requestheader-client-ca-file=" + certificateFile(folder, frontProxyAuthorityName),
			"--requestheader-allowed-names=" + frontProxyClient,
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + certificateFile(folder, frontProxyClient),
			"--proxy-client-key-file=" + keyFile(folder, frontProxyClient),
			"--audit-log-path=" + folder.Path("logs", "audit.log"),
			"--audit-policy-file=" + objectPath(folder, "audit-policy.yaml"),
		},
		Health: fmt.Sprintf("https://127.0.0.1:%d/readyz", ports.APIServer),
	}
}

func kubeControllerManager(folder Folder) Component {
	return Component{
		Name: "kube-controller-manager",
		Flags: []string{
			"--kubeconfig=" + userKubeconfig(folder, "kube-controller-manager"),
			"--secure-port=0",
			// Without leader election it survives for a while without an API server.
			"--leader-elect=false",
			"--use-service-account-credentials=true",
			unthrottled[0], unthrottled[1],
			"--service-account-private-key-file=" + keyFile(folder, serviceAccountKey),
			"--root-ca-file=" + certificateFile(folder, authorityName),
			"--cluster-signing-cert-file=" + certificateFile(folder, authorityName),
			"--cluster-signing-key-file=" + keyFile(folder, authorityName),
			"--horizontal-pod-autoscaler-sync-period=3s",
			"--horizontal-pod-autoscaler-cpu-initialization-period=5s",
			"--horizontal-pod-autoscaler-initial-readiness-delay=2s",
		},
	}
}

func kubeScheduler(folder Folder) Component {
	return Component{
		Name: "kube-scheduler",
		Flags: []string{
			"--kubeconfig=" + userKubeconfig(folder, "kube-scheduler"),
			"--secure-port=0",
			"--leader-elect=false",
			unthrottled[0], unthrottled[1],
		},
	}
}

func kwok(folder Folder, ports Ports) Component {
	address := fmt.Sprintf("127.0.0.1:%d", ports.KWOK)
	return Component{
		Name: "kwok",
		Flags: []string{
			"--kubeconfig=" + userKubeconfig(folder, "kwok"),
			"--config=" + kwokConfigurationFile(folder),
			"--manage-all-nodes",
			"--cidr=10.244.0.1/16",
			"--node-ip=127.0.0.1",
			fmt.Sprintf("--node-port=%d", ports.KWOK),
			"--server-address=" + address,
			"--tls-cert-file=" + certificateFile(folder, "kwok-server"),
			"--tls-private-key-file=" + keyFile(folder, "kwok-server"),
		},
		Health: "https://" + address + "/healthz",
	}
}

func metricsServer(folder Folder, ports Ports) Component {
	kubeconfig := userKubeconfig(folder, "metrics-server")
	return Component{
		Name: "metrics-server",
		Flags: []string{
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", ports.MetricsServer),
			"--tls-cert-file=" + certificateFile(folder, "metrics-server-server"),
			"--tls-private-key-file=" + keyFile(folder, "metrics-server-server"),
			"--kubelet-certificate-authority=" + certificateFile(folder, authorityName),
			"--kubelet-use-node-status-port",
			"--kubelet-preferred-address-types=InternalIP",
			// The shortest resolution that it accepts, and a timeout that fits into it.
			"--metric-resolution=10s",
			"--kubelet-request-timeout=5s",
		},
		Health: fmt.Sprintf("https://127.0.0.1:%d/livez", ports.MetricsServer),
	}
}

// unthrottled removes a client's rate limit: by default the controllers wait for seconds.
var unthrottled = []string{"--kube-api-qps=1000", "--kube-api-burst=1000"}
