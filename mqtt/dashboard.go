package mqtt

import (
	"math"
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
	var b strings.Builder
	b.WriteString(dashboardHead)
	for _, cert := range certs {
		b.WriteString(certificateSection(c, cert, ids))
	}
	b.WriteString(serviceSection(c, targets, ids))
	return []byte(b.String())
}

// real is the id in force of a proposed one.
func (ids EntityIDs) real(proposed string) string {
	if id := ids[proposed]; isEntityID(id) {
		return id
	}
	return proposed
}

// names are pairs for a Replacer: ${object} stands for the id of an entity.
func (ids EntityIDs) names(node string, entities []entity, pairs ...string) []string {
	for _, e := range entities {
		pairs = append(pairs, "${"+e.object+"}", ids.real(proposed(node, e)))
	}
	return pairs
}

func certificateSection(c Config, cert Certificate, ids EntityIDs) string {
	entities := certificateEntities(c, cert)
	label := c.certificateDevice(cert, entities).Name
	text := certificateHead + daysLeft("green", "state_not", "warning", "critical", "expired") +
		daysLeft("orange", "state", "warning") + daysLeft("red", "state", "critical", "expired") + stateTile
	renew := renewTile
	if cert.Endpoints {
		text += inUseTile
		renew = strings.Replace(renew, "        tap_action:", wide+"        tap_action:", 1)
	}
	text += expiresTile
	if cert.Managed && cert.Endpoints { // so that no row is half empty
		text += nextRenewalTile
	}
	text += lastResultCards
	if cert.Managed && !cert.Endpoints {
		text += nextRenewalTile
	}
	if cert.Managed {
		text += renew
	}
	return strings.NewReplacer(ids.names(c.node(cert.Name), entities,
		"${label}", quoted(label), "${lifetime}", strconv.Itoa(lifetimeDays(cert.State)),
		"${confirm}", quoted("Renew the certificate of "+label+" now, even if it is not due?"))...).Replace(text)
}

// daysLeft is a bar as long as the certificate's life. Home Assistant cannot
// change a card's colour by a state, so there is one for each colour.
func daysLeft(colour, condition string, statuses ...string) string {
	return strings.NewReplacer("${colour}", colour, "${condition}", condition).Replace(daysLeftTile) +
		"              - " + strings.Join(statuses, "\n              - ") + "\n"
}

func serviceSection(c Config, targets []Target, ids EntityIDs) string {
	text, entities := serviceHead, serviceEntities(c)
	for _, t := range targets {
		e := targetEntity(c, t)
		entities = append(entities, e)
		text += "      - type: tile\n        entity: ${" + e.object + "}\n        name: " + quoted(e.Name) + "\n"
	}
	return strings.NewReplacer(ids.names(c.base(), entities)...).Replace(text + serviceButtons)
}

// lifetimeDays is the end of the bar: a certificate that was just issued fills
// it. 90 days stand for what is not known.
func lifetimeDays(s State) int {
	if days := s.NotAfter.Sub(s.NotBefore).Hours() / 24; !s.NotBefore.IsZero() && days >= 0.5 && days < 1e5 {
		return int(math.Round(days))
	}
	return 90
}

// quoted is a text as YAML 1.1 and 1.2 read it, which is as JSON writes it, but
// for signs that YAML does not allow as they are.
func quoted(s string) string {
	return strings.NewReplacer("\ufffe", `\uFFFE`, "\uffff", `\uFFFF`, "\u007f", `\u007F`, "\u0085", `\u0085`, "\ufeff", `\uFEFF`).
		Replace(string(encode(s)))
}

const dashboardHead = `# A view for a dashboard of Home Assistant. Open the dashboard, press the pencil, +,
# then the three dots and Edit in YAML; put all of this there and save.
title: Certificates
path: certificates
icon: mdi:certificate
type: sections
max_columns: 3
sections:
`

const certificateHead = `  - type: grid
    cards:
      - type: heading
        heading: ${label}
        icon: mdi:certificate
        badges:
          - type: entity
            entity: ${status}
            show_icon: false
`

// wide makes a card as wide as its section.
const wide = `        grid_options:
          columns: full
`

const daysLeftTile = `      - type: tile
        entity: ${days_left}
        name: Days left
        color: ${colour}
` + wide + `        features:
          - type: bar-gauge
            min: 0
            max: ${lifetime}
        visibility:
          - condition: state
            entity: ${status}
            ${condition}:
`

const stateTile = `      - type: tile
        entity: ${problem}
        name: State
`

const inUseTile = `      - type: tile
        entity: ${not_deployed}
        name: In use
`

// A day, since Home Assistant otherwise rounds to months.
const expiresTile = `      - type: tile
        entity: ${not_after}
        name: Expires
        time_format: date
`

const nextRenewalTile = `      - type: tile
        entity: ${next_renewal}
        name: Next renewal
`

// lastResultCards are one line while all is well, and the whole sentence where a
// person has to read it. A sentence may quote a stranger, so nothing in it is
// taken for Markdown.
const lastResultCards = `      - type: tile
        entity: ${last_result}
        name: Last result
` + wide + `        visibility:
          - condition: state
            entity: ${problem}
            state: "off"
      - type: markdown
        content: >-
          {{ states('${last_result}') | regex_replace('([!-/:-@\\[-` + "`" + `{-~])', '\\\\\\1') }}
` + wide + `        visibility:
          - condition: state
            entity: ${problem}
            state: "on"
`

// renewTile presses wherever one taps on it.
const renewTile = `      - type: tile
        entity: ${renew}
        name: Renew now
        hide_state: true
        tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${renew}
          confirmation:
            text: ${confirm}
        icon_tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${renew}
          confirmation:
            text: ${confirm}
`

const serviceHead = `  - type: grid
    cards:
      - type: heading
        heading: Certsitter
        icon: mdi:shield-check
        badges:
          - type: entity
            entity: ${connection}
            show_icon: false
      - type: tile
        entity: ${lowest_days_left}
        name: Lowest days left
      - type: tile
        entity: ${next_expiry}
        name: Next expiry
        time_format: date
      - type: tile
        entity: ${problems}
        name: Problems
      - type: tile
        entity: ${last_check}
        name: Last check
`

const serviceButtons = `      - type: tile
        entity: ${check}
        name: Check now
        hide_state: true
        tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${check}
        icon_tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${check}
      - type: tile
        entity: ${notify}
        name: Test message
        hide_state: true
        tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${notify}
        icon_tap_action:
          action: perform-action
          perform_action: button.press
          target:
            entity_id: ${notify}
`
