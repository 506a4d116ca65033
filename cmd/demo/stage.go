package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/pebble"
)

// domain is the demo's home. The test CA's own name server knows it; nobody
// else does.
const domain = "home.demo.test"

// A stage is what stands around the daemon: a CA, a broker, and a server that
// uses the certificate.
type stage struct {
	folder string
	ca     *pebble.CA
	broker *broker.Broker
	server *http.Server
	served string       // host:port of the server
	page   net.Listener // the daemon's page
}

// lifetime is that of the demo's certificates: what Let's Encrypt gives today.
const lifetime = 90 * 24 * time.Hour

func newStage() (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.folder, err = os.MkdirTemp("", "certsitter-demo-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if s.ca, err = pebble.Start(pebble.Options{Profiles: map[string]time.Duration{"classic": lifetime}}); err != nil {
		return nil, fmt.Errorf("start test CA: %w", err)
	}
	if s.broker, err = startBroker(); err != nil {
		return nil, err
	}
	if s.page, err = listen("127.0.0.1:8099"); err != nil {
		return nil, fmt.Errorf("listen for the page: %w", err)
	}
	if err = s.serve(); err != nil {
		return nil, err
	}
	if err = s.write("ca-roots.pem", string(append(s.ca.Roots(), s.ca.IssuerRoots()...))); err != nil {
		return nil, err
	}
	return s, s.write("certsitter.yaml", s.settings())
}

func startBroker() (*broker.Broker, error) {
	b, err := broker.Start("127.0.0.1:1883")
	if err == nil {
		return b, nil
	}
	if b, err = broker.Start("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	return b, nil
}

// listen takes the address, or a free port where it is taken.
func listen(address string) (net.Listener, error) {
	if l, err := net.Listen("tcp", address); err == nil {
		return l, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// serve starts a server that reads its certificate anew for each connection, as
// openHAB's Jetty and many proxies do after a short while.
func (s *stage) serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the server: %w", err)
	}
	s.served = l.Addr().String()
	s.server = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "This is the demo's home.") }),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          nil,
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.path("fullchain.pem"), s.path("privkey.pem"))
			return &pair, err
		}},
	}
	s.server.ErrorLog = silent()
	go func() { _ = s.server.ServeTLS(l, "", "") }() // ends with Close
	return nil
}

func (s *stage) path(name string) string { return filepath.Join(s.folder, name) }

func (s *stage) write(name, text string) error {
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// settings is the demo's configuration, as anybody would write it.
func (s *stage) settings() string {
	return fmt.Sprintf(`# The demo's configuration: everything else is the default.
ca: %s
ca_roots: %s
http_port: %d
certificates:
  - name: home
    domains: [%s]
    certfile: %s
    keyfile: %s
    endpoints: ["%s@%s"]
mqtt:
  broker: %s
state_dir: %s
listen: %s
`, s.ca.Directory(), s.path("ca-roots.pem"), s.ca.HTTPPort(), domain, s.path("fullchain.pem"), s.path("privkey.pem"),
		domain, s.served, s.broker.URL(), s.path("state"), s.page.Addr())
}

// close ends everything. The folder stays, for those who want to look at it.
func (s *stage) close() {
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = s.server.Shutdown(ctx)
		cancel()
	}
	if s.page != nil {
		if err := s.page.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
	}
	if s.broker != nil {
		s.broker.Close()
	}
	if s.ca != nil {
		s.ca.Close()
	}
}
