package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// lifetime is that of every certificate: a local control plane is short-lived.
const lifetime = 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	folder      Folder
	name        string
}

// newAuthority creates an authority and writes its certificate and key as NAME.crt and NAME.key.
func newAuthority(folder Folder, name string) (*Authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	authority := &Authority{certificate: template, folder: folder, name: name}
	key, err := authority.sign(name, template)
	authority.key = key
	return authority, err
}

// File is the path of the authority's certificate.
func (a *Authority) File() string { return certificateFile(a.folder, a.name) }

// issueServer writes a certificate for a server at 127.0.0.1, localhost and the other names given.
func (a *Authority) issueServer(file string, names ...string) error {
	_, err := a.sign(file, &x509.Certificate{
		Subject:     pkix.Name{CommonName: file},
		DNSNames:    append(names, "localhost"),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), apiserverServiceAddress},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// issueClient writes a client certificate for a user with groups.
func (a *Authority) issueClient(file, user string, groups ...string) error {
	_, err := a.sign(file, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// sign creates a key, signs the certificate for it (an authority without a key signs itself), and writes both.
func (a *Authority) sign(file string, certificate *x509.Certificate) (crypto.Signer, error) {
	key, err := writeKey(a.folder, file)
	if err != nil {
		return nil, err
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	certificate.SerialNumber = big.NewInt(time.Now().UnixNano())
	certificate.NotBefore = time.Now().Add(-time.Minute)
	certificate.NotAfter = time.Now().Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, certificate, a.certificate, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return key, writePEM(certificateFile(a.folder, file), "CERTIFICATE", der)
}

// writeKey creates a private key and writes it as NAME.key, in a form from which the API server can also read the
// public key.
func writeKey(folder Folder, name string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(keyFile(folder, name), "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func certificateFile(folder Folder, name string) string {
	return folder.Path("certificates", name+".crt")
}

func keyFile(folder Folder, name string) string {
	return folder.Path("certificates", name+".key")
}
