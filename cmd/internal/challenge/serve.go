package challenge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// patience is how long one validator's request or handshake may take; a
	// CA's own limit is about as long.
	patience = 10 * time.Second
	// maxHeader is far above what a validator sends.
	maxHeader = 8 << 10
	// challengePath is where a CA looks (RFC 8555 §8.3).
	challengePath = "/.well-known/acme-challenge/"
	// alpn is the protocol of TLS-ALPN-01 (RFC 8737 §6.2).
	alpn = "acme-tls/1"
)

// serveHTTP answers HTTP-01 challenges until stop is called. It looks at the
// token alone, not at Host: a proxy or port forwarding may change it.
func serveHTTP(l net.Listener, p *port) (stop func()) {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, found := strings.CutPrefix(r.URL.Path, challengePath)
			if found && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
				for _, s := range p.current() {
					if answer, ok := s.answer(token, remote(r.RemoteAddr)); ok {
						w.Header().Set("Content-Type", "application/octet-stream")
						w.Header().Set("Cache-Control", "no-store")
						_, _ = io.WriteString(w, answer) // the validator's loss
						return
					}
				}
			}
			http.NotFound(w, r)
		}),
		ReadHeaderTimeout:            patience / 2,
		ReadTimeout:                  patience,
		WriteTimeout:                 patience,
		IdleTimeout:                  patience / 2,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     log.New(io.Discard, "", 0), // the Internet's noise
		DisableGeneralOptionsHandler: true,
	}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	return func() {
		_ = server.Close()
		running.Wait()
	}
}

// errNoChallenge ends handshakes with whoever is no validator.
var errNoChallenge = errors.New("no challenge is answered here")

// serveTLS answers TLS-ALPN-01 challenges until stop is called: the handshake
// is the answer, and nothing is ever read or written after it.
func serveTLS(l net.Listener, p *port) (stop func()) {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true, // each validation is to see the certificate
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			// RFC 8737 §3: the validator offers exactly this protocol.
			if slices.Equal(hello.SupportedProtos, []string{alpn}) {
				name := strings.ToLower(hello.ServerName)
				for _, s := range p.current() {
					if cert, ok := s.certificate(name, remote(hello.Conn.RemoteAddr().String())); ok {
						return cert, nil
					}
				}
			}
			return nil, errNoChallenge
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // too many open files, a connection that is gone again
				if !pause(ctx, 50*time.Millisecond) {
					return
				}
			default:
				running.Go(func() { shake(ctx, tls.Server(c, config)) })
			}
		}
	})
	return func() {
		cancel()
		_ = l.Close()
		running.Wait()
	}
}

// shake does one handshake and closes the connection.
func shake(ctx context.Context, c *tls.Conn) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = c.HandshakeContext(ctx) // the validator tells the CA, not us
	_ = c.SetWriteDeadline(time.Now().Add(patience / 10))
	_ = c.Close()
}

func pause(ctx context.Context, d time.Duration) (going bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// acmeIdentifier is id-pe-acmeIdentifier (RFC 8737 §6.1).
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// The throw-away certificate's dates are not looked at (RFC 8737 §3), so they
// do not depend on a clock: RFC 5280 §4.1.2.5 names the last one for "no end".
var (
	always = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	never  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// answerCertificate is the self-signed certificate that answers a TLS-ALPN-01
// challenge: the name alone, and the digest of the key authorization in a
// critical extension (RFC 8737 §3; addresses: RFC 8738 §6).
func answerCertificate(name, keyAuthorization string) (*tls.Certificate, error) {
	digest := sha256.Sum256([]byte(keyAuthorization))
	value, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)), // positive: RFC 5280 §4.1.2.2
		Subject:               pkix.Name{CommonName: "ACME challenge"},
		NotBefore:             always,
		NotAfter:              never,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: value}},
	}
	if a, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{a.Unmap().AsSlice()}
	} else {
		template.DNSNames = []string{canonical(name)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// serverName is what a validator sends as SNI: the name, or an address as its
// name in the reverse tree (RFC 8738 §6).
func serverName(name string) string {
	a, err := netip.ParseAddr(name)
	if err != nil {
		return canonical(name)
	}
	const hex = "0123456789abcdef"
	bytes := a.Unmap().AsSlice()
	slices.Reverse(bytes)
	var b strings.Builder
	for _, octet := range bytes {
		if len(bytes) == net.IPv4len {
			b.WriteString(big.NewInt(int64(octet)).String() + ".")
		} else {
			b.Write([]byte{hex[octet&15], '.', hex[octet>>4], '.'})
		}
	}
	if len(bytes) == net.IPv4len {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
