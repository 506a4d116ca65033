package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// explain says in one sentence for people why there is no connection to the
// broker, and in a second what to do. It never shows the password.
func explain(b brokerAddress, err error) string {
	at := "the broker at " + b.address
	for _, e := range explanations(b, at) {
		if e.match(err) {
			return e.sentence
		}
	}
	if s, ok := explainTLS(b, at, err); ok {
		return s
	}
	if s, ok := explainLogin(b, at, err); ok {
		return s
	}
	return fmt.Sprintf("There is no connection to %s: %v.", at, err)
}

type explanation struct {
	match    func(error) bool
	sentence string
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// explanations are tried in their order: the specific before the general.
func explanations(b brokerAddress, at string) []explanation {
	login := fmt.Sprintf("User name or password are not accepted by %s. Check mqtt.username (%q) and mqtt.password, and the broker's own log.", at, b.username)
	if b.username == "" {
		login = fmt.Sprintf("The login without a user name is not accepted by %s. Set mqtt.username and mqtt.password.", at)
	}
	return []explanation{
		{is(packets.ErrorRefusedBadUsernameOrPassword), login},
		{is(packets.ErrorRefusedNotAuthorised), login},
		{is(packets.ErrorRefusedIDRejected), fmt.Sprintf("Our client id is refused by %s. Allow client ids that begin with certsitter- for this user.", at)},
		{is(packets.ErrorRefusedBadProtocolVersion), fmt.Sprintf("MQTT 3.1.1 is not spoken by %s. Allow that version in its configuration.", at)},
		{is(packets.ErrorRefusedServerUnavailable), fmt.Sprintf("No new clients are taken at the moment by %s. It is tried again by itself.", at)},
		{noSuchHost, fmt.Sprintf("The name %q cannot be found. Check mqtt.broker, or write the broker's IP address; names that end in .local work only where the system resolves them.", b.url.Hostname())},
		{is(syscall.ECONNREFUSED), fmt.Sprintf("Nothing listens at %s. Check that the broker runs, and its port: usually 1883, and 8883 with TLS.", b.address)},
		{is(syscall.EHOSTUNREACH), fmt.Sprintf("There is no way to %s in the network. Check the address, and that its machine is on.", b.address)},
		{is(syscall.ENETUNREACH), fmt.Sprintf("There is no way to %s: the network is not there. It is tried again by itself.", b.address)},
		{timedOut, fmt.Sprintf("No answer came from %s within %d seconds. Check address and port, and whether a firewall is in between.", b.address, int(connectWithin.Seconds()))},
	}
}

func noSuchHost(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && !e.IsTimeout
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, errNoAnswer) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func explainTLS(b brokerAddress, at string, err error) (string, bool) {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := strings.Join(e.Certificate.DNSNames, ", ")
		for _, ip := range e.Certificate.IPAddresses {
			names = strings.TrimPrefix(names+", "+ip.String(), ", ")
		}
		return fmt.Sprintf("The certificate of %s is not for %s, but for %s. Write one of these names in mqtt.broker.", at, b.url.Hostname(), text(names, sentenceLimit)), true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Sprintf("The certificate of %s comes from an authority that is not known here. Set mqtt.ca_file to that authority's certificate.", at), true
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return fmt.Sprintf("The certificate of %s is out of date (valid from %s to %s). Renew it there, or check this machine's clock.",
				at, instant(e.Cert.NotBefore), instant(e.Cert.NotAfter)), true
		}
		return fmt.Sprintf("The certificate of %s cannot be used: %v. Replace it there.", at, e), true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Sprintf("What answers at %s does not speak TLS. Write tcp:// instead of ssl:// (ws:// instead of wss://) in mqtt.broker, or take the port with TLS, usually 8883.", b.address), true
	}
	return "", false
}

// cutOff says whether the other side ended the connection.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// explainLogin is about a broker that was reached and then fell silent.
func explainLogin(b brokerAddress, at string, err error) (string, bool) {
	words := err.Error()
	cut := cutOff(err)
	web := b.url.Scheme == "ws" || b.url.Scheme == "wss"
	switch {
	case strings.Contains(words, "remote error: tls: "):
		// With TLS 1.3 the refusal of our certificate comes after the handshake.
		return explainAlert(b, at, words), true
	case errors.Is(err, errLost):
		return fmt.Sprintf("The connection to %s was lost. It is tried again by itself.", at), true
	case strings.Contains(words, "bad handshake"), web && cut: // gorilla/websocket's, and no type that we may import
		return fmt.Sprintf("What answers at %s speaks no MQTT over WebSocket there. Check port and path in mqtt.broker, for instance %s://%s/mqtt.", b.address, b.url.Scheme, b.address), true
	case strings.Contains(words, "CONNACK"), strings.Contains(words, "packet"): // paho's words for an answer that is no MQTT
		return fmt.Sprintf("What answers at %s does not speak MQTT. Check the port in mqtt.broker: usually 1883, and 8883 with TLS.", b.address), true
	case cut && b.tls == nil:
		return fmt.Sprintf("The login was cut off by %s. If that port speaks TLS, write ssl:// in mqtt.broker; else see the broker's own log.", at), true
	case cut && len(b.tls.Certificates) > 0: // the alert may be lost on its way
		return fmt.Sprintf("The login was cut off by %s. Perhaps it does not accept mqtt.client_cert; see the broker's own log.", at), true
	case cut:
		return fmt.Sprintf("The login was cut off by %s. If it wants a client certificate, set mqtt.client_cert and mqtt.client_key; if that port speaks no TLS, write tcp:// (ws://) in mqtt.broker.", at), true
	}
	return "", false
}

func explainAlert(b brokerAddress, at, words string) string {
	reason := words[strings.Index(words, "remote error: tls: ")+len("remote error: tls: "):]
	ours := b.tls != nil && len(b.tls.Certificates) > 0
	switch {
	case ours:
		return fmt.Sprintf("The certificate that we log in with is not accepted by %s (%s). Check mqtt.client_cert, its dates, and the authority that the broker trusts.", at, reason)
	case strings.Contains(reason, "certificate required"), strings.Contains(reason, "handshake failure"), strings.Contains(reason, "bad certificate"):
		return fmt.Sprintf("A client certificate is wanted by %s. Set mqtt.client_cert and mqtt.client_key.", at)
	}
	return fmt.Sprintf("TLS is refused by %s (%s). See the broker's own log for the reason.", at, reason)
}
