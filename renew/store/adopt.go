package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew"
)

// Adopt takes the pair at a target into the store, whoever made it, if it is
// as good as one of ours: the key fits, it covers names, is in date, neither
// self-signed nor from a staging CA, and its chain ends in roots (nil = the
// system's). Once there are versions, only one that was issued after the
// newest is adopted, or one instead of a newest that is out of date, from a
// staging CA, or lacks a name. False: nothing to adopt.
func (s *Store) Adopt(name string, t Target, names []string, roots *x509.CertPool, now time.Time) (renew.Version, bool, error) {
	if err := checkName(name); err != nil {
		return renew.Version{}, false, err
	}
	defer s.gates.lock(name)()
	certificate, key, err := Installed(t)
	if errors.Is(err, fs.ErrPermission) {
		return renew.Version{}, false, fmt.Errorf("adopt certificate for %s: %w", name, err)
	}
	if err != nil || !worthy(certificate, names, roots, now) {
		return renew.Version{}, false, nil
	}
	all, _ := s.load(name)
	if !better(certificate, all, names, now) {
		return renew.Version{}, false, nil
	}
	m := describe(certificate, now)
	m.Adopted = true
	v, err := s.append(name, m, bundleOf(key, certificate))
	if err != nil {
		return renew.Version{}, false, fmt.Errorf("adopt certificate for %s: %w", name, err)
	}
	return v, true, nil
}

// worthy reports whether a certificate may be used as if we had ordered it.
func worthy(c *expiry.Certificate, names []string, roots *x509.CertPool, now time.Time) bool {
	inDate := !now.Before(c.Leaf.NotBefore) && now.Before(c.Leaf.NotAfter)
	return inDate && !c.SelfSigned() && !c.Staging() && len(c.Missing(names)) == 0 && c.VerifyChain(roots, now) == nil
}

// better reports whether a worthy certificate is to take the newest one's place.
func better(c *expiry.Certificate, all []stored, names []string, now time.Time) bool {
	for _, v := range all {
		if v.Fingerprint == c.Fingerprint() {
			return false
		}
	}
	if len(all) == 0 {
		return true
	}
	newest := all[len(all)-1]
	return c.Leaf.NotBefore.After(newest.NotBefore) || newest.Staging || !now.Before(newest.NotAfter) || len(newest.certificate.Missing(names)) > 0
}
