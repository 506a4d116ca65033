package acme

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"

	"github.com/certsitter/certsitter/renew"
)

// canonical writes names as a CA does: lower case, IP addresses in their usual
// form (RFC 8738 §3), each once.
func canonical(names []string) []string {
	var all []string
	for _, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		if address, err := netip.ParseAddr(name); err == nil {
			name = address.String()
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

func encoded(der []byte) string { return base64.RawURLEncoding.EncodeToString(der) }

// takeOrder takes the known order up or places a new one. An account that the
// CA does not know is registered again, once.
func (s *session) takeOrder() error {
	err := s.resumeOrPlace()
	if !accountUnknown(err) {
		return s.orderFault(err)
	}
	s.orderGone = s.request.OrderURL != ""
	s.request.OrderURL = ""
	if err := s.renewAccount(); err != nil {
		return err
	}
	err = s.resumeOrPlace()
	s.accountGone = accountUnknown(err)
	return s.orderFault(err)
}

func (s *session) orderFault(err error) error {
	if err == nil {
		return nil
	}
	return s.fault(renew.StepOrder, "", err)
}

func (s *session) resumeOrPlace() error {
	s.resumed = false
	if s.request.OrderURL != "" {
		taken, err := s.resume()
		if taken || err != nil {
			return err
		}
	}
	return s.place()
}

// resume takes the known order up, if the CA still has it and it is for these
// names.
func (s *session) resume() (bool, error) {
	s.say(renew.StepOrder, "", "Taking up the order that was cut off.")
	order, err := s.core.Orders.Get(s.request.OrderURL)
	switch {
	case err == nil && order.Status != acme.StatusInvalid && sameNames(order.Identifiers, s.names):
		order.Location = s.request.OrderURL
		s.order, s.resumed = order, true
		s.replaced = s.request.Replaces != "" && order.Replaces == s.request.Replaces
		return true, nil
	case err == nil || s.orderUnknown(err):
		s.orderGone = true
		return false, nil
	}
	return false, err
}

func sameNames(identifiers []acme.Identifier, names []string) bool {
	var have []string
	for _, identifier := range identifiers {
		have = append(have, identifier.Value)
	}
	have = canonical(have)
	slices.Sort(have)
	return slices.Equal(have, slices.Sorted(slices.Values(names)))
}

// orderUnknown says whether an error means that there is no such order for us.
func (s *session) orderUnknown(err error) bool {
	if accountUnknown(err) {
		return false
	}
	switch s.wire.lastAnswer().status {
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden, http.StatusBadRequest, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

// replacesRefused finds an order that was refused for what it says to replace,
// in the words of Boulder (wfe2/wfe.go) and Pebble.
var replacesRefused = regexp.MustCompile(`(?i)replac|\bARI\b|certid|for the given certificate`)

// place places a new order. "replaces" is a courtesy (RFC 9773 §5): an order
// that is refused for it is repeated without.
func (s *session) place() error {
	s.say(renew.StepOrder, "", "Placing the order.")
	options := &api.OrderOptions{Profile: s.request.Profile, ReplacesCertID: s.request.Replaces}
	conflicts := s.wire.conflictCount()
	order, err := s.core.Orders.NewWithOptions(s.names, options)
	s.replaced = s.request.Replaces != "" && s.core.GetDirectory().RenewalInfo != "" && s.wire.conflictCount() == conflicts
	if err != nil && s.replaced && refusedForReplaces(err) {
		s.replaced, options.ReplacesCertID = false, ""
		order, err = s.core.Orders.NewWithOptions(s.names, options)
	}
	if err != nil {
		return err
	}
	if order.Location == "" {
		return errors.New("the CA did not say the order's URL")
	}
	s.order, s.orderGone = order, false
	if s.hooks.Placed == nil {
		return nil
	}
	return s.hooks.Placed(s.ctx, order.Location)
}

func refusedForReplaces(err error) bool {
	problem, ok := errors.AsType[*acme.ProblemDetails](err)
	return ok && !accountUnknown(err) && problem.Type != errorType+"rateLimited" &&
		(problem.HTTPStatus == http.StatusNotFound || replacesRefused.MatchString(problem.Detail))
}

// collect finalizes an order whose names are validated, as far as that is still
// to be done, and downloads the certificate.
func (s *session) collect() ([]byte, error) {
	if s.order.Status != acme.StatusProcessing && s.order.Status != acme.StatusValid {
		if err := s.finalize(); err != nil {
			return nil, err
		}
	}
	if err := s.waitForCertificate(); err != nil {
		return nil, err
	}
	s.say(renew.StepCertificate, "", "Downloading the certificate.")
	var chain []byte
	err := s.poll(s.pace.issuance, func() (done bool, err error) {
		chain, err = s.download()
		return true, err
	})
	if errors.Is(err, errOtherKey) {
		s.orderGone = true
	}
	if err != nil {
		return nil, s.fault(renew.StepCertificate, "", err)
	}
	return chain, nil
}

// finalize sends the CSR. The order may have been finalized although no answer
// came, or not yet be ready although its names are: the order tells.
func (s *session) finalize() error {
	s.say(renew.StepFinalize, "", "Asking for the certificate.")
	location := s.order.Location
	tried := false
	err := s.poll(s.pace.issuance, func() (bool, error) {
		if tried {
			if err := s.refresh(); err != nil || s.order.Status == acme.StatusPending {
				return false, err
			}
			if s.order.Status != acme.StatusReady {
				return true, nil
			}
		}
		tried = true
		order, err := s.core.Orders.UpdateForCSR(s.order.Finalize, s.request.CSR)
		if err == nil {
			order.Location = location
			order.Finalize = s.order.Finalize
			s.order = order
			return true, nil
		}
		if problem, ok := errors.AsType[*acme.ProblemDetails](err); ok && problem.Type == errorType+"orderNotReady" {
			return false, nil
		}
		return false, err
	})
	if err == nil {
		return nil
	}
	if problem, ok := errors.AsType[*acme.ProblemDetails](err); ok {
		// What was refused once is refused again: the order is of no more use.
		s.orderGone = problem.HTTPStatus/100 == 4 && problem.HTTPStatus != http.StatusTooManyRequests || problem.HTTPStatus == 0
	}
	return s.fault(renew.StepFinalize, "", err)
}

// refresh reads the order again.
func (s *session) refresh() error {
	order, err := s.core.Orders.Get(s.order.Location)
	if err != nil {
		return err
	}
	order.Location = s.order.Location
	s.order = order
	return nil
}

// waitForCertificate waits until the order is valid.
func (s *session) waitForCertificate() error {
	first := true
	err := s.poll(s.pace.issuance, func() (bool, error) {
		if !first {
			if err := s.refresh(); err != nil {
				return false, err
			}
		}
		first = false
		switch s.order.Status {
		case acme.StatusValid:
			return true, nil
		case acme.StatusInvalid:
			s.orderGone = true
			return false, permanent{eitherError(s.order.Err(), errors.New("the CA gave the order up without saying why"))}
		}
		return false, nil
	})
	if err != nil {
		return s.fault(renew.StepFinalize, "", err)
	}
	return nil
}

// eitherError is the first error that is one.
func eitherError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// errOtherKey: the certificate of a resumed order is for another key, so for
// another CSR than the one we have.
var errOtherKey = errors.New("the certificate is not for the key of the request")

// download fetches the chain, or the alternate one whose topmost issuer is the
// preferred one (RFC 8555 §7.4.2). Without such a chain the CA's default is as
// good as ever.
func (s *session) download() ([]byte, error) {
	data, _, err := s.core.Certificates.Get(s.order.Certificate, true)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(data)
	if err != nil {
		return nil, err
	}
	if err := s.fitsRequest(chain[0]); err != nil {
		return nil, permanent{err}
	}
	if s.request.PreferredChain != "" && topIssuer(chain) != s.request.PreferredChain {
		chain = s.preferred(chain)
	}
	return encodeChain(chain), nil
}

func (s *session) preferred(usual []*x509.Certificate) []*x509.Certificate {
	all, err := s.core.Certificates.GetAll(s.order.Certificate, true)
	if err != nil {
		return usual
	}
	for _, raw := range all {
		chain, err := parseChain(raw.Cert)
		if err == nil && topIssuer(chain) == s.request.PreferredChain && s.fitsRequest(chain[0]) == nil {
			return chain
		}
	}
	s.say(renew.StepCertificate, "", "The CA offers no chain to "+s.request.PreferredChain+"; its usual one is taken.")
	return usual
}

func topIssuer(chain []*x509.Certificate) string {
	return chain[len(chain)-1].Issuer.CommonName
}

func (s *session) fitsRequest(leaf *x509.Certificate) error {
	request, err := x509.ParseCertificateRequest(s.request.CSR)
	if err != nil {
		return fmt.Errorf("certificate request: %w", err)
	}
	key, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(leaf.PublicKey) {
		return errOtherKey
	}
	return nil
}

func parseChain(data []byte) (chain []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the CA's certificate: %w", err)
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate in what the CA sent")
	}
	return chain, nil
}

func encodeChain(chain []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, certificate := range chain {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	}
	return out.Bytes()
}

// permanent is an error that another try does not heal.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// errSlow: the CA has not come to a result.
var errSlow = errors.New("the CA has not come to a result in time")

// poll looks until it is done: soon at first, then more and more seldom, and
// not before the CA's Retry-After. A CA that cannot be reached or says 5xx is
// asked again for a while: an order that was placed deserves that.
func (s *session) poll(limit time.Duration, look func() (done bool, err error)) error {
	wait := s.pace.firstPoll
	started := time.Now()
	var failing time.Time
	for {
		done, err := look()
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			failing = time.Time{}
		case !s.worthRepeating(err):
			return err
		case failing.IsZero():
			failing = time.Now()
		}
		if !failing.IsZero() && time.Since(failing) >= s.pace.patience {
			return err
		}
		if time.Since(started) >= limit {
			return eitherError(err, errSlow)
		}
		if err := s.sleep(max(wait, min(s.wire.lastAnswer().retryAfter, s.pace.longestRetryAfter))); err != nil {
			return err
		}
		wait = min(wait*8/5, s.pace.slowestPoll)
	}
}

// worthRepeating says whether an error may be gone in a moment: the network's,
// or the CA's own unless it asks for a longer rest.
func (s *session) worthRepeating(err error) bool {
	if s.ctx.Err() != nil {
		return false
	}
	if _, ok := errors.AsType[permanent](err); ok {
		return false
	}
	last := s.wire.lastAnswer()
	return last.status == 0 ||
		last.status >= http.StatusInternalServerError && last.retryAfter <= s.pace.patience ||
		last.status < http.StatusBadRequest
}

func (s *session) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
