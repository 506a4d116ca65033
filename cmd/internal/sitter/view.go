package sitter

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/mqtt"
)

// view makes the snapshot that everybody outside sees, and has it published.
func (s *Sitter) view(now time.Time) {
	sane, blind := s.clock.sane(), s.clock.blind()
	if !blind && !sane || !blind && !s.lookedAtAll() {
		if !sane {
			s.tellBroker() // what is shown does not change, perhaps for long
		}
		return // what was seen last stands; a guess would set off alarms
	}
	link := s.link()
	snap := &Snapshot{
		Version: s.world.Version, Installation: s.memory.Installation, Time: now.UTC(),
		Certificates: []Certificate{}, Targets: []Target{}, Problems: append(append([]Problem{}, s.notes...), s.cautions...), Asks: s.asks(now), Restarting: s.acting[restartCore],
		MQTT: link, LastCheck: utc(s.memory.LastCheck), Language: s.settings.Language,
	}
	worst := expiry.OK
	for _, j := range s.jobs {
		snap.add(s.managedView(now, j), blind)
	}
	for _, w := range s.watched {
		snap.add(s.watchedView(now, w), blind)
	}
	for _, c := range snap.Certificates {
		var severity expiry.Severity
		_ = severity.UnmarshalText([]byte(c.Status)) // our own word
		if severity.Compare(worst) > 0 {
			worst = severity
		}
		if !c.NextRenewal.IsZero() && (snap.NextRenewal.IsZero() || c.NextRenewal.Before(snap.NextRenewal)) {
			snap.NextRenewal = c.NextRenewal
		}
		if !c.NotAfter.IsZero() && (snap.NextExpiry.IsZero() || c.NotAfter.Before(snap.NextExpiry)) {
			snap.NextExpiry, snap.LowestDays = c.NotAfter, c.DaysLeft
		}
		if d := c.DaysLeft; d != nil { // when the number falls
			s.at(c.NotAfter.Add(-time.Duration(*d) * 24 * time.Hour).Add(time.Millisecond))
		}
	}
	snap.Status = worst.String()
	for _, t := range s.memory.Messages.Targets() {
		snap.Targets = append(snap.Targets, Target{ID: t.ID, Name: s.targetName(t.ID), Status: t.Status, Since: utc(t.Since), LastError: t.LastError})
	}
	old := s.snapshot.Swap(snap)
	s.publish(now, snap)
	if old == nil || !alike(old, snap) {
		s.emit(Event{Time: now, Kind: "state"})
	}
	if s.answerChecks {
		s.answerChecks = false
		for _, done := range s.awaiting {
			done <- nil
		}
		s.awaiting = nil
	}
}

// alike compares all but the time.
func alike(a, b *Snapshot) bool {
	x, y := *a, *b
	x.Time, y.Time = time.Time{}, time.Time{}
	return reflect.DeepEqual(x, y)
}

// add puts a certificate into the snapshot. Once the clock has been wrong for an
// hour nothing that depends on it is said, and that is a problem of its own.
func (s *Snapshot) add(c Certificate, blind bool) {
	if blind {
		c.Status, c.Problem, c.DaysLeft, c.Problems = expiry.Unknown.String(), true, nil, nil
	}
	if c.Problems == nil {
		c.Problems = []Problem{}
	}
	s.Certificates = append(s.Certificates, c)
}

// managedView is how a managed certificate stands.
func (s *Sitter) managedView(now time.Time, j *job) Certificate {
	e := s.memory.of(j.name)
	judged := s.judge(now, j)
	facts := judged.facts
	c := Certificate{
		Name: j.name, Label: j.label, Source: "managed", Domains: j.rules.Names, Files: j.files,
		LastResult: e.LastResult, LastRenewal: utc(s.lastRenewal(j, e)), Failures: e.Record.Failures,
		Renewing: j.running, Step: j.step,
	}
	if j.looked && !s.world.Manual {
		c.NextRenewal = utc(s.decide(now, j).At)
	}
	if d := e.Deployment; d != nil && d.Stage != deployed {
		c.Deployment = d.sentence()
	}
	for _, served := range facts.Served {
		// As it was seen, whether or not it is judged.
		c.Endpoints = append(c.Endpoints, endpointView(s.served(j.name, served.Address, j.installed), e.Endpoints[served.Address]))
		differs := served.Certificate != nil && j.installed != nil && !served.Same
		c.NotDeployed = c.NotDeployed || differs && !e.Deployment.early(e.Endpoints[served.Address].Seen)
	}
	c.judge(now, judged)
	if j.installed != nil {
		c.describe(j.installed)
	}
	return c
}

