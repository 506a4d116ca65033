package mqtt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Command is a button that somebody pressed.
type Command struct {
	Kind string // renew, check or notify
	Name string // certificate; with renew only
}

// Link is how the connection to the broker is. All sentences are for people.
type Link struct {
	Connected bool
	// Error is why there is no connection, or, with Connected, what the
	// broker does not let us do. Empty = nothing.
	Error string
	// Other is another installation that publishes under the same base topic.
	// Both then overwrite each other's service state, and Home Assistant shows
	// their certificates as one's: one of them needs another mqtt.topic.
	Other string
	// Refused are the messages that were not sent because Validate refuses
	// them, and why.
	Refused []string
	// Emptying are the obsolete topics that the broker has not yet emptied.
	Emptying []string
}

// Publisher keeps on the broker what belongs there: after every connection,
// after Home Assistant's start, and after every change. It remembers the
// wanted messages itself, so callers need not care whether the broker is
// there. Its methods never block and may be called from any goroutine.
type Publisher struct {
	config Config
	broker brokerAddress
	pace   pace

	commands chan Command
	wake     chan struct{} // something is to be sent
	changed  chan struct{} // Link is another

	wakeHomie chan struct{} // something of the Homie tree is to be sent, or there is a connection

	// wanted is immutable once stored. Nil until the first Publish: nothing is
	// sent and nothing swept before it is known what should be there. It is
	// atomic because paho's goroutines, which must not wait, read it.
	wanted atomic.Pointer[wanted]

	mu          sync.Mutex // guards all below, never held while paho is called
	obsolete    map[string]bool
	events      []queuedEvent
	homieEvents []queuedEvent
	homieError  string
	link        Link

	// Owned by Run.
	kicked    int                  // short connections in a row
	otherSeen time.Time            // when Link.Other was last heard of
	answered  map[string]time.Time // installations that were told of us, and when
}

// wanted is what should be on the broker.
type wanted struct {
	states    []Message
	discovery []Message
	homie     []Message
	payloads  map[string][]byte  // by topic, of all
	commands  map[string]Command // by topic: the buttons that we announce

	homieCommands map[string]Command // the same by their topics in the Homie tree
}

type queuedEvent struct {
	message Message
	at      time.Time
}

// pace is how fast things go. Tests go faster.
type pace struct {
	retryFirst, retryMost, retryKicked time.Duration // waits between connections
	steady                             time.Duration // a connection that lasted this long was good
	birthLeast, birthMost              time.Duration // wait after Home Assistant's birth message
	settle                             time.Duration // between taking an announcement away and what follows
	heal                               time.Duration // before a topic that others changed is put right
	quiet, sweepMost                   time.Duration // the sweep ends after this silence, or at the latest
	suspicion                          time.Duration // wait for a sign of life of another installation
	echo                               time.Duration // our own online must come back within
	answerAgain                        time.Duration // at most one answer to another installation in
	otherFor                           time.Duration // another installation counts as there after its last sign
	eventFor                           time.Duration // an event waits for a connection
}

func usualPace() pace {
	return pace{
		retryFirst: time.Second, retryMost: 30 * time.Second, retryKicked: 5 * time.Minute,
		steady:     30 * time.Second,
		birthLeast: 500 * time.Millisecond, birthMost: 5 * time.Second,
		settle: 2 * time.Second, heal: 2 * time.Second,
		quiet: 2 * time.Second, sweepMost: 15 * time.Second,
		suspicion: 10 * time.Second, echo: 10 * time.Second,
		answerAgain: 5 * time.Minute, otherFor: 24 * time.Hour,
		eventFor: time.Minute,
	}
}

const (
	commandsKept = 16
	eventsKept   = 32
	othersKept   = 16 // a stranger on the broker must not fill our memory
)

// New checks the configuration. Its errors are sentences that name the key.
func New(c Config) (*Publisher, error) {
	if err := c.checkTopics(); err != nil {
		return nil, err
	}
	if !isInstallation(c.Installation) {
		return nil, errors.New("mqtt: an installation id of letters, digits, _ and - is needed")
	}
	b, err := c.parseBroker()
	if err != nil {
		return nil, err
	}
	return &Publisher{
		config: c, broker: b, pace: usualPace(),
		commands:  make(chan Command, commandsKept),
		wake:      make(chan struct{}, 1),
		changed:   make(chan struct{}, 1),
		wakeHomie: make(chan struct{}, 1),
		obsolete:  map[string]bool{},
		answered:  map[string]time.Time{},
	}, nil
}

// Publish replaces the wanted messages. Obsolete topics, and those that were
// wanted before and are not any more, are emptied as soon as there is a
// connection; State().Emptying lists those that are still to come, which
// callers should remember over a restart. Messages that are not retained, or
// that Validate refuses, are not sent but named in State().Refused. The
// payloads must not be changed afterwards.
func (p *Publisher) Publish(retained []Message, obsolete []string) {
	p.mu.Lock()
	old := p.wanted.Load()
	if old == nil {
		old = &wanted{}
	}
	w, refused := p.config.want(retained, old)
	for topic := range old.payloads {
		p.obsolete[topic] = true
	}
	for _, topic := range obsolete {
		if plainTopic(topic) && !slices.Contains(p.config.OwnTopics(), topic) {
			p.obsolete[topic] = true
		}
	}
	maps.DeleteFunc(p.obsolete, func(topic string, _ bool) bool { _, kept := w.payloads[topic]; return kept })
	p.wanted.Store(w)
	p.link.Refused = refused
	p.mu.Unlock()
	p.publishLink(func(*Link) {})
	p.wakeAll()
}

