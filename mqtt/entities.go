package mqtt

import (
	"encoding/json"
	"slices"
	"strings"
)

// EntityTemplate is for Home Assistant's POST /api/template, as the value of
// "template". The answer is for RealEntityIDs: a JSON list of the devices of
// every Certsitter, with what tells their entities apart. Nothing in it is a
// secret.
const EntityTemplate = `{%- set out = namespace(devices=[]) -%}
{%- for device in integration_entities('mqtt') | map('device_id') | reject('none') | unique
    if device_attr(device, 'manufacturer') == '` + manufacturer + `' -%}
  {%- set ids = namespace(mqtt=[]) -%}
  {%- for identifier in device_attr(device, 'identifiers') if identifier[0] == 'mqtt' -%}
    {%- set ids.mqtt = ids.mqtt + [identifier[1] | string] -%}
  {%- endfor -%}
  {%- set found = namespace(entities=[]) -%}
  {%- for id in device_entities(device) -%}
    {%- set found.entities = found.entities + [{
      'id': id,
      'name': (state_attr(id, 'friendly_name') or '') | string,
      'class': (state_attr(id, 'device_class') or '') | string,
      'unit': (state_attr(id, 'unit_of_measurement') or '') | string,
      'options': (state_attr(id, 'options') or []) | map('string') | list}] -%}
  {%- endfor -%}
  {%- set out.devices = out.devices + [{
    'ids': ids.mqtt,
    'name': (device_attr(device, 'name_by_user') or device_attr(device, 'name') or '') | string,
    'entities': found.entities}] -%}
{%- endfor -%}
{{ out.devices | to_json }}`

// answerLimit is more than a thousand certificates need.
const answerLimit = 4 << 20

// isEntityID says whether id is one: nothing else gets into what others paste.
func isEntityID(id string) bool {
	domain, object, ok := strings.Cut(id, ".")
	return ok && len(id) <= 255 && word(domain) && word(object)
}

// word says whether s is made of a-z, 0-9 and _.
func word(s string) bool {
	for _, r := range []byte(s) {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' {
			return false
		}
	}
	return s != ""
}

// RealEntityIDs reads what Home Assistant said to EntityTemplate and finds the
// entities of the snapshot in it. An entity is found by the id that we
// proposed; else by the one that Home Assistant makes of it when that is taken;
// else by its name; else by its kind, if its device has only one of it. What is
// not found that way, or found twice, is not in the map. An answer that cannot
// be read finds nothing.
func RealEntityIDs(c Config, s Snapshot, answer []byte) EntityIDs {
	found := EntityIDs{}
	if len(answer) > answerLimit {
		return found
	}
	var devices []foundDevice
	if json.Unmarshal(answer, &devices) != nil {
		return found
	}
	certs, targets, _ := namedOnce(s)
	service := serviceEntities(c)
	for _, t := range targets {
		service = append(service, targetEntity(c, t))
	}
	found.add(c.base(), service, devices)
	for _, cert := range certs {
		found.add(c.node(cert.Name), certificateEntities(c, cert), devices)
	}
	return found
}

// A foundDevice is one of Home Assistant's registry, a foundEntity one of its
// entities.
type foundDevice struct {
	IDs      []string      `json:"ids"` // of the MQTT integration
	Name     string        `json:"name"`
	Entities []foundEntity `json:"entities"`
}

type foundEntity struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"` // with the device's before it
	Class   string   `json:"class"`
	Unit    string   `json:"unit"`
	Options []string `json:"options"`
}

func (ids EntityIDs) add(node string, wanted []entity, devices []foundDevice) {
	i := slices.IndexFunc(devices, func(d foundDevice) bool { return slices.Contains(d.IDs, node) })
	if i < 0 {
		return
	}
	device, left := devices[i], slices.Clone(devices[i].Entities)
	left = slices.DeleteFunc(left, func(f foundEntity) bool { return !isEntityID(f.ID) })
	for _, same := range []func(e entity, f foundEntity) bool{
		func(e entity, f foundEntity) bool { return f.ID == proposed(node, e) },
		func(e entity, f foundEntity) bool { return numbered(f.ID, proposed(node, e)) },
		func(e entity, f foundEntity) bool {
			return f.component() == e.component && f.Name == device.Name+" "+e.Name
		},
		sameKind,
	} {
		wanted, left = ids.match(node, wanted, left, same)
	}
}

// match takes those that are the same as exactly one, both ways, and gives the
// rest.
func (ids EntityIDs) match(node string, wanted []entity, left []foundEntity, same func(entity, foundEntity) bool) ([]entity, []foundEntity) {
	taken := map[string]bool{}
	rest := slices.DeleteFunc(slices.Clone(wanted), func(e entity) bool {
		var hits []string
		for _, f := range left {
			if same(e, f) {
				hits = append(hits, f.ID)
			}
		}
		if len(hits) != 1 || rivals(wanted, left, hits[0], same) {
			return false
		}
		ids[proposed(node, e)], taken[hits[0]] = hits[0], true
		return true
	})
	return rest, slices.DeleteFunc(left, func(f foundEntity) bool { return taken[f.ID] })
}

// rivals says whether more than one of the wanted could be the entity id.
func rivals(wanted []entity, left []foundEntity, id string, same func(entity, foundEntity) bool) bool {
	f := left[slices.IndexFunc(left, func(f foundEntity) bool { return f.ID == id })]
	n := 0
	for _, e := range wanted {
		if same(e, f) {
			n++
		}
	}
	return n > 1
}

func proposed(node string, e entity) string { return e.component + "." + node + "_" + e.object }

func (f foundEntity) component() string {
	component, _, _ := strings.Cut(f.ID, ".")
	return component
}

// numbered says whether id is proposed with a number that makes it another one.
func numbered(id, proposed string) bool {
	rest, ok := strings.CutPrefix(id, proposed+"_")
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

func sameKind(e entity, f foundEntity) bool {
	return f.component() == e.component && f.Class == e.DeviceClass && f.Unit == e.Unit &&
		(len(e.Options) == 0 || slices.Equal(f.Options, e.Options))
}
