package expiry_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/internal/testca"
	"software.sslmate.com/src/go-pkcs12"
)

// family is a root, an intermediate and a leaf, good around noon.
func family(t testing.TB) (root, inter, leaf *testca.Pair) {
	root = testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	inter = root.Intermediate("inter", noon.Add(-100*day), noon.Add(500*day))
	return root, inter, inter.Leaf(noon.Add(-day), noon.Add(89*day), "home.example.org")
}

func TestParse(t *testing.T) {
	_, inter, leaf := family(t)
	text := []byte("# friendly text\nsubject=CN home\n")
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	broken := bytes.Replace(leaf.PEM(), []byte("-----BEGIN CERTIFICATE-----\n"), []byte("-----BEGIN CERTIFICATE-----\n!!!!"), 1)
	noDER := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	params := pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Bytes: []byte{1}})
	for _, test := range []struct {
		name  string
		data  []byte
		chain int
		err   error
	}{
		{"PEM", leaf.PEM(), 0, nil},
		{"PEM chain", leaf.PEM(inter), 1, nil},
		{"PEM with CRLF", crlf(leaf.PEM(inter)), 1, nil},
		{"PEM behind a byte order mark", append([]byte("\xef\xbb\xbf"), leaf.PEM(inter)...), 1, nil},
		{"PEM with text, key and parameters", bytes.Join([][]byte{text, leaf.KeyPEM(), params, leaf.PEM(), text, inter.PEM()}, nil), 1, nil},
		{"PEM without a final line break", bytes.TrimSpace(leaf.PEM(inter)), 1, nil},
		{"PEM with a bad block in the chain", append(leaf.PEM(), append(noDER, inter.PEM()...)...), 1, nil},
		{"DER", leaf.Cert.Raw, 0, nil},
		{"DER chain", append(bytes.Clone(leaf.Cert.Raw), inter.Cert.Raw...), 1, nil},
		{"nothing", nil, 0, expiry.ErrNoCertificate},
		{"text", text, 0, expiry.ErrNoCertificate},
		{"text that begins like DER", []byte("0 is a digit"), 0, expiry.ErrNoCertificate},
		{"key only", leaf.KeyPEM(), 0, expiry.ErrNoCertificate},
		{"no DER in the block", noDER, 0, expiry.ErrDamaged},
		{"damaged block", broken, 0, expiry.ErrDamaged},
		{"damaged leaf before a good intermediate", append(broken, inter.PEM()...), 0, expiry.ErrDamaged},
		{"cut off", leaf.PEM()[:200], 0, expiry.ErrDamaged},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, parse := range map[string]func() (*expiry.Certificate, error){
				"Parse":             func() (*expiry.Certificate, error) { return expiry.Parse(test.data) },
				"ParseWithPassword": func() (*expiry.Certificate, error) { return expiry.ParseWithPassword(test.data, "secret") },
			} {
				c, err := parse()
				if !errors.Is(err, test.err) || (c == nil) != (err != nil) {
					t.Fatalf("%s: %v, want %v", name, err, test.err)
				}
				if err != nil {
					continue
				}
				if !c.Leaf.Equal(leaf.Cert) || len(c.Chain) != test.chain {
					t.Errorf("%s: leaf %s with %d others, want %d", name, c.Subject(), len(c.Chain), test.chain)
				}
			}
		})
	}
}

func TestPKCS12(t *testing.T) {
	_, inter, leaf := family(t)
	data, err := pkcs12.Modern.Encode(leaf.Key, leaf.Cert, chain(inter), "sécret")
	check(t, err)
	legacy, err := pkcs12.LegacyDES.Encode(leaf.Key, leaf.Cert, chain(inter), "sécret")
	check(t, err)
	// The one that belongs to the key is the leaf, in whatever order they come.
	turned, err := pkcs12.Modern.Encode(leaf.Key, inter.Cert, chain(leaf), "sécret")
	check(t, err)
	trust, err := pkcs12.Modern.EncodeTrustStore(chain(leaf), "sécret")
	check(t, err)
	for name, data := range map[string][]byte{"modern": data, "legacy": legacy, "turned": turned, "trust store": trust} {
		c, err := expiry.ParseWithPassword(data, "sécret")
		if err != nil || !c.Leaf.Equal(leaf.Cert) {
			t.Errorf("%s: %v", name, err)
		}
		for _, wrong := range []string{"", "secret"} {
			if _, err := expiry.ParseWithPassword(data, wrong); !errors.Is(err, expiry.ErrPassword) {
				t.Errorf("%s with %q: %v", name, wrong, err)
			}
		}
		if _, err := expiry.Parse(data); !errors.Is(err, expiry.ErrPassword) {
			t.Errorf("%s without a password: %v", name, err)
		}
		if _, err := expiry.ParseWithPassword(data[:len(data)-1], "sécret"); err == nil {
			t.Errorf("%s, cut off: no error", name)
		}
	}
}

