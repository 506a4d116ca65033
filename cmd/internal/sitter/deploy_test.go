package sitter

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry/probe"
)

// went is what Home Assistant went through: its restarts, and the other
// actions by name.
func (h *home) went() (restarts []time.Time, others []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.restarts), slices.Clone(h.others)
}

func kinds(events []Event, wanted ...string) (all []string) {
	for _, e := range events {
		if slices.Contains(wanted, e.Kind) {
			all = append(all, e.Kind)
		}
	}
	return all
}

// restartsOf: a first certificate is in place, and the actions are for the next.
func restartsOf(t *testing.T, w *earth, h *home, dir, window string, after ...string) (*settings.Settings, *life) {
	t.Helper()
	plain := athome(t, w, dir, nil)
	s := *plain
	s.Certificates = slices.Clone(plain.Certificates)
	actions(after...)(&s)
	var err error
	if s.RestartWindow, err = settings.ParseWindow(window); err != nil {
		t.Fatal(err)
	}
	r := w.begin(t, dir, plain, h.edit, nil)
	w.until(2*day + 12*time.Hour)
	if err := r.Reload(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
	return &s, r
}

func TestActionThatFailsIsTriedAgainOverARestartOfOurs(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.slow, h.broken = time.Second, errors.New("Home Assistant is not up")
		s, r := restartsOf(t, w, h, dir, "", "restart app core_nginx_proxy", "restart homeassistant")
		defer func() { r.stop() }()
		heard := r.hear(t)
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		w.renewed(2)
		time.Sleep(2 * time.Minute) // two tries
		if got := kinds(heard(), "deploy_failed", "deployed"); !slices.Equal(got, []string{"deploy_failed"}) {
			t.Errorf("told %q", got)
		}
		if all := heard(); !said(all, "progress", "Performing: restart app core_nginx_proxy.") || !said(all, "progress", "Performing: restart homeassistant.") || !said(all, "deploy_failed", "not up") {
			t.Errorf("%+v", all)
		}
		if home := r.home(); !strings.Contains(home.Deployment, "not up") || len(home.Problems) == 0 {
			t.Errorf("%q %+v", home.Deployment, home.Problems)
		}
		r.stop()
		time.Sleep(time.Minute)
		r = w.begin(t, dir, s, h.edit, nil)
		heard = r.hear(t)
		time.Sleep(25 * time.Minute)
		h.change(func(h *home) { h.broken = nil })
		time.Sleep(2 * time.Hour)
		restarts, others := h.went()
		if !slices.Equal(others, []string{"restart app core_nginx_proxy"}) {
			t.Errorf("what was done already: %q", others)
		}
		var waits []time.Duration
		for i := 1; i < len(restarts); i++ {
			waits = append(waits, restarts[i].Sub(restarts[i-1]).Round(time.Minute))
		}
		if want := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}; !slices.Equal(waits, want) {
			t.Errorf("tried again after %v, want %v", waits, want)
		}
		if got := kinds(heard(), "deploy_failed", "deployed"); !slices.Equal(got, []string{"deployed"}) || r.home().Status != "ok" {
			t.Errorf("told %q, %s", got, r.home().Status)
		}
	})
}

// Files that were read while an action runs, which an earlier run may have left
// over, are judged; while something is installed they are read at its end.
func TestFilesThatWereReadMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		r := w.begin(t, dir, conf(t, dir, "", nil), nil, nil)
		w.renewed(1)
		r.stop() // the loop is ours now
		j := r.Sitter.job("home")
		read := found{installed: installedAt(j.target)}
		for stage, taken := range map[stage]bool{toInstall: false, toAct: true} {
			j.installed, j.deploying = nil, true
			r.memory.of("home").Deployment = &deployment{Version: j.newest.ID, Stage: stage}
			r.holding["home"]++
			r.foundFiles(time.Now(), j, read)
			if got := j.installed != nil; got != taken {
				t.Errorf("%s: taken in %v, want %v", stage, got, taken)
			}
		}
	})
}

func TestActionThatComesTooEarlyIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.broken = errors.New("Home Assistant is not up")
		s, r := restartsOf(t, w, h, dir, "", "restart homeassistant")
		defer func() { r.stop() }()
		r.stop()
		r = w.begin(t, dir, s, func(x *World) {
			h.edit(x)
			x.NotUp = func(err error) bool { return strings.Contains(err.Error(), "not up") }
		}, nil)
		heard := r.hear(t)
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		w.renewed(2)
		time.Sleep(5 * time.Minute)
		if got := r.home(); got.Status != "notice" || !strings.Contains(got.Deployment, "not up") {
			t.Errorf("%s, %q", got.Status, got.Deployment)
		}
		if got := kinds(heard(), "deploy_failed"); len(got) != 0 {
			t.Errorf("told %q while Home Assistant starts", got)
		}
		h.change(func(h *home) { h.broken = errors.New("its configuration is broken") })
		time.Sleep(20 * time.Minute)
		if got := kinds(heard(), "deploy_failed"); !slices.Equal(got, []string{"deploy_failed"}) {
			t.Errorf("told %q of a failure", got)
		}
		h.change(func(h *home) { h.broken = nil })
		time.Sleep(2 * time.Hour)
		if got := r.home(); got.Status != "ok" {
			t.Errorf("%s %+v", got.Status, got.Problems)
		}
	})
}

func TestActionThatWasCutOffIsDoneAgainAndNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		h.hangs = true
		s, r := restartsOf(t, w, h, dir, "", "restart app core_nginx_proxy", "restart homeassistant")
		defer func() { r.stop() }()
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		w.renewed(2)
		r.stop()
		m, _, err := stateFile{filepath.Join(dir, "state.json")}.load()
		if err != nil {
			t.Fatal(err)
		}
		if d := m.of("home").Deployment; d.Stage != toAct || d.Action != 1 || d.Failures != 0 {
			t.Errorf("kept: %+v", d)
		}
		h.change(func(h *home) { h.hangs = false })
		r = w.begin(t, dir, s, h.edit, nil)
		time.Sleep(5 * time.Minute)
		restarts, others := h.went()
		if len(restarts) != 2 || len(others) != 1 || r.home().Deployment != "" || r.home().Status != "ok" {
			t.Errorf("%d restarts, %q, %q", len(restarts), others, r.home().Deployment)
		}
		if strings.Contains(w.pages(), "deploy_failed") {
			t.Error(w.pages())
		}
	})
}

func TestActionWaitsForItsWindowOverARestartOfOurs(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		h := newHome(w)
		s, r := restartsOf(t, w, h, dir, "03:00-04:00", "restart homeassistant", "restart app core_nginx_proxy")
		defer func() { r.stop() }()
		heard := r.hear(t)
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil { // at noon
			t.Fatal(err)
		}
		w.renewed(2)
		if all := heard(); !said(all, "waiting", "waits for the restart window") || !strings.Contains(r.home().Deployment, "waits for the restart window") {
			t.Errorf("%q %+v", r.home().Deployment, all)
		}
		r.stop()
		time.Sleep(time.Hour)
		r = w.begin(t, dir, s, h.edit, nil)
		w.until(3*day + 2*time.Hour)
		if restarts, others := h.went(); len(restarts)+len(others) != 0 || r.home().Status != "notice" {
			t.Errorf("before the window: %v %q, %s", restarts, others, r.home().Status)
		}
		w.until(3*day + 3*time.Hour + 10*time.Minute)
		if restarts, others := h.went(); len(restarts) != 1 || len(others) != 1 || r.home().Deployment != "" || r.home().Status != "ok" {
			t.Errorf("in the window: %v %q, %q", restarts, others, r.home().Deployment)
		}
		if w.pages() != "" {
			t.Error(w.pages())
		}
	})
}

// A look that was under way when the certificate was installed says nothing of
// the new one.
func TestLookFromBeforeTheInstallationDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day) // an order takes 20 s
		acted := 0
		r := w.begin(t, dir, conf(t, dir, "", served), func(x *World) {
			x.Probe = func(context.Context, probe.Target, time.Time, probe.Options) (probe.Result, error) {
				c, err := probe.ReadFile(w.installs, "") // a server that reads its files itself
				time.Sleep(25 * time.Second)             // and is far away
				return probe.Result{Certificate: c}, err
			}
			x.Act = func(context.Context, settings.Action, Acted) error { acted++; return nil }
		}, nil)
		defer r.stop()
		w.until(time.Hour)
		if home := r.home(); acted != 0 || home.Status != "ok" || home.Endpoints[0].Verdict != "same" {
			t.Errorf("%d actions, %s %+v", acted, home.Status, home.Endpoints)
		}
	})
}
