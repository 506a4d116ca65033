package sitter

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/directory"
	"github.com/certsitter/certsitter/renew/store"
)

const day = 24 * time.Hour

// years is how long a healthy life is lived through.
const years = 5 * 365 * day

// span is a time from the world's birth on.
type span struct{ from, to time.Duration }

func (s span) holds(age time.Duration) bool { return s.from <= age && age < s.to }

// An earth has one CA, one server that reads its certificate when it is
// reloaded, one person, and a diary. Everything else is the real thing.
type earth struct {
	t        *testing.T
	born     time.Time
	lifetime time.Duration
	refuses  []span        // the CA answers, and fails
	lost     []span        // no network at all
	slow     time.Duration // how long an order takes
	reload   bool          // the server takes the new certificate when it is told to
	noARI    bool

	caKey *ecdsa.PrivateKey
	ca    *x509.Certificate

	mu       sync.Mutex // guards the rest
	diary    []line
	starts   []time.Time // of orders
	issued   []time.Time
	ends     map[string]time.Time // notAfter by ARI certificate id
	messages int
	failures int           // of attempts since the last success
	lastEnd  time.Time     // notAfter of the newest certificate
	lowest   time.Duration // least life that one had when the next was issued
	serial   int64
	wrong    time.Duration // what the wall clock is off
	slept    time.Duration // how much longer than monotonic time the world is
	serving  []byte        // PEM
	installs string        // certificate file
}

func newEarth(t *testing.T, lifetime time.Duration) *earth {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(20 * 365 * day), KeyUsage: x509.KeyUsageCertSign,
		SubjectKeyId: []byte{1, 2, 3, 4},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &earth{t: t, born: time.Now(), lifetime: lifetime, slow: 20 * time.Second, caKey: key, ca: ca, lowest: 1 << 62, serial: 1, reload: true, ends: map[string]time.Time{}}
}

// now is the true time.
func (w *earth) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.slept)
}

// wall is what the machine's clock shows.
func (w *earth) wall() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.slept + w.wrong)
}

func (w *earth) age() time.Duration { return w.now().Sub(w.born) }

func (w *earth) write(format string, args ...any) {
	age := w.age()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diary = append(w.diary, line{age, fmt.Sprintf("day %d: ", age/day) + fmt.Sprintf(format, args...)})
}

// A line of the diary.
type line struct {
	at   time.Duration
	text string
}

// pages are the diary in the order of time; what happened at one instant is in
// the order of the alphabet, since the world has no other.
func (w *earth) pages() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.diary, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.text, b.text)) })
	var text strings.Builder
	for _, l := range w.diary {
		text.WriteString(l.text + "\n")
	}
	return strings.TrimSpace(text.String())
}

func in(spans []span, age time.Duration) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.holds(age) })
}

var errNoNetwork = errors.New("dial tcp: no route to host")

// Issue is the CA's side of an order.
func (w *earth) Issue(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
	w.mu.Lock()
	w.starts = append(w.starts, time.Now().Add(w.slept))
	w.mu.Unlock()
	if in(w.lost, w.age()) {
		return renew.Issued{}, &renew.Fault{Problems: []renew.Problem{{Step: renew.StepDirectory, Detail: errNoNetwork.Error()}}}
	}
	select {
	case <-time.After(w.slow):
	case <-ctx.Done():
		return renew.Issued{}, context.Cause(ctx)
	}
	if in(w.refuses, w.age()) {
		return renew.Issued{}, &renew.Fault{Problems: []renew.Problem{{Step: renew.StepChallenge, Name: r.Names[0], Type: "urn:ietf:params:acme:error:connection", Status: 400,
			Detail: "192.0.2.1: Fetching http://" + r.Names[0] + "/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)"}}}
	}
	if err := h.Account(ctx, "https://ca.example/account/1"); err != nil {
		return renew.Issued{}, err
	}
	if err := h.Placed(ctx, "https://ca.example/order/1"); err != nil {
		return renew.Issued{}, err
	}
	return renew.Issued{Chain: w.sign(r), AccountURL: "https://ca.example/account/1", OrderURL: "https://ca.example/order/1"}, nil
}

func (w *earth) sign(r renew.OrderRequest) []byte {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serial++
	w.issued = append(w.issued, now)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(w.serial), Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: now.Add(-min(time.Hour, w.lifetime/10)), AuthorityKeyId: w.ca.SubjectKeyId,
	}
	template.NotAfter = template.NotBefore.Add(w.lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca, csr.PublicKey, w.caKey)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c, err := expiry.Parse(chain)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	if !w.lastEnd.IsZero() {
		w.lowest = min(w.lowest, w.lastEnd.Sub(now))
	}
	w.ends[c.CertID()], w.lastEnd = c.Leaf.NotAfter, c.Leaf.NotAfter
	return chain
}

