package homeassistant_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
)

func TestMain(m *testing.M) { os.Exit(homeassistant.Main(m)) }

// What the other tests rely on: a wrong message is seen, an entity that is not
// there too, and a restart keeps what is stored.
func TestCore(t *testing.T) {
	homeassistant.Needed(t)
	core := homeassistant.Start(t, homeassistant.Options{
		Listen: homeassistant.CoreAddress + ":8123",
		Files:  map[string]string{"packages/switch.yaml": "input_boolean:\n  lamp:\n    name: Lamp\n"},
	})
	core.Wait(t, "input_boolean.lamp", "off", 5*time.Second)
	core.Call(t, "input_boolean.turn_on", map[string]string{"entity_id": "input_boolean.lamp"})
	if got := core.Template(t, "{{ states('input_boolean.lamp') }}"); got != "on" {
		t.Errorf("the template says %q", got)
	}
	if got := core.State(t, "input_boolean.none").State; got != homeassistant.Absent {
		t.Errorf("an entity that is not there is %q", got)
	}
	core.Call(t, "persistent_notification.create", map[string]string{"notification_id": "n", "title": "T", "message": "M"})
	if got := core.Notifications(t)["n"]; got.Title != "T" || got.Message != "M" {
		t.Errorf("it shows %v", got)
	}
	if err := core.TryAsk(t, map[string]any{"type": "no/such"}, nil); err == nil || !strings.Contains(err.Error(), "Unknown command") {
		t.Errorf("a question that nobody knows: %v", err)
	}
	if got := core.Complaints(t); got != "" {
		t.Errorf("complaints:\n%s", got)
	}
	core.Call(t, "system_log.write", map[string]string{"message": "the cat is out", "level": "error"})
	if got := core.Complaints(t); !strings.Contains(got, "the cat is out") {
		t.Errorf("what is logged is no complaint: %q", got)
	}
	core.Restart(t)
	core.Wait(t, "input_boolean.lamp", "on", 5*time.Second)
	if got := core.Notifications(t); len(got) != 0 {
		t.Errorf("it was not restarted: %v", got)
	}
	core.Stop(t)
	if conn, err := net.Dial("tcp", homeassistant.CoreAddress+":8123"); err == nil {
		_ = conn.Close()
		t.Error("it goes on")
	}
	core.Restart(t)
}

func TestValidate(t *testing.T) {
	homeassistant.Needed(t)
	good := map[string]string{"homeassistant/sensor/a/b/config": `{"state_topic":"x","unique_id":"u"}`}
	if err := homeassistant.Validate(t, good); err != nil {
		t.Error(err)
	}
	wrong := map[string]string{
		`{"unique_id":"u"}`:                                     "state_topic",
		`{"stat_t":"x"}`:                                        "abbreviated keys ['stat_t']",
		`{"state_topic":"x","colour":"red"}`:                    "does not know: ['colour']",
		`{"state_topic":"x","device_class":"days"}`:             "SensorDeviceClass",
		`{"state_topic":"x","value_template":"{{ value_json."}`: "template",
	}
	topics, i := map[string]string{}, 0
	for payload := range wrong {
		i++
		topics[fmt.Sprintf("homeassistant/sensor/a/b%d/config", i)] = payload
	}
	err := homeassistant.Validate(t, topics)
	if err == nil {
		t.Fatal("nothing is refused")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(wrong) {
		t.Errorf("%d complaints:\n%v", len(lines), err)
	}
	for topic, payload := range topics {
		if !slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, topic+": ") && strings.Contains(line, wrong[payload])
		}) {
			t.Errorf("no %q about %s in:\n%v", wrong[payload], payload, err)
		}
	}
}
