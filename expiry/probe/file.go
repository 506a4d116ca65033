package probe

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/certsitter/certsitter/expiry"
)

// maxFile is how long a certificate file may be. The list of all public CAs has
// a quarter of it.
const maxFile = 1 << 20

// ReadFile reads the certificate in a file: PEM, DER, or with a password PKCS#12
// and JKS. Only regular files are opened, at most 1 MiB is read, and nothing
// blocks. The error is a *Fault.
func ReadFile(path, password string) (*expiry.Certificate, error) {
	data, err := readBounded(path)
	if err != nil {
		if _, ok := errors.AsType[*Fault](err); ok {
			return nil, err
		}
		return nil, explainFile(path, err)
	}
	c, err := expiry.ParseWithPassword(data, password)
	if err != nil {
		return nil, explainContent(path, err)
	}
	return c, nil
}

func readBounded(path string) ([]byte, error) {
	// Asked before opening, because opening a device may already do something,
	// and again afterwards, because the file may have been replaced between.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := checkKind(path, info); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a pipe's other end
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkKind(path, info); err != nil {
		return nil, err
	}
	return readAtMost(f, path, info.Size())
}

func checkKind(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return fault(CodeNoFile, nil, "%s is a folder, not a file.", expiry.Printable(path))
	case !info.Mode().IsRegular():
		return fault(CodeNoFile, nil, "%s is no ordinary file.", expiry.Printable(path))
	case info.Size() > maxFile:
		return tooLarge(path)
	}
	return nil
}

func tooLarge(path string) error {
	return fault(CodeTooLarge, nil, "%s is larger than 1 MiB, so it is no certificate.", expiry.Printable(path))
}

// readAtMost reads a file whose size may be wrong (below /proc it is 0, and a
// file may grow).
func readAtMost(f *os.File, path string, size int64) ([]byte, error) {
	data := make([]byte, 0, size+512)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		case len(data) > maxFile:
			return nil, tooLarge(path)
		case len(data) == cap(data):
			data = slices.Grow(data, len(data))
		}
	}
}

// Bounds of Glob: a pattern that was meant otherwise must not walk through the
// whole machine.
const (
	maxFiles   = 1000
	maxVisited = 100_000
)

// certificateEndings are the endings of files in a folder that may hold a
// certificate.
var certificateEndings = []string{".pem", ".crt", ".cer", ".cert", ".der", ".p12", ".pfx", ".jks", ".keystore"}

// Glob lists the files that are meant by a path, a pattern or a folder, sorted. A
// path is the thing itself, whatever it is. In a pattern *, ? and []
// match within one name (path/filepath.Match), and ** any number of folders; links
// to folders are not followed there. A folder means the files in it that end like
// a certificate and are not named like a key, but nothing further down. Only
// regular files (or links to them) are found. Folders that may not be read are
// told in an error beside what was found; that nothing matches is an error, too.
func Glob(pattern string) ([]string, error) {
	info, err := os.Stat(pattern)
	switch {
	case err == nil && info.IsDir():
		return folder(pattern)
	case err == nil:
		return []string{pattern}, nil
	case !strings.ContainsAny(pattern, `*?[`):
		return nil, explainFile(pattern, err)
	}
	if _, err := filepath.Match(strings.ReplaceAll(pattern, "**", "*"), ""); err != nil {
		return nil, fault(CodePattern, err, "%s is no valid pattern: a bracket is not closed.", expiry.Printable(pattern))
	}
	w := &walk{}
	start, parts := splitPattern(pattern)
	w.match(start, parts)
	return w.result(pattern)
}

// folder lists what may be a certificate in one folder.
func folder(path string) ([]string, error) {
	w := &walk{}
	for _, entry := range w.entries(path) {
		if name := entry.Name(); endsLikeCertificate(name) && !namedLikeKey(name) {
			w.add(filepath.Join(path, name))
		}
	}
	return w.result(path)
}

func endsLikeCertificate(name string) bool {
	return slices.Contains(certificateEndings, strings.ToLower(filepath.Ext(name)))
}

// namedLikeKey knows the names that certbot, nginx's examples and openssl's give
// to private keys.
func namedLikeKey(name string) bool {
	stem := strings.ToLower(strings.TrimSuffix(name, filepath.Ext(name)))
	return stem == "key" || strings.HasPrefix(stem, "privkey") || strings.HasSuffix(stem, "-key") || strings.HasSuffix(stem, "_key") || strings.HasSuffix(stem, ".key")
}

// splitPattern cuts a pattern into the folder to begin with and the parts to
// match below it.
func splitPattern(pattern string) (start string, parts []string) {
	parts = strings.Split(filepath.ToSlash(pattern), "/")
	literal := 0
	for literal < len(parts)-1 && !strings.ContainsAny(parts[literal], `*?[`) {
		literal++
	}
	start = strings.Join(parts[:literal], "/")
	if start == "" && literal > 0 {
		start = "/"
	}
	return start, slices.DeleteFunc(parts[literal:], func(p string) bool { return p == "" })
}

// A walk goes through folders and collects files.
type walk struct {
	found   []string
	errs    []error
	visited int
	tooMuch bool
}

func (w *walk) match(dir string, parts []string) {
	if len(parts) == 0 || w.tooMuch {
		return
	}
	if len(parts) > 1 && parts[0] == "**" && parts[1] == "**" {
		parts = parts[1:]
	}
	last := len(parts) == 1
	if parts[0] == "**" {
		if !last {
			w.match(dir, parts[1:]) // no folder between
		}
		for _, entry := range w.entries(dir) {
			path := filepath.Join(dir, entry.Name())
			if entry.IsDir() {
				w.match(path, parts)
			} else if last {
				w.add(path)
			}
		}
		return
	}
	for _, entry := range w.entries(dir) {
		if ok, _ := filepath.Match(parts[0], entry.Name()); !ok {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		switch {
		case last:
			w.add(path)
		case isFolder(path):
			w.match(path, parts[1:])
		}
	}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// entries lists a folder ("" = the present one).
func (w *walk) entries(dir string) []fs.DirEntry {
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		w.errs = append(w.errs, explainFile(filepath.Clean(dir), err))
	}
	if w.visited += len(entries); w.visited > maxVisited {
		w.tooMuch = true
		return nil
	}
	return entries
}

func (w *walk) add(path string) {
	info, err := os.Stat(path)
	if err != nil && errors.Is(err, fs.ErrNotExist) {
		info, err = os.Lstat(path) // a link that leads nowhere is worth a word
		if err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return
		}
	} else if err == nil && !info.Mode().IsRegular() {
		return
	}
	if len(w.found) >= maxFiles {
		w.tooMuch = true
		return
	}
	w.found = append(w.found, path)
}

func (w *walk) result(pattern string) ([]string, error) {
	shown := expiry.Printable(pattern)
	switch {
	case w.tooMuch:
		return nil, fault(CodePattern, nil, "%s matches more than %d files, or lies above too many: name the folder more exactly.", shown, maxFiles)
	case len(w.found) == 0 && len(w.errs) > 0:
		return nil, w.errs[0]
	case len(w.found) == 0:
		return nil, fault(CodeNotFound, fs.ErrNotExist, "No file matches %s.", shown)
	}
	slices.Sort(w.found)
	return slices.Compact(w.found), errors.Join(w.errs...)
}
