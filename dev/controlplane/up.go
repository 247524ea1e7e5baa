package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// upOptions are the flags of `up`.
type upOptions struct {
	detach           bool
	untilStdinCloses bool
	noCRDs           bool
}

// errAsked is the cause when a control plane is asked to stop.
var errAsked = errors.New("asked to stop")

// up runs a control plane in the folder until it is asked to stop, or starts a background process for that.
func up(folder Folder, options upOptions) error {
	if options.detach {
		return detach(folder, options)
	}
	if err := folder.claim(); err != nil {
		return err
	}
	if err := folder.Empty(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(context.Background())
	endWhenAsked(fail, options.untilStdinCloses)
	err := serve(ctx, fail, folder, options)
	if errors.Is(err, errAsked) {
		say("stopped")
		return nil
	}
	return err
}

// endWhenAsked ends the control plane on SIGINT and SIGTERM and, optionally, at the end of stdin.
func endWhenAsked(fail context.CancelCauseFunc, untilStdinCloses bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		fail(errAsked)
	}()
	if untilStdinCloses {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			fail(errAsked)
		}()
	}
}

// serve starts all components, announces when they are ready and stops them when the context ends. It returns why.
func serve(ctx context.Context, fail context.CancelCauseFunc, folder Folder, options upOptions) error {
	begun := time.Now()
	ports, err := prepare(folder)
	if err != nil {
		return err
	}
	controlPlane, err := newControlPlane(folder, fail)
	if err != nil {
		return err
	}
	defer controlPlane.stopAll()
	if err := boot(ctx, controlPlane, ports, options); err != nil {
		return err
	}
	listener, err := listenInside(folder)
	if err != nil {
		return err
	}
	go obey(ctx, controlPlane, listener)
	defer os.Remove(folder.Kubeconfig())
	if err := announce(folder); err != nil {
		return err
	}
	say("ready after %.1f s", time.Since(begun).Seconds())
	<-ctx.Done()
	return context.Cause(ctx)
}

// prepare chooses the ports and writes every file that the components read.
func prepare(folder Folder) (Ports, error) {
	ports, err := freePorts()
	if err != nil {
		return ports, err
	}
	if err := writeIdentities(folder, ports); err != nil {
		return ports, err
	}
	if err := writeObjects(folder, ports); err != nil {
		return ports, err
	}
	return ports, writeKWOKConfiguration(folder)
}

// boot starts the components in the order of their dependencies and waits until the cluster is usable.
func boot(ctx context.Context, c *ControlPlane, ports Ports, options upOptions) error {
	folder := c.folder
	if err := c.start(ctx, etcd(folder, ports)); err != nil {
		return err
	}
	if err := c.start(ctx, kubeAPIServer(folder, ports)); err != nil {
		return err
	}
	if err := applyObjects(ctx, c, options); err != nil {
		return err
	}
	err := c.start(ctx,
		kubeControllerManager(folder), kubeScheduler(folder), kwok(folder, ports), metricsServer(folder, ports))
	if err != nil {
		return err
	}
	return waitUsable(ctx, c, options)
}

// applyObjects creates what the other components need: their permissions, the node and the custom resource definitions.
func applyObjects(ctx context.Context, c *ControlPlane, options upOptions) error {
	arguments := []string{"apply", "--server-side"}
	for _, file := range []string{"kwok.yaml", "metrics-server.yaml", "node.yaml"} {
		arguments = append(arguments, "--filename="+objectPath(c.folder, file))
	}
	if !options.noCRDs {
		crds, err := writeCRDs(c.folder)
		if err != nil {
			return err
		}
		for _, crd := range crds {
			arguments = append(arguments, "--filename="+crd)
		}
	}
	return c.kubectl(ctx, arguments...)
}

// waitUsable returns when pods can be created and run, and metrics and custom resources are served.
func waitUsable(ctx context.Context, c *ControlPlane, options upOptions) error {
	steps := [][]string{
		{"apply", "--server-side", "--filename=" + objectPath(c.folder, "metrics-api.yaml")},
		{"wait", "--for=create", "serviceaccount/default", "--namespace=default"},
		{"wait", "--for=condition=Ready", "node/" + nodeName},
		{"wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io"},
	}
	if !options.noCRDs {
		steps = append(steps, []string{"wait", "--for=condition=Established", "crd", "--all"})
	}
	for _, step := range steps {
		if err := c.kubectl(ctx, step...); err != nil {
			return err
		}
	}
	return nil
}

// announce writes the kubeconfig, which shows that the control plane is ready, and prints a line to evaluate.
func announce(folder Folder) error {
	content, err := os.ReadFile(userKubeconfig(folder, "admin"))
	if err != nil {
		return err
	}
	if err := writeFile(folder.Kubeconfig(), content); err != nil {
		return err
	}
	_, err = fmt.Printf("export KUBECONFIG=%s\n", folder.Kubeconfig())
	return err
}
