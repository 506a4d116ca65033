package app

import (
	"maps"
	"strings"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/certsitter/certsitter/internal/mosquitto"
)

// reader keeps what is retained on a broker.
type reader struct {
	client paho.Client

	mu  sync.Mutex
	has map[string]string // by topic
}

func readAll(t *testing.T, m *mosquitto.Broker) *reader {
	t.Helper()
	r := &reader{has: map[string]string{}}
	r.client = paho.NewClient(paho.NewClientOptions().AddBroker(m.URL()).SetClientID("reader").SetAutoReconnect(false))
	if token := r.client.Connect(); !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	t.Cleanup(func() { r.client.Disconnect(10) })
	token := r.client.Subscribe("#", 1, func(_ paho.Client, m paho.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.has[m.Topic()] = string(m.Payload())
		if len(m.Payload()) == 0 {
			delete(r.has, m.Topic())
		}
	})
	if !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	// What is retained comes before what is published now.
	const here = "reader/here"
	if token := r.client.Publish(here, 1, false, "x"); !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	eventually(t, "the reader has everything", waitLimit, func() bool { return len(r.below(here)) == 1 })
	return r
}

// below is what is on topics with all these parts in them.
func (r *reader) below(parts ...string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := maps.Clone(r.has)
	for _, part := range parts {
		maps.DeleteFunc(found, func(topic, _ string) bool { return !strings.Contains(topic, part) })
	}
	return found
}
