package mqtt

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testConfig() Config {
	return Config{Broker: "tcp://127.0.0.1:1883", Installation: "7f3a9c", Version: "0.1.0"}
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// testSnapshot has every kind of certificate and of value.
func testSnapshot() Snapshot {
	home := State{
		Status: "ok", DaysLeft: new(41),
		NotAfter: at("2027-01-02T03:04:05+01:00"), NotBefore: at("2026-10-04T02:04:06Z"),
		LastResult: "Renewed, valid for 90 days.", LastRenewal: at("2026-10-04T03:04:06.789Z"), NextRenewal: at("2026-12-03T12:00:00Z"),
		Issuer: "R12", Subject: "home.example.org", Fingerprint: strings.Repeat("0a", 32), KeyType: "ec256", Source: "managed",
	}
	return Snapshot{
		Service: Service{Certificates: 4, Problems: 1, LowestDaysLeft: new(-2), NextExpiry: at("2026-11-18T10:00:00Z"),
			LastCheck: at("2026-11-21T10:48:00Z"), NextRenewal: at("2026-12-03T12:00:00Z")},
		Certificates: []Certificate{
			{Name: "home", Label: "home.example.org", Managed: true, Endpoints: true, State: home},
			{Name: "new_one", Label: "new.example.org", Managed: true, State: State{Status: "warning", Problem: true, Failures: 3,
				LastResult: "The name <new.example.org> & \"others\" cannot be found.", Source: "managed"}},
			{Name: "nas", Endpoints: true, State: State{Status: "expired", Problem: true, DaysLeft: new(-2),
				NotAfter: at("2026-11-18T10:00:00Z"), NotBefore: at("2025-11-18T10:00:00Z"), Issuer: "My\tCA\u202e\n", NotDeployed: true, Source: "endpoint"}},
			{Name: "pem", State: State{Source: "file"}},
		},
		Targets: []Target{
			{ID: "ntfy_1a2b3c", Status: "ok", Since: at("2026-11-20T08:00:00Z")},
			{ID: "telegram_00ff00", Status: "retrying", Since: at("2026-11-21T08:00:00Z"), LastError: "No answer within 30 seconds."},
		},
	}
}

func testMessages(t testing.TB) []Message {
	t.Helper()
	all, err := Messages(testConfig(), testSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func payloadOf(t testing.TB, all []Message, topic string) string {
	t.Helper()
	for _, m := range all {
		if m.Topic == topic {
			return string(m.Payload)
		}
	}
	t.Fatalf("no message on %s", topic)
	return ""
}

func TestEveryMessage(t *testing.T) {
	var b bytes.Buffer
	for _, m := range testMessages(t) {
		if !m.Retain || m.QoS != 1 {
			t.Errorf("%s: retained %v, QoS %d", m.Topic, m.Retain, m.QoS)
		}
		fmt.Fprintf(&b, "%s %s\n", m.Topic, m.Payload)
	}
	golden(t, "testdata/messages.golden", b.Bytes())
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		g, w := "nothing", "nothing"
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Fatalf("%s, line %d (go test -update writes it anew)\n got %s\nwant %s", file, i+1, g, w)
		}
	}
}

// The contract's own example, letter for letter.
func TestStateHasTheContractsKeysInItsOrder(t *testing.T) {
	want := `{"name":"home","status":"ok","problem":"OFF","days_left":41,"not_after":"2027-01-02T02:04:05Z","not_before":"2026-10-04T02:04:06Z",` +
		`"last_result":"Renewed, valid for 90 days.","last_renewal":"2026-10-04T03:04:06Z","next_renewal":"2026-12-03T12:00:00Z","failures":0,` +
		`"issuer":"R12","subject":"home.example.org","fingerprint":"` + strings.Repeat("0a", 32) + `","key_type":"ec256","not_deployed":"OFF","source":"managed"}`
	if got := payloadOf(t, testMessages(t), "certsitter/cert/home/state"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want = `{"version":"0.1.0","installation":"7f3a9c","certificates":4,"problems":1,"lowest_days_left":-2,` +
		`"next_expiry":"2026-11-18T10:00:00Z","last_check":"2026-11-21T10:48:00Z","next_renewal":"2026-12-03T12:00:00Z"}`
	if got := payloadOf(t, testMessages(t), "certsitter/service/state"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNothingKnownIsNoneAndNeverNull(t *testing.T) {
	want := `{"name":"pem","status":"unknown","problem":"OFF","days_left":"None","not_after":"None","not_before":"None",` +
		`"last_result":"None","last_renewal":"None","next_renewal":"None","failures":0,` +
		`"issuer":"None","subject":"None","fingerprint":"None","key_type":"None","not_deployed":"OFF","source":"file"}`
	if got := payloadOf(t, testMessages(t), "certsitter/cert/pem/state"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	empty, err := Messages(testConfig(), Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	want = `{"version":"0.1.0","installation":"7f3a9c","certificates":0,"problems":0,"lowest_days_left":"None",` +
		`"next_expiry":"None","last_check":"None","next_renewal":"None"}`
	if got := payloadOf(t, empty, "certsitter/service/state"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, m := range append(testMessages(t), empty...) {
		if bytes.Contains(m.Payload, []byte("null")) {
			t.Errorf("%s: %s", m.Topic, m.Payload)
		}
	}
}

func TestTextsOfStrangers(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "None"},
		{" \t\r\n", "None"},
		{"one\ntwo\x00three", "one two three"},
		{"abc\u202edef\u200b", "abcdef"},
		{"bad \xff\xfe bytes", "bad  bytes"},
		{"line\u2028separator", "line separator"},
		{strings.Repeat("ä", 200), strings.Repeat("ä", 200)},
		{strings.Repeat("ä", 201), strings.Repeat("ä", 199) + "…"},
	} {
		if got := text(c.in, sentenceLimit); got != c.want {
			t.Errorf("%q became %q, want %q", c.in, got, c.want)
		}
	}
}

func TestInstant(t *testing.T) {
	for _, c := range []struct {
		in   time.Time
		want string
	}{
		{time.Time{}, "None"},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), "9999-12-31T23:59:59Z"},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "None"},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), "None"},
		{time.Date(2026, 7, 1, 0, 30, 0, 999, time.FixedZone("", 2*3600)), "2026-06-30T22:30:00Z"},
	} {
		if got := instant(c.in); got != c.want {
			t.Errorf("%v became %s, want %s", c.in, got, c.want)
		}
	}
}

