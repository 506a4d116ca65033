// Command demo is Certsitter's main job on one machine with nothing else: a
// test CA (Pebble), an MQTT broker (mochi), a TLS server that uses the
// certificate, and the real daemon, which starts this very program as its
// worker. It says step by step what happens and where to look.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/acme"
)

// asWorker is the first argument with which the demo starts itself.
const asWorker = "worker"

func main() {
	if len(os.Args) > 1 && os.Args[1] == asWorker {
		os.Exit(serveAsWorker(os.Args[2:]))
	}
	once := flag.Bool("once", false, "end after one certificate was issued, installed, served, published and renewed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *once, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// serveAsWorker is the worker without DNS providers and without messages: the
// demo needs neither, and they take minutes to compile.
func serveAsWorker(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return worker.Serve(ctx, args, os.Stdin, os.Stdout, worker.BuildVersion(""), worker.Jobs{
		Issue: func(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
			return acme.Issue(ctx, r, acme.Hooks{Present: h.Present, Account: h.Account, Placed: h.Placed, Progress: h.Progress})
		},
		Revoke: acme.Revoke,
		Grace:  time.Second,
	})
}
