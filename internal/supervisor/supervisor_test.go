package supervisor_test

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
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/supervisor"
)

func start(t *testing.T, setup supervisor.Setup) *supervisor.Supervisor {
	t.Helper()
	s, err := supervisor.Start("127.0.0.1:0", setup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *supervisor.Supervisor, method, path, token, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestWhoMayAskWhat(t *testing.T) {
	const token = supervisor.Token
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) })
	with := func(change func(*supervisor.Setup)) supervisor.Setup {
		s := supervisor.Setup{Slug: "a0d7b954_certsitter", Core: handler}
		if change != nil {
			change(&s)
		}
		return s
	}
	down := with(func(s *supervisor.Setup) { s.CoreDown = true })
	for name, c := range map[string]struct {
		setup       supervisor.Setup
		path, token string
		status      int
		want        string
	}{
		"no token":                {with(nil), "/addons/self/info", "", 401, ""},
		"a wrong token":           {with(nil), "/addons/self/info", "x", 403, ""},
		"itself":                  {with(nil), "/addons/self/info", token, 200, `"slug":"a0d7b954_certsitter"`},
		"another app":             {with(nil), "/addons/core_mosquitto/info", token, 403, ""},
		"the system":              {with(func(s *supervisor.Setup) { s.TimeZone = "Europe/Berlin" }), "/info", token, 200, `"timezone":"Europe/Berlin"`},
		"not ready":               {with(func(s *supervisor.Setup) { s.NotReady = true }), "/info", token, 400, "System is not ready"},
		"no broker":               {with(nil), "/services/mqtt", token, 400, `{"message":"Service not enabled","result":"error"}`},
		"mqtt undeclared":         {with(func(s *supervisor.Setup) { s.NoServices = true }), "/services/mqtt", token, 403, `No access to mqtt service`},
		"a broker":                {with(func(s *supervisor.Setup) { s.Broker = &supervisor.Broker{Host: "core-mosquitto", Port: 1883} }), "/services/mqtt", token, 200, `"port":1883`},
		"Core":                    {with(nil), "/core/api/config", token, 200, "GET /api/config"},
		"Core, a wrong token":     {with(nil), "/core/api/config", "x", 401, ""},
		"Core, no right to it":    {with(func(s *supervisor.Setup) { s.NoHomeAssistantAPI = true }), "/core/api/config", token, 401, ""},
		"Core is down":            {down, "/core/api/config", token, 502, ""},
		"Core's Supervisor paths": {with(nil), "/core/api/hassio/addons", token, 403, ""},
		"Core's hassio actions":   {with(nil), "/core/api/services/hassio/app_restart", token, 200, ""},
		"restarting Core":         {with(nil), "/core/restart", token, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := ask(t, start(t, c.setup), http.MethodGet, c.path, c.token, "")
			if status != c.status || !strings.Contains(text, c.want) {
				t.Errorf("got %d %s, want %d %s", status, text, c.status, c.want)
			}
		})
	}
}

func TestPortsAndOptionsAreAsTheUserLeftThem(t *testing.T) {
	s := start(t, supervisor.Setup{Ports: map[string]int{"80/tcp": 0, "443/tcp": 8443}, Options: json.RawMessage(`{"cert_file":"x"}`)})
	_, text := ask(t, s, http.MethodGet, "/addons/self/info", supervisor.Token, "")
	var info struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(info.Data["network"], info.Data["options"]); got != "map[443/tcp:8443 80/tcp:<nil>] map[cert_file:x]" {
		t.Error(got)
	}
}

func TestARealCoreIsAskedWithItsOwnToken(t *testing.T) {
	var seen []string
	core := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, r.Method+" "+r.URL.String()+" "+r.Header.Get("Authorization")+" "+string(body))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer core.Close()
	s := start(t, supervisor.Setup{CoreURL: core.URL, CoreToken: "long-lived"})
	status, _ := ask(t, s, http.MethodPost, "/core/api/services/a/b?return_response", supervisor.Token, `{"x":1}`)
	if want := []string{`POST /api/services/a/b?return_response Bearer long-lived {"x":1}`}; !slices.Equal(seen, want) || status != http.StatusAccepted {
		t.Errorf("status %d, Core saw %q", status, seen)
	}
	core.Close()
	if status, _ := ask(t, s, http.MethodGet, "/core/api/config", supervisor.Token, ""); status != http.StatusBadGateway {
		t.Errorf("without Core: status %d", status)
	}
	want := []string{`202 POST /core/api/services/a/b {"x":1}`, "502 GET /core/api/config"}
	if got := fmt.Sprint(s.Requests()); got != fmt.Sprint(want) {
		t.Errorf("noted %v, want %v", got, want)
	}
}

func TestItLeavesAndReturns(t *testing.T) {
	s := start(t, supervisor.Setup{})
	s.Leave()
	if _, err := http.Get(s.URL()); err == nil {
		t.Error("it is still there")
	}
	if err := s.Return(); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(t, s, http.MethodGet, "/info", supervisor.Token, ""); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

func TestASlowAnswerAndAClientThatGivesUp(t *testing.T) {
	s := start(t, supervisor.Setup{Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() {
		_, err := http.DefaultClient.Do(request)
		over <- err
	}()
	for end := time.Now().Add(10 * time.Second); len(s.Requests()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the request does not arrive")
		}
	}
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Set(func(setup *supervisor.Setup) { setup.Delay = 0 })
	if status, _ := ask(t, s, http.MethodGet, "/supervisor/ping", "", ""); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	got, err := s.WaitFor(t.Context(), func(r supervisor.Request) bool { return r.Path == "/supervisor/ping" })
	if err != nil || got.Status != http.StatusOK {
		t.Error(got, err)
	}
	if got := s.Requests()[0].Status; got != 0 {
		t.Errorf("the abandoned one has status %d", got)
	}
}
