package store

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/renew"
)

// The test binary plays other processes, too: those that are killed in the
// middle of a change, and those that have fewer rights.
func TestMain(m *testing.M) {
	roles := map[string]func() error{"life": lifeRole, "check": checkRole, "deed": deedRole, "lock": lockRole}
	role, ok := roles[os.Getenv("STORE_TEST_ROLE")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// play starts the test binary in a role.
func play(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	// The race detector waits a second at each exit if it is not told otherwise.
	cmd.Env = append(append(os.Environ(), "STORE_TEST_ROLE="+role, "GORACE=atexit_sleep_ms=0"), env...)
	return cmd
}

// start is a time at which all test certificates are valid.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	directory = "https://ca.example/directory"
	day       = 24 * time.Hour
)

// A testCA issues certificates by an intermediate.
type testCA struct {
	root, issuer *x509.Certificate
	key          crypto.Signer
	serial       int64
}

func newCA(t testing.TB, organization string) *testCA {
	t.Helper()
	ca, err := makeCA(organization)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func makeCA(organization string) (*testCA, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &testCA{key: key, serial: 100}
	template := func(serial int64, cn string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn, Organization: []string{organization}},
			NotBefore: start.Add(-1000 * day), NotAfter: start.Add(3000 * day),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	if ca.root, err = sign(template(1, "Root"), template(1, "Root"), rootKey.Public(), rootKey); err != nil {
		return nil, err
	}
	ca.issuer, err = sign(template(2, organization+" R1"), ca.root, key.Public(), rootKey)
	return ca, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (ca *testCA) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

// issue answers a request as a CA does: the chain without the root.
func (ca *testCA) issue(csrDER []byte, from time.Time, lifetime time.Duration) ([]byte, error) {
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	ca.serial++
	leaf, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(ca.serial), Subject: request.Subject, DNSNames: request.DNSNames, IPAddresses: request.IPAddresses,
		NotBefore: from, NotAfter: from.Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.issuer, request.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	return append(encodeCertificate(leaf.Raw), encodeCertificate(ca.issuer.Raw)...), nil
}

// pair makes a key and a chain outside of any store.
func (ca *testCA) pair(t testing.TB, from time.Time, names ...string) (key, chain []byte) {
	t.Helper()
	key, err := NewKey("ec256")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := newCSR(key, names)
	if err != nil {
		t.Fatal(err)
	}
	chain, err = ca.issue(csr, from, 90*day)
	if err != nil {
		t.Fatal(err)
	}
	return key, chain
}

// open opens a store in a new folder, at the time start.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func want(names ...string) Want {
	return Want{Names: names, KeyType: "ec256", Directory: directory}
}

// obtain lets a certificate be issued and stored.
func obtain(t testing.TB, s *Store, ca *testCA, name string, w Want, from time.Time) renew.Version {
	t.Helper()
	v, err := tryObtain(s, ca, name, w, from)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryObtain(s *Store, ca *testCA, name string, w Want, from time.Time) (renew.Version, error) {
	p, err := s.Prepare(name, w)
	if err != nil {
		return renew.Version{}, err
	}
	url := fmt.Sprintf("https://ca.example/order/%s/%d", name, ca.serial+1)
	if err := s.Placed(name, "https://ca.example/account/1", url); err != nil {
		return renew.Version{}, err
	}
	chain, err := ca.issue(p.CSR, from, 90*day)
	if err != nil {
		return renew.Version{}, err
	}
	return s.Add(name, renew.Issued{Chain: chain, AccountURL: "https://ca.example/account/1", OrderURL: url}, from)
}

func targetIn(folder string) Target {
	return Target{CertFile: filepath.Join(folder, "fullchain.pem"), KeyFile: filepath.Join(folder, "privkey.pem")}
}

func writeFile(t testing.TB, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// inForce asserts that the pair at the target is whole and returns its fingerprint.
func inForce(t testing.TB, target Target) string {
	t.Helper()
	c, _, err := Installed(target)
	if err != nil {
		t.Fatalf("the pair is not whole: %v", err)
	}
	return c.Fingerprint()
}

// leftovers lists what no finished change leaves below a folder.
func leftovers(t testing.TB, folder string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if strings.HasSuffix(base, tempSuffix) || strings.HasSuffix(base, newSuffix) || strings.HasSuffix(base, checkSuffix) || base == intentFile {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkRole tries a target with the rights of this process.
func checkRole() error {
	var target Target
	if err := json.Unmarshal([]byte(os.Getenv("STORE_TEST_TARGET")), &target); err != nil {
		return err
	}
	fmt.Println(target.Check())
	return nil
}

const nobody = 65534

// checkAsUser returns Check's sentence for a user who is not root.
func checkAsUser(t *testing.T, target Target) string {
	t.Helper()
	about, err := json.Marshal(target)
	if err != nil {
		t.Fatal(err)
	}
	cmd := play(t, "check", "STORE_TEST_TARGET="+string(about))
	if os.Geteuid() == 0 {
		cmd.Path = filepath.Join(openFolder(t), "role")
		writeFile(t, cmd.Path, readFile(t, cmd.Args[0]), 0o755)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = e.Stderr
		}
		t.Fatalf("%v: %s", err, stderr)
	}
	return string(bytes.TrimSpace(out))
}

// openFolder is a folder into which other users may go, unlike t.TempDir's.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "certsitter-store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}
