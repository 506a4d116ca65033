package mqtt

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/broker"
)

// patience is how long a test waits for what must happen at once.
const patience = 15 * time.Second

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// quickPace is usualPace, faster.
func quickPace() pace {
	p := usualPace()
	p.retryFirst, p.retryMost, p.retryKicked, p.steady = 5*time.Millisecond, 20*time.Millisecond, 40*time.Millisecond, 10*time.Millisecond
	p.birthLeast, p.birthMost = 5*time.Millisecond, 10*time.Millisecond
	p.settle, p.heal, p.quiet = 10*time.Millisecond, 10*time.Millisecond, 100*time.Millisecond
	p.suspicion = 300 * time.Millisecond
	return p
}

func startBroker(t testing.TB, addr string) *broker.Broker {
	t.Helper()
	b, err := broker.Start(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func newPublisher(t testing.TB, c Config) *Publisher {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.pace = quickPace()
	return p
}

// run runs p until the test ends, or the returned function is called.
func run(t testing.TB, p *Publisher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var logging sync.WaitGroup
	logging.Go(func() { // what goes wrong explains what a test then misses
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.Changed():
				if link := p.State(); link.Error != "" {
					t.Logf("connected %v: %s", link.Connected, link.Error)
				}
			}
		}
	})
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		logging.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// configFor is the tests' configuration with that broker, of either kind.
func configFor(b interface{ URL() string }) Config {
	c := testConfig()
	c.Broker = b.URL()
	return c
}

// traffic is what a broker hands on, in its order.
type traffic struct {
	mu    sync.Mutex
	lines []string
}

func watch(t testing.TB, b *broker.Broker, filter string) *traffic {
	t.Helper()
	w := &traffic{}
	err := b.Subscribe(filter, func(topic string, payload []byte, retained bool) {
		if retained {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lines = append(w.lines, topic+" "+string(payload))
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *traffic) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *traffic) count(line string) int {
	n := 0
	for _, l := range w.seen() {
		if l == line {
			n++
		}
	}
	return n
}

func (w *traffic) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = nil
}

// lines are messages as traffic shows them.
func lines(messages []Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, m.Topic+" "+string(m.Payload))
	}
	return all
}

func holds(b *broker.Broker, messages []Message) bool {
	for _, m := range messages {
		if got, ok := b.Retained(m.Topic); !ok || got != string(m.Payload) {
			return false
		}
	}
	return true
}

// settle runs p with all, and returns what the broker hands on from the moment
// when it has all of it.
func settle(t testing.TB, b *broker.Broker, p *Publisher, all []Message) *traffic {
	t.Helper()
	w := watch(t, b, "#")
	p.Publish(all, nil)
	run(t, p)
	last := lines(all[len(all)-1:])[0]
	await(t, "everything sent", func() bool { return holds(b, all) && w.count(last) > 0 })
	w.forget()
	return w
}

func status(b *broker.Broker) string { got, _ := b.Retained("certsitter/status"); return got }

func TestStatesThenOnlineThenDiscovery(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "#")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	p.Publish(all, nil)
	stop := run(t, p)
	await(t, "everything sent", func() bool { return len(w.seen()) > len(all) })
	if link := p.State(); !link.Connected || link.Error != "" || link.Other != "" || len(link.Refused) > 0 || len(link.Emptying) > 0 {
		t.Errorf("link %+v", link)
	}
	first := slices.IndexFunc(all, func(m Message) bool { return isDiscovery(m.Topic) })
	want := slices.Insert(lines(all), first, "certsitter/status online")
	if got := w.seen(); !slices.Equal(got, want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	stop()
	if got := status(b); got != "offline" {
		t.Errorf("status %q after the end", got)
	}
	if link := p.State(); link.Connected {
		t.Errorf("link %+v", link)
	}
}

func TestNothingIsSentBeforeItIsKnownWhat(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	all := testMessages(t)
	for _, m := range all { // of a run before
		if err := b.Publish(m.Topic, m.Payload, true); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, b, "#")
	p := newPublisher(t, configFor(b))
	stop := run(t, p)
	await(t, "connected", func() bool { return p.State().Connected })
	// A birth message is handled after all that could have been done before it.
	if err := b.Publish("homeassistant/status", []byte("online"), false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * p.pace.quiet)
	stop()
	if got, want := w.seen(), []string{"homeassistant/status online"}; !slices.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
	if !holds(b, all) {
		t.Error("something was swept")
	}
}

