package settings

import (
	"strings"
	"testing"
	"time"
)

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	berlin := mustZone(t, "Europe/Berlin")
	now := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC) // the day before clocks go forward
	for _, c := range []struct{ spec, want string }{
		{"0 3 * * *", "2026-03-29 03:00 CEST"},
		{"30 2 * * *", "2026-03-29 03:30 CEST"}, // clocks skip 02:30 on the 29th
		{"@daily", "2026-03-29 00:00 CET"},
		{"@every 90m", "2026-03-28 14:30 CET"},
		{"0 4 * * MON", "2026-03-30 04:00 CEST"},
		{"0 0 29 2 *", "2028-02-29 00:00 CET"},
		{" 5 4 * * ? ", "2026-03-29 04:05 CEST"},
	} {
		s, err := ParseSchedule(c.spec, berlin)
		if err != nil {
			t.Errorf("%q: %v", c.spec, err)
			continue
		}
		if got := s.Next(now).In(berlin).Format("2006-01-02 15:04 MST"); got != c.want {
			t.Errorf("%q: %s, want %s", c.spec, got, c.want)
		}
		if s.IsZero() || s.String() != strings.TrimSpace(c.spec) {
			t.Errorf("%q: is %q", c.spec, s)
		}
	}
	// Around 2100, which is no leap year, February 29 is eight years away.
	s, err := ParseSchedule("0 0 29 2 *", berlin)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC)); got.Year() != 2104 {
		t.Errorf("after 2096 comes %v", got)
	}
	// In autumn 02:30 comes twice, and one pass is enough.
	if s, err = ParseSchedule("30 2 * * *", berlin); err != nil {
		t.Fatal(err)
	}
	first := s.Next(time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC))
	if second := s.Next(first); first.Day() != 25 || second.Day() != 26 {
		t.Errorf("passes in autumn: %v, %v", first, second)
	}
	if none := (Schedule{}); !none.IsZero() || !none.Next(now).Equal(now) {
		t.Error("the zero Schedule does not mean now")
	}
	other, err := ParseSchedule("30 2 * * *", time.UTC)
	if err != nil || s.Equal(other) || !s.Equal(s) || !(Schedule{}).Equal(Schedule{}) || s.Equal(Schedule{}) {
		t.Errorf("Equal mixes schedules up (%v)", err)
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, spec := range []string{"TZ=0", "CRON_TZ=Europe/Berlin", "CRON_TZ=UTC 0 0 * * *", "0 0 30 2 *", "@every 1h", "@every 1s", "@every -5h",
		"@daily", "@reboot", "", " ", ",", ", * * * *", "*/0 * * * *", "*/99 * * * *", "0-59/7 0-23 1-31 1-12 0-6", "* * * * * *", "0 0 31 4,6,9,11 *",
		"0 0 29 2 1", "5/5 * * * ?", "0 3 * jan-MAR sun", "@every 9223372036854775807ns", "59 23 31 12 *", "*/9223372036854775807 * * * *"} {
		f.Add(spec, int64(1774695600), "Europe/Berlin")
	}
	f.Add("30 0 * * *", int64(1541300000), "America/Sao_Paulo")
	f.Add("0 0 30 12 *", int64(1325000000), "Pacific/Apia")
	f.Fuzz(func(t *testing.T, spec string, unix int64, zone string) {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			loc = time.UTC
		}
		s, err := ParseSchedule(spec, loc)
		if err != nil {
			if !s.IsZero() {
				t.Fatalf("%q: both %q and %v", spec, s, err)
			}
			return
		}
		if s.IsZero() != (strings.TrimSpace(spec) == "") {
			t.Fatalf("%q: is zero: %v", spec, s.IsZero())
		}
		now := time.Unix(unix%(1<<32), 0)
		if next := s.Next(now); !s.IsZero() && !next.After(now) {
			t.Fatalf("%q in %s: %v does not come after %v", spec, loc, next, now)
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	berlin := mustZone(t, "Europe/Berlin")
	at := func(s string) time.Time {
		when, err := time.ParseInLocation("2006-01-02 15:04:05", s, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, c := range []struct {
		window, now string
		inside      bool
		next        string
	}{
		{"03:00-05:00", "2026-06-01 02:59:59", false, "2026-06-01 03:00:00"},
		{"03:00-05:00", "2026-06-01 03:00:00", true, "2026-06-01 03:00:00"},
		{"03:00-05:00", "2026-06-01 04:59:59", true, "2026-06-01 04:59:59"},
		{"03:00-05:00", "2026-06-01 05:00:00", false, "2026-06-02 03:00:00"},
		{"22:00-07:00", "2026-06-01 21:59:00", false, "2026-06-01 22:00:00"},
		{"22:00-07:00", "2026-06-01 23:00:00", true, "2026-06-01 23:00:00"},
		{"22:00-07:00", "2026-06-01 00:00:00", true, "2026-06-01 00:00:00"},
		{"22:00-07:00", "2026-06-01 07:00:00", false, "2026-06-01 22:00:00"},
		{"22:00-24:00", "2026-06-01 00:00:00", false, "2026-06-01 22:00:00"},
		{"00:00-24:00", "2026-06-01 12:00:00", true, "2026-06-01 12:00:00"},
		{"2:00 – 3:00", "2026-03-28 12:00:00", false, "2026-03-30 02:00:00"}, // clocks skip it on the 29th
		{"02:30-03:30", "2026-03-29 01:59:59", false, "2026-03-29 03:00:00"}, // and half of this
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Errorf("%q: %v", c.window, err)
			continue
		}
		now := at(c.now)
		if w.Contains(now, berlin) != c.inside {
			t.Errorf("%s at %s: inside is %v", c.window, c.now, !c.inside)
		}
		if got := w.Next(now, berlin); !got.Equal(at(c.next)) {
			t.Errorf("%s after %s: %v, want %s", c.window, c.now, got, c.next)
		}
	}
	w, err := ParseWindow("22:00-07:00")
	if err != nil || w.String() != "22:00-07:00" {
		t.Fatalf("%q, %v", w, err)
	}
	if got := w.End(at("2026-06-01 23:00:00"), berlin); !got.Equal(at("2026-06-02 07:00:00")) {
		t.Errorf("it ends %v", got)
	}
	var none Window
	now := at("2026-06-01 23:00:00")
	if !none.IsZero() || none.Contains(now, berlin) || !none.Next(now, berlin).Equal(now) || none.String() != "" {
		t.Error("the zero Window holds something")
	}
}

// Next and Contains agree on days on which clocks change.
func TestWindowWhereClocksChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, day string }{
		{"Europe/Berlin", "2026-03-28"}, {"Europe/Berlin", "2026-10-24"}, {"America/New_York", "2026-03-07"},
		{"Australia/Lord_Howe", "2026-04-04"}, {"America/Sao_Paulo", "2018-11-03"}, {"Pacific/Apia", "2011-12-28"},
	} {
		loc := mustZone(t, c.zone)
		start, err := time.ParseInLocation(time.DateOnly, c.day, loc)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"00:00-01:00", "02:00-03:00", "01:30-02:30", "23:30-00:30", "22:00-07:00"} {
			w, err := ParseWindow(text)
			if err != nil {
				t.Fatal(err)
			}
			var open time.Time // the first minute from here on that is inside
			for m := 5 * 24 * 60; m >= 0; m-- {
				now := start.Add(time.Duration(m) * time.Minute)
				if w.Contains(now, loc) {
					open = now
				}
				if m > 2*24*60 || m%11 != 0 && m%60 != 0 || open.IsZero() {
					continue
				}
				if got := w.Next(now, loc); !got.Equal(open) {
					t.Fatalf("%s %s after %v: %v, want %v", c.zone, text, now, got, open)
				}
			}
		}
	}
}

