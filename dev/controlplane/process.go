package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// killAfter is how long a component may take to stop before it is killed.
const killAfter = 10 * time.Second

// Process is a component that was started.
type Process struct {
	Component
	command *exec.Cmd
	log     string
	exited  chan struct{}
}

// launch starts a component, which appends to its log, and writes its process id.
func launch(folder Folder, component Component) (*Process, error) {
	log, err := os.OpenFile(folder.Log(component.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(program(component.Name), component.Flags...)
	command.Dir = folder.Path("run")
	command.Stdout, command.Stderr = log, log
	if err := start(command); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", component.Name, err)
	}
	pid := []byte(fmt.Sprintln(command.Process.Pid))
	process := &Process{component, command, log.Name(), make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(process.exited)
	}()
	return process, writeFile(folder.PIDFile(component.Name), pid)
}

// terminate ends the process, first with SIGTERM, and returns when it is gone.
func (p *Process) terminate() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(killAfter):
		p.kill()
	}
}

// kill ends the process as a crash would, and returns when it is gone.
func (p *Process) kill() {
	_ = p.command.Process.Kill()
	<-p.exited
}

// gone returns whether the process has ended.
func (p *Process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// obituary returns how the process ended, with the end of its log.
func (p *Process) obituary() error {
	return fmt.Errorf("%s ended (%s); the end of %s:\n%s", p.Name, p.command.ProcessState, p.log, tail(p.log, 12))
}

// tail returns the last lines of a file.
func tail(path string, count int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(content)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-count):], "\n    ")
}

// program returns the path of a program that was built with this one.
func program(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// starts holds the commands to start, for the one thread that starts them.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

// start starts a command in a process group of its own, so that Ctrl-C does not reach it, and makes the kernel kill it
// when this launcher dies, however it dies.
//
// The kernel does that when the *thread* that started the command ends, and Go ends threads as it likes; so all
// commands are started by one thread that lives as long as the launcher.
func start(command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	result := make(chan error)
	starts <- func() { result <- command.Start() }
	return <-result
}
