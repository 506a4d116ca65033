package sitter

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

// A Core that starts onto a certificate without its key comes back without HTTPS.
func TestRestartByHandIsRefusedWhileThePairIsNotWhole(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.slow = time.Second
		s := athome(t, w, dir, nil)
		r := w.begin(t, dir, s, h.edit, nil)
		defer r.stop()
		w.until(day)
		h.serves(t)
		if err := r.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Somebody has put another key there, and what would put it right cannot be
		// written.
		key := s.Certificates[0].KeyFile
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(key+"/in/the/way", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		err := r.RestartHomeAssistant(t.Context())
		refused, ok := errors.AsType[*Refused](err)
		if n, _ := h.look(); n != 0 || !ok || refused.Code != "pair" {
			t.Errorf("%d restarts, %v", n, err)
		}
		if err := os.RemoveAll(key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour) // it is made whole
		if err := r.RestartHomeAssistant(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Settings that stand in do not say where Home Assistant is.
func TestStandInForgetsNoEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		s := athome(t, w, dir, nil)
		r := w.begin(t, dir, s, h.edit, nil)
		defer func() { r.stop() }()
		w.until(day)
		h.serves(t)
		if err := r.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.stop()
		standIn := *s
		standIn.Certificates, standIn.StandIn = nil, true
		r = w.begin(t, dir, &standIn, func(x *World) {
			h.edit(x)
			x.Home = func(*settings.Settings) (string, bool) { return "elsewhere:8123", true }
		}, nil)
		w.until(2 * day)
		r.stop()
		if r.memory.of("home").Endpoints[coreAddress] == nil {
			t.Error("forgotten")
		}
	})
}

// The same for an action, which waits: it is another certificate's.
func TestActionWaitsUntilThePairIsWhole(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.slow = time.Second
		s := athome(t, w, dir, func(s *settings.Settings) {
			second(dir, s)
			actions("restart homeassistant")(s)
			s.Certificates[0].After, s.Certificates[1].After = nil, s.Certificates[0].After
		})
		r := w.begin(t, dir, s, h.edit, nil)
		defer r.stop()
		w.until(day)
		h.serves(t)
		first, _ := h.look()
		key := s.Certificates[0].KeyFile
		if err := errors.Join(r.Check(t.Context()), os.Remove(key), os.MkdirAll(key+"/in/the/way", 0o700), r.Check(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := r.Renew(t.Context(), "second", RenewOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n, _ := h.look(); n != first || !strings.Contains(r.cert("second").Deployment, "not restarted while the files of home") {
			t.Errorf("%d restarts, %q", n-first, r.cert("second").Deployment)
		}
		if err := os.RemoveAll(key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if n, _ := h.look(); n != first+1 || r.cert("second").Deployment != "" {
			t.Errorf("%d restarts, %q", n-first, r.cert("second").Deployment)
		}
	})
}
