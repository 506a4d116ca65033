package sitter

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	build := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	noon := build.Add(20 * day)
	for _, c := range []struct {
		name  string
		saved time.Time
		do    func(*clock)
		want  bool
	}{
		{"nothing is known", time.Time{}, func(c *clock) { c.tick(noon, 0) }, true},
		{"before the build", time.Time{}, func(c *clock) { c.tick(build.Add(-time.Second), 0) }, false},
		{"a little before the saved time", noon.Add(4 * time.Minute), func(c *clock) { c.tick(noon, 0) }, true},
		{"well before the saved time", noon.Add(6 * time.Minute), func(c *clock) { c.tick(noon, 0) }, false},
		{"before the saved time, but the CA agrees", noon.Add(10 * day), func(c *clock) { c.tick(noon, 0); c.heard(noon, noon.Add(4*time.Minute)) }, true},
		{"before the saved time, and the CA differs by an hour", noon.Add(10 * day), func(c *clock) { c.tick(noon, 0); c.heard(noon, noon.Add(time.Hour)) }, false},
		{"the CA differs by an hour", time.Time{}, func(c *clock) { c.tick(noon, 0); c.heard(noon, noon.Add(time.Hour)) }, true},
		{"the CA differs by two days", time.Time{}, func(c *clock) { c.tick(noon, 0); c.heard(noon, noon.Add(-2*day)) }, false},
		{"a jump ahead is looked at", time.Time{}, func(c *clock) { c.tick(noon, 0); c.tick(noon.Add(2*time.Hour), time.Minute) }, false},
		{"a jump that nobody can judge", time.Time{}, func(c *clock) { c.tick(noon, 0); c.tick(noon.Add(2*time.Hour), time.Minute); c.unheard() }, true},
		{"a jump that the CA confirms", time.Time{}, func(c *clock) {
			c.tick(noon, 0)
			c.tick(noon.Add(2*time.Hour), time.Minute)
			c.heard(noon.Add(2*time.Hour), noon.Add(2*time.Hour))
		}, true},
		{"time goes by", time.Time{}, func(c *clock) { c.tick(noon, 0); c.tick(noon.Add(2*day), 2*day) }, true},
	} {
		k := clock{build: build, saved: c.saved}
		c.do(&k)
		if k.sane() != c.want {
			t.Errorf("%s: sane is %v", c.name, !c.want)
		}
	}
	k := clock{build: build}
	k.tick(build.Add(-day), time.Minute)
	for _, mono := range []time.Duration{30 * time.Minute, 60 * time.Minute} {
		k.tick(build.Add(-day), mono)
		if k.blind() {
			t.Errorf("blind after %v", mono-time.Minute)
		}
	}
	if k.tick(build.Add(-day), 61*time.Minute); !k.blind() {
		t.Error("not blind after an hour")
	}
}
