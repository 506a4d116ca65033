package store

import (
	"cmp"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew"
)

// keepVersions is how many versions of a certificate are kept.
const keepVersions = 3

// The files of a version.
const (
	keyFile       = "key.pem"
	leafFile      = "cert.pem"
	chainFile     = "chain.pem"
	fullChainFile = "fullchain.pem"
	metaFile      = "meta.json"
	currentFile   = "current"
)

// A Bundle is a certificate with its key, as PEM: the key with PKCS#8, Leaf
// alone, Chain without the leaf (may be empty), FullChain with the leaf first.
type Bundle struct {
	Key, Leaf, Chain, FullChain []byte
}

// meta is meta.json: what is public of a version, and the order it came from,
// by which an order is known to be spent.
type meta struct {
	Format int `json:"format"`
	renew.Version
	OrderURL string `json:"order_url,omitempty"`
}

// stored is a version that was read from disk and found whole.
type stored struct {
	meta
	bundle      Bundle
	certificate *expiry.Certificate
}

var versionForm = regexp.MustCompile(`^v([0-9]{4,9})$`)

// versionNumber is 0 for what is no version's folder name.
func versionNumber(id string) int {
	m := versionForm.FindStringSubmatch(id)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func versionID(n int) string { return fmt.Sprintf("v%04d", n) }

func parseMeta(data []byte) (meta, error) {
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return meta{}, err
	}
	if m.Format > format {
		return meta{}, ErrNewer
	}
	if versionNumber(m.ID) == 0 {
		return meta{}, fmt.Errorf("%q is no version", m.ID)
	}
	return m, nil
}

// Versions lists the stored versions, oldest first. What is broken is left
// out and told by the error, which then comes beside the others.
func (s *Store) Versions(name string) ([]renew.Version, error) {
	all, err := s.load(name)
	versions := make([]renew.Version, 0, len(all))
	for _, v := range all {
		versions = append(versions, v.Version)
	}
	return versions, err
}

// Current returns the version that is to be installed, by the pointer; if
// that one is missing or broken, the newest whole one. False: there is none.
func (s *Store) Current(name string) (renew.Version, bool, error) {
	if err := checkName(name); err != nil {
		return renew.Version{}, false, err
	}
	if v, err := loadVersion(s.folder(name), s.pointer(name)); err == nil {
		return v.Version, true, nil
	}
	all, err := s.load(name)
	if len(all) == 0 {
		return renew.Version{}, false, err
	}
	return all[len(all)-1].Version, true, nil
}

// current picks from all, which is not empty.
func (s *Store) current(name string, all []stored) stored {
	pointer := s.pointer(name)
	for _, v := range all {
		if v.ID == pointer {
			return v
		}
	}
	return all[len(all)-1]
}

