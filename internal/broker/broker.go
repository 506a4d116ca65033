// Package broker is an MQTT broker in the own process, for tests and for the
// demo. It lets everybody in, keeps nothing on disk and forgets all retained
// messages when it is closed. It is never part of the daemon.
package broker

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Broker is one running broker.
type Broker struct {
	server   *mochi.Server
	listener *listener
	turns    *turns
	next     atomic.Int64 // identifier of the next subscription
	close    func()       // once
}

// Start listens on addr, such as "127.0.0.1:0" for any free port, and serves
// until Close.
func Start(addr string) (*Broker, error) {
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for MQTT: %w", err)
	}
	takeTurns := &turns{}
	l := &listener{Listener: inner, open: map[*conn]struct{}{}}
	capabilities := mochi.NewDefaultServerCapabilities()
	// By default mochi drops retained messages after a day. A demo may run longer.
	capabilities.MaximumMessageExpiryInterval = 0
	server := mochi.New(&mochi.Options{
		InlineClient: true,
		Capabilities: capabilities,
		Logger:       slog.New(slog.DiscardHandler),
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return nil, fmt.Errorf("let everybody in: %w", err)
	}
	if err := server.AddHook(takeTurns, nil); err != nil {
		return nil, fmt.Errorf("let one in after the other: %w", err)
	}
	if err := server.AddListener(listeners.NewNet("tcp", l)); err != nil {
		return nil, fmt.Errorf("add listener: %w", err)
	}
	if err := server.Serve(); err != nil {
		return nil, fmt.Errorf("serve MQTT: %w", err)
	}
	b := &Broker{server: server, listener: l, turns: takeTurns}
	b.close = sync.OnceFunc(func() {
		// Connections first: mochi waits for every client, also for one that
		// connected and says nothing.
		l.shut()
		_ = server.Close() // always nil
	})
	return b, nil
}

// Address is the host:port on which the broker listens.
func (b *Broker) Address() string { return b.listener.Addr().String() }

// URL is the address in the form that clients are configured with.
func (b *Broker) URL() string { return "tcp://" + b.Address() }

// Retained returns the payload that is kept for topic.
func (b *Broker) Retained(topic string) (string, bool) {
	packet, ok := b.server.Topics.Retained.Get(topic)
	return string(packet.Payload), ok
}

// Topics returns all topics with a retained message, sorted, without the
// broker's own below $SYS.
func (b *Broker) Topics() []string {
	all := slices.Sorted(maps.Keys(b.server.Topics.Retained.GetAll()))
	return slices.DeleteFunc(all, func(topic string) bool { return topic[0] == '$' })
}

// Subscribe calls seen for every message on a topic that matches filter: first,
// before it returns, for the retained ones, then for all that are published.
// retained says which of the two it is. seen runs on the goroutine of whoever
// publishes, so it must not block, and several calls may be under way at once.
func (b *Broker) Subscribe(filter string, seen func(topic string, payload []byte, retained bool)) error {
	if !mochi.IsValidFilter(filter, false) {
		return fmt.Errorf("%q is no topic filter", filter)
	}
	b.server.Topics.InlineSubscribe(mochi.InlineSubscription{
		Subscription: packets.Subscription{Filter: filter, Identifier: int(b.next.Add(1))},
		Handler: func(_ *mochi.Client, _ packets.Subscription, p packets.Packet) {
			seen(p.TopicName, p.Payload, false)
		},
	})
	done := b.turns.take(new(mochi.Client))
	retained := b.server.Topics.Messages(filter)
	done()
	for _, p := range retained {
		seen(p.TopicName, p.Payload, true)
	}
	return nil
}

// Publish sends a message as if a client had. An empty payload with retain
// removes what was retained.
func (b *Broker) Publish(topic string, payload []byte, retain bool) error {
	defer b.turns.take(new(mochi.Client))()
	if err := b.server.Publish(topic, payload, retain, 0); err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}

// Disconnect cuts every connection, as a network does that fails. Wills are
// published, retained messages stay, and clients may come back at once.
func (b *Broker) Disconnect() { b.listener.cut((*conn).deafen) }

// Close ends the broker and all connections and waits for them. It may be
// called more than once.
func (b *Broker) Close() { b.close() }

// turns lets one packet be handled at a time: mochi reads the tree of retained
// messages for one client while another one changes it (a data race up to
// v2.7.9). What a subscriber of Subscribe does happens within a turn.
type turns struct {
	mochi.HookBase

	turn sync.Mutex
	whom atomic.Pointer[mochi.Client]
}

func (*turns) ID() string { return "turns" }

func (*turns) Provides(hook byte) bool {
	return slices.Contains([]byte{mochi.OnPacketRead, mochi.OnPacketProcessed, mochi.OnWill, mochi.OnWillSent, mochi.OnDisconnect}, hook)
}

// take waits for the client's turn, unless it is already; done ends it.
func (t *turns) take(c *mochi.Client) (done func()) {
	if t.whom.Load() != c {
		t.turn.Lock()
		t.whom.Store(c)
	}
	return func() { t.end(c) }
}

func (t *turns) end(c *mochi.Client) {
	if t.whom.CompareAndSwap(c, nil) {
		t.turn.Unlock()
	}
}

func (t *turns) OnPacketRead(c *mochi.Client, p packets.Packet) (packets.Packet, error) {
	switch p.FixedHeader.Type {
	case packets.Publish, packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		t.take(c)
	}
	return p, nil
}

func (t *turns) OnPacketProcessed(c *mochi.Client, _ packets.Packet, _ error) { t.end(c) }

func (t *turns) OnWill(c *mochi.Client, w mochi.Will) (mochi.Will, error) {
	t.take(c)
	return w, nil
}

func (t *turns) OnWillSent(c *mochi.Client, _ packets.Packet) { t.end(c) }

// OnDisconnect ends a turn in which something went wrong.
func (t *turns) OnDisconnect(c *mochi.Client, _ error, _ bool) { t.end(c) }

// listener remembers its connections, so that they can be cut.
type listener struct {
	net.Listener

	mu     sync.Mutex // guards all below
	open   map[*conn]struct{}
	closed bool
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = inner.Close()
		return nil, net.ErrClosed
	}
	l.open[c] = struct{}{}
	return c, nil
}

func (l *listener) cut(how func(*conn) error) {
	l.mu.Lock()
	conns := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range conns { // without the lock: Close takes it
		_ = how(c)
	}
}

func (l *listener) shut() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.Close()
	l.cut((*conn).Close)
}

// conn tells its listener that it is closed.
type conn struct {
	net.Conn
	listener *listener
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// deafen ends what is read; mochi closes the connection then. Were it closed
// here, mochi might be writing, and up to v2.7.9 a client that cannot be written
// to loses its will.
func (c *conn) deafen() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseRead()
	}
	return c.Close()
}
