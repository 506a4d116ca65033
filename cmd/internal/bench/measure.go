package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A cost is what one run of something took.
type cost struct {
	cpu, wall time.Duration
}

func (c cost) plus(d cost) cost { return cost{c.cpu + d.cpu, c.wall + d.wall} }

// A trial runs something once.
type trial func(context.Context) (cost, error)

// A round is bound, ours, ours, bound: a machine that slows down or speeds up
// meanwhile does so for both.
type round struct {
	first, ours, last cost // ours is the sum of two
}

// compare runs rounds of bound and ours.
func compare(ctx context.Context, rounds int, bound, ours trial) ([]round, error) {
	var all []round
	for range rounds {
		var r round
		for _, step := range []struct {
			run  trial
			into *cost
		}{{bound, &r.first}, {ours, &r.ours}, {ours, &r.ours}, {bound, &r.last}} {
			c, err := step.run(ctx)
			if err != nil {
				return nil, err
			}
			*step.into = step.into.plus(c)
		}
		all = append(all, r)
	}
	return all, nil
}

// medianOf is the median of something over all rounds.
func medianOf(rounds []round, f func(round) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, f(r))
	}
	return median(values)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// An aspect is the side of a cost that a row is about.
type aspect func(cost) time.Duration

func cpuOf(c cost) time.Duration  { return c.cpu }
func wallOf(c cost) time.Duration { return c.wall }

// rowOf makes a row of rounds in which each trial did n things.
func rowOf(name string, rounds []round, n int, of aspect) row {
	per := func(d time.Duration, trials int) float64 { return float64(d) / float64(trials*n) }
	return row{
		name:  name,
		ours:  medianOf(rounds, func(r round) float64 { return per(of(r.ours), 2) }),
		bound: medianOf(rounds, func(r round) float64 { return per(of(r.first)+of(r.last), 2) }),
		ratio: medianOf(rounds, func(r round) float64 { return float64(of(r.ours)) / float64(of(r.first)+of(r.last)) }),
		same:  medianOf(rounds, func(r round) float64 { return float64(of(r.last)) / float64(of(r.first)) }),
		show:  milliseconds,
	}
}

// inProcess is a trial of a function, measured by the accounts of this process.
func inProcess(f func() error) trial {
	return func(context.Context) (cost, error) {
		runtime.GC() // what was there before is not ours to pay for
		before, start := used(), time.Now()
		err := f()
		return cost{used() - before, time.Since(start)}, err
	}
}

func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for a wrong argument only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// commandLimit is far more than any trial takes.
const commandLimit = 2 * time.Minute

// command is a trial of a program that is run to its end. Exit codes are left to
// accept; nil means that only 0 is good.
func command(env []string, accept func(code int, out []byte) error, path string, args ...string) trial {
	return func(ctx context.Context) (cost, error) {
		ctx, cancel := context.WithTimeout(ctx, commandLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = append(os.Environ(), env...)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		start := time.Now()
		err := cmd.Run()
		wall := time.Since(start)
		if cmd.ProcessState == nil {
			return cost{}, err
		}
		if code := cmd.ProcessState.ExitCode(); accept != nil && code >= 0 {
			err = accept(code, out.Bytes())
		}
		if err != nil {
			return cost{}, fmt.Errorf("%s %s: %w: %s", path, args[0], err, strings.TrimSpace(complaints.String()))
		}
		return cost{spent(cmd.ProcessState), wall}, nil
	}
}

// spent is the CPU time of a process that has ended, and of its children that it
// waited for (wait4(2) on Linux gives both).
func spent(p *os.ProcessState) time.Duration { return p.UserTime() + p.SystemTime() }
