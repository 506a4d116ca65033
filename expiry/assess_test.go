package expiry_test

import (
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/internal/testca"
)

var update = flag.Bool("update", false, "write the golden files anew")

// managed is a healthy managed certificate of a lifetime with so much left.
func managed(life, left time.Duration) expiry.Facts {
	return expiry.Facts{
		Managed: true, WarnDays: 21, CriticalDays: 7, Names: []string{"home.example.org"},
		Installed: plain(noon.Add(left-life), life, "home.example.org"), LastSuccess: noon.Add(left - life),
	}
}

// watched is the same that somebody else renews.
func watched(life, left time.Duration) expiry.Facts {
	return expiry.Facts{WarnDays: 21, CriticalDays: 7, Installed: plain(noon.Add(left-life), life, "nas.example.org")}
}

func with(f expiry.Facts, change func(*expiry.Facts)) expiry.Facts {
	change(&f)
	return f
}

func failed(f *expiry.Facts) {
	f.AttemptFailed, f.FirstFailure, f.DueAt = true, noon.Add(-time.Hour), noon.Add(-time.Hour)
	f.FailureText, f.FailureAdvice = "The CA could not reach port 80.", "Forward port 80 to this machine."
}

// verdict writes problems as code/severity.
func verdict(problems []expiry.Problem) string {
	var words []string
	for _, p := range problems {
		words = append(words, p.Code+"/"+p.Severity.String())
	}
	return strings.Join(words, " ")
}

// TestLifetimes goes through every rule that depends on what is left, for each
// lifetime, on both sides of each border.
func TestLifetimes(t *testing.T) {
	const tick = time.Millisecond
	for _, l := range lifetimes {
		t.Run(fmt.Sprint(l.life), func(t *testing.T) {
			expired := func(f *expiry.Facts) { failed(f); f.FailureText = "" }
			for _, test := range []struct {
				name string
				f    expiry.Facts
				want string
			}{
				{"watched, long", watched(l.life, l.warn+tick), ""},
				{"watched, below W", watched(l.life, l.warn-tick), "expiring/warning"},
				{"watched, above K", watched(l.life, l.critical+tick), "expiring/warning"},
				{"watched, below K", watched(l.life, l.critical-tick), "expiring/critical"},
				{"watched, last moment", watched(l.life, 1), "expiring/critical"},
				{"watched, expired", watched(l.life, 0), "expired/expired"},
				{"managed, below W, nothing failed", managed(l.life, l.warn-tick), ""},
				{"managed, below K, nothing failed", managed(l.life, l.critical-tick), ""},
				{"managed, expired, nothing failed", managed(l.life, 0), "expired/expired"},
				{"failed above W", with(managed(l.life, l.warn+tick), failed), "renewal_failed/notice"},
				{"failed below W", with(managed(l.life, l.warn-tick), failed), "renewal_failed/warning"},
				{"failed above K", with(managed(l.life, l.critical+tick), failed), "renewal_failed/warning"},
				{"failed below K", with(managed(l.life, l.critical-tick), failed), "renewal_failed/critical"},
				{"failed until the end", with(managed(l.life, 0), expired), "expired/expired"},
				{"due within g", with(managed(l.life, l.warn-tick), func(f *expiry.Facts) { f.DueAt = noon.Add(-l.grace + tick) }), ""},
				{"due beyond g, above W", with(managed(l.life, l.warn+tick), func(f *expiry.Facts) { f.DueAt = noon.Add(-l.grace - tick) }), "renewal_overdue/notice"},
				{"due beyond g, below W", with(managed(l.life, l.warn-tick), func(f *expiry.Facts) { f.DueAt = noon.Add(-l.grace - tick) }), "renewal_overdue/warning"},
				{"due beyond g, below K", with(managed(l.life, l.critical-tick), func(f *expiry.Facts) { f.DueAt = noon.Add(-l.grace - tick) }), "renewal_overdue/critical"},
				{"due beyond g, but a success since", with(managed(l.life, l.critical-tick), func(f *expiry.Facts) {
					f.DueAt, f.LastSuccess = noon.Add(-l.grace-tick), noon.Add(-l.grace)
				}), ""},
			} {
				if got := verdict(expiry.Assess(noon, test.f)); got != test.want {
					t.Errorf("%s: %q, want %q", test.name, got, test.want)
				}
			}
		})
	}
}

