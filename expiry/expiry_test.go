package expiry_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/internal/testca"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// plain is a certificate with dates and names only, for what needs no signature.
func plain(from time.Time, life time.Duration, names ...string) *expiry.Certificate {
	return &expiry.Certificate{Leaf: &x509.Certificate{
		NotBefore: from, NotAfter: from.Add(life), DNSNames: names,
		Raw: []byte(strings.Join(names, " ") + from.String()), RawIssuer: []byte{1},
	}}
}

func TestDaysAreTheFloor(t *testing.T) {
	c := plain(noon.Add(-90*day), 90*day, "home.example.org")
	for _, test := range []struct {
		left time.Duration
		want int
	}{
		{90 * day, 90}, {21*day + time.Second, 21}, {21 * day, 21}, {21*day - time.Nanosecond, 20},
		{day, 1}, {day - time.Second, 0}, {time.Second, 0}, {0, 0},
		{-time.Nanosecond, -1}, {-day + time.Second, -1}, {-day, -1}, {-day - time.Second, -2},
	} {
		if got := c.Days(noon.Add(-test.left)); got != test.want {
			t.Errorf("%v left: %d days, want %d", test.left, got, test.want)
		}
	}
}

func TestMissing(t *testing.T) {
	ca := testca.Root(t, "root", noon, noon.Add(day))
	leaf := ca.Leaf(noon, noon.Add(day), "home.example.org", "*.Example.net", "192.0.2.7", "2001:db8::7")
	c := &expiry.Certificate{Leaf: leaf.Cert}
	for _, test := range []struct{ name, why string }{
		{"home.example.org", ""},
		{"HOME.example.org.", ""},
		{"nas.example.net", ""},
		{"*.example.net", ""},
		{"192.0.2.7", ""},
		{"::ffff:192.0.2.7", ""},
		{"2001:0db8::7", ""},
		{"[2001:db8::7]", ""},
		{"example.net", "a wildcard does not cover its parent"},
		{"a.b.example.net", "a wildcard covers one label"},
		{"*.b.example.net", "nor a wildcard below"},
		{"*.home.example.org", "a name does not cover a wildcard"},
		{"192.0.2.8", "another address"},
		{"org", "no wildcard over nothing"},
		{"", "nothing"},
	} {
		covered := len(c.Missing([]string{test.name})) == 0
		if covered != (test.why == "") {
			t.Errorf("%q: covered = %v (%s)", test.name, covered, test.why)
		}
	}
	got := c.Missing([]string{"home.example.org", "b.example.com", "a.example.com"})
	if want := []string{"b.example.com", "a.example.com"}; !slices.Equal(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
}

func TestCommonNameIsShownButCoversNothing(t *testing.T) {
	ca := testca.Root(t, "root", noon, noon.Add(day))
	old := ca.Issue(&x509.Certificate{Subject: pkix.Name{CommonName: "old.example.org"}, NotBefore: noon, NotAfter: noon.Add(day)}, nil)
	c := &expiry.Certificate{Leaf: old.Cert}
	if c.Subject() != "old.example.org" || !slices.Equal(c.Names(), []string{"old.example.org"}) {
		t.Errorf("subject %q, names %q", c.Subject(), c.Names())
	}
	if len(c.Missing([]string{"old.example.org"})) != 1 {
		t.Error("the common name covers the name: no browser would agree")
	}
}

// TestHostileText is what a certificate may hold to do harm in a log, on a page
// or in a template.
func TestHostileText(t *testing.T) {
	ca := testca.Root(t, "evil\x1b[31m\u202eCA\r\n"+strings.Repeat("ü", 300), noon, noon.Add(day))
	leaf := ca.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "{{ states('x') }}\n<img onerror>\u202e\x00"}, NotBefore: noon, NotAfter: noon.Add(day),
	}, nil)
	named := ca.Issue(&x509.Certificate{DNSNames: []string{"a\nb.example.org"}, NotBefore: noon, NotAfter: noon.Add(day)}, nil)
	for _, pair := range []*testca.Pair{leaf, named} {
		c := &expiry.Certificate{Leaf: pair.Cert}
		for _, text := range append(c.Names(), c.Subject(), c.Issuer()) {
			if strings.ContainsAny(text, "\x00\x1b\r\n\u202e") || utf8.RuneCountInString(text) > 253 || !utf8.ValidString(text) {
				t.Errorf("%q goes out as it is", text)
			}
		}
	}
	if got := (&expiry.Certificate{Leaf: leaf.Cert}).Issuer(); !strings.HasPrefix(got, "evil[31mCA") {
		t.Errorf("issuer %q", got)
	}
}

