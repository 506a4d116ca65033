// Package challenge is how this machine answers a CA that validates its names:
// by files in another web server's folder, over HTTP (RFC 8555 §8.3), or over
// TLS with a certificate made for the purpose (RFC 8737, RFC 8738).
//
// A session is opened before an order is placed, so that a port that is taken
// or a folder that is missing costs no attempt, and leaves nothing behind when
// it is closed. The ports serve answers to challenges and nothing else, and
// only while a session needs them. The package never talks to a CA and never
// sees a key but the throw-away ones that it makes.
package challenge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/certsitter/certsitter/renew"
)

// maxValidators bounds what a session remembers of who asked; a CA asks from
// a handful of places.
const maxValidators = 1000

// An Obstacle is why this machine cannot answer challenges.
type Obstacle struct {
	Sentence string // what is wrong and what it means
	Advice   string // what to do
	Err      error  // the system's reason; may be nil
}

func (o *Obstacle) Error() string { return o.Sentence + " " + o.Advice }

func (o *Obstacle) Unwrap() error { return o.Err }

// Responder answers the challenges of all orders of this machine. Parallel
// sessions share its ports.
type Responder struct {
	http, tls port
	folders   folders
}

// New returns a responder for the two ports. It opens nothing.
func New(httpPort, tlsPort int) *Responder {
	r := &Responder{}
	r.http = port{number: httpPort, setting: "http_port", what: "answers to HTTP-01 challenges", serve: serveHTTP}
	r.tls = port{number: tlsPort, setting: "tls_port", what: "answers to TLS-ALPN-01 challenges", serve: serveTLS}
	return r
}

// Session is one order's part of the responder.
type Session struct {
	kind  string
	names []string
	port  *port    // nil = a webroot, or nothing to answer
	files *answers // nil = a port

	mu           sync.Mutex // guards the rest, and the files
	closed       bool
	tokens       map[string]string           // token → key authorization
	certificates map[string]*tls.Certificate // server name → certificate with the answer
	validators   map[netip.Addr]bool
}

// Open makes ready to answer challenges of one kind ([renew.HTTP01],
// [renew.TLSALPN01]; [renew.DNS01] needs nothing of this machine) for names. It
// binds the port, or looks at the webroot if there is one. The error is an
// *[Obstacle] where a person can do something about it.
func (r *Responder) Open(ctx context.Context, kind, webroot string, names []string) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &Session{
		kind:         kind,
		tokens:       map[string]string{},
		certificates: map[string]*tls.Certificate{},
		validators:   map[netip.Addr]bool{},
	}
	for _, n := range names {
		s.names = append(s.names, canonical(n))
	}
	switch {
	case kind == renew.DNS01:
		return s, nil
	case kind == renew.HTTP01 && webroot != "":
		files, err := r.folders.open(webroot)
		if err != nil {
			return nil, err
		}
		s.files = files
		return s, nil
	case kind == renew.HTTP01:
		s.port = &r.http
	case kind == renew.TLSALPN01:
		s.port = &r.tls
	default:
		return nil, fmt.Errorf("this machine cannot answer challenges of the type %q", kind)
	}
	if err := s.port.join(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Present puts the answers in place, all or none, and returns when the machine
// gives them.
func (s *Session) Present(ctx context.Context, challenges []renew.Challenge) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	for _, c := range challenges {
		if err := s.fits(c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errors.New("the answers were asked for after the order's end")
	case s.files != nil:
		return s.files.write(challenges)
	case s.kind == renew.TLSALPN01:
		return s.certify(challenges)
	}
	for _, c := range challenges {
		s.tokens[c.Token] = c.KeyAuthorization
	}
	return nil
}

// certify makes one certificate for each challenge.
func (s *Session) certify(challenges []renew.Challenge) error {
	made := map[string]*tls.Certificate{}
	for _, c := range challenges {
		cert, err := answerCertificate(c.Name, c.KeyAuthorization)
		if err != nil {
			return fmt.Errorf("make the answer for %s: %w", c.Name, err)
		}
		made[serverName(c.Name)] = cert
	}
	for name, cert := range made {
		s.certificates[name] = cert
	}
	return nil
}

// Validators is how many different addresses asked for one of the session's
// answers. None, after the CA said that it got no answer, means that it never
// came through: the port's forwarding is missing. −1 means that it cannot be
// known, because another web server gives the answers.
func (s *Session) Validators() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files != nil {
		return -1
	}
	return len(s.validators)
}

// Close takes the answers away, and the port with the last session. It may be
// called more than once.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	switch {
	case s.port != nil:
		return s.port.leave(s)
	case s.files != nil:
		return s.files.remove()
	}
	return nil
}

// tokenSyntax is base64url without padding (RFC 8555 §8.1, §8.3): no other
// character can be part of a path of ours. 128 bits of entropy are 22
// characters; some CAs send a few less or many more. The lengths are no part of
// the pattern, which would be hundreds of times as large.
var tokenSyntax = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

const (
	shortestToken = 8
	longestToken  = 256
)

// thumbprintSyntax is the second half of a key authorization: a SHA-256 in
// base64url (RFC 8555 §8.1).
var thumbprintSyntax = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// fits says why a challenge is not one of this session: what the worker says
// is not taken on trust.
func (s *Session) fits(c renew.Challenge) error {
	thumbprint, whole := strings.CutPrefix(c.KeyAuthorization, c.Token+".")
	switch {
	case s.kind == renew.DNS01 || c.Type != s.kind:
		return fmt.Errorf("a challenge of type %q was asked for in an order with %s", c.Type, s.kind)
	case len(c.Token) < shortestToken || len(c.Token) > longestToken || !tokenSyntax.MatchString(c.Token):
		return fmt.Errorf("the token of the challenge for %q is not valid", c.Name)
	case !whole || !thumbprintSyntax.MatchString(thumbprint):
		return fmt.Errorf("the key authorization of the challenge for %q does not fit its token", c.Name)
	case !slices.Contains(s.names, canonical(c.Name)):
		return fmt.Errorf("a challenge for %q was asked for, which is none of the order's names", c.Name)
	}
	return nil
}

// canonical is a name as it is compared: lower case, no wildcard label, and
// one form of an IP address.
func canonical(name string) string {
	if a, err := netip.ParseAddr(name); err == nil {
		return a.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "*."), "."))
}

// answer is the key authorization for token, and notes who asked.
func (s *Session) answer(token string, from netip.Addr) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keyAuthorization, ok := s.tokens[token]
	if ok {
		s.note(from)
	}
	return keyAuthorization, ok
}

// certificate is the one with the answer for a server name, and notes who asked.
func (s *Session) certificate(name string, from netip.Addr) (*tls.Certificate, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert, ok := s.certificates[name]
	if ok {
		s.note(from)
	}
	return cert, ok
}

func (s *Session) note(from netip.Addr) {
	if len(s.validators) < maxValidators {
		s.validators[from] = true
	}
}
