package sitter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

// sendLimit is how long one delivery may take; the worker is killed then.
const sendLimit = time.Minute

// facts is what is known of a managed certificate when it is judged.
func (s *Sitter) facts(now time.Time, j *job) expiry.Facts {
	e := s.memory.of(j.name)
	r := e.Record
	f := expiry.Facts{
		Managed: true, WarnDays: j.warnDays, CriticalDays: j.criticalDays, Names: j.rules.Names,
		Installed:     j.installed,
		AttemptFailed: r.Failing(), FirstFailure: r.FirstFailure, LastSuccess: r.LastSuccess,
		FailureText: r.Sentence, FailureAdvice: r.Advice,
		ForeignClient: e.Foreign,
		HasActions:    len(j.actions) > 0, ActionAdvice: actionAdvice(j.actions),
	}
	// An attempt that is being made is not overdue: after a long sleep the catching
	// up comes before the alarm. It is bounded, and fails if it takes too long.
	due := s.decide(now, j)
	if due.Reason != renew.Fresh && !j.running {
		f.DueAt = due.Planned
	}
	if due.Reason == renew.Fresh && !r.Patient {
		f.AttemptFailed = false // what failed was wanted by an earlier configuration
	}
	f.Revoked = j.newest != nil && e.Revoked == j.newest.Fingerprint
	if !j.looked && !j.reading.IsZero() && now.Sub(j.reading) >= probeLimit {
		f.Unreadable, f.UnreadableSince = "The files cannot be read: the disk or share does not answer.", j.reading
	}
	if d := e.Deployment; d != nil {
		f.InstalledAt = d.InstalledAt
		if d.Stage == toInstall && d.Failures > 0 {
			f.IssuedNotInstalled, f.InstallError = true, d.Error
		}
		f.Waiting = d.Waiting
		f.DeployEnded = d.EndedAt
		if d.Stage == toAct && d.Failures > 0 { // the actions have come to an end, a bad one
			f.DeployEnded, f.ActionError = d.InstalledAt, d.Error
		}
	}
	for _, p := range j.endpoints {
		f.Served = append(f.Served, s.attended(j, s.served(j.name, p.address, j.installed)))
	}
	if seen := s.found(j); seen != nil {
		served := s.attended(j, s.served(j.name, s.core.address, j.installed))
		if c := served.Certificate; c == nil || !served.Same && !served.Known {
			// One that was found counts for as long as it shows ours, and is no
			// trouble when it does not.
			served.Certificate, served.Error = nil, ""
		}
		f.Served = append(f.Served, served)
	}
	return f
}

// served is what was seen at an endpoint, as it is judged.
func (s *Sitter) served(name, address string, installed *expiry.Certificate) expiry.Served {
	e := s.memory.of(name)
	seen := e.Endpoints[address]
	out := expiry.Served{Address: address, NameOK: true, ChainOK: true}
	if seen == nil {
		return out
	}
	out.Error = seen.Error
	out.Certificate = s.certificate(name+" "+address, seen.PEM)
	if out.Certificate == nil {
		return out
	}
	out.NameOK, out.ChainOK = seen.NameError == "", seen.ChainError == ""
	out.Since = seen.Differs
	if installed != nil && seen.Differs.IsZero() && out.Certificate.Fingerprint() != installed.Fingerprint() {
		out.Certificate = nil // it was seen before the installation: what is served now is not known
		return out
	}
	fingerprint := out.Certificate.Fingerprint()
	out.Same = installed != nil && installed.Fingerprint() == fingerprint
	out.Known = e.knows(fingerprint)
	return out
}

// certificate parses a remembered certificate once.
func (s *Sitter) certificate(key string, text []byte) *expiry.Certificate {
	if c := s.parsed[key]; c != nil {
		return c
	}
	c, err := expiry.Parse(text)
	if err != nil {
		return nil
	}
	s.parsed[key] = c
	return c
}

// watchedFacts is what is known of a watched certificate when it is judged.
func (s *Sitter) watchedFacts(now time.Time, w *watch) expiry.Facts {
	e := s.memory.of(w.name)
	f := expiry.Facts{WarnDays: w.warnDays, CriticalDays: w.criticalDays, Pin: w.conf.Pin}
	if w.probe != nil {
		served := s.served(w.name, w.probe.address, nil)
		if served.Certificate != nil {
			f.Served = append(f.Served, served)
		}
		if seen := e.Endpoints[w.probe.address]; seen != nil && seen.Error != "" {
			f.Unreadable, f.UnreadableSince = seen.Error, seen.Failing
		}
		return f
	}
	if w.busy && now.Sub(w.began) >= probeLimit && e.Unreadable == "" {
		f.Unreadable, f.UnreadableSince = "It cannot be read: the disk or share does not answer.", w.began
	}
	if w.current == nil && e.Seen != nil {
		w.current, _ = expiry.Parse(e.Seen.PEM)
	}
	f.Installed = w.current
	if e.Unreadable != "" {
		f.Unreadable, f.UnreadableSince = e.Unreadable, e.Since
	}
	return f
}

