package sitter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

// A command is done by the loop. Works that it begins end with works.
type command func(works context.Context, now time.Time)

// ErrStopped answers a command that came after the loop's end.
var ErrStopped = errors.New("certsitter is stopping")

// pressEvery is how often one certificate may be renewed by hand (docs/renewal.md).
const pressEvery = time.Minute

// Snapshot is how things are. It is never nil and never changes. Before
// everything was looked at once it is without a Time and without certificates.
func (s *Sitter) Snapshot() *Snapshot { return s.snapshot.Load() }

// Events are what happens from now on, until ctx ends. The channel is closed
// then, or when the loop ends.
func (s *Sitter) Events(ctx context.Context) <-chan Event { return s.hub.join(ctx) }

// Renew begins the renewal of one certificate by hand. It returns when the
// attempt has begun; how it goes on is in the events. The error is a *Refused
// if nothing was begun.
func (s *Sitter) Renew(ctx context.Context, name string, o RenewOptions) error {
	return s.ask(ctx, func(_ context.Context, now time.Time) error { return s.byHand(now, name, o) })
}

// Check looks at everything now and returns when all looks have come back.
func (s *Sitter) Check(ctx context.Context) error {
	done := make(chan error, 1)
	if err := s.ask(ctx, func(context.Context, time.Time) error { return s.check(done) }); err != nil {
		return err
	}
	return s.await(ctx, done)
}

// Revoke revokes the certificate in force with an RFC 5280 reason and begins
// the renewal that replaces it, with a new key.
func (s *Sitter) Revoke(ctx context.Context, name, reason string) error {
	done := make(chan error, 1)
	if err := s.ask(ctx, func(works context.Context, now time.Time) error { return s.revoke(works, now, name, reason, done) }); err != nil {
		return err
	}
	return s.await(ctx, done)
}

// TestNotify sends a test message to one target, or to all with an empty id.
func (s *Sitter) TestNotify(ctx context.Context, target string) ([]Delivery, error) {
	done := make(chan []Delivery, 1)
	if err := s.ask(ctx, func(works context.Context, _ time.Time) error { return s.testMessages(works, target, done) }); err != nil {
		return nil, err
	}
	select {
	case deliveries := <-done:
		return deliveries, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.over:
		return nil, ErrStopped
	}
}

// RestartHomeAssistant begins a restart of Home Assistant that somebody asked
// for. It returns when it has begun; how it goes on is in the events. The error
// is a *Refused if nothing was begun.
func (s *Sitter) RestartHomeAssistant(ctx context.Context) error {
	return s.ask(ctx, s.restart)
}

// Reload takes a new configuration into force. Running renewals go on.
func (s *Sitter) Reload(ctx context.Context, conf *settings.Settings) error {
	return s.ask(ctx, func(context.Context, time.Time) error {
		s.serviceOK(codeRefused)
		return s.configure(conf)
	})
}

// codeRefused is the problem that a configuration was refused.
const codeRefused = "config"

// Refuse makes a configuration that was refused a problem that can be seen, with
// all its mistakes; the old one stays in force. Each mistake is one sentence, of
// one line or more.
func (s *Sitter) Refuse(ctx context.Context, mistakes ...string) error {
	return s.ask(ctx, func(context.Context, time.Time) error {
		s.service(refused(mistakes))
		return nil
	})
}

// refused is the problem of a configuration with these mistakes. One that stands
// alone is told in the text.
func refused(mistakes []string) Problem {
	p := Problem{Code: codeRefused, Severity: "warning",
		Text:    "The new configuration was refused, what was in force before stays in force",
		Advice:  "Correct it, then reload; as a Home Assistant app, restart Certsitter.",
		Details: mistakes}
	switch len(mistakes) {
	case 0:
		p.Text += "."
	case 1:
		p.Text += ": " + mistakes[0]
	default:
		p.Text = fmt.Sprintf("%s. It has %d mistakes.", p.Text, len(mistakes))
	}
	return p
}

// Note makes a problem of the service visible; a later one with the same code
// takes its place.
func (s *Sitter) Note(ctx context.Context, p Problem) error {
	return s.ask(ctx, func(context.Context, time.Time) error { s.service(p); return nil })
}

// ask has f done by the loop.
func (s *Sitter) ask(ctx context.Context, f func(works context.Context, now time.Time) error) error {
	answer := make(chan error, 1)
	select {
	case s.commands <- func(works context.Context, now time.Time) { answer <- f(works, now) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.over:
		return ErrStopped
	}
	return s.await(ctx, answer)
}

func (s *Sitter) await(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.over:
		select {
		case err := <-answer: // it was answered while the loop ended
			return err
		default:
			return ErrStopped
		}
	}
}

// check makes everything due to be looked at now.
func (s *Sitter) check(done chan error) error {
	if !s.clock.sane() {
		return &Refused{Code: "clock", Sentence: "The clock cannot be believed yet, so nothing is judged. Set the time, or wait for NTP."}
	}
	s.checkAll(done)
	return nil
}

