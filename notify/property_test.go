package notify

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the machine need not know Berlin
)

// A message is a delivery as the receiver sees it, and what the sender meant.
type message struct {
	target, key string
	kind        Kind
	level       Severity
	generation  int
	at          time.Time
	id          string
}

// A world is a made-up household: subjects that fall ill and recover, targets
// that are up and down, a daemon that may be restarted at any time.
type world struct {
	random   *rand.Rand
	policy   Policy
	book     Book
	now      time.Time
	subjects []Subject
	removed  map[string]bool
	under    []Job
	heard    []message
	worst    map[string]Severity // per target and subject: since it last heard an all-clear
}

func newWorld(seed uint64) *world {
	w := &world{
		random:  rand.New(rand.NewPCG(seed, 16)),
		policy:  Policy{Targets: []string{"ntfy_1", "smtp_2"}, Quiet: nights},
		now:     start,
		removed: map[string]bool{},
		worst:   map[string]Severity{},
	}
	for _, key := range []string{"home", "nas", "mail"} {
		w.subjects = append(w.subjects, Subject{Key: key, Name: key, HasDays: true, NotAfter: start.AddDate(1, 0, 0)})
	}
	return w
}

var everySeverity = []Severity{OK, Notice, Warning, Critical, Expired}

// change lets the world go on.
func (w *world) change() {
	w.now = w.now.Add(time.Duration(1+w.random.IntN(40)) * time.Minute)
	for i := range w.subjects {
		s := &w.subjects[i]
		s.Unknown = w.random.IntN(20) == 0
		switch n := w.random.IntN(100); {
		case n < 8:
			s.Severity = everySeverity[w.random.IntN(len(everySeverity))]
		case n < 11:
			s.Severity = OK
		case n < 12:
			s.Severity, s.Renewed = OK, w.now
		}
		if w.random.IntN(2000) == 0 {
			w.removed[s.Key] = !w.removed[s.Key]
		}
	}
}

func (w *world) present() []Subject {
	present := slices.DeleteFunc(slices.Clone(w.subjects), func(s Subject) bool { return w.removed[s.Key] })
	w.random.Shuffle(len(present), func(i, j int) { present[i], present[j] = present[j], present[i] })
	return present
}

// finish ends a delivery that was under way.
func (w *world) finish(job Job) {
	sending := *w.book.Health[job.Target].Sending
	var err *Undelivered
	switch n := w.random.IntN(20); {
	case n < 5:
		err = &Undelivered{Reason: "connection refused"}
	case n < 6:
		err = &Undelivered{Reason: "slow down", RetryAfter: time.Hour}
	case n < 7:
		err = &Undelivered{Reason: "404 Not Found", Permanent: true}
	}
	w.book = w.book.Sent(w.now, job.ID, err)
	if err == nil {
		w.heard = append(w.heard, message{
			target: job.Target, key: sending.Key, kind: job.Kind, level: sending.Level,
			generation: sending.Generation, at: sending.Begun, id: job.ID,
		})
	}
	if err == nil && job.Kind == Resolved {
		w.worst[job.Target+" "+sending.Key] = w.book.Incidents[sending.Key].Highest
	}
}

// step is one round of the daemon. Deliveries end in this round or a later one.
func (w *world) step(t *testing.T, restart bool) {
	w.change()
	w.under = slices.DeleteFunc(w.under, func(job Job) bool {
		if h := w.book.Health[job.Target]; h.Sending == nil || h.Sending.Job != job.ID {
			return true
		}
		if w.random.IntN(3) == 0 {
			return false
		}
		w.finish(job)
		return true
	})
	present := w.present()
	w.book, _ = w.book.Observe(w.now, present, w.policy)
	if restart {
		w.book = reload(t, w.book)
	}
	var jobs []Job
	w.book, jobs, _ = w.book.Next(w.now, w.policy)
	if restart {
		w.book = reload(t, w.book)
	}
	w.under = append(w.under, jobs...)
	w.check(t, present, jobs)
}

