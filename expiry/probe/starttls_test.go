package probe_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/expiry/probe"
)

// A script is what a server says (S) and expects (C), line by line. Lines end
// with CRLF; a last line without C is followed by TLS.
func script(lines ...string) func(net.Conn) error {
	return func(conn net.Conn) error {
		r := bufio.NewReader(conn)
		for _, line := range lines {
			who, text, _ := strings.Cut(line, ": ")
			if who == "S" {
				if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
					return err
				}
				continue
			}
			got, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if got != text+"\r\n" {
				return fmt.Errorf("the client says %q", got)
			}
		}
		return nil
	}
}

// binary is a server of a binary protocol: it expects and says bytes.
func binary(request, answer string) func(net.Conn) error {
	return func(conn net.Conn) error {
		got := make([]byte, len(request))
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if string(got) != request {
			return fmt.Errorf("the client says %q", got)
		}
		_, err := io.WriteString(conn, answer)
		return err
	}
}

const (
	ldapRequest     = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
	ldapSuccess     = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
	ldapLongForm    = "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00" // Active Directory
	ldapUnwilling   = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x35\x04\x00\x04\x00"
	postgresRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
)

// dialogues are servers that agree to TLS.
var dialogues = map[string]func(net.Conn) error{
	"smtp": script("S: 220-mail.example.org ESMTP", "S: 220 ready", "C: EHLO localhost",
		"S: 250-mail.example.org", "S: 250-PIPELINING", "S: 250-starttls", "S: 250 SIZE 1000", "C: STARTTLS", "S: 220 2.0.0 go ahead"),
	"imap":     script("S: * OK [CAPABILITY IMAP4rev1 STARTTLS] ready", "C: a1 STARTTLS", "S: * CAPABILITY IMAP4rev1", "S: a1 OK begin"),
	"pop3":     script("S: +OK ready", "C: STLS", "S: +OK begin"),
	"ftp":      script("S: 220-Welcome", "S:  to the server", "S: 230 visitors", "S: 220 ready", "C: AUTH TLS", "S: 234 go"),
	"ldap":     binary(ldapRequest, ldapSuccess),
	"postgres": binary(postgresRequest, "S"),
}

func TestStartTLS(t *testing.T) {
	root, config := healthy(t)
	for scheme, dialogue := range dialogues {
		s := serve(t, config, dialogue)
		r, err := probe.Probe(t.Context(), target(t, scheme+"://ha.example.org@"+s.address), noon, probe.Options{Roots: root.Pool()})
		if err != nil || r.ChainError != nil || r.NameError != nil {
			t.Errorf("%s: %v, %+v", scheme, err, r)
		}
	}
	s := serve(t, config, binary(ldapRequest, ldapLongForm))
	if _, err := probe.Probe(t.Context(), target(t, "ldap://"+s.address), noon, probe.Options{}); err != nil {
		t.Errorf("LDAP with long lengths: %v", err)
	}
}

// TestStartTLSInjection: what comes in the clear behind the last answer is not
// swallowed. The handshake meets it and fails.
func TestStartTLSInjection(t *testing.T) {
	_, config := healthy(t)
	for scheme, dialogue := range dialogues {
		for _, extra := range []string{"250 injected\r\n", "x"} {
			injected := func(conn net.Conn) error {
				held := &holding{Conn: conn}
				if err := dialogue(held); err != nil {
					return err
				}
				_, err := io.WriteString(conn, held.last+extra) // in one segment with the answer
				return err
			}
			s := serve(t, config, injected)
			if _, err := probe.Probe(t.Context(), target(t, scheme+"://"+s.address), noon, probe.Options{}); code(err) != probe.CodeTLS {
				t.Errorf("%s with %q: %v (%s)", scheme, extra, err, code(err))
			}
		}
	}
}

// holding keeps back the last thing that is written.
type holding struct {
	net.Conn
	last string
}

func (h *holding) Write(p []byte) (int, error) {
	_, err := io.WriteString(h.Conn, h.last)
	h.last = string(p)
	return len(p), err
}

func (h *holding) Read(p []byte) (int, error) {
	if _, err := io.WriteString(h.Conn, h.last); err != nil {
		return 0, err
	}
	h.last = ""
	return h.Conn.Read(p)
}

