package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrNotFound says that the CA does not know what it was asked for: a
// certificate of another CA, or one that it has forgotten. Asking again soon is
// of no use.
var ErrNotFound = errors.New("the CA does not know it")

// A StatusError is an answer that says no. errors.Is(err, ErrNotFound) holds for
// the statuses that mean that.
type StatusError struct {
	Status     int           // HTTP status
	Detail     string        // the CA's words, at most 200 characters; may be empty
	RetryAfter time.Duration // how long the CA asks us to stay away, 1 min to 24 h; zero = it did not ask
	Date       time.Time     // the answer's own; zero = it had none
}

// Error is the status and the CA's words.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("the CA answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return strings.TrimSpace(text)
}

// Is makes the statuses that mean it equal to ErrNotFound. Boulder answers 404
// to an unknown serial and 400 to another CA's issuer.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound &&
		(e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest || e.Status == http.StatusGone)
}

// answer is what came back from a CA that said yes.
type answer struct {
	body       []byte
	date       time.Time     // zero = none
	retryAfter time.Duration // zero = none, or none that can be understood
}

// get fetches a document. Only https and only the CA itself: a redirect leads
// to https or nowhere.
func (c *Client) get(ctx context.Context, address string, roots []byte) (answer, error) {
	pool, err := rootPool(roots)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	response, err := c.do(ctx, address, &tls.Config{RootCAs: pool}, onlySecure)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return answer{}, fmt.Errorf("read the answer: %w", reason(ctx, err))
	}
	a := answer{body: body, date: dateOf(response.Header)}
	if seconds, found := retryAfter(response.Header, a.date); found {
		a.retryAfter = seconds
	}
	if response.StatusCode != http.StatusOK {
		return answer{}, &StatusError{
			Status: response.StatusCode, Detail: problemDetail(body),
			RetryAfter: a.retryAfter, Date: a.date,
		}
	}
	if len(body) > maxBody {
		return answer{}, fmt.Errorf("the answer is longer than %d KiB", maxBody>>10)
	}
	return a, nil
}

// do sends one GET over a connection of its own, so that one question's roots
// never serve another's.
func (c *Client) do(ctx context.Context, address string, config *tls.Config, redirect redirectPolicy) (*http.Response, error) {
	if secure(address) == "" {
		return nil, fmt.Errorf("%q is no complete https URL", address)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", cmp.Or(c.UserAgent, "certsitter"))
	request.Header.Set("Cache-Control", "no-cache") // its Date is to be today's
	client := &http.Client{Transport: c.transport(config), CheckRedirect: redirect}
	response, err := client.Do(request)
	if err != nil {
		return nil, reason(ctx, err)
	}
	return response, nil
}

func (c *Client) transport(config *tls.Config) http.RoundTripper {
	base, _ := http.DefaultTransport.(*http.Transport)
	if c.HTTP != nil {
		if own, ok := c.HTTP.Transport.(*http.Transport); ok {
			base = own
		}
	}
	if base == nil { // somebody has replaced the default one
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	t := base.Clone()
	t.TLSClientConfig = config
	t.DisableKeepAlives = true
	t.MaxResponseHeaderBytes = maxBody
	return t
}

// redirectPolicy is http.Client.CheckRedirect.
type redirectPolicy func(next *http.Request, before []*http.Request) error

// noRedirect takes a redirect for the answer.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// maxRedirects is more than any CA needs.
const maxRedirects = 3

func onlySecure(next *http.Request, before []*http.Request) error {
	if next.URL.Scheme != "https" {
		return fmt.Errorf("redirect to %s refused: it is not https", next.URL.Redacted())
	}
	if len(before) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// reason is why a question got no answer: the deadline's words if it was the
// deadline, and the error without the URL, which the caller has.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// rootPool reads PEM roots; nil means the system's.
func rootPool(roots []byte) (*x509.CertPool, error) {
	if len(roots) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("the file with the CA's roots holds no certificate")
	}
	return pool, nil
}

// problemDetail is the detail of an RFC 7807 document, shortened and on one line;
// "" if it is none.
func problemDetail(body []byte) string {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) != nil {
		return ""
	}
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, problem.Detail)
	if runes := []rune(line); len(runes) > 200 {
		return string(runes[:199]) + "…"
	}
	return line
}

// maxAge is how old a cached answer may say it is. More is a mistake.
const maxAge = 7 * 24 * time.Hour

// dateOf is the answer's Date; for one from a cache, what that is by now.
func dateOf(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		date = date.Add(min(time.Duration(age)*time.Second, maxAge))
	}
	return date.UTC()
}

// The bounds of what a CA may ask for with Retry-After (RFC 9773 §4.3.2 leaves
// them to us).
const (
	minRetryAfter = time.Minute
	maxRetryAfter = 24 * time.Hour
)

// retryAfter is an answer's Retry-After (RFC 9110 §10.2.3), clamped. A date is
// taken relative to the answer's own: our clock may be wrong.
func retryAfter(h http.Header, date time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
		wait := maxRetryAfter
		if seconds < uint64(maxRetryAfter/time.Second) {
			wait = time.Duration(seconds) * time.Second
		}
		return max(wait, minRetryAfter), true
	}
	until, err := http.ParseTime(text)
	if err != nil || date.IsZero() {
		return 0, false
	}
	return min(max(until.Sub(date), minRetryAfter), maxRetryAfter), true
}
