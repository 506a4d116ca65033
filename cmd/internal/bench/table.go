package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one line of the table. Times are in nanoseconds, sizes in bytes.
type row struct {
	name        string
	ours, bound float64 // bound 0 = there is none
	ratio       float64
	same        float64 // the bound's second run to its first; 0 = run once
	show        func(float64) string
	goal        goal
}

// A goal is a figure to reach; the zero value is none.
type goal struct {
	most  float64
	ratio bool // of the ratio, not of ours
}

func (g goal) words(show func(float64) string) string {
	switch {
	case g == goal{}:
		return ""
	case g.ratio:
		return fmt.Sprintf("≤ %g ×", g.most)
	}
	return "≤ " + show(g.most)
}

func (r row) verdict() string {
	value := r.ours
	if r.goal.ratio {
		value = r.ratio
	}
	switch {
	case r.goal == goal{}:
		return ""
	case value <= r.goal.most:
		return "reached"
	}
	return "MISSED"
}

func times(f float64) string {
	if f == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", f)
}

func write(w io.Writer, rows []row) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\tours\tbound\tratio\tbound/bound\tto reach\t")
	for _, r := range rows {
		bound := "–"
		if r.bound != 0 {
			bound = r.show(r.bound)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.show(r.ours), bound, times(r.ratio), times(r.same), r.goal.words(r.show), r.verdict())
	}
	_ = table.Flush() // to a terminal or a buffer
}

func milliseconds(ns float64) string {
	return fmt.Sprintf("%.*f ms", digits(ns/1e6), ns/1e6)
}

func megabytes(n float64) string { return fmt.Sprintf("%.2f MB", n/1e6) }
func mebibytes(n float64) string { return fmt.Sprintf("%.1f MiB", n/(1<<20)) }
func perSecond(n float64) string { return fmt.Sprintf("%.0f /s", n) }
func count(n float64) string     { return fmt.Sprintf("%.0f", n) }

// digits gives a number three figures that say something.
func digits(f float64) int {
	switch {
	case f < 1:
		return 3
	case f < 100:
		return 1
	}
	return 0
}

// machine is the line that says on what the figures were taken.
func machine() string {
	return fmt.Sprintf("machine: %d × %s, %s, %s, %s/%s, %s; load %s; %s",
		runtime.NumCPU(), field("/proc/cpuinfo", "model name", "unknown processor"), memory(), kernel(), runtime.GOOS, runtime.GOARCH,
		runtime.Version(), load(), time.Now().UTC().Format("2006-01-02 15:04 MST"))
}

func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}

func kernel() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(data))
}

func memory() string {
	var kib float64
	_, _ = fmt.Sscan(field("/proc/meminfo", "MemTotal", "0"), &kib)
	return fmt.Sprintf("%.1f GiB", kib/(1<<20))
}

// field is what stands behind a name and a colon in one of the kernel's lists.
func field(path, name, otherwise string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}
