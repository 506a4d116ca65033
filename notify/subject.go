package notify

import "time"

// A Subject is a certificate or an endpoint as it was found at one look: what
// an incident is about.
type Subject struct {
	Key  string `json:"key"`  // stable identity: the configured name, for an endpoint with its address
	Name string `json:"name"` // for people: the first domain, the watched name
	// Severity is how bad it is. From Warning on it is an incident; below that
	// nobody is called.
	Severity Severity `json:"severity,omitempty"`
	// Unknown says that nothing could be found out this time. Severity and the
	// other facts are then ignored and the incident stands still.
	Unknown bool `json:"-"`
	// Code is the problem's stable code ("renewal_failed", "stale"…). Titles
	// know the common ones.
	Code   string `json:"code,omitempty"`
	Text   string `json:"text,omitempty"`   // the reason: what happened and what it means
	Advice string `json:"advice,omitempty"` // the action: what to do

	DaysLeft int       `json:"days_left,omitempty"` // floor, negative once expired
	HasDays  bool      `json:"has_days,omitempty"`  // DaysLeft and NotAfter are known
	NotAfter time.Time `json:"not_after,omitzero"`  // the earliest expiry that counts

	// Renewed is when a renewal or a deployment last succeeded, zero for never.
	// If it is later than it was when the subject was last seen ill, a healthy
	// look is believed at once instead of after HealthyFor.
	Renewed time.Time `json:"renewed,omitzero"`
}

// A Policy says how the messages are wanted.
type Policy struct {
	Repeat         time.Duration        // between messages about an open warning; 0 = 72 h
	RepeatCritical time.Duration        // the same at critical and expired; 0 = 24 h
	Quiet          func(time.Time) bool // quiet hours, in which messages wait; nil = none
	Targets        []string             // ids of all targets, see TargetID
	Language       string               // en | de
}

// The contract's intervals for repeats (docs/messages.md).
const (
	defaultRepeat         = 72 * time.Hour
	defaultRepeatCritical = 24 * time.Hour
)

// repeat is how long after a message the next one about the same follows.
func (p Policy) repeat(s Severity) time.Duration {
	if s.Compare(Critical) >= 0 {
		return orDefault(p.RepeatCritical, defaultRepeatCritical)
	}
	return orDefault(p.Repeat, defaultRepeat)
}

func (p Policy) quiet(t time.Time) bool { return p.Quiet != nil && p.Quiet(t) }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
