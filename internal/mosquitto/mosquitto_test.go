package mosquitto

import (
	"net"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// patience bounds every wait. Nothing waits for it unless it fails.
const patience = 20 * time.Second

func connect(t *testing.T, b *Broker) (paho.Client, error) {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker(b.URL()).SetClientID("test").SetAutoReconnect(false))
	token := c.Connect()
	if !token.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	t.Cleanup(func() { c.Disconnect(10) })
	return c, token.Error()
}

// retained are the topics with something retained.
func retained(t *testing.T, b *Broker) (topics []string) {
	t.Helper()
	c, err := connect(t, b)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(10)
	came := make(chan string, 10)
	c.Subscribe("#", 1, func(_ paho.Client, m paho.Message) { came <- m.Topic() })
	c.Publish("last", 1, false, "x") // after what is retained
	for {
		select {
		case topic := <-came:
			if topic == "last" {
				return topics
			}
			topics = append(topics, topic)
		case <-time.After(patience):
			t.Fatal("not all comes")
		}
	}
}

func TestRestartForgets(t *testing.T) {
	t.Parallel()
	b := Start(t)
	c, err := connect(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if token := c.Publish("kept", 1, true, "x"); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	c.Disconnect(10)
	if got := retained(t, b); len(got) != 1 || got[0] != "kept" {
		t.Errorf("retained: %q", got)
	}
	b.Stop()
	if conn, err := net.Dial("tcp", b.Address); err == nil {
		_ = conn.Close()
		t.Error("it answers after its end")
	}
	for range 2 { // the second time it runs
		b.Restart(t)
		if got := retained(t, b); len(got) > 0 {
			t.Errorf("retained after a restart: %q", got)
		}
	}
	if n := strings.Count(b.Log.String(), "starting"); n != 3 {
		t.Errorf("the log speaks of %d starts:\n%s", n, b.Log.String())
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	b := Start(t, "allow_anonymous false")
	if _, err := connect(t, b); err == nil {
		t.Error("a client without a name is let in")
	}
}
