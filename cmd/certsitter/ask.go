package main

import (
	"context"
	"errors"

	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// An asked is somebody who knows and does: the daemon that runs on the state
// folder, or our own loop under the folder's lock.
type asked interface {
	Snapshot(ctx context.Context) (*sitter.Snapshot, error)
	Events(ctx context.Context) (<-chan sitter.Event, error)
	Renew(ctx context.Context, name string, o sitter.RenewOptions) error
	Check(ctx context.Context) error
	Revoke(ctx context.Context, name, reason string) error
	TestNotify(ctx context.Context, target string) ([]sitter.Delivery, error)
}

// ask calls f with the daemon, or with a loop of our own if there is none.
func (s shell) ask(ctx context.Context, conf *settings.Settings, f func(asked) error) error {
	control, err := page.Dial(conf.StateDir)
	if err == nil {
		return f(control)
	}
	if !errors.Is(err, page.ErrNotRunning) {
		return err
	}
	d, err := s.manual(conf)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	awaitFirstLook(running, d.Sitter)
	err = f(own{d.Sitter})
	stop()
	return errors.Join(err, <-ended)
}

// awaitFirstLook waits until our own loop has looked at everything once: what is
// in place may be taken over, and then there is nothing to order. A loop that
// cannot look, for want of a clock, says so itself when it is asked.
func awaitFirstLook(ctx context.Context, l *sitter.Sitter) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	events := l.Events(ctx) // closed at the end of ctx or of the loop
	for l.Snapshot().Time.IsZero() {
		if _, open := <-events; !open {
			return
		}
	}
}

// own is our own loop.
type own struct{ *sitter.Sitter }

func (o own) Snapshot(context.Context) (*sitter.Snapshot, error) { return o.Sitter.Snapshot(), nil }

func (o own) Events(ctx context.Context) (<-chan sitter.Event, error) {
	return o.Sitter.Events(ctx), nil
}
