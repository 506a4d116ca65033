package renew

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/certsitter/certsitter/expiry"
)

var epoch = time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)

func version(life time.Duration) *Version {
	return &Version{
		ID: "v0001", Names: []string{"home.example.org"}, CertID: "aa.bb", Directory: "https://ca.example/dir",
		NotBefore: epoch, NotAfter: epoch.Add(life), StoredAt: epoch.Add(time.Hour),
	}
}

var home = Settings{Names: []string{"home.example.org"}, Directory: "https://ca.example/dir", Seed: "installation/home"}

// window is Let's Encrypt's advice: the ideal instant ± 1 % of the lifetime
// (boulder core/objects.go).
func window(v *Version) Window {
	life := v.Lifetime()
	ideal := v.NotAfter.Add(-life / 3)
	if life < 10*day {
		ideal = v.NotAfter.Add(-life / 2)
	}
	return Window{Start: ideal.Add(-life / 100), End: ideal.Add(life / 100)}
}

func left(v *Version, t time.Time) string { return fmt.Sprintf("%.2f", v.NotAfter.Sub(t).Hours()/24) }

func TestDueWithoutAdvice(t *testing.T) {
	for _, c := range []struct {
		life   time.Duration
		before int // renew_before_days
		want   string
	}{
		// The worked examples of the ACME notes, with the contract's clamp of L/6…L/2.
		{90 * day, 0, "30.00"}, {64 * day, 0, "21.33"}, {45 * day, 0, "15.00"}, {160 * time.Hour, 0, "3.33"},
		{90 * day, 30, "30.00"}, {64 * day, 30, "30.00"}, {45 * day, 30, "22.50"}, {160 * time.Hour, 30, "3.33"},
		{90 * day, 60, "45.00"}, {64 * day, 60, "32.00"},
		{90 * day, 2, "15.00"}, {64 * day, 2, "10.67"}, {45 * day, 2, "7.50"}, {160 * time.Hour, 2, "2.00"},
		{398 * day, 0, "132.67"}, {24 * time.Hour, 0, "0.50"}, {4 * time.Hour, 0, "0.08"},
	} {
		v := version(c.life)
		s := home
		s.RenewBefore = time.Duration(c.before) * day
		d := Decide(epoch, Facts{Newest: v, Covers: true}, Record{}, s)
		if got := left(v, d.Due); got != c.want {
			t.Errorf("lifetime %v, renew_before_days %d: due with %s days left, want %s", c.life, c.before, got, c.want)
		}
	}
}

func TestAdviceOfTheCA(t *testing.T) {
	v := version(90 * day)
	good := window(v)
	d := Decide(epoch, Facts{Newest: v, Covers: true, Window: good}, Record{}, home)
	if half := good.Start.Add(good.End.Sub(good.Start) / 2); d.Due.Before(good.Start) || !d.Due.Before(half) {
		t.Errorf("due %v is not in the first half of %v…%v", d.Due, good.Start, good.End)
	}
	again := Decide(epoch.Add(40*day), Facts{Newest: v, Covers: true, Window: good}, Record{}, home)
	if !again.Due.Equal(d.Due) {
		t.Errorf("the same window gave %v and then %v", d.Due, again.Due)
	}
	other := home
	other.Seed = "elsewhere/home"
	if o := Decide(epoch, Facts{Newest: v, Covers: true, Window: good}, Record{}, other); o.Due.Equal(d.Due) {
		t.Error("two installations chose the same instant")
	}
	age := v.NotAfter.Add(-30 * day)
	for name, w := range map[string]Window{
		"none":              {},
		"reversed":          {Start: epoch.Add(20 * day), End: epoch.Add(10 * day)},
		"empty":             {Start: epoch.Add(20 * day), End: epoch.Add(20 * day)},
		"without end":       {Start: epoch.Add(20 * day)},
		"before its time":   {Start: epoch.Add(-2 * day), End: epoch.Add(-1 * day)},
		"after its end":     {Start: epoch.Add(91 * day), End: epoch.Add(92 * day)},
		"later than by age": {Start: epoch.Add(80 * day), End: epoch.Add(82 * day)},
	} {
		if d := Decide(epoch, Facts{Newest: v, Covers: true, Window: w}, Record{}, home); !d.Due.Equal(age) {
			t.Errorf("%s: due %v, want %v by age", name, d.Due, age)
		}
	}
}

