package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are the ports of 127.0.0.1 that one control plane listens on.
type Ports struct {
	Etcd, EtcdPeer, APIServer, KWOK, MetricsServer int
}

// Ports come from a range below the kernel's ephemeral ports (from 32768), so that nothing takes the port of a
// component while it is stopped.
const firstPort, lastPort = 20000, 29999

// freePorts finds ports that are not in use. They are held until all are found, so no two are the same.
func freePorts() (Ports, error) {
	var ports Ports
	for _, port := range []*int{&ports.Etcd, &ports.EtcdPeer, &ports.APIServer, &ports.KWOK, &ports.MetricsServer} {
		listener, err := listenSomewhere()
		if err != nil {
			return Ports{}, err
		}
		defer listener.Close()
		*port = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func listenSomewhere() (net.Listener, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return listener, nil
		}
	}
	return nil, errors.New("no free port on 127.0.0.1")
}
