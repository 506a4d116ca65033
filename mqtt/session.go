package mqtt

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// inboxKept is how many messages wait to be looked at. Only what matters gets
// in, so more than a few means that somebody plays with the broker.
const inboxKept = 4096

// session is what happens on one connection. All of it but receive runs on
// Run's goroutine.
type session struct {
	p    *Publisher
	conn *connection

	inbox chan arrival

	sent    map[string][]byte    // retained messages that the broker has from this connection
	online  bool                 // it was told that we are online
	spoke   bool                 // it may have been told so: the answer may still be under way
	emptied map[string]time.Time // announcements that were taken away lately

	filters    []string // of the sweep that is under way; nil = none
	found      map[string]bool
	sweepBegan time.Time
	expected   int64        // messages that must come back before it ends: our own
	returned   atomic.Int64 // messages that came back; written by receive
	judged     int64        // returned when it was last looked at
	swept      bool         // this connection had its sweep

	refusal string // what the broker does not let us read; empty = nothing
	deaf    bool   // that is our own status
	mute    bool   // our own online did not come back

	statusBefore string // retained status when we came: what somebody else left
	suspect      string // installation whose service state was there when we came

	due agenda
}

// agenda is what is to be done later; zero = not.
type agenda struct {
	resend time.Time // everything, after a birth message or a damage
	status time.Time // online once more
	sweep  time.Time // end of the sweep
	echo   time.Time // our own online should have come back
	flush  time.Time // something had to wait
	steady time.Time // the connection is a good one after all
	other  time.Time // the other installation is forgotten
}

