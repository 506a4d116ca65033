package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certsitter/certsitter/renew"
)

// An intent is install.json: written before an installation touches anything,
// removed after it. It holds no password.
type intent struct {
	Format  int         `json:"format"`
	Version string      `json:"version"`
	Cert    string      `json:"certfile"`
	Key     string      `json:"keyfile"`
	KeyMode fs.FileMode `json:"key_mode,omitempty"`
	Owner   string      `json:"owner,omitempty"`
	Group   string      `json:"group,omitempty"`
	Temps   []string    `json:"temporaries"`
}

const intentFile = "install.json"

func parseIntent(data []byte) (intent, error) {
	var in intent
	if err := json.Unmarshal(data, &in); err != nil {
		return intent{}, err
	}
	if in.Format > format {
		return intent{}, ErrNewer
	}
	if versionNumber(in.Version) == 0 {
		return intent{}, fmt.Errorf("%q is no version", in.Version)
	}
	for _, path := range in.Temps {
		// These will be removed, so they must be nothing but our temporaries.
		if base := filepath.Base(path); !filepath.IsAbs(path) || !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, newSuffix) {
			return intent{}, fmt.Errorf("%q is no temporary", path)
		}
	}
	return in, nil
}

func (in intent) target() Target {
	return Target{CertFile: in.Cert, KeyFile: in.Key, KeyMode: in.KeyMode, Owner: in.Owner, Group: in.Group}
}

func (s *Store) intentPath(name string) string { return filepath.Join(s.folder(name), intentFile) }

// intend notes what is about to be done.
func (s *Store) intend(name, version string, t Target, changes []change) error {
	in := intent{Format: format, Version: version, Cert: t.CertFile, Key: t.KeyFile, KeyMode: t.KeyMode, Owner: t.Owner, Group: t.Group}
	for _, c := range changes {
		in.Temps = append(in.Temps, c.temp)
	}
	data, err := json.MarshalIndent(in, "", "\t")
	if err != nil {
		return err
	}
	if err := s.disk.replace(s.intentPath(name), data); err != nil {
		return fmt.Errorf("note installation of %s: %w", name, err)
	}
	return nil
}

// readIntent returns false if no installation was cut off. The intent is
// replaced whole, so one that cannot be read is a disk error, not a crash.
func (s *Store) readIntent(name string) (intent, bool) {
	data, _, err := read(s.intentPath(name))
	if err != nil {
		return intent{}, false
	}
	in, err := parseIntent(data)
	return in, err == nil
}

// dropIntent gives up what was cut off and removes what it left.
func (s *Store) dropIntent(name string) error {
	in, _ := s.readIntent(name)
	for _, temp := range in.Temps {
		_ = s.disk.remove(temp) // in a folder that may be gone
	}
	return s.disk.remove(s.intentPath(name))
}

// A change is a file whose contents are going to be others.
type change struct {
	place
	data []byte
}

// Install puts a stored version where other programs read it. It writes only
// files that differ, and reports whether it wrote any. The pair is replaced by
// two renames back to back, the key first, after all that is likely to fail
// has been tried. A form beside the pair that cannot be written does not keep
// the pair from being installed; the error then tells of it. ErrStaging: v is
// a staging certificate, and a trusted one is there.
func (s *Store) Install(name string, v renew.Version, t Target) (changed bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	if s.scratch() {
		return false, ErrScratch
	}
	defer s.gates.lock(name)()
	changed, err = s.install(name, v.ID, t)
	if err != nil {
		return changed, fmt.Errorf("install %s: %w", name, err)
	}
	return changed, nil
}

func (s *Store) install(name, version string, t Target) (changed bool, err error) {
	v, err := loadVersion(s.folder(name), version)
	if err != nil {
		return false, fmt.Errorf("version %s: %w", version, err)
	}
	changes, problems, err := s.plan(v, t)
	if err != nil {
		return false, err
	}
	if len(changes) == 0 {
		return false, errors.Join(problems, s.dropIntent(name))
	}
	if err := s.intend(name, version, t, changes); err != nil {
		return false, err
	}
	changes, failed, err := s.writeTemps(changes)
	problems = errors.Join(problems, failed)
	if err != nil {
		return false, errors.Join(err, s.dropIntent(name))
	}
	changes, failed, err = s.exchange(changes)
	problems = errors.Join(problems, failed)
	if errors.Is(err, errMixed) {
		return false, err
	}
	if err != nil {
		return false, errors.Join(err, s.dropIntent(name))
	}
	if err := s.seal(changes); err != nil {
		return true, errors.Join(err, problems)
	}
	return len(changes) > 0, errors.Join(problems, s.dropIntent(name))
}

// plan says which files have to change, the pair first. An error of the pair
// ends the installation; problems are those of the other forms.
func (s *Store) plan(v stored, t Target) (changes []change, problems, err error) {
	for _, slot := range t.slots() {
		some, err := s.planSlot(v, t, slot)
		if errors.Is(err, ErrStaging) || (err != nil && slot.pair) {
			return nil, nil, err
		}
		problems = errors.Join(problems, err)
		changes = append(changes, some...)
	}
	return changes, problems, nil
}

