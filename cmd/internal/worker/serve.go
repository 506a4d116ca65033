package worker

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

// DefaultGrace is how long a child that was told to stop may take to clean up:
// many DNS providers remember in memory what they made, so that nobody else can
// remove it. DefaultHaste is the same while the daemon itself is stopped, by
// somebody who kills it after a few seconds (docker stop: 10).
const (
	DefaultGrace = 30 * time.Second
	DefaultHaste = 3 * time.Second
)

// ErrParentGone is the cause of the end of a job's context when the child's
// standard input ended.
var ErrParentGone = errors.New("the daemon is gone")

// Jobs is what a child can do. A nil job is refused.
type Jobs struct {
	Issue  func(context.Context, renew.OrderRequest, Handler) (renew.Issued, error)
	Revoke func(context.Context, renew.RevokeRequest) error
	Send   func(context.Context, notify.Request) error
	// Grace is how long a job may run on after its context ended; then Serve
	// returns without it. Zero means DefaultGrace.
	Grace time.Duration
}

// Serve is the child's side: it does the one job that args and in ask for and
// returns the exit code. args is the command line without the program's name,
// version the program's own. The request's Env is put into the environment of
// this process before the job begins, because that is where lego's providers
// look. The job's context ends with ctx and with in.
func Serve(ctx context.Context, args []string, in io.Reader, out io.Writer, version string, j Jobs) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &service{
		out:   lineWriter{w: out},
		lines: newLines(in),
		gone:  make(chan struct{}),
		grace: cmp.Or(j.Grace, DefaultGrace),
		stop:  cancel,
	}
	verb, err := parseArgs(args, version)
	if err != nil {
		return s.refuse(version, err)
	}
	switch {
	case verb == verbIssue && j.Issue != nil:
		return serve(ctx, s, func(ctx context.Context, r renew.OrderRequest) result { return s.issue(ctx, r, j.Issue) })
	case verb == verbRevoke && j.Revoke != nil:
		return serve(ctx, s, func(ctx context.Context, r renew.RevokeRequest) result { return done(ctx, j.Revoke(ctx, r)) })
	case verb == verbSend && j.Send != nil:
		return serve(ctx, s, func(ctx context.Context, r notify.Request) result { return done(ctx, j.Send(ctx, r)) })
	}
	return s.refuse(version, fmt.Errorf("the verb %q is not known", verb))
}

func parseArgs(args []string, version string) (verb string, err error) {
	flags := flag.NewFlagSet("certsitter-worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	protocol := flags.Int("protocol", 0, "")
	wanted := flags.String("version", "", "")
	switch err := flags.Parse(args); {
	case err != nil:
		return "", err
	case *protocol != Protocol:
		return "", fmt.Errorf("asked for protocol %d", *protocol)
	case *wanted != version:
		return "", fmt.Errorf("asked for version %q", *wanted)
	case flags.NArg() != 1:
		return "", fmt.Errorf("asked for %d verbs, not one", flags.NArg())
	}
	return flags.Arg(0), nil
}

// service is one conversation as the child sees it.
type service struct {
	out   lineWriter
	lines *lines
	gone  chan struct{} // closed when nothing more comes from the parent
	grace time.Duration
	stop  context.CancelCauseFunc

	mu      sync.Mutex                     // guards the rest
	last    int                            // id of the last event that waited
	waiting map[int]chan<- acknowledgement // by the event's id; each has room for one
}

func (s *service) refuse(version string, reason error) int {
	// Nothing is to be done if the line cannot be written: the exit code says it.
	_ = s.out.write(message{Refused: &refusal{Protocol: Protocol, Version: version, Reason: reason.Error()}})
	return ExitRefused
}

// serve reads the request, does the job and writes its result.
func serve[R any](ctx context.Context, s *service, job func(context.Context, R) result) int {
	line, err := s.lines.next()
	if err != nil {
		return ExitBroken
	}
	var request R
	if err := decode(line, &request); err != nil {
		return s.end(result{Fault: fault("read the request: " + err.Error())})
	}
	// listen ends with standard input, which may be after us: the process ends it.
	go s.listen()
	results := make(chan result, 1)
	go func() { results <- guarded(ctx, job, request) }()
	select {
	case r := <-results:
		return s.end(r)
	case <-ctx.Done():
	}
	late := time.NewTimer(s.grace)
	defer late.Stop()
	select {
	case r := <-results:
		return s.end(r)
	case <-late.C:
		return ExitAbandoned
	}
}

// guarded turns a panic of the job's own goroutine into a fault. One of another
// goroutine ends the process, which the parent sees.
func guarded[R any](ctx context.Context, job func(context.Context, R) result, request R) (r result) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(os.Stderr, "panic: %v\n%s", v, debug.Stack())
			r = result{Fault: fault(fmt.Sprint("the worker crashed: ", v))}
		}
	}()
	return job(ctx, request)
}

