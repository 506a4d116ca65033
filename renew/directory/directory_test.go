package directory

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An authority makes certificates for test servers.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T, notBefore, notAfter time.Time) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"},
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{template, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a server's certificate for 127.0.0.1.
func (a authority) issue(t *testing.T, notBefore, notAfter time.Time, addresses ...net.IP) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"},
		NotBefore: notBefore, NotAfter: notAfter, IPAddresses: addresses,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

var loopback = net.IPv4(127, 0, 0, 1)

// serve runs a CA that anybody with its roots can talk to now.
func serve(t *testing.T, handler http.HandlerFunc) (url string, roots []byte) {
	t.Helper()
	now := time.Now()
	a := newAuthority(t, now.Add(-time.Hour), now.Add(time.Hour))
	return serveAs(t, a.issue(t, now.Add(-time.Hour), now.Add(time.Hour), loopback), handler), a.pem
}

func serveAs(t *testing.T, certificate tls.Certificate, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func say(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const wholeDirectory = `{
	"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account", "newOrder": "https://ca.test/order",
	"revokeCert": "https://ca.test/revoke", "keyChange": "https://ca.test/key", "renewalInfo": "https://ca.test/ari",
	"meta": {"termsOfService": "https://ca.test/terms", "website": "https://ca.test", "caaIdentities": ["ca.test"],
		"externalAccountRequired": true, "profiles": {"classic": "the usual"}}, "xyz": "https://a.random.entry/"}`

func TestDirectory(t *testing.T) {
	var agent atomic.Value
	url, roots := serve(t, func(w http.ResponseWriter, r *http.Request) {
		agent.Store(r.UserAgent())
		w.Header().Set("Date", "Tue, 01 Dec 2026 08:00:00 GMT")
		_, _ = io.WriteString(w, wholeDirectory)
	})
	d, err := (&Client{UserAgent: "certsitter/1.2"}).Directory(t.Context(), url, roots)
	if err != nil {
		t.Fatal(err)
	}
	want := `{https://ca.test/nonce https://ca.test/account https://ca.test/order https://ca.test/revoke https://ca.test/key https://ca.test/ari https://ca.test/terms map[classic:the usual] true [ca.test] 2026-12-01 08:00:00 +0000 UTC}`
	if got := fmt.Sprint(d); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := agent.Load(); got != "certsitter/1.2" {
		t.Errorf("User-Agent %q", got)
	}
}

func TestDirectoryRefuses(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"a page", say(200, "<html>Welcome to the hotel's network</html>"), "no ACME directory"},
		{"nothing", say(200, ""), "no ACME directory"},
		{"no newOrder", say(200, `{"newNonce": "https://ca.test/nonce"}`), "newOrder"},
		{"an insecure newOrder", say(200, `{"newOrder": "http://ca.test/order"}`), "newOrder"},
		{"too much", say(200, `{"newOrder": "https://ca.test/order", "x": "`+strings.Repeat("x", maxBody)+`"}`), "longer than 64 KiB"},
		{"an error", say(500, "oops"), "500 Internal Server Error"},
		{"a problem", say(503, `{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "Service\nbusy"}`, "Retry-After", "120"), "503 Service Unavailable: Service busy"},
		{"another way", say(302, "", "Location", "http://127.0.0.1:1/"), "not https"},
		{"a circle", say(302, "", "Location", "/again"), "more than 3 redirects"},
		{"no content", say(204, ""), "204"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url, roots := serve(t, test.handler)
			d, err := new(Client).Directory(t.Context(), url, roots)
			if err == nil {
				t.Fatalf("took it for %+v", d)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
}

func TestStatusErrorTellsWhenToComeBack(t *testing.T) {
	url, roots := serve(t, say(429, `{"detail": "slow down"}`, "Retry-After", "Tue, 01 Dec 2026 09:00:00 GMT", "Date", "Tue, 01 Dec 2026 08:00:00 GMT"))
	_, err := new(Client).Directory(t.Context(), url, roots)
	status, ok := errors.AsType[*StatusError](err)
	if !ok || status.Status != 429 || status.RetryAfter != time.Hour || status.Date.Hour() != 8 || errors.Is(err, ErrNotFound) {
		t.Errorf("%v: %+v", err, status)
	}
}

func TestOnlyTheRootsThatAreMeant(t *testing.T) {
	url, _ := serve(t, say(200, wholeDirectory))
	_, others := serve(t, say(200, wholeDirectory))
	for name, roots := range map[string][]byte{"another CA's": others, "the system's": nil} {
		if _, err := new(Client).Directory(t.Context(), url, roots); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
			t.Errorf("%s roots: %v", name, err)
		}
	}
	if _, err := new(Client).Directory(t.Context(), url, []byte("no PEM")); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("roots that are none: %v", err)
	}
	for _, address := range []string{"http://127.0.0.1:1/dir", "ca.test", "", "https://", "ftp://x/", "%"} {
		if _, err := new(Client).Directory(t.Context(), address, nil); err == nil || !strings.Contains(err.Error(), "no complete https URL") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestASilentCA(t *testing.T) {
	url, roots := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := new(Client).Directory(ctx, url, roots); err == nil || !strings.HasSuffix(err.Error(), ": enough") {
		t.Errorf("%v", err)
	}
}

func TestRenewalInfo(t *testing.T) {
	const id = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
	var path atomic.Value
	url, roots := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.Path)
		w.Header().Set("Date", "Tue, 01 Dec 2026 08:00:00 GMT")
		w.Header().Set("Retry-After", "21600")
		_, _ = io.WriteString(w, `{"suggestedWindow": {"start": "2027-01-02T04:00:00+01:00", "end": "2027-01-03T04:00:00Z"}, "explanationURL": "https://ca.test/why?a=1"}`)
	})
	for _, base := range []string{url + "/ari", url + "/ari/"} {
		w, err := new(Client).RenewalInfo(t.Context(), base, id, roots)
		if err != nil {
			t.Fatal(err)
		}
		want := "{2027-01-02 03:00:00 +0000 UTC 2027-01-03 04:00:00 +0000 UTC https://ca.test/why?a=1 6h0m0s 2026-12-01 08:00:00 +0000 UTC}"
		if got := fmt.Sprint(w); got != want || path.Load() != "/ari/"+id {
			t.Errorf("asked %s, got %s\nwant %s", path.Load(), got, want)
		}
	}
	if _, err := new(Client).RenewalInfo(t.Context(), url, "", roots); !errors.Is(err, ErrNotFound) {
		t.Errorf("without an id: %v", err)
	}
}

// What is not exactly a window must never come out as one, least of all as one
// that has begun.
func TestGarbageIsNoAdvice(t *testing.T) {
	const window = `{"suggestedWindow": {"start": "2027-01-02T03:00:00Z", "end": "2027-01-03T03:00:00Z"}}`
	tests := []struct {
		name     string
		handler  http.HandlerFunc
		notFound bool
	}{
		{"problem document with 200", say(200, `{"type": "urn:ietf:params:acme:error:malformed", "detail": "no such certificate", "status": 404}`), false},
		{"window with 500", say(500, window), false},
		{"window with 202", say(202, window), false},
		{"not found", say(404, `{"detail": "failed to retrieve existing certificate serial"}`), true},
		{"another CA's certificate", say(400, `{"detail": "Parsing ARI CertID failed"}`), true},
		{"forbidden", say(403, `{"detail": "x"}`), false},
		{"a page", say(200, "<html>"), false},
		{"nothing", say(200, ""), false},
		{"null", say(200, "null"), false},
		{"empty", say(200, "{}"), false},
		{"zeros", say(200, `{"suggestedWindow": {"start": "0001-01-01T00:00:00Z", "end": "0001-01-01T00:00:00Z"}}`), false},
		{"no start", say(200, `{"suggestedWindow": {"end": "2027-01-03T03:00:00Z"}}`), false},
		{"the epoch", say(200, `{"suggestedWindow": {"start": "1970-01-01T00:00:00Z", "end": "2027-01-03T03:00:00Z"}}`), false},
		{"numbers", say(200, `{"suggestedWindow": {"start": 1, "end": 2}}`), false},
		{"no end", say(200, `{"suggestedWindow": {"start": "2027-01-02T03:00:00Z"}}`), false},
		{"backwards", say(200, `{"suggestedWindow": {"start": "2027-01-03T03:00:00Z", "end": "2027-01-02T03:00:00Z"}}`), false},
		{"no length", say(200, `{"suggestedWindow": {"start": "2027-01-03T03:00:00Z", "end": "2027-01-03T03:00:00Z"}}`), false},
		{"cut off", say(200, window[:len(window)-2]), false},
		{"two documents", say(200, window+window), false},
		{"too long", say(200, window+strings.Repeat(" ", maxBody)), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url, roots := serve(t, test.handler)
			w, err := new(Client).RenewalInfo(t.Context(), url, "a.b", roots)
			if err == nil || w != (Window{}) {
				t.Fatalf("took it for %+v, %v", w, err)
			}
			if errors.Is(err, ErrNotFound) != test.notFound {
				t.Errorf("not found: %t; %v", !test.notFound, err)
			}
		})
	}
}

