package renew

import "time"

// A Record is what is remembered of one certificate's attempts. Its methods
// give a new record; the shell stores it.
type Record struct {
	Failures     int       `json:"failures,omitzero"`      // in a row
	FirstFailure time.Time `json:"first_failure,omitzero"` // of those in a row: when it began to fail
	LastAttempt  time.Time `json:"last_attempt,omitzero"`  // beginning
	LastEnd      time.Time `json:"last_end,omitzero"`      // of the last attempt that has ended
	LastSuccess  time.Time `json:"last_success,omitzero"`
	// Open: the attempt that began at LastAttempt has no end yet. After a crash
	// it never gets one: that is no failure, but it counts in the hourly cap.
	Open       bool      `json:"open,omitzero"`
	Cause      Cause     `json:"cause,omitzero"` // of the last failure
	Sentence   string    `json:"sentence,omitzero"`
	Advice     string    `json:"advice,omitzero"`
	RetryAfter time.Time `json:"retry_after,omitzero"` // the CA's word for this certificate
	Pressed    time.Time `json:"pressed,omitzero"`     // last attempt by hand
	// Patient: the back-off holds. It is false after the configuration changed,
	// which may well have removed the cause.
	Patient bool `json:"patient,omitzero"`
}

// maxRetryAfter bounds what a CA may ask of us.
const maxRetryAfter = 7 * day

// backoff are the waits after the first, second, … failure in a row.
var backoff = []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// Begin is the record once an attempt has begun.
func (r Record) Begin(now time.Time, byHand bool) Record {
	r.LastAttempt, r.Open = now, true
	if byHand {
		r.Pressed = now
	}
	return r
}

// Succeeded is the record once a certificate was stored.
func (r Record) Succeeded(now time.Time) Record {
	return Record{LastAttempt: r.LastAttempt, LastEnd: now, LastSuccess: now, Pressed: r.Pressed}
}

// Failed is the record once an attempt has ended without a certificate.
func (r Record) Failed(now time.Time, f *Fault) Record {
	why := Explain(f)
	r.Open, r.Patient = false, true
	r.LastEnd = now
	r.Failures++
	if r.FirstFailure.IsZero() {
		r.FirstFailure = now
	}
	r.Cause, r.Sentence, r.Advice = why.Cause, why.Sentence, why.Advice
	if f.RetryAfter > 0 && !f.WholeDirectory {
		r.RetryAfter = RetryAt(now, f)
	}
	return r
}

// Stopped is the record once an attempt was ended by our own shutdown: no
// failure.
func (r Record) Stopped() Record {
	r.Open = false
	return r
}

// Reconfigured is the record after the certificate's configuration changed: the
// next attempt need not wait for the back-off.
func (r Record) Reconfigured() Record {
	r.Patient = false
	return r
}

// RetryAt is until when the CA asked us to stay away. RetryAfter counts from
// the answer's own Date, so a wrong clock here does not matter.
func RetryAt(now time.Time, f *Fault) time.Time {
	return now.Add(min(f.RetryAfter, maxRetryAfter))
}

// NotAfter is the record without instants that lie in the future, as a clock
// that ran ahead has left them: what was remembered happened by now, and the
// CA's word holds no longer than any of its words does.
func (r Record) NotAfter(now time.Time) Record {
	for _, t := range []*time.Time{&r.FirstFailure, &r.LastAttempt, &r.LastEnd, &r.LastSuccess, &r.Pressed} {
		if t.After(now) {
			*t = now
		}
	}
	if limit := now.Add(maxRetryAfter); r.RetryAfter.After(limit) {
		r.RetryAfter = limit
	}
	return r
}

// Failing reports whether the last attempt that ended failed.
func (r Record) Failing() bool { return r.Failures > 0 }

// backoffEnds is until when the failures in a row hold the next attempt back.
func (r Record) backoffEnds(newest *Version) time.Time {
	if r.Failures == 0 || !r.Patient {
		return time.Time{}
	}
	return r.LastEnd.Add(backoffAfter(r.Failures, r.LastEnd, newest))
}

// backoffAfter grows with the failures and shrinks with the life that is left.
func backoffAfter(failures int, at time.Time, newest *Version) time.Duration {
	wait := backoff[min(max(failures, 1), len(backoff))-1]
	if newest == nil || !at.Before(newest.NotAfter) {
		return min(wait, 6*time.Hour)
	}
	return max(min(wait, newest.NotAfter.Sub(at)/8), 15*time.Minute)
}
