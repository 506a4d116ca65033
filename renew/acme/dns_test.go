package acme

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/providers/dns/exec"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

func dnsOrder(t testing.TB, ca *pebble.CA, names ...string) renew.OrderRequest {
	t.Helper()
	request := orderOf(t, ca, renew.DNS01, names...)
	request.Provider, request.Resolvers = "httpreq", []string{ca.DNS.Address()}
	return request
}

// Wildcard and apex share a name: both records are there at the same time.
func TestDNS01WildcardAndApex(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = w.provider
	issued, err := issue(deadline(t), dnsOrder(t, ca, "example.org", "*.example.org", "www.example.net"), hooks, quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "example.org", "*.example.org", "www.example.net")
	if most, now := w.counts(); most != 3 || now != 0 {
		t.Errorf("%d records at the same time and %d left; want 3 and none", most, now)
	}
}

// A provider that holds one record is used for one name after another.
func TestDNS01SequentialProvider(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CERTSITTER_TEST_EXEC", w.endpoint)
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = func(string) (challenge.Provider, error) {
		configuration := exec.NewDefaultConfig()
		configuration.Program = program
		configuration.PollingInterval = 20 * time.Millisecond
		configuration.SequenceInterval = 10 * time.Millisecond
		return exec.NewDNSProviderConfig(configuration)
	}
	issued, err := issue(deadline(t), dnsOrder(t, ca, "example.org", "*.example.org"), hooks, quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "example.org", "*.example.org")
	if most, now := w.counts(); most != 1 || now != 0 {
		t.Errorf("%d records at the same time and %d left; want 1 and none", most, now)
	}
}

func TestDNS01FollowsCNAME(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	ca.DNS.SetCNAME("_acme-challenge.home.example.org", "abc.auth.example.net")
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = w.provider
	issued, err := issue(deadline(t), dnsOrder(t, ca, "home.example.org"), hooks, quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "home.example.org")
	if ca.DNS.Asked("abc.auth.example.net")+ca.DNS.Asked("_acme-challenge.home.example.org") < 2 {
		t.Error("nobody looked whether the record can be seen")
	}
}

func TestDNS01RefusedByTheProvider(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	w.fail = func(path string) bool { return path == "/present" }
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = w.provider
	request := dnsOrder(t, ca, "home.example.org")
	request.Env = map[string]string{"HTTPREQ_PASSWORD": "s3cret-t0ken", "HTTPREQ_PROPAGATION_TIMEOUT": "401"}
	_, err := issue(deadline(t), request, hooks, quick())
	fault := faultOf(t, err)
	if got := causeOf(t, err); got != renew.CauseDNSCredentials {
		t.Errorf("cause %s: %v", got, err)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the password is in the error: %v", err)
	}
	if fault.OrderGone || ca.Orders() != 1 {
		t.Errorf("the order is still open: %+v", fault)
	}
	// With the password corrected it is taken up again.
	w.mu.Lock()
	w.fail = func(string) bool { return false }
	w.mu.Unlock()
	request.OrderURL, request.AccountURL = known.order, known.account
	if _, err := issue(deadline(t), request, hooks, quick()); err != nil {
		t.Fatal(err)
	}
	if ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
}

// The CA is not asked about a record that cannot be seen.
func TestDNS01NotPropagated(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = func(code string) (challenge.Provider, error) {
		p, err := w.provider(code)
		return impatient{p}, err
	}
	request := dnsOrder(t, ca, "home.example.org")
	request.Resolvers = []string{startDNS(t).Address()}
	_, err := issue(deadline(t), request, hooks, quick())
	if got := causeOf(t, err); got != renew.CausePropagation {
		t.Errorf("cause %s: %v", got, err)
	}
	if _, now := w.counts(); now != 0 {
		t.Errorf("%d records left", now)
	}
	if faultOf(t, err).OrderGone {
		t.Error("the order is still open")
	}
}