func (w *world) check(t *testing.T, present []Subject, jobs []Job) {
	t.Helper()
	seen := map[string]bool{}
	for _, job := range jobs {
		if seen[job.Target] {
			t.Fatalf("two messages at once to %s", job.Target)
		}
		seen[job.Target] = true
		if nights(w.now) {
			t.Fatalf("I7: %s at %s", job.ID, w.now)
		}
		if w.removed[w.book.Health[job.Target].Sending.Key] {
			t.Fatalf("I12: %s about what was removed", job.ID)
		}
	}
	for _, s := range present {
		incident, found := w.book.Incidents[s.Key]
		if !found {
			continue
		}
		for target, telling := range incident.Told {
			who := target + " " + s.Key
			if !s.Unknown && s.Severity.Compare(w.worst[who]) > 0 {
				w.worst[who] = s.Severity
			}
			if telling.Level.Compare(w.worst[who]) > 0 {
				t.Fatalf("I6: %s was told %s at worst %s", who, telling.Level, w.worst[who])
			}
		}
	}
}

func run(t *testing.T, seed uint64, restart bool) *world {
	w := newWorld(seed)
	for range 1500 {
		w.step(t, restart)
	}
	return w
}

func TestInvariantsInRandomWorlds(t *testing.T) {
	total := 0
	for seed := range uint64(12) {
		w := run(t, seed, false)
		total += len(w.heard)
		checkMessages(t, seed, w.heard)
		if seed < 2 {
			if again := run(t, seed, true); !reflect.DeepEqual(again.heard, w.heard) {
				t.Fatalf("I4: seed %d: restarts change what is heard", seed)
			}
		}
	}
	if total < 1000 {
		t.Errorf("only %d messages: this does not test much", total)
	}
}

func checkMessages(t *testing.T, seed uint64, heard []message) {
	t.Helper()
	type stream struct{ target, key string }
	type life struct {
		target     string
		generation int
	}
	last := map[stream]message{}
	resolved := map[life]bool{}
	level := map[life]Severity{}
	ids := map[string]bool{}
	for _, m := range heard {
		if ids[m.id] {
			t.Fatalf("seed %d: %s delivered twice", seed, m.id)
		}
		ids[m.id] = true
		at, of := stream{m.target, m.key}, life{m.target, m.generation}
		if resolved[of] {
			t.Fatalf("I1: seed %d: %s after the end", seed, m.id)
		}
		before := last[at]
		if m.kind == Resolved {
			if level[of] == OK {
				t.Fatalf("I1: seed %d: %s to somebody who was not told", seed, m.id)
			}
			resolved[of] = true
		} else {
			if !m.level.calls() {
				t.Fatalf("seed %d: %s calls for %q", seed, m.id, m.level)
			}
			if (m.kind == Opened) != (level[of] == OK) {
				t.Fatalf("seed %d: %s is worded as %s after %q", seed, m.id, m.kind, level[of])
			}
			if before.generation == m.generation && m.level.Compare(level[of]) <= 0 && m.at.Sub(before.at) < defaultRepeatCritical {
				t.Fatalf("I2: seed %d: %s only %s after %s", seed, m.id, m.at.Sub(before.at), before.id)
			}
			level[of] = worse(level[of], m.level)
		}
		last[at] = m
	}
}

// I3: a trouble that stays as it is is told of at its interval and no more.
func TestConstantTroubleIsNoSpam(t *testing.T) {
	for severity, repeat := range map[Severity]time.Duration{Notice: 0, Warning: 72 * time.Hour, Critical: 24 * time.Hour, Expired: 24 * time.Hour} {
		d := newDiary(t, "ntfy_1")
		const days = 30
		heard := 0
		d.answer = func(time.Time, Job) *Undelivered { heard++; return nil }
		for h := range 24 * days {
			d.look(hours(h), subject("home", severity, 90))
		}
		if repeat == 0 {
			if heard != 0 {
				t.Errorf("a notice called somebody %d times", heard)
			}
			continue
		}
		if want := int(days * 24 * time.Hour / repeat); heard != want {
			t.Errorf("%s: %d messages in %d days, want %d", severity, heard, days, want)
		}
	}
}