func TestKeyType(t *testing.T) {
	ca := testca.Root(t, "root", noon, noon.Add(day))
	key384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	template := func() *x509.Certificate {
		return &x509.Certificate{DNSNames: []string{"a.example.org"}, NotBefore: noon, NotAfter: noon.Add(day)}
	}
	for want, pair := range map[string]*testca.Pair{
		"ec256": ca.Issue(template(), nil), "ec384": ca.Issue(template(), key384),
		"rsa2048": ca.Issue(template(), rsaKey), "ed25519": ca.Issue(template(), edKey),
	} {
		c := &expiry.Certificate{Leaf: pair.Cert}
		if got := c.KeyType(); got != want {
			t.Errorf("%s is called %s", want, got)
		}
		if err := c.MatchesKey(pair.KeyPEM()); err != nil {
			t.Errorf("%s: its own key: %v", want, err)
		}
		if err := c.MatchesKey(ca.KeyPEM()); !errors.Is(err, expiry.ErrOtherKey) {
			t.Errorf("%s: another key: %v", want, err)
		}
	}
	if got := (&expiry.Certificate{Leaf: &x509.Certificate{}}).KeyType(); got != "unknown" {
		t.Errorf("no key is called %s", got)
	}
}

func TestMatchesKeyReadsEveryForm(t *testing.T) {
	ca := testca.Root(t, "root", noon, noon.Add(day))
	leaf := ca.Leaf(noon, noon.Add(day), "a.example.org")
	sec1, err := x509.MarshalECPrivateKey(leaf.Key.(*ecdsa.PrivateKey))
	check(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	rsaLeaf := ca.Issue(&x509.Certificate{NotBefore: noon, NotAfter: noon.Add(day)}, rsaKey)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	ec := &expiry.Certificate{Leaf: leaf.Cert}
	if err := ec.MatchesKey(append(block("EC PARAMETERS", []byte{5}), block("EC PRIVATE KEY", sec1)...)); err != nil {
		t.Errorf("openssl's EC file: %v", err)
	}
	if err := ec.MatchesKey(append(leaf.PEM(), leaf.KeyPEM()...)); err != nil {
		t.Errorf("a combined file: %v", err)
	}
	if err := (&expiry.Certificate{Leaf: rsaLeaf.Cert}).MatchesKey(block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))); err != nil {
		t.Errorf("PKCS#1: %v", err)
	}
	for name, test := range map[string]struct {
		pem  []byte
		want string
	}{
		"empty":     {nil, "no private key"},
		"no key":    {leaf.PEM(), "no private key"},
		"damaged":   {block("PRIVATE KEY", []byte("secret")), "damaged"},
		"encrypted": {block("ENCRYPTED PRIVATE KEY", []byte("secret")), "password"},
		"old form":  {[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nc2VjcmV0\n-----END RSA PRIVATE KEY-----\n"), "password"},
	} {
		err := ec.MatchesKey(test.pem)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCertID has the example of RFC 9773 §4.1.
func TestCertID(t *testing.T) {
	aki, err := hex.DecodeString("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
	check(t, err)
	c := &expiry.Certificate{Leaf: &x509.Certificate{AuthorityKeyId: aki, SerialNumber: big.NewInt(0x87654321)}}
	if got := c.CertID(); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" {
		t.Errorf("got %s", got)
	}
	c.Leaf.SerialNumber = big.NewInt(0x7f)
	if got := c.CertID(); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw" {
		t.Errorf("a serial without leading zero: %s", got)
	}
	c.Leaf.AuthorityKeyId = nil
	if got := c.CertID(); got != "" {
		t.Errorf("without authority key id: %s", got)
	}
}

func TestIssuers(t *testing.T) {
	self := &expiry.Certificate{Leaf: testca.SelfSigned(t, noon, noon.Add(day), "nas.local").Cert}
	if !self.SelfSigned() {
		t.Error("a self-signed certificate is not seen as one")
	}
	issuers := map[string]bool{
		"R12": false, "(STAGING) Riddling Rhubarb R12": true, "Fake LE Intermediate X1": true, "Pebble Intermediate CA 3a": false,
	}
	for name, staging := range issuers {
		c := &expiry.Certificate{Leaf: testca.Root(t, name, noon, noon.Add(day)).Leaf(noon, noon.Add(day), "a.example.org").Cert}
		if c.Staging() != staging || c.Issuer() != name || c.SelfSigned() {
			t.Errorf("%s: staging %v, issuer %q, self-signed %v", name, c.Staging(), c.Issuer(), c.SelfSigned())
		}
	}
	// The same names as the issuer's, but somebody else's signature.
	impostor := testca.Root(t, "nas.local", noon, noon.Add(day)).Leaf(noon, noon.Add(day), "nas.local")
	if (&expiry.Certificate{Leaf: impostor.Cert}).SelfSigned() {
		t.Error("equal names are taken for a signature of its own")
	}
}

// TestVerifyChainKeepsDatesOut: what has expired or not begun may still be
// trusted, and an intermediate younger than the leaf is no fault.
func TestVerifyChainKeepsDatesOut(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	inter := root.Intermediate("inter", noon.Add(-20*day), noon.Add(500*day))
	oldInter := root.Intermediate("inter", noon.Add(-400*day), noon.Add(-50*day))
	other := testca.Root(t, "other", noon.Add(-1000*day), noon.Add(1000*day))
	with := func(leaf *testca.Pair, chain ...*testca.Pair) *expiry.Certificate {
		c := &expiry.Certificate{Leaf: leaf.Cert}
		for _, p := range chain {
			c.Chain = append(c.Chain, p.Cert)
		}
		return c
	}
	for name, test := range map[string]struct {
		c  *expiry.Certificate
		ok bool
	}{
		"good":                        {with(inter.Leaf(noon.Add(-day), noon.Add(89*day), "a.example"), inter), true},
		"younger intermediate":        {with(inter.Leaf(noon.Add(-80*day), noon.Add(10*day), "a.example"), inter), true},
		"expired":                     {with(inter.Leaf(noon.Add(-15*day), noon.Add(-day), "a.example"), inter), true},
		"expired with intermediate":   {with(oldInter.Leaf(noon.Add(-140*day), noon.Add(-51*day), "a.example"), oldInter), true},
		"future":                      {with(inter.Leaf(noon.Add(2*time.Hour), noon.Add(90*day), "a.example"), inter), true},
		"leaf only":                   {with(inter.Leaf(noon.Add(-day), noon.Add(89*day), "a.example")), false},
		"expired and leaf only":       {with(inter.Leaf(noon.Add(-15*day), noon.Add(-day), "a.example")), false},
		"other root":                  {with(other.Leaf(noon.Add(-day), noon.Add(89*day), "a.example")), false},
		"self-signed":                 {with(testca.SelfSigned(t, noon.Add(-day), noon.Add(day), "a.example")), false},
		"extra expired cross-sign":    {with(inter.Leaf(noon.Add(-day), noon.Add(89*day), "a.example"), inter, root.CrossSigned(other, noon.Add(-900*day), noon.Add(-day))), true},
		"unneeded foreign in between": {with(inter.Leaf(noon.Add(-day), noon.Add(89*day), "a.example"), other, inter), true},
	} {
		if err := test.c.VerifyChain(root.Pool(), noon); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
