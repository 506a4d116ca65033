package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
)

type checkCommand struct {
	Targets  []string // none = everything configured
	JSON     bool
	Warn     *int // days, taken literally; nil = what is configured
	Critical *int
}

func (k *checkCommand) line() *cobra.Command {
	l := &cobra.Command{
		Use:   "check [TARGET...]",
		Short: "Look once at files, endpoints or everything configured.",
		Long: `Look once at files, endpoints or everything configured.

A TARGET is a file, a folder, a glob, host:port, https://… or smtp://…. Without
any, everything configured is looked at. The exit code is that of a monitoring
plugin: 0 fine, 1 warning, 2 critical, 3 unknown.`,
		Args: anyNumber(&k.Targets),
	}
	l.Flags().BoolVar(&k.JSON, "json", false, "one JSON document")
	l.Flags().Func("warn", "warning below this many `DAYS`, taken literally.\nDefault: 21, or what is configured", number(&k.Warn))
	l.Flags().Func("critical", "critical below this many `DAYS`.\nDefault: 7, or what is configured", number(&k.Critical))
	return l
}

// The days that are meant when nobody says otherwise (docs/configuration.md).
const (
	warnDays     = 21
	criticalDays = 7
)

// Run looks once.
func (k *checkCommand) Run(ctx context.Context, s shell, c *cli) error {
	if k.Warn != nil && *k.Warn < 0 || k.Critical != nil && *k.Critical < 0 {
		return &exit{exitUnknown, errors.New("--warn and --critical are numbers of days, not below zero")}
	}
	var rows []row
	var err error
	if len(k.Targets) > 0 {
		rows = k.targets(ctx, s)
	} else if rows, err = k.configured(ctx, s, c); err != nil {
		return &exit{exitUnknown, err}
	}
	if ctx.Err() != nil {
		return &exit{exitUnknown, errors.New("stopped before everything was looked at")}
	}
	return s.verdict(rows, k.JSON)
}

// configured asks the daemon, or our own loop, to look at everything.
func (k *checkCommand) configured(ctx context.Context, s shell, c *cli) ([]row, error) {
	conf, err := c.load(s, exitUnknown)
	if err != nil {
		return nil, err
	}
	if len(conf.Certificates)+len(conf.Watch) == 0 {
		return nil, errors.New("no certificates are configured; name a file or an address to look at, such as certsitter check example.org:443")
	}
	var rows []row
	err = s.ask(ctx, conf, func(a asked) error {
		over := s.progress("Looking at everything configured")
		err := a.Check(ctx)
		over()
		if err != nil {
			return err
		}
		snap, err := a.Snapshot(ctx)
		if err != nil {
			return err
		}
		for _, cert := range snap.Certificates {
			rows = append(rows, k.again(rowOf(cert)))
		}
		return nil
	})
	return rows, err
}

// again judges a row by the days of the command line, where some were given.
func (k *checkCommand) again(r row) row {
	if k.Warn == nil && k.Critical == nil || r.DaysLeft == nil || r.severity() == expiry.Expired {
		return r
	}
	status := expiry.OK
	switch left := *r.DaysLeft; {
	case left < dereference(k.Critical, criticalDays):
		status = expiry.Critical
	case left < dereference(k.Warn, warnDays):
		status = expiry.Warning
	}
	r.Status = status.String()
	return r
}

func dereference(days *int, otherwise int) int {
	if days == nil {
		return otherwise
	}
	return *days
}

// lookLimit bounds one look; atATime leaves sockets for others.
const (
	lookLimit = 20 * time.Second
	atATime   = 50
)

// targets looks at what the command line names, many at a time.
func (k *checkCommand) targets(ctx context.Context, s shell) []row {
	looks, rows := k.expand()
	results := make([]row, len(looks))
	var group errgroup.Group
	group.SetLimit(atATime)
	over := s.progress(fmt.Sprintf("Looking at %d targets", len(looks)))
	defer over()
	roots := sync.OnceValue(systemRoots)
	for i, l := range looks {
		group.Go(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, lookLimit, fmt.Errorf("no answer within %v", lookLimit))
			defer cancel()
			results[i] = k.judge(l, l.look(ctx, roots))
			return nil
		})
	}
	_ = group.Wait() // no function of it fails
	return append(rows, results...)
}

