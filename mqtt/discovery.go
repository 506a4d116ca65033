package mqtt

import (
	"slices"
	"strings"
)

// The strings that automations and dashboards ask for: they never change.
const (
	manufacturer     = "Certsitter"
	serviceName      = "Certsitter"
	serviceModel     = "Certificate service"
	certificateModel = "TLS certificate"
	originName       = "Certsitter"
	supportURL       = "https://github.com/certsitter/certsitter"
)

// entity is one discovery message in the single-component form, with long key
// names. Home Assistant reads it from 2024.12 on, openHAB from 4.1 on. Never
// part of it: object_id (Home Assistant warns), json_attributes_topic (it
// renames openHAB's channels), expire_after (retained messages defeat it).
type entity struct {
	component string // of Home Assistant
	object    string // last part of topic and ids

	Name             string   `json:"name"` // never empty: openHAB 4 would put all such channels on one id
	UniqueID         string   `json:"unique_id"`
	DefaultEntityID  string   `json:"default_entity_id"`
	StateTopic       string   `json:"state_topic,omitempty"`
	ValueTemplate    string   `json:"value_template,omitempty"`
	CommandTopic     string   `json:"command_topic,omitempty"`
	PayloadPress     string   `json:"payload_press,omitempty"`
	PayloadOn        string   `json:"payload_on,omitempty"`
	PayloadOff       string   `json:"payload_off,omitempty"`
	DeviceClass      string   `json:"device_class,omitempty"`
	Unit             string   `json:"unit_of_measurement,omitempty"`
	StateClass       string   `json:"state_class,omitempty"`
	Precision        *int     `json:"suggested_display_precision,omitempty"`
	Options          []string `json:"options,omitempty"`
	EventTypes       []string `json:"event_types,omitempty"`
	Category         string   `json:"entity_category,omitempty"`
	EnabledByDefault *bool    `json:"enabled_by_default,omitempty"`
	Icon             string   `json:"icon,omitempty"`
	Availability     string   `json:"availability_topic,omitempty"`
	QoS              int      `json:"qos"`
	Device           device   `json:"device"`
	Origin           origin   `json:"origin"`
}

type device struct {
	Identifiers  []string `json:"identifiers"` // exactly one: openHAB joins several to a new thing
	Name         string   `json:"name"`
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model"`
	Version      string   `json:"sw_version,omitempty"`
	Via          string   `json:"via_device,omitempty"`
}

type origin struct {
	Name    string `json:"name"`
	Version string `json:"sw_version,omitempty"`
	Support string `json:"support_url"`
}

// value reads one key of the state. This form and the one of targetEntity mean
// the same to Jinja (Home Assistant, openHAB 5) and to Jinjava (openHAB 4).
func value(key string) string { return "{{ value_json." + key + " }}" }

// certificateEntities is the contract's table of a certificate's entities.
func certificateEntities(c Config, cert Certificate) []entity {
	state := c.stateTopic(cert.Name)
	all := []entity{
		{component: "sensor", object: "days_left", Name: "Days left", StateTopic: state, ValueTemplate: value("days_left"),
			DeviceClass: "duration", Unit: "d", StateClass: "measurement", Precision: new(0)},
		{component: "sensor", object: "not_after", Name: "Expires", StateTopic: state, ValueTemplate: value("not_after"),
			DeviceClass: "timestamp"},
		{component: "sensor", object: "status", Name: "Status", StateTopic: state, ValueTemplate: value("status"),
			DeviceClass: "enum", Options: statuses(), Icon: "mdi:certificate"},
		{component: "binary_sensor", object: "problem", Name: "Problem", StateTopic: state, ValueTemplate: value("problem"),
			DeviceClass: "problem"},
		{component: "event", object: "event", Name: "Renewal", StateTopic: c.eventTopic(cert.Name),
			EventTypes: eventTypes(), Icon: "mdi:certificate-outline"},
	}
	if cert.Managed {
		all = append(all,
			entity{component: "button", object: "renew", Name: "Renew now", CommandTopic: c.renewTopic(cert.Name),
				PayloadPress: press, Category: "config", Icon: "mdi:autorenew"},
			entity{component: "sensor", object: "last_renewal", Name: "Last renewal", StateTopic: state, ValueTemplate: value("last_renewal"),
				DeviceClass: "timestamp", Category: "diagnostic"},
			entity{component: "sensor", object: "next_renewal", Name: "Next renewal", StateTopic: state, ValueTemplate: value("next_renewal"),
				DeviceClass: "timestamp", Category: "diagnostic"},
			entity{component: "sensor", object: "failures", Name: "Failed attempts", StateTopic: state, ValueTemplate: value("failures"),
				StateClass: "measurement", Precision: new(0), Category: "diagnostic", EnabledByDefault: new(false), Icon: "mdi:alert-circle-outline"},
		)
	}
	all = append(all,
		entity{component: "sensor", object: "last_result", Name: "Last result", StateTopic: state, ValueTemplate: value("last_result"),
			Category: "diagnostic", Icon: "mdi:text-short"},
		entity{component: "sensor", object: "issuer", Name: "Issuer", StateTopic: state, ValueTemplate: value("issuer"),
			Category: "diagnostic", EnabledByDefault: new(false), Icon: "mdi:bank-outline"},
	)
	if cert.Endpoints {
		all = append(all,
			entity{component: "binary_sensor", object: "not_deployed", Name: "Not deployed", StateTopic: state, ValueTemplate: value("not_deployed"),
				DeviceClass: "problem", Category: "diagnostic"},
		)
	}
	return all
}

