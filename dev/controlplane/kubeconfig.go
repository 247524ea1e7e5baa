package main

import (
	"encoding/base64"
	"fmt"
	"os"
)

const kubeconfigFormat = `apiVersion: v1
kind: Config
current-context: tidegate
contexts: [{name: tidegate, context: {cluster: tidegate, user: %[1]s}}]
clusters: [{name: tidegate, cluster: {server: "https://127.0.0.1:%[2]d", certificate-authority-data: %[3]s}}]
users: [{name: %[1]s, user: {client-certificate-data: %[4]s, client-key-data: %[5]s}}]
`

// userKubeconfig is the path of the kubeconfig of one of the users.
func userKubeconfig(folder Folder, user string) string {
	return folder.Path("certificates", user+".kubeconfig")
}

// writeKubeconfig writes the kubeconfig of a user, which holds the credentials themselves.
func writeKubeconfig(folder Folder, user string, ports Ports) error {
	files := []string{certificateFile(folder, authorityName), certificateFile(folder, user), keyFile(folder, user)}
	encoded := make([]string, len(files))
	for i, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		encoded[i] = base64.StdEncoding.EncodeToString(content)
	}
	kubeconfig := fmt.Sprintf(kubeconfigFormat, user, ports.APIServer, encoded[0], encoded[1], encoded[2])
	return writeFile(userKubeconfig(folder, user), []byte(kubeconfig))
}
