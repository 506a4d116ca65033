package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/certsitter/certsitter/internal/mosquitto"
	"github.com/certsitter/certsitter/internal/pebble"
)

// reader is somebody who reads everything on a broker, as Home Assistant does.
type reader struct {
	client paho.Client

	mu    sync.Mutex
	has   map[string]string // what is retained, by topic
	lines []string          // everything that came
}

func read(t *testing.T, m *mosquitto.Broker, id string) *reader {
	t.Helper()
	r := &reader{has: map[string]string{}}
	r.client = paho.NewClient(paho.NewClientOptions().AddBroker(m.URL()).SetClientID(id).SetAutoReconnect(false))
	if token := r.client.Connect(); !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	t.Cleanup(func() { r.client.Disconnect(10) })
	token := r.client.Subscribe("#", 1, func(_ paho.Client, m paho.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, last, _ := strings.Cut(m.Topic(), "/cert/"); !strings.HasSuffix(last, "/event") { // events are not retained
			r.has[m.Topic()] = string(m.Payload())
		}
		if len(m.Payload()) == 0 {
			delete(r.has, m.Topic())
		}
		r.lines = append(r.lines, m.Topic()+" "+string(m.Payload()))
	})
	if !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	return r
}

func (r *reader) publish(t *testing.T, topic, payload string, retain bool) {
	t.Helper()
	if token := r.client.Publish(topic, 1, retain, payload); !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("publish: %v", token.Error())
	}
}

func (r *reader) get(topic string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[topic]
}

// below is what is retained on topics with this in them.
func (r *reader) below(part string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := maps.Clone(r.has)
	maps.DeleteFunc(found, func(topic, _ string) bool { return !strings.Contains(topic, part) })
	return found
}

// count is how many messages that came since the last forget hold all parts.
func (r *reader) count(parts ...string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) }) {
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

// difference lists what is not the same in both.
func difference(before, now map[string]string) string {
	var b strings.Builder
	for topic := range before {
		if now[topic] != before[topic] {
			fmt.Fprintf(&b, "%s was %s\nand is %s\n", topic, before[topic], now[topic])
		}
	}
	for topic := range now {
		if _, there := before[topic]; !there {
			fmt.Fprintf(&b, "%s is new: %s\n", topic, now[topic])
		}
	}
	return b.String()
}

// settled waits until everything that will come has come, the CA's advice on the
// next renewal included.
func settled(t *testing.T, d *running, r *reader) map[string]string {
	t.Helper()
	d.eventually(t, "the CA's advice, which is earlier than a third of the lifetime", func() bool {
		c := d.of("home")
		return !c.NextRenewal.IsZero() && c.NextRenewal.Before(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore)/3-2*time.Second))
	})
	d.eventually(t, "the state is on the broker", func() bool {
		home, snap := r.get("certsitter/cert/home/state"), d.Sitter.Snapshot()
		next := `"next_renewal":"` + d.of("home").NextRenewal.Format(time.RFC3339) + `"`
		return r.get("certsitter/status") == "online" && strings.Contains(home, `"status":"ok"`) && strings.Contains(home, next) && strings.Contains(home, d.of("home").Print) &&
			strings.Contains(r.get("certsitter/service/state"), `"last_check":"`+snap.LastCheck.Format(time.RFC3339)+`","next_renewal":"`+snap.NextRenewal.Format(time.RFC3339)+`"`)
	})
	return r.below("certsitter")
}

func brokered(m *mosquitto.Broker, certificates string) string {
	return "mqtt: {broker: \"" + m.URL() + "\"}\ncertificates:\n" + certificates
}