// early: what was seen then does not tell whether the server takes the new
// certificate, since its actions are still being performed or have just ended.
func (d *deployment) early(seen time.Time) bool {
	switch {
	case d == nil || d.Stage == deployed:
		return false
	case d.Stage == toAct:
		return d.Failures == 0 && d.Waiting == ""
	}
	return seen.Sub(d.EndedAt) < settle
}

// lastRenewal is when the newest certificate came; one that was taken over has
// been renewed by somebody at its beginning.
func (s *Sitter) lastRenewal(j *job, e *entry) time.Time {
	if j.newest == nil {
		return time.Time{}
	}
	if j.newest.Adopted {
		return j.newest.NotBefore
	}
	return j.newest.StoredAt
}

// watchedView is how a watched certificate stands.
func (s *Sitter) watchedView(now time.Time, w *watch) Certificate {
	e := s.memory.of(w.name)
	judged := s.judgeWatched(now, w)
	facts := judged.facts
	c := Certificate{Name: w.name, Label: w.name, Source: "file", Files: []string{w.path}}
	if w.probe != nil {
		c.Source, c.Files = "endpoint", nil
		served := s.served(w.name, w.probe.address, nil)
		c.Endpoints = append(c.Endpoints, endpointView(served, e.Endpoints[w.probe.address]))
	}
	c.judge(now, judged)
	if found := expiry.Earliest(facts); found != nil {
		c.describe(found)
	}
	c.LastResult = watchedResult(now, c, facts)
	return c
}

func watchedResult(now time.Time, c Certificate, f expiry.Facts) string {
	if f.Unreadable != "" {
		return clip("Could not be looked at: " + f.Unreadable)
	}
	if c.NotAfter.IsZero() {
		return "Not looked at yet."
	}
	if !now.Before(c.NotAfter) {
		return clip("Expired on " + dateOf(c.NotAfter) + ".")
	}
	return clip("Valid until " + dateOf(c.NotAfter) + ".")
}

// judge fills in the verdict and the days.
func (c *Certificate) judge(now time.Time, judged judgement) {
	f, problems := judged.facts, judged.problems
	c.Status = expiry.Worst(problems).String()
	c.Problem = expiry.Alarming(now, f, problems)
	for _, p := range problems {
		c.Problems = append(c.Problems, Problem{Code: p.Code, Severity: p.Severity.String(), Text: p.Text, Advice: p.Advice})
	}
	if earliest := expiry.Earliest(f); earliest != nil {
		c.DaysLeft, c.NotAfter = new(earliest.Days(now)), earliest.Leaf.NotAfter.UTC()
	}
}

// describe fills in what the certificate says of itself.
func (c *Certificate) describe(found *expiry.Certificate) {
	c.NotBefore = found.Leaf.NotBefore.UTC()
	c.Subject, c.Issuer, c.Names = found.Subject(), found.Issuer(), found.Names()
	c.Print, c.KeyType = found.Fingerprint(), found.KeyType()
}

// endpointView is how an endpoint stands.
func endpointView(served expiry.Served, seen *sighting) Endpoint {
	out := Endpoint{Address: served.Address, Error: served.Error}
	if seen != nil {
		out.Seen = utc(seen.Seen)
	}
	if served.Certificate != nil {
		out.Print, out.NotAfter = served.Certificate.Fingerprint(), served.Certificate.Leaf.NotAfter.UTC()
	}
	switch {
	case served.Error != "":
		out.Verdict = "unreachable"
	case served.Certificate == nil:
	case served.Same:
		out.Verdict = "same"
	case served.Known:
		out.Verdict = "stale"
	default:
		out.Verdict = "foreign"
	}
	return out
}