// pointer is what the file current says, "" for nothing usable.
func (s *Store) pointer(name string) string {
	data, _, err := read(filepath.Join(s.folder(name), currentFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Bundle reads a version's key and certificates.
func (s *Store) Bundle(name, id string) (Bundle, error) {
	if err := checkName(name); err != nil {
		return Bundle{}, err
	}
	v, err := loadVersion(s.folder(name), id)
	if err != nil {
		return Bundle{}, fmt.Errorf("read version %s of %s: %w", id, name, err)
	}
	return v.bundle, nil
}

func (s *Store) load(name string) ([]stored, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	all, err := loadFolder(s.folder(name))
	if err != nil {
		return all, fmt.Errorf("read versions of %s: %w", name, err)
	}
	return all, nil
}

// loadFolder reads the versions in a certificate's folder, oldest first,
// with an error for those that are broken.
func loadFolder(folder string) ([]stored, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []stored
	var broken []error
	for _, e := range entries {
		if versionNumber(e.Name()) == 0 {
			continue
		}
		v, err := loadVersion(folder, e.Name())
		if there, _ := exists(filepath.Join(folder, e.Name())); err != nil && !there {
			continue // removed while we looked, as too old
		}
		if err != nil {
			broken = append(broken, fmt.Errorf("version %s is broken: %w", e.Name(), err))
			continue
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b stored) int { return cmp.Compare(versionNumber(a.ID), versionNumber(b.ID)) })
	return all, errors.Join(broken...)
}

// loadVersion reads one version and checks that it is whole: key and
// certificate belong together and are those that meta.json speaks of.
func loadVersion(folder, id string) (stored, error) {
	if versionNumber(id) == 0 {
		return stored{}, fmt.Errorf("%q is no version", id)
	}
	folder = filepath.Join(folder, id)
	contents := map[string][]byte{}
	for _, file := range []string{metaFile, keyFile, leafFile, chainFile, fullChainFile} {
		data, _, err := read(filepath.Join(folder, file))
		if err != nil {
			return stored{}, err
		}
		contents[file] = data
	}
	m, err := parseMeta(contents[metaFile])
	if err != nil {
		return stored{}, fmt.Errorf("%s: %w", metaFile, err)
	}
	certificate, err := expiry.Parse(contents[fullChainFile])
	if err != nil {
		return stored{}, fmt.Errorf("%s: %w", fullChainFile, err)
	}
	if m.ID != id || m.Fingerprint != certificate.Fingerprint() {
		return stored{}, fmt.Errorf("%s speaks of another certificate", metaFile)
	}
	if err := certificate.MatchesKey(contents[keyFile]); err != nil {
		return stored{}, fmt.Errorf("%s: %w", keyFile, err)
	}
	b := bundleOf(contents[keyFile], certificate)
	if string(b.Leaf) != string(contents[leafFile]) || string(b.Chain) != string(contents[chainFile]) {
		return stored{}, fmt.Errorf("%s and %s are not those of %s", leafFile, chainFile, fullChainFile)
	}
	return stored{meta: m, bundle: b, certificate: certificate}, nil
}

// bundleOf writes all forms anew from the certificate, so that they agree.
func bundleOf(key []byte, c *expiry.Certificate) Bundle {
	b := Bundle{Key: key, Leaf: encodeCertificate(c.Leaf.Raw)}
	for _, issuer := range c.Chain {
		b.Chain = append(b.Chain, encodeCertificate(issuer.Raw)...)
	}
	b.FullChain = slices.Concat(b.Leaf, b.Chain)
	return b
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Add stores what the CA handed out for the pending order, makes it the
// current version, and ends the order. After a crash it may be called again
// with the same certificate. ErrUnfit: the certificate is not for the pending
// key or lacks a name; fs.ErrNotExist: nothing was pending.
func (s *Store) Add(name string, issued renew.Issued, now time.Time) (renew.Version, error) {
	if err := checkName(name); err != nil {
		return renew.Version{}, err
	}
	defer s.gates.lock(name)()
	certificate, err := expiry.Parse(issued.Chain)
	if err != nil {
		return renew.Version{}, fmt.Errorf("read issued certificate: %w", errors.Join(ErrUnfit, err))
	}
	all, _ := s.load(name) // a broken version does not keep a new one out
	for _, v := range all {
		if v.Fingerprint == certificate.Fingerprint() {
			return v.Version, s.settle(name, all)
		}
	}
	order, err := s.readPending(name)
	if err != nil {
		return renew.Version{}, fmt.Errorf("read pending order of %s: %w", name, err)
	}
	m := describe(certificate, now)
	m.Directory, m.EABKid, m.Profile = order.Directory, order.EABKid, order.Profile
	m.AccountURL = cmp.Or(issued.AccountURL, order.AccountURL)
	m.OrderURL = cmp.Or(issued.OrderURL, order.OrderURL)
	m.Staging = m.Staging || order.Staging
	if err := s.record(issuanceOf(order.Names, m.Version)); err != nil {
		return renew.Version{}, err
	}
	if err := certificate.MatchesKey(order.Key); err != nil {
		return renew.Version{}, fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if missing := certificate.Missing(order.Names); len(missing) > 0 {
		return renew.Version{}, fmt.Errorf("%w: it lacks %s", ErrUnfit, strings.Join(missing, ", "))
	}
	return s.append(name, m, bundleOf(order.Key, certificate))
}

// describe is what a certificate says about itself.
func describe(c *expiry.Certificate, now time.Time) meta {
	return meta{Format: format, Version: renew.Version{
		Names:       c.Names(),
		NotBefore:   c.Leaf.NotBefore,
		NotAfter:    c.Leaf.NotAfter,
		StoredAt:    now.UTC().Truncate(time.Second),
		Fingerprint: c.Fingerprint(),
		CertID:      c.CertID(),
		KeyType:     c.KeyType(),
		Staging:     c.Staging(),
	}}
}

// append writes one more version and makes it the current one.
func (s *Store) append(name string, m meta, b Bundle) (renew.Version, error) {
	if err := s.makeFolder(name); err != nil {
		return renew.Version{}, fmt.Errorf("store version: %w", err)
	}
	next, err := s.nextNumber(name)
	if err != nil {
		return renew.Version{}, fmt.Errorf("store version: %w", err)
	}
	m.ID = versionID(next)
	about, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return renew.Version{}, fmt.Errorf("store version: %w", err)
	}
	files := []document{{keyFile, b.Key}, {leafFile, b.Leaf}, {chainFile, b.Chain}, {fullChainFile, b.FullChain}, {metaFile, about}}
	if err := s.disk.folder(filepath.Join(s.folder(name), m.ID), files); err != nil {
		return renew.Version{}, fmt.Errorf("store version %s of %s: %w", m.ID, name, err)
	}
	all, _ := s.load(name)
	return m.Version, s.settle(name, all)
}

// nextNumber counts broken versions too: a folder is never written over.
func (s *Store) nextNumber(name string) (int, error) {
	entries, err := os.ReadDir(s.folder(name))
	if err != nil {
		return 0, err
	}
	last := 0
	for _, e := range entries {
		last = max(last, versionNumber(e.Name()))
	}
	return last + 1, nil
}

// settle makes the newest of all the current version, ends a pending order
// that one of them came from, and removes what is older than the three newest.
func (s *Store) settle(name string, all []stored) error {
	newest := all[len(all)-1]
	if s.pointer(name) != newest.ID {
		if err := s.disk.replace(filepath.Join(s.folder(name), currentFile), []byte(newest.ID+"\n")); err != nil {
			return fmt.Errorf("point to version %s of %s: %w", newest.ID, name, err)
		}
	}
	if order, err := s.readPending(name); err == nil && order.spent(all) {
		if err := s.disk.discard(s.pendingFolder(name)); err != nil {
			return fmt.Errorf("end order of %s: %w", name, err)
		}
	}
	if len(all) <= keepVersions {
		return nil
	}
	return s.prune(name, versionNumber(all[len(all)-keepVersions].ID))
}

// prune removes the versions before the one with that number, broken ones too.
func (s *Store) prune(name string, first int) error {
	entries, err := os.ReadDir(s.folder(name))
	if err != nil {
		return fmt.Errorf("remove old versions of %s: %w", name, err)
	}
	for _, e := range entries {
		n := versionNumber(e.Name())
		if n == 0 || n >= first {
			continue
		}
		if err := s.disk.discard(filepath.Join(s.folder(name), e.Name())); err != nil {
			return fmt.Errorf("remove version %s of %s: %w", e.Name(), name, err)
		}
	}
	return nil
}
