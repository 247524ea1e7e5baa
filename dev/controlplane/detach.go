package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// detach runs `up` in a session of its own and returns when that control plane is ready or has failed.
func detach(folder Folder, options upOptions) error {
	if err := os.MkdirAll(string(folder), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(folder.Path("launcher.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.Command(self, "up", "--dir="+string(folder), fmt.Sprintf("--no-crds=%t", options.noCRDs))
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		_ = command.Wait()
		return fmt.Errorf("the control plane did not start; the end of %s:\n%s", log.Name(), tail(log.Name(), 20))
	}
	fmt.Print(line)
	return nil
}
