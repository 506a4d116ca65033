package app

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/internal/mosquitto"
	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

const (
	// promise is how soon everything is back after a restart of Core or of the
	// broker; failed is when a test gives up, on a machine that has much to do.
	promise = 10 * time.Second
	failed  = 30 * time.Second
)

// A row is one of the entities that docs/mqtt.md promises.
type row struct {
	id, name              string
	class, unit, category string
	stateClass            string
	disabled              bool
	lasts                 bool // stays readable while Certsitter is away
}

func certificateRows(name string, managed, endpoints bool) []row {
	p := "sensor.certsitter_" + name + "_"
	binary := "binary_sensor.certsitter_" + name + "_"
	rows := []row{
		{id: p + "days_left", name: "Days left", class: "duration", unit: "d", stateClass: "measurement"},
		{id: p + "not_after", name: "Expires", class: "timestamp", lasts: true},
		{id: p + "status", name: "Status", class: "enum"},
		{id: binary + "problem", name: "Problem", class: "problem"},
		{id: "event.certsitter_" + name + "_event", name: "Renewal"},
		{id: p + "last_result", name: "Last result", category: "diagnostic"},
		{id: p + "issuer", name: "Issuer", category: "diagnostic", disabled: true},
	}
	if managed {
		rows = append(rows,
			row{id: "button.certsitter_" + name + "_renew", name: "Renew now", category: "config"},
			row{id: p + "last_renewal", name: "Last renewal", class: "timestamp", category: "diagnostic"},
			row{id: p + "next_renewal", name: "Next renewal", class: "timestamp", category: "diagnostic"},
			row{id: p + "failures", name: "Failed attempts", category: "diagnostic", disabled: true})
	}
	if endpoints {
		rows = append(rows, row{id: binary + "not_deployed", name: "Not deployed", class: "problem", category: "diagnostic"})
	}
	return rows
}

func serviceRows() []row {
	return []row{
		{id: "sensor.certsitter_certificates", name: "Certificates", stateClass: "measurement"},
		{id: "sensor.certsitter_problems", name: "Problems", stateClass: "measurement"},
		{id: "sensor.certsitter_lowest_days_left", name: "Lowest days left", class: "duration", unit: "d", stateClass: "measurement"},
		{id: "sensor.certsitter_next_expiry", name: "Next expiry", class: "timestamp"},
		{id: "sensor.certsitter_last_check", name: "Last check", class: "timestamp", category: "diagnostic"},
		{id: "binary_sensor.certsitter_connection", name: "Connection", class: "connectivity", category: "diagnostic", lasts: true},
		{id: "button.certsitter_check", name: "Check now"},
		{id: "button.certsitter_notify", name: "Send test message", category: "config"},
	}
}

// A house is a Home Assistant with a Certsitter that has been there for a while.
type house struct {
	*place
	whole  *testing.T // of all parts
	core   *homeassistant.Core
	broker *mosquitto.Broker
	sitter *process
	// heard are the messages that somebody was sent.
	heard    *output.Buffer
	endpoint string // where home is served
	target   string // the URL that messages go to
}

// diary is an automation of a user's who writes down which events there were.
const diary = `
input_text:
  diary: {max: 255, initial: ""}
automation:
- id: diary
  mode: queued
  triggers:
  - trigger: state
    entity_id: event.certsitter_home_event
    not_from: unavailable
    not_to: [unavailable, unknown]
  actions:
  - action: input_text.set_value
    target: {entity_id: input_text.diary}
    data: {value: "{{ states('input_text.diary') }} {{ trigger.to_state.attributes.event_type }}"}
`

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{whole: t, broker: mosquitto.Start(t), heard: &output.Buffer{}}
	h.place = newPlace(t, pebble.Options{Wrap: refusing})
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = r.Write(h.heard) }))
	t.Cleanup(hook.Close)
	h.target = "generic+" + hook.URL + "/hook"
	h.endpoint = serveTLS(t, h.path("ssl/home.pem"), h.path("ssl/home.key"))
	cert, _ := issue(t, "nas.lan", "A CA of my own", time.Now().Add(60*24*time.Hour+time.Hour), "nas.lan")
	write(t, h.path("nas.pem"), cert)
	h.configure(t, h.managed("home")+h.managed("second")+h.watched("nas", "nas.pem"))
	h.core = homeassistant.Start(t, homeassistant.Options{Broker: h.broker.Address, Files: map[string]string{"packages/diary.yaml": diary}})
	h.sitter = h.start(h.whole)
	return h
}