type impatient struct{ challenge.Provider }

func (impatient) Timeout() (timeout, interval time.Duration) {
	return 3 * time.Second, 10 * time.Millisecond
}

func TestDNS01ResolverThatCannotBeReached(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = w.provider
	request := dnsOrder(t, ca, "home.example.org")
	request.Resolvers = []string{deaf(t), ca.DNS.Address()}
	if _, err := issue(deadline(t), request, hooks, quick()); err != nil {
		t.Fatal(err)
	}
}

// deaf is a port where nobody listens.
func deaf(t *testing.T) string {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	return packets.LocalAddr().String()
}

func TestNoNameServerAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got := answering(ctx, []string{deaf(t), deaf(t)}); len(got) != 0 {
		t.Errorf("%q answer", got)
	}
	s := &session{ctx: ctx, pace: quick(), dns: &dnsRecords{resolvers: &resolvers{}, provider: impatient{}}}
	open := []authorization{{name: "home.example.org"}}
	if seen, unseen := s.propagated(open); len(seen) != 1 || len(unseen) != 0 {
		t.Errorf("after the blind wait: %v, %v", seen, unseen)
	}
}

// The zone's own servers are asked, and each must have the record.
func TestAuthoritiesMustAllHaveTheRecord(t *testing.T) {
	primary, secondary := startDNS(t), startDNS(t)
	_, port, _ := net.SplitHostPort(primary.Address())
	primary.SetZone("example.org", "ns1.example.org", "ns2.example.org")
	const name = "_acme-challenge.home.example.org."
	r := &resolvers{addresses: []string{primary.Address()}, answering: true, port: port}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	authorities := r.authorities(ctx, name)
	if len(authorities) != 2 || authorities[0] != primary.Address() {
		t.Fatalf("authorities are %q", authorities)
	}
	authorities[1] = secondary.Address()
	primary.AddTXT(name, "value")
	if err := r.look(ctx, authorities, name, "value"); err == nil || !strings.Contains(err.Error(), secondary.Address()) {
		t.Errorf("one server lacks the record, but: %v", err)
	}
	secondary.AddTXT(name, "value")
	if err := r.look(ctx, authorities, name, "value"); err != nil {
		t.Error(err)
	}
	// A server that does not answer does not count; without any, the resolvers do.
	if err := r.look(ctx, []string{deaf(t), secondary.Address()}, name, "value"); err != nil {
		t.Error(err)
	}
	if err := r.look(ctx, []string{deaf(t)}, name, "value"); err != nil {
		t.Error(err)
	}
	if err := r.look(ctx, []string{deaf(t)}, name, "other"); err == nil {
		t.Error("a record that nobody has was seen")
	}
}

func startDNS(t *testing.T) *pebble.DNS {
	t.Helper()
	d, err := pebble.StartDNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestBrokenZoneIsAnError(t *testing.T) {
	d := startDNS(t)
	d.Break("_acme-challenge.home.example.org")
	r := &resolvers{addresses: []string{d.Address()}, answering: true}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := r.look(ctx, nil, "_acme-challenge.home.example.org.", "value")
	if err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("got %v", err)
	}
}

// A context that ends frees the caller from a server that never answers.
func TestExchangeEndsWithItsContext(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _, _ = packets.ReadFrom(make([]byte, 512)) // the question is there: now
		cancel()
	}()
	ended := make(chan error, 1)
	go func() {
		_, err := exchange(ctx, packets.LocalAddr().String(), "example.org.", 16, true)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an answer from nobody")
		}
	case <-time.After(dnsTimeout - time.Second):
		t.Fatal("does not end")
	}
}

// hanging is a provider whose service does not answer until it is released.
type hanging struct {
	began, release chan struct{}
	mu             sync.Mutex
	calls          []string
}

func (h *hanging) Present(string, string, string) error {
	close(h.began)
	<-h.release
	h.note("present")
	return nil
}

