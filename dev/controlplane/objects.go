package main

import (
	"bytes"
	"embed"
	"encoding/base64"
	"io/fs"
	"os"
	"path"
	"text/template"
)

// nodeName is the name of the one node.
const nodeName = "node-0"

// objectFiles are applied to a new cluster; those in objects are templates.
//
//go:embed objects crds
var objectFiles embed.FS

// objectPath is the path of a filled-in template of the objects folder.
func objectPath(folder Folder, file string) string { return folder.Path("objects", file) }

// writeObjects fills in the templates of the objects folder.
func writeObjects(folder Folder, ports Ports) error {
	authority, err := os.ReadFile(certificateFile(folder, authorityName))
	if err != nil {
		return err
	}
	values := map[string]any{
		"Authority": base64.StdEncoding.EncodeToString(authority),
		"Node":      nodeName,
		"Ports":     ports,
	}
	templates, err := template.ParseFS(objectFiles, "objects/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range templates.Templates() {
		var filled bytes.Buffer
		if err := file.Execute(&filled, values); err != nil {
			return err
		}
		if err := writeFile(objectPath(folder, file.Name()), filled.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// writeCRDs writes the custom resource definitions and returns their paths.
func writeCRDs(folder Folder) ([]string, error) {
	files, err := fs.Glob(objectFiles, "crds/*.yaml")
	if err != nil {
		return nil, err
	}
	var written []string
	for _, file := range files {
		content, err := objectFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		target := objectPath(folder, path.Base(file))
		if err := writeFile(target, content); err != nil {
			return nil, err
		}
		written = append(written, target)
	}
	return written, nil
}