func TestSameSnapshotSameBytes(t *testing.T) {
	first := testMessages(t)
	for range 20 {
		for i, m := range testMessages(t) {
			if m.Topic != first[i].Topic || !bytes.Equal(m.Payload, first[i].Payload) {
				t.Fatalf("%s changed", m.Topic)
			}
		}
	}
}

// announcement is a discovery message as a reader sees it.
type announcement struct {
	topic           string
	Name            string   `json:"name"`
	UniqueID        string   `json:"unique_id"`
	DefaultEntityID string   `json:"default_entity_id"`
	StateTopic      string   `json:"state_topic"`
	CommandTopic    string   `json:"command_topic"`
	Template        string   `json:"value_template"`
	Availability    string   `json:"availability_topic"`
	Category        string   `json:"entity_category"`
	Class           string   `json:"device_class"`
	Enabled         *bool    `json:"enabled_by_default"`
	Options         []string `json:"options"`
	EventTypes      []string `json:"event_types"`
	Device          struct {
		Identifiers []string `json:"identifiers"`
		Name        string   `json:"name"`
		Model       string   `json:"model"`
		Via         string   `json:"via_device"`
	} `json:"device"`
}

func announcements(t *testing.T, all []Message) []announcement {
	t.Helper()
	var found []announcement
	for _, m := range all {
		if !isDiscovery(m.Topic) {
			continue
		}
		a := announcement{topic: m.Topic}
		if err := json.Unmarshal(m.Payload, &a); err != nil {
			t.Fatal(err)
		}
		found = append(found, a)
	}
	return found
}