// serviceEntities is the contract's list of the service device's entities.
func serviceEntities(c Config) []entity {
	state := c.serviceTopic()
	return []entity{
		{component: "sensor", object: "certificates", Name: "Certificates", StateTopic: state, ValueTemplate: value("certificates"),
			StateClass: "measurement", Precision: new(0), Icon: "mdi:certificate"},
		{component: "sensor", object: "problems", Name: "Problems", StateTopic: state, ValueTemplate: value("problems"),
			StateClass: "measurement", Precision: new(0), Icon: "mdi:alert-outline"},
		{component: "sensor", object: "lowest_days_left", Name: "Lowest days left", StateTopic: state, ValueTemplate: value("lowest_days_left"),
			DeviceClass: "duration", Unit: "d", StateClass: "measurement", Precision: new(0)},
		{component: "sensor", object: "next_expiry", Name: "Next expiry", StateTopic: state, ValueTemplate: value("next_expiry"),
			DeviceClass: "timestamp"},
		{component: "sensor", object: "last_check", Name: "Last check", StateTopic: state, ValueTemplate: value("last_check"),
			DeviceClass: "timestamp", Category: "diagnostic"},
		{component: "binary_sensor", object: "connection", Name: "Connection", StateTopic: c.statusTopic(),
			PayloadOn: online, PayloadOff: offline, DeviceClass: "connectivity", Category: "diagnostic"},
		{component: "button", object: "check", Name: "Check now", CommandTopic: c.serviceSetTopic("check"),
			PayloadPress: press, Icon: "mdi:magnify"},
		{component: "button", object: "notify", Name: "Send test message", CommandTopic: c.serviceSetTopic("notify"),
			PayloadPress: press, Category: "config", Icon: "mdi:message-badge-outline"},
	}
}

// targetEntity is a problem sensor for a place where messages go. It is on
// from the first message that did not arrive.
func targetEntity(c Config, t Target) entity {
	scheme, number := t.ID, ""
	if i := strings.LastIndexByte(t.ID, '_'); i >= 0 {
		scheme, number = t.ID[:i], t.ID[i:]
	}
	name := scheme + strings.Replace(number, "_", " ", 1) // two of one scheme must differ
	if t.Name != "" && t.Name != t.ID {
		name = t.Name
	}
	return entity{component: "binary_sensor", object: "target_" + t.ID,
		Name:       "Messages by " + name,
		StateTopic: c.targetTopic(t.ID), ValueTemplate: "{{ 'OFF' if value_json.status == 'ok' else 'ON' }}",
		DeviceClass: "problem", Category: "diagnostic"}
}

// absolute says of which objects the value stays true while we are dead: they
// have no availability.
func absolute(object string) bool { return object == "connection" || object == "not_after" }

// complete fills in what is the same for all entities of node.
func (e entity) complete(c Config, node string, d device) entity {
	e.UniqueID = node + "_" + e.object
	e.DefaultEntityID = e.component + "." + e.UniqueID
	if !absolute(e.object) {
		e.Availability = c.statusTopic()
	}
	e.QoS = 1
	e.Device = d
	e.Origin = origin{originName, c.Version, supportURL}
	return e
}

func (e entity) message(c Config, node string) Message {
	return retained(c.discoveryTopic(e.component, node, e.object), encode(e))
}

func (c Config) serviceDevice() device {
	return device{Identifiers: []string{c.base()}, Name: serviceName, Manufacturer: manufacturer, Model: serviceModel, Version: c.Version}
}

// certificateDevice has nothing that changes at a renewal: Home Assistant
// would take each for a new discovery.
func (c Config) certificateDevice(cert Certificate, entities []entity) device {
	label := text(cert.Label, nameLimit)
	repeats := func(e entity) bool { return strings.HasPrefix(e.Name, label) }
	if label == none || slices.ContainsFunc(entities, repeats) {
		label = cert.Name // lower case, so no entity's name begins with it
	}
	return device{Identifiers: []string{c.node(cert.Name)}, Name: label, Manufacturer: manufacturer, Model: certificateModel, Via: c.base()}
}

// node is the part of topics and ids that stands for a certificate.
func (c Config) node(name string) string { return c.base() + "_" + name }
