package sitter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

// memoryVersion is the format of state.json.
const memoryVersion = 1

// memory is what cannot be computed again: state.json. It belongs to the loop.
type memory struct {
	Version      int                  `json:"version"`
	Installation string               `json:"installation"`        // random, made once
	Saved        time.Time            `json:"saved,omitzero"`      // last sane time
	Certificates map[string]*entry    `json:"certificates"`        // by name
	Directories  map[string]time.Time `json:"directories"`         // until when a whole directory asked us to stay away
	Attempts     []attempt            `json:"attempts,omitempty"`  // of the last hour, ascending
	Messages     notify.Book          `json:"messages"`            // incidents and outbox
	Topics       []string             `json:"topics,omitempty"`    // retained topics that we published
	LastCheck    time.Time            `json:"last_check,omitzero"` // when everything was looked at
}

// attempt is one beginning of an order, for the hourly cap.
type attempt struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"` // directory and EAB kid
	Names   []string  `json:"names"`
}

// entry is what is remembered of one certificate, managed or watched.
type entry struct {
	Digest     string               `json:"digest,omitzero"` // of its configuration
	Record     renew.Record         `json:"record,omitzero"`
	LastResult string               `json:"last_result,omitzero"`
	ARI        ariMemory            `json:"ari,omitzero"`
	Deployment *deployment          `json:"deployment,omitempty"`
	Known      []string             `json:"known,omitempty"`     // fingerprints that we installed or adopted, newest last
	Endpoints  map[string]*sighting `json:"endpoints,omitempty"` // by address
	Seen       *seen                `json:"seen,omitempty"`      // watched: what was read last
	Unreadable string               `json:"unreadable,omitzero"`
	Since      time.Time            `json:"unreadable_since,omitzero"`
	Foreign    bool                 `json:"foreign,omitzero"` // another client renews it
	Revoked    string               `json:"revoked,omitzero"` // fingerprint of one that was revoked and is to be replaced
	Files      map[string]string    `json:"files,omitempty"`  // installed paths by form, to notice one that moved
}

// ariMemory is the CA's advice and when to ask again.
type ariMemory struct {
	CertID string       `json:"cert_id"` // it is about
	Window renew.Window `json:"window"`
	Next   time.Time    `json:"next"` // when to ask again
	Errors int          `json:"errors,omitzero"`
}

// sighting is what was served at an endpoint.
type sighting struct {
	Fingerprint string    `json:"fingerprint,omitzero"`
	PEM         []byte    `json:"pem,omitempty"`        // so that its life counts down without a look
	Seen        time.Time `json:"seen,omitzero"`        // last successful look
	Differs     time.Time `json:"differs,omitzero"`     // since when it is not the installed one
	NameError   string    `json:"name_error,omitzero"`  // it is not for the name
	ChainError  string    `json:"chain_error,omitzero"` // it does not lead to a trusted root
	Error       string    `json:"error,omitzero"`       // of the last look, if it did not succeed
	Failing     time.Time `json:"failing,omitzero"`     // since when
	Found       bool      `json:"found,omitzero"`       // Home Assistant's own address, which nobody has configured
	Strange     time.Time `json:"strange,omitzero"`     // found: since when it serves one that is not ours
	Restarted   time.Time `json:"restarted,omitzero"`   // when what serves it was restarted since it differs
}

// seen is the certificate of a watched source as it was read last.
type seen struct {
	PEM        []byte    `json:"pem"`
	At         time.Time `json:"at"`
	NameError  string    `json:"name_error,omitzero"`
	ChainError string    `json:"chain_error,omitzero"`
}

// maxKnown is how many fingerprints of our own are kept to tell an old
// certificate of ours from a stranger's.
const maxKnown = 10

func (m *memory) of(name string) *entry {
	e := m.Certificates[name]
	if e == nil {
		e = &entry{}
		m.Certificates[name] = e
	}
	return e
}

// remember adds a fingerprint that is ours.
func (e *entry) remember(fingerprint string) {
	if fingerprint == "" || slices.Contains(e.Known, fingerprint) {
		return
	}
	e.Known = append(e.Known, fingerprint)
	for i := 0; len(e.Known) > maxKnown && i < len(e.Known)-1; {
		if e.served(e.Known[i]) { // it must not become a stranger's
			i++
			continue
		}
		e.Known = slices.Delete(e.Known, i, i+1)
	}
}

// knows: it is one that we installed or adopted.
func (e *entry) knows(fingerprint string) bool { return slices.Contains(e.Known, fingerprint) }

// served: an endpoint was seen to serve it last.
func (e *entry) served(fingerprint string) bool {
	for _, s := range e.Endpoints {
		if s.Fingerprint == fingerprint {
			return true
		}
	}
	return false
}

