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
	v := *j.newest
	run := s.revocation(v, j, code)
	s.work(works, revokeLimit, "the revocation of "+name, func(ctx context.Context) func(time.Time) {
		err := run(ctx)
		return func(now time.Time) {
			s.wasRevoked(now, name, v.Fingerprint, err)
			done <- err
		}
	})
	return nil
}

// revocation is what is done beside the loop.
func (s *Sitter) revocation(v renew.Version, j *job, reason uint) func(context.Context) error {
	stored, revoke, name, kid, roots := s.world.Store, s.world.Revoke, j.name, v.EABKid, j.order.Roots
	if v.Directory != j.rules.Directory { // the roots are the present CA's
		roots = nil
	}
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

// wasRevoked takes in the end of a revocation. What was revoked is remembered
// until it is replaced: by an order now, or by later ones if that fails.
func (s *Sitter) wasRevoked(now time.Time, name, fingerprint string, err error) {
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
	s.memory.of(name).Revoked = fingerprint
	s.dirty = true
	s.save()
	j.byHand = true
	j.asked = &RenewOptions{Force: true}
}
