package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pssGoal is what the idle daemon may have: its own memory and its share of what
// others have, too.
const pssGoal = 16 << 20

// idle measures a daemon with twenty certificates that are not due, beside a
// program that does nothing: after its start, and after it has renewed them all.
func (b *bench) idle(ctx context.Context) error {
	h, err := b.newHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	renewed, err := b.daemonWithAll(ctx, h, eventTopic, renewedEvent)
	if err != nil {
		return err
	}
	afterwards, err := b.watched(ctx, renewed.cmd.Process.Pid)
	if _, ended := renewed.end(); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	started, err := b.daemonWithAll(ctx, h, stateTopic, okState)
	if err != nil {
		return err
	}
	ours, bound, err := b.watchBoth(ctx, started.cmd.Process.Pid)
	if _, ended := started.end(); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	b.rows = append(b.rows,
		row{name: "idle, 20 certificates: PSS", ours: ours.pss, bound: bound.pss, ratio: ours.pss / bound.pss, show: mebibytes, goal: goal{most: pssGoal}},
		row{name: "idle, all just renewed: PSS", ours: afterwards.pss, bound: bound.pss, ratio: afterwards.pss / bound.pss, show: mebibytes, goal: goal{most: pssGoal}},
		row{name: "idle, 20 certificates: RSS", ours: ours.rss, bound: bound.rss, ratio: ours.rss / bound.rss, show: mebibytes},
		row{name: "idle: CPU per minute", ours: ours.cpu, bound: bound.cpu, show: milliseconds},
		row{name: "idle: woken per minute", ours: ours.woken, bound: bound.woken, show: count},
	)
	return nil
}

// daemonWithAll starts the daemon and waits until the broker has something of
// every certificate.
func (b *bench) daemonWithAll(ctx context.Context, h *home, topic, wanted string) (*running, error) {
	seen, err := h.watch(topic, wanted)
	if err != nil {
		return nil, err
	}
	daemon, err := b.daemon(h)
	if err != nil {
		return nil, err
	}
	if err := daemon.await(ctx, seen, certificateCount, wanted); err != nil {
		_, _ = daemon.end()
		return nil, err
	}
	return daemon, nil
}

// watchBoth watches the daemon and the bound at the same time.
func (b *bench) watchBoth(ctx context.Context, pid int) (ours, bound idleness, err error) {
	idler := exec.CommandContext(ctx, filepath.Join(b.programs, "bound"), "idle")
	if err := idler.Start(); err != nil {
		return idleness{}, idleness{}, err
	}
	defer func() {
		_ = idler.Process.Signal(syscall.SIGTERM)
		_ = idler.Wait() // nothing is taken from it
	}()
	var watched [2]idleness
	errs := make(chan error, len(watched))
	for i, pid := range []int{pid, idler.Process.Pid} {
		go func() {
			w, err := b.watched(ctx, pid)
			watched[i] = w
			errs <- err
		}()
	}
	for range watched {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return watched[0], watched[1], err
}

// idleness is what a process has and does while nothing happens. Times and
// counts are per minute.
type idleness struct {
	pss, rss   float64 // bytes
	cpu, woken float64
}

// watched lets a process settle and then looks what it does for a while.
func (b *bench) watched(ctx context.Context, pid int) (idleness, error) {
	if err := pause(ctx, b.settle); err != nil {
		return idleness{}, err
	}
	before, err := accounts(pid)
	if err != nil {
		return idleness{}, err
	}
	if err := pause(ctx, b.watch); err != nil {
		return idleness{}, err
	}
	after, err := accounts(pid)
	minutes := b.watch.Minutes()
	after.cpu, after.woken = (after.cpu-before.cpu)/minutes, (after.woken-before.woken)/minutes
	return after, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accounts are the kernel's of one process since its start (proc(5)). The CPU
// time is that of its present threads, in nanoseconds; the Go runtime seldom ends one.
func accounts(pid int) (idleness, error) {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	a := idleness{
		pss: 1024 * number(field(filepath.Join(folder, "smaps_rollup"), "Pss", "")),
		rss: 1024 * number(field(filepath.Join(folder, "smaps_rollup"), "Rss", "")),
	}
	if a.pss == 0 {
		return a, fmt.Errorf("the kernel tells nothing of the memory of process %d", pid)
	}
	threads, err := filepath.Glob(filepath.Join(folder, "task", "*"))
	if err != nil {
		return a, err
	}
	for _, thread := range threads {
		schedule, err := os.ReadFile(filepath.Join(thread, "schedstat"))
		if err != nil {
			continue // it ended meanwhile
		}
		a.cpu += number(string(schedule))
		a.woken += number(field(filepath.Join(thread, "status"), "voluntary_ctxt_switches", ""))
	}
	return a, nil
}

// number is the first number of a text, 0 if there is none.
func number(text string) float64 {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.ParseFloat(words[0], 64) // 0 with an error
	return n
}
