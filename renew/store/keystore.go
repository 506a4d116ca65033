package store

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certsitter/certsitter/expiry"
)

// keystoreAlias is the entry that openHAB serves with; if it is missing,
// openHAB adds one of its own beside ours (CertificateGenerator.java).
const keystoreAlias = "mykey"

// minKeystorePassword is keytool's.
const minKeystorePassword = 6

// backupSuffix ends the name of the one copy of the keystore, as it was before
// the last change.
const backupSuffix = ".certsitter-old"

func checkKeystorePassword(password string) error {
	if len(password) < minKeystorePassword {
		return fmt.Errorf("keystore_password has fewer than %d characters, which Java refuses", minKeystorePassword)
	}
	if strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("keystore_password has characters that are not ASCII, which Java programs read in different ways: choose another one")
	}
	return nil
}

// Sentences about a keystore that cannot be taken over.
var (
	errKeystorePassword = errors.New("keystore_password does not open it: give the password that it was made with")
	errKeystoreDamaged  = errors.New("it is no Java keystore, or damaged: choose another path, or put a good one there")
	errKeystoreEntries  = errors.New("it is a PKCS#12 file with other entries than " + keystoreAlias + ", which would be lost, or in a form that cannot be read: convert it with keytool -importkeystore -deststoretype JKS")
)

// readKeystore reads a Java keystore. One in PKCS#12 is fine as long as our
// entry is all that is in it: as JKS it is written anew, and other entries
// would be lost. No data is an empty keystore.
func readKeystore(data []byte, password string) (keystore.KeyStore, error) {
	if len(data) == 0 {
		return emptyKeystore(), nil
	}
	// This checks lengths and costs, on which both libraries rely.
	_, err := expiry.ParseWithPassword(data, password)
	switch {
	case errors.Is(err, expiry.ErrPassword):
		return keystore.KeyStore{}, errKeystorePassword
	case isJKS(data) && (err == nil || errors.Is(err, expiry.ErrNoCertificate)):
		return readJKS(data, password)
	case data[0] == derSequence && err == nil:
		return readKeystore12(data, password)
	case data[0] == derSequence:
		return keystore.KeyStore{}, errKeystoreEntries
	}
	return keystore.KeyStore{}, errKeystoreDamaged
}

// derSequence is the first byte of every PKCS#12 file.
const derSequence = 0x30

func readJKS(data []byte, password string) (keystore.KeyStore, error) {
	ks := emptyKeystore()
	if err := ks.Load(bytes.NewReader(data), []byte(password)); err != nil {
		return keystore.KeyStore{}, errKeystoreDamaged
	}
	return ks, nil
}

func readKeystore12(data []byte, password string) (keystore.KeyStore, error) {
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	if err != nil || !onlyChain(leaf, chain) {
		return keystore.KeyStore{}, errKeystoreEntries
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return keystore.KeyStore{}, err
	}
	ks := emptyKeystore()
	return ks, setEntry(ks, bundleOf(encoded, &expiry.Certificate{Leaf: leaf, Chain: chain}), password, time.Time{})
}

// emptyKeystore orders its entries, so that tests can compare files.
func emptyKeystore() keystore.KeyStore {
	return keystore.New(keystore.WithCaseExactAliases(), keystore.WithOrderedAliases())
}