// actionAdvice is what makes a server take the new certificate where no action
// is configured.
func actionAdvice(actions []settings.Action) string {
	if len(actions) > 0 {
		return ""
	}
	return "Reload or restart the server, and configure an action under after, so that it happens by itself next time."
}

// tell lets the incidents take notice, and sends what is to be sent.
func (s *Sitter) tell(ctx context.Context, now time.Time) {
	if s.world.Manual || s.settings.StandIn { // what is not configured would be closed
		return
	}
	if !s.lookedAtAll() {
		return // nothing is judged before everything was looked at once
	}
	policy := s.policy()
	var subjects []notify.Subject
	for _, j := range s.jobs {
		subjects = append(subjects, s.subject(now, j.name, j.label, s.judge(now, j), s.memory.of(j.name)))
	}
	for _, w := range s.watched {
		subjects = append(subjects, s.subject(now, w.name, w.name, s.judgeWatched(now, w), s.memory.of(w.name)))
	}
	book, changes := s.memory.Messages.Observe(now, subjects, policy)
	for _, c := range changes {
		if kind := c.Event(); kind != "" {
			s.event(now, c.Subject.Key, kind, cmp.Or(c.Subject.Text, c.Subject.Name+" is fine again."))
		}
	}
	if len(changes) > 0 {
		s.dirty = true
	}
	book, jobs, again := book.Next(now, policy)
	s.memory.Messages = book
	if !again.IsZero() {
		s.at(again)
	}
	if len(jobs) == 0 {
		return
	}
	s.dirty = true
	s.save() // the message is remembered before it is sent
	for _, m := range jobs {
		s.send(ctx, m)
	}
}

func (s *Sitter) policy() notify.Policy {
	p := notify.Policy{Repeat: time.Duration(s.settings.RepeatHours) * time.Hour, Language: s.settings.Language}
	if quiet := s.settings.QuietHours; !quiet.IsZero() {
		zone := s.settings.Location
		p.Quiet = func(t time.Time) bool { return quiet.Contains(t, zone) }
	}
	for _, url := range s.targets {
		p.Targets = append(p.Targets, notify.TargetID(url))
	}
	return p
}

// A judgement is what is known of a certificate and what is wrong with it.
type judgement struct {
	facts    expiry.Facts
	problems []expiry.Problem
}

// judge judges a managed certificate, once in the part of a pass in which nothing
// changes.
func (s *Sitter) judge(now time.Time, j *job) judgement {
	return s.once(j.name, now, func() expiry.Facts { return s.facts(now, j) })
}

// judgeWatched is judge for a watched one.
func (s *Sitter) judgeWatched(now time.Time, w *watch) judgement {
	return s.once(w.name, now, func() expiry.Facts { return s.watchedFacts(now, w) })
}

func (s *Sitter) once(name string, now time.Time, facts func() expiry.Facts) judgement {
	if judged, known := s.judged[name]; known {
		return judged
	}
	judged := judgement{facts: facts()}
	judged.problems = expiry.Assess(now, judged.facts)
	if s.judged != nil {
		s.judged[name] = judged
	}
	return judged
}

// subject is a certificate as the incidents see it.
func (s *Sitter) subject(now time.Time, key, label string, judged judgement, e *entry) notify.Subject {
	f, problems := judged.facts, judged.problems
	out := notify.Subject{Key: key, Name: label, Renewed: e.Record.LastSuccess}
	if d := e.Deployment; d != nil && d.Stage == deployed {
		out.Renewed = d.EndedAt
	}
	worst := expiry.Worst(problems)
	if worst == expiry.Unknown && !expiry.Alarming(now, f, problems) {
		out.Unknown = true
	}
	if worst == expiry.Unknown && expiry.Alarming(now, f, problems) {
		worst = expiry.Warning // an hour without knowing is worth a message
	}
	if d := e.Deployment; d != nil && d.Stage != deployed && worst < expiry.Warning {
		out.Unknown = true // renewed is not yet served: it is fine again when it was seen
	}
	out.Severity = severities[worst]
	if len(problems) > 0 {
		out.Code, out.Text, out.Advice = problems[0].Code, problems[0].Text, problems[0].Advice
	}
	if c := expiry.Earliest(f); c != nil {
		out.HasDays, out.DaysLeft, out.NotAfter = true, c.Days(now), c.Leaf.NotAfter
	}
	return out
}

var severities = map[expiry.Severity]notify.Severity{
	expiry.Notice: notify.Notice, expiry.Warning: notify.Warning, expiry.Critical: notify.Critical, expiry.Expired: notify.Expired,
}

