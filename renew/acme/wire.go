package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	requestTimeout = time.Minute
	// maxAnswer is far above every answer of ACME; the largest, a chain, has
	// some 10 KiB.
	maxAnswer = 1 << 20
)

// userAgent names us; lego adds itself (RFC 8555 §6.1).
func userAgent() string {
	version := ""
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		version = "/" + info.Main.Version
	}
	return "Certsitter" + version + " (+https://github.com/certsitter/certsitter)"
}

// A wire is the transport under lego: it gives each request the session's
// context, reads the whole answer within limits, and remembers what the answer
// said besides its body, which lego throws away.
type wire struct {
	transport *http.Transport

	mu   sync.Mutex
	ctx  context.Context
	last answer
	date time.Time // the last Date header of all
	// conflicts counts answers with 409: lego repeats an order without
	// "replaces" after one and does not say so.
	conflicts int
}

// An answer is the last one that came, or none if the request failed.
type answer struct {
	status     int
	retryAfter time.Duration
	text       string // the body's beginning, of an error
}

func newWire(ctx context.Context, roots []byte) (*wire, error) {
	configuration := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(roots) > 0 {
		configuration.RootCAs = x509.NewCertPool()
		if !configuration.RootCAs.AppendCertsFromPEM(roots) {
			return nil, errors.New("no certificate in the roots of the CA")
		}
	}
	return &wire{ctx: ctx, transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:       configuration,
		TLSHandshakeTimeout:   15 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: requestTimeout,
	}}, nil
}

func (w *wire) client() *http.Client { return &http.Client{Transport: w} }

func (w *wire) close() { w.transport.CloseIdleConnections() }

// use gives the requests from now on another context.
func (w *wire) use(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = ctx
}

// RoundTrip sends one request and reads its whole answer.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	ctx, cancel := context.WithTimeout(w.ctx, requestTimeout)
	w.last = answer{}
	w.mu.Unlock()
	defer cancel()

	if r.URL.Scheme != "https" { // RFC 8555 §6.1; lego checks it, too, but not before a redirect
		return nil, fmt.Errorf("the CA must be asked over https, not %s", r.URL.Scheme)
	}
	response, err := w.transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	response.Body.Close()
	w.remember(response, body)
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, errors.New("the answer has more than 1 MiB")
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

func (w *wire) remember(r *http.Response, body []byte) {
	date, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		date = time.Time{}
	}
	last := answer{status: r.StatusCode, retryAfter: retryAfter(r.Header.Get("Retry-After"), date)}
	if r.StatusCode >= http.StatusBadRequest {
		last.text = string(body[:min(len(body), 500)])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = last
	if !date.IsZero() {
		w.date = date
	}
	if r.StatusCode == http.StatusConflict {
		w.conflicts++
	}
}

// lastAnswer is what the last request came back with.
func (w *wire) lastAnswer() answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *wire) lastDate() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.date
}

func (w *wire) conflictCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conflicts
}

// retryAfter reads a Retry-After header (RFC 9110 §10.2.3). A date in it is
// taken relative to the answer's own Date: our clock may be wrong.
func retryAfter(header string, date time.Time) time.Duration {
	const longest = 10 * 365 * 24 * time.Hour // whatever is longer would overflow somewhere
	if seconds, err := strconv.ParseInt(strings.TrimSpace(header), 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(longest/time.Second))) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	if date.IsZero() {
		date = time.Now()
	}
	return min(max(at.Sub(date), 0), longest)
}
