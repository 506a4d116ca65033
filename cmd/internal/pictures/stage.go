package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/providers"
)

// A stage is what stands around the daemon: a folder, a CA that issues, and a
// server that uses one of the certificates.
type stage struct {
	folder string
	broker string
	ca     *pebble.CA
	page   net.Listener
	server *http.Server
	served string
}

func newStage(broker string, now time.Time) (s *stage, err error) {
	s = &stage{broker: broker}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.folder, err = os.MkdirTemp("", "certsitter-pictures-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if s.ca, err = pebble.Start(pebble.Options{Profiles: map[string]time.Duration{"classic": 90 * day}}); err != nil {
		return nil, fmt.Errorf("start test CA: %w", err)
	}
	if s.page, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen for the page: %w", err)
	}
	if err = s.certificates(now); err != nil {
		return nil, err
	}
	if err = s.serve(); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.path("certsitter.yaml"), []byte(s.settings()), 0o600)
}

func (s *stage) path(name string) string { return filepath.Join(s.folder, name) }

// certificates are of every kind: fine (ordered when the daemon runs), due,
// failing, and one of somebody else that has expired.
func (s *stage) certificates(now time.Time) error {
	old, err := newAuthority(now)
	if err != nil {
		return err
	}
	roots := append(append(s.ca.Roots(), s.ca.IssuerRoots()...), old.pem...)
	return errors.Join(
		os.WriteFile(s.path("roots.pem"), roots, 0o600),
		old.write(s.path("cloud.pem"), s.path("cloud.key"), "cloud.example.org", 90*day, 30*day-2*time.Hour, now),
		old.write(s.path("mail.pem"), s.path("mail.key"), "mail.example.org", 90*day, 15*day+time.Hour, now),
		old.write(s.path("nas.pem"), s.path("nas.key"), "nas.lan", 365*day, -2*day+time.Hour, now),
	)
}

// serve uses the first certificate, as a web server would.
func (s *stage) serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the server: %w", err)
	}
	s.served = l.Addr().String()
	s.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.path("home.pem"), s.path("home.key"))
			return &pair, err
		}},
	}
	go func() { _ = s.server.ServeTLS(l, "", "") }() // ends with close
	return nil
}

// settings wait for the night with what is due, so that it can be seen.
func (s *stage) settings() string {
	text := fmt.Sprintf("ca: %s\nca_roots: roots.pem\nhttp_port: %d\nlisten: %s\nstate_dir: state\nschedule: %q\nssl_dir: %s\n",
		s.ca.Directory(), s.ca.HTTPPort(), s.page.Addr(), night(), s.folder)
	text += "certificates:\n"
	for _, name := range []string{"home", "cloud", "mail"} {
		text += fmt.Sprintf("- name: %[1]s\n  domains: [%[1]s.example.org]\n  certfile: %[1]s.pem\n  keyfile: %[1]s.key\n", name)
		if name == "home" {
			text += fmt.Sprintf("  endpoints: [\"home.example.org@%s\"]\n", s.served)
		}
		if name == "mail" { // of a web server that is not there
			text += "  webroot: " + s.folder + "\n"
		}
	}
	return text + fmt.Sprintf("watch:\n- name: nas\n  source: nas.pem\n  ca_roots: roots.pem\nmqtt:\n  broker: %s\n", s.broker)
}

// night is a pass some hours from now.
func night() string { return fmt.Sprintf("30 %d * * *", (time.Now().Hour()+9)%24) }

// daemon is the real one on this stage.
func (s *stage) daemon() (*daemon.Daemon, error) {
	conf, err := settings.Load(s.path("certsitter.yaml"), settings.Environment{User: os.Geteuid(), Providers: providers.Table{}})
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	version := worker.BuildVersion("")
	return daemon.New(daemon.Options{
		Settings: conf,
		Worker:   worker.Client{Path: self, Args: []string{asWorker}, Version: version, Grace: time.Second},
		Version:  "0.1.0",
		Log:      zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
		Redactor: settings.NewRedactor(conf.Secrets()),
		Listener: s.page,
	})
}

func (s *stage) close() error {
	var err error
	if s.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err = cmp.Or(err, s.server.Shutdown(ctx))
		cancel()
	}
	if s.page != nil {
		_ = s.page.Close() // the daemon has closed it already
	}
	if s.ca != nil {
		s.ca.Close()
	}
	if s.folder != "" {
		err = errors.Join(err, os.RemoveAll(s.folder))
	}
	return err
}