// The CA without an account.
func (w *earth) Directory(context.Context, string, []byte) (directory.Directory, error) {
	if in(w.lost, w.age()) {
		return directory.Directory{}, errNoNetwork
	}
	return directory.Directory{RenewalInfo: "https://ca.example/ari"}, nil
}

// RenewalInfo advises as Let's Encrypt does: a third of the lifetime before the
// end, half of a short one, ± 1 %.
func (w *earth) RenewalInfo(_ context.Context, _, id string, _ []byte) (directory.Window, error) {
	if in(w.lost, w.age()) || w.noARI {
		return directory.Window{}, errNoNetwork
	}
	w.mu.Lock()
	end, known := w.ends[id]
	w.mu.Unlock()
	if !known {
		return directory.Window{}, directory.ErrNotFound
	}
	before := w.lifetime / 3
	if w.lifetime < 10*day {
		before = w.lifetime / 2
	}
	ideal := end.Add(-before)
	return directory.Window{Start: ideal.Add(-w.lifetime / 100), End: ideal.Add(w.lifetime / 100), RetryAfter: 6 * time.Hour, Date: w.now()}, nil
}

func (w *earth) Time(context.Context, string, []byte, time.Time) (time.Time, error) {
	if in(w.lost, w.age()) {
		return time.Time{}, errNoNetwork
	}
	return w.now(), nil
}

// inUse is the newest certificate that the CA issued, as it is installed.
func (w *earth) inUse() *expiry.Certificate {
	c, err := probe.ReadFile(w.installs, "")
	if err != nil {
		return nil
	}
	return c
}

// Act reloads the server.
func (w *earth) Act(context.Context, settings.Action, Acted) error {
	if !w.reload {
		return nil
	}
	data, err := os.ReadFile(w.installs)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serving = data
	return err
}

// Probe looks at the server.
func (w *earth) Probe(context.Context, probe.Target, time.Time, probe.Options) (probe.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.serving == nil {
		return probe.Result{}, errors.New("connection refused")
	}
	c, err := expiry.Parse(w.serving)
	return probe.Result{Certificate: c}, err
}

// Send is the person's telephone.
func (w *earth) Send(_ context.Context, m notify.Request) error {
	if in(w.lost, w.age()) {
		return &notify.Undelivered{Reason: "no network"}
	}
	w.write("told: %s", m.Title)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages++
	return nil
}

type noAnswers struct{}

func (noAnswers) Present(context.Context, []renew.Challenge) error { return nil }
func (noAnswers) Close() error                                     { return nil }