// TestPKCS12ThatWouldTakeMinutes: the number of iterations stands in the file,
// so it is somebody else's to choose.
func TestPKCS12ThatWouldTakeMinutes(t *testing.T) {
	_, _, leaf := family(t)
	data, err := pkcs12.Modern.WithIterations(12_345).Encode(leaf.Key, leaf.Cert, nil, "secret")
	check(t, err)
	count := []byte{2, 2, 0x30, 0x39} // INTEGER 12345
	if bytes.Count(data, count) == 0 {
		t.Fatal("the number of iterations is not where it was looked for")
	}
	if _, err := expiry.ParseWithPassword(data, "secret"); err != nil {
		t.Fatal(err)
	}
	many := []byte{0x30, 0x0d, 4, 1, 0, 2, 8, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	pfx := append([]byte{0x30, byte(3 + len(many)), 2, 1, 3}, many...)
	if _, err := expiry.ParseWithPassword(pfx, "secret"); !errors.Is(err, expiry.ErrUnsupported) {
		t.Errorf("2^63 iterations: %v", err)
	}
	// The same file with a count of 2^15−1, three times: few enough, so it is
	// tried, and found damaged or of another password.
	_, err = expiry.ParseWithPassword(bytes.ReplaceAll(data, count, []byte{2, 2, 0x7f, 0xff}), "secret")
	if err == nil || errors.Is(err, expiry.ErrUnsupported) {
		t.Errorf("32,767 iterations: %v", err)
	}
}

func TestKeytool(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("keytool (a Java runtime) is not installed")
	}
	for _, form := range []string{"JKS", "PKCS12"} {
		t.Run(form, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keystore")
			run(t, keytool, "-genkeypair", "-alias", "other", "-keyalg", "EC", "-dname", "CN=other", "-ext", "san=dns:other.example.org",
				"-keystore", file, "-storetype", form, "-storepass", "openhab", "-keypass", "openhab")
			if form == "JKS" { // go-pkcs12 reads one key only
				run(t, keytool, "-genkeypair", "-alias", "mykey", "-keyalg", "EC", "-dname", "CN=nas", "-ext", "san=dns:nas.example.org", "-validity", "100",
					"-keystore", file, "-storetype", form, "-storepass", "openhab", "-keypass", "openhab")
			}
			data, err := os.ReadFile(file)
			check(t, err)
			c, err := expiry.ParseWithPassword(data, "openhab")
			check(t, err)
			want := map[string]string{"JKS": "nas.example.org", "PKCS12": "other.example.org"}[form]
			if c.Subject() != want || !c.SelfSigned() {
				t.Errorf("got %s, want %s", c.Subject(), want)
			}
			if _, err := expiry.ParseWithPassword(data, "wrong"); !errors.Is(err, expiry.ErrPassword) {
				t.Errorf("wrong password: %v", err)
			}
			if form == "JKS" {
				if c, err := expiry.ParseWithPassword(data, ""); err != nil || c.Subject() != want {
					t.Errorf("a keystore's certificates need no password: %v", err)
				}
			}
		})
	}
}

func TestKeystoreEntries(t *testing.T) {
	_, inter, leaf := family(t)
	for _, test := range []struct {
		name  string
		data  []byte
		chain int
		err   error
	}{
		{"key with chain", keystore(2, entry("mykey", leaf, inter)), 1, nil},
		{"version 1", keystore(1, entryV1("mykey", leaf)), 0, nil},
		{"trusted only", keystore(2, trusted("ca", leaf)), 0, nil},
		{"key before trusted", keystore(2, trusted("ca", inter), entry("a", leaf, inter)), 1, nil},
		{"first key", keystore(2, entry("a", leaf), entry("b", inter)), 0, nil},
		{"mykey before first", keystore(2, entry("a", inter), entry("MyKey", leaf)), 0, nil},
		{"empty", keystore(2), 0, expiry.ErrNoCertificate},
		{"unknown version", keystore(3), 0, expiry.ErrUnsupported},
		{"unknown tag", keystore(2, []byte{0, 0, 0, 9, 0, 0}), 0, expiry.ErrDamaged},
		{"an entry of gigabytes", keystore(2, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}), 0, expiry.ErrDamaged},
		{"a chain of billions", keystore(2, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}), 0, expiry.ErrDamaged},
		{"nothing but the magic", []byte("\xfe\xed\xfe\xed"), 0, expiry.ErrDamaged},
	} {
		c, err := expiry.ParseWithPassword(test.data, "")
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", test.name, err, test.err)
		} else if err == nil && (!c.Leaf.Equal(leaf.Cert) || len(c.Chain) != test.chain) {
			t.Errorf("%s: leaf %s with %d others", test.name, c.Subject(), len(c.Chain))
		}
	}
}

