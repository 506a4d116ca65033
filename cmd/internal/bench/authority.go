package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"time"
)

const day = 24 * time.Hour

// An authority issues certificates as public CAs do: by an intermediate, with
// P-256 keys.
type authority struct {
	root  *x509.Certificate
	inter tls.Certificate
}

func newAuthority() (*authority, error) {
	now := time.Now()
	root, err := certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Bench Root"}, NotBefore: now.Add(-1000 * day), NotAfter: now.Add(3000 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	if err != nil {
		return nil, err
	}
	inter, err := certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Bench Intermediate"}, NotBefore: now.Add(-500 * day), NotAfter: now.Add(1000 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &root)
	return &authority{root.Leaf, inter}, err
}

// issue makes a server's certificate for names that began some time ago.
func (a *authority) issue(age, left time.Duration, names ...string) (tls.Certificate, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, NotBefore: now.Add(-age), NotAfter: now.Add(left), DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf, err := certify(template, &a.inter)
	leaf.Certificate = append(leaf.Certificate, a.inter.Certificate[0])
	return leaf, err
}

// certify makes a key and has issuer sign for it; nil = it signs for itself.
func certify(template *x509.Certificate, issuer *tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	template.SerialNumber = new(big.Int).SetBytes(serial)
	parent, signer := template, any(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// chainPEM is what stands in a fullchain.pem.
func chainPEM(c tls.Certificate) []byte {
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, certificatePEM(der)...)
	}
	return text
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// keyPEM is what stands in a privkey.pem.
func keyPEM(c tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// systemRoots are the machine's trusted certificates, where distributions keep
// them: a look loads them all, so a bench without them would flatter.
func systemRoots(read func(string) ([]byte, error)) []byte {
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if data, err := read(path); err == nil {
			return slices.Concat(data, []byte("\n"))
		}
	}
	return nil
}
