package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A command that root runs on another user's state folder leaves nothing there
// that the daemon could not read. Run as another user, the folder is that user's.
func TestCommandsBecomeTheOwner(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "certsitter-owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	const nobody = 65534
	want := os.Getuid()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if want == 0 {
		want = nobody
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(state, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "certsitter.yaml")
	nas, err := selfSigned(50, "nas.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		config:                        "state_dir: " + state + "\nwatch:\n- {name: nas, source: " + filepath.Join(dir, "nas.pem") + "}\n",
		filepath.Join(dir, "nas.pem"): string(certificatePEM(nas)),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "status", "--config", config)
	if code := p.exit(t); code != 0 || !strings.Contains(p.out.String(), "nas.example.org") {
		t.Errorf("exit code %d", code)
	}
	files := 0
	err = filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != want {
			t.Errorf("%s belongs to user %d, want %d", path, owner, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 3 { // the folder itself, the lock, state.json
		t.Errorf("%d files in the state folder", files)
	}
}
