package shout

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/discord"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/push/ntfy"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/certsitter/certsitter/notify"
)

// maxAnswer is how much of an answer is read. Services send a line or two.
const maxAnswer = 64 << 10

// A wire stands between shoutrrr and the network and remembers what it saw. All
// requests of one delivery pass it.
type wire struct {
	ctx  context.Context // of the delivery: shoutrrr's own requests have none that ends
	form form

	mu        sync.Mutex          // guards what follows
	requests  int                 // how many were made
	delivered bool                // an answer said that the message has arrived
	failure   *notify.Undelivered // the first answer that said otherwise
}

func newWire(ctx context.Context, f form) *wire { return &wire{ctx: ctx, form: f} }

// baseTransport is like net/http's own, with a deadline for each step.
func baseTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 15 * time.Second,
		DisableKeepAlives:     true,
	}
}

// replaceDefault makes everything that uses net/http's defaults pass the wire,
// until the returned function is called. The variables' contents are changed
// and not the variables where others may have copied them.
func (w *wire) replaceDefault() (restore func()) {
	transport, client := http.DefaultTransport, *http.DefaultClient
	http.DefaultTransport = &tapped{wire: w, next: baseTransport()}
	http.DefaultClient.Timeout = timeout
	http.DefaultClient.CheckRedirect = noRedirect
	return func() { http.DefaultTransport, *http.DefaultClient = transport, client }
}

// tap makes a service with a transport of its own pass the wire as well.
func (w *wire) tap(service types.Service) {
	switch s := service.(type) {
	case *ntfy.Service:
		transport := baseTransport()
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: s.Config.DisableTLSVerification} // the user's wish
		s.SetHTTPClient(&http.Client{Timeout: timeout, CheckRedirect: noRedirect, Transport: &tapped{wire: w, next: transport}})
	case *discord.Service:
		s.Sleeper = sleepless{} // the outbox repeats, not the service: see oneFailure
	case interface{ GetHTTPClient() *http.Client }: // Gotify, Mattermost
		client := s.GetHTTPClient()
		if own, ok := client.Transport.(*http.Transport); ok {
			own.Proxy, own.DisableKeepAlives = http.ProxyFromEnvironment, true
		}
		next := client.Transport
		if next == nil {
			next = baseTransport()
		}
		client.Transport, client.CheckRedirect, client.Timeout = &tapped{wire: w, next: next}, noRedirect, timeout
	}
}

// sleepless does not wait between tries.
type sleepless struct{}

func (sleepless) Sleep(time.Duration) {}

var errRedirect = errors.New("the server sends us elsewhere, and a message is not sent on: correct the URL")

func noRedirect(*http.Request, []*http.Request) error { return errRedirect }

// A tapped transport is one that passes the wire.
type tapped struct {
	wire *wire
	next http.RoundTripper
}

// errOver ends a service that wants to go on after the first failure.
var errOver = errors.New("the delivery is over")

// RoundTrip makes a request and remembers what came of it. Answers are read
// whole here, so that nothing can trickle for ever.
func (t *tapped) RoundTrip(r *http.Request) (*http.Response, error) {
	w := t.wire
	if !w.begin() {
		return nil, errOver
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })()
	response, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, w.fail(networkFailure(ctx, err), err)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	_ = response.Body.Close()
	if err != nil {
		return nil, w.fail(networkFailure(ctx, err), err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	response.ContentLength = int64(len(body))
	if u := statusFailure(response, body); u != nil {
		err := w.fail(u, errRedirect)
		if response.StatusCode < 400 {
			return nil, err
		}
		return response, nil
	}
	w.judge(r.URL, body)
	return response, nil
}

// begin counts a request; false means that there is to be none any more.
func (w *wire) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil || w.form.oneFailure && w.failure != nil {
		return false
	}
	w.requests++
	return true
}

// fail remembers the first failure and passes the error on.
func (w *wire) fail(u *notify.Undelivered, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failure = u
	}
	return err
}

// judge remembers what a good status with this body means.
func (w *wire) judge(u *url.URL, body []byte) {
	why := ""
	arrived := true
	if w.form.arrived != nil {
		arrived, why = w.form.arrived(u, body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delivered = w.delivered || arrived
	if why != "" && w.failure == nil {
		w.failure = &notify.Undelivered{Reason: why}
	}
}

// networkFailure is a request that got no answer.
func networkFailure(ctx context.Context, err error) *notify.Undelivered {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &notify.Undelivered{Reason: err.Error()}
}

// permanentStatus are the answers after which somebody has to change something:
// the request, the token or the address is wrong.
var permanentStatus = map[int]bool{
	http.StatusBadRequest: true, http.StatusUnauthorized: true, http.StatusForbidden: true,
	http.StatusNotFound: true, http.StatusGone: true,
}

// statusFailure is an answer that says no; nil for one that says yes.
func statusFailure(response *http.Response, body []byte) *notify.Undelivered {
	status := response.StatusCode
	switch {
	case status < 300:
		return nil
	case status < 400:
		return &notify.Undelivered{Reason: fmt.Sprintf("%d %s: %v", status, http.StatusText(status), errRedirect)}
	}
	u := &notify.Undelivered{
		Reason:    strings.TrimSpace(fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))),
		Permanent: permanentStatus[status],
	}
	if words := wordsOf(body); words != "" {
		u.Reason += ": " + words
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		u.RetryAfter = retryAfter(response.Header, body)
	}
	return u
}

// retryAfter is how long the server asks us to stay away: the header in seconds
// or as a date relative to the answer's own, or what Telegram (parameters) and
// Discord (fractions of a second) say in the body.
func retryAfter(h http.Header, body []byte) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return clampSeconds(seconds)
	}
	if until, err := http.ParseTime(text); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			return max(until.Sub(date), 0)
		}
	}
	var said struct {
		RetryAfter float64 `json:"retry_after"`
		Parameters struct {
			RetryAfter float64 `json:"retry_after"`
		} `json:"parameters"`
	}
	if json.Unmarshal(body, &said) != nil {
		return 0
	}
	return clampSeconds(max(said.RetryAfter, said.Parameters.RetryAfter))
}

// clampSeconds keeps out what does not fit; who waits for it clamps further.
func clampSeconds(seconds float64) time.Duration {
	const most = 7 * 24 * 3600
	if !(seconds > 0) { // NaN, too
		return 0
	}
	return time.Duration(min(seconds, most) * float64(time.Second))
}

// wordsOf is what a service's error document says to people; "" if that is
// not known.
func wordsOf(body []byte) string {
	var said map[string]any
	if json.Unmarshal(body, &said) != nil {
		return ""
	}
	for _, key := range []string{"description", "errorDescription", "error_description", "message", "msg", "error", "errmsg"} {
		if words, ok := said[key].(string); ok && words != "" {
			return words
		}
	}
	return ""
}
