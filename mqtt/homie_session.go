package mqtt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// homieSession is what happens on one connection of the Homie device. It has
// one of its own because the convention wants a last will of its own. All of it
// but receive runs on runHomie's goroutine.
type homieSession struct {
	p     *Publisher
	conn  *connection
	inbox chan arrival

	sent  map[string][]byte // what the broker has from this connection
	state string            // $state as the broker has it; empty = not said
	again bool              // all of it is to be sent once more
	mute  bool              // what we say does not come back
	due   struct {
		resend time.Time // everything, as it is
		anew   time.Time // everything, as after the login
		echo   time.Time // it should have come back
	}
}

// runHomie keeps the Homie tree on the broker until ctx ends. It waits for the
// other connection, which is the one that says what is wrong with the broker.
func (p *Publisher) runHomie(ctx context.Context) {
	var wait time.Duration
	for p.awaitConnected(ctx) {
		began := time.Now()
		connected, err := p.connectHomie(ctx)
		if ctx.Err() != nil {
			return
		}
		wait = p.pace.next(wait, connected, time.Since(began))
		if !connected || wait > p.pace.retryFirst { // one loss is nothing yet: perhaps the broker restarts
			p.homieTrouble("The Homie tree is not published: " + explain(p.broker, err))
		}
		pause(ctx, wait/2+rand.N(wait/2+1))
	}
}

// awaitConnected waits for the Publisher's first connection; false = ctx ended.
func (p *Publisher) awaitConnected(ctx context.Context) bool {
	for !p.connected() {
		select {
		case <-ctx.Done():
			return false
		case <-p.wakeHomie:
		}
	}
	return ctx.Err() == nil
}

func (p *Publisher) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link.Connected
}

// homieTrouble says what is wrong with the tree; empty = nothing.
func (p *Publisher) homieTrouble(sentence string) {
	p.mu.Lock()
	same := p.homieError == sentence
	p.homieError = sentence
	p.mu.Unlock()
	if !same {
		poke(p.changed)
	}
}

func (p *Publisher) connectHomie(ctx context.Context) (connected bool, err error) {
	h := &homieSession{p: p, inbox: make(chan arrival, inboxKept), sent: map[string][]byte{}}
	will := retained(p.config.homieStateTopic(), []byte(homieLost))
	h.conn, err = dial(ctx, p.broker, greeting{clientID: p.clientID() + "-homie", will: will, receive: h.receive})
	if err != nil {
		return false, err
	}
	p.homieTrouble("")
	err = h.serve(ctx)
	h.end(ctx)
	return true, err
}

// receive runs on paho's goroutine: it neither waits nor locks.
func (h *homieSession) receive(topic string, payload []byte, retained bool) {
	if retained {
		return // a command for another time, or the state of a former connection
	}
	if property, ok := strings.CutSuffix(topic, "/set"); ok {
		w := h.p.wanted.Load()
		if w == nil || string(payload) != press {
			return
		}
		command, ok := w.homieCommands[topic]
		if !ok {
			return
		}
		h.p.hand(command)
		topic = property
	}
	select {
	case h.inbox <- arrival{topic: topic, payload: payload}:
	default: // somebody plays with the broker
	}
}

// hand gives a command to whoever listens.
func (p *Publisher) hand(command Command) {
	select {
	case p.commands <- command:
	default: // nobody listens, and enough are waiting
	}
}

func (h *homieSession) serve(ctx context.Context) error {
	c := h.p.config
	// Non-retained properties have QoS 2 in the convention.
	if _, err := h.conn.subscribe(ctx, 2, c.homieStateTopic(), c.birthTopic(), c.homieBase()+"+/+/set"); err != nil {
		return err
	}
	for {
		if err := h.flush(ctx); err != nil {
			return err
		}
		if err := h.wait(ctx); err != nil {
			return err
		}
	}
}

// wait does the next thing that happens.
func (h *homieSession) wait(ctx context.Context) error {
	var alarm <-chan time.Time
	var next time.Time
	for _, t := range []time.Time{h.due.resend, h.due.anew, h.due.echo} {
		if !t.IsZero() {
			soonest(&next, t)
		}
	}
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.conn.lost:
		return h.conn.loss()
	case <-h.p.wakeHomie:
		return nil
	case a := <-h.inbox:
		return h.notice(ctx, a, time.Now())
	case <-alarm:
		h.act(time.Now())
		return nil
	}
}

