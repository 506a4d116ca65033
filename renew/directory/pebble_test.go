package directory

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/lego"
	"github.com/go-acme/lego/v4/registration"

	"github.com/certsitter/certsitter/internal/pebble"
)

// person is a lego account.
type person struct {
	key          crypto.PrivateKey
	registration *registration.Resource
}

func (*person) GetEmail() string                          { return "" }
func (p *person) GetRegistration() *registration.Resource { return p.registration }
func (p *person) GetPrivateKey() crypto.PrivateKey        { return p.key }

// nothing answers no challenge: this CA does not look.
type nothing struct{}

func (nothing) Present(_, _, _ string) error { return nil }
func (nothing) CleanUp(_, _, _ string) error { return nil }

func startPebble(t *testing.T, o pebble.Options) *pebble.CA {
	t.Helper()
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return ca
}

// issue gets a certificate from the test CA and gives its PEM and its id.
func issue(t *testing.T, ca *pebble.CA) (certPEM []byte, id string) {
	t.Helper()
	pool, err := rootPool(ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	p := &person{key: newKey(t)}
	config := &lego.Config{
		CADirURL: ca.Directory(), User: p,
		HTTPClient:  &http.Client{Timeout: timeout, Transport: new(Client).transport(&tls.Config{RootCAs: pool})},
		Certificate: lego.CertificateConfig{Timeout: timeout},
	}
	client, err := lego.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Challenge.SetHTTP01Provider(nothing{}); err != nil {
		t.Fatal(err)
	}
	if p.registration, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		t.Fatal(err)
	}
	got, err := client.Certificate.Obtain(certificate.ObtainRequest{Domains: []string{"home.example.org"}, PrivateKey: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(got.Certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 9773 §4.1: the serial's DER bytes, with a leading zero if the first
	// bit is set.
	serial := leaf.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...)
	}
	b64 := base64.RawURLEncoding
	return got.Certificate, b64.EncodeToString(leaf.AuthorityKeyId) + "." + b64.EncodeToString(serial)
}

func TestAgainstPebble(t *testing.T) {
	ca := startPebble(t, pebble.Options{AlwaysValid: true, Profiles: map[string]time.Duration{"classic": 90 * 24 * time.Hour}})
	client := new(Client)
	d, err := client.Directory(t.Context(), ca.Directory(), ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	if d.RenewalInfo == "" || d.NewNonce == "" || len(d.Profiles) != 1 || len(d.CAAIdentities) != 1 || time.Since(d.Date).Abs() > time.Minute {
		t.Errorf("directory %+v", d)
	}
	now, err := client.Time(t.Context(), ca.Directory(), ca.Roots(), time.Now().Add(-24*time.Hour))
	if err != nil || time.Since(now).Abs() > time.Minute {
		t.Errorf("time %v, %v", now, err)
	}

	cert, id := issue(t, ca)
	w, err := client.RenewalInfo(t.Context(), d.RenewalInfo, id, ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	// Pebble's own window lies around the last third of the lifetime.
	if days := time.Until(w.Start).Hours() / 24; days < 57 || days > 61 || w.RetryAfter != 6*time.Hour {
		t.Errorf("window %+v", w)
	}

	// A revoked certificate's window lies in the past and says why.
	past := time.Now().Add(-2 * time.Hour).UTC().Truncate(time.Second)
	inject(t, ca, cert, fmt.Sprintf(`{"suggestedWindow": {"start": %q, "end": %q}, "explanationURL": "https://ca.test/incident"}`,
		past.Format(time.RFC3339), past.Add(time.Hour).Format(time.RFC3339)))
	w, err = client.RenewalInfo(t.Context(), d.RenewalInfo, id, ca.Roots())
	if err != nil || !w.Start.Equal(past) || w.Explanation != "https://ca.test/incident" {
		t.Errorf("window in the past: %+v, %v", w, err)
	}

	for _, garbage := range []string{"{}", "<html>", `{"suggestedWindow": {"start": "yesterday"}}`, `{"status": 404}`, strings.Repeat("x", maxBody+1)} {
		inject(t, ca, cert, garbage)
		if w, err := client.RenewalInfo(t.Context(), d.RenewalInfo, id, ca.Roots()); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%.40q: %+v, %v", garbage, w, err)
		}
	}

	// A certificate of somebody else.
	for _, unknown := range []string{id[:len(id)-4] + "AAAA", "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "nonsense"} {
		if _, err := client.RenewalInfo(t.Context(), d.RenewalInfo, unknown, ca.Roots()); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", unknown, err)
		}
	}
}

func TestPebbleInTrouble(t *testing.T) {
	ca := startPebble(t, pebble.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, pebble.RenewalInfoPath) {
				w.Header().Set("Retry-After", "7200")
				http.Error(w, `{"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}`, http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	d, err := new(Client).Directory(t.Context(), ca.Directory(), ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	_, err = new(Client).RenewalInfo(t.Context(), d.RenewalInfo, "a.b", ca.Roots())
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Status != 503 || status.RetryAfter != 2*time.Hour {
		t.Errorf("%v", err)
	}
}

func inject(t *testing.T, ca *pebble.CA, cert []byte, response string) {
	t.Helper()
	if err := ca.SetRenewalInfo(cert, response); err != nil {
		t.Fatal(err)
	}
}
