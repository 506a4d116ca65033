package settings

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

var variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ownFileVariables end with _FILE and are a provider's own: what they name is
// read by the provider's library, in its own format.
var ownFileVariables = []string{
	"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE",
	"DNSUPDATE_RFC3645_KEYTAB_FILE", "DNSUPDATE_TSIG_FILE", "DNSUPDATE_TSIG_GSS_KEYTAB_FILE",
	"OCI_CONFIG_FILE", "OS_CLIENT_CONFIG_FILE", "RFC2136_TSIG_FILE", "RFC2136_TSIG_GSS_KEYTAB_FILE",
}

// encodedVariables want base64 of what their X_FILE names (lego v4.35.2,
// providers/dns/oraclecloud).
var encodedVariables = []string{"OCI_PRIVKEY"}

// checkProvider checks the DNS provider and its variables.
func (c *checker) checkProvider(p place, cert *Certificate) {
	env := c.variables(p.key("env"), cert.env)
	provider := p.key("provider")
	if cert.Challenge != "dns-01" {
		if cert.Challenge != "" && cert.Provider != "" {
			provider.refuse("is for the challenge dns-01, and this is %s: set challenge: dns-01, or remove it", cert.Challenge)
		}
		if cert.Challenge != "" && len(cert.env) > 0 {
			p.key("env").refuse("is for the challenge dns-01, and this is %s: set challenge: dns-01, or remove it", cert.Challenge)
		}
		return
	}
	cert.Env = env
	if cert.Provider == "" {
		provider.refuse("is missing: dns-01 needs the code of your DNS provider, like cloudflare; certsitter providers lists them")
		return
	}
	if cert.Provider == "exec" {
		c.checkExec(provider)
	}
	if c.env.Providers == nil || !provider.ok() {
		return
	}
	if !c.env.Providers.Known(cert.Provider) {
		if near := c.env.Providers.Closest(cert.Provider); len(near) > 0 {
			provider.refuse("%q is not known: did you mean %s?", cert.Provider, oneOf(near[:min(3, len(near))]))
			return
		}
		provider.refuse("%q is not known: certsitter providers lists the codes", cert.Provider)
		return
	}
	c.checkRequired(p.key("env"), cert)
}

// checkExec: the provider exec runs a program that the configuration names.
func (c *checker) checkExec(at place) {
	if c.env.App {
		at.refuse("exec can not be used in the app: its container holds nothing of yours to run")
		return
	}
	if why := c.writers(); why != "" {
		at.refuse("exec is refused, since %s", why)
	}
}

func (c *checker) checkRequired(at place, cert *Certificate) {
	for i := range cert.env {
		if !at.item(i).ok() {
			return // a variable that is there and was refused is not missing
		}
	}
	var missing []string
	for _, v := range c.env.Providers.Required(cert.Provider) {
		if cert.Env[v] == "" {
			missing = append(missing, v)
		}
	}
	if len(missing) > 0 {
		at.refuse("lacks %s, which %s needs: add %s=…; certsitter providers %s says more",
			strings.Join(missing, ", "), cert.Provider, missing[0], cert.Provider)
	}
}

// variables reads KEY=VALUE lines, and the files that KEY_FILE=PATH names. No
// sentence holds a value.
func (c *checker) variables(p place, lines []string) map[string]string {
	env := make(map[string]string, len(lines))
	for i, l := range lines {
		at := p.item(i)
		if !at.ok() {
			continue
		}
		key, value, ok := strings.Cut(l, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok:
			at.refuse("needs the form KEY=VALUE")
			continue
		case !variablePattern.MatchString(key):
			at.refuse("has no variable's name before the =: needs the form KEY=VALUE")
			continue
		case value == "":
			at.refuse("%s has no value", key)
			continue
		}
		if base, isFile := strings.CutSuffix(key, "_FILE"); isFile && base != "" && !slices.Contains(ownFileVariables, key) {
			data, err := c.env.load(absolute(c.folder, value))
			if err != nil {
				at.refuse("%s: %s", key, err)
				continue
			}
			key, value = base, withoutLineBreak(data)
			if slices.Contains(encodedVariables, base) {
				value = base64.StdEncoding.EncodeToString(data)
			}
			if value == "" {
				at.refuse("%s_FILE names an empty file", base)
				continue
			}
		}
		if _, twice := env[key]; twice {
			at.refuse("gives %s a second time: keep one", key)
			continue
		}
		env[key] = value
	}
	return env
}
