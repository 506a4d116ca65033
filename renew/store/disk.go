package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFile is the most that is read of any file: a full chain with its key has
// some 10 KiB, a Java keystore with a country's root certificates less than this.
const maxFile = 1 << 20

// tempSuffix ends the names of what is being written in the state folder.
// Open removes all that bear it.
const tempSuffix = ".tmp"

// disk makes every change of files and folders, so that a crash between any
// two of its steps can be tried by a test.
type disk struct {
	step func(name string) // nil = nobody watches
}

func (d disk) before(deed, path string) {
	if d.step == nil {
		return
	}
	d.step(deed + " " + filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path))
}

// attributes are a file's mode and owner. An id of -1 leaves what the file
// system gives.
type attributes struct {
	mode     fs.FileMode
	uid, gid int
}

// private is for files that only we read.
var private = attributes{mode: 0o600, uid: -1, gid: -1}

// apply gives f its owner, then its mode (chown clears some bits of it). It
// changes only what differs: file systems without owners refuse any change.
func (a attributes) apply(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	have := attributesOf(info)
	if (a.uid >= 0 && a.uid != have.uid) || (a.gid >= 0 && a.gid != have.gid) {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return err
		}
	}
	if a.mode != have.mode {
		return f.Chmod(a.mode)
	}
	return nil
}

func attributesOf(info fs.FileInfo) attributes {
	a := attributes{mode: info.Mode().Perm(), uid: -1, gid: -1}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		a.uid, a.gid = int(st.Uid), int(st.Gid)
	}
	return a
}

// write makes a new file with all of data on the disk, in place of what a
// crash may have left there. What cannot be written whole is removed.
func (d disk) write(path string, data []byte, a attributes) (err error) {
	d.before("create", path)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// O_EXCL follows no link that somebody else may have put there.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	defer func() { err = errors.Join(err, f.Close()) }()

	if err := a.apply(f); err != nil {
		return err
	}
	half := len(data) / 2
	if _, err := f.Write(data[:half]); err != nil {
		return err
	}
	d.before("fill", path)
	if _, err := f.Write(data[half:]); err != nil {
		return err
	}
	d.before("sync", path)
	return f.Sync()
}

// replace gives path new contents: all of them or, after a crash, the old ones.
func (d disk) replace(path string, data []byte) error {
	temp := path + tempSuffix
	if err := d.write(temp, data, private); err != nil {
		return err
	}
	return d.rename(temp, path)
}

// rename moves from to to, within one folder, and puts that on the disk.
func (d disk) rename(from, to string) error {
	if err := d.move(from, to); err != nil {
		return err
	}
	return d.syncFolder(filepath.Dir(to))
}

// move is rename without waiting for the disk.
func (d disk) move(from, to string) error {
	d.before("rename", to)
	return os.Rename(from, to)
}

// syncFolder puts a folder's names on the disk.
func (d disk) syncFolder(path string) error {
	d.before("sync folder", path)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// Some network and FUSE file systems know no fsync of a folder (EINVAL, ENOTSUP).
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

func (d disk) mkdir(path string) error {
	d.before("make folder", path)
	return os.Mkdir(path, 0o700)
}

// remove removes a file or a folder with all that is in it; what is not there is fine.
func (d disk) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.before("remove", path)
	return os.RemoveAll(path)
}

// discard removes a folder so that no half of it is ever seen under its name.
func (d disk) discard(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	temp := path + ".old" + tempSuffix
	if err := d.remove(temp); err != nil {
		return err
	}
	if err := d.rename(path, temp); err != nil {
		return err
	}
	return d.remove(temp)
}

// A document is a file of a folder that is written as a whole.
type document struct {
	name string
	data []byte
}

// folder makes the folder path with its files: complete and on the disk
// before its name is there.
func (d disk) folder(path string, files []document) (err error) {
	temp := path + tempSuffix
	if err := d.remove(temp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(temp) // a full disk needs the room
		}
	}()
	if err := d.mkdir(temp); err != nil {
		return err
	}
	for _, f := range files {
		if err := d.write(filepath.Join(temp, f.name), f.data, private); err != nil {
			return err
		}
	}
	if err := d.syncFolder(temp); err != nil {
		return err
	}
	return d.rename(temp, path)
}

// sweep removes what a crash left half-written in a folder.
func (d disk) sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		if err := d.remove(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// exists reports whether a name is there, be it a link that leads nowhere.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// errNotRegular is what a pipe, a device or a folder gets in a file's place.
var errNotRegular = errors.New("not a regular file")

// read returns a regular file's contents, at most maxFile of them, and its
// attributes. It never waits for a pipe's other end.
func read(path string) ([]byte, attributes, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, attributes{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, attributes{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, attributes{}, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, attributes{}, err
	}
	if len(data) > maxFile {
		return nil, attributes{}, &fs.PathError{Op: "read", Path: path, Err: errors.New("larger than 1 MiB")}
	}
	return data, attributesOf(info), nil
}
