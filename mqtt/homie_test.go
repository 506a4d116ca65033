package mqtt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/mosquitto"
)

func homieConfig(address string) Config {
	c := testConfig()
	c.Broker, c.Homie = "tcp://"+address, true
	return c
}

func isHomieTopic(m Message) bool { return strings.HasPrefix(m.Topic, "homie/") }

// homieOnly are the messages of the tree.
func homieOnly(all []Message) []Message {
	return slices.DeleteFunc(slices.Clone(all), func(m Message) bool { return !isHomieTopic(m) })
}

func byTopic(messages []Message) map[string]string {
	all := map[string]string{}
	for _, m := range messages {
		all[m.Topic] = string(m.Payload)
	}
	return all
}

func TestHomieTree(t *testing.T) {
	all := mustMessages(t, homieConfig("x"), testSnapshot())
	var b bytes.Buffer
	for _, m := range homieOnly(all) {
		if !m.Retain || m.QoS != 1 {
			t.Errorf("%s: retained %v, QoS %d", m.Topic, m.Retain, m.QoS)
		}
		fmt.Fprintf(&b, "%s %s\n", m.Topic, m.Payload)
	}
	golden(t, "testdata/homie.golden", b.Bytes())
	if got, want := lines(all[:len(all)-len(homieOnly(all))]), lines(testMessages(t)); !slices.Equal(got, want) {
		t.Error("the other messages are changed by mqtt.homie")
	}
}

func TestHomieTreeFollowsTheConvention(t *testing.T) {
	for name, s := range map[string]Snapshot{
		"nothing": {}, "all kinds": testSnapshot(),
		"awkward": {Certificates: []Certificate{{Name: "a__b", Label: `{"x":null} /+#$`, Managed: true, State: State{LastResult: "{", Subject: "$state"}}}},
	} {
		all := mustMessages(t, homieConfig("x"), s)
		tree := byTopic(homieOnly(all))
		tree["homie/certsitter/$state"] = homieReady
		for _, fault := range homieFaults(tree, "homie/certsitter") {
			t.Errorf("%s: %s", name, fault)
		}
		homieValuesAreTheStates(t, tree, byTopic(all))
	}
}

// The reader must be able to say no.
func TestHomieReaderFindsFaults(t *testing.T) {
	for change, payload := range map[string]string{
		"$homie": "v4.0.0", "$name": "", "$state": "", "$nodes": "service,home,nowhere", "home/$type": "", "home/$properties": "daysleft",
		"home/daysleft": "41.5", "home/daysleft/$datatype": "number", "home/status": "good", "home/status/$format": "", "home/notafter": "tomorrow",
		"home/problem": "ON", "home/renew": "PRESS", "home/event": "renewed", "home/renew/$settable": "yes", "home/daysleft/$colour": "red", "spare": "x",
	} {
		tree := byTopic(homieOnly(mustMessages(t, homieConfig("x"), testSnapshot())))
		tree["homie/certsitter/$state"] = homieReady
		if tree["homie/certsitter/"+change] = payload; payload == "" {
			delete(tree, "homie/certsitter/"+change)
		}
		if len(homieFaults(tree, "homie/certsitter")) == 0 {
			t.Errorf("%s = %q is no fault", change, payload)
		}
	}
}

