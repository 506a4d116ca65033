package store

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certsitter/certsitter/renew"
)

const ledgerFile = "issuances.json"

// keepIssuances is how long the ledger remembers: CAs count the issuances of
// at most 7 days; the rest is for people who look.
const keepIssuances = 31 * 24 * time.Hour

// An issuance is one certificate that a CA handed out.
type issuance struct {
	Names       string    `json:"names"` // nameSet of what was asked for
	Directory   string    `json:"directory"`
	Fingerprint string    `json:"fingerprint"`
	At          time.Time `json:"at"`
}

type ledger struct {
	Format    int        `json:"format"`
	Issuances []issuance `json:"issuances"`
}

// nameSet is one spelling for one set of names, as CAs count them: sorted,
// lower-case, each once.
func nameSet(names []string) string {
	set := make([]string, 0, len(names))
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String()
		}
		set = append(set, strings.ToLower(name))
	}
	slices.Sort(set)
	return strings.Join(slices.Compact(set), ",")
}

func parseLedger(data []byte) (ledger, error) {
	var l ledger
	if err := json.Unmarshal(data, &l); err != nil {
		return ledger{}, err
	}
	if l.Format > format {
		return ledger{}, ErrNewer
	}
	return l, nil
}

// with returns the ledger with one more issuance and without those that are
// too old to count.
func (l ledger) with(one issuance) ledger {
	kept := slices.DeleteFunc(slices.Clone(l.Issuances), func(i issuance) bool {
		return one.At.Sub(i.At) >= keepIssuances
	})
	return ledger{Format: format, Issuances: append(kept, one)}
}

// readLedger returns an empty one for what cannot be read: Issuances counts
// the stored versions as well.
func (s *Store) readLedger() ledger {
	data, _, err := read(filepath.Join(s.certificates(), ledgerFile))
	if err != nil {
		return ledger{}
	}
	l, _ := parseLedger(data)
	return l
}

// record notes an issuance before the certificate is looked at and stored: it
// is spent at the CA, whatever becomes of it here.
func (s *Store) record(one issuance) error {
	defer s.gates.lock("/" + ledgerFile)()
	old := s.readLedger()
	// A crash makes us come by twice; the first time counts.
	if slices.ContainsFunc(old.Issuances, func(i issuance) bool { return i.Fingerprint == one.Fingerprint }) {
		return nil
	}
	data, err := json.MarshalIndent(old.with(one), "", "\t")
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(s.certificates(), ledgerFile), data); err != nil {
		return fmt.Errorf("note issuance: %w", err)
	}
	return nil
}

// Issuances returns when certificates for exactly this set of names came from
// the CA with this directory, since then, in ascending order. It counts over
// all certificates of the configuration, as the CA does, whatever they are called.
func (s *Store) Issuances(names []string, directory string, since time.Time) ([]time.Time, error) {
	found := map[string]time.Time{} // by fingerprint
	add := func(set, dir, fingerprint string, at time.Time) {
		if set == nameSet(names) && dir == directory && !at.Before(since) {
			found[fingerprint] = at
		}
	}
	all, err := s.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		versions, _ := s.Versions(name) // a broken one is reported where its certificate is looked at
		for _, v := range versions {
			if !v.Adopted {
				add(nameSet(v.Names), v.Directory, v.Fingerprint, v.StoredAt)
			}
		}
	}
	for _, i := range s.readLedger().Issuances {
		add(i.Names, i.Directory, i.Fingerprint, i.At)
	}
	times := make([]time.Time, 0, len(found))
	for _, at := range found {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times, nil
}

// issuanceOf is the ledger's entry for a version that was ordered for names.
func issuanceOf(names []string, v renew.Version) issuance {
	return issuance{Names: nameSet(names), Directory: v.Directory, Fingerprint: v.Fingerprint, At: v.StoredAt}
}
