package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/renew"
)

// installed is a store with one version, a CA, and a folder for targets.
func installed(t *testing.T) (*Store, *testCA, renew.Version, string) {
	t.Helper()
	s, ca := open(t, t.TempDir()), newCA(t, "Test")
	return s, ca, obtain(t, s, ca, "home", want("home.example.org"), start.Add(-day)), t.TempDir()
}

func TestInstallModes(t *testing.T) {
	s, ca, v, live := installed(t)
	target := targetIn(live)
	target.LeafFile, target.CombinedFile = filepath.Join(live, "cert.pem"), filepath.Join(live, "all.pem")
	target.KeyMode = 0o640
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	modes := func(want map[string]fs.FileMode) {
		t.Helper()
		for path, mode := range want {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode().Perm(), mode)
			}
		}
	}
	modes(map[string]fs.FileMode{target.KeyFile: 0o640, target.CombinedFile: 0o640, target.CertFile: 0o644, target.LeafFile: 0o644})

	// Existing files keep what they have, whatever the configuration says.
	for path, mode := range map[string]fs.FileMode{target.KeyFile: 0o604, target.CertFile: 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	v = obtain(t, s, ca, "home", want("home.example.org"), start)
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	modes(map[string]fs.FileMode{target.KeyFile: 0o604, target.CombinedFile: 0o640, target.CertFile: 0o600})
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
}

func TestInstallOwner(t *testing.T) {
	root(t)
	s, ca, v, live := installed(t)
	target := targetIn(live)
	target.Owner, target.Group = strconv.Itoa(nobody), "65533"
	target.Keystore, target.KeystorePassword = filepath.Join(live, "openhab", "keystore"), "openhab"
	if err := os.Mkdir(filepath.Dir(target.Keystore), 0o755); err != nil {
		t.Fatal(err)
	}
	owned := func(path string, uid, gid uint32) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid {
			t.Errorf("%s belongs to %d:%d, want %d:%d", filepath.Base(path), st.Uid, st.Gid, uid, gid)
		}
	}
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	owned(target.KeyFile, nobody, 65533)
	owned(target.CertFile, nobody, 65533)
	owned(target.Keystore, nobody, 65533)

	// What is there keeps its owner.
	if err := os.Chown(target.KeyFile, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	v = obtain(t, s, ca, "home", want("home.example.org"), start)
	if _, err := s.Install("home", v, target); err != nil {
		t.Fatal(err)
	}
	owned(target.KeyFile, 1234, 5678)
	owned(target.CertFile, nobody, 65533)

	// A new keystore belongs to whom its folder belongs: openHAB has to read it.
	target.Owner, target.Group = "", ""
	if err := errors.Join(os.Remove(target.Keystore), os.Chown(filepath.Dir(target.Keystore), 9001, 9002)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install("home", v, target); err != nil {
		t.Fatal(err)
	}
	owned(target.Keystore, 9001, 9002)
}

func TestInstallOnlyWhatDiffers(t *testing.T) {
	s, ca, v, live := installed(t)
	target := targetIn(live)
	target.ChainFile = filepath.Join(live, "chain.pem")
	target.PKCS12, target.PKCS12Password = filepath.Join(live, "home.p12"), "secret"
	target.Keystore, target.KeystorePassword = filepath.Join(live, "keystore"), "openhab"
	paths := []string{target.CertFile, target.KeyFile, target.ChainFile, target.PKCS12, target.Keystore}
	inodes := func() map[string]uint64 {
		all := map[string]uint64{}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Base(path)] = info.Sys().(*syscall.Stat_t).Ino
		}
		return all
	}
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	first := inodes()
	if changed, err := s.Install("home", v, target); changed || err != nil {
		t.Fatalf("written again: %v, %v", changed, err)
	}
	if again := inodes(); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("files were replaced: %v, %v", first, again)
	}
	// One form is gone: it alone is written.
	if err := os.Remove(target.ChainFile); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	again := inodes()
	for name, inode := range first {
		if name != "chain.pem" && again[name] != inode {
			t.Errorf("%s was replaced", name)
		}
	}
	// The next one changes the chain's leaf, not the issuers.
	v = obtain(t, s, ca, "home", want("home.example.org"), start)
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	last := inodes()
	for name, inode := range again {
		if (last[name] == inode) != (name == "chain.pem") {
			t.Errorf("%s: replaced %v", name, last[name] != inode)
		}
	}
}

