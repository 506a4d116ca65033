// Package pebble runs Let's Encrypt's test CA, Pebble, and a name server inside
// the process, for tests and for the demo. It never validates over anything but
// the ports and the name server it is given, and its certificates are trusted
// by nobody who does not ask for its roots.
//
// Pebble 2.10.1 can lock itself up (measured: once in about 400 orders at the
// same time, of the kind of letsencrypt/pebble#554). Requests are therefore
// handed to it one by one, and every user needs a deadline and a CA of its own.
package pebble

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Where Pebble serves what, for those who want to disturb it (Options.Wrap).
// A path that ends in "/" has an id behind it.
const (
	DirectoryPath   = wfe.DirectoryPath
	NoncePath       = "/nonce-plz"
	AccountPath     = "/sign-me-up"
	NewOrderPath    = "/order-plz"
	OrderPath       = "/my-order/"
	AuthzPath       = "/authZ/"
	ChallengePath   = "/chalZ/"
	FinalizePath    = "/finalize-order/"
	CertificatePath = "/certZ/"
	RevokePath      = "/revoke-cert"
	RenewalInfoPath = "/draft-ietf-acme-ari-03/renewalInfo/"
)

// DefaultProfile is the profile of a CA that was started without any.
const DefaultProfile = "classic"

// Options say what kind of CA is wanted. The zero value is a CA that validates
// really, at once, and sends no invented errors.
type Options struct {
	Address string // where it listens; "" = a free port of 127.0.0.1

	HTTPPort int // where HTTP-01 is asked; 0 = a free one, see CA.HTTPPort
	TLSPort  int // where TLS-ALPN-01 is asked; 0 = a free one, see CA.TLSPort

	// DNS is the name server (host:port, TCP) that is asked by the CA;
	// "" = one of its own, see CA.DNS.
	DNS string

	EAB         map[string]string // key id → MAC key, base64url without padding
	EABRequired bool

	// Profiles are the names with their lifetimes (whole seconds); nil =
	// DefaultProfile of 90 days alone. An order without a profile gets any.
	Profiles map[string]time.Duration

	AlternateRoots int      // how many more chains are offered
	ChainLength    int      // number of intermediates; 0 = one
	Blocked        []string // names that are refused with rejectedIdentifier

	RetryAfterAuthz, RetryAfterOrder int // seconds that a poll is asked to wait; 0 = not said

	NonceReject int  // percent of good nonces that are refused
	AuthzReuse  int  // percent of valid authorizations that are used again (Pebble adds 1)
	AlwaysValid bool // validates nothing
	Strict      bool // Pebble's strict mode

	// Wrap stands between the network and the CA: middleware that disturbs.
	Wrap func(http.Handler) http.Handler

	Log io.Writer // Pebble's own words; nil = nobody hears them
}

// CA is a running test CA.
type CA struct {
	// DNS is the name server that the CA asks; nil if Options.DNS named another.
	DNS *DNS

	url         string
	roots       []byte
	issuerRoots [][]byte
	httpPort    int
	tlsPort     int
	management  http.Handler
	server      *http.Server
	served      chan struct{}

	mu       sync.Mutex
	orders   map[string]int
	requests int
	// replacing are the orders that say what they replace; each is closed once
	// Pebble has noted it.
	replacing map[string]chan struct{}
}

// environment guards the variables that Pebble's constructors read.
var environment sync.Mutex

// Start starts a CA. It must be closed.
func Start(o Options) (*CA, error) {
	c := &CA{orders: map[string]int{}, replacing: map[string]chan struct{}{}, served: make(chan struct{})}
	if err := c.choosePorts(o); err != nil {
		return nil, err
	}
	if o.DNS == "" {
		server, err := StartDNS()
		if err != nil {
			return nil, err
		}
		c.DNS, o.DNS = server, server.Address()
	}
	handler, err := c.build(o)
	if err == nil {
		err = c.serve(o.Address, handler)
	}
	if err != nil {
		c.closeDNS()
		return nil, err
	}
	return c, nil
}

func (c *CA) choosePorts(o Options) (err error) {
	c.httpPort, c.tlsPort = o.HTTPPort, o.TLSPort
	if c.httpPort == 0 {
		if c.httpPort, err = FreePort(); err != nil {
			return err
		}
	}
	if c.tlsPort == 0 {
		c.tlsPort, err = FreePort()
	}
	return err
}

