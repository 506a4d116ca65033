package addon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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

func TestSelf(t *testing.T) {
	const body = `{"result":"ok","data":{"slug":"a0d7b954_certsitter","version":"1.2.3","ingress":true,
		"ingress_url":"/api/hassio_ingress/abc/","network":{"80/tcp":null,"443/tcp":8443}}}`
	app, err := fakeSupervisor(t, "/addons/self/info", 200, body).Self(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if app.Slug != "a0d7b954_certsitter" || app.Version != "1.2.3" || !app.Ingress || app.IngressEntry != "/api/hassio_ingress/abc/" {
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

func TestASupervisorThatIsNotThere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	_, err := (&Supervisor{URL: server.URL, Token: withToken}).MQTT(t.Context())
	checkError(t, err, ErrNotUp)
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("got %v", err)
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
