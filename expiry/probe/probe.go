// Package probe gets certificates from where they are: TLS endpoints, with the
// STARTTLS dialogues of the usual protocols, and files.
//
// It checks names and chains itself and apart from the connection, so that an
// expired, untrusted or wrong certificate is still read. It never follows a
// redirect, never fetches an address that stands in a certificate, sends no
// application data and judges nothing: expiry does.
package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

// The time that a probe may take from the name's look-up to the certificate.
const (
	DefaultTimeout         = 10 * time.Second
	DefaultTimeoutStartTLS = 15 * time.Second // mail servers let strangers wait
)

// Options says how to look. The zero value is right for the Internet.
type Options struct {
	Roots   *x509.CertPool // nil = the system's
	Timeout time.Duration  // for everything together; 0 = the defaults above
	// Dial connects; nil = a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Result is what an endpoint serves.
type Result struct {
	Certificate *expiry.Certificate
	Version     uint16 // of TLS, as in crypto/tls
	NameError   error  // why it is not for the target's server name; nil = it is
	ChainError  error  // why it does not chain to a root, dates apart; nil = it does
}

// Probe asks an endpoint for its certificate. An expired certificate, a wrong
// name and a missing chain are no errors: they are in the result. The error is
// the cause of ctx if that ended, else a *Fault.
func Probe(ctx context.Context, t Target, now time.Time, o Options) (Result, error) {
	limit := cmp.Or(o.Timeout, t.timeout())
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	state, err := o.look(bounded, t, usualCurves)
	if _, began := errors.AsType[*handshakeError](err); began && bounded.Err() == nil && (alerted(err) || hungUp(err)) {
		// What the offer lacks may be what the server insists on.
		state, err = o.look(bounded, t, nil)
	}
	if err != nil {
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		return Result{}, explain(t, err, limit)
	}
	c := &expiry.Certificate{Leaf: state.PeerCertificates[0], Chain: state.PeerCertificates[1:]}
	return Result{
		Certificate: c,
		Version:     state.Version,
		NameError:   nameError(c, t.ServerName),
		ChainError:  c.VerifyChain(o.Roots, now),
	}, nil
}

func (t Target) timeout() time.Duration {
	if schemes[t.Protocol].upgrade != nil {
		return DefaultTimeoutStartTLS
	}
	return DefaultTimeout
}

// usualCurves are Go's own without the post-quantum ones. Those protect what is
// said after the handshake, and we say nothing; making their keys is two fifths of
// a probe's CPU time, and their long first message confuses old devices. All the
// others are offered, because before TLS 1.3 a server chooses its certificate by
// them (RFC 8422 §4): with X25519 alone it might show its RSA certificate instead
// of the other. A server that insists on a post-quantum one is asked again with
// Go's defaults.
var usualCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// legacySuites are offered besides Go's defaults: routers and printers know
// nothing else, and what they serve is to be seen (the connection carries nothing).
var legacySuites = []uint16{
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
}

func offeredSuites() []uint16 {
	var ids []uint16
	for _, suite := range tls.CipherSuites() {
		ids = append(ids, suite.ID)
	}
	return append(ids, legacySuites...)
}

// A handshakeError is one of the TLS handshake itself, so not of the way there.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// look connects, goes through the protocol's dialogue and shakes hands.
func (o Options) look(ctx context.Context, t Target, curves []tls.CurveID) (tls.ConnectionState, error) {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", t.Address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	// The deadline ends a read by itself; AfterFunc is for a context that is
	// cancelled earlier.
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	if upgrade := schemes[t.Protocol].upgrade; upgrade != nil {
		if err := upgrade(conn); err != nil {
			return tls.ConnectionState{}, dialogueError(t, err)
		}
	}
	return shake(conn, t.ServerName, curves)
}

// dialogueError leaves the connection's own errors to explain.
func dialogueError(t Target, err error) error {
	if _, ok := errors.AsType[net.Error](err); ok || hungUp(err) {
		return err
	}
	return fault(CodeProtocol, err, "%s cannot be asked for its certificate by %s: %v.", t.Address, strings.ToUpper(t.Protocol), err)
}

// shake makes the TLS handshake. A server that wants a certificate of ours may
// break it off in the end; what it has shown and proved by then is taken.
func shake(conn net.Conn, name string, curves []tls.CurveID) (tls.ConnectionState, error) {
	var seen tls.ConnectionState
	var proved bool
	client := tls.Client(conn, &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: true, // verified by Probe: crypto/tls would drop the facts
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       offeredSuites(),
		CurvePreferences:   curves,
		VerifyConnection: func(state tls.ConnectionState) error {
			seen = state
			return nil
		},
		// Called after the server's signature was checked.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			proved = true
			return &tls.Certificate{}, nil
		},
	})
	err := client.Handshake()
	switch {
	case err == nil:
		seen = client.ConnectionState()
		_ = client.Close() // says good-bye, so that no server logs an error
	case !proved || !alerted(err) && !hungUp(err):
		return tls.ConnectionState{}, &handshakeError{err}
	}
	if len(seen.PeerCertificates) == 0 {
		return tls.ConnectionState{}, &handshakeError{errors.New("the server shows no certificate")}
	}
	return seen, nil
}

// nameError says in a sentence why a certificate is not for a name.
func nameError(c *expiry.Certificate, name string) error {
	err := c.Leaf.VerifyHostname(name)
	if err == nil {
		return nil
	}
	names := c.Names()
	if len(c.Leaf.DNSNames)+len(c.Leaf.IPAddresses) == 0 && len(names) > 0 {
		return fault(CodeTLS, err, "The certificate has %s as its common name only, which counts for no browser any more.", names[0])
	}
	const shown = 3
	more := ""
	if len(names) > shown {
		more = fmt.Sprintf(" and %d more", len(names)-shown)
		names = names[:shown]
	}
	return fault(CodeTLS, err, "The certificate is for %s%s, not for %s.", cmp.Or(strings.Join(names, ", "), "no name"), more, name)
}