var homieID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// homieFaults reads the retained topics of a device as a strict controller does
// (convention 4.0.0), and as openHAB 4.1 to 5.3 does, which wants $homie to
// begin with 3 or 4, and says what is wrong.
func homieFaults(topics map[string]string, device string) (faults []string) {
	left := maps.Clone(topics)
	fault := func(form string, values ...any) { faults = append(faults, fmt.Sprintf(form, values...)) }
	take := func(topic string, required bool) string {
		v, there := left[topic]
		delete(left, topic)
		if required && (!there || v == "") {
			fault("%s is missing", topic)
		}
		return v
	}
	list := func(topic string) []string {
		ids := strings.Split(take(topic, true), ",")
		for i, id := range ids {
			if !homieID.MatchString(id) || slices.Contains(ids[:i], id) {
				fault("%s: id %q", topic, id)
			}
		}
		return ids
	}
	if v := take(device+"/$homie", true); !strings.HasPrefix(v, "3") && !strings.HasPrefix(v, "4") {
		fault("$homie is %q", v)
	}
	take(device+"/$name", true)
	take(device+"/$implementation", true)
	if v := take(device+"/$state", true); !slices.Contains([]string{"init", "ready", "disconnected", "sleeping", "lost", "alert"}, v) {
		fault("$state is %q", v)
	}
	for _, node := range list(device + "/$nodes") {
		node = device + "/" + node
		take(node+"/$name", true)
		take(node+"/$type", true)
		for _, id := range list(node + "/$properties") {
			property := node + "/" + id
			take(property+"/$name", true)
			take(property+"/$unit", false)
			format := take(property+"/$format", false)
			flags := map[string]string{}
			for _, flag := range []string{"$settable", "$retained"} {
				flags[flag] = take(property+"/"+flag, false)
				if v := flags[flag]; v != "" && v != "true" && v != "false" {
					fault("%s/%s is %q", property, flag, v)
				}
			}
			datatype := take(property+"/$datatype", true)
			value, there := left[property]
			delete(left, property)
			if flags["$retained"] == "false" && there {
				fault("%s is retained", property)
			}
			if !homieTypeIs(datatype, format, value, there) {
				fault("%s is no %s (%s): %q", property, datatype, format, value)
			}
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(left)) {
		fault("nothing names %s", topic)
	}
	return faults
}

func homieTypeIs(datatype, format, value string, there bool) bool {
	var err error
	switch datatype {
	case "integer":
		_, err = strconv.ParseInt(cmpOr(value, there, "0"), 10, 64)
	case "boolean":
		_, err = strconv.ParseBool(cmpOr(value, there, "true"))
		if there && value != "true" && value != "false" {
			return false
		}
	case "datetime":
		_, err = time.Parse(time.RFC3339, cmpOr(value, there, "2026-01-01T00:00:00Z"))
	case "enum":
		return format != "" && (!there || slices.Contains(strings.Split(format, ","), value))
	case "string":
	default:
		return false
	}
	return err == nil
}

func cmpOr(value string, there bool, otherwise string) string {
	if there {
		return value
	}
	return otherwise
}

// homieValuesAreTheStates compares each value of the tree with the state topic.
func homieValuesAreTheStates(t *testing.T, tree, all map[string]string) {
	t.Helper()
	compared := 0
	for topic, payload := range all {
		var state map[string]any
		node := "service"
		switch parts := strings.Split(topic, "/"); {
		case topic == "certsitter/service/state":
		case parts[0] == "certsitter" && parts[1] == "cert" && parts[3] == "state":
			node = strings.ReplaceAll(parts[2], "_", "-")
		default:
			continue
		}
		if err := json.Unmarshal([]byte(payload), &state); err != nil {
			t.Fatal(err)
		}
		for key, value := range state {
			property := "homie/certsitter/" + node + "/" + strings.ReplaceAll(key, "_", "")
			if tree[property+"/$name"] == "" {
				continue // not of use there
			}
			compared++
			want := fmt.Sprint(value)
			switch {
			case want == none:
				want = ""
			case want == "ON", want == "OFF":
				want = strconv.FormatBool(want == "ON")
			}
			if got := tree[property]; got != want {
				t.Errorf("%s is %q, and %s of %s is %v", property, got, key, topic, value)
			}
		}
	}
	if compared < 6 {
		t.Errorf("only %d values compared", compared)
	}
}

// homieOn waits until the tree is on the broker and ready.
func homieOn(t testing.TB, b *broker.Broker, all []Message) {
	t.Helper()
	await(t, "tree ready", func() bool {
		state, _ := b.Retained("homie/certsitter/$state")
		return state == homieReady && holds(b, all)
	})
}

// homieStory says how the device's messages break the convention, in their
// order: the shape must not change while the device is ready.
func homieStory(seen []string) (faults []string) {
	state, shape := "", map[string]string{}
	for _, line := range seen {
		topic, payload, _ := strings.Cut(line, " ")
		switch {
		case topic == "homie/certsitter/$state":
			state = payload
		case strings.HasSuffix(topic, "/set") || !shapes(topic) || shape[topic] == payload:
		case state != homieInit:
			faults = append(faults, fmt.Sprintf("%s became %q while %q", topic, payload, state))
		default:
			shape[topic] = payload
		}
	}
	return faults
}

func TestHomieLife(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "homie/#")
	p := newPublisher(t, configFor(b))
	p.config.Homie = true
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	stop := run(t, p)
	homieOn(t, b, all)
	tree := lines(homieOnly(all))
	want := slices.Concat([]string{"homie/certsitter/$state init"}, tree, []string{"homie/certsitter/$extensions ", "homie/certsitter/$state ready"})
	if got := w.seen(); !slices.Equal(got, want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	w.forget()

	// A value: it alone.
	s := testSnapshot()
	s.Certificates[0].State.DaysLeft = new(40)
	p.Publish(mustMessages(t, p.config, s), nil)
	// A certificate goes, another comes; one gets endpoints.
	s.Certificates = append(s.Certificates[:2], Certificate{Name: "late", Managed: true, State: State{Status: "ok"}})
	s.Certificates[1].Endpoints = true
	all = mustMessages(t, p.config, s)
	await(t, "one value", func() bool { return w.count("homie/certsitter/home/daysleft 40") == 1 })
	if got := w.seen(); len(got) != 1 {
		t.Errorf("for one value was sent %q", got)
	}
	p.Publish(all, nil)
	await(t, "emptied", func() bool { return len(p.State().Emptying) == 0 })
	homieOn(t, b, all)
	seen := w.seen()
	if nodes, gone := slices.Index(seen, "homie/certsitter/$nodes service,home,new-one,late"), slices.Index(seen, "homie/certsitter/nas/$properties "); nodes < 0 || gone < nodes {
		t.Errorf("the list of nodes is message %d, and the node is emptied by %d", nodes, gone)
	}
	stop()
	if got, _ := b.Retained("homie/certsitter/$state"); got != homieDisconnected {
		t.Errorf("$state %q after the end", got)
	}
	for _, fault := range homieStory(slices.Concat(want, w.seen())) {
		t.Error(fault)
	}
	onBroker := map[string]string{}
	for _, topic := range b.Topics() {
		if strings.HasPrefix(topic, "homie/") {
			onBroker[topic], _ = b.Retained(topic)
		}
	}
	for _, fault := range homieFaults(onBroker, "homie/certsitter") {
		t.Error(fault)
	}
}

func TestHomieComesBack(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "homie/#")
	p := newPublisher(t, configFor(b))
	p.config.Homie = true
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	run(t, p)
	homieOn(t, b, all)
	first := w.seen()
	for range 5 {
		w.forget()
		b.Disconnect()
		await(t, "lost, and all of it again", func() bool {
			seen := w.seen()
			return w.count("homie/certsitter/$state lost") == 1 && len(seen) > 0 && seen[len(seen)-1] == "homie/certsitter/$state ready" && len(seen) > len(first)
		})
		got := slices.DeleteFunc(w.seen(), func(line string) bool { return line == "homie/certsitter/$state lost" })
		if !slices.Equal(got, first) {
			t.Fatalf("sent\n%s\nbefore\n%s", strings.Join(got, "\n"), strings.Join(first, "\n"))
		}
	}

	// Home Assistant and openHAB say that they are there.
	w.forget()
	if err := b.Publish("homeassistant/status", []byte("online"), false); err != nil {
		t.Fatal(err)
	}
	last := lines(all)[len(all)-1]
	await(t, "again after a birth message", func() bool { return w.count(last) == 1 })
	if got, want := w.seen(), lines(homieOnly(all)); !slices.Equal(got, want) {
		t.Errorf("sent %q", got)
	}

	// The will of a former connection comes late; somebody tidies up.
	for _, state := range []string{homieLost, ""} {
		if err := b.Publish("homie/certsitter/$state", []byte(state), true); err != nil {
			t.Fatal(err)
		}
		homieOn(t, b, all)
	}
	tidied := slices.DeleteFunc(b.Topics(), func(topic string) bool {
		return !strings.HasPrefix(topic, "homie/") || topic == "homie/certsitter/$state"
	})
	// The state last: when it goes, all of it is sent again at once.
	for _, topic := range append(tidied, "homie/certsitter/$state") {
		if err := b.Publish(topic, nil, true); err != nil {
			t.Fatal(err)
		}
	}
	homieOn(t, b, all)
}

