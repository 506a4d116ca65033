package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/mosquitto"
	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

// A victim is a daemon of a process of its own.
type victim struct {
	cmd   *exec.Cmd
	log   output.Buffer
	ended chan struct{}
	tree  *os.File // ends when the daemon and all that it has started are gone
}

// begin starts the daemon in a process of its own.
func (s *scene) begin(t *testing.T) *victim {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*waitLimit)
	v := &victim{cmd: exec.CommandContext(ctx, self, asDaemon, s.config), ended: make(chan struct{})}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	v.tree = read
	v.cmd.Stderr, v.cmd.WaitDelay = &v.log, time.Second
	v.cmd.Env = append(os.Environ(), noRest)
	v.cmd.ExtraFiles = []*os.File{write} // every descendant inherits it
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() { _ = v.cmd.Wait(); close(v.ended) }()
	t.Cleanup(func() {
		cancel()
		<-v.ended
		_ = read.Close()
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.dir, v.log.String())
		}
	})
	return v
}

// gone waits until nothing of the daemon is left.
func (v *victim) gone(t *testing.T) {
	t.Helper()
	<-v.ended
	if err := v.tree.SetReadDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.tree.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("something that the daemon has started goes on: %v", err)
	}
}

func (v *victim) kill() { _ = v.cmd.Process.Kill() }

// snapshot asks the daemon; nil while it does not answer.
func (s *scene) snapshot(t *testing.T) *sitter.Snapshot {
	t.Helper()
	control, err := page.Dial(s.path("state"))
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	snap, err := control.Snapshot(ctx)
	if err != nil {
		return nil
	}
	return snap
}

// home is what the daemon says of the certificate; empty while it does not answer.
func (s *scene) home(t *testing.T) sitter.Certificate {
	t.Helper()
	if snap := s.snapshot(t); snap != nil {
		for _, c := range snap.Certificates {
			if c.Name == "home" {
				return c
			}
		}
	}
	return sitter.Certificate{}
}

// eventually polls what the daemon says of home.
func (v *victim) eventually(t *testing.T, s *scene, what string, done func(sitter.Certificate) bool) sitter.Certificate {
	t.Helper()
	for end := time.Now().Add(waitLimit); ; {
		if c := s.home(t); c.Name != "" && done(c) {
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-v.ended:
			t.Fatalf("the daemon ended before: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// inUse: the certificate was renewed and is where it belongs.
func inUse(c sitter.Certificate) bool {
	return c.Status == "ok" && !c.Renewing && c.Deployment == "" && strings.HasPrefix(c.LastResult, "Renewed")
}

// recovers starts the daemon again after its death and holds it to what must be
// true then.
func (s *scene) recovers(t *testing.T, orders, attempts int) {
	t.Helper()
	v := s.begin(t)
	c := v.eventually(t, s, "the certificate is in use", inUse)
	if c.Failures != 0 {
		t.Errorf("a death counts as a failure: %+v", c)
	}
	leaf := s.pair(t, "ssl/home.pem", "ssl/home.key")
	for _, name := range c.Domains {
		if leaf.VerifyHostname(name) != nil {
			t.Errorf("%s is not in the certificate: %v", name, leaf.DNSNames)
		}
	}
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	v.gone(t)
	if code := v.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	wantOrders(t, s, orders)
	if got := s.attempts(t); got != attempts {
		t.Errorf("%d attempts are remembered, want %d", got, attempts)
	}
}

// attempts is how many beginnings of the last hour are remembered.
func (s *scene) attempts(t *testing.T) int {
	t.Helper()
	path := "state/state.json"
	if !fileExists(s.path(path)) {
		path += ".previous" // it died between two renames
	}
	var state struct{ Attempts []any }
	if err := json.Unmarshal([]byte(s.read(t, path)), &state); err != nil {
		t.Fatal(err)
	}
	return len(state.Attempts)
}

// lost: the daemon has kept neither an open order nor the version that came of it.
func (s *scene) lost(t *testing.T, version string) bool {
	t.Helper()
	text, err := os.ReadFile(s.path("state/certificates/home/pending/order.json"))
	placed := err == nil && bytes.Contains(text, []byte(pebble.OrderPath))
	return !placed && !fileExists(s.path("state/certificates/home/"+version))
}

// An executioner stands before the CA and kills the daemon at one request,
// before the CA sees it or before its answer leaves. From then on nobody gets
// through, until it is sent away.
type executioner struct {
	mu     sync.Mutex
	kill   func()
	at     int  // which request; 0 = none
	after  bool // the CA sees it
	count  int
	path   string   // of the request
	paths  []string // of all before
	closed bool
}

func (e *executioner) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		e.count++
		e.paths = append(e.paths, r.URL.Path)
		if e.count != e.at {
			e.mu.Unlock()
			next.ServeHTTP(w, r)
			return
		}
		e.closed, e.path = true, r.URL.Path
		e.mu.Unlock()
		if e.after {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		e.kill()
		panic(http.ErrAbortHandler)
	})
}

func (e *executioner) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed, e.at = false, 0
}

// done: the deed is done.
func (e *executioner) done() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *executioner) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

