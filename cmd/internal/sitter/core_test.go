package sitter

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/renew"
)

const coreAddress = "homeassistant:8123"

// A home is Home Assistant in a world: what it serves at its own address, and
// what happens to it.
type home struct {
	w *earth

	mu       sync.Mutex // guards the rest
	api      bool
	serving  []byte        // PEM; nil = no TLS there
	broken   error         // of a restart
	deaf     bool          // a restart changes nothing
	hangs    bool          // a restart ends only with its context
	slow     time.Duration // how long a restart takes
	restarts []time.Time
	others   []string // other actions
	looks    int
	at       time.Time // of the last look
}

func newHome(w *earth) *home { return &home{w: w, api: true, slow: 30 * time.Second} }

func (h *home) change(f func(*home)) { h.mu.Lock(); defer h.mu.Unlock(); f(h) }

func (h *home) look() (restarts, looks int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.restarts), h.looks
}

// edit puts Home Assistant into the world.
func (h *home) edit(x *World) {
	elsewhere := x.Probe
	x.Home = func(*settings.Settings) (string, bool) { h.mu.Lock(); defer h.mu.Unlock(); return coreAddress, h.api }
	x.Probe = func(ctx context.Context, t probe.Target, now time.Time, o probe.Options) (probe.Result, error) {
		if t.Address != coreAddress {
			return elsewhere(ctx, t, now, o)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.looks++
		h.at = now
		if h.serving == nil {
			return probe.Result{}, errors.New("connection refused")
		}
		c, err := expiry.Parse(h.serving)
		r := probe.Result{Certificate: c}
		if t.ServerName == "homeassistant" {
			r.NameError = errors.New("it is not for homeassistant")
		}
		return r, err
	}
	x.Act = func(ctx context.Context, a settings.Action, f Acted) error {
		if a.Kind != settings.RestartHomeAssistant {
			h.change(func(h *home) { h.others = append(h.others, a.String()) })
			return nil
		}
		h.change(func(h *home) { h.restarts = append(h.restarts, time.Now()) })
		slow := h.slow
		if h.hangs {
			slow = day
		}
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.broken == nil && !h.deaf {
			h.start()
		}
		return h.broken
	}
}

// start has it read the certificate, as it does at every start.
func (h *home) start() {
	if h.serving != nil {
		h.serving, _ = os.ReadFile(h.w.installs)
	}
}

// serves has it serve TLS from now on, with what is installed.
func (h *home) serves(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(h.w.installs)
	if err != nil {
		t.Fatal(err)
	}
	h.change(func(h *home) { h.serving = data })
}

// athome is the configuration of a certificate whose CA is known.
func athome(t *testing.T, w *earth, dir string, edit func(*settings.Settings)) *settings.Settings {
	t.Helper()
	return conf(t, dir, "", func(s *settings.Settings) {
		s.Certificates[0].Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.Raw})
		if edit != nil {
			edit(s)
		}
	})
}

func actions(texts ...string) func(*settings.Settings) {
	return func(s *settings.Settings) {
		for _, text := range texts {
			a, err := settings.ParseAction(text)
			if err != nil {
				panic(err)
			}
			s.Certificates[0].After = append(s.Certificates[0].After, a)
		}
	}
}

// renewed lets time go by until so many certificates were issued, and they had
// a minute to be installed.
func (w *earth) renewed(n int) {
	for w.count() < n {
		time.Sleep(time.Minute)
	}
	time.Sleep(time.Minute)
}

func TestCoreWithoutTLSIsQuiet(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		for w.age() < 80*day {
			time.Sleep(7 * time.Hour)
			if c := r.home(); c.Status != "ok" || len(c.Endpoints) != 0 || len(r.Snapshot().Asks) != 0 {
				t.Fatalf("%s %+v %+v %+v", c.Status, c.Endpoints, c.Problems, r.Snapshot().Asks)
			}
		}
		if _, looks := h.look(); looks < 80*3 || looks > 80*5 {
			t.Errorf("%d looks in 80 days", looks)
		}
		if w.pages() != "" {
			t.Error(w.pages())
		}
		h.serves(t)
		if err := r.Check(t.Context()); err != nil { // a check waits for the look at Core
			t.Fatal(err)
		}
		if c := r.home(); len(c.Endpoints) != 1 || c.Endpoints[0].Address != coreAddress || c.Endpoints[0].Verdict != "same" || c.Status != "ok" {
			t.Errorf("%s %+v %+v", c.Status, c.Endpoints, c.Problems)
		}
	})
}

