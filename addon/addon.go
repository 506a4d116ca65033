// Package addon is how Certsitter lives as a Home Assistant app: it asks the
// Supervisor for the broker and for the app's own settings, and Home Assistant's
// Core for a restart or to show a message, through the Supervisor or, without
// one, by its URL and a long-lived token.
//
// It never decides what is to be told or when, never repeats a question by
// itself, and never keeps a token: each question asks for it anew, since the
// Supervisor makes a new one at every start. No token is ever in an error.
package addon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

var (
	// ErrNotUp: the other side is not there, or not yet. The same question is
	// worth asking again later.
	ErrNotUp = errors.New("not up yet")
	// ErrNoBroker: the Supervisor knows no MQTT broker.
	ErrNoBroker = errors.New("no MQTT broker")
)

// A failure is a sentence for people that says what to do, and for the program
// what it may act on.
type failure struct {
	sentence string
	kind     error // ErrNotUp, ErrNoBroker or nil
}

func (f *failure) Error() string { return f.sentence }

func (f *failure) Unwrap() error { return f.kind }

func sentence(format string, values ...any) error {
	return &failure{sentence: fmt.Sprintf(format, values...)}
}

func notUp(format string, values ...any) error {
	return &failure{sentence: fmt.Sprintf(format, values...), kind: ErrNotUp}
}

const (
	// questionLimit is how long an answer may take that needs no work.
	questionLimit = 30 * time.Second
	// maxAnswer bounds an answer; the longest is Core's list of actions, some
	// 50 KiB on an empty system.
	maxAnswer = 8 << 20
	// maxForeign bounds what is repeated of another program's words.
	maxForeign = 200
)

// A peer is one side that is asked over HTTP.
type peer struct {
	url    string // without a slash at its end
	token  func() string
	client *http.Client // nil = one of our own
	direct bool         // the environment's proxy is not for this one
}

// A question is one request.
type question struct {
	method, path string
	body         any           // sent as JSON; nil = none
	limit        time.Duration // zero = questionLimit
}

// An answer is what came back, whatever its status.
type answer struct {
	status   int
	location string // of a redirection, which is never followed
	body     []byte
}

// A lost question is one without an answer.
type lost struct {
	sent bool // the other side had all of it
	err  error
}

func (l *lost) Error() string { return l.err.Error() }

func (l *lost) Unwrap() error { return l.err }

var (
	errNoToken     = errors.New("there is no token")
	errBrokenToken = errors.New("the token is not one word")
)

// ask asks. The error is one of the two above, a *lost, or ctx's cause if ctx
// ended.
func (p peer) ask(ctx context.Context, q question) (answer, error) {
	token := ""
	if p.token != nil {
		token = strings.TrimSpace(p.token())
	}
	switch {
	case token == "":
		return answer{}, errNoToken
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return answer{}, errBrokenToken
	}
	limit := cmp.Or(q.limit, questionLimit)
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(limited, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { sent.Store(info.Err == nil) },
	})
	request, err := q.request(traced, p.url, token)
	if err != nil {
		return answer{}, &lost{err: err}
	}
	got, err := exchange(p.httpClient(), request)
	switch {
	case err == nil:
		return got, nil
	case ctx.Err() != nil:
		return answer{}, context.Cause(ctx)
	case limited.Err() != nil:
		err = context.Cause(limited)
	}
	return answer{}, &lost{sent: sent.Load(), err: bare(err)}
}

func (q question) request(ctx context.Context, base, token string) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		text, err := json.Marshal(q.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, q.method, base+q.path, body)
	if err != nil {
		return nil, bare(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("User-Agent", "certsitter")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

// httpClient follows no redirection: a POST would become a GET that succeeds
// and does nothing, and the token is for one host.
func (p peer) httpClient() *http.Client {
	client := http.Client{}
	if p.client != nil {
		client = *p.client
	}
	if client.Transport == nil {
		// A connection of its own for each question: what was open before a
		// restart is dead after it.
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
		if p.direct {
			transport.Proxy = nil
		}
		client.Transport = transport
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

func exchange(client *http.Client, request *http.Request) (answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	return answer{status: response.StatusCode, location: response.Header.Get("Location"), body: body}, nil
}

// bare is an error of net/http without the URL around it, which the sentence
// names itself.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// message is what the answer says in words: the "message" of a JSON object as
// Core and the Supervisor send it, or nothing.
func (a answer) message() string {
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(a.body, &said) != nil {
		return ""
	}
	return foreign(said.Message)
}

// foreign makes another program's words fit for a sentence of ours.
func foreign(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.TrimRight(strings.Join(strings.Fields(s), " "), ".")
	if runes := []rune(s); len(runes) > maxForeign {
		return string(runes[:maxForeign]) + "…"
	}
	return s
}

// unknownPeer tells that TLS failed because of what the other side showed.
func unknownPeer(err error) bool {
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	return verify || name || authority
}

// noTLS tells that an https URL led to a port that speaks plain HTTP.
func noTLS(err error) bool {
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return record || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