func (s *Store) planSlot(v stored, t Target, slot slot) ([]change, error) {
	p, err := t.locate(slot)
	if err != nil {
		return nil, err
	}
	f, err := slot.make(p.old, v.bundle, s.now())
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", slot.key, slot.path, err)
	}
	if p.old != nil && (bytes.Equal(p.old, f.data) || v.Adopted && samePEM(p.old, f.data)) {
		return nil, nil
	}
	if v.Staging && f.replaces != nil && !f.replaces.Staging() && !f.replaces.SelfSigned() {
		return nil, fmt.Errorf("%s %s: %w", slot.key, slot.path, ErrStaging)
	}
	one := change{place: p, data: f.data}
	if slot.key != "keystore" || p.old == nil {
		return []change{one}, nil
	}
	backup := p
	backup.file += backupSuffix
	backup.temp = beside(backup.file, newSuffix)
	backup.old, _, _ = read(backup.file)
	return []change{{place: backup, data: p.old}, one}, nil
}

// writeTemps writes all new contents beside the files. Those that cannot be
// are left out and told of, unless they are of the pair.
func (s *Store) writeTemps(changes []change) (written []change, problems, err error) {
	for _, c := range changes {
		err := s.writeTemp(c)
		switch {
		case err == nil:
			written = append(written, c)
		case c.pair:
			return nil, problems, c.writeFailure(err)
		default:
			problems = errors.Join(problems, c.writeFailure(err))
		}
	}
	return written, problems, nil
}

// writeTemp reads what it has written before anybody else can: a file with a hole
// is bad for all, and a bad keystore ends all of openHAB's TLS.
func (s *Store) writeTemp(c change) error {
	if err := s.disk.write(c.temp, c.data, c.give); err != nil {
		return err
	}
	data, _, err := read(c.temp)
	if err == nil && bytes.Equal(data, c.data) {
		return nil
	}
	_ = s.disk.remove(c.temp)
	return cmp.Or(err, errNotWritten)
}

var errNotWritten = errors.New("reading it again gave something else than was written: look at the disk")

// exchange renames the temporaries to the files. If the second file of the
// pair cannot be renamed, the first gets its old contents back. The key goes
// first: who watches the certificate for changes finds its key there already.
func (s *Store) exchange(changes []change) (done []change, problems, err error) {
	for _, c := range changes {
		err := s.disk.move(c.temp, c.file)
		if err == nil {
			done = append(done, c)
			continue
		}
		if c.pair {
			if undone := s.undo(done); undone != nil {
				return nil, problems, fmt.Errorf("%w: %w: %w", c.writeFailure(err), errMixed, undone)
			}
			return nil, problems, c.writeFailure(err)
		}
		_ = s.disk.remove(c.temp)
		problems = errors.Join(problems, c.writeFailure(err))
	}
	return done, problems, nil
}

// errMixed: the intent has to stay, so that the next start completes the pair.
var errMixed = errors.New("and the old files could not be put back")

// undo puts the old contents back.
func (s *Store) undo(done []change) error {
	for _, c := range slices.Backward(done) {
		if c.old == nil {
			if err := s.disk.remove(c.file); err != nil {
				return c.writeFailure(err)
			}
			continue
		}
		if err := s.disk.write(c.temp, c.old, c.give); err != nil {
			return c.writeFailure(err)
		}
		if err := s.disk.move(c.temp, c.file); err != nil {
			return c.writeFailure(err)
		}
	}
	return nil
}

// seal puts the renames on the disk and reads the files again.
func (s *Store) seal(changes []change) error {
	folders := map[string]bool{}
	for _, c := range changes {
		folder := filepath.Dir(c.file)
		if folders[folder] {
			continue
		}
		folders[folder] = true
		if err := s.disk.syncFolder(folder); err != nil {
			return c.writeFailure(err)
		}
	}
	for _, c := range changes {
		data, _, err := read(c.file)
		if err != nil {
			return fmt.Errorf("%s %s: read again: %w", c.key, c.path, cause(err))
		}
		if !bytes.Equal(data, c.data) {
			return fmt.Errorf("%s %s: it holds something else than was just written: another program writes it too; stop one of the two", c.key, c.path)
		}
	}
	return nil
}

// Recover completes an installation that a crash cut off and removes what it
// left; it reports whether it wrote a file. A newer pair that somebody else
// put there meanwhile stays. It is to be called at start, before Installed.
func (s *Store) Recover(name string, t Target) (changed bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	if s.scratch() {
		return false, ErrScratch
	}
	defer s.gates.lock(name)()
	s.sweepTarget(t)
	in, ok := s.readIntent(name)
	if !ok {
		return false, s.dropIntent(name)
	}
	changed, err = s.recover(name, in, t)
	if err != nil {
		return changed, fmt.Errorf("complete installation of %s: %w", name, err)
	}
	return changed, nil
}

func (s *Store) recover(name string, in intent, t Target) (changed bool, err error) {
	for _, temp := range in.Temps {
		_ = s.disk.remove(temp) // in a folder that may be gone
	}
	v, err := loadVersion(s.folder(name), in.Version)
	if err != nil {
		return false, s.dropIntent(name) // what is current will be installed as usual
	}
	pair, _, err := Installed(in.target())
	moved := in.Cert != t.CertFile || in.Key != t.KeyFile
	switch {
	case err == nil && pair.Leaf.NotBefore.After(v.NotBefore), moved && !errors.Is(err, ErrMismatch):
		return false, s.dropIntent(name)
	case moved:
		t = in.target() // the old place keeps a whole pair
	}
	changed, err = s.install(name, in.Version, t)
	if errors.Is(err, ErrStaging) {
		return changed, s.dropIntent(name)
	}
	return changed, err
}

// sweepTarget removes what Check or an installation left beside the files.
func (s *Store) sweepTarget(t Target) {
	for _, slot := range t.slots() {
		file, err := resolve(slot.path)
		if err != nil {
			continue // Check will tell
		}
		for _, suffix := range []string{newSuffix, checkSuffix} {
			_ = s.disk.remove(beside(file, suffix))
		}
	}
}
