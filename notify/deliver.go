package notify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Kind says what a message is to the target that gets it.
type Kind string

// The kinds of messages.
const (
	Opened    Kind = "opened" // the first one that the target gets of an incident
	Escalated Kind = "escalated"
	Repeated  Kind = "repeated"
	Resolved  Kind = "resolved"
)

// A Job is one message that is to be sent to one target now.
type Job struct {
	// ID is the same for every try of the same message.
	ID     string
	Target string // id
	Kind   Kind
	// Request lacks the URL: the book does not know it.
	Request Request
}

// sendingLimit is when a delivery that has begun and not ended is taken to have
// been interrupted by a restart. The worker is killed long before that.
const sendingLimit = 2 * time.Minute

// permanentTries is how many tries a target gets whose failure does not look as
// if it would heal. Two, because proxies and captive portals answer 403 too.
const permanentTries = 2

// maxRetryAfter bounds how long another side may silence us.
const maxRetryAfter = 6 * time.Hour

// backoffs are the waits after the first, second… failure in a row.
var backoffs = []time.Duration{
	30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	2 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

func backoff(failures int) time.Duration {
	return backoffs[min(max(failures, 1), len(backoffs))-1]
}

// due is a message that a target is to get at an instant.
type due struct {
	key   string
	kind  Kind
	level Severity // what the target knows once it has it
	at    time.Time
	tries int
}

// Next says what is to be sent now, at most one message per target, and when to
// ask again; the zero time means that nothing is waiting. The returned Book
// notes that the deliveries have begun: it has to be stored before they do, and
// each of them has to be reported to Sent.
func (b Book) Next(now time.Time, p Policy) (Book, []Job, time.Time) {
	b = b.clone()
	var jobs []Job
	var again time.Time
	for _, target := range p.Targets {
		job, when := b.next(now, target, p)
		if job != nil {
			jobs = append(jobs, *job)
		}
		again = earlier(again, when)
	}
	return b, jobs, again
}

// next begins the delivery of the message that is the most important one for a
// target, or says when it may.
func (b *Book) next(now time.Time, target string, p Policy) (*Job, time.Time) {
	h, known := b.Health[target]
	if !known || h.Status() == TargetDead {
		return nil, time.Time{}
	}
	if h.Sending != nil && now.Before(h.Sending.Begun.Add(sendingLimit)) {
		return nil, h.Sending.Begun.Add(sendingLimit)
	}
	d, when := b.choose(now, target, p)
	if d == nil {
		return nil, when
	}
	if wait := later(h.NextTry, h.HoldUntil); now.Before(wait) {
		return nil, wait
	}
	if p.quiet(now) {
		return nil, quietEnd(now, p)
	}
	return b.begin(now, target, *d, p), now.Add(sendingLimit)
}

// choose is the message that a target is to get now; if there is none, when the
// next one falls due. Fewer tries come first, so that one message that a target
// will not take does not keep back the others.
func (b *Book) choose(now time.Time, target string, p Policy) (*due, time.Time) {
	var ready []due
	var again time.Time
	for key, incident := range b.Incidents {
		d, found := incident.due(key, target, p)
		switch {
		case !found:
		case d.at.After(now):
			again = earlier(again, d.at)
		default:
			ready = append(ready, d)
		}
	}
	if len(ready) == 0 {
		return nil, again
	}
	first := slices.MinFunc(ready, func(x, y due) int {
		return cmp.Or(cmp.Compare(x.tries, y.tries), y.level.Compare(x.level), cmp.Compare(x.key, y.key))
	})
	return &first, time.Time{}
}

// due is what a target is to hear of an incident next.
func (i Incident) due(key, target string, p Policy) (due, bool) {
	telling, found := i.Told[target]
	if !found {
		return due{}, false
	}
	d := due{key: key, level: i.Highest, tries: telling.Tries}
	switch {
	case i.State == Recovering:
		return due{}, false
	case i.State == Closed && telling.Level == OK:
		return due{}, false
	case i.State == Closed:
		d.kind, d.level = Resolved, OK
	case telling.Level == OK:
		d.kind = Opened
	case i.Highest.Compare(telling.Level) > 0 && i.Subject.Severity.Compare(telling.Level) > 0:
		d.kind = Escalated
	case i.Highest.Compare(telling.Level) > 0: // it was worse for a while, unheard
		d.kind = Repeated
	case i.Unknown:
		return due{}, false
	default:
		d.kind, d.level = Repeated, telling.Level
		d.at = telling.Last.Add(p.repeat(i.Subject.Severity))
	}
	return d, true
}

// begin notes that a delivery begins.
func (b *Book) begin(now time.Time, target string, d due, p Policy) *Job {
	incident := b.Incidents[d.key]
	telling := incident.Told[target]
	job := &Job{
		ID:     fmt.Sprintf("%s/%s/%d/%d-%s", target, d.key, telling.Generation, telling.Messages+1, cmp.Or(string(d.level), "resolved")),
		Target: target,
		Kind:   d.kind,
		Request: Request{
			ID:       "certsitter_" + d.key,
			Severity: incident.Subject.Severity,
			Resolved: d.kind == Resolved,
		},
	}
	if d.kind == Resolved {
		job.Request.Severity = Notice
	}
	job.Request.Title, job.Request.Body = Words(p.Language, now, d.kind, incident.Subject)
	h := b.Health[target]
	h.Sending = &Sending{
		Job: job.ID, Key: d.key, Generation: telling.Generation,
		Kind: d.kind, Level: d.level, Begun: now.UTC().Round(0),
	}
	b.Health[target] = h
	return job
}

// Sent takes the end of a delivery into account. A nil error means that the
// message was delivered. A job that is not under way is passed over.
func (b Book) Sent(now time.Time, jobID string, err *Undelivered) Book {
	now = now.UTC().Round(0)
	b = b.clone()
	for target, h := range b.Health {
		if h.Sending == nil || h.Sending.Job != jobID {
			continue
		}
		sending := *h.Sending
		h.Sending = nil
		if err == nil {
			h.succeeded(now)
		} else {
			h.failed(now, *err)
			h.postpone(now, *err)
		}
		b.Health[target] = h
		b.told(now, target, sending, err == nil)
		b.forget(sending.Key)
		return b
	}
	return b
}

// Tested takes a test message into account: a success brings a target back to
// life, a failure is seen. A test waits for nothing and delays nothing.
func (b Book) Tested(now time.Time, target string, err *Undelivered) Book {
	h, known := b.Health[target]
	if !known {
		return b
	}
	now = now.UTC().Round(0)
	b = b.clone()
	if err == nil {
		h.succeeded(now)
	} else {
		h.failed(now, *err)
	}
	b.Health[target] = h
	return b
}

// told notes in the incident what became of a delivery.
func (b *Book) told(now time.Time, target string, sending Sending, delivered bool) {
	incident, found := b.Incidents[sending.Key]
	if !found {
		return
	}
	telling, found := incident.Told[target]
	if !found || telling.Generation != sending.Generation {
		return
	}
	switch {
	case !delivered:
		telling.Tries++
	case sending.Kind == Resolved:
		// If it is ill again by now, that is a new incident to this target.
		telling = Telling{Generation: incident.Generation}
	default:
		telling.Level = worse(telling.Level, sending.Level)
		telling.Last = now
		telling.Messages++
		telling.Tries = 0
	}
	incident.Told[target] = telling
}

func worse(x, y Severity) Severity {
	if x.Compare(y) >= 0 {
		return x
	}
	return y
}

func (h *Health) succeeded(now time.Time) {
	if h.Status() != TargetOK {
		h.Since = now
	}
	h.Failures, h.Permanent, h.LastError = 0, 0, ""
	h.NextTry, h.HoldUntil = time.Time{}, time.Time{}
}

func (h *Health) failed(now time.Time, why Undelivered) {
	before := h.Status()
	h.Failures++
	if why.Permanent {
		h.Permanent++
	}
	h.LastError = why.Reason
	if h.Status() != before {
		h.Since = now
	}
}

func (h *Health) postpone(now time.Time, why Undelivered) {
	h.NextTry = now.Add(backoff(h.Failures))
	h.HoldUntil = time.Time{}
	if why.RetryAfter > 0 {
		h.HoldUntil = now.Add(min(why.RetryAfter, maxRetryAfter))
	}
}

// quietEnd is the first minute that is not quiet. It looks two days ahead: a
// window that never ends is no reason to look at every minute of a year.
func quietEnd(now time.Time, p Policy) time.Time {
	t := now.Truncate(time.Minute)
	for range 48 * 60 {
		t = t.Add(time.Minute)
		if !p.quiet(t) {
			return t
		}
	}
	return t
}

// earlier is the earlier of two instants, of which zero means never.
func earlier(x, y time.Time) time.Time {
	if x.IsZero() || !y.IsZero() && y.Before(x) {
		return y
	}
	return x
}

func later(x, y time.Time) time.Time {
	if y.After(x) {
		return y
	}
	return x
}