func (h *house) managed(name string) string {
	text := fmt.Sprintf("- name: %[1]s\n  domains: [%[1]s.example.org, \"www.%[1]s.example.org\"]\n  certfile: %[1]s.pem\n  keyfile: %[1]s.key\n", name)
	if name == "home" {
		text = fmt.Sprintf("mqtt: {broker: %q}\nnotify: [%q]\ncertificates:\n%s  endpoints: [\"home.example.org@%s\"]\n", h.broker.URL(), h.target, text, h.endpoint)
	}
	return text
}

func (h *house) watched(name, source string) string {
	return fmt.Sprintf("watch:\n- name: %s\n  source: %s\n", name, source)
}

// targetID is the id of the one place where messages go.
func (h *house) targetID(t *testing.T) string {
	t.Helper()
	for id := range h.core.States(t, `^binary_sensor\.certsitter_target_generic_[0-9a-f]{6}$`) {
		return strings.TrimPrefix(id, "binary_sensor.certsitter_target_")
	}
	t.Fatal("there is no sensor for the messages")
	return ""
}

func (h *house) rows(t *testing.T) map[string][]row {
	t.Helper()
	id := h.targetID(t)
	return map[string][]row{
		"certsitter_home":   certificateRows("home", true, true),
		"certsitter_second": certificateRows("second", true, false),
		"certsitter_nas":    certificateRows("nas", false, false),
		"certsitter": append(serviceRows(), row{id: "binary_sensor.certsitter_target_" + id, name: "Messages by " + strings.ReplaceAll(id, "_", " "),
			class: "problem", category: "diagnostic"}),
	}
}

// settle waits until both certificates are there and looked after.
func (h *house) settle(t *testing.T) {
	t.Helper()
	for _, name := range []string{"home", "second", "nas"} {
		h.core.Wait(t, "sensor.certsitter_"+name+"_status", "ok", waitLimit)
	}
	h.core.Wait(t, "binary_sensor.certsitter_home_not_deployed", "off", waitLimit)
	eventually(t, "a sensor for the messages", waitLimit, func() bool {
		return len(h.core.States(t, `^binary_sensor\.certsitter_target_generic_`)) == 1
	})
}

func (h *house) content(t *testing.T) {
	t.Helper()
	if complaints := h.core.Complaints(t); complaints != "" {
		t.Errorf("Home Assistant complains:\n%s", complaints)
	}
}

// ours are the states of our entities.
func (h *house) ours(t *testing.T) map[string]homeassistant.State {
	t.Helper()
	return h.core.States(t, `^[a-z_]+\.certsitter_`)
}

// values are what our entities say, but for those whose states are the times of
// what happened in Home Assistant, and when was looked last.
func (h *house) values(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for id, s := range h.ours(t) {
		if !strings.HasPrefix(id, "button.") && !strings.HasPrefix(id, "event.") && id != "sensor.certsitter_last_check" {
			all[id] = s.State
		} else {
			all[id] = fmt.Sprint(s.State == "unavailable")
		}
	}
	return all
}

// back waits until everything is as it was, and says how long it took.
func (h *house) back(t *testing.T, before map[string]string, since time.Time) {
	t.Helper()
	for id, was := range before {
		if was == "unavailable" || was == "true" {
			t.Fatalf("%s was not there before", id)
		}
	}
	now := map[string]string{}
	defer func() {
		if t.Failed() {
			for id, was := range before {
				if now[id] != was {
					t.Logf("%s was %q and is %q", id, was, now[id])
				}
			}
		}
	}()
	eventually(t, "everything is back", failed, func() bool {
		now = h.values(t)
		return maps.Equal(before, now)
	})
	took := time.Since(since)
	t.Logf("everything is back after %.1f s; promised are %v", took.Seconds(), promise)
}

func TestInARealHomeAssistant(t *testing.T) {
	homeassistant.Needed(t)
	t.Parallel()
	h := newHouse(t)
	h.settle(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"every entity", h.everyEntity},
		{"renew by a button", h.renewByButton},
		{"the service's buttons", h.serviceButtons},
		{"stopped", h.stopped},
		{"killed", h.killed},
		{"the broker forgets", h.brokerForgets},
		{"Core restarts", h.coreRestarts},
		{"hostile texts", h.hostileTexts},
		{"removed", h.removed},
	} {
		if !t.Run(part.name, part.test) {
			break // the parts build on each other
		}
	}
}

