package mqtt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Validate says what Home Assistant or openHAB would refuse, ignore or warn
// about in a message. A topic that ends in /config is a discovery message and
// is held against Home Assistant's schemas (single-component form; core 2026.9
// and what it does when an entity is added), and against the traps of openHAB
// 4.1 to 5.3. Of every other message the topic must be one that can be
// published on, and JSON must have no null. Nil means that the message may be
// sent; an empty payload, which removes, always may.
func Validate(topic string, payload []byte) error {
	if !plainTopic(topic) {
		return fmt.Errorf("topic %q: nothing can be published there", topic)
	}
	if len(payload) == 0 {
		return nil
	}
	var faults faults
	if strings.HasSuffix(topic, "/config") {
		faults.discovery(topic, payload)
	} else {
		faults.state(payload)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", topic, errors.Join(faults...))
}

// Key tables of Home Assistant. Source: core 2026.9, components/mqtt.
var (
	commonKeys = words(`availability_topic availability_template payload_available payload_not_available
		default_entity_id device enabled_by_default encoding entity_category icon name origin qos unique_id visible_by_default`)
	deviceKeys = words(`identifiers connections name manufacturer model model_id serial_number sw_version hw_version
		via_device suggested_area configuration_url`)
	originKeys = words(`name sw_version support_url`)
)

// unwanted are keys that Home Assistant takes, and why we never send them.
var unwanted = map[string]string{
	"object_id":                "Home Assistant warns of it since 2025.10; default_entity_id replaces it",
	"json_attributes_topic":    "it renames openHAB's channels",
	"json_attributes_template": "it belongs to json_attributes_topic",
	"availability":             "with a list openHAB takes any state for a sign of life; use availability_topic",
	"availability_mode":        "it belongs to a list of availability topics",
	"expire_after":             "a retained message re-arms it at each restart, and openHAB clears the value",
	"entity_picture":           "it is fetched from elsewhere",
}

// component is what Home Assistant demands of one kind of entity.
type component struct {
	required []string
	keys     map[string]bool // beside commonKeys
	classes  map[string]bool
	category string // entity categories that are possible
}

var components = map[string]component{
	"sensor": {
		required: []string{"state_topic"},
		keys: words(`state_topic value_template device_class state_class unit_of_measurement
			suggested_display_precision options force_update`),
		classes:  words(`duration timestamp date uptime enum`), // of the sixty those that fit a certificate
		category: "diagnostic",
	},
	"binary_sensor": {
		required: []string{"state_topic"},
		keys:     words(`state_topic value_template device_class payload_on payload_off off_delay force_update`),
		classes: words(`battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock
			moisture motion moving occupancy opening plug power presence problem running safety smoke sound tamper
			update vibration window`),
		category: "diagnostic",
	},
	"button": {
		required: []string{"command_topic"},
		keys:     words(`command_topic command_template device_class payload_press retain`),
		classes:  words(`identify restart update`),
		category: "config diagnostic",
	},
	"event": {
		required: []string{"state_topic", "event_types"},
		keys:     words(`state_topic value_template device_class event_types`),
		classes:  words(`button doorbell motion`),
	},
}

var (
	idForm   = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	slugForm = regexp.MustCompile(`^[a-z0-9_]+$`)
	iconForm = regexp.MustCompile(`^mdi:[a-z0-9-]+$`)
	// gestureIcon turns a sensor into a trigger in openHAB 4.
	gestureIcon = regexp.MustCompile(`^mdi:(toggle|gesture)`)
	// portableTemplate are the two forms that Jinja and Jinjava render alike.
	portableTemplate = regexp.MustCompile(`^\{\{ (value_json\.[a-z_]+|'[A-Z]+' if value_json\.[a-z_]+ == '[a-z]+' else '[A-Z]+') \}\}$`)
)

func words(s string) map[string]bool {
	set := map[string]bool{}
	for word := range strings.FieldsSeq(s) {
		set[word] = true
	}
	return set
}

// faults collects what is wrong, in a stable order.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

func (f *faults) state(payload []byte) {
	if !utf8.Valid(payload) {
		f.add("the payload is not UTF-8")
		return
	}
	if payload[0] != '{' {
		return
	}
	o, err := object(payload)
	if err != nil {
		f.add("%w", err)
		return
	}
	f.nulls("", o)
}

func (f *faults) discovery(topic string, payload []byte) {
	parts := strings.Split(topic, "/")
	if len(parts) < 5 {
		f.add("a discovery topic is <prefix>/<component>/<node>/<object>/config")
		return
	}
	kind, node, name := parts[len(parts)-4], parts[len(parts)-3], parts[len(parts)-2]
	rules, ok := components[kind]
	if !ok {
		f.add("component %q is none of ours", kind)
		return
	}
	if !idForm.MatchString(node) || !idForm.MatchString(name) {
		f.add("node and object may have letters, digits, _ and - only")
	}
	if !utf8.Valid(payload) {
		f.add("the payload is not UTF-8")
		return
	}
	o, err := object(payload)
	if err != nil {
		f.add("%w", err)
		return
	}
	f.nulls("", o)
	f.keys(kind, rules, o)
	f.identity(kind, o)
	f.common(o)
	f.classes(kind, rules, o)
	switch kind {
	case "sensor":
		f.sensor(o)
	case "binary_sensor":
		f.binarySensor(o)
	case "button":
		f.button(o)
	case "event":
		f.event(o)
	}
}

// object reads one JSON object and nothing behind it, numbers as json.Number.
func object(payload []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, errors.New("the payload is no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the JSON object")
	}
	return o, nil
}

