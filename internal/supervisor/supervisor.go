// Package supervisor is a Home Assistant Supervisor for tests: it answers what an
// app may ask as the real one does, in the own process, and passes /core/api/ on
// to a Core. It starts no apps, keeps nothing on disk, and is never part of the
// daemon.
package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Token is the SUPERVISOR_TOKEN of the app unless the Setup has another one.
const Token = "0b1c2d3e-a-supervisor-token-of-a-test"

// A Setup is what the Supervisor knows of the app that asks it, and how well it
// is today. The zero value but for Slug is an app without ports, options, broker
// and Core.
type Setup struct {
	Token   string // "" = Token
	Slug    string // with the repository's hash: a0d7b954_certsitter
	Version string
	// Ports are the container's ports ("80/tcp") and the host's; 0 = off. nil =
	// the app has none.
	Ports map[string]int
	// Options are the user's options as a JSON object, with what the app's schema
	// does not know. nil = {}.
	Options json.RawMessage
	// TimeZone is the one of the system; "" = UTC.
	TimeZone string

	Broker *Broker // nil = no app offers one
	// NoServices: the app's manifest does not ask for mqtt.
	NoServices bool
	// NoHomeAssistantAPI: the app's manifest does not ask for homeassistant_api.
	NoHomeAssistantAPI bool
	// NotReady: the Supervisor itself is still starting.
	NotReady bool

	// Core answers /core/api/… as /api/…; it sees no token. nil = CoreURL.
	Core http.Handler
	// CoreURL is a real Core, asked with CoreToken. "" = Core is down.
	CoreURL, CoreToken string
	// CoreDown: Core is there, but does not run.
	CoreDown bool

	// Delay is how long each answer takes, but for a client that gives up sooner.
	Delay time.Duration
}

// A Broker is what the Mosquitto app has told the Supervisor of itself.
type Broker struct {
	Host               string
	Port               int
	TLS                bool
	Username, Password string
}

// A Request is one that was made, and what became of it.
type Request struct {
	Method, Path, Body string
	Status             int // of the answer; 0 = there is none yet
}

func (r Request) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s %s", r.Status, r.Method, r.Path, r.Body))
}

// A Supervisor is a running one.
type Supervisor struct {
	address string

	mu     sync.Mutex // guards the rest
	setup  Setup
	asked  []*Request
	server *http.Server // nil = it is away
	served chan struct{}
}

// Start listens on address, such as "127.0.0.1:0" for any free port, and serves
// until Close.
func Start(address string, setup Setup) (*Supervisor, error) {
	s := &Supervisor{address: address, setup: setup}
	if err := s.Return(); err != nil {
		return nil, err
	}
	return s, nil
}

// Address is the host:port on which it listens.
func (s *Supervisor) Address() string { return s.address }

// URL is what stands for http://supervisor.
func (s *Supervisor) URL() string { return "http://" + s.address }

// Set changes what the Supervisor knows, for all later requests.
func (s *Supervisor) Set(change func(*Setup)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.setup)
}

// Requests are all that were made, in their order.
func (s *Supervisor) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, 0, len(s.asked))
	for _, r := range s.asked {
		all = append(all, *r)
	}
	return all
}

// Leave ends all connections and refuses new ones, as during an update of the
// Supervisor, until Return.
func (s *Supervisor) Leave() {
	s.mu.Lock()
	server, served := s.server, s.served
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	_ = server.Close() // of its listener's close, which is what was wanted
	<-served
}

// Return listens again at the same address. One that is there already stays.
func (s *Supervisor) Return() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return fmt.Errorf("listen as the Supervisor: %w", err)
	}
	s.address = listener.Addr().String()
	server, served := &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: log.New(io.Discard, "", 0)}, make(chan struct{})
	s.server, s.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(listener) // always ErrServerClosed
	}()
	return nil
}

// Close ends it.
func (s *Supervisor) Close() { s.Leave() }

const maxBody = 1 << 20

func (s *Supervisor) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "413: Request Entity Too Large", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	setup, noted := s.note(r, body)
	if !wait(r.Context(), setup.Delay) {
		return
	}
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	setup.answer(seen, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	noted.Status = seen.status
}

func (s *Supervisor) note(r *http.Request, body []byte) (Setup, *Request) {
	noted := &Request{Method: r.Method, Path: r.URL.Path, Body: strings.TrimSpace(string(body))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, noted)
	return s.setup, noted
}

// wait tells whether the client is still there after d.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
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

// Unwrap is for http.ResponseController, by which a proxy takes a connection
// over.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Core's own paths about the Supervisor are for nobody. The others below
// /core/api/ are looked at by the proxy itself, see supervisor/api/proxy.py and
// supervisor/api/middleware/security.py of home-assistant/supervisor.
var (
	forbidden = regexp.MustCompile(`^/core/api/hassio(/|_)`)
	// unasked are the paths that any app may ask, whatever its role.
	unasked = regexp.MustCompile(`^(/addons/self/(info|options/config|restart|stop|options)|/info|/services.*)$`)
)