// TestStartTLSRefused: a server that offers no TLS, or speaks something else, is
// a fault of its own and never a success.
func TestStartTLSRefused(t *testing.T) {
	_, config := healthy(t)
	many := make([]string, 150)
	for i := range many {
		many[i] = "S: 220-more"
	}
	for _, test := range []struct {
		name, scheme string
		dialogue     func(net.Conn) error
		want         string
	}{
		{"no STARTTLS", "smtp", script("S: 220 ready", "C: EHLO localhost", "S: 250-mail", "S: 250 SIZE"), "does not offer TLS"},
		{"STARTTLS in the greeting only", "smtp", script("S: 220 ready", "C: EHLO localhost", "S: 250 STARTTLS"), "does not offer TLS"},
		{"not now", "smtp", script("S: 220 ready", "C: EHLO localhost", "S: 250-mail", "S: 250 STARTTLS", "C: STARTTLS", "S: 454 not available"), "454 not available"},
		{"unwelcome", "smtp", script("S: 554 go away"), "554 go away"},
		{"another code between", "smtp", script("S: 220-mail", "S: 554 go away"), "554 go away"},
		{"no mail server", "smtp", script("S: SSH-2.0-OpenSSH_9.2"), "SSH-2.0"},
		{"an endless greeting", "smtp", script(many...), "no end"},
		{"an endless line", "smtp", script("S: " + strings.Repeat("2", 5000)), "without end"},
		{"a bare line feed", "smtp", script("S: 220 ready\n"), "does not end"},
		{"a bare carriage return", "smtp", script("S: 220 ready\rSTARTTLS"), "does not end"},
		{"a zero byte", "smtp", script("S: 220\x00ready"), "does not end"},
		{"control characters", "smtp", script("S: 554 \x1b[31mred"), `554 [31mred`},
		{"BYE", "imap", script("S: * BYE overloaded"), "BYE overloaded"},
		{"PREAUTH", "imap", script("S: * PREAUTH welcome"), "PREAUTH"},
		{"NO", "imap", script("S: * OK ready", "C: a1 STARTTLS", "S: a1 NO"), "does not offer TLS"},
		{"BAD", "imap", script("S: * OK ready", "C: a1 STARTTLS", "S: * junk", "S: a1 BAD what"), "does not offer TLS"},
		{"another tag", "imap", script("S: * OK ready", "C: a1 STARTTLS", "S: a2 OK"), "a2 OK"},
		{"-ERR at once", "pop3", script("S: -ERR locked"), "-ERR locked"},
		{"-ERR", "pop3", script("S: +OK ready", "C: STLS", "S: -ERR what"), "does not offer TLS"},
		{"+OKAY", "pop3", script("S: +OKAY"), "+OKAY"},
		{"500", "ftp", script("S: 220 ready", "C: AUTH TLS", "S: 500 what"), "500 what"},
		{"N", "postgres", binary(postgresRequest, "N"), "does not offer TLS"},
		{"E", "postgres", binary(postgresRequest, "E"), "does not speak PostgreSQL"},
		{"unwilling", "ldap", binary(ldapRequest, ldapUnwilling), "does not offer TLS (LDAP result 53)"},
		{"no LDAP", "ldap", binary(ldapRequest, "HTTP/1.1 400\r\n"), "does not speak LDAP"},
		{"gigabytes of LDAP", "ldap", binary(ldapRequest, "\x30\x84\x7f\xff\xff\xff"), "does not speak LDAP"},
		{"another message", "ldap", binary(ldapRequest, strings.Replace(ldapSuccess, "\x02\x01\x01", "\x02\x01\x02", 1)), "does not speak LDAP"},
		{"another operation", "ldap", binary(ldapRequest, strings.Replace(ldapSuccess, "\x78", "\x61", 1)), "does not speak LDAP"},
	} {
		s := serve(t, config, test.dialogue)
		_, err := probe.Probe(t.Context(), target(t, test.scheme+"://"+s.address), noon, probe.Options{})
		if code(err) != probe.CodeProtocol || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %s: %v (%s)", test.scheme, test.name, err, code(err))
		}
	}
}
