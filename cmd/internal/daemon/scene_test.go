package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"
	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/acme"
	"github.com/certsitter/certsitter/renew/store"
)

const (
	// asWorker and asDaemon are first arguments with which the test program plays
	// another one.
	asWorker = "certsitter-worker"
	asDaemon = "certsitter"
	version  = "test"
	// waitLimit bounds every wait. Nothing waits for it unless it fails.
	waitLimit = 40 * time.Second
	// noRest keeps the race detector from resting a second before each exit.
	noRest = "GORACE=atexit_sleep_ms=0"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case asWorker:
			os.Exit(serveAsWorker(os.Args[2:]))
		case asDaemon:
			os.Exit(runAsDaemon(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// serveAsWorker is the worker with one DNS provider: all of them take minutes to
// compile.
func serveAsWorker(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return worker.Serve(ctx, args, os.Stdin, os.Stdout, version, worker.Jobs{
		Issue: func(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
			return acme.Issue(ctx, r, acme.Hooks{
				Provider: func(string) (challenge.Provider, error) { return httpreq.NewDNSProvider() },
				Present:  h.Present, Account: h.Account, Placed: h.Placed, Progress: h.Progress,
			})
		},
		Revoke: acme.Revoke,
		Grace:  time.Second,
	})
}

// runAsDaemon is the daemon in a process of its own, to be killed.
func runAsDaemon(config string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	o, err := options(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	o.Log = zerolog.New(os.Stderr).With().Timestamp().Logger()
	d, err := New(o)
	if err == nil {
		err = d.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// options are those of the real daemon, with the test program as the worker.
func options(config string) (Options, error) {
	self, err := os.Executable()
	if err != nil {
		return Options{}, err
	}
	load := func() (*settings.Settings, error) {
		return settings.Load(config, settings.Environment{User: os.Geteuid(), Providers: providers.Table{}})
	}
	conf, err := load()
	if err != nil {
		return Options{}, err
	}
	return Options{
		Settings: conf, Reload: load, Version: version, Redactor: settings.NewRedactor(conf.Secrets()),
		Worker: worker.Client{Path: self, Args: []string{asWorker}, Env: []string{noRest}, Version: version, Grace: time.Second},
	}, nil
}

// A scene is a folder with everything that stands around a daemon.
type scene struct {
	dir    string
	ca     *pebble.CA
	listen string // the page's host:port
	config string // path of the configuration
}

func newScene(t *testing.T, o pebble.Options) *scene {
	t.Helper()
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return newSceneWith(t, ca)
}

// newSceneWith is another home of the same CA.
func newSceneWith(t *testing.T, ca *pebble.CA) *scene {
	t.Helper()
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{dir: t.TempDir(), ca: ca, listen: fmt.Sprintf("127.0.0.1:%d", port)}
	s.config = s.path("certsitter.yaml")
	s.write(t, "roots.pem", string(append(ca.Roots(), ca.IssuerRoots()...)))
	s.mkdir(t, "ssl")
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (s *scene) mkdir(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(s.path(name), 0o755); err != nil {
		t.Fatal(err)
	}
}

// configure writes certsitter.yaml: what every test needs, and the rest.
func (s *scene) configure(t *testing.T, rest string) {
	t.Helper()
	s.write(t, "certsitter.yaml", fmt.Sprintf("ca: %s\nca_roots: roots.pem\nhttp_port: %d\ntls_port: %d\nresolvers: [%q]\nlisten: %s\nstate_dir: state\nssl_dir: ssl\n%s",
		s.ca.Directory(), s.ca.HTTPPort(), s.ca.TLSPort(), s.ca.DNS.Address(), s.listen, rest))
}

// certificate is an entry with files of its own: name.pem and name.key.
func certificate(name, more string) string {
	return fmt.Sprintf("- name: %[1]s\n  domains: [%[1]s.example.org]\n  certfile: %[1]s.pem\n  keyfile: %[1]s.key\n%s", name, indent(more))
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// A running is a daemon of this process.
type running struct {
	*Daemon
	hangup chan struct{}
	log    *output.Buffer
	seen   *recorder
	stop   func() error // ends it and gives what Run gave; may be called again
	ended  chan struct{}
}

// recorder keeps the events of a daemon.
type recorder struct {
	mu     sync.Mutex
	events []sitter.Event
}

func (r *recorder) add(e sitter.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// count is how many events of that kind there were for a certificate.
func (r *recorder) count(name, kind string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == name && e.Kind == kind {
			n++
		}
	}
	return n
}

// start starts the daemon with the configuration as it is now.
func (s *scene) start(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	o, err := options(s.config)
	if err != nil {
		t.Fatal(err)
	}
	return s.launch(t, o, change...)
}

// launch starts the daemon with these options.
func (s *scene) launch(t *testing.T, o Options, change ...func(*Options)) *running {
	t.Helper()
	r := &running{hangup: make(chan struct{}), log: &output.Buffer{}, seen: &recorder{}, ended: make(chan struct{})}
	o.Hangup, o.Log = r.hangup, zerolog.New(o.Redactor.Writer(r.log)).With().Timestamp().Logger()
	for _, c := range change {
		c(&o)
	}
	for end := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		// The lock of a daemon that has ended may live on for a moment in a process
		// that another test is just starting.
		var err error
		if r.Daemon, err = New(o); err == nil {
			break
		}
		if !errors.Is(err, store.ErrLocked) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var told sync.WaitGroup
	events := r.Sitter.Events(ctx)
	told.Go(func() {
		for e := range events {
			r.seen.add(e)
		}
	})
	var result error
	asked := false // the test has taken the result
	go func() { defer close(r.ended); result = r.Run(ctx) }()
	r.stop = func() error {
		cancel()
		select {
		case <-r.ended:
			asked = true
			told.Wait()
			return result
		case <-time.After(waitLimit):
			return fmt.Errorf("the daemon did not end within %v", waitLimit)
		}
	}
	t.Cleanup(func() {
		known := asked
		if err := r.stop(); err != nil && !known && !t.Failed() {
			t.Errorf("the daemon's end: %v", err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.dir, r.log.String())
		}
	})
	return r
}

// reload has the configuration read again, and returns when that has been done
// or refused.
func (r *running) reload(t *testing.T) {
	t.Helper()
	done := func() int {
		log := r.log.String()
		return strings.Count(log, "configuration read again") + strings.Count(log, "the configuration was not taken into force")
	}
	before := done()
	select {
	case r.hangup <- struct{}{}:
	case <-time.After(waitLimit):
		t.Fatal("the daemon takes no wish to reload")
	}
	r.eventually(t, "the configuration is read again", func() bool { return done() > before })
}

// of is how a certificate stands.
func (r *running) of(name string) sitter.Certificate {
	for _, c := range r.Sitter.Snapshot().Certificates {
		if c.Name == name {
			return c
		}
	}
	return sitter.Certificate{}
}

// deployed waits until the certificate is in use for the nth time of this run.
func (r *running) deployed(t *testing.T, name string, n int) sitter.Certificate {
	t.Helper()
	r.eventually(t, fmt.Sprintf("%s is deployed (%d)", name, n), func() bool {
		return r.seen.count(name, "deployed") >= n && r.of(name).Deployment == ""
	})
	return r.of(name)
}

func (r *running) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-r.ended:
			t.Fatalf("the daemon ended before: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// check looks at everything now.
func (r *running) check(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := r.Sitter.Check(ctx); err != nil {
		t.Fatal(err)
	}
}

// press is Renew now.
func (r *running) press(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := r.Sitter.Renew(ctx, name, sitter.RenewOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// pair reads a pair that must fit together and lead to the CA's root.
func (s *scene) pair(t *testing.T, cert, key string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.path(cert), s.path(key))
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.IssuerRoots())
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(c)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		t.Errorf("%s: %v", cert, err)
	}
	return leaf
}

func leafPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// serveHTTP serves until the test's end.
func serveHTTP(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL
}

func wantOrders(t *testing.T, s *scene, want int, names ...string) {
	t.Helper()
	if got := s.ca.Orders(names...); got != want {
		t.Errorf("the CA accepted %d orders for %v, want %d", got, names, want)
	}
}
