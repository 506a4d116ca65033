package broker

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func start(t *testing.T, addr string) *Broker {
	t.Helper()
	b, err := Start(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// connect returns a client that is connected and has a will.
func connect(t *testing.T, b *Broker, id string) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker(b.URL()).SetClientID(id).SetAutoReconnect(false).
		SetConnectTimeout(5*time.Second).SetWill(id+"/status", "gone", 1, true)
	c := paho.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(5*time.Second) || token.Error() != nil {
		t.Fatalf("no connection: %v", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(50) })
	return c
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func TestRetainsWhatClientsPublish(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	c := connect(t, b, "a")
	for _, topic := range []string{"x/two", "x/one"} {
		if token := c.Publish(topic, 1, true, "payload of "+topic); !token.WaitTimeout(5*time.Second) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	if got, ok := b.Retained("x/one"); !ok || got != "payload of x/one" {
		t.Errorf("retained %q, %v", got, ok)
	}
	if got, want := b.Topics(), []string{"x/one", "x/two"}; !slices.Equal(got, want) {
		t.Errorf("topics %q, want %q", got, want)
	}
	if err := b.Publish("x/one", nil, true); err != nil {
		t.Fatal(err)
	}
	if got, ok := b.Retained("x/one"); ok {
		t.Errorf("still retained: %q", got)
	}
}

func TestSubscribeTellsRetainedFromPublished(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	if err := b.Publish("x/old", []byte("1"), true); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	err := b.Subscribe("x/+", func(topic string, payload []byte, retained bool) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %s %v", topic, payload, retained))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("x/new", []byte("2"), true); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"x/old 1 true", "x/new 2 false"}; !slices.Equal(got, want) {
		t.Errorf("seen %q, want %q", got, want)
	}
	if err := b.Subscribe("", nil); err == nil {
		t.Error("an empty filter was accepted")
	}
}

// Under the race detector: one client reads all retained messages while others
// make and remove them, and while connections break.
func TestManyClientsAtOnce(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	var group sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		c := connect(t, b, id)
		group.Go(func() {
			for i := range 100 {
				for _, payload := range []string{"1", ""} {
					c.Publish(fmt.Sprintf("x/%s/%d", id, i), 1, true, payload).WaitTimeout(5 * time.Second)
				}
			}
		})
	}
	reader := connect(t, b, "c")
	group.Go(func() {
		for range 50 {
			reader.Subscribe("x/#", 1, nil).WaitTimeout(5 * time.Second)
			reader.Unsubscribe("x/#").WaitTimeout(5 * time.Second)
		}
	})
	group.Wait()
	for i := range 20 {
		connect(t, b, fmt.Sprintf("d%d", i))
	}
	b.Disconnect()
	await(t, "wills", func() bool { return len(b.Topics()) == 23 })
}

func TestDisconnectPublishesWillsAndKeepsTheRest(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	if err := b.Publish("kept", []byte("1"), true); err != nil {
		t.Fatal(err)
	}
	c := connect(t, b, "a")
	b.Disconnect()
	await(t, "will", func() bool { got, _ := b.Retained("a/status"); return got == "gone" })
	await(t, "client notices", func() bool { return !c.IsConnectionOpen() })
	if _, ok := b.Retained("kept"); !ok {
		t.Error("lost a retained message")
	}
	connect(t, b, "b")
}

func TestCloseDoesNotWaitForSilentClients(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	silent, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	connect(t, b, "a")
	done := make(chan struct{})
	go func() { defer close(done); b.Close(); b.Close() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Close hangs")
	}
	again := start(t, b.Address()) // the port is free
	if topics := again.Topics(); len(topics) > 0 {
		t.Errorf("a new broker knows %q", topics)
	}
}

func TestStartOnATakenPort(t *testing.T) {
	b := start(t, "127.0.0.1:0")
	if second, err := Start(b.Address()); err == nil {
		second.Close()
		t.Error("two brokers on one port")
	}
}
