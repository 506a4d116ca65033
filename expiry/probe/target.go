package probe

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Target is an endpoint to look at.
type Target struct {
	Protocol   string // the scheme: tls https smtp smtps imap …; tls if none was given
	Host       string // name in lower case or IP address, without brackets
	Port       string // decimal
	ServerName string // sent as SNI and looked for in the certificate
	Address    string // host:port to dial
}

// String is the target as it would be written.
func (t Target) String() string {
	s := t.Address
	if t.ServerName != plainHost(t.Host) {
		s = t.ServerName + "@" + s
	}
	if t.Protocol != "tls" {
		s = t.Protocol + "://" + s
	}
	return s
}

// A scheme is a protocol that can carry TLS: its usual port, and for STARTTLS the
// dialogue that comes first.
type scheme struct {
	port    string
	upgrade upgrade
}

// schemes holds what the IANA registries and RFC 8314 say of the ports. MQTT has
// no STARTTLS, so both of its schemes mean TLS from the first byte.
var schemes = map[string]scheme{
	"tls":        {port: ""},
	"https":      {port: "443"},
	"smtp":       {port: "25", upgrade: upgradeSMTP},
	"smtps":      {port: "465"},
	"imap":       {port: "143", upgrade: upgradeIMAP},
	"imaps":      {port: "993"},
	"pop3":       {port: "110", upgrade: upgradePOP3},
	"pop3s":      {port: "995"},
	"ftp":        {port: "21", upgrade: upgradeFTP},
	"ftps":       {port: "990"},
	"ldap":       {port: "389", upgrade: upgradeLDAP},
	"ldaps":      {port: "636"},
	"postgres":   {port: "5432", upgrade: upgradePostgres},
	"postgresql": {port: "5432", upgrade: upgradePostgres},
	"mqtt":       {port: "8883"},
	"mqtts":      {port: "8883"},
}

// ParseTarget reads "[name@]host:port" or "scheme://[name@]host[:port]"; a path
// behind it is passed over. The name before the @ is the one to ask for and to
// check where it is not the host's: home.example.org@192.168.1.10:8123. A port is
// needed where no scheme implies one. IPv6 addresses stand in brackets. The error
// is a *Fault with CodeTarget.
func ParseTarget(s string) (Target, error) {
	t, err := parseTarget(s)
	if err != nil {
		return Target{}, fault(CodeTarget, nil, "%q is no address to look at: %s.", shorten(withoutPassword(s)), err)
	}
	return t, nil
}

func parseTarget(s string) (Target, error) {
	name, rest, found := strings.Cut(s, "://")
	if !found {
		name, rest = "tls", s
	} else if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	name = strings.ToLower(name)
	kind, known := schemes[name]
	if !known {
		return Target{}, fmt.Errorf("the protocol %q is not known; there are %s", shorten(name), strings.Join(knownSchemes(), ", "))
	}
	t := Target{Protocol: name}
	serverName, hostPort, named := strings.Cut(rest, "@")
	if !named {
		hostPort = rest
	}
	var err error
	if t.Host, t.Port, err = splitHostPort(hostPort, kind.port); err != nil {
		return Target{}, err
	}
	t.ServerName = plainHost(t.Host)
	if named {
		if serverName, err = checkName(unbracket(serverName)); err != nil {
			return Target{}, err
		}
		t.ServerName = plainHost(serverName)
	}
	t.Address = net.JoinHostPort(t.Host, t.Port)
	return t, nil
}

// withoutPassword hides what stands before the @ where it looks like a user and a
// password, as in a URL that was meant for something else.
func withoutPassword(s string) string {
	at := strings.LastIndexByte(s, '@')
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	if at <= start || !strings.Contains(s[start:at], ":") {
		return s
	}
	return s[:start] + "***" + s[at:]
}

func knownSchemes() []string {
	var names []string
	for name := range schemes {
		names = append(names, name+"://")
	}
	slices.Sort(names)
	return names
}

// splitHostPort is net.SplitHostPort with a port that may be implied, and with
// sentences.
func splitHostPort(s, implied string) (host, port string, err error) {
	host, port = s, implied
	switch colon := strings.LastIndexByte(s, ':'); {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", fmt.Errorf("the bracket of the IPv6 address is not closed")
		}
		host = strings.ReplaceAll(s[1:end], "%25", "%") // RFC 6874: a zone within a URL
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
			return "", "", fmt.Errorf("there is no IPv6 address in the brackets")
		}
		after := s[end+1:]
		if after != "" {
			if after[0] != ':' {
				return "", "", fmt.Errorf("only a colon and the port may follow the bracket")
			}
			port = after[1:]
		}
	case strings.Count(s, ":") > 1:
		return "", "", fmt.Errorf("an IPv6 address stands in brackets, like [2001:db8::1]:443")
	case colon >= 0:
		host, port = s[:colon], s[colon+1:]
	}
	if port == "" {
		return "", "", fmt.Errorf("the port is missing, as in nas.local:443")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", "", fmt.Errorf("the port has to be a number from 1 to 65535")
	}
	if host, err = checkName(host); err != nil {
		return "", "", err
	}
	return host, strconv.FormatUint(number, 10), nil
}

// checkName accepts an IP address or a host name, and returns it in lower case
// and without a final dot.
func checkName(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.String(), nil
	}
	s = strings.TrimSuffix(strings.ToLower(s), ".")
	if s == "" {
		return "", fmt.Errorf("the host is missing")
	}
	if len(s) > 253 { // RFC 1035 §3.1
		return "", fmt.Errorf("the name is longer than a host name can be")
	}
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return s, nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return fmt.Errorf("a part of a host name has 1 to 63 characters")
	}
	for _, r := range label {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_':
		case r == '*':
			return fmt.Errorf("a wildcard cannot be connected to: name one host")
		case r > 127:
			return fmt.Errorf("write a name with other than plain letters in its ASCII form, xn--…")
		default:
			return fmt.Errorf("a host name has letters, digits, hyphens and dots only")
		}
	}
	return nil
}

func unbracket(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1]
	}
	return s
}

// plainHost is the host without an IPv6 zone: no certificate has one.
func plainHost(host string) string {
	host, _, _ = strings.Cut(host, "%")
	return host
}

// shorten cuts a foreign text for an error.
func shorten(s string) string {
	const limit = 100
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