// keystore writes a JKS file by hand: what no program would write can be tried
// only so.
func keystore(version uint32, entries ...[]byte) []byte {
	out := append([]byte("\xfe\xed\xfe\xed"), number(version)...)
	out = append(out, number(uint32(len(entries)))...)
	out = append(out, bytes.Join(entries, nil)...)
	return append(out, make([]byte, sha1.Size)...)
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func trusted(alias string, p *testca.Pair) []byte {
	return bytes.Join([][]byte{number(2), text(alias), make([]byte, 8), text("X.509"), number(uint32(len(p.Cert.Raw))), p.Cert.Raw}, nil)
}

func entry(alias string, chain ...*testca.Pair) []byte {
	out := bytes.Join([][]byte{number(1), text(alias), make([]byte, 8), number(3), {1, 2, 3}, number(uint32(len(chain)))}, nil)
	for _, p := range chain {
		out = bytes.Join([][]byte{out, text("X.509"), number(uint32(len(p.Cert.Raw))), p.Cert.Raw}, nil)
	}
	return out
}

func entryV1(alias string, p *testca.Pair) []byte {
	return bytes.Join([][]byte{number(1), text(alias), make([]byte, 8), number(0), number(1), number(uint32(len(p.Cert.Raw))), p.Cert.Raw}, nil)
}

func FuzzParse(f *testing.F) {
	_, inter, leaf := family(f)
	f.Add(leaf.PEM(inter))
	f.Add(leaf.Cert.Raw)
	f.Add([]byte("\xef\xbb\xbf-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := expiry.Parse(data)
		exercise(t, c, err)
	})
}

func FuzzParseWithPassword(f *testing.F) {
	_, inter, leaf := family(f)
	for _, encoder := range []*pkcs12.Encoder{pkcs12.Modern.WithIterations(1), pkcs12.LegacyRC2.WithIterations(1), pkcs12.Passwordless} {
		password := "secret"
		if encoder == pkcs12.Passwordless {
			password = ""
		}
		data, err := encoder.Encode(leaf.Key, leaf.Cert, chain(inter), password)
		check(f, err)
		f.Add(data, password)
	}
	f.Add(keystore(2, trusted("ca", inter), entry("mykey", leaf, inter)), "")
	f.Add(keystore(1, entryV1("mykey", leaf)), "openhab")
	f.Add(leaf.PEM(inter), "")
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		c, err := expiry.ParseWithPassword(data, password)
		exercise(t, c, err)
	})
}

// exercise asks everything of whatever was parsed.
func exercise(t *testing.T, c *expiry.Certificate, err error) {
	if (c == nil) != (err != nil) {
		t.Fatalf("certificate %v with error %v", c, err)
	}
	if err != nil {
		known := false
		for _, kind := range []error{expiry.ErrNoCertificate, expiry.ErrDamaged, expiry.ErrPassword, expiry.ErrUnsupported} {
			known = known || errors.Is(err, kind)
		}
		if !known {
			t.Fatalf("an error of no kind: %v", err)
		}
		return
	}
	for _, text := range append(c.Names(), c.Subject(), c.Issuer(), c.KeyType(), c.Fingerprint(), c.CertID()) {
		if strings.ContainsAny(text, "\x00\r\n\x1b") {
			t.Errorf("%q goes out as it is", text)
		}
	}
	_ = c.SelfSigned()
	_ = c.Staging()
	_ = c.Missing([]string{"home.example.org", "192.0.2.1"})
	if len(c.Fingerprint()) != 64 || c.Lifetime() != c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) {
		t.Error("facts do not fit")
	}
}

func chain(pairs ...*testca.Pair) (certs []*x509.Certificate) {
	for _, p := range pairs {
		certs = append(certs, p.Cert)
	}
	return certs
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
