// Package expiry reads certificates and says how long they have, what is wrong
// with them and how bad that is.
//
// It never asks for the time: whatever depends on it takes now. It opens no
// file and no connection (expiry/probe does), and it decides nothing about
// renewals (renew does). Everything in a certificate is taken for hostile: what
// it returns for people to read holds no control characters and is cut.
package expiry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Certificate is one certificate with what came along.
type Certificate struct {
	Leaf  *x509.Certificate
	Chain []*x509.Certificate // the others, in the order found
}

// ErrOtherKey says that a private key belongs to another certificate.
var ErrOtherKey = errors.New("the private key belongs to another certificate")

// Left is how long the certificate is still good for: notAfter − now. Zero or
// less means expired.
func (c *Certificate) Left(now time.Time) time.Duration { return c.Leaf.NotAfter.Sub(now) }

// Days is the floor of the whole days that are left: 0 on the last day,
// negative once expired.
func (c *Certificate) Days(now time.Time) int { return floorDays(c.Left(now)) }

func floorDays(left time.Duration) int {
	days := int(left / day)
	if left%day < 0 {
		days--
	}
	return days
}

// Lifetime is notAfter − notBefore.
func (c *Certificate) Lifetime() time.Duration { return c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) }

// Names are the DNS names and IP addresses that the certificate is for, or its
// common name if it has none. They are clean enough to be shown.
func (c *Certificate) Names() []string {
	names := make([]string, 0, len(c.Leaf.DNSNames)+len(c.Leaf.IPAddresses))
	for _, name := range c.Leaf.DNSNames {
		names = append(names, Printable(name))
	}
	for _, ip := range c.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && c.Leaf.Subject.CommonName != "" {
		names = append(names, Printable(c.Leaf.Subject.CommonName))
	}
	return names
}

// Missing returns those of the names that the certificate does not cover, by the
// rules of Uncovered. The common name does not count: no browser looks at it.
func (c *Certificate) Missing(names []string) []string {
	has := make([]string, 0, len(c.Leaf.DNSNames)+len(c.Leaf.IPAddresses))
	for _, name := range c.Leaf.DNSNames {
		if _, err := netip.ParseAddr(name); err != nil { // an address has its own field
			has = append(has, name)
		}
	}
	for _, ip := range c.Leaf.IPAddresses {
		has = append(has, ip.String())
	}
	return Uncovered(has, names)
}

// plainName is a DNS name in the form that names are compared in.
func plainName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// Subject is the certificate's first name.
func (c *Certificate) Subject() string {
	if names := c.Names(); len(names) > 0 {
		return names[0]
	}
	return Printable(c.Leaf.Subject.String())
}

// Issuer is the issuer's common name, or its organisation where it has none.
func (c *Certificate) Issuer() string {
	name := c.Leaf.Issuer.CommonName
	if name == "" {
		name = strings.Join(c.Leaf.Issuer.Organization, ", ")
	}
	return Printable(name)
}

// Fingerprint is the SHA-256 of the leaf's DER in lower-case hex.
func (c *Certificate) Fingerprint() string {
	sum := sha256.Sum256(c.Leaf.Raw)
	return hex.EncodeToString(sum[:])
}

// KeyType names the public key: ec256 ec384 ec521 ed25519 rsa2048 rsa4096 and
// so on, or "unknown".
func (c *Certificate) KeyType() string {
	switch key := c.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ec" + strconv.Itoa(key.Params().BitSize)
	case *rsa.PublicKey:
		return "rsa" + strconv.Itoa(key.N.BitLen())
	case ed25519.PublicKey:
		return "ed25519"
	}
	return "unknown"
}

// CertID is the certificate's identifier for ACME renewal information
// (RFC 9773 §4.1): the authority key identifier and the serial number's DER
// bytes, each in base64url, joined by a dot. It is empty without an authority
// key identifier.
func (c *Certificate) CertID() string {
	if len(c.Leaf.AuthorityKeyId) == 0 || c.Leaf.SerialNumber == nil {
		return ""
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64(c.Leaf.AuthorityKeyId) + "." + b64(serialBytes(c.Leaf.SerialNumber))
}

// serialBytes is the content of a positive INTEGER in DER: with a leading zero
// where the first bit would make it negative.
func serialBytes(serial *big.Int) []byte {
	b := serial.Bytes()
	if len(b) == 0 || b[0]&0x80 != 0 {
		return append([]byte{0}, b...)
	}
	return b
}

// SelfSigned reports whether the certificate is its own issuer.
func (c *Certificate) SelfSigned() bool {
	if !bytes.Equal(c.Leaf.RawIssuer, c.Leaf.RawSubject) {
		return false
	}
	err := c.Leaf.CheckSignature(c.Leaf.SignatureAlgorithm, c.Leaf.RawTBSCertificate, c.Leaf.Signature)
	// An old device's SHA-1 signature is not checked by Go; the names say enough.
	_, insecure := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || insecure
}

// Staging reports whether a staging environment of Let's Encrypt issued the
// certificate, so that nobody trusts it. A private test CA is not meant.
func (c *Certificate) Staging() bool {
	issuer := append([]string{c.Leaf.Issuer.CommonName}, c.Leaf.Issuer.Organization...)
	return slices.ContainsFunc(issuer, func(name string) bool {
		return strings.Contains(name, "(STAGING)") || strings.HasPrefix(name, "Fake LE ")
	})
}

// MatchesKey says why the private key (PEM with PKCS#8, PKCS#1 or SEC1; other
// blocks are passed over) is not the certificate's: ErrOtherKey, or that there
// is no readable key. The error holds nothing of the key.
func (c *Certificate) MatchesKey(keyPEM []byte) error {
	for block, rest := pem.Decode(keyPEM); block != nil; block, rest = pem.Decode(rest) {
		key, ok, err := parseKey(block)
		if !ok {
			continue
		}
		if err != nil {
			return err
		}
		if public, ok := c.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(key) {
			return nil
		}
		return ErrOtherKey
	}
	return errors.New("there is no private key in it")
}

// VerifyChain says why the certificate does not chain to one of the roots (nil =
// the system's) through what came along. Dates are judged apart, so they are kept
// out of it: now is clamped into the leaf's validity. The clamp and not, say, the
// middle of the validity, because an intermediate may be younger than the leaf.
func (c *Certificate) VerifyChain(roots *x509.CertPool, now time.Time) error {
	if last := c.Leaf.NotAfter.Add(-time.Second); now.After(last) {
		now = last
	}
	if now.Before(c.Leaf.NotBefore) {
		now = c.Leaf.NotBefore
	}
	intermediates := x509.NewCertPool()
	for _, cert := range c.Chain {
		intermediates.AddCert(cert)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now})
	if err != nil {
		return fmt.Errorf("verify the chain of %s: %w", c.Subject(), err)
	}
	return nil
}

// maxShown is how many characters of a foreign text are shown; a DNS name has
// no more (RFC 1035 §3.1).
const maxShown = 253

// Printable makes a foreign text fit to be shown: no control and format characters
// (line breaks, right-to-left overrides), valid UTF-8, at most maxShown long.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > maxShown {
		return string(runes[:maxShown])
	}
	return s
}

// Sentence ends a text with a period, unless it has an end already.
func Sentence(s string) string {
	if s == "" || strings.TrimRight(s, ".!?…") != s {
		return s
	}
	return s + "."
}