// The registry, the states and the broker's messages, against the table.
func (h *house) everyEntity(t *testing.T) {
	registry, states := h.core.Registry(t), h.ours(t)
	for _, e := range slices.Sorted(maps.Keys(registry.Loose)) {
		t.Errorf("%s is without a device", e)
	}
	rows := h.rows(t)
	for identifier, rows := range rows {
		device := registry.Device(identifier)
		if device == nil {
			t.Errorf("there is no device %s", identifier)
			continue
		}
		wanted := map[string][3]string{"certsitter": {"Certsitter", "Certificate service", ""}, "certsitter_home": {"home.example.org", "TLS certificate", "Certsitter"},
			"certsitter_second": {"second.example.org", "TLS certificate", "Certsitter"}, "certsitter_nas": {"nas", "TLS certificate", "Certsitter"}}[identifier]
		if got := [3]string{device.Name, device.Model, device.Via}; got != wanted || device.Manufacturer != "Certsitter" {
			t.Errorf("%s: name, model and via are %q, want %q", identifier, got, wanted)
		}
		if len(device.Entities) != len(rows) {
			t.Errorf("%s has %d entities, want %d: %v", identifier, len(device.Entities), len(rows), slices.Sorted(maps.Keys(device.Entities)))
		}
		for _, r := range rows {
			r.check(t, device, states)
		}
	}
	if len(registry.Devices) != len(rows) {
		t.Errorf("%d devices, want %d", len(registry.Devices), len(rows))
	}
	messages := readAll(t, h.broker).below("homeassistant/", "/config")
	count := 0
	for _, rows := range rows {
		count += len(rows)
	}
	if len(messages) != count {
		t.Errorf("%d discovery messages, want %d", len(messages), count)
	}
	if err := homeassistant.Validate(t, messages); err != nil {
		t.Error(err)
	}
	h.precise(t, "sensor.certsitter_home_days_left")
	h.content(t)
}

func (r row) check(t *testing.T, device *homeassistant.Device, states map[string]homeassistant.State) {
	t.Helper()
	e, ok := device.Entities[r.id]
	if !ok {
		t.Errorf("%s is not there, only %v", r.id, slices.Sorted(maps.Keys(device.Entities)))
		return
	}
	if want := strings.SplitN(r.id, ".", 2)[1]; e.UniqueID != want || e.Name != r.name || e.Category != r.category || (e.DisabledBy != "") != r.disabled {
		t.Errorf("%s: unique id %q, name %q, category %q, disabled by %q; want %+v", r.id, e.UniqueID, e.Name, e.Category, e.DisabledBy, r)
	}
	s, there := states[r.id]
	if there == r.disabled {
		t.Errorf("%s: there is a state: %v", r.id, there)
	}
	if !there {
		return
	}
	if s.State == "unavailable" || s.State == "unknown" && !regexp.MustCompile(`^(button|event)\.|_next_renewal$`).MatchString(r.id) {
		t.Errorf("%s is %s", r.id, s.State)
	}
	text := func(key string) string { got, _ := s.Attributes[key].(string); return got }
	if text("device_class") != r.class || text("unit_of_measurement") != r.unit || text("state_class") != r.stateClass || text("friendly_name") != device.Name+" "+r.name {
		t.Errorf("%s: %v, want %+v", r.id, s.Attributes, r)
	}
}

// precise: days are shown without decimals.
func (h *house) precise(t *testing.T, entity string) {
	t.Helper()
	var e struct {
		Options map[string]map[string]any `json:"options"`
	}
	h.core.Ask(t, map[string]any{"type": "config/entity_registry/get", "entity_id": entity}, &e)
	if got := e.Options["sensor"]["suggested_display_precision"]; got != 0.0 {
		t.Errorf("%s: precision %v", entity, got)
	}
	if got := h.core.State(t, "sensor.certsitter_home_days_left").State; got != "89" {
		t.Errorf("%s days left", got)
	}
}

// A press in Home Assistant renews: another certificate, an event for each step,
// the time of it.
func (h *house) renewByButton(t *testing.T) {
	before := h.ours(t)
	expires, renewed := "sensor.certsitter_home_not_after", "sensor.certsitter_home_last_renewal"
	h.core.Call(t, "button.press", map[string]string{"entity_id": "button.certsitter_home_renew"})
	other := func(s homeassistant.State) bool {
		return s.State > before[s.ID].State && s.State[0] == '2'
	}
	h.core.WaitFor(t, expires, "a later date", waitLimit, other)
	h.core.WaitFor(t, renewed, "a later date", waitLimit, other)
	h.core.Wait(t, "input_text.diary", ".*renewed deployed", waitLimit)
	s := h.core.State(t, "event.certsitter_home_event")
	if s.Attributes["event_type"] != "deployed" || s.Attributes["certificate"] != "home" {
		t.Errorf("the event's attributes: %v", s.Attributes)
	}
	if got := h.core.State(t, "sensor.certsitter_home_last_result").State; !strings.HasPrefix(got, "Renewed on ") {
		t.Errorf("last result: %q", got)
	}
	if got := h.ca.Orders("home.example.org", "www.home.example.org"); got != 2 {
		t.Errorf("%d orders", got)
	}
	// Again at once: refused, and said.
	h.core.Call(t, "button.press", map[string]string{"entity_id": "button.certsitter_home_renew"})
	h.core.Wait(t, "sensor.certsitter_home_last_result", "Not renewed: .*minute.*", waitLimit)
	h.content(t)
}

