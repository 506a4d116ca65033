// Command bench measures the programs as they are shipped, each figure beside
// the least that its work can cost, in the same run: speed, memory, start and
// size. It is run by scripts/bench and asserts nothing.
//
// What counts is CPU time, taken from the kernel's accounts of a process that
// has ended, its children included. A figure is measured in rounds of bound,
// ours, ours, bound, and the median of the rounds' ratios is shown, with the
// ratio of each round's second bound to its first: where that is not between
// 0.95 and 1.05 the machine was too busy for the row to be quoted. Test CA,
// TLS servers and broker run in processes that are not counted, but share the
// machine's cores.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The parts of other people are played by this program, too, in processes of
// their own.
const (
	asServers = "servers"
	asCA      = "ca"
	asOrders  = "orders"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case asServers:
			return playServers(args[1:])
		case asCA:
			return playCA()
		case asOrders:
			return boundOrders(args[1:])
		}
	}
	b, err := newBench(args)
	if err != nil {
		return err
	}
	defer b.close()
	return b.run(ctx)
}

// A bench is one run: what is measured, how long, and what came out.
type bench struct {
	programs string // the folder with certsitter, certsitter-worker and bound
	only     []string
	rounds   int
	settle   time.Duration // before idleness is watched
	watch    time.Duration
	folder   string // of our own, for everything that is written
	rows     []row
}

// A figure is one thing that can be measured; it adds rows to the table.
type figure struct {
	name    string
	measure func(*bench, context.Context) error
}

// figures are all that can be measured, in the order of the table.
var figures = []figure{
	{"files", (*bench).files},
	{"probes", (*bench).probes},
	{"renewals", (*bench).renewals},
	{"idle", (*bench).idle},
	{"start", (*bench).starts},
	{"size", (*bench).sizes},
}

func newBench(args []string) (*bench, error) {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&b.programs, "programs", "bin", "folder with certsitter, certsitter-worker and bound")
	only := flags.String("only", "", "figures to measure, comma-separated: files, probes, renewals, idle, start, size; empty = all")
	flags.IntVar(&b.rounds, "rounds", 7, "rounds per figure, each bound, ours, ours, bound")
	flags.DurationVar(&b.settle, "settle", time.Minute, "time before idleness is watched")
	flags.DurationVar(&b.watch, "watch", time.Minute, "time for which idleness is watched")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(*only, ",") {
		if name != "" {
			b.only = append(b.only, name)
		}
	}
	if b.rounds < 1 {
		return nil, errors.New("-rounds must be at least 1")
	}
	var err error
	if b.programs, err = filepath.Abs(b.programs); err != nil {
		return nil, err
	}
	b.folder, err = os.MkdirTemp("", "certsitter-bench-")
	return b, err
}

func (b *bench) close() { _ = os.RemoveAll(b.folder) }

// run measures and prints the table. What could not be measured is told under
// it and is an error.
func (b *bench) run(ctx context.Context) error {
	for _, name := range b.only {
		if !slices.ContainsFunc(figures, func(f figure) bool { return f.name == name }) {
			return fmt.Errorf("%q is no figure", name)
		}
	}
	fmt.Println(machine())
	var errs []error
	for _, f := range figures {
		if len(b.only) > 0 && !slices.Contains(b.only, f.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", f.name)
		if err := f.measure(b, ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Printf("load at the end: %s\n\n", load())
	write(os.Stdout, b.rows)
	fmt.Println("\nWhere bound/bound is not between 0.95 and 1.05 the machine was busy with other things: take the row again.")
	return errors.Join(errs...)
}
