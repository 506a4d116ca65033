package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/certsitter/certsitter/expiry/probe"
)

// checkHostPort wants host:port with a host that can be dialled. Errors are
// sentences without the text itself.
func checkHostPort(s string) error {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("needs host:port; an IPv6 address goes in [brackets]")
	}
	if _, err = portNumber(digits, 1); err != nil {
		return err
	}
	return checkDialled(host)
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

// checkTarget wants what the probe can look at.
func checkTarget(s string) error {
	_, err := probe.ParseTarget(s)
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimSuffix(err.Error(), "."))
}

// checkEndpoints checks where a certificate is served.
func checkEndpoints(p place, cert *Certificate) {
	seen := map[string]bool{}
	for i, e := range cert.Endpoints {
		at := p.key("endpoints").item(i)
		if !at.ok() {
			continue
		}
		switch err := checkTarget(e); {
		case err != nil:
			at.refuse("%s", err)
		case seen[e]:
			at.refuse("is there already: remove one")
		case !strings.Contains(e, "@") && cert.ServerName() == "" && len(cert.Domains) > 0:
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
	case !strings.Contains(w.Source, "://") && isPath(w.Source):
		w.File = true
		w.Source = absolute(c.folder, w.Source)
		_, missing := c.env.Stat(w.Source) // a path is itself first, and a pattern only then
		if _, err := filepath.Match(w.Source, ""); err != nil && missing != nil {
			at.refuse("is no pattern that can match: a [ is opened and not closed")
		}
	case !strings.Contains(w.Source, ":"):
		at.refuse("%.80q has neither a port, as in nas.local:443, nor is it a path that begins with / or ./", w.Source)
	default:
		if err := checkTarget(w.Source); err != nil {
			at.refuse("%s", err)
		}
	}
	c.checkSourceKeys(p, w)
}

func isPath(s string) bool {
	if strings.ContainsAny(s, "/*?") || strings.HasPrefix(s, ".") {
		return true
	}
	return slices.Contains(certificateFiles, strings.ToLower(filepath.Ext(s)))
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
