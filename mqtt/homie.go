package mqtt

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The Homie convention, version 4.0.0: the form in which openHAB gets dates as
// dates, choices as choices and units. The device is <base>; its nodes are the
// service and the certificates. The values are those of the state topics.
//
// Ids may have small letters, digits and hyphens there, so a certificate's _ is
// a hyphen in its node, and the ids of properties have none. A value that is
// not known has no topic: an empty text would be an impossible payload.
const (
	homieRoot           = "homie"
	homieVersion        = "4.0.0"
	homieImplementation = "certsitter"

	homieInit         = "init"
	homieReady        = "ready"
	homieDisconnected = "disconnected"
	homieLost         = "lost"
)

// homieBase is the device's topic.
func (c Config) homieBase() string { return homieRoot + "/" + c.base() + "/" }

// homieStateTopic is the only retained one that the Publisher writes by itself.
func (c Config) homieStateTopic() string { return c.homieBase() + "$state" }

func homieNode(part string) string { return strings.ReplaceAll(part, "_", "-") }

func homieProperty(key string) string { return strings.ReplaceAll(key, "_", "") }

func (c Config) homieEventTopic(name string) string {
	return c.homieBase() + homieNode(name) + "/event"
}

// homieSetTopic is where Homie has a command.
func (c Config) homieSetTopic(command Command) string {
	if command.Name == "" {
		return c.homieBase() + "service/" + command.Kind + "/set"
	}
	return c.homieBase() + homieNode(command.Name) + "/" + command.Kind + "/set"
}

// isHomie says whether topic belongs to the device.
func (c Config) isHomie(topic string) bool { return strings.HasPrefix(topic, c.homieBase()) }

// validHomie says whether a message may be sent as part of the tree.
func validHomie(m Message) bool { return plainTopic(m.Topic) && utf8.Valid(m.Payload) }

// homieTree collects the messages.
type homieTree struct {
	base  string
	all   []Message
	nodes []string
}

//go:noinline
func (h *homieTree) put(topic, value string) {
	if value != "" {
		h.all = append(h.all, retained(h.base+topic, []byte(value)))
	}
}

// homieMessages are all retained messages of the tree but $state. A reader may
// ask for what a list names as soon as it sees the list, so each comes after
// what it names, and the device's version, by which it is found, is the last.
func (c Config) homieMessages(s Snapshot, certs []Certificate, targets []Target) []Message {
	h := &homieTree{base: c.homieBase()}
	things := c.things(certs)
	for i := range things {
		t := &things[i]
		state := s.Service.payload(c.Version, c.Installation)
		if i > 0 {
			state = certs[i-1].State.payload(t.part)
		}
		h.node(t, state, targets)
		targets = nil // they are the service's
	}
	h.put("$nodes", strings.Join(h.nodes, ","))
	h.put("$name", serviceName)
	h.put("$implementation", homieImplementation)
	h.put("$homie", homieVersion)
	return h.all
}

func (h *homieTree) node(t *thing, state []byte, targets []Target) {
	var values map[string]any
	if json.Unmarshal(state, &values) != nil {
		return // it is ours
	}
	node := homieNode(t.part)
	var ids []string
	for i := range t.facts {
		x := &t.facts[i]
		ids = append(ids, homieProperty(x.key))
		h.property(node+"/"+ids[i], x.label, x.kind, homieValue(x.kind, values[x.key]))
	}
	for _, target := range targets {
		id := "target-" + homieNode(target.ID)
		ids = append(ids, id)
		h.property(node+"/"+id, targetEntity(Config{}, target).Name, factFlag, strconv.FormatBool(target.Status != "ok"))
	}
	kind := "certificate"
	if t.event == "" {
		kind = "service"
	}
	h.put(node+"/$name", t.label)
	h.put(node+"/$type", kind)
	h.put(node+"/$properties", strings.Join(ids, ","))
	h.nodes = append(h.nodes, node)
}

func (h *homieTree) property(topic, label, kind, value string) {
	datatype, format := homieType(kind)
	h.put(topic, value)
	h.put(topic+"/$name", label)
	h.put(topic+"/$datatype", datatype)
	h.put(topic+"/$format", format)
	switch kind {
	case factDays:
		h.put(topic+"/$unit", "d")
	case factButton:
		h.put(topic+"/$settable", "true")
		h.put(topic+"/$retained", "false")
	case factEvent:
		h.put(topic+"/$retained", "false")
	}
}

func homieType(kind string) (datatype, format string) {
	switch kind {
	case factDays, factCount:
		return "integer", ""
	case factTime:
		return "datetime", ""
	case factFlag:
		return "boolean", ""
	case factStatus:
		return "enum", strings.Join(statuses(), ",")
	case factButton:
		return "enum", press
	case factEvent:
		return "enum", strings.Join(eventTypes(), ",")
	}
	return "string", ""
}

// homieValue writes a value of a state; empty = there is none.
func homieValue(kind string, value any) string {
	switch v := value.(type) {
	case float64: // whole, and far below 2^53
		return strconv.FormatInt(int64(v), 10)
	case string:
		switch {
		case kind == factFlag:
			return strconv.FormatBool(v == onOff(true))
		case v != none:
			return v
		}
	}
	return ""
}