// States, discovery, events and commands on the broker that most people have.
func TestBroker(t *testing.T) {
	t.Parallel()
	m := mosquitto.Start(t)
	r := read(t, m, "reader")
	// Left by somebody: it must not renew at each start.
	r.publish(t, "certsitter/cert/home/renew/set", "PRESS", true)
	s := newScene(t, pebble.Options{Blocked: []string{"bad.example.org"}})
	s.configure(t, brokered(m, certificate("home", "")+certificate("bad", "")))
	d := s.start(t)
	d.deployed(t, "home", 1)
	d.eventually(t, "the other has failed", func() bool { return d.of("bad").Failures == 1 })
	settled(t, d, r)
	wantOrders(t, s, 1)

	// Home Assistant finds a device for each certificate and one for the service.
	for topic, want := range map[string][]string{
		"homeassistant/sensor/certsitter_home/days_left/config":      {`"unique_id":"certsitter_home_days_left"`, `"device_class":"duration"`, `"default_entity_id":"sensor.certsitter_home_days_left"`, `"origin":`},
		"homeassistant/sensor/certsitter_home/not_after/config":      {`"device_class":"timestamp"`},
		"homeassistant/sensor/certsitter_home/status/config":         {`"options":`},
		"homeassistant/binary_sensor/certsitter_home/problem/config": {`"device_class":"problem"`},
		"homeassistant/button/certsitter_home/renew/config":          {`"command_topic":"certsitter/cert/home/renew/set"`},
		"homeassistant/event/certsitter_home/event/config":           {`"state_topic":"certsitter/cert/home/event"`},
		"homeassistant/binary_sensor/certsitter/connection/config":   {`certsitter/status`},
		"homeassistant/button/certsitter/check/config":               {`certsitter/service/check/set`},
		"certsitter/cert/home/state":                                 {`"name":"home","status":"ok","problem":"OFF","days_left":89,`, `"failures":0`, `"not_deployed":"OFF","source":"managed"`},
		"certsitter/cert/bad/state":                                  {`"status":"warning","problem":"ON","days_left":"None","not_after":"None"`, `"failures":1`},
		"certsitter/service/state":                                   {`"certificates":2,"problems":1,"lowest_days_left":89`},
	} {
		d.eventually(t, topic, func() bool { return r.get(topic) != "" })
		for _, part := range want {
			if !strings.Contains(r.get(topic), part) {
				t.Errorf("%s has no %s: %s", topic, part, r.get(topic))
			}
		}
	}
	for topic, payload := range r.below("certsitter") {
		if strings.Contains(payload, "null") {
			t.Errorf("null in %s: %s", topic, payload)
		}
	}
	for _, kind := range []string{"renewed", "deployed"} {
		d.eventually(t, kind, func() bool { return r.count("certsitter/cert/home/event", `"event_type":"`+kind+`"`) == 1 })
	}
	for _, kind := range []string{"renewal_failed", "warning"} {
		d.eventually(t, kind, func() bool { return r.count("certsitter/cert/bad/event", `"event_type":"`+kind+`"`) == 1 })
	}
	late := read(t, m, "late")
	d.eventually(t, "the state is retained", func() bool {
		return late.get("certsitter/cert/home/state") != "" && late.get("homeassistant/button/certsitter/check/config") != ""
	})
	if late.count("/event ") > 0 {
		t.Error("an event is retained")
	}

	// The button.
	r.publish(t, "certsitter/cert/nobody/renew/set", "PRESS", false)
	r.publish(t, "certsitter/cert/home/renew/set", "press me", false)
	r.publish(t, "certsitter/service/check/set", "PRESS", false)
	d.eventually(t, "a check is under way or over", func() bool { return d.seen.count("", "checked") > 0 })
	wantOrders(t, s, 1)
	r.publish(t, "certsitter/cert/home/renew/set", "PRESS", false)
	d.deployed(t, "home", 2)
	d.eventually(t, "the event", func() bool { return r.count("certsitter/cert/home/event", `"event_type":"deployed"`) == 2 })
	wantOrders(t, s, 2)
	// Again at once: a refusal that can be seen, and no order.
	r.publish(t, "certsitter/cert/home/renew/set", "PRESS", false)
	d.eventually(t, "the refusal", func() bool {
		return strings.Contains(r.get("certsitter/cert/home/state"), "Not renewed: It was asked for less than a minute ago")
	})
	wantOrders(t, s, 2)

	if err := d.stop(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(waitLimit); r.get("certsitter/status") != "offline"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not offline at its end")
		}
	}
}

