package settings

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// A Schedule says when routine renewals may be made. The zero Schedule says
// nothing.
type Schedule struct {
	spec   string
	zone   *time.Location
	passes cron.Schedule
}

// shortestEvery: a schedule that is finer than that is a mistake in writing.
const shortestEvery = time.Minute

// ParseSchedule reads a cron expression of five fields or one of @hourly,
// @daily, @weekly, @monthly, @yearly and @every DURATION, in loc (nil = UTC).
// An empty spec gives the zero Schedule. Errors are sentences.
func ParseSchedule(spec string, loc *time.Location) (Schedule, error) {
	spec = strings.TrimSpace(spec)
	if spec == "" {
		return Schedule{}, nil
	}
	if len(spec) > 200 {
		return Schedule{}, errors.New("is too long for a cron expression")
	}
	// The parser panics at "TZ=0", and zones have a place of their own.
	if strings.Contains(spec, "=") {
		return Schedule{}, errors.New("can not name a time zone: times are local, set TZ for the daemon")
	}
	passes, err := cron.ParseStandard(spec)
	if err != nil {
		return Schedule{}, fmt.Errorf("%q is no cron expression: %s", spec, scheduleFault(spec))
	}
	if every, ok := passes.(cron.ConstantDelaySchedule); ok && every.Delay < shortestEvery {
		return Schedule{}, fmt.Errorf("%q comes too often: needs at least @every 1m", spec)
	}
	s := Schedule{spec: spec, zone: cmp.Or(loc, time.UTC), passes: passes}
	if fields, ok := passes.(*cron.SpecSchedule); ok {
		// "," is taken by the parser and means no minute at all.
		for _, bits := range []uint64{fields.Minute, fields.Hour, fields.Dom, fields.Month, fields.Dow} {
			if bits == 0 {
				return Schedule{}, fmt.Errorf("%q never comes: one of its fields is empty", spec)
			}
		}
		// Five years from any day hold every date that exists but February 29
		// around 2100; this reference has one in 2028.
		if passes.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
			return Schedule{}, fmt.Errorf("%q never comes: there is no such date", spec)
		}
	}
	return s, nil
}

// scheduleFault names the field that the parser stumbles over.
func scheduleFault(spec string) string {
	if strings.HasPrefix(spec, "@") {
		return "needs @hourly, @daily, @weekly, @monthly, @yearly or @every with a duration like 12h"
	}
	fields := strings.Fields(spec)
	names := []string{"minute (0-59)", "hour (0-23)", "day of month (1-31)", "month (1-12)", "day of week (0-6, 0 is Sunday)"}
	if len(fields) != len(names) {
		return fmt.Sprintf("needs five fields (minute, hour, day of month, month, day of week), and these are %d", len(fields))
	}
	for i, f := range fields {
		alone := []string{"*", "*", "*", "*", "*"}
		alone[i] = f
		if _, err := cron.ParseStandard(strings.Join(alone, " ")); err != nil {
			return strconv.Quote(f) + " is no " + names[i]
		}
	}
	return "it can not be read"
}

// IsZero reports that there is no schedule.
func (s Schedule) IsZero() bool { return s.passes == nil }

// String is the expression as it was written.
func (s Schedule) String() string { return s.spec }

// Next is the first pass after now. Without a schedule it is now. A pass in the
// hour that clocks skip in spring is made an hour later, one in the hour that
// comes twice in autumn is made once.
func (s Schedule) Next(now time.Time) time.Time {
	if s.IsZero() {
		return now
	}
	if _, everySoOften := s.passes.(cron.ConstantDelaySchedule); everySoOften {
		return s.passes.Next(now)
	}
	// The library counts in UTC what the clocks on the wall show. With zones it
	// loops for ever where a day is missing (Pacific/Apia, 30 December 2011).
	wall := onWall(now.In(s.zone))
	for {
		wall = s.after(wall)
		if t := offWall(wall, s.zone); t.After(now) {
			return t
		}
	}
}

// after is the next pass. February 29 is up to eight years away around 2100,
// and the library looks five ahead.
func (s Schedule) after(wall time.Time) time.Time {
	if next := s.passes.Next(wall); !next.IsZero() {
		return next
	}
	return s.passes.Next(wall.AddDate(5, 0, 0))
}

// onWall is what the clocks show at t, as if they were in UTC.
func onWall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// offWall is when the clocks in loc show wall. If they skip it, it is as much
// later as they skip.
func offWall(wall time.Time, loc *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	if skipped := wall.Sub(onWall(t)); skipped > 0 {
		return t.Add(skipped)
	}
	return t
}

// Equal reports that both have the same passes.
func (s Schedule) Equal(t Schedule) bool {
	return s.spec == t.spec && s.zone.String() == t.zone.String()
}