func TestHomieCommands(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	if err := b.Publish("homie/certsitter/home/renew/set", []byte(press), true); err != nil { // for another time
		t.Fatal(err)
	}
	w := watch(t, b, "homie/#")
	p := newPublisher(t, configFor(b))
	p.config.Homie = true
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	run(t, p)
	homieOn(t, b, all)
	for _, nothing := range []string{"nas/renew PRESS", "home/renew RELEASE", "home/renew ", "home/daysleft PRESS", "nobody/renew PRESS", "new_one/renew PRESS"} {
		property, payload, _ := strings.Cut(nothing, " ")
		if err := b.Publish("homie/certsitter/"+property+"/set", []byte(payload), false); err != nil {
			t.Fatal(err)
		}
	}
	for topic, want := range map[string]Command{"new-one/renew": {"renew", "new_one"}, "service/check": {"check", ""}, "service/notify": {"notify", ""}} {
		if err := b.Publish("homie/certsitter/"+topic+"/set", []byte(press), false); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-p.Commands():
			if got != want {
				t.Errorf("%s: command %+v", topic, got)
			}
		case <-time.After(patience):
			t.Fatalf("%s: no command", topic)
		}
		await(t, "confirmed", func() bool { return w.count("homie/certsitter/"+topic+" PRESS") == 1 })
		if _, retained := b.Retained("homie/certsitter/" + topic); retained {
			t.Errorf("%s is retained", topic)
		}
	}
	if n := len(p.commands); n > 0 {
		t.Errorf("%d commands more", n)
	}
	for _, wrong := range []string{"home/renew", "nas/renew", "home/daysleft"} {
		if w.count("homie/certsitter/"+wrong+" PRESS") > 0 {
			t.Errorf("%s was confirmed", wrong)
		}
	}
}

