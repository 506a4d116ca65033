package mqtt

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestDashboard(t *testing.T) {
	got := Dashboard(testConfig(), testSnapshot(), nil)
	const golden = "testdata/dashboard.golden"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the dashboard is another one (go test ./mqtt -update shows it):\n%s", got)
	}
}

// view is as much of Home Assistant's form of a view as is looked at.
type view struct {
	Title    string
	Type     string
	Sections []struct {
		Type  string
		Cards []map[string]any
	}
}

func readView(t testing.TB, text []byte) view {
	t.Helper()
	var v view
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatalf("not YAML: %v\n%s", err, text)
	}
	if v.Type != "sections" || len(v.Sections) == 0 {
		t.Fatalf("not a view of sections:\n%s", text)
	}
	return v
}

var usedID = regexp.MustCompile(`\b(?:sensor|binary_sensor|button|event)\.[a-z0-9_]+`)

func TestDashboardNamesWhatIsAnnounced(t *testing.T) {
	announced := map[string]bool{} // by id: whether it is enabled
	for _, m := range testMessages(t) {
		var e struct {
			ID      string `json:"default_entity_id"`
			Enabled *bool  `json:"enabled_by_default"`
		}
		if json.Unmarshal(m.Payload, &e) == nil && e.ID != "" {
			announced[e.ID] = e.Enabled == nil || *e.Enabled
		}
	}
	text := string(Dashboard(testConfig(), testSnapshot(), nil))
	used := usedID.FindAllString(text, -1)
	for _, id := range used {
		if id != "button.press" && !announced[id] {
			t.Errorf("%s is not announced, or disabled", id)
		}
	}
	for _, id := range []string{"sensor.certsitter_home_days_left", "button.certsitter_new_one_renew", "binary_sensor.certsitter_nas_not_deployed",
		"binary_sensor.certsitter_connection", "binary_sensor.certsitter_target_ntfy_1a2b3c", "sensor.certsitter_pem_not_after"} {
		if !slices.Contains(used, id) {
			t.Errorf("%s is missing", id)
		}
	}
	if strings.Contains(text, "button.certsitter_nas_renew") {
		t.Error("a watched certificate has a button")
	}
	if v := readView(t, []byte(text)); len(v.Sections) != 5 {
		t.Errorf("%d sections, not one for each of four certificates and one for the service", len(v.Sections))
	}
}

func TestDashboardHasTheRealIDs(t *testing.T) {
	text := string(Dashboard(testConfig(), testSnapshot(), EntityIDs{
		"sensor.certsitter_home_days_left": "sensor.front_door_days",
		"button.certsitter_home_renew":     "button.certsitter_home_renew_2",
		"sensor.certsitter_home_status":    "sensor.x') }}{{ evil",
	}))
	for id, want := range map[string]bool{
		"sensor.front_door_days": true, "sensor.certsitter_home_days_left": false, "button.certsitter_home_renew_2": true,
		"sensor.certsitter_home_status": true, "evil": false, "sensor.certsitter_nas_days_left": true,
	} {
		if strings.Contains(text, id) != want {
			t.Errorf("%s: there is %v, want %v", id, !want, want)
		}
	}
}

// hostileTexts are names that break out of YAML, Jinja, Markdown or HTML where
// somebody forgets to quote.
func hostileTexts() []string {
	return []string{
		`"`, `'`, "a: b", "- a", "# no comment", "a #b", "&a", "*a", "!env A", "%a", "@a", "`a`", "{a: b}", "[a]", "|", ">", "?", "---", "...", "~", "null", "yes", "No", "ON", "off",
		"1", "1e3", "0x10", "1:30", ".inf", "=", "<<", "{{ 1 + 1 }}", "{% raw %}", "</script><img src=x onerror=alert(1)>", "![x](https://evil.example/x.png)",
		"a\\nb", "\\", "ä€🙂", "\U0010ffff", "\ufffe\uffff", "\u2028", strings.Repeat("x", 300), "Problem", "Renew now, please", "${days_left}${confirm}",
	}
}

func TestDashboardQuotesHostileNames(t *testing.T) {
	for _, label := range hostileTexts() {
		s := Snapshot{Certificates: []Certificate{{Name: "home", Label: label, Managed: true}}}
		text := Dashboard(testConfig(), s, nil)
		v := readView(t, text)
		want := testConfig().certificateDevice(s.Certificates[0], certificateEntities(testConfig(), s.Certificates[0])).Name
		if got := v.Sections[0].Cards[0]["heading"]; got != want {
			t.Errorf("the name %q is shown as %#v", want, got)
		}
		if len(v.Sections) != 2 {
			t.Errorf("%q makes %d sections", label, len(v.Sections))
		}
		if i := bytes.IndexFunc(text, func(r rune) bool { return r == 0xfffe || r == 0xffff || r < ' ' && r != '\n' }); i >= 0 {
			t.Errorf("%q leaves a character that YAML does not allow at %d", label, i)
		}
	}
}

func TestBarEndsWithTheLife(t *testing.T) {
	now := at("2026-11-21T12:00:00Z")
	for _, c := range []struct {
		state State
		want  int
	}{
		{State{}, 90},
		{State{NotBefore: now, NotAfter: now.Add(90*24*time.Hour - time.Second)}, 90},
		{State{NotBefore: now, NotAfter: now.Add(160 * time.Hour)}, 7},
		{State{NotBefore: now, NotAfter: now.Add(time.Hour)}, 90},
		{State{NotBefore: now, NotAfter: now.Add(-time.Hour)}, 90},
		{State{NotAfter: now}, 90},
	} {
		if got := lifetimeDays(c.state); got != c.want {
			t.Errorf("%v to %v: %d, not %d", c.state.NotBefore, c.state.NotAfter, got, c.want)
		}
	}
}
