// Command controlplane runs a real Kubernetes control plane on this machine: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, metrics-server, and KWOK, which simulates the node and the pods.
//
// Everything that belongs to a control plane (state, certificates, logs) is in one folder, and it uses free ports of
// 127.0.0.1, so that several can run side by side.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

const help = `usage:
  controlplane up --dir DIR [--detach | --until-stdin-closes] [--no-crds]
                                          start, wait until ready, write DIR/kubeconfig, run until stopped
  controlplane down --dir DIR             stop the control plane in DIR, if any
  controlplane stop-component --dir DIR NAME
  controlplane start-component --dir DIR NAME
                                          kill one component, such as etcd, and start it again as it was`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

// run performs the subcommand that the arguments name.
func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no subcommand\n" + help)
	}
	command, arguments := arguments[0], arguments[1:]
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	directory := flags.String("dir", "", "")
	var options upOptions
	if command == "up" {
		flags.BoolVar(&options.detach, "detach", false, "")
		flags.BoolVar(&options.untilStdinCloses, "until-stdin-closes", false, "")
		flags.BoolVar(&options.noCRDs, "no-crds", false, "")
	}
	if err := flags.Parse(arguments); errors.Is(err, flag.ErrHelp) {
		fmt.Println(help)
		return nil
	} else if err != nil {
		return fmt.Errorf("%w\n%s", err, help)
	}
	if *directory == "" {
		return errors.New("--dir is required\n" + help)
	}
	folder, err := newFolder(*directory)
	if err != nil {
		return err
	}
	switch command {
	case "up":
		return up(folder, options)
	case "down":
		return down(folder)
	case "stop-component", "start-component":
		return order(folder, command, flags.Arg(0))
	default:
		return fmt.Errorf("unknown subcommand %q\n%s", command, help)
	}
}

// say prints progress to stderr; stdout is for the `export` line.
func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
}
