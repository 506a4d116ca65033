package app

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/internal/homeassistant"
)

const (
	blueprint     = "certsitter/certificate_problem.yaml"
	blueprintFile = "../../../blueprints/automation/" + blueprint
)

// Automations as people make them: one with what the blueprint proposes, one that
// tells everything that an action can use, and one that does not repeat.
const automations = `
- id: as_proposed
  alias: As proposed
  use_blueprint:
    path: ` + blueprint + `
    input:
      sensors: [binary_sensor.certsitter_home_problem, binary_sensor.certsitter_nas_problem]
      silent_after: {seconds: 3}
- id: own_actions
  alias: Own actions
  use_blueprint:
    path: ` + blueprint + `
    input:
      sensors: [binary_sensor.certsitter_home_problem, binary_sensor.certsitter_nas_problem]
      silent_after: {hours: 0, minutes: 0, seconds: 3}
      on_problem: &tell
      - action: persistent_notification.create
        data:
          notification_id: "own_{{ kind }}_{{ entity }}"
          title: "{{ title }}"
          message: "{{ certificate }}|{{ days_left }}|{{ status }}|{{ last_result }}|{{ message }}"
      on_fine: *tell
- id: only_once
  alias: Only once
  use_blueprint:
    path: ` + blueprint + `
    input:
      sensors: binary_sensor.certsitter_home_problem
      daily: false
      on_problem:
      - action: persistent_notification.create
        data: {notification_id: own_once, message: "{{ message }}"}
`

// everyAutomation is their ids.
func everyAutomation() []string {
	return []string{"automation.as_proposed", "automation.own_actions", "automation.only_once"}
}

func TestBlueprint(t *testing.T) {
	homeassistant.Needed(t)
	t.Parallel()
	text, err := os.ReadFile(blueprintFile)
	if err != nil {
		t.Fatal(err)
	}
	p := newPublished(t, map[string]string{"blueprints/automation/" + blueprint: string(text), "automations/ours.yaml": automations,
		"automations/docs.yaml": strings.Join(shownYAML(t, "- alias: "), "\n")})
	home, nas := fine("home", "home.example.org"), fine("nas", "")
	p.show(t, snapshot(home, nas))
	p.core.Wait(t, "binary_sensor.certsitter_nas_problem", "off", waitLimit)
	const ours, ourOwn, theirs = "certsitter_binary_sensor_certsitter_home_problem", "own_problem_binary_sensor.certsitter_home_problem", "own_problem_binary_sensor.certsitter_nas_problem"

	t.Run("known", func(t *testing.T) {
		var known map[string]struct {
			Metadata struct {
				Name, Domain string
				SourceURL    string `json:"source_url"`
			}
			Error string
		}
		p.core.Ask(t, map[string]any{"type": "blueprint/list", "domain": "automation"}, &known)
		b := known[blueprint]
		if b.Error != "" || b.Metadata.Name == "" || !strings.HasSuffix(b.Metadata.SourceURL, "/blueprints/automation/"+blueprint) {
			t.Errorf("Home Assistant knows the blueprint as %+v", b)
		}
		for _, id := range everyAutomation() {
			if state := p.core.State(t, id); state.State != "on" {
				t.Errorf("%s is %s", id, state.State)
			}
		}
		docs := p.core.States(t, `^automation\.(a_certificate|home_assistant_takes)`)
		if len(docs) != len(shownYAML(t, "- alias: ")) {
			t.Errorf("of the documentation's automations there are %v", docs)
		}
		// There is no phone here.
		p.core.Call(t, "automation.turn_off", map[string]any{"entity_id": slices.Collect(maps.Keys(docs))})
		if shown := p.shown(t); len(shown) != 0 {
			t.Errorf("it tells without a problem: %v", shown)
		}
	})

	t.Run("problem", func(t *testing.T) {
		p.show(t, snapshot(failing(home, "warning", 15, "Nobody answered the CA on port 80."), nas))
		shown := p.await(t, ours, ourOwn, "own_once")
		p.equal(t, shown[ours], "Certificate home.example.org: warning", "It has 15 days left. Nobody answered the CA on port 80.")
		p.equal(t, shown[ourOwn], "Certificate home.example.org: warning",
			"home.example.org|15|warning|Nobody answered the CA on port 80.|It has 15 days left. Nobody answered the CA on port 80.")
		if len(shown) != 3 {
			t.Errorf("there is more: %v", shown)
		}
	})

	// again is what happens every day, and when somebody presses Run.
	again := func(t *testing.T, ids ...string) map[string]homeassistant.Notification {
		t.Helper()
		p.dismiss(t)
		p.core.Call(t, "automation.trigger", map[string]any{"entity_id": everyAutomation()})
		return p.await(t, ids...)
	}

	t.Run("every day", func(t *testing.T) {
		shown := again(t, ours, ourOwn)
		p.equal(t, shown[ours], "Certificate home.example.org: warning", "It has 15 days left. Nobody answered the CA on port 80.")
		p.quiet(t)
		if _, there := p.shown(t)["own_once"]; there {
			t.Error("one that does not repeat has")
		}
	})

	t.Run("hostile texts", func(t *testing.T) {
		before := p.core.State(t, "sensor.certsitter_home_last_result").State
		for _, name := range []string{"jinja", "quotes", "html", "none"} {
			result := hostile()[name]
			p.show(t, snapshot(failing(home, "critical", 1, result), nas))
			said := p.core.WaitFor(t, "sensor.certsitter_home_last_result", "the hostile text", waitLimit,
				func(s homeassistant.State) bool { return s.State != before }).State
			before = said
			if name == "none" {
				said = "" // Home Assistant takes it for what it says
			}
			shown := again(t, ours, ourOwn)
			p.equal(t, shown[ours], "Certificate home.example.org: critical", strings.TrimSpace("It has one day left. "+said))
			if !strings.HasSuffix(shown[ourOwn].Message, "|"+strings.TrimSpace("It has one day left. "+said)) {
				t.Errorf("%s: told is %q, not %q", name, shown[ourOwn].Message, said)
			}
		}
	})

	t.Run("hostile names", func(t *testing.T) {
		for _, label := range []string{"{{ 1 + 1 }}", "[1, 2]", `{"a": "b"}`, `<img src=x>![x](https://evil.example/x.png)"'`} {
			hostileNas := failing(nas, "expired", -2, "Gone.")
			hostileNas.Label = label
			p.show(t, snapshot(home, hostileNas))
			p.core.WaitFor(t, "binary_sensor.certsitter_nas_problem", "its name", waitLimit, func(s homeassistant.State) bool {
				return s.State == "on" && s.Attributes["friendly_name"] == label+" Problem"
			})
			shown := again(t, theirs)
			if want := "Certificate " + label + ": expired"; shown[theirs].Title != want {
				t.Errorf("the title is %q, not %q", shown[theirs].Title, want)
			}
			if want := "|-2|expired|Gone.|It expired 2 days ago. Gone."; !strings.HasSuffix(shown[theirs].Message, want) {
				t.Errorf("the message is %q, not …%q", shown[theirs].Message, want)
			}
		}
	})

	t.Run("fine again", func(t *testing.T) {
		p.show(t, snapshot(home, nas))
		p.dismiss(t)
		p.show(t, snapshot(failing(home, "warning", 15, "No."), nas))
		p.await(t, ours, ourOwn)
		p.show(t, snapshot(home, nas))
		shown := p.await(t, "own_fine_binary_sensor.certsitter_home_problem")
		p.equal(t, shown["own_fine_binary_sensor.certsitter_home_problem"], "Certificate home.example.org: fine again", "home.example.org|59|ok|Renewed.|It has 59 days left. Renewed.")
		eventually(t, "the notification is gone", waitLimit, func() bool { _, there := p.shown(t)[ours]; return !there })
	})

	t.Run("silent", func(t *testing.T) {
		p.dismiss(t)
		p.stop()
		shown := p.await(t, "certsitter_silent", "own_silent_binary_sensor.certsitter_home_problem")
		if got := shown["certsitter_silent"]; got.Title != "Certsitter is silent" || !strings.Contains(got.Message, "nobody looks after") {
			t.Errorf("it says %+v", got)
		}
		if len(shown) != 2 {
			t.Errorf("the certificates are told one by one: %v", shown)
		}
		p.start(t)
		p.show(t, snapshot(home, nas))
		shown = p.await(t, "own_back_binary_sensor.certsitter_home_problem")
		if _, there := shown["own_fine_binary_sensor.certsitter_home_problem"]; there {
			t.Errorf("it says that a problem is gone that was not there: %v", shown)
		}
		eventually(t, "the notification is gone", waitLimit, func() bool { _, there := p.shown(t)["certsitter_silent"]; return !there })
	})

	if said := p.core.Complaints(t); said != "" {
		t.Errorf("Home Assistant complains:\n%s", said)
	}
}