// A CA that always says "now" must not make us order for ever.
func TestAdviceNeverSoonerThanTheIssuanceAllows(t *testing.T) {
	for _, c := range []struct{ life, want time.Duration }{{90 * day, time.Hour}, {4 * time.Hour, 24 * time.Minute}} {
		v := version(c.life)
		past := Window{Start: v.StoredAt.Add(-20 * time.Minute), End: v.StoredAt.Add(-10 * time.Minute)}
		d := Decide(v.StoredAt, Facts{Newest: v, Covers: true, Window: past}, Record{}, home)
		if got := d.Due.Sub(v.StoredAt); got != c.want {
			t.Errorf("lifetime %v: due %v after the issuance, want %v", c.life, got, c.want)
		}
	}
}

func TestAtOnce(t *testing.T) {
	now := epoch.Add(10 * day)
	staging := version(90 * day)
	staging.Staging = true
	for _, c := range []struct {
		name  string
		facts Facts
		want  Reason
	}{
		{"nothing stored", Facts{}, Missing},
		{"a name was added", Facts{Newest: version(90 * day)}, Names},
		{"from staging to a real CA", Facts{Newest: staging, Covers: true}, Trusted},
		{"fresh", Facts{Newest: version(90 * day), Covers: true}, Fresh},
	} {
		s := home
		s.Schedule = weekly(t) // routine only
		d := Decide(now, c.facts, Record{}, s)
		if d.Reason != c.want || d.Now(now) != (c.want != Fresh) {
			t.Errorf("%s: %+v, want %s", c.name, d, c.want)
		}
	}
	other := home
	other.Directory = "https://other.example/dir"
	if d := Decide(now, Facts{Newest: version(90 * day), Covers: true}, Record{}, other); d.Reason != Fresh {
		t.Errorf("another CA is for the next due instant, not %s", d.Reason)
	}
}

func weekly(t *testing.T) Schedule {
	t.Helper()
	s, err := cron.ParseStandard("0 3 * * 1")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		life   time.Duration
		want   string // days left at the first attempt
		coarse bool
	}{
		{90 * day, "27.88", false},      // due on a Saturday: the Monday after, 03:00
		{160 * time.Hour, "1.67", true}, // no Monday in time: a quarter of the lifetime
		{4 * time.Hour, "0.04", true},   // likewise
		{398 * day, "125.88", false},    // due on a Monday at 08:00: a week later
		{24 * time.Hour, "0.25", true},  // likewise
	} {
		v := version(c.life)
		s := home
		s.Schedule = weekly(t)
		d := Decide(epoch, Facts{Newest: v, Covers: true}, Record{}, s)
		if got := left(v, d.Planned); got != c.want {
			t.Errorf("lifetime %v: planned with %s days left, want %s (%v)", c.life, got, c.want, d.Planned)
		}
		if TooCoarse(*v, Window{}, s) != c.coarse {
			t.Errorf("lifetime %v: TooCoarse is %v", c.life, !c.coarse)
		}
	}
	s := home
	s.Schedule, s.RenewBefore = weekly(t), time.Hour // clamped to L/6, later than L/4
	v := version(90 * day)
	if d := Decide(epoch, Facts{Newest: v, Covers: true}, Record{}, s); left(v, d.Planned) != "15.00" {
		t.Errorf("planned with %s days left", left(v, d.Planned))
	}
}

func fail(r Record, at time.Time, f Fault) Record { return r.Begin(at, false).Failed(at, &f) }

var broken = Fault{Problems: []Problem{{Step: StepChallenge, Type: "urn:ietf:params:acme:error:connection", Detail: "Timeout during connect"}}}

