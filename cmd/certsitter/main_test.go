package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/notify/shout"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/acme"
)

// The test program is certsitter and certsitter-worker, too, by the names under
// which it is called.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // else each of our processes takes a second longer to end
	}
	testscript.Main(m, map[string]func(){
		"certsitter":        main,
		"certsitter-worker": workerMain,
	})
}

// workerMain is the worker with one DNS provider: all of them take minutes to
// compile. It ends without the race detector's second of rest.
func workerMain() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	syscall.Exit(worker.Serve(ctx, os.Args[1:], os.Stdin, os.Stdout, worker.BuildVersion(version), worker.Jobs{
		Issue: func(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
			return acme.Issue(ctx, r, acme.Hooks{
				Provider: func(string) (challenge.Provider, error) { return httpreq.NewDNSProvider() },
				Present:  h.Present, Account: h.Account, Placed: h.Placed, Progress: h.Progress,
			})
		},
		Revoke: acme.Revoke,
		Send:   shout.Send,
	}))
}
