package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/broker"
)

// secondConfig is another installation on the same broker.
func secondConfig(b *broker.Broker, base string) Config {
	c := configFor(b)
	c.Installation, c.Topic = "second", base
	return c
}

// secondSnapshot has certificates whose devices are called nearly like ours.
func secondSnapshot() Snapshot {
	return Snapshot{
		Service:      Service{Certificates: 2},
		Certificates: []Certificate{{Name: "2", Managed: true, Endpoints: true}, {Name: "2_home", Managed: true, Endpoints: true}},
		Targets:      []Target{{ID: "ntfy_999999", Status: "ok"}},
	}
}

func put(t *testing.T, b *broker.Broker, messages []Message) {
	t.Helper()
	for _, m := range messages {
		if err := b.Publish(m.Topic, m.Payload, true); err != nil {
			t.Fatal(err)
		}
	}
}

func mustMessages(t *testing.T, c Config, s Snapshot) []Message {
	t.Helper()
	all, err := Messages(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What a forgotten installation left under exactly our base goes. What others
// have under a base that begins like ours stays, whatever their devices are
// called: base certsitter with certificate 2 is device certsitter_2.
func TestSweepTakesOursAndNothingElse(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	ours := testMessages(t)
	old := testSnapshot()
	old.Certificates = append(old.Certificates, Certificate{Name: "old", Managed: true, Endpoints: true}, Certificate{Name: "2"})
	old.Targets = append(old.Targets, Target{ID: "smtp_abcdef"})
	leftover := mustMessages(t, configFor(b), old)
	var foreign []Message
	for _, base := range []string{"certsitter2", "certsitte", "acertsitter", "cert"} {
		foreign = append(foreign, mustMessages(t, secondConfig(b, base), secondSnapshot())...)
	}
	foreign = append(foreign,
		retained("certsitter2/status", []byte("online")),
		retained("homeassistant/sensor/certsitter_home/mine/config", []byte(`{"name":"Mine","state_topic":"certsitter/cert/home/state","origin":{"name":"my own script"}}`)),
		retained("homeassistant/sensor/certsitter/other/config", []byte(`{"origin":{"name":"Certsitter"},"availability_topic":"certsitter/status/x"}`)),
		retained("homeassistant/light/certsitter_2/light/config", []byte(`{"name":"Lamp","availability_topic":"certsitter_2/status","origin":{"name":"Certsitter"}}`)),
		retained("homeassistant/sensor/zigbee/x/config", []byte(`not even JSON`)),
		retained("certsitter/cert/notes/state", []byte(`{"name":"notes","status":"mine"}`)),
		retained("certsitter/notes", []byte(`mine`)),
	)
	put(t, b, leftover)
	put(t, b, foreign)

	p := newPublisher(t, configFor(b))
	p.Publish(ours, nil)
	run(t, p)
	want := map[string]bool{"certsitter/status": true}
	for _, m := range append(slices.Clone(ours), foreign...) {
		want[m.Topic] = true
	}
	await(t, "sweep", func() bool { return len(b.Topics()) <= len(want) })
	time.Sleep(4 * p.pace.quiet) // anything more that it might empty
	for _, topic := range b.Topics() {
		if !want[topic] {
			t.Errorf("%s is still there", topic)
		}
		delete(want, topic)
	}
	for topic := range want {
		t.Errorf("%s was emptied", topic)
	}
	if !holds(b, foreign) {
		t.Error("a message of somebody else was changed")
	}
}

// Where it is not known what is wanted, what is found stays.
func TestWhatIsFoundMayBeKept(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	leftover := mustMessages(t, configFor(b), testSnapshot())
	put(t, b, leftover)
	c := configFor(b)
	c.KeepFound = true
	p := newPublisher(t, c)
	empty := mustMessages(t, c, Snapshot{})
	p.Publish(empty, nil)
	run(t, p)
	await(t, "the states", func() bool { return holds(b, empty) })
	time.Sleep(4 * p.pace.quiet) // a sweep would be over
	for _, m := range leftover {
		if _, there := b.Retained(m.Topic); !there {
			t.Errorf("%s was emptied", m.Topic)
		}
	}
}

func TestOwnership(t *testing.T) {
	c := testConfig()
	const availability = `"availability_topic":"certsitter/status"`
	const from = `"origin":{"name":"Certsitter","sw_version":"0.0.1"}`
	discovery := func(node, object string) string { return "homeassistant/sensor/" + node + "/" + object + "/config" }
	for _, ok := range []struct{ topic, payload string }{
		{discovery("certsitter_old", "days_left"), `{` + from + `,` + availability + `}`},
		{discovery("certsitter_old", "something_new"), `{` + from + `,` + availability + `,"unknown":1}`},
		{discovery("certsitter_old", "not_after"), `{` + from + `,"unique_id":"certsitter_old_not_after","state_topic":"certsitter/cert/old/state"}`},
		{"homeassistant/binary_sensor/certsitter/connection/config", `{` + from + `,"unique_id":"certsitter_connection","state_topic":"certsitter/status"}`},
		{"certsitter/cert/old/state", string(State{}.payload("old"))},
		{"certsitter/target/ntfy_1/state", string(Target{}.payload())},
	} {
		if !c.owns(ok.topic, []byte(ok.payload)) {
			t.Errorf("not ours: %s %s", ok.topic, ok.payload)
		}
	}
	for _, no := range []struct{ topic, payload string }{
		{discovery("certsitter_old", "days_left"), ``},
		{discovery("certsitter_old", "days_left"), `{` + availability + `}`},
		{discovery("certsitter_old", "days_left"), `{"origin":{"name":"certsitter"},` + availability + `}`},
		{discovery("certsitter_old", "days_left"), `{` + from + `,"availability_topic":"certsitter2/status"}`},
		{discovery("certsitter_old", "days_left"), `{` + from + `,"availability_topic":"x/certsitter/status"}`},
		{discovery("certsitter_old", "days_left"), `{` + from + `,"availability_topic":"certsitter/statusx"}`},
		{discovery("certsitter_old", "days_left"), `{` + from + `,"availability_topic":""}`},
		{discovery("certsitter_old", "days_left"), `{` + from + `,"unique_id":"certsitter_old_days_left","state_topic":"certsitter/cert/old/state"}`}, // lacks what it must have
		{discovery("certsitter_old", "not_after"), `{` + from + `,"unique_id":"certsitter_old_not_after","state_topic":"certsitter/cert/new/state"}`},
		{discovery("certsitter_old", "not_after"), `{` + from + `,"unique_id":"certsitter_old_not_after","state_topic":"certsitter2/cert/old/state"}`},
		{discovery("certsitter_old", "not_after"), `{` + from + `,"unique_id":"other","state_topic":"certsitter/cert/old/state"}`},
		{discovery("certsitter2_old", "not_after"), `{` + from + `,"unique_id":"certsitter2_old_not_after","state_topic":"certsitter2/cert/old/state"}`},
		{discovery("certsitterold", "not_after"), `{` + from + `,"unique_id":"certsitterold_not_after","state_topic":"certsitter/cert/old/state"}`},
		{"homeassistant/binary_sensor/certsitter/connection/config", `{` + from + `,"unique_id":"certsitter_connection","state_topic":"certsitter2/status"}`},
		{"homeassistant/binary_sensor/certsitter2/connection/config", `{` + from + `,"unique_id":"certsitter2_connection","state_topic":"certsitter2/status"}`},
		{"other/sensor/certsitter_old/days_left/config", `{` + from + `,` + availability + `}`},
		{"homeassistant/sensor/days_left/config", `{` + from + `,` + availability + `}`},
		{"homeassistant/sensor/certsitter_old/days_left/state", `{` + from + `,` + availability + `}`},
		{discovery("certsitter_old", "days_left"), `[` + from + `]`},
		{discovery("certsitter_old", "days_left"), strings.Repeat(" ", foundLimit) + `{` + from + `,` + availability + `}`},
		{"certsitter2/cert/old/state", string(State{}.payload("old"))},
		{"certsitter/cert/old/state", string(State{}.payload("new"))},
		{"certsitter/cert/old/state", `{"name":"old","status":"ok"}`},
		{"certsitter/cert/old/other", string(State{}.payload("old"))},
		{"certsitter/target/ntfy_1/state", `{"status":"ok"}`},
		{"certsitter/status", "online"},
	} {
		if c.owns(no.topic, []byte(no.payload)) {
			t.Errorf("taken for ours: %s %.200s", no.topic, no.payload)
		}
	}
}

// Every message of ours is ours, and nobody else's.
func TestOwnershipOfAllMessages(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	second := secondConfig(b, "certsitter2")
	for _, m := range testMessages(t) {
		if m.Topic != "certsitter/service/state" && !testConfig().owns(m.Topic, m.Payload) {
			t.Errorf("not ours: %s", m.Topic)
		}
		if second.owns(m.Topic, m.Payload) {
			t.Errorf("the other takes %s", m.Topic)
		}
	}
}

// Two on one base are both told, and neither sweeps nor fights.
func TestTwoInstallationsOnOneBase(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	first := newPublisher(t, configFor(b))
	w := settle(t, b, first, testMessages(t))

	theirs := mustMessages(t, secondConfig(b, "certsitter"), secondSnapshot())
	second := newPublisher(t, secondConfig(b, "certsitter"))
	second.Publish(theirs, nil)
	stop := run(t, second)
	await(t, "first knows", func() bool { return first.State().Other == "second" })
	await(t, "second knows", func() bool { return second.State().Other == "7f3a9c" })
	time.Sleep(2 * second.pace.suspicion) // time for a war
	for _, p := range []*Publisher{first, second} {
		if link := p.State(); !link.Connected || link.Error != "" {
			t.Errorf("link %+v", link)
		}
	}
	for _, m := range append(theirs[1:], testMessages(t)[1:]...) {
		if got, _ := b.Retained(m.Topic); got != string(m.Payload) {
			t.Errorf("%s was swept", m.Topic)
		}
	}
	states := 0
	for _, line := range w.seen() {
		if strings.HasPrefix(line, "certsitter/service/state ") {
			states++
		}
	}
	if states > 3 { // the second's own, the first's answer, and at most an answer to that
		t.Errorf("%d service states were exchanged", states)
	}

	stop() // the second leaves: its offline is heard
	await(t, "first is alone", func() bool { return first.State().Other == "" })
	await(t, "first is online", func() bool { return status(b) == "online" })
	// Now what the second left can go.
	await(t, "swept", func() bool { _, there := b.Retained("certsitter/cert/2_home/state"); return !there })
	if !holds(b, testMessages(t)[1:]) {
		t.Error("the first lost something")
	}
}

// After a new installation the old one's state is still there, and nobody.
func TestLeftoverOfAFormerInstallationIsNobody(t *testing.T) {
	for _, left := range []string{"offline", "online"} {
		b := startBroker(t, "127.0.0.1:0")
		put(t, b, mustMessages(t, secondConfig(b, "certsitter"), secondSnapshot()))
		if err := b.Publish("certsitter/status", []byte(left), true); err != nil {
			t.Fatal(err)
		}
		p := newPublisher(t, configFor(b))
		all := testMessages(t)
		p.Publish(all, nil)
		run(t, p)
		await(t, "sweep with status "+left, func() bool { return len(b.Topics()) == len(all)+1 })
		if link := p.State(); link.Other != "" || !link.Connected {
			t.Errorf("%s: link %+v", left, link)
		}
	}
}

// One that was online when we came has time to say that it still is.
func TestNothingIsSweptWhileAnotherMayBeThere(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	theirs := mustMessages(t, secondConfig(b, "certsitter"), secondSnapshot())
	put(t, b, append(slices.Clone(theirs), retained("certsitter/status", []byte(online))))
	p := newPublisher(t, configFor(b))
	p.pace.suspicion = 1200 * time.Millisecond
	settle(t, b, p, testMessages(t))
	time.Sleep(4 * p.pace.quiet) // a sweep without suspicion would be over
	if err := b.Publish(theirs[0].Topic, theirs[0].Payload, true); err != nil {
		t.Fatal(err)
	}
	await(t, "noticed", func() bool { return p.State().Other == "second" })
	time.Sleep(p.pace.suspicion)
	if !holds(b, theirs[1:]) {
		t.Error("the other's topics were swept")
	}
}

// Whoever writes our service state again and again gets no answer each time.
func TestManyForeignStatesGetFewAnswers(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	p := newPublisher(t, configFor(b))
	w := settle(t, b, p, testMessages(t))
	for i := range 200 {
		for _, id := range []string{"second", fmt.Sprint("other", i)} {
			if err := b.Publish("certsitter/service/state", fmt.Appendf(nil, `{"installation":%q}`, id), false); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, "noticed", func() bool { return p.State().Other == "other199" })
	if n := w.count("certsitter/service/state " + string(testMessages(t)[0].Payload)); n > othersKept {
		t.Errorf("%d answers", n)
	}
}

func TestInstallationIn(t *testing.T) {
	for in, want := range map[string]string{
		`{"installation":"7f3a9c"}`:              "7f3a9c",
		string(testMessages(t)[0].Payload):       "7f3a9c",
		`{"installation":7}`:                     "",
		`{"installation":"<b>"}`:                 "",
		`{"installation":"` + longID + `"}`:      "",
		`{}`:                                     "",
		`null`:                                   "",
		``:                                       "",
		`{"installation":"a"} {`:                 "",
		strings.Repeat(" ", foundLimit+1) + `{}`: "",
	} {
		if got := installationIn([]byte(in)); got != want {
			t.Errorf("%.60q: %q, want %q", in, got, want)
		}
	}
}

var longID = strings.Repeat("a", 65)
