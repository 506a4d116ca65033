// Package page is what the outside sees of a running Certsitter by HTTP: the
// page, its small API, the stream of events, the metrics, and the control
// socket with its client for the command line.
//
// It reads immutable snapshots and passes commands on. It never decides when
// something is renewed, never probes anything, never shows a secret, and never
// takes an address, a path or a URL to work on from a request.
package page

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// Sitter is the loop as the page needs it. Commands that are not carried out
// return *sitter.Refused; one whose context ends returns that context's error.
type Sitter interface {
	Snapshot() *sitter.Snapshot // nil or without a Time until the first look is over
	// Events begins before it returns; the channel is closed when ctx or the
	// loop ends.
	Events(ctx context.Context) <-chan sitter.Event
	// Renew returns when the attempt has begun; the others when they are over.
	Renew(ctx context.Context, name string, o sitter.RenewOptions) error
	Check(ctx context.Context) error
	Revoke(ctx context.Context, name, reason string) error
	TestNotify(ctx context.Context, target string) ([]sitter.Delivery, error)
	// RestartHomeAssistant returns when the restart has begun.
	RestartHomeAssistant(ctx context.Context) error
}

// Config is what the page needs of the settings.
type Config struct {
	Listen   string            // host:port of Run; "" = no page
	Password string            // for commands from beyond this machine and the ingress; "" = none from there
	App      bool              // a Home Assistant app: only the ingress and loopback get in
	Names    []string          // more Host names under which the page may be asked for, "*.example.org" too
	Language string            // en | de, where the snapshot does not say
	Version  string            // of this program
	Log      func(line string) // complaints of net/http; nil = silence

	Downloads []Download // files for other programs, in the order of the page
}

// A Download is a text that is made for a person to take elsewhere, like a
// dashboard. It is served at files/NAME to whoever may see the page.
type Download struct {
	Name        string // of the file, and the last part of its address: letters, digits, . - and _
	Title       string // for people, in the configured language
	ContentType string // "" = text/plain; charset=utf-8
	Copy        bool   // offer to copy the text, too
	// Make makes the text anew for each request. Its error is a sentence for people.
	Make func(context.Context) ([]byte, error)
}

const (
	headerLimit   = 32 << 10 // bytes; Home Assistant's ingress adds cookies and forwarding headers of its own
	bodyLimit     = 16 << 10 // bytes; the longest request body is a reason for a revocation
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = time.Minute // commands and streams set their own
	idleTimeout   = 2 * time.Minute
	shutdownGrace = 3 * time.Second // for requests under way; streams end at once
	streamLimit   = 32              // open event streams per process
)

// Server answers on the page's address and on the control socket.
type Server struct {
	sitter    Sitter
	config    atomic.Pointer[Config]
	guesses   *guesses
	streams   chan struct{} // one slot per open event stream
	keepAlive time.Duration
	now       func() time.Time
	zone      *time.Location
}

// New makes a server and starts nothing.
func New(c Config, s Sitter) *Server {
	srv := &Server{
		sitter:    s,
		guesses:   newGuesses(),
		streams:   make(chan struct{}, streamLimit),
		keepAlive: 15 * time.Second, // below the 30 s after which common proxies cut a silent stream
		now:       time.Now,
		zone:      time.Local,
	}
	srv.config.Store(&c)
	return srv
}

// Reconfigure puts c in force for the next request, after a reload. A new
// address in it counts from the next Run only.
func (s *Server) Reconfigure(c Config) { s.config.Store(&c) }

// Run listens on the configured address until ctx ends; without an address it
// only waits. The error names the address and what to do.
func (s *Server) Run(ctx context.Context) error {
	address := s.config.Load().Listen
	if address == "" {
		<-ctx.Done()
		return nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("page: another program already uses %s; choose another address with listen: %w", address, err)
	}
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("page: this user may not use %s; choose a port above 1023 with listen: %w", address, err)
	}
	if err != nil {
		return fmt.Errorf("page: listen on %s: %w", address, err)
	}
	return s.Serve(ctx, ln)
}

// Serve answers on ln, which it closes, until ctx ends. Event streams end with
// ctx; other requests have a few seconds more.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.Handler(), false)
}

// Handler is the page, API and metrics with the access rules, for use without
// Serve (then streams end with their requests alone).
func (s *Server) Handler() http.Handler { return s.secured(s.routes()) }

func (s *Server) serve(ctx context.Context, ln net.Listener, h http.Handler, socket bool) error {
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx)) // they outlive ctx by the grace
	defer cancel()
	requests = context.WithValue(requests, listenerKey{}, listener{socket: socket, ending: ctx.Done()})
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return requests },
		MaxHeaderBytes:    headerLimit,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          log.New(lines(s.config.Load().Log), "", 0),
	}
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Serve(ln) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("page: serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	grace, done := context.WithTimeout(requests, shutdownGrace)
	defer done()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close() // what is left has had its grace
	}
	<-stopped
	return nil
}

// listener is what a request knows about where it came in.
type listener struct {
	socket bool            // the control socket: whoever may open it may do everything
	ending <-chan struct{} // closed when streams have to end
}

type listenerKey struct{}

func listenerOf(ctx context.Context) listener {
	l, _ := ctx.Value(listenerKey{}).(listener)
	return l
}

// lines turns a function into the writer that log.Logger wants.
type lines func(string)

func (l lines) Write(p []byte) (int, error) {
	if l != nil {
		l(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}
