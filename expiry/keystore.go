package expiry

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"
)

// maxIterations bounds the key derivations that a PKCS#12 file may ask for, all
// of them together. openssl writes 2,048 and keytool 10,000 each; a million
// takes about half a second.
const maxIterations = 2_000_000

// isPKCS12 reports whether data begins like a PFX (RFC 7292 §4): a sequence that
// begins with the version 3.
func isPKCS12(data []byte) bool {
	if len(data) == 0 || data[0] != derSequence {
		return false
	}
	var outer, version asn1.RawValue
	if _, err := asn1.Unmarshal(data, &outer); err != nil {
		return false
	}
	_, err := asn1.Unmarshal(outer.Bytes, &version)
	return err == nil && version.Tag == asn1.TagInteger && bytes.Equal(version.Bytes, []byte{3})
}

func parsePKCS12(data []byte, password string) (*Certificate, error) {
	if !affordable(data, new(int64), 12) {
		return nil, fmt.Errorf("%w: its password would take minutes to check", ErrUnsupported)
	}
	key, first, others, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		trusted, noStore := pkcs12.DecodeTrustStore(data, password)
		if noStore == nil && len(trusted) > 0 {
			return &Certificate{Leaf: trusted[0], Chain: trusted[1:]}, nil
		}
		return nil, pkcs12Error(err)
	}
	return leafOf(key, append([]*x509.Certificate{first}, others...)), nil
}

func pkcs12Error(err error) error {
	if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
		return ErrPassword
	}
	return fmt.Errorf("%w: %s", ErrUnsupported, Printable(err.Error()))
}

// leafOf puts the certificate that belongs to the key first: PKCS#12 does not
// say in which order they come.
func leafOf(key any, certs []*x509.Certificate) *Certificate {
	c := &Certificate{Leaf: certs[0]}
	if signer, ok := key.(crypto.Signer); ok {
		for _, cert := range certs {
			if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(signer.Public()) {
				c.Leaf = cert
				break
			}
		}
	}
	for _, cert := range certs {
		if cert != c.Leaf {
			c.Chain = append(c.Chain, cert)
		}
	}
	return c
}

// affordable adds up the iterations of every key derivation that can be seen in
// the DER: wherever PKCS#12 has them, they follow the salt (RFC 7292 §4 and
// appendix C, RFC 8018 appendix A.2). Data within octet strings is looked into.
func affordable(der []byte, sum *int64, depth int) bool {
	salted := false // the element before was an octet string
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return true // not DER: not a derivation either
		}
		der = rest
		universal := v.Class == asn1.ClassUniversal
		if salted && universal && v.Tag == asn1.TagInteger {
			n := new(big.Int).SetBytes(v.Bytes)
			if !n.IsInt64() || n.Int64() > maxIterations {
				return false
			}
			*sum += n.Int64()
		}
		salted = universal && v.Tag == asn1.TagOctetString
		if *sum > maxIterations || (v.IsCompound || salted) && depth > 0 && !affordable(v.Bytes, sum, depth-1) {
			return false
		}
	}
	return true
}

const keystoreMagic = "\xfe\xed\xfe\xed"

func isKeystore(data []byte) bool { return bytes.HasPrefix(data, []byte(keystoreMagic)) }

// An entry of a Java keystore: a private key with its chain, or one trusted
// certificate.
type entry struct {
	alias   string
	private bool
	certs   []*x509.Certificate
}

// parseKeystore reads the certificates of a JKS file. Its own reader, because a
// length in a damaged file must not become an allocation of gigabytes, and
// because the certificates need no password: only the keys are encrypted.
func parseKeystore(data []byte, password string) (*Certificate, error) {
	body := len(data) - sha1.Size
	if body < len(keystoreMagic) {
		return nil, ErrDamaged
	}
	entries, err := keystoreEntries(data[:body])
	if err != nil {
		return nil, err
	}
	if password != "" && !keystoreIntact(data[:body], data[body:], password) {
		return nil, ErrPassword
	}
	return chooseEntry(entries)
}

// keystoreIntact checks the file's sum: SHA-1 over the password in UTF-16, a
// fixed text and the content.
func keystoreIntact(body, sum []byte, password string) bool {
	h := sha1.New()
	for _, unit := range utf16.Encode([]rune(password)) {
		h.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(body)
	return subtle.ConstantTimeCompare(h.Sum(nil), sum) == 1
}

func chooseEntry(entries []entry) (*Certificate, error) {
	var chosen, trusted []*x509.Certificate
	for _, e := range entries {
		switch {
		case !e.private:
			trusted = append(trusted, e.certs...)
		case len(e.certs) > 0 && (chosen == nil || strings.EqualFold(e.alias, "mykey")):
			chosen = e.certs
		}
	}
	if chosen == nil {
		chosen = trusted
	}
	if len(chosen) == 0 {
		return nil, ErrNoCertificate
	}
	return &Certificate{Leaf: chosen[0], Chain: chosen[1:]}, nil
}

// keystoreEntries walks through the file: magic, version, count, and for each
// entry tag, alias, date, the encrypted key (if it has one) and certificates.
func keystoreEntries(body []byte) ([]entry, error) {
	r := &javaReader{rest: body[len(keystoreMagic):]}
	version := r.uint32()
	if version != 1 && version != 2 {
		return nil, fmt.Errorf("%w: a keystore of version %d", ErrUnsupported, version)
	}
	var entries []entry
	for range r.uint32() {
		const privateKey, trustedCertificate = 1, 2
		tag := r.uint32()
		e := entry{alias: string(r.take(int(r.uint16()))), private: tag == privateKey}
		r.take(8) // date of creation
		count := uint32(1)
		switch tag {
		case privateKey:
			r.take(int(r.uint32()))
			count = r.uint32()
		case trustedCertificate:
		default:
			return nil, ErrDamaged
		}
		for range count {
			if version == 2 {
				r.take(int(r.uint16())) // "X.509"
			}
			der := r.take(int(r.uint32()))
			if r.short {
				return nil, ErrDamaged
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("%w: %s", ErrDamaged, Printable(err.Error()))
			}
			e.certs = append(e.certs, cert)
		}
		entries = append(entries, e)
	}
	if r.short || len(r.rest) != 0 {
		return nil, ErrDamaged
	}
	return entries, nil
}

// javaReader takes big-endian numbers and byte strings from the front of rest.
// Once something is missing it is short, and gives zeros for ever.
type javaReader struct {
	rest  []byte
	short bool
}

func (r *javaReader) take(n int) []byte {
	if r.short || n < 0 || n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *javaReader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *javaReader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}
