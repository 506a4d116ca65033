package page

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// TestWhoGetsIn is the table of who gets in, and who may press buttons.
func TestWhoGetsIn(t *testing.T) {
	const (
		here     = "127.0.0.1:40000"
		here6    = "[::1]:40000"
		lan      = "192.168.1.20:40000"
		internet = "[2001:db8::5]:40000"
		super    = "172.30.32.2:40000"
		otherApp = "172.30.33.4:40000"
	)
	plain := Config{}
	secret := Config{Password: "correct horse"}
	app := Config{App: true}
	for _, c := range []struct {
		name     string
		config   Config
		from     string
		method   string // GET /api/state or POST /api/check
		host     string
		header   map[string]string
		password string
		want     int
		code     string
	}{
		// Host: addresses and names that no stranger can own
		{"loopback by address", plain, here, "GET", "127.0.0.1:8099", nil, "", 200, ""},
		{"loopback by IPv6", plain, here6, "GET", "[::1]:8099", nil, "", 200, ""},
		{"IPv6 without a port", plain, here6, "GET", "[::1]", nil, "", 200, ""},
		{"localhost", plain, here, "GET", "localhost:8099", nil, "", 200, ""},
		{"upper case with a dot", plain, here, "GET", "LOCALHOST.:8099", nil, "", 200, ""},
		{"mDNS", plain, lan, "GET", "nas.local:8099", nil, "", 200, ""},
		{"lan", plain, lan, "GET", "nas.lan", nil, "", 200, ""},
		{"home.arpa", plain, lan, "GET", "nas.home.arpa:8099", nil, "", 200, ""},
		{"a name of a certificate", plain, lan, "GET", "cloud.example.org", nil, "", 200, ""},
		{"under its wildcard", plain, lan, "GET", "pi.home.example.org:8099", nil, "", 200, ""},
		{"a configured name", Config{Names: []string{"Certs.Example.NET"}}, lan, "GET", "certs.example.net:8099", nil, "", 200, ""},
		{"two labels under a wildcard", plain, lan, "GET", "a.b.home.example.org", nil, "", 421, "host"},
		{"a stranger's name", plain, here, "GET", "evil.example.com:8099", nil, "", 421, "host"},
		{"a stranger's name that ends alike", plain, here, "GET", "evil-home.arpa", nil, "", 421, "host"},
		{"local in the middle", plain, here, "GET", "nas.local.evil.com", nil, "", 421, "host"},
		{"an address in a name", plain, here, "GET", "127.0.0.1.evil.com", nil, "", 421, "host"},
		{"no host", plain, here, "GET", "", nil, "", 421, "host"},
		{"a stranger's name for a command", plain, here, "POST", "evil.example.com:8099", map[string]string{"Origin": "http://evil.example.com:8099"}, "", 421, "host"},

		// Origin: commands come from our own page
		{"script", plain, here, "POST", "127.0.0.1:8099", nil, "", 202, ""},
		{"own page", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "http://127.0.0.1:8099", "Sec-Fetch-Site": "same-origin"}, "", 202, ""},
		{"own page in an old browser", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "http://127.0.0.1:8099"}, "", 202, ""},
		{"usual port", plain, here, "POST", "localhost", map[string]string{"Origin": "http://localhost"}, "", 202, ""},
		{"usual port of TLS written out", plain, here, "POST", "localhost:443", map[string]string{"Origin": "https://localhost"}, "", 202, ""},
		{"another site", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site"}, "", 403, "origin"},
		{"another site in an old browser", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "https://evil.example.com"}, "", 403, "origin"},
		{"another site without Origin", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Sec-Fetch-Site": "cross-site"}, "", 403, "origin"},
		{"another port of this machine", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, "", 403, "origin"},
		{"another port in an old browser", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "http://127.0.0.1:3000"}, "", 403, "origin"},
		{"sandboxed frame", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "null"}, "", 403, "origin"},
		{"hidden proxy", plain, here, "POST", "127.0.0.1:8099", map[string]string{"Origin": "https://certs.example.org", "Sec-Fetch-Site": "same-origin"}, "", 403, "origin"},

		// Password: commands from beyond this machine
		{"reading from the LAN", plain, lan, "GET", "192.168.1.10:8099", nil, "", 200, ""},
		{"command from the LAN, none set", plain, lan, "POST", "192.168.1.10:8099", nil, "", 403, "no_password"},
		{"none set, an empty one given", plain, lan, "POST", "192.168.1.10:8099", map[string]string{"Authorization": "Basic Og=="}, "", 403, "no_password"},
		{"command from the LAN", secret, lan, "POST", "192.168.1.10:8099", nil, "", 401, "password"},
		{"right password", secret, lan, "POST", "192.168.1.10:8099", nil, "correct horse", 202, ""},
		{"right password over IPv6", secret, internet, "POST", "[2001:db8::1]:8099", nil, "correct horse", 202, ""},
		{"wrong password", secret, lan, "POST", "192.168.1.10:8099", nil, "wrong", 401, "password"},
		{"its beginning", secret, lan, "POST", "192.168.1.10:8099", nil, "correct", 401, "password"},
		{"right password from another site", secret, lan, "POST", "192.168.1.10:8099", map[string]string{"Origin": "https://evil.example.com"}, "correct horse", 403, "origin"},
		{"loopback needs none", secret, here, "POST", "127.0.0.1:8099", nil, "", 202, ""},
		{"loopback as mapped IPv6", secret, "[::ffff:127.0.0.1]:40000", "POST", "127.0.0.1:8099", nil, "", 202, ""},
		{"proxy on this machine", secret, here, "POST", "cloud.example.org", map[string]string{"X-Forwarded-For": "203.0.113.9"}, "", 401, "password"},
		{"proxy that says it otherwise", secret, here, "POST", "cloud.example.org", map[string]string{"Forwarded": "for=203.0.113.9"}, "", 401, "password"},
		{"proxy with the password", secret, here, "POST", "cloud.example.org", map[string]string{"X-Forwarded-For": "203.0.113.9", "Origin": "https://cloud.example.org"}, "correct horse", 202, ""},
		{"loopback claimed by a header", secret, lan, "POST", "192.168.1.10:8099", map[string]string{"X-Forwarded-For": "127.0.0.1"}, "", 401, "password"},
		{"the Supervisor's address without an app", secret, super, "POST", "192.168.1.10:8099", nil, "", 401, "password"},

		// Home Assistant app: the ingress and loopback alone
		{"ingress", app, super, "GET", "ha.example.com", map[string]string{"X-Forwarded-For": "10.0.0.7"}, "", 200, ""},
		{"button through the ingress", app, super, "POST", "ha.example.com", map[string]string{"Origin": "https://ha.example.com", "Sec-Fetch-Site": "same-origin"}, "", 202, ""},
		{"behind a proxy that changes port and host", app, super, "POST", "core:8123", map[string]string{"Origin": "https://ha.example.com:8443", "X-Forwarded-Host": "ha.example.com"}, "", 202, ""},
		{"another site through the ingress", app, super, "POST", "ha.example.com", map[string]string{"Origin": "https://evil.example.com"}, "", 403, "origin"},
		{"ingress without an origin", app, super, "POST", "ha.example.com", nil, "", 403, "origin"},
		{"ingress with Sec-Fetch-Site alone", app, super, "POST", "ha.example.com", map[string]string{"Sec-Fetch-Site": "same-origin"}, "", 202, ""},
		{"the app's health check", app, here, "GET", "127.0.0.1:8099", nil, "", 200, ""},
		{"another app", app, otherApp, "GET", "172.30.33.5:8099", nil, "", 403, "address"},
		{"another app with the ingress path", app, otherApp, "POST", "172.30.33.5:8099", map[string]string{"X-Ingress-Path": "/api/hassio_ingress/x"}, "", 403, "address"},
		{"the LAN", Config{App: true, Password: "correct horse"}, lan, "POST", "192.168.1.10:8099", nil, "correct horse", 403, "address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, map[string]string{"GET": "/api/state", "POST": "/api/check"}[c.method], nil)
			r.RemoteAddr, r.Host = c.from, c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if c.password != "" {
				r.SetBasicAuth("anybody", c.password)
			}
			w := httptest.NewRecorder()
			newServer(c.config, newFake(sample())).Handler().ServeHTTP(w, r)
			if w.Code != c.want {
				t.Fatalf("answered %d, want %d: %s", w.Code, c.want, w.Body)
			}
			if c.code == "" {
				return
			}
			told := unmarshal[trouble](t, w.Body.Bytes())
			if told.Code != c.code || told.Error == "" {
				t.Errorf("answered %+v, want code %s and a sentence", told, c.code)
			}
			if asks := w.Header().Get("WWW-Authenticate") != ""; asks != (c.want == 401) {
				t.Errorf("asks for a password: %v", asks)
			}
		})
	}
}

