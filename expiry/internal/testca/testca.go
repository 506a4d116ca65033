// Package testca makes certificates for tests: authorities, intermediates and
// leaves with any dates and names. They are real ones of crypto/x509, and their
// keys are as weak as speed allows. It is for tests and never for anything else.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Pair is a certificate and its private key. An authority is one, too.
type Pair struct {
	t    testing.TB
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Root makes a certificate authority.
func Root(t testing.TB, name string, from, to time.Time) *Pair {
	return issue(t, authority(name, from, to), nil, nil)
}

// Intermediate makes an authority that parent vouches for.
func (parent *Pair) Intermediate(name string, from, to time.Time) *Pair {
	return issue(parent.t, authority(name, from, to), parent, nil)
}

// CrossSigned is the authority's key and name, certified by another authority.
func (ca *Pair) CrossSigned(by *Pair, from, to time.Time) *Pair {
	return issue(ca.t, authority(ca.Cert.Subject.CommonName, from, to), by, ca.Key)
}

// Leaf makes a server's certificate. IP addresses among the names are put in as
// such.
func (parent *Pair) Leaf(from, to time.Time, names ...string) *Pair {
	return issue(parent.t, server(from, to, names...), parent, nil)
}

// Issue makes a certificate from any template; a nil key means a new one.
func (parent *Pair) Issue(template *x509.Certificate, key crypto.Signer) *Pair {
	return issue(parent.t, template, parent, key)
}

// SelfSigned makes a server's certificate that is its own issuer.
func SelfSigned(t testing.TB, from, to time.Time, names ...string) *Pair {
	return issue(t, server(from, to, names...), nil, nil)
}

func authority(name string, from, to time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func server(from, to time.Time, names ...string) *x509.Certificate {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

func issue(t testing.TB, template *x509.Certificate, by *Pair, key crypto.Signer) *Pair {
	t.Helper()
	if key == nil {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = fresh
	}
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber = serial.Add(serial, big.NewInt(1))
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Cert, by.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Pair{t: t, Cert: cert, Key: key}
}

// PEM is the certificate, with others behind it.
func (p *Pair) PEM(others ...*Pair) []byte {
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw})
	for _, other := range others {
		out = append(out, other.PEM()...)
	}
	return out
}

// KeyPEM is the private key in PKCS#8.
func (p *Pair) KeyPEM() []byte {
	p.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TLS is what a server needs, with others behind the certificate.
func (p *Pair) TLS(others ...*Pair) tls.Certificate {
	out := tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key}
	for _, other := range others {
		out.Certificate = append(out.Certificate, other.Cert.Raw)
	}
	return out
}

// Pool is a set of roots with this authority alone.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Cert)
	return pool
}
