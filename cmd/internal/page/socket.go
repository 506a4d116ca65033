package page

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// SocketName is the control socket's name in the state folder.
const SocketName = "control.sock"

// RunSocket answers on the control socket until ctx ends and removes it then.
// The caller holds the state folder's lock, so a socket that is there already
// is a dead daemon's. It is made under another name in a folder that nobody
// else may enter and moved to path with its final mode: at no moment could a
// stranger connect.
func (s *Server) RunSocket(ctx context.Context, path string) error {
	ln, err := listenSocket(path)
	if err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	defer func() { _ = os.Remove(path) }() // may be gone with its folder
	return s.serve(ctx, ln, s.secured(s.controlRoutes()), true)
}

func listenSocket(path string) (net.Listener, error) {
	nursery, err := os.MkdirTemp(filepath.Dir(path), ".control-") // 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(nursery) }()
	short, done, err := shortened(filepath.Join(nursery, SocketName))
	if err != nil {
		return nil, err
	}
	defer done()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it would look for it under its first name
	born := filepath.Join(nursery, SocketName)
	if err := errors.Join(os.Chmod(born, 0o600), os.Rename(born, path)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// socketPathLimit is sockaddr_un's 108 bytes with the final zero, less for
// systems that have 104.
const socketPathLimit = 100

// shortened gives a path to a socket that fits into a socket address: a state
// folder may lie deep. done is to be called when the address is used.
func shortened(path string) (short string, done func(), err error) {
	if len(path) <= socketPathLimit {
		return path, func() {}, nil
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = filepath.Join("/proc/self/fd", strconv.Itoa(int(folder.Fd())), filepath.Base(path))
	if _, err := os.Stat(filepath.Dir(short)); errors.Is(err, fs.ErrNotExist) {
		return "", nil, errors.Join(fmt.Errorf("the path is longer than %d bytes; choose a shorter state_dir", socketPathLimit), folder.Close())
	}
	return short, func() { _ = folder.Close() }, nil
}
