package addon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCore plays Home Assistant, behind the Supervisor's proxy if proxied. It
// answers as Core 2026.11 does (components/api, components/config).
type fakeCore struct {
	proxied bool

	mu       sync.Mutex // guards the rest
	state    string     // "" = down
	recovery bool
	invalid  string // why the configuration is
	slow     int    // looks until it is up again
	stubborn bool   // accepts a restart and does nothing
	rude     bool   // drops the connection at a restart
	picky    bool   // its actions take no data
	says     answer // to an action; status 0 = 200
	services string
	entity   string
	asked    []string // "POST /api/… {body}"
}

const (
	supervised   = `[{"domain":"homeassistant","services":{"restart":{}}},{"domain":"hassio","services":{"app_restart":{},"addon_restart":{}}},{"domain":"notify","services":{"notify":{},"persistent_notification":{},"send_message":{},"mobile_app_pixel":{}}}]`
	olderWithApp = `[{"domain":"hassio","services":{"addon_restart":{}}}]`
	withoutApps  = `[{"domain":"homeassistant","services":{"restart":{}}},{"domain":"notify","services":{"persistent_notification":{}}}]`
)

func (f *fakeCore) start(t *testing.T) *Core {
	t.Helper()
	if f.state == "" {
		f.state = running
	}
	if f.services == "" {
		f.services = supervised
	}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c := &Core{URL: server.URL, Token: withToken}
	if f.proxied {
		c = (&Supervisor{URL: server.URL, Token: withToken}).Core()
	}
	c.rhythm = rhythm{order: 10 * time.Second, back: 10 * time.Second, look: time.Millisecond}
	return c
}

func (f *fakeCore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	path := r.URL.Path
	if f.proxied {
		path = strings.TrimPrefix(path, "/core")
	}
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+path+" "+string(body)))
	if r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "401: Unauthorized", http.StatusUnauthorized)
		return
	}
	if f.state == "" && f.slow > 0 {
		if f.slow--; f.slow == 0 {
			f.state = running
		}
		f.gone(w)
		return
	}
	switch {
	case f.state == "":
		f.gone(w)
	case path == "/api/config":
		fmt.Fprintf(w, `{"state":%q,"recovery_mode":%v,"version":"2026.11.0"}`, f.state, f.recovery)
	case path == "/api/services":
		fmt.Fprint(w, f.services)
	case path == "/api/config/core/check_config":
		f.check(w)
	case path == "/api/states/"+f.entity:
		fmt.Fprint(w, `{"entity_id":"x"}`)
	case path == "/api/services/homeassistant/restart" && f.says.status == 0:
		f.restart(w)
	case strings.HasPrefix(path, "/api/services/"):
		f.act(w, path, string(body))
	default:
		http.NotFound(w, r)
	}
}

// gone: nobody is there, which a proxy tells with 502.
func (f *fakeCore) gone(w http.ResponseWriter) {
	if f.proxied {
		http.Error(w, "502: Bad Gateway", http.StatusBadGateway)
		return
	}
	panic(http.ErrAbortHandler)
}

func (f *fakeCore) check(w http.ResponseWriter) {
	if f.invalid != "" {
		text, _ := json.Marshal(f.invalid)
		fmt.Fprintf(w, `{"result":"invalid","errors":%s,"warnings":null}`, text)
		return
	}
	fmt.Fprint(w, `{"result":"valid","errors":null,"warnings":null}`)
}

func (f *fakeCore) restart(w http.ResponseWriter) {
	if !f.stubborn {
		f.state = ""
	}
	if f.rude {
		f.gone(w)
		return
	}
	fmt.Fprint(w, "[]")
}

func (f *fakeCore) act(w http.ResponseWriter, path, body string) {
	domain, action, _ := strings.Cut(strings.TrimPrefix(path, "/api/services/"), "/")
	var offered []struct {
		Domain   string         `json:"domain"`
		Services map[string]any `json:"services"`
	}
	_ = json.Unmarshal([]byte(f.services), &offered)
	known := domain == "persistent_notification"
	for _, o := range offered {
		if o.Domain == domain && o.Services[action] != nil {
			known = true
		}
	}
	switch {
	case !known || f.picky && strings.Contains(body, `"data"`):
		http.Error(w, "400: Bad Request", http.StatusBadRequest)
	case f.says.status != 0:
		w.WriteHeader(f.says.status)
		_, _ = w.Write(f.says.body)
	default:
		fmt.Fprint(w, "[]")
	}
}

func (f *fakeCore) posts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.asked), func(s string) bool { return !strings.HasPrefix(s, "POST") })
}

