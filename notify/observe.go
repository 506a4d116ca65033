package notify

import (
	"cmp"
	"slices"
	"time"
)

// HealthyFor is how long a subject has to look healthy, at two looks at least,
// before its incident is over. A server that shows the old and the new
// certificate in turns would otherwise send a message at every turn.
const HealthyFor = 30 * time.Minute

// ChangeKind says what happened to an incident.
type ChangeKind string

// What can happen to an incident.
const (
	ChangeOpened    ChangeKind = "opened"
	ChangeEscalated ChangeKind = "escalated"
	ChangeResolved  ChangeKind = "resolved"
	ChangeRemoved   ChangeKind = "removed" // the subject left the configuration
)

// A Change is something that happened to an incident, for the log and for
// events. Whether anybody is told of it is another matter.
type Change struct {
	Kind    ChangeKind
	Subject Subject
	Time    time.Time
}

// Event is the contract's event type: warning, critical, expired or resolved;
// empty for a subject that was removed.
func (c Change) Event() string {
	switch c.Kind {
	case ChangeOpened, ChangeEscalated:
		return string(c.Subject.Severity)
	case ChangeResolved:
		return "resolved"
	}
	return ""
}

// Observe takes one look at everything into account: incidents open, escalate
// and end. Subjects must be all that there are, the unknown ones too: the
// incident of a subject that is missing is closed without a word. Their order
// is of no importance. It must be called only while the clock is sane.
func (b Book) Observe(now time.Time, subjects []Subject, p Policy) (Book, []Change) {
	now = now.UTC().Round(0) // as it comes back from JSON
	b = b.clone()
	b.pullBack(now)
	b.interrupted(now)
	b.knowTargets(now, p.Targets)
	subjects = normal(subjects)

	changes := b.remove(now, subjects)
	for _, s := range subjects {
		if change := b.observe(now, s); change != "" {
			changes = append(changes, Change{Kind: change, Subject: s, Time: now})
		}
		b.forget(s.Key)
	}
	if slices.ContainsFunc(changes, Change.news) {
		b.rearm(now)
	}
	for key, incident := range b.Incidents {
		incident.introduce(p.Targets)
		b.Incidents[key] = incident
	}
	return b, changes
}

// normal is the subjects in the order of their keys, as they come back from
// JSON. A severity that is none of ours says nothing about health.
func normal(subjects []Subject) []Subject {
	subjects = slices.Clone(subjects)
	for i, s := range subjects {
		s.NotAfter, s.Renewed = s.NotAfter.UTC().Round(0), s.Renewed.UTC().Round(0)
		s.Unknown = s.Unknown || !s.Severity.known()
		subjects[i] = s
	}
	slices.SortStableFunc(subjects, func(x, y Subject) int { return cmp.Compare(x.Key, y.Key) })
	return subjects
}

// news says whether somebody is to be told who was not told before.
func (c Change) news() bool { return c.Kind == ChangeOpened || c.Kind == ChangeEscalated }

// observe takes one subject into account and says what that changed.
func (b *Book) observe(now time.Time, s Subject) ChangeKind {
	incident, found := b.Incidents[s.Key]
	if s.Unknown {
		if found {
			incident.Unknown = true
			b.Incidents[s.Key] = incident
		}
		return ""
	}
	if !found && !s.Severity.calls() {
		return ""
	}
	if !found || incident.State == Closed && s.Severity.calls() {
		b.open(now, s)
		return ChangeOpened
	}
	change := incident.see(now, s)
	b.Incidents[s.Key] = incident
	return change
}

// open begins an incident. A target that was told of the subject's previous one
// and has not heard of its end goes on from there.
func (b *Book) open(now time.Time, s Subject) {
	b.Generations++
	before := b.Incidents[s.Key]
	incident := Incident{
		Subject: s, State: Open, Generation: b.Generations,
		Opened: now, Highest: s.Severity, Renewed: s.Renewed,
		Told: map[string]Telling{},
	}
	for target, telling := range before.Told {
		if telling.Level != OK || b.under(target, s.Key) {
			incident.Told[target] = telling
		}
	}
	b.Incidents[s.Key] = incident
}

