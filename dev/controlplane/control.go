package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// controlSocket is where a launcher accepts commands: a line such as "stop-component etcd". The answer is empty on
// success, otherwise the error.
//
// The name is relative to DIR/run because the path of a socket may have at most 107 bytes.
const controlSocket = "control.sock"

// obey accepts commands until the context ends.
func obey(ctx context.Context, c *ControlPlane, listener net.Listener) {
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go answer(ctx, c, connection)
	}
}

func listenInside(folder Folder) (net.Listener, error) {
	if err := os.Chdir(folder.Path("run")); err != nil {
		return nil, err
	}
	return net.Listen("unix", controlSocket)
}

func answer(ctx context.Context, c *ControlPlane, connection net.Conn) {
	defer connection.Close()
	line, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return
	}
	command, name, _ := strings.Cut(strings.TrimSpace(line), " ")
	say("%s %s", command, name)
	switch command {
	case "stop-component":
		err = c.stop(name, (*Process).kill)
	case "start-component":
		err = c.restart(ctx, name)
	default:
		err = fmt.Errorf("unknown command %q", command)
	}
	if err != nil {
		fmt.Fprintln(connection, err)
	}
}

// order makes the launcher of the folder stop or start a component and returns when that is done.
func order(folder Folder, command, name string) error {
	if name == "" {
		return fmt.Errorf("%s needs the name of a component", command)
	}
	if err := os.Chdir(folder.Path("run")); err != nil {
		return err
	}
	connection, err := net.Dial("unix", controlSocket)
	if err != nil {
		return fmt.Errorf("no control plane is ready in %s: %w", folder, err)
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "%s %s\n", command, name); err != nil {
		return err
	}
	problem, err := io.ReadAll(connection)
	if err == nil && len(problem) > 0 {
		err = errors.New(strings.TrimSpace(string(problem)))
	}
	return err
}
