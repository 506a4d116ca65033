package notify

import (
	"reflect"
	"regexp"
	"testing"
	"time"
)

func TestTargetName(t *testing.T) {
	for url, want := range map[string]string{
		"homeassistant://persistent_notification": "Home Assistant",
		"homeassistant://notify/mobile_app_pixel": "mobile_app_pixel",
		"ntfy://secret@ntfy.sh/topic":             TargetID("ntfy://secret@ntfy.sh/topic"),
	} {
		if got := TargetName(url); got != want {
			t.Errorf("%s is called %q, want %q", url, got, want)
		}
	}
}

func TestTargetID(t *testing.T) {
	tests := map[string]string{
		"ntfy://ntfy.sh/topic":                   `^ntfy_[0-9a-f]{6}$`,
		"generic+https://example.org/x":          `^generic_[0-9a-f]{6}$`,
		"Telegram://token@telegram?chats=1":      `^telegram_[0-9a-f]{6}$`,
		"homeassistant://notify/mobile_app_x":    `^homeassistant_[0-9a-f]{6}$`,
		"no url at all":                          `^target_[0-9a-f]{6}$`,
		"://":                                    `^target_[0-9a-f]{6}$`,
		"":                                       `^target_[0-9a-f]{6}$`,
		"averyveryverylongschemewithoutend://x/": `^[a-z]{20}_[0-9a-f]{6}$`,
	}
	for url, want := range tests {
		got := TargetID(url)
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%q: %s, want %s", url, got, want)
		}
		if again := TargetID(url); again != got {
			t.Errorf("%q: %s and %s", url, got, again)
		}
	}
	// printf %s ntfy://ntfy.sh/topic | sha256sum
	if got := TargetID("ntfy://ntfy.sh/topic"); got != "ntfy_79b8b2" {
		t.Errorf("ntfy://ntfy.sh/topic: %s", got)
	}
}

// A target that was told and could not hear the end goes on from where it was:
// the same incident to it, while the others hear of a new one.
func TestIllAgainBeforeTheEndWasHeard(t *testing.T) {
	d := newDiary(t, "ntfy_1", "smtp_2")
	up := true
	d.answer = func(_ time.Time, job Job) *Undelivered {
		if job.Target == "smtp_2" && !up {
			return &Undelivered{Reason: "down"}
		}
		return nil
	}
	fine := subject("home", OK, 90)
	fine.Renewed = hours(1)
	d.look(hours(0), subject("home", Warning, 10))
	up = false
	d.look(hours(2), fine)
	up = true
	ill := subject("home", Warning, 10)
	ill.Renewed = hours(1)
	d.look(hours(2).Add(10*time.Second), ill)
	d.until(hours(2), hours(73))
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 ntfy_1 hears: Certificate home.example.org: renewal fails, 10 days left
1 Dec 08:00:00 smtp_2 hears: Certificate home.example.org: renewal fails, 10 days left
1 Dec 10:00:00 home resolved
1 Dec 10:00:00 ntfy_1 hears: Certificate home.example.org is fine again, 89 days left
1 Dec 10:00:00 smtp_2 fails: down
1 Dec 10:00:10 home opened
1 Dec 10:00:10 ntfy_1 hears: Certificate home.example.org: renewal fails, 9 days left
4 Dec 08:00:00 smtp_2 hears: Reminder: Certificate home.example.org: renewal fails, 7 days left
`)
}

// A message that arrives after its incident is over is followed by the end.
func TestOverWhileTheMessageWasUnderWay(t *testing.T) {
	p := Policy{Targets: []string{"ntfy_1", "smtp_2"}}
	b, _ := Book{}.Observe(start, []Subject{subject("home", Warning, 10)}, p)
	b, jobs, _ := b.Next(start, p)
	if len(jobs) != 2 {
		t.Fatalf("%d jobs", len(jobs))
	}
	fine := subject("home", OK, 90)
	fine.Renewed = start
	b, changes := b.Observe(start.Add(time.Second), []Subject{fine}, p)
	if len(changes) != 1 || changes[0].Event() != "resolved" {
		t.Fatalf("changes: %v", changes)
	}
	b = reload(t, b)
	b = b.Sent(start.Add(2*time.Second), jobs[0].ID, nil)
	b = b.Sent(start.Add(2*time.Second), jobs[1].ID, &Undelivered{Reason: "down"})
	b, jobs, _ = b.Next(start.Add(time.Hour), p)
	if len(jobs) != 1 || jobs[0].Target != "ntfy_1" || jobs[0].Kind != Resolved || !jobs[0].Request.Resolved {
		t.Fatalf("jobs: %+v", jobs)
	}
	b = b.Sent(start.Add(time.Hour), jobs[0].ID, nil)
	if len(b.Incidents) != 0 {
		t.Errorf("kept: %+v", b.Incidents)
	}
}

func TestRetryAfterIsHonouredUpToSixHours(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		time.Hour: time.Hour, 48 * time.Hour: 6 * time.Hour, time.Second: 30 * time.Second, 0: 30 * time.Second,
	} {
		d := newDiary(t, "ntfy_1")
		d.answer = func(time.Time, Job) *Undelivered { return &Undelivered{Reason: "busy", RetryAfter: asked} }
		d.look(start, subject("home", Warning, 10))
		if got := d.pump(start).Sub(start); got != want {
			t.Errorf("asked for %s: again after %s, want %s", asked, got, want)
		}
		// News does not override what the other side asked for.
		d.look(start.Add(time.Second), subject("home", Critical, 5))
		if asked >= time.Hour {
			if got := d.pump(start.Add(2 * time.Second)).Sub(start); got != want {
				t.Errorf("news after %s: again after %s", asked, got)
			}
		}
	}
}

// A message that one target will not take does not keep back the others.
func TestOneBadMessageDoesNotBlockATarget(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	d.answer = func(_ time.Time, job Job) *Undelivered {
		if job.Request.ID == "certsitter_home" {
			return &Undelivered{Reason: "too strange"}
		}
		return nil
	}
	d.look(start, subject("home", Critical, 5), subject("nas", Warning, 10))
	d.until(start, start.Add(time.Minute))
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 nas opened
1 Dec 08:00:00 ntfy_1 fails: too strange
1 Dec 08:00:30 ntfy_1 hears: Certificate nas.example.org: renewal fails, 9 days left
1 Dec 08:00:30 ntfy_1 fails: too strange
`)
}