// see takes a look at the subject of an incident into account.
func (i *Incident) see(now time.Time, s Subject) ChangeKind {
	i.Subject, i.Unknown = s, false
	if i.State == Closed {
		return ""
	}
	if s.Severity.calls() {
		return i.ill(s)
	}
	return i.healthy(now, s)
}

func (i *Incident) ill(s Subject) ChangeKind {
	i.State, i.HealthyAt, i.Renewed = Open, time.Time{}, s.Renewed
	if s.Severity.Compare(i.Highest) <= 0 {
		return ""
	}
	i.Highest = s.Severity
	for target, telling := range i.Told {
		telling.Tries = 0 // it is another message from now on
		i.Told[target] = telling
	}
	return ChangeEscalated
}

func (i *Incident) healthy(now time.Time, s Subject) ChangeKind {
	if i.State == Open {
		i.State, i.HealthyAt = Recovering, now
	}
	if !s.Renewed.After(i.Renewed) && now.Sub(i.HealthyAt) < HealthyFor {
		return ""
	}
	i.State, i.HealthyAt = Closed, time.Time{}
	return ChangeResolved
}

// remove drops the incidents of subjects that are no more.
func (b *Book) remove(now time.Time, subjects []Subject) []Change {
	present := make(map[string]bool, len(subjects))
	for _, s := range subjects {
		present[s.Key] = true
	}
	var changes []Change
	for key, incident := range b.Incidents {
		if present[key] {
			continue
		}
		delete(b.Incidents, key)
		if incident.State != Closed {
			changes = append(changes, Change{Kind: ChangeRemoved, Subject: incident.Subject, Time: now})
		}
	}
	slices.SortFunc(changes, func(x, y Change) int { return cmp.Compare(x.Subject.Key, y.Subject.Key) })
	return changes
}

// introduce makes sure that an incident knows every target, and no other.
func (i *Incident) introduce(targets []string) {
	for target := range i.Told {
		if !slices.Contains(targets, target) {
			delete(i.Told, target)
		}
	}
	if i.State == Closed {
		return
	}
	for _, target := range targets {
		if _, found := i.Told[target]; !found {
			i.Told[target] = Telling{Generation: i.Generation}
		}
	}
}

// knowTargets makes sure that the book knows every target, and no other.
func (b *Book) knowTargets(now time.Time, targets []string) {
	for id := range b.Health {
		if !slices.Contains(targets, id) {
			delete(b.Health, id)
		}
	}
	for _, id := range targets {
		if _, found := b.Health[id]; !found {
			b.Health[id] = Health{Since: now}
		}
	}
}

// rearm lets news be tried at once, at dead targets too. What the other side
// asked for with Retry-After stands.
func (b *Book) rearm(now time.Time) {
	for id, h := range b.Health {
		if h.Status() == TargetDead {
			h.Since = now
		}
		h.Permanent, h.NextTry = 0, time.Time{}
		b.Health[id] = h
	}
}

// pullBack corrects instants that were noted down while the clock was ahead:
// they would otherwise keep messages back for as long as it was wrong.
func (b *Book) pullBack(now time.Time) {
	for key, incident := range b.Incidents {
		incident.Opened = notAfter(incident.Opened, now)
		incident.HealthyAt = notAfter(incident.HealthyAt, now)
		for target, telling := range incident.Told {
			telling.Last = notAfter(telling.Last, now)
			incident.Told[target] = telling
		}
		b.Incidents[key] = incident
	}
	for id, h := range b.Health {
		h.Since = notAfter(h.Since, now)
		h.NextTry = notAfter(h.NextTry, now.Add(backoff(h.Failures)))
		h.HoldUntil = notAfter(h.HoldUntil, now.Add(maxRetryAfter))
		if h.Sending != nil && h.Sending.Begun.After(now) {
			sending := *h.Sending
			sending.Begun = now
			h.Sending = &sending
		}
		b.Health[id] = h
	}
}

// interrupted forgets deliveries whose end nobody has reported: whether they
// arrived is not known, and a message more is better than one less.
func (b *Book) interrupted(now time.Time) {
	for id, h := range b.Health {
		if h.Sending != nil && !now.Before(h.Sending.Begun.Add(sendingLimit)) {
			h.Sending = nil
			b.Health[id] = h
		}
	}
}

func notAfter(t, limit time.Time) time.Time {
	if t.After(limit) {
		return limit
	}
	return t
}
