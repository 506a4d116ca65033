package directory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// A Window is a CA's advice on when to renew one certificate (RFC 9773 §4.2).
type Window struct {
	Start, End  time.Time     // UTC; End is after Start
	Explanation string        // URL of a page that says why, for people; "" = none
	RetryAfter  time.Duration // when to ask again: 1 min to 24 h, 6 h if the CA did not say
	Date        time.Time     // when the CA said so, by its own clock; zero = it did not say
}

// pollInterval is when to ask again if the CA does not say (RFC 9773 §4.3.2).
const pollInterval = 6 * time.Hour

// RenewalInfo asks a CA when it would like a certificate to be renewed.
// renewalInfoURL is the directory's, certID the certificate's (RFC 9773 §4.1).
// A CA that does not know the certificate gives ErrNotFound; any other answer
// that says no is a *StatusError. Only a valid window is no error.
func (c *Client) RenewalInfo(ctx context.Context, renewalInfoURL, certID string, roots []byte) (Window, error) {
	if certID == "" {
		return Window{}, fmt.Errorf("ask for renewal information: the certificate has no id (no authority key identifier): %w", ErrNotFound)
	}
	a, err := c.get(ctx, strings.TrimSuffix(renewalInfoURL, "/")+"/"+url.PathEscape(certID), roots)
	if err != nil {
		return Window{}, fmt.Errorf("ask for renewal information: %w", err)
	}
	w, err := decodeWindow(a.body)
	if err != nil {
		return Window{}, fmt.Errorf("ask for renewal information: %w", err)
	}
	w.RetryAfter = cmp.Or(a.retryAfter, pollInterval)
	w.Date = a.date
	return w, nil
}

// firstWindow is before any CA spoke ACME. A window from before it is nobody's
// advice: it would mean "renew now" and so must not come of a missing or zeroed
// field.
var firstWindow = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)

func decodeWindow(body []byte) (Window, error) {
	var answer struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL string `json:"explanationURL"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Window{}, fmt.Errorf("the answer is no renewal information: %w", err)
	}
	w := Window{
		Start:       answer.SuggestedWindow.Start.UTC(),
		End:         answer.SuggestedWindow.End.UTC(),
		Explanation: pageURL(answer.ExplanationURL),
	}
	switch {
	case w.Start.Before(firstWindow):
		return Window{}, fmt.Errorf("the answer is no renewal information: the window begins on %s", w.Start.Format(time.DateOnly))
	case !w.End.After(w.Start):
		return Window{}, fmt.Errorf("the answer is no renewal information: the window ends before it begins")
	}
	return w, nil
}

// maxExplanation is longer than any URL that people can be expected to open.
const maxExplanation = 1000

// pageURL is the URL if it is one that can be shown to people, else "".
func pageURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	if len(text) > maxExplanation || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return ""
	}
	return text
}
