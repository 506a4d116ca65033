package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/renew/store"
)

// runApp is the daemon as a Home Assistant app. Options that are refused do not
// end it: somebody must be there to show what is wrong with them.
func (s shell) runApp(ctx context.Context, c *cli, o daemon.Options) error {
	supervisor := &addon.Supervisor{URL: s.getenv("SUPERVISOR_API"), Token: func() string { return s.getenv("SUPERVISOR_TOKEN") }}
	form := s.form(c, supervisor)
	o.Supervisor, o.Form = supervisor, form
	o.Reload = func() (*settings.Settings, error) { return form.Read(ctx) }
	b := form.Begin(ctx)
	for {
		o.Settings, o.Refused, o.Remark = b.Settings, b.Refused, b.Remark
		err := s.runWith(ctx, o)
		start, failed := errors.AsType[*startError](err)
		if !failed || b.Settings.StandIn || errors.Is(err, store.ErrLocked) {
			return err
		}
		b = form.Fallback(b, start.err)
	}
}

func (s shell) form(c *cli, supervisor *addon.Supervisor) *daemon.Form {
	e := s.environment()
	return daemon.NewForm(settings.Find(c.Config, e), e, supervisor)
}

// loadApp gives the settings for a command beside the daemon: those that it runs
// with, too, if the options are refused.
func (c *cli) loadApp(s shell) *settings.Settings {
	conf, refused := s.form(c, nil).InForce()
	if refused != nil {
		fmt.Fprintf(s.err, "certsitter: the options are refused; those that were accepted last are used, if there are any:\n%s\n", refused)
	}
	return conf
}
