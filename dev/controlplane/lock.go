package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// downPatience is how long `down` waits: longer than all components together may take to stop.
const downPatience = 90 * time.Second

// claim makes this process the launcher of the folder until it exits, and writes its process id.
//
// The lock shows whether a launcher runs, since the kernel releases it with the process; the id alone may belong to
// another process by now.
func (f Folder) claim() error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(f.launcherFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if locked, err := tryLock(file); err != nil {
		return err
	} else if !locked {
		return fmt.Errorf("a control plane is already running in %s; stop it with `controlplane down --dir %s`", f, f)
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	launcher = file
	return err
}

// launcher keeps the garbage collector from closing the locked file.
var launcher *os.File

func (f Folder) launcherFile() string { return f.Path("launcher.pid") }

// tryLock returns whether it locked the file; closing the file releases the lock.
func tryLock(file *os.File) (bool, error) {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// down asks the launcher of the folder to stop and waits until it is gone. Having none is not an error.
func down(folder Folder) error {
	file, err := os.Open(folder.launcherFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer file.Close()
	asked := false
	for begun := time.Now(); time.Since(begun) < downPatience; time.Sleep(20 * time.Millisecond) {
		if gone, err := tryLock(file); gone || err != nil {
			return err
		}
		if !asked {
			asked = terminate(folder.launcherFile())
		}
	}
	return fmt.Errorf("the launcher of %s did not stop within %s", folder, downPatience)
}

// terminate sends SIGTERM to the process named in a file, and returns whether it could.
func terminate(path string) bool {
	content, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	return err == nil && syscall.Kill(pid, syscall.SIGTERM) == nil
}
