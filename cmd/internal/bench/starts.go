package main

import (
	"context"
	"path/filepath"
	"time"
)

// startGoal is what may pass from the start of the process to the first
// retained state.
const startGoal = 150 * time.Millisecond

// starts measures how long a daemon with twenty installed certificates takes
// until the broker has the first state, beside a program that connects and
// publishes one message.
func (b *bench) starts(ctx context.Context) error {
	h, err := b.newHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	if _, _, err := b.untilRenewed(ctx, h); err != nil {
		return err
	}
	seen, err := h.watch(stateTopic, "")
	if err != nil {
		return err
	}
	// A start to the first state, and one to the last of all, each in turn with the bound.
	for _, until := range []struct {
		name string
		n    int
	}{{"start to the first retained state", 1}, {"start to the last of 20 retained states", certificateCount}} {
		rounds, err := compare(ctx, b.rounds, command(nil, nil, filepath.Join(b.programs, "bound"), "retain", h.broker.Address()),
			func(ctx context.Context) (cost, error) { return b.start(ctx, h, seen, until.n) })
		if err != nil {
			return err
		}
		r := rowOf(until.name, rounds, 1, wallOf)
		if until.n == 1 {
			r.goal = goal{most: float64(startGoal)}
		}
		b.rows = append(b.rows, r)
	}
	return nil
}

func (b *bench) start(ctx context.Context, h *home, seen <-chan string, n int) (cost, error) {
	for len(seen) > 0 {
		<-seen // of the start before
	}
	daemon, err := b.daemon(h)
	if err != nil {
		return cost{}, err
	}
	err = daemon.await(ctx, seen, n, "states")
	wall := time.Since(daemon.started)
	spent, ended := daemon.end()
	if err == nil {
		err = ended
	}
	return cost{spent, wall}, err
}
