package mqtt

import (
	"encoding/json"
	"slices"
	"strings"
)

// foundLimit is more than any payload of ours: what is longer is not looked at.
const foundLimit = 64 << 10

// owns says whether a retained message that was found on the broker was made
// by a Certsitter with exactly this base, so that it may be emptied when it is
// not wanted any more. Others may have a base that begins like ours, or devices
// that are called like ours, so every comparison is of whole topics:
//
//   - discovery below our prefix: the origin is Certsitter, and the
//     availability topic is <base>/status;
//   - discovery without an availability topic, which only Expires and
//     Connection lack: the origin is Certsitter, and topic, unique id and state
//     topic are the ones that we ourselves would give it;
//   - states: the topic is one of ours, and the payload has the form of ours.
func (c Config) owns(topic string, payload []byte) bool {
	if len(payload) == 0 || len(payload) > foundLimit {
		return false
	}
	if rest, ok := strings.CutPrefix(topic, c.prefix()+"/"); ok {
		parts := strings.Split(rest, "/")
		return len(parts) == 4 && parts[3] == "config" && c.ownsDiscovery(parts[1], parts[2], payload)
	}
	parts := strings.Split(topic, "/")
	if len(parts) != 4 || parts[0] != c.base() || parts[3] != "state" {
		return false
	}
	switch parts[1] {
	case "cert":
		return hasForm(payload, State{}.payload(parts[2])) && nameIn(payload) == parts[2]
	case "target":
		return hasForm(payload, Target{}.payload())
	}
	return false
}

func (c Config) ownsDiscovery(node, object string, payload []byte) bool {
	var found struct {
		UniqueID     string  `json:"unique_id"`
		StateTopic   string  `json:"state_topic"`
		Availability *string `json:"availability_topic"`
		Origin       struct {
			Name string `json:"name"`
		} `json:"origin"`
	}
	if json.Unmarshal(payload, &found) != nil || found.Origin.Name != originName {
		return false
	}
	if found.Availability != nil {
		return *found.Availability == c.statusTopic()
	}
	if found.UniqueID != node+"_"+object {
		return false
	}
	if node == c.base() {
		return object == "connection" && found.StateTopic == c.statusTopic()
	}
	name, ok := strings.CutPrefix(node, c.base()+"_")
	return ok && object == "not_after" && found.StateTopic == c.stateTopic(name)
}

// hasForm says whether payload is an object with at least the keys of like.
func hasForm(payload, like []byte) bool {
	var found, keys map[string]json.RawMessage
	if json.Unmarshal(payload, &found) != nil || json.Unmarshal(like, &keys) != nil {
		return false
	}
	for key := range keys {
		if _, there := found[key]; !there {
			return false
		}
	}
	return true
}

func nameIn(payload []byte) string {
	var found struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(payload, &found) != nil {
		return ""
	}
	return found.Name
}

// installationIn is the installation that wrote a service state; empty if the
// payload is none. Whoever may write to the broker may have written it.
func installationIn(payload []byte) string {
	if len(payload) > foundLimit {
		return ""
	}
	var found struct {
		Installation string `json:"installation"`
	}
	if json.Unmarshal(payload, &found) != nil || !isInstallation(found.Installation) {
		return ""
	}
	return found.Installation
}

// sweepFilters are the subscriptions under which everything of ours is found.
// The Homie tree is looked at only by who writes there.
func (c Config) sweepFilters() []string {
	all := []string{c.prefix() + "/+/+/+/config", c.base() + "/cert/+/state", c.base() + "/target/+/state"}
	if c.Homie {
		all = append(all, c.homieBase()+"#")
	}
	return all
}

// isDiscovery says whether Home Assistant reads topic as an announcement.
func isDiscovery(topic string) bool { return strings.HasSuffix(topic, "/config") }

// removalOrder sorts topics that are to be emptied, announcements first:
// nobody is to see an empty state of an entity that is still there. The status
// goes last.
func removalOrder(topics []string) {
	rank := func(topic string) int {
		switch {
		case isDiscovery(topic):
			return 0
		case strings.HasSuffix(topic, "/status"):
			return 2
		}
		return 1
	}
	slices.SortFunc(topics, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}
