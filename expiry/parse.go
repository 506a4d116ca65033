package expiry

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// What Parse and ParseWithPassword may find wrong. Their texts continue a
// sentence that begins with the file's name.
var (
	ErrNoCertificate = errors.New("there is no certificate in it")
	ErrDamaged       = errors.New("the certificate in it is damaged")
	ErrPassword      = errors.New("the password is missing or wrong")
	ErrUnsupported   = errors.New("it has a form that cannot be read")
)

// utf8Mark is what some editors put before the text. encoding/pem does not see
// a block behind it and would take the intermediate for the leaf.
var utf8Mark = []byte("\xef\xbb\xbf")

var beginCertificate = []byte("-----BEGIN CERTIFICATE-----")

// Parse reads a certificate and its chain from PEM (any number of blocks, with
// blocks of other types and text between them) or DER. The first certificate is
// the leaf, as it is for every server. What comes after the leaf and cannot be
// parsed is left out. The error is ErrNoCertificate, ErrDamaged or, for a
// PKCS#12 file or a Java keystore, ErrPassword.
func Parse(data []byte) (*Certificate, error) {
	if c := parseDER(data); c != nil {
		return c, nil
	}
	c, err := parsePEM(data)
	if errors.Is(err, ErrNoCertificate) && (isPKCS12(data) || isKeystore(data)) {
		return nil, ErrPassword
	}
	return c, err
}

// ParseWithPassword reads what Parse reads, and the forms that a password
// protects: PKCS#12 and Java's keystore (JKS). Of a keystore's entries the one
// with the alias "mykey" is taken, else the first that has a private key, else
// the trusted certificates. A keystore is read without a password, too: only
// its check sum depends on it. Further errors: ErrPassword, ErrUnsupported.
func ParseWithPassword(data []byte, password string) (*Certificate, error) {
	switch {
	case isKeystore(data):
		return parseKeystore(data, password)
	case isPKCS12(data):
		return parsePKCS12(data, password)
	}
	return Parse(data)
}

// derSequence is the first byte of everything in DER that is read here.
const derSequence = 0x30

// parseDER returns nil for what is no DER certificate.
func parseDER(data []byte) *Certificate {
	if len(data) == 0 || data[0] != derSequence {
		return nil
	}
	certs, err := x509.ParseCertificates(data)
	if err != nil || len(certs) == 0 {
		return nil
	}
	return &Certificate{Leaf: certs[0], Chain: certs[1:]}
}

func parsePEM(data []byte) (*Certificate, error) {
	data = bytes.TrimPrefix(data, utf8Mark)
	var c *Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case c != nil && err != nil:
			// A part of the chain: if it is needed, VerifyChain will say so.
		case c != nil:
			c.Chain = append(c.Chain, cert)
		case err != nil:
			return nil, fmt.Errorf("%w: %s", ErrDamaged, Printable(err.Error()))
		case bytes.Count(data[:len(data)-len(rest)], beginCertificate) > 1:
			// encoding/pem passes over a block that it cannot decode. Then this
			// one is not the leaf.
			return nil, fmt.Errorf("%w: its first block cannot be decoded", ErrDamaged)
		default:
			c = &Certificate{Leaf: cert}
		}
	}
	if c != nil {
		return c, nil
	}
	if bytes.Contains(data, beginCertificate) {
		return nil, fmt.Errorf("%w: its block cannot be decoded", ErrDamaged)
	}
	return nil, ErrNoCertificate
}

// parseKey reads the private key in a PEM block; ok is false if it holds none.
func parseKey(block *pem.Block) (public crypto.PublicKey, ok bool, err error) {
	var key any
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, true, errors.New("the private key is protected by a password")
	default:
		return nil, false, nil
	}
	if block.Headers["DEK-Info"] != "" { // RFC 1421 §4.6.1.3: the old form of encryption
		return nil, true, errors.New("the private key is protected by a password")
	}
	if err != nil {
		return nil, true, errors.New("the private key is damaged")
	}
	signer, isSigner := key.(crypto.Signer)
	if !isSigner {
		return nil, true, errors.New("the private key has a form that cannot be read")
	}
	return signer.Public(), true, nil
}
