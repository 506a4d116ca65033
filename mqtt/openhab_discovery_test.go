package mqtt

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What openHAB 4.1 to 5.3 make of Home Assistant's discovery, held against raw
// payloads and independently of Validate: its own parsers are stricter than
// Home Assistant's in some places and looser in others.

// longNames are the only keys that every openHAB knows: 4.1 has its own, short
// table of abbreviations, and not all of Home Assistant's keys.
var longNames = words(`name unique_id default_entity_id state_topic value_template command_topic payload_press payload_on payload_off
	device_class unit_of_measurement state_class suggested_display_precision options event_types entity_category enabled_by_default icon
	availability_topic qos device origin
	device.identifiers device.name device.manufacturer device.model device.sw_version device.via_device
	origin.name origin.sw_version origin.support_url`)

// portable are the forms that Jinjava (4.x) and Python's Jinja (5.x) render
// alike.
var portable = []*regexp.Regexp{
	regexp.MustCompile(`^\{\{ value_json\.([a-z_]+) \}\}$`),
	regexp.MustCompile(`^\{\{ 'OFF' if value_json\.([a-z_]+) == '[a-z]+' else 'ON' \}\}$`),
}

// openHABFaults looks at all messages of an installation.
func openHABFaults(messages []Message) (faults []string) {
	payloads := byTopic(messages)
	things, uids, channels := map[string]string{}, map[string]string{}, map[string]string{}
	for _, m := range messages {
		if !strings.HasSuffix(m.Topic, "/config") {
			continue
		}
		fault := func(form string, values ...any) { faults = append(faults, m.Topic+": "+fmt.Sprintf(form, values...)) }
		if !m.Retain || m.QoS != 1 {
			fault("retained %v, QoS %d", m.Retain, m.QoS)
		}
		parts := strings.Split(m.Topic, "/")
		if len(parts) != 5 || parts[0] != "homeassistant" {
			fault("openHAB reads homeassistant/<component>/<node>/<object>/config")
			continue
		}
		component, node, object := parts[1], parts[2], parts[3]
		for _, id := range parts[1:4] {
			if !regexp.MustCompile(`^[a-zA-Z0-9_-]+$`).MatchString(id) {
				fault("id %q", id)
			}
		}
		if !slices.Contains([]string{"sensor", "binary_sensor", "button", "event"}, component) { // event since 4.3, ignored before
			fault("component %s is not in every openHAB", component)
		}
		var o map[string]any
		if err := json.Unmarshal(m.Payload, &o); err != nil {
			fault("%v", err)
			continue
		}
		openHABKeys(fault, "", o)
		text := func(key string) string { v, _ := o[key].(string); return v }
		device, _ := o["device"].(map[string]any)

		// One Thing for each device; one channel for each object of it.
		ids, _ := device["identifiers"].([]any)
		if len(ids) != 1 || ids[0] != node {
			fault("identifiers %v: openHAB joins several to another Thing", ids)
		}
		uid := thingUID(node)
		if other, taken := uids[uid]; taken && other != node {
			fault("%s and %s are the same Thing", node, other)
		}
		uids[uid] = node
		label, _ := device["name"].(string)
		if other, taken := things[node]; taken && other != label {
			fault("the Thing is called %q and %q", label, other)
		}
		things[node] = label
		channel := node + "/" + strings.ReplaceAll(object, "-", "_")
		if other, taken := channels[channel]; taken {
			fault("%s has the same channel id: openHAB renames both", other)
		}
		channels[channel] = m.Topic

		if strings.TrimSpace(text("name")) == "" || label == "" {
			fault("4.x puts all channels without a name on one id")
		}
		if regexp.MustCompile(`^mdi:(toggle|gesture)`).MatchString(text("icon")) {
			fault("icon %s makes a trigger", text("icon"))
		}
		if q, ok := o["qos"].(float64); !ok || q != 1 {
			fault("qos is %v", o["qos"])
		}
		if text("availability_topic") == "" && object != "connection" && object != "not_after" {
			fault("without availability_topic the Thing stays UNKNOWN")
		}
		openHABValue(fault, component, o, payloads)
	}
	return faults
}

// openHABKeys looks at every key, at all depths.
func openHABKeys(fault func(string, ...any), path string, o map[string]any) {
	for key, v := range o {
		switch v := v.(type) {
		case nil:
			fault("%s%s is null", path, key)
		case map[string]any:
			openHABKeys(fault, path+key+".", v)
		case float64:
			if strings.HasPrefix(key, "payload") {
				fault("%s%s is no text", path, key)
			}
		}
		if !longNames[path+key] {
			fault("key %s%s", path, key)
		}
	}
}

