package mqtt

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// EntityIDs leads from the entity ids that we propose (default_entity_id) to
// the ones that Home Assistant gave. What is missing has the proposed one.
type EntityIDs map[string]string

// Dashboard is a view for Home Assistant's dashboards, as YAML to paste: a
// section for each certificate, and one for the service. It names what
// Messages announces for the same snapshot, with the ids of the map. The texts
// in it are ours and the certificates' labels, quoted; no state is.
func Dashboard(c Config, s Snapshot, ids EntityIDs) []byte {
	certs, targets, _ := namedOnce(s)
	y := &yamlText{}
	y.comment("A view for a dashboard of Home Assistant. Open the dashboard, press the pencil, +,",
		"then the three dots and Edit in YAML; put all of this there and save.")
	y.pair("title", "Certificates")
	y.pair("path", "certificates")
	y.pair("icon", "mdi:certificate")
	y.pair("type", "sections")
	y.number("max_columns", 3)
	y.list("sections", func() {
		for _, cert := range certs {
			y.item(func() { y.certificateSection(c, cert, ids) })
		}
		y.item(func() { y.serviceSection(c, targets, ids) })
	})
	return []byte(y.b.String())
}

// real is the id in force of a proposed one.
func (ids EntityIDs) real(proposed string) string {
	if id := ids[proposed]; entityID.MatchString(id) {
		return id
	}
	return proposed
}

// namer gives the real entity ids of one device.
func (ids EntityIDs) namer(node string) func(component, object string) string {
	return func(component, object string) string {
		return ids.real(component + "." + node + "_" + object)
	}
}

func (y *yamlText) certificateSection(c Config, cert Certificate, ids EntityIDs) {
	label := c.certificateDevice(cert, certificateEntities(c, cert)).Name
	id := ids.namer(c.node(cert.Name))
	y.pair("type", "grid")
	y.list("cards", func() {
		y.heading(label, "mdi:certificate", id("sensor", "status"))
		y.daysLeft(id("sensor", "days_left"), id("sensor", "status"), lifetimeDays(cert.State))
		y.tile(id("binary_sensor", "problem"), "State")
		if cert.Endpoints {
			y.tile(id("binary_sensor", "not_deployed"), "In use")
		}
		y.date(id("sensor", "not_after"), "Expires")
		next := func() { y.tile(id("sensor", "next_renewal"), "Next renewal") }
		if cert.Managed && cert.Endpoints { // so that no row is half empty
			next()
		}
		y.lastResult(id("sensor", "last_result"), id("binary_sensor", "problem"))
		if !cert.Managed {
			return
		}
		if !cert.Endpoints {
			next()
		}
		y.button(id("button", "renew"), "Renew now", cert.Endpoints, "Renew the certificate of "+label+" now, even if it is not due?")
	})
}

func (y *yamlText) serviceSection(c Config, targets []Target, ids EntityIDs) {
	id := ids.namer(c.base())
	y.pair("type", "grid")
	y.list("cards", func() {
		y.heading(serviceName, "mdi:shield-check", id("binary_sensor", "connection"))
		y.tile(id("sensor", "lowest_days_left"), "Lowest days left")
		y.date(id("sensor", "next_expiry"), "Next expiry")
		y.tile(id("sensor", "problems"), "Problems")
		y.tile(id("sensor", "last_check"), "Last check")
		for _, t := range targets {
			y.tile(id("binary_sensor", "target_"+t.ID), targetEntity(c, t).Name)
		}
		y.button(id("button", "check"), "Check now", false, "")
		y.button(id("button", "notify"), "Test message", false, "")
	})
}

// daysLeft is a bar as long as the certificate's life. Home Assistant cannot
// change a card's colour by a state, so there is one for each colour.
func (y *yamlText) daysLeft(entity, status string, lifetime int) {
	bad := []string{"critical", "expired"}
	for _, when := range []struct {
		colour, condition string
		states            []string
	}{
		{"green", "state_not", append([]string{"warning"}, bad...)},
		{"orange", "state", []string{"warning"}},
		{"red", "state", bad},
	} {
		y.item(func() {
			y.pair("type", "tile")
			y.pair("entity", entity)
			y.pair("name", "Days left")
			y.pair("color", when.colour)
			y.wide()
			y.list("features", func() {
				y.item(func() {
					y.pair("type", "bar-gauge")
					y.number("min", 0)
					y.number("max", lifetime)
				})
			})
			y.visibleIf(status, when.condition, when.states...)
		})
	}
}

// lifetimeDays is the end of the bar: a certificate that was just issued fills
// it. 90 days stand for what is not known.
func lifetimeDays(s State) int {
	if days := s.NotAfter.Sub(s.NotBefore).Hours() / 24; !s.NotBefore.IsZero() && days >= 0.5 && days < 1e5 {
		return int(math.Round(days))
	}
	return 90
}