func TestBackoff(t *testing.T) {
	v := version(90 * day)
	f := Facts{Newest: v, Covers: true}
	at := v.NotAfter.Add(-30 * day)
	var r Record
	for i, want := range []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, day, day, day} {
		r = fail(r, at, broken)
		d := Decide(at, f, r, home)
		if got := d.At.Sub(at); got != want || d.Hold != OnBackoff {
			t.Errorf("after failure %d: %v (%s), want %v", i+1, got, d.Hold, want)
		}
		at = d.At
	}
	for _, c := range []struct {
		name   string
		newest *Version
		left   time.Duration
		fails  int
		want   time.Duration
	}{
		{"an eighth of what is left", v, 4 * day, 7, 12 * time.Hour},
		{"never below 15 minutes", v, time.Hour, 7, 15 * time.Minute},
		{"expired", v, -time.Hour, 7, 6 * time.Hour},
		{"expired, first failure", v, -time.Hour, 1, 15 * time.Minute},
		{"nothing in force", nil, 0, 7, 6 * time.Hour},
	} {
		at := v.NotAfter.Add(-c.left)
		r := Record{Failures: c.fails - 1, FirstFailure: at.Add(-day)}
		r = fail(r, at, broken)
		d := Decide(at, Facts{Newest: c.newest, Covers: true}, r, home)
		if got := d.At.Sub(at); got != c.want {
			t.Errorf("%s: next after %v, want %v", c.name, got, c.want)
		}
	}
	if d := Decide(at, f, r.Reconfigured(), home); !d.Now(at) {
		t.Error("a changed configuration waits for the back-off")
	}
	if r := r.Succeeded(at); r.Failing() || r.Sentence != "" || !r.LastSuccess.Equal(at) {
		t.Errorf("after a success: %+v", r)
	}
}

// What was cut off by a crash is no failure, but counts in the hourly cap.
func TestAttemptWithoutAnEnd(t *testing.T) {
	now := epoch.Add(70 * day)
	r := Record{}.Begin(now, false)
	f := Facts{Newest: version(90 * day), Covers: true, Attempts: []time.Time{now}}
	if d := Decide(now, f, r, home); !d.Now(now) || r.Failing() {
		t.Errorf("%+v", d)
	}
	f.Attempts = []time.Time{now.Add(-50 * time.Minute), now.Add(-40 * time.Minute), now.Add(-30 * time.Minute), now}
	if d := Decide(now, f, r, home); !d.At.Equal(now.Add(10*time.Minute)) || d.Hold != OnHourly {
		t.Errorf("a fifth attempt within the hour: %+v", d)
	}
}

func TestRetryAfter(t *testing.T) {
	now := epoch.Add(70 * day)
	f := Facts{Newest: version(90 * day), Covers: true}
	for _, c := range []struct{ asked, want time.Duration }{{36 * time.Hour, 36 * time.Hour}, {90 * day, 7 * day}, {time.Second, 0}} {
		limited := Fault{Problems: broken.Problems, RetryAfter: c.asked}
		r := fail(Record{}, now, limited)
		f.RetryAfter = r.RetryAfter
		d := Decide(now, f, r, home)
		if want := max(c.want, 15*time.Minute); d.At.Sub(now) != want {
			t.Errorf("asked to wait %v: waits %v", c.asked, d.At.Sub(now))
		}
		if until, _ := Guard(now, f, home); c.want > 0 && !until.Equal(now.Add(c.want)) {
			t.Errorf("by hand: possible %v, want after %v", until, c.want)
		}
	}
	whole := fail(Record{}, now, Fault{Problems: broken.Problems, RetryAfter: time.Hour, WholeDirectory: true})
	if !whole.RetryAfter.IsZero() {
		t.Error("what holds for the whole directory was kept for one certificate")
	}
}

func TestIssuances(t *testing.T) {
	now := epoch.Add(70 * day)
	three := []time.Time{now.Add(-6 * day), now.Add(-2 * day), now.Add(-day)}
	f := Facts{Newest: version(90 * day), Covers: true, Issuances: three}
	if until, why := Guard(now, f, home); !until.Equal(now.Add(day)) || why != OnIssued {
		t.Errorf("three in a week: %v %s", until, why)
	}
	private := home
	private.Private = true
	if until, _ := Guard(now, f, private); !until.IsZero() {
		t.Error("a private CA is held to a public one's limits")
	}
	short := Facts{Newest: version(4 * time.Hour), Covers: true, Issuances: []time.Time{now.Add(-5 * time.Hour), now.Add(-3 * time.Hour), now.Add(-time.Hour)}}
	if until, _ := Guard(now, short, home); !until.IsZero() {
		t.Error("min(7 d, L) was not applied to a short lifetime")
	}
}

