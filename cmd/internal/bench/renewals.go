package main

import (
	"context"
	"os"
	"strconv"
	"time"
)

const (
	renewalsGoal = 2 * time.Second
	// legoRatio is the CPU time of lego's command for 20 orders beside the same
	// bound: 832 ms by 77 ms, measured on the machine that the goals come from.
	legoRatio = 10.8
)

// renewals measures twenty due renewals by the daemon and its workers, from the
// start of the process to the last event "renewed" at the broker, beside lego's
// protocol layer called directly, eight orders at a time. Each run has a fresh
// CA.
func (b *bench) renewals(ctx context.Context) error {
	rounds, err := compare(ctx, max(1, b.rounds/2), b.boundRenewals, b.renew)
	if err != nil {
		return err
	}
	wall, cpu := rowOf("20 renewals: wall", rounds, 1, wallOf), rowOf("20 renewals: CPU of daemon and workers", rounds, 1, cpuOf)
	wall.goal, cpu.goal = goal{most: float64(renewalsGoal)}, goal{most: legoRatio, ratio: true}
	b.rows = append(b.rows, wall, cpu)
	return nil
}

func (b *bench) renew(ctx context.Context) (cost, error) {
	h, err := b.newHome(ctx)
	if err != nil {
		return cost{}, err
	}
	defer h.close()
	if err := h.install(); err != nil {
		return cost{}, err
	}
	wall, spent, err := b.untilRenewed(ctx, h)
	return cost{spent, wall}, err
}

// untilRenewed runs the daemon until all its certificates are renewed.
func (b *bench) untilRenewed(ctx context.Context, h *home) (wall, spent time.Duration, err error) {
	seen, err := h.watch(eventTopic, renewedEvent)
	if err != nil {
		return 0, 0, err
	}
	daemon, err := b.daemon(h)
	if err != nil {
		return 0, 0, err
	}
	err = daemon.await(ctx, seen, certificateCount, "renewals")
	wall = time.Since(daemon.started)
	spent, ended := daemon.end()
	if err == nil {
		err = ended
	}
	return wall, spent, err
}

// boundRenewals runs the bound in a process of its own with a fresh CA.
func (b *bench) boundRenewals(ctx context.Context) (cost, error) {
	var ca issuer
	part, err := startPart(ctx, &ca, asCA)
	if err != nil {
		return cost{}, err
	}
	defer part.end()
	roots, err := os.CreateTemp(b.folder, "roots-")
	if err != nil {
		return cost{}, err
	}
	defer roots.Close()
	if _, err := roots.Write(ca.Roots); err != nil {
		return cost{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return cost{}, err
	}
	return command(nil, nil, self, asOrders, ca.Directory, roots.Name(), strconv.Itoa(ca.HTTPPort))(ctx)
}
