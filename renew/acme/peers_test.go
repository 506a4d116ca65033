package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/tlsalpn01"
	legolog "github.com/go-acme/lego/v4/log"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

// The test program is lego's "exec" provider, too.
func TestMain(m *testing.M) {
	if endpoint := os.Getenv("CERTSITTER_TEST_EXEC"); endpoint != "" {
		os.Exit(execProvider(endpoint, os.Args[1:]))
	}
	legolog.Logger = log.New(io.Discard, "", 0)
	os.Exit(m.Run())
}

func execProvider(endpoint string, arguments []string) int {
	if len(arguments) != 3 {
		return 2
	}
	body, _ := json.Marshal(map[string]string{"fqdn": arguments[1], "value": arguments[2]})
	answer, err := http.Post(endpoint+"/"+arguments[0], "application/json", bytes.NewReader(body))
	if err != nil || answer.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// quick is a pace for a CA that answers at once.
func quick() pace {
	p := usualPace()
	p.firstPoll, p.slowestPoll = 5*time.Millisecond, 100*time.Millisecond
	p.patience, p.validation, p.issuance = 0, 10*time.Second, 10*time.Second
	p.cleanUp, p.blindWait = 5*time.Second, 20*time.Millisecond
	return p
}

func startCA(t testing.TB, o pebble.Options) *pebble.CA {
	t.Helper()
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return ca
}

// deadline bounds a test: Pebble can lock itself up.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func newCSR(t testing.TB, names []string) []byte {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func orderOf(t testing.TB, ca *pebble.CA, challenge string, names ...string) renew.OrderRequest {
	t.Helper()
	return renew.OrderRequest{
		Directory: ca.Directory(), Roots: ca.Roots(), AccountKey: keyPEM(t),
		CSR: newCSR(t, names), Names: names, Challenge: challenge,
	}
}

// machine answers HTTP-01 and TLS-ALPN-01, as the daemon does.
type machine struct {
	mu     sync.Mutex
	answer map[string]renew.Challenge // by token, and by name for TLS
	calls  int                        // of Present
}

func startMachine(t testing.TB, ca *pebble.CA) *machine {
	t.Helper()
	m := &machine{answer: map[string]renew.Challenge{}}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ca.HTTPPort()))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: m}}
	server.Start()
	t.Cleanup(server.Close)

	secure, err := tls.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ca.TLSPort()), &tls.Config{
		NextProtos: []string{"acme-tls/1"}, GetCertificate: m.certificate,
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			connection, err := secure.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = connection.(*tls.Conn).Handshake()
				connection.Close()
			})
		}
	})
	t.Cleanup(func() { secure.Close(); serving.Wait() })
	return m
}

func (m *machine) present(_ context.Context, all []renew.Challenge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	for _, c := range all {
		m.answer[c.Token], m.answer[c.Name] = c, c
	}
	return nil
}

func (m *machine) get(key string) (renew.Challenge, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.answer[key]
	return c, ok
}

func (m *machine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := m.get(strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, c.KeyAuthorization)
}

func (m *machine) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, ok := m.get(hello.ServerName)
	if !ok {
		return nil, errors.New("no challenge for " + hello.ServerName)
	}
	return tlsalpn01.ChallengeCert(c.Name, c.KeyAuthorization)
}

// remembered are the hooks of a caller that keeps what it is told.
type remembered struct {
	mu               sync.Mutex
	account, order   string
	accounts, orders int
	steps            []string
}

func (r *remembered) hooks(m *machine) Hooks {
	h := Hooks{
		Account: func(_ context.Context, url string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.account, r.accounts = url, r.accounts+1
			return nil
		},
		Placed: func(_ context.Context, url string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.order, r.orders = url, r.orders+1
			return nil
		},
		Progress: func(p renew.Progress) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.steps = append(r.steps, p.Step)
		},
	}
	if m != nil {
		h.Present = m.present
	}
	return h
}

// writer makes lego's httpreq provider write to the CA's own name server, and
// counts on the way.
type writer struct {
	endpoint string
	mu       sync.Mutex
	most     int // TXT records at the same time
	records  int
	fail     func(path string) bool
}

func startWriter(t testing.TB, ca *pebble.CA) *writer {
	t.Helper()
	w := &writer{fail: func(string) bool { return false }}
	inner := ca.DNS.Provider()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.fail(r.URL.Path) {
			http.Error(rw, "invalid token s3cret-t0ken", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(rw, r)
		if r.URL.Path == "/present" {
			w.records++
		} else {
			w.records--
		}
		w.most = max(w.most, w.records)
	}))
	t.Cleanup(server.Close)
	w.endpoint = server.URL
	return w
}

func (w *writer) counts() (most, now int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most, w.records
}

func (w *writer) provider(string) (challenge.Provider, error) {
	endpoint, err := url.Parse(w.endpoint)
	if err != nil {
		return nil, err
	}
	configuration := httpreq.NewDefaultConfig()
	configuration.Endpoint = endpoint
	configuration.PollingInterval = 20 * time.Millisecond
	configuration.PropagationTimeout = 5 * time.Second
	return httpreq.NewDNSProviderConfig(configuration)
}

func chainOf(t testing.TB, issued renew.Issued) []*x509.Certificate {
	t.Helper()
	chain, err := parseChain(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// verify checks that a certificate is good for the names and chains to a root.
func verify(t testing.TB, issued renew.Issued, root []byte, names ...string) {
	t.Helper()
	chain := chainOf(t, issued)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	for _, name := range names {
		name = strings.Replace(name, "*", "any", 1)
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates}); err != nil {
			t.Errorf("the certificate is not good for %s: %v", name, err)
		}
	}
}

func faultOf(t testing.TB, err error) *renew.Fault {
	t.Helper()
	fault, ok := errors.AsType[*renew.Fault](err)
	if !ok {
		t.Fatalf("want a fault, got %v", err)
	}
	return fault
}

func causeOf(t testing.TB, err error) renew.Cause {
	t.Helper()
	return renew.Explain(faultOf(t, err)).Cause
}

// disturb answers requests itself when the function wants to.
func disturb(f func(w http.ResponseWriter, r *http.Request) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !f(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	}
}