// heading has the state of an entity beside it.
func (y *yamlText) heading(text, icon, badge string) {
	y.item(func() {
		y.pair("type", "heading")
		y.pair("heading", text)
		y.pair("icon", icon)
		y.list("badges", func() {
			y.item(func() {
				y.pair("type", "entity")
				y.pair("entity", badge)
				y.flag("show_icon", false)
			})
		})
	})
}

func (y *yamlText) tile(entity, name string) {
	y.item(func() {
		y.pair("type", "tile")
		y.pair("entity", entity)
		y.pair("name", name)
	})
}

// date is a tile that shows a day, which Home Assistant otherwise rounds to
// months.
func (y *yamlText) date(entity, name string) {
	y.item(func() {
		y.pair("type", "tile")
		y.pair("entity", entity)
		y.pair("name", name)
		y.pair("time_format", "date")
	})
}

// lastResult is one line while all is well, and the whole sentence where a
// person has to read it. A sentence may quote a stranger, so nothing in it is
// taken for Markdown.
func (y *yamlText) lastResult(entity, problem string) {
	y.item(func() {
		y.pair("type", "tile")
		y.pair("entity", entity)
		y.pair("name", "Last result")
		y.wide()
		y.visibleIf(problem, "state", "off")
	})
	y.item(func() {
		y.pair("type", "markdown")
		y.pair("content", `{{ states('`+entity+`') | regex_replace('([!-/:-@\\[-`+"`"+`{-~])', '\\\\\\1') }}`)
		y.wide()
		y.visibleIf(problem, "state", "on")
	})
}

// visibleIf shows a card while an entity has, or has not, one of the states.
func (y *yamlText) visibleIf(entity, condition string, states ...string) {
	y.list("visibility", func() {
		y.item(func() {
			y.pair("condition", "state")
			y.pair("entity", entity)
			y.list(condition, func() {
				for _, state := range states {
					y.line("- " + quoted(state))
				}
			})
		})
	})
}

// button is a tile that presses, wherever one taps on it.
func (y *yamlText) button(entity, name string, wide bool, confirmation string) {
	y.item(func() {
		y.pair("type", "tile")
		y.pair("entity", entity)
		y.pair("name", name)
		y.flag("hide_state", true)
		if wide {
			y.wide()
		}
		for _, where := range []string{"tap_action", "icon_tap_action"} {
			y.group(where, func() {
				y.pair("action", "perform-action")
				y.pair("perform_action", "button.press")
				y.group("target", func() { y.pair("entity_id", entity) })
				if confirmation != "" {
					y.group("confirmation", func() { y.pair("text", confirmation) })
				}
			})
		}
	})
}

// wide makes a card as wide as its section.
func (y *yamlText) wide() {
	y.group("grid_options", func() { y.pair("columns", "full") })
}

// yamlText writes block YAML, with every text in double quotes that could be
// taken for something else.
type yamlText struct {
	b     strings.Builder
	depth int
	dash  bool // the next line begins an item of a list
}

func (y *yamlText) comment(lines ...string) {
	for _, l := range lines {
		y.line("# " + l)
	}
}

func (y *yamlText) line(text string) {
	indent := strings.Repeat("  ", y.depth)
	if y.dash {
		indent = strings.Repeat("  ", y.depth-1) + "- "
		y.dash = false
	}
	y.b.WriteString(indent + text + "\n")
}

func (y *yamlText) pair(key, value string)       { y.line(key + ": " + quoted(value)) }
func (y *yamlText) number(key string, value int) { y.line(key + ": " + strconv.Itoa(value)) }
func (y *yamlText) flag(key string, value bool)  { y.line(key + ": " + strconv.FormatBool(value)) }

func (y *yamlText) group(key string, inside func()) {
	y.line(key + ":")
	y.depth++
	inside()
	y.depth--
}

// list is key with items below it, each made by item.
func (y *yamlText) list(key string, items func()) { y.group(key, items) }

func (y *yamlText) item(inside func()) {
	y.depth++
	y.dash = true
	inside()
	y.depth--
}

// quoted is a text as YAML 1.1 and 1.2 read it: words as they are, everything
// else as JSON writes it, which both can read.
func quoted(s string) string {
	if plainWord.MatchString(s) && !reservedWord.MatchString(s) {
		return s
	}
	return strings.NewReplacer("\ufffe", `\uFFFE`, "\uffff", `\uFFFF`, "\u007f", `\u007F`, "\u0085", `\u0085`, "\ufeff", `\uFEFF`).
		Replace(string(encode(s)))
}

// What needs no quotes: words, and ids such as sensor.x and mdi:x. Of the words
// some are no texts to YAML.
var (
	plainWord    = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*( [A-Za-z0-9_-]+)*|[a-z_]+[.:][a-z0-9_-]+)$`)
	reservedWord = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|none)$`)
)