var lifetimes = []time.Duration{398 * day, 90 * day, 64 * day, 45 * day, 6 * day, 24 * time.Hour, 4 * time.Hour}

// What must hold whatever happened: random certificates, advice, failures and
// answers.
func TestProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	span := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	for range 200_000 {
		v := version(lifetimes[r.IntN(len(lifetimes))])
		life := v.Lifetime()
		now := v.StoredAt.Add(span(life + life/4))
		f := Facts{Newest: v, Covers: true}
		switch r.IntN(4) {
		case 0:
			f.Window = window(v)
		case 1:
			start := epoch.Add(span(2*life) - life/2)
			f.Window = Window{Start: start, End: start.Add(span(life) - life/4)}
		}
		s := home
		if r.IntN(2) == 0 {
			s.RenewBefore = span(120 * day)
		}
		var rec Record
		if r.IntN(2) == 0 {
			end := now.Add(-span(2 * day))
			rec = Record{Failures: 1 + r.IntN(40), FirstFailure: end, LastEnd: end, Patient: true}
		}
		if r.IntN(4) == 0 {
			f.RetryAfter = now.Add(span(3*day) - day)
		}
		d := Decide(now, f, rec, s)
		if again := Decide(now, f, rec, s); again != d {
			t.Fatalf("not deterministic: %+v, %+v", d, again)
		}
		if d.Due.After(v.NotAfter.Add(-life / 6)) {
			t.Fatalf("due later than a sixth of the lifetime before its end: %+v", d)
		}
		if !f.Window.sound(*v) && d.Due.Before(v.NotAfter.Add(-life/2)) {
			t.Fatalf("without advice due before half of the lifetime: %+v", d)
		}
		if d.Due.Before(v.StoredAt.Add(min(time.Hour, life/10))) && d.Due.Before(v.NotAfter.Add(-life/2)) {
			t.Fatalf("advice brought it forward too far: %+v", d)
		}
		if d.Now(now) && now.Before(f.RetryAfter) {
			t.Fatalf("against Retry-After: %+v", d)
		}
		if rec.Failures > 0 && d.At.Before(rec.LastEnd.Add(15*time.Minute)) && d.At.After(d.Planned) {
			t.Fatalf("less than 15 minutes after a failure: %+v", d)
		}
		// Liveness: the next attempt is at most a day after the last one.
		limit := slices.MaxFunc([]time.Time{d.Planned, rec.LastEnd.Add(day), f.RetryAfter}, time.Time.Compare)
		if d.At.After(limit) {
			t.Fatalf("too late: %+v, %v", d, limit)
		}
		if d.Now(now) && !Decide(now.Add(span(5*day)), f, rec, s).Now(now.Add(5*day)) {
			t.Fatalf("due now, not due later: %+v", d)
		}
		// A healthy certificate is never in the range in which people are called.
		if w := expiry.Scale(21, life); !d.Planned.Before(v.NotAfter.Add(-w)) && s.RenewBefore == 0 {
			t.Fatalf("planned with less than %v left: %+v", w, d)
		}
	}
}

func TestCovers(t *testing.T) {
	v := Version{Names: []string{"home.example.org", "*.home.example.org", "192.0.2.1"}}
	for _, c := range []struct {
		names []string
		want  bool
	}{
		{[]string{"home.example.org"}, true},
		{[]string{"*.home.example.org", "192.0.2.1"}, true},
		{[]string{"nas.home.example.org"}, true},
		{[]string{"a.b.home.example.org"}, false},
		{[]string{"other.example.org"}, false},
		{[]string{"*.example.org"}, false},
	} {
		if got := v.Covers(c.names); got != c.want {
			t.Errorf("Covers(%v) = %v", c.names, got)
		}
	}
}
