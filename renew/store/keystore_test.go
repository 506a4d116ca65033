package store

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certsitter/certsitter/expiry"
)

// java runs keytool, openHAB's side of a keystore.
func java(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("keytool is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"-J-Xshare:auto", "-J-XX:TieredStopAtLevel=1", "-J-Duser.language=en"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("keytool %v: %v: %s", args, err, out)
	}
	return string(out)
}

// javaReads gives what a Java program, which reads keystores as openHAB does,
// says of each file.
func javaReads(t *testing.T, password string, files ...string) []string {
	t.Helper()
	// java runs a source file only where there is a compiler, too.
	if _, err := exec.LookPath("javac"); err != nil {
		t.Skip("javac is not installed")
	}
	args := append([]string{"-Xshare:auto", "-XX:TieredStopAtLevel=1", "testdata/ReadKeystore.java", password}, files...)
	cmd := exec.CommandContext(t.Context(), "java", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("java: %v: %s", err, stderr.String())
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(files) {
		t.Fatalf("%d answers for %d keystores", len(lines), len(files))
	}
	return lines
}

// Java loads the keystore, opens the key with the same password, finds the whole
// chain in its order and the other entries; the file keeps owner and mode.
func TestJavaReadsOurs(t *testing.T) {
	s, ca, _, live := installed(t)
	var files []string
	want := []string{}
	for _, keyType := range []string{"ec256", "ec384", "rsa2048"} {
		path := filepath.Join(live, keyType)
		writeFile(t, path, foreignKeystore(t, ca), 0o640)
		if os.Geteuid() == 0 {
			if err := os.Chown(path, 9001, 9002); err != nil {
				t.Fatal(err)
			}
		}
		_, before, err := read(path)
		if err != nil {
			t.Fatal(err)
		}
		target := targetIn(live)
		target.Keystore, target.KeystorePassword = path, "openhab"
		v := obtain(t, s, ca, "home", Want{Names: []string{"home.example.org"}, KeyType: keyType, Directory: directory}, start)
		if changed, err := s.Install("home", v, target); !changed || err != nil {
			t.Fatal(changed, err)
		}
		if _, after, err := read(path); err != nil || after != before || after.mode != 0o640 {
			t.Errorf("%s: owner and mode are %+v, were %+v, %v", keyType, after, before, err)
		}
		files = append(files, path)
		want = append(want, "[clientca/certificate, mykey/key] chain 2 CN=home.example.org")
	}
	if got := javaReads(t, "openhab", files...); !slices.Equal(got, want) {
		t.Errorf("Java reads\n%s", strings.Join(got, "\n"))
	}
}

// Java reads what we write, in all key types, and finds what it put in itself.
func TestKeytoolReadsOurs(t *testing.T) {
	s, ca, _, live := installed(t)
	path := filepath.Join(live, "keystore")
	rootFile := filepath.Join(live, "root.pem")
	writeFile(t, rootFile, encodeCertificate(ca.root.Raw), 0o644)
	java(t, "-genkeypair", "-alias", "mykey", "-keyalg", "EC", "-dname", "CN=openhab.org", "-storetype", "JKS", "-keystore", path, "-storepass", "openhab", "-keypass", "openhab")
	java(t, "-importcert", "-noprompt", "-alias", "clientca", "-file", rootFile, "-keystore", path, "-storepass", "openhab")
	generated := readFile(t, path)

	target := targetIn(live)
	target.Keystore, target.KeystorePassword = path, "openhab"
	target.PKCS12, target.PKCS12Password = filepath.Join(live, "home.p12"), "secret"
	for _, keyType := range []string{"ec256", "rsa2048"} {
		w := want("home.example.org")
		w.KeyType = keyType
		v := obtain(t, s, ca, "home", w, start)
		if changed, err := s.Install("home", v, target); !changed || err != nil {
			t.Fatal(changed, err)
		}
		if keyType == "ec256" && !bytes.Equal(readFile(t, path+backupSuffix), generated) {
			t.Error("the backup is not what was there before")
		}
		list := java(t, "-list", "-v", "-keystore", path, "-storepass", "openhab")
		for _, want := range []string{"contains 2 entries", "Alias name: mykey", "Entry type: PrivateKeyEntry", "Certificate chain length: 2", "Owner: CN=home.example.org", "Alias name: clientca", "Entry type: trustedCertEntry"} {
			if !strings.Contains(list, want) {
				t.Errorf("%s: keytool does not say %q:\n%s", keyType, want, list)
			}
		}
		// Only who can decrypt the key can sign a request with it.
		java(t, "-certreq", "-alias", "mykey", "-keystore", path, "-storepass", "openhab", "-keypass", "openhab")
		list = java(t, "-list", "-v", "-storetype", "PKCS12", "-keystore", target.PKCS12, "-storepass", "secret")
		for _, want := range []string{"contains 1 entry", "Entry type: PrivateKeyEntry", "Certificate chain length: 2"} {
			if !strings.Contains(list, want) {
				t.Errorf("%s: keytool does not say %q of the PKCS#12 file:\n%s", keyType, want, list)
			}
		}
	}
}

// keytool writes PKCS#12 unless it is told otherwise; openHAB reads that too.
func TestKeystoreInPKCS12(t *testing.T) {
	s, ca, v, live := installed(t)
	path := filepath.Join(live, "keystore")
	target := targetIn(live)
	target.Keystore, target.KeystorePassword = path, "openhab"
	generate := func(alias string) {
		java(t, "-genkeypair", "-alias", alias, "-keyalg", "EC", "-dname", "CN=openhab.org", "-storetype", "PKCS12", "-keystore", path, "-storepass", "openhab")
	}
	generate("mykey")
	if err := target.Check(); err != nil {
		t.Errorf("our entry alone: %v", err)
	}
	generate("other")
	before := readFile(t, path)
	for what, err := range map[string]error{"check": target.Check(), "install": func() error { _, err := s.Install("home", v, target); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "other entries") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !bytes.Equal(readFile(t, path), before) {
		t.Error("a keystore that was refused has changed")
	}

	// A trusted certificate would be lost as well.
	text, chain := ca.pair(t, start, "home.example.org")
	key, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := expiry.Parse(chain)
	if err != nil {
		t.Fatal(err)
	}
	data, err := pkcs12.Modern.Encode(key, c.Leaf, append(c.Chain, newCA(t, "Stranger").issuer), "openhab")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data, 0o600)
	if err := target.Check(); err == nil || !strings.Contains(err.Error(), "other entries") {
		t.Errorf("a certificate beside the chain: %v", err)
	}
	data, err = pkcs12.Modern.Encode(key, c.Leaf, append(c.Chain, ca.root), "openhab")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data, 0o600)
	if changed, err := s.Install("home", v, target); !changed || err != nil {
		t.Fatalf("a chain with its root: %v, %v", changed, err)
	}
	if !isJKS(readFile(t, path)) {
		t.Error("not written as JKS")
	}
}

