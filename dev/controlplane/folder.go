package main

import (
	"os"
	"path/filepath"
)

// Folder is the absolute path of the folder with everything that belongs to a control plane.
type Folder string

// subfolders belong to the launcher: a new start empties them.
var subfolders = []string{"certificates", "etcd", "logs", "objects", "run"}

func newFolder(directory string) (Folder, error) {
	path, err := filepath.Abs(directory)
	return Folder(path), err
}

// Path returns the path of something in the folder.
func (f Folder) Path(parts ...string) string {
	return filepath.Join(append([]string{string(f)}, parts...)...)
}

// Kubeconfig is the administrator's: it exists while the control plane is ready.
func (f Folder) Kubeconfig() string { return f.Path("kubeconfig") }

// Log is the log file of a component.
func (f Folder) Log(component string) string { return f.Path("logs", component+".log") }

// PIDFile holds the process id of a running component.
func (f Folder) PIDFile(component string) string { return f.Path("run", component+".pid") }

// Empty removes what an earlier control plane left and prepares the folder for a new one.
func (f Folder) Empty() error {
	if err := os.RemoveAll(f.Kubeconfig()); err != nil {
		return err
	}
	for _, name := range subfolders {
		if err := os.RemoveAll(f.Path(name)); err != nil {
			return err
		}
		if err := os.MkdirAll(f.Path(name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file that only its owner can read, atomically: a reader sees all of it or nothing.
func writeFile(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
