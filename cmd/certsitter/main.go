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

	"github.com/alecthomas/kong"
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

// cli is the command line: one field per command, in the order of the help.
type cli struct {
	Config string `help:"The configuration file. Default: ./certsitter.yaml, then /etc/certsitter/certsitter.yaml; as a Home Assistant app /data/options.json." placeholder:"FILE" type:"path"`

	Run         runCommand         `cmd:"" help:"The daemon: renews, watches, publishes and tells."`
	Check       checkCommand       `cmd:"" help:"Look once at files, endpoints or everything configured."`
	Renew       renewCommand       `cmd:"" help:"Renew certificates now."`
	Revoke      revokeCommand      `cmd:"" help:"Revoke a certificate and order a new one with a new key."`
	Status      statusCommand      `cmd:"" help:"What the daemon knows."`
	Notify      notifyCommand      `cmd:"" help:"Messages."`
	Openhab     openhabCommand     `cmd:"" help:"Print files for openHAB, for the configured certificates."`
	Providers   providersCommand   `cmd:"" help:"The DNS providers, or the variables of one."`
	Unpublish   unpublishCommand   `cmd:"" help:"Empty every topic of ours on the broker, for leaving."`
	Schema      schemaCommand      `cmd:"" help:"The JSON Schema of the configuration file."`
	Healthcheck healthcheckCommand `cmd:"" help:"Whether the daemon is healthy, for a container's HEALTHCHECK."`
	Version     versionCommand     `cmd:"" help:"The versions of the program and what it is made of."`
}

// run parses and carries out one command line and gives the exit code.
func run(ctx context.Context, args []string, s shell) (code int) {
	type ended int
	defer func() {
		if over := recover(); over != nil {
			wanted, ok := over.(ended)
			if !ok {
				panic(over)
			}
			code = int(wanted)
		}
	}()
	c := &cli{}
	parser, err := kong.New(c, kong.Name("certsitter"), kong.UsageOnError(),
		kong.Description("Looks after a home's TLS certificates: renews them, watches them, and tells when one needs a person."),
		kong.Writers(s.out, s.err), kong.Exit(func(code int) { panic(ended(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(s, c))
	if err != nil {
		fmt.Fprintln(s.err, "certsitter:", err)
		return exitUsage
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(s.err, "certsitter: %v. See certsitter --help.\n", err)
		return usageCode(args)
	}
	return s.conclude(parsed.Run())
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