func TestLiteralDays(t *testing.T) {
	f := watched(6*day, 5*day)
	if got := verdict(expiry.Assess(noon, f)); got != "" {
		t.Errorf("scaled: %q", got)
	}
	f.Literal = true
	if got := verdict(expiry.Assess(noon, f)); got != "expiring/critical" {
		t.Errorf("literal: %q", got)
	}
	f = watched(398*day, 22*day)
	f.Literal, f.WarnDays, f.CriticalDays = true, 30, 10
	if got := verdict(expiry.Assess(noon, f)); got != "expiring/warning" {
		t.Errorf("30 days, literally: %q", got)
	}
}

// situations are all the others, with the golden texts of each.
func situations(t *testing.T) []situation {
	_, inter, leaf := family(t)
	full := &expiry.Certificate{Leaf: leaf.Cert, Chain: chain(inter)}
	bare := &expiry.Certificate{Leaf: leaf.Cert}
	old := plain(noon.Add(-80*day), 90*day, "home.example.org")
	older := plain(noon.Add(-86*day), 90*day, "home.example.org")
	dead := plain(noon.Add(-91*day), 90*day, "home.example.org")
	strange := plain(noon.Add(-91*day), 90*day, "a.example.net", "b.example.net", "c.example.net", "d.example.net", "e.example.net")
	strange.Leaf.Issuer = pkix.Name{CommonName: "Proxy CA"}
	legacy := plain(noon.Add(-day), 90*day)
	legacy.Leaf.Subject = pkix.Name{CommonName: "nas.example.org"}
	staging := plain(noon.Add(-day), 90*day, "home.example.org")
	staging.Leaf.Issuer = pkix.Name{CommonName: "(STAGING) Riddling Rhubarb R12"}
	healthy := managed(90*day, 89*day)
	none := with(healthy, func(f *expiry.Facts) { f.Installed, f.LastSuccess, f.DueAt = nil, time.Time{}, noon })
	lacking := with(healthy, func(f *expiry.Facts) {
		f.Names = []string{"home.example.org", "new.example.org", "*.home.example.org"}
		f.DueAt = noon
	})
	firstFailure := func(ago time.Duration) func(*expiry.Facts) {
		return func(f *expiry.Facts) { failed(f); f.FirstFailure = noon.Add(-ago) }
	}
	notInstalled := func(f *expiry.Facts) {
		f.IssuedNotInstalled, f.InstallError = true, "the folder /ssl is not writable"
	}
	endpoint := func(f expiry.Facts, s expiry.Served, change ...func(*expiry.Facts)) expiry.Facts {
		s.Address = "home.example.org:443"
		f.Served = []expiry.Served{s}
		for _, c := range change {
			c(&f)
		}
		return f
	}
	stale := expiry.Served{Certificate: old, Known: true, NameOK: true, ChainOK: true, Since: noon.Add(-30 * day)}
	asked := stale
	asked.Attended, asked.Advice = true, "Press the button."
	deployed := func(ago time.Duration, actions bool) func(*expiry.Facts) {
		return func(f *expiry.Facts) { f.DeployEnded, f.HasActions = noon.Add(-ago), actions }
	}
	waiting := func(f *expiry.Facts) {
		f.Waiting, f.ActionAdvice = "The restart of Home Assistant waits until 03:00", "Restart Home Assistant now."
	}
	nas := watched(90*day, 60*day)
	self := &expiry.Certificate{Leaf: testca.SelfSigned(t, noon.Add(-day), noon.Add(89*day), "nas.local").Cert}
	list := []situation{
		{"healthy", healthy, ""},
		{"failed above W", with(healthy, failed), "renewal_failed/notice"},
		{"failed below W", with(managed(90*day, 20*day), failed), "renewal_failed/warning"},
		{"failed without a reason", with(managed(90*day, 20*day), func(f *expiry.Facts) { f.AttemptFailed = true }), "renewal_failed/warning"},
		{"overdue", with(managed(90*day, 20*day), func(f *expiry.Facts) { f.DueAt = noon.Add(-5 * day) }), "renewal_overdue/warning"},
		{"expired", with(managed(90*day, -2*day), failed), "expired/expired"},

		{"nothing in force, first order", none, "no_certificate/notice"},
		{"nothing in force, first failure", with(none, firstFailure(0)), "no_certificate/warning"},
		{"nothing in force, failing for 23:59", with(none, firstFailure(24*time.Hour-time.Minute)), "no_certificate/warning"},
		{"nothing in force, failing for a day", with(none, firstFailure(24*time.Hour)), "no_certificate/critical"},
		{"nothing in force, nothing tried", with(none, func(f *expiry.Facts) { f.DueAt = noon.Add(-31 * time.Minute) }), "no_certificate/warning"},
		{"nothing in force, not even unreadable", with(none, func(f *expiry.Facts) { f.Unreadable = "/ssl may not be read." }), "unreadable/unknown"},
		{"a name is missing, being ordered", lacking, "names_missing/notice"},
		{"a name is missing, first failure", with(lacking, firstFailure(0)), "names_missing/warning"},
		{"a name is missing, failing for a day", with(lacking, firstFailure(24*time.Hour)), "names_missing/critical"},
		{"a name is missing, failing below K", with(managed(90*day, 6*day), func(f *expiry.Facts) { f.Names = lacking.Names; failed(f) }), "names_missing/critical"},
		{"a name is missing, expired", with(managed(90*day, -day), func(f *expiry.Facts) { f.Names = lacking.Names; failed(f) }), "expired/expired names_missing/warning"},

		{"being installed", with(healthy, func(f *expiry.Facts) { f.IssuedNotInstalled = true }), "not_installed/notice"},
		{"not installed", with(healthy, notInstalled), "not_installed/warning"},
		{"not installed below K", with(managed(90*day, 6*day), notInstalled), "not_installed/critical"},
		{"not installed, nothing in force", with(none, notInstalled), "not_installed/warning"},

		{"served as installed", endpoint(healthy, expiry.Served{Certificate: healthy.Installed, Same: true, NameOK: true, ChainOK: true}), ""},
		{"served without the chain", endpoint(with(healthy, func(f *expiry.Facts) { f.Installed = full }), expiry.Served{Certificate: bare, Same: true, NameOK: true}), "chain_incomplete/warning"},
		{"served from an unknown CA", endpoint(with(healthy, func(f *expiry.Facts) { f.Installed = full }), expiry.Served{Certificate: full, Same: true, NameOK: true}), "untrusted/notice"},
		{"served for another name", endpoint(healthy, expiry.Served{Certificate: healthy.Installed, Same: true, ChainOK: true}), "wrong_name/warning"},
		{"served, a starter for no name", endpoint(with(healthy, func(f *expiry.Facts) { f.Installed, f.DueAt = self, noon }), expiry.Served{Certificate: self, Same: true}), "untrusted/notice names_missing/notice"},
		{"served as a twin that expired", endpoint(healthy, expiry.Served{Certificate: dead, Same: true, NameOK: true, ChainOK: true}), "expired/expired"},
		{"not reachable", endpoint(healthy, expiry.Served{Error: "home.example.org:443 refuses connections: nothing listens there."}), "unreachable/notice"},
		{"not looked at yet", endpoint(healthy, expiry.Served{}), ""},

		{"stale, action ended 14:59 ago", endpoint(healthy, stale, deployed(15*time.Minute-time.Second, true)), "stale/notice"},
		{"stale, action ended 15 minutes ago", endpoint(healthy, stale, deployed(15*time.Minute, true)), "stale/warning"},
		{"stale, action ended, with its advice", endpoint(healthy, stale, deployed(time.Hour, true), func(f *expiry.Facts) { f.ActionAdvice = "Restart Home Assistant." }), "stale/warning"},
		{"stale, no action, 25 h", endpoint(healthy, stale, deployed(25*time.Hour, false)), "stale/notice"},
		{"stale, no action, 26 h", endpoint(healthy, stale, deployed(26*time.Hour, false)), "stale/warning"},
		{"stale, action never ended", endpoint(healthy, stale, func(f *expiry.Facts) { f.HasActions = true }), "stale/warning"},
		{"stale, a person is asked", endpoint(healthy, asked, deployed(25*time.Hour, true)), "stale/notice"},
		{"stale, a person was asked 26 hours ago", endpoint(healthy, asked, deployed(26*time.Hour, true)), "stale/warning"},
		{"stale, action waits", endpoint(healthy, stale, deployed(time.Hour, true), waiting), "stale/notice waiting/notice"},
		{"stale, action fails", endpoint(healthy, stale, deployed(time.Hour, true), func(f *expiry.Facts) {
			f.ActionError, f.InstalledAt = "reload nginx: its configuration is broken", noon.Add(-time.Hour)
		}), "action_failed/warning stale/warning"},
		{"stale below K", endpoint(healthy, expiry.Served{Certificate: older, Known: true}, deployed(time.Hour, true)), "stale/critical"},
		{"stale below K, action waits", endpoint(healthy, expiry.Served{Certificate: older, Known: true}, deployed(time.Hour, true), waiting), "stale/notice waiting/notice"},
		{"stale and expired", endpoint(healthy, expiry.Served{Certificate: dead, Known: true}, waiting), "expired/expired waiting/notice"},
		{"stale and failed", endpoint(managed(90*day, 40*day), stale, deployed(0, true), failed), "renewal_failed/warning stale/notice"},
		{"foreign", endpoint(healthy, expiry.Served{Certificate: strange}), "foreign/notice"},

		{"waiting", with(healthy, waiting), "waiting/notice"},
		{"another client", with(healthy, func(f *expiry.Facts) { f.ForeignClient = true }), "foreign_client/notice"},
		{"staging", with(healthy, func(f *expiry.Facts) { f.Installed = staging }), "staging/notice"},
		{"managed, not yet valid", managed(90*day, 90*day+6*time.Minute), "not_yet_valid/warning"},
		{"clock a little wrong", managed(90*day, 90*day+5*time.Minute), ""},

		{"watched", nas, ""},
		{"watched below W", watched(90*day, 20*day), "expiring/warning"},
		{"watched expired", watched(90*day, -day), "expired/expired"},
		{"watched unreadable", expiry.Facts{Unreadable: "/ssl/nas.pem does not exist."}, "unreadable/unknown"},
		{"watched unreadable, known", with(nas, func(f *expiry.Facts) { f.Unreadable = "nas.local:5001 did not answer within 10s." }), "unreadable/unknown"},
		{"watched unreadable below W", with(watched(90*day, 20*day), func(f *expiry.Facts) { f.Unreadable = "It is off." }), "expiring/warning unreadable/unknown"},
		{"watched endpoint, silent", endpoint(expiry.Facts{}, expiry.Served{Error: "no answer"}), "unreadable/unknown"},
		{"watched, wrong name", endpoint(nas, expiry.Served{Certificate: nas.Installed, ChainOK: true}), "wrong_name/notice"},
		{"watched, common name only", endpoint(expiry.Facts{Installed: legacy}, expiry.Served{Certificate: legacy, ChainOK: true}), "wrong_name/notice"},
		{"watched, untrusted", endpoint(nas, expiry.Served{Certificate: strange, NameOK: true}), "expired/expired untrusted/notice"},
		{"watched, self-signed", endpoint(expiry.Facts{Installed: self}, expiry.Served{Certificate: self, NameOK: true}), "untrusted/notice"},
		{"watched, two addresses, one old", endpoint(nas, expiry.Served{Certificate: older, NameOK: true, ChainOK: true}, func(f *expiry.Facts) { f.WarnDays, f.CriticalDays = 21, 7 }), "expiring/critical"},
		{"pinned", endpoint(expiry.Facts{Installed: self, Pin: colons(self.Fingerprint())}, expiry.Served{Certificate: self}), ""},
		{"pin broken", endpoint(expiry.Facts{Installed: self, Pin: strings.Repeat("00", 32)}, expiry.Served{Certificate: self}), "pin_mismatch/warning"},
	}
	return list
}

