package worker

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

const (
	// maxLogLine and maxLogLines bound what a child's standard error may add to
	// our log in one run.
	maxLogLine  = 4 << 10
	maxLogLines = 2000
)

// Client runs children, one per call. Its methods may be called in parallel.
type Client struct {
	Path    string            // of certsitter-worker
	Args    []string          // before the protocol's own; for tests
	Env     []string          // more variables than the fixed short list; for tests. Never credentials
	Version string            // the daemon's; the child's must be equal
	Log     func(line string) // gets what the child writes to standard error, without the request's secrets; nil = nobody
	Grace   time.Duration     // between SIGTERM and SIGKILL after a deadline; zero means DefaultGrace
	Haste   time.Duration     // the same after a cancellation, which is the daemon's own end; zero means DefaultHaste
	User    string            // the child's user if we are root and there is one of that name; empty = ours
	Dir     string            // the child's working folder; empty means "/"
}

// Issue has one certificate ordered. It fails with a *[renew.Fault], with a
// *[VersionError], or with an *[Interrupted] if ctx ended first; a certificate
// that arrives at the last moment is a certificate.
func (c *Client) Issue(ctx context.Context, r renew.OrderRequest, h Handler) (renew.Issued, error) {
	res, err := c.run(ctx, job{verb: verbIssue, request: r, handler: h, hide: newRedactor(orderSecrets(r))})
	switch {
	case err != nil:
		return renew.Issued{}, err
	case res.Issued == nil:
		return renew.Issued{}, fault("the worker answered another question than ours")
	}
	return *res.Issued, nil
}

// Revoke has one certificate revoked. It fails as Issue does.
func (c *Client) Revoke(ctx context.Context, r renew.RevokeRequest) error {
	res, err := c.run(ctx, job{verb: verbRevoke, request: r, hide: newRedactor(nil)})
	switch {
	case err != nil:
		return err
	case !res.Done:
		return fault("the worker answered another question than ours")
	}
	return nil
}

// Send has one message delivered. It fails with a *[notify.Undelivered], or as
// Issue does with a *[VersionError] or an *[Interrupted].
func (c *Client) Send(ctx context.Context, r notify.Request) error {
	hide := newRedactor(urlSecrets(r.URL))
	res, err := c.run(ctx, job{verb: verbSend, request: r, hide: hide})
	if f, ok := errors.AsType[*renew.Fault](err); ok {
		return &notify.Undelivered{Reason: f.Problems[0].Detail}
	}
	switch {
	case err != nil:
		return err
	case !res.Done:
		return &notify.Undelivered{Reason: "the worker answered another question than ours"}
	}
	return nil
}

// job is what one child is asked for.
type job struct {
	verb    string
	request any
	handler Handler
	hide    redactor
}

// run starts a child, talks with it and waits for its end. The error is a
// fault, a *VersionError or an *Interrupted.
func (c *Client) run(ctx context.Context, j job) (result, error) {
	if ctx.Err() != nil {
		return result{}, &Interrupted{Cause: context.Cause(ctx)}
	}
	p, err := c.start(j.verb)
	if err != nil {
		return result{}, fault(fmt.Sprintf("%s cannot be started: %v", c.Path, err))
	}
	grace := cmp.Or(c.Grace, DefaultGrace)
	patience := func() time.Duration {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return grace
		}
		return min(grace, cmp.Or(c.Haste, DefaultHaste))
	}
	talk := conversation{job: j, to: lineWriter{w: p.in}, from: newLines(p.out)}
	stderr := stderrLog{tell: c.Log, hide: j.hide}
	var beside sync.WaitGroup
	beside.Go(func() { p.stopWhen(ctx.Done(), patience) })
	beside.Go(func() { stderr.read(p.errors) })
	beside.Go(func() {
		// If it cannot be written the child is gone, and the reader sees that.
		_ = talk.to.write(j.request)
	})

	res, err := talk.listen(ctx)
	_ = p.in.Close() // the child's end, if it still lives
	switch {
	case err != nil:
		p.signal(syscall.SIGKILL) // it spoke nonsense, or nobody reads it any more
		p.end(grace)
	case res != nil:
		p.end(min(grace, farewell))
	default:
		p.end(grace)
	}
	beside.Wait()
	closeAll(p.out, p.errors)
	return c.verdict(ctx, &talk, res, err, p, stderr.reason)
}

// start starts the child as the user that it should have, or as ours where the
// system does not let us change it.
func (c *Client) start(verb string) (*process, error) {
	attr := attributes(c.User)
	p, err := start(c.command(verb, attr))
	if err != nil && attr.Credential != nil && noSwitch(err) {
		if c.Log != nil {
			c.Log(fmt.Sprintf("the worker runs as the daemon's own user: it cannot become %s here (%v)", c.User, err))
		}
		return start(c.command(verb, attributes("")))
	}
	return p, err
}

func (c *Client) command(verb string, attr *syscall.SysProcAttr) *exec.Cmd {
	args := append(append([]string{}, c.Args...), fmt.Sprintf("--protocol=%d", Protocol), "--version="+c.Version, verb)
	cmd := exec.Command(c.Path, args...)
	cmd.Dir = cmp.Or(c.Dir, "/")
	cmd.Env = environment(os.LookupEnv, c.Env)
	cmd.SysProcAttr = attr
	return cmd
}