// folder is a place for state whose fsync costs nothing, where there is one.
func folder(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/dev/shm"); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "certsitter-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// conf is the configuration of one certificate in dir.
func conf(t *testing.T, dir, schedule string, edit func(*settings.Settings)) *settings.Settings {
	t.Helper()
	s := &settings.Settings{
		Location: time.UTC, WarnDays: 21, CriticalDays: 7, RepeatHours: 72, Language: "en", StateDir: dir,
		Notify: []string{"logger://"},
		Certificates: []settings.Certificate{{
			Name: "home", Domains: []string{"home.example.org"}, Directory: "https://ca.example/directory",
			Challenge: renew.HTTP01, KeyType: "ec256", KeyMode: 0o600,
			CertFile: filepath.Join(dir, "ssl", "fullchain.pem"), KeyFile: filepath.Join(dir, "ssl", "privkey.pem"),
		}},
	}
	if schedule != "" {
		parsed, err := settings.ParseSchedule(schedule, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		s.Schedule = parsed
	}
	if edit != nil {
		edit(s)
	}
	if err := os.MkdirAll(filepath.Join(dir, "ssl"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The same instant in every ARI window, each time.
	m := newMemory()
	m.Installation = "5eed5e"
	if err := (stateFile{filepath.Join(dir, "state.json")}).save(m); err != nil {
		t.Fatal(err)
	}
	return s
}

// world is this earth as the loop sees it.
func (w *earth) world(dir string, stored *store.Store) World {
	return World{
		Store: stored, Issue: w.Issue, CA: w, Probe: w.Probe, Read: probe.ReadFile, Act: w.Act, Send: w.Send,
		Revoke: func(context.Context, renew.RevokeRequest) error { return nil },
		Answer: func(context.Context, string, string, []string) (Answers, error) { return noAnswers{}, nil },
		Now:    w.wall, Build: w.born.Add(-day), Version: "test", Log: zerolog.Nop(), State: dir,
	}
}

// live runs the real loop on this earth until the world is as old as told.
func (w *earth) live(t *testing.T, dir string, s *settings.Settings, until time.Duration) *Snapshot {
	t.Helper()
	w.installs = s.Certificates[0].CertFile
	stored, err := store.Open(dir, store.Options{Now: w.wall})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	sitter, err := New(w.world(dir, stored), s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go w.endAt(ctx, until, cancel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range sitter.Events(ctx) {
			w.note(e)
		}
	}()
	if err := sitter.Run(ctx); err != nil {
		t.Fatal(err)
	}
	<-done
	return sitter.Snapshot()
}

// endAt ends a life when the world is that old, by its own time: it may sleep.
func (w *earth) endAt(ctx context.Context, age time.Duration, end func()) {
	for left := age - w.age(); left > 0; left = age - w.age() {
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return
		}
	}
	end()
}

// note writes what the loop says into the diary.
func (w *earth) note(e Event) {
	switch e.Kind {
	case "renewed":
		w.mu.Lock()
		failures := w.failures
		w.failures = 0
		w.mu.Unlock()
		if failures > 0 {
			w.write("renewed after %d failures", failures)
		}
	case "renewal_failed":
		w.mu.Lock()
		w.failures++
		w.mu.Unlock()
	case "deploy_failed":
		w.write("%s", e.Kind)
	}
}

// mostIn is the largest number of instants within a window.
func mostIn(instants []time.Time, window time.Duration) int {
	most := 0
	for i := range instants {
		n := 0
		for j := i; j < len(instants) && instants[j].Sub(instants[i]) < window; j++ {
			n++
		}
		most = max(most, n)
	}
	return most
}

// A healthy life: nobody is told anything, and no certificate comes near its end.
func TestFiveHealthyYears(t *testing.T) {
	for _, c := range []struct {
		lifetime time.Duration
		schedule string
		years    time.Duration
		renewals int     // certificates in a whole life
		lowest   float64 // days that one had left at least when the next was issued
	}{
		{398 * day, "", years, 7, 132.6},
		{90 * day, "", years, 31, 29.99},
		{64 * day, "", years, 44, 21.33},
		{45 * day, "", years, 62, 14.99},
		{6 * day, "", years, 624, 2.99},
		{24 * time.Hour, "", years / 5, 805, 0.49},
		{4 * time.Hour, "", years / 20, 1382, 0.082},
		// A week is longer than these may wait: a pass of their own is made when a
		// quarter of the lifetime is left.
		{90 * day, "0 3 * * 1", years, 29, 22.5},
		{45 * day, "0 3 * * 1", years, 56, 11.24},
		{6 * day, "0 3 * * 1", years, 435, 1.49},
		{4 * time.Hour, "0 3 * * 1", years / 20, 841, 0.041},
	} {
		t.Run(fmt.Sprintf("%v %q", c.lifetime, c.schedule), func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) {
				w := newEarth(t, c.lifetime)
				years := c.years / hurried
				snap := w.live(t, dir, conf(t, dir, c.schedule, nil), years)
				if left := w.lowest.Hours() / 24; left < c.lowest {
					t.Errorf("renewed with %.3f days left, want at least %.3f", left, c.lowest)
				}
				if hurried == 1 && len(w.issued) != c.renewals {
					t.Errorf("%d certificates, want %d", len(w.issued), c.renewals)
				}
				if w.messages != 0 {
					t.Errorf("somebody was told: %s", w.pages())
				}
				if len(w.starts) != len(w.issued) {
					t.Errorf("%d orders for %d certificates", len(w.starts), len(w.issued))
				}
				if snap.Status != "ok" || w.inUse().Left(w.now()) <= 0 {
					t.Errorf("after %v: %+v", c.years, snap)
				}
				if n := mostIn(w.starts, time.Hour); n > 4 {
					t.Errorf("%d attempts within an hour", n)
				}
				if n := mostIn(w.issued, min(7*day, c.lifetime)); n > 3 {
					t.Errorf("%d certificates within %v", n, min(7*day, c.lifetime))
				}
			})
		})
	}
}

// A CA that is out of order for a while, told as a diary.
func TestOutages(t *testing.T) {
	for _, c := range []struct {
		name     string
		lifetime time.Duration
		until    time.Duration
		edit     func(*earth)
		want     string
	}{
		{"a day: nobody is told", 90 * day, 70 * day, func(w *earth) { w.refuses = []span{{59 * day, 60 * day}} }, `
day 60: renewed after 4 failures`},
		{"a week: nobody is told", 90 * day, 70 * day, func(w *earth) { w.refuses = []span{{59 * day, 66 * day}} }, `
day 66: renewed after 10 failures`},
		{"two weeks", 90 * day, 80 * day, func(w *earth) { w.refuses = []span{{58 * day, 72 * day}} }, `
day 68: told: Certificate home.example.org: renewal fails, 20 days left
day 71: told: Reminder: Certificate home.example.org: renewal fails, 17 days left
day 72: renewed after 16 failures
day 72: told: Certificate home.example.org is fine again, 89 days left`},
		{"four weeks", 90 * day, 95 * day, func(w *earth) { w.refuses = []span{{58 * day, 86 * day}} }, `
day 68: told: Certificate home.example.org: renewal fails, 20 days left
day 71: told: Reminder: Certificate home.example.org: renewal fails, 17 days left
day 74: told: Reminder: Certificate home.example.org: renewal fails, 14 days left
day 77: told: Reminder: Certificate home.example.org: renewal fails, 11 days left
day 80: told: Reminder: Certificate home.example.org: renewal fails, 8 days left
day 82: told: URGENT: certificate home.example.org: renewal fails, 6 days left
day 83: told: URGENT: certificate home.example.org: renewal fails, 5 days left
day 84: told: URGENT: certificate home.example.org: renewal fails, 4 days left
day 85: told: URGENT: certificate home.example.org: renewal fails, 3 days left
day 86: renewed after 32 failures
day 86: told: Certificate home.example.org is fine again, 89 days left`},
		{"until it has expired", 90 * day, 93 * day, func(w *earth) { w.refuses = []span{{80 * day, 91 * day}, {58 * day, 80 * day}} }, `
day 68: told: Certificate home.example.org: renewal fails, 20 days left
day 71: told: Reminder: Certificate home.example.org: renewal fails, 17 days left
day 74: told: Reminder: Certificate home.example.org: renewal fails, 14 days left
day 77: told: Reminder: Certificate home.example.org: renewal fails, 11 days left
day 80: told: Reminder: Certificate home.example.org: renewal fails, 8 days left
day 82: told: URGENT: certificate home.example.org: renewal fails, 6 days left
day 83: told: URGENT: certificate home.example.org: renewal fails, 5 days left
day 84: told: URGENT: certificate home.example.org: renewal fails, 4 days left
day 85: told: URGENT: certificate home.example.org: renewal fails, 3 days left
day 86: told: URGENT: certificate home.example.org: renewal fails, 2 days left
day 87: told: URGENT: certificate home.example.org: renewal fails, 1 day left
day 88: told: URGENT: certificate home.example.org: renewal fails, less than a day left
day 89: told: EXPIRED: certificate home.example.org, less than a day ago
day 90: told: EXPIRED: certificate home.example.org, 1 day ago
day 91: renewed after 73 failures
day 91: told: Certificate home.example.org is fine again, 89 days left`},
		{"45 days, for two weeks", 45 * day, 50 * day, func(w *earth) { w.refuses = []span{{29 * day, 43 * day}} }, `
day 34: told: Certificate home.example.org: renewal fails, 10 days left
day 37: told: Reminder: Certificate home.example.org: renewal fails, 7 days left
day 40: told: Reminder: Certificate home.example.org: renewal fails, 4 days left
day 41: told: URGENT: certificate home.example.org: renewal fails, 3 days left
day 42: told: URGENT: certificate home.example.org: renewal fails, 2 days left
day 43: renewed after 22 failures
day 43: told: Certificate home.example.org is fine again, 44 days left`},
		{"six days, for two: nobody is told", 6 * day, 10 * day, func(w *earth) { w.refuses = []span{{2 * day, 4 * day}} }, `
day 4: renewed after 6 failures`},
		{"no network for a month: nobody can be told", 90 * day, 100 * day, func(w *earth) { w.lost = []span{{58 * day, 88 * day}} }, `
day 88: renewed after 37 failures`},
		{"from the first day", 90 * day, 5 * day, func(w *earth) { w.refuses = []span{{0, 3 * day}} }, `
day 0: told: Certificate home.example.org: there is none yet
day 1: told: URGENT: certificate home.example.org: there is none yet
day 2: told: URGENT: certificate home.example.org: there is none yet
day 3: told: URGENT: certificate home.example.org: there is none yet
day 3: renewed after 15 failures
day 3: told: Certificate home.example.org is fine again, 89 days left`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) {
				w := newEarth(t, c.lifetime)
				c.edit(w)
				w.live(t, dir, conf(t, dir, "", nil), c.until)
				if got := w.pages(); got != strings.TrimSpace(c.want) {
					t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
				}
				if n := mostIn(w.starts, time.Hour); n > 4 {
					t.Errorf("%d attempts within an hour", n)
				}
			})
		})
	}
}

