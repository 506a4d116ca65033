package mqtt

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/certsitter/certsitter/internal/mosquitto"
)

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// reader is somebody who reads everything on a broker, as Home Assistant does.
type reader struct {
	client paho.Client

	mu    sync.Mutex
	has   map[string]string // by topic: what is retained, as far as it was seen
	lines []string          // what came after the subscription
}

func read(t testing.TB, address string) *reader {
	t.Helper()
	r := &reader{has: map[string]string{}}
	o := paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("reader").SetAutoReconnect(false).SetConnectTimeout(patience)
	r.client = paho.NewClient(o)
	if token := r.client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
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
		if !m.Retained() {
			r.lines = append(r.lines, m.Topic()+" "+string(m.Payload()))
		}
	})
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	return r
}

func (r *reader) holds(messages []Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range messages {
		if r.has[m.Topic] != string(m.Payload) {
			return false
		}
	}
	return true
}

func (r *reader) get(topic string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[topic]
}

func (r *reader) topics() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.has))
}

func (r *reader) count(line string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if l == line {
			n++
		}
	}
	return n
}

func (r *reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = nil
}

func (r *reader) send(t testing.TB, topic, payload string, retain bool) {
	t.Helper()
	if token := r.client.Publish(topic, 1, retain, payload); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("send %s: %v", topic, token.Error())
	}
}

func TestMosquittoKeepsEverything(t *testing.T) {
	m := mosquitto.Start(t)
	p := newPublisher(t, configFor(m))
	all := testMessages(t)
	p.Publish(all, nil)
	stop := run(t, p)
	await(t, "online", func() bool { return p.State().Connected })
	await(t, "everything retained", func() bool {
		r := read(t, m.Address) // a new one each time: it sees what is retained
		defer r.client.Disconnect(10)
		done := r.get("certsitter/status") == online && r.holds(all)
		for end := time.Now().Add(time.Second); !done && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			done = r.get("certsitter/status") == online && r.holds(all)
		}
		return done
	})
	stop()
	r := read(t, m.Address)
	await(t, "offline", func() bool { return r.get("certsitter/status") == offline && r.holds(all) })
	if got, want := len(r.topics()), len(all)+1; got != want {
		t.Errorf("%d topics, want %d: %q", got, want, r.topics())
	}
}

// childBroker is the broker's address for a publisher in a process of its own.
const childBroker = "CERTSITTER_TEST_CHILD_BROKER"

// childHomie is set for a child that publishes the Homie tree too.
const childHomie = "CERTSITTER_TEST_CHILD_HOMIE"