func (f *fakeCore) restarts() int {
	n := 0
	for _, p := range f.posts() {
		if strings.Contains(p, "homeassistant/restart") {
			n++
		}
	}
	return n
}

// bothWays runs a test directly and through the Supervisor's proxy.
func bothWays(t *testing.T, test func(t *testing.T, proxied bool)) {
	for _, proxied := range []bool{false, true} {
		t.Run(map[bool]string{false: "direct", true: "supervised"}[proxied], func(t *testing.T) { test(t, proxied) })
	}
}

func TestRestart(t *testing.T) {
	bothWays(t, func(t *testing.T, proxied bool) {
		for _, rude := range []bool{false, true} { // its answer comes, or it takes it along
			f := &fakeCore{proxied: proxied, slow: 5, rude: rude}
			if err := f.start(t).Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := []string{"POST /api/config/core/check_config", "POST /api/services/homeassistant/restart {}"}
			if got := f.posts(); !slices.Equal(got, want) {
				t.Errorf("asked %q, want %q", got, want)
			}
			if f.state != running {
				t.Errorf("returned while it is %q", f.state)
			}
		}
	})
}

func TestACoreThatShouldNotBeRestartedIsNot(t *testing.T) {
	bothWays(t, func(t *testing.T, proxied bool) {
		for name, c := range map[string]struct {
			core *fakeCore
			want string
			kind error
		}{
			"its configuration is invalid": {&fakeCore{invalid: "Invalid config for 'http' at\nconfiguration.yaml, line 3"}, "not valid, so that it is not restarted: Invalid config for 'http' at configuration.yaml, line 3.", nil},
			"it starts":                    {&fakeCore{state: "STARTING"}, "not up yet (starting)", ErrNotUp},
			"it stops":                     {&fakeCore{state: "FINAL_WRITE"}, "not up yet (final write)", ErrNotUp},
			"it recovers":                  {&fakeCore{recovery: true}, "recovery mode", nil},
		} {
			f := c.core
			f.proxied = proxied
			err := f.start(t).Restart(t.Context())
			checkError(t, err, c.kind)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
			if f.restarts() != 0 {
				t.Errorf("%s: it was restarted", name)
			}
		}
	})
}

func TestARestartThatIsRefused(t *testing.T) {
	f := &fakeCore{says: answer{status: 500, body: []byte(`{"message":"The system cannot restart while a database upgrade is in progress."}`)}}
	err := f.start(t).Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "while a database upgrade is in progress") {
		t.Errorf("got %v", err)
	}
}

func TestARestartThatDoesNotCome(t *testing.T) {
	f := &fakeCore{stubborn: true}
	c := f.start(t)
	c.rhythm.order = 50 * time.Millisecond
	err := c.Restart(t.Context())
	checkError(t, err, nil)
	if err == nil || !strings.Contains(err.Error(), "has not gone down") {
		t.Errorf("got %v", err)
	}
}

// A slow machine must not be restarted again and again.
func TestACoreThatIsLateIsWaitedForNotRestartedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, proxied bool) {
		f := &fakeCore{proxied: proxied}
		c := f.start(t)
		c.rhythm.back = 30 * time.Millisecond
		for range 2 {
			err := c.Restart(t.Context())
			checkError(t, err, ErrNotUp)
			if err == nil || !strings.Contains(err.Error(), "not back within 30ms") {
				t.Fatalf("got %v", err)
			}
		}
		f.mu.Lock()
		f.state = running
		f.mu.Unlock()
		c.rhythm.back = 10 * time.Second
		if err := c.Restart(t.Context()); err != nil {
			t.Error(err)
		}
		if f.restarts() != 1 {
			t.Errorf("restarted %d times", f.restarts())
		}
		f.slow = 2
		if err := c.Restart(t.Context()); err != nil || f.restarts() != 2 {
			t.Errorf("the next restart: %v, %d restarts", err, f.restarts())
		}
	})
}

func TestARestartThatEndsInRecoveryModeIsSaid(t *testing.T) {
	f := &fakeCore{slow: 3}
	c := f.start(t)
	c.rhythm.look = 20 * time.Millisecond
	go func() {
		for f.restarts() == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.recovery = true
	}()
	err := c.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "recovery mode") {
		t.Errorf("got %v", err)
	}
}

