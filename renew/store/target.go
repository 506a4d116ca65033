package store

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

// A Target is where a certificate is installed. All paths are absolute; empty
// ones are not written. CertFile and KeyFile are needed; the same path in both
// gives one file with the key first.
type Target struct {
	CertFile, KeyFile                 string
	LeafFile, ChainFile, CombinedFile string

	KeyMode      fs.FileMode // of new files with a key; 0 = 0600
	Owner, Group string      // of new files: names or numbers; "" = as it comes

	PKCS12, PKCS12Password     string
	Keystore, KeystorePassword string // openHAB's Jetty keystore
}

// newCertMode is the mode of new files without a key: certificates are public.
const newCertMode fs.FileMode = 0o644

// A form is what one file of a target is to contain.
type form struct {
	data     []byte
	replaces *expiry.Certificate // what the file holds now, if that could be read
}

// A slot is one file of a target.
type slot struct {
	key    string // of the configuration, for people
	path   string // as configured
	secret bool   // it contains the private key
	pair   bool   // it is one of the two that have to fit each other
	make   func(old []byte, b Bundle, now time.Time) (form, error)
}

// slots are the files of a target, the pair first, and of the pair the key.
func (t Target) slots() []slot {
	slots := []slot{
		{"keyfile", t.KeyFile, true, true, plain(func(b Bundle) []byte { return b.Key })},
		{"certfile", t.CertFile, false, true, plain(func(b Bundle) []byte { return b.FullChain })},
	}
	if t.combined() {
		slots = []slot{{"certfile", t.CertFile, true, true, plain(combine)}}
	}
	for _, s := range []slot{
		{"leaffile", t.LeafFile, false, false, plain(func(b Bundle) []byte { return b.Leaf })},
		{"chainfile", t.ChainFile, false, false, plain(func(b Bundle) []byte { return b.Chain })},
		{"combinedfile", t.CombinedFile, true, false, plain(combine)},
		{"pkcs12", t.PKCS12, true, false, func(old []byte, b Bundle, _ time.Time) (form, error) {
			return pkcs12Form(old, b, t.PKCS12Password)
		}},
		{"keystore", t.Keystore, true, false, func(old []byte, b Bundle, now time.Time) (form, error) {
			return keystoreForm(old, b, t.KeystorePassword, now)
		}},
	} {
		if s.path != "" {
			slots = append(slots, s)
		}
	}
	return slots
}

// combined: one file holds key and chain. Two paths that lead to one file by
// links count as one.
func (t Target) combined() bool {
	if t.CertFile == t.KeyFile {
		return true
	}
	cert, errCert := resolve(t.CertFile)
	key, errKey := resolve(t.KeyFile)
	return errCert == nil && errKey == nil && cert == key
}

// combine puts the key first: Postfix and stunnel ask for that, the others do not mind.
func combine(b Bundle) []byte { return append(bytes.Clone(b.Key), b.FullChain...) }

// plain is a form in PEM.
func plain(pick func(Bundle) []byte) func([]byte, Bundle, time.Time) (form, error) {
	return func(old []byte, b Bundle, _ time.Time) (form, error) {
		f := form{data: pick(b)}
		if c, err := expiry.Parse(old); err == nil {
			f.replaces = c
		}
		return f, nil
	}
}

// letsencrypt is certbot's folder: what is in it is links that certbot
// manages, and it would be confused by files of ours.
const letsencrypt = "/etc/letsencrypt"

// maxLinks is Linux's own limit.
const maxLinks = 40