func TestOnlyChangesAreSent(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	w := settle(t, b, p, all)

	s := testSnapshot()
	s.Certificates[0].State.DaysLeft = new(40)
	next, err := Messages(configFor(b), s)
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(next, nil)
	await(t, "change sent", func() bool { return holds(b, next) && len(w.seen()) > 0 })
	if got, want := w.seen(), []string{"certsitter/cert/home/state " + payloadOf(t, next, "certsitter/cert/home/state")}; !slices.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
}

func TestObsoleteTopicsAreEmptiedAnnouncementsFirst(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	forgotten := "certsitter/cert/gone/state"
	if err := b.Publish(forgotten, []byte("anything"), true); err != nil {
		t.Fatal(err)
	}
	w := watch(t, b, "#")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	p.Publish(all, []string{forgotten, "certsitter/status", "certsitter/#", "", "certsitter/cert/home/state"})
	if got, want := p.State().Emptying, []string{forgotten}; !slices.Equal(got, want) {
		t.Errorf("to be emptied %q, want %q", got, want)
	}
	run(t, p)
	await(t, "forgotten topic emptied", func() bool { _, there := b.Retained(forgotten); return !there && holds(b, all) })

	await(t, "the end of that", func() bool { return w.count(forgotten+" ") == 1 && w.count(lines(all[len(all)-1:])[0]) == 1 })
	w.forget()
	s := testSnapshot()
	s.Certificates = s.Certificates[1:] // home left the configuration
	fewer, err := Messages(configFor(b), s)
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(fewer, nil)
	await(t, "emptied", func() bool { return len(p.State().Emptying) == 0 && len(w.seen()) >= len(all)-len(fewer) })
	sent := w.seen()
	if want := len(all) - len(fewer); len(sent) != want {
		t.Errorf("%d messages, want %d", len(sent), want)
	}
	for i, line := range sent {
		topic, payload, _ := strings.Cut(line, " ")
		if payload != "" || isDiscovery(topic) != (i < len(sent)-1) {
			t.Errorf("message %d: %s", i, line)
		}
	}
	if got, want := b.Topics(), len(fewer)+1; len(got) != want {
		t.Errorf("%d topics on the broker, want %d", len(got), want)
	}
}

// Home Assistant must have removed an entity before it comes again.
func TestRemovedAndAddedAtOnceWaits(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	p.pace.settle = 300 * time.Millisecond
	all := testMessages(t)
	settle(t, b, p, all)

	const topic = "homeassistant/button/certsitter_home/renew/config"
	var mu sync.Mutex
	var emptied, back time.Time
	err := b.Subscribe(topic, func(_ string, payload []byte, retained bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case retained: // from before
		case len(payload) == 0:
			emptied = time.Now()
		default:
			back = time.Now()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	without := slices.DeleteFunc(slices.Clone(all), func(m Message) bool { return m.Topic == topic })
	p.Publish(without, nil)
	await(t, "removed", func() bool { mu.Lock(); defer mu.Unlock(); return !emptied.IsZero() })
	p.Publish(all, nil)
	await(t, "back", func() bool { mu.Lock(); defer mu.Unlock(); return !back.IsZero() })
	if gap := back.Sub(emptied); gap < p.pace.settle-50*time.Millisecond {
		t.Errorf("back after %v", gap)
	}
}

func TestRefusedMessagesAreNamedAndNotSent(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "#")
	p := newPublisher(t, configFor(b))
	good := testMessages(t)
	bad := []Message{
		retained("homeassistant/sensor/certsitter_home/broken/config", []byte(`{"name":"Broken"}`)),
		retained("certsitter/cert/home/nothing", []byte(`{"a":null}`)),
		retained("certsitter/status", []byte("online")),
		retained("certsitter/+", []byte("x")),
		retained("certsitter/empty", nil),
		{Topic: "certsitter/fleeting", Payload: []byte("x")},
		good[0],
	}
	p.Publish(append(slices.Clone(good), bad...), nil)
	run(t, p)
	await(t, "the good ones sent", func() bool { return holds(b, good) && len(w.seen()) > len(good) })
	if got := p.State().Refused; len(got) != len(bad) {
		t.Errorf("%d refused, want %d: %q", len(got), len(bad), got)
	}
	if got, want := len(w.seen()), len(good)+1; got != want {
		t.Errorf("%d messages sent, want %d", got, want)
	}
	p.Publish(good, nil)
	if got := p.State().Refused; len(got) > 0 {
		t.Errorf("still refused: %q", got)
	}
}

func TestCommands(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	// A retained command was meant for another time.
	if err := b.Publish("certsitter/cert/home/renew/set", []byte("PRESS"), true); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, configFor(b))
	p.Publish(testMessages(t), nil)
	run(t, p)
	await(t, "online", func() bool { return status(b) == "online" })
	for _, c := range []struct{ topic, payload string }{
		{"certsitter/cert/home/renew/set", "press"},
		{"certsitter/cert/home/renew/set", ""},
		{"certsitter/cert/home/renew/set", "PRESS "},
		{"certsitter/cert/nas/renew/set", "PRESS"},     // watched
		{"certsitter/cert/unknown/renew/set", "PRESS"}, // nobody
		{"certsitter/cert/HOME/renew/set", "PRESS"},
		{"certsitter/service/restart/set", "PRESS"},
		{"certsitter2/service/check/set", "PRESS"},
		{"certsitter/service/check/set", `{"press":"PRESS"}`},
		{"certsitter/cert/new_one/renew/set", "PRESS"},
		{"certsitter/service/check/set", "PRESS"},
		{"certsitter/service/notify/set", "PRESS"},
		{"certsitter/cert/home/renew/set", "PRESS"},
	} {
		if err := b.Publish(c.topic, []byte(c.payload), false); err != nil {
			t.Fatal(err)
		}
	}
	want := []Command{{"renew", "new_one"}, {"check", ""}, {"notify", ""}, {"renew", "home"}}
	for _, w := range want {
		select {
		case got := <-p.Commands():
			if got != w {
				t.Errorf("command %+v, want %+v", got, w)
			}
		case <-time.After(patience):
			t.Fatalf("no command %+v", w)
		}
	}
	select {
	case got := <-p.Commands():
		t.Errorf("one more command: %+v", got)
	default:
	}
}

