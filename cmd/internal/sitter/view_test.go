package sitter

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/mqtt"
)

// A quickBroker shows at once what it is given, and remembers when.
type quickBroker struct {
	mu       sync.Mutex // guards the rest
	shows    map[string][]byte
	times    []time.Time
	told     []string
	early    []string // events that came before their state
	pressed  chan mqtt.Command
	messages int
}

func newQuickBroker() *quickBroker {
	return &quickBroker{shows: map[string][]byte{}, pressed: make(chan mqtt.Command)}
}

func (b *quickBroker) Publish(retained []mqtt.Message, _ []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = append(b.times, time.Now())
	b.shows = map[string][]byte{}
	for _, m := range retained {
		b.shows[m.Topic] = m.Payload
	}
	b.messages = len(retained)
}

func (b *quickBroker) Event(name string, e mqtt.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, name+" "+e.Type)
	if state := b.shows["certsitter/cert/"+name+"/state"]; e.Type == "renewed" && !bytes.Contains(state, []byte(`"last_result":"Renewed`)) {
		b.early = append(b.early, fmt.Sprintf("%s %s: %s", name, e.Type, state))
	}
}

func (b *quickBroker) State() mqtt.Link              { return mqtt.Link{Connected: true} }
func (b *quickBroker) Changed() <-chan struct{}      { return nil }
func (b *quickBroker) Commands() <-chan mqtt.Command { return b.pressed }

func (b *quickBroker) state(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.shows["certsitter/cert/"+name+"/state"])
}

// onBroker publishes to a broker.
func onBroker(s *settings.Settings) {
	s.MQTT = settings.MQTT{Broker: "tcp://broker.example:1883", Topic: "certsitter", DiscoveryPrefix: "homeassistant"}
}

func TestBrokerIsToldNotTooOften(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, b := newEarth(t, 90*day), newQuickBroker()
		w.slow = 0
		const many = 40
		names := make([]string, many)
		s := conf(t, dir, "", func(s *settings.Settings) {
			onBroker(s)
			one := s.Certificates[0]
			s.Certificates = nil
			for i := range names {
				names[i] = fmt.Sprintf("home%d", i)
				one.Name, one.Domains = names[i], []string{names[i] + ".example.org"}
				one.CertFile, one.KeyFile = filepath.Join(dir, "ssl", names[i]+".pem"), filepath.Join(dir, "ssl", names[i]+".key")
				s.Certificates = append(s.Certificates, one)
			}
		})
		r := w.begin(t, dir, s, func(x *World) { x.Broker = b }, nil)
		defer r.stop()
		w.until(time.Hour)
		r.cert("home0")
		b.mu.Lock()
		defer b.mu.Unlock()
		for i := 1; i < len(b.times); i++ {
			if between := b.times[i].Sub(b.times[i-1]); between < publishEvery {
				t.Errorf("publication %d came after %v", i, between)
			}
		}
		if len(b.times) > many {
			t.Errorf("%d publications for %d certificates", len(b.times), many)
		}
		for _, early := range b.early {
			t.Errorf("before its state: %s", early)
		}
		for _, name := range names {
			i, j := slices.Index(b.told, name+" renewed"), slices.Index(b.told, name+" deployed")
			if i < 0 || j < i || len(b.told) != 2*many {
				t.Fatalf("%d events: %q", len(b.told), b.told)
			}
		}
		want, err := mqtt.Messages(r.mqttConfig(), r.Snapshot().ForBroker())
		if err != nil {
			t.Fatal(err)
		}
		shows := map[string][]byte{}
		for _, m := range want {
			shows[m.Topic] = m.Payload
		}
		if !reflect.DeepEqual(b.shows, shows) {
			t.Error("the last state is not what is shown")
		}
	})
}

func TestWhatWasPressedIsSeenAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, b := newEarth(t, 90*day), newQuickBroker()
		r := w.begin(t, dir, conf(t, dir, "", onBroker), func(x *World) { x.Broker = b }, nil)
		defer r.stop()
		w.until(day)
		b.pressed <- mqtt.Command{Kind: "renew", Name: "home"}
		w.renewed(2)
		b.pressed <- mqtt.Command{Kind: "renew", Name: "home"}
		b.pressed <- mqtt.Command{Kind: "renew", Name: "home"} // too soon
		time.Sleep(publishEvery)
		if r.home(); !strings.Contains(b.state("home"), "Not renewed: ") {
			t.Errorf("after %v: %s", publishEvery, b.state("home"))
		}
	})
}

func TestLastStateIsShownAtTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, b := newEarth(t, 90*day), newQuickBroker()
		r := w.begin(t, dir, conf(t, dir, "", onBroker), func(x *World) { x.Broker = b }, nil)
		w.until(day)
		b.pressed <- mqtt.Command{Kind: "renew", Name: "home"}
		for w.count() < 2 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		r.stop()
		if b.told[len(b.told)-1] != "home deployed" || len(b.early) != 0 {
			t.Errorf("%q %q", b.told, b.early)
		}
	})
}

func TestWatchedResultSaysWhetherItIsOver(t *testing.T) {
	end := time.Date(2026, 11, 19, 15, 42, 0, 0, time.UTC)
	for _, c := range []struct {
		now  time.Time
		want string
	}{
		{end.Add(-time.Second), "Valid until 19 Nov 2026."},
		{end, "Expired on 19 Nov 2026."},
		{end.Add(48 * time.Hour), "Expired on 19 Nov 2026."},
	} {
		if got := watchedResult(c.now, Certificate{NotAfter: end}, expiry.Facts{}); got != c.want {
			t.Errorf("at %v it says %q, want %q", c.now, got, c.want)
		}
	}
}
