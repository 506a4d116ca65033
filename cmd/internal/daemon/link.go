package daemon

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/mqtt"
)

// link is the way to the broker over changes of its configuration: each has a
// publisher of its own.
type link struct {
	log        zerolog.Logger
	supervisor *addon.Supervisor // names the broker if the configuration does not; nil = the one that runs us
	changed    chan struct{}
	commands   chan mqtt.Command
	renewed    chan struct{} // there is another configuration or publisher

	mu        sync.Mutex      // guards the rest; never held while anybody is waited for
	asked     mqtt.Config     // as configured, not as the Supervisor completed it
	publisher *mqtt.Publisher // nil until the Supervisor has named a broker
	missing   string          // why it has not, in a sentence
	retained  []mqtt.Message
	obsolete  []string
	events    []heldEvent // for a publisher that is connected
}

// A heldEvent waits for a connection.
type heldEvent struct {
	name  string
	event mqtt.Event
	at    time.Time
}

// Events wait for a connection as long, and as many, as in a Publisher, whose
// own are lost when another one takes its place.
const (
	eventsFor  = time.Minute
	eventsKept = 32
)

// A way to a broker is a configuration that was found good, with its publisher.
type way struct {
	asked     mqtt.Config
	publisher *mqtt.Publisher // nil = the Supervisor names the broker
}

func newLink(log zerolog.Logger, s *addon.Supervisor) *link {
	return &link{log: log, supervisor: s, changed: make(chan struct{}, 1), commands: make(chan mqtt.Command), renewed: make(chan struct{}, 1)}
}

// standIn is checked in the place of an address that is not yet known.
const standIn = "ssl://supervisor"

// prepare checks a configuration and puts nothing in force.
func prepare(asked mqtt.Config) (way, error) {
	checked := asked
	checked.Broker = cmp.Or(asked.Broker, standIn)
	publisher, err := mqtt.New(checked)
	if err != nil {
		return way{}, fmt.Errorf("set up MQTT: %w", err)
	}
	if asked.Broker == "" {
		publisher = nil
	}
	return way{asked, publisher}, nil
}

// use takes a way into force, if it is another one. The publisher before it says
// offline and ends.
func (l *link) use(w way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(w.asked, l.asked) {
		return
	}
	l.asked = w.asked
	l.replace(w.publisher)
}

// replace sets the publisher and wakes run. l.mu is held.
func (l *link) replace(p *mqtt.Publisher) {
	l.missing = ""
	if l.publisher = p; p != nil && l.retained != nil {
		p.Publish(l.retained, l.obsolete)
	}
	poke(l.renewed)
	poke(l.changed) // State is another one
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it was poked already
	}
}

func (l *link) current() *mqtt.Publisher {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.publisher
}

// run keeps the present publisher running until ctx ends.
func (l *link) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if p := l.current(); p != nil {
			l.runOne(ctx, p)
		} else {
			l.find(ctx)
		}
	}
	return nil
}

// findEvery is how often the Supervisor is asked for a broker: the Mosquitto
// app may be installed or started later than we are.
const findEvery = 30 * time.Second

// find asks the Supervisor for the broker until it names one, or another
// configuration is in force.
func (l *link) find(ctx context.Context) {
	l.mu.Lock()
	asked := l.asked
	l.mu.Unlock()
	again := time.NewTicker(findEvery)
	defer again.Stop()
	for {
		err := l.findOnce(ctx, asked)
		if err == nil || ctx.Err() != nil {
			return
		}
		if text := err.Error(); l.miss(text) { // once per reason: there may be no broker for years
			l.log.Warn().Str("reason", text).Msg("no broker")
		}
		select {
		case <-ctx.Done():
			return
		case <-l.renewed:
			return
		case <-again.C:
		}
	}
}

// miss remembers why there is no broker, and says whether that is news.
func (l *link) miss(why string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.publisher != nil || l.missing == why {
		return false
	}
	l.missing = why
	poke(l.changed)
	return true
}

func (l *link) findOnce(ctx context.Context, asked mqtt.Config) error {
	found, err := supervisorBroker(ctx, asked, l.supervisor)
	if err != nil {
		return err
	}
	publisher, err := mqtt.New(found)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(asked, l.asked) && l.publisher == nil { // else it was reloaded meanwhile
		l.replace(publisher)
	}
	return nil
}

// runOne runs one publisher until ctx ends or there is another one.
func (l *link) runOne(ctx context.Context, p *mqtt.Publisher) {
	whole := ctx
	ctx, stop := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = p.Run(ctx) // always nil: what goes wrong is in its State
	}()
	defer func() {
		stop()
		<-over
		l.handPressed(whole, p)
	}()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.renewed:
			if l.current() != p {
				return
			}
		case <-p.Changed():
			last = l.say(p.State(), last)
			l.handEvents()
			poke(l.changed)
		case c := <-p.Commands():
			l.hand(ctx, c)
		}
	}
}

func (l *link) hand(ctx context.Context, c mqtt.Command) {
	select {
	case l.commands <- c:
	case <-ctx.Done():
	}
}

// handPressed hands on what was pressed before a publisher ended.
func (l *link) handPressed(ctx context.Context, p *mqtt.Publisher) {
	for {
		select {
		case c := <-p.Commands():
			l.hand(ctx, c)
		default:
			return
		}
	}
}

// say logs how the link is, once per change.
func (l *link) say(s mqtt.Link, last string) string {
	text := fmt.Sprint(s.Connected, s.Error, s.Other)
	if text == last || !s.Connected && s.Error == "" { // the first try is under way
		return last
	}
	switch {
	case s.Connected && s.Error == "":
		l.log.Info().Msg("connected to the broker")
	case s.Connected:
		l.log.Warn().Str("reason", s.Error).Msg("connected to the broker, not without trouble")
	default:
		l.log.Warn().Str("reason", s.Error).Msg("no connection to the broker")
	}
	return text
}

// Publish, Event, State, Changed and Commands are sitter.Broker.
func (l *link) Publish(retained []mqtt.Message, obsolete []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retained, l.obsolete = retained, obsolete
	if l.publisher != nil {
		l.publisher.Publish(retained, obsolete)
	}
}

func (l *link) Event(name string, e mqtt.Event) {
	l.mu.Lock()
	l.events = append(l.events, heldEvent{name, e, time.Now()})
	l.mu.Unlock()
	l.handEvents()
}

// handEvents hands the events to the publisher, if that is connected, and drops
// what nobody can be told any more: an event is not news after a minute.
func (l *link) handEvents() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	kept := slices.DeleteFunc(slices.Clone(l.events), func(e heldEvent) bool { return now.Sub(e.at) > eventsFor })
	if extra := len(kept) - eventsKept; extra > 0 {
		kept = kept[extra:]
	}
	if dropped := len(l.events) - len(kept); dropped > 0 {
		l.log.Info().Int("events", dropped).Msg("events not published: there was no connection to the broker")
	}
	l.events = kept
	if l.publisher == nil || !l.publisher.State().Connected {
		return
	}
	for _, e := range l.events {
		l.publisher.Event(e.name, e.event)
	}
	l.events = nil
}

// State is the publisher's. While there is none, what it will have to empty is
// not forgotten.
func (l *link) State() mqtt.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.publisher == nil {
		return mqtt.Link{Error: l.missing, Emptying: slices.Clone(l.obsolete)}
	}
	return l.publisher.State()
}

func (l *link) Changed() <-chan struct{} { return l.changed }

func (l *link) Commands() <-chan mqtt.Command { return l.commands }
