package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/dns01"

	"github.com/certsitter/certsitter/renew"
)

// legoNames guards lego's package variables with the name servers that its
// providers ask: one DNS-01 order at a time in a process.
var legoNames = make(chan struct{}, 1)

// dnsRecords are the TXT records of one order: who writes them, which were
// written, and where one can see them.
type dnsRecords struct {
	provider  challenge.Provider
	calls     *calls
	resolvers *resolvers
	written   []dnsRecord
	removing  sync.WaitGroup
}

// A dnsRecord is one TXT record (RFC 8555 §8.4).
type dnsRecord struct {
	identifier, token, keyAuthorization string
	name                                string // of the order, with "*."
	fqdn, value                         string // where it really is, after CNAMEs
}

// openDNS makes the provider, before anything is ordered, and finds the name
// servers that answer. What it returns ends both: it removes what was written.
func (s *session) openDNS() (end func(), err error) {
	if s.hooks.Provider == nil {
		return nil, s.problem(renew.StepPresent, "", "nobody knows DNS providers")
	}
	select {
	case legoNames <- struct{}{}:
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	release := func() { <-legoNames }
	provider, err := s.hooks.Provider(s.request.Provider)
	if err != nil {
		release()
		return nil, s.fault(renew.StepPresent, "", fmt.Errorf("provider %s: %w", s.request.Provider, err))
	}
	servers := findResolvers(s.ctx, s.request.Resolvers)
	// Both options ignore their argument and set package variables.
	_ = dns01.AddRecursiveNameservers(servers.addresses)(nil)
	_ = dns01.AddDNSTimeout(dnsTimeout)(nil)
	dns01.ClearFqdnCache()
	s.dns = &dnsRecords{provider: provider, calls: startCalls(), resolvers: servers}
	return func() {
		s.removeRecords()
		s.dns.calls.end()
		release()
	}, nil
}

// sequential says whether the provider can hold one record at a time only, in
// lego's way.
func (d *dnsRecords) sequential() bool {
	_, ok := d.provider.(interface{ Sequential() time.Duration })
	return ok
}

func (d *dnsRecords) pause() time.Duration {
	return d.provider.(interface{ Sequential() time.Duration }).Sequential()
}

// times are how long a record may take to be seen, and how often to look.
func (d *dnsRecords) times() (timeout, interval time.Duration) {
	if p, ok := d.provider.(challenge.ProviderTimeout); ok {
		timeout, interval = p.Timeout()
	}
	if timeout <= 0 {
		timeout = dns01.DefaultPropagationTimeout
	}
	if interval <= 0 {
		interval = dns01.DefaultPollingInterval
	}
	return timeout, interval
}

// validateByDNS writes all records one after another (many providers read,
// change and write one record set), waits for all together and has all
// validated together. A name whose record could not be written does not keep
// the others from being validated: they stay valid for the next attempt.
func (s *session) validateByDNS(open []authorization) error {
	var failed []renew.Problem
	var ready []authorization
	for _, a := range open {
		if err := s.write(a); err != nil {
			failed = append(failed, s.problems(renew.StepPresent, a.name, err)...)
			continue
		}
		ready = append(ready, a)
	}
	seen, unseen := s.propagated(ready)
	failed = append(failed, unseen...)
	if len(seen) == 0 {
		return &renew.Fault{Problems: failed}
	}
	err := s.validate(seen)
	s.startRemoval()
	return withProblems(err, failed)
}

// withProblems adds problems to a fault, if there are any.
func withProblems(err error, more []renew.Problem) error {
	if len(more) == 0 {
		return err
	}
	fault, ok := errors.AsType[*renew.Fault](err)
	if !ok {
		fault = &renew.Fault{}
	}
	fault.Problems = append(fault.Problems, more...)
	return fault
}

// validateOneByOne is for providers that hold one record: wildcard and apex
// share a name, so each is written, validated and removed before the next. It
// stops at the first that fails, because each takes a minute and more.
func (s *session) validateOneByOne(open []authorization) error {
	for i, a := range open {
		if err := s.write(a); err != nil {
			return &renew.Fault{Problems: s.problems(renew.StepPresent, a.name, err)}
		}
		if _, unseen := s.propagated(open[i : i+1]); len(unseen) > 0 {
			return &renew.Fault{Problems: unseen}
		}
		if err := s.validate(open[i : i+1]); err != nil {
			return err
		}
		s.removeRecords()
		if i == len(open)-1 {
			return nil
		}
		pause := s.dns.pause()
		s.say(renew.StepPresent, open[i+1].name, fmt.Sprintf("The DNS provider needs a rest of %v before the next record.", pause))
		if err := s.sleep(pause); err != nil {
			return s.fault(renew.StepPresent, open[i+1].name, err)
		}
	}
	return nil
}

// write has the provider write a record. Two authorizations can share one: some
// CAs give wildcard and apex the same token.
func (s *session) write(a authorization) error {
	record := dnsRecord{identifier: a.identifier, token: a.challenge.Token, keyAuthorization: a.keyAuthorization, name: a.name}
	if slices.ContainsFunc(s.dns.written, record.same) {
		return nil
	}
	s.say(renew.StepPresent, a.name, "Writing the DNS record for "+a.name+".")
	// It counts as written from now on: a failed attempt can leave half a record.
	s.dns.written = append(s.dns.written, record)
	kept := &s.dns.written[len(s.dns.written)-1]
	var info dns01.ChallengeInfo
	err := s.dns.calls.do(s.ctx, func() error {
		err := s.dns.provider.Present(record.identifier, record.token, record.keyAuthorization)
		if err == nil {
			info = dns01.GetChallengeInfo(record.identifier, record.keyAuthorization)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("error presenting token: %w", err)
	}
	kept.fqdn, kept.value = info.EffectiveFQDN, info.Value
	return nil
}

func (r dnsRecord) same(other dnsRecord) bool {
	return r.identifier == other.identifier && r.keyAuthorization == other.keyAuthorization
}

// propagated waits until the records of these names can be seen, all at the
// same time.
func (s *session) propagated(open []authorization) (seen []authorization, unseen []renew.Problem) {
	if len(open) == 0 {
		return nil, nil
	}
	timeout, interval := s.dns.times()
	if !s.dns.resolvers.usable() {
		wait := min(timeout, s.pace.blindWait)
		s.say(renew.StepPropagation, "", fmt.Sprintf("No name server answers; waiting %v for the DNS records.", wait))
		if err := s.sleep(wait); err != nil {
			return nil, s.problems(renew.StepPropagation, open[0].name, err)
		}
		return open, nil
	}
	s.say(renew.StepPropagation, "", "Waiting until the DNS records can be seen.")
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	errs := make([]error, len(open))
	var looking sync.WaitGroup
	for i, a := range open {
		record := s.dns.find(a)
		looking.Go(func() { errs[i] = s.dns.resolvers.wait(ctx, record.fqdn, record.value, interval) })
	}
	looking.Wait()
	for i, a := range open {
		if errs[i] == nil {
			seen = append(seen, a)
			continue
		}
		err := fmt.Errorf("not seen within %v: %w", timeout, errs[i])
		unseen = append(unseen, s.problems(renew.StepPropagation, a.name, err)...)
	}
	return seen, unseen
}

func (d *dnsRecords) find(a authorization) dnsRecord {
	i := slices.IndexFunc(d.written, dnsRecord{identifier: a.identifier, keyAuthorization: a.keyAuthorization}.same)
	return d.written[i]
}

// startRemoval has the records removed while the order goes on.
func (s *session) startRemoval() {
	records := s.dns.written
	s.dns.written = nil
	if len(records) == 0 {
		return
	}
	s.dns.removing.Go(func() {
		ctx, cancel := s.afterwards()
		defer cancel()
		for _, record := range records {
			err := s.dns.calls.do(ctx, func() error {
				return s.dns.provider.CleanUp(record.identifier, record.token, record.keyAuthorization)
			})
			if err != nil {
				s.say(renew.StepPresent, record.name, "The DNS record for "+record.name+" could not be removed: "+s.clean(err.Error()))
			}
		}
	})
}

// removeRecords removes what is still written and waits for it.
func (s *session) removeRecords() {
	s.startRemoval()
	s.dns.removing.Wait()
}

// afterwards is the context for what is to be done even though the session's
// has ended: from then on it has the pace's time.
func (s *session) afterwards() (context.Context, context.CancelFunc) {
	const longest = 2 * time.Minute // a provider that takes longer hangs
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), longest)
	stop := context.AfterFunc(s.ctx, func() { time.AfterFunc(s.pace.cleanUp, cancel) })
	return ctx, func() { stop(); cancel() }
}

// calls makes a provider's calls one after another and lets their caller go
// when a context ends: lego's providers know none. A call that hangs then is
// waited for by the next one only; at worst it ends with the process.
type calls struct{ queue chan func() }

func startCalls() *calls {
	c := &calls{queue: make(chan func())}
	go func() {
		for call := range c.queue {
			call()
		}
	}()
	return c
}

func (c *calls) end() { close(c.queue) }

func (c *calls) do(ctx context.Context, call func() error) error {
	result := make(chan error, 1)
	guarded := func() {
		defer func() {
			if reason := recover(); reason != nil { // lego's wedos panics on purpose
				result <- fmt.Errorf("the DNS provider's code broke down: %v", reason)
			}
		}()
		result <- call()
	}
	select {
	case c.queue <- guarded:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
