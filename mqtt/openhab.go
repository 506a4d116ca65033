package mqtt

import (
	"errors"
	"net"
	"regexp"
	"strings"
)

// OpenHAB is what openHAB's files are made from. Nothing in it is a secret, and
// nothing secret gets into them: the broker's user and password are
// placeholders.
type OpenHAB struct {
	Topic string // base of our topics; empty = certsitter
	// Bridge is the UID of a broker that openHAB has already, such as
	// mqtt:broker:mosquitto; CheckOpenHABBridge says whether it is one. Empty =
	// the files bring one.
	Bridge string
	Broker string // mqtt.broker of the configuration, for the bridge that the files bring; empty = not known
	// Certificates need Name, Label, Managed and Endpoints. One whose name is
	// not possible is left out.
	Certificates []Certificate
}

var bridgeForm = regexp.MustCompile(`^mqtt:[A-Za-z0-9_-]+:[A-Za-z0-9_-]+$`)

// CheckOpenHABBridge refuses what is no UID of a bridge of the MQTT binding.
func CheckOpenHABBridge(uid string) error {
	if !bridgeForm.MatchString(uid) {
		return errors.New("a bridge is named by its UID, as openHAB shows it on the broker's page: mqtt:broker:NAME")
	}
	return nil
}

// A factKind says how a value is written and shown.
type factKind int

const (
	factDays   factKind = iota // whole days
	factCount                  // a number without a unit
	factTime                   // a point in time
	factText                   // one line
	factStatus                 // one of statuses
	factFlag                   // ON or OFF
	factButton                 // a command, no value
	factEvent                  // one of eventTypes, at a moment
)

// A fact is one thing to know or to do about a certificate or the service. It
// becomes a channel of a Thing, an Item and a property of Homie's tree.
type fact struct {
	key   string // in the state; the topic's part for a button
	label string
	kind  factKind
	icon  string // of openHAB's classic set
}

// A thing is a certificate or the service, as openHAB's files and Homie's tree
// have it.
type thing struct {
	id    string // of the Thing, stable
	part  string // of topics and Items: the certificate's name, or service
	label string
	state string // topic
	event string // topic; empty = none
	set   func(key string) string
	facts []fact

	managed bool
}

// things are the service and then the certificates, in their order.
func (c Config) things(certs []Certificate) []thing {
	all := []thing{{
		id: c.base(), part: "service", label: serviceName, state: c.serviceTopic(), set: c.serviceSetTopic, facts: serviceFacts(),
	}}
	for _, cert := range certs {
		all = append(all, thing{
			id: c.node(cert.Name), part: cert.Name, label: labelOf(cert), state: c.stateTopic(cert.Name), event: c.eventTopic(cert.Name),
			set:   func(string) string { return c.renewTopic(cert.Name) },
			facts: certificateFacts(cert), managed: cert.Managed,
		})
	}
	return all
}

func labelOf(cert Certificate) string {
	if label := text(cert.Label, nameLimit); label != none {
		return label
	}
	return cert.Name
}

// certificateFacts are those that certificateEntities announces.
func certificateFacts(cert Certificate) []fact {
	all := []fact{
		{"days_left", "Days left", factDays, "time"},
		{"not_after", "Expires", factTime, "calendar"},
		{"status", "Status", factStatus, "lock"},
		{"problem", "Problem", factFlag, "error"},
		{"last_result", "Last result", factText, "text"},
	}
	if cert.Managed {
		all = append(all,
			fact{"last_renewal", "Last renewal", factTime, "calendar"},
			fact{"next_renewal", "Next renewal", factTime, "calendar"},
			fact{"failures", "Failed attempts", factCount, "line"},
		)
	}
	all = append(all, fact{"issuer", "Issuer", factText, "text"})
	if cert.Endpoints {
		all = append(all, fact{"not_deployed", "Not deployed", factFlag, "error"})
	}
	if cert.Managed {
		all = append(all, fact{"renew", "Renew now", factButton, "switch"})
	}
	return append(all, fact{"event", "Renewal", factEvent, ""})
}

func serviceFacts() []fact {
	return []fact{
		{"version", "Version", factText, "text"},
		{"certificates", "Certificates", factCount, "lock"},
		{"problems", "Problems", factCount, "error"},
		{"lowest_days_left", "Lowest days left", factDays, "time"},
		{"next_expiry", "Next expiry", factTime, "calendar"},
		{"next_renewal", "Next renewal", factTime, "calendar"},
		{"last_check", "Last check", factTime, "calendar"},
		{"check", "Check now", factButton, "switch"},
		{"notify", "Send test message", factButton, "switch"},
	}
}

