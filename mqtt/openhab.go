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

// The kinds of values: how they are written and shown.
const (
	factDays   = "days"   // whole days
	factCount  = "count"  // a number without a unit
	factTime   = "time"   // a point in time
	factText   = "text"   // one line
	factStatus = "status" // one of statuses
	factFlag   = "flag"   // ON or OFF
	factButton = "button" // a command, no value
	factEvent  = "event"  // one of eventTypes, at a moment
)

// A fact is one thing to know or to do about a certificate or the service. It
// becomes a channel of a Thing, an Item and a property of Homie's tree.
type fact struct {
	key   string // in the state; the topic's part for a button
	label string
	kind  string
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
	set   string // what command topics begin with
	facts []fact

	managed bool
}

// things are the service and then the certificates, in their order.
func (c Config) things(certs []Certificate) []thing {
	base := c.base()
	all := []thing{{
		id: base, part: "service", label: serviceName, state: c.serviceTopic(), set: base + "/service/", facts: facts(serviceFacts, true, true),
	}}
	for i := range certs {
		cert := &certs[i]
		own := base + "/cert/" + cert.Name + "/"
		all = append(all, thing{
			id: base + "_" + cert.Name, part: cert.Name, label: labelOf(cert), state: own + "state", event: own + "event", set: own,
			facts: facts(certificateFacts, cert.Managed, cert.Endpoints), managed: cert.Managed,
		})
	}
	return all
}

func labelOf(cert *Certificate) string {
	if label := text(cert.Label, nameLimit); label != none {
		return label
	}
	return cert.Name
}

// The facts, one a line: key, label, kind, icon, and for which certificates it
// is (m = managed, e = with endpoints, nothing = all). A certificate's are those
// that certificateEntities announces.
const (
	certificateFacts = `days_left|Days left|days|time|
not_after|Expires|time|calendar|
status|Status|status|lock|
problem|Problem|flag|error|
last_result|Last result|text|text|
last_renewal|Last renewal|time|calendar|m
next_renewal|Next renewal|time|calendar|m
failures|Failed attempts|count|line|m
issuer|Issuer|text|text|
not_deployed|Not deployed|flag|error|e
renew|Renew now|button|switch|m
event|Renewal|event||`
	serviceFacts = `version|Version|text|text|
certificates|Certificates|count|lock|
problems|Problems|count|error|
lowest_days_left|Lowest days left|days|time|
next_expiry|Next expiry|time|calendar|
next_renewal|Next renewal|time|calendar|
last_check|Last check|time|calendar|
check|Check now|button|switch|
notify|Send test message|button|switch|`
)

// facts reads those of a table that are for such a certificate.
func facts(table string, managed, endpoints bool) []fact {
	var all []fact
	for line := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(line, "|")
		if !managed && cells[4] == "m" || !endpoints && cells[4] == "e" {
			continue
		}
		all = append(all, fact{cells[0], cells[1], cells[2], cells[3]})
	}
	return all
}

// What a kind is for openHAB. Source: MQTT binding 4.1 to 5.3, openHAB core.
//
//go:noinline
func openHABKind(kind string) (channel, item, format string) {
	switch kind {
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

// The keys of a configuration with a special form.
const (
	transformation = "transformationPattern" // there may be several
	port, secure   = "port", "secure"        // a number, a truth value: no texts
)

// settings are a channel's configuration: keys, each with its value.
//
//go:noinline
func (t *thing) settings(f *fact) []string {
	if f.kind == factButton {
		return []string{"commandTopic", t.set + f.key + "/set", "allowedStates", press}
	}
	topic, key := t.state, f.key
	if f.kind == factEvent {
		topic, key = t.event, "event_type"
	}
	all := []string{"stateTopic", topic, transformation, "JSONPATH:$." + key}
	if f.kind == factFlag {
		all = append(all, "on", "ON", "off", "OFF")
	}
	return all
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
	available []string // every Thing's configuration
}

func newGenerator(o *OpenHAB) *generator {
	c := Config{Topic: o.Topic}
	certs, _, _ := namedOnce(Snapshot{Certificates: o.Certificates})
	g := &generator{all: c.things(certs), base: c.base(), bridge: o.Bridge, given: o.Bridge != "", broker: o.Broker}
	// openHAB's own words would be ON and OFF.
	g.available = []string{"availabilityTopic", c.statusTopic(), "payloadAvailable", online, "payloadNotAvailable", offline}
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

// item names an Item. The service's has a capital, which no certificate's name
// has: one may be called service_lowest.
//
//go:noinline
func (g *generator) item(t *thing, key string) string {
	part := t.part
	if part == "service" {
		part = "Service"
	}
	return g.prefix + part + "_" + key
}

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
func (g *generator) ownBroker() []string {
	host, number, encrypted := "192.168.1.10", "1883", "false"
	if b, err := (Config{Broker: g.broker}).parseBroker(); err == nil {
		host, number, _ = net.SplitHostPort(b.address) // parseBroker has joined them
		plain := "1883"
		if b.tls != nil {
			encrypted, plain = "true", "8883"
		}
		if strings.HasPrefix(b.url.Scheme, "ws") { // openHAB speaks MQTT itself
			number = plain
		}
	}
	return []string{"host", host, port, number, secure, encrypted, "username", "openhab", "password", "change-me"}
}

const brokerAdvice = "Write openHAB's own user and password at the broker here. If openHAB has a\n@broker already, print this again with --bridge and its UID.\n"

// dslText is a text in the syntax of openHAB's own files.
func dslText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// plainLabel is a label in which openHAB sees no format: what stands in
// brackets would be one.
func plainLabel(s string) string { return strings.NewReplacer("[", "(", "]", ")").Replace(s) }