// TestAccessCoversEverything: no path is left out of the rules.
func TestAccessCoversEverything(t *testing.T) {
	h := newServer(Config{App: true}, newFake(sample())).Handler()
	for _, path := range []string{"/", "/page.css", "/page.js", "/icon.svg", "/healthz", "/metrics", "/api/state", "/api/events", "/files/dashboard.yaml", "/nowhere"} {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr, r.Host = "172.30.33.4:5000", "127.0.0.1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("GET %s answered %d to another app", path, w.Code)
		}
	}
	for _, path := range []string{"/api/check", "/api/notify/test", "/api/certificates/home/renew", "/api/homeassistant/restart"} {
		r := httptest.NewRequest("POST", path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1"
		r.Header.Set("Origin", "https://evil.example.com")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("POST %s answered %d to another site", path, w.Code)
		}
	}
}

func TestGuessesAreSlowed(t *testing.T) {
	s := newServer(Config{Password: "right"}, newFake(sample()))
	now := noon
	s.now = func() time.Time { return now }
	h := s.Handler()
	try := func(from, password string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/api/check", nil)
		r.RemoteAddr, r.Host = from, "192.168.1.10:8099"
		if password != "" {
			r.SetBasicAuth("", password)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const one, neighbour, other = "[2001:db8:1:1::1]:1", "[2001:db8:1:1::2]:1", "[2001:db8:1:2::1]:1"
	for range 20 {
		if w := try(one, ""); w.Code != 401 {
			t.Fatalf("asking without a password answered %d", w.Code)
		}
	}
	for i := range freeGuesses {
		if w := try(one, "wrong"); w.Code != 401 {
			t.Fatalf("guess %d answered %d", i+1, w.Code)
		}
	}
	if w := try(one, "right"); w.Code != 429 || w.Header().Get("Retry-After") != "60" {
		t.Errorf("after %d guesses: %d, Retry-After %q", freeGuesses, w.Code, w.Header().Get("Retry-After"))
	}
	if w := try(neighbour, "right"); w.Code != 429 {
		t.Errorf("the same /64 answered %d", w.Code)
	}
	if w := try(other, "right"); w.Code != 202 {
		t.Errorf("another network answered %d", w.Code)
	}
	now = now.Add(firstWait)
	if w := try(one, "wrong"); w.Code != 401 {
		t.Errorf("after the wait: %d", w.Code)
	}
	if w := try(one, "right"); w.Code != 429 || w.Header().Get("Retry-After") != "120" {
		t.Errorf("the second wait: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	for range 30 {
		now = now.Add(longestWait)
		if w := try(one, "wrong"); w.Code != 401 {
			t.Fatalf("after the longest wait: %d", w.Code)
		}
	}
	now = now.Add(longestWait)
	if w := try(one, "right"); w.Code != 202 {
		t.Errorf("the right one after the longest wait: %d", w.Code)
	}
	for range freeGuesses - 1 { // it is forgiven
		try(one, "wrong")
	}
	if w := try(one, "right"); w.Code != 202 {
		t.Errorf("the right one wiped nothing out: %d", w.Code)
	}
}

func TestGuessersAreBounded(t *testing.T) {
	g := newGuesses()
	first := netip.MustParsePrefix("10.0.0.0/32")
	g.remember(first, guess{wrong: freeGuesses, last: noon})
	for i := range 3 * guessers {
		addr := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		g.remember(household(addr), guess{wrong: 1, last: noon.Add(time.Duration(i+1) * time.Second)})
	}
	if len(g.by) != guessers {
		t.Errorf("%d addresses remembered, want %d", len(g.by), guessers)
	}
	if _, there := g.by[first]; there {
		t.Error("the one that was quiet for longest is still there")
	}
}

func TestReconfigure(t *testing.T) {
	s := newServer(Config{Password: "old"}, newFake(sample()))
	h := s.Handler()
	code := func(password string) int {
		r := httptest.NewRequest("POST", "/api/check", nil)
		r.RemoteAddr, r.Host = "192.168.1.20:1", "192.168.1.10:8099"
		r.SetBasicAuth("", password)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	before := code("old")
	s.Reconfigure(Config{Password: "new"})
	if got := fmt.Sprint(before, code("old"), code("new")); got != "202 401 202" {
		t.Errorf("old, then old and new after the change: %s", got)
	}
}

func TestIngressBase(t *testing.T) {
	for _, c := range []struct {
		path string
		from peer
		want string
	}{
		{"/api/hassio_ingress/AbC-_9", ingress, "/api/hassio_ingress/AbC-_9/"},
		{"/api/hassio_ingress/AbC/", ingress, "/api/hassio_ingress/AbC/"},
		{"/api/hassio_ingress/AbC", loopback, ""},
		{"/api/hassio_ingress/AbC", beyond, ""},
		{"//evil.example.com/x", ingress, ""},
		{"https://evil.example.com/", ingress, ""},
		{`/"><script>`, ingress, ""},
		{"/../..", ingress, ""},
		{"", ingress, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Ingress-Path", c.path)
		if got := ingressBase(r, c.from); got != c.want {
			t.Errorf("%q from %d: %q, want %q", c.path, c.from, got, c.want)
		}
	}
}

func TestRetryAfterIsWholeSeconds(t *testing.T) {
	loop := newFake(sample())
	loop.check = func() error {
		return &sitter.Refused{Code: "too_soon", Sentence: "wait", Until: noon.Add(1500 * time.Millisecond)}
	}
	w := ask(t, newServer(Config{}, loop), "POST", "/api/check", nil, "")
	if n, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || n != 2 {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
}

func FuzzHost(f *testing.F) {
	for _, h := range []string{"localhost", "[::1]:80", "a.b:c", "nas.local.", "[", ":", "xn--nxasmq6b.lan", "a@b.local", "%.home.example.org"} {
		f.Add(h, "http://"+h)
	}
	f.Add("", "//:")
	f.Fuzz(func(t *testing.T, host, origin string) {
		r := httptest.NewRequest("POST", "/api/check", nil)
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		r.Header["Origin"] = []string{origin}
		known := knownHost(host, nil, func() *sitter.Snapshot { return nil })
		if _, err := netip.ParseAddr(hostname(host)); known && err != nil && !endsLikeOurs(host) {
			t.Errorf("%q is taken for ours", host)
		}
		if sameOrigin(r, loopback) && origin != "" && host == "" {
			t.Errorf("%q is the same origin as no host", origin)
		}
	})
}

// endsLikeOurs is a second opinion, written differently.
func endsLikeOurs(host string) bool {
	u := hostname(host)
	for _, end := range []string{"localhost", ".local", ".lan", ".home.arpa"} {
		for _, dot := range []string{"", "."} {
			if tail := end + dot; len(u) >= len(tail) && equalFold(u[len(u)-len(tail):], tail) {
				return true
			}
		}
	}
	_, err := netip.ParseAddr(u[:max(0, len(u)-1)])
	return err == nil
}