func (p *Publisher) wakeAll() {
	poke(p.wake)
	poke(p.wakeHomie)
}

// want sorts messages. What was wanted before is not looked at again.
func (c Config) want(messages []Message, old *wanted) (*wanted, []string) {
	w := &wanted{payloads: map[string][]byte{}, commands: map[string]Command{}, homieCommands: map[string]Command{}}
	var refused []string
	for _, m := range messages {
		if err := c.admit(m, w, old); err != nil {
			refused = append(refused, err.Error())
			continue
		}
		w.payloads[m.Topic] = m.Payload
		if c.isHomie(m.Topic) {
			w.homie = append(w.homie, m)
			continue
		}
		if !isDiscovery(m.Topic) {
			w.states = append(w.states, m)
			continue
		}
		w.discovery = append(w.discovery, m)
		if topic, command, ok := c.announces(m.Payload); ok {
			w.commands[topic] = command
			w.homieCommands[c.homieSetTopic(command)] = command
		}
	}
	return w, refused
}

// admit refuses what must not be sent as a retained message.
func (c Config) admit(m Message, w, old *wanted) error {
	_, twice := w.payloads[m.Topic]
	switch {
	case !m.Retain || len(m.Payload) == 0:
		return fmt.Errorf("%s: it is no retained message", m.Topic)
	case slices.Contains(c.OwnTopics(), m.Topic):
		return fmt.Errorf("%s: this topic is the publisher's own", m.Topic)
	case twice:
		return fmt.Errorf("%s: it is there twice", m.Topic)
	case sameBytes(old.payloads, m):
		return nil
	}
	if !c.isHomie(m.Topic) {
		return Validate(m.Topic, m.Payload)
	}
	if !c.Homie || !validHomie(m) {
		return fmt.Errorf("%s: it is no message of the Homie tree", m.Topic)
	}
	return nil
}

// announces reads from a discovery message which command it invites to. So
// commands for unknown or watched certificates find no ear.
func (c Config) announces(payload []byte) (topic string, command Command, ok bool) {
	var button struct {
		Topic string `json:"command_topic"`
	}
	if json.Unmarshal(payload, &button) != nil || button.Topic == "" {
		return "", Command{}, false
	}
	command, ok = c.command(button.Topic)
	return button.Topic, command, ok
}

// command reads what a command topic stands for.
func (c Config) command(topic string) (Command, bool) {
	switch topic {
	case c.serviceSetTopic("check"):
		return Command{Kind: "check"}, true
	case c.serviceSetTopic("notify"):
		return Command{Kind: "notify"}, true
	}
	parts := strings.Split(topic, "/")
	if len(parts) == 5 && certificateName.MatchString(parts[2]) && topic == c.renewTopic(parts[2]) {
		return Command{Kind: "renew", Name: parts[2]}, true
	}
	return Command{}, false
}

// Event tells of something that happened. Events are not retained: one that
// finds no connection within a minute, or too many others, is dropped. So is
// one with a type that the contract does not know.
func (p *Publisher) Event(name string, e Event) {
	if !certificateName.MatchString(name) || !slices.Contains(eventTypes(), e.Type) {
		return
	}
	now := time.Now()
	p.mu.Lock()
	queue(&p.events, queuedEvent{Message{Topic: p.config.eventTopic(name), Payload: e.payload(name), QoS: 1}, now})
	if p.config.Homie {
		queue(&p.homieEvents, queuedEvent{Message{Topic: p.config.homieEventTopic(name), Payload: []byte(e.Type), QoS: 2}, now})
	}
	p.mu.Unlock()
	p.wakeAll()
}

// queue adds an event and drops the oldest if there are too many.
func queue(all *[]queuedEvent, e queuedEvent) {
	*all = append(*all, e)
	if extra := len(*all) - eventsKept; extra > 0 {
		*all = slices.Delete(*all, 0, extra)
	}
}

// Commands are the buttons that were pressed. Some are kept while nobody
// listens; what is more is dropped.
func (p *Publisher) Commands() <-chan Command { return p.commands }

// State is how things are now.
func (p *Publisher) State() Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.link
	l.Refused = slices.Clone(l.Refused)
	l.Emptying = slices.Sorted(maps.Keys(p.obsolete))
	if l.Connected && l.Error == "" {
		l.Error = p.homieError
	}
	return l
}

// Changed has a value after State has changed.
func (p *Publisher) Changed() <-chan struct{} { return p.changed }

// publishLink changes the link and says so.
func (p *Publisher) publishLink(change func(*Link)) {
	p.mu.Lock()
	change(&p.link)
	p.mu.Unlock()
	poke(p.changed)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it was poked already
	}
}

