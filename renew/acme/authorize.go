package acme

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/challenge"

	"github.com/certsitter/certsitter/renew"
)

// An authorization is one name of the order on its way to being validated.
type authorization struct {
	url              string
	name             string // with "*." if it is for a wildcard
	identifier       string // without
	challenge        acme.Challenge
	keyAuthorization string
}

// authorize has all names of the order validated that are not yet.
func (s *session) authorize() error {
	open, err := s.openAuthorizations()
	if err != nil || len(open) == 0 {
		return err
	}
	switch {
	case s.dns == nil:
		err = s.validateByMachine(open)
	case s.dns.sequential():
		err = s.validateOneByOne(open)
	default:
		err = s.validateByDNS(open)
	}
	if err != nil && s.orderGone {
		s.deactivate(open)
	}
	return err
}

// openAuthorizations reads the order's authorizations and picks the challenges.
func (s *session) openAuthorizations() ([]authorization, error) {
	var open []authorization
	var failed []renew.Problem
	for _, url := range s.order.Authorizations {
		read, err := s.core.Authorizations.Get(url)
		if err != nil {
			return nil, s.fault(renew.StepAuthorization, "", err)
		}
		name := challenge.GetTargetedDomain(read)
		switch read.Status {
		case acme.StatusValid:
		case acme.StatusPending:
			a, err := s.authorization(url, name, read)
			if err != nil {
				failed = append(failed, s.problems(renew.StepAuthorization, name, err)...)
			}
			open = append(open, a)
		default:
			s.orderGone = true
			failed = append(failed, s.refusal(name, read))
		}
	}
	if len(failed) > 0 {
		return nil, &renew.Fault{Problems: failed}
	}
	return open, nil
}

func (s *session) authorization(url, name string, read acme.Authorization) (authorization, error) {
	picked, err := challenge.FindChallenge(challenge.Type(s.request.Challenge), read)
	if err != nil {
		return authorization{}, fmt.Errorf("could not determine solvers: the CA offers no %s challenge for %s", s.request.Challenge, name)
	}
	key, err := s.core.GetKeyAuthorization(picked.Token)
	return authorization{
		url: url, name: name, identifier: read.Identifier.Value, challenge: picked, keyAuthorization: key,
	}, err
}

// refusal is why an authorization can not become valid any more.
func (s *session) refusal(name string, read acme.Authorization) renew.Problem {
	for _, c := range read.Challenges {
		if c.Error != nil {
			return s.typed(renew.StepChallenge, name, c.Error)
		}
	}
	return renew.Problem{Step: renew.StepAuthorization, Name: name, Detail: "the authorization is " + read.Status}
}

// validateByMachine has the machine answer for all names at once.
func (s *session) validateByMachine(open []authorization) error {
	var wanted []renew.Challenge
	for _, a := range open {
		s.say(renew.StepPresent, a.name, "Putting the answer for "+a.name+" in place.")
		wanted = append(wanted, renew.Challenge{
			Type: s.request.Challenge, Name: a.identifier, Token: a.challenge.Token, KeyAuthorization: a.keyAuthorization,
		})
	}
	if err := s.hooks.Present(s.ctx, wanted); err != nil {
		return s.fault(renew.StepPresent, "", err)
	}
	return s.validate(open)
}

// validate tells the CA that the answers are in place and waits until it has
// come to a result about each. Each name keeps its own problem.
func (s *session) validate(open []authorization) error {
	var failed []renew.Problem
	var fault *renew.Fault // of the last failed request: what it said about when to come back
	var waiting []authorization
	for _, a := range open {
		s.say(renew.StepChallenge, a.name, "The CA validates "+a.name+".")
		err := s.start(a)
		if err == nil {
			waiting = append(waiting, a)
			continue
		}
		fault = s.fault(renew.StepChallenge, a.name, err)
		failed = append(failed, fault.Problems...)
	}
	err := s.poll(s.pace.validation, func() (bool, error) {
		var left []authorization
		for i, a := range waiting {
			read, err := s.core.Authorizations.Get(a.url)
			if err != nil {
				waiting = append(left, waiting[i:]...)
				return false, err
			}
			switch read.Status {
			case acme.StatusValid:
				s.say(renew.StepChallenge, a.name, a.name+" is validated.")
			case acme.StatusPending:
				left = append(left, a)
			default:
				s.orderGone = true
				failed = append(failed, s.refusal(a.name, read))
			}
		}
		waiting = left
		return len(waiting) == 0, nil
	})
	if err != nil {
		for _, a := range waiting {
			fault = s.fault(renew.StepChallenge, a.name, err)
			failed = append(failed, fault.Problems...)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	if fault == nil {
		fault = &renew.Fault{}
	}
	fault.Problems = failed
	return fault
}

// start posts the challenge. One that is being validated already (an order that
// was cut off) cannot be posted again, which is as good.
func (s *session) start(a authorization) error {
	if a.challenge.Status == acme.StatusProcessing {
		return nil
	}
	s.posted = true
	_, err := s.core.Challenges.New(a.challenge.URL)
	if problem, ok := errors.AsType[*acme.ProblemDetails](err); ok && problem.Type == errorType+"malformed" {
		return nil // the authorization will tell
	}
	return err
}

// deactivate tells the CA that we do not go on with the names of a dead order
// (RFC 8555 §7.5.2), so that they do not count as open.
func (s *session) deactivate(open []authorization) {
	if s.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.pace.cleanUp)
	defer cancel()
	s.wire.use(ctx)
	defer s.wire.use(s.ctx)
	for _, a := range open {
		if read, err := s.core.Authorizations.Get(a.url); err == nil && read.Status == acme.StatusPending {
			_ = s.core.Authorizations.Deactivate(a.url) // a courtesy: it expires anyhow
		}
	}
}
