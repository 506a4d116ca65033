package challenge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/certsitter/certsitter/renew"
)

// folders are the webroots that are in use. Sessions in one webroot share the
// folders below it, so everything that makes or removes one is done under mu.
type folders struct {
	mu   sync.Mutex
	made map[string]bool // folders that we made and that are to be removed when they are empty
}

// answers are one session's files.
type answers struct {
	folders *folders
	webroot string
	files   []string
}

// open looks whether answers can be put below webroot.
func (f *folders) open(webroot string) (*answers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(webroot)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Obstacle{
			Sentence: fmt.Sprintf("The webroot %s does not exist, so answers to challenges cannot be put there.", webroot),
			Advice:   "Set webroot to the folder that the web server serves for these names, or mount it here.",
			Err:      err,
		}
	case err == nil && !info.IsDir():
		return nil, &Obstacle{
			Sentence: fmt.Sprintf("The webroot %s is not a folder, so answers to challenges cannot be put there.", webroot),
			Advice:   "Set webroot to the folder that the web server serves for these names.",
		}
	case err != nil:
		return nil, unwritable(webroot, err)
	}
	a := &answers{folders: f, webroot: webroot}
	if err := a.try(); err != nil {
		a.tidy()
		return nil, unwritable(webroot, err)
	}
	return a, nil
}

func unwritable(webroot string, err error) error {
	advice := "Give Certsitter's user the right to write there, or make the folder .well-known/acme-challenge and give it to that user."
	if errors.Is(err, syscall.EROFS) {
		advice = "Give Certsitter that folder: a systemd unit by ReadWritePaths=, and restart the unit if it is older than the folder; a container by a mount without :ro."
	}
	return &Obstacle{
		Sentence: fmt.Sprintf("Certsitter cannot write to %s below the webroot %s (%s), so answers to challenges cannot be put there.",
			filepath.FromSlash(challengePath[1:]), webroot, reason(err)),
		Advice: advice,
		Err:    err,
	}
}

func (a *answers) folder() string { return filepath.Join(a.webroot, filepath.FromSlash(challengePath)) }

// try makes the folders and a file, and removes the file.
func (a *answers) try() error {
	if err := a.makeFolders(); err != nil {
		return err
	}
	f, err := os.CreateTemp(a.folder(), ".certsitter-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// makeFolders makes what is missing, readable for the web server whatever our
// umask is, and remembers it.
func (a *answers) makeFolders() error {
	for _, dir := range []string{filepath.Dir(a.folder()), a.folder()} {
		switch err := os.Mkdir(dir, 0o755); {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		if a.folders.made == nil {
			a.folders.made = map[string]bool{}
		}
		a.folders.made[dir] = true
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// write puts the answers in place, or none of them.
func (a *answers) write(challenges []renew.Challenge) error {
	a.folders.mu.Lock()
	defer a.folders.mu.Unlock()
	if err := a.makeFolders(); err != nil {
		return unwritable(a.webroot, err)
	}
	before := len(a.files)
	for _, c := range challenges {
		if err := a.writeFile(c); err != nil {
			for _, path := range a.files[before:] {
				_ = os.Remove(path) // the reason to give up is the error above
			}
			a.files = a.files[:before]
			return unwritable(a.webroot, err)
		}
	}
	return nil
}

// writeFile replaces the file whole: a web server never reads half an answer,
// and a link that somebody left at its name is not followed.
func (a *answers) writeFile(c renew.Challenge) (err error) {
	f, err := os.CreateTemp(a.folder(), ".certsitter-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // best effort; err says why
		}
	}()
	_, err = f.WriteString(c.KeyAuthorization)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	path := filepath.Join(a.folder(), c.Token)
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	a.files = append(a.files, path)
	return nil
}

// remove takes away the files, and the folders that we made if they are empty.
func (a *answers) remove() error {
	a.folders.mu.Lock()
	defer a.folders.mu.Unlock()
	var errs []error
	for _, path := range a.files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an answer to a challenge: %w", err))
		}
	}
	a.files = nil
	a.tidy()
	return errors.Join(errs...)
}

// tidy removes those of the folders that we made and nobody uses.
func (a *answers) tidy() {
	for _, dir := range []string{a.folder(), filepath.Dir(a.folder())} {
		if !a.folders.made[dir] {
			return
		}
		err := os.Remove(dir)
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
			return
		}
		delete(a.folders.made, dir)
	}
}
