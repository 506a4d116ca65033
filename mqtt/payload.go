package mqtt

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// State is what is known of one certificate. Zero times, empty texts and nil
// days are published as None.
type State struct {
	Status      string // ok notice warning critical expired unknown
	Problem     bool
	DaysLeft    *int // floor; nil = unknown
	NotAfter    time.Time
	NotBefore   time.Time
	LastResult  string // one sentence; cut after 200 characters
	LastRenewal time.Time
	NextRenewal time.Time
	Failures    int
	Issuer      string
	Subject     string
	Fingerprint string // SHA-256, lower-case hex
	KeyType     string
	NotDeployed bool
	Source      string // managed file endpoint
}

// Service is what is known of the whole.
type Service struct {
	Certificates   int
	Problems       int
	LowestDaysLeft *int
	NextExpiry     time.Time
	LastCheck      time.Time
	NextRenewal    time.Time
}

// Target is a place where messages to people go.
type Target struct {
	ID        string // <scheme>_<6 hex of the URL's SHA-256>
	Name      string // for people; "" = made from the ID
	Status    string // ok retrying dead
	Since     time.Time
	LastError string // without secrets
}

// Certificate is one certificate as it is to be shown.
type Certificate struct {
	Name      string
	Label     string // name of its device: first domain that is no wildcard; empty = Name
	Managed   bool   // ours to renew
	Endpoints bool   // it is looked at where it is served
	State     State
}

// Snapshot is everything that is to be seen at one moment.
type Snapshot struct {
	Service      Service
	Certificates []Certificate
	Targets      []Target
}

// Event is something that happened to a certificate.
type Event struct {
	Type     string // one of the contract's event types
	Text     string // one sentence
	DaysLeft *int
	NotAfter time.Time
}

// The values of the contract, in its order.
func eventTypes() []string {
	return []string{"renewed", "renewal_failed", "deployed", "deploy_failed", "warning", "critical", "expired", "resolved"}
}

func statuses() []string {
	return []string{"ok", "notice", "warning", "critical", "expired", "unknown"}
}

// Home Assistant takes states of up to 255 characters. A sentence has 200, a
// name inside a certificate the 253 of a DNS name.
const (
	sentenceLimit = 200
	nameLimit     = 253
)

func (s State) payload(name string) []byte {
	return encode(struct {
		Name        string `json:"name"`
		Status      string `json:"status"`
		Problem     string `json:"problem"`
		DaysLeft    any    `json:"days_left"`
		NotAfter    string `json:"not_after"`
		NotBefore   string `json:"not_before"`
		LastResult  string `json:"last_result"`
		LastRenewal string `json:"last_renewal"`
		NextRenewal string `json:"next_renewal"`
		Failures    int    `json:"failures"`
		Issuer      string `json:"issuer"`
		Subject     string `json:"subject"`
		Fingerprint string `json:"fingerprint"`
		KeyType     string `json:"key_type"`
		NotDeployed string `json:"not_deployed"`
		Source      string `json:"source"`
	}{
		name, oneOf(s.Status, statuses(), "unknown"), onOff(s.Problem), days(s.DaysLeft),
		instant(s.NotAfter), instant(s.NotBefore), text(s.LastResult, sentenceLimit),
		instant(s.LastRenewal), instant(s.NextRenewal), s.Failures,
		text(s.Issuer, nameLimit), text(s.Subject, nameLimit), text(s.Fingerprint, nameLimit), text(s.KeyType, nameLimit),
		onOff(s.NotDeployed), text(s.Source, nameLimit),
	})
}

func (s Service) payload(version, installation string) []byte {
	return encode(struct {
		Version        string `json:"version"`
		Installation   string `json:"installation"`
		Certificates   int    `json:"certificates"`
		Problems       int    `json:"problems"`
		LowestDaysLeft any    `json:"lowest_days_left"`
		NextExpiry     string `json:"next_expiry"`
		LastCheck      string `json:"last_check"`
		NextRenewal    string `json:"next_renewal"`
	}{
		text(version, nameLimit), text(installation, nameLimit), s.Certificates, s.Problems,
		days(s.LowestDaysLeft), instant(s.NextExpiry), instant(s.LastCheck), instant(s.NextRenewal),
	})
}

func (t Target) payload() []byte {
	return encode(struct {
		Status    string `json:"status"`
		Since     string `json:"since"`
		LastError string `json:"last_error"`
	}{oneOf(t.Status, []string{"ok", "retrying", "dead"}, none), instant(t.Since), text(t.LastError, sentenceLimit)})
}

func (e Event) payload(name string) []byte {
	return encode(struct {
		Type        string `json:"event_type"`
		Certificate string `json:"certificate"`
		Text        string `json:"text"`
		DaysLeft    any    `json:"days_left"`
		NotAfter    string `json:"not_after"`
	}{e.Type, name, text(e.Text, sentenceLimit), days(e.DaysLeft), instant(e.NotAfter)})
}

// encode writes v as JSON for readers: <, > and & stay what they are. v holds
// texts and numbers only, which cannot fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// onOff is never None: openHAB warns at each.
func onOff(b bool) string {
	if b {
		return "ON"
	}
	return "OFF"
}

func days(d *int) any {
	if d == nil {
		return none
	}
	return *d
}

// instant is RFC 3339 in UTC to the second. Years that the form cannot hold
// count as no value.
func instant(t time.Time) string {
	t = t.UTC()
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return none
	}
	return t.Format("2006-01-02T15:04:05Z")
}

// text makes one line of at most limit characters. It may come from a
// stranger's certificate, so marks that turn the direction of writing go too.
func text(s string, limit int) string {
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Cf, r):
			return -1
		case unicode.IsControl(r), unicode.IsSpace(r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
			return ' '
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if s == "" {
		return none
	}
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit-1]) + "…"
	}
	return s
}

func oneOf(s string, allowed []string, otherwise string) string {
	if slices.Contains(allowed, s) {
		return s
	}
	return otherwise
}
