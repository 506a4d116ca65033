package sitter

import (
	"os"
	"time"
)

// rereadEvery is how often a file is read although nothing about it seems to
// have changed: a rewrite in place may keep size and time.
const rereadEvery = 6 * time.Hour

// footprint tells whether files may have changed without reading them. Links
// are followed: it is the target that counts.
type footprint struct {
	files []os.FileInfo // nil for one that is not there
	at    time.Time     // when they were read
}

// changed reports whether the files must be read again, and remembers them as
// they are now.
func (f *footprint) changed(now time.Time, paths []string) bool {
	current := make([]os.FileInfo, len(paths))
	same := len(f.files) == len(paths)
	for i, path := range paths {
		current[i], _ = os.Stat(path)
		same = same && unchanged(f.files[i], current[i])
	}
	if age := now.Sub(f.at); same && age >= 0 && age < rereadEvery {
		return false
	}
	f.files, f.at = current, now
	return true
}

func unchanged(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

// forget makes the next question be answered with yes.
func (f *footprint) forget() { f.at = time.Time{} }