type situation struct {
	name string
	f    expiry.Facts
	want string
}

func TestSituations(t *testing.T) {
	var texts strings.Builder
	for _, s := range situations(t) {
		problems := expiry.Assess(noon, s.f)
		if got := verdict(problems); got != s.want {
			t.Errorf("%s: %q, want %q", s.name, got, s.want)
		}
		fmt.Fprintf(&texts, "# %s\n", s.name)
		for _, p := range problems {
			fmt.Fprintf(&texts, "%v: %s\n\t%s\n", p.Severity, p.Text, p.Advice)
			if p.Text == "" || p.Advice == "" || strings.Contains(p.Text+p.Advice, "  ") || strings.Contains(p.Text, "..") {
				t.Errorf("%s: an unfinished sentence: %+v", s.name, p)
			}
		}
	}
	golden(t, "situations.txt", texts.String())
}

// golden compares with a file, but for fingerprints, which are new each time.
func golden(t *testing.T, name, got string) {
	t.Helper()
	words := strings.Fields(got)
	for _, word := range words {
		if len(strings.Trim(word, ".")) == 64 {
			got = strings.ReplaceAll(got, strings.Trim(word, "."), "FINGERPRINT")
		}
	}
	path := filepath.Join("testdata", name)
	if *update {
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

// TestDatesAreLocal: people read the time of their wall.
func TestDatesAreLocal(t *testing.T) {
	here := noon.In(time.FixedZone("CET", 3600))
	if text := expiry.Assess(here, watched(90*day, 20*day))[0].Text; !strings.Contains(text, "11 December 2026, 13:00 CET") {
		t.Error(text)
	}
}

// TestEarliest: ours count wherever they are served, others do not.
func TestEarliest(t *testing.T) {
	healthy := managed(90*day, 89*day)
	old := plain(noon.Add(-80*day), 90*day, "home.example.org")
	for _, test := range []struct {
		name string
		f    expiry.Facts
		want *expiry.Certificate
	}{
		{"nothing", expiry.Facts{}, nil},
		{"installed", healthy, healthy.Installed},
		{"stale", with(healthy, func(f *expiry.Facts) { f.Served = []expiry.Served{{}, {Certificate: old, Known: true}} }), old},
		{"foreign", with(healthy, func(f *expiry.Facts) { f.Served = []expiry.Served{{Certificate: old}} }), healthy.Installed},
		{"only stale", expiry.Facts{Managed: true, Served: []expiry.Served{{Certificate: old, Known: true}}}, old},
		{"watched", expiry.Facts{Installed: healthy.Installed, Served: []expiry.Served{{Certificate: old}}}, old},
	} {
		if got := expiry.Earliest(test.f); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestAlarming(t *testing.T) {
	unreadable := func(f expiry.Facts, ago time.Duration) expiry.Facts {
		f.Unreadable, f.UnreadableSince = "It is off.", noon.Add(-ago)
		return f
	}
	for _, test := range []struct {
		name string
		f    expiry.Facts
		want bool
	}{
		{"healthy", managed(90*day, 89*day), false},
		{"notice", with(managed(90*day, 89*day), failed), false},
		{"warning", watched(90*day, 20*day), true},
		{"unknown for 59 minutes", unreadable(watched(90*day, 80*day), 59*time.Minute), false},
		{"unknown for an hour", unreadable(watched(90*day, 80*day), time.Hour), true},
		{"unknown since ever", with(watched(90*day, 80*day), func(f *expiry.Facts) { f.Unreadable = "It is off." }), false},
		{"unknown hides no warning", unreadable(watched(90*day, 20*day), 0), true},
	} {
		if got := expiry.Alarming(noon, test.f, expiry.Assess(noon, test.f)); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// TestTimeMakesItWorse: with the same facts, a later moment is never judged more
// kindly.
func TestTimeMakesItWorse(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	coin := func() bool { return random.IntN(2) == 0 }
	for range 1000 {
		life := lifetimes[random.IntN(len(lifetimes))].life
		begin := noon
		moment := func() time.Time { return begin.Add(time.Duration(random.Int64N(int64(life)))) }
		f := expiry.Facts{
			Managed: coin(), WarnDays: random.IntN(40), CriticalDays: random.IntN(20), Literal: coin(), Names: []string{"home.example.org"},
			AttemptFailed: coin(), HasActions: coin(), IssuedNotInstalled: coin(), ForeignClient: coin(),
		}
		for chance, change := range []func(){
			func() { f.Installed = plain(begin, life, "home.example.org") },
			func() { f.Installed = plain(begin, life, "home.example.org") },
			func() { f.Names = append(f.Names, "new.example.org") },
			func() { f.FirstFailure = moment() },
			func() { f.DueAt = moment() },
			func() { f.LastSuccess = moment() },
			func() { f.InstallError = "no room" },
			func() { f.Waiting = "It waits." },
			func() { f.DeployEnded = moment() },
			func() { f.Unreadable, f.UnreadableSince = "It is off.", moment() },
			func() {
				f.Served = append(f.Served, expiry.Served{Certificate: plain(begin.Add(-life/2), life, "home.example.org"), Known: coin(), Same: coin(), NameOK: coin(), ChainOK: coin(), Since: moment()})
			},
		} {
			if random.IntN(3+chance%2) > 0 {
				change()
			}
		}
		worst, alarming := expiry.OK, false
		for step := range 60 {
			now := begin.Add(life * time.Duration(step) / 40)
			problems := expiry.Assess(now, f)
			s, a := expiry.Worst(problems), expiry.Alarming(now, f, problems)
			if s.Compare(worst) < 0 || alarming && !a {
				t.Fatalf("%v after %v of %v: %v (alarming %v), and before that %v (%v)\n%+v", now, now.Sub(begin), life, s, a, worst, alarming, f)
			}
			worst, alarming = s, a
			if !slices.IsSortedFunc(problems, func(a, b expiry.Problem) int { return b.Severity.Compare(a.Severity) }) {
				t.Fatalf("not worst first: %s", verdict(problems))
			}
		}
	}
}

// TestRenewedInTimeNeverWarns lives through the certificates of one name, each
// renewed at its due instant or within the grace, by the contract's rule and by
// every number of days that can be set.
func TestRenewedInTimeNeverWarns(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, l := range lifetimes {
		for _, before := range []time.Duration{0, l.life / 6, l.life / 4, l.life / 2} {
			if before == 0 {
				before = l.life / 3
				if l.life < 10*day {
					before = l.life / 2
				}
			}
			issued := noon
			for range 5 {
				c := plain(issued, l.life, "home.example.org")
				due := c.Leaf.NotAfter.Add(-before)
				renewed := due.Add(time.Duration(random.Int64N(int64(min(l.grace, before)))))
				for now := issued; now.Before(renewed); now = now.Add(l.life / 97) {
					f := expiry.Facts{
						Managed: true, WarnDays: 21, CriticalDays: 7, Names: []string{"home.example.org"}, Installed: c, LastSuccess: issued,
						Served: []expiry.Served{{Address: "home.example.org:443", Certificate: c, Same: true, Known: true, NameOK: true, ChainOK: true}},
					}
					if !now.Before(due) {
						f.DueAt = due
					}
					if problems := expiry.Assess(now, f); len(problems) > 0 {
						t.Fatalf("lifetime %v, %v before due: %+v", l.life, due.Sub(now), problems)
					}
				}
				issued = renewed
			}
		}
	}
}

// colons writes a fingerprint as openssl does.
func colons(fingerprint string) string {
	var parts []string
	for pair := range slices.Chunk([]byte(strings.ToUpper(fingerprint)), 2) {
		parts = append(parts, string(pair))
	}
	return strings.Join(parts, ":")
}
