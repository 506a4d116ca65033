package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/go-acme/lego/v4/acme"

	"github.com/certsitter/certsitter/renew"
)

// errorType is what each ACME error type begins with (RFC 8555 §6.7).
const errorType = "urn:ietf:params:acme:error:"

// maxDetail is how many characters of the other side's words are kept.
const maxDetail = 1000

// fault says what an error means, with what the last answer said about when to
// come back. A fault stays what it is.
func (s *session) fault(step, name string, err error) *renew.Fault {
	if fault, ok := errors.AsType[*renew.Fault](err); ok {
		return fault
	}
	fault := &renew.Fault{Problems: s.problems(step, name, err)}
	if s.wire == nil {
		return fault
	}
	last := s.wire.lastAnswer()
	if last.status < http.StatusBadRequest {
		return fault
	}
	fault.RetryAfter = last.retryAfter
	fault.WholeDirectory = last.retryAfter > 0 &&
		(last.status == http.StatusServiceUnavailable || step == renew.StepDirectory || ofAccount(fault.Problems[0]))
	return fault
}

// accountLimit finds rate limits that concern all that an account or an address
// does (Boulder's ratelimits/limiter.go).
var accountLimit = regexp.MustCompile(`(?i)from this account|from this IP|new registrations|new orders`)

func ofAccount(p renew.Problem) bool {
	return p.Type == errorType+"rateLimited" && accountLimit.MatchString(p.Detail)
}

// problem is a fault of our own, in our words.
func (s *session) problem(step, name, detail string) *renew.Fault {
	return &renew.Fault{Problems: []renew.Problem{{Step: step, Name: name, Detail: detail}}}
}

// problems are the error itself and those of single names in it.
func (s *session) problems(step, name string, err error) []renew.Problem {
	details, ok := errors.AsType[*acme.ProblemDetails](err)
	if !ok {
		return []renew.Problem{s.untyped(step, name, err)}
	}
	all := []renew.Problem{s.typed(step, name, details)}
	for _, sub := range details.SubProblems {
		all = append(all, renew.Problem{
			Step: step, Name: sub.Identifier.Value, Type: sub.Type, Detail: s.clean(sub.Detail), Status: details.HTTPStatus,
		})
	}
	return all
}

func (s *session) typed(step, name string, p *acme.ProblemDetails) renew.Problem {
	return renew.Problem{Step: step, Name: name, Type: p.Type, Detail: s.clean(p.Detail), Status: p.HTTPStatus}
}

// untyped is an error without an ACME problem: of the network, of a provider,
// of a proxy that answers with a page.
func (s *session) untyped(step, name string, err error) renew.Problem {
	p := renew.Problem{Step: step, Name: name, Detail: s.clean(err.Error())}
	if s.wire == nil || !fromCA(step) {
		return p
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return p // there was no answer
	}
	last := s.wire.lastAnswer()
	switch {
	case last.status >= http.StatusBadRequest:
		p.Status = last.status
		p.Detail = s.clean(fmt.Sprintf("the CA answered %d %s: %s", last.status, http.StatusText(last.status), markup.ReplaceAllString(last.text, " ")))
	case last.status != 0:
		p.Status = last.status
	}
	return p
}

var markup = regexp.MustCompile(`<[^<>]*>`)

// fromCA says whether errors of a step come out of a request to the CA.
func fromCA(step string) bool {
	return step != renew.StepPresent && step != renew.StepPropagation
}

// clean makes foreign words fit to be kept and shown: without secrets, control
// characters and length.
func (s *session) clean(text string) string {
	text = s.redacted(text)
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}), " ")
	if runes := []rune(text); len(runes) > maxDetail {
		text = string(runes[:maxDetail]) + "…"
	}
	return text
}

// redacted takes the provider's and the external account's secrets out: at
// least 14 of lego's providers quote them in errors. Short values stay, they
// are numbers and switches, and so do the zones of the order's names.
func (s *session) redacted(text string) string {
	const shortest = 6
	secrets := append(slices.Collect(maps.Values(s.request.Env)), s.request.EABHMAC)
	secrets = slices.DeleteFunc(secrets, func(v string) bool { return len(v) < shortest || s.isZone(v) })
	// The longest first: one may be the beginning of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
		text = strings.ReplaceAll(text, url.QueryEscape(secret), "[redacted]")
	}
	return text
}

func (s *session) isZone(value string) bool {
	zone := "." + strings.ToLower(strings.Trim(value, "."))
	return slices.ContainsFunc(s.names, func(name string) bool { return strings.HasSuffix("."+name, zone) })
}

// outcome is what the caller gets for an error: the context's cause if it was
// cancelled, else the fault with all that is known.
func (s *session) outcome(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(s.ctx.Err(), context.Canceled) {
		return fmt.Errorf("stopped: %w", context.Cause(s.ctx))
	}
	fault := s.fault(renew.StepOrder, "", err)
	fault.OrderGone = fault.OrderGone || s.orderGone
	fault.AccountGone = fault.AccountGone || s.accountGone
	if s.wire != nil {
		fault.Date = s.wire.lastDate()
	}
	return fault
}