func TestHomieEvents(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	w := watch(t, b, "homie/+/+/event")
	p := newPublisher(t, configFor(b))
	p.config.Homie = true
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	run(t, p)
	homieOn(t, b, all)
	p.Event("new_one", Event{Type: "renewal_failed", Text: "secret matters"})
	p.Event("nas", Event{Type: "unheard_of"})
	p.Event("nas", Event{Type: "expired"})
	await(t, "events", func() bool { return len(w.seen()) == 2 })
	want := []string{"homie/certsitter/new-one/event renewal_failed", "homie/certsitter/nas/event expired"}
	if got := w.seen(); !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
	if _, retained := b.Retained("homie/certsitter/nas/event"); retained {
		t.Error("an event is retained")
	}
}

// Turned off, or gone: nothing is left.
func TestHomieGoes(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	foreign := []Message{retained("homie/certsitter2/$homie", []byte("4.0.0")), retained("homie/certsitter2/$state", []byte("ready")), retained("homie/other/$homie", []byte("4.0.0"))}
	for _, m := range foreign {
		if err := b.Publish(m.Topic, m.Payload, true); err != nil {
			t.Fatal(err)
		}
	}
	on := newPublisher(t, configFor(b))
	on.config.Homie = true
	all := mustMessages(t, on.config, testSnapshot())
	on.Publish(all, nil)
	stop := run(t, on)
	homieOn(t, b, all)
	stop()
	remembered := on.config.OwnTopics()
	for _, m := range all {
		remembered = append(remembered, m.Topic)
	}

	off := newPublisher(t, configFor(b))
	off.Publish(testMessages(t), remembered)
	stop = run(t, off)
	await(t, "tree emptied", func() bool {
		return holds(b, testMessages(t)) && holds(b, foreign) && len(b.Topics()) == len(testMessages(t))+1+len(foreign)
	})
	await(t, "what is emptied is forgotten", func() bool { return len(off.State().Emptying) == 0 }) // the broker's answers come later
	stop()
}

// What nobody remembers is found, for as long as the tree is published.
func TestHomieSweep(t *testing.T) {
	b := startBroker(t, "127.0.0.1:0")
	old := testSnapshot()
	old.Certificates = append(old.Certificates, Certificate{Name: "old", Managed: true})
	for _, m := range homieOnly(mustMessages(t, homieConfig("x"), old)) {
		if err := b.Publish(m.Topic, m.Payload, true); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, b, "homie/#")
	p := newPublisher(t, configFor(b))
	p.config.Homie = true
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	run(t, p)
	await(t, "swept", func() bool { return holds(b, all) && len(b.Topics()) == len(all)+2 })
	homieOn(t, b, all)
	for _, fault := range homieStory(w.seen()) {
		t.Error(fault)
	}
}

func TestHomieUnpublish(t *testing.T) {
	for implementation, stays := range map[string]bool{homieImplementation: false, "somebody-else": true} {
		b := startBroker(t, "127.0.0.1:0")
		tree := homieOnly(mustMessages(t, homieConfig("x"), testSnapshot()))
		tree = append(tree, retained("homie/certsitter/$state", []byte(homieLost)), retained("homie/certsitter/home/renew/set", []byte(press)))
		for _, m := range append(tree, retained("homie/certsitter2/$homie", []byte("4.0.0"))) {
			if strings.HasSuffix(m.Topic, "/$implementation") {
				m.Payload = []byte(implementation)
			}
			if err := b.Publish(m.Topic, m.Payload, true); err != nil {
				t.Fatal(err)
			}
		}
		c := configFor(b)
		parsed, err := c.parseBroker()
		if err != nil {
			t.Fatal(err)
		}
		quick := quickPace()
		quick.quiet = time.Second // only silence tells that all was found
		if _, err := unpublish(t.Context(), c, parsed, nil, quick); err != nil {
			t.Fatal(err)
		}
		want := 1
		if stays {
			want += len(tree)
		}
		if got := b.Topics(); len(got) != want {
			t.Errorf("made by %s: %d topics are left, want %d", implementation, len(got), want)
		}
	}
}

