package addon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/internal/supervisor"
)

// A realCore is an instance of Home Assistant itself.
type realCore struct{ *homeassistant.Core }

// supervisor passes /core/… on.
func (r *realCore) supervisor(t *testing.T) *Supervisor {
	t.Helper()
	return asked(startSupervisor(t, supervisor.Setup{CoreURL: r.URL, CoreToken: r.Token}))
}

func TestRealHomeAssistant(t *testing.T) {
	homeassistant.Needed(t)
	r := &realCore{homeassistant.Start(t, homeassistant.Options{})}
	direct := &Core{URL: r.URL, Token: func() string { return r.Token }}
	for way, core := range map[string]*Core{"direct": direct, "supervised": r.supervisor(t).Core()} {
		t.Run(way, func(t *testing.T) {
			r.shows(t, core)
			r.refuses(t, core)
			r.restarts(t, core)
		})
	}
	t.Run("wrong token", func(t *testing.T) {
		err := (&Core{URL: r.URL, Token: withToken}).Restart(t.Context())
		t.Log(err)
		if err == nil || !strings.Contains(err.Error(), "does not accept homeassistant_token") {
			t.Errorf("got %v", err)
		}
	})
}

func (r *realCore) shows(t *testing.T, core *Core) {
	const id, hostile = "certsitter_home", "{{ states('sun.sun') }} [a](http://b)"
	if err := core.PersistentNotification(t.Context(), id, "*.example.org", hostile); err != nil {
		t.Fatal(err)
	}
	if err := core.PersistentNotification(t.Context(), id, "*.example.org", "2 days left, "+hostile); err != nil {
		t.Fatal(err)
	}
	want := homeassistant.Notification{ID: id, Title: `*.example.org`, Message: `2 days left, { { states('sun.sun') }} \[a\](http://b)`}
	if got := r.Notifications(t)[id]; got != want {
		t.Errorf("it shows %q, want %q", got, want)
	}
	if err := core.DismissNotification(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got, there := r.Notifications(t)[id]; there {
		t.Errorf("it still shows %q", got)
	}
	if err := core.DismissNotification(t.Context(), id); err != nil {
		t.Errorf("dismissed twice: %v", err)
	}
	if err := core.Notify(t.Context(), "notify.persistent_notification", "title", "by an action", nil); err != nil {
		t.Errorf("a notify action: %v", err)
	}
}

func (r *realCore) refuses(t *testing.T, core *Core) {
	for deed, c := range map[string]struct {
		err  error
		want string
	}{
		"no such notify action": {core.Notify(t.Context(), "mobile_app_pixel", "", "m", nil), "has no action notify.mobile_app_pixel"},
		"data it does not know": {core.Notify(t.Context(), "persistent_notification", "", "m", map[string]any{"tag": "x"}), ""},
		"an app":                {core.RestartApp(t.Context(), "core_nginx_proxy"), "has no Supervisor"},
	} {
		t.Logf("%s: %v", deed, c.err)
		if c.want != "" && (c.err == nil || !strings.Contains(c.err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", deed, c.err, c.want)
		}
	}
	broken := filepath.Join(r.Folder, "packages", "broken.yaml")
	if err := os.WriteFile(broken, []byte("input_number: [\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := core.Restart(t.Context())
	t.Log(err)
	if err == nil || !strings.Contains(err.Error(), "not valid, so that it is not restarted: ") {
		t.Errorf("with an invalid configuration: %v", err)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
}

func (r *realCore) restarts(t *testing.T, core *Core) {
	const id = "certsitter_before"
	if err := core.PersistentNotification(t.Context(), id, "", "is gone after a restart"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := core.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("up again after %v", time.Since(began).Round(time.Millisecond))
	if err := core.Running(t.Context()); err != nil {
		t.Error(err)
	}
	if _, there := r.Notifications(t)[id]; there {
		t.Error("it was not restarted")
	}
}