// The broker loses everything: all is back within 5 s of the reconnection, byte
// for byte. So it is when Home Assistant comes up.
func TestBrokerForgets(t *testing.T) {
	t.Parallel()
	m := mosquitto.Start(t)
	r := read(t, m, "reader")
	s := newScene(t, pebble.Options{})
	s.configure(t, brokered(m, certificate("home", "")))
	d := s.start(t)
	d.deployed(t, "home", 1)
	before := settled(t, d, r)

	m.Stop()
	d.eventually(t, "the loss is noticed", func() bool { return !d.Sitter.Snapshot().MQTT.Connected })
	m.Restart(t)
	again := read(t, m, "reader")
	d.eventually(t, "the reconnection", func() bool { return again.get("certsitter/status") == "online" })
	for end := time.Now().Add(5 * time.Second); !maps.Equal(before, again.below("certsitter")); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(difference(before, again.below("certsitter")))
		}
	}

	again.forget()
	again.publish(t, "homeassistant/status", "online", false)
	d.eventually(t, "everything is sent again", func() bool {
		for topic, payload := range before {
			if again.count(topic+" "+payload) == 0 {
				return false
			}
		}
		return true
	})
	if now := again.below("certsitter"); !maps.Equal(before, now) {
		t.Error(difference(before, now))
	}
}

// What leaves the configuration leaves the broker, and nothing of a neighbour's
// whose base begins alike.
func TestSweepBesideANeighbour(t *testing.T) {
	t.Parallel()
	m := mosquitto.Start(t)
	r := read(t, m, "reader")
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	neighbour := newSceneWith(t, ca)
	pem := leafPEM(neighbour.selfSigned(t))
	neighbour.write(t, "nas.pem", string(pem))
	neighbour.configure(t, "mqtt: {broker: \""+m.URL()+"\", topic: certsitter2}\nwatch:\n- {name: home, source: nas.pem}\n- {name: second, source: nas.pem}\n")
	n := neighbour.start(t)
	n.eventually(t, "the neighbour is there", func() bool {
		return strings.Contains(r.get("certsitter2/cert/second/state"), `"status":"ok"`) && r.get("certsitter2/service/state") != "" && r.get("homeassistant/sensor/certsitter2_second/days_left/config") != ""
	})
	n.check(t)

	s := newSceneWith(t, ca)
	s.configure(t, brokered(m, certificate("home", "")+certificate("second", "")))
	d := s.start(t)
	d.deployed(t, "home", 1)
	d.deployed(t, "second", 1)
	settled(t, d, r)
	d.eventually(t, "the second is published", func() bool {
		return strings.Contains(r.get("certsitter/cert/second/state"), d.of("second").Print) && len(r.below("/certsitter_second/")) > 5
	})
	theirs := r.below("certsitter2")

	// A configuration that is refused sweeps nothing.
	s.write(t, "certsitter.yaml", "certificates: nonsense\n")
	d.reload(t)
	d.eventually(t, "it was refused", func() bool {
		return slices.ContainsFunc(d.Sitter.Snapshot().Problems, func(p sitterProblem) bool { return p.Code == "config" })
	})
	if r.get("certsitter/cert/second/state") == "" {
		t.Error("a refused configuration has swept")
	}

	s.configure(t, brokered(m, certificate("home", "")))
	d.reload(t)
	d.eventually(t, "the second's topics are emptied", func() bool {
		return len(r.below("certsitter_second")) == 0 && len(r.below("certsitter/cert/second")) == 0
	})
	if now := r.below("certsitter2"); !maps.Equal(theirs, now) {
		t.Error("the neighbour's:", difference(theirs, now))
	}
	if len(r.below("certsitter_home")) < 8 || r.get("certsitter/cert/home/state") == "" {
		t.Errorf("left of home: %v", r.below("certsitter_home"))
	}

	// Another base topic: the old one's are emptied.
	s.configure(t, strings.Replace(brokered(m, certificate("home", "")), "\"}", "\", topic: certsitter3}", 1))
	d.reload(t)
	d.eventually(t, "the other topic is in use", func() bool { return strings.Contains(r.get("certsitter3/cert/home/state"), `"status":"ok"`) })
	d.eventually(t, "the old one is empty", func() bool {
		return len(r.below("certsitter/")) == 0 && len(r.below("certsitter_home")) == 0
	})
	if now := r.below("certsitter2"); !maps.Equal(theirs, now) {
		t.Error("the neighbour's:", difference(theirs, now))
	}
}
