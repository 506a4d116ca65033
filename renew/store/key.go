package store

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
)

// accountKeyType: P-256 is what every ACME server takes (RFC 8555 §6.2).
const accountKeyType = "ec256"

// keyMakers are the key types of the configuration.
var keyMakers = map[string]func() (crypto.Signer, error){
	"ec256":   ecKey(elliptic.P256()),
	"ec384":   ecKey(elliptic.P384()),
	"rsa2048": rsaKey(2048),
	"rsa3072": rsaKey(3072),
	"rsa4096": rsaKey(4096),
}

func ecKey(curve elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
}

func rsaKey(bits int) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
}

// NewKey makes a private key: ec256, ec384, rsa2048, rsa3072 or rsa4096. It
// comes as PEM with PKCS#8 (RFC 5208), which everything reads.
func NewKey(keyType string) ([]byte, error) {
	newKey, ok := keyMakers[keyType]
	if !ok {
		return nil, fmt.Errorf("key type %q is none of ec256, ec384, rsa2048, rsa3072, rsa4096", keyType)
	}
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return encodeKey(key)
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// errNoKey never quotes what it read.
var errNoKey = errors.New("no private key that can be read")

// parseKey returns the first private key in data, which may hold certificates
// and other blocks too.
func parseKey(data []byte) (crypto.Signer, error) {
	parsers := map[string]func([]byte) (any, error){
		"PRIVATE KEY":     x509.ParsePKCS8PrivateKey,
		"RSA PRIVATE KEY": func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
		"EC PRIVATE KEY":  func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		parse, ok := parsers[block.Type]
		if !ok {
			continue
		}
		key, err := parse(block.Bytes)
		if err != nil {
			return nil, errNoKey
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, errNoKey
	}
	return nil, errNoKey
}

// normalKey rewrites the first private key in data as PEM with PKCS#8.
func normalKey(data []byte) ([]byte, error) {
	key, err := parseKey(data)
	if err != nil {
		return nil, err
	}
	return encodeKey(key)
}

// sameKey reports whether both PEM texts hold the same private key.
func sameKey(a, b []byte) bool {
	ka, errA := normalKey(a)
	kb, errB := normalKey(b)
	return errA == nil && errB == nil && bytes.Equal(ka, kb)
}

// maxCommonName is RFC 5280's ub-common-name; a longer first name is in the
// subject alternative names only.
const maxCommonName = 64

// newCSR makes the certificate request (DER) for names, of which those that
// are IP addresses become such. The common name is the first DNS name.
func newCSR(keyPEM []byte, names []string) ([]byte, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	var request x509.CertificateRequest
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			request.IPAddresses = append(request.IPAddresses, ip)
			continue
		}
		request.DNSNames = append(request.DNSNames, strings.ToLower(name))
	}
	if len(request.DNSNames) > 0 && len(request.DNSNames[0]) <= maxCommonName {
		request.Subject = pkix.Name{CommonName: request.DNSNames[0]}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &request, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// checkCSR reports whether a stored request was made with the key for names.
func checkCSR(der, keyPEM []byte, names []string) error {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return err
	}
	public, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return errors.New("the request is of another key")
	}
	have := append([]string{}, request.DNSNames...)
	for _, ip := range request.IPAddresses {
		have = append(have, ip.String())
	}
	if nameSet(have) != nameSet(names) {
		return errors.New("the request is for other names")
	}
	return nil
}
