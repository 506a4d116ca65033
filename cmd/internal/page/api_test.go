package page

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

func equalFold(a, b string) bool { return strings.EqualFold(a, b) }

func unmarshal[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

// ask sends one request from this machine.
func ask(t *testing.T, s *Server, method, target string, header map[string]string, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:40000", "127.0.0.1:8099"
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestRenewOptions(t *testing.T) {
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	jsonBody := map[string]string{"Content-Type": "application/json"}
	for _, c := range []struct {
		name, query, body string
		header            map[string]string
		status            int
		want              sitter.RenewOptions
	}{
		{"nothing", "", "", nil, 202, sitter.RenewOptions{Force: true}},
		{"JSON", "", `{"force":true,"dry_run":true}`, jsonBody, 202, sitter.RenewOptions{Force: true, DryRun: true}},
		{"JSON false", "", `{"force":false}`, jsonBody, 202, sitter.RenewOptions{}},
		{"JSON that curl calls a form", "", `{"staging":true}`, form, 202, sitter.RenewOptions{Force: true, Staging: true}},
		{"form", "", "force=1&dry_run=on", form, 202, sitter.RenewOptions{Force: true, DryRun: true}},
		{"query", "?force=true", "", nil, 202, sitter.RenewOptions{Force: true}},
		{"bare query", "?dry_run", "", nil, 202, sitter.RenewOptions{Force: true, DryRun: true}},
		{"off", "?force=0", "", nil, 202, sitter.RenewOptions{}},
		{"the body overrules the query", "?force=1", "force=0", form, 202, sitter.RenewOptions{}},
		{"misspelt", "?dryrun=1", "", nil, 400, sitter.RenewOptions{}},
		{"misspelt in JSON", "", `{"dry-run":true}`, jsonBody, 400, sitter.RenewOptions{}},
		{"neither true nor false", "?force=maybe", "", nil, 400, sitter.RenewOptions{}},
		{"a number", "", `{"force":1}`, jsonBody, 400, sitter.RenewOptions{}},
		{"broken JSON", "", `{"force":`, jsonBody, 400, sitter.RenewOptions{}},
		{"a list", "", `[true]`, jsonBody, 400, sitter.RenewOptions{}},
		{"too long", "", "force=" + strings.Repeat("1", bodyLimit), form, 400, sitter.RenewOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			loop := newFake(sample())
			var got *sitter.RenewOptions
			loop.renew = func(name string, o sitter.RenewOptions) error {
				if name != "home" {
					t.Errorf("renews %q", name)
				}
				got = &o
				return nil
			}
			w := ask(t, newServer(Config{}, loop), "POST", "/api/certificates/home/renew"+c.query, c.header, c.body)
			if w.Code != c.status {
				t.Fatalf("answered %d: %s", w.Code, w.Body)
			}
			if c.status != 202 {
				if got != nil {
					t.Errorf("renewed with %+v", *got)
				}
				if told := unmarshal[trouble](t, w.Body.Bytes()); told.Code != "request" || !strings.HasSuffix(told.Error, ".") {
					t.Errorf("says %+v", told)
				}
				return
			}
			if got == nil || *got != c.want {
				t.Errorf("asked for %+v, want %+v", got, c.want)
			}
			if w.Body.String() != "{\"accepted\":true}\n" {
				t.Errorf("says %s", w.Body)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	until := noon.Add(90 * time.Second)
	for _, c := range []struct {
		err    error
		status int
		want   trouble
		after  string
	}{
		{&sitter.Refused{Code: "unknown", Sentence: "There is none."}, 404, trouble{Error: "There is none.", Code: "unknown"}, ""},
		{&sitter.Refused{Code: "not_managed", Sentence: "Only watched."}, 409, trouble{Error: "Only watched.", Code: "not_managed"}, ""},
		{&sitter.Refused{Code: "busy", Sentence: "Under way."}, 409, trouble{Error: "Under way.", Code: "busy"}, ""},
		{&sitter.Refused{Code: "clock", Sentence: "Clock."}, 409, trouble{Error: "Clock.", Code: "clock"}, ""},
		{&sitter.Refused{Code: "staging", Sentence: "None."}, 409, trouble{Error: "None.", Code: "staging"}, ""},
		{&sitter.Refused{Code: "too_soon", Sentence: "Wait.", Until: until}, 429, trouble{Error: "Wait.", Code: "too_soon", Until: until}, "90"},
		{&sitter.Refused{Code: "retry_after", Sentence: "Wait.", Until: until}, 429, trouble{Error: "Wait.", Code: "retry_after", Until: until}, "90"},
		{&sitter.Refused{Code: "hourly_cap", Sentence: "Wait.", Until: until}, 429, trouble{Error: "Wait.", Code: "hourly_cap", Until: until}, "90"},
		{&sitter.Refused{Code: "issuances", Sentence: "Wait."}, 429, trouble{Error: "Wait.", Code: "issuances"}, ""},
		{&sitter.Refused{Code: "too_soon", Sentence: "Over.", Until: noon.Add(-time.Hour)}, 429, trouble{Error: "Over.", Code: "too_soon", Until: noon.Add(-time.Hour)}, ""},
		{errors.New("state folder is full"), 500, trouble{Error: "state folder is full", Code: "failed"}, ""},
	} {
		loop := newFake(sample())
		loop.renew = func(string, sitter.RenewOptions) error { return c.err }
		s := newServer(Config{}, loop)
		w := ask(t, s, "POST", "/api/certificates/home/renew", nil, "")
		if w.Code != c.status || w.Header().Get("Retry-After") != c.after {
			t.Errorf("%v: %d, Retry-After %q; want %d, %q", c.err, w.Code, w.Header().Get("Retry-After"), c.status, c.after)
		}
		if got := unmarshal[trouble](t, w.Body.Bytes()); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: says %+v", c.err, got)
		}
		// the same for a browser without JavaScript
		w = ask(t, s, "POST", "/api/certificates/home/renew", map[string]string{"Accept": "text/html,*/*"}, "")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want.Error) || !strings.Contains(w.Body.String(), `<base href="../../../">`) {
			t.Errorf("%v: the page is %d %s", c.err, w.Code, w.Body)
		}
	}
}

func TestBrowserWithoutJavaScriptIsRedirected(t *testing.T) {
	s := newServer(Config{}, newFake(sample()))
	for path, want := range map[string]string{
		"/api/check":                   "../?done=check",
		"/api/notify/test":             "../../?done=notify",
		"/api/certificates/home/renew": "../../../?done=renew",
		"/api/homeassistant/restart":   "../../?done=restart",
	} {
		w := ask(t, s, "POST", path, map[string]string{"Accept": "text/html", "Origin": "http://127.0.0.1:8099"}, "")
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != want {
			t.Errorf("%s: %d to %q, want %q", path, w.Code, w.Header().Get("Location"), want)
		}
	}
	if page := ask(t, s, "GET", "/?done=renew", nil, "").Body.String(); !strings.Contains(page, english().Done["renew"]) {
		t.Error("the page does not say what was done")
	}
	if page := ask(t, s, "GET", "/?done=anything+else", nil, "").Body.String(); strings.Contains(page, "anything") {
		t.Error("the page repeats its query")
	}
}

func TestNotify(t *testing.T) {
	loop := newFake(sample())
	s := newServer(Config{}, loop)
	var asked string
	answer := []sitter.Delivery{{Target: "ntfy_1a2b3c"}, {Target: "telegram_99aa00"}}
	loop.testNotify = func(target string) ([]sitter.Delivery, error) {
		asked = target
		return answer, nil
	}
	w := ask(t, s, "POST", "/api/notify/test", nil, `{"target":"ntfy_1a2b3c"}`)
	if w.Code != 200 || asked != "ntfy_1a2b3c" || !reflect.DeepEqual(unmarshal[accepted](t, w.Body.Bytes()).Deliveries, answer) {
		t.Errorf("asked %q, answered %d %s", asked, w.Code, w.Body)
	}
	answer[1].Error = "401 Unauthorized"
	w = ask(t, s, "POST", "/api/notify/test", nil, "")
	told := unmarshal[trouble](t, w.Body.Bytes())
	if w.Code != 502 || told.Code != "undelivered" || told.Error != "Not delivered to telegram_99aa00: 401 Unauthorized" || !reflect.DeepEqual(told.Deliveries, answer) {
		t.Errorf("one that did not arrive: %d %s", w.Code, w.Body)
	}
	answer = nil
	if w = ask(t, s, "POST", "/api/notify/test", nil, ""); w.Code != 409 {
		t.Errorf("without targets: %d %s", w.Code, w.Body)
	}
}

func TestRoutes(t *testing.T) {
	s := newServer(Config{Downloads: downloads()}, newFake(sample()))
	for _, c := range []struct {
		method, path string
		status       int
		kind         string
	}{
		{"GET", "/files/dashboard.yaml", 200, "application/yaml"},
		{"HEAD", "/files/dashboard.yaml", 200, "application/yaml"},
		{"GET", "/files/certsitter.rules", 500, "application/json"},
		{"GET", "/files/page.html", 404, ""},
		{"GET", "/files/", 404, ""},
		{"GET", "/files/..%2fpage.go", 404, ""},
		{"POST", "/files/dashboard.yaml", 405, ""},
		{"POST", "/api/homeassistant/restart", 202, "application/json"},
		{"GET", "/api/homeassistant/restart", 405, ""},
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/page.css", 200, "text/css; charset=utf-8"},
		{"GET", "/page.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/icon.svg", 200, "image/svg+xml"},
		{"GET", "/api/state", 200, "application/json"},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"},
		{"GET", "/healthz", 200, "text/plain; charset=utf-8"},
		{"GET", "/page.html", 404, ""},
		{"GET", "/nowhere", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/api/check", 405, ""},
		{"DELETE", "/api/check", 405, ""},
		{"POST", "/api/certificates/home/revoke", 404, ""}, // on the control socket only
	} {
		w := ask(t, s, c.method, c.path, nil, "")
		if w.Code != c.status || c.kind != "" && w.Header().Get("Content-Type") != c.kind {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Header().Get("Content-Type"))
		}
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Frame-Options": "SAMEORIGIN",
		} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s %s: %s is %q", c.method, c.path, header, got)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'self'") {
			t.Errorf("%s %s: %s", c.method, c.path, csp)
		}
	}
}

func TestFiles(t *testing.T) {
	s := newServer(Config{Downloads: downloads()}, newFake(sample()))
	if got := ask(t, s, "GET", "/files/dashboard.yaml", nil, "").Body.String(); got != "title: \"Certificates\" # <b>\n" {
		t.Errorf("the file is %q", got)
	}
	if got := unmarshal[trouble](t, ask(t, s, "GET", "/files/certsitter.rules", nil, "").Body.Bytes()); got.Error != "There is no broker yet." {
		t.Errorf("one that cannot be made: %+v", got)
	}
	page := ask(t, s, "GET", "/", nil, "").Body.String()
	for _, want := range []string{`<a href="files/dashboard.yaml" download="dashboard.yaml">Dashboard for Home Assistant</a>`, `data-copy="files/dashboard.yaml"`, `<a href="files/certsitter.rules"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if strings.Contains(page, `data-copy="files/certsitter.rules"`) {
		t.Error("what is not to be copied has a button for it")
	}
	s.Reconfigure(Config{})
	if w := ask(t, s, "GET", "/files/dashboard.yaml", nil, ""); w.Code != 404 || strings.Contains(ask(t, s, "GET", "/", nil, "").Body.String(), english().Downloads) {
		t.Errorf("without files: %d", w.Code)
	}
}

func TestRestartHomeAssistant(t *testing.T) {
	loop := newFake(sample())
	s := newServer(Config{}, loop)
	loop.restart = func() error {
		return &sitter.Refused{Code: "no_homeassistant", Sentence: "There is no Home Assistant."}
	}
	if w := ask(t, s, "POST", "/api/homeassistant/restart", nil, ""); w.Code != 409 || unmarshal[trouble](t, w.Body.Bytes()).Error != "There is no Home Assistant." {
		t.Errorf("refused: %d %s", w.Code, w.Body)
	}
	asked := 0
	loop.restart = func() error { asked++; return nil }
	if w := serve(s, newRequest("POST", "/api/homeassistant/restart", "192.168.1.20:1")); w.Code != 403 || asked != 0 {
		t.Errorf("from beyond: %d, asked %d times", w.Code, asked)
	}
	if w := ask(t, s, "POST", "/api/homeassistant/restart", nil, ""); w.Code != 202 || asked != 1 {
		t.Errorf("%d, asked %d times", w.Code, asked)
	}
}

func TestStateIsTheSnapshot(t *testing.T) {
	w := ask(t, newServer(Config{}, newFake(sample())), "GET", "/api/state", nil, "")
	if got := unmarshal[*sitter.Snapshot](t, w.Body.Bytes()); !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v", got)
	}
}

func TestBeforeTheFirstLook(t *testing.T) {
	for name, snap := range map[string]*sitter.Snapshot{"nil": nil, "empty": {}} {
		s := newServer(Config{Version: "0.3.0"}, newFake(snap))
		for path, want := range map[string]int{"/": 200, "/healthz": 503, "/api/state": 503, "/metrics": 200} {
			if w := ask(t, s, "GET", path, nil, ""); w.Code != want {
				t.Errorf("%s snapshot, %s: %d %s", name, path, w.Code, w.Body)
			}
		}
		if page := ask(t, s, "GET", "/", nil, "").Body.String(); !strings.Contains(page, english().Starting) || strings.Contains(page, english().Setup) {
			t.Errorf("%s snapshot: the page is %s", name, page)
		}
		if got := ask(t, s, "GET", "/metrics", nil, "").Body.String(); !strings.HasSuffix(got, "certsitter_build_info{version=\"0.3.0\"} 1\n") {
			t.Errorf("%s snapshot: metrics are %s", name, got)
		}
	}
}

func TestOwnScriptIsSmall(t *testing.T) {
	f, err := files.Open("page.js")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || len(b) > 15<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func FuzzBody(f *testing.F) {
	f.Add("force=1", "application/x-www-form-urlencoded", "dry_run=1")
	f.Add(`{"force":true}`, "application/json", "")
	f.Add(`{"force":null}`, "", "%zz")
	f.Add(`{`, "application/json; charset", "a=b;c")
	f.Fuzz(func(t *testing.T, body, kind, query string) {
		loop := newFake(sample())
		renewed := false
		loop.renew = func(string, sitter.RenewOptions) error { renewed = true; return nil }
		r := httptest.NewRequest("POST", "/api/certificates/home/renew", strings.NewReader(body))
		r.RemoteAddr, r.Host, r.URL.RawQuery = "127.0.0.1:1", "localhost", query
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		newServer(Config{}, loop).Handler().ServeHTTP(w, r)
		if renewed != (w.Code == 202) || w.Code != 202 && w.Code != 400 {
			t.Errorf("renewed: %v, answered %d %s", renewed, w.Code, w.Body)
		}
	})
}
