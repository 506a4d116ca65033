package notify

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The limits of a message, in characters. The title's is what fits on a phone's
// lock screen; the body's is below what the narrowest service takes (Discord,
// 2,000).
const (
	maxTitle  = 80
	maxReason = 400
)

// A language is one language's words.
type language struct {
	warning, critical, expired, again string // beginnings of titles; %s is the name
	reminder                          string // prefix
	left                              func(days int) string
	ago                               func(days int) string
	expires, expiredOn, validUntil    string // %s is the date
	nothingToDo                       string
	testTitle, testBody               string
	reasons                           map[string]string // a problem's code → words for the title
	date                              func(time.Time) string
}

var english = language{
	warning:  "Certificate %s",
	critical: "URGENT: certificate %s",
	expired:  "EXPIRED: certificate %s",
	again:    "Certificate %s is fine again",
	reminder: "Reminder: ",
	left: func(days int) string {
		switch days {
		case 0:
			return "less than a day left"
		case 1:
			return "1 day left"
		}
		return fmt.Sprintf("%d days left", days)
	},
	ago: func(days int) string {
		switch days {
		case 0:
			return "less than a day ago"
		case 1:
			return "1 day ago"
		}
		return fmt.Sprintf("%d days ago", days)
	},
	expires:     "It expires on %s.",
	expiredOn:   "It expired on %s: browsers refuse it.",
	validUntil:  "It is valid until %s.",
	nothingToDo: "There is nothing to do.",
	testTitle:   "Certsitter: test message",
	testBody:    "This is a test. What Certsitter has to say about your certificates will arrive here.",
	reasons: map[string]string{
		"expiring":         "expires soon",
		"not_yet_valid":    "is not valid yet",
		"renewal_failed":   "renewal fails",
		"renewal_overdue":  "renewal is overdue",
		"no_certificate":   "there is none yet",
		"names_missing":    "a name is missing",
		"not_installed":    "the new one is not installed",
		"stale":            "the old one is still served",
		"action_failed":    "the new one is not taken into use",
		"revoked":          "it was revoked",
		"foreign":          "another one is served",
		"unreadable":       "cannot be looked at",
		"unreachable":      "cannot be looked at",
		"pin_mismatch":     "not the expected one",
		"wrong_name":       "is for another name",
		"chain_incomplete": "chain is incomplete",
		"untrusted":        "not trusted",
	},
	date: func(t time.Time) string { return t.Format("2 January 2006, 15:04 MST") },
}

var german = language{
	warning:  "Zertifikat %s",
	critical: "DRINGEND: Zertifikat %s",
	expired:  "ABGELAUFEN: Zertifikat %s",
	again:    "Zertifikat %s ist wieder in Ordnung",
	reminder: "Erinnerung: ",
	left: func(days int) string {
		switch days {
		case 0:
			return "noch weniger als ein Tag"
		case 1:
			return "noch 1 Tag"
		}
		return fmt.Sprintf("noch %d Tage", days)
	},
	ago: func(days int) string {
		switch days {
		case 0:
			return "vor weniger als einem Tag"
		case 1:
			return "vor 1 Tag"
		}
		return fmt.Sprintf("vor %d Tagen", days)
	},
	expires:     "Es läuft am %s ab.",
	expiredOn:   "Es ist am %s abgelaufen: Browser lehnen es ab.",
	validUntil:  "Es gilt bis %s.",
	nothingToDo: "Es ist nichts zu tun.",
	testTitle:   "Certsitter: Testnachricht",
	testBody:    "Dies ist ein Test. Was Certsitter über Ihre Zertifikate zu sagen hat, kommt hier an.",
	reasons: map[string]string{
		"expiring":         "läuft bald ab",
		"not_yet_valid":    "gilt noch nicht",
		"renewal_failed":   "Erneuerung schlägt fehl",
		"renewal_overdue":  "Erneuerung ist überfällig",
		"no_certificate":   "es gibt noch keines",
		"names_missing":    "ein Name fehlt",
		"not_installed":    "das neue ist nicht installiert",
		"stale":            "das alte ist noch im Einsatz",
		"action_failed":    "das neue ist nicht im Einsatz",
		"revoked":          "es wurde widerrufen",
		"foreign":          "ein anderes ist im Einsatz",
		"unreadable":       "nicht einsehbar",
		"unreachable":      "nicht einsehbar",
		"pin_mismatch":     "nicht das erwartete",
		"wrong_name":       "gilt für einen anderen Namen",
		"chain_incomplete": "Kette ist unvollständig",
		"untrusted":        "nicht vertrauenswürdig",
	},
	date: func(t time.Time) string { return t.Format("02.01.2006, 15:04 MST") },
}

