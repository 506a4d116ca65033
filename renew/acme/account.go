package acme

import (
	"errors"
	"regexp"

	"github.com/go-acme/lego/v4/acme"

	"github.com/certsitter/certsitter/renew"
)

// findAccount uses the account that is known, or registers one. It does not ask
// whether the CA still knows the known one: the order will tell.
func (s *session) findAccount() error {
	if s.request.AccountURL != "" {
		s.accountURL = s.request.AccountURL
		return nil
	}
	return s.register()
}

// register makes an account for the key, or finds the one that the key already
// has: the CA answers newAccount with it (RFC 8555 §7.3.1).
func (s *session) register() error {
	s.say(renew.StepAccount, "", "Registering with the CA.")
	err := s.newAccount()
	if problem, ok := errors.AsType[*acme.ProblemDetails](err); ok && problem.HTTPStatus/100 == 4 && problem.HTTPStatus != 429 {
		// An external account's key may be good for one registration only, and
		// that may have been ours, with its answer lost.
		if s.accountByKey() == nil {
			err = nil
		}
	}
	if err != nil {
		return s.faultOfAccount(err)
	}
	if s.accountURL == s.request.AccountURL || s.hooks.Account == nil {
		return nil
	}
	if err := s.hooks.Account(s.ctx, s.accountURL); err != nil {
		return s.fault(renew.StepAccount, "", err)
	}
	return nil
}

func (s *session) newAccount() error {
	wanted := acme.Account{TermsOfServiceAgreed: true}
	if s.request.Email != "" {
		wanted.Contact = []string{"mailto:" + s.request.Email}
	}
	var account acme.ExtendedAccount
	var err error
	if s.request.EABKid != "" {
		account, err = s.core.Accounts.NewEAB(wanted, s.request.EABKid, s.request.EABHMAC)
	} else {
		account, err = s.core.Accounts.New(wanted)
	}
	return s.useAccount(account, err)
}

func (s *session) accountByKey() error {
	return s.useAccount(s.core.Accounts.New(acme.Account{OnlyReturnExisting: true}))
}

func (s *session) useAccount(account acme.ExtendedAccount, err error) error {
	if err == nil && account.Location == "" {
		err = errors.New("the CA did not say the account's URL")
	}
	if err == nil {
		s.accountURL = account.Location
	}
	return err
}

// renewAccount registers again after the CA said that it does not know us.
func (s *session) renewAccount() error {
	s.say(renew.StepAccount, "", "The CA does not know the account any more; registering again.")
	s.request.AccountURL, s.accountURL = "", ""
	if err := s.connect(); err != nil {
		return err
	}
	err := s.register()
	s.accountGone = err != nil
	return err
}

// faultOfAccount keeps the CA's last word, which is about the registration and
// not about the search by key that followed it.
func (s *session) faultOfAccount(err error) error {
	fault := s.fault(renew.StepAccount, "", err)
	fault.WholeDirectory = fault.RetryAfter > 0
	return fault
}

// wrongAccount finds the texts of Boulder and Pebble for an account URL that is
// not one of theirs.
var wrongAccount = regexp.MustCompile(`(?i)\bkid\b|keyid|account url`)

// accountUnknown says whether the CA does not know the account that we named.
func accountUnknown(err error) bool {
	problem, ok := errors.AsType[*acme.ProblemDetails](err)
	if !ok {
		return false
	}
	return problem.Type == errorType+"accountDoesNotExist" ||
		problem.Type == errorType+"malformed" && wrongAccount.MatchString(problem.Detail)
}
