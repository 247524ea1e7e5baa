package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// startPatience is how long a component may take until it is ready.
const startPatience = 2 * time.Minute

// ControlPlane holds the components and the processes of those that run.
type ControlPlane struct {
	folder Folder
	client *http.Client
	// fail ends the whole control plane when one of its components dies.
	fail context.CancelCauseFunc

	mutex sync.Mutex
	// components are in the order of their first start.
	components []Component
	running    map[string]*Process
}

// newControlPlane returns one without components; the folder already has the certificates.
func newControlPlane(folder Folder, fail context.CancelCauseFunc) (*ControlPlane, error) {
	authority, err := os.ReadFile(certificateFile(folder, authorityName))
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	return &ControlPlane{folder: folder, client: client, fail: fail, running: map[string]*Process{}}, nil
}

// start starts new components together and waits until each is ready.
func (c *ControlPlane) start(ctx context.Context, components ...Component) error {
	for _, component := range components {
		c.components = append(c.components, component)
		if err := c.launch(component); err != nil {
			return err
		}
	}
	begun := time.Now()
	for _, component := range components {
		if err := c.waitHealthy(ctx, component.Name); err != nil {
			return err
		}
		say("%s runs (%.1f s)", component.Name, time.Since(begun).Seconds())
	}
	return nil
}

// restart starts a component that was stopped and waits until it and all other running ones are ready: an API server
// takes a while to find etcd again.
func (c *ControlPlane) restart(ctx context.Context, name string) error {
	component, err := c.component(name)
	if err != nil {
		return err
	}
	if err := c.launch(component); err != nil {
		return err
	}
	for _, component := range c.components {
		if c.process(component.Name) == nil {
			continue
		}
		if err := c.waitHealthy(ctx, component.Name); err != nil {
			return err
		}
	}
	return nil
}

func (c *ControlPlane) component(name string) (Component, error) {
	for _, component := range c.components {
		if component.Name == name {
			return component, nil
		}
	}
	return Component{}, fmt.Errorf("unknown component %q", name)
}

func (c *ControlPlane) launch(component Component) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.running[component.Name] != nil {
		return fmt.Errorf("%s is already running", component.Name)
	}
	process, err := launch(c.folder, component)
	if err != nil {
		return err
	}
	c.running[component.Name] = process
	go c.watch(process)
	return nil
}

// watch fails the control plane if a component ends that was not stopped.
func (c *ControlPlane) watch(process *Process) {
	<-process.exited
	if c.process(process.Name) == process {
		c.fail(process.obituary())
	}
}

// process returns the process of a running component, or nil.
func (c *ControlPlane) process(name string) *Process {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.running[name]
}

// waitHealthy returns when a component is ready, or an error if it will not be.
func (c *ControlPlane) waitHealthy(ctx context.Context, name string) error {
	process := c.process(name)
	for begun := time.Now(); time.Since(begun) < startPatience; time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		} else if process == nil {
			return fmt.Errorf("%s was stopped while it was starting", name)
		} else if process.gone() {
			return process.obituary()
		} else if process.Health == "" || c.answers(process.Health) {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready after %s; the end of %s:\n%s",
		name, startPatience, process.log, tail(process.log, 12))
}

func (c *ControlPlane) answers(url string) bool {
	response, err := c.client.Get(url)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// stop ends a component, without failing the control plane, and returns when it is gone.
func (c *ControlPlane) stop(name string, end func(*Process)) error {
	c.mutex.Lock()
	process := c.running[name]
	delete(c.running, name)
	c.mutex.Unlock()
	if process == nil {
		return fmt.Errorf("component %q is not running", name)
	}
	end(process)
	return os.RemoveAll(c.folder.PIDFile(name))
}

// stopAll stops all components in reverse order, so that the API server stops before etcd, without which it would hang.
func (c *ControlPlane) stopAll() {
	for _, component := range slices.Backward(c.components) {
		if c.process(component.Name) != nil {
			_ = c.stop(component.Name, (*Process).terminate)
		}
	}
}

// kubectl runs kubectl as the administrator.
func (c *ControlPlane) kubectl(ctx context.Context, arguments ...string) error {
	arguments = append(arguments,
		"--kubeconfig="+userKubeconfig(c.folder, "admin"), "--cache-dir="+c.folder.Path("run", "kubectl"))
	command := exec.CommandContext(ctx, program("kubectl"), arguments...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := start(command); err != nil {
		return err
	}
	if err := command.Wait(); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", arguments[0], err, output.Bytes())
	}
	return nil
}