// The contract's tables: which entities there are, and of which kind.
func TestEntitiesOfTheContract(t *testing.T) {
	got := map[string][]string{}
	for _, a := range announcements(t, testMessages(t)) {
		line := strings.TrimSuffix(strings.TrimPrefix(a.topic, "homeassistant/"), "/config")
		component, rest, _ := strings.Cut(line, "/")
		node, object, _ := strings.Cut(rest, "/")
		for _, note := range []string{a.Class, a.Category} {
			if note != "" {
				component += " " + note
			}
		}
		if a.Enabled != nil {
			component += fmt.Sprintf(" enabled=%v", *a.Enabled)
		}
		got[node] = append(got[node], object+" "+component)
	}
	watched := []string{
		"days_left sensor duration", "event event", "issuer sensor diagnostic enabled=false", "last_result sensor diagnostic",
		"not_after sensor timestamp", "problem binary_sensor problem", "status sensor enum",
	}
	managed := append(slices.Clone(watched), "failures sensor diagnostic enabled=false", "last_renewal sensor timestamp diagnostic",
		"next_renewal sensor timestamp diagnostic", "renew button config")
	deployed := "not_deployed binary_sensor problem diagnostic"
	want := map[string][]string{
		"certsitter_home":    append(slices.Clone(managed), deployed),
		"certsitter_new_one": managed,
		"certsitter_nas":     append(slices.Clone(watched), deployed),
		"certsitter_pem":     watched,
		"certsitter": {"certificates sensor", "check button", "connection binary_sensor connectivity diagnostic", "last_check sensor timestamp diagnostic",
			"lowest_days_left sensor duration", "next_expiry sensor timestamp", "notify button config", "problems sensor",
			"target_ntfy_1a2b3c binary_sensor problem diagnostic", "target_telegram_00ff00 binary_sensor problem diagnostic"},
	}
	for node := range want {
		slices.Sort(got[node])
		slices.Sort(want[node])
		if !slices.Equal(got[node], want[node]) {
			t.Errorf("%s:\n got %q\nwant %q", node, got[node], want[node])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d devices, want %d", len(got), len(want))
	}
}

func TestIdsAreTheContracts(t *testing.T) {
	ids, objects := map[string]bool{}, map[string]bool{}
	for _, a := range announcements(t, testMessages(t)) {
		parts := strings.Split(a.topic, "/")
		component, node, object := parts[1], parts[2], parts[3]
		if a.UniqueID != node+"_"+object || a.DefaultEntityID != component+"."+a.UniqueID {
			t.Errorf("%s: unique id %s, entity id %s", a.topic, a.UniqueID, a.DefaultEntityID)
		}
		if ids[a.UniqueID] {
			t.Errorf("%s is there twice", a.UniqueID)
		}
		ids[a.UniqueID] = true
		// openHAB renames both of two channels with the same object id.
		if objects[node+"/"+object] {
			t.Errorf("%s has %s twice", node, object)
		}
		objects[node+"/"+object] = true

		if want := []string{node}; !slices.Equal(a.Device.Identifiers, want) {
			t.Errorf("%s: identifiers %q", a.topic, a.Device.Identifiers)
		}
		via, model := "certsitter", "TLS certificate"
		if node == "certsitter" {
			via, model = "", "Certificate service"
		}
		if a.Device.Via != via || a.Device.Model != model {
			t.Errorf("%s: via %q, model %q", a.topic, a.Device.Via, a.Device.Model)
		}
		wantAvailability := "certsitter/status"
		if object == "connection" || object == "not_after" {
			wantAvailability = ""
		}
		if a.Availability != wantAvailability {
			t.Errorf("%s: availability %q", a.topic, a.Availability)
		}
	}
	for node, name := range map[string]string{"certsitter_home": "home.example.org", "certsitter_nas": "nas", "certsitter": "Certsitter"} {
		i := slices.IndexFunc(announcements(t, testMessages(t)), func(a announcement) bool { return a.Device.Identifiers[0] == node })
		if got := announcements(t, testMessages(t))[i].Device.Name; got != name {
			t.Errorf("device %s is called %q, want %q", node, got, name)
		}
	}
}

var keyInTemplate = regexp.MustCompile(`value_json\.([a-z_]+)`)

// Every template reads a key that its state has, and every value of an enum is
// one of its options.
func TestTemplatesFindTheirKeys(t *testing.T) {
	all := testMessages(t)
	for _, a := range announcements(t, all) {
		if a.Template == "" {
			if a.StateTopic != "" && a.Class != "connectivity" && a.EventTypes == nil {
				t.Errorf("%s reads the whole payload", a.topic)
			}
			continue
		}
		var state map[string]any
		if err := json.Unmarshal([]byte(payloadOf(t, all, a.StateTopic)), &state); err != nil {
			t.Fatal(err)
		}
		for _, match := range keyInTemplate.FindAllStringSubmatch(a.Template, -1) {
			v, there := state[match[1]]
			if !there {
				t.Errorf("%s reads %s, which its state has not", a.topic, match[1])
			}
			if len(a.Options) > 0 && !slices.Contains(a.Options, fmt.Sprint(v)) {
				t.Errorf("%s: %v is no option", a.topic, v)
			}
		}
	}
}

func TestBaseAndPrefix(t *testing.T) {
	c := testConfig()
	c.Topic, c.DiscoveryPrefix = "garden2", "ha/discovery"
	all, err := Messages(c, testSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if !strings.HasPrefix(m.Topic, "garden2/") && !strings.HasPrefix(m.Topic, "ha/discovery/") {
			t.Errorf("topic %s", m.Topic)
		}
		if bytes.Contains(m.Payload, []byte("certsitter/")) && !bytes.Contains(m.Payload, []byte("github.com/certsitter/certsitter")) {
			t.Errorf("%s: %s", m.Topic, m.Payload)
		}
	}
	for _, bad := range []Config{
		{Topic: "Cert"}, {Topic: "a/b"}, {Topic: "a_b"}, {Topic: "a+"}, {DiscoveryPrefix: "ha/#"}, {DiscoveryPrefix: "/ha"},
		{Topic: "x", DiscoveryPrefix: "x"}, {Topic: "x", DiscoveryPrefix: "x/y"},
	} {
		if all, err := Messages(bad, testSnapshot()); err == nil || len(all) > 0 {
			t.Errorf("base %q, prefix %q: accepted", bad.Topic, bad.DiscoveryPrefix)
		}
	}
}

func TestOneBadNameDoesNotTakeTheOthersAlong(t *testing.T) {
	s := testSnapshot()
	good := len(testMessages(t))
	s.Certificates = append(s.Certificates, Certificate{Name: "home"}, Certificate{Name: "a/b"}, Certificate{Name: "lowest"},
		Certificate{Name: "target_x"}, Certificate{Name: "service"}, Certificate{Name: "_x"}, Certificate{Name: strings.Repeat("a", 33)})
	s.Targets = append(s.Targets, Target{ID: "x/#"}, Target{ID: strings.Repeat("a", 63)}, Target{ID: "ntfy_1a2b3c"})
	all, err := Messages(testConfig(), s)
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{`"home"`, `"a/b"`, `"lowest"`, `"target_x"`, `"service"`, `"_x"`, `"x/#"`} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
	if len(all) != good {
		t.Errorf("%d messages, want %d", len(all), good)
	}
}

// A label may be anything that a configuration or a certificate holds.
func TestAnyLabelMakesAValidDevice(t *testing.T) {
	for _, label := range []string{"", " ", "Days left", "Status", "xn--bcher-kva.example", "büro", "\x00", strings.Repeat("a", 300), "Problem\u202e"} {
		s := Snapshot{Certificates: []Certificate{{Name: "a", Label: label, Managed: true, Endpoints: true}}}
		all, err := Messages(testConfig(), s)
		if err != nil {
			t.Errorf("%q: %v", label, err)
		}
		if want := 1 + 1 + 8 + 12; len(all) != want {
			t.Errorf("%q: %d messages, want %d", label, len(all), want)
		}
	}
}

// Home Assistant's own schemas.
func TestRealHomeAssistantAcceptsEverything(t *testing.T) {
	homeassistant.Needed(t)
	messages := map[string]string{}
	for _, m := range testMessages(t) {
		if isDiscovery(m.Topic) {
			messages[m.Topic] = string(m.Payload)
		}
	}
	if len(messages) < 40 {
		t.Errorf("%d messages only", len(messages))
	}
	if err := homeassistant.Validate(t, messages); err != nil {
		t.Error(err)
	}
}

func TestTargetsAreCalledByTheirNames(t *testing.T) {
	for _, c := range []struct {
		target Target
		want   string
	}{
		{Target{ID: "homeassistant_4479d8", Name: "Home Assistant"}, "Messages by Home Assistant"},
		{Target{ID: "ntfy_1a2b3c", Name: "ntfy_1a2b3c"}, "Messages by ntfy 1a2b3c"},
		{Target{ID: "ntfy_1a2b3c"}, "Messages by ntfy 1a2b3c"},
	} {
		if e := targetEntity(Config{}, c.target); e.Name != c.want || e.object != "target_"+c.target.ID {
			t.Errorf("%+v is called %q (%s), want %q", c.target, e.Name, e.object, c.want)
		}
	}
}