// flush sends what the broker does not have yet. Apart from names and values
// nothing may change while a device is ready, so it is not while anything does.
// What a list does not name any more goes after the list.
func (h *homieSession) flush(ctx context.Context) error {
	w := h.p.wanted.Load()
	if w == nil {
		return nil
	}
	gone := h.p.toEmpty(true)
	var messages []Message
	shape := h.state != homieReady
	for _, m := range w.homie {
		same := sameBytes(h.sent, m)
		if !same && shapes(m.Topic) {
			shape = true
		}
		if !same || h.again {
			messages = append(messages, m)
		}
	}
	for _, topic := range gone {
		shape = shape || shapes(topic)
		messages = append(messages, retained(topic, nil))
	}
	if shape {
		if err := h.say(ctx, homieInit); err != nil {
			return err
		}
		// Its value is the empty text, which no broker keeps.
		messages = append(messages, retained(h.p.config.homieBase()+"$extensions", nil))
	}
	if err := h.conn.publish(ctx, messages...); err != nil {
		return err
	}
	h.again = false
	for _, m := range messages {
		h.sent[m.Topic] = m.Payload
		if len(m.Payload) == 0 {
			delete(h.sent, m.Topic)
		}
	}
	if len(gone) > 0 {
		h.p.hasEmptied(gone)
	}
	if shape {
		if err := h.say(ctx, homieReady); err != nil {
			return err
		}
		h.due.echo = time.Now().Add(h.p.pace.echo)
	}
	return h.conn.publish(ctx, h.p.takeEvents(&h.p.homieEvents, time.Now())...)
}

// shapes says whether what stands at topic must not change while a device is
// ready.
func shapes(topic string) bool {
	return strings.Contains(topic, "/$") && !strings.HasSuffix(topic, "/$name")
}

func (h *homieSession) say(ctx context.Context, state string) error {
	if err := h.conn.publish(ctx, retained(h.p.config.homieStateTopic(), []byte(state))); err != nil {
		return err
	}
	h.state = state
	return nil
}

// notice judges a message that came in.
func (h *homieSession) notice(ctx context.Context, a arrival, now time.Time) error {
	c := h.p.config
	switch a.topic {
	case c.birthTopic():
		if string(a.payload) == online {
			wait := h.p.pace.birthLeast + rand.N(h.p.pace.birthMost-h.p.pace.birthLeast+1)
			soonest(&h.due.resend, now.Add(wait))
		}
	case c.homieStateTopic():
		h.noticeState(string(a.payload), now)
	default: // a command, which the convention has confirmed by its value
		return h.conn.publish(ctx, Message{Topic: a.topic, Payload: a.payload, QoS: 2})
	}
	return nil
}

// noticeState puts $state right when somebody else writes it: the will of our
// own former connection, which may come late, or whoever tidies up.
func (h *homieSession) noticeState(state string, now time.Time) {
	switch state {
	case homieReady:
		h.due.echo = time.Time{}
		if h.mute {
			h.mute = false
			h.p.homieTrouble("")
		}
	case homieInit: // ours
	default:
		soonest(&h.due.anew, now.Add(h.p.pace.heal))
	}
}

// act does what is due. flush follows.
func (h *homieSession) act(now time.Time) {
	if take(&h.due.resend, now) {
		h.again = true
	}
	if take(&h.due.anew, now) {
		clear(h.sent)
		h.state = ""
	}
	if take(&h.due.echo, now) {
		h.mute = true
		h.p.homieTrouble(fmt.Sprintf("The broker takes the Homie tree and does not hand it on. Give the user %q the right to write and read %s#, or turn mqtt.homie off.",
			h.p.broker.username, h.p.config.homieBase()))
	}
}

// end leaves the broker: with a word if we leave by ourselves, else it is to
// publish the will.
func (h *homieSession) end(ctx context.Context) {
	if ctx.Err() == nil {
		h.conn.cut()
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeWithin)
	defer cancel()
	if h.state != "" && h.say(last, homieDisconnected) != nil {
		h.conn.cut()
		return
	}
	h.conn.close()
}
