package page

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// noon is when every test's snapshot was made.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// fake is a loop that does what the test tells it.
type fake struct {
	renew      func(name string, o sitter.RenewOptions) error
	check      func() error
	revoke     func(name, reason string) error
	testNotify func(target string) ([]sitter.Delivery, error)
	restart    func() error

	mu      sync.Mutex // guards the rest
	snap    *sitter.Snapshot
	viewers map[chan sitter.Event]bool
	joined  chan struct{} // one word per viewer that came
}

func newFake(snap *sitter.Snapshot) *fake {
	return &fake{
		snap:       snap,
		viewers:    map[chan sitter.Event]bool{},
		joined:     make(chan struct{}, 100),
		renew:      func(string, sitter.RenewOptions) error { return nil },
		check:      func() error { return nil },
		restart:    func() error { return nil },
		revoke:     func(string, string) error { return nil },
		testNotify: func(string) ([]sitter.Delivery, error) { return []sitter.Delivery{{Target: "ntfy_1a2b3c"}}, nil },
	}
}

func (f *fake) Snapshot() *sitter.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snap
}

func (f *fake) become(snap *sitter.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snap = snap
}

func (f *fake) Events(ctx context.Context) <-chan sitter.Event {
	viewer := make(chan sitter.Event, 64)
	f.mu.Lock()
	f.viewers[viewer] = true
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.viewers[viewer] {
			delete(f.viewers, viewer)
			close(viewer)
		}
	})
	f.joined <- struct{}{}
	return viewer
}

func (f *fake) tell(e sitter.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for viewer := range f.viewers {
		select {
		case viewer <- e:
		default:
		}
	}
}

func (f *fake) watching() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.viewers)
}

func (f *fake) Renew(_ context.Context, name string, o sitter.RenewOptions) error {
	return f.renew(name, o)
}
func (f *fake) Check(context.Context) error                    { return f.check() }
func (f *fake) RestartHomeAssistant(context.Context) error     { return f.restart() }
func (f *fake) Revoke(_ context.Context, name, r string) error { return f.revoke(name, r) }
func (f *fake) TestNotify(_ context.Context, target string) ([]sitter.Delivery, error) {
	return f.testNotify(target)
}

// newServer is a server whose clock stands at noon and whose zone is UTC.
func newServer(c Config, f Sitter) *Server {
	s := New(c, f)
	s.now = func() time.Time { return noon }
	s.zone = time.UTC
	return s
}

func days(n int) *int { return &n }

