package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// A Request asks for the delivery of one message to one target.
type Request struct {
	// ID is the same whenever the same incident's message is sent to the same
	// target, so that a target that can collapse messages (a tag, a
	// dedup_key) shows the newest only. Empty for a test message.
	ID string `json:"id,omitempty"`
	// URL is the target, as shoutrrr spells it. It holds secrets.
	URL string `json:"url"`
	// Title is at most 80 characters on one line.
	Title string `json:"title"`
	// Body is plain text.
	Body string `json:"body"`
	// Severity is notice, warning, critical or expired; Resolved messages and
	// test messages carry notice.
	Severity Severity `json:"severity"`
	// Resolved says that the incident is over.
	Resolved bool `json:"resolved,omitempty"`
}

// Undelivered says why a message did not arrive, and what that means for the
// next try. It is an error and holds no secret.
type Undelivered struct {
	Reason string `json:"reason"` // one sentence of at most 300 characters, redacted
	// Permanent: trying again is of no use before somebody changes something
	// (the URL is wrong, the token was refused, the topic is gone).
	Permanent bool `json:"permanent,omitempty"`
	// RetryAfter is how long the other side asks us to stay away; zero if it
	// did not ask.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
}

// Error is the reason.
func (u *Undelivered) Error() string { return u.Reason }

// TargetID names a target without giving its secrets away: the URL's scheme
// and the first six hex digits of the URL's SHA-256 ("ntfy_1f0c9a"). It fits
// into an MQTT topic and a Home Assistant object id. Targets that are no
// shoutrrr URL get one by the same rule: "homeassistant://notify/mobile_app_x".
func TargetID(url string) string {
	sum := sha256.Sum256([]byte(url))
	return targetScheme(url) + "_" + hex.EncodeToString(sum[:3])
}

// TargetName names a target for people, without giving its secrets away: Home
// Assistant's are called as there, all others by their TargetID.
func TargetName(url string) string {
	if service, ok := strings.CutPrefix(url, "homeassistant://notify/"); ok {
		return service
	}
	if strings.HasPrefix(url, "homeassistant://") {
		return "Home Assistant"
	}
	return TargetID(url)
}

// targetScheme is the scheme's leading letters and digits in lower case:
// "generic" of "generic+https://…"; "target" where there is none.
func targetScheme(url string) string {
	scheme, _, found := strings.Cut(strings.ToLower(url), ":")
	if !found {
		return "target"
	}
	end := strings.IndexFunc(scheme, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	if end >= 0 {
		scheme = scheme[:end]
	}
	if scheme == "" {
		return "target"
	}
	return scheme[:min(len(scheme), 20)]
}
