package shout

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestASCII(t *testing.T) {
	for title, want := range map[string]string{
		"Zertifikat läuft ab – „home“": `Zertifikat laeuft ab - "home"`,
		"Überfällig: ß":                "Ueberfaellig: ss",
		"日本.example":                   "??.example",
		strings.Repeat("ä", 80):        strings.Repeat("ae", 40),
		"plain":                        "plain",
	} {
		if got := ascii(title); got != want {
			t.Errorf("%q: %q, want %q", title, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("Title\r\nBcc: x", "Body\x00\x1b[31m")
	f.Add(strings.Repeat("ä", 200), strings.Repeat("日", 5000))
	f.Add("\u2028\u0085\xff", "\n\n\n")
	f.Fuzz(func(t *testing.T, title, body string) {
		title, body = ascii(oneLine(title)), shorten(body)
		if len(title) > maxTitle || strings.ContainsFunc(title, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("title %q", title)
		}
		if utf8.RuneCountInString(body) > maxBody || len(body) > maxBodyBytes || !utf8.ValidString(body) {
			t.Errorf("body of %d characters, %d bytes", utf8.RuneCountInString(body), len(body))
		}
		if strings.ContainsFunc(body, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
			t.Errorf("body %q", body)
		}
	})
}

func TestSecretsInEveryWriting(t *testing.T) {
	const target = "generic://user%40x:p%C3%A4ss+w%C3%B6rd@host.test/path-secret/x?template=json&token=a%2Fb%3Dc&@X-Key=k1!&plain=harmless"
	s := secretsOf(target)
	password := "päss+wörd"
	for _, text := range []string{
		target, password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword("user@x", password).String(),
		base64.StdEncoding.EncodeToString([]byte("user@x:" + password)), base64.URLEncoding.EncodeToString([]byte(password)),
		"path-secret", "a/b=c", "a%2Fb%3Dc", "k1!", "user@x",
	} {
		if got := s.redact("dial " + text + " failed"); strings.Contains(got, text) || got != "dial *** failed" {
			t.Errorf("%q leaves %q", text, got)
		}
	}
	if got := s.redact("json from host.test"); got != "json from host.test" {
		t.Errorf("too much: %q", got)
	}
}

func FuzzRedact(f *testing.F) {
	for _, target := range everywhere {
		f.Add(target, "SECRETpassword")
	}
	f.Add("::", "secret")
	f.Add("smtp://u:p@h:99999/?x=%zz", "%zz%zz%zz")
	f.Fuzz(func(t *testing.T, target, password string) {
		_ = secretsOf(target).redact(target)
		if len(password) < minSecret || strings.ContainsAny(password, "* ") || !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl) {
			return
		}
		u := url.URL{Scheme: "ntfy", User: url.UserPassword("x", password), Host: "h", Path: "/" + password}
		got := secretsOf(u.String()).redact("error: " + password + " and " + url.QueryEscape(password) + " and " + u.String())
		if strings.Contains(got, password) && !strings.Contains("error: *** and *** and ***", password) {
			t.Errorf("%q leaves %q", password, got)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "", `{"retry_after": 1.5}`)
	f.Add("NaN", "", `{"parameters": {"retry_after": -1}}`)
	f.Add("Tue, 01 Dec 2026 09:00:00 GMT", "Tue, 01 Dec 2026 08:00:00 GMT", "")
	f.Add("1e300", "", `{"retry_after": 1e300}`)
	f.Fuzz(func(t *testing.T, text, date, body string) {
		h := http.Header{}
		h.Set("Retry-After", text)
		h.Set("Date", date)
		if got := retryAfter(h, []byte(body)); got < 0 {
			t.Errorf("%v", got)
		}
		_ = wordsOf([]byte(body))
	})
}

func TestRetryAfterInWords(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "1.5": 1500 * time.Millisecond, "-3": 0, "NaN": 0, "Inf": 7 * 24 * time.Hour, "": 0} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, nil); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