func TestNoAPINoLook(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.api = false
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		w.until(day)
		err := r.RestartHomeAssistant(t.Context())
		refused, ok := errors.AsType[*Refused](err)
		if restarts, looks := h.look(); looks+restarts != 0 || !ok || refused.Code != "no_homeassistant" {
			t.Errorf("%d looks, %d restarts, %v", looks, restarts, err)
		}
	})
}

func TestStaleCoreIsAskedFor(t *testing.T) {
	for _, c := range []struct{ language, title, text string }{
		{"en", "Home Assistant still uses the old certificate", "The certificate of home.example.org is renewed and in its place. Home Assistant reads it only when it starts, so homeassistant:8123 still serves the earlier one, which is good until "},
		{"de", "Home Assistant benutzt noch das alte Zertifikat", "Das Zertifikat von home.example.org ist erneuert und liegt an seinem Platz. Home Assistant liest es nur beim Start, deshalb liefert homeassistant:8123 noch das alte aus, das bis zum "},
	} {
		t.Run(c.language, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				h := newHome(w)
				s := athome(t, w, dir, func(s *settings.Settings) { s.Language = c.language })
				r := w.begin(t, dir, s, h.edit, nil)
				defer func() { r.stop() }()
				w.until(day)
				h.serves(t)
				w.until(2 * day)
				w.renewed(2)
				installed := w.age()
				wanted := func(status string, told bool) {
					t.Helper()
					home, asks := r.home(), r.Snapshot().Asks
					if home.Status != status || !home.NotDeployed || len(home.Endpoints) != 1 || home.Endpoints[0].Verdict != "stale" {
						t.Errorf("%s, not deployed %v: %+v %+v", home.Status, home.NotDeployed, home.Endpoints, home.Problems)
					}
					if len(asks) != 1 || asks[0].ID != "certsitter_home_restart" || asks[0].Title != c.title || !strings.HasPrefix(asks[0].Text, c.text) ||
						!strings.Contains(asks[0].Text, `after: ["restart homeassistant"]`) {
						t.Errorf("%+v", asks)
					}
					if len(home.Problems) != 1 || home.Problems[0].Code != expiry.CodeStale || !strings.HasSuffix(asks[0].Text, home.Problems[0].Advice) {
						t.Errorf("%+v", home.Problems)
					}
					if strings.Contains(w.pages(), "told") != told {
						t.Errorf("told %v: %s", told, w.pages())
					}
				}
				wanted("notice", false)
				first := r.Snapshot().Asks[0]
				w.until(installed + 25*time.Hour)
				wanted("notice", false)
				r.stop() // it is remembered, whatever Core does at the moment
				was := h.serving
				h.change(func(h *home) { h.serving = nil })
				r = w.begin(t, dir, s, h.edit, nil)
				time.Sleep(time.Minute)
				h.change(func(h *home) { h.serving = was })
				time.Sleep(coreSoon)
				wanted("notice", false)
				w.until(installed + 27*time.Hour)
				wanted("warning", true)
				if again := r.Snapshot().Asks[0]; again != first {
					t.Errorf("it is another ask than before: %+v", again)
				}
				h.change(func(h *home) { h.start() }) // by somebody, in Home Assistant
				time.Sleep(coreSoon + time.Minute)
				if home := r.home(); home.Status != "ok" || home.NotDeployed || len(r.Snapshot().Asks) != 0 || home.Deployment != "" {
					t.Errorf("%s %q: %+v %+v", home.Status, home.Deployment, home.Problems, r.Snapshot().Asks)
				}
				if restarts, _ := h.look(); restarts != 0 {
					t.Error("it was restarted unasked")
				}
			})
		})
	}
}

