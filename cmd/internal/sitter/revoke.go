package sitter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew"
)

// reasons are the revocation reasons that a subscriber may give (RFC 5280
// §5.3.1), by the names that ACME clients use.
var reasons = map[string]uint{
	"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5,
}

// revokeLimit bounds the revocation: one account and one message.
const revokeLimit = 3 * time.Minute

// revoke has the certificate in force revoked and then replaced by one with a
// new key. done hears whether it was revoked.
func (s *Sitter) revoke(works context.Context, now time.Time, name, reason string, done chan<- error) error {
	j := s.job(name)
	if j == nil {
		return s.notManaged(name)
	}
	code, known := reasons[reason]
	if !known {
		return &Refused{Code: "unknown", Sentence: fmt.Sprintf("There is no revocation reason %q. Known are: %s.", reason, strings.Join(slices.Sorted(maps.Keys(reasons)), ", "))}
	}
	if j.newest == nil {
		return &Refused{Code: "unknown", Sentence: fmt.Sprintf("There is no certificate of %s to revoke.", name)}
	}
	if j.newest.AccountURL == "" {
		return &Refused{Code: "unknown", Sentence: fmt.Sprintf("The certificate of %s was made by another client, so that client's account must revoke it.", name)}
	}
	if j.running {
		return &Refused{Code: "busy", Sentence: fmt.Sprintf("%s is being renewed already. Try again when that has ended.", name)}
	}
	if until, why := renew.Guard(now, s.factsAt(now, j, j.place(RenewOptions{})), j.rules); !until.IsZero() {
		// Revoking first would leave nothing in force until then.
		return guardRefusal(why, until, now)
	}
	j.running, j.step = true, "revoking"
	run := s.revocation(*j.newest, j, code)
	s.work(works, revokeLimit, "the revocation of "+name, func(ctx context.Context) func(time.Time) {
		err := run(ctx)
		return func(now time.Time) {
			done <- err
			s.wasRevoked(now, name, err)
		}
	})
	return nil
}

// revocation is what is done beside the loop.
func (s *Sitter) revocation(v renew.Version, j *job, reason uint) func(context.Context) error {
	stored, revoke, name, kid, roots := s.world.Store, s.world.Revoke, j.name, j.order.EABKid, j.order.Roots
	return func(ctx context.Context) error {
		account, err := stored.Account(v.Directory, kid)
		if err != nil {
			return fmt.Errorf("read account: %w", err)
		}
		bundle, err := stored.Bundle(name, v.ID)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		leaf, err := expiry.Parse(bundle.Leaf)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		return revoke(ctx, renew.RevokeRequest{
			Directory: v.Directory, Roots: roots, AccountKey: account.Key, AccountURL: v.AccountURL,
			Certificate: leaf.Leaf.Raw, Reason: reason,
		})
	}
}

func (s *Sitter) wasRevoked(now time.Time, name string, err error) {
	j := s.job(name)
	if j == nil {
		return
	}
	j.running, j.step = false, ""
	if err != nil {
		s.log.Error().Err(err).Str("cert", name).Msg("not revoked")
		s.emit(Event{Name: name, Kind: "refused", Text: clip("Not revoked: " + err.Error())})
		return
	}
	s.emit(Event{Name: name, Kind: "progress", Text: "Revoked. Ordering a new certificate with a new key."})
	j.revoked, j.byHand = true, true
	j.asked = &RenewOptions{Force: true}
}