func TestRetryAfterIsClamped(t *testing.T) {
	const date = "Tue, 01 Dec 2026 08:00:00 GMT"
	tests := []struct {
		header, date string
		want         time.Duration
	}{
		{"", date, 6 * time.Hour},
		{"21600", date, 6 * time.Hour},
		{"0", date, time.Minute},
		{"59", date, time.Minute},
		{"90000", date, 24 * time.Hour},
		{"9223372036854775807", date, 24 * time.Hour},
		{"99999999999999999999999", date, 6 * time.Hour},
		{"-5", date, 6 * time.Hour},
		{"soon", date, 6 * time.Hour},
		{"Tue, 01 Dec 2026 11:00:00 GMT", date, 3 * time.Hour},
		{"Tue, 01 Dec 2026 07:00:00 GMT", date, time.Minute},
		{"Tue, 01 Dec 2099 07:00:00 GMT", date, 24 * time.Hour},
		{"Tue, 01 Dec 2026 11:00:00 GMT", "yesterday", 6 * time.Hour},
	}
	for _, test := range tests {
		url, roots := serve(t, say(200, `{"suggestedWindow": {"start": "2027-01-02T03:00:00Z", "end": "2027-01-03T03:00:00Z"}}`,
			"Retry-After", test.header, "Date", test.date))
		w, err := new(Client).RenewalInfo(t.Context(), url, "a.b", roots)
		if err != nil || w.RetryAfter != test.want {
			t.Errorf("%q at %q: %v, %v; want %v", test.header, test.date, w.RetryAfter, err, test.want)
		}
	}
}

