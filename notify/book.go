package notify

import (
	"maps"
	"slices"
	"time"
)

// A Book is all that is remembered about messages: the open incidents, what
// each target was told of them, and how the targets do. The zero value is an
// empty book. It is a value: its methods leave it as it is and return the next
// one. It is stored as JSON and loses nothing by that.
//
// There is no queue. What a target is to hear follows from the incident and
// from what the target was told, so there is never more than one message per
// incident and target, and the newest one is the only one.
type Book struct {
	Incidents map[string]Incident `json:"incidents,omitempty"` // by Subject.Key
	Health    map[string]Health   `json:"targets,omitempty"`   // by target id
	// Generations counts incidents, so that no two have the same number.
	Generations int `json:"generations,omitempty"`
}

// State is where an incident stands.
type State string

// The states of an incident.
const (
	Open State = "open"
	// Recovering: it looks healthy, but not for long enough to say so. Nothing
	// is sent meanwhile.
	Recovering State = "recovering"
	// Closed: it is over, and at least one target that was told of it has yet
	// to hear that.
	Closed State = "closed"
)

// An Incident is one subject's trouble from its opening to its end.
type Incident struct {
	Subject    Subject   `json:"subject"` // as it was last known
	State      State     `json:"state"`
	Generation int       `json:"generation"` // distinguishes a subject's incidents
	Opened     time.Time `json:"opened"`
	Highest    Severity  `json:"highest"`             // the worst it has been
	HealthyAt  time.Time `json:"healthy_at,omitzero"` // Recovering: the first healthy look
	Unknown    bool      `json:"unknown,omitempty"`   // the last look found nothing out
	// Renewed is Subject.Renewed as it was at the last look that found it ill.
	Renewed time.Time          `json:"renewed,omitzero"`
	Told    map[string]Telling `json:"told,omitempty"` // by target id
}

// A Telling is what one target was told of an incident.
type Telling struct {
	// Generation is the incident's. It stays behind where a subject fell ill
	// again before the target heard that it was fine: to the target that is one
	// incident.
	Generation int       `json:"generation"`
	Level      Severity  `json:"level,omitempty"`    // the worst it was told; OK = nothing yet
	Messages   int       `json:"messages,omitempty"` // delivered
	Last       time.Time `json:"last,omitzero"`      // the last delivery
	Tries      int       `json:"tries,omitempty"`    // of the message that is due
}

// Health is how one target does.
type Health struct {
	Since     time.Time `json:"since"`               // when the status became what it is
	Failures  int       `json:"failures,omitempty"`  // failed tries in a row
	Permanent int       `json:"permanent,omitempty"` // how many of them were of the kind that does not heal
	NextTry   time.Time `json:"next_try,omitzero"`   // back-off
	HoldUntil time.Time `json:"hold_until,omitzero"` // the other side's Retry-After
	LastError string    `json:"last_error,omitempty"`
	Sending   *Sending  `json:"sending,omitempty"` // the delivery that is under way
}

// Sending is a delivery that has begun.
type Sending struct {
	Job        string    `json:"job"`
	Key        string    `json:"key"`
	Generation int       `json:"generation"`
	Kind       Kind      `json:"kind"`
	Level      Severity  `json:"level"` // what the target knows if it arrives
	Begun      time.Time `json:"begun"`
}

// The words of a target's status.
const (
	TargetOK       = "ok"
	TargetRetrying = "retrying"
	// TargetDead: nothing is sent until there is news or a test succeeds.
	TargetDead = "dead"
)

// A TargetState is what the outside may see of a target.
type TargetState struct {
	ID        string    `json:"id"`
	Status    string    `json:"status"` // TargetOK, TargetRetrying or TargetDead
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"` // redacted; empty while ok
}

// Targets says how every known target does, by id. A target is known from the
// first Observe with a Policy that names it.
func (b Book) Targets() []TargetState {
	states := make([]TargetState, 0, len(b.Health))
	for _, id := range slices.Sorted(maps.Keys(b.Health)) {
		h := b.Health[id]
		states = append(states, TargetState{ID: id, Status: h.Status(), Since: h.Since, LastError: h.LastError})
	}
	return states
}

// Status is TargetOK, TargetRetrying or TargetDead.
func (h Health) Status() string {
	switch {
	case h.Permanent >= permanentTries:
		return TargetDead
	case h.Failures > 0:
		return TargetRetrying
	}
	return TargetOK
}

// clone copies the book as deep as its methods write.
func (b Book) clone() Book {
	b.Incidents = orEmpty(maps.Clone(b.Incidents))
	for key, incident := range b.Incidents {
		incident.Told = orEmpty(maps.Clone(incident.Told))
		b.Incidents[key] = incident
	}
	b.Health = orEmpty(maps.Clone(b.Health))
	return b
}

func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

// under says whether a delivery about an incident to a target is under way.
func (b Book) under(target, key string) bool {
	sending := b.Health[target].Sending
	return sending != nil && sending.Key == key
}

// forget drops an incident that is over and that nobody has to hear of any more.
func (b Book) forget(key string) {
	incident, found := b.Incidents[key]
	if !found || incident.State != Closed {
		return
	}
	for target, telling := range incident.Told {
		if telling.Level == OK && !b.under(target, key) {
			delete(incident.Told, target)
		}
	}
	if len(incident.Told) == 0 {
		delete(b.Incidents, key)
	}
}