func TestARestartIsGivenUpWhenWeAreStopped(t *testing.T) {
	stopped := errors.New("the daemon ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	f := &fakeCore{}
	c := f.start(t)
	go func() {
		for f.restarts() == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(stopped)
	}()
	if err := c.Restart(ctx); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

func TestRestartApp(t *testing.T) {
	for name, c := range map[string]struct {
		core   *fakeCore
		want   string // the last order
		refuse string
	}{
		"now":           {&fakeCore{}, `POST /api/services/hassio/app_restart {"app":"core_nginx_proxy"}`, ""},
		"before 2026.4": {&fakeCore{services: olderWithApp}, `POST /api/services/hassio/addon_restart {"addon":"core_nginx_proxy"}`, ""},
		"no Supervisor": {&fakeCore{services: withoutApps}, "", "has no Supervisor"},
		"no such app":   {&fakeCore{says: answer{status: 500, body: []byte(`{"message":"Failed to restart app core_nginx_proxy: App is not installed"}`)}}, "", "App is not installed"},
		"older refusal": {&fakeCore{says: answer{status: 500, body: []byte("500 Internal Server Error")}}, "", "is it installed"},
		"refused":       {&fakeCore{says: answer{status: 400, body: []byte("400: Bad Request")}}, "", "is its slug right"},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.core
			err := f.start(t).RestartApp(t.Context(), "core_nginx_proxy")
			checkError(t, err, nil)
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) {
					t.Errorf("got %v, want %q", err, c.refuse)
				}
				return
			}
			if err != nil || !slices.Equal(f.posts(), []string{c.want}) {
				t.Errorf("got %v, asked %q", err, f.posts())
			}
		})
	}
}

func TestASlugIsNoPath(t *testing.T) {
	f := &fakeCore{}
	c := f.start(t)
	for _, slug := range []string{"", "a/b", "../core", "a b", "x\n", strings.Repeat("a", 101)} {
		if err := c.RestartApp(t.Context(), slug); err == nil {
			t.Errorf("%q is taken for a slug", slug)
		}
	}
	if len(f.posts()) > 0 {
		t.Errorf("asked %q", f.posts())
	}
}

// What Home Assistant, the Supervisor, or somebody else at that address answers.
func TestWhatIsSaidOfARefusal(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		supervised bool
		want       string
		kind       error
	}{
		"wrong token":        {401, false, "new long-lived access token as an administrator", nil},
		"not allowed":        {401, true, "the Supervisor does not let us", nil},
		"banned":             {403, false, "ip_bans.yaml", nil},
		"forbidden":          {403, true, "lacks a permission", nil},
		"another server":     {404, false, "check homeassistant_url", nil},
		"starting":           {502, true, "not up yet (status 502)", ErrNotUp},
		"a proxy of its own": {503, false, "not up yet (status 503)", ErrNotUp},
		"moved":              {301, false, "leads on to https://ha.example.org: write that into homeassistant_url", nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://ha.example.org/api/config?x=1")
				w.WriteHeader(c.status)
			}))
			defer server.Close()
			core := &Core{URL: server.URL + "/", Token: withToken, supervised: c.supervised}
			for deed, err := range map[string]error{
				"restart": core.Restart(t.Context()),
				"app":     core.RestartApp(t.Context(), "x"),
				"notify":  core.Notify(t.Context(), "mobile_app_pixel", "", "m", nil),
				"show":    core.PersistentNotification(t.Context(), "id", "", "m"),
			} {
				checkError(t, err, c.kind)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, want %q", deed, err, c.want)
				}
			}
		})
	}
}

func TestWhatIsSaidOfAConnection(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	encrypted := httptest.NewTLSServer(http.NotFoundHandler())
	defer encrypted.Close()
	encrypted.Config.ErrorLog = nil
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, c := range map[string]struct {
		core *Core
		want string
		kind error
	}{
		"nobody listens":       {&Core{URL: gone.URL, Token: withToken}, "cannot be reached", ErrNotUp},
		"https to plain HTTP":  {&Core{URL: "https" + strings.TrimPrefix(plain.URL, "http"), Token: withToken}, "write http", nil},
		"unknown certificate":  {&Core{URL: encrypted.URL, Token: withToken}, "certificate is not accepted", nil},
		"no token":             {&Core{URL: plain.URL}, "homeassistant_token is empty", nil},
		"a token of two lines": {&Core{URL: plain.URL, Token: func() string { return token + "\n" + token }}, "as one word", nil},
		"no Supervisor token":  {(&Supervisor{Token: func() string { return "" }}).Core(), "SUPERVISOR_TOKEN is not set", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.core.Running(t.Context())
			checkError(t, err, c.kind)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAnEndlessAnswerIsNotReadToItsEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for chunk := strings.Repeat("x", 1<<16); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	if err := (&Core{URL: server.URL, Token: withToken}).Running(t.Context()); err == nil {
		t.Error("that was no answer")
	}
}
