package store

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew"
)

// A world is a machine on which a certificate is renewed: a state folder, a
// folder where other programs read, and a CA that remembers its orders.
type world struct {
	dir      string
	scenario scenario
}

type scenario struct {
	name     string
	want     Want
	target   func(live string) Target
	stored   int  // versions before; 0 = the first issuance
	foreign  bool // a pair that somebody else made is in place
	linked   bool // certfile and keyfile are links into other folders
	keystore bool // with an entry of somebody else
}

// renewedAt is when the certificate that a life is about is issued.
var renewedAt = start.Add(-time.Hour)

var scenarios = []scenario{
	{
		name: "all forms", want: want("home.example.org", "*.home.example.org"), stored: keepVersions, keystore: true,
		target: func(live string) Target {
			t := targetIn(live)
			t.LeafFile, t.ChainFile, t.CombinedFile = live+"/cert.pem", live+"/chain.pem", live+"/all.pem"
			t.PKCS12, t.PKCS12Password = live+"/home.p12", "secret"
			t.Keystore, t.KeystorePassword = live+"/keystore", "openhab"
			return t
		},
	},
	{
		name: "one file, same key", want: Want{Names: []string{"home.example.org"}, KeyType: "ec256", Directory: directory, ReuseKey: true}, stored: 1,
		target: func(live string) Target { return Target{CertFile: live + "/all.pem", KeyFile: live + "/all.pem"} },
	},
	{
		name: "first issuance over a foreign pair", want: want("home.example.org"), foreign: true,
		target: targetIn,
	},
	{
		name: "links into two folders", want: want("home.example.org"), stored: 2, linked: true,
		target: targetIn,
	},
	{
		name: "first issuance, nothing there", want: want("home.example.org"), stored: 0,
		target: targetIn,
	},
}

func (w world) state() string  { return filepath.Join(w.dir, "state") }
func (w world) live() string   { return filepath.Join(w.dir, "live") }
func (w world) orders() string { return filepath.Join(w.dir, "ca", "orders") }
func (w world) target() Target { return w.scenario.target(w.live()) }