// verdict says how the conversation went: success wins over everything, then
// comes that we were stopped, then what the child says, then how it ended.
func (c *Client) verdict(ctx context.Context, talk *conversation, res *result, err error, p *process, reason string) (result, error) {
	switch {
	case res != nil && (res.Issued != nil || res.Done):
		return *res, nil
	case talk.refused != nil:
		return result{}, &VersionError{Path: c.Path, Want: c.Version, Have: talk.refused.Version, Protocol: talk.refused.Protocol}
	case ctx.Err() != nil:
		return result{}, &Interrupted{Cause: context.Cause(ctx), Last: talk.last}
	case res != nil && res.Stopped != "", wasTold(p.cmd.ProcessState):
		return result{}, &Interrupted{Cause: ErrStopped, Last: talk.last}
	case res != nil && res.Undelivered != nil:
		return result{}, talk.hide.undelivered(res.Undelivered)
	case res != nil:
		return result{}, talk.hide.fault(res.Fault)
	case err != nil:
		return result{}, talk.broken("the worker broke the protocol: " + err.Error())
	case p.cmd.ProcessState.ExitCode() == ExitRefused:
		return result{}, &VersionError{Path: c.Path, Want: c.Version}
	}
	detail := "the worker ended without a result (" + p.cmd.ProcessState.String() + ")"
	switch {
	case reason != "":
		detail += ": " + reason
	case endedBy(p.cmd.ProcessState, syscall.SIGKILL):
		detail += ": the system may have run out of memory"
	}
	return result{}, talk.broken(detail)
}

// wasTold says whether the child ended because somebody asked it to before it
// could listen.
func wasTold(s *os.ProcessState) bool {
	return endedBy(s, syscall.SIGTERM) || endedBy(s, syscall.SIGINT) || endedBy(s, syscall.SIGHUP)
}

func endedBy(s *os.ProcessState, sig syscall.Signal) bool {
	status, ok := s.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

// conversation is what is said with one child, as the parent sees it.
type conversation struct {
	job
	to      lineWriter
	from    *lines
	last    renew.Progress
	refused *refusal
}

// listen answers events until the result. Neither result nor error means that
// the child ended, or refused.
func (t *conversation) listen(ctx context.Context) (*result, error) {
	for {
		switch m, err := readMessage(t.from); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case err != nil:
			return nil, err
		case m.Result != nil:
			return m.Result, nil
		case m.Refused != nil:
			t.refused = m.Refused
			return nil, nil
		case m.Progress != nil:
			t.progress(t.hide.progress(*m.Progress))
		default:
			ack := acknowledgement{ID: m.ID}
			if err := t.answer(ctx, m); err != nil {
				ack.Error = cmp.Or(err.Error(), "no")
			}
			// A child that does not hear it is gone, and the next read says so.
			_ = t.to.write(ack)
		}
	}
}

func (t *conversation) progress(p renew.Progress) {
	t.last = p
	if t.handler.Progress != nil {
		t.handler.Progress(p)
	}
}

// answer does what an event asks for.
func (t *conversation) answer(ctx context.Context, m message) error {
	h := t.handler
	switch {
	case m.Account != "" && h.Account != nil:
		return h.Account(context.WithoutCancel(ctx), m.Account)
	case m.Placed != "" && h.Placed != nil:
		return h.Placed(context.WithoutCancel(ctx), m.Placed)
	case m.Present != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case m.Present != nil && h.Present != nil:
		return h.Present(ctx, m.Present)
	case m.Present != nil:
		return errors.New("this machine answers no challenges")
	}
	return nil
}

// broken is a fault of the child, where it was.
func (t *conversation) broken(detail string) *renew.Fault {
	f := t.hide.fault(fault(detail))
	if t.last.Step != "" {
		f.Problems[0].Detail += " (its last step was " + t.last.Step + ")"
		f.Problems[0].Name = t.last.Name
	}
	return f
}

// stderrLog passes on what a child writes to its standard error.
type stderrLog struct {
	tell   func(string)
	hide   redactor
	reason string // the line that says best why the child ended
	final  bool   // reason is a panic's; what follows is its stack
}

// read passes lines on until the stream ends.
func (s *stderrLog) read(r io.Reader) {
	b := bufio.NewReaderSize(r, maxLogLine)
	for n := 0; ; {
		part, more, err := b.ReadLine()
		if err != nil {
			return
		}
		text := string(part)     // the buffer is used again
		for more && err == nil { // the rest of a line that is too long
			_, more, err = b.ReadLine()
		}
		line := strings.TrimSpace(strings.Map(printable, s.hide.Replace(text)))
		if line == "" {
			continue
		}
		s.note(line)
		switch n++; {
		case s.tell == nil || n > maxLogLines:
		case n == maxLogLines:
			s.tell("the worker says too much; the rest of its lines is left out")
		default:
			s.tell(line)
		}
	}
}

func (s *stderrLog) note(line string) {
	if s.final {
		return
	}
	s.final = strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
	s.reason = line
}

// printable takes control characters out of foreign text.
func printable(r rune) rune {
	if r == '\t' {
		return ' '
	}
	if unicode.IsControl(r) || r == unicode.ReplacementChar {
		return -1
	}
	return r
}