// resolve follows links to where the file is or would be made. Its folder has
// to be there. It refuses every path that leads below /etc/letsencrypt.
func resolve(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is no absolute path", path)
	}
	for range maxLinks {
		path = filepath.Clean(path)
		if below(path, letsencrypt) {
			return "", fmt.Errorf("it leads to %s, which is certbot's: choose a path outside of %s", path, letsencrypt)
		}
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the folder %s does not exist: create it or choose another path: %w", filepath.Dir(path), fs.ErrNotExist)
		}
		if err != nil {
			return "", fmt.Errorf("the folder %s cannot be used: %w", filepath.Dir(path), cause(err))
		}
		path = filepath.Join(folder, filepath.Base(path))
		if below(path, letsencrypt) {
			return "", fmt.Errorf("it leads to %s, which is certbot's: choose a path outside of %s", path, letsencrypt)
		}
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Mode()&fs.ModeSymlink == 0) {
			return path, nil
		}
		if err != nil {
			return "", fmt.Errorf("it cannot be looked at: %w", cause(err))
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", fmt.Errorf("the link cannot be followed: %w", cause(err))
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(folder, to)
		}
		path = to
	}
	return "", errors.New("its links lead in a circle")
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// cause is the reason in an error of the file system, without the path, which
// the sentence names already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err
	}
	return err
}

// A place is a slot's file as it is on disk.
type place struct {
	slot
	file string     // path with all links resolved
	temp string     // where the new contents are written first
	old  []byte     // nil = there is no file
	give attributes // what the new file gets
}

// What is written beside a file, always under the same names, so that it is
// found again after a crash: its new contents, and what Check tries.
const (
	newSuffix   = ".certsitter-new"
	checkSuffix = ".certsitter-check"
)

func beside(file, suffix string) string {
	return filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+suffix)
}

// locate looks at a slot's file. The error is a sentence.
func (t Target) locate(s slot) (place, error) {
	p, err := t.find(s)
	if err != nil {
		return place{}, fmt.Errorf("%s %s: %w", s.key, s.path, err)
	}
	return p, nil
}

func (t Target) find(s slot) (place, error) {
	if s.path == "" {
		return place{}, errors.New("certfile and keyfile both need a path")
	}
	file, err := resolve(s.path)
	if err != nil {
		return place{}, err
	}
	p := place{slot: s, file: file, temp: beside(file, newSuffix)}
	old, have, err := read(file)
	switch {
	case err == nil:
		p.old, p.give = old, have
		if p.old == nil {
			p.old = []byte{}
		}
		if mountPoint(file) {
			return place{}, errors.New("it is mounted as a single file, which cannot be replaced: mount its folder instead")
		}
		return p, nil
	case errors.Is(err, errNotRegular):
		return place{}, errors.New("it is a folder or a device, not a file")
	case errors.Is(err, fs.ErrPermission):
		return place{}, fmt.Errorf("certsitter (user %d) may not read it: give it the right to, or run certsitter as the file's owner", os.Geteuid())
	case !errors.Is(err, fs.ErrNotExist):
		return place{}, fmt.Errorf("it cannot be read: %w", cause(err))
	}
	p.give, err = t.newAttributes(s, filepath.Dir(file))
	return p, err
}

// newAttributes are what a file gets that is not there yet.
func (t Target) newAttributes(s slot, folder string) (attributes, error) {
	a := attributes{mode: newCertMode, uid: -1, gid: -1}
	if s.secret {
		a.mode = cmp.Or(t.KeyMode.Perm(), 0o600)
	}
	var err error
	if t.Owner != "" {
		if a.uid, err = userID(t.Owner); err != nil {
			return a, err
		}
	}
	if t.Group != "" {
		if a.gid, err = groupID(t.Group); err != nil {
			return a, err
		}
	}
	// openHAB has to read its keystore; it owns the folder that this is in.
	if s.key == "keystore" && t.Owner == "" && os.Geteuid() == 0 {
		if info, err := os.Stat(folder); err == nil {
			owner := attributesOf(info)
			a.uid = owner.uid
			if t.Group == "" {
				a.gid = owner.gid
			}
		}
	}
	return a, nil
}

func userID(name string) (int, error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	id, err := strconv.Atoi(name)
	if err != nil || id < 0 {
		return -1, fmt.Errorf("there is no user %q here: change owner, or give the user's number", name)
	}
	return id, nil
}

func groupID(name string) (int, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	id, err := strconv.Atoi(name)
	if err != nil || id < 0 {
		return -1, fmt.Errorf("there is no group %q here: change group, or give the group's number", name)
	}
	return id, nil
}

