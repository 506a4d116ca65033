// Package acme orders one certificate from a CA, or revokes one, over lego's
// protocol layer (RFC 8555). It drives the order itself because lego's certifier
// forgets the order's URL, waits seconds after each challenge and knows no
// context. It never sees the certificate's private key, links no DNS provider
// (the caller injects it), writes no file and keeps nothing between two calls:
// what must survive is handed to the caller's hooks before the order goes on.
package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/challenge"

	"github.com/certsitter/certsitter/renew"
)

// Hooks are what an order needs from its caller. Each may be nil if it is not
// needed; an error of Account or Placed ends the attempt, because going on
// could not be taken up again.
type Hooks struct {
	// Provider makes the DNS provider with this code of lego's (DNS01). The
	// provider's variables are already in the environment.
	Provider func(code string) (challenge.Provider, error)
	// Present puts the answers of all names of the order in place at once
	// (HTTP01, TLSALPN01) and returns when the machine answers.
	Present func(ctx context.Context, c []renew.Challenge) error
	// Account is told the account's URL when it is not the request's.
	Account func(ctx context.Context, url string) error
	// Placed is told the order's URL when a new order was placed.
	Placed func(ctx context.Context, orderURL string) error
	// Progress is told each step.
	Progress func(renew.Progress)
}

// Issue orders a certificate, or takes up the order at r.OrderURL, and waits for
// it. What went wrong is a *renew.Fault; a context that was cancelled (and not
// past its deadline) is no failure and returns the context's cause instead.
//
// A cancelled context ends every wait at once; what a DNS provider has written
// is still removed, for at most 20 seconds.
func Issue(ctx context.Context, r renew.OrderRequest, h Hooks) (renew.Issued, error) {
	return issue(ctx, r, h, usualPace())
}

// Revoke revokes a certificate with the account's key. One that is revoked
// already is a success. The error is a *renew.Fault or, when the context was
// cancelled, its cause.
func Revoke(ctx context.Context, r renew.RevokeRequest) error {
	s := &session{ctx: ctx, pace: usualPace(), hooks: Hooks{}, request: renew.OrderRequest{
		Directory: r.Directory, Roots: r.Roots, AccountKey: r.AccountKey, AccountURL: r.AccountURL,
	}}
	return s.outcome(s.revoke(r))
}

// A pace is how long the waits are. Tests have another one than people.
type pace struct {
	firstPoll, slowestPoll time.Duration // polls start quick and get slower
	longestRetryAfter      time.Duration // of a poll; a CA that asks for more is left alone
	patience               time.Duration // for a CA that cannot be reached in the middle of an order
	validation, issuance   time.Duration // until the CA must have come to a result
	cleanUp                time.Duration // for everything that is done after the end
	blindWait              time.Duration // for DNS when no name server can be asked
}

func usualPace() pace {
	return pace{
		firstPoll:         50 * time.Millisecond,
		slowestPoll:       5 * time.Second,
		longestRetryAfter: time.Minute,
		patience:          20 * time.Second,
		validation:        5 * time.Minute,
		issuance:          5 * time.Minute,
		cleanUp:           20 * time.Second,
		blindWait:         2 * time.Minute,
	}
}

// A session is one call of Issue or Revoke.
type session struct {
	ctx     context.Context
	request renew.OrderRequest
	hooks   Hooks
	pace    pace

	wire       *wire
	core       *api.Core
	accountURL string
	names      []string // canonical, in the request's sequence
	dns        *dnsRecords
	telling    sync.Mutex

	order    acme.ExtendedOrder // Location is always set
	resumed  bool               // the order was placed by an earlier call
	posted   bool               // this call asked the CA to validate something
	replaced bool               // the CA took Replaces
	// orderGone and accountGone go into the fault, if there is one.
	orderGone, accountGone bool
}

func issue(ctx context.Context, r renew.OrderRequest, h Hooks, p pace) (renew.Issued, error) {
	s := &session{ctx: ctx, request: r, hooks: h, pace: p, names: canonical(r.Names)}
	chain, err := s.run()
	if err != nil {
		return renew.Issued{}, s.outcome(err)
	}
	return renew.Issued{Chain: chain, AccountURL: s.accountURL, OrderURL: s.order.Location, Replaced: s.replaced}, nil
}

