// Command certsitter-worker does one job for certsitter and exits: it has a
// certificate issued or revoked, or a message delivered. It is the only program
// that links lego's DNS providers and shoutrrr. It is started by the daemon,
// never by hand: requests come on standard input, answers go to standard
// output, lines for the log to standard error.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	legolog "github.com/go-acme/lego/v4/log"
	"github.com/go-acme/lego/v4/providers/dns"

	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/notify/shout"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/acme"
)

// version is stamped by the linker.
var version string

func main() {
	in, out, err := takeStandardStreams()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(worker.ExitBroken)
	}
	keepSecretsIn()
	// To the last: endDescendants tells us, too, and we are to go on.
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], in, out, os.Stderr)
	endDescendants()
	os.Exit(code)
}

func run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) int {
	legolog.Logger = log.New(stderr, "", 0) // the daemon adds the time
	code := worker.Serve(ctx, args, in, out, worker.BuildVersion(version), worker.Jobs{
		Issue:  issue,
		Revoke: acme.Revoke,
		Send:   shout.Send,
	})
	if code == worker.ExitRefused {
		fmt.Fprintf(stderr, "certsitter-worker %s is started by certsitter of the same version, not by hand\n", worker.BuildVersion(version))
	}
	return code
}

func issue(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
	return acme.Issue(ctx, r, acme.Hooks{
		Provider: dns.NewDNSChallengeProviderByName,
		Present:  h.Present,
		Account:  h.Account,
		Placed:   h.Placed,
		Progress: h.Progress,
	})
}

// takeStandardStreams leaves standard input empty and turns standard output to
// standard error for everybody else: a provider that asks at a terminal or
// prints something must not get between us and the daemon.
func takeStandardStreams() (in, out *os.File, err error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	in, out = os.Stdin, os.Stdout
	os.Stdin, os.Stdout = nothing, os.Stderr
	return in, out, nil
}

// keepSecretsIn keeps credentials out of core files, and makes a write to a
// daemon that is gone an error: the signal would end us before providers have
// removed their records.
func keepSecretsIn() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // best effort
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// endDescendants tells what a provider started and left behind to end with us.
// The daemon does so, too, if it still lives.
func endDescendants() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGTERM)
	}
}
