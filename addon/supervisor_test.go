package addon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/supervisor"
)

const token = "eyJhbGciOi-do-not-leak"

func withToken() string { return token }

// A supervisor that answers one path with one text; others are not found.
func fakeSupervisor(t *testing.T, path string, status int, body string) *Supervisor {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path != path:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}))
	t.Cleanup(server.Close)
	return &Supervisor{URL: server.URL, Token: withToken}
}

func TestMQTT(t *testing.T) {
	const rest = `"addon":"core_mosquitto","username":"addons","password":"s3cret","protocol":"3.1.1"}}`
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // the broker, or the error
		kind   error
	}{
		"as the Mosquitto app says it": {200, `{"result":"ok","data":{"host":"core-mosquitto","port":1883,"ssl":false,` + rest, "tcp://core-mosquitto:1883", nil},
		"with TLS":                     {200, `{"result":"ok","data":{"host":"core-mosquitto","port":8883,"ssl":true,` + rest, "ssl://core-mosquitto:8883", nil},
		"port as documented":           {200, `{"result":"ok","data":{"host":"10.0.0.5","port":"1884","ssl":false,` + rest, "tcp://10.0.0.5:1884", nil},
		"IPv6":                         {200, `{"result":"ok","data":{"host":"fd00::5","port":1883,"ssl":false,` + rest, "tcp://[fd00::5]:1883", nil},
		"none":                         {400, `{"result":"error","message":"Service not enabled"}`, "install and start the Mosquitto broker", ErrNoBroker},
		"forbidden":                    {403, `{"result":"error","message":"forbidden"}`, "lacks a permission", nil},
		"starting":                     {502, `bad gateway`, "is not ready", ErrNotUp},
		"no port":                      {200, `{"result":"ok","data":{"host":"core-mosquitto","port":0,` + rest, "without a host and a port", nil},
		"port too large":               {200, `{"result":"ok","data":{"host":"core-mosquitto","port":70000,` + rest, "without a host and a port", nil},
		"no envelope":                  {200, `{"host":"core-mosquitto","port":1883}`, "is not understood", nil},
		"no JSON":                      {200, `<html>`, "is not understood", nil},
		"another status":               {418, `{"result":"error","message":"a\nteapot"}`, "status 418: a teapot", nil},
	} {
		t.Run(name, func(t *testing.T) {
			broker, err := fakeSupervisor(t, "/services/mqtt", c.status, c.body).MQTT(t.Context())
			checkError(t, err, c.kind)
			got := fmt.Sprint(broker)
			if err != nil {
				got = err.Error()
			} else if broker.Username != "addons" || broker.Password != "s3cret" {
				t.Errorf("credentials: %q, %q", broker.Username, broker.Password)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// checkError holds an error against what the program may act on, and looks for
// the token in it.
func checkError(t *testing.T, err, kind error) {
	t.Helper()
	for _, k := range []error{ErrNotUp, ErrNoBroker} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("error %v: is %q: %v", err, k, errors.Is(err, k))
		}
	}
	if err != nil && strings.Contains(err.Error(), token) {
		t.Errorf("the token is in the error %q", err)
	}
}

func TestABrokersPasswordIsNotPrinted(t *testing.T) {
	b := Broker{Host: "h", Port: 1, Password: "s3cret"}
	if s := fmt.Sprintf("%v %+v %s", b, b, b); strings.Contains(s, "s3cret") {
		t.Error(s)
	}
}

// startSupervisor starts a Supervisor that behaves like the real one.
func startSupervisor(t *testing.T, setup supervisor.Setup) *supervisor.Supervisor {
	t.Helper()
	s, err := supervisor.Start("127.0.0.1:0", setup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSelf(t *testing.T) {
	app, err := asked(startSupervisor(t, supervisor.Setup{
		Slug: "a0d7b954_certsitter", Version: "1.2.3", Ports: map[string]int{"80/tcp": 0, "443/tcp": 8443}, Options: json.RawMessage(`{"page_password":"s3cret"}`),
	})).Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if app.Slug != "a0d7b954_certsitter" || app.Version != "1.2.3" || !app.Ingress || app.IngressEntry != "/api/hassio_ingress/"+supervisor.IngressToken+"/" {
		t.Errorf("got %+v", app)
	}
	for port, want := range map[string]bool{"80/tcp": false, "443/tcp": true, "8099/tcp": false} {
		if app.Mapped(port) != want {
			t.Errorf("%s mapped: %v", port, app.Mapped(port))
		}
	}
	if app.Ports["443/tcp"] != 8443 {
		t.Errorf("443/tcp is at %d", app.Ports["443/tcp"])
	}
	if string(app.Options) != `{"page_password":"s3cret"}` {
		t.Errorf("options: %s", app.Options)
	}
	if text := fmt.Sprintf("%v %+v %s", app, app, app); strings.Contains(text, "s3cret") {
		t.Errorf("a secret is printed: %s", text)
	}
}

func TestTimeZone(t *testing.T) {
	zone, err := asked(startSupervisor(t, supervisor.Setup{TimeZone: "Europe/Berlin"})).TimeZone(t.Context())
	if err != nil || zone != "Europe/Berlin" {
		t.Errorf("got %q, %v", zone, err)
	}
}

// What the real Supervisor does besides answering.
func TestTheSupervisorsMoods(t *testing.T) {
	for name, c := range map[string]struct {
		setup supervisor.Setup
		leave bool
		want  string
		kind  error
	}{
		"no broker":          {supervisor.Setup{}, false, "has no MQTT broker", ErrNoBroker},
		"mqtt is undeclared": {supervisor.Setup{NoServices: true}, false, "lacks a permission", nil},
		"another token":      {supervisor.Setup{Token: "another"}, false, "restart the app", nil},
		"it starts":          {supervisor.Setup{NotReady: true}, false, "is not ready", ErrNotUp},
		"it is updated":      {supervisor.Setup{}, true, "cannot be reached", ErrNotUp},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSupervisor(t, c.setup)
			if c.leave {
				s.Leave()
			}
			_, err := asked(s).MQTT(t.Context())
			checkError(t, err, c.kind)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestASlowSupervisorIsNotWaitedForLongerThanTheCallerLikes(t *testing.T) {
	s := startSupervisor(t, supervisor.Setup{Delay: time.Hour})
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, late)
	defer cancel()
	if _, err := asked(s).Self(ctx); !errors.Is(err, late) {
		t.Errorf("got %v", err)
	}
}

func TestCoreThroughTheSupervisor(t *testing.T) {
	core := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "[]") })
	for name, c := range map[string]struct {
		setup supervisor.Setup
		want  string
		kind  error
	}{
		"it is up":         {supervisor.Setup{Core: core}, "", nil},
		"it is down":       {supervisor.Setup{Core: core, CoreDown: true}, "not up yet (status 502)", ErrNotUp},
		"no right to it":   {supervisor.Setup{Core: core, NoHomeAssistantAPI: true}, "does not let us talk to Home Assistant (401)", nil},
		"an unknown token": {supervisor.Setup{Core: core, Token: "another"}, "does not let us talk to Home Assistant (401)", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := asked(startSupervisor(t, c.setup)).Core().DismissNotification(t.Context(), "certsitter_home")
			checkError(t, err, c.kind)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSelfWithoutPortsAndIngress(t *testing.T) {
	app, err := fakeSupervisor(t, "/addons/self/info", 200, `{"result":"ok","data":{"slug":"x","network":null,"ingress_url":null}}`).Self(t.Context())
	if err != nil || app.Mapped("80/tcp") || app.Ingress || app.IngressEntry != "" {
		t.Errorf("got %+v, %v", app, err)
	}
}

func TestTheSupervisorsTokenIsAskedForEachTime(t *testing.T) {
	s := fakeSupervisor(t, "/addons/self/info", 200, `{"result":"ok","data":{"slug":"x"}}`)
	s.Token = nil
	t.Setenv("SUPERVISOR_TOKEN", "")
	_, err := s.Self(t.Context())
	if err == nil || !strings.Contains(err.Error(), "SUPERVISOR_TOKEN is not set") {
		t.Errorf("without a token: %v", err)
	}
	t.Setenv("SUPERVISOR_TOKEN", "one-of-before")
	_, err = s.Self(t.Context())
	if err == nil || !strings.Contains(err.Error(), "restart the app") {
		t.Errorf("with a wrong one: %v", err)
	}
	t.Setenv("SUPERVISOR_TOKEN", token+"\n")
	if _, err = s.Self(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnotherPlaceOfTheSupervisor(t *testing.T) {
	s := startSupervisor(t, supervisor.Setup{Slug: "x"})
	t.Setenv("SUPERVISOR_API", s.URL()+"/")
	t.Setenv("SUPERVISOR_TOKEN", supervisor.Token)
	if app, err := (&Supervisor{}).Self(t.Context()); err != nil || app.Slug != "x" {
		t.Errorf("got %v, %v", app, err)
	}
}

func TestBeingStoppedIsNoFailureOfTheSupervisor(t *testing.T) {
	stopped := errors.New("the daemon ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	_, err := fakeSupervisor(t, "/services/mqtt", 200, "{}").MQTT(ctx)
	if !errors.Is(err, stopped) || errors.Is(err, ErrNotUp) {
		t.Errorf("got %v", err)
	}
}

func TestTheSupervisorIsNotAskedThroughAProxy(t *testing.T) {
	if transport := (&Supervisor{}).peer().httpClient().Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("there is a proxy in between")
	}
	if transport := (&Supervisor{}).Core().peer().httpClient().Transport.(*http.Transport); transport.Proxy != nil {
		t.Error("there is a proxy in between us and Core")
	}
}
