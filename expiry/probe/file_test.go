package probe_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry/internal/testca"
	"github.com/certsitter/certsitter/expiry/probe"
	"software.sslmate.com/src/go-pkcs12"
)

// tree makes files with contents below a new folder.
func tree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, content, 0o644))
	}
	return dir
}

func TestReadFile(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	leaf := root.Leaf(noon.Add(-day), noon.Add(89*day), "home.example.org")
	store, err := pkcs12.Modern.WithIterations(10).Encode(leaf.Key, leaf.Cert, nil, "secret")
	check(t, err)
	big := append(leaf.PEM(), bytes.Repeat([]byte("#\n"), 1<<19)...)
	dir := tree(t, map[string][]byte{
		"fullchain.pem": leaf.PEM(root), "cert.der": leaf.Cert.Raw, "store.p12": store,
		"big.pem": big, "full.pem": big[:1<<20], "key.pem": leaf.KeyPEM(), "empty.pem": nil,
		"damaged.pem": leaf.PEM()[:100], "folder/x.pem": leaf.PEM(),
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.Symlink("fullchain.pem", at("link.pem")))
	check(t, os.Symlink("nowhere", at("broken.pem")))
	check(t, os.Symlink("circle.pem", at("circle.pem")))
	check(t, os.Symlink("folder", at("folderlink")))
	check(t, syscall.Mkfifo(at("pipe.pem"), 0o600))
	sparse, err := os.Create(at("sparse.pem"))
	check(t, err)
	check(t, sparse.Truncate(10<<30))
	check(t, sparse.Close())

	for _, test := range []struct{ name, password, code string }{
		{"fullchain.pem", "", ""},
		{"cert.der", "", ""},
		{"link.pem", "", ""},
		{"full.pem", "", ""},
		{"store.p12", "secret", ""},
		{"store.p12", "", probe.CodePassword},
		{"store.p12", "wrong", probe.CodePassword},
		{"nothing.pem", "", probe.CodeNotFound},
		{"fullchain.pem/x", "", probe.CodeNotFound},
		{"broken.pem", "", probe.CodeBrokenLink},
		{"circle.pem", "", probe.CodeBrokenLink},
		{"folder", "", probe.CodeNoFile},
		{"folderlink", "", probe.CodeNoFile},
		{"pipe.pem", "", probe.CodeNoFile},
		{"/dev/null", "", probe.CodeNoFile},
		{"big.pem", "", probe.CodeTooLarge},
		{"sparse.pem", "", probe.CodeTooLarge},
		{"/proc/self/status", "", probe.CodeNoCertificate}, // says that it is empty, and is not
		{"key.pem", "", probe.CodeNoCertificate},
		{"empty.pem", "", probe.CodeNoCertificate},
		{"damaged.pem", "", probe.CodeDamaged},
	} {
		path := test.name
		if !filepath.IsAbs(path) {
			path = at(path)
		}
		c, err := probe.ReadFile(path, test.password)
		switch {
		case code(err) != test.code || (c == nil) != (err != nil):
			t.Errorf("%s: %v (%s), want %q", test.name, err, code(err), test.code)
		case err == nil && c.Subject() != "home.example.org":
			t.Errorf("%s: %s", test.name, c.Subject())
		case err != nil && (!strings.HasSuffix(err.Error(), ".") || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: no sentence: %q", test.name, err)
		}
	}
}

// TestReadFileSeesEveryChange: the target of a link, rewritten with a certificate
// of the same length at the same time of change, is read anew.
func TestReadFileSeesEveryChange(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	dir := tree(t, map[string][]byte{"real.pem": nil})
	check(t, os.Symlink("real.pem", filepath.Join(dir, "link.pem")))
	for _, left := range []int{10, 89} {
		path := filepath.Join(dir, "real.pem")
		check(t, os.WriteFile(path, root.Leaf(noon.Add(-day), noon.Add(time.Duration(left)*day), "home.example.org").PEM(), 0o644))
		check(t, os.Chtimes(path, noon, noon))
		c, err := probe.ReadFile(filepath.Join(dir, "link.pem"), "")
		check(t, err)
		if got := c.Days(noon); got != left {
			t.Errorf("%d days, want %d", got, left)
		}
	}
}

func TestGlob(t *testing.T) {
	dir := tree(t, map[string][]byte{
		"a.pem": nil, "b.PEM": nil, "c.crt": nil, "d.p12": nil, "e.jks": nil, "f.der": nil,
		"privkey.pem": nil, "privkey1.pem": nil, "key.pem": nil, "nas-key.pem": nil, "monkey.pem": nil, "nas.key": nil, "README": nil,
		"live/home/fullchain.pem": nil, "live/home/privkey.pem": nil, "live/nas/fullchain.pem": nil, "live/README": nil,
		"live/nas/old/2025/fullchain.pem": nil, "odd[1].pem": nil,
	})
	check(t, syscall.Mkfifo(filepath.Join(dir, "pipe.pem"), 0o600))
	check(t, os.Symlink("nowhere", filepath.Join(dir, "broken.pem")))
	check(t, os.Symlink("live", filepath.Join(dir, "link")))
	check(t, os.Symlink("..", filepath.Join(dir, "live", "up")))
	for pattern, want := range map[string][]string{
		"":                         {"a.pem", "b.PEM", "broken.pem", "c.crt", "d.p12", "e.jks", "f.der", "monkey.pem", "odd[1].pem"},
		"a.pem":                    {"a.pem"},
		"odd[1].pem":               {"odd[1].pem"},
		"pipe.pem":                 {"pipe.pem"}, // named: ReadFile says what it is
		"*.pem":                    {"a.pem", "broken.pem", "key.pem", "monkey.pem", "nas-key.pem", "odd[1].pem", "privkey.pem", "privkey1.pem"},
		"[ab].*":                   {"a.pem", "b.PEM"},
		"live/*/fullchain.pem":     {"live/home/fullchain.pem", "live/nas/fullchain.pem"},
		"link/*/fullchain.pem":     {"link/home/fullchain.pem", "link/nas/fullchain.pem"},
		"live/**/fullchain.pem":    {"live/home/fullchain.pem", "live/nas/fullchain.pem", "live/nas/old/2025/fullchain.pem"},
		"live/**/**/fullchain.pem": {"live/home/fullchain.pem", "live/nas/fullchain.pem", "live/nas/old/2025/fullchain.pem"},
		"**/2025/*.pem":            {"live/nas/old/2025/fullchain.pem"},
		"live/home/**":             {"live/home/fullchain.pem", "live/home/privkey.pem"},
		"l*/h*/full*":              {"link/home/fullchain.pem", "live/home/fullchain.pem"},
	} {
		got, err := probe.Glob(filepath.Join(dir, pattern))
		check(t, err)
		for i, path := range got {
			if got[i], err = filepath.Rel(dir, path); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", pattern, got, want)
		}
	}
	t.Chdir(dir)
	if got, err := probe.Glob("live/*/fullchain.pem"); err != nil || !slices.Equal(got, []string{"live/home/fullchain.pem", "live/nas/fullchain.pem"}) {
		t.Errorf("from the present folder: %v, %v", got, err)
	}
}

func TestGlobFaults(t *testing.T) {
	files := map[string][]byte{"empty/README": nil}
	for i := range 40 {
		files["many/"+strings.Repeat("x", i+1)+"/"+"a.pem"] = nil
	}
	dir := tree(t, files)
	for pattern, want := range map[string]string{
		"nothing.pem":      probe.CodeNotFound,
		"*.pem":            probe.CodeNotFound,
		"nothing/*.pem":    probe.CodeNotFound,
		"nothing/**/*.pem": probe.CodeNotFound,
		"empty":            probe.CodeNotFound,
		"empty/[a.pem":     probe.CodePattern,
	} {
		got, err := probe.Glob(filepath.Join(dir, pattern))
		if code(err) != want || got != nil {
			t.Errorf("%s: %v, %v (%s)", pattern, got, err, code(err))
		}
	}
	if got, err := probe.Glob(filepath.Join(dir, "many/**/*.pem")); err != nil || len(got) != 40 {
		t.Errorf("forty files: %d, %v", len(got), err)
	}
}

// TestGlobIsBounded: a pattern that was meant otherwise does not walk for ever.
func TestGlobIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 1001 {
		check(t, os.WriteFile(filepath.Join(dir, strings.Repeat("x", i%100+1)+string(rune('a'+i/100))+".pem"), nil, 0o600))
	}
	if got, err := probe.Glob(dir + "/**"); code(err) != probe.CodePattern || got != nil {
		t.Errorf("%d files, %v", len(got), err)
	}
}

// TestPermission looks as somebody whom the files' modes bind, which root is not.
func TestPermission(t *testing.T) {
	dir := tree(t, map[string][]byte{"cert.pem": nil, "secret/cert.pem": nil})
	for _, open := range []string{dir, filepath.Dir(dir)} { // but for what is secret
		check(t, os.Chmod(open, 0o755))
	}
	check(t, os.Chmod(filepath.Join(dir, "cert.pem"), 0))
	check(t, os.Chmod(filepath.Join(dir, "secret"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "secret"), 0o700) })
	if os.Geteuid() == 0 {
		asNobody(t)
	}
	if _, err := probe.ReadFile(filepath.Join(dir, "cert.pem"), ""); code(err) != probe.CodePermission {
		t.Errorf("file: %v (%s)", err, code(err))
	}
	for _, pattern := range []string{"secret/cert.pem", "secret", "*/*.pem"} {
		if _, err := probe.Glob(filepath.Join(dir, pattern)); code(err) != probe.CodePermission {
			t.Errorf("%s: %v (%s)", pattern, err, code(err))
		}
	}
	found, err := probe.Glob(filepath.Join(dir, "**", "*.pem"))
	if len(found) != 1 || code(err) != probe.CodePermission {
		t.Errorf("what can be seen beside what can not: %v, %v", found, err)
	}
}

// asNobody makes the file accesses of this test another user's (setfsuid(2)): of
// its thread alone, so nothing else in the process changes.
func asNobody(t *testing.T) {
	const nobody = 65534
	runtime.LockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
	t.Cleanup(func() {
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
		runtime.UnlockOSThread()
	})
}
