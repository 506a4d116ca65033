package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// probed are the schemes of URLs that certificates are read from.
var probed = []string{
	"https", "smtp", "smtps", "imap", "imaps", "pop3", "pop3s", "ftp", "ftps", "ldap", "ldaps", "postgres", "mqtt", "mqtts",
}

// splitHostPort wants host:port with a host that can be dialled. Errors are
// sentences without the text itself.
func splitHostPort(s string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		if ip, e := netip.ParseAddr(s); e == nil && ip.Is6() {
			return "", 0, fmt.Errorf("needs a port: [%s]:443", s)
		}
		if !strings.Contains(s, ":") {
			return "", 0, fmt.Errorf("needs a port: %s:443", s)
		}
		return "", 0, errors.New("needs host:port; an IPv6 address goes in [brackets]")
	}
	if port, err = portNumber(digits, 1); err != nil {
		return "", 0, err
	}
	if err := checkDialled(host); err != nil {
		return "", 0, err
	}
	return host, port, nil
}

func portNumber(digits string, lowest int) (int, error) {
	port, err := strconv.Atoi(digits)
	if err != nil || port < lowest || port > 65535 {
		return 0, errors.New("needs a port from 1 to 65535")
	}
	return port, nil
}

// checkDialled wants an address or a host name; underscores are common in
// container names.
func checkDialled(host string) error {
	if host == "" {
		return errors.New("has no host")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > 0x7e }) {
		return errors.New("write the host in punycode, each such part begins with xn--")
	}
	plain := strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(host, ".")), "_", "-")
	if err := checkHost(plain); err != nil && strings.Trim(plain, "-") != "" {
		return fmt.Errorf("%.80q is no host: %w", host, err)
	}
	return nil
}

// checkURL wants scheme://host[:port] with a scheme that can be probed.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("is no URL that can be read")
	case !contains(probed, u.Scheme):
		return fmt.Errorf("%s:// can not be looked at: needs host:port or one of %s", u.Scheme, strings.Join(probed, ", "))
	case u.User != nil:
		return errors.New("holds a user or a password: certificates are looked at without one")
	case u.Port() != "":
		if _, err := portNumber(u.Port(), 1); err != nil {
			return err
		}
	}
	return checkDialled(u.Hostname())
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// checkEndpoints checks where a certificate is served.
func checkEndpoints(p place, cert *Certificate) {
	seen := map[string]bool{}
	for i, e := range cert.Endpoints {
		at := p.key("endpoints").item(i)
		if !at.ok() {
			continue
		}
		name, address, named := strings.Cut(e, "@")
		if !named {
			name, address = "", e
		}
		var err error
		if strings.Contains(e, "://") {
			err, named = checkURL(e), true
		} else {
			_, _, err = splitHostPort(address)
		}
		if err == nil && name != "" && !strings.Contains(e, "://") {
			err = checkDialled(name)
		}
		switch {
		case err != nil:
			at.refuse("%s", err)
		case named && name == "":
			at.refuse("has nothing before the @: write name@host:port")
		case seen[e]:
			at.refuse("is there already: remove one")
		case !named && cert.ServerName() == "" && len(cert.Domains) > 0:
			at.refuse("needs a name to ask for, since all domains are wildcards: www%s@%s", strings.TrimPrefix(cert.Domains[0], "*"), e)
		}
		seen[e] = true
	}
}

// certificateFiles are the usual ends of names of files with certificates.
var certificateFiles = []string{".pem", ".crt", ".cer", ".cert", ".der", ".p12", ".pfx", ".jks", ".keystore"}

// checkSource finds out what is watched, and completes a path.
func (c *checker) checkSource(p place, w *Watch) {
	at := p.key("source")
	if w.Source == "" {
		at.refuse("is missing: write host:port, a URL, or the path of a file")
	}
	if w.Source == "" || !at.ok() {
		return
	}
	switch {
	case strings.HasPrefix(w.Source, "file://"):
		at.refuse("write the path alone, without file://")
	case strings.Contains(w.Source, "://"):
		if err := checkURL(w.Source); err != nil {
			at.refuse("%s", err)
		}
	case isPath(w.Source):
		w.File = true
		w.Source = absolute(c.folder, w.Source)
		if _, err := filepath.Match(filepath.Base(w.Source), ""); err != nil {
			at.refuse("is no pattern that can match: a [ is opened and not closed")
		}
	default:
		if _, _, err := splitHostPort(lastPart(w.Source)); err != nil {
			at.refuse("%s, or a path that begins with / or ./", err)
		}
	}
	c.checkSourceKeys(p, w)
}

// lastPart of [name@]host:port.
func lastPart(s string) string { return s[strings.LastIndex(s, "@")+1:] }

func isPath(s string) bool {
	if strings.ContainsAny(s, "/*?") || strings.HasPrefix(s, ".") {
		return true
	}
	return contains(certificateFiles, strings.ToLower(filepath.Ext(s)))
}

// checkSourceKeys refuses what has no meaning for this kind of source.
func (c *checker) checkSourceKeys(p place, w *Watch) {
	if w.File && w.ServerName != "" {
		p.key("server_name").refuse("is for endpoints, and the source is a file: remove it")
	}
	if !w.File && w.Password != "" {
		p.key("password").refuse("is for PKCS#12 and JKS files, and the source is an endpoint: remove it")
	}
	if w.ServerName == "" {
		return
	}
	name := strings.ToLower(w.ServerName)
	if err := checkDialled(name); err != nil || strings.Contains(name, ":") && !isIP(name) {
		p.key("server_name").refuse("needs a host name without a port")
	}
	w.ServerName = name
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
