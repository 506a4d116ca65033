package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/challenge"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

// TestMain lets the test's own program be the worker.
func TestMain(m *testing.M) {
	if os.Getenv("PLAY_WORKER") != "" {
		main()
	}
	os.Exit(m.Run())
}

// limit is how long a test waits for what must happen.
const limit = time.Minute

func client(t *testing.T) *worker.Client {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &worker.Client{
		Path: path,
		Env:  []string{"PLAY_WORKER=1", "GORACE=atexit_sleep_ms=0"}, Version: worker.BuildVersion(""),
		Log: func(line string) { t.Log("worker:", line) },
	}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}

func startCA(t *testing.T) *pebble.CA {
	t.Helper()
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return ca
}

// order asks for names at a CA that nobody knows yet.
func order(t *testing.T, ca *pebble.CA, kind string, names ...string) renew.OrderRequest {
	t.Helper()
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(account)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return renew.OrderRequest{
		Directory:  ca.Directory(),
		Roots:      ca.Roots(),
		AccountKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		CSR:        csr, Names: names, Challenge: kind,
	}
}

// check checks that a chain is one of the CA's for names, and returns its leaf.
func check(t *testing.T, ca *pebble.CA, issued renew.Issued, names ...string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(issued.Chain)
	if block == nil {
		t.Fatalf("no PEM: %q", issued.Chain)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.IssuerRoots())
	between.AppendCertsFromPEM(issued.Chain)
	for _, name := range names {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between}); err != nil {
			t.Error(err)
		}
	}
	return leaf
}

// TestAnsweredByTheDaemon: the worker orders, the daemon's side answers.
func TestAnsweredByTheDaemon(t *testing.T) {
	for _, kind := range []string{renew.HTTP01, renew.TLSALPN01} {
		t.Run(kind, func(t *testing.T) {
			ca := startCA(t)
			names := []string{"a.example.test", "b.example.test"}
			session, err := challenge.New(ca.HTTPPort(), ca.TLSPort()).Open(t.Context(), kind, "", names)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			var account, placed string
			var steps []string
			issued, err := client(t).Issue(bounded(t), order(t, ca, kind, names...), worker.Handler{
				Present:  session.Present,
				Account:  func(_ context.Context, url string) error { account = url; return nil },
				Placed:   func(_ context.Context, url string) error { placed = url; return nil },
				Progress: func(p renew.Progress) { steps = append(steps, p.Step) },
			})
			if err != nil {
				t.Fatal(err)
			}
			check(t, ca, issued, names...)
			if account == "" || account != issued.AccountURL || placed == "" || placed != issued.OrderURL {
				t.Errorf("account %q, order %q, issued %+v", account, placed, issued)
			}
			if !slices.Contains(steps, renew.StepFinalize) {
				t.Errorf("steps %q", steps)
			}
			if session.Validators() != 1 {
				t.Errorf("%d validators, one machine", session.Validators())
			}
		})
	}
}

// TestDNSProvider: a real provider of lego's, with what it needs on standard
// input alone, and a revocation.
func TestDNSProvider(t *testing.T) {
	ca := startCA(t)
	records := httptest.NewServer(ca.DNS.Provider())
	defer records.Close()
	names := []string{"example.test", "*.example.test"}
	request := order(t, ca, renew.DNS01, names...)
	request.Provider = "httpreq"
	request.Env = map[string]string{"HTTPREQ_ENDPOINT": records.URL, "HTTPREQ_POLLING_INTERVAL": "1"}
	request.Resolvers = []string{ca.DNS.Address()}
	issued, err := client(t).Issue(bounded(t), request, worker.Handler{})
	if err != nil {
		t.Fatal(err)
	}
	leaf := check(t, ca, issued, "example.test", "any.example.test")
	if left := ca.DNS.TXT("_acme-challenge.example.test"); len(left) > 0 {
		t.Errorf("records were left behind: %q", left)
	}
	err = client(t).Revoke(bounded(t), renew.RevokeRequest{
		Directory: ca.Directory(), Roots: ca.Roots(), AccountKey: request.AccountKey, AccountURL: issued.AccountURL, Certificate: leaf.Raw, Reason: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if revoked, err := ca.Revoked(issued.Chain); err != nil || !revoked {
		t.Errorf("revoked: %v, %v", revoked, err)
	}
}

// TestUnknownProvider also shows that lego's log reaches the daemon's and that
// a provider's mistake is told with the step.
func TestUnknownProvider(t *testing.T) {
	ca := startCA(t)
	for provider, want := range map[string]string{"no-such-provider": "no-such-provider", "cloudflare": "credentials"} {
		request := order(t, ca, renew.DNS01, "example.test")
		request.Provider = provider
		_, err := client(t).Issue(bounded(t), request, worker.Handler{})
		f, ok := errors.AsType[*renew.Fault](err)
		if !ok || !strings.Contains(f.Error(), want) {
			t.Errorf("%s: %v", provider, err)
		}
	}
}

// TestMessage: shoutrrr delivers, or says why not without the target's secrets.
func TestMessage(t *testing.T) {
	var mu sync.Mutex
	var got []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		got = append(got, r.URL.Path+" "+string(body))
		mu.Unlock()
		if r.URL.Path != "/secret-path" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer hook.Close()
	target := "generic://" + strings.TrimPrefix(hook.URL, "http://") + "/secret-path?disabletls=yes"
	message := notify.Request{URL: target, Title: "Certificate home", Body: "It expires in 7 days.", Severity: notify.Critical}
	if err := client(t).Send(bounded(t), message); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if len(got) != 1 || !strings.HasPrefix(got[0], "/secret-path ") || !strings.Contains(got[0], "It expires in 7 days.") {
		t.Errorf("the hook got %q", got)
	}
	mu.Unlock()
	message.URL = strings.Replace(target, "secret-path", "secret-door", 1)
	err := client(t).Send(bounded(t), message)
	if u, ok := errors.AsType[*notify.Undelivered](err); !ok || !strings.Contains(u.Reason, "403") || strings.Contains(u.Reason, "secret-door") {
		t.Errorf("err = %#v", err)
	}
}

// TestByHand: somebody starts it to see what it does.
func TestByHand(t *testing.T) {
	var out, stderr bytes.Buffer
	code := run(t.Context(), nil, strings.NewReader(""), &out, &stderr)
	if code != worker.ExitRefused || !strings.Contains(stderr.String(), "not by hand") {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}

// TestParallelWorkers: processes share nothing.
func TestParallelWorkers(t *testing.T) {
	ca := startCA(t)
	responder := challenge.New(ca.HTTPPort(), ca.TLSPort())
	var all sync.WaitGroup
	for _, name := range []string{"a.example.test", "b.example.test", "c.example.test"} {
		request := order(t, ca, renew.HTTP01, name)
		all.Go(func() {
			session, err := responder.Open(t.Context(), renew.HTTP01, "", request.Names)
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			if _, err := client(t).Issue(bounded(t), request, worker.Handler{Present: session.Present}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
