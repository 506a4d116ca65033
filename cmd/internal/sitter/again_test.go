package sitter

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry/probe"
)

// Home Assistant has started by itself since we were cut off, or while an action
// waited for its next try: what it serves is looked at before it is restarted.
func TestCoreIsLookedAtBeforeItIsRestartedAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		cut     bool // we are stopped while it is restarted
		reload  bool
		between func(*home)
	}{
		{"cut off", true, false, func(h *home) { h.hangs = false; h.start() }},
		{"it did not succeed", false, false, func(h *home) { h.broken = nil; h.start() }},
		{"another configuration", false, true, func(h *home) { h.broken = nil; h.start() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				h := newHome(w)
				s, r := restartsOf(t, w, h, dir, "", "restart homeassistant")
				defer func() { r.stop() }()
				h.serves(t)
				if err := r.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
				h.slow = time.Second
				if h.hangs = c.cut; !c.cut {
					h.change(func(h *home) { h.broken = errors.New("Home Assistant is not up yet") })
				}
				if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
				for n, _ := h.look(); n == 0; n, _ = h.look() {
					time.Sleep(time.Second)
				}
				time.Sleep(5 * time.Second)
				if c.cut {
					r.stop()
				}
				h.change(c.between)
				if c.cut {
					r = w.begin(t, dir, s, func(x *World) {
						h.edit(x)
						look := x.Probe
						x.Probe = func(ctx context.Context, target probe.Target, now time.Time, o probe.Options) (probe.Result, error) {
							time.Sleep(time.Second) // a network is slower than a disk
							return look(ctx, target, now, o)
						}
					}, nil)
				}
				if c.reload {
					if err := r.Reload(t.Context(), s); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(10 * time.Minute)
				home := r.home()
				if n, _ := h.look(); n != 1 || home.Deployment != "" || home.Status != "ok" {
					t.Errorf("%d restarts, %q, %s %+v", n, home.Deployment, home.Status, home.Problems)
				}
			})
		})
	}
}

// What was asked for the sake of a certificate that is not configured any more is
// to be taken back.
func TestCertificatesThatLeftAreKnownAtTheStart(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := athome(t, w, dir, func(s *settings.Settings) { second(dir, s) })
		r := w.begin(t, dir, s, nil, nil)
		defer func() { r.stop() }()
		w.until(day)
		if left := r.Left(); len(left) != 0 {
			t.Errorf("%q left", left)
		}
		r.stop()
		fewer := *s
		fewer.Certificates = s.Certificates[:1]
		r = w.begin(t, dir, &fewer, nil, nil)
		if left := r.Left(); !slices.Equal(left, []string{"second"}) {
			t.Errorf("%q left", left)
		}
	})
}
