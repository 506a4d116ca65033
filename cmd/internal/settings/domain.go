package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// localSuffixes are never signed by a public CA (RFC 6761, RFC 6762, RFC 8375,
// RFC 9476, ICANN's .internal, and what routers make up).
var localSuffixes = []string{
	"local", "lan", "home.arpa", "internal", "localhost", "localdomain", "home", "corp", "intranet", "private",
	"test", "invalid", "example", "onion", "alt", "arpa",
}

// maxNames is Let's Encrypt's limit for one certificate; other public CAs have
// the same or less.
const maxNames = 100

// checkDomain gives a domain in the form that is used: lower case. Errors are
// sentences.
func checkDomain(s string) (string, error) {
	name := strings.ToLower(s)
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		if ip.Zone() != "" || strings.HasPrefix(name, "[") {
			return "", fmt.Errorf("%q: write the address without brackets and zone", s)
		}
		return ip.Unmap().String(), nil
	}
	switch {
	case strings.Contains(name, "://"):
		return "", fmt.Errorf("%q is a URL: write the domain alone", s)
	case strings.HasSuffix(name, "."):
		return "", fmt.Errorf("%q: write it without the dot at its end", s)
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0x7e }):
		return "", fmt.Errorf("%q: write it in punycode, each such part begins with xn--", s)
	case strings.Contains(name, "*") && (!strings.HasPrefix(name, "*.") || strings.Count(name, "*") > 1):
		return "", fmt.Errorf("%q: a star can only be the whole first part, like *.example.org", s)
	}
	if err := checkHost(strings.TrimPrefix(name, "*.")); err != nil {
		return "", fmt.Errorf("%q is no domain: %w", s, err)
	}
	return name, nil
}

// checkHost wants a host name as certificates can hold it.
func checkHost(name string) error {
	if len(name) > 253 {
		return errors.New("it is longer than 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		switch {
		case l == "":
			return errors.New("a part of it is empty")
		case len(l) > 63:
			return errors.New("a part of it is longer than 63 characters")
		case l[0] == '-' || l[len(l)-1] == '-':
			return errors.New("a part of it begins or ends with a hyphen")
		case strings.ContainsFunc(l, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) }):
			return errors.New("only a to z, 0 to 9 and hyphens are possible between its dots")
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errors.New("its last part is a number")
	}
	return nil
}

// publicly says why no public CA signs a name; empty if one may.
func publicly(name string) string {
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.IsPrivate() || ip.IsLoopback() || !ip.IsGlobalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(ip) {
			return "is an address of a local network"
		}
		return ""
	}
	base := strings.TrimPrefix(name, "*.")
	for _, s := range localSuffixes {
		if base == s || strings.HasSuffix(base, "."+s) {
			return "ends with ." + s + ", which exists in local networks only"
		}
	}
	if !strings.Contains(base, ".") {
		return "has no dot, so it exists in local networks only"
	}
	return ""
}

// checkDomains checks each domain, and each against the challenge and the CA.
func (c *checker) checkDomains(p place, cert *Certificate) {
	list := p.key("domains")
	if len(cert.Domains) == 0 {
		list.refuse("needs at least one domain")
		return
	}
	for i, d := range cert.Domains {
		at := list.item(i)
		if !at.ok() {
			continue
		}
		name, err := checkDomain(d)
		if err != nil {
			at.refuse("%s", err)
			continue
		}
		if j := slices.Index(cert.Domains[:i], name); j >= 0 {
			at.refuse("%q is there already: remove one", name)
			continue
		}
		cert.Domains[i] = name
		checkFits(at, name, cert)
	}
	if cert.Private {
		return
	}
	if len(cert.Domains) > maxNames {
		list.refuse("holds %d names, and a public CA signs at most %d: make two certificates of it", len(cert.Domains), maxNames)
	}
	for i, d := range cert.Domains {
		_, parent, _ := strings.Cut(d, ".")
		if at := list.item(i); !strings.HasPrefix(d, "*.") && slices.Contains(cert.Domains, "*."+parent) {
			at.refuse("%q is covered by %q, and public CAs refuse an order with both: remove one", d, "*."+parent)
		}
	}
}

// checkFits checks a good name against the challenge and the CA.
func checkFits(at place, name string, cert *Certificate) {
	_, notIP := netip.ParseAddr(name)
	switch {
	case strings.HasPrefix(name, "*.") && cert.Challenge != "dns-01" && cert.Challenge != "":
		at.refuse("%q is a wildcard, which needs the challenge dns-01 and a DNS provider", name)
	case notIP == nil && cert.Challenge == "dns-01":
		at.refuse("%q is an address, which has no DNS record to prove it by: use http-01 or tls-alpn-01", name)
	case cert.Private || cert.Directory == "":
	case publicly(name) != "":
		at.refuse("%q %s: a public CA signs public names only; use one, or a private CA with ca and ca_roots", name, publicly(name))
	case notIP == nil && stagings[cert.Directory] == letsEncryptStagingURL && cert.Profile != "shortlived":
		at.refuse("%q is an address, for which Let's Encrypt needs profile: shortlived", name)
	}
}