func TestKeystoreEntries(t *testing.T) {
	_, ca, _, _ := installed(t)
	key, chain := ca.pair(t, start, "home.example.org")
	c, err := expiry.Parse(chain)
	if err != nil {
		t.Fatal(err)
	}
	b := bundleOf(key, c)

	// An entry in another spelling of our alias: Java takes both for one.
	ks := emptyKeystore()
	if err := ks.SetTrustedCertificateEntry("MyKey", keystore.TrustedCertificateEntry{CreationTime: start, Certificate: keystore.Certificate{Type: "X.509", Content: ca.root.Raw}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := ks.Store(&out, []byte("openhab")); err != nil {
		t.Fatal(err)
	}
	f, err := keystoreForm(out.Bytes(), b, "openhab", start)
	if err != nil {
		t.Fatal(err)
	}
	again, err := readKeystore(f.data, "openhab")
	if err != nil {
		t.Fatal(err)
	}
	if aliases := again.Aliases(); len(aliases) != 1 || aliases[0] != keystoreAlias {
		t.Errorf("aliases %v", aliases)
	}
	if _, err := keystoreForm(f.data, b, "another", start); err == nil || !strings.Contains(err.Error(), "keystore_password") {
		t.Errorf("with another password: %v", err)
	}
	same, err := keystoreForm(f.data, b, "openhab", start.Add(day))
	if err != nil || !bytes.Equal(same.data, f.data) || same.replaces == nil {
		t.Errorf("a keystore with the same entry was written anew: %v", err)
	}
}

// What is not on the disk as it was written is not put in place.
func TestKeystoreReadAgainBeforeTheRename(t *testing.T) {
	dir, live := t.TempDir(), t.TempDir()
	path := filepath.Join(live, "keystore")
	s, err := Open(dir, Options{Now: func() time.Time { return start }, Step: func(step string) {
		if strings.HasPrefix(step, "sync ") && strings.HasSuffix(step, "/.keystore.certsitter-new") {
			if err := os.Truncate(filepath.Join(live, ".keystore.certsitter-new"), 100); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ca := newCA(t, "Test")
	before := foreignKeystore(t, ca)
	writeFile(t, path, before, 0o640)
	target := targetIn(live)
	target.Keystore, target.KeystorePassword = path, "openhab"
	v := obtain(t, s, ca, "home", want("home.example.org"), start)
	if _, err := s.Install("home", v, target); err == nil || !strings.Contains(err.Error(), "look at the disk") {
		t.Errorf("install: %v", err)
	}
	if !bytes.Equal(readFile(t, path), before) {
		t.Error("half a keystore was put in place")
	}
	if inForce(t, target) != v.Fingerprint {
		t.Error("the pair was not installed for the keystore's sake")
	}
}