func TestHomieMessagesAreNobodyElses(t *testing.T) {
	c := testConfig()
	p := newPublisher(t, c)
	p.Publish([]Message{retained("homie/certsitter/$homie", []byte("4.0.0"))}, nil)
	if got := p.State().Refused; len(got) != 1 {
		t.Errorf("without mqtt.homie: refused %q", got)
	}
	p.config.Homie = true
	p.Publish([]Message{retained("homie/certsitter/$state", []byte("ready")), retained("homie/certsitter/x", []byte("\xff"))}, nil)
	if got := p.State().Refused; len(got) != 2 {
		t.Errorf("refused %q", got)
	}
}

// homieReader subscribes as openHAB does and remembers QoS and retained flags.
type homieReader struct {
	mu   sync.Mutex
	seen []paho.Message
}

func readHomie(t *testing.T, address string) *homieReader {
	t.Helper()
	r := &homieReader{}
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("openhab").SetAutoReconnect(false).SetConnectTimeout(patience))
	if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	t.Cleanup(func() { client.Disconnect(10) })
	token := client.Subscribe("homie/#", 2, func(_ paho.Client, m paho.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, m)
	})
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	return r
}

func (r *homieReader) messages() []paho.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

func (r *homieReader) last(topic string) string {
	last := ""
	for _, m := range r.messages() {
		if m.Topic() == topic {
			last = string(m.Payload())
		}
	}
	return last
}

// With a real broker: what is retained, with which QoS, and the will of a
// process that dies.
func TestMosquittoHomie(t *testing.T) {
	m := mosquitto.Start(t)
	live := readHomie(t, m.Address)
	p := newPublisher(t, homieConfig(m.Address))
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	stop := run(t, p)
	await(t, "ready", func() bool { return live.last("homie/certsitter/$state") == homieReady })
	p.Event("home", Event{Type: "renewed"})
	await(t, "event", func() bool { return live.last("homie/certsitter/home/event") == "renewed" })
	for _, m := range live.messages() {
		want := byte(1)
		if m.Topic() == "homie/certsitter/home/event" {
			want = 2 // the convention: what is not retained must come exactly once
		}
		if m.Qos() != want {
			t.Errorf("%s came with QoS %d, want %d", m.Topic(), m.Qos(), want)
		}
	}

	late := readHomie(t, m.Address)
	tree := byTopic(homieOnly(all))
	await(t, "retained", func() bool { return len(late.messages()) == len(tree)+1 })
	onBroker := map[string]string{}
	for _, m := range late.messages() {
		if !m.Retained() {
			t.Errorf("%s is not retained", m.Topic())
		}
		onBroker[m.Topic()] = string(m.Payload())
	}
	for _, fault := range homieFaults(onBroker, "homie/certsitter") {
		t.Error(fault)
	}
	stop()
	await(t, "disconnected", func() bool { return late.last("homie/certsitter/$state") == homieDisconnected })

	cmd := exec.Command(os.Args[0], "-test.run=^TestPublisherInAChild$")
	cmd.Env = append(os.Environ(), childBroker+"="+m.URL(), childHomie+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(kill)
	await(t, "ready again", func() bool { return late.last("homie/certsitter/$state") == homieReady })
	kill()
	await(t, "will", func() bool { return late.last("homie/certsitter/$state") == homieLost })
	after := readHomie(t, m.Address)
	await(t, "the will is retained", func() bool { return after.last("homie/certsitter/$state") == homieLost })
}

func TestMosquittoHomieWithoutRights(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rights")
	if err := os.WriteFile(file, []byte("topic readwrite certsitter/#\ntopic readwrite homeassistant/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mosquitto.Start(t, "acl_file "+file)
	p := newPublisher(t, homieConfig(m.Address))
	p.pace.echo = 300 * time.Millisecond
	p.Publish(mustMessages(t, p.config, testSnapshot()), nil)
	run(t, p)
	await(t, "said", func() bool {
		return strings.HasPrefix(p.State().Error, "The broker takes the Homie tree and does not hand it on.") && p.State().Connected
	})
}
