package settings

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A Window is a time of day, like 03:00-05:00, that may reach over midnight.
// The zero Window is none. Its end does not belong to it.
type Window struct{ from, to int } // minutes after midnight, to up to 1440

var windowPattern = regexp.MustCompile(`^\s*(\d{1,2}):(\d{2})\s*(?:-|–)\s*(\d{1,2}):(\d{2})\s*$`)

// ParseWindow reads "HH:MM-HH:MM"; the end may be 24:00. An empty text gives
// the zero Window. Errors are sentences.
func ParseWindow(s string) (Window, error) {
	if s == "" {
		return Window{}, nil
	}
	m := windowPattern.FindStringSubmatch(s)
	if m == nil {
		return Window{}, fmt.Errorf("%.40q is no window of time: needs two times of day, like 03:00-05:00", s)
	}
	from, to := minutes(m[1], m[2]), minutes(m[3], m[4])
	switch {
	case from < 0 || from == 24*60 || to < 0:
		return Window{}, fmt.Errorf("%q is no window of time: hours go from 00 to 23 and minutes from 00 to 59", s)
	case from == to:
		return Window{}, fmt.Errorf("%q begins when it ends: leave it empty for the whole day", s)
	}
	return Window{from, to}, nil
}

// minutes after midnight; negative if there is no such time of day.
func minutes(hour, minute string) int {
	h, _ := strconv.Atoi(hour)
	m, _ := strconv.Atoi(minute)
	if m > 59 || h*60+m > 24*60 {
		return -1
	}
	return h*60 + m
}

// IsZero reports that there is no window.
func (w Window) IsZero() bool { return w == Window{} }

// String is the window as ParseWindow reads it; empty if there is none.
func (w Window) String() string {
	if w.IsZero() {
		return ""
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", w.from/60, w.from%60, w.to/60, w.to%60)
}

// Contains reports that the clocks in loc show a time within the window. A
// time that clocks skip in spring is in no window, one that comes twice in
// autumn is in it twice. The zero Window holds no time.
func (w Window) Contains(now time.Time, loc *time.Location) bool {
	if w.IsZero() {
		return false
	}
	local := now.In(loc)
	minute := local.Hour()*60 + local.Minute()
	if w.from < w.to {
		return w.from <= minute && minute < w.to
	}
	return minute >= w.from || minute < w.to
}

// Next is the first instant from now on that lies in the window: now itself if
// it does, or if there is no window.
func (w Window) Next(now time.Time, loc *time.Location) time.Time {
	return w.scan(now, loc, true)
}

// End is the first instant from now on that lies outside of the window.
func (w Window) End(now time.Time, loc *time.Location) time.Time {
	return w.scan(now, loc, false)
}

// scan goes from minute to minute. That is right whatever clocks do, and three
// days of it (a window may be skipped on one) take some 200 µs.
func (w Window) scan(now time.Time, loc *time.Location, inside bool) time.Time {
	if w.IsZero() || w.Contains(now, loc) == inside {
		return now
	}
	local := now.In(loc)
	t := local.Add(-time.Duration(local.Second())*time.Second - time.Duration(local.Nanosecond()))
	for range 3 * 24 * 60 {
		t = t.Add(time.Minute)
		if w.Contains(t, loc) == inside {
			return t
		}
	}
	return now
}
