package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/expiry"
)

// A Fault says why a certificate could not be got. Its text is a whole sentence
// for people, and says what to do where that is not plain.
type Fault struct {
	Code     string // stable, for programs: one of the Code constants
	Sentence string
	Err      error // what was behind it; may be nil
}

func (f *Fault) Error() string { return f.Sentence }

// Unwrap is what was behind it.
func (f *Fault) Unwrap() error { return f.Err }

// The codes of faults.
const (
	CodeTarget        = "target"         // the address cannot be understood
	CodeDNS           = "dns"            // its name is not known, or no name server answered
	CodeRefused       = "refused"        // nothing listens there
	CodeUnreachable   = "unreachable"    // no way leads there
	CodeTimeout       = "timeout"        // no answer in time
	CodeClosed        = "closed"         // it hung up before it showed a certificate
	CodeProtocol      = "protocol"       // it does not speak the protocol, or offers no TLS
	CodeTLS           = "tls"            // no TLS connection came about
	CodeNotFound      = "not_found"      // no such file
	CodeBrokenLink    = "broken_link"    // a link that leads nowhere
	CodePermission    = "permission"     // the file may not be read
	CodeNoFile        = "no_file"        // a folder, a pipe, a device
	CodeTooLarge      = "too_large"      // more than a certificate file can have
	CodeNoCertificate = "no_certificate" // a file without a certificate
	CodeDamaged       = "damaged"        // a certificate that cannot be parsed
	CodePassword      = "password"       // the password is missing or wrong
	CodeUnsupported   = "unsupported"    // a form that cannot be read
	CodePattern       = "pattern"        // a pattern that cannot be understood, or matches too much
	CodeRead          = "read"           // any other reason
)

func fault(code string, err error, format string, args ...any) *Fault {
	return &Fault{Code: code, Sentence: fmt.Sprintf(format, args...), Err: err}
}

// explain turns what happened on the way to an endpoint into a sentence.
func explain(t Target, err error, limit time.Duration) error {
	if _, ok := errors.AsType[*Fault](err); ok {
		return err
	}
	at := t.Address
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fault(CodeDNS, err, "The name %s is not known: check how it is written, and the name server of this machine.", t.Host)
		}
		return fault(CodeDNS, err, "The name %s could not be looked up: the name server of this machine does not answer.", t.Host)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fault(CodeTLS, err, "%s answers, but not with TLS: check the port and the protocol.", at)
	}
	switch {
	case timedOut(err):
		return fault(CodeTimeout, err, "%s did not answer within %v: check that it is switched on and that no firewall is between.", at, limit)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault(CodeRefused, err, "%s refuses connections: nothing listens there.", at)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fault(CodeUnreachable, err, "%s cannot be reached: no way leads there from this machine.", at)
	case hungUp(err):
		return fault(CodeClosed, err, "%s closed the connection before it showed a certificate.", at)
	case alerted(err):
		return fault(CodeTLS, err, "%s broke off the TLS handshake: %s.", at, reason(err))
	}
	return fault(CodeTLS, err, "No TLS connection to %s came about: %s.", at, reason(err))
}

func timedOut(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// alerted reports whether the other side broke off by a TLS alert (RFC 8446
// §6.2). crypto/tls marks it by the operation's name only.
func alerted(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

func reason(err error) string {
	s := strings.TrimPrefix(err.Error(), "remote error: ")
	return expiry.Printable(strings.TrimPrefix(s, "tls: "))
}

// explainFile turns what happened to a file into a sentence.
func explainFile(path string, err error) error {
	shown := expiry.Printable(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if info, linkErr := os.Lstat(path); linkErr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return fault(CodeBrokenLink, err, "%s is a link that leads nowhere.", shown)
		}
		return fault(CodeNotFound, err, "%s does not exist.", shown)
	case errors.Is(err, fs.ErrPermission):
		return fault(CodePermission, err, "%s may not be read: give the user that Certsitter runs as the right to read it and to pass its folders.", shown)
	case errors.Is(err, syscall.ENOTDIR):
		return fault(CodeNotFound, err, "%s does not exist: a part of the path is no folder.", shown)
	case errors.Is(err, syscall.ELOOP):
		return fault(CodeBrokenLink, err, "%s is a link that leads in a circle.", shown)
	}
	return fault(CodeRead, err, "%s could not be read: %s.", shown, expiry.Printable(err.Error()))
}

// explainContent turns what is wrong with a file's content into a sentence.
func explainContent(path string, err error) error {
	shown := expiry.Printable(path)
	switch {
	case errors.Is(err, expiry.ErrNoCertificate):
		return fault(CodeNoCertificate, err, "%s holds no certificate.", shown)
	case errors.Is(err, expiry.ErrPassword):
		return fault(CodePassword, err, "%s is protected by a password, and the one that is set under password is missing or wrong.", shown)
	case errors.Is(err, expiry.ErrUnsupported):
		return fault(CodeUnsupported, err, "%s cannot be read: %s.", shown, err)
	case errors.Is(err, expiry.ErrDamaged):
		return fault(CodeDamaged, err, "%s cannot be read: %s.", shown, err)
	}
	return fault(CodeRead, err, "%s could not be read: %s.", shown, err)
}