// build makes the world as it is before the life. What it writes is copied for
// each kill, so it holds no absolute paths but for links.
func (w world) build(t *testing.T) {
	t.Helper()
	for _, dir := range []string{w.live(), w.orders(), filepath.Join(w.live(), "keys"), filepath.Join(w.live(), "certs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ca := newCA(t, "Test")
	save(t, ca, filepath.Join(w.dir, "ca"))
	target := w.target()
	if w.scenario.foreign {
		key, chain := ca.pair(t, start.Add(-80*day), "home.example.org")
		writeFile(t, target.KeyFile, key, 0o640)
		writeFile(t, target.CertFile, chain, 0o644)
	}
	if w.scenario.linked {
		for link, to := range map[string]string{target.KeyFile: "keys/home.pem", target.CertFile: "certs/home.pem"} {
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
		}
	}
	if w.scenario.keystore {
		writeFile(t, target.Keystore, foreignKeystore(t, ca), 0o640)
	}
	s := open(t, w.state())
	defer s.Close()
	for n := range w.scenario.stored {
		v := obtain(t, s, ca, "home", w.scenario.want, start.Add(time.Duration(n-90)*day))
		if n == w.scenario.stored-1 {
			if changed, err := s.Install("home", v, target); !changed || err != nil {
				t.Fatal(changed, err)
			}
		}
	}
}

func foreignKeystore(t *testing.T, ca *testCA) []byte {
	t.Helper()
	ks := emptyKeystore()
	if err := ks.SetTrustedCertificateEntry("clientca", keystore.TrustedCertificateEntry{CreationTime: start, Certificate: keystore.Certificate{Type: "X.509", Content: ca.root.Raw}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ks.Store(&out, []byte("openhab")); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func save(t *testing.T, ca *testCA, dir string) {
	t.Helper()
	key, err := encodeKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "key.pem"), key, 0o600)
	writeFile(t, filepath.Join(dir, "issuer.pem"), encodeCertificate(ca.issuer.Raw), 0o600)
}

func loadCA(dir string) (*testCA, error) {
	text, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, err
	}
	text, err = os.ReadFile(filepath.Join(dir, "issuer.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	issuer, err := x509.ParseCertificate(block.Bytes)
	return &testCA{issuer: issuer, key: crypto.Signer(key), serial: 1000}, err
}

// place is a CA's newOrder.
func (w world) place() (string, error) {
	placed, err := os.ReadDir(w.orders())
	if err != nil {
		return "", err
	}
	url := strconv.Itoa(len(placed) + 1)
	return url, os.Mkdir(filepath.Join(w.orders(), url), 0o755)
}

// finalize is a CA's: it issues once for each order.
func (w world) finalize(url string, csr []byte) ([]byte, error) {
	path := filepath.Join(w.orders(), url, "chain.pem")
	if chain, err := os.ReadFile(path); err == nil {
		return chain, nil
	}
	ca, err := loadCA(filepath.Join(w.dir, "ca"))
	if err != nil {
		return nil, err
	}
	chain, err := ca.issue(csr, renewedAt, 90*day)
	if err != nil {
		return nil, err
	}
	return chain, os.WriteFile(path, chain, 0o644)
}

// issued are the certificates that the CA handed out in a life.
func (w world) issued(t *testing.T) [][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.orders(), "*", "chain.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, path := range paths {
		all = append(all, readFile(t, path))
	}
	return all
}

// live is what the sitter does from its start to a renewed and installed
// certificate.
func live(w world, step func(string)) error {
	s, err := Open(w.state(), Options{Step: step, Now: func() time.Time { return start }})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Recover("home", w.target()); err != nil {
		return err
	}
	account, err := s.Account(directory, "")
	if err != nil {
		return err
	}
	if account.URL == "" {
		step("ca: register")
		if err := s.SetAccountURL(directory, "", "https://ca.example/account/1"); err != nil {
			return err
		}
	}
	current, ok, err := s.Current("home")
	if err != nil {
		return err
	}
	if !ok || !current.NotBefore.Equal(renewedAt) {
		if current, err = w.order(s, step); err != nil {
			return err
		}
	}
	_, err = s.Install("home", current, w.target())
	return err
}

func (w world) order(s *Store, step func(string)) (renew.Version, error) {
	p, err := s.Prepare("home", w.scenario.want)
	if err != nil {
		return renew.Version{}, err
	}
	if p.OrderURL == "" {
		step("ca: new order")
		if p.OrderURL, err = w.place(); err != nil {
			return renew.Version{}, err
		}
		if err := s.Placed("home", "https://ca.example/account/1", p.OrderURL); err != nil {
			return renew.Version{}, err
		}
	}
	step("ca: finalize")
	chain, err := w.finalize(p.OrderURL, p.CSR)
	if err != nil {
		return renew.Version{}, err
	}
	return s.Add("home", renew.Issued{Chain: chain, OrderURL: p.OrderURL}, start)
}

// lifeRole lives until its last step, at which it is killed. It notes its steps.
func lifeRole() error {
	number, _ := strconv.Atoi(os.Getenv("STORE_TEST_SCENARIO"))
	last, _ := strconv.Atoi(os.Getenv("STORE_TEST_LAST"))
	w := world{dir: os.Getenv("STORE_TEST_DIR"), scenario: scenarios[number]}
	n := 0
	return live(w, func(name string) {
		n++
		fmt.Println(name)
		if n == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	})
}

// run lets a child live until step last, 0 = to its end. It returns the steps.
func (w world) run(t *testing.T, last int) (steps []string, killed bool) {
	t.Helper()
	number := 0
	for i, s := range scenarios {
		if s.name == w.scenario.name {
			number = i
		}
	}
	cmd := play(t, "life", "STORE_TEST_DIR="+w.dir, fmt.Sprintf("STORE_TEST_SCENARIO=%d", number), fmt.Sprintf("STORE_TEST_LAST=%d", last))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	steps = strings.Split(strings.TrimSpace(string(out)), "\n")
	if err == nil {
		return steps, false
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("life ended with %v: %s", err, stderr.String())
	}
	return steps, true
}

// quickFolder is in memory where that is possible: a killed process loses
// nothing that the kernel has, so these tests need no disk, only many syncs.
func quickFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "certsitter-store-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "world") // the same last name each time: steps are told by it
}

// copied is the same world in a new folder.
func (w world) copied(t *testing.T) world {
	t.Helper()
	copied := world{dir: quickFolder(t), scenario: w.scenario}
	if err := copyTree(copied.dir, w.dir); err != nil {
		t.Fatal(err)
	}
	return copied
}

func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, dst)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, data, info.Mode().Perm())
	})
}

