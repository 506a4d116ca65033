package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/renew"
)

func TestNewKey(t *testing.T) {
	for keyType, bits := range map[string]int{"ec256": 256, "ec384": 384, "rsa2048": 2048, "rsa3072": 3072, "rsa4096": 4096} {
		t.Run(keyType, func(t *testing.T) {
			text, err := NewKey(keyType)
			if err != nil {
				t.Fatal(err)
			}
			block, rest := pem.Decode(text)
			if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
				t.Fatalf("not one PKCS#8 block: %q", block.Type)
			}
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			have := 0
			switch k := key.(type) {
			case *ecdsa.PrivateKey:
				have = k.Curve.Params().BitSize
			case *rsa.PrivateKey:
				have = k.N.BitLen()
			}
			if have != bits {
				t.Errorf("%d bits, want %d", have, bits)
			}
		})
	}
	if _, err := NewKey("dsa"); err == nil {
		t.Error("a key of an unknown type")
	}
}

func TestRequest(t *testing.T) {
	long := strings.Repeat("a", 60) + ".example.org"
	for _, c := range []struct {
		name  string
		names []string
		cn    string
		dns   string
		ips   string
	}{
		{"one", []string{"home.example.org"}, "home.example.org", "[home.example.org]", "[]"},
		{"wildcard and upper case", []string{"*.Example.org", "example.org"}, "*.example.org", "[*.example.org example.org]", "[]"},
		{"address", []string{"192.0.2.7"}, "", "[]", "[192.0.2.7]"},
		{"address first", []string{"2001:db8::1", "home.example.org"}, "home.example.org", "[home.example.org]", "[2001:db8::1]"},
		{"too long for a common name", []string{long, "b.example.org"}, "", "[" + long + " b.example.org]", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := NewKey("ec256")
			if err != nil {
				t.Fatal(err)
			}
			der, err := newCSR(key, c.names)
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.ParseCertificateRequest(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := csr.CheckSignature(); err != nil {
				t.Error(err)
			}
			if csr.Subject.CommonName != c.cn || fmt.Sprint(csr.DNSNames) != c.dns || fmt.Sprint(csr.IPAddresses) != c.ips {
				t.Errorf("CN %q, DNS %v, IP %v", csr.Subject.CommonName, csr.DNSNames, csr.IPAddresses)
			}
			if err := checkCSR(der, key, c.names); err != nil {
				t.Error(err)
			}
			if err := checkCSR(der, key, append(c.names, "more.example.org")); err == nil {
				t.Error("passes for other names")
			}
		})
	}
	key, _ := NewKey("ec256")
	if _, err := newCSR(key, []string{"münchen.example"}); err == nil {
		t.Error("a name beyond ASCII got into a request")
	}
}

