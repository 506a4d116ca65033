package sitter

import "time"

// Limits of the clock's sanity (CONTRACT §6).
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

// clock judges whether the wall clock can be believed. Wrong dates would renew
// everything, or call everything expired.
type clock struct {
	build time.Time // no clock is before the build
	saved time.Time // last sane time that was kept on disk

	// What a CA said: its Date over verified TLS, and what the wall clock showed.
	date, dateAt time.Time

	lastWall time.Time     // at the last tick
	lastMono time.Duration // at the last tick
	doubtful bool          // jumped: to be looked at before anything is judged
	insane   time.Time     // since when; zero = sane
}

// tick takes in the wall clock and the monotonic time since the start.
func (c *clock) tick(wall time.Time, mono time.Duration) {
	if !c.lastWall.IsZero() {
		drift := wall.Sub(c.lastWall) - (mono - c.lastMono)
		if drift.Abs() > jump {
			c.doubtful = true
		}
	}
	c.lastWall, c.lastMono = wall, mono
	switch {
	case c.believable(wall):
		c.insane = time.Time{}
	case c.insane.IsZero():
		c.insane = wall
	case wall.Before(c.insane): // it jumped while insane
		c.insane = wall
	}
}

// heard takes in a CA's Date.
func (c *clock) heard(wall, date time.Time) {
	c.date, c.dateAt, c.doubtful = date, wall, false
	if wall.Sub(date).Abs() <= near {
		c.saved = wall // proven, whatever was saved
	}
	c.insane = time.Time{}
	if !c.believable(wall) {
		c.insane = wall
	}
}

// unheard ends the doubt when no CA could be asked: the rules without a Date
// must do.
func (c *clock) unheard() { c.doubtful = false }

// believable are the rules without doubt.
func (c *clock) believable(wall time.Time) bool {
	if wall.Before(c.build) || wall.Before(c.saved.Add(-backwards)) {
		return false
	}
	if c.date.IsZero() {
		return true
	}
	// What the CA's clock shows by now, if ours went on at its usual pace.
	offset := c.dateAt.Sub(c.date)
	return offset.Abs() <= skew
}

// sane reports whether anything may be judged, renewed or sent.
func (c *clock) sane(wall time.Time) bool { return !c.doubtful && c.believable(wall) }

// blind reports whether the clock has been insane for so long that it is said.
func (c *clock) blind(mono time.Duration, since time.Duration) bool { return mono-since >= blindFor }
