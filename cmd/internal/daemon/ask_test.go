package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/supervisor"
)

// An asking is a board with a Core of its own.
type asking struct {
	core       *supervisor.Core
	supervisor *supervisor.Supervisor
	events     chan sitter.Event

	mu   sync.Mutex // guards the rest
	asks []sitter.Ask
	home *addon.Core
}

func newAsking(t *testing.T) *asking {
	t.Helper()
	a := &asking{core: &supervisor.Core{}, events: make(chan sitter.Event)}
	var err error
	if a.supervisor, err = supervisor.Start("127.0.0.1:0", supervisor.Setup{Core: a.core}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.supervisor.Close)
	a.home = (&addon.Supervisor{URL: a.supervisor.URL(), Token: func() string { return supervisor.Token }}).Core()
	return a
}

// run runs the board until the test's end.
func (a *asking) run(t *testing.T) {
	b := board{
		log: zerolog.Nop(), pace: askPace{first: time.Millisecond, most: 10 * time.Millisecond, stay: 5 * time.Millisecond, idle: time.Hour},
		core: func() *addon.Core { a.mu.Lock(); defer a.mu.Unlock(); return a.home },
		want: func() ([]sitter.Ask, bool) {
			a.mu.Lock()
			defer a.mu.Unlock()
			return append([]sitter.Ask{}, a.asks...), a.asks != nil
		},
		leftover: func() []string {
			return leftover(&settings.Settings{Certificates: []settings.Certificate{{Name: "home"}}}, []string{"removed"})
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan struct{})
	go func() { defer close(over); b.run(ctx, a.events) }()
	t.Cleanup(func() { cancel(); <-over })
}

func (a *asking) set(t *testing.T, asks ...sitter.Ask) {
	t.Helper()
	a.mu.Lock()
	a.asks = append([]sitter.Ask{}, asks...)
	a.mu.Unlock()
	select {
	case a.events <- sitter.Event{Kind: "state"}:
	case <-time.After(waitLimit):
		t.Fatal("nobody takes the event")
	}
}

// shows waits until Core shows exactly these ids and texts.
func (a *asking) shows(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		got := ""
		for _, id := range []string{"certsitter_configuration", "certsitter_home_restart", "certsitter_other"} {
			if n, there := a.core.Notifications()[id]; there {
				got += fmt.Sprintf("%s=%s ", strings.TrimPrefix(id, "certsitter_"), n.Message)
			}
		}
		if got = strings.TrimSpace(got); got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Home Assistant shows %q, want %q", got, want)
		}
	}
}

// requests are how often an action was asked of Core.
func (a *asking) requests(action string) (n int) {
	for _, r := range a.supervisor.Requests() {
		if strings.HasSuffix(r.Path, action) {
			n++
		}
	}
	return n
}

// asked waits until an action was asked of Core so often.
func (a *asking) asked(t *testing.T, action string, n int) {
	t.Helper()
	for end := time.Now().Add(waitLimit); a.requests(action) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s was asked %d times, want %d", action, a.requests(action), n)
		}
	}
}

func TestWhatPeopleAreAskedIsShown(t *testing.T) {
	t.Parallel()
	a := newAsking(t)
	create := func(id, text string) {
		if err := a.home.PersistentNotification(t.Context(), id, "", text); err != nil {
			t.Fatal(err)
		}
	}
	create("certsitter_configuration", "from before")
	create("certsitter_home_restart", "from before")
	create("certsitter_removed_restart", "from before, of one that left the configuration")
	create("certsitter_other", "another's")
	configuration := sitter.Ask{ID: sitter.AskConfiguration, Title: "c", Text: "one"}
	restart := sitter.Ask{ID: sitter.AskRestart("home"), Title: "r", Text: "restart"}
	a.run(t)
	a.set(t)
	a.shows(t, "other=another's")
	a.set(t, configuration)
	a.shows(t, "configuration=one other=another's")
	configuration.Text = "two"
	a.set(t, configuration, restart)
	a.shows(t, "configuration=two home_restart=restart other=another's")
	a.set(t, restart)
	a.shows(t, "home_restart=restart other=another's")

	// What a person has read does not come back by itself, but when it changes.
	creates := a.requests("persistent_notification/create")
	a.core.Dismiss("certsitter_home_restart")
	a.set(t, restart)
	a.asked(t, "/api/config", a.requests("/api/config")+3)
	a.shows(t, "other=another's")
	if n := a.requests("persistent_notification/create"); n != creates {
		t.Errorf("%d were created meanwhile", n-creates)
	}
	restart.Text = "restart it"
	a.set(t, restart)
	a.shows(t, "home_restart=restart it other=another's")
	a.set(t)
	a.shows(t, "other=another's")
}

// Core loses what it shows when it restarts, and does not answer meanwhile.
func TestWhatPeopleAreAskedComesBackAfterARestart(t *testing.T) {
	t.Parallel()
	a := newAsking(t)
	a.supervisor.Set(func(s *supervisor.Setup) { s.CoreDown = true })
	a.run(t)
	restart := sitter.Ask{ID: sitter.AskRestart("home"), Text: "restart"}
	a.set(t, restart)
	a.asked(t, "persistent_notification/create", 3)
	a.supervisor.Set(func(s *supervisor.Setup) { s.CoreDown = false })
	a.shows(t, "home_restart=restart")
	a.core.Forget()
	a.asked(t, "/api/config", a.requests("/api/config")+3)
	a.shows(t, "")
	a.core.Up()
	a.shows(t, "home_restart=restart")

	// Another Home Assistant, by a reload: what is asked is asked there.
	other := newAsking(t)
	a.mu.Lock()
	a.home = other.home
	a.mu.Unlock()
	a.set(t, restart)
	other.shows(t, "home_restart=restart")
	a.mu.Lock()
	a.home = nil
	a.mu.Unlock()
	a.set(t)
}

func TestWhoIsAskedInHomeAssistant(t *testing.T) {
	all := []sitter.Ask{{ID: sitter.AskConfiguration, Text: "token-1234"}, {ID: sitter.AskRestart("home"), Text: strings.Repeat("ü", askLength+1)}}
	for name, c := range map[string]struct {
		app, notify bool
		want        string
	}{
		"app":                 {true, true, "certsitter_configuration certsitter_home_restart"},
		"app, quiet":          {true, false, "certsitter_configuration"},
		"by its URL":          {false, true, "certsitter_configuration certsitter_home_restart"},
		"by its URL, quietly": {false, false, ""},
	} {
		d := &Daemon{o: Options{App: c.app, Redactor: settings.NewRedactor([]string{"token-1234"})}}
		d.inForce.Store(&force{settings: &settings.Settings{NotifyHomeAssistant: c.notify}})
		var ids []string
		for _, a := range d.wanted(all) {
			ids = append(ids, a.ID)
			if strings.Contains(a.Text, "token") || len([]rune(a.Text)) > askLength {
				t.Errorf("%s: the text is %q", name, a.Text)
			}
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