func TestInstallThroughLinks(t *testing.T) {
	s, ca, v, live := installed(t)
	target := targetIn(live)
	deep := filepath.Join(live, "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	// A chain of links, relative and absolute, whose end is not there yet; and
	// a folder that is a link.
	for link, to := range map[string]string{
		target.CertFile: "hop.pem", filepath.Join(live, "hop.pem"): filepath.Join(deep, "cert.pem"),
		filepath.Join(live, "folder"): deep,
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	target.KeyFile = filepath.Join(live, "folder", "key.pem")
	for range 2 {
		if changed, err := s.Install("home", v, target); !changed || err != nil {
			t.Fatal(changed, err)
		}
		for _, link := range []string{target.CertFile, filepath.Join(live, "hop.pem")} {
			if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
				t.Errorf("%s is no link any more: %v", link, err)
			}
		}
		real := Target{CertFile: filepath.Join(deep, "cert.pem"), KeyFile: filepath.Join(deep, "key.pem")}
		if got := inForce(t, real); got != v.Fingerprint {
			t.Errorf("in force is %s", got)
		}
		v = obtain(t, s, ca, "home", want("home.example.org"), start)
	}

	// Two names for one file: one combined file, not half a pair.
	both := Target{CertFile: filepath.Join(live, "a.pem"), KeyFile: filepath.Join(live, "b.pem")}
	if err := os.Symlink("a.pem", both.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install("home", v, both); err != nil {
		t.Fatal(err)
	}
	if got := inForce(t, both); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
}

func TestInstallCombined(t *testing.T) {
	s, _, v, live := installed(t)
	path := filepath.Join(live, "all.pem")
	target := Target{CertFile: path, KeyFile: path}
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
	if !bytes.HasPrefix(readFile(t, path), []byte("-----BEGIN PRIVATE KEY-----")) {
		t.Error("the key does not come first")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestStagingNeverReplacesTrusted(t *testing.T) {
	s, _, trusted, live := installed(t)
	staging := newCA(t, "(STAGING) Test")
	w := want("home.example.org")
	w.Staging, w.Directory = true, "https://staging.example/directory"
	target := targetIn(live)
	target.Keystore, target.KeystorePassword = filepath.Join(live, "keystore"), "openhab"

	fake := obtain(t, s, staging, "home", w, start.Add(-2*day))
	if changed, err := s.Install("home", fake, target); !changed || err != nil {
		t.Fatalf("staging onto nothing: %v, %v", changed, err)
	}
	if changed, err := s.Install("home", trusted, target); !changed || err != nil {
		t.Fatalf("trusted over staging: %v, %v", changed, err)
	}
	if changed, err := s.Install("home", fake, target); changed || !errors.Is(err, ErrStaging) {
		t.Fatalf("staging over trusted: %v, %v", changed, err)
	}
	if got := inForce(t, target); got != trusted.Fingerprint {
		t.Error("the trusted one is gone")
	}
	// The pair is elsewhere, but the keystore is the same.
	elsewhere := targetIn(t.TempDir())
	elsewhere.Keystore, elsewhere.KeystorePassword = target.Keystore, target.KeystorePassword
	if changed, err := s.Install("home", fake, elsewhere); changed || !errors.Is(err, ErrStaging) {
		t.Fatalf("staging over trusted in the keystore: %v, %v", changed, err)
	}
	if there, _ := exists(elsewhere.CertFile); there {
		t.Error("half of it was installed")
	}
	if left := leftovers(t, live); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestCheck(t *testing.T) {
	live := openFolder(t)
	target := targetIn(live)
	with := func(change func(*Target)) Target {
		c := target
		change(&c)
		return c
	}
	for path, to := range map[string]string{
		"circle.pem": "circle.pem", "certbot.pem": "/etc/letsencrypt/live/home/fullchain.pem", "le": "/etc/letsencrypt",
	} {
		if err := os.Symlink(to, filepath.Join(live, path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(live, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(live, "text"), []byte("openhab"), 0o600)
	writeFile(t, filepath.Join(live, "damaged"), []byte("\xfe\xed\xfe\xed damaged"), 0o600)
	for name, c := range map[string]struct {
		target Target
		want   string // what the sentence holds; "" = no complaint
	}{
		"good":             {target, ""},
		"no key file":      {with(func(t *Target) { t.KeyFile = "" }), "both need a path"},
		"relative":         {with(func(t *Target) { t.CertFile = "a.pem" }), "no absolute path"},
		"folder missing":   {with(func(t *Target) { t.CertFile = live + "/no/cert.pem" }), "the folder " + live + "/no does not exist: create it"},
		"certbot's":        {with(func(t *Target) { t.KeyFile = "/etc/letsencrypt/live/home/privkey.pem" }), "certbot's"},
		"link to certbot":  {with(func(t *Target) { t.CertFile = live + "/certbot.pem" }), "certbot's"},
		"dotted certbot":   {with(func(t *Target) { t.CertFile = "/etc/../etc/letsencrypt/a.pem" }), "certbot's"},
		"circle":           {with(func(t *Target) { t.CertFile = live + "/circle.pem" }), "circle"},
		"pipe":             {with(func(t *Target) { t.CertFile = live + "/pipe" }), "not a file"},
		"folder":           {with(func(t *Target) { t.CertFile = live }), "not a file"},
		"unknown user":     {with(func(t *Target) { t.Owner = "no-such-user" }), `no user "no-such-user"`},
		"unknown group":    {with(func(t *Target) { t.Group = "no-such-group" }), `no group "no-such-group"`},
		"same file twice":  {with(func(t *Target) { t.LeafFile = target.CertFile }), "certfile and leaffile lead to the same file"},
		"short password":   {with(func(t *Target) { t.Keystore, t.KeystorePassword = live+"/ks", "short" }), "fewer than 6"},
		"foreign password": {with(func(t *Target) { t.Keystore, t.KeystorePassword = live+"/ks", "schlüssel" }), "not ASCII"},
		"damaged keystore": {with(func(t *Target) { t.Keystore, t.KeystorePassword = live+"/damaged", "openhab" }), "no Java keystore"},
		"no keystore":      {with(func(t *Target) { t.Keystore, t.KeystorePassword = live+"/text", "openhab" }), "no Java keystore"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.target.Check()
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if left := leftovers(t, live); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
	if _, err := os.Stat(target.CertFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a check made a file: %v", err)
	}
}

// What a user without root's rights cannot do is said before an order.
func TestCheckWithoutRights(t *testing.T) {
	live := openFolder(t)
	target := targetIn(live)
	if err := os.Chmod(live, 0o555); err != nil {
		t.Fatal(err)
	}
	if got := checkAsUser(t, target); !strings.Contains(got, "may not write into the folder "+live) {
		t.Errorf("a folder that is not writable: %s", got)
	}
	if err := os.Chmod(live, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := checkAsUser(t, target); got != "<nil>" {
		t.Errorf("a writable folder: %s", got)
	}
	foreign := target
	foreign.Owner = "0"
	if got := checkAsUser(t, foreign); !strings.Contains(got, "cannot give the file its owner") {
		t.Errorf("an owner that cannot be set: %s", got)
	}
	writeFile(t, target.KeyFile, []byte("secret"), 0o000)
	if got := checkAsUser(t, target); !strings.Contains(got, "may not read it") {
		t.Errorf("a key that cannot be read: %s", got)
	}
	if os.Geteuid() != 0 {
		return // the rest needs a file of another user
	}
	writeFile(t, target.KeyFile, []byte("secret"), 0o644)
	if got := checkAsUser(t, target); !strings.Contains(got, "(user 0, group 0, -rw-r--r--)") {
		t.Errorf("a file whose owner cannot be kept: %s", got)
	}
}

// mountTmpfs mounts a small file system in memory.
func mountTmpfs(t *testing.T, path, options string) {
	t.Helper()
	root(t)
	if err := unix.Mount("none", path, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

// fill leaves no room in a folder; the file it returns gives it back.
func fill(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join(folder, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return path
		}
	}
}

func TestFullDisk(t *testing.T) {
	live, state := t.TempDir(), t.TempDir()
	mountTmpfs(t, live, "size=128k")
	mountTmpfs(t, state, "size=256k")
	s, ca, target := open(t, state), newCA(t, "Test"), targetIn(live)
	old := obtain(t, s, ca, "home", want("home.example.org"), start.Add(-day))
	if _, err := s.Install("home", old, target); err != nil {
		t.Fatal(err)
	}

	// The state folder is full when the certificate comes.
	p, err := s.Prepare("home", want("home.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Placed("home", "https://ca.example/account/1", "https://ca.example/order/9"); err != nil {
		t.Fatal(err)
	}
	chain, err := ca.issue(p.CSR, start, 90*day)
	if err != nil {
		t.Fatal(err)
	}
	filler := fill(t, state)
	if _, err := s.Add("home", renew.Issued{Chain: chain}, start); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("added on a full disk: %v", err)
	}
	if kept, ok, err := s.Pending("home"); !ok || err != nil || !bytes.Equal(kept.Key, p.Key) || kept.OrderURL == "" {
		t.Fatalf("the order is lost: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	v, err := s.Add("home", renew.Issued{Chain: chain}, start)
	if err != nil {
		t.Fatal(err)
	}

	// The target's folder is full.
	filler = fill(t, live)
	if err := target.Check(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("check: %v", err)
	}
	if changed, err := s.Install("home", v, target); changed || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("installed on a full disk: %v, %v", changed, err)
	}
	if got := inForce(t, target); got != old.Fingerprint {
		t.Errorf("in force is %s", got)
	}
	if left := append(leftovers(t, live), leftovers(t, state)...); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Errorf("with room again: %v, %v", changed, err)
	}
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	s, ca, v, live := installed(t)
	target := targetIn(live)
	mountTmpfs(t, live, "size=128k")
	if _, err := s.Install("home", v, target); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", live, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot remount here: %v", err)
	}
	next := obtain(t, s, ca, "home", want("home.example.org"), start)
	for what, err := range map[string]error{"check": target.Check(), "install": func() error { _, err := s.Install("home", next, target); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "is read-only: mount it writable") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
}

// Docker mounts single files, too; they cannot be renamed over.
func TestMountedFile(t *testing.T) {
	root(t)
	_, _, _, live := installed(t)
	target := targetIn(live)
	writeFile(t, target.CertFile, nil, 0o644)
	if err := unix.Mount(target.CertFile, target.CertFile, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target.CertFile, unix.MNT_DETACH) })
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, target.CertFile, 0, 0, &st); err != nil || st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		t.Skip("this kernel does not tell what is mounted")
	}
	if err := target.Check(); err == nil || !strings.Contains(err.Error(), "mount its folder instead") {
		t.Errorf("error %v", err)
	}
}

// If the second file of the pair cannot be renamed, the first is put back.
func TestSecondRenameFails(t *testing.T) {
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprintf("old pair %v", there), func(t *testing.T) {
			dir, ca := t.TempDir(), newCA(t, "Test")
			target := targetIn(t.TempDir())
			var hook func(string)
			s, err := Open(dir, Options{Step: func(name string) {
				if hook != nil {
					hook(name)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			old := obtain(t, s, ca, "home", want("home.example.org"), start.Add(-day))
			if there {
				if _, err := s.Install("home", old, target); err != nil {
					t.Fatal(err)
				}
			}
			v := obtain(t, s, ca, "home", want("home.example.org"), start)
			aside := target.CertFile + ".aside"
			hook = func(name string) {
				if !strings.HasPrefix(name, "rename ") || !strings.HasSuffix(name, "/fullchain.pem") {
					return
				}
				hook = nil
				if there {
					if err := os.Rename(target.CertFile, aside); err != nil {
						t.Error(err)
					}
				}
				if err := os.Mkdir(target.CertFile, 0o755); err != nil {
					t.Error(err)
				}
			}
			if changed, err := s.Install("home", v, target); changed || err == nil {
				t.Fatalf("installed over a folder: %v", changed)
			}
			if err := os.Remove(target.CertFile); err != nil {
				t.Fatal(err)
			}
			if left := append(leftovers(t, dir), leftovers(t, filepath.Dir(target.CertFile))...); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if !there {
				if kept, _ := exists(target.KeyFile); kept {
					t.Error("a key without a certificate")
				}
				return
			}
			if err := os.Rename(aside, target.CertFile); err != nil {
				t.Fatal(err)
			}
			if got := inForce(t, target); got != old.Fingerprint {
				t.Errorf("in force is %s", got)
			}
		})
	}
}

// If the first cannot even be put back, the next start completes the pair.
func TestPutBackFails(t *testing.T) {
	ca, target := newCA(t, "Test"), targetIn(t.TempDir())
	var hook func(string)
	s, err := Open(t.TempDir(), Options{Step: func(name string) {
		if hook != nil {
			hook(name)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Install("home", obtain(t, s, ca, "home", want("home.example.org"), start.Add(-day)), target); err != nil {
		t.Fatal(err)
	}
	v := obtain(t, s, ca, "home", want("home.example.org"), start)
	folder := filepath.Dir(target.CertFile)
	hook = func(name string) {
		if strings.HasPrefix(name, "rename ") && strings.HasSuffix(name, "/fullchain.pem") {
			hook = nil
			if err := os.Rename(folder, folder+".away"); err != nil { // as if it was unmounted
				t.Error(err)
			}
		}
	}
	if changed, err := s.Install("home", v, target); changed || !errors.Is(err, errMixed) {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	if err := os.Rename(folder+".away", folder); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Installed(target); !errors.Is(err, ErrMismatch) {
		t.Fatalf("the pair is not mixed: %v", err)
	}
	if changed, err := s.Recover("home", target); !changed || err != nil {
		t.Errorf("recovered %v, %v", changed, err)
	}
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
	if left := leftovers(t, folder); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// A form beside the pair that cannot be written does not keep the pair old.
func TestOneFormFails(t *testing.T) {
	s, _, v, live := installed(t)
	target := targetIn(live)
	target.Keystore, target.KeystorePassword = filepath.Join(live, "keystore"), "openhab"
	target.LeafFile = filepath.Join(live, "missing", "cert.pem")
	writeFile(t, target.Keystore, []byte("\xfe\xed\xfe\xed damaged"), 0o644)
	changed, err := s.Install("home", v, target)
	if !changed || err == nil || !strings.Contains(err.Error(), "keystore") || !strings.Contains(err.Error(), "leaffile") {
		t.Errorf("changed %v, error %v", changed, err)
	}
	if got := inForce(t, target); got != v.Fingerprint {
		t.Errorf("in force is %s", got)
	}
	if left := leftovers(t, live); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// interrupted cuts an installation off between the two renames of the pair.
func interrupted(t *testing.T, s *Store, v renew.Version, target Target) {
	t.Helper()
	stored, err := loadVersion(s.folder("home"), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	changes, problems, err := s.plan(stored, target)
	if err != nil || problems != nil {
		t.Fatal(err, problems)
	}
	if err := s.intend("home", v.ID, target, changes); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.writeTemps(changes); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(changes[0].temp, changes[0].file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Installed(target); !errors.Is(err, ErrMismatch) {
		t.Fatalf("the pair is not mixed: %v", err)
	}
}

func TestRecover(t *testing.T) {
	setUp := func(t *testing.T) (s *Store, ca *testCA, v renew.Version, target Target) {
		s, ca, old, live := installed(t)
		target = targetIn(live)
		if _, err := s.Install("home", old, target); err != nil {
			t.Fatal(err)
		}
		return s, ca, obtain(t, s, ca, "home", want("home.example.org"), start), target
	}
	recovered := func(t *testing.T, s *Store, target Target, want bool) {
		t.Helper()
		if changed, err := s.Recover("home", target); changed != want || err != nil {
			t.Errorf("recovered %v, %v; want %v", changed, err, want)
		}
		if changed, err := s.Recover("home", target); changed || err != nil {
			t.Errorf("recovered twice: %v", err)
		}
		if left := append(leftovers(t, s.dir), leftovers(t, filepath.Dir(target.CertFile))...); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
	t.Run("nothing to do", func(t *testing.T) {
		s, _, _, target := setUp(t)
		before := inForce(t, target)
		writeFile(t, beside(target.KeyFile, checkSuffix), nil, 0o600)
		recovered(t, s, target, false)
		if inForce(t, target) != before {
			t.Error("another pair is in force")
		}
	})
	t.Run("mixed", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		recovered(t, s, target, true)
		if inForce(t, target) != v.Fingerprint {
			t.Error("another pair is in force")
		}
	})
	t.Run("moved meanwhile", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		moved := targetIn(t.TempDir())
		recovered(t, s, moved, true)
		if inForce(t, target) != v.Fingerprint {
			t.Error("the old place was left with half a pair")
		}
		if there, _ := exists(moved.CertFile); there {
			t.Error("recovering is not installing anew")
		}
	})
	t.Run("somebody newer came", func(t *testing.T) {
		s, ca, v, target := setUp(t)
		interrupted(t, s, v, target)
		key, chain := ca.pair(t, start.Add(day), "home.example.org")
		writeFile(t, target.KeyFile, key, 0o600)
		writeFile(t, target.CertFile, chain, 0o644)
		recovered(t, s, target, false)
		if inForce(t, target) == v.Fingerprint {
			t.Error("a newer pair was replaced")
		}
	})
	t.Run("the version is gone", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		if err := os.RemoveAll(filepath.Join(s.folder("home"), v.ID)); err != nil {
			t.Fatal(err)
		}
		recovered(t, s, target, false)
		current, _, err := s.Current("home")
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := s.Install("home", current, target); !changed || err != nil || inForce(t, target) != current.Fingerprint {
			t.Errorf("installed %v, %v", changed, err)
		}
	})
	t.Run("the folder is gone", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		folder := filepath.Dir(target.CertFile)
		if err := os.Rename(folder, folder+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover("home", target); err == nil || !strings.Contains(err.Error(), "create it") {
			t.Errorf("error %v", err)
		}
		if err := os.Rename(folder+".away", folder); err != nil {
			t.Fatal(err)
		}
		recovered(t, s, target, true)
		if inForce(t, target) != v.Fingerprint {
			t.Error("another pair is in force")
		}
	})
	t.Run("the intent is unreadable", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		writeFile(t, s.intentPath("home"), []byte(`{"temporaries":["/etc/passwd"],"version":"v0001"}`), 0o600)
		recovered(t, s, target, false)
		if _, err := os.Stat("/etc/passwd"); err != nil {
			t.Error(err)
		}
		if changed, err := s.Install("home", v, target); !changed || err != nil || inForce(t, target) != v.Fingerprint {
			t.Errorf("installed %v, %v", changed, err)
		}
	})
	t.Run("removed", func(t *testing.T) {
		s, _, v, target := setUp(t)
		interrupted(t, s, v, target)
		if err := s.Remove("home"); err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, filepath.Dir(target.CertFile)); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
}

func TestInstalled(t *testing.T) {
	s, ca, v, live := installed(t)
	target := targetIn(live)
	if _, _, err := Installed(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := s.Install("home", v, target); err != nil {
		t.Fatal(err)
	}
	other, _ := ca.pair(t, start, "home.example.org")
	writeFile(t, target.KeyFile, other, 0o600)
	c, _, err := Installed(target)
	if !errors.Is(err, ErrMismatch) || c == nil || c.Fingerprint() != v.Fingerprint {
		t.Errorf("another key: %v", err)
	}
	writeFile(t, target.KeyFile, []byte("secret key that is damaged"), 0o600)
	if _, _, err := Installed(target); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a damaged key: %v", err)
	}
	writeFile(t, target.CertFile, bytes.Repeat([]byte("a"), maxFile+1), 0o600)
	if _, _, err := Installed(target); err == nil {
		t.Error("read more than it may")
	}
}

func TestLive(t *testing.T) {
	s := open(t, t.TempDir())
	for range 2 {
		path, err := s.Live("home")
		if err != nil || path != filepath.Join(s.dir, "live", "home") {
			t.Errorf("%s, %v", path, err)
		}
	}
	if _, err := s.Live("../home"); err == nil {
		t.Error("left the state folder")
	}
}