// build makes Pebble's parts and puts our counter, the caller's middleware and
// nothing else around them.
func (c *CA) build(o Options) (http.Handler, error) {
	store := db.NewMemoryStore()
	for kid, key := range o.EAB {
		if err := store.AddExternalAccountKeyByID(kid, key); err != nil {
			return nil, fmt.Errorf("external account key %q: %w", kid, err)
		}
	}
	for _, name := range o.Blocked {
		if err := store.AddBlockedDomain(name); err != nil {
			return nil, fmt.Errorf("block %q: %w", name, err)
		}
	}
	logger := log.New(c.listening(o.Log), "pebble ", log.Ltime)

	environment.Lock()
	defer environment.Unlock()
	defer setEnvironment(map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_VA_ALWAYS_VALID": strconv.Itoa(boolInt(o.AlwaysValid)),
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.NonceReject),
		"PEBBLE_AUTHZREUSE":      strconv.Itoa(o.AuthzReuse),
	})()

	authority := ca.New(logger, store, "", "ecdsa", o.AlternateRoots, max(o.ChainLength, 1), profiles(o.Profiles))
	validator := va.New(logger, c.httpPort, c.tlsPort, o.Strict, o.DNS, store)
	front := wfe.New(logger, store, validator, authority, []string{"pebble.letsencrypt.org"},
		o.Strict, o.EABRequired, o.RetryAfterAuthz, o.RetryAfterOrder)
	for i := range authority.GetNumberOfRootCerts() {
		c.issuerRoots = append(c.issuerRoots, authority.GetRootCert(i).PEM())
	}
	c.management = front.ManagementHandler()
	handler := c.counted(front.Handler())
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	return handler, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func profiles(lifetimes map[string]time.Duration) map[string]ca.Profile {
	if len(lifetimes) == 0 {
		lifetimes = map[string]time.Duration{DefaultProfile: 90 * 24 * time.Hour}
	}
	all := make(map[string]ca.Profile, len(lifetimes))
	for name, lifetime := range lifetimes {
		all[name] = ca.Profile{Description: lifetime.String(), ValidityPeriod: uint64(lifetime / time.Second)}
	}
	return all
}

// setEnvironment sets variables and returns what puts them back.
func setEnvironment(values map[string]string) (restore func()) {
	before := map[string]*string{}
	for name, value := range values {
		if old, ok := os.LookupEnv(name); ok {
			before[name] = &old
		} else {
			before[name] = nil
		}
		os.Setenv(name, value)
	}
	return func() {
		for name, old := range before {
			if old == nil {
				os.Unsetenv(name)
			} else {
				os.Setenv(name, *old)
			}
		}
	}
}

// serve listens with a certificate that is its own root. httptest.Server is not
// used: its Close waits for handlers, and Pebble's may never come back.
func (c *CA) serve(address string, handler http.Handler) error {
	if address == "" {
		address = "127.0.0.1:0"
	}
	certificate, rootPEM, err := selfSigned()
	if err != nil {
		return fmt.Errorf("certificate of the test CA: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("test CA: %w", err)
	}
	c.roots = rootPEM
	c.url = "https://" + listener.Addr().String()
	c.server = &http.Server{
		Handler:           handler,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}},
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 30 * time.Second,
	}
	go func() {
		defer close(c.served)
		_ = c.server.ServeTLS(listener, "", "")
	}()
	return nil
}

func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "Test CA's own server"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// counted hands requests to Pebble one by one and counts those that got there.
func (c *CA) counted(next http.Handler) http.Handler {
	var one sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		if r.URL.Path == NewOrderPath {
			body, _ = io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		answer := &statusWriter{ResponseWriter: w}
		one.Lock()
		defer one.Unlock()
		next.ServeHTTP(answer, r)
		if id, ok := strings.CutPrefix(r.URL.Path, FinalizePath); ok && answer.status == http.StatusOK {
			c.awaitReplacement(id)
		}

		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		if answer.status == http.StatusCreated && r.URL.Path == NewOrderPath {
			c.orders[orderedNames(body)]++
		}
	})
}

// Pebble's log is the only place that says when an order is noted as a
// replacement.
var (
	replaces = regexp.MustCompile(`order "([^"]+)" is a replacement of`)
	replaced = regexp.MustCompile(`Order (\S+) has been marked as replaced`)
)

