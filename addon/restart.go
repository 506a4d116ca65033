package addon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// A rhythm says how a restart is watched; zero values mean the defaults.
type rhythm struct {
	order time.Duration // until it has gone down
	back  time.Duration // until it is up again
	look  time.Duration // between two looks
}

const (
	// orderLimit is for the check of the configuration, half a minute on a
	// Raspberry Pi, and for going down, which Core does at once (0.2 s measured).
	orderLimit = 2 * time.Minute
	// backLimit: some minutes on a Raspberry Pi with many integrations.
	backLimit = 3*time.Minute + 30*time.Second
	lookPause = 500 * time.Millisecond
	lookLimit = 10 * time.Second
)

// Restart has Core check its configuration and start again, and returns when it
// is up. A Core that is not up, or that runs in recovery mode, is left alone. If
// Core went down and was not back in time, that is an error; the next call does
// not restart it again but goes on waiting, since a Core that takes long to start
// would never get to the end otherwise.
func (c *Core) Restart(ctx context.Context) error {
	if !c.isAway() {
		if err := c.order(ctx); err != nil {
			return err
		}
	}
	return c.seeBack(ctx)
}

// order has Core restarted, if that can be dared, and returns when it has gone
// down.
func (c *Core) order(ctx context.Context) error {
	limit := cmp.Or(c.rhythm.order, orderLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, sentence("Home Assistant has not gone down for its restart within %v: look into its log", limit))
	defer cancel()
	s, err := c.status(ctx, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(s.up(), s.sound()); err != nil {
		return err
	}
	if err := c.CheckConfig(ctx); err != nil {
		return err
	}
	if err := c.send(ctx); err != nil {
		return err
	}
	return c.watch(ctx, func(s status, err error) bool { return err != nil || s.State != running })
}

// send sends the order. A Core that obeys may take its answer along.
func (c *Core) send(ctx context.Context) error {
	got, err := c.perform(ctx, "homeassistant", "restart", struct{}{}, orderLimit)
	if l, ok := errors.AsType[*lost](err); ok && l.sent {
		return nil
	}
	switch {
	case err != nil:
		return c.lost(err)
	case got.status == http.StatusOK || got.status == http.StatusBadGateway || got.status == http.StatusGatewayTimeout:
		return nil // the Supervisor's proxy says 502 when Core goes away under it
	case got.status == http.StatusBadRequest:
		return errors.New("this Home Assistant offers no action homeassistant.restart: restart it by hand")
	}
	return c.refusal(got)
}

// seeBack returns when Core is up again.
func (c *Core) seeBack(ctx context.Context) error {
	limit := cmp.Or(c.rhythm.back, backLimit)
	late := notUp("Home Assistant went down for its restart and was not back within %v: look at it; it is not restarted again before it is back", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	var last status
	err := c.watch(ctx, func(s status, err error) bool {
		last = s
		return err == nil && s.State == running
	})
	c.setAway(errors.Is(err, late))
	if err != nil {
		return err
	}
	return last.sound()
}

// watch looks at Core until a look is the wanted one or ctx ends, whose cause it
// returns.
func (c *Core) watch(ctx context.Context, wanted func(status, error) bool) error {
	pause := cmp.Or(c.rhythm.look, lookPause)
	for {
		s, err := c.status(ctx, lookLimit)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if wanted(s, err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func (c *Core) isAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

func (c *Core) setAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// slugPattern is what the Supervisor takes for an app's slug.
var slugPattern = regexp.MustCompile(`^[-_.A-Za-z0-9]+$`)

const slugLength = 100 // more than any has

// appRestarts are the actions that restart an app, and what they call its slug.
// The second is the first's name before apps were called apps.
var appRestarts = []struct{ action, argument string }{{"app_restart", "app"}, {"addon_restart", "addon"}}

// RestartApp has an app started again, by Core's own action: the Supervisor gives
// an app like us no right to do so itself. It returns when that is done.
func (c *Core) RestartApp(ctx context.Context, slug string) error {
	if len(slug) > slugLength || !slugPattern.MatchString(slug) {
		return fmt.Errorf("%.40q is no app's slug: it is at the end of the address of the app's page, like core_nginx_proxy", slug)
	}
	offered, err := c.actions(ctx)
	if err != nil {
		return err
	}
	for _, r := range appRestarts {
		if slices.Contains(offered["hassio"], r.action) {
			return c.restartApp(ctx, slug, r.action, r.argument)
		}
	}
	return errors.New("this Home Assistant cannot restart apps, because it has no Supervisor: remove the action")
}

func (c *Core) restartApp(ctx context.Context, slug, action, argument string) error {
	got, err := c.perform(ctx, "hassio", action, map[string]string{argument: slug}, appLimit)
	switch {
	case err != nil:
		return c.lost(err)
	case got.status == http.StatusOK:
		return nil
	case got.status == http.StatusBadRequest:
		return sentence("Home Assistant refused to restart the app %s: %s", slug, cmp.Or(got.message(), "is it installed, and is its slug right?"))
	case got.status == http.StatusInternalServerError:
		return fmt.Errorf("the app %s could not be restarted: %s", slug, cmp.Or(got.message(), "see Home Assistant's log; is it installed, and is its slug right?"))
	}
	return c.refusal(got)
}
