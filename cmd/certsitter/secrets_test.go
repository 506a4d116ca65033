package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"testing"
)

// leaks says in which form a secret is in a text; "" = it is not.
func leaks(text []byte, secret string) string {
	forms := map[string]string{
		"it is":     secret,
		"query":     url.QueryEscape(secret),
		"path":      url.PathEscape(secret),
		"hex":       hex.EncodeToString([]byte(secret)),
		"user info": url.UserPassword("u", secret).String(),
	}
	// Base64 of a longer text that holds the secret depends on where in a group
	// of three bytes it begins; the characters at both ends are shared.
	for offset := range 3 {
		padded := append(make([]byte, offset), secret...)
		whole := base64.RawStdEncoding.EncodeToString(padded)
		from, to := (offset*8+5)/6, len(whole)
		if len(padded)%3 != 0 {
			to--
		}
		forms["base64 "+string(rune('0'+offset))] = whole[from:to]
		forms["base64url "+string(rune('0'+offset))] = base64.RawURLEncoding.EncodeToString(padded)[from:to]
	}
	for name, form := range forms {
		if bytes.Contains(text, []byte(form)) {
			return name
		}
	}
	return ""
}

// The test of the tests: what finds secrets finds them.
func TestLeaks(t *testing.T) {
	const secret = "s3cr3t/with+all~kinds"
	for _, text := range []string{
		"token=" + secret + "&", url.Values{"token": {secret}}.Encode(), "/" + url.PathEscape(secret) + "/",
		base64.StdEncoding.EncodeToString([]byte("user:" + secret)), base64.StdEncoding.EncodeToString([]byte("u:" + secret + "x")),
		base64.URLEncoding.EncodeToString([]byte(":" + secret)), hex.EncodeToString([]byte(secret)),
	} {
		if leaks([]byte(text), secret) == "" {
			t.Errorf("not found in %s", text)
		}
	}
	if form := leaks([]byte("nothing of s3cr3t here"), secret); form != "" {
		t.Errorf("found as %s in what does not hold it", form)
	}
}