// openHABValue holds what is read against what is there to read.
func openHABValue(fault func(string, ...any), component string, o map[string]any, payloads map[string]string) {
	text := func(key string) string { v, _ := o[key].(string); return v }
	switch {
	case component == "button":
		if text("payload_press") != press || text("command_topic") == "" {
			fault("openHAB sends PRESS to command_topic, whatever payload_press is")
		}
		return
	case component == "event":
		types, _ := o["event_types"].([]any)
		for _, known := range eventTypes() {
			if !slices.Contains(types, any(known)) {
				fault("openHAB drops the event %s", known)
			}
		}
		return
	case text("value_template") == "":
		if text("payload_on") != online || text("payload_off") != offline {
			fault("what is in the payload of %s?", text("state_topic"))
		}
		return
	}
	var key string
	for _, form := range portable {
		if found := form.FindStringSubmatch(text("value_template")); found != nil {
			key = found[1]
		}
	}
	var state map[string]any
	if err := json.Unmarshal([]byte(payloads[text("state_topic")]), &state); err != nil {
		fault("%s: %v", text("state_topic"), err)
	}
	value, there := state[key]
	shown := fmt.Sprint(value)
	_, number := value.(float64)
	switch {
	case key == "":
		fault("template %s", text("value_template"))
	case !there || value == nil:
		fault("%s is not in %s", key, payloads[text("state_topic")])
	case component == "binary_sensor" && strings.Contains(text("value_template"), " if "): // the template makes ON and OFF
	case component == "binary_sensor" && shown != "ON" && shown != "OFF":
		fault("%s is %s: openHAB warns at each", key, shown)
	case (text("unit_of_measurement") != "" || text("state_class") != "") && !number && shown != none:
		fault("openHAB makes a number of %s, which is %s", key, shown)
	case text("device_class") == "duration" && text("unit_of_measurement") != "d":
		fault("a duration in %q", text("unit_of_measurement"))
	case text("device_class") == "timestamp" && shown != none && !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`).MatchString(shown):
		fault("%s is no time: %s", key, shown)
	}
}

// thingUID is openHAB's encoding of an id: what is no letter and no digit
// becomes _ and its number.
func thingUID(id string) string {
	var b strings.Builder
	for _, r := range id {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "_%02X", r)
	}
	return b.String()
}

// A full installation, one that knows nothing yet, and one with names that are
// close to each other.
func TestOpenHABReadsTheDiscovery(t *testing.T) {
	bare := testSnapshot()
	bare.Service = Service{}
	for i := range bare.Certificates {
		bare.Certificates[i].State = State{}
	}
	for i := range bare.Targets {
		bare.Targets[i].Status = ""
	}
	near := Snapshot{Certificates: []Certificate{
		{Name: "a", Managed: true, Endpoints: true}, {Name: "a_b"}, {Name: "a__b"}, {Name: "ab"}, {Name: "5f"}, {Name: "a_5fb"}, {Name: "not_after"}, {Name: "event", Managed: true},
	}}
	for name, s := range map[string]Snapshot{"full": testSnapshot(), "bare": bare, "near": near, "empty": {}} {
		c := testConfig()
		c.Homie = true
		all := mustMessages(t, c, s)
		for _, fault := range openHABFaults(all) {
			t.Errorf("%s: %s", name, fault)
		}
	}
}

// The rules must be able to say no.
func TestOpenHABRulesFindFaults(t *testing.T) {
	for _, damage := range []struct{ in, from, to string }{
		{"sensor/certsitter_home/status", `"icon":"mdi:certificate"`, `"icon":"mdi:gesture-tap"`},
		{"sensor/certsitter_home/status", `"name":"Status"`, `"name":""`},
		{"sensor/certsitter_home/status", `"name":"Status"`, `"name":null`},
		{"sensor/certsitter_home/status", `"qos":1`, `"qos":"1"`},
		{"sensor/certsitter_home/status", `"state_topic"`, `"stat_t"`},
		{"sensor/certsitter_home/status", `"availability_topic":"certsitter/status",`, ``},
		{"sensor/certsitter_home/status", `["certsitter_home"]`, `["certsitter_home","x"]`},
		{"sensor/certsitter_home/status", `{{ value_json.status }}`, `{{ value_json.status | upper }}`},
		{"sensor/certsitter_home/status", `{{ value_json.status }}`, `{{ value_json.state }}`},
		{"sensor/certsitter_home/days_left", `{{ value_json.days_left }}`, `{{ value_json.status }}`},
		{"sensor/certsitter_home/days_left", `"d"`, `"days"`},
		{"sensor/certsitter_home/not_after", `{{ value_json.not_after }}`, `{{ value_json.issuer }}`},
		{"binary_sensor/certsitter_home/problem", `{{ value_json.problem }}`, `{{ value_json.failures }}`},
		{"button/certsitter_home/renew", `"PRESS"`, `"GO"`},
		{"button/certsitter_home/renew", `"PRESS"`, `1`},
		{"event/certsitter_home/event", `"renewed",`, ``},
		{"sensor/certsitter_home/status", `"device_class"`, `"json_attributes_topic":"x","device_class"`},
		{"sensor/certsitter_home/status", `"device_class"`, `"expire_after":60,"device_class"`},
		{"sensor/certsitter_home/status", `"sw_version":"0.1.0"`, `"sw":"0.1.0"`},
	} {
		all := testMessages(t)
		for i, m := range all {
			if m.Topic == "homeassistant/"+damage.in+"/config" {
				changed := strings.Replace(string(m.Payload), damage.from, damage.to, 1)
				if changed == string(m.Payload) {
					t.Fatalf("%s has no %s", m.Topic, damage.from)
				}
				all[i].Payload = []byte(changed)
			}
		}
		if len(openHABFaults(all)) == 0 {
			t.Errorf("%s: %s instead of %s is no fault", damage.in, damage.to, damage.from)
		}
	}
	twice := append(testMessages(t), retained("homeassistant/binary_sensor/certsitter_home/status/config", []byte(payloadOf(t, testMessages(t), "homeassistant/binary_sensor/certsitter_home/problem/config"))))
	if len(openHABFaults(twice)) == 0 {
		t.Error("two components with one object id are no fault")
	}
}
