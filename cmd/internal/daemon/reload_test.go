package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/store"
)

// changing gives a daemon a configuration that is changed after it was read.
func changing(change func(*settings.Settings)) func(*Options) {
	return func(o *Options) {
		change(o.Settings)
		read := o.Reload
		o.Reload = func() (*settings.Settings, error) {
			conf, err := read()
			if err == nil {
				change(conf)
			}
			return conf, err
		}
	}
}

// reloaded reloads and waits until the log says the nth time that it was done.
func (r *running) reloaded(t *testing.T, n int) {
	t.Helper()
	r.reload(t)
	r.eventually(t, "the configuration is read again", func() bool {
		return strings.Count(r.log.String(), "configuration read again") >= n
	})
}

// refused reloads and waits until it can be seen that the configuration was
// refused for that reason.
func (r *running) refused(t *testing.T, reason string) {
	t.Helper()
	r.reload(t)
	r.eventually(t, "the configuration is refused: "+reason, func() bool {
		for _, p := range r.Sitter.Snapshot().Problems {
			if p.Code == "config" && strings.Contains(p.Text, reason) {
				return true
			}
		}
		return false
	})
}

func startBroker(t *testing.T) *broker.Broker {
	t.Helper()
	b, err := broker.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// startSupervisor plays the Supervisor, which names the broker of that moment;
// nil = it has none yet.
func startSupervisor(t *testing.T, named *atomic.Pointer[broker.Broker]) *addon.Supervisor {
	t.Helper()
	url := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := named.Load()
		if b == nil || r.URL.Path != "/services/mqtt" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		host, port, _ := net.SplitHostPort(b.Address())
		fmt.Fprintf(w, `{"result":"ok","data":{"host":%q,"port":%s,"ssl":false,"username":"addons","password":"s3cret"}}`, host, port)
	}))
	return &addon.Supervisor{URL: url, Token: func() string { return "token" }}
}

func retains(b *broker.Broker, topic, text string) func() bool {
	return func() bool {
		payload, there := b.Retained(topic)
		return there && strings.Contains(payload, text)
	}
}

func gone(b *broker.Broker, topic string) func() bool {
	return func() bool { _, there := b.Retained(topic); return !there }
}

