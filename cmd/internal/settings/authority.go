package settings

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// The two words for a CA, and where Let's Encrypt's directories are.
const (
	letsEncrypt        = "letsencrypt"
	letsEncryptStaging = "letsencrypt-staging"

	letsEncryptURL        = "https://acme-v02.api.letsencrypt.org/directory"
	letsEncryptStagingURL = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// stagings of public CAs: directory → the directory for trying. One that
// stands for itself is a staging environment.
var stagings = map[string]string{
	letsEncryptURL:        letsEncryptStagingURL,
	letsEncryptStagingURL: letsEncryptStagingURL,
	"https://dv.acme-v02.api.pki.goog/directory":      "https://dv.acme-v02.test-api.pki.goog/directory",
	"https://dv.acme-v02.test-api.pki.goog/directory": "https://dv.acme-v02.test-api.pki.goog/directory",
}

// directoryOf resolves a CA to the URL of its directory (RFC 8555 §7.1.1).
// Errors are sentences.
func directoryOf(ca string) (string, error) {
	switch ca {
	case letsEncrypt:
		return letsEncryptURL, nil
	case letsEncryptStaging:
		return letsEncryptStagingURL, nil
	}
	u, err := url.Parse(ca)
	switch {
	case err != nil:
		return "", errors.New("is no URL: needs letsencrypt, letsencrypt-staging or the https URL of a CA's directory")
	case !strings.Contains(ca, "://"):
		if near := closest(ca, []string{letsEncrypt, letsEncryptStaging}); near != "" {
			return "", fmt.Errorf("%q is not known: did you mean %s?", ca, near)
		}
		return "", fmt.Errorf("%q is not known: needs letsencrypt, letsencrypt-staging or the https URL of a CA's directory", ca)
	case u.Scheme != "https":
		return "", errors.New("needs an https URL: a CA is never spoken to in the clear")
	case u.Host == "" || u.Hostname() == "":
		return "", errors.New("has no host: needs the https URL of a CA's directory")
	case u.User != nil:
		return "", errors.New("holds a user or a password: an ACME directory needs none")
	}
	u.Fragment = ""
	return u.String(), nil
}

// checkAuthority checks ca, ca_roots and the account binding at the top, or of
// one certificate. It gives what ca_roots holds.
func (c *checker) checkAuthority(p place, ca, roots, kid, hmac string) []byte {
	if ca != "" {
		if _, err := directoryOf(ca); err != nil {
			p.key("ca").refuse("%s", err)
		}
	}
	checkTogether(p, "eab_kid", kid, "eab_hmac", hmac)
	if hmac != "" {
		if err := checkHMAC(hmac); err != nil {
			p.key("eab_hmac").refuse("%s", err)
		}
	}
	return c.roots(p.key("ca_roots"), roots)
}

// checkTogether refuses one of two keys without the other.
func checkTogether(p place, a, valueA, b, valueB string) {
	if valueA != "" && valueB == "" && p.key(b).ok() {
		p.key(a).refuse("needs %s as well", b)
	}
	if valueB != "" && valueA == "" && p.key(a).ok() {
		p.key(b).refuse("needs %s as well", a)
	}
}

func checkHMAC(s string) error {
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || len(key) == 0 {
		return errors.New("is no base64url text: copy the HMAC key again as the CA shows it")
	}
	return nil
}

// roots reads a PEM file of certificates.
func (c *checker) roots(p place, path string) []byte {
	if path == "" || !p.ok() {
		return nil
	}
	data, err := c.env.load(absolute(c.folder, path))
	if err == nil {
		err = checkCertificates(filepath.Base(path), data)
	}
	if err != nil {
		p.refuse("%s", err)
		return nil
	}
	return data
}

// checkCertificates wants at least one certificate and nothing broken.
func checkCertificates(name string, data []byte) error {
	found := false
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return fmt.Errorf("%s holds a private key: name the file with the CA's certificates", name)
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("%s holds a certificate that can not be read", name)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("%s holds no PEM certificate", name)
	}
	return nil
}

// resolveAuthority says which CA a certificate comes from. What is said at the
// top holds for it as far as it is about the same CA: roots for the same host,
// the account binding for the same directory. A private CA's roots would
// otherwise be all that is trusted of a public one.
func (c *checker) resolveAuthority(p place, s *Settings, cert *Certificate) {
	own := cert.CA
	if own == "" {
		cert.CA = s.CA
	}
	directory, err := directoryOf(cert.CA)
	if err != nil {
		return // refused where it stands
	}
	general, err := directoryOf(s.CA)
	if err != nil && own == "" {
		return
	}
	if cert.CARoots == "" && s.CARoots != "" && rootsHold(general, directory) {
		cert.CARoots, cert.Roots = s.CARoots, c.generalRoots
	}
	cert.CARoots = absolute(c.folder, cert.CARoots)
	if cert.EABKid == "" && cert.EABHMAC == "" && general == directory {
		cert.EABKid, cert.EABHMAC = s.EABKid, s.EABHMAC
	}
	cert.Email = s.Email
	cert.Directory = directory
	cert.StagingDirectory = stagings[directory]
	cert.Staging = cert.StagingDirectory == directory
	if cert.CARoots == "" {
		return
	}
	if _, public := stagings[directory]; public {
		p.key("ca_roots").refuse("is for a private CA, and %s is a public one: name the private CA in ca, or remove ca_roots", directory)
		return
	}
	cert.Private, cert.Staging, cert.StagingDirectory = true, false, directory
}

// rootsHold: roots that were given for the general CA are meant for this one.
// Beside the general default they can only be meant for the certificates' own.
func rootsHold(general, directory string) bool {
	if _, public := stagings[directory]; public {
		return false
	}
	if _, public := stagings[general]; public || general == directory {
		return true
	}
	a, errA := url.Parse(general)
	b, errB := url.Parse(directory)
	return errA == nil && errB == nil && a.Hostname() == b.Hostname()
}
