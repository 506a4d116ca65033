// Package worker is the boundary between the daemon and certsitter-worker, the
// short-lived child that talks to third parties: both sides of the protocol,
// so that neither can drift from the other.
//
// The daemon runs
//
//	certsitter-worker --protocol=1 --version=V VERB
//
// with VERB issue, revoke or send (diagnose is reserved), and both sides write
// one JSON object a line. The parent writes one request. The child writes
// events: progress, and account, placed and present, for which it waits until
// the parent has acknowledged them, with or without an error. It ends with one
// result. The end of its standard input ends the child.
//
// The package holds no ACME code and never hands out a private key of a
// certificate, nor anything of the daemon's environment but a short list.
package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/certsitter/certsitter/renew"
)

// Protocol is the version of what is said between the daemon and its child.
// Both ship together, so theirs must be equal, as must be their versions.
const Protocol = 1

// The verbs: what a child is started for.
const (
	verbIssue  = "issue"
	verbRevoke = "revoke"
	verbSend   = "send"
)

// Exit codes of the child. A program of Go that crashes ends with 2, so none of
// ours is 2.
const (
	ExitDone      = 0  // there was a result, even if it says what went wrong
	ExitBroken    = 1  // the conversation broke, so there was nobody to tell a result
	ExitRefused   = 64 // wrong protocol, version or command line (sysexits.h: EX_USAGE)
	ExitAbandoned = 75 // told to stop, and the job did not return in time (EX_TEMPFAIL)
)

// StepWorker names, in a [renew.Problem], what went wrong with the child itself:
// it could not be started, crashed, or spoke nonsense.
const StepWorker = "worker"

// A Handler is what the parent does while an order is under way. Each function
// must return when its context ends; nil ones answer at once.
type Handler struct {
	// Present puts the answers to challenges in place and returns when the
	// machine answers.
	Present func(context.Context, []renew.Challenge) error
	// Account stores the account's URL, Placed the order's, before the child
	// goes on. Their context is not cancelled by the end of the attempt: what
	// the CA did is worth to be remembered even then.
	Account func(ctx context.Context, url string) error
	Placed  func(ctx context.Context, orderURL string) error
	// Progress is told what the order does; the child does not wait for it.
	Progress func(renew.Progress)
}

// A VersionError says that the child is not the one that belongs to this
// daemon: one of them was upgraded while the daemon ran. Nothing was asked of
// anybody, so it is no failed renewal; the daemon must be restarted.
type VersionError struct {
	Path     string // of the child
	Want     string // our version
	Have     string // the child's; empty = it could not say
	Protocol int    // the child's; 0 = it could not say
}

func (e *VersionError) Error() string {
	if e.Have == "" {
		return fmt.Sprintf("%s does not speak protocol %d of certsitter %s: it was replaced while the daemon ran; restart the daemon",
			e.Path, Protocol, e.Want)
	}
	return fmt.Sprintf("%s is version %s (protocol %d) and the daemon is version %s (protocol %d): they were upgraded while the daemon ran; restart the daemon",
		e.Path, e.Have, e.Protocol, e.Want, Protocol)
}

// ErrStopped is the cause of an [Interrupted] when the child was told to stop,
// and not by us: a service manager that stops the daemon tells both of them.
var ErrStopped = errors.New("the worker was told to stop")

// Interrupted says that the context ended before there was a result, or that
// the child was told to stop. It unwraps to the context's cause, which tells a
// deadline from being stopped, or to [ErrStopped]. It is no failed renewal,
// but for a deadline.
type Interrupted struct {
	Cause error
	Last  renew.Progress // what the child did last; zero = it had not begun
}

func (e *Interrupted) Error() string {
	switch {
	case e.Last.Step == "":
		return e.Cause.Error()
	case e.Last.Name == "":
		return fmt.Sprintf("%v, at step %s", e.Cause, e.Last.Step)
	default:
		return fmt.Sprintf("%v, at step %s of %s", e.Cause, e.Last.Step, e.Last.Name)
	}
}

func (e *Interrupted) Unwrap() error { return e.Cause }