// soonest sets t to at, unless it is due before.
func soonest(t *time.Time, at time.Time) {
	if t.IsZero() || at.Before(*t) {
		*t = at
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// take says whether t is due, and clears it if so.
func take(t *time.Time, now time.Time) bool {
	if t.IsZero() || now.Before(*t) {
		return false
	}
	*t = time.Time{}
	return true
}

func (a *agenda) next() time.Time {
	var first time.Time
	for _, t := range []time.Time{a.resend, a.status, a.sweep, a.echo, a.flush, a.steady, a.other} {
		if !t.IsZero() {
			soonest(&first, t)
		}
	}
	return first
}

// arrival is a message that somebody else may have sent and that matters.
type arrival struct {
	topic    string
	payload  []byte
	retained bool // it was there when we subscribed
}

// receive runs on paho's goroutine: it neither waits nor locks.
func (s *session) receive(topic string, payload []byte, retained bool) {
	w := s.p.wanted.Load()
	if w == nil {
		w = &wanted{}
	}
	if command, ok := w.commands[topic]; ok {
		// A retained command was meant for another time.
		if !retained && string(payload) == press {
			s.p.hand(command)
		}
		return
	}
	if !s.matters(w, topic, payload, retained) {
		return
	}
	select {
	case s.inbox <- arrival{topic, payload, retained}:
	default: // found again by the next sweep
	}
}

func (s *session) matters(w *wanted, topic string, payload []byte, retained bool) bool {
	c := s.p.config
	switch topic {
	case c.statusTopic():
		return len(payload) <= len(offline)
	case c.birthTopic():
		return !retained && string(payload) == online
	case c.serviceTopic():
		return true
	}
	if !retained {
		return false
	}
	homie := c.isHomie(topic)
	if _, kept := w.payloads[topic]; kept {
		if !homie { // the sweep waits for what this connection has sent
			s.returned.Add(1)
		}
		return false
	}
	return c.owns(topic, payload) || homie && c.Homie && topic != c.homieStateTopic() && len(payload) <= foundLimit
}

// serve subscribes, sends everything, and goes on until the connection or ctx
// ends.
func (s *session) serve(ctx context.Context) error {
	c := s.p.config
	// Subscriptions first: what is on status and service state before we write
	// there tells whether we are alone.
	refused, err := s.conn.subscribe(ctx, 1, c.statusTopic(), c.serviceTopic(), c.birthTopic(),
		c.renewTopic("+"), c.serviceSetTopic("check"), c.serviceSetTopic("notify"))
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		s.deaf = slices.Contains(refused, c.statusTopic())
		s.refusal = fmt.Sprintf("The broker does not let us read %s: buttons or Home Assistant's restart will go unnoticed. Give the user %q the right to.",
			refused[0], s.p.broker.username)
		s.p.publishLink(func(l *Link) { l.Error = s.refusal })
	}
	if s.p.kicked >= kicksNoticed {
		s.due.steady = time.Now().Add(s.p.pace.steady)
	}
	if !s.p.otherSeen.IsZero() {
		s.due.other = s.p.otherSeen.Add(s.p.pace.otherFor)
	}
	for {
		if err := s.flush(ctx); err != nil {
			return err
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
}

// wait does the next thing that happens.
func (s *session) wait(ctx context.Context) error {
	var alarm <-chan time.Time
	if next := s.due.next(); !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.conn.lost:
		return s.conn.loss()
	case <-s.p.wake:
		return nil
	case a := <-s.inbox:
		s.notice(a, time.Now())
		for range len(s.inbox) { // all at once: each flush looks at every topic
			s.notice(<-s.inbox, time.Now())
		}
		return nil
	case <-alarm:
		return s.act(ctx, time.Now())
	}
}

// flush sends what the broker does not have yet.
//
// The order: announcements that are obsolete go first, then the states come,
// then online, then the announcements, the service's before those of its
// certificates, then events. With the states before online nobody sees an old
// value of ours come to life, and with both before the announcements a new
// entity has its value at once. The service is first because Home Assistant
// makes up a nameless device for a via_device that it does not know.
func (s *session) flush(ctx context.Context) error {
	w := s.p.wanted.Load()
	if w == nil {
		return nil
	}
	now := time.Now()
	if err := s.empty(ctx, now); err != nil {
		return err
	}
	if err := s.put(ctx, w.states, now); err != nil {
		return err
	}
	if !s.online {
		if err := s.sayOnline(ctx, now); err != nil {
			return err
		}
	}
	if err := s.put(ctx, w.discovery, now); err != nil {
		return err
	}
	if events := s.p.takeEvents(&s.p.events, now); len(events) > 0 {
		if err := s.conn.publish(ctx, events...); err != nil {
			return err
		}
	}
	if len(w.payloads) > 0 && !s.swept {
		return s.startSweep(ctx)
	}
	return nil
}

// put sends those of messages that are not on the broker as they are. An
// announcement that was taken away a moment ago waits: Home Assistant must
// have removed the entity first, or it makes a second one.
func (s *session) put(ctx context.Context, messages []Message, now time.Time) error {
	var fresh []Message
	for _, m := range messages {
		if sameBytes(s.sent, m) {
			continue
		}
		if ready := s.emptied[m.Topic].Add(s.p.pace.settle); now.Before(ready) {
			soonest(&s.due.flush, ready)
			continue
		}
		fresh = append(fresh, m)
	}
	if err := s.conn.publish(ctx, fresh...); err != nil {
		return err
	}
	for _, m := range fresh {
		s.sent[m.Topic] = m.Payload
	}
	return nil
}

// empty takes away what is obsolete. States wait until Home Assistant has
// removed the entities that read them.
func (s *session) empty(ctx context.Context, now time.Time) error {
	var gone []string
	for _, topic := range s.p.toEmpty(false) {
		if !isDiscovery(topic) {
			if ready := s.lastEmptied().Add(s.p.pace.settle); now.Before(ready) {
				soonest(&s.due.flush, ready)
				break // announcements come first in this order
			}
		}
		if isDiscovery(topic) {
			s.emptied[topic] = now
		}
		gone = append(gone, topic)
	}
	var messages []Message
	for _, topic := range gone {
		messages = append(messages, retained(topic, nil))
	}
	if err := s.conn.publish(ctx, messages...); err != nil {
		return err
	}
	for _, topic := range gone {
		delete(s.sent, topic)
	}
	if len(gone) > 0 {
		s.p.hasEmptied(gone)
	}
	return nil
}

func (s *session) lastEmptied() time.Time {
	var last time.Time
	for topic, at := range s.emptied {
		if at.After(last) {
			last = at
		}
		if time.Since(at) > s.p.pace.settle {
			delete(s.emptied, topic)
		}
	}
	return last
}

func (s *session) sayOnline(ctx context.Context, now time.Time) error {
	if !s.deaf {
		soonest(&s.due.echo, now.Add(s.p.pace.echo))
	}
	s.spoke = true
	if err := s.conn.publish(ctx, retained(s.p.config.statusTopic(), []byte(online))); err != nil {
		return err
	}
	s.online = true
	return nil
}

// notice judges a message that came in.
func (s *session) notice(a arrival, now time.Time) {
	switch a.topic {
	case s.p.config.birthTopic():
		// Random: not everybody at once, when Home Assistant is busy anyway.
		wait := s.p.pace.birthLeast + rand.N(s.p.pace.birthMost-s.p.pace.birthLeast+1)
		soonest(&s.due.resend, now.Add(wait))
	case s.p.config.statusTopic():
		s.noticeStatus(a, now)
	case s.p.config.serviceTopic():
		s.noticeService(a, now)
	default:
		if s.filters != nil {
			s.found[a.topic] = true
			s.due.sweep = earlier(now.Add(s.p.pace.quiet), s.sweepBegan.Add(s.p.pace.sweepMost))
		}
	}
}

// noticeStatus puts our status right when somebody else writes it: the will of
// our own former connection, which may come late, or another installation
// that ends.
func (s *session) noticeStatus(a arrival, now time.Time) {
	switch {
	case a.retained:
		s.statusBefore = string(a.payload)
	case string(a.payload) == online:
		s.due.echo = time.Time{}
		if s.mute {
			s.mute = false
			s.p.publishLink(func(l *Link) { l.Error = s.refusal })
		}
	default:
		s.forgetOther()
		soonest(&s.due.status, now.Add(s.p.pace.heal))
	}
}

// noticeService recognises another installation on our base. It is answered
// with our own state, so that it learns of us too, but rarely: two that answer
// each other must come to rest.
func (s *session) noticeService(a arrival, now time.Time) {
	if len(a.payload) == 0 {
		if !a.retained { // somebody tidies up below our base
			s.forgetOther()
			soonest(&s.due.resend, now.Add(s.p.pace.heal))
		}
		return
	}
	id := installationIn(a.payload)
	if id == "" || id == s.p.config.Installation {
		return
	}
	if a.retained {
		s.suspect = id // it may be gone long since, as after a new installation
		return
	}
	s.p.otherSeen = now
	s.due.other = now.Add(s.p.pace.otherFor)
	s.p.publishLink(func(l *Link) { l.Other = id })
	if s.p.mayAnswer(id, now) {
		delete(s.sent, s.p.config.serviceTopic()) // flush sends it
	}
}

// forgetOther says that the other installation is gone. What it left can be
// swept now.
func (s *session) forgetOther() {
	s.due.other = time.Time{}
	if s.p.State().Other == "" {
		return
	}
	s.p.publishLink(func(l *Link) { l.Other = "" })
	s.swept = false
}

// act does what is due.
func (s *session) act(ctx context.Context, now time.Time) error {
	take(&s.due.flush, now) // flush follows anyway
	if take(&s.due.resend, now) {
		clear(s.sent)
		s.online = false
	}
	if take(&s.due.status, now) {
		s.online = false
	}
	if take(&s.due.echo, now) {
		s.mute = true
		s.p.publishLink(func(l *Link) {
			l.Error = fmt.Sprintf("The broker takes our messages and does not hand them on. Give the user %q the right to write and read %s/# and %s/#.",
				s.p.broker.username, s.p.config.base(), s.p.config.prefix())
		})
	}
	if take(&s.due.steady, now) {
		s.p.kicked = 0
		s.p.publishLink(func(l *Link) { l.Error = s.refusal })
	}
	if take(&s.due.other, now) {
		s.forgetOther()
	}
	if take(&s.due.sweep, now) {
		return s.finishSweep(ctx)
	}
	return nil
}

// startSweep looks for what is on the broker from former times: topics that
// left the configuration while nobody remembered them.
func (s *session) startSweep(ctx context.Context) error {
	s.swept = true
	if s.p.State().Other != "" || s.p.config.KeepFound {
		return nil // what is found may be the other's, or wanted
	}
	s.filters, s.found = s.p.config.sweepFilters(), map[string]bool{}
	s.expected, s.judged = int64(len(s.sent))-1, 0 // the service state is under no filter
	s.returned.Store(0)
	if _, err := s.conn.subscribe(ctx, 0, s.filters...); err != nil {
		return err
	}
	s.sweepBegan = time.Now()
	s.due.sweep = s.sweepBegan.Add(s.p.pace.quiet)
	return nil
}

// finishSweep empties what was found, unless another installation uses our
// base. It waits until the broker has handed on everything: our own messages
// are among it, and how long it takes depends on the broker and on what else
// there is. One whose state was there when we came, with a status that says
// online, gets time to answer the state that we have sent.
func (s *session) finishSweep(ctx context.Context) error {
	patience := s.sweepBegan.Add(s.p.pace.suspicion)
	if s.suspect != "" && s.statusBefore == online && time.Now().Before(patience) {
		s.due.sweep = patience
		return nil
	}
	returned := s.returned.Load()
	if (returned < s.expected || returned > s.judged) && time.Now().Before(s.sweepBegan.Add(s.p.pace.sweepMost)) {
		s.judged = returned
		s.due.sweep = time.Now().Add(s.p.pace.quiet)
		return nil
	}
	filters, found := s.filters, s.found
	s.filters, s.found = nil, nil
	if s.p.State().Other == "" {
		s.p.addObsolete(slices.Collect(maps.Keys(found)))
	}
	return s.conn.unsubscribe(ctx, filters...)
}

// end leaves the broker. If we leave by ourselves the status says so at once;
// otherwise the broker publishes our will.
func (s *session) end(ctx context.Context) {
	select {
	case <-s.conn.lost:
		s.conn.cut()
		return
	default:
	}
	if ctx.Err() == nil || !s.spoke {
		s.conn.close()
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeWithin)
	defer cancel()
	if err := s.conn.publish(last, retained(s.p.config.statusTopic(), []byte(offline))); err != nil {
		s.conn.cut()
		return
	}
	s.conn.close()
}