// A target that is added hears what is open; one that is taken out is forgotten.
func TestTargetsComeAndGo(t *testing.T) {
	d := newDiary(t, "ntfy_1")
	d.look(hours(0), subject("home", Warning, 10))
	d.policy.Targets = []string{"smtp_2"}
	d.look(hours(1), subject("home", Warning, 10))
	if got := d.book.Targets(); len(got) != 1 || got[0].ID != "smtp_2" {
		t.Errorf("targets: %v", got)
	}
	d.compare(`
1 Dec 08:00:00 home opened
1 Dec 08:00:00 ntfy_1 hears: Certificate home.example.org: renewal fails, 10 days left
1 Dec 09:00:00 smtp_2 hears: Certificate home.example.org: renewal fails, 9 days left
`)
}

// A test that fails is seen; one that succeeds heals.
func TestTested(t *testing.T) {
	p := Policy{Targets: []string{"ntfy_1"}}
	b, _ := Book{}.Observe(start, nil, p)
	b = b.Tested(start.Add(time.Hour), "ntfy_1", &Undelivered{Reason: "404 Not Found", Permanent: true})
	if got := b.Targets()[0]; got.Status != TargetRetrying || got.LastError != "404 Not Found" || !got.Since.Equal(start.Add(time.Hour)) {
		t.Errorf("after one failure: %+v", got)
	}
	b = b.Tested(start.Add(2*time.Hour), "ntfy_1", &Undelivered{Reason: "404 Not Found", Permanent: true})
	if got := b.Targets()[0]; got.Status != TargetDead || !got.Since.Equal(start.Add(2*time.Hour)) {
		t.Errorf("after two: %+v", got)
	}
	b = b.Tested(start.Add(3*time.Hour), "ntfy_1", nil)
	if got := b.Targets()[0]; got.Status != TargetOK || got.LastError != "" || !got.Since.Equal(start.Add(3*time.Hour)) {
		t.Errorf("after a success: %+v", got)
	}
	if again := b.Tested(start, "unknown_1", nil); !reflect.DeepEqual(again, b) {
		t.Errorf("a target that is not known: %+v", again)
	}
}

// The methods leave the Book they are called on as it is.
func TestABookIsAValue(t *testing.T) {
	p := Policy{Targets: []string{"ntfy_1"}}
	b0, _ := Book{}.Observe(start, []Subject{subject("home", Warning, 10)}, p)
	b1, jobs, _ := b0.Next(start, p)
	b2 := b1.Sent(start, jobs[0].ID, nil)
	b3, _ := b2.Observe(start.Add(time.Hour), []Subject{subject("home", Critical, 3)}, p)
	b4, _ := b3.Observe(start.Add(time.Hour), nil, p)
	if _, again, _ := b0.Next(start, p); !reflect.DeepEqual(again, jobs) {
		t.Errorf("Next changed its Book: %v", again)
	}
	if b1.Health["ntfy_1"].Sending == nil || b1.Incidents["home"].Told["ntfy_1"].Level != OK {
		t.Error("Sent changed its Book")
	}
	if b2.Incidents["home"].Highest != Warning || b3.Incidents["home"].Highest != Critical || len(b4.Incidents) != 0 {
		t.Error("Observe changed its Book")
	}
}

func TestEvents(t *testing.T) {
	p := Policy{}
	b, changes := Book{}.Observe(start, []Subject{subject("home", Warning, 10), subject("nas", Expired, 0)}, p)
	got := []string{changes[0].Event(), changes[1].Event()}
	_, changes = b.Observe(start, []Subject{subject("home", Critical, 5)}, p)
	for _, c := range changes {
		got = append(got, c.Event())
	}
	if want := []string{"warning", "expired", "", "critical"}; !reflect.DeepEqual(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}