// pressed carries out what came over MQTT. Nobody waits for an answer there, so
// a refusal shows in the certificate's last result.
func (s *Sitter) pressed(works context.Context, now time.Time, c mqtt.Command) {
	s.log.Info().Str("command", c.Kind).Str("cert", c.Name).Msg("command over MQTT")
	switch c.Kind {
	case "renew":
		if err := s.byHand(now, c.Name, RenewOptions{Force: true}); err != nil {
			s.log.Warn().Err(err).Str("cert", c.Name).Msg("not renewed")
		}
	case "check":
		if err := s.check(make(chan error, 1)); err != nil {
			s.log.Warn().Err(err).Msg("not looked")
		}
	case "notify":
		if err := s.testMessages(works, "", make(chan []Delivery, 1)); err != nil {
			s.log.Warn().Err(err).Msg("no test message")
		}
	}
}

// byHand begins a renewal that somebody asked for, or says why not.
func (s *Sitter) byHand(now time.Time, name string, o RenewOptions) error {
	j := s.job(name)
	if j == nil {
		return s.notManaged(name)
	}
	if err := s.mayRenew(now, j, o); err != nil {
		s.refuse(name, o, err)
		return err
	}
	j.asked, j.byHand = &o, true
	return nil
}

// refuse says why a renewal by hand is not made, in the last result, too: over
// MQTT nobody waits for an answer.
func (s *Sitter) refuse(name string, o RenewOptions, why *Refused) {
	if !o.DryRun && !o.Staging {
		s.memory.of(name).LastResult = clip("Not renewed: " + why.Sentence)
		s.dirty = true
	}
	s.emit(Event{Name: name, Kind: "refused", Text: why.Sentence})
}

func (s *Sitter) notManaged(name string) *Refused {
	for _, w := range s.watched {
		if w.name == name {
			return &Refused{Code: "not_managed", Sentence: fmt.Sprintf("%s is only watched: somebody else renews it.", name)}
		}
	}
	sentence := fmt.Sprintf("There is no certificate %q in the configuration.", name)
	if len(s.jobs) > 0 {
		var names []string
		for _, j := range s.jobs {
			names = append(names, j.name)
		}
		sentence += " There is " + strings.Join(names, ", ") + "."
	}
	return &Refused{Code: "unknown", Sentence: sentence}
}

// mayRenew says why an attempt by hand may not begin now; nil if it may. The
// CA's Retry-After, the hourly cap and the issuances hold for people, too.
func (s *Sitter) mayRenew(now time.Time, j *job, o RenewOptions) *Refused {
	if !s.clock.sane() {
		return &Refused{Code: "clock", Sentence: "The clock cannot be believed yet, so nothing is renewed. Set the time, or wait for NTP."}
	}
	if j.running || j.asked != nil {
		return &Refused{Code: "busy", Sentence: fmt.Sprintf("%s is being renewed already.", j.name)}
	}
	if !o.Force && !o.Staging && !o.DryRun {
		if d := s.decide(now, j); d.Reason == renew.Fresh {
			return notDue(d, now)
		}
	}
	e := s.memory.of(j.name)
	if since := now.Sub(e.Record.Pressed); since >= 0 && since < pressEvery {
		until := e.Record.Pressed.Add(pressEvery)
		return &Refused{Code: "too_soon", Until: until, Sentence: "It was asked for less than a minute ago: once a minute is enough. Possible again at " + clockTime(until, now) + "."}
	}
	if (o.Staging || o.DryRun) && j.stagingDirectory == "" {
		return &Refused{Code: "staging", Sentence: fmt.Sprintf("The CA of %s has no staging environment, so a trial would be a real order.", j.name)}
	}
	s.countIssuances(now, j)
	at := j.place(o)
	until, why := renew.Guard(now, s.factsAt(now, j, at), j.rules)
	if !until.IsZero() {
		return guardRefusal(why, until, now)
	}
	return nil
}

func notDue(d renew.Decision, now time.Time) *Refused {
	return &Refused{Code: "not_due", Until: d.At, Sentence: "It is not due before " + clockTime(d.At, now) + ". Use --force to renew it all the same."}
}

// guardSentences say what stands against an attempt by hand, to be followed by
// an instant.
var guardSentences = map[renew.Hold]string{
	renew.OnRetry:  "The CA asked to be left alone until ",
	renew.OnHourly: "There were four attempts within the hour, and CAs refuse more. Possible again at ",
	renew.OnIssued: "Three certificates for these names were issued lately, and the CA refuses too many. Possible again at ",
}

func guardRefusal(why renew.Hold, until, now time.Time) *Refused {
	return &Refused{Code: string(why), Until: until, Sentence: guardSentences[why] + clockTime(until, now) + "."}
}

// testMessages sends a test message to one target or to all of them.
func (s *Sitter) testMessages(works context.Context, target string, done chan<- []Delivery) error {
	var urls []string
	for _, url := range s.targets {
		if target == "" || notify.TargetID(url) == target {
			urls = append(urls, url)
		}
	}
	if len(urls) == 0 {
		return &Refused{Code: "unknown", Sentence: "There is no such target: nothing is configured under notify, or no target has this name."}
	}
	s.sendTests(works, urls, done)
	return nil
}