// attemptsOf are the beginnings within the last hour of attempts on the account
// that had the busiest of the names, ascending.
func (m *memory) attemptsOf(now time.Time, account string, names []string) []time.Time {
	var most []time.Time
	for _, name := range names {
		var of []time.Time
		for _, a := range m.Attempts {
			if a.Account == account && now.Sub(a.At) < time.Hour && !a.At.After(now) && slices.Contains(a.Names, name) {
				of = append(of, a.At)
			}
		}
		if len(of) > len(most) {
			most = of
		}
	}
	return most
}

// began notes an attempt and forgets those that no longer count.
func (m *memory) began(a attempt) {
	m.Attempts = slices.DeleteFunc(m.Attempts, func(old attempt) bool {
		age := a.At.Sub(old.At)
		return age >= time.Hour || age < -time.Hour // after a clock that ran ahead
	})
	m.Attempts = append(m.Attempts, a)
}

// neverBegan forgets an attempt that asked nothing of the CA.
func (m *memory) neverBegan(at time.Time, account string) {
	m.Attempts = slices.DeleteFunc(m.Attempts, func(a attempt) bool { return a.At.Equal(at) && a.Account == account })
}

// stateFile keeps the memory: two generations, replaced whole.
type stateFile struct{ path string }

func (f stateFile) previous() string { return f.path + ".previous" }

// load reads the memory. A file that can not be read is set aside and the
// previous generation is used; what happened is said in notes, for people.
func (f stateFile) load() (m *memory, notes []string, err error) {
	m, err = readMemory(f.path)
	if err == nil {
		return m, nil, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		// A crash between the two renames of save leaves only the previous one.
		if m, prevErr := readMemory(f.previous()); prevErr == nil {
			return m, nil, nil
		}
		return newMemory(), nil, nil
	}
	aside := fmt.Sprintf("%s.unreadable-%d", f.path, os.Getpid())
	if err := os.Rename(f.path, aside); err != nil {
		return nil, nil, fmt.Errorf("set %s aside: %w", f.path, err)
	}
	note := fmt.Sprintf("What was remembered in %s could not be used (%v). It was set aside as %s.", f.path, err, filepath.Base(aside))
	if m, prevErr := readMemory(f.previous()); prevErr == nil {
		return m, []string{note + " The previous generation is used: some attempts and messages may be forgotten."}, nil
	}
	return newMemory(), []string{note + " There is no previous generation: attempts, messages and incidents begin anew."}, nil
}

func newMemory() *memory {
	return &memory{Version: memoryVersion, Certificates: map[string]*entry{}, Directories: map[string]time.Time{}}
}

// maxState is far above any real state.json.
const maxState = 16 << 20

func readMemory(path string) (*memory, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxState {
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseMemory(data)
}

func parseMemory(data []byte) (*memory, error) {
	m := newMemory()
	m.Version = 0 // it must say which one it is
	if err := json.Unmarshal(data, m); err != nil {
		return nil, err
	}
	if m.Version > memoryVersion {
		return nil, fmt.Errorf("a newer Certsitter wrote it: format %d, this one knows %d", m.Version, memoryVersion)
	}
	if m.Version < 1 {
		return nil, errors.New("it has no version")
	}
	for name, e := range m.Certificates {
		if e == nil {
			delete(m.Certificates, name)
		}
	}
	if m.Certificates == nil {
		m.Certificates = map[string]*entry{}
	}
	if m.Directories == nil {
		m.Directories = map[string]time.Time{}
	}
	for _, e := range m.Certificates {
		e.mend()
	}
	return m, nil
}

// mend takes out what no version of the program writes and the loop would
// stumble over.
func (e *entry) mend() {
	for address, s := range e.Endpoints {
		if s == nil {
			delete(e.Endpoints, address)
		}
	}
	e.Record.Failures = max(e.Record.Failures, 0)
	e.ARI.Errors = max(e.ARI.Errors, 0)
	if d := e.Deployment; d != nil {
		d.Failures, d.Action, d.Look = max(d.Failures, 0), max(d.Action, 0), max(d.Look, 0)
	}
}

// save replaces the file and keeps what it held as the previous generation.
func (f stateFile) save(m *memory) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	tmp := f.path + ".new"
	if err := writeSynced(tmp, data); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(f.path, f.previous()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep previous state: %w", err)
	}
	if err := os.Rename(tmp, f.path); err != nil {
		return fmt.Errorf("replace state: %w", err)
	}
	return syncFolder(filepath.Dir(f.path))
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync())
	return errors.Join(err, file.Close())
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