func (h *house) serviceButtons(t *testing.T) {
	before := h.core.State(t, "sensor.certsitter_last_check").State
	// It is to the second, and there was a look a moment ago.
	eventually(t, "another second", waitLimit, func() bool {
		last, err := time.Parse(time.RFC3339, before)
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(last) > time.Second
	})
	h.core.Call(t, "button.press", map[string]string{"entity_id": "button.certsitter_check"})
	h.core.WaitFor(t, "sensor.certsitter_last_check", "a later time", waitLimit, func(s homeassistant.State) bool { return s.State > before })
	h.core.Call(t, "button.press", map[string]string{"entity_id": "button.certsitter_notify"})
	eventually(t, "the message has arrived", waitLimit, func() bool { return strings.Contains(h.heard.String(), "POST /hook") })
	h.content(t)
}

// away: everything is unavailable but what stays true while we are dead.
func (h *house) away(t *testing.T, since time.Time) {
	t.Helper()
	h.core.Wait(t, "sensor.certsitter_home_status", "unavailable", failed)
	t.Logf("unavailable after %.1f s", time.Since(since).Seconds())
	h.core.Wait(t, "binary_sensor.certsitter_connection", "off", failed)
	lasting := map[string]bool{}
	for _, rows := range h.rows(t) {
		for _, r := range rows {
			lasting[r.id] = r.lasts
		}
	}
	for id, s := range h.ours(t) {
		if (s.State == "unavailable") == lasting[id] {
			t.Errorf("%s is %s", id, s.State)
		}
	}
	h.content(t)
}

func (h *house) stopped(t *testing.T) {
	before, since := h.values(t), time.Now()
	h.sitter.stop(t)
	h.away(t, since)
	since = time.Now()
	h.sitter = h.start(h.whole)
	h.back(t, before, since)
	h.core.Wait(t, "binary_sensor.certsitter_connection", "on", failed)
	h.content(t)
}

func (h *house) killed(t *testing.T) {
	before, since := h.values(t), time.Now()
	h.sitter.end(syscall.SIGKILL)
	h.away(t, since)
	since = time.Now()
	h.sitter = h.start(h.whole)
	h.back(t, before, since)
	h.content(t)
}

// A broker that has lost everything: Certsitter sends all of it again.
func (h *house) brokerForgets(t *testing.T) {
	before := h.values(t)
	messages := readAll(t, h.broker).below("certsitter")
	h.broker.Stop()
	h.core.Wait(t, "sensor.certsitter_home_status", "unavailable", failed)
	since := time.Now()
	h.broker.Restart(t)
	h.back(t, before, since)
	reader := readAll(t, h.broker)
	eventually(t, "the same messages are there", failed, func() bool {
		now := reader.below("certsitter")
		return len(now) == len(messages)
	})
	for topic, payload := range reader.below("certsitter", "/config") {
		if messages[topic] != payload {
			t.Errorf("%s was %s and is %s", topic, messages[topic], payload)
		}
	}
}

// Core hears everything anew, here from a broker that had lost it.
func (h *house) coreRestarts(t *testing.T) {
	h.core.Call(t, "input_text.set_value", map[string]string{"entity_id": "input_text.diary", "value": ""})
	before := h.values(t)
	h.core.Restart(t) // returns as soon as Core is up
	h.back(t, before, time.Now())
	// What was told before is not told again.
	if got := h.core.State(t, "input_text.diary").State; got != "" {
		t.Errorf("events at the start: %q", got)
	}
	h.content(t)
}

// What leaves the configuration leaves Home Assistant, with its device.
func (h *house) removed(t *testing.T) {
	h.configure(t, h.managed("home"))
	h.sitter.hangup(t, "configuration read again")
	for _, name := range []string{"second", "nas"} {
		h.core.Wait(t, "sensor.certsitter_"+name+"_status", homeassistant.Absent, failed)
	}
	eventually(t, "the devices are gone", failed, func() bool {
		r := h.core.Registry(t)
		return r.Device("certsitter_second") == nil && r.Device("certsitter_nas") == nil
	})
	if left := h.core.States(t, `^[a-z_]+\.certsitter_(second|nas)_`); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	registry := h.core.Registry(t)
	if d := registry.Device("certsitter_home"); d == nil || len(d.Entities) != len(certificateRows("home", true, true)) {
		t.Errorf("of home there is left: %+v", d)
	}
	if len(registry.Loose) > 0 {
		t.Errorf("without a device: %v", registry.Loose)
	}
	h.core.Wait(t, "sensor.certsitter_certificates", "1", failed)
	h.content(t)
}