// One process has the folder, and it is free again when that process ends,
// however it ends.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	cmd := play(t, "lock", "STORE_TEST_DIR="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("error %v, want ErrLocked with the process", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	_ = in.Close()
	s := open(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func lockRole() error {
	if _, err := Open(os.Getenv("STORE_TEST_DIR"), Options{}); err != nil {
		return err
	}
	fmt.Println("locked")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until we are killed, or the test ends
	return nil
}

func TestNewerStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "certificates", "store.json")
	writeFile(t, path, []byte(`{"version":2}`), 0o600)
	temp := filepath.Join(dir, "certificates", "kept.tmp")
	writeFile(t, temp, nil, 0o600)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) {
		t.Fatalf("error %v, want ErrNewer", err)
	}
	if there, _ := exists(temp); !there {
		t.Error("a newer store was tidied")
	}
	writeFile(t, path, []byte(`{"ver`), 0o600)
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if got := string(readFile(t, path)); got != "{\"version\":1}\n" {
		t.Errorf("note %q", got)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := open(t, dir)
	ca := newCA(t, "Test")
	if _, err := s.Account(directory, ""); err != nil {
		t.Fatal(err)
	}
	obtain(t, s, ca, "home", want("home.example.org"), start)
	if _, err := s.Prepare("home", want("home.example.org")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has mode %v", path, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestVersions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ca := newCA(t, "Test")
	if _, ok, err := s.Current("home"); ok || err != nil {
		t.Fatalf("an empty store has a certificate: %v, %v", ok, err)
	}
	var last renew.Version
	for n := range 5 {
		last = obtain(t, s, ca, "home", want("home.example.org", "192.0.2.7"), start.Add(time.Duration(n)*day))
	}
	versions, err := s.Versions("home")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, v := range versions {
		ids = append(ids, v.ID)
	}
	if got := strings.Join(ids, " "); got != "v0003 v0004 v0005" {
		t.Errorf("versions %s", got)
	}
	current, ok, err := s.Current("home")
	if err != nil || !ok || current.ID != "v0005" || current.Fingerprint != last.Fingerprint {
		t.Errorf("current %+v, %v, %v", current, ok, err)
	}
	if current.Directory != directory || current.AccountURL == "" || current.KeyType != "ec256" || current.CertID == "" || current.Staging || current.Adopted || nameSet(current.Names) != "192.0.2.7,home.example.org" {
		t.Errorf("described as %+v", current)
	}
	b, err := s.Bundle("home", current.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.FullChain, append(bytes.Clone(b.Leaf), b.Chain...)) || len(b.Chain) == 0 {
		t.Error("the chain is not leaf and issuers")
	}
	if _, ok, _ := s.Pending("home"); ok {
		t.Error("the order is still pending")
	}

	// A broken one is told, and the others serve.
	writeFile(t, filepath.Join(dir, "certificates/home/v0005/key.pem"), []byte("gone"), 0o600)
	versions, err = s.Versions("home")
	if len(versions) != 2 || err == nil || !strings.Contains(err.Error(), "v0005") {
		t.Errorf("%d versions, error %v", len(versions), err)
	}
	if current, ok, err = s.Current("home"); !ok || err != nil || current.ID != "v0004" {
		t.Errorf("current %s, %v, %v", current.ID, ok, err)
	}
	if v := obtain(t, s, ca, "home", want("home.example.org"), start.Add(9*day)); v.ID != "v0006" {
		t.Errorf("next is %s", v.ID)
	}
}

func TestNamesAreNoPaths(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"", "..", "../x", "Home", ".removed", "a/b", strings.Repeat("a", 33), "a_"} {
		if _, err := s.Prepare(name, want("a.example")); err == nil {
			t.Errorf("prepared %q", name)
		}
		if err := s.Remove(name); err == nil {
			t.Errorf("removed %q", name)
		}
		if _, err := s.Versions(name); err == nil {
			t.Errorf("listed %q", name)
		}
	}
}

func TestPendingIsTakenUpAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ca := newCA(t, "Test")
	w := want("home.example.org", "*.home.example.org")
	first, err := s.Prepare("home", w)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Placed("home", "https://ca.example/account/1", "https://ca.example/order/1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	again, err := s.Prepare("home", Want{Names: []string{"*.HOME.example.org", "home.example.org"}, KeyType: w.KeyType, Directory: w.Directory})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Key, again.Key) || !bytes.Equal(first.CSR, again.CSR) || again.OrderURL != "https://ca.example/order/1" || again.AccountURL == "" || !again.MadeAt.Equal(start) {
		t.Errorf("another order: %+v", again)
	}
	if err := s.DropOrder("home"); err != nil {
		t.Fatal(err)
	}
	again, ok, err := s.Pending("home")
	if err != nil || !ok || again.OrderURL != "" || !bytes.Equal(first.Key, again.Key) {
		t.Errorf("after the order is gone: %+v, %v, %v", again, ok, err)
	}

	for what, change := range map[string]func(*Want){
		"names":     func(w *Want) { w.Names = w.Names[:1] },
		"key type":  func(w *Want) { w.KeyType = "ec384" },
		"profile":   func(w *Want) { w.Profile = "shortlived" },
		"directory": func(w *Want) { w.Directory += "2" },
		"kid":       func(w *Want) { w.EABKid = "1" },
		"staging":   func(w *Want) { w.Staging = true },
	} {
		before, err := s.Prepare("home", w)
		if err != nil {
			t.Fatal(err)
		}
		other := w
		change(&other)
		after, err := s.Prepare("home", other)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(before.Key, after.Key) {
			t.Errorf("another %s, and the order stays", what)
		}
	}

	// A certificate of the first key does not belong to the order that is pending now.
	csr, err := newCSR(first.Key, w.Names)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.issue(csr, start, 90*day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add("home", renew.Issued{Chain: chain}, start); !errors.Is(err, ErrUnfit) {
		t.Errorf("added for another key: %v", err)
	}
	if err := s.Drop("home"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Pending("home"); ok || err != nil {
		t.Errorf("dropped, and there: %v, %v", ok, err)
	}
	if _, err := s.Add("home", renew.Issued{Chain: chain}, start); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("added without an order: %v", err)
	}
}

func TestPendingThatIsBrokenIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, file := range []string{keyFile, csrFile, orderFile} {
		if _, err := s.Prepare("home", want("home.example.org")); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "certificates/home/pending", file), []byte("{"), 0o600)
		if _, _, err := s.Pending("home"); err == nil {
			t.Errorf("a broken %s is no error", file)
		}
		if p, err := s.Prepare("home", want("home.example.org")); err != nil || len(p.Key) == 0 {
			t.Errorf("broken %s: %v", file, err)
		}
	}
}

func TestCertificateThatLacksAName(t *testing.T) {
	s := open(t, t.TempDir())
	ca := newCA(t, "Test")
	p, err := s.Prepare("home", want("a.example.org", "b.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := newCSR(p.Key, []string{"a.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.issue(csr, start, 90*day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add("home", renew.Issued{Chain: chain}, start); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "b.example.org") {
		t.Errorf("error %v", err)
	}
	if _, err := s.Add("home", renew.Issued{Chain: []byte("<html>")}, start); !errors.Is(err, ErrUnfit) {
		t.Errorf("error %v", err)
	}
}

func TestReuseKey(t *testing.T) {
	s := open(t, t.TempDir())
	ca := newCA(t, "Test")
	w := want("home.example.org")
	w.ReuseKey = true
	key := func(v renew.Version) string {
		b, err := s.Bundle("home", v.ID)
		if err != nil {
			t.Fatal(err)
		}
		return string(b.Key)
	}
	first := obtain(t, s, ca, "home", w, start)
	second := obtain(t, s, ca, "home", w, start.Add(day))
	if key(first) != key(second) {
		t.Error("the key changed")
	}
	// A pending order with the old key is not for someone who wants a new one: it may be compromised.
	if _, err := s.Prepare("home", w); err != nil {
		t.Fatal(err)
	}
	w.ReuseKey = false
	third := obtain(t, s, ca, "home", w, start.Add(2*day))
	if key(third) == key(second) {
		t.Error("the key is still in use")
	}
	w.ReuseKey, w.KeyType = true, "ec384"
	fourth := obtain(t, s, ca, "home", w, start.Add(3*day))
	if fourth.KeyType != "ec384" {
		t.Errorf("key type %s", fourth.KeyType)
	}
}

func TestIssuances(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ca := newCA(t, "Test")
	w := want("b.example.org", "a.example.org")
	for n := range 5 {
		obtain(t, s, ca, "home", w, start.Add(time.Duration(n)*day))
	}
	obtain(t, s, ca, "other", w, start.Add(5*day))                    // by another name: the CA does not care
	obtain(t, s, ca, "home", want("a.example.org"), start.Add(6*day)) // other names
	count := func(since time.Time, directory string) int {
		times, err := s.Issuances([]string{"A.example.org", "b.example.org"}, directory, since)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(times, time.Time.Compare) {
			t.Errorf("not in order: %v", times)
		}
		return len(times)
	}
	if got := count(start, directory); got != 6 {
		t.Errorf("%d issuances, want 6", got)
	}
	if got := count(start.Add(3*day), directory); got != 3 {
		t.Errorf("%d issuances since, want 3", got)
	}
	if got := count(start, "https://another.example/"); got != 0 {
		t.Errorf("%d issuances elsewhere", got)
	}
	// Removing and adding a name again does not make the CA forget.
	if err := s.Remove("home"); err != nil {
		t.Fatal(err)
	}
	if got := count(start, directory); got != 6 {
		t.Errorf("%d issuances after removal, want 6", got)
	}
	// Without the ledger the stored versions count.
	if err := os.Remove(filepath.Join(dir, "certificates", ledgerFile)); err != nil {
		t.Fatal(err)
	}
	if got := count(start, directory); got != 1 {
		t.Errorf("%d issuances without the ledger, want 1", got)
	}
}

func TestAccount(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, err := s.Account(directory, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseKey(first.Key); err != nil || first.URL != "" {
		t.Errorf("a new account: %v, %q", err, first.URL)
	}
	if err := s.SetAccountURL(directory, "", "https://ca.example/account/1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	again, err := s.Account(directory, "")
	if err != nil || !bytes.Equal(again.Key, first.Key) || again.URL != "https://ca.example/account/1" {
		t.Errorf("the account is another: %v %q", err, again.URL)
	}
	for _, other := range [][2]string{{directory, "kid"}, {"https://ca.example/directory2", ""}, {"not a URL\x00", ""}} {
		a, err := s.Account(other[0], other[1])
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(a.Key, first.Key) || a.URL != "" {
			t.Errorf("%q shares the account", other)
		}
	}
	if err := s.SetAccountURL(directory, "", ""); err != nil {
		t.Fatal(err)
	}
	if again, err = s.Account(directory, ""); err != nil || again.URL != "" || !bytes.Equal(again.Key, first.Key) {
		t.Errorf("forgotten: %v %q", err, again.URL)
	}
	writeFile(t, filepath.Join(s.accountFolder(directory, ""), keyFile), []byte("damaged secret"), 0o600)
	if _, err := s.Account(directory, ""); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a damaged key: %v", err)
	}
}

func TestScratchKeepsApart(t *testing.T) {
	dir, live := t.TempDir(), t.TempDir()
	s := open(t, dir)
	ca := newCA(t, "(STAGING) Test")
	real, err := s.Prepare("home", want("home.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	account, err := s.Account(directory, "")
	if err != nil {
		t.Fatal(err)
	}
	trial, err := s.Scratch("staging")
	if err != nil {
		t.Fatal(err)
	}
	w := want("home.example.org")
	w.Staging = true
	v := obtain(t, trial, ca, "home", w, start)
	if !v.Staging {
		t.Error("not a staging certificate")
	}
	if shared, err := trial.Account(directory, ""); err != nil || !bytes.Equal(shared.Key, account.Key) {
		t.Errorf("another account: %v", err)
	}
	if _, err := trial.Install("home", v, targetIn(live)); !errors.Is(err, ErrScratch) {
		t.Errorf("installed a trial: %v", err)
	}
	if left, err := os.ReadDir(live); err != nil || len(left) > 0 {
		t.Errorf("a trial left %v, %v", left, err)
	}
	if versions, err := s.Versions("home"); len(versions) > 0 || err != nil {
		t.Errorf("the trial's version is in the store: %v", err)
	}
	if p, ok, err := s.Pending("home"); !ok || err != nil || !bytes.Equal(p.Key, real.Key) {
		t.Errorf("the real order is gone: %v, %v", ok, err)
	}
	if times, err := s.Issuances(w.Names, directory, start); len(times) > 0 || err != nil {
		t.Errorf("the trial counts: %v, %v", times, err)
	}
}

func TestRemoveAndRestore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ca := newCA(t, "Test")
	if err := s.Remove("home"); err != nil {
		t.Errorf("remove nothing: %v", err)
	}
	for range 3 { // in one second
		obtain(t, s, ca, "home", want("home.example.org"), start)
		if err := s.Remove("home"); err != nil {
			t.Fatal(err)
		}
	}
	names, err := s.Names()
	if err != nil || len(names) != 0 {
		t.Errorf("names %v, %v", names, err)
	}
	removed, err := os.ReadDir(filepath.Join(dir, "certificates/.removed"))
	if err != nil || len(removed) != 3 {
		t.Fatalf("%d removed, %v", len(removed), err)
	}
	if back, err := s.Restore("home", []string{"home.example.org", "new.example.org"}); back || err != nil {
		t.Errorf("restored a certificate that lacks a name: %v, %v", back, err)
	}
	if back, err := s.Restore("hom", []string{"home.example.org"}); back || err != nil {
		t.Errorf("restored another name: %v, %v", back, err)
	}
	back, err := s.Restore("home", []string{"home.example.org"})
	if !back || err != nil {
		t.Fatalf("not restored: %v", err)
	}
	v, ok, err := s.Current("home")
	if !ok || err != nil || v.ID != "v0001" {
		t.Errorf("current %s, %v, %v", v.ID, ok, err)
	}
	if names, err = s.Names(); err != nil || !slices.Equal(names, []string{"home"}) {
		t.Errorf("names %v, %v", names, err)
	}
	if back, err := s.Restore("home", []string{"home.example.org"}); back || err != nil {
		t.Errorf("restored over what is there: %v, %v", back, err)
	}
}

func TestAdopt(t *testing.T) {
	ca, stranger, staging := newCA(t, "Test"), newCA(t, "Stranger"), newCA(t, "(STAGING) Test")
	names := []string{"home.example.org"}
	good, chain := ca.pair(t, start.Add(-day), names...)
	other, _ := ca.pair(t, start.Add(-day), names...)
	_, wide := ca.pair(t, start.Add(-day), "other.example.org")
	sec1 := func() []byte {
		key, err := parseKey(good)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	}()
	type pair struct{ key, chain []byte }
	of := func(ca *testCA, from time.Time, names ...string) pair {
		key, chain := ca.pair(t, from, names...)
		return pair{key, chain}
	}
	leafOnly := chain[:len(chain)-len(encodeCertificate(ca.issuer.Raw))]
	for _, c := range []struct {
		name string
		pair pair
		want bool
	}{
		{"good", pair{good, chain}, true},
		{"key as SEC1, text around", pair{append([]byte("Key Attributes\n"), sec1...), append([]byte("subject=home\n"), chain...)}, true},
		{"key of another", pair{other, chain}, false},
		{"other names", pair{good, wide}, false},
		{"not yet valid", of(ca, start.Add(day), names...), false},
		{"expired", of(ca, start.Add(-100*day), names...), false},
		{"unknown CA", of(stranger, start.Add(-day), names...), false},
		{"staging", of(staging, start.Add(-day), names...), false},
		{"chain is missing", pair{good, leafOnly}, false},
		{"no certificate", pair{good, []byte("soon")}, false},
		{"no key", pair{[]byte("soon"), chain}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, live := t.TempDir(), t.TempDir()
			s := open(t, dir)
			target := targetIn(live)
			roots := ca.roots()
			roots.AddCert(staging.root)
			if _, ok, err := s.Adopt("home", target, names, roots, start); ok || err != nil {
				t.Fatalf("adopted nothing: %v, %v", ok, err)
			}
			writeFile(t, target.KeyFile, c.pair.key, 0o640)
			writeFile(t, target.CertFile, c.pair.chain, 0o644)
			v, ok, err := s.Adopt("home", target, names, roots, start)
			if err != nil || ok != c.want {
				t.Fatalf("adopted %v, %v; want %v", ok, err, c.want)
			}
			if !ok {
				return
			}
			if !v.Adopted || v.ID != "v0001" || v.KeyType != "ec256" || v.Directory != "" || !v.StoredAt.Equal(start) {
				t.Errorf("adopted as %+v", v)
			}
			// What is in force is not written again in other words.
			if changed, err := s.Install("home", v, target); changed || err != nil {
				t.Errorf("installed over itself: %v, %v", changed, err)
			}
			if !bytes.Equal(readFile(t, target.KeyFile), c.pair.key) {
				t.Error("the key was written anew")
			}
			if _, ok, err := s.Adopt("home", target, names, roots, start); ok || err != nil {
				t.Errorf("adopted twice: %v, %v", ok, err)
			}
			if times, err := s.Issuances(names, "", start.Add(-9*day)); len(times) != 0 || err != nil {
				t.Errorf("an adopted one counts as issued: %v, %v", times, err)
			}
		})
	}
}

func TestAdoptLater(t *testing.T) {
	ca := newCA(t, "Test")
	names := []string{"home.example.org"}
	s := open(t, t.TempDir())
	target := targetIn(t.TempDir())
	obtain(t, s, ca, "home", want(names...), start.Add(-10*day))
	put := func(from time.Time) {
		key, chain := ca.pair(t, from, names...)
		writeFile(t, target.KeyFile, key, 0o600)
		writeFile(t, target.CertFile, chain, 0o644)
	}
	put(start.Add(-20 * day))
	if _, ok, err := s.Adopt("home", target, names, ca.roots(), start); ok || err != nil {
		t.Errorf("adopted an older one: %v, %v", ok, err)
	}
	put(start.Add(-5 * day))
	v, ok, err := s.Adopt("home", target, names, ca.roots(), start)
	if !ok || err != nil || !v.Adopted {
		t.Fatalf("not adopted: %v, %v", ok, err)
	}
	if current, _, err := s.Current("home"); err != nil || current.ID != v.ID {
		t.Errorf("current is %s, %v", current.ID, err)
	}
	// An older one, but ours does not cover what is configured now.
	names = append(names, "new.example.org")
	put(start.Add(-20 * day))
	if _, ok, err := s.Adopt("home", target, names, ca.roots(), start); !ok || err != nil {
		t.Errorf("not adopted: %v, %v", ok, err)
	}
}