// Run connects, keeps what is wanted on the broker until ctx ends, and says
// offline. It always returns nil: whatever goes wrong is tried again, and told
// by State.
func (p *Publisher) Run(ctx context.Context) error {
	var homie sync.WaitGroup
	defer homie.Wait()
	if p.config.Homie {
		homie.Go(func() { p.runHomie(ctx) })
	}
	var wait time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		connected, err := p.connect(ctx)
		if ctx.Err() != nil {
			break
		}
		lasted := time.Since(began)
		p.countKicks(connected, lasted, err)
		wait = p.pace.next(wait, connected, lasted)
		sentence := p.reason(err)
		p.publishLink(func(l *Link) { l.Connected, l.Error = false, sentence })
		pause(ctx, wait/2+rand.N(wait/2+1))
	}
	p.publishLink(func(l *Link) { l.Connected, l.Error = false, "" })
	return nil
}

// countKicks counts connections that the broker ended at once. An end during
// the login is neither one nor a reason to begin anew.
func (p *Publisher) countKicks(connected bool, lasted time.Duration, err error) {
	switch {
	case connected && lasted < p.pace.steady:
		p.kicked++
	case connected, !cutOff(err):
		p.kicked = 0
	}
}

// reason says why there is no connection.
func (p *Publisher) reason(err error) string {
	if p.kicked < kicksNoticed {
		return explain(p.broker, err)
	}
	return fmt.Sprintf("The broker at %s ends our connection again and again right after the login. "+
		"Does another Certsitter run with a copy of this state folder (client id %s)? Stop one of them.", p.broker.address, p.clientID())
}

// kicksNoticed is how many short connections in a row are no chance any more.
const kicksNoticed = 3

// next is the wait before another connection. After a good connection it is
// short: everything is to be back soon after a restart of the broker. After
// one that was ended at once it grows further than after one that never was:
// two clients of one id would throw each other out for ever.
func (p pace) next(last time.Duration, connected bool, lasted time.Duration) time.Duration {
	switch {
	case connected && lasted >= p.steady, last == 0:
		return p.retryFirst
	case connected:
		return min(2*last, p.retryKicked)
	}
	return min(2*last, max(p.retryMost, last))
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (p *Publisher) clientID() string { return "certsitter-" + p.config.Installation }

// connect makes one connection and serves it until it ends.
func (p *Publisher) connect(ctx context.Context) (connected bool, err error) {
	s := &session{p: p, inbox: make(chan arrival, inboxKept), sent: map[string][]byte{}, emptied: map[string]time.Time{}}
	conn, err := dial(ctx, p.broker, greeting{clientID: p.clientID(), will: retained(p.config.statusTopic(), []byte(offline)), receive: s.receive})
	if err != nil {
		return false, err
	}
	s.conn = conn
	p.publishLink(func(l *Link) {
		l.Connected = true
		if p.kicked < kicksNoticed { // else it is still to be seen
			l.Error = ""
		}
	})
	poke(p.wakeHomie)
	err = s.serve(ctx)
	s.end(ctx)
	return true, err
}

// takeEvents returns the events that are not too old, and forgets all.
func (p *Publisher) takeEvents(queued *[]queuedEvent, now time.Time) []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fresh []Message
	for _, e := range *queued {
		if now.Sub(e.at) <= p.pace.eventFor {
			fresh = append(fresh, e.message)
		}
	}
	*queued = nil
	return fresh
}

// toEmpty returns the obsolete topics in the order of their removal: those of
// the Homie tree or the others. While there is no Homie device they are all
// others.
func (p *Publisher) toEmpty(homie bool) []string {
	var topics []string
	p.mu.Lock()
	for topic := range p.obsolete {
		if homie == (p.config.Homie && p.config.isHomie(topic)) {
			topics = append(topics, topic)
		}
	}
	p.mu.Unlock()
	removalOrder(topics)
	return topics
}

// hasEmptied forgets topics that the broker has emptied.
func (p *Publisher) hasEmptied(topics []string) {
	p.publishLink(func(*Link) {
		for _, topic := range topics {
			delete(p.obsolete, topic)
		}
	})
}

// addObsolete takes on topics that were found, if they are not wanted by now.
func (p *Publisher) addObsolete(topics []string) {
	p.publishLink(func(*Link) {
		w := p.wanted.Load()
		for _, topic := range topics {
			if _, kept := w.payloads[topic]; !kept {
				p.obsolete[topic] = true
			}
		}
	})
	poke(p.wakeHomie)
}

// mayAnswer says whether the installation id may be told of us now, and
// remembers it.
func (p *Publisher) mayAnswer(id string, now time.Time) bool {
	maps.DeleteFunc(p.answered, func(_ string, at time.Time) bool { return now.Sub(at) >= p.pace.answerAgain })
	if _, told := p.answered[id]; told || len(p.answered) >= othersKept {
		return false
	}
	p.answered[id] = now
	return true
}

func sameBytes(sent map[string][]byte, m Message) bool {
	old, there := sent[m.Topic]
	return there && bytes.Equal(old, m.Payload)
}