// kill -9 at each request of an order, before and after the CA has seen it: the
// next start takes up what there is. No order is lost, but one whose answer never
// came.
func TestKillAtEachRequest(t *testing.T) {
	t.Parallel()
	undisturbed := &executioner{}
	s := newScene(t, pebble.Options{Wrap: undisturbed.wrap})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	s.recovers(t, 1, 1)
	last := undisturbed.requests()
	if last < 10 {
		t.Fatalf("an order takes %d requests only", last)
	}
	// Four at a time are enough for two processors.
	slots := make(chan struct{}, 4)
	for at := 1; at <= last; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d after %v", at, after), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				started := make(chan *victim, 1)
				e := &executioner{at: at, after: after, kill: sync.OnceFunc(func() { (<-started).kill() })}
				s := newScene(t, pebble.Options{Wrap: e.wrap, AlwaysValid: true}) // the dead answer no challenge: see below
				s.configure(t, "certificates:\n"+certificate("home", ""))
				v := s.begin(t)
				started <- v
				for end := time.Now().Add(waitLimit); !e.done(); time.Sleep(time.Millisecond) {
					if c := s.home(t); inUse(c) { // the last requests come after the end, or not at all
						v.kill()
						break
					}
					if time.Now().After(end) {
						t.Fatalf("there were %d requests only", e.requests())
					}
				}
				v.gone(t)
				orders := 1
				if s.ca.Orders() == 1 && s.lost(t, "v0001") {
					if orders = 2; e.path != pebble.NewOrderPath || !after {
						t.Errorf("the order was lost at %s", e.path)
					}
				}
				attempts := 2
				if fileExists(s.path("state/certificates/home/v0001")) { // it died after the order
					attempts = 1
				}
				e.leave()
				s.recovers(t, orders, attempts)
			})
		}
	}
}

// A CA that validates while nobody answers gives the order up. The next start
// asks for it all the same, and orders anew within the same attempt.
func TestKillDuringValidation(t *testing.T) {
	t.Parallel()
	started := make(chan *victim, 1)
	var e *executioner
	dying := func(next http.Handler) http.Handler {
		inner := e.wrap(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, pebble.ChallengePath) {
				e.mu.Lock()
				if e.at < 0 {
					e.at = e.count + 1
				}
				e.mu.Unlock()
			}
			inner.ServeHTTP(w, r)
		})
	}
	e = &executioner{at: -1, after: true, kill: sync.OnceFunc(func() { (<-started).kill() })}
	s := newScene(t, pebble.Options{Wrap: dying})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	s.ca.DNS.SetAddresses("home.example.org") // it cannot be validated before the daemon is dead either
	v := s.begin(t)
	started <- v
	v.gone(t)
	s.ca.DNS.SetAddresses("home.example.org", "127.0.0.1")
	e.leave()
	seen := e.requests()
	s.recovers(t, 2, 2)
	e.mu.Lock()
	defer e.mu.Unlock()
	kept, placed := -1, -1
	for i, path := range e.paths[seen:] {
		if kept < 0 && strings.HasPrefix(path, pebble.OrderPath) {
			kept = i
		}
		if path == pebble.NewOrderPath {
			placed = i
		}
	}
	if kept < 0 || kept > placed {
		t.Errorf("the order that was there was not asked for before another one was placed: %v", e.paths[seen:])
	}
}

// A daemon that dies at each attempt spends four within the hour, not more.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	m := mosquitto.Start(t)
	r := read(t, m, "reader")
	var e executioner
	s := newScene(t, pebble.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { e.wrap(next).ServeHTTP(w, req) })
	}})
	s.configure(t, brokered(m, certificate("home", "")))
	begun := time.Now()
	for range 4 {
		started := make(chan *victim, 1)
		e.mu.Lock()
		e.closed, e.count, e.at, e.kill = false, 0, 1, sync.OnceFunc(func() { (<-started).kill() })
		e.mu.Unlock()
		v := s.begin(t)
		started <- v
		v.gone(t)
	}
	e.leave()
	before := e.requests()
	v := s.begin(t)
	c := v.eventually(t, s, "it waits", func(c sitter.Certificate) bool {
		return !c.NextRenewal.IsZero() && time.Until(c.NextRenewal) > 30*time.Minute
	})
	if c.NextRenewal.Before(begun.Add(time.Hour).Truncate(time.Second)) || c.NextRenewal.After(time.Now().Add(time.Hour)) || c.Renewing || c.Failures != 0 {
		t.Errorf("%+v", c)
	}
	// By hand neither, and it says until when.
	control, err := page.Dial(s.path("state"))
	if err != nil {
		t.Fatal(err)
	}
	err = control.Renew(t.Context(), "home", sitter.RenewOptions{Force: true})
	if refused, ok := errors.AsType[*sitter.Refused](err); !ok || refused.Code != "hourly_cap" || !strings.Contains(refused.Sentence, "four attempts within the hour") {
		t.Errorf("by hand: %v", err)
	}
	wantOrders(t, s, 0)
	if e.requests() != before {
		t.Errorf("the CA was asked %d times", e.requests()-before)
	}

	// The broker tells of the death.
	if payload := r.get("certsitter/status"); payload != "online" {
		v.eventually(t, s, "online", func(sitter.Certificate) bool { return r.get("certsitter/status") == "online" })
	}
	v.kill()
	v.gone(t)
	for end := time.Now().Add(waitLimit); r.get("certsitter/status") != "offline"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the broker does not tell of the death")
		}
	}
}
