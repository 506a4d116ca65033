// Package store keeps certificates, their keys, orders that are under way and
// ACME accounts in the state folder, and installs certificates where other
// programs read them. Whatever happens between two of its steps, the next Open
// and Recover make everything whole again: a pair is the old one or the new
// one, and no issuance is lost.
//
// It never talks to a network, decides nothing about when to renew, and never
// starts or restarts a service.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// format is the number of this layout. A program with a lower one refuses it.
const format = 1

// Errors on which callers act.
var (
	// ErrLocked: another process works with this state folder.
	ErrLocked = errors.New("another certsitter works with this state folder")
	// ErrNewer: the store was written by a newer program.
	ErrNewer = errors.New("the store was written by a newer certsitter: install that version again")
	// ErrUnfit: what the CA handed out does not belong to the pending order, which is to be dropped.
	ErrUnfit = errors.New("the certificate does not fit the order")
	// ErrStaging: a trusted certificate would be replaced by a staging one.
	ErrStaging = errors.New("a trusted certificate is never replaced by one from a staging CA: choose another certfile, or order from the real CA")
	// ErrMismatch: key and certificate at a target do not belong together.
	ErrMismatch = errors.New("key and certificate do not belong together")
	// ErrScratch: a scratch store never installs.
	ErrScratch = errors.New("a trial run does not touch the files in use")
)

// Options of Open. The zero value is what a daemon uses.
type Options struct {
	// Step is called before each step that changes something on disk, with
	// the step's name: tests end the process there.
	Step func(name string)
	Now  func() time.Time // nil = time.Now
}

// A Store is a state folder that this process holds. Its methods may be called
// from several goroutines; those that change one certificate wait for each other.
type Store struct {
	dir   string   // the state folder
	root  string   // dir, or a scratch area below it
	lock  *os.File // nil for a scratch store, which lives under the other's lock
	disk  disk
	now   func() time.Time
	gates *gates

	trials map[string]*Store // by purpose; guarded by the gate scratchGate
}

const scratchGate = "/scratch"

// gates let one change at a time at each thing that has a name. Nothing else
// waits, so an installation on a folder that hangs stops no other one.
type gates struct {
	mu     sync.Mutex // guards byName
	byName map[string]*sync.Mutex
}

// lock waits for the gate of that name and returns how to open it again.
func (g *gates) lock(name string) (unlock func()) {
	g.mu.Lock()
	gate, ok := g.byName[name]
	if !ok {
		gate = new(sync.Mutex)
		g.byName[name] = gate
	}
	g.mu.Unlock()
	gate.Lock()
	return gate.Unlock
}

// Open takes the state folder, makes what is missing in it, and cleans up
// after a crash. The folder is locked until Close or the end of the process;
// ErrLocked if another process has it, ErrNewer if a newer program wrote it.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock state folder %s: %w", dir, err)
	}
	s := &Store{dir: dir, root: dir, lock: lock, disk: disk{step: o.Step}, now: o.Now, gates: &gates{byName: map[string]*sync.Mutex{}}}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.prepare(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open store in %s: %w", dir, err)
	}
	return s, nil
}

// lockFile holds path by flock, which ends with the process however it ends,
// and says in it who that is.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := make([]byte, 20)
		n, _ := f.Read(holder)
		_ = f.Close()
		return nil, fmt.Errorf("%w (process %s)", ErrLocked, bytes.TrimSpace(holder[:n]))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	// The number is a hint for people; without it the lock holds as well.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// Close gives the state folder free for other processes.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	// A child that is being started may hold the descriptor for a moment longer.
	return errors.Join(unix.Flock(int(s.lock.Fd()), unix.LOCK_UN), s.lock.Close())
}

// Scratch opens an area of its own for trial runs (--staging, --dry-run), with
// a purpose spelled like a certificate's name, such as "staging" or "dry_run":
// certificates and pending orders in it never mix with those in use, and
// nothing in it can be installed. Accounts are shared. It ends with s, and is
// the same for the same purpose.
func (s *Store) Scratch(purpose string) (*Store, error) {
	if err := checkName(purpose); err != nil {
		return nil, err
	}
	defer s.gates.lock(scratchGate)()
	if trial, ok := s.trials[purpose]; ok {
		return trial, nil // opening it again would tidy up what it is writing
	}
	trial := &Store{dir: s.dir, root: filepath.Join(s.dir, "scratch", purpose), disk: s.disk, now: s.now, gates: s.gates}
	if err := trial.prepare(); err != nil {
		return nil, fmt.Errorf("open scratch store %s: %w", purpose, err)
	}
	if s.trials == nil {
		s.trials = map[string]*Store{}
	}
	s.trials[purpose] = trial
	return trial, nil
}

func (s *Store) scratch() bool { return s.root != s.dir }

func (s *Store) certificates() string { return filepath.Join(s.root, "certificates") }

func (s *Store) folder(name string) string { return filepath.Join(s.certificates(), name) }

// accounts are the state folder's even for a scratch store: an external
// account binding can often be used only once.
func (s *Store) accounts() string { return filepath.Join(s.dir, "accounts") }

