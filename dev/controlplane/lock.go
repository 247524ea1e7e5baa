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

// downPatience is how long `down` waits: longer than all components may take to stop.
const downPatience = 90 * time.Second

// claim makes this process the launcher of the folder for as long as it lives, and notes its process id.
//
// The lock says whether a launcher runs, since the kernel releases it with the process; the id alone could by now be
// another's.
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
		return fmt.Errorf("a control plane runs in %s already; `controlplane down --dir %s` stops it", f, f)
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
	launcher = file
	return err
}

// launcher keeps the locked file from being closed by the garbage collector.
var launcher *os.File

func (f Folder) launcherFile() string { return f.Path("launcher.pid") }

// tryLock says whether it could lock the file; the lock ends when the file is closed.
func tryLock(file *os.File) (bool, error) {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// down asks the launcher of the folder to stop and waits until it is gone. It is fine if none runs.
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
	return fmt.Errorf("the launcher of %s did not stop in %s", folder, downPatience)
}

// terminate sends SIGTERM to the process that a file names, and says whether it could.
func terminate(path string) bool {
	content, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	return err == nil && syscall.Kill(pid, syscall.SIGTERM) == nil
}
