package probe

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/certsitter/certsitter/expiry"
)

// An upgrade is the dialogue that turns a plain connection into one on which the
// TLS handshake comes next. It reads not one byte further than its own last
// answer: what a server (or somebody between) puts behind that is met by the
// handshake, which fails at it. Swallowing it is the hole known as STARTTLS
// injection.
type upgrade func(io.ReadWriter) error

// Bounds of a dialogue. RFC 5321 §4.5.3.1 allows 512 characters a line; lists of
// IMAP capabilities are longer.
const (
	maxLine  = 4096
	maxLines = 100
)

// errNoTLS is a server that says, in its protocol, that it offers no TLS.
var errNoTLS = errors.New("it does not offer TLS")

// readLine reads one line, byte by byte, and returns it without its CRLF.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		switch last := len(line) - 1; {
		case b[0] == '\n' && last >= 0 && line[last] == '\r':
			return string(line[:last]), nil
		case b[0] == '\n' || b[0] == 0 || last >= 0 && line[last] == '\r':
			return "", errors.New("it sends a line that does not end as it should")
		case len(line) >= maxLine:
			return "", errors.New("it sends a line without end")
		}
		line = append(line, b[0])
	}
}

// readReply reads a reply with a three-digit code (RFC 5321 §4.2, RFC 959 §4.2)
// over as many lines as it has. In FTP the lines between need no code.
func readReply(r io.Reader, want string, between bool) ([]string, error) {
	var lines []string
	for range maxLines {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
		code, more, ok := replyCode(line)
		switch {
		case !ok && !(between && len(lines) > 1), ok && len(lines) == 1 && code != want:
			return nil, unexpected(line)
		case !ok || code != want:
			if !between {
				return nil, unexpected(line)
			}
		case !more:
			return lines, nil
		}
	}
	return nil, errors.New("its answer has no end")
}

func replyCode(line string) (code string, more, ok bool) {
	if len(line) < 3 || strings.Trim(line[:3], "0123456789") != "" {
		return "", false, false
	}
	if len(line) == 3 {
		return line, false, true
	}
	return line[:3], line[3] == '-', line[3] == '-' || line[3] == ' '
}

func unexpected(line string) error {
	return fmt.Errorf("it answers %q", expiry.Printable(shorten(line)))
}

func say(w io.Writer, line string) error {
	_, err := io.WriteString(w, line+"\r\n")
	return err
}

// upgradeSMTP: RFC 3207.
func upgradeSMTP(c io.ReadWriter) error {
	if _, err := readReply(c, "220", false); err != nil {
		return err
	}
	if err := say(c, "EHLO localhost"); err != nil {
		return err
	}
	lines, err := readReply(c, "250", false)
	if err != nil {
		return err
	}
	if !offers(lines[1:], "STARTTLS") {
		return errNoTLS
	}
	if err := say(c, "STARTTLS"); err != nil {
		return err
	}
	_, err = readReply(c, "220", false)
	return err
}

func offers(lines []string, keyword string) bool {
	for _, line := range lines {
		if len(line) > 4 && strings.EqualFold(strings.TrimSpace(line[4:]), keyword) {
			return true
		}
	}
	return false
}

// upgradeIMAP: RFC 9051 §6.2.1.
func upgradeIMAP(c io.ReadWriter) error {
	greeting, err := readLine(c)
	if err != nil {
		return err
	}
	if !hasWord(greeting, "* OK") {
		return unexpected(greeting)
	}
	if err := say(c, "a1 STARTTLS"); err != nil {
		return err
	}
	for range maxLines {
		line, err := readLine(c)
		switch {
		case err != nil:
			return err
		case hasWord(line, "a1 OK"):
			return nil
		case hasWord(line, "a1 NO"), hasWord(line, "a1 BAD"):
			return errNoTLS
		case !strings.HasPrefix(line, "* "):
			return unexpected(line)
		}
	}
	return errors.New("its answer has no end")
}