func (s *service) end(r result) int {
	if s.out.write(message{Result: &r}) != nil {
		return ExitBroken
	}
	return ExitDone
}

// listen hands acknowledgements to who waits, until the parent is gone or
// speaks nonsense, both of which end the job.
func (s *service) listen() {
	defer close(s.gone)
	for {
		a, err := readAcknowledgement(s.lines)
		switch {
		case errors.Is(err, io.EOF):
			s.stop(ErrParentGone)
			return
		case err != nil:
			s.stop(fmt.Errorf("read an acknowledgement: %w", err))
			return
		}
		s.mu.Lock()
		if c := s.waiting[a.ID]; c != nil {
			c <- a
			delete(s.waiting, a.ID)
		}
		s.mu.Unlock()
	}
}

// ask writes an event and waits until the parent has acknowledged it.
func (s *service) ask(ctx context.Context, m message) error {
	answer := make(chan acknowledgement, 1)
	s.mu.Lock()
	s.last++
	m.ID = s.last
	if s.waiting == nil {
		s.waiting = map[int]chan<- acknowledgement{}
	}
	s.waiting[m.ID] = answer
	s.mu.Unlock()
	if err := s.out.write(m); err != nil {
		return fmt.Errorf("tell the daemon: %w", err)
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.gone:
		return ErrParentGone
	}
}

func (s *service) issue(ctx context.Context, r renew.OrderRequest, issue func(context.Context, renew.OrderRequest, Handler) (renew.Issued, error)) result {
	for name, value := range r.Env {
		if err := os.Setenv(name, value); err != nil {
			return result{Fault: fault(fmt.Sprintf("set the variable %q: %v", name, err))}
		}
	}
	issued, err := issue(ctx, r, Handler{
		Present: func(ctx context.Context, c []renew.Challenge) error {
			if len(c) == 0 {
				return nil
			}
			return s.ask(ctx, message{Present: c})
		},
		Account: func(ctx context.Context, url string) error { return s.ask(ctx, message{Account: url}) },
		Placed:  func(ctx context.Context, url string) error { return s.ask(ctx, message{Placed: url}) },
		// If nobody reads, standard input has ended, too, and that ends the job.
		Progress: func(p renew.Progress) { _ = s.out.write(message{Progress: &p}) },
	})
	if err != nil {
		return failed(ctx, err)
	}
	return result{Issued: &issued}
}

func done(ctx context.Context, err error) result {
	if err != nil {
		return failed(ctx, err)
	}
	return result{Done: true}
}

// failed is the result of a job that ended with err. A job that says nothing
// more after it was told to stop did not fail: a service manager may tell the
// child before it tells the daemon.
func failed(ctx context.Context, err error) result {
	if f, ok := errors.AsType[*renew.Fault](err); ok {
		return result{Fault: f}
	}
	if u, ok := errors.AsType[*notify.Undelivered](err); ok {
		return result{Undelivered: u}
	}
	if ctx.Err() != nil {
		return result{Stopped: cmp.Or(err.Error(), "stopped")}
	}
	return result{Fault: fault(err.Error())}
}

// fault says what went wrong with the child itself.
func fault(detail string) *renew.Fault {
	return &renew.Fault{Problems: []renew.Problem{{Step: StepWorker, Detail: detail}}}
}