func TestExplanationsThatAreShown(t *testing.T) {
	for text, shown := range map[string]bool{
		"https://ca.test/why": true, "http://ca.test/": true, "": false, "javascript:alert(1)": false,
		"data:text/html,x": false, "/why": false, "https://ca.test/\u202egnp": false, "https://ca.test/\n": false,
		"https://ca.test/" + strings.Repeat("x", maxExplanation): false,
	} {
		if got := pageURL(text) != ""; got != shown {
			t.Errorf("%.40q shown: %t", text, got)
		}
	}
}

// A machine without a clock thinks that it is 1970. It has to find out what
// time it is from a server whose certificate is not valid in 1970. The tests
// have a clock, so here it is the certificates that are of another time.
func TestTimeWithoutAClock(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2036, 1, 1+n, 0, 0, 0, 0, time.UTC) }
	claim := func(at time.Time) string { return at.Format(http.TimeFormat) }
	root := newAuthority(t, day(-100), day(1000))
	young := newAuthority(t, day(50), day(1000)) // begins after its leaves do
	tests := []struct {
		name       string
		root       authority
		begin, end time.Time
		address    net.IP
		claim      string
		build      time.Time
		want       string // part of the error; "" = the time is believed
	}{
		{"now, for it", root, day(0), day(90), loopback, claim(day(30)), day(-50), ""},
		{"a build of today", root, day(0), day(90), loopback, claim(day(30)), day(30), ""},
		{"a root that is younger", young, day(0), day(90), loopback, claim(day(60)), day(-50), ""},
		{"before the build", root, day(0), day(90), loopback, claim(day(30)), day(31), "before this program was made"},
		{"expired before the build", root, day(0), day(90), loopback, claim(day(30)), day(91), "expired on 2036-03-31"},
		{"a claim after its end", root, day(0), day(90), loopback, claim(day(91)), day(-50), "expired"},
		{"a claim before its begin", root, day(0), day(90), loopback, claim(day(-1)), day(-50), "not yet valid"},
		{"another address", root, day(0), day(90), net.IPv4(127, 0, 0, 2), claim(day(30)), day(-50), "127.0.0.2"},
		{"no date", root, day(0), day(90), loopback, "one day", day(-50), "no date"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := serveAs(t, test.root.issue(t, test.begin, test.end, test.address), say(404, "nothing here", "Date", test.claim))
			got, err := new(Client).Time(t.Context(), url, test.root.pem, test.build)
			if test.want == "" {
				if err != nil || claim(got) != test.claim {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !got.IsZero() {
				t.Errorf("%v, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestTimeOfAStranger(t *testing.T) {
	var asked atomic.Bool
	url, roots := serve(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })
	if got, err := new(Client).Time(t.Context(), url, nil, time.Time{}); err == nil {
		t.Errorf("believed %v", got)
	}
	if asked.Load() {
		t.Error("a server that nobody vouches for was asked")
	}
	if _, err := new(Client).Time(t.Context(), strings.Replace(url, "https:", "http:", 1), roots, time.Time{}); err == nil {
		t.Error("asked without TLS")
	}
}

func TestTimeTakesARedirectForAnAnswer(t *testing.T) {
	url, roots := serve(t, say(302, "", "Location", "http://127.0.0.1:1/", "Age", "60"))
	before := time.Now()
	got, err := new(Client).Time(t.Context(), url, roots, before.Add(-time.Hour))
	if err != nil || got.Sub(before) < 55*time.Second || got.Sub(before) > 90*time.Second {
		t.Errorf("%v, %v: a cached answer's age was not added", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(wholeDirectory))
	f.Add([]byte(`{"suggestedWindow": {"start": "2027-01-02T03:00:00Z", "end": "2027-01-03T03:00:00Z"}, "explanationURL": "https://x/"}`))
	f.Add([]byte(`{"detail": "x\u0000y"}`))
	f.Add([]byte(`{"suggestedWindow": {"start": "0000-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if w, err := decodeWindow(body); err == nil {
			if w.Start.Before(firstWindow) || !w.End.After(w.Start) {
				t.Errorf("window %+v", w)
			}
		} else if w != (Window{}) {
			t.Errorf("window %+v beside %v", w, err)
		}
		if d, err := decodeDirectory(body); err == nil && !strings.HasPrefix(strings.ToLower(d.NewOrder), "https://") {
			t.Errorf("directory %+v", d)
		}
		if detail := problemDetail(body); len([]rune(detail)) > 200 || strings.ContainsAny(detail, "\r\n\x00") {
			t.Errorf("detail %q", detail)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "Tue, 01 Dec 2026 08:00:00 GMT", "0")
	f.Add("Tue, 01 Dec 2026 09:00:00 GMT", "Tue, 01 Dec 2026 08:00:00 GMT", "99999999999")
	f.Fuzz(func(t *testing.T, text, date, age string) {
		h := http.Header{}
		h.Set("Retry-After", text)
		h.Set("Date", date)
		h.Set("Age", age)
		wait, found := retryAfter(h, dateOf(h))
		if found && (wait < minRetryAfter || wait > maxRetryAfter) || !found && wait != 0 {
			t.Errorf("%v, %t", wait, found)
		}
	})
}
