package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/pebble"
)

type sitterProblem = sitter.Problem

// selfSigned is a certificate that nobody but its owner trusts.
func (s *scene) selfSigned(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "nas.example.org"}, DNSNames: []string{"nas.example.org"},
		NotBefore: now.AddDate(0, 0, -10), NotAfter: now.AddDate(0, 0, 80), BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issued has another home obtain a pair for home.example.org, as another client
// would, and gives certificate and key.
func issued(t *testing.T, ca *pebble.CA) (cert, key string) {
	t.Helper()
	other := newSceneWith(t, ca)
	other.configure(t, "certificates:\n"+certificate("home", ""))
	r := other.start(t)
	r.deployed(t, "home", 1)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return other.read(t, "ssl/home.pem"), other.read(t, "ssl/home.key")
}

// Moving over from another client issues nothing.
func TestAdoption(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	cert, key := issued(t, s.ca)
	s.write(t, "ssl/home.pem", cert)
	s.write(t, "ssl/home.key", key)
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t)
	r.eventually(t, "it is taken over", func() bool { return strings.Contains(r.of("home").LastResult, "Took over") })
	r.check(t)
	c := r.of("home")
	if c.Status != "ok" || c.Failures != 0 || time.Until(c.NextRenewal) < 50*24*time.Hour || r.seen.count("home", "started") != 0 {
		t.Errorf("%+v", c)
	}
	wantOrders(t, s, 1) // the other client's
	if s.read(t, "ssl/home.pem") != cert || s.read(t, "ssl/home.key") != key {
		t.Error("the files were changed")
	}

	// Another client, or a second machine, renews it: taken over, with a notice.
	// Certificates tell time by seconds, and the later one counts.
	r.eventually(t, "the next second", func() bool { return time.Now().After(c.NotBefore.Add(time.Second)) })
	newer, newerKey := issued(t, s.ca)
	for name, text := range map[string]string{"home.key": newerKey, "home.pem": newer} { // certbot writes new files and changes links
		s.write(t, "ssl/"+name+".new", text)
		if err := os.Rename(s.path("ssl/"+name+".new"), s.path("ssl/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	r.check(t)
	c = r.of("home")
	if !slices.ContainsFunc(c.Problems, func(p sitterProblem) bool { return p.Severity == "notice" && strings.Contains(p.Text, "nother") }) ||
		!strings.Contains(c.LastResult, "Another client") || c.Status != "notice" {
		t.Errorf("%+v", c)
	}
	wantOrders(t, s, 2)
	if s.read(t, "ssl/home.pem") != newer || s.read(t, "ssl/home.key") != newerKey {
		t.Error("the newer files were changed")
	}
	// It is ours now: a renewal goes on from it.
	r.press(t, "home")
	r.deployed(t, "home", 1)
	s.pair(t, "ssl/home.pem", "ssl/home.key")
	if s.read(t, "ssl/home.pem") == newer {
		t.Error("not renewed")
	}
}

// Whatever is at the paths: nothing that is of no use is taken over, and ours is
// ordered at once.
func TestNothingToAdopt(t *testing.T) {
	t.Parallel()
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	cert, key := issued(t, ca)
	_, otherKey := issued(t, ca)
	for name, put := range map[string]func(t *testing.T, s *scene){
		"garbage": func(t *testing.T, s *scene) {
			s.write(t, "ssl/home.pem", "garbage")
			s.write(t, "ssl/home.key", "garbage")
		},
		"another key":        func(t *testing.T, s *scene) { s.write(t, "ssl/home.pem", cert); s.write(t, "ssl/home.key", otherKey) },
		"no key":             func(t *testing.T, s *scene) { s.write(t, "ssl/home.pem", cert) },
		"no certificate":     func(t *testing.T, s *scene) { s.write(t, "ssl/home.key", key) },
		"half a certificate": func(t *testing.T, s *scene) { s.write(t, "ssl/home.pem", cert[:200]); s.write(t, "ssl/home.key", key) },
		"self-signed": func(t *testing.T, s *scene) {
			s.write(t, "ssl/home.pem", string(leafPEM(s.selfSigned(t))))
			s.write(t, "ssl/home.key", key)
		},
		"a link to nowhere": func(t *testing.T, s *scene) {
			if err := os.Symlink(s.path("ssl/gone.pem"), s.path("ssl/home.pem")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSceneWith(t, ca)
			put(t, s)
			orders := ca.Orders()
			s.configure(t, "certificates:\n"+certificate("home", ""))
			r := s.start(t)
			r.deployed(t, "home", 1)
			s.pair(t, "ssl/home.pem", "ssl/home.key")
			if got := ca.Orders() - orders; got != 1 {
				t.Errorf("%d orders", got)
			}
			if c := r.of("home"); c.Status != "ok" || c.Failures != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// The CA's advice on when to renew: in the past, it is renewed at once; what is
// no advice is passed over.
func TestAdvice(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	window := func(start, end time.Duration) string {
		text, _ := json.Marshal(map[string]any{"suggestedWindow": map[string]string{"start": now.Add(start).Format(time.RFC3339), "end": now.Add(end).Format(time.RFC3339)}})
		return string(text)
	}
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		advice string
		renews bool
	}{
		"a window in the past":    {window(-2*time.Hour, -time.Hour), true},
		"a window that has begun": {window(-time.Hour, 100*day), false},
		"a window of long ago":    {window(-1000*day, -999*day), false},
		"a reversed window":       {window(-day, -2*day), false},
		"no JSON":                 {"<html>Service Unavailable</html>", false},
		"no window":               {"{}", false},
		"null":                    {"null", false},
		"times that are none":     {`{"suggestedWindow":{"start":"yesterday","end":"tomorrow"}}`, false},
		"a window without an end": {`{"suggestedWindow":{"start":"2020-01-01T00:00:00Z"}}`, false},
		"a window after the end":  {window(200*day, 201*day), false},
		"an empty answer":         {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			s := newScene(t, pebble.Options{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r)
					if strings.HasPrefix(r.URL.Path, pebble.RenewalInfoPath) {
						asked.Add(1)
					}
				})
			}})
			s.configure(t, "certificates:\n"+certificate("home", ""))
			r := s.start(t)
			r.deployed(t, "home", 1)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			first := s.read(t, "ssl/home.pem")
			s.age(t, 3*time.Hour)
			if err := s.ca.SetRenewalInfo([]byte(first), c.advice); err != nil {
				t.Fatal(err)
			}
			before := asked.Load()
			r = s.start(t)
			if c.renews {
				r.deployed(t, "home", 1)
				if s.read(t, "ssl/home.pem") == first {
					t.Error("the old one is in place")
				}
				s.pair(t, "ssl/home.pem", "ssl/home.key")
				wantOrders(t, s, 2)
				return
			}
			r.eventually(t, "the CA is asked", func() bool { return asked.Load() > before })
			r.check(t) // what the CA said is taken in before
			if c := r.of("home"); c.Renewing || c.Failures != 0 || c.Status != "ok" || time.Until(c.NextRenewal) < 20*day && name != "a window that has begun" {
				t.Errorf("%+v", c)
			}
			if name != "a window that has begun" {
				if left := time.Until(r.of("home").NextRenewal); left < 59*day || left > 61*day {
					t.Errorf("renewed in %v, not at a third of its life", left)
				}
			}
			wantOrders(t, s, 1)
		})
	}
}

// age makes the stored certificate older than it is, and lets the daemon forget
// the CA's advice.
func (s *scene) age(t *testing.T, by time.Duration) {
	t.Helper()
	metas, err := filepath.Glob(s.path("state/certificates/home/*/meta.json"))
	if err != nil || len(metas) == 0 {
		t.Fatalf("no versions: %v %v", metas, err)
	}
	for _, path := range metas {
		change(t, path, func(meta map[string]any) {
			at, err := time.Parse(time.RFC3339, meta["stored_at"].(string))
			if err != nil {
				t.Fatal(err)
			}
			meta["stored_at"] = at.Add(-by).Format(time.RFC3339Nano)
		})
	}
	change(t, s.path("state/state.json"), func(state map[string]any) {
		delete(state["certificates"].(map[string]any)["home"].(map[string]any), "ari")
		delete(state, "attempts")
	})
}

// change rewrites a JSON file.
func change(t *testing.T, path string, by func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	document := map[string]any{}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	by(document)
	if text, err = json.Marshal(document); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