// sentence says what a deployment is doing.
func (d deployment) sentence() string {
	switch {
	case d.Waiting != "":
		return d.Waiting
	case d.Error != "":
		return "The last step failed and is tried again: " + d.Error
	case d.Stage == toInstall:
		return "The new certificate is being installed."
	case d.Stage == toAct:
		return "The new certificate is installed, and what uses it is being told."
	}
	return "The new certificate is installed. Whether it is served is being looked at."
}

func (s *Sitter) link() MQTT {
	if s.world.Broker == nil {
		return MQTT{}
	}
	state := s.world.Broker.State()
	if state.Other != "" {
		s.service(Problem{Code: "other_installation", Severity: "warning",
			Text:   fmt.Sprintf("Another Certsitter (%s) uses the same MQTT topic %q, so each overwrites what the other publishes.", state.Other, s.settings.MQTT.Topic),
			Advice: "Give one of them another mqtt.topic."})
	} else {
		s.serviceOK("other_installation")
	}
	if len(state.Refused) > 0 {
		s.service(Problem{Code: "mqtt_refused", Severity: "warning", Text: fmt.Sprintf("Some messages are not fit for the broker and were not sent: %v.", state.Refused), Advice: "Please report this."})
	} else {
		s.serviceOK("mqtt_refused")
	}
	return MQTT{Configured: true, Connected: state.Connected, Broker: plainURL(s.settings.MQTT.Broker), Error: state.Error}
}

// publishEvery is how often the broker is told while much changes: each time
// all messages are made. Nobody sees a shorter state, and a person who pressed a
// button waits no longer for what it does.
const publishEvery = 250 * time.Millisecond

// publish has the broker show the snapshot, now or a little later, and then tells
// what happened.
func (s *Sitter) publish(now time.Time, snap *Snapshot) {
	if s.world.Broker == nil {
		return
	}
	shown := snap.ForBroker()
	s.late = !s.published || !reflect.DeepEqual(shown, s.shown) || s.emptied()
	if wait := s.shownAt.Add(publishEvery).Sub(now); s.late && s.published && wait > 0 && wait <= publishEvery {
		s.at(now.Add(wait)) // the pass of that time shows what is then
		return
	}
	if s.late {
		s.show(now, shown)
	}
	s.tellBroker()
}

// tellBroker tells what happened, in the order in which it did.
func (s *Sitter) tellBroker() {
	for _, e := range s.told {
		s.world.Broker.Event(e.name, e.event)
	}
	s.told = nil
}

// showLast has the broker show what was last, when the loop ends.
func (s *Sitter) showLast(now time.Time) {
	if s.world.Broker == nil {
		return
	}
	if s.late {
		s.show(now, s.snapshot.Load().ForBroker())
	}
	s.tellBroker()
}

func (s *Sitter) show(now time.Time, shown mqtt.Snapshot) {
	messages, err := mqtt.Messages(s.mqttConfig(), shown)
	if s.serviceOK("mqtt_messages"); err != nil {
		s.log.Error().Err(err).Msg("some messages are not fit for MQTT")
		s.service(Problem{Code: "mqtt_messages", Severity: "warning", Text: "Something cannot be published: " + err.Error(), Advice: "Please report this."})
	}
	// The last wills' topics are the publisher's, but they must be emptied as
	// well when the base topic changes.
	topics := s.mqttConfig().OwnTopics()
	for _, m := range messages {
		topics = append(topics, m.Topic)
	}
	slices.Sort(topics)
	s.topicsWanted = len(topics)
	emptied := s.published && len(s.world.Broker.State().Emptying) == 0
	var obsolete []string
	for _, old := range s.memory.Topics {
		if _, wanted := slices.BinarySearch(topics, old); !wanted && !emptied {
			obsolete = append(obsolete, old)
		}
	}
	remembered := slices.Concat(topics, obsolete)
	if s.settings.StandIn { // they wait for a configuration that says whether they are wanted
		remembered, obsolete = slices.Concat(topics, s.memory.Topics), nil
		s.topicsWanted = len(remembered)
	}
	// Remembered before they are published, and until they are empty, so that
	// none can be left behind.
	if all := s.emptying(remembered); !slices.Equal(all, s.memory.Topics) {
		s.memory.Topics, s.dirty = all, true
		s.save()
	}
	s.world.Broker.Publish(messages, obsolete)
	s.shown, s.shownAt, s.published, s.late = shown, now, true, false
}

