package main

import (
	"context"
	"os"
	"path/filepath"
)

// sizeGoal is what the daemon's program may have, stripped.
const sizeGoal = 14_000_000

// sizes are those of the programs as they are shipped. The bound is a stripped
// program with HTTP and TLS.
func (b *bench) sizes(context.Context) error {
	bound, err := os.Stat(filepath.Join(b.programs, "bound"))
	if err != nil {
		return err
	}
	for _, program := range []struct {
		name string
		goal goal
	}{{"certsitter", goal{most: sizeGoal}}, {"certsitter-worker", goal{}}} {
		info, err := os.Stat(filepath.Join(b.programs, program.name))
		if err != nil {
			return err
		}
		ours, least := float64(info.Size()), float64(bound.Size())
		b.rows = append(b.rows, row{name: "size of " + program.name, ours: ours, bound: least, ratio: ours / least, show: megabytes, goal: program.goal})
	}
	return nil
}
