package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

type renewCommand struct {
	Names                  []string
	Force, Staging, DryRun bool
}

func (r *renewCommand) line() *cobra.Command {
	l := &cobra.Command{
		Use:   "renew NAME...",
		Short: "Renew certificates now.",
		Long:  "Renew certificates now. A NAME is a certificate's in the configuration.",
		Args:  oneOrMore("NAME", &r.Names),
	}
	l.Flags().BoolVar(&r.Force, "force", false, "even if it is not due. The CA's limits hold all the same")
	l.Flags().BoolVar(&r.Staging, "staging", false, "at the CA's staging environment. The files in use are not\ntouched")
	l.Flags().BoolVar(&r.DryRun, "dry-run", false, "a trial at the CA's staging environment, of which nothing\nis kept")
	return l
}

// Run renews one certificate after another.
func (r *renewCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	o := sitter.RenewOptions{Force: r.Force, Staging: r.Staging, DryRun: r.DryRun}
	return s.ask(ctx, conf, func(a asked) error {
		var errs []error
		for _, name := range r.Names {
			if err := s.renewOne(ctx, a, name, o); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// renewOne begins one renewal and tells how it goes on.
func (s shell) renewOne(ctx context.Context, a asked, name string, o sitter.RenewOptions) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := a.Events(ctx)
	if err != nil {
		return err
	}
	err = a.Renew(ctx, name, o)
	if refused, ok := errors.AsType[*sitter.Refused](err); ok && refused.Code == "not_due" {
		fmt.Fprintf(s.out, "%s: %s\n", name, refused.Sentence)
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.follow(ctx, events, name); err != nil || o.Staging || o.DryRun {
		return err
	}
	return s.followDeployment(ctx, a, events, name)
}

// follow tells the steps of a renewal until it has ended.
func (s shell) follow(ctx context.Context, events <-chan sitter.Event, name string) error {
	for {
		select {
		case e, open := <-events:
			if !open {
				return errors.New("the daemon has stopped; the order is taken up again at its next start")
			}
			if e.Name != name || e.Text == "" {
				continue
			}
			if e.Kind == "renewal_failed" || e.Kind == "refused" {
				return errors.New(e.Text)
			}
			fmt.Fprintf(s.out, "%s: %s\n", name, e.Text)
			if e.Kind == "renewed" {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// patience is how long the command waits for the next word about a deployment:
// one that waits for its window or a person goes on without us.
const patience = 30 * time.Second

// followDeployment tells the steps until the new certificate is in use, or says
// what that waits for.
func (s shell) followDeployment(ctx context.Context, a asked, events <-chan sitter.Event, name string) error {
	quiet := time.NewTimer(patience)
	defer quiet.Stop()
	for {
		select {
		case e, open := <-events:
			if !open {
				return nil // the certificate is stored, and is deployed at the next start
			}
			if e.Name != name || e.Text == "" {
				continue
			}
			fmt.Fprintf(s.out, "%s: %s\n", name, e.Text)
			switch e.Kind {
			case "deployed", "waiting":
				return nil
			case "deploy_failed":
				return errors.New("renewed, but not in use yet: it is tried again")
			}
			quiet.Reset(patience)
		case <-quiet.C:
			snap, err := a.Snapshot(ctx)
			if err != nil {
				return err
			}
			for _, c := range snap.Certificates {
				if c.Name == name && c.Deployment != "" {
					fmt.Fprintf(s.out, "%s: %s\n", name, c.Deployment)
				}
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

type revokeCommand struct {
	Name, Reason string
}

func (r *revokeCommand) line() *cobra.Command {
	l := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke a certificate and order a new one with a new key.",
		Long:  "Revoke a certificate and order a new one with a new key. NAME is the\ncertificate's in the configuration.",
		Args:  one("NAME", &r.Name),
	}
	l.Flags().StringVar(&r.Reason, "reason", "unspecified", "`REASON`: unspecified, keyCompromise, affiliationChanged,\nsuperseded or cessationOfOperation (RFC 5280)")
	return l
}

// Run revokes and then follows the renewal that replaces it.
func (r *revokeCommand) Run(ctx context.Context, s shell, c *cli) error {
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	return s.ask(ctx, conf, func(a asked) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		events, err := a.Events(ctx)
		if err != nil {
			return err
		}
		if err := a.Revoke(ctx, r.Name, r.Reason); err != nil {
			return err
		}
		if err := s.follow(ctx, events, r.Name); err != nil {
			return fmt.Errorf("revoked, but the new certificate did not come: %w", err)
		}
		return s.followDeployment(ctx, a, events, r.Name)
	})
}
