package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A command is one thing to do. It is made of a command line first, and carried
// out when the whole line is understood.
type command interface {
	// line is how it is called. Parsing it fills the command.
	line() *cobra.Command
	Run(ctx context.Context, s shell, c *cli) error
}

// cli is the command line as it was understood.
type cli struct {
	Config  string  // the configuration file as an absolute path; "" = where it usually is
	command command // nil = only help was asked for, and given
}

// parse understands a command line, and prints help where that is asked for.
// Its errors are about the line, and read on with a period.
func parse(args []string, s shell) (*cli, error) {
	c := &cli{}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(s.out)
	root.SetErr(s.err)
	return c, root.Execute()
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "certsitter",
		Long:              "Looks after a home's TLS certificates: renews them, watches them, and tells\nwhen one needs a person.",
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		SilenceErrors:     true,
		SilenceUsage:      true,
	}
	incomplete(root)
	root.SetFlagErrorFunc(wrongFlag)
	root.PersistentFlags().Func("config", "the configuration `FILE`. Default: ./certsitter.yaml, then\n/etc/certsitter/certsitter.yaml; as a Home Assistant app\n/data/options.json", c.setConfig)

	for _, g := range groups() {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, k := range g.commands {
			c.add(root, k).GroupID = g.title
		}
	}
	notify := &cobra.Command{Use: "notify", Short: "Send a test message: certsitter notify test.", GroupID: homeAutomation}
	incomplete(notify)
	c.add(notify, &notifyTestCommand{})
	root.AddCommand(notify)
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Short: "Help about a command.", GroupID: reference, RunE: help})
	return root
}

// The parts of the help.
const (
	certificates   = "Certificates:"
	service        = "The daemon:"
	homeAutomation = "Home automation and messages:"
	reference      = "Reference:"
)

type group struct {
	title    string
	commands []command
}

// groups are all commands but notify; the help sorts those of a group.
func groups() []group {
	return []group{
		{certificates, []command{&checkCommand{}, &statusCommand{}, &renewCommand{}, &revokeCommand{}}},
		{service, []command{&runCommand{}, &healthcheckCommand{}}},
		{homeAutomation, []command{&openhabCommand{}, &unpublishCommand{}}},
		{reference, []command{&providersCommand{}, &schemaCommand{}, &versionCommand{}}},
	}
}

// add makes a command known under its parent.
func (c *cli) add(parent *cobra.Command, k command) *cobra.Command {
	line := k.line()
	line.Run = func(*cobra.Command, []string) { c.command = k }
	parent.AddCommand(line)
	return line
}

// setConfig keeps the file's absolute path, for messages. Shells leave the ~ of
// --config=~/file alone.
func (c *cli) setConfig(file string) (err error) {
	if rest, found := strings.CutPrefix(file, "~/"); found {
		if home, err := os.UserHomeDir(); err == nil {
			file = filepath.Join(home, rest)
		}
	}
	c.Config, err = filepath.Abs(file)
	return err
}

// incomplete makes k a command that wants one of its own.
func incomplete(k *cobra.Command) {
	k.InitDefaultHelpFlag()                   // now, so that --help is known before the command, too
	k.SuggestionsMinimumDistance = 2          // letters
	k.Run = func(*cobra.Command, []string) {} // never: Args lets nothing through
	k.Args = func(k *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unexpected(args[0], k.SuggestionsFor(args[0]))
		}
		var names []string
		for _, sub := range k.Commands() {
			names = append(names, sub.Name())
		}
		return fmt.Errorf("a command is missing: %s", or(names))
	}
}

// help prints what --help prints of a command.
func help(k *cobra.Command, args []string) error {
	of, rest, err := k.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = unexpected(rest[0], of.SuggestionsFor(rest[0]))
	}
	if err != nil {
		return err
	}
	of.InitDefaultHelpFlag() // so that it is listed
	return of.Help()
}

func unexpected(argument string, similar []string) error {
	if len(similar) == 0 {
		return fmt.Errorf("unexpected argument %s", argument)
	}
	return fmt.Errorf("unexpected argument %s (did you mean %s?)", argument, or(similar))
}

// or lists words in a sentence.
func or(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// wrongFlag puts a mistake in a flag into our words.
func wrongFlag(_ *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() != "" {
		return fmt.Errorf("unknown flag -%s", e.GetSpecifiedName())
	} else if ok {
		return fmt.Errorf("unknown flag --%s", e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s needs a value", e.GetSpecifiedName())
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok && e.GetFlag().Value.Type() == "bool" {
		return fmt.Errorf("--%s: %q is neither true nor false", e.GetFlag().Name, e.GetValue())
	} else if ok {
		return fmt.Errorf("--%s: %w", e.GetFlag().Name, e.Unwrap())
	}
	return err
}

// number takes a whole number for a flag that may be left out.
func number(into **int) func(string) error {
	return func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		*into = &n
		return nil
	}
}

// noArguments is for commands that are called by their name alone.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unexpected(args[0], nil)
	}
	return nil
}

// one takes an argument, which the help calls name.
func one(name string, into *string) cobra.PositionalArgs {
	return func(k *cobra.Command, args []string) error {
		if len(args) == 0 {
			return missing(k, name)
		}
		*into = args[0]
		return noArguments(k, args[1:])
	}
}

// oneOf takes one of these words.
func oneOf(name string, into *string, words ...string) cobra.PositionalArgs {
	take := one(name, into)
	return func(k *cobra.Command, args []string) error {
		if err := take(k, args); err != nil {
			return err
		}
		if !slices.Contains(words, *into) {
			return fmt.Errorf("%s is %s, not %s", name, or(words), *into)
		}
		return nil
	}
}

// maybeOne takes an argument that may be left out.
func maybeOne(into *string) cobra.PositionalArgs {
	return func(k *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		*into = args[0]
		return noArguments(k, args[1:])
	}
}

// oneOrMore takes arguments.
func oneOrMore(name string, into *[]string) cobra.PositionalArgs {
	return func(k *cobra.Command, args []string) error {
		if len(args) == 0 {
			return missing(k, name)
		}
		*into = args
		return nil
	}
}

// anyNumber takes arguments that may be left out.
func anyNumber(into *[]string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		*into = args
		return nil
	}
}

func missing(k *cobra.Command, name string) error {
	return fmt.Errorf("%s wants a %s", k.CommandPath(), name)
}
