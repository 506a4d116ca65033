package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// How long things may take. A token of paho may never end
// (eclipse-paho/paho.mqtt.golang#613), so no wait is without one of these.
const (
	connectWithin = 10 * time.Second
	ackWithin     = 10 * time.Second
	writeWithin   = 3 * time.Second // also how long paho may hold up a message after a loss
	goodbyeWithin = time.Second
	keepAlive     = 30 * time.Second

	// inFlight is how many messages wait for their acknowledgement at once.
	inFlight = 64
)

// connection is one connection to the broker, from its beginning to its loss.
// It is never used again: paho's own reconnection sends stored messages while
// ours are sent (eclipse-paho/paho.mqtt.golang#703), and hides why it fails.
type connection struct {
	client paho.Client
	conn   net.Conn      // below client
	lost   chan struct{} // closed when the connection is gone
	why    error         // readable once lost is closed
}

// greeting is what a connection is opened with.
type greeting struct {
	clientID string
	will     Message // is published when we die; without a topic there is none
	// receive gets every message. It runs on paho's goroutine and holds up all
	// that comes in, so it must neither wait nor lock.
	receive func(topic string, payload []byte, retained bool)
}

// dial connects and logs in. Only connections over WebSocket outlive the end
// of ctx while they are being made, by connectWithin at most: paho dials them.
func dial(ctx context.Context, b brokerAddress, g greeting) (*connection, error) {
	c := &connection{lost: make(chan struct{})}
	ctx, cancel := context.WithTimeoutCause(ctx, connectWithin, errNoAnswer)
	defer cancel()
	var stop func() bool // set by open, read once the token is done
	open := func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		conn, err := b.open(ctx)
		if err != nil {
			return nil, err
		}
		c.conn = conn
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a login that is not answered
		return conn, nil
	}
	var once sync.Once
	o := paho.NewClientOptions().AddBroker(b.url.String()).SetClientID(g.clientID).
		SetUsername(b.username).SetPassword(b.password).
		SetProtocolVersion(4).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectRetry(false).SetStore(noStore{}).
		SetConnectTimeout(connectWithin).SetWriteTimeout(writeWithin).
		SetKeepAlive(keepAlive).SetPingTimeout(connectWithin).
		SetCustomOpenConnectionFn(open).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { g.receive(m.Topic(), m.Payload(), m.Retained()) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) {
			once.Do(func() { c.why = err; close(c.lost) })
		})
	if g.will.Topic != "" {
		o.SetBinaryWill(g.will.Topic, g.will.Payload, g.will.QoS, g.will.Retain)
	}
	c.client = paho.NewClient(o)
	token := c.client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		// paho's goroutine ends soon: its connection is closed. What it has
		// opened is not ours to touch before that.
		return nil, context.Cause(ctx)
	}
	if stop != nil && !stop() {
		c.client.Disconnect(0)
		return nil, context.Cause(ctx)
	}
	if err := token.Error(); err != nil {
		return nil, err
	}
	return c, nil
}

// errNoAnswer says that the broker took its time.
var errNoAnswer = errors.New("no answer")

func (b brokerAddress) open(ctx context.Context) (net.Conn, error) {
	switch b.url.Scheme {
	case "ws", "wss":
		return paho.NewWebsocket(b.url.String(), b.tls, connectWithin, nil, nil)
	case "ssl":
		return (&tls.Dialer{Config: b.tls}).DialContext(ctx, "tcp", b.address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", b.address)
}

// publish sends messages in their order and waits until the broker has all of
// them.
func (c *connection) publish(ctx context.Context, messages ...Message) error {
	waiting := make([]paho.Token, 0, inFlight)
	for _, m := range messages {
		if len(waiting) == inFlight {
			if err := c.wait(ctx, waiting[0]); err != nil {
				return err
			}
			waiting = append(waiting[:0], waiting[1:]...)
		}
		if err := c.usable(ctx); err != nil {
			return err
		}
		waiting = append(waiting, c.client.Publish(m.Topic, m.QoS, m.Retain, m.Payload))
	}
	for _, token := range waiting {
		if err := c.wait(ctx, token); err != nil {
			return err
		}
	}
	return nil
}

// usable says why nothing more should be sent. paho would block for a while.
func (c *connection) usable(ctx context.Context) error {
	select {
	case <-c.lost:
		return c.loss()
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return nil
	}
}

// subscribe returns the filters that the broker refuses to this user.
func (c *connection) subscribe(ctx context.Context, qos byte, filters ...string) (refused []string, err error) {
	wanted := map[string]byte{}
	for _, f := range filters {
		wanted[f] = qos
	}
	token := c.client.SubscribeMultiple(wanted, nil)
	if err := c.wait(ctx, token); err != nil {
		return nil, err
	}
	granted := token.(*paho.SubscribeToken).Result()
	for _, f := range slices.Sorted(maps.Keys(wanted)) {
		if granted[f] == refusedSubscription {
			refused = append(refused, f)
		}
	}
	return refused, nil
}

// refusedSubscription is the SUBACK return code for failure (MQTT 3.1.1 §3.9.3).
const refusedSubscription = 0x80

func (c *connection) unsubscribe(ctx context.Context, filters ...string) error {
	return c.wait(ctx, c.client.Unsubscribe(filters...))
}

func (c *connection) wait(ctx context.Context, token paho.Token) error {
	late := time.NewTimer(ackWithin)
	defer late.Stop()
	select {
	case <-token.Done():
		if err := token.Error(); err != nil { // after the login there is no other reason
			return fmt.Errorf("%w: %w", errLost, err)
		}
		return nil
	case <-c.lost:
		return c.loss()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fmt.Errorf("message not acknowledged: %w", errNoAnswer)
	}
}

// loss says why the connection is gone.
func (c *connection) loss() error {
	if c.why == nil {
		return errLost
	}
	return fmt.Errorf("%w: %w", errLost, c.why)
}

var errLost = errors.New("connection lost")

// close says goodbye to the broker, which then publishes no will, and ends the
// connection.
func (c *connection) close() {
	c.client.Disconnect(uint(goodbyeWithin.Milliseconds() / 4))
	_ = c.conn.Close()
}

// cut ends the connection without a goodbye: the broker publishes the will.
func (c *connection) cut() {
	_ = c.conn.Close()
	c.client.Disconnect(0)
}

// noStore keeps no packet for a later connection: the Publisher itself knows
// what the broker should hold.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