// I4: a crash between the delivery and the note of it costs one message too many
// at most, with the same id.
func TestACrashCostsOneDuplicate(t *testing.T) {
	for crash := 1; crash <= 4; crash++ {
		d := newDiary(t, "ntfy_1")
		heard := map[string]int{}
		total := 0
		for h := range 24 * 4 {
			now := hours(h)
			d.book, _ = d.book.Observe(now, []Subject{subject("home", Critical, 5)}, d.policy)
			stored := reload(t, d.book)
			var jobs []Job
			if d.book, jobs, _ = d.book.Next(now, d.policy); len(jobs) == 0 {
				continue
			}
			heard[jobs[0].ID]++
			total++
			if d.book = d.book.Sent(now, jobs[0].ID, nil); total == crash {
				d.book = stored // it died before it could store the rest
			}
		}
		twice := 0
		for id, n := range heard {
			if n > 2 {
				t.Errorf("%s was delivered %d times", id, n)
			}
			if n == 2 {
				twice++
			}
		}
		if total != 4+1 || twice != 1 {
			t.Errorf("crash after message %d: %d messages, %d of them twice", crash, total, twice)
		}
	}
}

// A delivery whose end was lost in a restart is begun again, not given up.
func TestAnInterruptedDeliveryIsBegunAgain(t *testing.T) {
	p := Policy{Targets: []string{"ntfy_1"}}
	var b Book
	b, _ = b.Observe(start, []Subject{subject("home", Warning, 10)}, p)
	b, jobs, _ := b.Next(start, p)
	if len(jobs) != 1 {
		t.Fatalf("%d jobs", len(jobs))
	}
	b = reload(t, b)
	b, none, again := b.Next(start.Add(time.Minute), p)
	if len(none) != 0 || !again.Equal(start.Add(sendingLimit)) {
		t.Fatalf("while it may be under way: %v, again at %s", none, again)
	}
	b, _ = b.Observe(again, []Subject{subject("home", Warning, 10)}, p)
	b, jobs2, _ := b.Next(again, p)
	if len(jobs2) != 1 || jobs2[0].ID != jobs[0].ID {
		t.Fatalf("want %s again: %v", jobs[0].ID, jobs2)
	}
	if got := b.Targets()[0].Status; got != TargetOK {
		t.Errorf("an interruption is no failure: %s", got)
	}
}

// I5: whatever the hour, a trouble that stays is told within 12 hours of the
// target's being up, not counting the quiet ones.
func TestEverybodyIsToldInTheEnd(t *testing.T) {
	for hour := range 24 {
		for seed := range uint64(2) {
			random := rand.New(rand.NewPCG(seed, uint64(hour)))
			begin := hours(hour)
			up := begin.Add(time.Duration(random.IntN(72*60)) * time.Minute)
			d := newDiary(t, "ntfy_1")
			d.policy.Quiet = nights
			told := time.Time{}
			d.answer = func(now time.Time, _ Job) *Undelivered {
				if now.Before(up) {
					return &Undelivered{Reason: "down"}
				}
				if told.IsZero() {
					told = now
				}
				return nil
			}
			for n := 0; n < 5*24*4 && told.IsZero(); n++ {
				now := begin.Add(time.Duration(n) * 15 * time.Minute)
				s := subject("home", Critical, 30)
				s.Unknown = random.IntN(4) == 0 && n > 0
				d.look(now, s)
			}
			if told.IsZero() || told.Sub(up) > (12+9)*time.Hour+15*time.Minute {
				t.Fatalf("began at %s, target up at %s, told at %s", begin, up, told)
			}
		}
	}
}

// I6: when the target is up and nobody sleeps, it knows the worst at once.
func TestToldIsTheWorst(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	d := newDiary(t, "ntfy_1")
	for n := range 1500 {
		severity := everySeverity[random.IntN(len(everySeverity))]
		if random.IntN(4) == 0 {
			severity = OK
		}
		d.look(start.Add(time.Duration(n)*10*time.Minute), subject("home", severity, 300))
		incident, found := d.book.Incidents["home"]
		if !found || incident.State != Open {
			continue
		}
		if got := incident.Told["ntfy_1"].Level; got != incident.Highest {
			t.Fatalf("look %d: told %s of %s", n, got, incident.Highest)
		}
	}
}