// TestKilledAtEveryStep ends the process by SIGKILL before each step that
// changes something on disk, and then starts again.
func TestKilledAtEveryStep(t *testing.T) {
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			if testing.Short() && i > 0 {
				t.Skip("only the largest one in short mode")
			}
			before := world{dir: quickFolder(t), scenario: sc}
			before.build(t)
			keystores := t.TempDir() // as each kill left them
			steps, killed := before.copied(t).run(t, 0)
			if killed || len(steps) < 20 {
				t.Fatalf("a life of %d steps", len(steps))
			}
			for n, step := range steps {
				t.Run(fmt.Sprintf("%02d %s", n+1, strings.ReplaceAll(step, "/", ":")), func(t *testing.T) {
					w := before.copied(t)
					done, killed := w.run(t, n+1)
					if !killed || done[len(done)-1] != step {
						t.Fatalf("ended at %q, want %q", done[len(done)-1], step)
					}
					if sc.keystore {
						w.assertKeystore(t)
						writeFile(t, filepath.Join(keystores, fmt.Sprintf("%02d", n+1)), readFile(t, w.target().Keystore), 0o600)
					}
					w.assertNothingLost(t, before)
					if err := live(w, func(string) {}); err != nil {
						t.Fatalf("the next life: %v", err)
					}
					w.assertDone(t)
				})
			}
			if sc.keystore {
				t.Run("Java loads what each kill left", func(t *testing.T) { assertJavaLoads(t, keystores, len(steps)) })
			}
		})
	}
}

func assertJavaLoads(t *testing.T, folder string, want int) {
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) != want {
		t.Fatalf("%d keystores of %d kills, %v", len(files), want, err)
	}
	for i, line := range javaReads(t, "openhab", files...) {
		if !strings.HasPrefix(line, "[clientca/certificate, mykey/key] chain 2 ") {
			t.Errorf("%s: %s", files[i], line)
		}
	}
}

// assertKeystore: whatever moment openHAB chooses to read its keystore, it can,
// and finds a key, its certificate and everybody's entries. Nobody has repaired
// anything yet.
func (w world) assertKeystore(t *testing.T) {
	t.Helper()
	ks, err := readKeystore(readFile(t, w.target().Keystore), w.target().KeystorePassword)
	if err != nil {
		t.Fatalf("the keystore cannot be loaded: %v", err)
	}
	b, c, ok := entryOf(ks, w.target().KeystorePassword)
	if !ok || !ks.IsTrustedCertificateEntry("clientca") {
		t.Fatal("the keystore lost an entry")
	}
	if err := c.MatchesKey(b.Key); err != nil {
		t.Errorf("the keystore's key: %v", err)
	}
}

// TestKilledAgainAndAgain starts again and again, and is killed each time, one
// step later than the time before.
func TestKilledAgainAndAgain(t *testing.T) {
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			if testing.Short() && i > 0 {
				t.Skip("only the largest one in short mode")
			}
			w := world{dir: quickFolder(t), scenario: sc}
			w.build(t)
			before := w.copied(t)
			for n := 1; ; n++ {
				if n > 200 {
					t.Fatal("no life comes to its end")
				}
				if _, killed := w.run(t, n); !killed {
					break
				}
				if n%5 == 0 {
					w.assertNothingLost(t, before)
				}
			}
			w.assertDone(t)
		})
	}
}