// listening reads Pebble's log on its way to out.
func (c *CA) listening(out io.Writer) io.Writer {
	if out == nil {
		out = io.Discard
	}
	return writerFunc(func(line []byte) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if found := replaces.FindSubmatch(line); found != nil {
			c.replacing[string(found[1])] = make(chan struct{})
		}
		if found := replaced.FindSubmatch(line); found != nil {
			close(c.replacing[string(found[1])])
		}
		return out.Write(line)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// awaitReplacement holds the answer to a finalized order until Pebble has noted
// what it replaces. Pebble does so after the answer and without a lock: the next
// order could come too soon, and the race detector complains.
func (c *CA) awaitReplacement(id string) {
	c.mu.Lock()
	noted := c.replacing[id]
	c.mu.Unlock()
	if noted == nil {
		return
	}
	select {
	case <-noted:
	case <-time.After(5 * time.Second): // it was not issued
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// orderedNames reads the names out of a signed newOrder request (RFC 8555 §7.4).
func orderedNames(body []byte) string {
	var signed struct{ Payload string }
	if json.Unmarshal(body, &signed) != nil {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return ""
	}
	var order struct{ Identifiers []struct{ Value string } }
	if json.Unmarshal(payload, &order) != nil {
		return ""
	}
	var names []string
	for _, identifier := range order.Identifiers {
		names = append(names, identifier.Value)
	}
	return nameSet(names)
}

func nameSet(names []string) string {
	return strings.Join(slices.Sorted(slices.Values(names)), ",")
}

// Directory is the URL of the ACME directory.
func (c *CA) Directory() string { return c.url + DirectoryPath }

// Roots is the PEM with what the CA's own HTTPS is verified by (ca_roots).
func (c *CA) Roots() []byte { return c.roots }

// IssuerRoots is the PEM of the roots that issued certificates chain to: the
// default one first, then those of the alternate chains.
func (c *CA) IssuerRoots() []byte { return bytes.Join(c.issuerRoots, nil) }

// IssuerRoot is the PEM of one root; 0 is the default chain's.
func (c *CA) IssuerRoot(i int) []byte { return c.issuerRoots[i] }

// HTTPPort is where the CA asks for HTTP-01 answers. Nobody listens there yet.
func (c *CA) HTTPPort() int { return c.httpPort }

// TLSPort is where the CA asks for TLS-ALPN-01 answers. Nobody listens there yet.
func (c *CA) TLSPort() int { return c.tlsPort }

// Orders is how many orders the CA accepted for exactly these names, in any
// sequence; without names, how many in all.
func (c *CA) Orders(names ...string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(names) > 0 {
		return c.orders[nameSet(names)]
	}
	all := 0
	for _, n := range c.orders {
		all += n
	}
	return all
}

// Requests is how many requests Pebble has answered.
func (c *CA) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// SetRenewalInfo makes the CA answer questions about the renewal of a
// certificate it issued (RFC 9773) with these bytes, whatever they are.
func (c *CA) SetRenewalInfo(certPEM []byte, response string) error {
	body, err := json.Marshal(map[string]string{"Certificate": string(certPEM), "ARIResponse": response})
	if err != nil {
		return fmt.Errorf("set renewal info: %w", err)
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("set renewal info: %w", err)
	}
	request.Header.Set("User-Agent", "certsitter-test")
	answer := httptest.NewRecorder()
	c.management.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		return fmt.Errorf("set renewal info: %d %s", answer.Code, answer.Body)
	}
	return nil
}

// Revoked says whether the CA holds this certificate for revoked.
func (c *CA) Revoked(certPEM []byte) (bool, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return false, fmt.Errorf("status of a certificate: no PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, fmt.Errorf("status of a certificate: %w", err)
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
		"/cert-status-by-serial/"+leaf.SerialNumber.Text(16), nil)
	if err != nil {
		return false, fmt.Errorf("status of a certificate: %w", err)
	}
	answer := httptest.NewRecorder()
	c.management.ServeHTTP(answer, request)
	var status struct{ Status string }
	if err := json.Unmarshal(answer.Body.Bytes(), &status); err != nil {
		return false, fmt.Errorf("status of a certificate: %d: %w", answer.Code, err)
	}
	return status.Status == "Revoked", nil
}

// Close ends the CA and its name server. It does not wait for requests.
func (c *CA) Close() {
	_ = c.server.Close()
	<-c.served
	c.closeDNS()
}

func (c *CA) closeDNS() {
	if c.DNS != nil {
		c.DNS.Close()
	}
}

// given are the ports of FreePort. Most are listened on only later: until then
// another look would find them free too.
var given sync.Map

// FreePort finds a TCP port of 127.0.0.1 where nobody listens. It is below those
// that Linux gives to whoever asks for any, so that it stays free until it is
// used, and no other call in this process gives it before thousands of others.
func FreePort() (int, error) {
	const first, count = 20000, 12000
	last := errors.New("only those that were given already")
	for try := range 100 {
		if try == 50 { // almost all were given, most of them long ago
			given.Clear()
		}
		port := first + mathrand.IntN(count)
		if _, already := given.LoadOrStore(port, true); already {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("free port: %w", last)
}