// upgradePOP3: RFC 2595 §4.
func upgradePOP3(c io.ReadWriter) error {
	greeting, err := readLine(c)
	if err != nil {
		return err
	}
	if !hasWord(greeting, "+OK") {
		return unexpected(greeting)
	}
	if err := say(c, "STLS"); err != nil {
		return err
	}
	line, err := readLine(c)
	switch {
	case err != nil:
		return err
	case hasWord(line, "+OK"):
		return nil
	case hasWord(line, "-ERR"):
		return errNoTLS
	}
	return unexpected(line)
}

// upgradeFTP: RFC 4217 §4.
func upgradeFTP(c io.ReadWriter) error {
	if _, err := readReply(c, "220", true); err != nil {
		return err
	}
	if err := say(c, "AUTH TLS"); err != nil {
		return err
	}
	_, err := readReply(c, "234", true)
	return err
}

// hasWord reports whether the line is the words or begins with them and a space.
// IMAP and POP3 do not mind the case.
func hasWord(line, words string) bool {
	return len(line) >= len(words) && strings.EqualFold(line[:len(words)], words) && (len(line) == len(words) || line[len(words)] == ' ')
}

// startTLSRequest is the LDAP message 1, an extended request with the object
// identifier of StartTLS (RFC 4511 §4.12 and §4.14).
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

// upgradeLDAP: RFC 4511 §4.14.
func upgradeLDAP(c io.ReadWriter) error {
	if _, err := io.WriteString(c, startTLSRequest); err != nil {
		return err
	}
	body, err := readSequence(c)
	if err != nil {
		return err
	}
	result, err := startTLSResult(body)
	switch {
	case err != nil:
		return err
	case result != 0:
		return fmt.Errorf("%w (LDAP result %d)", errNoTLS, result)
	}
	return nil
}

// readSequence reads the content of one BER sequence, of at most maxLine bytes.
func readSequence(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if head[0] != 0x30 {
		return nil, errNoLDAP
	}
	length := int(head[1])
	if length >= 0x80 {
		long := make([]byte, length&0x7f)
		if len(long) == 0 || len(long) > 4 {
			return nil, errNoLDAP
		}
		if _, err := io.ReadFull(r, long); err != nil {
			return nil, err
		}
		length = bigEndian(long)
	}
	if length < 0 || length > maxLine {
		return nil, errNoLDAP
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body)
	return body, err
}

var errNoLDAP = errors.New("it does not speak LDAP")

// startTLSResult takes the result code out of an extended response to message 1:
// INTEGER 1, then [APPLICATION 24] (RFC 4511 §4.12) that begins with ENUMERATED.
func startTLSResult(body []byte) (result byte, err error) {
	id, rest, ok := element(body, 0x02)
	if !ok || string(id) != "\x01" {
		return 0, errNoLDAP
	}
	response, _, ok := element(rest, 0x78)
	if !ok {
		return 0, errNoLDAP
	}
	code, _, ok := element(response, 0x0a)
	if !ok || len(code) != 1 {
		return 0, errNoLDAP
	}
	return code[0], nil
}

// element takes one BER element with the tag from the front. encoding/asn1 reads
// DER only, and Active Directory writes its lengths longer than they need be.
func element(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	length, b := int(b[1]), b[2:]
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 4 || n > len(b) {
			return nil, nil, false
		}
		length, b = bigEndian(b[:n]), b[n:]
	}
	if length < 0 || length > len(b) {
		return nil, nil, false
	}
	return b[:length], b[length:], true
}

func bigEndian(b []byte) (n int) {
	for _, digit := range b {
		n = n<<8 | int(digit)
	}
	return n
}

// sslRequest asks a PostgreSQL server for TLS: its length and the code 80877103
// (PostgreSQL documentation, "Message Formats").
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// upgradePostgres: the server answers with one byte, S for yes and N for no.
func upgradePostgres(c io.ReadWriter) error {
	if _, err := io.WriteString(c, sslRequest); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return errNoTLS
	}
	return errors.New("it does not speak PostgreSQL")
}
