package renew

import (
	"hash/fnv"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

const day = 24 * time.Hour

// Settings is what the configuration says of one certificate, as far as it
// bears on when to renew.
type Settings struct {
	Names       []string      // as configured
	Directory   string        // URL of the CA's directory
	Private     bool          // a CA with ca_roots: it has no limit on issuances
	Staging     bool          // the directory is a public CA's staging environment
	RenewBefore time.Duration // zero = automatic
	Schedule    Schedule      // nil = as soon as due
	Seed        string        // spreads installations over an ARI window; constant for one certificate
}

// A Schedule gives the next pass after an instant (robfig/cron's Schedule).
type Schedule interface {
	Next(time.Time) time.Time
}

// Window is the CA's advice on when to renew (RFC 9773 §4.2).
type Window struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"` // URL of a page for people
}

// Past reports whether the whole window lies before now: the CA is going to
// revoke the certificate, or has done so.
func (w Window) Past(now time.Time) bool { return !w.End.IsZero() && w.End.Before(now) }

// Facts is what is known of one certificate when Decide is asked.
type Facts struct {
	Newest *Version // newest stored version; nil = none
	// Covers: the newest version holds every configured name.
	Covers bool
	// Revoked: the newest version was revoked, so it must be replaced.
	Revoked bool
	Window  Window // ARI of the newest version; zero = none
	// RetryAfter is until when the CA asked us to stay away, for this
	// certificate or for its whole directory, whichever is later.
	RetryAfter time.Time
	// Attempts are the beginnings of the attempts of the last hour that had one
	// of the names on the same account, ascending.
	Attempts []time.Time
	// Issuances are when certificates for exactly these names were issued by
	// this directory, ascending.
	Issuances []time.Time
}

// Reason says why a certificate is to be renewed, or that it is not.
type Reason string

const (
	Fresh   Reason = "fresh"       // not due yet
	Missing Reason = "missing"     // there is no certificate
	Names   Reason = "names"       // a configured name is not in it
	Trusted Reason = "trusted"     // it is from a staging CA, and a real one is configured
	ARI     Reason = "ari"         // the CA advises it (RFC 9773)
	Age     Reason = "age"         // the configured or the usual share of its lifetime is left
	Revoked Reason = "replacement" // the one in force was revoked
)

// Hold says what an attempt waits for after its certificate is due.
type Hold string

const (
	NoHold     Hold = ""
	OnSchedule Hold = "schedule"
	OnBackoff  Hold = "backoff"
	OnRetry    Hold = "retry_after"
	OnHourly   Hold = "hourly_cap"
	OnIssued   Hold = "issuances"
)

// Decision is when the next attempt is made, and why.
type Decision struct {
	Reason Reason
	// Due is when the certificate is to be renewed; zero with a reason that
	// holds at once.
	Due time.Time
	// Planned is Due after the schedule: when the first attempt is to be made.
	// One that has not succeeded expiry.Grace after it is overdue.
	Planned time.Time
	// At is Planned after everything that holds attempts back.
	At   time.Time
	Hold Hold // what At waits for; empty = nothing but Planned
}

// Now reports whether the attempt is to be made.
func (d Decision) Now(now time.Time) bool { return !now.Before(d.At) }

// Decide says when the certificate is to be renewed next.
func Decide(now time.Time, f Facts, r Record, s Settings) Decision {
	d := due(now, f, r, s)
	d.At = d.Planned
	hold := func(until time.Time, h Hold) {
		if until.After(d.At) {
			d.At, d.Hold = until, h
		}
	}
	if d.Planned.After(d.Due) {
		d.Hold = OnSchedule
	}
	hold(r.backoffEnds(f.Newest), OnBackoff)
	until, h := Guard(now, f, s)
	hold(until, h)
	return d
}

// due gives reason, Due and Planned.
func due(now time.Time, f Facts, r Record, s Settings) Decision {
	switch v := f.Newest; {
	case v == nil:
		return atOnce(Missing, r, now)
	case f.Revoked:
		return atOnce(Revoked, r, now)
	case v.Staging && !s.Staging:
		return atOnce(Trusted, r, now)
	case !f.Covers:
		return atOnce(Names, r, now)
	}
	at, why := dueAt(*f.Newest, f.Window, s)
	d := Decision{Reason: Fresh, Due: at, Planned: at}
	if !now.Before(at) {
		d.Reason = why
	}
	if s.Schedule != nil {
		d.Planned = firstPass(at, *f.Newest, s.Schedule)
	}
	return d
}

// atOnce is due since the first attempt in vain, or now. It does not wait for
// the schedule, which is for routine renewals.
func atOnce(why Reason, r Record, now time.Time) Decision {
	since := now
	if !r.FirstFailure.IsZero() && r.FirstFailure.Before(now) {
		since = r.FirstFailure
	}
	return Decision{Reason: why, Due: since, Planned: since}
}

