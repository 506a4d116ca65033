package sitter

import "time"

// Limits of the clock's sanity (docs/renewal.md).
const (
	// backwards is how far the clock may stand before the saved time. NTP steps
	// are smaller; a Raspberry Pi that boots without a clock is further away.
	backwards = 5 * time.Minute
	// near is how close a verified Date must be to prove the clock right.
	near = 5 * time.Minute
	// skew is how far the CA's Date may be away before the clock is not believed.
	skew = 24 * time.Hour
	// jump is how far wall and monotonic time may part between two ticks. More is
	// a machine that slept or a clock that was set: both are looked at again.
	jump = time.Hour
	// blindFor is how long the clock may be insane before it is said.
	blindFor = time.Hour
)

// A clock judges whether the wall clock can be believed. Wrong dates would renew
// everything, or call everything expired.
type clock struct {
	build time.Time     // no clock is before the build
	saved time.Time     // last sane time that was kept on disk
	off   time.Duration // what the wall clock was off when a CA said its Date over verified TLS

	wall     time.Time     // at the last tick
	mono     time.Duration // at the last tick, since the start
	doubtful bool          // it jumped: to be looked at before anything is judged
	unproven bool          // it jumped, and no CA could be asked: it is asked again
	insane   bool          // at the last tick
	since    time.Duration // since when it is insane or doubtful, since the start
}

// tick takes in the wall clock and the monotonic time since the start.
func (c *clock) tick(wall time.Time, mono time.Duration) {
	if drift := wall.Sub(c.wall) - (mono - c.mono); !c.wall.IsZero() && drift.Abs() > jump {
		c.doubtful = true
	}
	c.wall, c.mono = wall, mono
	if insane := !c.sane(); insane != c.insane {
		c.insane, c.since = insane, mono
	}
}

// heard takes in a CA's Date.
func (c *clock) heard(wall, date time.Time) {
	c.doubtful, c.unproven = false, false
	c.off = wall.Sub(date)
	if c.off.Abs() <= near {
		c.saved = wall // proven, whatever was saved
	}
}

// unheard ends the doubt when no CA could be asked: the rules without a Date
// must do until one can, and what was said before the jump counts no more.
func (c *clock) unheard() {
	if c.doubtful {
		c.doubtful, c.unproven, c.off = false, true, 0
	}
}

// sane reports whether anything may be judged, renewed or sent.
func (c *clock) sane() bool {
	return !c.doubtful && !c.wall.Before(c.build) && !c.wall.Before(c.saved.Add(-backwards)) && c.off.Abs() <= skew
}

// blind reports that the clock has been insane for so long that it is said.
func (c *clock) blind() bool { return !c.sane() && c.mono-c.since >= blindFor }