// hear collects what the loop says until the test ends.
func (r *life) hear(t *testing.T) func() []Event {
	t.Helper()
	var mu sync.Mutex
	var all []Event
	ctx, cancel := context.WithCancel(context.Background())
	events, over := r.Events(ctx), make(chan struct{})
	go func() {
		defer close(over)
		for e := range events {
			if e.Kind != "state" {
				mu.Lock()
				all = append(all, e)
				mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-over })
	return func() []Event { mu.Lock(); defer mu.Unlock(); return slices.Clone(all) }
}

func said(events []Event, kind, part string) bool {
	return slices.ContainsFunc(events, func(e Event) bool { return e.Name == "home" && e.Kind == kind && strings.Contains(e.Text, part) })
}

func TestRestartByHand(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		w.until(day)
		h.serves(t)
		w.until(2 * day)
		w.renewed(2)
		heard := r.hear(t)

		h.change(func(h *home) { h.broken = errors.New("Invalid config for 'http'") })
		if err := r.RestartHomeAssistant(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r.home(); !r.Snapshot().Restarting {
			t.Error("the restart cannot be seen")
		}
		refused, ok := errors.AsType[*Refused](r.RestartHomeAssistant(t.Context()))
		if !ok || refused.Code != "busy" {
			t.Errorf("another one: %v", refused)
		}
		time.Sleep(h.slow + time.Second)
		if home := r.home(); !strings.Contains(home.LastResult, "Invalid config") || !slices.Contains(codes(r.Snapshot().Problems), codeRestart) || r.Snapshot().Restarting {
			t.Errorf("%q %+v", home.LastResult, r.Snapshot().Problems)
		}
		if all := heard(); !said(all, "restart", "Restarting") || !said(all, "deploy_failed", "Invalid config") {
			t.Errorf("%+v", all)
		}
		refused, ok = errors.AsType[*Refused](r.RestartHomeAssistant(t.Context()))
		if !ok || refused.Code != "too_soon" || refused.Until.IsZero() {
			t.Errorf("at once again: %v", refused)
		}

		h.change(func(h *home) { h.broken = nil })
		time.Sleep(time.Minute)
		if err := r.RestartHomeAssistant(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(h.slow + time.Second)
		if home := r.home(); home.Status != "ok" || home.NotDeployed || len(r.Snapshot().Asks)+len(r.Snapshot().Problems) != 0 || home.Deployment != "" {
			t.Errorf("%s %q: %+v %+v", home.Status, home.Deployment, home.Problems, r.Snapshot())
		}
		if all := heard(); !said(all, "restart", "has restarted") || !said(all, "deployed", "Every endpoint serves") {
			t.Errorf("%+v", all)
		}
		if strings.Contains(w.pages(), "told") {
			t.Error(w.pages())
		}
	})
}

func TestRestartThatSeemedToFail(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		w.until(day)
		h.serves(t)
		w.until(2 * day)
		w.renewed(2)
		h.change(func(h *home) { h.broken = errors.New("it was not back within three minutes") })
		if err := r.RestartHomeAssistant(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if r.home(); !slices.Contains(codes(r.Snapshot().Problems), codeRestart) || len(r.Snapshot().Asks) != 1 {
			t.Errorf("%+v %+v", r.Snapshot().Problems, r.Snapshot().Asks)
		}
		h.change(func(h *home) { h.start() }) // at last
		time.Sleep(coreSoon)
		if home := r.home(); len(r.Snapshot().Problems)+len(r.Snapshot().Asks) != 0 || home.Status != "ok" {
			t.Errorf("%s %+v %+v", home.Status, r.Snapshot().Problems, r.Snapshot().Asks)
		}
	})
}

// Core may be found, or seen again, only after the new certificate is in place.
func TestCoreThatIsSeenLate(t *testing.T) {
	for _, c := range []struct {
		name string
		away time.Duration // how long Core is not there after the installation
		want []string      // what is told of the deployment
	}{
		{"nobody has looked before", 0, []string{"deployed"}},
		{"it is away for long", time.Hour, []string{"deployed", "deployed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				h := newHome(w)
				r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
				defer r.stop()
				w.until(day)
				h.serves(t)
				old := h.serving
				if c.away > 0 {
					w.until(2 * day) // it is found
					h.change(func(h *home) { h.serving = nil })
				}
				heard := r.hear(t)
				if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
				w.renewed(2)
				time.Sleep(c.away)
				h.change(func(h *home) { h.serving = old })
				time.Sleep(coreSoon)
				if home := r.home(); len(r.Snapshot().Asks) != 1 || home.Deployment == "" || !home.NotDeployed {
					t.Errorf("%q %+v", home.Deployment, r.Snapshot().Asks)
				}
				if err := r.RestartHomeAssistant(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if got := kinds(heard(), "deployed", "deploy_failed"); !slices.Equal(got, c.want) || r.home().Deployment != "" {
					t.Errorf("told %q, %q", got, r.home().Deployment)
				}
			})
		})
	}
}

func TestRestartInVainIsNotAskedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.deaf = true
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		w.until(day)
		h.serves(t)
		w.until(2 * day)
		w.renewed(2)
		if err := r.RestartHomeAssistant(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(inVain + 2*time.Minute)
		home := r.home()
		if len(r.Snapshot().Asks) != 0 || home.Status != "notice" || len(home.Problems) != 1 || !strings.Contains(home.Problems[0].Advice, "ssl_certificate") {
			t.Errorf("%s %+v %+v", home.Status, home.Problems, r.Snapshot().Asks)
		}
	})
}

func TestCoreWithAnotherCertificateIsNoEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, other := newEarth(t, 90*day), newEarth(t, 365*day)
		stranger := other.sign(renew.OrderRequest{CSR: request(t)})
		h := newHome(w)
		h.serving = stranger
		r := w.begin(t, dir, athome(t, w, dir, nil), h.edit, nil)
		defer r.stop()
		w.until(day)
		if home := r.home(); len(home.Endpoints) != 0 || home.Status != "ok" {
			t.Errorf("one that was never ours: %+v %+v", home.Endpoints, home.Problems)
		}
		h.serves(t)
		w.until(2 * day)
		h.change(func(h *home) { h.serving = stranger })
		seen := false
		for w.age() < 4*day {
			time.Sleep(10 * time.Minute)
			home := r.home()
			if home.Status != "ok" || home.NotDeployed || len(r.Snapshot().Asks) != 0 {
				t.Fatalf("%s %v %+v", home.Status, home.NotDeployed, home.Problems)
			}
			seen = seen || len(home.Endpoints) == 1 && home.Endpoints[0].Verdict == "foreign"
		}
		if home := r.home(); !seen || len(home.Endpoints) != 0 {
			t.Errorf("after two days: %+v", home.Endpoints)
		}
		h.serves(t)
		w.until(5 * day)
		h.change(func(h *home) { h.serving = nil })
		w.until(5*day + 12*time.Hour)
		if home := r.home(); len(home.Endpoints) != 1 || home.Endpoints[0].Verdict != "unreachable" || home.Status != "ok" {
			t.Errorf("switched off: %s %+v", home.Status, home.Endpoints)
		}
		w.until(7 * day)
		if home := r.home(); len(home.Endpoints) != 0 || home.Status != "ok" || w.pages() != "" {
			t.Errorf("for two days: %s %+v", home.Status, home.Endpoints)
		}
	})
}

// What the actions do where Core was found, and where the configuration names it.
func TestActionsAndCore(t *testing.T) {
	for _, c := range []struct {
		name      string
		after     []string
		window    string
		endpoints []string
		meanwhile bool // somebody restarts Core while the action waits
		restarts  int
		others    []string
		asks      bool
	}{
		{"a restart is seen to help", []string{"restart homeassistant"}, "", nil, false, 1, nil, false},
		{"somebody was faster", []string{"restart homeassistant"}, "03:00-03:01", nil, true, 0, nil, false},
		{"what else is to be done is done", []string{"restart homeassistant", "reload nginx"}, "03:00-03:01", nil, true, 0, []string{"reload nginx"}, false},
		{"and before, too", []string{"restart app core_nginx_proxy", "restart homeassistant"}, "", nil, false, 1, []string{"restart app core_nginx_proxy"}, false},
		{"another action does not help Core", []string{"reload nginx"}, "", nil, false, 0, []string{"reload nginx"}, true},
		{"the configuration names it", nil, "", []string{"home.example.org@" + coreAddress}, false, 0, nil, true},
		{"and has it restarted", []string{"restart homeassistant"}, "", []string{"home.example.org@" + coreAddress}, false, 1, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				h := newHome(w)
				window, err := settings.ParseWindow(c.window)
				if err != nil {
					t.Fatal(err)
				}
				plain := athome(t, w, dir, func(s *settings.Settings) { s.Certificates[0].Endpoints = c.endpoints })
				s := *plain
				s.Certificates = slices.Clone(plain.Certificates)
				actions(c.after...)(&s)
				s.RestartWindow = window
				r := w.begin(t, dir, plain, h.edit, nil)
				defer r.stop()
				w.until(day)
				h.serves(t)
				if err := r.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.until(2 * day)
				if err := r.Reload(t.Context(), &s); err != nil {
					t.Fatal(err)
				}
				w.until(2*day + 12*time.Hour)
				if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
					t.Fatal(err)
				}
				w.renewed(2)
				if c.meanwhile {
					if home := r.home(); !strings.Contains(home.Deployment, "waits for the restart window") || len(r.Snapshot().Asks) != 0 {
						t.Errorf("%q %+v", home.Deployment, r.Snapshot().Asks)
					}
					h.change(func(h *home) { h.start() })
				}
				time.Sleep(day)
				h.mu.Lock()
				if len(h.restarts) != c.restarts || !slices.Equal(h.others, c.others) {
					t.Errorf("%d restarts and %q", len(h.restarts), h.others)
				}
				h.mu.Unlock()
				home := r.home()
				if asks := len(r.Snapshot().Asks) == 1; asks != c.asks || (home.Status == "ok") == c.asks || len(home.Endpoints) != 1 {
					t.Errorf("%s %+v %+v: %+v", home.Status, home.Endpoints, home.Problems, r.Snapshot().Asks)
				}
				if strings.Contains(w.pages(), "told") {
					t.Error(w.pages())
				}
			})
		})
	}
}

// Home Assistant is interrupted once, however many certificates were renewed.
func TestOneRestartForAll(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.slow = 3 * time.Minute
		r := w.begin(t, dir, athome(t, w, dir, func(s *settings.Settings) {
			actions("restart homeassistant")(s)
			second(dir, s)
			second(dir, s)
			third := &s.Certificates[2]
			third.Name, third.Domains = "third", []string{"third.example.org"}
			third.CertFile, third.KeyFile = third.CertFile+"3", third.KeyFile+"3"
		}), h.edit, nil)
		defer r.stop()
		w.until(day)
		if restarts, _ := h.look(); restarts != 1 {
			t.Errorf("%d restarts for three certificates of one moment", restarts)
		}
		for _, name := range []string{"home", "second", "third"} {
			if c := r.cert(name); c.Deployment != "" || c.Status != "ok" {
				t.Errorf("%s: %s %q", name, c.Status, c.Deployment)
			}
		}
		// One that is installed while the restart is under way needs another: Core
		// may have read its files already.
		for _, name := range []string{"home", "second"} {
			if err := r.Renew(t.Context(), name, RenewOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Hour)
		if restarts, _ := h.look(); restarts != 3 {
			t.Errorf("%d restarts", restarts)
		}
	})
}

func TestRefusedConfigurationIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := athome(t, w, dir, nil)
		r := w.begin(t, dir, s, nil, nil)
		defer r.stop()
		w.until(day)
		mistakes := []string{"options.json:3: certificates[home].provider: there is no provider\n  \"cloudflar\"", "options.json:9: mqtt.topic: it has a slash"}
		if err := r.Refuse(t.Context(), mistakes...); err != nil {
			t.Fatal(err)
		}
		r.home()
		snap := r.Snapshot()
		want := "The configuration is not used. What was in force before stays in force.\n\n" +
			"- options.json:3: certificates[home].provider: there is no provider \"cloudflar\"\n- options.json:9: mqtt.topic: it has a slash\n\n" +
			"Correct it and save it, then restart Certsitter."
		if len(snap.Asks) != 1 || snap.Asks[0].ID != AskConfiguration || snap.Asks[0].Text != want {
			t.Errorf("%+v", snap.Asks)
		}
		if len(snap.Problems) != 1 || !slices.Equal(snap.Problems[0].Details, mistakes) || !strings.Contains(snap.Problems[0].Text, "2 mistakes") {
			t.Errorf("%+v", snap.Problems)
		}
		none := *s
		none.Certificates = nil
		if err := errors.Join(r.Reload(t.Context(), &none), r.Refuse(t.Context(), "nothing is right")); err != nil {
			t.Fatal(err)
		}
		r.home()
		if asks := r.Snapshot().Asks; len(asks) != 1 || !strings.Contains(asks[0].Text, "there is no earlier one") || !strings.Contains(fmt.Sprint(r.Snapshot().Problems), "nothing is right") {
			t.Errorf("%+v", asks)
		}
		if err := r.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if r.home(); len(r.Snapshot().Asks)+len(r.Snapshot().Problems) != 0 {
			t.Errorf("%+v %+v", r.Snapshot().Asks, r.Snapshot().Problems)
		}
	})
}
