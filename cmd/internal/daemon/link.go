package daemon

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/mqtt"
)

// link is the way to the broker over changes of its configuration: each has a
// publisher of its own.
type link struct {
	log      zerolog.Logger
	changed  chan struct{}
	commands chan mqtt.Command
	renewed  chan struct{} // there is another publisher to run

	mu        sync.Mutex // guards the rest
	config    mqtt.Config
	publisher *mqtt.Publisher
	retained  []mqtt.Message
	obsolete  []string
}

func newLink(log zerolog.Logger) *link {
	return &link{log: log, changed: make(chan struct{}, 1), commands: make(chan mqtt.Command), renewed: make(chan struct{}, 1)}
}

// configure makes the publisher for a configuration, if it is another one.
func (l *link) configure(c mqtt.Config) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.publisher != nil && reflect.DeepEqual(c, l.config) {
		return nil
	}
	if l.config = c; c.Broker == "" { // the Supervisor's, which is asked for beside
		l.publisher = nil
		return nil
	}
	publisher, err := mqtt.New(c)
	if err != nil {
		return fmt.Errorf("set up MQTT: %w", err)
	}
	l.publisher = publisher
	publisher.Publish(l.retained, l.obsolete)
	select {
	case l.renewed <- struct{}{}:
	default:
	}
	return nil
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

// find asks the Supervisor for the broker until it names one.
func (l *link) find(ctx context.Context) {
	l.mu.Lock()
	c := l.config
	l.mu.Unlock()
	found, err := supervisorBroker(ctx, c)
	if err == nil {
		err = l.configure(found)
	}
	if err == nil {
		return
	}
	l.log.Warn().Str("reason", err.Error()).Msg("no broker")
	select {
	case <-ctx.Done():
	case <-l.renewed:
	case <-time.After(findEvery):
	}
}

// runOne runs one publisher until ctx ends or there is another one.
func (l *link) runOne(ctx context.Context, p *mqtt.Publisher) {
	ctx, stop := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = p.Run(ctx) // always nil: what goes wrong is in its State
	}()
	defer func() { stop(); <-over }()
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
			select {
			case l.changed <- struct{}{}:
			default:
			}
		case c := <-p.Commands():
			select {
			case l.commands <- c:
			case <-ctx.Done():
			}
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
	l.retained, l.obsolete = retained, obsolete
	p := l.publisher
	l.mu.Unlock()
	if p != nil {
		p.Publish(retained, obsolete)
	}
}

func (l *link) Event(name string, e mqtt.Event) {
	if p := l.current(); p != nil {
		p.Event(name, e)
	}
}

func (l *link) State() mqtt.Link {
	if p := l.current(); p != nil {
		return p.State()
	}
	return mqtt.Link{}
}

func (l *link) Changed() <-chan struct{} { return l.changed }

func (l *link) Commands() <-chan mqtt.Command { return l.commands }
