package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/mqtt"
)

var usedID = regexp.MustCompile(`\b(?:sensor|binary_sensor|button|event)\.[a-z0-9_]+`)

func TestDashboard(t *testing.T) {
	homeassistant.Needed(t)
	t.Parallel()
	p := newPublished(t, nil)
	home, hostile := fine("home", "home.example.org"), fine("hostile", `{{ 1 + 1 }}"'<img src=x>: - #`)
	home.Endpoints = true
	nas := failing(fine("nas", ""), "expired", -2, "Gone.")
	nas.Managed = false
	hostile = failing(hostile, "critical", 3, `![x](https://evil.example/x.png) <script>alert(1)</script> {{ 1 + 1 }} **bold** https://evil.example`)
	s := snapshot(home, hostile, nas)
	s.Targets = []mqtt.Target{{ID: "ntfy_1a2b3c", Status: "ok"}}
	p.show(t, s)
	p.core.Wait(t, "sensor.certsitter_nas_last_result", "Gone.", waitLimit)
	p.core.Wait(t, "binary_sensor.certsitter_target_ntfy_1a2b3c", "off", waitLimit)

	p.core.Ask(t, map[string]any{"type": "lovelace/dashboards/create", "url_path": dashboardPath, "title": "Test", "mode": "storage"}, nil)

	t.Run("with the proposed ids", func(t *testing.T) { p.save(t, mqtt.Dashboard(p.config, s, nil)) })

	t.Run("hostile texts stay what they are", func(t *testing.T) {
		said := p.core.State(t, "sensor.certsitter_hostile_last_result").State
		for _, card := range p.save(t, mqtt.Dashboard(p.config, s, nil)).cards("markdown") {
			content, _ := card["content"].(string)
			if !strings.Contains(content, "certsitter_hostile_") {
				continue
			}
			shown := p.card(t, content)
			if got := escaped.ReplaceAllString(shown, "$1"); got != said {
				t.Errorf("shown is %q, not %q", got, said)
			}
			if signs := escaped.ReplaceAllString(shown, ""); strings.ContainsAny(signs, "<>[]*`:/") {
				t.Errorf("left to be read as Markdown: %q", shown)
			}
			return
		}
		t.Error("there is no card with the hostile text")
	})

	t.Run("the card that finds them by itself", func(t *testing.T) {
		var card struct{ Type, Content string }
		if err := yaml.Unmarshal([]byte(shownYAML(t, "type: markdown")[0]), &card); err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(p.card(t, card.Content), "\n")
		for i, r := range rows {
			rows[i] = escaped.ReplaceAllString(r, "$1")
		}
		want := []string{"| | Certificate | Days left |", "|---|---|--:|", "| ⛔ | nas | -2 |",
			"| 🔴 | " + hostile.Label + " | 3 |", "| 🟢 | home.example.org | 59 |"}
		if !slices.Equal(rows, want) {
			t.Errorf("it shows\n%s", strings.Join(rows, "\n"))
		}
	})

	t.Run("with the real ids", func(t *testing.T) {
		rename := map[string]string{
			"sensor.certsitter_home_days_left":           "sensor.front_door_days",
			"sensor.certsitter_home_not_after":           "sensor.front_door_end",
			"sensor.certsitter_hostile_status":           "sensor.certsitter_hostile_status_2",
			"button.certsitter_home_renew":               "button.front_door",
			"binary_sensor.certsitter_connection":        "binary_sensor.somebody_there",
			"binary_sensor.certsitter_home_not_deployed": "binary_sensor.front_door_stale",
		}
		for from, to := range rename {
			p.core.Ask(t, map[string]any{"type": "config/entity_registry/update", "entity_id": from, "new_entity_id": to}, nil)
		}
		for _, to := range rename {
			p.core.Wait(t, to, ".+", waitLimit)
		}
		ids := mqtt.RealEntityIDs(p.config, s, []byte(p.core.Template(t, mqtt.EntityTemplate)))
		for from, to := range rename {
			if ids[from] != to {
				t.Errorf("%s is taken for %q, not %s", from, ids[from], to)
			}
		}
		text := mqtt.Dashboard(p.config, s, ids)
		p.save(t, text)
		for from := range rename {
			if slices.Contains(usedID.FindAllString(string(text), -1), from) {
				t.Errorf("the dashboard has %s, which is gone", from)
			}
		}
	})

	if said := p.core.Complaints(t); said != "" {
		t.Errorf("Home Assistant complains:\n%s", said)
	}
}

// askCard renders a template as cards do, by Core's own Python: with strict, and
// what comes is an event.
const askCard = `
import asyncio, aiohttp, json, sys
url, token, template = sys.argv[1:]
async def main():
    async with aiohttp.ClientSession() as session, session.ws_connect(url + "/api/websocket") as ws:
        await ws.receive_json()
        await ws.send_json({"type": "auth", "access_token": token})
        await ws.receive_json()
        await ws.send_json({"id": 1, "type": "render_template", "template": template, "strict": True, "report_errors": True})
        while (said := await ws.receive_json(timeout=20))["type"] != "event":
            pass
        print(json.dumps(said["event"]))
asyncio.run(main())
`

// card is what a person sees in a card that shows a template. Other than the
// templates of automations it forgives nothing: one that asks for what is not
// there shows nothing at all.
func (p *published) card(t *testing.T, template string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../../internal/homeassistant/harness/home-assistant", "python", "-c", askCard, p.core.URL, p.core.Token, template)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("render a card: %v", err)
	}
	var said struct {
		Result any
		Error  string
	}
	if err := json.Unmarshal(out, &said); err != nil || said.Error != "" {
		t.Fatalf("the card shows nothing: %s (%v)", out, err)
	}
	return fmt.Sprint(said.Result)
}

const dashboardPath = "test-certificates"

// lovelace is a dashboard as Home Assistant keeps it.
type lovelace struct {
	Views []struct {
		Sections []struct {
			Cards []map[string]any `json:"cards"`
		} `json:"sections"`
	} `json:"views"`
}

// cards are those of a type.
func (l lovelace) cards(kind string) (found []map[string]any) {
	for _, v := range l.Views {
		for _, s := range v.Sections {
			for _, c := range s.Cards {
				if c["type"] == kind {
					found = append(found, c)
				}
			}
		}
	}
	return found
}

// save makes a dashboard of the view, as a person who pastes it, and looks
// whether everything in it is there.
func (p *published) save(t *testing.T, text []byte) (kept lovelace) {
	t.Helper()
	var view map[string]any
	if err := yaml.Unmarshal(text, &view); err != nil {
		t.Fatal(err)
	}
	p.core.Ask(t, map[string]any{"type": "lovelace/config/save", "url_path": dashboardPath, "config": map[string]any{"views": []any{view}}}, nil)
	p.core.Ask(t, map[string]any{"type": "lovelace/config", "url_path": dashboardPath}, &kept)
	if len(kept.cards("tile")) == 0 {
		t.Fatalf("nothing of it was kept: %+v", kept)
	}
	states := p.core.States(t, ".")
	used := map[string]bool{}
	for _, id := range usedID.FindAllString(string(text), -1) {
		used[id] = true
	}
	delete(used, "button.press") // an action
	for _, id := range slices.Sorted(maps.Keys(used)) {
		if s, there := states[id]; !there || s.State == "unavailable" {
			t.Errorf("%s is in the dashboard, and in Home Assistant it is %q", id, s.State)
		}
	}
	return kept
}