func FuzzParseWindow(f *testing.F) {
	for _, s := range []string{"", "03:00-05:00", "22:00-07:00", "00:00-24:00", "24:00-01:00", "3:0-5:0", "99:99-00:00", "03:00–05:00", " 1:00 - 2:00 ", "1-2"} {
		f.Add(s, int64(1774695600))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		w, err := ParseWindow(text)
		if err != nil {
			if !w.IsZero() {
				t.Fatalf("%q: both %q and %v", text, w, err)
			}
			return
		}
		again, err := ParseWindow(w.String())
		if err != nil || again != w {
			t.Fatalf("%q: %q is read as %q, %v", text, w.String(), again, err)
		}
		now := time.Unix(unix%(1<<32), 0)
		next, end := w.Next(now, time.UTC), w.End(now, time.UTC)
		if !w.IsZero() && (!w.Contains(next, time.UTC) || next.Sub(now) > 24*time.Hour) {
			t.Fatalf("%q after %v: %v", text, now, next)
		}
		if w.Contains(end, time.UTC) && w.String() != "00:00-24:00" {
			t.Fatalf("%q at %v ends at %v", text, now, end)
		}
	})
}

func TestAction(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Action{
		"restart homeassistant":           {Kind: RestartHomeAssistant},
		" restart  app  core_nginx_proxy": {Kind: RestartApp, Argument: "core_nginx_proxy"},
		"restart app a0d7b954_nodered":    {Kind: RestartApp, Argument: "a0d7b954_nodered"},
		"reload nginx":                    {Kind: ReloadUnit, Argument: "nginx"},
		"restart openvpn@home.service":    {Kind: RestartUnit, Argument: "openvpn@home.service"},
		"restart container web_1":         {Kind: RestartContainer, Argument: "web_1"},
		"signal container web hup":        {Kind: SignalContainer, Argument: "web", Signal: "SIGHUP"},
		"signal container web SIGUSR1":    {Kind: SignalContainer, Argument: "web", Signal: "SIGUSR1"},
		"run /bin/sh -c 'echo  two'":      {Kind: RunCommand, Argument: "/bin/sh -c 'echo  two'"},
	} {
		got, err := ParseAction(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if interrupts := want.Kind != ReloadUnit && want.Kind != SignalContainer; got.Interrupts() != interrupts {
			t.Errorf("%q: interrupts is %v", text, !interrupts)
		}
	}
}

func FuzzParseAction(f *testing.F) {
	for _, s := range []string{"", "restart homeassistant", "restart app x", "reload nginx", "restart -x", "restart container a", "signal container a HUP",
		"run x; rm -rf /", "run", "restart app ../x", "reload nginx\nrun x", "signal container", "restart\thomeassistant"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAction(text)
		if err != nil {
			if a != (Action{}) {
				t.Fatalf("%q: both %+v and %v", text, a, err)
			}
			return
		}
		again, err := ParseAction(a.String())
		if err != nil || again != a {
			t.Fatalf("%q: %q is read as %+v, %v", text, a, again, err)
		}
		if a.Kind != RunCommand && (strings.HasPrefix(a.Argument, "-") || strings.ContainsAny(a.Argument, " /\n\t'\"$;")) {
			t.Fatalf("%q: %+v would mean something else to a program", text, a)
		}
	})
}
