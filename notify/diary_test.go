package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// start is a Tuesday morning.
var start = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// nights are the quiet hours of the tests, in the time zone of what is asked.
func nights(t time.Time) bool { return t.Hour() >= 22 || t.Hour() < 7 }

// subject is a certificate that expires when its days are over, counted from start.
func subject(key string, severity Severity, days int) Subject {
	return Subject{
		Key: key, Name: key + ".example.org", Severity: severity,
		Code: "renewal_failed", Text: "The CA cannot be reached.", Advice: "Look at the router.",
		HasDays: true, DaysLeft: days, NotAfter: start.AddDate(0, 0, days),
	}
}

// A diary lives through days with a Book and writes down what it does. It
// stores and loads the book between any two steps, as a daemon that is
// restarted all the time.
type diary struct {
	t      *testing.T
	book   Book
	policy Policy
	lines  []string
	// answer is what the target says to a message; nil is a delivery.
	answer func(now time.Time, job Job) *Undelivered
}

func newDiary(t *testing.T, targets ...string) *diary {
	return &diary{t: t, policy: Policy{Targets: targets}}
}

func (d *diary) reload() {
	d.t.Helper()
	d.book = reload(d.t, d.book)
}

func reload(t *testing.T, b Book) Book {
	t.Helper()
	stored, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var loaded Book
	if err := json.Unmarshal(stored, &loaded); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(loaded)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(stored) {
		t.Fatalf("lost by storing:\n%s\n%s", stored, again)
	}
	return loaded
}

func (d *diary) write(now time.Time, format string, args ...any) {
	d.lines = append(d.lines, now.Format("2 Jan 15:04:05")+" "+fmt.Sprintf(format, args...))
}

// look observes and sends what is due until nothing is.
func (d *diary) look(now time.Time, subjects ...Subject) {
	d.t.Helper()
	var changes []Change
	d.book, changes = d.book.Observe(now, subjects, d.policy)
	for _, c := range changes {
		d.write(now, "%s %s", c.Subject.Key, c.Kind)
	}
	d.reload()
	d.pump(now)
}

func (d *diary) pump(now time.Time) time.Time {
	d.t.Helper()
	for range 100 {
		var jobs []Job
		var again time.Time
		d.book, jobs, again = d.book.Next(now, d.policy)
		d.reload()
		if len(jobs) == 0 {
			return again
		}
		for _, job := range jobs {
			var err *Undelivered
			if d.answer != nil {
				err = d.answer(now, job)
			}
			if err == nil {
				d.write(now, "%s hears: %s", job.Target, job.Request.Title)
			} else {
				d.write(now, "%s fails: %s", job.Target, err.Reason)
			}
			d.book = d.book.Sent(now, job.ID, err)
			d.reload()
		}
	}
	d.t.Fatal("it does not stop sending")
	return time.Time{}
}

// until sends what falls due, at the very instants that Next names.
func (d *diary) until(now, end time.Time) {
	d.t.Helper()
	for range 1000 {
		now = d.pump(now)
		if now.IsZero() || !now.Before(end) {
			return
		}
	}
	d.t.Fatal("it looks again and again")
}

func (d *diary) compare(want string) {
	d.t.Helper()
	got := strings.Join(d.lines, "\n")
	if got != strings.TrimSpace(want) {
		d.t.Errorf("the diary says:\n%s\nwant:\n%s", got, strings.TrimSpace(want))
	}
}

func hours(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }

// A certificate whose renewal fails from 21 days left on until it is expired,
// and is then renewed by hand.
func TestDiaryOfACertificateThatExpires(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	for h := 0; h < 24*23; h++ {
		s := subject("home", Notice, 21)
		left := s.NotAfter.Sub(hours(h))
		switch {
		case left <= 0:
			s.Severity = Expired
		case left < 7*24*time.Hour:
			s.Severity = Critical
		case left < 21*24*time.Hour:
			s.Severity = Warning
		}
		d.look(hours(h), s)
	}
	renewed := subject("home", OK, 23+90)
	renewed.Renewed = hours(24*23 - 1)
	d.look(hours(24*23), renewed)
	d.look(hours(24*23+1), renewed)
	d.compare(`
1 Dec 09:00:00 home opened
1 Dec 09:00:00 ntfy_1 hears: Certificate home.example.org: renewal fails, 20 days left
4 Dec 09:00:00 ntfy_1 hears: Reminder: Certificate home.example.org: renewal fails, 17 days left
7 Dec 09:00:00 ntfy_1 hears: Reminder: Certificate home.example.org: renewal fails, 14 days left
10 Dec 09:00:00 ntfy_1 hears: Reminder: Certificate home.example.org: renewal fails, 11 days left
13 Dec 09:00:00 ntfy_1 hears: Reminder: Certificate home.example.org: renewal fails, 8 days left
15 Dec 09:00:00 home escalated
15 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 6 days left
16 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 5 days left
17 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 4 days left
18 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 3 days left
19 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 2 days left
20 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 1 day left
21 Dec 09:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, less than a day left
22 Dec 08:00:00 home escalated
22 Dec 08:00:00 ntfy_1 hears: EXPIRED: certificate home.example.org, less than a day ago
23 Dec 08:00:00 ntfy_1 hears: EXPIRED: certificate home.example.org, 1 day ago
24 Dec 08:00:00 home resolved
24 Dec 08:00:00 ntfy_1 hears: Certificate home.example.org is fine again, 90 days left
`)
	if len(d.book.Incidents) != 0 {
		t.Errorf("what is over is kept: %v", d.book.Incidents)
	}
}