// shownYAML is what the documentation shows to be pasted, by its beginning.
func shownYAML(t *testing.T, begin string) (found []string) {
	t.Helper()
	for _, block := range strings.Split(read(t, "../../../docs/home-assistant.md"), "```yaml\n")[1:] {
		if text, _, _ := strings.Cut(block, "```"); strings.HasPrefix(text, begin) {
			found = append(found, text)
		}
	}
	if len(found) == 0 {
		t.Fatalf("the documentation shows no YAML that begins with %q", begin)
	}
	return found
}

// shown are the notifications of ours and of the test's.
func (p *published) shown(t *testing.T) map[string]homeassistant.Notification {
	t.Helper()
	all := p.core.Notifications(t)
	for id := range all {
		if !strings.HasPrefix(id, "certsitter_") && !strings.HasPrefix(id, "own_") {
			delete(all, id)
		}
	}
	return all
}

func (p *published) await(t *testing.T, ids ...string) (shown map[string]homeassistant.Notification) {
	t.Helper()
	eventually(t, fmt.Sprintf("the notifications %q", ids), waitLimit, func() bool {
		shown = p.shown(t)
		for _, id := range ids {
			if _, there := shown[id]; !there {
				return false
			}
		}
		return true
	})
	return shown
}

// dismiss waits for what is under way, and takes all away.
func (p *published) dismiss(t *testing.T) {
	t.Helper()
	p.quiet(t)
	p.core.Call(t, "persistent_notification.dismiss_all", map[string]any{})
}

// quiet waits until no automation runs.
func (p *published) quiet(t *testing.T) {
	t.Helper()
	for _, id := range everyAutomation() {
		p.core.WaitFor(t, id, "quiet", waitLimit, func(s homeassistant.State) bool { return s.Attributes["current"] == float64(0) })
	}
}

var escaped = regexp.MustCompile("\\\\([!-/:-@\\[-`{-~])")

// equal compares what a person reads: a notification is Markdown, in which a
// backslash before a sign makes it that sign.
func (p *published) equal(t *testing.T, got homeassistant.Notification, title, message string) {
	t.Helper()
	plain := escaped.ReplaceAllString(got.Message, "$1")
	if got.Title != title || plain != message && got.Message != message {
		t.Errorf("told is\n %q: %q, not\n %q: %q", got.Title, plain, title, message)
	}
	if signs := escaped.ReplaceAllString(got.Message, ""); plain == message && strings.ContainsAny(signs, "<>[]*`{}") && strings.HasPrefix(got.ID, "certsitter_") {
		t.Errorf("left to be read as Markdown: %q", got.Message)
	}
}
