package notify

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestWordsOfEachKind(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 12, 1, 9, 0, 0, 0, berlin)
	home := Subject{
		Key: "home", Name: "home.example.org", Code: "renewal_failed", HasDays: true,
		Text: "The DNS provider refused the token.", Advice: "Make a new token.",
		NotAfter: time.Date(2026, 12, 20, 14, 2, 0, 0, time.UTC),
	}
	tests := []struct {
		lang        string
		severity    Severity
		kind        Kind
		change      func(*Subject)
		title, body string
	}{
		{"en", Warning, Opened, nil,
			"Certificate home.example.org: renewal fails, 19 days left",
			"The DNS provider refused the token. Make a new token. It expires on 20 December 2026, 15:02 CET."},
		{"de", Warning, Opened, nil,
			"Zertifikat home.example.org: Erneuerung schlägt fehl, noch 19 Tage",
			"The DNS provider refused the token. Make a new token. Es läuft am 20.12.2026, 15:02 CET ab."},
		{"en", Warning, Repeated, nil,
			"Reminder: Certificate home.example.org: renewal fails, 19 days left",
			"The DNS provider refused the token. Make a new token. It expires on 20 December 2026, 15:02 CET."},
		{"de", Critical, Escalated, func(s *Subject) { s.NotAfter = now.Add(30 * time.Hour) },
			"DRINGEND: Zertifikat home.example.org: Erneuerung schlägt fehl, noch 1 Tag",
			"The DNS provider refused the token. Make a new token. Es läuft am 02.12.2026, 15:00 CET ab."},
		{"en", Critical, Repeated, func(s *Subject) { s.NotAfter = now.Add(time.Minute) },
			"URGENT: certificate home.example.org: renewal fails, less than a day left",
			"The DNS provider refused the token. Make a new token. It expires on 1 December 2026, 09:01 CET."},
		{"en", Expired, Escalated, func(s *Subject) { s.NotAfter = now.Add(-72 * time.Hour) },
			"EXPIRED: certificate home.example.org, 3 days ago",
			"The DNS provider refused the token. Make a new token. It expired on 28 November 2026, 09:00 CET: browsers refuse it."},
		{"de", Expired, Escalated, func(s *Subject) { s.NotAfter = now.Add(-47 * time.Hour) },
			"ABGELAUFEN: Zertifikat home.example.org, vor 1 Tag",
			"The DNS provider refused the token. Make a new token. Es ist am 29.11.2026, 10:00 CET abgelaufen: Browser lehnen es ab."},
		{"en", Warning, Opened, func(s *Subject) { s.Text = "It expires on 20 December 2026, 15:02 CET and nobody renews it." },
			"Certificate home.example.org: renewal fails, 19 days left",
			"It expires on 20 December 2026, 15:02 CET and nobody renews it. Make a new token."},
		{"en", OK, Resolved, nil,
			"Certificate home.example.org is fine again, 19 days left",
			"It is valid until 20 December 2026, 15:02 CET. There is nothing to do."},
		{"de", Notice, Resolved, nil,
			"Zertifikat home.example.org ist wieder in Ordnung, noch 19 Tage",
			"Es gilt bis 20.12.2026, 15:02 CET. Es ist nichts zu tun."},
		{"en", Warning, Opened, func(s *Subject) { s.HasDays, s.NotAfter, s.Code = false, time.Time{}, "a_new_one" },
			"Certificate home.example.org",
			"The DNS provider refused the token. Make a new token."},
		{"fr", Warning, Opened, func(s *Subject) { s.NotAfter, s.DaysLeft, s.Text, s.Advice = time.Time{}, 4, "", "" },
			"Certificate home.example.org: renewal fails, 4 days left", ""},
		{"en", Expired, Opened, func(s *Subject) { s.NotAfter, s.DaysLeft, s.Text, s.Advice = time.Time{}, -3, "", "" },
			"EXPIRED: certificate home.example.org, 2 days ago", ""},
	}
	for _, test := range tests {
		s := home
		s.Severity = test.severity
		if test.change != nil {
			test.change(&s)
		}
		title, body := Words(test.lang, now, test.kind, s)
		if title != test.title {
			t.Errorf("%s %s %s: title %q, want %q", test.lang, test.severity, test.kind, title, test.title)
		}
		if body != test.body {
			t.Errorf("%s %s %s: body %q, want %q", test.lang, test.severity, test.kind, body, test.body)
		}
	}
}

func TestEveryReasonHasWordsInBothLanguages(t *testing.T) {
	longest := strings.Repeat("x", 200) + ".example.org"
	const usual = "home-assistant.example.org"
	for code := range english.reasons {
		if german.reasons[code] == "" {
			t.Errorf("%s has no German words", code)
		}
	}
	if len(german.reasons) != len(english.reasons) {
		t.Errorf("%d German, %d English reasons", len(german.reasons), len(english.reasons))
	}
	for _, lang := range []string{"en", "de"} {
		for code := range english.reasons {
			for _, severity := range []Severity{Warning, Critical, Expired} {
				s := subject("home", severity, 365)
				s.Code, s.Name = code, longest
				title, _ := Words(lang, start, Repeated, s)
				if n := utf8.RuneCountInString(title); n > maxTitle || !strings.Contains(title, longest[:20]) {
					t.Errorf("%d characters: %q", n, title)
				}
				s.Name = usual
				if title, _ = Words(lang, start, Opened, s); utf8.RuneCountInString(title) > maxTitle || !strings.Contains(title, usual) {
					t.Errorf("%q", title)
				}
			}
		}
		if title, body := TestWords(lang); title == "" || body == "" {
			t.Errorf("%s has no words for a test", lang)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add("home", "The server\nsays no.", 5, "de", "warning")
	f.Add("{{ states('x') }}", "<img onerror=x>\u202egnp.exe", -5, "en", "expired")
	f.Add("a\r\nBcc: x@example.org", "{{{%{#{{", 0, "", "critical")
	f.Add("\xff\xfe", strings.Repeat("ä", 5000), 1<<40, "en", "unknown")
	f.Fuzz(func(t *testing.T, name, text string, days int, lang, severity string) {
		s := Subject{Key: "x", Name: name, Severity: Severity(severity), Text: text, Advice: text, DaysLeft: days, HasDays: true, Code: "stale"}
		for _, kind := range []Kind{Opened, Escalated, Repeated, Resolved} {
			title, body := Words(lang, start, kind, s)
			if utf8.RuneCountInString(title) > maxTitle {
				t.Errorf("title of %d characters: %q", utf8.RuneCountInString(title), title)
			}
			if utf8.RuneCountInString(body) > 1500 {
				t.Errorf("body of %d characters", utf8.RuneCountInString(body))
			}
			for _, said := range []string{title, body} {
				if strings.ContainsFunc(said, unicode.IsControl) || !utf8.ValidString(said) {
					t.Errorf("control characters: %q", said)
				}
				for _, bad := range []string{"{{", "{%", "{#", "\u202e"} {
					if strings.Contains(said, bad) {
						t.Errorf("%q in %q", bad, said)
					}
				}
			}
		}
	})
}