// TestPublisherInAChild is no test, but the child of the next one.
func TestPublisherInAChild(t *testing.T) {
	address := os.Getenv(childBroker)
	if address == "" {
		t.Skip("only for TestWillAfterKill")
	}
	c := testConfig()
	c.Broker, c.Homie = address, os.Getenv(childHomie) != ""
	p := newPublisher(t, c)
	p.Publish(mustMessages(t, c, testSnapshot()), nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = p.Run(ctx)
}

func TestWillAfterKill(t *testing.T) {
	m := mosquitto.Start(t)
	r := read(t, m.Address)
	cmd := exec.Command(os.Args[0], "-test.run=^TestPublisherInAChild$")
	cmd.Env = append(os.Environ(), childBroker+"="+m.URL())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(kill)
	await(t, "online", func() bool { return r.get("certsitter/status") == online && r.holds(testMessages(t)) })
	kill()
	await(t, "will", func() bool { return r.get("certsitter/status") == offline })
	if !r.holds(testMessages(t)) {
		t.Error("the rest is gone")
	}
}

func TestMosquittoRestartsEmpty(t *testing.T) {
	m := mosquitto.Start(t)
	p := newPublisher(t, configFor(m))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	for range 3 {
		r := read(t, m.Address)
		await(t, "everything there", func() bool { return r.get("certsitter/status") == online && r.holds(all) })
		m.Stop()
		await(t, "loss noticed", func() bool { return !p.State().Connected })
		m.Restart(t)
	}
	r := read(t, m.Address)
	await(t, "everything back", func() bool { return r.get("certsitter/status") == online && r.holds(all) })
}

func TestMosquittoBirth(t *testing.T) {
	m := mosquitto.Start(t)
	r := read(t, m.Address)
	p := newPublisher(t, configFor(m))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	last := lines(all[len(all)-1:])[0]
	await(t, "everything sent", func() bool { return r.count(last) == 1 })
	r.forget()
	r.send(t, "homeassistant/status", "offline", false)
	r.send(t, "homeassistant/status", "online", false)
	await(t, "sent again", func() bool { return r.count(last) == 1 })
	for _, line := range append(lines(all), "certsitter/status online") {
		if n := r.count(line); n != 1 {
			t.Errorf("%d times: %s", n, line)
		}
	}
}

func TestMosquittoCommands(t *testing.T) {
	m := mosquitto.Start(t)
	r := read(t, m.Address)
	r.send(t, "certsitter/cert/home/renew/set", "PRESS", true)
	r.send(t, "certsitter/service/notify/set", "PRESS", true)
	p := newPublisher(t, configFor(m))
	all := testMessages(t)
	p.Publish(all, nil)
	run(t, p)
	await(t, "everything sent", func() bool { return r.holds(all) })
	r.send(t, "certsitter/cert/nobody/renew/set", "PRESS", false)
	r.send(t, "certsitter/cert/home/renew/set", "RELEASE", false)
	r.send(t, "certsitter/cert/home/renew/set", "PRESS", false)
	select {
	case got := <-p.Commands():
		if want := (Command{"renew", "home"}); got != want {
			t.Errorf("command %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatal("no command")
	}
	if n := len(p.commands); n > 0 {
		t.Errorf("%d commands more", n)
	}
}

func TestMosquittoSweepBesideAnotherCertsitter(t *testing.T) {
	m := mosquitto.Start(t)
	r := read(t, m.Address)
	theirConfig := configFor(m)
	theirConfig.Topic, theirConfig.Installation = "certsitter2", "second"
	theirs := mustMessages(t, theirConfig, secondSnapshot())
	other := newPublisher(t, theirConfig)
	other.Publish(theirs, nil)
	run(t, other)
	await(t, "the other is there", func() bool { return r.holds(theirs) })

	old := mustMessages(t, configFor(m), secondSnapshot()) // base certsitter, device certsitter_2
	for _, msg := range old {
		r.send(t, msg.Topic, string(msg.Payload), true)
	}
	p := newPublisher(t, configFor(m))
	ours := testMessages(t)
	p.Publish(ours, nil)
	run(t, p)
	// All of ours and of theirs, both statuses, and nothing else.
	await(t, "swept", func() bool { return r.holds(ours) && r.holds(theirs) && len(r.topics()) == len(ours)+len(theirs)+2 })
	if link := p.State(); link.Other != "" {
		t.Errorf("another on our base: %s", link.Other)
	}
}

func TestMosquittoAndACopyOfTheStateFolder(t *testing.T) {
	// A real one: mochi sometimes lets both stay.
	m := mosquitto.Start(t)
	var both []*Publisher
	for range 2 {
		p := newPublisher(t, configFor(m))
		p.pace.steady = time.Minute // no connection of this test was good
		p.Publish(testMessages(t), nil)
		both = append(both, p)
	}
	for _, p := range both {
		run(t, p)
	}
	await(t, "said", func() bool {
		return slices.ContainsFunc(both, func(p *Publisher) bool {
			return strings.Contains(p.State().Error, "copy of this state folder (client id certsitter-7f3a9c)")
		})
	})
}

func TestMosquittoUnpublish(t *testing.T) {
	m := mosquitto.Start(t)
	r := read(t, m.Address)
	theirConfig := configFor(m)
	theirConfig.Topic, theirConfig.Installation = "certsitter2", "second"
	theirs := append(mustMessages(t, theirConfig, secondSnapshot()), retained("certsitter/notes", []byte("mine")))
	ours := append(testMessages(t), retained("certsitter/status", []byte(offline)), retained("certsitter/cert/home/renew/set", []byte(press)))
	known := retained("garden/cert/old/state", []byte("only known by the state folder"))
	for _, msg := range slices.Concat(theirs, ours, []Message{known}) {
		r.send(t, msg.Topic, string(msg.Payload), true)
	}
	r.forget()
	b, err := configFor(m).parseBroker()
	if err != nil {
		t.Fatal(err)
	}
	quick := quickPace()
	quick.quiet = time.Second // only silence tells that all was found
	emptied, err := unpublish(t.Context(), configFor(m), b, []string{known.Topic, "no/#"}, quick)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, msg := range append(ours, known) {
		want = append(want, msg.Topic)
	}
	slices.Sort(want)
	if !slices.Equal(emptied, want) {
		t.Errorf("emptied %q\nwant %q", emptied, want)
	}
	await(t, "emptied", func() bool { return len(r.topics()) == len(theirs) && r.holds(theirs) })
}

func TestUnpublishWithoutABroker(t *testing.T) {
	c := testConfig()
	c.Broker = "tcp://" + freeAddress(t)
	if _, err := Unpublish(t.Context(), c, nil); err == nil || !strings.HasPrefix(err.Error(), "Nothing listens at ") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Unpublish(ctx, c, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.Broker = ""
	if _, err := Unpublish(t.Context(), c, nil); err == nil {
		t.Error("no error without an address")
	}
}

func TestMosquittoOverWebSocket(t *testing.T) {
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	// Mosquitto 2.0.11 refuses to run with WebSocket listeners alone.
	m := mosquitto.Start(t, "listener "+port+" "+host, "protocol websockets")
	r := read(t, m.Address)
	c := configFor(m)
	c.Broker = "ws://" + address
	p := newPublisher(t, c)
	p.Publish(testMessages(t), nil)
	stop := run(t, p)
	await(t, "everything", func() bool { return r.get("certsitter/status") == online && r.holds(testMessages(t)) })
	stop()
	await(t, "goodbye", func() bool { return r.get("certsitter/status") == offline })

	c.Broker = "ws://" + m.Address // what answers there speaks MQTT, not HTTP
	wantError(t, c, "What answers at "+m.Address+" speaks no MQTT over WebSocket there.")
	c.Broker = "tcp://" + address
	wantError(t, c, "What answers at "+address+" does not speak MQTT.")
}

// wantError runs a publisher until it says why there is no connection.
func wantError(t *testing.T, c Config, want ...string) {
	t.Helper()
	p := newPublisher(t, c)
	p.Publish(testMessages(t), nil)
	stop := run(t, p)
	defer stop()
	await(t, "error "+want[0], func() bool { return p.State().Error != "" || p.State().Connected })
	if got := p.State().Error; !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(got, w) }) {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestMosquittoPasswords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwords")
	passwd, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	if out, err := exec.Command(passwd, "-c", "-b", file, "certsitter", "right").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := mosquitto.Start(t, "allow_anonymous false", "password_file "+file)
	c := configFor(m)
	wantError(t, c, "The login without a user name is not accepted by the broker at "+m.Address+". Set mqtt.username")
	c.Username, c.Password = "certsitter", "wrong"
	wantError(t, c, "User name or password are not accepted by the broker at "+m.Address+`. Check mqtt.username ("certsitter")`)
	c.Password = "right"
	p := newPublisher(t, c)
	p.Publish(testMessages(t), nil)
	run(t, p)
	await(t, "connected", func() bool { return p.State().Connected })
}

// A user without rights is told so by mosquitto in no other way.
func TestMosquittoWithoutRights(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rights")
	if err := os.WriteFile(file, []byte("topic read certsitter/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mosquitto.Start(t, "acl_file "+file)
	p := newPublisher(t, configFor(m))
	p.pace.echo = 300 * time.Millisecond
	p.Publish(testMessages(t), nil)
	run(t, p)
	await(t, "said", func() bool {
		return strings.HasPrefix(p.State().Error, "The broker takes our messages and does not hand them on.")
	})
	if !p.State().Connected {
		t.Error("not connected")
	}
}

func TestMosquittoTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	m := startTLS(t, ca, nil, "require_certificate true", "use_identity_as_username true")
	_, certPEM, keyPEM := ca.issue(t, "certsitter")
	c := configFor(m)
	c.Broker, c.CA, c.ClientCert, c.ClientKey = "ssl://"+m.Address, ca.pem, certPEM, keyPEM
	p := newPublisher(t, c)
	p.Publish(testMessages(t), nil)
	stop := run(t, p)
	await(t, "connected", func() bool { return p.State().Connected })
	await(t, "all messages taken", func() bool { return strings.Count(m.Log.String(), "Received PUBLISH") > len(testMessages(t)) })
	stop()

	none := c
	none.ClientCert, none.ClientKey = nil, nil
	// The alert may be overtaken by the end of the connection.
	wantError(t, none, "A client certificate is wanted by the broker at "+m.Address, "The login was cut off by the broker at "+m.Address+". If it wants a client certificate")
	wrong := c
	_, wrong.ClientCert, wrong.ClientKey = stranger.issue(t, "certsitter")
	wantError(t, wrong, "The certificate that we log in with is not accepted by the broker at "+m.Address, "The login was cut off by the broker at "+m.Address+". Perhaps it does not accept mqtt.client_cert")
	unknown := c
	unknown.CA = stranger.pem
	wantError(t, unknown, "The certificate of the broker at "+m.Address+" comes from an authority that is not known here. Set mqtt.ca_file")
	name := c
	name.Broker = strings.Replace(c.Broker, "127.0.0.1", "localhost", 1)
	wantError(t, name, "The certificate of the broker at localhost:"+strings.TrimPrefix(m.Address, "127.0.0.1:")+" is not for localhost, but for 127.0.0.1.")
	plain := configFor(m)
	wantError(t, plain, "The login was cut off by the broker at "+m.Address+". If that port speaks TLS")
}

func TestMosquittoTLSWithAnExpiredCertificate(t *testing.T) {
	ca := newAuthority(t)
	m := startTLS(t, ca, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
	})
	c := configFor(m)
	c.Broker, c.CA = "ssl://"+m.Address, ca.pem
	wantError(t, c, "The certificate of the broker at "+m.Address+" is out of date")
}

func TestTLSToAPlainPort(t *testing.T) {
	m := mosquitto.Start(t)
	c := configFor(m)
	c.Broker = "ssl://" + m.Address
	// Mosquitto takes the handshake for a broken packet and says nothing.
	wantError(t, c, "The login was cut off by the broker at "+m.Address+". If it wants a client certificate")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // others answer something
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte("220 hello, this is no TLS\r\n"))
			_ = conn.Close()
		}
	}()
	c.Broker = "ssl://" + l.Addr().String()
	wantError(t, c, "What answers at "+l.Addr().String()+" does not speak TLS.")
}

// startTLS starts a broker with a certificate of ca.
func startTLS(t *testing.T, ca authority, change func(*x509.Certificate), lines ...string) *mosquitto.Broker {
	t.Helper()
	var changes []func(*x509.Certificate)
	if change != nil {
		changes = append(changes, change)
	}
	_, certPEM, keyPEM := ca.issue(t, "broker", changes...)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca": ca.pem, "cert": certPEM, "key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name+".pem"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines = append(lines, fmt.Sprintf("cafile %s/ca.pem", dir), fmt.Sprintf("certfile %s/cert.pem", dir), fmt.Sprintf("keyfile %s/key.pem", dir))
	return mosquitto.Start(t, lines...)
}