// Live is <state folder>/live/<name>, made if it is missing: where a pair goes
// when the configuration names no folder. Others may enter it, if they may
// enter the state folder.
func (s *Store) Live(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, "live", name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	return path, nil
}

// makeFolder makes a certificate's own folder. Its name is on the disk before
// an order relies on the key in it.
func (s *Store) makeFolder(name string) error {
	if there, err := exists(s.folder(name)); err != nil || there {
		return err
	}
	if err := s.disk.mkdir(s.folder(name)); err != nil {
		return err
	}
	return s.disk.syncFolder(s.certificates())
}

func (s *Store) prepare() error {
	for _, path := range []string{s.accounts(), s.certificates()} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := s.disk.syncFolder(filepath.Dir(path)); err != nil {
			return err
		}
	}
	if err := s.checkFormat(); err != nil {
		return err
	}
	s.tidy()
	return nil
}

// tidy cleans up after a crash. What cannot be cleaned now, on a full disk,
// is in nobody's way, and a daemon that does not start could not tell of it.
func (s *Store) tidy() {
	if !s.scratch() { // otherwise somebody may be writing an account now
		s.tidyAccounts()
	}
	_ = s.disk.sweep(s.certificates())
	names, _ := s.Names()
	for _, name := range names {
		_ = s.heal(name)
	}
}

func (s *Store) tidyAccounts() {
	_ = s.disk.sweep(s.accounts())
	accounts, _ := os.ReadDir(s.accounts())
	for _, e := range accounts {
		_ = s.disk.sweep(filepath.Join(s.accounts(), e.Name()))
	}
}

// checkFormat refuses a newer store before anything in it is touched. A note
// that cannot be read is written anew: a disk error in it is likelier than a
// newer program that writes no number.
func (s *Store) checkFormat() error {
	path := filepath.Join(s.certificates(), "store.json")
	var note struct {
		Version int `json:"version"`
	}
	data, _, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = json.Unmarshal(data, &note)
	if note.Version > format {
		return ErrNewer
	}
	if note.Version == format {
		return nil
	}
	return s.disk.replace(path, fmt.Appendf(nil, "{\"version\":%d}\n", format))
}

// heal finishes or undoes what a crash cut off in one certificate's folder.
func (s *Store) heal(name string) error {
	defer s.gates.lock(name)()
	return s.healed(name)
}

// healed is heal for callers that hold the name's gate.
func (s *Store) healed(name string) error {
	for _, path := range []string{s.folder(name), s.pendingFolder(name)} {
		if err := s.disk.sweep(path); err != nil {
			return err
		}
	}
	versions, _ := s.load(name) // what is broken is reported by Versions
	if len(versions) == 0 {
		return nil
	}
	return s.settle(name, versions)
}

// nameForm is what the configuration takes as a name.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9_]{0,30}[a-z0-9])?$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q is no name of a certificate: use a-z, 0-9 and _, at most 32", name)
	}
	return nil
}

// Names lists the certificates that have a folder in the store.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.certificates())
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && nameForm.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Remove puts a certificate that left the configuration aside, into
// certificates/.removed/<name>-<time>. Installed files stay.
func (s *Store) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	defer s.gates.lock(name)()
	if there, err := exists(s.folder(name)); err != nil || !there {
		return err
	}
	removed := filepath.Join(s.certificates(), ".removed")
	if err := os.MkdirAll(removed, 0o700); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := s.dropIntent(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	base := filepath.Join(removed, name+"-"+s.now().UTC().Format("20060102T150405Z"))
	to := base
	for n := 2; ; n++ {
		there, err := exists(to)
		if err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		if !there {
			break
		}
		to = base + "." + strconv.Itoa(n)
	}
	if err := s.disk.rename(s.folder(name), to); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return s.disk.syncFolder(s.certificates())
}

// Restore brings back what Remove put aside last for a name that is used
// again, if its newest certificate covers names and the name has no folder
// yet. It reports whether it did.
func (s *Store) Restore(name string, names []string) (bool, error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	defer s.gates.lock(name)()
	if there, err := exists(s.folder(name)); err != nil || there {
		return false, err
	}
	removed := filepath.Join(s.certificates(), ".removed")
	newest, err := newestRemoved(removed, name)
	if err != nil || newest == "" {
		return false, err
	}
	versions, _ := loadFolder(filepath.Join(removed, newest))
	if len(versions) == 0 || len(versions[len(versions)-1].certificate.Missing(names)) > 0 {
		return false, nil
	}
	if err := s.disk.rename(filepath.Join(removed, newest), s.folder(name)); err != nil {
		return false, fmt.Errorf("restore %s: %w", name, err)
	}
	return true, errors.Join(s.disk.syncFolder(removed), s.healed(name))
}

// newestRemoved is the folder name that Remove gave last, or "".
func newestRemoved(removed, name string) (string, error) {
	entries, err := os.ReadDir(removed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if base, _, ok := strings.Cut(e.Name(), "-"); ok && base == name {
			found = append(found, e.Name())
		}
	}
	if len(found) == 0 {
		return "", nil
	}
	return slices.Max(found), nil
}