// What a kind is for openHAB. Source: MQTT binding 4.1 to 5.3, openHAB core.
//
//go:noinline
func (k factKind) openHAB() (channel, item, format string) {
	switch k {
	case factDays:
		return "number", "Number", "%d days"
	case factCount:
		return "number", "Number", "%d"
	case factTime:
		return "datetime", "DateTime", "%1$tY-%1$tm-%1$td %1$tH:%1$tM"
	case factFlag:
		return "switch", "Switch", "%s"
	case factButton:
		return "string", "String", ""
	case factEvent:
		return "trigger", "", ""
	}
	return "string", "String", "%s"
}

// A setting is one key of a Thing's or channel's configuration.
type setting struct {
	key, value string
	bare       bool // a number or a truth value: without quotes
}

const transformation = "transformationPattern"

// settings are a channel's configuration.
func (t *thing) settings(f *fact) []setting {
	if f.kind == factButton {
		return []setting{{key: "commandTopic", value: t.set(f.key)}, {key: "allowedStates", value: press}}
	}
	topic, key := t.state, f.key
	if f.kind == factEvent {
		topic, key = t.event, "event_type"
	}
	all := []setting{{key: "stateTopic", value: topic}, {key: transformation, value: "JSONPATH:$." + key}}
	if f.kind == factFlag {
		all = append(all, setting{key: "on", value: "ON"}, setting{key: "off", value: "OFF"})
	}
	return all
}

// availability is every Thing's configuration. openHAB's own words would be ON
// and OFF.
func (c Config) availability() []setting {
	return []setting{
		{key: "availabilityTopic", value: c.statusTopic()},
		{key: "payloadAvailable", value: online}, {key: "payloadNotAvailable", value: offline},
	}
}

// generator makes one of the texts. Its methods take pointers and few words:
// the daemon is to stay small.
type generator struct {
	out       []byte
	all       []thing
	base      string
	prefix    string // of every Item's name
	bridge    string // UID
	uid       string // what every Thing's UID begins with
	given     bool   // openHAB has the bridge already
	broker    string
	available []setting
}

func newGenerator(o *OpenHAB) *generator {
	c := Config{Topic: o.Topic}
	certs, _, _ := namedOnce(Snapshot{Certificates: o.Certificates})
	g := &generator{all: c.things(certs), base: c.base(), bridge: o.Bridge, given: o.Bridge != "", broker: o.Broker, available: c.availability()}
	if !g.given {
		g.bridge = "mqtt:broker:" + g.base
	}
	g.uid = "mqtt:topic:" + g.bridge[strings.LastIndexByte(g.bridge, ':')+1:] + ":"
	// A letter, so that it begins a name everywhere. What follows it in the
	// names of values is lower case, and upper case in those of groups.
	name := sitemapName(g.base)
	g.prefix = strings.ToUpper(name[:1]) + name[1:] + "_"
	return g
}

// put writes a text. Each @ in it stands for the next of the values.
//
//go:noinline
func (g *generator) put(form string, values ...string) {
	for i := range len(form) {
		if form[i] != '@' {
			g.out = append(g.out, form[i])
			continue
		}
		g.out = append(g.out, values[0]...)
		values = values[1:]
	}
}

//go:noinline
func (g *generator) item(t *thing, key string) string { return g.prefix + t.part + "_" + key }

// The groups of all certificates' days and problems.
func (g *generator) daysGroup() string    { return g.prefix + "Days" }
func (g *generator) problemGroup() string { return g.prefix + "Problems" }

// group is the group that an Item is in; empty = none.
//
//go:noinline
func (g *generator) group(t *thing, key string) string {
	switch {
	case t.event == "":
	case key == "days_left":
		return g.daysGroup()
	case key == "problem":
		return g.problemGroup()
	}
	return ""
}

// ownBroker is the configuration of the bridge that the files bring. What is
// not known, and what is secret, is made up.
func (g *generator) ownBroker() []setting {
	host, port, secure := "192.168.1.10", "1883", "false"
	if b, err := (Config{Broker: g.broker}).parseBroker(); err == nil {
		host, port, _ = net.SplitHostPort(b.address) // parseBroker has joined them
		plain := "1883"
		if b.tls != nil {
			secure, plain = "true", "8883"
		}
		if strings.HasPrefix(b.url.Scheme, "ws") { // openHAB speaks MQTT itself
			port = plain
		}
	}
	return []setting{
		{key: "host", value: host}, {key: "port", value: port, bare: true}, {key: "secure", value: secure, bare: true},
		{key: "username", value: "openhab"}, {key: "password", value: "change-me"},
	}
}

const brokerAdvice = "Write openHAB's own user and password at the broker here. If openHAB has a\n@broker already, print this again with --bridge and its UID.\n"

// dslText is a text in the syntax of openHAB's own files.
func dslText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// plainLabel is a label in which openHAB sees no format: what stands in
// brackets would be one.
func plainLabel(s string) string { return strings.NewReplacer("[", "(", "]", ")").Replace(s) }