// send delivers one message beside the loop.
func (s *Sitter) send(ctx context.Context, m notify.Job) {
	request := m.Request
	request.URL = s.targetURL(m.Target)
	deliver := s.world.Send
	s.work(ctx, sendLimit, "the message to "+m.Target, func(ctx context.Context) func(time.Time) {
		err := deliver(ctx, request)
		stopped := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
		return func(now time.Time) {
			if s.upgraded(err) || stopped && err != nil {
				return // no failure of the target: it is tried again after the restart
			}
			undelivered := asUndelivered(err)
			s.memory.Messages = s.memory.Messages.Sent(now, m.ID, undelivered)
			s.dirty = true
			s.save()
			if undelivered != nil {
				s.log.Error().Str("target", m.Target).Str("reason", undelivered.Reason).Msg("message not delivered")
				return
			}
			s.log.Info().Str("target", m.Target).Str("title", request.Title).Msg("message delivered")
			s.emit(Event{Kind: "message", Text: "Told " + m.Target + ": " + request.Title})
		}
	})
}

// upgraded ends the daemon for a restart if the worker belongs to another
// version.
func (s *Sitter) upgraded(err error) bool {
	wrong, ok := errors.AsType[*worker.VersionError](err)
	if ok {
		s.fatal = fmt.Errorf("%w: %w", ErrRestart, wrong)
	}
	return ok
}

func asUndelivered(err error) *notify.Undelivered {
	if err == nil {
		return nil
	}
	if u, ok := errors.AsType[*notify.Undelivered](err); ok {
		return u
	}
	return &notify.Undelivered{Reason: err.Error()}
}

// targetURL is "" for a target that is configured no more.
func (s *Sitter) targetURL(id string) string {
	for _, url := range s.targets {
		if notify.TargetID(url) == id {
			return url
		}
	}
	return ""
}

func (s *Sitter) targetName(id string) string {
	if url := s.targetURL(id); url != "" {
		return notify.TargetName(url)
	}
	return id
}

// sendTests sends a test message to each URL, one try each.
func (s *Sitter) sendTests(works context.Context, urls []string, done chan<- []Delivery) {
	title, body := notify.TestWords(s.settings.Language)
	results := make(map[string]Delivery, len(urls))
	deliver := s.world.Send
	for _, url := range urls {
		id := notify.TargetID(url)
		request := notify.Request{URL: url, Title: title, Body: body, Severity: notify.Notice}
		s.work(works, sendLimit, "the test message to "+id, func(ctx context.Context) func(time.Time) {
			err := deliver(ctx, request)
			return func(now time.Time) {
				undelivered := asUndelivered(err)
				s.memory.Messages = s.memory.Messages.Tested(now, id, undelivered)
				s.dirty = true
				d := Delivery{Target: id}
				if undelivered != nil {
					d.Error = undelivered.Reason
				}
				results[id] = d
				s.emit(Event{Kind: "message", Text: "Test message to " + id + ": " + cmp.Or(d.Error, "delivered") + "."})
				if len(results) == len(urls) {
					all := make([]Delivery, 0, len(urls))
					for _, url := range urls {
						all = append(all, results[notify.TargetID(url)])
					}
					done <- all
				}
			}
		})
	}
}

// event tells everybody who looks on, and the broker, that something happened
// to a certificate.
func (s *Sitter) event(now time.Time, name, kind, text string) {
	s.emit(Event{Time: now, Name: name, Kind: kind, Text: text})
	s.log.Info().Str("cert", name).Str("event", kind).Msg(text)
	if s.world.Broker == nil {
		return
	}
	e := mqtt.Event{Type: kind, Text: clip(text)}
	if c := s.counting(now, name); c != nil {
		e.DaysLeft, e.NotAfter = new(c.Days(now)), c.Leaf.NotAfter
	}
	s.told = append(s.told, brokerEvent{name, e})
}

// A brokerEvent waits until the broker has the state that it speaks of.
type brokerEvent struct {
	name  string
	event mqtt.Event
}

func (s *Sitter) emit(e Event) {
	if e.Time.IsZero() {
		e.Time = s.world.Now()
	}
	s.hub.tell(e)
}

// beatEvery is how often the dead man's switch is told that all is well.
const (
	beatEvery = time.Hour
	beatLimit = 30 * time.Second
)

// beat tells a dead man's switch elsewhere that this one is alive and well. It
// stays silent while the service itself has a problem.
func (s *Sitter) beat(ctx context.Context, now time.Time) {
	url := s.settings.HeartbeatURL
	if url == "" || s.world.Beat == nil || s.world.Manual {
		return
	}
	if next := s.beatAt.Add(beatEvery); now.Before(next) && !now.Before(s.beatAt) {
		s.at(next)
		return
	}
	for _, p := range s.notes {
		if p.Severity != "notice" {
			return
		}
	}
	if !s.lookedAtAll() {
		return // what ends before its first round is not alive; the end of a look is the next pass
	}
	s.beatAt = now
	fetch := s.world.Beat
	s.work(ctx, beatLimit, "the heartbeat", func(ctx context.Context) func(time.Time) {
		err := fetch(ctx, url)
		return func(now time.Time) {
			if err != nil {
				s.log.Warn().Err(err).Msg("the heartbeat was not taken")
				s.beatAt = now.Add(10*time.Minute - beatEvery)
			}
		}
	})
}