func isJKS(data []byte) bool { return bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")) }

// onlyChain reports whether every certificate in chain is an issuer of leaf,
// and none is there for its own sake.
func onlyChain(leaf *x509.Certificate, chain []*x509.Certificate) bool {
	for child := leaf; len(chain) > 0; {
		next := -1
		for i, c := range chain {
			if bytes.Equal(c.RawSubject, child.RawIssuer) {
				next = i
				break
			}
		}
		if next < 0 {
			return false
		}
		child = chain[next]
		chain = append(append([]*x509.Certificate{}, chain[:next]...), chain[next+1:]...)
	}
	return true
}

func setEntry(ks keystore.KeyStore, b Bundle, password string, now time.Time) error {
	key, _ := pem.Decode(b.Key)
	if key == nil {
		return errNoKey
	}
	for _, alias := range ks.Aliases() {
		if strings.EqualFold(alias, keystoreAlias) {
			ks.DeleteEntry(alias)
		}
	}
	entry := keystore.PrivateKeyEntry{CreationTime: now, PrivateKey: key.Bytes}
	for block, rest := pem.Decode(b.FullChain); block != nil; block, rest = pem.Decode(rest) {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X.509", Content: block.Bytes})
	}
	return ks.SetPrivateKeyEntry(keystoreAlias, entry, []byte(password))
}

// entryOf returns our entry as a bundle, false if it is missing or not readable.
func entryOf(ks keystore.KeyStore, password string) (b Bundle, c *expiry.Certificate, ok bool) {
	// keystore-go slices a damaged key without looking at its length.
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	entry, err := ks.GetPrivateKeyEntry(keystoreAlias, []byte(password))
	if err != nil || len(entry.CertificateChain) == 0 {
		return Bundle{}, nil, false
	}
	c = &expiry.Certificate{}
	for i, one := range entry.CertificateChain {
		cert, err := x509.ParseCertificate(one.Content)
		if err != nil {
			return Bundle{}, nil, false
		}
		if i == 0 {
			c.Leaf = cert
			continue
		}
		c.Chain = append(c.Chain, cert)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: entry.PrivateKey})
	return bundleOf(key, c), c, true
}

// keystoreForm puts the bundle into a keystore: it keeps the other entries,
// and the whole file if our entry is there already.
func keystoreForm(old []byte, b Bundle, password string, now time.Time) (form, error) {
	if err := checkKeystorePassword(password); err != nil {
		return form{}, err
	}
	ks, err := readKeystore(old, password)
	if err != nil {
		return form{}, err
	}
	have, certificate, ok := entryOf(ks, password)
	if ok && isJKS(old) && sameBundle(have, b) {
		return form{data: old, replaces: certificate}, nil
	}
	if err := setEntry(ks, b, password, now); err != nil {
		return form{}, fmt.Errorf("put certificate into keystore: %w", err)
	}
	var out bytes.Buffer
	if err := ks.Store(&out, []byte(password)); err != nil {
		return form{}, fmt.Errorf("write keystore: %w", err)
	}
	// A keystore that cannot be loaded ends all of openHAB's TLS, so it is read again first.
	again, err := readKeystore(out.Bytes(), password)
	if err != nil {
		return form{}, fmt.Errorf("read the new keystore again: %w", err)
	}
	if written, _, ok := entryOf(again, password); !ok || !sameBundle(written, b) {
		return form{}, errors.New("the new keystore does not hold what was put into it")
	}
	return form{data: out.Bytes(), replaces: certificate}, nil
}

// pkcs12Form makes a PKCS#12 file with AES-256 and SHA-256, which OpenSSL
// since 1.1 and Java since 8u301 read. An old one with the same contents stays:
// each new one has other salts.
func pkcs12Form(old []byte, b Bundle, password string) (form, error) {
	key, err := parseKey(b.Key)
	if err != nil {
		return form{}, err
	}
	c, err := expiry.Parse(b.FullChain)
	if err != nil {
		return form{}, err
	}
	have, certificate, ok := readPKCS12(old, password)
	if ok && sameBundle(have, b) {
		return form{data: old, replaces: certificate}, nil
	}
	data, err := pkcs12.Modern.Encode(key, c.Leaf, c.Chain, password)
	if err != nil {
		return form{}, fmt.Errorf("make PKCS#12 file: %w", err)
	}
	return form{data: data, replaces: certificate}, nil
}

// readPKCS12 reads a file that is ours or somebody's; false for what it cannot.
func readPKCS12(data []byte, password string) (Bundle, *expiry.Certificate, bool) {
	if _, err := expiry.ParseWithPassword(data, password); err != nil || isJKS(data) {
		return Bundle{}, nil, false
	}
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return Bundle{}, nil, false
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return Bundle{}, nil, false
	}
	c := &expiry.Certificate{Leaf: leaf, Chain: chain}
	return bundleOf(encoded, c), c, true
}

func sameBundle(a, b Bundle) bool {
	return sameKey(a.Key, b.Key) && bytes.Equal(a.FullChain, b.FullChain)
}