// Messages wait for the morning, the newest only, and so does the good news.
func TestDiaryOfANight(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	d.policy.Quiet = nights
	night := start.Add(15 * time.Hour)
	d.look(night, subject("home", Warning, 8))
	d.look(night.Add(time.Hour), subject("home", Critical, 8))
	d.until(night.Add(time.Hour), night.Add(12*time.Hour))
	d.look(start.Add(36*time.Hour), subject("home", OK, 90))
	d.look(start.Add(39*time.Hour), subject("home", OK, 90))
	d.until(start.Add(39*time.Hour), start.Add(72*time.Hour))
	d.compare(`
1 Dec 23:00:00 home opened
2 Dec 00:00:00 home escalated
2 Dec 07:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 7 days left
2 Dec 23:00:00 home resolved
3 Dec 07:00:00 ntfy_1 hears: Certificate home.example.org is fine again, 88 days left
`)
}

// A target that is down hears it when it is up again; the other one has nothing
// to do with that. Then it hears the end; it does not hear what it missed.
func TestDiaryOfATargetThatIsDown(t *testing.T) {
	d := newDiary(t, "ntfy_1", "smtp_2")
	up := start.Add(3 * time.Hour)
	d.answer = func(now time.Time, job Job) *Undelivered {
		if job.Target == "smtp_2" && now.Before(up) {
			return &Undelivered{Reason: "connection refused"}
		}
		return nil
	}
	d.look(start, subject("home", Critical, 5))
	d.until(start, start.Add(6*time.Hour))
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 ntfy_1 hears: URGENT: certificate home.example.org: renewal fails, 5 days left
1 Dec 08:00:00 smtp_2 fails: connection refused
1 Dec 08:00:30 smtp_2 fails: connection refused
1 Dec 08:02:30 smtp_2 fails: connection refused
1 Dec 08:12:30 smtp_2 fails: connection refused
1 Dec 08:42:30 smtp_2 fails: connection refused
1 Dec 10:42:30 smtp_2 fails: connection refused
`)
	d.lines = nil
	state := d.book.Targets()
	if state[0].Status != TargetOK || state[1].Status != TargetRetrying || state[1].LastError != "connection refused" || !state[1].Since.Equal(start) {
		t.Errorf("targets: %+v", state)
	}
	d.until(start.Add(6*time.Hour), start.Add(12*time.Hour))
	d.compare(`1 Dec 16:42:30 smtp_2 hears: URGENT: certificate home.example.org: renewal fails, 4 days left`)
	if state := d.book.Targets(); state[1].Status != TargetOK || state[1].LastError != "" {
		t.Errorf("targets: %+v", state)
	}
}

// A token that is refused is tried twice and then left alone until there is news.
func TestDiaryOfADeadTarget(t *testing.T) {
	d := newDiary(t, "telegram_1")
	d.answer = func(time.Time, Job) *Undelivered {
		return &Undelivered{Reason: "401 Unauthorized", Permanent: true}
	}
	for h := range 24 * 5 {
		d.look(hours(h), subject("home", Warning, 10))
		d.until(hours(h), hours(h+1))
	}
	if got := d.book.Targets()[0]; got.Status != TargetDead || !got.Since.Equal(start.Add(30*time.Second)) {
		t.Errorf("target: %+v", got)
	}
	d.look(hours(200), subject("home", Warning, 10), subject("nas", Warning, 12))
	d.until(hours(200), hours(201))
	d.answer = nil
	d.until(hours(201), hours(300))
	d.write(hours(300), "test")
	d.book = d.book.Tested(hours(300), "telegram_1", nil)
	d.until(hours(300), hours(301))
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 telegram_1 fails: 401 Unauthorized
1 Dec 08:00:30 telegram_1 fails: 401 Unauthorized
9 Dec 16:00:00 nas opened
9 Dec 16:00:00 telegram_1 fails: 401 Unauthorized
9 Dec 16:10:00 telegram_1 fails: 401 Unauthorized
13 Dec 20:00:00 test
13 Dec 20:00:00 telegram_1 hears: EXPIRED: certificate home.example.org, 2 days ago
13 Dec 20:00:00 telegram_1 hears: EXPIRED: certificate nas.example.org, less than a day ago
`)
}

// A server that shows the old and the new certificate in turns: told once, no
// false all-clear, and not forgotten either.
func TestDiaryOfAFlappingSubject(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	for n := range 6 * 24 * 10 {
		severity := Warning
		if n%2 == 1 {
			severity = OK
		}
		d.look(start.Add(time.Duration(n)*10*time.Minute), subject("nas", severity, 20))
	}
	d.compare(`
1 Dec 08:00:00 nas opened
1 Dec 08:00:00 ntfy_1 hears: Certificate nas.example.org: renewal fails, 20 days left
4 Dec 08:00:00 ntfy_1 hears: Reminder: Certificate nas.example.org: renewal fails, 17 days left
7 Dec 08:00:00 ntfy_1 hears: Reminder: Certificate nas.example.org: renewal fails, 14 days left
10 Dec 08:00:00 ntfy_1 hears: Reminder: Certificate nas.example.org: renewal fails, 11 days left
`)
}
