package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Time asks a CA what time it is: the Date of an answer, whatever its status,
// over TLS that was verified without our clock. A machine without a clock of
// its own thinks it is 1970 and would refuse every certificate; so the server's
// chain is judged at the time that the server claims, and that must not be
// before build, when this program was made. Who holds a trusted certificate can
// therefore only claim a time at which it was valid.
func (c *Client) Time(ctx context.Context, address string, roots []byte, build time.Time) (time.Time, error) {
	date, err := c.time(ctx, address, roots, build)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask %s for the time: %w", address, err)
	}
	return date, nil
}

func (c *Client) time(ctx context.Context, address string, roots []byte, build time.Time) (time.Time, error) {
	pool, err := rootPool(roots)
	if err != nil {
		return time.Time{}, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return time.Time{}, errors.New("this is no URL")
	}
	check := verification{host: u.Hostname(), roots: pool, build: build}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	// Verification is not skipped: Go's own needs the clock that is in doubt, so
	// ours takes its place.
	response, err := c.do(ctx, address, &tls.Config{InsecureSkipVerify: true, VerifyConnection: check.handshake}, noRedirect)
	if err != nil {
		return time.Time{}, err
	}
	_ = response.Body.Close() // only its head is of interest
	date := dateOf(response.Header)
	switch {
	case date.IsZero():
		return time.Time{}, errors.New("the answer has no date")
	case date.Before(build):
		return time.Time{}, fmt.Errorf("it claims to be %s, which is before this program was made", date.Format(time.DateOnly))
	case response.TLS == nil:
		return time.Time{}, errors.New("the answer did not come over TLS")
	}
	if err := check.at(response.TLS.PeerCertificates, date); err != nil {
		return time.Time{}, err
	}
	return date, nil
}

// A verification of a server that needs no clock.
type verification struct {
	host  string
	roots *x509.CertPool // nil = the system's
	build time.Time
}

// handshake refuses a server whose chain is not valid at any time from the build
// on. Both ends of the leaf's life are tried, since an intermediate may begin
// after the leaf does.
func (v verification) handshake(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	if leaf.NotAfter.Before(v.build) {
		return fmt.Errorf("the server's certificate expired on %s, before this program was made", leaf.NotAfter.Format(time.DateOnly))
	}
	first := leaf.NotBefore
	if v.build.After(first) {
		first = v.build
	}
	err := v.at(state.PeerCertificates, first)
	if err != nil && v.at(state.PeerCertificates, leaf.NotAfter) == nil {
		return nil
	}
	return err
}

// at verifies a chain as of a time.
func (v verification) at(chain []*x509.Certificate, now time.Time) error {
	options := x509.VerifyOptions{
		Roots: v.roots, DNSName: v.host, CurrentTime: now,
		Intermediates: x509.NewCertPool(),
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err
}