// emptied: the broker has emptied topics that are still remembered.
func (s *Sitter) emptied() bool {
	return len(s.memory.Topics) > s.topicsWanted && len(s.world.Broker.State().Emptying) == 0
}

// emptying keeps in mind what the broker has yet to empty.
func (s *Sitter) emptying(topics []string) []string {
	all := slices.Concat(topics, s.world.Broker.State().Emptying)
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Sitter) mqttConfig() mqtt.Config {
	m := s.settings.MQTT
	return mqtt.Config{Topic: m.Topic, DiscoveryPrefix: m.DiscoveryPrefix, Homie: m.Homie, Installation: s.memory.Installation, Version: s.world.Version}
}

// ForBroker is the part of the snapshot that MQTT shows.
func (s *Snapshot) ForBroker() mqtt.Snapshot {
	out := mqtt.Snapshot{Service: mqtt.Service{
		Certificates: len(s.Certificates), LowestDaysLeft: s.LowestDays,
		NextExpiry: s.NextExpiry, LastCheck: s.LastCheck, NextRenewal: s.NextRenewal,
	}}
	for _, p := range s.Problems {
		if p.Severity != expiry.Notice.String() {
			out.Service.Problems++
		}
	}
	for _, c := range s.Certificates {
		if c.Problem {
			out.Service.Problems++
		}
		out.Certificates = append(out.Certificates, mqtt.Certificate{
			Name: c.Name, Label: c.Label, Managed: c.Source == "managed", Endpoints: c.Source == "managed" && len(c.Endpoints) > 0,
			State: mqtt.State{
				Status: c.Status, Problem: c.Problem, DaysLeft: c.DaysLeft, NotAfter: c.NotAfter, NotBefore: c.NotBefore,
				LastResult: c.LastResult, LastRenewal: c.LastRenewal, NextRenewal: c.NextRenewal, Failures: c.Failures,
				Issuer: c.Issuer, Subject: c.Subject, Fingerprint: c.Print, KeyType: c.KeyType,
				NotDeployed: c.NotDeployed, Source: c.Source,
			},
		})
	}
	for _, t := range s.Targets {
		out.Targets = append(out.Targets, mqtt.Target{ID: t.ID, Name: t.Name, Status: t.Status, Since: t.Since, LastError: t.LastError})
	}
	return out
}

// counting is the certificate of that name whose life counts.
func (s *Sitter) counting(now time.Time, name string) *expiry.Certificate {
	if j := s.job(name); j != nil {
		return s.inForce(now, j)
	}
	if w := s.watch(name); w != nil {
		return expiry.Earliest(s.judgeWatched(now, w).facts)
	}
	return nil
}

// sentenceLimit is the contract's limit for last_result.
const sentenceLimit = 200

// clip shortens a sentence to what the outside takes.
func clip(text string) string {
	if utf8.RuneCountInString(text) <= sentenceLimit {
		return text
	}
	runes := []rune(text)
	return strings.TrimRight(string(runes[:sentenceLimit-1]), " ") + "…"
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

func dateOf(t time.Time) string { return t.Local().Format("2 Jan 2006") }

// clockTime is an instant for a sentence: the time of day today, else with the
// date.
func clockTime(t, now time.Time) string {
	if t, now := t.Local(), now.Local(); t.YearDay() != now.YearDay() || t.Year() != now.Year() {
		return t.Format("15:04 on 2 Jan 2006")
	}
	return t.Local().Format("15:04:05")
}

func host(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return directory
	}
	return cmp.Or(u.Host, directory)
}

// plainURL is a URL without what may be secret in it.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

func listNames(names []string) string {
	if len(names) <= 3 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
}

func sentenceOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// spread moves an interval by up to a tenth to either side, for each key by the
// same share, so that a home's endpoints are not looked at all at once.
func spread(d time.Duration, key string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	share := float64(h.Sum32()%2001)/1000 - 1 // −1…1
	return d + time.Duration(share*float64(d)/10)
}
