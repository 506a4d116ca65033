package shout

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// maxReason is how long a reason may be, in characters.
const maxReason = 300

// secrets are the texts that must not leave, the longest first.
type secrets []string

// keyIsHost are the services whose host is the secret.
var keyIsHost = map[string]bool{
	"ifttt": true, "notifiarr": true, "pushbullet": true, "pushover": true, "slack": true, "teams": true, "wecom": true, "discord": true,
}

// sensitive are the words of parameters whose values are secrets however short
// they are.
var sensitive = []string{"key", "token", "secret", "pass", "auth", "user", "@"}

// The shortest texts that are taken for secrets. Shorter ones would blot out
// ordinary words.
const (
	minSecret   = 6
	minPassword = 3
	minPart     = 8
)

// secretsOf collects the secrets of a notification URL: its userinfo, the parts
// of its path, its parameters' values, for some services its host; each as it
// is, escaped, unescaped and in base64.
func secretsOf(target string) secrets {
	found := map[string]bool{}
	add := func(text string, shortest int) {
		if len(text) < shortest {
			return
		}
		for _, form := range writings(text) {
			found[form] = true
		}
	}
	u, err := url.Parse(target)
	if err != nil {
		add(target, 1)
		_, rest, _ := strings.Cut(target, "://")
		add(rest, 1)
		for _, part := range strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune("/?&=:@#", r) }) {
			add(part, minSecret)
		}
		return sorted(found)
	}
	if _, rest, _ := strings.Cut(target, "://"); rest != "" {
		add(target, 1)
		add(rest, minSecret)
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	add(user, minSecret)
	add(password, minPassword)
	if user != "" || password != "" {
		add(user+":"+password, minPassword)
		add(u.User.String(), minSecret)
	}
	compound := []string{user, password}
	if keyIsHost[schemeOf(u)] {
		add(u.Hostname(), minSecret)
		compound = append(compound, u.Hostname())
	}
	for _, text := range compound { // Slack's token is three, which its own URL shows apart
		for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '-' || r == ':' }) {
			add(part, minPart)
		}
	}
	for _, path := range []string{u.Path, u.EscapedPath(), u.Opaque, u.Fragment} {
		add(strings.Trim(path, "/"), minSecret)
		for part := range strings.SplitSeq(path, "/") {
			add(part, minSecret)
		}
	}
	for key, values := range u.Query() {
		for _, value := range values {
			shortest := minSecret
			if slices.ContainsFunc(sensitive, func(word string) bool { return strings.Contains(strings.ToLower(key), word) }) {
				shortest = minPassword
			}
			add(value, shortest)
			for word := range strings.FieldsSeq(value) { // "Bearer …"
				add(word, minSecret+1)
			}
		}
	}
	delete(found, "Bearer")
	return sorted(found)
}

// writings are the ways in which a secret turns up in errors.
func writings(text string) []string {
	all := []string{
		text, url.QueryEscape(text), url.PathEscape(text),
		base64.StdEncoding.EncodeToString([]byte(text)), base64.RawStdEncoding.EncodeToString([]byte(text)),
		base64.URLEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)),
	}
	if plain, err := url.PathUnescape(text); err == nil {
		all = append(all, plain)
	}
	return all
}

func sorted(found map[string]bool) secrets {
	var all secrets
	for text := range found {
		all = append(all, text)
	}
	slices.SortFunc(all, func(x, y string) int { return cmp.Or(cmp.Compare(len(y), len(x)), cmp.Compare(x, y)) })
	return all
}

// redact makes a reason that can be shown: one line without secrets, at most 300
// characters.
func (s secrets) redact(text string) string {
	text = strings.ToValidUTF8(text, "")
	for _, secret := range s {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, text)
	return cut(strings.Join(strings.Fields(text), " "), maxReason)
}