// A server that does not take the new certificate, and one that does so late.
func TestServedIsNotInstalled(t *testing.T) {
	with := func(window string) func(*settings.Settings) {
		return func(s *settings.Settings) {
			action, err := settings.ParseAction("restart nginx")
			if err != nil {
				t.Fatal(err)
			}
			s.Certificates[0].After = []settings.Action{action}
			s.Certificates[0].Endpoints = []string{"home.example.org:443"}
			if s.RestartWindow, err = settings.ParseWindow(window); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		reload bool
		window string
		want   string
	}{
		{"the server takes it", true, "", ``},
		{"it takes it at night", true, "03:00-05:00", ``},
		{"it does not take it", false, "", `
day 59: told: Certificate home.example.org: the old one is still served, 30 days left`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) {
				w := newEarth(t, 90*day)
				time.AfterFunc(30*day, func() { w.mu.Lock(); defer w.mu.Unlock(); w.reload = c.reload })
				w.live(t, dir, conf(t, dir, "", with(c.window)), 61*day)
				if got := w.pages(); got != strings.TrimSpace(c.want) {
					t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
				}
			})
		})
	}
}

// A clock that cannot be believed: nothing is judged, renewed or sent.
func TestClocks(t *testing.T) {
	wrong := func(w *earth, d time.Duration) func() {
		return func() { w.mu.Lock(); defer w.mu.Unlock(); w.wrong = d }
	}
	sleeps := func(w *earth, d time.Duration) func() {
		return func() { w.mu.Lock(); defer w.mu.Unlock(); w.slept += d }
	}
	for _, c := range []struct {
		name   string
		until  time.Duration
		edit   func(*earth)
		orders int
		status string // in the end
		want   string
	}{
		{"a jump ahead of a year", 20 * day, func(w *earth) {
			time.AfterFunc(10*day, wrong(w, 400*day))
			time.AfterFunc(10*day+3*time.Hour, wrong(w, 0))
		}, 1, "ok", ``},
		{"a jump ahead that stays", 20 * day, func(w *earth) { time.AfterFunc(10*day, wrong(w, 400*day)) }, 1, "unknown", ``},
		{"a jump back of two years", 20 * day, func(w *earth) {
			time.AfterFunc(10*day, wrong(w, -700*day))
			time.AfterFunc(12*day, wrong(w, 0))
		}, 1, "ok", ``},
		{"back beyond the build, without a network", 20 * day, func(w *earth) {
			w.lost = []span{{10 * day, 13 * day}}
			time.AfterFunc(10*day, wrong(w, -20000*day))
			time.AfterFunc(12*day, wrong(w, 0))
		}, 1, "ok", ``},
		{"a boot in 1970, NTP after an hour", 5 * day, func(w *earth) {
			w.wrong = -20000 * day
			time.AfterFunc(time.Hour, wrong(w, 0))
		}, 1, "ok", ``},
		{"asleep for a month when it was due", 95 * day, func(w *earth) {
			time.AfterFunc(50*day, sleeps(w, 31*day)) // it wakes with 8 days left
		}, 2, "ok", `
`},
		{"asleep every night", 70 * day, func(w *earth) {
			for n := range 50 {
				time.AfterFunc(time.Duration(n)*16*time.Hour, sleeps(w, 8*time.Hour))
			}
		}, 2, "ok", ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) {
				w := newEarth(t, 90*day)
				c.edit(w)
				snap := w.live(t, dir, conf(t, dir, "", nil), c.until)
				if got := w.pages(); got != strings.TrimSpace(c.want) {
					t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
				}
				if len(w.starts) != c.orders {
					t.Errorf("%d orders, want %d", len(w.starts), c.orders)
				}
				if snap.Status != c.status {
					t.Errorf("status %s, want %s: %+v", snap.Status, c.status, snap.Problems)
				}
			})
		})
	}
}