// dueAt is the earlier of the CA's advice and the certificate's age.
func dueAt(v Version, w Window, s Settings) (time.Time, Reason) {
	life := v.Lifetime()
	at := v.NotAfter.Add(-clamp(renewBefore(life, s.RenewBefore), life/6, life/2))
	if pick, ok := w.pick(v, s.Seed); ok {
		// A CA that always says "now" must not make us order for ever.
		if pick = later(pick, v.StoredAt.Add(min(time.Hour, life/10))); pick.Before(at) {
			return pick, ARI
		}
	}
	return at, Age
}

// renewBefore is how long before its end a certificate is renewed: what the
// configuration says, else a third of the lifetime, and half of a short one, as
// Let's Encrypt recommends (letsencrypt.org/docs/integration-guide).
func renewBefore(life, configured time.Duration) time.Duration {
	switch {
	case configured > 0:
		return configured
	case life < 10*day:
		return life / 2
	}
	return life / 3
}

// pick chooses an instant in the first half of the window, so that the second
// half remains for attempts after a failure. It depends on nothing but the
// window and the seed: the same window always gives the same instant.
func (w Window) pick(v Version, seed string) (time.Time, bool) {
	if !w.sound(v) {
		return time.Time{}, false
	}
	h := fnv.New64a()
	for _, part := range []string{seed, v.CertID, w.Start.UTC().Format(time.RFC3339), w.End.UTC().Format(time.RFC3339)} {
		_, _ = h.Write([]byte(part + "\x00"))
	}
	half := uint64(w.End.Sub(w.Start) / 2)
	return w.Start.Add(time.Duration(h.Sum64() % half)), true
}

// sound rejects what can be no advice for this certificate: an empty or
// reversed window (RFC 9773 §4.2), one that begins after the certificate's end
// or more than a day before its beginning.
func (w Window) sound(v Version) bool {
	return !w.Start.IsZero() && w.End.Sub(w.Start) >= 2*time.Second &&
		w.Start.Before(v.NotAfter) && w.Start.After(v.NotBefore.Add(-day))
}

// firstPass is the schedule's first pass from at on, but not later than when a
// quarter of the lifetime is left: a schedule that is too coarse must not let a
// certificate come near its end.
func firstPass(at time.Time, v Version, s Schedule) time.Time {
	pass := s.Next(at.Add(-time.Nanosecond))
	last := later(at, v.NotAfter.Add(-v.Lifetime()/4))
	if pass.IsZero() || pass.After(last) {
		return last
	}
	return pass
}

// TooCoarse reports whether the schedule has no pass between the instant the
// version is due and the last moment for it, so that a pass of our own is made.
func TooCoarse(v Version, w Window, s Settings) bool {
	if s.Schedule == nil {
		return false
	}
	at, _ := dueAt(v, w, s)
	pass := s.Schedule.Next(at.Add(-time.Nanosecond))
	return pass.IsZero() || pass.After(later(at, v.NotAfter.Add(-v.Lifetime()/4)))
}

const (
	// attemptsPerHour stays below the five failed validations per name, account
	// and hour after which Let's Encrypt refuses (letsencrypt.org/docs/rate-limits).
	attemptsPerHour = 4
	// issuancesPerWeek stays below Let's Encrypt's five certificates for the same
	// names in seven days.
	issuancesPerWeek = 3
)

// Guard is until when no attempt may be made, not even by hand: what the CA
// asked for, the attempts of the last hour and the certificates that were
// issued for the same names. The zero time means that nothing stands against it.
func Guard(now time.Time, f Facts, s Settings) (time.Time, Hold) {
	var until time.Time
	var why Hold
	hold := func(t time.Time, h Hold) {
		if t.After(now) && t.After(until) {
			until, why = t, h
		}
	}
	hold(f.RetryAfter, OnRetry)
	hold(nthLast(now, f.Attempts, attemptsPerHour, time.Hour), OnHourly)
	if !s.Private {
		span := 7 * day
		if f.Newest != nil {
			span = min(span, f.Newest.Lifetime())
		}
		hold(nthLast(now, f.Issuances, issuancesPerWeek, span), OnIssued)
	}
	return until, why
}

// nthLast is when the nth last of the instants leaves the window, the zero time
// if there are fewer. One from the future was noted while the clock ran ahead,
// and is as good as now.
func nthLast(now time.Time, ascending []time.Time, n int, window time.Duration) time.Time {
	if len(ascending) < n {
		return time.Time{}
	}
	at := ascending[len(ascending)-n]
	if at.After(now) {
		at = now
	}
	return at.Add(window)
}

// Covers reports whether the version holds all the names.
func (v Version) Covers(names []string) bool {
	return len(expiry.Uncovered(v.Names, names)) == 0
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func clamp(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }
