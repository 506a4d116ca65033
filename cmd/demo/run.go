package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
)

// onceLimit is far more than the demo takes: seconds.
const onceLimit = 2 * time.Minute

func run(ctx context.Context, once bool, out io.Writer) error {
	s, err := newStage()
	if err != nil {
		return err
	}
	defer s.close()
	d, err := s.daemon()
	if err != nil {
		return err
	}
	say := &narrator{out: out, start: time.Now()}
	fmt.Fprintf(out, "page: http://%s\nbroker: %s\nfiles: %s\nca: %s\n", s.page.Addr(), s.broker.URL(), s.folder, s.ca.Directory())
	say.line("The test CA, the broker and a server at https://%s are up. Certsitter starts.", s.served)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan sitter.Event, 64)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for e := range d.Sitter.Events(ctx) {
			say.event(e)
			select {
			case seen <- e:
			default: // nobody waits for it any more
			}
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	if once {
		err = s.play(ctx, d, say, seen)
	} else {
		err = s.stay(ctx, say, seen)
	}
	stop()
	err = errors.Join(err, <-ended)
	<-told
	say.line("Stopped. What is left is in %s.", s.folder)
	return err
}

// daemon is the real one on this stage.
func (s *stage) daemon() (*daemon.Daemon, error) {
	conf, err := settings.Load(s.path("certsitter.yaml"), settings.Environment{})
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
		Version:  version,
		Log:      zerolog.Nop(),
		Redactor: settings.NewRedactor(conf.Secrets()),
		Listener: s.page,
	})
}

// stay shows where to press and waits for the end.
func (s *stage) stay(ctx context.Context, say *narrator, seen <-chan sitter.Event) error {
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-seen:
			if e.Kind == "deployed" && !told {
				told = true
				say.line("Press \"Renew now\" on the page, or: mosquitto_pub -p %s -t certsitter/cert/home/renew/set -m PRESS", port(s.broker.Address()))
				say.line("Ctrl-C ends the demo.")
			}
		}
	}
}

// play is the demo without a person: it presses the button itself.
func (s *stage) play(ctx context.Context, d *daemon.Daemon, say *narrator, seen <-chan sitter.Event) error {
	ctx, cancel := context.WithTimeoutCause(ctx, onceLimit, fmt.Errorf("not done within %v", onceLimit))
	defer cancel()
	if err := await(ctx, seen, "deployed"); err != nil {
		return fmt.Errorf("first certificate: %w", err)
	}
	first, err := s.published(ctx, d, say, "")
	if err != nil {
		return err
	}
	say.line("Now \"Renew now\" is pressed, as Home Assistant would.")
	if err := s.broker.Publish("certsitter/cert/home/renew/set", []byte("PRESS"), false); err != nil {
		return err
	}
	if err := await(ctx, seen, "deployed"); err != nil {
		return fmt.Errorf("second certificate: %w", err)
	}
	_, err = s.published(ctx, d, say, first)
	return err
}

// await waits for an event of that kind.
func await(ctx context.Context, seen <-chan sitter.Event, kind string) error {
	for {
		select {
		case e := <-seen:
			switch e.Kind {
			case kind:
				return nil
			case "renewal_failed", "deploy_failed", "refused":
				return errors.New(e.Text)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// published waits until the broker holds a state with another certificate than
// the one before, and says so.
func (s *stage) published(ctx context.Context, d *daemon.Daemon, say *narrator, before string) (string, error) {
	const topic = "certsitter/cert/home/state"
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		payload, there := s.broker.Retained(topic)
		var state struct {
			Fingerprint string `json:"fingerprint"`
			DaysLeft    any    `json:"days_left"`
			NotDeployed string `json:"not_deployed"`
		}
		if there {
			if err := json.Unmarshal([]byte(payload), &state); err != nil {
				return "", fmt.Errorf("read %s: %w", topic, err)
			}
			if print := state.Fingerprint; print != "None" && print != before && state.NotDeployed == "OFF" {
				say.line("Published on %s: %v days left; %d topics in all.", topic, state.DaysLeft, len(s.broker.Topics()))
				return print, nil
			}
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return "", fmt.Errorf("nothing new on %s: %w", topic, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// A narrator tells what happens, with the time since the start.
type narrator struct {
	out   io.Writer
	start time.Time
}

func (n *narrator) line(format string, args ...any) {
	fmt.Fprintf(n.out, "%6.2f s  %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, args...))
}

// event tells an event. What is only a change of the snapshot is left out.
func (n *narrator) event(e sitter.Event) {
	if e.Kind == "state" || e.Text == "" {
		return
	}
	name := e.Name
	if name != "" {
		name += ": "
	}
	n.line("%s%s", name, e.Text)
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// silent swallows a server's complaints about handshakes before there is a
// certificate.
func silent() *log.Logger { return log.New(io.Discard, "", 0) }
