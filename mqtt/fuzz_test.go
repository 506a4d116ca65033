package mqtt

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func FuzzValidate(f *testing.F) {
	for _, m := range testMessages(f) {
		f.Add(m.Topic, m.Payload)
	}
	f.Add(daysTopic, []byte(`{"device":{"identifiers":[[]]},"options":[{}],"qos":{},"origin":[]}`))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		err := Validate(topic, payload)
		again := Validate(topic, payload)
		if (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Fatalf("%v, then %v", err, again)
		}
		if err == nil && strings.ContainsAny(topic, "+#\x00") {
			t.Fatalf("accepted topic %q", topic)
		}
	})
}

func FuzzOwns(f *testing.F) {
	for _, m := range testMessages(f) {
		f.Add(m.Topic, m.Payload)
	}
	c := testConfig()
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		if !c.owns(topic, payload) {
			return
		}
		// Whatever it is, it names our base as a whole level.
		parts := strings.Split(topic, "/")
		if parts[0] != c.base() && !bytes.Contains(unescaped(t, payload), []byte("certsitter/")) {
			t.Fatalf("ours: %s %s", topic, payload)
		}
	})
}

// unescaped is JSON without escapes such as \u002f.
func unescaped(t *testing.T, payload []byte) []byte {
	var v any
	if err := json.Unmarshal(payload, &v); err != nil {
		t.Fatal(err)
	}
	return encode(v)
}

func FuzzInstallationIn(f *testing.F) {
	f.Add(testMessages(f)[0].Payload)
	f.Add([]byte(`{"installation":"7f3a9c"}`))
	f.Add([]byte(`{"installation":{}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if id := installationIn(payload); id != "" && !isInstallation(id) {
			t.Fatalf("id %q", id)
		}
	})
}

// Whatever is sent to us, only announced commands with PRESS come through, and
// nothing blocks.
func FuzzReceive(f *testing.F) {
	f.Add("certsitter/cert/home/renew/set", []byte("PRESS"), false)
	f.Add("certsitter/service/check/set", []byte("PRESS"), true)
	f.Add("certsitter/service/state", []byte(`{"installation":"x"}`), false)
	f.Add("certsitter/status", []byte("offline"), false)
	f.Add("homeassistant/status", []byte("online"), false)
	for _, m := range testMessages(f) {
		f.Add(m.Topic, m.Payload, true)
	}
	c := testConfig()
	w, refused := c.want(testMessages(f), &wanted{})
	if len(refused) > 0 {
		f.Fatal(refused)
	}
	announced := []string{"certsitter/cert/home/renew/set", "certsitter/cert/new_one/renew/set", "certsitter/service/check/set", "certsitter/service/notify/set"}
	f.Fuzz(func(t *testing.T, topic string, payload []byte, retained bool) {
		p := &Publisher{config: c, pace: usualPace(), commands: make(chan Command, 1), changed: make(chan struct{}, 1),
			obsolete: map[string]bool{}, answered: map[string]time.Time{}}
		p.wanted.Store(w)
		s := &session{p: p, inbox: make(chan arrival, 1), sent: map[string][]byte{}}
		s.receive(topic, payload, retained)
		s.receive(topic, payload, retained)
		want := !retained && string(payload) == press && slices.Contains(announced, topic)
		select {
		case c := <-p.commands:
			if !want {
				t.Fatalf("command %+v from %s %q", c, topic, payload)
			}
		default:
			if want {
				t.Fatalf("no command from %s", topic)
			}
		}
		if len(s.inbox) > 0 {
			s.notice(<-s.inbox, time.Unix(1795257600, 0))
		}
	})
}
