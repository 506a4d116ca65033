// Package shout delivers one message through shoutrrr. It is for a process that
// lives for one message and is killed at a deadline: it replaces
// http.DefaultTransport while it sends, and a service that hangs leaves a
// goroutine behind. It is not safe for concurrent use.
//
// It never takes shoutrrr's word alone: v0.13.2 reports success for messages
// that went nowhere (Telegram without a network, a webhook that redirects, a
// Matrix account without rooms). Delivered is what was seen on the wire. It
// never uses shoutrrr's router, whose time-outs leak, and never lets a secret
// of the URL out in an error.
package shout

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/certsitter/certsitter/notify"
)

// timeout is how long one delivery may take. The parent kills the process a
// little later.
const timeout = 25 * time.Second

// Send delivers one message, once. Its error is a *notify.Undelivered.
func Send(ctx context.Context, r notify.Request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	secrets := secretsOf(r.URL)
	if u := send(ctx, r); u != nil {
		u.Reason = secrets.redact(u.Reason)
		return u
	}
	return nil
}

func send(ctx context.Context, r notify.Request) *notify.Undelivered {
	target, err := url.Parse(r.URL)
	if err != nil {
		return refused("the notification URL cannot be read")
	}
	scheme := schemeOf(target)
	if scheme == "" {
		return refused("the notification URL does not begin with a service, as in ntfy:// or telegram://")
	}
	form, known := forms[scheme]
	if !known {
		return refused("there is no notification service " + fmt.Sprintf("%q", scheme))
	}
	if form.refuse != "" {
		return refused(form.refuse)
	}
	wire := newWire(ctx, form)
	defer wire.replaceDefault()()
	service, err := locate(r.URL)
	if err != nil {
		return refused("the notification URL is wrong: " + err.Error())
	}
	wire.tap(service)

	message, params := form.compose(r, target)
	done := make(chan error, 1)
	go func() { done <- shout(service, message, params) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return wire.verdict(err)
}

func refused(why string) *notify.Undelivered {
	return &notify.Undelivered{Reason: why, Permanent: true}
}

// locate makes the service of a URL. shoutrrr hides why it could not, so the
// service is asked again.
func locate(target string) (types.Service, error) {
	service, err := new(router.ServiceRouter).Locate(target)
	if err == nil || service == nil {
		return service, err
	}
	u, parseErr := url.Parse(target)
	if parseErr != nil {
		return nil, err
	}
	if cause := service.Initialize(u, nil); cause != nil {
		return nil, cause
	}
	return nil, err
}

// shout sends through a service. shoutrrr's Zulip panics if there is no network.
func shout(service types.Service, message string, params types.Params) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the notification library gave up: %v", p)
		}
	}()
	return service.Send(message, &params)
}

// verdict says what became of a message, from what was seen and from what
// shoutrrr says of it.
func (w *wire) verdict(err error) *notify.Undelivered {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.failure != nil:
		return w.failure
	case err == nil && w.form.transport == overHTTP && !w.delivered:
		return &notify.Undelivered{Reason: w.form.missing()}
	case err == nil:
		return nil
	}
	u := &notify.Undelivered{Reason: err.Error()}
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		u.Permanent = reply.Code >= 500 && reply.Code < 600 // RFC 5321 §4.2.1
		return u
	}
	// Nothing was asked of anybody: the URL or what it says is not acceptable.
	u.Permanent = w.form.transport == overHTTP && w.requests == 0 && w.ctx.Err() == nil
	return u
}