func (f *faults) nulls(path string, v any) {
	switch v := v.(type) {
	case nil:
		f.add("%s is null: openHAB would keep the old value", strings.TrimPrefix(path, "."))
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			f.nulls(path+"."+key, v[key])
		}
	case []any:
		for i, item := range v {
			f.nulls(fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

func (f *faults) keys(kind string, rules component, o map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if why, bad := unwanted[key]; bad {
			f.add("%s: %s", key, why)
			continue
		}
		if !commonKeys[key] && !rules.keys[key] {
			f.add("%s is no key of a %s", key, kind)
		}
	}
	for _, key := range rules.required {
		if o[key] == nil {
			f.add("%s is missing", key)
		}
	}
}

// identity holds names and ids against the rules.
func (f *faults) identity(kind string, o map[string]any) {
	name := f.text(o, "name", true)
	f.text(o, "unique_id", true)
	if id := f.text(o, "default_entity_id", true); id != "" {
		domain, slug, _ := strings.Cut(id, ".")
		if domain != kind || !slugForm.MatchString(slug) {
			f.add("default_entity_id %q is not %s.<a-z, 0-9 and _>: Home Assistant would name the entity unnamed_device", id, kind)
		}
	}
	d := f.group(o, "device", deviceKeys)
	if owner := f.text(d, "name", true); owner != "" && strings.HasPrefix(name, owner) {
		f.add("name %q repeats the name of the device", name)
	}
	if ids, _ := d["identifiers"].([]any); len(ids) != 1 || !isText(ids[0]) {
		f.add("device.identifiers must be exactly one text: openHAB joins several to a new thing")
	}
	for _, key := range []string{"manufacturer", "model", "model_id", "serial_number", "sw_version", "hw_version", "via_device", "suggested_area"} {
		f.text(d, key, false)
	}
	f.link(d, "configuration_url", "http", "https", "homeassistant")
	from := f.group(o, "origin", originKeys)
	f.text(from, "name", true)
	f.text(from, "sw_version", false)
	f.link(from, "support_url", "http", "https")
}

// group is an object inside the payload. An unknown key in it makes Home
// Assistant refuse the whole message.
func (f *faults) group(o map[string]any, key string, known map[string]bool) map[string]any {
	g, ok := o[key].(map[string]any)
	if !ok {
		f.add("%s is missing", key)
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(g)) {
		if !known[k] {
			f.add("%s.%s is unknown: Home Assistant would refuse the message", key, k)
		}
	}
	return g
}

func (f *faults) common(o map[string]any) {
	for _, key := range []string{"state_topic", "command_topic", "availability_topic"} {
		if topic := f.text(o, key, false); topic != "" && !plainTopic(topic) {
			f.add("%s %q is no topic", key, topic)
		}
	}
	for _, key := range []string{"enabled_by_default", "visible_by_default", "force_update", "retain"} {
		if v, there := o[key]; there {
			if _, ok := v.(bool); !ok {
				f.add("%s must be true or false", key)
			}
		}
	}
	for _, key := range []string{"payload_available", "payload_not_available", "payload_on", "payload_off", "payload_press", "encoding"} {
		f.text(o, key, false)
	}
	for _, key := range []string{"value_template", "availability_template", "command_template"} {
		if template := f.text(o, key, false); template != "" && !portableTemplate.MatchString(template) {
			f.add("%s %q does not mean the same to Home Assistant and to every openHAB", key, template)
		}
	}
	if icon := f.text(o, "icon", false); icon != "" {
		if !iconForm.MatchString(icon) {
			f.add("icon %q is not mdi:…", icon)
		} else if gestureIcon.MatchString(icon) {
			f.add("icon %q makes openHAB 4 take the sensor for a trigger", icon)
		}
	}
	if q, there := o["qos"]; there && !slices.Contains([]any{json.Number("0"), json.Number("1"), json.Number("2")}, q) {
		f.add("qos must be 0, 1 or 2")
	}
}

func (f *faults) classes(kind string, rules component, o map[string]any) {
	class := f.text(o, "device_class", false)
	if class != "" && !rules.classes[class] {
		f.add("device_class %q is none for our %s", class, kind)
	}
	category := f.text(o, "entity_category", false)
	if category != "" && !slices.Contains(strings.Fields(rules.category), category) {
		f.add("entity_category %q is not possible for a %s: Home Assistant would not add it", category, kind)
	}
	if class == "identify" && category != "diagnostic" {
		f.add("device_class identify wants entity_category diagnostic")
	}
}

// unitless are device classes of which each state with a unit is an error.
var unitless = words(`timestamp date uptime enum`)

func (f *faults) sensor(o map[string]any) {
	class, unit, state := o["device_class"], f.text(o, "unit_of_measurement", false), f.text(o, "state_class", false)
	if c, _ := class.(string); unitless[c] && (unit != "" || state != "") {
		f.add("device_class %s has neither unit_of_measurement nor state_class", c)
	}
	if class == "duration" && !slices.Contains([]string{"d", "h", "min", "s", "ms", "μs"}, unit) {
		f.add("unit_of_measurement %q is none of a duration", unit)
	}
	if state != "" && !slices.Contains([]string{"measurement", "total", "total_increasing"}, state) {
		f.add("state_class %q is unknown", state)
	}
	f.sensorOptions(o)
	if p, there := o["suggested_display_precision"]; there {
		n, ok := p.(json.Number)
		if !ok || !slices.Contains([]string{"0", "1", "2", "3"}, string(n)) {
			f.add("suggested_display_precision must be 0 to 3")
		}
		if unit == "" && state == "" {
			f.add("suggested_display_precision is for numbers: a unit_of_measurement or a state_class is missing")
		}
	}
}

func (f *faults) sensorOptions(o map[string]any) {
	_, there := o["options"]
	if there != (o["device_class"] == "enum") {
		f.add("options and device_class enum belong together")
		return
	}
	if there {
		f.list(o, "options")
	}
}

func (f *faults) binarySensor(o map[string]any) {
	on, _ := o["payload_on"].(string)
	off, _ := o["payload_off"].(string)
	if on != "" && on == off {
		f.add("payload_on and payload_off are both %q", on)
	}
}

func (f *faults) button(o map[string]any) {
	if p, there := o["payload_press"]; there && p != press {
		f.add("payload_press must be %s: openHAB sends that whatever stands here", press)
	}
	if o["retain"] == true {
		f.add("retain would press the button again at each connection")
	}
}

func (f *faults) event(o map[string]any) {
	if o["event_types"] != nil {
		f.list(o, "event_types")
	}
}

// list is a non-empty list of different texts.
func (f *faults) list(o map[string]any, key string) {
	items, _ := o[key].([]any)
	seen := map[any]bool{}
	for _, item := range items {
		if !isText(item) {
			f.add("%s must be texts", key)
			return
		}
		if seen[item] {
			f.add("%s has %q twice", key, item)
		}
		seen[item] = true
	}
	if len(items) == 0 {
		f.add("%s must be a list that is not empty", key)
	}
}

// text is the value of a key that must be a text, and one that is not blank,
// if it is there.
func (f *faults) text(o map[string]any, key string, required bool) string {
	v, there := o[key]
	if !there {
		if required {
			f.add("%s is missing", key)
		}
		return ""
	}
	if !isText(v) {
		f.add("%s must be a text that is not empty", key)
		return ""
	}
	return v.(string)
}

func isText(v any) bool {
	s, ok := v.(string)
	return ok && strings.TrimSpace(s) != ""
}

func (f *faults) link(o map[string]any, key string, schemes ...string) {
	raw := f.text(o, key, false)
	if raw == "" {
		return
	}
	u, err := url.Parse(raw)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" {
		f.add("%s %q is no link", key, raw)
	}
}
