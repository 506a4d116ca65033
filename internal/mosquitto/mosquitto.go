// Package mosquitto runs Debian's MQTT broker for tests: the one that most people
// have, where package broker is the one that is there without an installation.
// It is for tests alone and never part of the daemon.
package mosquitto

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

// startLimit bounds the wait until it listens, which takes milliseconds.
const startLimit = 40 * time.Second

// Broker is a Mosquitto of one test. It keeps nothing on disk.
type Broker struct {
	Address string        // host:port of 127.0.0.1, the same after a Restart
	Log     output.Buffer // what it says, of every kind that it knows

	program, conf string
	cmd           *exec.Cmd
	ended         chan struct{}
}

// Start runs one with a single listener on a free port until the test's end, and
// shows its log if the test has failed. The lines of mosquitto.conf(5) belong to
// that listener. Without an allow_anonymous among them everybody is let in. The
// test is skipped where Mosquitto is not installed.
func Start(t testing.TB, lines ...string) *Broker {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto" // not in everybody's PATH
		if _, err := os.Stat(program); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{Address: fmt.Sprintf("127.0.0.1:%d", port), program: program, conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	if err := os.WriteFile(b.conf, []byte(configuration(port, lines)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(func() {
		b.Stop()
		if t.Failed() {
			t.Logf("mosquitto's log:\n%s", b.Log.String())
		}
	})
	return b
}

func configuration(port int, lines []string) string {
	conf := []string{"persistence false", "log_dest stderr", "log_type all"}
	if os.Getuid() == 0 {
		conf = append(conf, "user root") // else it could not read the test's files
	}
	conf = append(conf, fmt.Sprintf("listener %d 127.0.0.1", port))
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "allow_anonymous") }) {
		conf = append(conf, "allow_anonymous true")
	}
	return strings.Join(append(conf, lines...), "\n") + "\n"
}

func (b *Broker) start(t testing.TB) {
	t.Helper()
	cmd, ended := exec.Command(b.program, "-c", b.conf), make(chan struct{})
	cmd.Stderr = &b.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(ended) }()
	b.cmd, b.ended = cmd, ended
	for end := time.Now().Add(startLimit); ; {
		conn, err := net.Dial("tcp", b.Address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			b.Stop()
			t.Fatalf("mosquitto does not come up: %v\n%s", err, b.Log.String())
		}
		select {
		case <-ended:
			t.Fatalf("mosquitto ended:\n%s", b.Log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends it at once, as a loss of power does, and waits until it is gone.
func (b *Broker) Stop() {
	_ = b.cmd.Process.Kill()
	<-b.ended
}

// Restart stops it if it still runs, and starts it again: at the same address,
// with nothing of what was retained.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.Stop()
	b.start(t)
}

// URL is where clients find it.
func (b *Broker) URL() string { return "tcp://" + b.Address }