// writeFailure says why the new contents of a place could not be written.
func (p place) writeFailure(err error) error {
	folder := filepath.Dir(p.file)
	switch e := cause(err); {
	case errors.Is(e, fs.ErrPermission) && gives(err):
		return fmt.Errorf("%s %s: certsitter (user %d) cannot give the file its owner and mode (user %d, group %d, %v): run certsitter as root or as that user, or change owner, group and key_mode", p.key, p.path, os.Geteuid(), p.give.uid, p.give.gid, p.give.mode)
	case errors.Is(e, fs.ErrPermission):
		return fmt.Errorf("%s %s: certsitter (user %d) may not write into the folder %s: give it the right to, or choose another path", p.key, p.path, os.Geteuid(), folder)
	case errors.Is(e, syscall.EROFS):
		return fmt.Errorf("%s %s: the folder %s is read-only: mount it writable (for a systemd unit by ReadWritePaths=, and start that anew if the folder is new), or choose another path", p.key, p.path, folder)
	case errors.Is(e, syscall.ENOSPC), errors.Is(e, syscall.EDQUOT):
		return fmt.Errorf("%s %s: there is no space left in the folder %s: make room there: %w", p.key, p.path, folder, syscall.ENOSPC)
	default:
		return fmt.Errorf("%s %s: cannot be written: %w", p.key, p.path, e)
	}
}

// gives reports whether it was a file's owner or mode that could not be set.
func gives(err error) bool {
	e, ok := errors.AsType[*fs.PathError](err)
	return ok && (e.Op == "chown" || e.Op == "chmod")
}

// Check tries everything that an installation needs, before an order is
// placed: folders that are there and can be written, owners that can be set,
// a keystore that can be read. It writes a file beside each target and removes
// it again. The error is a sentence that says what to do.
func (t Target) Check() error {
	seen := map[string]string{}
	for _, s := range t.slots() {
		p, err := t.locate(s)
		if err != nil {
			return err
		}
		if other, ok := seen[p.file]; ok {
			return fmt.Errorf("%s and %s lead to the same file %s: give each its own", other, s.key, p.file)
		}
		seen[p.file] = s.key
		if s.key == "keystore" {
			if err := t.checkKeystore(p.old); err != nil {
				return fmt.Errorf("keystore %s: %w", s.path, err)
			}
		}
		// As large as a pair with its chain: a disk that is full should be
		// found now. Certmagic does the same.
		trial := beside(p.file, checkSuffix)
		if err := (disk{}).write(trial, make([]byte, 16<<10), p.give); err != nil {
			return p.writeFailure(err)
		}
		if err := os.Remove(trial); err != nil {
			return p.writeFailure(err)
		}
	}
	return nil
}

func (t Target) checkKeystore(old []byte) error {
	if err := checkKeystorePassword(t.KeystorePassword); err != nil {
		return err
	}
	_, err := readKeystore(old, t.KeystorePassword)
	return err
}

// Installed reads the pair at a target, whoever made it. fs.ErrNotExist: there
// is none. ErrMismatch: key and certificate do not belong together; both are
// returned all the same.
func Installed(t Target) (*expiry.Certificate, []byte, error) {
	certPEM, _, err := read(t.CertFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read installed certificate: %w", err)
	}
	keyPEM, _, err := read(t.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read installed key: %w", err)
	}
	certificate, err := expiry.Parse(certPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("read installed certificate %s: %w", t.CertFile, err)
	}
	key, err := normalKey(keyPEM)
	if err != nil {
		return certificate, nil, fmt.Errorf("read installed key %s: %w", t.KeyFile, err)
	}
	if err := certificate.MatchesKey(key); err != nil {
		return certificate, key, fmt.Errorf("%w: %s and %s", ErrMismatch, t.CertFile, t.KeyFile)
	}
	return certificate, key, nil
}

// samePEM reports whether two texts hold the same blocks in the same order,
// the private keys in whatever encoding.
func samePEM(a, b []byte) bool {
	return bytes.Equal(normalPEM(a), normalPEM(b))
}

func normalPEM(data []byte) []byte {
	var out []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		one := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		if strings.HasSuffix(block.Type, "PARAMETERS") { // openssl ecparam's, which says nothing
			continue
		}
		if key, err := normalKey(one); err == nil {
			one = key
		}
		out = append(out, one...)
	}
	return out
}