func (h *hanging) CleanUp(string, string, string) error { h.note("clean up"); return nil }

func (h *hanging) note(call string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, call)
}

// A record that is being written while the order is cancelled is removed.
func TestCancelWhileTheProviderWrites(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	h := &hanging{began: make(chan struct{}), release: make(chan struct{})}
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = func(string) (challenge.Provider, error) { return h, nil }
	ctx, cancel := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	go func() {
		_, err := issue(ctx, dnsOrder(t, ca, "home.example.org"), hooks, quick())
		ended <- err
	}()
	<-h.began
	cancel()
	close(h.release)
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.Join(h.calls, ",") != "present,clean up" {
		t.Errorf("calls %q", h.calls)
	}
}

// A provider that hangs for good is given up.
func TestProviderThatHangs(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	h := &hanging{began: make(chan struct{}), release: make(chan struct{})}
	t.Cleanup(func() { close(h.release) })
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = func(string) (challenge.Provider, error) { return h, nil }
	ctx, cancel := context.WithCancel(deadline(t))
	p := quick()
	p.cleanUp = 50 * time.Millisecond
	ended := make(chan error, 1)
	go func() {
		_, err := issue(ctx, dnsOrder(t, ca, "home.example.org"), hooks, p)
		ended <- err
	}()
	<-h.began
	cancel()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
	}
}

type panicking struct{}

func (panicking) Present(string, string, string) error { panic("wedos token") }
func (panicking) CleanUp(string, string, string) error { return nil }

func TestProviderThatPanics(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = func(string) (challenge.Provider, error) { return panicking{}, nil }
	_, err := issue(deadline(t), dnsOrder(t, ca, "home.example.org"), hooks, quick())
	if got := causeOf(t, err); got != renew.CauseProvider {
		t.Errorf("cause %s: %v", got, err)
	}
}

// One name whose record cannot be written does not waste the others.
func TestDNS01OneOfTwo(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	w := startWriter(t, ca)
	writes := 0
	w.fail = func(path string) bool {
		if path != "/present" {
			return false
		}
		writes++
		return writes == 1
	}
	var known remembered
	hooks := known.hooks(nil)
	hooks.Provider = w.provider
	request := dnsOrder(t, ca, "a.example.org", "b.example.org")
	_, err := issue(deadline(t), request, hooks, quick())
	if fault := faultOf(t, err); len(fault.Problems) != 1 || fault.OrderGone {
		t.Fatalf("%+v", fault)
	}
	request.OrderURL, request.AccountURL = known.order, known.account
	if _, err := issue(deadline(t), request, hooks, quick()); err != nil {
		t.Fatal(err)
	}
	if ca.Orders() != 1 || writes != 3 {
		t.Errorf("%d orders, %d records written; the second name was valid already", ca.Orders(), writes)
	}
}

// counting is a provider that counts.
type counting struct{ presents, cleanUps int }

func (c *counting) Present(string, string, string) error { c.presents++; return nil }
func (c *counting) CleanUp(string, string, string) error { c.cleanUps++; return nil }

// Some CAs give wildcard and apex the same token, so the same record.
func TestSharedRecordIsWrittenOnce(t *testing.T) {
	p := &counting{}
	s := &session{ctx: deadline(t), pace: quick(), dns: &dnsRecords{provider: p, calls: startCalls(), resolvers: &resolvers{}}}
	defer s.dns.calls.end()
	for _, name := range []string{"example.org", "*.example.org"} {
		if err := s.write(authorization{name: name, identifier: "example.org", keyAuthorization: "same"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.write(authorization{name: "www.example.org", identifier: "www.example.org", keyAuthorization: "other"}); err != nil {
		t.Fatal(err)
	}
	s.removeRecords()
	if p.presents != 2 || p.cleanUps != 2 {
		t.Errorf("%d written and %d removed, want 2 and 2", p.presents, p.cleanUps)
	}
}
