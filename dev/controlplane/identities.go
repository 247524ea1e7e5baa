package main

import "net"

const (
	authorityName           = "ca"
	frontProxyAuthorityName = "front-proxy-ca"
	frontProxyClient        = "front-proxy-client"
	serviceAccountKey       = "service-account"
	serviceRange            = "10.96.0.0/16"
)

// apiserverServiceAddress is the first of serviceRange: the one that the Service `kubernetes` gets.
var apiserverServiceAddress = net.IPv4(10, 96, 0, 1)

// users are the clients of the API server, by the name of the file with their credentials.
var users = map[string]struct {
	name   string
	groups []string
}{
	"admin":                   {"admin", []string{"system:masters"}},
	"kube-controller-manager": {"system:kube-controller-manager", nil},
	"kube-scheduler":          {"system:kube-scheduler", nil},
	"kwok":                    {"kwok", nil},
	"metrics-server":          {"metrics-server", nil},
}

// writeIdentities creates every key, certificate and kubeconfig that the components need.
func writeIdentities(folder Folder, ports Ports) error {
	authority, err := newAuthority(folder, authorityName)
	if err != nil {
		return err
	}
	frontProxyAuthority, err := newAuthority(folder, frontProxyAuthorityName)
	if err != nil {
		return err
	}
	if err := frontProxyAuthority.issueClient(frontProxyClient, frontProxyClient); err != nil {
		return err
	}
	if _, err := writeKey(folder, serviceAccountKey); err != nil {
		return err
	}
	if err := writeServers(authority); err != nil {
		return err
	}
	return writeUsers(folder, authority, ports)
}

func writeServers(authority *Authority) error {
	servers := map[string][]string{
		"kube-apiserver": {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		"kwok":           {nodeName},
		"metrics-server": {"metrics-server.kube-system.svc"},
	}
	for name, hosts := range servers {
		if err := authority.issueServer(name+"-server", hosts...); err != nil {
			return err
		}
	}
	return nil
}

func writeUsers(folder Folder, authority *Authority, ports Ports) error {
	for file, user := range users {
		if err := authority.issueClient(file, user.name, user.groups...); err != nil {
			return err
		}
		if err := writeKubeconfig(folder, file, ports); err != nil {
			return err
		}
	}
	return nil
}
