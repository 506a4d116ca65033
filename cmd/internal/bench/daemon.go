package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/pebble"
)

// certificateCount is how many certificates the daemon has.
const certificateCount = 20

// An issuer is where the test CA is.
type issuer struct {
	Directory string
	Roots     []byte // PEM: of its HTTPS and of what it issues
	HTTPPort  int    // where it asks for answers
}

// playCA is a fresh test CA: one that was used by many orders at once may have
// locked itself up.
func playCA() error {
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		return err
	}
	defer ca.Close()
	return announce(issuer{ca.Directory(), slices.Concat(ca.Roots(), ca.IssuerRoots()), ca.HTTPPort()})
}

// A home is a machine with the daemon: its folder, its broker and its CA.
type home struct {
	folder string
	page   string // host:port
	ca     issuer
	broker *broker.Broker
	part   *part // the CA
}

// newHome makes a folder with a configuration, and starts broker and CA.
func (b *bench) newHome(ctx context.Context) (_ *home, err error) {
	h := &home{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.folder, err = os.MkdirTemp(b.folder, "home-"); err != nil {
		return nil, err
	}
	if h.broker, err = broker.Start("127.0.0.1:0"); err != nil {
		return nil, err
	}
	if h.part, err = startPart(ctx, &h.ca, asCA); err != nil {
		return nil, err
	}
	port, err := pebble.FreePort()
	if err != nil {
		return nil, err
	}
	h.page = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	return h, h.configure(nil)
}

func (h *home) close() {
	if h.part != nil {
		h.part.end()
	}
	if h.broker != nil {
		h.broker.Close()
	}
}

func (h *home) path(name string) string { return filepath.Join(h.folder, name) }

func certificateName(i int) string { return fmt.Sprintf("c%d", i) }
func domain(i int) string          { return fmt.Sprintf("c%d.bench.test", i) }

// configure writes the configuration. more are roots that are believed besides
// the CA's.
func (h *home) configure(more []byte) error {
	var text strings.Builder
	fmt.Fprintf(&text, "ca: %s\nca_roots: %s\nhttp_port: %d\nstate_dir: %s\nlisten: %s\nmqtt:\n  broker: %s\ncertificates:\n",
		h.ca.Directory, h.path("roots.pem"), h.ca.HTTPPort, h.path("state"), h.page, h.broker.URL())
	for i := range certificateCount {
		name := certificateName(i)
		fmt.Fprintf(&text, "  - {name: %s, domains: [%s], certfile: %s, keyfile: %s}\n", name, domain(i), h.path(name+".crt"), h.path(name+".key"))
	}
	return errors.Join(
		os.WriteFile(h.path("roots.pem"), slices.Concat(h.ca.Roots, more), 0o600),
		os.WriteFile(h.path("certsitter.yaml"), []byte(text.String()), 0o600),
	)
}

// install puts pairs of another CA in place that the daemon adopts: with ten
// days of ninety left they are due at once.
func (h *home) install() error {
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	for i := range certificateCount {
		pair, err := authority.issue(80*day, 10*day, domain(i))
		if err != nil {
			return err
		}
		key, err := keyPEM(pair)
		if err != nil {
			return err
		}
		err = errors.Join(os.WriteFile(h.path(certificateName(i)+".crt"), chainPEM(pair), 0o600),
			os.WriteFile(h.path(certificateName(i)+".key"), key, 0o600))
		if err != nil {
			return err
		}
	}
	return h.configure(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.root.Raw}))
}

// watch gives the names of certificates of which something comes on a topic with
// a payload that holds the wanted text. What was retained before does not count.
func (h *home) watch(topic, wanted string) (<-chan string, error) {
	seen := make(chan string, 100*certificateCount)
	err := h.broker.Subscribe(topic, func(topic string, payload []byte, retained bool) {
		if retained || !bytes.Contains(payload, []byte(wanted)) {
			return
		}
		select {
		case seen <- nameIn(topic):
		default: // nobody waits any more
		}
	})
	return seen, err
}

// nameIn is the certificate's name in a topic.
func nameIn(topic string) string {
	parts := strings.Split(topic, "/")
	return parts[len(parts)-2]
}

// What the broker shows of a certificate.
const (
	eventTopic, renewedEvent = "certsitter/cert/+/event", `"renewed"`
	stateTopic, okState      = "certsitter/cert/+/state", `"ok"`
)

// A running daemon.
type running struct {
	cmd     *exec.Cmd
	home    *home
	log     string // the file with what it says
	started time.Time
	ended   chan struct{}
}

// daemon starts one.
func (b *bench) daemon(h *home) (*running, error) {
	out, err := os.CreateTemp(h.folder, "log-")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(b.programs, "certsitter"), "run", "--config", h.path("certsitter.yaml"))
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, h.folder
	r := &running{cmd: cmd, home: h, log: out.Name(), started: time.Now(), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.ended)
		_ = cmd.Wait() // its state is what counts
	}()
	return r, nil
}

// endLimit is longer than a daemon takes that ends its children, and
// statusLimit than a message to the broker.
const (
	endLimit    = 15 * time.Second
	statusLimit = 2 * time.Second
)

// end asks the daemon to end, and tells what it and its children have spent. It
// does so between the daemon's first and last word to the broker, so that what
// comes afterwards is the next daemon's.
func (r *running) end() (time.Duration, error) {
	r.home.awaitStatus("online")
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	defer r.home.awaitStatus("offline")
	select {
	case <-r.ended:
	case <-time.After(endLimit):
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
	if !r.cmd.ProcessState.Success() {
		return 0, fmt.Errorf("the daemon ended with %v: %s", r.cmd.ProcessState, r.lastWords())
	}
	return spent(r.cmd.ProcessState), nil
}

// awaitStatus waits until the broker has heard that from the daemon, or for a
// while: then there is nothing more on its way either.
func (h *home) awaitStatus(want string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(statusLimit); ; {
		if status, _ := h.broker.Retained("certsitter/status"); status == want {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			return
		}
	}
}

// lastWords are the end of the daemon's log.
func (r *running) lastWords() string {
	data, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// eventLimit is far more than twenty renewals take.
const eventLimit = time.Minute

// await waits until the broker has seen something of every certificate.
func (r *running) await(ctx context.Context, seen <-chan string, want int, what string) error {
	names := map[string]bool{}
	late := time.After(eventLimit)
	for len(names) < want {
		select {
		case name := <-seen:
			names[name] = true
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ended:
			return fmt.Errorf("the daemon ended by itself: %s", r.lastWords())
		case <-late:
			return fmt.Errorf("%s of %d certificates only within %v: %s", what, len(names), eventLimit, r.lastWords())
		}
	}
	return nil
}
