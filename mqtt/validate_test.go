package mqtt

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// edit is a discovery message, taken apart, so that one thing can be broken.
func edit(t testing.TB, topic string, change func(o map[string]any)) []byte {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(payloadOf(t, testMessages(t), topic)), &o); err != nil {
		t.Fatal(err)
	}
	change(o)
	payload, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

const (
	daysTopic    = "homeassistant/sensor/certsitter_home/days_left/config"
	dateTopic    = "homeassistant/sensor/certsitter_home/not_after/config"
	statusTopic  = "homeassistant/sensor/certsitter_home/status/config"
	resultTopic  = "homeassistant/sensor/certsitter_home/last_result/config"
	problemTopic = "homeassistant/binary_sensor/certsitter_home/problem/config"
	renewTopic   = "homeassistant/button/certsitter_home/renew/config"
	eventTopic   = "homeassistant/event/certsitter_home/event/config"
)

// set gives one key another value; "a.b" is a key inside an object.
func set(path string, v any) func(map[string]any) {
	return func(o map[string]any) {
		if outer, inner, ok := strings.Cut(path, "."); ok {
			o, path = o[outer].(map[string]any), inner
		}
		o[path] = v
	}
}

func without(path string) func(map[string]any) {
	return func(o map[string]any) {
		key := path
		if outer, inner, ok := strings.Cut(path, "."); ok {
			o, key = o[outer].(map[string]any), inner
		}
		delete(o, key)
	}
}

func TestValidateRefuses(t *testing.T) {
	type list = []any
	for _, c := range []struct {
		topic  string
		change func(map[string]any)
		want   string
	}{
		{daysTopic, set("colour", "red"), "colour is no key of a sensor"},
		{daysTopic, set("stat_t", "x"), "stat_t is no key"},
		{daysTopic, set("~", "x"), "~ is no key"},
		{daysTopic, set("payload_on", "ON"), "payload_on is no key of a sensor"},
		{daysTopic, set("object_id", "x"), "object_id: Home Assistant warns"},
		{daysTopic, set("json_attributes_topic", "x/y"), "renames openHAB's channels"},
		{daysTopic, set("expire_after", 60), "expire_after: "},
		{daysTopic, set("availability", list{}), "use availability_topic"},
		{daysTopic, set("entity_picture", "https://x"), "entity_picture: "},
		{daysTopic, set("icon", nil), "icon is null"},
		{daysTopic, set("device.model", nil), "device.model is null"},
		{daysTopic, without("state_topic"), "state_topic is missing"},
		{daysTopic, without("name"), "name is missing"},
		{daysTopic, set("name", " "), "name must be a text"},
		{daysTopic, set("name", 7), "name must be a text"},
		{daysTopic, set("name", "home.example.org days"), "repeats the name of the device"},
		{daysTopic, without("unique_id"), "unique_id is missing"},
		{daysTopic, set("unique_id", ""), "unique_id must be a text"},
		{daysTopic, without("default_entity_id"), "default_entity_id is missing"},
		{daysTopic, set("default_entity_id", "certsitter_home"), "unnamed_device"},
		{daysTopic, set("default_entity_id", "button.certsitter_home"), "unnamed_device"},
		{daysTopic, set("default_entity_id", "sensor.a.b"), "unnamed_device"},
		{daysTopic, without("device"), "device is missing"},
		{daysTopic, set("device", "x"), "device is missing"},
		{daysTopic, set("device.colour", "red"), "device.colour is unknown"},
		{daysTopic, without("device.name"), "name is missing"},
		{daysTopic, set("device.identifiers", list{}), "exactly one text"},
		{daysTopic, set("device.identifiers", list{"a", "b"}), "exactly one text"},
		{daysTopic, set("device.identifiers", "a"), "exactly one text"},
		{daysTopic, set("device.identifiers", list{1}), "exactly one text"},
		{daysTopic, set("device.via_device", 1), "via_device must be a text"},
		{daysTopic, set("device.configuration_url", "ftp://x"), "is no link"},
		{daysTopic, without("origin"), "origin is missing"},
		{daysTopic, without("origin.name"), "name is missing"},
		{daysTopic, set("origin.url", "x"), "origin.url is unknown"},
		{daysTopic, set("origin.support_url", "certsitter"), "is no link"},
		{daysTopic, set("state_topic", "certsitter/+/state"), "is no topic"},
		{daysTopic, set("availability_topic", "certsitter/#"), "is no topic"},
		{daysTopic, set("value_template", "{{ value_json.days_left | int }}"), "does not mean the same"},
		{daysTopic, set("value_template", "{{ value_json.days_left"), "does not mean the same"},
		{daysTopic, set("icon", "certificate"), "is not mdi:"},
		{daysTopic, set("icon", "mdi:gesture-tap"), "trigger"},
		{daysTopic, set("qos", 3), "qos must be"},
		{daysTopic, set("qos", "1"), "qos must be"},
		{daysTopic, set("enabled_by_default", "false"), "must be true or false"},
		{daysTopic, set("device_class", "temperature"), "is none for our sensor"},
		{daysTopic, set("device_class", "problem"), "is none for our sensor"},
		{daysTopic, set("unit_of_measurement", "days"), "none of a duration"},
		{daysTopic, without("unit_of_measurement"), "none of a duration"},
		{daysTopic, set("unit_of_measurement", ""), "must be a text that is not empty"},
		{daysTopic, set("state_class", "mean"), "state_class"},
		{daysTopic, set("entity_category", "config"), "not possible for a sensor"},
		{daysTopic, set("entity_category", "other"), "not possible for a sensor"},
		{daysTopic, set("suggested_display_precision", -1), "must be 0 to 3"},
		{daysTopic, set("options", list{"a"}), "belong together"},
		{dateTopic, set("unit_of_measurement", "s"), "neither unit_of_measurement nor"},
		{dateTopic, set("state_class", "measurement"), "neither unit_of_measurement nor"},
		{dateTopic, set("suggested_display_precision", 0), "is for numbers"},
		{statusTopic, without("options"), "belong together"},
		{statusTopic, set("options", list{}), "not empty"},
		{statusTopic, set("options", list{"ok", "ok"}), "twice"},
		{statusTopic, set("options", list{1}), "must be texts"},
		{statusTopic, set("state_class", "measurement"), "neither unit_of_measurement nor"},
		{statusTopic, without("device_class"), "belong together"},
		{problemTopic, set("entity_category", "config"), "not possible for a binary_sensor"},
		{problemTopic, set("device_class", "duration"), "is none for our binary_sensor"},
		{problemTopic, set("payload_on", true), "payload_on must be a text"},
		{problemTopic, func(o map[string]any) { o["payload_on"], o["payload_off"] = "X", "X" }, "are both"},
		{problemTopic, set("unit_of_measurement", "d"), "is no key of a binary_sensor"},
		{renewTopic, without("command_topic"), "command_topic is missing"},
		{renewTopic, set("payload_press", "GO"), "payload_press must be PRESS"},
		{renewTopic, set("retain", true), "press the button again"},
		{renewTopic, set("device_class", "identify"), "wants entity_category diagnostic"},
		{renewTopic, set("state_topic", "x/y"), "state_topic is no key of a button"},
		{eventTopic, without("event_types"), "event_types is missing"},
		{eventTopic, set("event_types", list{}), "not empty"},
		{eventTopic, set("event_types", "renewed"), "not empty"},
		{eventTopic, set("entity_category", "diagnostic"), "not possible for a event"},
	} {
		err := Validate(c.topic, edit(t, c.topic, c.change))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.topic, err, c.want)
		}
	}
}

