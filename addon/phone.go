package addon

import (
	"context"
	"strconv"
	"strings"
)

// An Urgency says how a phone is to show a message.
type Urgency int

// Quiet messages wait until somebody looks, Usual ones sound as the phone is
// set, and Urgent ones come at once, also while it saves power.
const (
	Quiet Urgency = iota
	Usual
	Urgent
)

// channel is what Android's settings call our urgent messages, for which a person
// may choose a sound.
const channel = "Certsitter"

// Data are the settings with which Home Assistant's Companion apps show a message
// (companion.home-assistant.io, Notifications). One with the same tag takes the
// place of the one before; page is the path in Home Assistant that a tap leads
// to, "" = none. Other notify actions pass over what they do not know.
func (u Urgency) Data(tag, page string) map[string]any {
	data := map[string]any{"tag": tag, "group": "certsitter"}
	if page != "" {
		data["clickAction"] = page // Android
		data["url"] = page         // iOS
	}
	switch u {
	case Quiet:
		data["push"] = map[string]any{"interruption-level": "passive"}
	case Urgent:
		// Not "critical", which breaks through a muted phone at night: days are left,
		// and quiet_hours are the user's own.
		data["push"] = map[string]any{"interruption-level": "time-sensitive"}
		data["ttl"], data["priority"], data["channel"], data["importance"] = 0, "high", channel, "high"
	}
	return data
}

// PagePath is the path in Home Assistant's frontend at which the page of the app
// with that slug is shown, for this Core: /app/… since 2026.2
// (home-assistant/core#161264), before that /hassio/ingress/…. A Core that cannot
// be asked is taken for a new one.
func (c *Core) PagePath(ctx context.Context, slug string) string {
	if s, err := c.status(ctx, 0); err == nil && before(s.Version, 2026, 2) {
		return "/hassio/ingress/" + slug
	}
	return "/app/" + slug
}

// before tells of a version of Core (2026.1.3) that it is older.
func before(version string, year, month int) bool {
	parts := strings.Split(version, ".")
	if len(parts) < 2 {
		return false
	}
	y, errYear := strconv.Atoi(parts[0])
	m, errMonth := strconv.Atoi(parts[1])
	if errYear != nil || errMonth != nil {
		return false
	}
	return y < year || y == year && m < month
}
