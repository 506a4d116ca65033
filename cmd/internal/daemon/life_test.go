package daemon

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	keystore "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/pebble"
)

// Being stopped is no failure: the order is taken up at the next start.
func TestStoppedAndTakenUp(t *testing.T) {
	t.Parallel()
	held := newGate(t)
	s := newScene(t, pebble.Options{Wrap: held.at(pebble.FinalizePath)})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	held.told(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	held.release()
	r = s.start(t)
	c := r.deployed(t, "home", 1)
	if c.Failures != 0 {
		t.Errorf("%+v", c)
	}
	s.pair(t, "ssl/home.pem", "ssl/home.key")
	wantOrders(t, s, 1)
}

// A CA that asks to be left alone is left alone, by all that are ordered there
// and by people, too.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	var placed atomic.Int64
	s := newScene(t, pebble.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != pebble.NewOrderPath {
				next.ServeHTTP(w, r)
				return
			}
			placed.Add(1)
			w.Header().Set("Retry-After", "7200")
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"The service is down for maintenance"}`)
		})
	}})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	r.eventually(t, "the first attempt has failed", func() bool { return r.of("home").Failures == 1 })
	s.configure(t, "certificates:\n"+certificate("home", "")+certificate("other", ""))
	r.reload(t)
	r.eventually(t, "the other one waits, too", func() bool { return !r.of("other").NextRenewal.IsZero() })
	for _, name := range []string{"home", "other"} {
		c := r.of(name)
		if wait := time.Until(c.NextRenewal); wait < 119*time.Minute || wait > 121*time.Minute || c.Renewing {
			t.Errorf("%s waits for %v: %+v", name, wait, c)
		}
		err := r.Sitter.Renew(t.Context(), name, sitter.RenewOptions{Force: true})
		if err == nil || !strings.Contains(err.Error(), "asked to be left alone until") {
			t.Errorf("%s by hand: %v", name, err)
		}
	}
	if n := placed.Load(); n != 1 {
		t.Errorf("%d orders were tried", n)
	}
}

// Every form of the files, and every type of key.
func TestFormsAndKeys(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{AlternateRoots: 1, ChainLength: 2})
	other := s.ca.IssuerRoot(1)
	block, _ := pem.Decode(other)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	text := "certificates:\n" + certificate("forms", "leaffile: leaf.pem\nchainfile: chain.pem\ncombinedfile: all.pem\npkcs12: all.p12\npkcs12_password: p12-secret\nkeystore: keystore\nkeystore_password: jks-secret\npreferred_chain: "+root.Subject.CommonName+"\n")
	types := []string{"ec256", "ec384", "rsa2048", "rsa3072", "rsa4096"}
	for _, kind := range types {
		text += certificate(kind, "key_type: "+kind+"\nreuse_key: true\n")
	}
	s.configure(t, text)
	r := s.start(t)
	for _, kind := range types {
		if c := r.deployed(t, kind, 1); c.KeyType != kind {
			t.Errorf("%s: %s", kind, c.KeyType)
		}
		if block, _ := pem.Decode([]byte(s.read(t, "ssl/"+kind+".key"))); block.Type != "PRIVATE KEY" {
			t.Errorf("%s: %s", kind, block.Type)
		}
	}
	r.deployed(t, "forms", 1)
	leaf := s.pair(t, "ssl/forms.pem", "ssl/forms.key")
	full, key := s.read(t, "ssl/forms.pem"), s.read(t, "ssl/forms.key")
	if got := s.read(t, "ssl/leaf.pem") + s.read(t, "ssl/chain.pem"); got != full {
		t.Error("leaf and chain are not the full chain")
	}
	if all := s.read(t, "ssl/all.pem"); !strings.Contains(all, strings.TrimSpace(key)) || !strings.Contains(all, strings.TrimSpace(full)) {
		t.Error("the combined file lacks a part")
	}
	if err := verifies(full, other); err != nil {
		t.Errorf("the chain that was preferred: %v", err)
	}
	_, inside, chain, err := pkcs12.DecodeChain([]byte(s.read(t, "ssl/all.p12")), "p12-secret")
	if err != nil || !inside.Equal(leaf) || len(chain) == 0 {
		t.Errorf("PKCS#12: %v", err)
	}
	store := keystore.New()
	file, err := os.Open(s.path("ssl/keystore"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := store.Load(file, []byte("jks-secret")); err != nil {
		t.Fatal(err)
	}
	if entry, err := store.GetPrivateKeyEntry("mykey", []byte("jks-secret")); err != nil || !slices.Equal(entry.CertificateChain[0].Content, leaf.Raw) {
		t.Errorf("keystore: %v", err)
	}

	// The key is kept where that is wanted.
	before := s.read(t, "ssl/ec384.key")
	r.press(t, "ec384")
	r.press(t, "forms")
	r.deployed(t, "ec384", 2)
	r.deployed(t, "forms", 2)
	if s.read(t, "ssl/ec384.key") != before {
		t.Error("the key is another one")
	}
	if s.read(t, "ssl/forms.key") == key {
		t.Error("the key is the old one")
	}
}

func verifies(chain string, root []byte) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	between.AppendCertsFromPEM([]byte(chain))
	block, _ := pem.Decode([]byte(chain))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	}
	return err
}

// The page, the API and the metrics say what the loop knows, and press its buttons.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	r.deployed(t, "home", 1)
	for path, want := range map[string]string{
		"/": "home.example.org", "/api/state": `"name":"home"`, "/metrics": "x509_cert_not_after", "/healthz": "ok",
	} {
		if status, body := s.ask(t, "GET", path, ""); status != http.StatusOK || !strings.Contains(strings.ReplaceAll(body, `": "`, `":"`), want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := s.ask(t, "POST", "/api/certificates/home/renew", "http://elsewhere.example"); status < 400 {
		t.Errorf("from another site: %d %s", status, body)
	}
	wantOrders(t, s, 1)
	if status, body := s.ask(t, "POST", "/api/certificates/home/renew", "http://"+s.listen); status >= 300 {
		t.Errorf("Renew now: %d %s", status, body)
	}
	r.deployed(t, "home", 2)
	wantOrders(t, s, 2)
	status, body := s.ask(t, "POST", "/api/certificates/home/renew", "http://"+s.listen)
	var refused struct{ Code, Error string }
	if err := json.Unmarshal([]byte(body), &refused); err != nil || status < 400 || refused.Code != "too_soon" || refused.Error == "" {
		t.Errorf("again: %d %s", status, body)
	}
	if status, body := s.ask(t, "POST", "/api/check", "http://"+s.listen); status >= 300 {
		t.Errorf("Check now: %d %s", status, body)
	}
}

// ask asks the page; origin "" = a script.
func (s *scene) ask(t *testing.T, method, path, origin string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.listen+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if origin != "" {
		request.Header.Set("Origin", origin)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// A port that is taken is no reason not to renew; a state folder that is, is.
func TestWithoutAPage(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	l, err := net.Listen("tcp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	r.deployed(t, "home", 1)
	r.eventually(t, "the page's trouble can be seen", func() bool {
		return slices.ContainsFunc(r.Sitter.Snapshot().Problems, func(p sitterProblem) bool { return p.Code == "page" && p.Advice != "" })
	})
	o, err := options(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := New(o); err == nil {
		_ = d.Close()
		t.Error("a second daemon works on the same state folder")
	}
}

// What was remembered is damaged in every way: the daemon starts, keeps the
// certificate, orders nothing, and says what happened.
func TestDamagedMemory(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	r.deployed(t, "home", 1)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	good := s.read(t, "state/state.json")
	for name, text := range map[string]string{
		"empty": "", "half": good[:len(good)/2], "another format": `{"version":99}`, "no object": "[]", "null": "null", "zeros": strings.Repeat("\x00", 100),
	} {
		t.Run(name, func(t *testing.T) {
			s.write(t, "state/state.json", text)
			s.write(t, "state/state.json.previous", text)
			r := s.start(t)
			r.check(t)
			if c := r.of("home"); c.Status != "ok" || c.Renewing || c.Failures != 0 {
				t.Errorf("%+v", c)
			}
			if !slices.ContainsFunc(r.Sitter.Snapshot().Problems, func(p sitterProblem) bool { return p.Code == "state" }) {
				t.Errorf("nothing is said: %+v", r.Sitter.Snapshot().Problems)
			}
			wantOrders(t, s, 1)
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
