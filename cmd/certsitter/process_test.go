package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

// testLimit bounds each of these tests. None comes near it unless it fails.
const testLimit = 60 * time.Second

// A program is a running certsitter of its own process.
type program struct {
	cmd    *exec.Cmd
	out    output.Buffer
	ended  chan struct{}
	tree   *os.File // ends when the program and all that it has started are gone
	cancel context.CancelFunc
}

// start runs certsitter. Each of its descendants inherits the end of a pipe, by
// which it can be seen when the last of them is gone.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testLimit)
	p := &program{cmd: exec.CommandContext(ctx, "certsitter", args...), ended: make(chan struct{}), cancel: cancel}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.tree = read
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = time.Second // its children may hold its output
	p.cmd.ExtraFiles = []*os.File{write}
	p.cmd.Env = append(os.Environ(), "TZ=UTC")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		cancel()
		<-p.ended
		_ = read.Close()
		if t.Failed() {
			t.Logf("certsitter %s says:\n%s", strings.Join(args, " "), p.out.String())
		}
	})
	return p
}

// exit waits for the program's end and gives its code.
func (p *program) exit(t *testing.T) int {
	t.Helper()
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// childless fails if something is still running a moment after the program's end.
func (p *program) childless(t *testing.T) {
	t.Helper()
	if err := p.tree.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.tree.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("something that certsitter has started is still running: %v", err)
	}
}

// eventually polls until done.
func (p *program) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testLimit / 2); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-p.ended:
			t.Fatalf("certsitter ended before: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A home is a folder with a configuration, a CA and a broker.
type home struct {
	dir    string
	ca     *pebble.CA
	broker *broker.Broker
}

func newHome(t *testing.T, o pebble.Options) *home {
	t.Helper()
	h := &home{dir: t.TempDir()}
	var err error
	if h.ca, err = pebble.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.ca.Close)
	if h.broker, err = broker.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.broker.Close)
	h.write(t, "roots.pem", string(append(h.ca.Roots(), h.ca.IssuerRoots()...)))
	if err := os.Mkdir(h.path("ssl"), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configure writes certsitter.yaml: what every test needs, and the rest.
func (h *home) configure(t *testing.T, rest string) string {
	t.Helper()
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "certsitter.yaml", fmt.Sprintf("ca: %s\nca_roots: roots.pem\nhttp_port: %d\nlisten: 127.0.0.1:%d\nstate_dir: state\nssl_dir: ssl\n%s",
		h.ca.Directory(), h.ca.HTTPPort(), port, rest))
	return h.path("certsitter.yaml")
}

// A gate holds requests until it is opened.
type gate struct {
	arrived chan struct{} // somebody waits
	open    chan struct{}
	once    sync.Once
}

func newGate(t *testing.T) *gate {
	g := &gate{arrived: make(chan struct{}, 100), open: make(chan struct{})}
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

func (g *gate) wait(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then does net/http notice a connection's end
	g.arrived <- struct{}{}
	select {
	case <-g.open:
	case <-r.Context().Done():
	}
}

// told waits until somebody waits at the gate.
func (g *gate) told(t *testing.T, p *program) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-p.ended:
		t.Fatal("certsitter ended early")
	case <-time.After(testLimit / 2):
		t.Fatal("nobody came to the gate")
	}
}

// stopLimit is the contract's for the end after SIGTERM.
const stopLimit = 5 * time.Second

// Whatever it is doing, SIGTERM ends the daemon soon and well: 0, "offline" on
// the broker, and no child left.
func TestTerminate(t *testing.T) {
	for name, scene := range map[string]func(*testing.T) (*home, *program){
		"while nothing happens":   atRest,
		"while an order hangs":    inOrder,
		"while a provider hangs":  inProvider,
		"while an action runs":    inAction,
		"while a message is sent": inMessage,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, p := scene(t)
			p.eventually(t, "the broker knows that it is online", func() bool {
				payload, _ := h.broker.Retained("certsitter/status")
				return payload == "online"
			})
			asked := time.Now()
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			code := p.exit(t)
			if took := time.Since(asked); took > stopLimit {
				t.Errorf("it ended after %v", took)
			}
			if code != 0 {
				t.Errorf("exit code %d", code)
			}
			p.childless(t)
			for end := time.Now().Add(testLimit / 2); ; time.Sleep(time.Millisecond) { // the broker takes its time
				payload, _ := h.broker.Retained("certsitter/status")
				if payload == "offline" {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the broker was told %q", payload)
				}
			}
			// What hung was no failure.
			if text, err := os.ReadFile(h.path("state/state.json")); err != nil || bytes.Contains(text, []byte(`"sentence"`)) {
				t.Errorf("state.json: %v %s", err, text)
			}
		})
	}
}

func atRest(t *testing.T) (*home, *program) {
	h := newHome(t, pebble.Options{})
	p := start(t, "run", "--config", h.configure(t, "certificates:\n- {name: home, domains: [home.example.org]}\nmqtt: {broker: "+h.broker.URL()+"}\n"))
	p.eventually(t, "the first certificate", func() bool {
		payload, _ := h.broker.Retained("certsitter/cert/home/state")
		return strings.Contains(payload, `"status":"ok"`)
	})
	return h, p
}

func inOrder(t *testing.T) (*home, *program) {
	g := newGate(t)
	h := newHome(t, pebble.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == pebble.NewOrderPath {
				g.wait(r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	p := start(t, "run", "--config", h.configure(t, "certificates:\n- {name: home, domains: [home.example.org]}\nmqtt: {broker: "+h.broker.URL()+"}\n"))
	g.told(t, p)
	return h, p
}

// A provider of lego's takes no context: it goes on whatever it is told.
func inProvider(t *testing.T) (*home, *program) {
	g := newGate(t)
	h := newHome(t, pebble.Options{})
	endpoint := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) { g.wait(r) })
	p := start(t, "run", "--config", h.configure(t, fmt.Sprintf(`certificates:
- name: home
  domains: [home.example.org]
  challenge: dns-01
  provider: httpreq
  env: ["HTTPREQ_ENDPOINT=http://%s"]
mqtt: {broker: %s}
`, endpoint, h.broker.URL())))
	g.told(t, p)
	return h, p
}

func inAction(t *testing.T) (*home, *program) {
	h := newHome(t, pebble.Options{})
	p := start(t, "run", "--config", h.configure(t, fmt.Sprintf(`certificates:
- name: home
  domains: [home.example.org]
  after: ["run echo begun > %s; trap '' TERM; sleep 600 & sleep 600"]
mqtt: {broker: %s}
`, h.path("begun"), h.broker.URL())))
	p.eventually(t, "the action runs", func() bool { _, err := os.Stat(h.path("begun")); return err == nil })
	return h, p
}

func inMessage(t *testing.T) (*home, *program) {
	g := newGate(t)
	h := newHome(t, pebble.Options{})
	pair, err := selfSigned(10, "nas.example.org")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "nas.pem", string(certificatePEM(pair)))
	inbox := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) { g.wait(r) })
	p := start(t, "run", "--config", h.configure(t, fmt.Sprintf(`watch:
- {name: nas, source: nas.pem}
notify: ["generic://%s/?disabletls=yes"]
mqtt: {broker: %s}
`, inbox, h.broker.URL())))
	g.told(t, p)
	return h, p
}

// serveHTTP serves until the test's end and gives host:port.
func serveHTTP(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.Listener.Addr().String()
}
