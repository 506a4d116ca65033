package app

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/certsitter/certsitter/internal/pebble"
)

// mosquitto is Debian's broker. It keeps nothing on disk: a restart forgets all
// retained messages.
type mosquitto struct {
	program, conf, address string
	log                    lockedBuffer
	cmd                    *exec.Cmd
}

func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not in everybody's PATH
		if _, err := os.Stat(path); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	m := &mosquitto{program: path, conf: filepath.Join(t.TempDir(), "mosquitto.conf"), address: fmt.Sprintf("127.0.0.1:%d", port)}
	write(t, m.conf, fmt.Sprintf("user root\npersistence false\nlog_dest stderr\nlistener %d 127.0.0.1\nallow_anonymous true\n", port))
	m.start(t)
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("mosquitto's log:\n%s", m.log.String())
		}
	})
	return m
}

func (m *mosquitto) start(t *testing.T) {
	t.Helper()
	m.cmd = exec.Command(m.program, "-c", m.conf)
	m.cmd.Stderr = &m.log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mosquitto is up", waitLimit, func() bool {
		conn, err := net.Dial("tcp", m.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

// reader keeps what is retained on a broker.
type reader struct {
	client paho.Client

	mu  sync.Mutex
	has map[string]string // by topic
}

func (m *mosquitto) read(t *testing.T) *reader {
	t.Helper()
	r := &reader{has: map[string]string{}}
	r.client = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + m.address).SetClientID("reader").SetAutoReconnect(false))
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
