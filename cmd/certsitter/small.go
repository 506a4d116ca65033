package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/mqtt"
)

type notifyTestCommand struct {
	Target string // "" = all
}

func (n *notifyTestCommand) line() *cobra.Command {
	return &cobra.Command{
		Use:   "test [TARGET]",
		Short: "Send a test message to all targets, or to one.",
		Long:  "Send a test message to all targets, or to one. TARGET is an id as\ncertsitter status shows it.",
		Args:  maybeOne(&n.Target),
	}
}

// Run sends test messages.
func (n *notifyTestCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	return s.ask(ctx, conf, func(a asked) error {
		deliveries, err := a.TestNotify(ctx, n.Target)
		if err != nil {
			return err
		}
		failed := 0
		for _, d := range deliveries {
			if d.Error == "" {
				fmt.Fprintf(s.out, "%s: delivered\n", d.Target)
				continue
			}
			failed++
			fmt.Fprintf(s.out, "%s: not delivered: %s\n", d.Target, d.Error)
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d messages were not delivered", failed, len(deliveries))
		}
		return nil
	})
}

type providersCommand struct {
	Code string // "" = list all
}

func (p *providersCommand) line() *cobra.Command {
	return &cobra.Command{
		Use:   "providers [CODE]",
		Short: "The DNS providers, or the variables of one.",
		Long:  "The DNS providers, or the variables of one. CODE is what is written under\nprovider.",
		Args:  maybeOne(&p.Code),
	}
}

// Run lists the providers, or one's variables.
func (p *providersCommand) Run(_ context.Context, s shell, _ *cli) error {
	if p.Code == "" {
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		for _, provider := range providers.All() {
			fmt.Fprintf(table, "%s\t%s\n", provider.Code, provider.Name)
		}
		return table.Flush()
	}
	provider, known := providers.ByCode(p.Code)
	if !known {
		hint := ""
		if closest := providers.Closest(p.Code); len(closest) > 0 {
			hint = " Did you mean " + strings.Join(closest, " or ") + "?"
		}
		return fmt.Errorf("there is no DNS provider %q.%s The command certsitter providers lists all", p.Code, hint)
	}
	describe(s.out, provider)
	return nil
}

// describe prints one provider's variables.
func describe(w io.Writer, p providers.Provider) {
	fmt.Fprintf(w, "%s (provider: %s)\n%s\n", p.Name, p.Code, p.URL)
	if p.Unfit != "" {
		fmt.Fprintln(w, p.Unfit)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	list := func(title string, variables []providers.Variable) {
		if len(variables) == 0 {
			return
		}
		fmt.Fprintf(table, "\n%s\n", title)
		for _, v := range variables {
			fmt.Fprintf(table, "  %s\t%s\n", v.Name, v.Text)
		}
	}
	list("Variables", p.Credentials)
	list("Options, each with a default", p.Options)
	_ = table.Flush() // to a writer whose errors nobody can act on
}

type unpublishCommand struct{}

func (*unpublishCommand) line() *cobra.Command {
	return &cobra.Command{Use: "unpublish", Short: "Empty every topic of ours on the broker, for leaving.", Args: noArguments}
}

// unpublishLimit bounds the whole conversation with the broker.
const unpublishLimit = time.Minute

// Run empties our topics. A daemon that runs would put them back.
func (u *unpublishCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	if _, err := page.Dial(conf.StateDir); err == nil {
		return errors.New("a daemon is running and would publish everything again: stop it first")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, unpublishLimit, fmt.Errorf("the broker did not answer within %v", unpublishLimit))
	defer cancel()
	broker, err := daemon.BrokerConfig(ctx, conf, nil)
	if errors.Is(err, daemon.ErrNoBroker) {
		return fmt.Errorf("%w, so nothing was published", err)
	}
	if err != nil {
		return err
	}
	d, err := s.manual(conf)
	if err != nil {
		return err
	}
	defer d.Close()
	broker.Installation, broker.Version = d.Sitter.Installation(), worker.BuildVersion(version)
	emptied, err := mqtt.Unpublish(ctx, broker, d.Sitter.Topics())
	for _, topic := range emptied {
		fmt.Fprintln(s.out, topic)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%d topics were emptied.\n", len(emptied))
	return nil
}

type schemaCommand struct{}

func (*schemaCommand) line() *cobra.Command {
	return &cobra.Command{Use: "schema", Short: "The JSON Schema of the configuration file.", Args: noArguments}
}

// Run prints the schema.
func (*schemaCommand) Run(_ context.Context, s shell, _ *cli) error {
	_, err := fmt.Fprintf(s.out, "%s\n", strings.TrimSpace(string(settings.Schema())))
	return err
}

type healthcheckCommand struct{}

func (*healthcheckCommand) line() *cobra.Command {
	return &cobra.Command{Use: "healthcheck", Short: "Whether the daemon is healthy, for a container's HEALTHCHECK.", Args: noArguments}
}

const healthLimit = 5 * time.Second

// Run asks the daemon's /healthz through the control socket.
func (*healthcheckCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: healthLimit, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(conf.StateDir, page.SocketName))
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the daemon does not answer: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("the daemon is not well: %s", strings.TrimSpace(string(text)))
	}
	fmt.Fprintln(s.out, "healthy")
	return nil
}

type versionCommand struct {
	JSON bool
}

func (v *versionCommand) line() *cobra.Command {
	l := &cobra.Command{Use: "version", Short: "The versions of the program and what it is made of.", Args: noArguments}
	l.Flags().BoolVar(&v.JSON, "json", false, "one JSON document")
	return l
}

// versions is what the program is made of.
type versions struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	Go        string `json:"go"`
	Lego      string `json:"lego"`
	Shoutrrr  string `json:"shoutrrr"`
	Protocol  int    `json:"protocol"`
	Providers int    `json:"providers"`
}

// shoutrrrVersion is the worker's, which is another program: a test compares it
// with go.mod.
const shoutrrrVersion = "v0.13.2"

// Run prints versions.
func (v *versionCommand) Run(_ context.Context, s shell, _ *cli) error {
	of := versions{
		Version: worker.BuildVersion(version), Commit: commitOf(), Go: runtime.Version(),
		Lego: providers.LegoVersion, Shoutrrr: shoutrrrVersion, Protocol: worker.Protocol, Providers: len(providers.All()),
	}
	if v.JSON {
		return writeJSON(s.out, of)
	}
	_, err := fmt.Fprintf(s.out, "certsitter %s\ncommit %s\n%s\nlego %s with %d DNS providers\nshoutrrr %s\n",
		of.Version, of.Commit, of.Go, of.Lego, of.Providers, of.Shoutrrr)
	return err
}

func commitOf() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}

func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}
