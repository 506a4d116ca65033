package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

type statusCommand struct {
	JSON bool
}

func (k *statusCommand) line() *cobra.Command {
	l := &cobra.Command{Use: "status", Short: "What the daemon knows.", Args: noArguments}
	l.Flags().BoolVar(&k.JSON, "json", false, "one JSON document")
	return l
}

// Run prints what the daemon knows.
func (k *statusCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitUnknown)
	if err != nil {
		return err
	}
	var snap *sitter.Snapshot
	alone := false
	err = s.ask(ctx, conf, func(a asked) error {
		if _, alone = a.(own); alone {
			if err := a.Check(ctx); err != nil {
				return err
			}
		}
		snap, err = a.Snapshot(ctx)
		return err
	})
	if err != nil {
		return &exit{exitUnknown, err}
	}
	rows := make([]row, 0, len(snap.Certificates))
	for _, cert := range snap.Certificates {
		rows = append(rows, rowOf(cert))
	}
	if k.JSON {
		if err := writeJSON(s.out, snap); err != nil {
			return err
		}
		return silentExit(codeOf(rows), len(rows))
	}
	for _, p := range snap.Problems {
		fmt.Fprintf(s.out, "%s: %s %s\n", p.Severity, p.Text, p.Advice)
		if len(p.Details) > 1 { // a single one is in the text
			for _, detail := range p.Details {
				fmt.Fprintf(s.out, "  %s\n", detail)
			}
		}
	}
	verdict := error(nil)
	if len(rows) > 0 {
		verdict = s.verdict(rows, false)
	} else {
		fmt.Fprintln(s.out, "No certificates are configured.")
	}
	s.more(snap)
	if alone {
		fmt.Fprintln(s.out, "No daemon runs with this configuration: this is what a look just now found, and nothing is renewed by itself.")
	}
	return verdict
}

func silentExit(code, rows int) error {
	if code == exitOK || rows == 0 {
		return nil
	}
	return &exit{code: code}
}

// more prints next renewals, deployments, deliveries and the broker.
func (s shell) more(snap *sitter.Snapshot) {
	for _, c := range snap.Certificates {
		switch {
		case c.Renewing:
			fmt.Fprintf(s.out, "%s is being renewed: %s\n", c.Name, c.Step)
		case !c.NextRenewal.IsZero():
			fmt.Fprintf(s.out, "%s is renewed next at %s. %s\n", c.Name, c.NextRenewal.Local().Format(time.DateTime), c.LastResult)
		case c.LastResult != "":
			fmt.Fprintf(s.out, "%s: %s\n", c.Name, c.LastResult)
		}
		if c.Deployment != "" {
			fmt.Fprintf(s.out, "%s: %s\n", c.Name, c.Deployment)
		}
	}
	for _, t := range snap.Targets {
		to := t.ID
		if t.Name != "" && t.Name != t.ID {
			to = t.Name + " (" + t.ID + ")" // which is what notify test takes
		}
		fmt.Fprintf(s.out, "messages to %s: %s\n", to, strings.TrimSpace(t.Status+" "+t.LastError))
	}
	if m := snap.MQTT; m.Configured {
		state := "connected"
		if !m.Connected {
			state = "not connected: " + m.Error
		}
		fmt.Fprintf(s.out, "%s: %s\n", strings.TrimSpace("broker "+m.Broker), state) // the Supervisor's has no address here
	}
}
