// Command certsitter looks after a home's TLS certificates: the daemon, and the
// command line that asks it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // times of day are local, also where the system has no zone data

	"golang.org/x/term"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/internal/providers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], shell{out: os.Stdout, err: os.Stderr, getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// A shell is where the command line was called.
type shell struct {
	out, err io.Writer
	getenv   func(string) string
}

// fancy: the writer is a terminal that takes colours (no-color.org).
func (s shell) fancy(w io.Writer) bool {
	return terminal(w) && s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb"
}

// terminal reports whether a person reads along.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Exit codes. check and status use those of monitoring plugins.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2 // a bad configuration or command line
	exitWarning  = 1
	exitCritical = 2
	exitUnknown  = 3 // for check and status, a wrong command line, too
)

// An exit ends the program with a code, after its sentence if there is one.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// run parses and carries out one command line and gives the exit code.
func run(ctx context.Context, args []string, s shell) int {
	c, err := parse(args, s)
	if err != nil {
		fmt.Fprintf(s.err, "certsitter: %v. See certsitter --help.\n", err)
		return usageCode(args)
	}
	if c.command == nil {
		return exitOK
	}
	return s.conclude(c.command.Run(ctx, s, c))
}

// usageCode is the exit code of a wrong command line: that of the command, the
// first word that is no flag and no flag's value.
func usageCode(args []string) int {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--config": // before the command, the only flag with a value
			i++
		case a == "check", a == "status":
			return exitUnknown
		case !strings.HasPrefix(a, "-"):
			return exitUsage
		}
	}
	return exitUsage
}

// conclude says what went wrong as one plain sentence.
func (s shell) conclude(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if e, ok := errors.AsType[*exit](err); ok {
		code = e.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(s.err, "certsitter: %s\n", text)
	}
	return code
}

// environment is what the configuration depends on.
func (s shell) environment() settings.Environment {
	return settings.Environment{
		App: s.getenv("SUPERVISOR_TOKEN") != "", Image: s.getenv("CERTSITTER_IMAGE") != "", Root: s.getenv("CERTSITTER_ROOT"),
		User: os.Geteuid(), Getenv: s.getenv, Providers: providers.Table{},
	}
}

// load reads the configuration; a bad one is an exit with that code.
func (c *cli) load(s shell, code int) (*settings.Settings, error) {
	e := s.environment()
	if e.App {
		return c.loadApp(s), nil
	}
	conf, err := settings.Load(settings.Find(c.Config, e), e)
	if err != nil {
		return nil, &exit{code, err}
	}
	return conf, nil
}

// version, commit and built are stamped by the linker.
var version, commit, built string

// buildTime is when the program was built: no clock is before it. Without a
// stamp it is when the contract was written.
func buildTime() time.Time {
	if t, err := time.Parse(time.RFC3339, built); err == nil {
		return t
	}
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
}
