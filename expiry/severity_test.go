package expiry_test

import (
	"slices"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

func TestSeverityWords(t *testing.T) {
	words := map[expiry.Severity]string{
		expiry.Unknown: "unknown", expiry.OK: "ok", expiry.Notice: "notice",
		expiry.Warning: "warning", expiry.Critical: "critical", expiry.Expired: "expired",
	}
	for s, word := range words {
		text, err := s.MarshalText()
		check(t, err)
		var back expiry.Severity
		if err := back.UnmarshalText(text); err != nil || s.String() != word || string(text) != word || back != s {
			t.Errorf("%d: %s, back %v, %v", s, text, back, err)
		}
	}
	var s expiry.Severity
	if err := s.UnmarshalText([]byte("OK")); err == nil {
		t.Error("an unknown word is taken")
	}
	if got := expiry.Severity(99).String(); got != "unknown" {
		t.Errorf("no severity is called %s", got)
	}
}

func TestWorst(t *testing.T) {
	if got := expiry.Worst(nil); got != expiry.OK {
		t.Errorf("no problems: %v", got)
	}
	// What cannot be seen is more than a notice and hides no warning.
	order := []expiry.Severity{expiry.OK, expiry.Notice, expiry.Unknown, expiry.Warning, expiry.Critical, expiry.Expired}
	if !slices.IsSortedFunc(order, expiry.Severity.Compare) {
		t.Error("the order is another")
	}
	for i, s := range order {
		var problems []expiry.Problem
		for _, lesser := range order[:i+1] {
			problems = append(problems, expiry.Problem{Severity: lesser})
		}
		if got := expiry.Worst(problems); got != s {
			t.Errorf("worst up to %v: %v", s, got)
		}
	}
}

// lifetimes are those that occur: W, K and g of docs/renewal.md for each.
var lifetimes = []struct {
	life, warn, critical, grace time.Duration
}{
	{398 * day, 21 * day, 7 * day, 48 * time.Hour},
	{90 * day, 21 * day, 7 * day, 48 * time.Hour},
	{64 * day, 358*time.Hour + 24*time.Minute, 119*time.Hour + 28*time.Minute, 34*time.Hour + 8*time.Minute},
	{45 * day, 252 * time.Hour, 84 * time.Hour, 24 * time.Hour},
	{6 * day, 33*time.Hour + 36*time.Minute, 11*time.Hour + 12*time.Minute, 3*time.Hour + 12*time.Minute},
	{day, 5*time.Hour + 36*time.Minute, time.Hour + 52*time.Minute, 32 * time.Minute},
	{4 * time.Hour, 56 * time.Minute, 18*time.Minute + 40*time.Second, 30 * time.Minute},
}

func TestScaleAndGrace(t *testing.T) {
	for _, l := range lifetimes {
		if got := expiry.Scale(21, l.life); !near(got, l.warn) {
			t.Errorf("%v: warning at %v, want %v", l.life, got, l.warn)
		}
		if got := expiry.Scale(7, l.life); !near(got, l.critical) {
			t.Errorf("%v: critical at %v, want %v", l.life, got, l.critical)
		}
		if got := expiry.Grace(l.life); !near(got, l.grace) {
			t.Errorf("%v: grace %v, want %v", l.life, got, l.grace)
		}
	}
	for _, odd := range []time.Duration{0, -day} {
		if expiry.Scale(21, odd) != 0 || expiry.Grace(odd) != 30*time.Minute {
			t.Errorf("a lifetime of %v: %v, %v", odd, expiry.Scale(21, odd), expiry.Grace(odd))
		}
	}
	if got := expiry.Scale(3650, 3650*day); got != 3650*day {
		t.Errorf("ten years: %v", got)
	}
}

// near allows for whole nanoseconds in a division by 90.
func near(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond }
