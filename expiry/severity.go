package expiry

import (
	"cmp"
	"fmt"
	"time"
)

// Severity is how bad something is.
type Severity int

// The severities. Unknown means that it could not be looked at. Notice: good to
// know, nothing to do. Warning: act this week. Critical: act today. Expired:
// browsers and apps refuse it now.
const (
	Unknown Severity = iota - 1
	OK
	Notice
	Warning
	Critical
	Expired
)

var severityWords = [...]string{"unknown", "ok", "notice", "warning", "critical", "expired"}

// String is the word of the contract: unknown ok notice warning critical expired.
func (s Severity) String() string {
	if s < Unknown || s > Expired {
		return "unknown"
	}
	return severityWords[s-Unknown]
}

// MarshalText gives the word of String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the words of String only.
func (s *Severity) UnmarshalText(text []byte) error {
	for i, word := range severityWords {
		if word == string(text) {
			*s = Severity(i) + Unknown
			return nil
		}
	}
	return fmt.Errorf("severity %q is none of %v", text, severityWords)
}

// Compare orders severities from harmless to bad. Unknown stands between notice
// and warning: what cannot be seen is more than a notice, but never hides a
// warning that is known.
func (s Severity) Compare(t Severity) int { return cmp.Compare(s.rank(), t.rank()) }

func (s Severity) rank() int {
	if s == Unknown {
		return int(Notice)*2 + 1
	}
	return int(s) * 2
}

// Worst is the worst severity among the problems; OK if there are none.
func Worst(problems []Problem) Severity {
	worst := OK
	for _, p := range problems {
		if p.Severity.Compare(worst) > 0 {
			worst = p.Severity
		}
	}
	return worst
}

const day = 24 * time.Hour

// reference is the lifetime that numbers of days are meant for.
const reference = 90

// Scale is the time before the expiry that a number of days stands for: so many
// days for a lifetime of 90 days and more, less in proportion for a shorter one.
// W and K of docs/renewal.md.
func Scale(days int, lifetime time.Duration) time.Duration {
	return time.Duration(days) * min(day, max(lifetime, 0)/reference)
}

// Grace is how long after its instant a renewal may take until it is overdue:
// 48 hours for a lifetime of 90 days and more, less in proportion for a shorter
// one, but half an hour at least. g of docs/renewal.md.
func Grace(lifetime time.Duration) time.Duration {
	return max(30*time.Minute, min(48*time.Hour, lifetime*2/reference))
}
