package mqtt

import (
	"encoding/json"
	"testing"
)

// answerOf is what Home Assistant says where every entity has the proposed id
// but for what change does.
func answerOf(t testing.TB, change func(f *foundEntity) (keep bool)) []byte {
	t.Helper()
	devices := map[string]*foundDevice{}
	var order []string
	for _, m := range testMessages(t) {
		var e entity
		if json.Unmarshal(m.Payload, &e) != nil || e.DefaultEntityID == "" {
			continue
		}
		if e.EnabledByDefault != nil && !*e.EnabledByDefault {
			continue
		}
		node := e.Device.Identifiers[0]
		if devices[node] == nil {
			devices[node] = &foundDevice{IDs: e.Device.Identifiers, Name: e.Device.Name}
			order = append(order, node)
		}
		f := foundEntity{ID: e.DefaultEntityID, Name: e.Device.Name + " " + e.Name, Class: e.DeviceClass, Unit: e.Unit, Options: e.Options}
		if change == nil || change(&f) {
			devices[node].Entities = append(devices[node].Entities, f)
		}
	}
	var all []foundDevice
	for _, node := range order {
		all = append(all, *devices[node])
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRealEntityIDs(t *testing.T) {
	const days, status, result, renew = "sensor.certsitter_home_days_left", "sensor.certsitter_home_status", "sensor.certsitter_home_last_result", "button.certsitter_home_renew"
	const problem, undeployed, expires = "binary_sensor.certsitter_home_problem", "binary_sensor.certsitter_home_not_deployed", "sensor.certsitter_home_not_after"
	become := func(to map[string]foundEntity) func(*foundEntity) bool {
		return func(f *foundEntity) bool {
			as, there := to[f.ID]
			if there {
				f.ID = as.ID
				if as.Name != "" {
					f.Name = as.Name
				}
			}
			return !there || as.ID != ""
		}
	}
	for name, c := range map[string]struct {
		change func(*foundEntity) bool
		want   map[string]string // "" = not to be found
	}{
		"as proposed": {nil, map[string]string{days: days, "sensor.certsitter_lowest_days_left": "sensor.certsitter_lowest_days_left",
			"binary_sensor.certsitter_target_ntfy_1a2b3c": "binary_sensor.certsitter_target_ntfy_1a2b3c", "sensor.certsitter_home_issuer": ""}},
		"with a number":           {become(map[string]foundEntity{days: {ID: days + "_2"}}), map[string]string{days: days + "_2"}},
		"renamed, with its name":  {become(map[string]foundEntity{expires: {ID: "sensor.door_end"}}), map[string]string{expires: "sensor.door_end"}},
		"renamed, with another":   {become(map[string]foundEntity{days: {"sensor.door", "Door", "", "", nil}}), map[string]string{days: "sensor.door"}},
		"an enumeration":          {become(map[string]foundEntity{status: {"sensor.door", "Door", "", "", nil}}), map[string]string{status: "sensor.door"}},
		"the only button":         {become(map[string]foundEntity{renew: {"button.door", "Door", "", "", nil}}), map[string]string{renew: "button.door"}},
		"one of two kinds is out": {become(map[string]foundEntity{problem: {"binary_sensor.door", "Door", "", "", nil}}), map[string]string{problem: "binary_sensor.door", undeployed: undeployed}},
		"two of one kind": {become(map[string]foundEntity{problem: {"binary_sensor.a", "A", "", "", nil}, undeployed: {"binary_sensor.b", "B", "", "", nil}}),
			map[string]string{problem: "", undeployed: ""}},
		"gone":              {become(map[string]foundEntity{result: {}}), map[string]string{result: "", days: days}},
		"no entity":         {become(map[string]foundEntity{days: {ID: "sensor.x') }}"}}), map[string]string{days: ""}},
		"of another domain": {become(map[string]foundEntity{days: {ID: "number.certsitter_home_days_left"}}), map[string]string{days: ""}},
	} {
		t.Run(name, func(t *testing.T) {
			got := RealEntityIDs(testConfig(), testSnapshot(), answerOf(t, c.change))
			for proposed, want := range c.want {
				if got[proposed] != want {
					t.Errorf("%s is %q, not %q", proposed, got[proposed], want)
				}
			}
		})
	}
}

func TestRealEntityIDsOfABadAnswer(t *testing.T) {
	for _, answer := range []string{"", "unknown", "null", "{}", `[{"ids": "certsitter"}]`, `[null]`, `[{"ids": ["certsitter_home"], "entities": null}]`, "[", `[{"ids":["other"],"entities":[{"id":"sensor.certsitter_home_days_left"}]}]`} {
		if got := RealEntityIDs(testConfig(), testSnapshot(), []byte(answer)); len(got) != 0 {
			t.Errorf("%q finds %v", answer, got)
		}
	}
}

func FuzzRealEntityIDs(f *testing.F) {
	f.Add(answerOf(f, nil))
	f.Add([]byte(`[{"ids":["certsitter_home"],"name":"x","entities":[{"id":"sensor.certsitter_home_days_left_2"},{"id":"sensor.certsitter_home_days_left_3"}]}]`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		taken := map[string]string{}
		for proposed, id := range RealEntityIDs(testConfig(), testSnapshot(), answer) {
			if !isEntityID(id) {
				t.Errorf("%s is %q", proposed, id)
			}
			if other, twice := taken[id]; twice {
				t.Errorf("%s stands for %s and %s", id, proposed, other)
			}
			taken[id] = proposed
		}
	})
}