func TestCommandsNobodyListensToAreDropped(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	await(t, "online", func() bool { return holds(b, all) })
	for range 10 * commandsKept {
		if err := b.Publish("certsitter/service/check/set", []byte("PRESS"), false); err != nil {
			t.Fatal(err)
		}
	}
	s := testSnapshot()
	s.Service.Problems = 7
	next, err := Messages(configFor(b), s)
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(next, nil)
	await(t, "still publishing", func() bool { return holds(b, next) })
	await(t, "full", func() bool { return len(p.commands) == commandsKept })
}

func TestEvents(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "certsitter/cert/+/event")
	p := newPublisher(t, configFor(b))
	p.Publish(testMessages(t), nil)
	p.Event("home", Event{Type: "renewed", Text: "Renewed, valid for 90 days.", DaysLeft: new(90), NotAfter: at("2027-02-19T00:00:00Z")})
	p.Event("home", Event{Type: "painted"})
	p.Event("no/name", Event{Type: "renewed"})
	run(t, p)
	await(t, "event after the connection", func() bool { return len(w.seen()) == 1 })
	p.Event("nas", Event{Type: "expired"})
	await(t, "event at once", func() bool { return len(w.seen()) == 2 })
	want := []string{
		`certsitter/cert/home/event {"event_type":"renewed","certificate":"home","text":"Renewed, valid for 90 days.","days_left":90,"not_after":"2027-02-19T00:00:00Z"}`,
		`certsitter/cert/nas/event {"event_type":"expired","certificate":"nas","text":"None","days_left":"None","not_after":"None"}`,
	}
	if got := w.seen(); !slices.Equal(got, want) {
		t.Errorf("events\n%s", strings.Join(got, "\n"))
	}
	if _, ok := b.Retained("certsitter/cert/home/event"); ok {
		t.Error("an event is retained")
	}
}

func TestOldAndTooManyEventsAreDropped(t *testing.T) {
	p := newPublisher(t, testConfig())
	for i := range eventsKept + 5 {
		p.Event("home", Event{Type: "renewed", Text: fmt.Sprint(i)})
	}
	now := time.Now()
	kept := p.takeEvents(&p.events, now)
	if len(kept) != eventsKept || !bytes.Contains(kept[0].Payload, []byte(`"text":"5"`)) {
		t.Errorf("kept %d, first %s", len(kept), kept[0].Payload)
	}
	p.Event("home", Event{Type: "renewed"})
	if kept := p.takeEvents(&p.events, now.Add(2*time.Minute)); len(kept) > 0 {
		t.Errorf("kept %d old events", len(kept))
	}
}

func TestEverythingAgainAfterABirthMessage(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	w := settle(t, b, p, all)
	for _, payload := range []string{"offline", "online", "online", "online"} {
		if err := b.Publish("homeassistant/status", []byte(payload), false); err != nil {
			t.Fatal(err)
		}
	}
	last := all[len(all)-1]
	await(t, "sent again", func() bool { return w.count(last.Topic+" "+string(last.Payload)) > 0 })
	for _, m := range all {
		if n := w.count(m.Topic + " " + string(m.Payload)); n != 1 {
			t.Errorf("%s was sent %d times, byte for byte", m.Topic, n)
		}
	}
}