// The port that we hold ourselves is not taken for an order that begins after a
// reload.
func TestReloadKeepsTheResponder(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates: []\n")
	r := s.start(t)
	for _, kind := range []string{renew.HTTP01, renew.TLSALPN01} {
		answers, err := r.answer(t.Context(), kind, "", []string{"a.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		defer answers.Close()
	}
	r.reloaded(t, 1)
	for _, kind := range []string{renew.HTTP01, renew.TLSALPN01} {
		answers, err := r.answer(t.Context(), kind, "", []string{"b.example.org"})
		if err != nil {
			t.Fatalf("%s after a reload: %v", kind, err)
		}
		if err := answers.Close(); err != nil {
			t.Error(err)
		}
	}
	// Another port is another responder.
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "certsitter.yaml", strings.Replace(s.read(t, "certsitter.yaml"), fmt.Sprintf("http_port: %d\n", s.ca.HTTPPort()), fmt.Sprintf("http_port: %d\n", port), 1))
	r.reloaded(t, 2)
	answers, err := r.answer(t.Context(), renew.HTTP01, "", []string{"c.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// As an app the broker is named by the Supervisor, and stays ours over reloads.
func TestReloadWithTheSupervisorsBroker(t *testing.T) {
	t.Parallel()
	var named atomic.Pointer[broker.Broker]
	b := startBroker(t)
	named.Store(b)
	s := newScene(t, pebble.Options{})
	supervisor := startSupervisor(t, &named)
	s.configure(t, "certificates: []\n")
	r := s.start(t, changing(func(conf *settings.Settings) { conf.MQTT.Supervisor = true }), func(o *Options) { o.Supervisor = supervisor })
	r.eventually(t, "the service is published", func() bool { return retains(b, "certsitter/status", "online")() && r.Sitter.Snapshot().MQTT.Connected })

	var mu sync.Mutex
	fell := false
	if err := b.Subscribe("certsitter/status", func(_ string, payload []byte, _ bool) {
		mu.Lock()
		defer mu.Unlock()
		fell = fell || string(payload) == "offline"
	}); err != nil {
		t.Fatal(err)
	}
	watched := "certificates: []\nwatch:\n- {name: nas, source: " + s.path("nas.pem") + "}\n"
	s.configure(t, watched)
	r.reloaded(t, 1)
	r.eventually(t, "what is new is published", retains(b, "certsitter/cert/nas/state", `"name":"nas"`))
	mu.Lock()
	if fell {
		t.Error("the connection was given up for a configuration with the same broker")
	}
	mu.Unlock()

	// Another base: the Supervisor is asked again, and the old one is left tidy.
	s.configure(t, watched+"mqtt: {topic: other}\n")
	r.reloaded(t, 2)
	r.eventually(t, "the new base is published", retains(b, "other/cert/nas/state", `"name":"nas"`))
	r.eventually(t, "it is online", retains(b, "other/status", "online"))
	for _, topic := range []string{"certsitter/cert/nas/state", "certsitter/service/state", "certsitter/status"} {
		r.eventually(t, topic+" is empty", gone(b, topic))
	}
	// The Supervisor is without a broker when the base changes again: it is found
	// by the next configuration at the latest.
	named.Store(nil)
	s.configure(t, watched+"mqtt: {topic: third}\n")
	r.reloaded(t, 3)
	r.eventually(t, "we are offline at the old base", retains(b, "other/status", "offline"))
	r.eventually(t, "the page knows", func() bool { return !r.Sitter.Snapshot().MQTT.Connected })
	named.Store(b)
	s.configure(t, watched+"mqtt: {topic: fourth}\n")
	r.reloaded(t, 4)
	r.eventually(t, "we are online again", retains(b, "fourth/status", "online"))
	r.eventually(t, "the old base is left tidy", gone(b, "other/cert/nas/state"))
}

// Another broker: the old one hears that we left.
func TestReloadToAnotherBroker(t *testing.T) {
	t.Parallel()
	old, other := startBroker(t), startBroker(t)
	s := newScene(t, pebble.Options{})
	text := "certificates: []\nwatch:\n- {name: nas, source: " + s.path("nas.pem") + "}\n"
	s.configure(t, text+"mqtt: {broker: '"+old.URL()+"'}\n")
	r := s.start(t)
	r.eventually(t, "it is on the first broker", retains(old, "certsitter/cert/nas/state", `"name":"nas"`))
	s.configure(t, text+"mqtt: {broker: '"+other.URL()+"'}\n")
	r.reloaded(t, 1)
	r.eventually(t, "the first broker knows that we left", retains(old, "certsitter/status", "offline"))
	r.eventually(t, "the second has everything", func() bool {
		return retains(other, "certsitter/cert/nas/state", `"name":"nas"`)() && retains(other, "certsitter/status", "online")()
	})
}

// Events and buttons of the time between two publishers are kept.
func TestEventsWaitForAPublisher(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	seen := make(chan string, 100)
	if err := b.Subscribe("+/cert/+/event", func(topic string, payload []byte, _ bool) { seen <- topic + " " + string(payload) }); err != nil {
		t.Fatal(err)
	}
	var named atomic.Pointer[broker.Broker]
	l := newLink(zerolog.Nop(), startSupervisor(t, &named))
	use := func(c mqtt.Config) {
		t.Helper()
		c.Installation = "abc"
		w, err := prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		l.use(w)
	}
	use(mqtt.Config{Topic: "first"})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	defer func() { stop(); <-ended }()
	for deadline := time.Now().Add(waitLimit); !strings.Contains(l.State().Error, "install and start the Mosquitto broker app"); {
		select {
		case <-l.Changed():
		case <-time.After(time.Until(deadline)):
			t.Fatalf("nobody is told why there is no broker: %+v", l.State())
		}
	}
	l.Event("home", mqtt.Event{Type: "renewed", Text: "before any broker"})
	l.Publish([]mqtt.Message{}, []string{"first/target/old_012345/state"})
	if got := l.State().Emptying; len(got) != 1 {
		t.Errorf("what is to be emptied is forgotten: %v", got)
	}
	// A broker that nobody answers for, then a good one.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	use(mqtt.Config{Topic: "first", Broker: "tcp://" + silent.Addr().String()})
	l.Event("home", mqtt.Event{Type: "deployed", Text: "at a silent broker"})
	use(mqtt.Config{Topic: "second", Broker: b.URL()})
	l.Event("home", mqtt.Event{Type: "warning", Text: "at once"})
	for _, want := range []string{"before any broker", "at a silent broker", "at once"} {
		select {
		case got := <-seen:
			if !strings.HasPrefix(got, "second/cert/home/event ") || !strings.Contains(got, want) {
				t.Errorf("%s, want %q", got, want)
			}
		case <-time.After(waitLimit):
			t.Fatalf("lost: %q", want)
		}
	}
}

func TestOldEventsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &output.Buffer{}
		l := newLink(zerolog.New(log), nil)
		l.Event("home", mqtt.Event{Type: "renewed"})
		time.Sleep(eventsFor + time.Second)
		for range eventsKept + 3 {
			l.Event("home", mqtt.Event{Type: "warning"})
		}
		if len(l.events) != eventsKept || l.events[0].event.Type != "warning" {
			t.Errorf("%d events, the first %v", len(l.events), l.events[0].event)
		}
		if strings.Count(log.String(), "events not published") != 4 {
			t.Errorf("dropped in silence: %s", log)
		}
	})
}

// What the new configuration asks for is used while another one comes: run this
// with -race.
func TestActWhileReloading(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates: []\n")
	r := s.start(t)
	action, err := settings.ParseAction("run true")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var acting sync.WaitGroup
	acting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := r.act(t.Context(), action, sitter.Acted{Name: "home"}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for n := 1; n <= 5; n++ {
		r.reloaded(t, n)
	}
	close(stop)
	acting.Wait()
}

// A configuration that turns out bad where it is put to use leaves all of the
// old one in force.
func TestReloadAllOrNothing(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	var wrong atomic.Pointer[func(*settings.Settings)]
	s := newScene(t, pebble.Options{})
	const entry = "certificates: []\nwatch:\n- {name: nas, source: nas.pem}\n"
	s.configure(t, entry+"mqtt: {broker: '"+b.URL()+"'}\n")
	r := s.start(t, changing(func(conf *settings.Settings) {
		if change := wrong.Load(); change != nil {
			(*change)(conf)
		}
	}))
	r.eventually(t, "it is published", retains(b, "certsitter/status", "online"))
	old := r.inForce.Load()
	for reason, change := range map[string]func(*settings.Settings){
		"set up MQTT": func(conf *settings.Settings) { conf.MQTT.Topic = "Not A Topic" },
		"watch[nas]":  func(conf *settings.Settings) { conf.Watch[0].File, conf.Watch[0].Source = false, "gopher://nas" },
	} {
		all := func(conf *settings.Settings) {
			conf.HTTPPort, conf.HomeAssistantURL, conf.Language = 1, "http://127.0.0.1:1", "de"
			change(conf)
		}
		wrong.Store(&all)
		r.refused(t, reason)
		if now := r.inForce.Load(); now != old {
			t.Errorf("%s: in force is %+v", reason, now)
		}
		if r.of("nas").Name == "" || r.Sitter.Snapshot().Language != "en" {
			t.Errorf("%s: the loop has %+v", reason, r.Sitter.Snapshot())
		}
	}
	wrong.Store(nil)
	r.reloaded(t, 1)
	r.eventually(t, "the refusal is forgotten", func() bool { return len(r.Sitter.Snapshot().Problems) == 0 })
	if !retains(b, "certsitter/status", "online")() {
		t.Error("the broker was left")
	}
}

func TestBrokerConfig(t *testing.T) {
	t.Parallel()
	var named atomic.Pointer[broker.Broker]
	supervisor := startSupervisor(t, &named)
	ask := func(m settings.MQTT) (mqtt.Config, error) {
		return BrokerConfig(t.Context(), &settings.Settings{MQTT: m}, supervisor)
	}
	if _, err := ask(settings.MQTT{}); !errors.Is(err, ErrNoBroker) {
		t.Errorf("without MQTT: %v", err)
	}
	if c, err := ask(settings.MQTT{Broker: "tcp://b:1883", Username: "u", Topic: "x"}); err != nil || c.Broker != "tcp://b:1883" || c.Username != "u" || c.Topic != "x" {
		t.Errorf("one's own: %+v, %v", c, err)
	}
	if _, err := ask(settings.MQTT{Supervisor: true}); !errors.Is(err, addon.ErrNoBroker) {
		t.Errorf("none yet: %v", err)
	}
	b := startBroker(t)
	named.Store(b)
	if c, err := ask(settings.MQTT{Supervisor: true, Topic: "x"}); err != nil || c.Broker != b.URL() || c.Username != "addons" || c.Password != "s3cret" || c.Topic != "x" {
		t.Errorf("the Supervisor's: %+v, %v", c, err)
	}
}

// stuck is a listener whose end takes until it is let go, as that of a file on a
// disk that hangs.
type stuck struct {
	net.Listener
	letGo chan struct{}
}

func (s *stuck) Close() error {
	err := s.Listener.Close()
	<-s.letGo
	return err
}

func TestEndWithSomethingThatHangs(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hanging := &stuck{inner, make(chan struct{})}
	letGo := sync.OnceFunc(func() { close(hanging.letGo) })
	t.Cleanup(letGo)
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates: []\n")
	r := s.start(t, func(o *Options) { o.Listener = hanging })
	socket := s.path("state/" + page.SocketName)
	r.eventually(t, "the control socket is there", func() bool { return fileExists(socket) })
	err = r.stop()
	if err == nil || !strings.Contains(err.Error(), "the page") || strings.Contains(err.Error(), "socket") || strings.Contains(err.Error(), "loop") {
		t.Errorf("it ended with %v", err)
	}
	if fileExists(socket) {
		t.Error("the control socket is left")
	}
	if !strings.Contains(r.log.String(), "left behind") {
		t.Errorf("the log is silent: %s", r.log)
	}
	// The folder is ours until all has ended: nobody comes between.
	if again, err := store.Open(s.path("state"), store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("the folder was free: %v, %v", again, err)
	}
	letGo()
	for end := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		again, err := store.Open(s.path("state"), store.Options{})
		if err == nil {
			_ = again.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestTogether(t *testing.T) {
	bad := errors.New("bad")
	waits := func(ctx context.Context) error { <-ctx.Done(); return nil }
	fails := func(context.Context) error { return bad }
	done := func(context.Context) error { return nil }
	for name, c := range map[string]struct {
		parts func(never <-chan struct{}) []part
		last  bool // it hangs
		stop  bool // ctx ends
		says  string
		bad   bool
	}{
		"all end":           {parts: func(<-chan struct{}) []part { return []part{{"a", waits}, {"b", waits}} }, stop: true},
		"all end by itself": {parts: func(<-chan struct{}) []part { return []part{{"a", done}} }},
		"one fails":         {parts: func(<-chan struct{}) []part { return []part{{"a", waits}, {"b", fails}} }, bad: true, says: "bad"},
		"one hangs": {parts: func(n <-chan struct{}) []part {
			return []part{{"a", waits}, {"b", func(context.Context) error { <-n; return nil }}}
		}, stop: true, says: "not ended within 5s: b. "},
		"one fails, one hangs": {parts: func(n <-chan struct{}) []part {
			return []part{{"a", fails}, {"b", func(context.Context) error { <-n; return nil }}}
		}, bad: true, says: "bad\nnot ended within 5s: b. "},
		"the last one hangs": {parts: func(<-chan struct{}) []part { return []part{{"a", waits}} }, last: true, stop: true, says: "not ended within 5s: z. "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				never := make(chan struct{})
				defer func() { close(never); synctest.Wait() }()
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if c.stop {
					time.AfterFunc(time.Hour, stop)
				}
				began := time.Now()
				err := together(ctx, 5*time.Second, c.parts(never), part{"z", func(context.Context) error {
					if c.last {
						<-never
					}
					return nil
				}})
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.HasPrefix(err.Error(), c.says)) || errors.Is(err, bad) != c.bad {
					t.Errorf("it ended with %v", err)
				}
				if took := time.Since(began); took > time.Hour+5*time.Second {
					t.Errorf("it ended after %v", took)
				}
			})
		})
	}
}