func (s Setup) answer(w http.ResponseWriter, r *http.Request) {
	known := bearer(r) == s.token()
	switch path := r.URL.Path; {
	case s.NotReady:
		refuse(w, http.StatusBadRequest, "System is not ready with state: setup")
	case forbidden.MatchString(path):
		plain(w, http.StatusForbidden)
	case strings.HasPrefix(path, "/core/api/"):
		s.core(w, r, known)
	case path == "/supervisor/ping":
		reply(w, map[string]any{})
	case bearer(r) == "":
		plain(w, http.StatusUnauthorized)
	case !known || !unasked.MatchString(path):
		plain(w, http.StatusForbidden) // an unknown token as well as a known one without the right
	case path == "/addons/self/info":
		reply(w, s.self())
	case path == "/addons/self/options/config":
		reply(w, s.options())
	case path == "/info":
		reply(w, map[string]any{"supervisor": "2026.08.0", "homeassistant": "2026.8.0", "machine": "raspberrypi4-64", "arch": "aarch64", "timezone": s.timeZone()})
	case path == "/services/mqtt":
		s.mqtt(w)
	default:
		plain(w, http.StatusNotFound)
	}
}

func (s Setup) token() string {
	if s.Token == "" {
		return Token
	}
	return s.Token
}

func (s Setup) timeZone() string {
	if s.TimeZone == "" {
		return "UTC"
	}
	return s.TimeZone
}

func (s Setup) options() json.RawMessage {
	if s.Options == nil {
		return json.RawMessage("{}")
	}
	return s.Options
}

// bearer is the token of a request. The Supervisor takes the last word, and the
// header of its past as well.
func bearer(r *http.Request) string {
	if words := strings.Fields(r.Header.Get("Authorization")); len(words) > 0 {
		return words[len(words)-1]
	}
	return r.Header.Get("X-Supervisor-Token")
}

// self is the part of /addons/self/info that says something of one app rather
// than of its manifest.
func (s Setup) self() map[string]any {
	var network map[string]*int
	for _, port := range slices.Sorted(maps.Keys(s.Ports)) {
		if network == nil {
			network = map[string]*int{}
		}
		network[port] = nil
		if host := s.Ports[port]; host != 0 {
			network[port] = &host
		}
	}
	return map[string]any{
		"name": "Certsitter", "slug": s.Slug, "hostname": strings.ReplaceAll(s.Slug, "_", "-"), "version": s.Version, "state": "started",
		"network": network, "options": s.options(), "ingress": true, "ingress_entry": "/api/hassio_ingress/" + IngressToken,
		"ingress_url": "/api/hassio_ingress/" + IngressToken + "/", "ingress_port": 8099, "homeassistant_api": !s.NoHomeAssistantAPI,
		"hassio_api": false, "hassio_role": "default", "watchdog": false, "ip_address": "172.30.33.5",
	}
}

// IngressToken is the last element of the path at which Core serves the app's
// page.
const IngressToken = "aBcDeF0123456789"

func (s Setup) mqtt(w http.ResponseWriter) {
	switch b := s.Broker; {
	case s.NoServices:
		refuse(w, http.StatusForbidden, "No access to mqtt service!")
	case b == nil:
		refuse(w, http.StatusBadRequest, "Service not enabled")
	default:
		reply(w, map[string]any{
			"addon": "core_mosquitto", "host": b.Host, "port": b.Port, "ssl": b.TLS, "username": b.Username, "password": b.Password, "protocol": "3.1.1",
		})
	}
}

// core is the way to Core. Without the right to it an app is told the same as
// with a wrong token.
func (s Setup) core(w http.ResponseWriter, r *http.Request, known bool) {
	switch {
	case !known || s.NoHomeAssistantAPI:
		plain(w, http.StatusUnauthorized)
	case s.CoreDown || s.Core == nil && s.CoreURL == "":
		plain(w, http.StatusBadGateway)
	case s.Core != nil:
		inner := r.Clone(r.Context())
		inner.Header.Del("Authorization")
		http.StripPrefix("/core", s.Core).ServeHTTP(w, inner)
	default:
		s.proxy(w, r)
	}
}

// proxy passes on to the real Core. A Core that is away, or that goes away under
// the request, is a bad gateway.
func (s Setup) proxy(w http.ResponseWriter, r *http.Request) {
	target, err := url.Parse(s.CoreURL)
	if err != nil {
		plain(w, http.StatusBadGateway)
		return
	}
	// A connection of its own for each request: what was open before a restart of
	// Core is dead after it.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: untrusting()}
	defer transport.CloseIdleConnections()
	(&httputil.ReverseProxy{
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.URL.Path = strings.TrimPrefix(p.In.URL.Path, "/core")
			p.Out.URL.RawPath = ""
			p.Out.Header.Set("Authorization", "Bearer "+s.CoreToken)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { plain(w, http.StatusBadGateway) },
	}).ServeHTTP(w, r)
}

// reply sends data in the envelope of the Supervisor's API.
func reply(w http.ResponseWriter, data any) {
	write(w, http.StatusOK, map[string]any{"result": "ok", "data": data})
}

func refuse(w http.ResponseWriter, status int, message string) {
	write(w, status, map[string]any{"result": "error", "message": message})
}

func write(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil { // Options are the test's
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client may be gone
}

// plain is an answer of the web server below the API: a word, no envelope.
func plain(w http.ResponseWriter, status int) {
	http.Error(w, fmt.Sprintf("%d: %s", status, http.StatusText(status)), status)
}

// ErrNoRequest: WaitFor has seen none.
var ErrNoRequest = errors.New("no such request was made")

// WaitFor returns the first request that is wanted and has been answered. The
// error is ErrNoRequest, with what was asked instead, when ctx ends before.
func (s *Supervisor) WaitFor(ctx context.Context, wanted func(Request) bool) (Request, error) {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		all := s.Requests()
		for _, r := range all {
			if r.Status != 0 && wanted(r) {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return Request{}, fmt.Errorf("%w, only %v", ErrNoRequest, all)
		case <-again.C:
		}
	}
}