func TestEverythingAgainAfterTheBrokerForgot(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	await(t, "everything sent", func() bool { return holds(b, all) })
	b.Close()
	await(t, "loss noticed", func() bool { return !p.State().Connected })
	await(t, "reason given", func() bool { return strings.HasPrefix(p.State().Error, "Nothing listens at ") })
	again := startBroker(t, b.Address())
	await(t, "everything back", func() bool { return holds(again, all) && status(again) == "online" })
	await(t, "connected", func() bool { return p.State().Connected && p.State().Error == "" })
}

// A will may come after the next connection has said online.
func TestStatusIsPutRight(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	await(t, "everything sent", func() bool { return holds(b, all) })
	for _, damage := range []string{"offline", ""} {
		if err := b.Publish("certsitter/status", []byte(damage), true); err != nil {
			t.Fatal(err)
		}
		await(t, "online again", func() bool { return status(b) == "online" })
	}
	// Somebody removes all that is below our base.
	for _, topic := range b.Topics() {
		if err := b.Publish(topic, nil, true); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all back", func() bool { return holds(b, all) && status(b) == "online" })
}

func TestLossOfTheConnection(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	all := testMessages(t)
	w := settle(t, b, p, all)
	last := lines(all[len(all)-1:])[0]
	for range 10 {
		w.forget()
		b.Disconnect()
		// In this order: what the lost connection still had under way is no return.
		await(t, "will and return", func() bool {
			seen := w.seen()
			will := slices.Index(seen, "certsitter/status offline")
			return will >= 0 && slices.Contains(seen[will:], last)
		})
	}
	await(t, "back", func() bool { return status(b) == "online" && holds(b, all) })
}

// Publish, Event and State may be called while everything goes on.
func TestManyChangesAtOnce(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	run(t, p)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 50 {
				s := testSnapshot()
				s.Certificates[worker].State.Failures = i
				all, err := Messages(configFor(b), s)
				if err != nil {
					t.Error(err)
				}
				p.Publish(all, []string{"certsitter/cert/old/state"})
				p.Event("home", Event{Type: "renewed"})
				_ = p.State()
				if i%25 == 0 {
					b.Disconnect()
				}
			}
		})
	}
	group.Wait()
	all := testMessages(t)
	p.Publish(all, nil)
	await(t, "the last state", func() bool { return holds(b, all) && status(b) == "online" && len(p.State().Emptying) == 0 })
}

func TestNoBrokerAtAll(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	c.Broker = "mqtt://" + address
	p := newPublisher(t, c)
	p.Publish(testMessages(t), nil)
	stop := run(t, p)
	await(t, "reason", func() bool { return strings.HasPrefix(p.State().Error, "Nothing listens at "+address) })
	stop()
}

// A broker that takes the connection and says nothing must not hold up the end.
func TestEndWhileTheBrokerIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	c := testConfig()
	c.Broker = "tcp://" + l.Addr().String()
	p := newPublisher(t, c)
	stop := run(t, p)
	select {
	case conn := <-accepted:
		defer conn.Close()
	case <-time.After(patience):
		t.Fatal("no connection")
	}
	done := make(chan struct{})
	go func() { defer close(done); stop() }()
	select {
	case <-done:
	case <-time.After(connectWithin - 2*time.Second):
		t.Error("the end waits for the login")
	}
}

func TestChangesAreTold(t *testing.T) {
	p := newPublisher(t, testConfig())
	p.Publish(testMessages(t), []string{"certsitter/cert/old/state"})
	p.Publish(testMessages(t), nil)
	select {
	case <-p.Changed():
	default:
		t.Error("nothing told")
	}
	select {
	case <-p.Changed():
		t.Error("told twice at once")
	default:
	}
}

func TestWaitsBetweenConnections(t *testing.T) {
	p := usualPace()
	steps := func(connected bool, lasted time.Duration) (waits []time.Duration) {
		var last time.Duration
		for range 12 {
			last = p.next(last, connected, lasted)
			waits = append(waits, last)
		}
		return waits
	}
	s := time.Second
	if got, want := steps(false, s), []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s, 30 * s, 30 * s, 30 * s, 30 * s, 30 * s}; !slices.Equal(got, want) {
		t.Errorf("no connection: %v", got)
	}
	if got, want := steps(true, s), []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 128 * s, 256 * s, 300 * s, 300 * s, 300 * s}; !slices.Equal(got, want) {
		t.Errorf("thrown out: %v", got)
	}
	if got := p.next(300*s, true, time.Minute); got != s {
		t.Errorf("after a good connection: %v", got)
	}
}