// systemRoots are loaded once: a fresh pool for each target would cost more
// than the look.
func systemRoots() *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil
	}
	return pool
}

// A look is one place to look at.
type look struct {
	name     string // as it is shown
	file     string // or
	endpoint probe.Target
}

// expand makes looks of the targets; those that cannot be understood are rows
// already.
func (k *checkCommand) expand() (looks []look, failed []row) {
	for _, target := range k.Targets {
		if t, err := probe.ParseTarget(target); err == nil {
			looks = append(looks, look{name: target, endpoint: t})
			continue
		} else if strings.Contains(target, "://") {
			failed = append(failed, unknownRow(target, err))
			continue
		}
		files, err := probe.Glob(target)
		if err != nil {
			failed = append(failed, unknownRow(target, err))
		}
		for _, f := range files {
			looks = append(looks, look{name: f, file: f})
		}
	}
	return looks, failed
}

func unknownRow(target string, err error) row {
	return row{Name: target, Status: expiry.Unknown.String(), Text: err.Error()}
}

// found is what one look brought.
type found struct {
	certificate *expiry.Certificate
	served      *expiry.Served
	err         error
}

func (l look) look(ctx context.Context, roots func() *x509.CertPool) found {
	if l.file != "" {
		c, err := probe.ReadFile(l.file, "")
		return found{certificate: c, err: err}
	}
	r, err := probe.Probe(ctx, l.endpoint, time.Now(), probe.Options{Roots: roots()})
	if err != nil {
		return found{err: err}
	}
	return found{certificate: r.Certificate, served: &expiry.Served{
		Address: l.name, Certificate: r.Certificate, NameOK: r.NameError == nil, ChainOK: r.ChainError == nil,
	}}
}

// judge makes a row of what was found.
func (k *checkCommand) judge(l look, f found) row {
	if f.err != nil {
		return unknownRow(l.name, f.err)
	}
	now := time.Now()
	facts := expiry.Facts{WarnDays: dereference(k.Warn, warnDays), CriticalDays: dereference(k.Critical, criticalDays), Literal: true}
	if f.served != nil {
		facts.Served = []expiry.Served{*f.served}
	} else {
		facts.Installed = f.certificate
	}
	problems := expiry.Assess(now, facts)
	r := row{
		Name: l.name, Status: expiry.Worst(problems).String(), DaysLeft: new(f.certificate.Days(now)),
		NotAfter: f.certificate.Leaf.NotAfter.UTC(), NotBefore: f.certificate.Leaf.NotBefore.UTC(),
		Subject: f.certificate.Subject(), Issuer: f.certificate.Issuer(), Names: f.certificate.Names(),
		Print: f.certificate.Fingerprint(), KeyType: f.certificate.KeyType(),
	}
	for _, p := range problems {
		r.Problems = append(r.Problems, sitter.Problem{Code: p.Code, Severity: p.Severity.String(), Text: p.Text, Advice: p.Advice})
	}
	if len(problems) > 0 {
		r.Text = problems[0].Text
	}
	return r
}

// soonest orders rows by what needs a person first: what cannot be said, then
// the least life left.
func soonest(a, b row) int {
	if known := cmp.Compare(boolInt(a.DaysLeft != nil), boolInt(b.DaysLeft != nil)); known != 0 {
		return known
	}
	return cmp.Or(a.NotAfter.Compare(b.NotAfter), strings.Compare(a.Name, b.Name))
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// codeOf is the exit code of all rows: of several the worst, critical over
// unknown over warning (docs/commands.md).
func codeOf(rows []row) int {
	if len(rows) == 0 {
		return exitUnknown
	}
	codes := make([]int, 0, len(rows))
	for _, r := range rows {
		codes = append(codes, map[expiry.Severity]int{
			expiry.OK: exitOK, expiry.Notice: exitOK, expiry.Warning: exitWarning,
			expiry.Critical: exitCritical, expiry.Expired: exitCritical, expiry.Unknown: exitUnknown,
		}[r.severity()])
	}
	ladder := []int{exitOK, exitWarning, exitUnknown, exitCritical}
	return slices.MaxFunc(codes, func(a, b int) int { return cmp.Compare(slices.Index(ladder, a), slices.Index(ladder, b)) })
}