// languageOf is the language of a code of the configuration; English if there
// is no such.
func languageOf(code string) language {
	if code == "de" {
		return german
	}
	return english
}

// Words puts a message into words: a title of at most 80 characters that names
// certificate, reason and days left, and a body with one reason, one action and
// one date. lang is en or de; dates are written in now's time zone. Text and
// Advice are taken over in the language they have.
func Words(lang string, now time.Time, kind Kind, s Subject) (title, body string) {
	l := languageOf(lang)
	days, known := daysLeft(now, s)
	over := s.Severity == Expired || known && days < 0
	tail := ""
	switch {
	case known && over:
		tail = l.ago(daysAgo(now, s))
	case known:
		tail = l.left(days)
	}
	if kind == Resolved {
		s.Text = ""
		return headline(l.again, s.Name, "", tail), sentences(l.dated(now, s, l.validUntil), l.nothingToDo)
	}
	reason := l.reasons[s.Code]
	begin, date := l.warning, l.expires
	switch {
	case over:
		begin, date, reason = l.expired, l.expiredOn, ""
	case s.Severity == Critical:
		begin = l.critical
	case kind == Repeated:
		begin = l.reminder + begin
	}
	return headline(begin, s.Name, reason, tail), sentences(clean(s.Text, maxReason), clean(s.Advice, maxReason), l.dated(now, s, date))
}

// TestWords is a test message.
func TestWords(lang string) (title, body string) {
	l := languageOf(lang)
	return l.testTitle, l.testBody
}

// daysLeft is the floor of the days that are left now: what the subject said
// may be from before a night of quiet hours.
func daysLeft(now time.Time, s Subject) (int, bool) {
	if !s.HasDays || s.NotAfter.IsZero() {
		return s.DaysLeft, s.HasDays
	}
	left := s.NotAfter.Sub(now)
	days := int(left / (24 * time.Hour))
	if left < 0 && left%(24*time.Hour) != 0 {
		days--
	}
	return days, true
}

// daysAgo is the number of whole days since it expired.
func daysAgo(now time.Time, s Subject) int {
	if s.NotAfter.IsZero() {
		return max(-s.DaysLeft-1, 0)
	}
	return max(int(now.Sub(s.NotAfter)/(24*time.Hour)), 0)
}

// dated is the sentence with the date of expiry; empty where the reason has it
// already.
func (l language) dated(now time.Time, s Subject, sentence string) string {
	expiry := s.NotAfter.In(now.Location())
	if s.NotAfter.IsZero() || strings.Contains(s.Text, expiry.Format("2 January 2006")) {
		return ""
	}
	return fmt.Sprintf(sentence, l.date(expiry))
}

// headline is a title: its beginning with the name, the reason, the days. If
// there is not room for all, the reason gives way, which the body has too, and
// then the end of the name.
func headline(begin, name, reason, days string) string {
	name = clean(name, maxTitle)
	if days != "" {
		days = ", " + days
	}
	if reason != "" {
		if title := fmt.Sprintf(begin, name) + ": " + reason + days; utf8.RuneCountInString(title) <= maxTitle {
			return title
		}
	}
	room := maxTitle - utf8.RuneCountInString(begin) + len("%s") - utf8.RuneCountInString(days)
	return fmt.Sprintf(begin, clean(name, max(room, 1))) + days
}

// sentences joins what there is to say.
func sentences(parts ...string) string {
	var said []string
	for _, part := range parts {
		if part != "" {
			said = append(said, part)
		}
	}
	return strings.Join(said, " ")
}

// clean makes foreign text fit for a message: one line, without control and
// direction characters, at most limit characters long, and with nothing in it
// that an old Home Assistant would take for a template.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == utf8.RuneError:
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	for _, brace := range []string{"{{", "{%", "{#"} {
		for strings.Contains(text, brace) {
			text = strings.ReplaceAll(text, brace, brace[:1]+" "+brace[1:])
		}
	}
	if utf8.RuneCountInString(text) <= limit {
		return text
	}
	return strings.TrimSpace(string([]rune(text)[:limit-1])) + "…"
}
