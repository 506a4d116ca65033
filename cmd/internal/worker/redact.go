package worker

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

const (
	// redacted stands where a secret was.
	redacted = "[redacted]"
	// shortest is the length below which a value is no secret but a word that
	// would be cut out of every sentence ("2", "true", "eu").
	shortest = 6
)

// plain are the ends of variables' names whose values are no secrets and help
// to understand an error. A value with a password or a query in it is one.
var plain = []string{
	"URL", "ENDPOINT", "HOST", "SERVER", "NAMESERVER", "BASE", "REGION", "ZONE", "ZONES", "ZONE_NAME", "DOMAIN",
	"TTL", "INTERVAL", "TIMEOUT", "MODE", "PATH", "FILE", "PORT", "VERSION", "ENVIRONMENT", "ALGORITHM",
}

// redactor cuts secrets out of what the child says of itself. Providers put
// tokens into the texts of their errors, in clear or escaped for a URL.
type redactor struct{ *strings.Replacer }

// newRedactor knows the given secrets in all the forms in which they are met.
func newRedactor(secrets []string) redactor {
	var pairs []string
	for _, s := range secrets {
		if len(s) < shortest {
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
			if !slices.Contains(pairs, form) {
				pairs = append(pairs, form)
			}
		}
	}
	// Longer ones first: a secret may be a part of another.
	slices.SortStableFunc(pairs, func(a, b string) int { return len(b) - len(a) })
	var replacements []string
	for _, form := range pairs {
		replacements = append(replacements, form, redacted)
	}
	return redactor{strings.NewReplacer(replacements...)}
}

// orderSecrets are the values of an order that must not be repeated.
func orderSecrets(r renew.OrderRequest) []string {
	secrets := []string{r.EABHMAC}
	for name, value := range r.Env {
		if !isPlain(name, value) {
			secrets = append(secrets, strings.TrimSpace(value))
		}
	}
	return secrets
}

func isPlain(name, value string) bool {
	if strings.ContainsAny(value, "@?") {
		return false
	}
	return slices.ContainsFunc(plain, func(end string) bool { return strings.HasSuffix(name, "_"+end) })
}

// urlSecrets are the parts of a notification target that must not be repeated:
// tokens stand in its user, its path or its query, as the service likes it, and
// for some where the host would be.
func urlSecrets(target string) []string {
	secrets := []string{target}
	u, err := url.Parse(target)
	if err != nil {
		return secrets
	}
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, u.User.Username(), password, u.User.String())
	}
	if host := u.Hostname(); !strings.Contains(host, ".") && strings.ContainsFunc(host, func(r rune) bool { return r < 'a' || r > 'z' }) {
		secrets = append(secrets, host) // pushover://shoutrrr:token@userKey
	}
	secrets = append(secrets, strings.Split(u.Path, "/")...)
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	return secrets
}

func (r redactor) undelivered(u *notify.Undelivered) *notify.Undelivered {
	clean := *u
	clean.Reason = r.Replace(u.Reason)
	return &clean
}

// fault is f without secrets. The CA's own answers are redacted as well: they
// may quote a request.
func (r redactor) fault(f *renew.Fault) *renew.Fault {
	clean := *f
	clean.Problems = slices.Clone(f.Problems)
	for i := range clean.Problems {
		clean.Problems[i].Detail = r.Replace(clean.Problems[i].Detail)
	}
	return &clean
}

func (r redactor) progress(p renew.Progress) renew.Progress {
	p.Text = r.Replace(p.Text)
	return p
}
