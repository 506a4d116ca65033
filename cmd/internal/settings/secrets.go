package settings

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Secrets are all values that must not be seen anywhere: passwords, tokens,
// keys, the providers' variables, and of URLs the parts that are keys to
// something. Each is once in the list, in order.
func (s *Settings) Secrets() []string {
	var found secretSet
	found.add(s.EABHMAC, s.HomeAssistantToken, s.PagePassword, s.MQTT.Password)
	found.addPair(s.MQTT.Username, s.MQTT.Password)
	found.addURL(s.HeartbeatURL, false)
	for _, n := range s.Notify {
		found.addURL(n, hostIsSecret(n))
	}
	public := s.publicWords()
	for _, c := range s.Certificates {
		found.add(c.EABHMAC, c.PKCS12Password)
		if c.KeystorePassword != wellKnownKeystorePassword {
			found.add(c.KeystorePassword)
		}
		for key, value := range c.Env {
			if !plainVariable(key, value) && !slices.Contains(public, strings.ToLower(value)) {
				found.add(value)
			}
		}
	}
	for _, w := range s.Watch {
		found.add(w.Password)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// publicWords are values that are no secret even where a provider's variable
// repeats them: a log without the domain helps nobody.
func (s *Settings) publicWords() []string {
	words := []string{strings.ToLower(s.Email)}
	for _, c := range s.Certificates {
		for _, d := range c.Domains {
			words = append(words, d, strings.TrimPrefix(d, "*."))
		}
		words = append(words, c.Name, c.Provider)
	}
	return words
}

// plainSuffixes end the names of lego's variables that hold times and modes.
var plainSuffixes = []string{"_TIMEOUT", "_INTERVAL", "_TTL", "_REGION", "_DEBUG", "_MODE", "_PORT", "_PROPAGATION_WAIT"}

var plainValue = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|none|auto|default|[0-9]{1,5}[smh]?)$`)

// plainVariable: the variable holds a switch or a number. To cut "true" out of
// every line would break more than it hides.
func plainVariable(key, value string) bool {
	if plainValue.MatchString(value) {
		return true
	}
	return slices.ContainsFunc(plainSuffixes, func(suffix string) bool { return strings.HasSuffix(key, suffix) })
}

func hostIsSecret(target string) bool {
	scheme := schemeOf(target)
	return slices.ContainsFunc(notifiers, func(n notifier) bool { return n.scheme == scheme && n.hostSecret })
}

// secretSet collects secrets.
type secretSet []string

func (s *secretSet) add(values ...string) {
	for _, v := range values {
		if v != "" {
			*s = append(*s, v)
		}
	}
}

// addPair adds what basic authentication sends: its base64 holds both.
func (s *secretSet) addPair(user, password string) {
	if user != "" && password != "" {
		s.add(user + ":" + password)
	}
}

// The shortest part of a URL that is taken for a key.
const shortestSegment = 6

// plainParameters of notification URLs choose how a message looks.
var plainParameters = []string{
	"scheme", "tags", "priority", "title", "subject", "template", "disabletls", "disabletlsverification", "skiptlsverify",
	"insecureskipverify", "encryption", "auth", "usehtml", "usestarttls", "starttls", "requirestarttls", "timeout", "fromname",
	"clienthost", "parsemode", "preview", "notification", "splitlines", "json", "username", "botname", "avatar", "icon", "method",
	"contenttype", "titlekey", "messagekey", "titlevalue", "messagevalue", "useheader", "sound", "cache", "firebase", "severity",
	"action", "actions", "category", "level", "badge", "copy", "color", "colordebug", "colorinfo", "colorwarn", "colorerror",
}

// plainSegments are parts of paths that web hooks have in common.
var plainSegments = []string{"webhook", "webhooks", "services", "service", "notify", "message", "messages", "spaces", "publish", "public", "status", "health"}

// addURL adds userinfo, path segments and query values, and the whole.
func (s *secretSet) addURL(raw string, hostSecret bool) {
	if raw == "" {
		return
	}
	s.add(raw)
	if _, rest, ok := strings.Cut(raw, "://"); ok && strings.ContainsAny(rest, "/@?") {
		s.add(rest)
	}
	// The inner scheme of generic+https:// is what is spoken later.
	if _, inner, ok := strings.Cut(raw, "+"); ok && strings.Contains(inner, "://") && strings.HasPrefix(raw, "generic+") {
		s.add(inner)
	}
	u, err := url.Parse(raw)
	if err != nil {
		s.addPieces(raw)
		return
	}
	if u.User != nil {
		password, _ := u.User.Password()
		s.addPair(u.User.Username(), password)
		s.add(password)
		if password == "" || len(u.User.Username()) >= shortestSegment {
			s.add(u.User.Username())
		}
	}
	if hostSecret {
		s.add(u.Hostname(), u.Host)
	}
	for _, segments := range []string{u.Path, u.EscapedPath()} {
		for segment := range strings.SplitSeq(segments, "/") {
			if len(segment) >= shortestSegment && !slices.Contains(plainSegments, strings.ToLower(segment)) {
				s.add(segment)
			}
		}
	}
	s.addQuery(u)
}

func (s *secretSet) addQuery(u *url.URL) {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, raw, _ := strings.Cut(pair, "=")
		if slices.Contains(plainParameters, strings.ToLower(key)) {
			continue
		}
		value, err := url.QueryUnescape(raw)
		if err != nil {
			value = raw
		}
		if len(value) >= shortestSegment || looksSecret(key) {
			s.add(value, raw)
		}
		// "@Authorization=Bearer x" of generic: the header's value alone, too.
		if _, token, ok := strings.Cut(value, " "); ok && strings.HasPrefix(key, "@") {
			s.add(token)
		}
	}
}

func looksSecret(key string) bool {
	key = strings.ToLower(key)
	for _, part := range []string{"key", "token", "pass", "secret", "hmac", "auth"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// addPieces is for a URL that can not be parsed.
func (s *secretSet) addPieces(raw string) {
	for piece := range strings.FieldsFuncSeq(raw, func(r rune) bool { return strings.ContainsRune("/:@?&=#", r) }) {
		if len(piece) >= shortestSegment {
			s.add(piece)
		}
	}
}