// household is a snapshot with something of everything.
func sample() *sitter.Snapshot {
	day := 24 * time.Hour
	return &sitter.Snapshot{
		Version: "0.3.0", Installation: "9f3c2a", Time: noon, Status: "critical", Language: "en",
		LowestDays: days(3), NextExpiry: noon.Add(3*day + time.Hour), LastCheck: noon.Add(-2 * time.Minute), NextRenewal: noon.Add(12 * day),
		Certificates: []sitter.Certificate{
			{
				Name: "home", Label: "home.example.org", Source: "managed", Domains: []string{"home.example.org", "*.home.example.org"},
				Status: "ok", Problems: []sitter.Problem{}, DaysLeft: days(41), NotBefore: noon.Add(-48 * day), NotAfter: noon.Add(41*day + 5*time.Hour),
				Subject: "home.example.org", Issuer: "R12", Names: []string{"home.example.org", "*.home.example.org"},
				Print: "4f1d9c0b7a6e5d4c3b2a19080716253443526170f1e2d3c4b5a6978812345678", KeyType: "ec256",
				Endpoints: []sitter.Endpoint{
					{Address: "home.example.org:443", Print: "4f1d", NotAfter: noon.Add(41 * day), Verdict: "same", Seen: noon.Add(-2 * time.Minute)},
					{Address: "home.example.org@192.168.1.10:8123", Print: "4f1d", NotAfter: noon.Add(41 * day), Verdict: "same", Seen: noon.Add(-2 * time.Minute)},
				},
				Files: []string{"/ssl/fullchain.pem", "/ssl/privkey.pem"}, LastResult: "Renewed and in use.",
				LastRenewal: noon.Add(-48 * day), NextRenewal: noon.Add(12 * day),
			},
			{
				Name: "cloud", Label: "cloud.example.org", Source: "managed", Domains: []string{"cloud.example.org", "dav.example.org", "photos.example.org"},
				Status: "warning", Problem: true, DaysLeft: days(18), NotBefore: noon.Add(-71 * day), NotAfter: noon.Add(18*day + 2*time.Hour),
				Problems: []sitter.Problem{{Code: "renewal_failed", Severity: "warning", Text: "The last renewal failed: Cloudflare refused the API token.", Advice: "Make a new token with the permission “Zone:DNS:Edit” and put it into env as CF_DNS_API_TOKEN."}},
				Subject:  "cloud.example.org", Issuer: "R11", Names: []string{"cloud.example.org", "dav.example.org"}, KeyType: "ec256",
				Print:      "00ff9c0b7a6e5d4c3b2a19080716253443526170f1e2d3c4b5a6978812345678",
				Endpoints:  []sitter.Endpoint{{Address: "cloud.example.org:443", NotAfter: noon.Add(3 * day), Verdict: "stale", Seen: noon}},
				Files:      []string{"/ssl/cloud.pem", "/ssl/cloud.key"},
				LastResult: "The DNS provider refused the credentials.", LastRenewal: noon.Add(-71 * day), NextRenewal: noon.Add(4 * time.Hour), Failures: 3, NotDeployed: true,
			},
			{
				Name: "nas", Label: "nas", Source: "endpoint", Status: "critical", Problem: true, DaysLeft: days(3),
				NotBefore: noon.Add(-362 * day), NotAfter: noon.Add(3*day + time.Hour), Subject: "nas.local", Issuer: "Synology Inc. CA", KeyType: "rsa2048",
				Problems:  []sitter.Problem{{Code: "expires_soon", Severity: "critical", Text: "The certificate of nas.local ends in 3 days. Browsers will refuse it then.", Advice: "Renew it in the NAS: Control Panel → Security → Certificate."}},
				Print:     "abcd9c0b7a6e5d4c3b2a19080716253443526170f1e2d3c4b5a6978812345678",
				Endpoints: []sitter.Endpoint{{Address: "nas.local:5001", NotAfter: noon.Add(3*day + time.Hour), Verdict: "same", Seen: noon}},
				Names:     []string{"nas.local"},
			},
			{
				Name: "printer", Label: "printer", Source: "endpoint", Status: "unknown", Problems: []sitter.Problem{},
				Endpoints: []sitter.Endpoint{{Address: "printer.lan:443", Verdict: "unreachable", Error: "no route to host"}},
			},
			{
				Name: "mail", Label: "mail.example.org", Source: "managed", Domains: []string{"mail.example.org"}, Status: "notice",
				Problems: []sitter.Problem{{Code: "foreign_client", Severity: "notice", Text: "Another client renews this certificate, too.", Advice: "Switch one of the two off."}},
				DaysLeft: days(75), NotBefore: noon.Add(-14 * day), NotAfter: noon.Add(75*day + time.Hour), Subject: "mail.example.org", Issuer: "R12", KeyType: "rsa3072",
				Names: []string{"mail.example.org"}, Files: []string{"/etc/ssl/mail.pem"}, LastResult: "Issued and installed.", LastRenewal: noon.Add(-14 * day), NextRenewal: noon.Add(46 * day),
				Print: "beef9c0b7a6e5d4c3b2a19080716253443526170f1e2d3c4b5a6978812345678", Deployment: "Waits for the restart window from 03:00 to 05:00.",
			},
		},
		Targets: []sitter.Target{
			{ID: "ntfy_1a2b3c", Name: "mobile_app_pixel", Status: "ok", Since: noon.Add(-day)},
			{ID: "telegram_99aa00", Status: "dead", Since: noon.Add(-3 * time.Hour), LastError: "401 Unauthorized"},
		},
		Problems: []sitter.Problem{},
		Asks:     []sitter.Ask{{ID: "certsitter_cloud_restart", Title: "Home Assistant still uses the old certificate", Text: "Restart Home Assistant when it suits you."}},
		MQTT:     sitter.MQTT{Configured: true, Connected: true, Broker: "tcp://core-mosquitto:1883"},
	}
}

// downloads are two files; the second can not be made.
func downloads() []Download {
	return []Download{
		{Name: "dashboard.yaml", Title: "Dashboard for Home Assistant", ContentType: "application/yaml", Copy: true,
			Make: func(context.Context) ([]byte, error) { return []byte("title: \"Certificates\" # <b>\n"), nil }},
		{Name: "certsitter.rules", Title: "openHAB rules",
			Make: func(context.Context) ([]byte, error) { return nil, errors.New("There is no broker yet.") }},
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		<-tick.C
	}
}

func newRequest(method, target, from string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr, r.Host = from, "127.0.0.1:8099"
	return r
}

func serve(s *Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}