// assertNothingLost starts once, up to where the sitter would go on.
func (w world) assertNothingLost(t *testing.T, before world) {
	t.Helper()
	s := open(t, w.state())
	defer s.Close()
	if _, err := s.Recover("home", w.target()); err != nil {
		t.Fatalf("recover: %v", err)
	}
	if left := leftovers(t, w.dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	versions, err := s.Versions("home")
	if err != nil {
		t.Errorf("versions: %v", err)
	}
	if len(versions) > keepVersions {
		t.Errorf("%d versions", len(versions))
	}
	w.assertPair(t, before)

	for _, chain := range w.issued(t) {
		c, err := expiry.Parse(chain)
		if err != nil {
			t.Fatal(err)
		}
		newest := len(versions) - 1
		if newest >= 0 && versions[newest].Fingerprint == c.Fingerprint() {
			if current, _, err := s.Current("home"); err != nil || current.ID != versions[newest].ID {
				t.Errorf("current is %s, %v", current.ID, err)
			}
			if _, ok, err := s.Pending("home"); ok || err != nil {
				t.Errorf("the order is stored and pending: %v, %v", ok, err)
			}
			continue
		}
		p, ok, err := s.Pending("home")
		if !ok || err != nil {
			t.Fatalf("an issued certificate is neither stored nor pending: %v", err)
		}
		if p.OrderURL == "" || c.MatchesKey(p.Key) != nil {
			t.Error("the key or the order of an issued certificate is lost")
		}
	}
}

// assertPair: what is in force is the old pair or the new one, and whole.
func (w world) assertPair(t *testing.T, before world) {
	t.Helper()
	c, _, err := Installed(w.target())
	old, _, errBefore := Installed(before.target())
	if errors.Is(err, fs.ErrNotExist) && errors.Is(errBefore, fs.ErrNotExist) {
		// A key alone would be half a pair.
		if there, _ := exists(w.target().KeyFile); there {
			t.Error("a key without a certificate")
		}
		return
	}
	if err != nil {
		t.Fatalf("the pair in force: %v", err)
	}
	if errBefore == nil && c.Fingerprint() == old.Fingerprint() {
		return
	}
	for _, chain := range w.issued(t) {
		if issued, err := expiry.Parse(chain); err == nil && issued.Fingerprint() == c.Fingerprint() {
			return
		}
	}
	t.Error("the pair in force is neither the old nor the new one")
}

// assertDone: one certificate was issued, and it is in force in all forms.
func (w world) assertDone(t *testing.T) {
	t.Helper()
	issued := w.issued(t)
	if len(issued) != 1 {
		t.Fatalf("%d certificates were issued", len(issued))
	}
	c, err := expiry.Parse(issued[0])
	if err != nil {
		t.Fatal(err)
	}
	target := w.target()
	if inForce(t, target) != c.Fingerprint() {
		t.Error("another certificate is in force")
	}
	if left := leftovers(t, w.dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	s := open(t, w.state())
	defer s.Close()
	times, err := s.Issuances(w.scenario.want.Names, directory, start)
	if err != nil || len(times) != 1 {
		t.Errorf("%d issuances, %v", len(times), err)
	}
	v, _, err := s.Current("home")
	if err != nil || v.Fingerprint != c.Fingerprint() {
		t.Errorf("current is %s, %v", v.ID, err)
	}
	b, err := s.Bundle("home", v.ID)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{target.LeafFile: b.Leaf, target.ChainFile: b.Chain, target.CombinedFile: combine(b)} {
		if path != "" && !bytes.Equal(readFile(t, path), want) {
			t.Errorf("%s is not the new one", path)
		}
	}
	if target.PKCS12 != "" {
		if have, _, ok := readPKCS12(readFile(t, target.PKCS12), target.PKCS12Password); !ok || !sameBundle(have, b) {
			t.Error("the PKCS#12 file is not the new one")
		}
	}
	if target.Keystore != "" {
		ks, err := readKeystore(readFile(t, target.Keystore), target.KeystorePassword)
		if err != nil {
			t.Fatal(err)
		}
		if have, _, ok := entryOf(ks, target.KeystorePassword); !ok || !sameBundle(have, b) {
			t.Error("the keystore's entry is not the new one")
		}
		if !ks.IsTrustedCertificateEntry("clientca") {
			t.Error("the keystore lost somebody's entry")
		}
	}
	if w.scenario.linked {
		if info, err := os.Lstat(target.CertFile); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link was replaced: %v", err)
		}
	}
}

// Every rename must come after its file is on the disk, or a power cut leaves
// an empty file under the final name.
func TestRenamedOnlyWhatIsSynced(t *testing.T) {
	w := world{dir: quickFolder(t), scenario: scenarios[0]}
	w.build(t)
	steps, _ := w.run(t, 0)
	synced := map[string]bool{}
	checked := 0
	for i, step := range steps {
		if path, ok := strings.CutPrefix(step, "sync "); ok {
			synced[path] = true
		}
		path, ok := strings.CutPrefix(step, "rename ")
		if !ok {
			continue
		}
		folder, base := filepath.Split(path)
		beforehand := []string{path + tempSuffix, folder + "." + base + newSuffix, "folder " + path + tempSuffix}
		discarded := strings.HasSuffix(path, ".old"+tempSuffix)
		if !discarded && !synced[beforehand[0]] && !synced[beforehand[1]] && !synced[beforehand[2]] {
			t.Errorf("step %d: %s without a sync before", i, step)
		}
		checked++
		later := false
		for _, after := range steps[i:] {
			later = later || strings.HasPrefix(after, "sync folder ") && strings.HasSuffix(after, "/"+filepath.Clean(folder))
		}
		if !later {
			t.Errorf("step %d: %s without its folder synced after", i, step)
		}
	}
	if checked < 10 {
		t.Errorf("only %d renames", checked)
	}
	// Nothing comes between the two renames of the pair.
	for i, step := range steps {
		if step == "rename live/privkey.pem" {
			if steps[i+1] != "rename live/fullchain.pem" {
				t.Errorf("after the key comes %q", steps[i+1])
			}
			return
		}
	}
	t.Error("the key is not renamed")
}