// I7: quiet hours are the household's, on the days when the clocks change too.
func TestQuietHoursWhenTheClocksChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	policy := Policy{Targets: []string{"ntfy_1"}, Quiet: func(at time.Time) bool { return nights(at.In(berlin)) }}
	for _, evening := range []time.Time{
		time.Date(2026, 3, 28, 22, 0, 0, 0, berlin), time.Date(2026, 10, 24, 22, 0, 0, 0, berlin), time.Date(2026, 12, 1, 23, 59, 30, 0, berlin),
	} {
		var b Book
		b, _ = b.Observe(evening, []Subject{subject("home", Critical, 5)}, policy)
		b, jobs, again := b.Next(evening, policy)
		if len(jobs) != 0 {
			t.Errorf("%s: woke somebody up", evening)
		}
		morning := again.In(berlin)
		if morning.Hour() != 7 || morning.Minute() != 0 || morning.Sub(evening) > 11*time.Hour {
			t.Errorf("%s: waits until %s", evening, morning)
		}
		if _, jobs, _ = b.Next(morning, policy); len(jobs) != 1 {
			t.Errorf("%s: silent in the morning", evening)
		}
	}
}

// I8: what was noted down while the clock was ahead keeps nothing back.
func TestAClockThatWasAhead(t *testing.T) {
	d := newDiary(t, "ntfy_1", "smtp_2")
	d.answer = func(_ time.Time, job Job) *Undelivered {
		if job.Target == "smtp_2" {
			return &Undelivered{Reason: "slow down", RetryAfter: 5 * time.Hour}
		}
		return nil
	}
	ahead := start.AddDate(10, 0, 0)
	d.look(ahead, subject("home", Critical, 5))
	d.answer = nil
	for h := range 26 {
		d.look(hours(h), subject("home", Critical, 5))
	}
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 ntfy_1 hears: EXPIRED: certificate home.example.org, 3648 days ago
1 Dec 08:00:00 smtp_2 fails: slow down
1 Dec 14:00:00 smtp_2 hears: URGENT: certificate home.example.org: renewal fails, 4 days left
2 Dec 08:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 4 days left
`)
}

// I9: the order of the subjects says nothing.
func TestOrderOfSubjects(t *testing.T) {
	subjects := []Subject{subject("a", Warning, 9), subject("b", Critical, 3), subject("c", OK, 90), subject("d", Warning, 2)}
	policy := Policy{Targets: []string{"ntfy_1"}}
	var first string
	for n := range 24 {
		random := rand.New(rand.NewPCG(uint64(n), 9))
		random.Shuffle(len(subjects), func(i, j int) { subjects[i], subjects[j] = subjects[j], subjects[i] })
		b, changes := Book{}.Observe(start, subjects, policy)
		b, jobs, _ := b.Next(start, policy)
		got := fmt.Sprint(b.Generations, changes, jobs)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("%s\n%s", got, first)
		}
		if jobs[0].Request.ID != "certsitter_b" {
			t.Errorf("the worst is not the first: %s", jobs[0].ID)
		}
	}
}

// I12: what left the configuration ends without a word, even if it comes back
// healthy.
func TestARemovedSubjectIsSilent(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	d.look(hours(0), subject("home", Warning, 10), subject("nas", Warning, 12))
	d.look(hours(1), subject("nas", Warning, 12))
	d.look(hours(2), subject("home", OK, 90), subject("nas", Warning, 12))
	d.look(hours(3), subject("home", OK, 90), subject("nas", Warning, 12))
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 nas opened
1 Dec 08:00:00 ntfy_1 hears: Certificate home.example.org: renewal fails, 10 days left
1 Dec 08:00:00 ntfy_1 hears: Certificate nas.example.org: renewal fails, 12 days left
1 Dec 09:00:00 home removed
`)
}

// I16: not to know is neither better nor worse.
func TestUnknownStandsStill(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	d.look(hours(0), subject("home", Critical, 5))
	before := d.book.Incidents["home"]
	for h := 1; h < 200; h++ {
		s := subject("home", []Severity{OK, "unknown", Expired}[h%3], 5)
		s.Unknown = true
		d.look(hours(h), s)
	}
	after := d.book.Incidents["home"]
	if after.State != before.State || after.Highest != before.Highest || after.Subject.Severity != Critical {
		t.Errorf("%+v became %+v", before, after)
	}
	word := subject("home", "unknown", 5) // the contract's word instead of the flag
	d.look(hours(200), word)
	d.look(hours(201), word)
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 5 days left
`)
	d.look(hours(202), subject("home", OK, 5))
	d.look(hours(203), word)
	d.look(hours(204), subject("home", OK, 5))
	if len(d.lines) != 4 {
		t.Errorf("after two healthy looks: %q", d.lines)
	}
}
