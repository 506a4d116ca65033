package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// A wrong command line is one sentence that says what is wrong, and nothing is
// done.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", exitUsage, "a command is missing: check, "},
		{"notify", exitUsage, "a command is missing: test."},
		{"chek", exitUsage, "unexpected argument chek (did you mean check?)."},
		{"notify tset", exitUsage, "unexpected argument tset (did you mean test?)."},
		{"help chek", exitUsage, "unexpected argument chek (did you mean check?)."},
		{"completion", exitUsage, "unexpected argument completion."},
		{"run now", exitUsage, "unexpected argument now."},
		{"version --help now --json=perhaps", exitUsage, `--json: "perhaps" is neither true nor false.`},
		{"renew", exitUsage, "certsitter renew wants a NAME."},
		{"revoke a b", exitUsage, "unexpected argument b."},
		{"providers a b", exitUsage, "unexpected argument b."},
		{"openhab pages", exitUsage, "FILE is things, items, rules, sitemap or yaml, not pages."},
		{"run -x", exitUsage, "unknown flag -x."},
		{"run --help --nonsense", exitUsage, "unknown flag --nonsense."},
		{"run --config", exitUsage, "--config needs a value."},
		{"check --warn soon a.pem", exitUnknown, `--warn: "soon" is no whole number.`},
		{"--config check status --warn 1", exitUnknown, "unknown flag --warn."},
	} {
		var out, said bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), shell{out: &out, err: &said, getenv: func(string) string { return "" }})
		if code != c.code || out.Len() > 0 {
			t.Errorf("certsitter %s: exit code %d, want %d; stdout %q", c.args, code, c.code, out.String())
		}
		if got := said.String(); !strings.HasPrefix(got, "certsitter: "+c.says) || !strings.HasSuffix(got, " See certsitter --help.\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("certsitter %s: %q", c.args, got)
		}
	}
}

// Every command and every flag is described, and help is given wherever it is
// asked for.
func TestHelp(t *testing.T) {
	t.Parallel()
	var look func(k *cobra.Command, path ...string)
	look = func(k *cobra.Command, path ...string) {
		if k.HasParent() && !strings.HasSuffix(k.Short, ".") {
			t.Errorf("%s: %q is no sentence", k.CommandPath(), k.Short)
		}
		for _, line := range [][]string{append(path, "--help"), append([]string{"--help"}, path...), append([]string{"help"}, path...)} {
			var out, said bytes.Buffer
			code := run(t.Context(), line, shell{out: &out, err: &said, getenv: func(string) string { return "" }})
			if code != exitOK || said.Len() > 0 || !strings.Contains(out.String(), "\n  "+k.CommandPath()) || !strings.Contains(out.String(), "--config FILE") {
				t.Errorf("certsitter %s: exit code %d, stderr %q, stdout %q", strings.Join(line, " "), code, said.String(), out.String())
			}
			for l := range strings.Lines(out.String()) {
				if len([]rune(l)) > 100 {
					t.Errorf("certsitter %s: a line is too wide: %q", strings.Join(line, " "), l)
				}
			}
		}
		for _, sub := range k.Commands() {
			look(sub, append(path, sub.Name())...)
		}
	}
	look((&cli{}).root())
}

// The configuration file is taken before and after the command.
func TestConfigIsTakenAnywhere(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(home)
	for _, line := range []string{"--config a.yaml status --json", "status --config a.yaml --json", "status --json --config=a.yaml", "--config=~/a.yaml status", "check b.pem --config a.yaml"} {
		c, err := parse(strings.Fields(line), shell{})
		if err != nil || c.command == nil || c.Config != filepath.Join(home, "a.yaml") {
			t.Errorf("%s: %+v, %v", line, c, err)
		}
	}
}
