package sitter

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
)

// After a restart it is still known that a server sends the chain of a CA that
// nobody trusts, such as one for trials; else people are told that it is missing.
func TestAChainIsKnownAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, _ string) {
		w := newEarth(t, 90*day)
		whole := &expiry.Certificate{Leaf: w.ca, Chain: []*x509.Certificate{w.ca}}
		for _, chain := range [][]*x509.Certificate{nil, whole.Chain} {
			s := &Sitter{settings: &settings.Settings{}, memory: &memory{Certificates: map[string]*entry{}}, parsed: map[string]*expiry.Certificate{}}
			seen := &expiry.Certificate{Leaf: w.ca, Chain: chain}
			s.saw(w.ca.NotBefore, "home", "home:443", probe.Result{Certificate: seen, ChainError: errors.New("unknown authority")}, nil)
			clear(s.parsed)
			got := s.served("home", "home:443", whole)
			if got.Certificate == nil || got.ChainOK || len(got.Certificate.Chain) != len(chain) {
				t.Errorf("%d of a chain became %+v", len(chain), got)
			}
		}
	})
}