func TestValidateTopicsAndForms(t *testing.T) {
	good := payloadOf(t, testMessages(t), daysTopic)
	for _, c := range []struct{ topic, payload, want string }{
		{"", "x", "nothing can be published"},
		{"certsitter/#", "x", "nothing can be published"},
		{"certsitter/+/x", "", "nothing can be published"},
		{"/certsitter", "x", "nothing can be published"},
		{"certsitter//x", "x", "nothing can be published"},
		{"$SYS/x", "x", "nothing can be published"},
		{"a\x00b", "x", "nothing can be published"},
		{"a\xff", "x", "nothing can be published"},
		{strings.Repeat("a", 65536), "x", "nothing can be published"},
		{"homeassistant/sensor/days_left/config", good, "<prefix>/<component>"},
		{"homeassistant/light/certsitter_home/days_left/config", good, `component "light"`},
		{"homeassistant/device/certsitter_home/days_left/config", good, `component "device"`},
		{"homeassistant/sensor/home.example.org/days_left/config", good, "letters, digits"},
		{"homeassistant/sensor/certsitter_home/days left/config", good, "letters, digits"},
		{daysTopic, "online", "no JSON object"},
		{daysTopic, "[]", "no JSON object"},
		{daysTopic, "null", "no JSON object"},
		{daysTopic, good + "{}", "something behind"},
		{daysTopic, strings.Replace(good, "Days", "D\xff", 1), "not UTF-8"},
		{"certsitter/cert/home/state", `{"a":null}`, "a is null"},
		{"certsitter/cert/home/state", `{"a":[1,{"b":null}]}`, "a[1].b is null"},
		{"certsitter/cert/home/state", `{"a":`, "no JSON object"},
		{"certsitter/cert/home/state", "\xff", "not UTF-8"},
	} {
		if err := Validate(c.topic, []byte(c.payload)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s %.60q: %v, want %q", c.topic, c.payload, err, c.want)
		}
	}
	for _, c := range []struct{ topic, payload string }{
		{daysTopic, good},
		{daysTopic, ""},
		{"ha/discovery/sensor/certsitter_home/days_left/config", good},
		{"certsitter/status", "online"},
		{"certsitter/cert/home/state", `{"a":"None","b":[1,true]}`},
	} {
		if err := Validate(c.topic, []byte(c.payload)); err != nil {
			t.Error(err)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := Validate(daysTopic, edit(t, daysTopic, func(o map[string]any) {
		o["colour"], o["qos"] = "red", 9
		delete(o, "unique_id")
	}))
	for _, want := range []string{daysTopic, "colour", "qos", "unique_id"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// Each key that we send is one that the tables know, and the tables know none
// that is unwanted.
func TestKeyTables(t *testing.T) {
	for kind, rules := range components {
		for _, key := range slices.Sorted(maps.Keys(unwanted)) {
			if commonKeys[key] || rules.keys[key] {
				t.Errorf("%s: %s is both wanted and unwanted", kind, key)
			}
		}
		for _, key := range rules.required {
			if !rules.keys[key] {
				t.Errorf("%s: %s is required and unknown", kind, key)
			}
		}
	}
}