func (s *session) run() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.request.Challenge == renew.DNS01 {
		end, err := s.openDNS()
		if err != nil {
			return nil, err
		}
		defer end()
	}
	if err := s.connect(); err != nil {
		return nil, err
	}
	defer s.wire.close()
	if err := s.findAccount(); err != nil {
		return nil, err
	}
	chain, err := s.drive()
	if s.resumed && s.orderGone && !s.posted {
		// It died while nobody was there. That is nobody's failure, so a new
		// one takes its place at once.
		s.request.OrderURL = ""
		chain, err = s.drive()
	}
	return chain, err
}

// drive brings one order from wherever it is to its certificate.
func (s *session) drive() ([]byte, error) {
	if err := s.takeOrder(); err != nil {
		return nil, err
	}
	if s.order.Status == acme.StatusPending {
		if err := s.authorize(); err != nil {
			return nil, err
		}
	}
	return s.collect()
}

// check refuses what cannot work before anybody is bothered.
func (s *session) check() error {
	if len(s.names) == 0 {
		return s.problem(renew.StepOrder, "", "no names to order a certificate for")
	}
	if _, err := x509.ParseCertificateRequest(s.request.CSR); err != nil {
		return s.fault(renew.StepFinalize, "", fmt.Errorf("certificate request: %w", err))
	}
	switch s.request.Challenge {
	case renew.HTTP01, renew.TLSALPN01:
		if s.hooks.Present == nil {
			return s.problem(renew.StepPresent, "", "nobody answers "+s.request.Challenge+" challenges")
		}
		if i := slices.IndexFunc(s.names, isWildcard); i >= 0 {
			return s.problem(renew.StepPresent, s.names[i], "could not determine solvers: a wildcard needs "+renew.DNS01)
		}
	case renew.DNS01:
	default:
		return s.problem(renew.StepPresent, "", "unknown type of challenge: "+s.request.Challenge)
	}
	return nil
}

// connect reads the directory.
func (s *session) connect() error {
	s.say(renew.StepDirectory, "", "Asking the CA for its directory.")
	key, err := certcrypto.ParsePEMPrivateKey(s.request.AccountKey)
	if err != nil {
		// The parser's words could quote the key.
		return s.problem(renew.StepAccount, "", "the account's key cannot be read")
	}
	if s.wire == nil {
		if s.wire, err = newWire(s.ctx, s.request.Roots); err != nil {
			return s.fault(renew.StepDirectory, "", err)
		}
	}
	// lego wraps the client's transport, so each core gets a client of its own.
	s.core, err = api.New(s.wire.client(), userAgent(), s.request.Directory, s.request.AccountURL, key)
	if err != nil {
		return s.fault(renew.StepDirectory, "", err)
	}
	return nil
}

func (s *session) revoke(r renew.RevokeRequest) error {
	if err := s.connect(); err != nil {
		return err
	}
	defer s.wire.close()
	if r.AccountURL == "" {
		if err := s.accountByKey(); err != nil {
			return s.fault(renew.StepAccount, "", err)
		}
	}
	s.say(renew.StepRevoke, "", "Revoking the certificate.")
	err := s.core.Certificates.Revoke(acme.RevokeCertMessage{Certificate: encoded(r.Certificate), Reason: &r.Reason})
	if problem, ok := errors.AsType[*acme.ProblemDetails](err); ok && problem.Type == errorType+"alreadyRevoked" {
		return nil
	}
	if err != nil {
		s.accountGone = accountUnknown(err)
		return s.fault(renew.StepRevoke, "", err)
	}
	return nil
}

// say tells the progress, one step after another: records are removed while
// the order goes on.
func (s *session) say(step, name, text string) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.hooks.Progress != nil {
		s.hooks.Progress(renew.Progress{Step: step, Name: name, Text: text})
	}
}
