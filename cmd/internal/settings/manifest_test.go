package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/certsitter/certsitter/internal/providers"
)

// appFolder is the Home Assistant app's folder: the repository's root.
const appFolder = "../../.."

// readYAML reads a mapping of the app's folder.
func readYAML(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(appFolder, path))
	if err != nil {
		t.Fatal(err)
	}
	content, ok := plain(t, text).(map[string]any)
	if !ok {
		t.Fatalf("%s is no mapping", path)
	}
	return content
}

// appForm is the form that config.yaml describes.
func appForm(t *testing.T) form {
	t.Helper()
	manifest := readYAML(t, "config.yaml")
	f := form{}
	var ok [2]bool
	f.schema, ok[0] = manifest["schema"].(map[string]any)
	f.options, ok[1] = manifest["options"].(map[string]any)
	if ok != [2]bool{true, true} {
		t.Fatal("config.yaml has no options or no schema")
	}
	return f
}

// checkedByForm are keys without a pattern in the tables whose form has one: a
// mistake in them is told while the form is open.
var checkedByForm = map[string]string{
	"ca": "match", "certificates.ca": "match", "certificates.after": "match", "restart_window": "match", "quiet_hours": "match", "homeassistant_url": "url",
}

// wantedForm is the form's schema as the tables of keys ask for it; of patterns
// it says only that there is one.
func wantedForm[T any](fields []field[T], above string) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if f.notApp {
			continue
		}
		path := above + f.key
		switch into := any(f.into(new(T))).(type) {
		case sectionInto[MQTT]:
			out[f.key] = wantedForm(into.fields, path+".")
		case itemsInto[Certificate]:
			out[f.key] = []any{wantedForm(into.fields, path+".")}
		case itemsInto[Watch]:
			out[f.key] = []any{wantedForm(into.fields, path+".")}
		case textsInto, eachInto:
			out[f.key] = []any{wantedType(f, path, into)}
		default:
			out[f.key] = wantedType(f, path, into)
		}
	}
	return out
}

func wantedType[T any](f field[T], path string, into any) string {
	kind := "str"
	_, isNumber := into.(numberInto)
	_, isFlag := into.(flagInto)
	switch {
	case isNumber:
		kind = fmt.Sprintf("int(%d,%d)", f.min, f.max)
	case isFlag:
		kind = "bool"
	case f.secret:
		kind = "password"
	case len(f.choices) > 0:
		choices := slices.Sorted(slices.Values(f.choices))
		kind = "list(" + strings.Join(choices, "|") + ")"
	case f.pattern == emailPattern:
		kind = "email"
	case f.pattern != nil:
		kind = "match"
	case checkedByForm[path] != "":
		kind = checkedByForm[path]
	}
	if f.required || path == "certificates.challenge" {
		return kind
	}
	return kind + "?"
}

// withoutPatterns is a schema without its patterns and with choices in order.
func withoutPatterns(t *testing.T, schema any) any {
	switch s := schema.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range s {
			out[key] = withoutPatterns(t, value)
		}
		return out
	case []any:
		if len(s) != 1 {
			t.Errorf("a list of %d types: %v", len(s), s)
			return nil
		}
		return []any{withoutPatterns(t, s[0])}
	case string:
		e, err := parseType(s)
		if err != nil {
			t.Error(err)
		}
		mark := map[bool]string{true: "?"}[e.optional]
		switch e.kind {
		case "match":
			return "match" + mark
		case "list":
			return "list(" + strings.Join(slices.Sorted(slices.Values(e.choices)), "|") + ")" + mark
		}
	}
	return schema
}

// flat gives a line for each scalar.
func flat(path string, schema any) []string {
	var out []string
	switch s := schema.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(s)) {
			out = append(out, flat(path+"."+key, s[key])...)
		}
	case []any:
		out = flat(path+"[]", s[0])
	default:
		out = []string{fmt.Sprintf("%s: %v", path, s)}
	}
	return out
}

// The form offers exactly what the tables of keys offer to an app, with the same
// types, choices and ranges.
func TestFormIsOurSchema(t *testing.T) {
	t.Parallel()
	got := flat("", withoutPatterns(t, appForm(t).schema))
	want := flat("", wantedForm(serviceFields(), ""))
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("config.yaml has %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("config.yaml lacks %s", line)
		}
	}
	if len(want) < 60 {
		t.Errorf("%d keys; there were more", len(want))
	}
}

// The form has no values of its own but the three that it needs: our defaults
// may become better ones.
func TestFormHasNoDefaults(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprint(appForm(t).options); got != "map[certificates:[] mqtt:map[] watch:[]]" {
		t.Errorf("options: %s", got)
	}
}

// What the Supervisor says of a text that does not match is the expression, so
// each begins with a comment that names the key and says what it wants. Empty is
// as good as silence wherever a key is optional.
func TestFormExplainsPatterns(t *testing.T) {
	t.Parallel()
	explained := 0
	var walk func(path string, schema any, inList bool)
	walk = func(path string, schema any, inList bool) {
		switch s := schema.(type) {
		case map[string]any:
			for key, value := range s {
				walk(key, value, false)
			}
		case []any:
			walk(path, s[0], true)
		case string:
			e, err := parseType(s)
			if err != nil {
				t.Error(err)
			}
			if e.kind != "match" {
				return
			}
			explained++
			if !strings.HasPrefix(e.pattern, "(?#"+path+": ") || !strings.HasSuffix(e.pattern, "$") || !strings.Contains(e.pattern, ")^") {
				t.Errorf("%s: %s", path, e.pattern)
			}
			if empty := goPattern(e.pattern).MatchString(""); empty != (e.optional && !inList) {
				t.Errorf("%s: an empty text matches: %t", path, empty)
			}
		}
	}
	walk("", appForm(t).schema, false)
	if explained < 12 {
		t.Errorf("%d patterns; there were more", explained)
	}
}

// Both languages explain the same keys as the form has, and the same ports.
func TestTranslationsAreComplete(t *testing.T) {
	t.Parallel()
	manifest := readYAML(t, "config.yaml")
	files, err := filepath.Glob(filepath.Join(appFolder, "translations", "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("translations: %v (%v)", files, err)
	}
	for _, language := range []string{"en", "de"} {
		translation := readYAML(t, "translations/"+language+".yaml")
		if keys := slices.Sorted(maps.Keys(translation)); !slices.Equal(keys, []string{"configuration", "network"}) {
			t.Errorf("%s: %v", language, keys)
		}
		checkTranslation(t, language, manifest["schema"], translation["configuration"])
		ports, _ := manifest["ports"].(map[string]any)
		network, _ := translation["network"].(map[string]any)
		if got, want := slices.Sorted(maps.Keys(network)), slices.Sorted(maps.Keys(ports)); !slices.Equal(got, want) {
			t.Errorf("%s: network has %v and config.yaml %v", language, got, want)
		}
		for port, text := range network {
			if s, ok := text.(string); !ok || len(s) < 20 {
				t.Errorf("%s: %s is explained by %v", language, port, text)
			}
		}
	}
}

// sectionOf is the section that a type is, or a list of it; nil for scalars.
func sectionOf(kind any) map[string]any {
	if list, ok := kind.([]any); ok {
		kind = list[0]
	}
	section, _ := kind.(map[string]any)
	return section
}

func checkTranslation(t *testing.T, path string, schema, translation any) {
	t.Helper()
	section := sectionOf(schema)
	entries, _ := translation.(map[string]any)
	for key := range entries {
		if section[key] == nil {
			t.Errorf("%s.%s is translated and not in the form", path, key)
		}
	}
	for key, kind := range section {
		here := path + "." + key
		entry, _ := entries[key].(map[string]any)
		for part, longest := range map[string]int{"name": 50, "description": 250} {
			text, _ := entry[part].(string)
			if strings.TrimSpace(text) != text || len(text) < 2 || len([]rune(text)) > longest {
				t.Errorf("%s: its %s is %q", here, part, text)
			}
		}
		if d, _ := entry["description"].(string); !strings.HasSuffix(d, ".") {
			t.Errorf("%s: the description is no sentence: %q", here, d)
		}
		known := []string{"description", "name"}
		if sectionOf(kind) != nil {
			known = []string{"description", "fields", "name"}
			checkTranslation(t, here, kind, entry["fields"])
		}
		if got := slices.Sorted(maps.Keys(entry)); !slices.Equal(got, known) {
			t.Errorf("%s has %v", here, got)
		}
	}
}

// appEnvironment is that of the app's container with files that people keep in
// the ssl folder.
func appEnvironment(t *testing.T) Environment {
	t.Helper()
	roots, err := os.ReadFile("testdata/roots.txt")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := selfSigned(t)
	files := fstest.MapFS{
		"ssl/client.pem":       {Data: certificate, Mode: 0o644},
		"ssl/client-key.pem":   {Data: key, Mode: 0o600},
		"ssl/home-ca.pem":      {Data: roots, Mode: 0o644},
		"ssl/cloudflare-token": {Data: []byte("token\n"), Mode: 0o600},
	}
	return Environment{
		App: true, Image: true, Providers: providers.Table{},
		Getenv: func(name string) string {
			return map[string]string{"TZ": "Europe/Berlin", "SUPERVISOR_TOKEN": "token"}[name]
		},
		ReadFile: func(path string) ([]byte, error) { return files.ReadFile(strings.TrimPrefix(path, "/")) },
		Stat:     func(path string) (fs.FileInfo, error) { return files.Stat(strings.TrimPrefix(path, "/")) },
	}
}

// entered goes the whole way of options: typed into the form, handed on by the
// Supervisor, loaded by the app.
func entered(t *testing.T, typed []byte) (options []byte, s *Settings, err error) {
	t.Helper()
	value, ok := plain(t, typed).(map[string]any)
	if !ok {
		t.Fatalf("options are a mapping: %s", typed)
	}
	handed, err := appForm(t).handOn(value)
	if err != nil {
		return nil, nil, err
	}
	if options, err = json.MarshalIndent(handed, "", "  "); err != nil {
		t.Fatal(err)
	}
	s, err = Parse("/data/options.json", options, appEnvironment(t))
	return options, s, err
}

// setups are the ways that the documentation shows; each is a file with what is
// typed into the form.
var setups = map[string]func(s *Settings) bool{
	"fresh": func(s *Settings) bool {
		return len(s.Certificates)+len(s.Watch) == 0 && s.MQTT.Supervisor && s.NotifyHomeAssistant && s.StateDir == "/data"
	},
	"http-01": func(s *Settings) bool {
		c := s.Certificates[0]
		return c.Challenge == "http-01" && c.Webroot == "" && c.CertFile == "/ssl/fullchain.pem" && c.KeyFile == "/ssl/privkey.pem" && len(c.After) == 0
	},
	"tls-alpn-01": func(s *Settings) bool { return s.Certificates[0].Challenge == "tls-alpn-01" },
	"webroot":     func(s *Settings) bool { return s.Certificates[0].Webroot == "/ssl/acme" },
	"dns-provider": func(s *Settings) bool {
		return s.Certificates[0].Env["CF_DNS_API_TOKEN"] == "token" && s.Certificates[0].After[0].Kind == RestartHomeAssistant
	},
	"duckdns": func(s *Settings) bool {
		return s.Certificates[0].Provider == "duckdns" && s.Certificates[0].Env["DUCKDNS_TOKEN"] != ""
	},
	"wildcard": func(s *Settings) bool { return s.Certificates[0].Label() == "example.org" },
	"watch": func(s *Settings) bool {
		return len(s.Certificates) == 0 && len(s.Watch) == 3 && s.Watch[2].File && s.Watch[0].WarnDays == 30 && s.Watch[1].WarnDays == 21
	},
	"private-ca": func(s *Settings) bool {
		return s.Certificates[0].Private && s.CARoots != "" && len(s.Certificates[0].Roots) > 0
	},
	"external-broker": func(s *Settings) bool {
		return !s.MQTT.Supervisor && s.MQTT.Broker == "ssl://broker.example.org:8883" && len(s.MQTT.CA) > 0
	},
	"notify": func(s *Settings) bool {
		return slices.Equal(s.NotifyServices, []string{"mobile_app_pixel", "mobile_app_tablet"}) && len(s.Notify) == 2 && !s.QuietHours.IsZero()
	},
	"nginx-proxy": func(s *Settings) bool {
		return s.Certificates[0].After[0] == Action{Kind: RestartApp, Argument: "core_nginx_proxy"} && len(s.Certificates[0].Endpoints) == 2
	},
	"from-letsencrypt": func(s *Settings) bool {
		return len(s.Certificates) == 2 && s.Certificates[1].CertFile == "/ssl/cloud/fullchain.pem"
	},
	"everything": func(s *Settings) bool {
		return s.Language == "de" && s.LogLevel == "debug" && s.MQTT.Homie && s.Certificates[0].KeyMode == 0o640
	},
}

func TestEverySetupIsAccepted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/options/*.json")
	if err != nil || len(files) != len(setups) {
		t.Errorf("%d files for %d setups (%v)", len(files), len(setups), err)
	}
	for name, wanted := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			typed, err := os.ReadFile(filepath.Join("testdata/options", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			options, s, err := entered(t, typed)
			if err != nil {
				t.Fatalf("refused:\n%v", err)
			}
			if lost := DroppedKeys(typed, options); lost != nil {
				t.Errorf("the form does not know %v", lost)
			}
			if !wanted(s) {
				t.Errorf("this is something else:\n%s\n%+v", options, s)
			}
		})
	}
}

// everything.json has every key of the form, so that no type of a key is wrong.
func TestEverythingIsFilledIn(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/options/everything.json")
	if err != nil {
		t.Fatal(err)
	}
	var missing func(path string, schema, typed any) []string
	missing = func(path string, schema, typed any) (out []string) {
		switch s := schema.(type) {
		case map[string]any:
			section, _ := typed.(map[string]any)
			for key, below := range s {
				out = append(out, missing(path+"."+key, below, section[key])...)
			}
		case []any:
			items, _ := typed.([]any)
			if len(items) == 0 {
				return []string{path}
			}
			return missing(path, s[0], items[0])
		case string:
			if typed == nil {
				return []string{path}
			}
		}
		return out
	}
	// These contradict what the others say.
	except := []string{".certificates.webroot", ".watch.server_name"}
	for _, path := range missing("", appForm(t).schema, plain(t, text)) {
		if !slices.Contains(except, path) {
			t.Errorf("%s is missing", path)
		}
	}
}

// Of a mistake the form says what it can, and the app says the rest, in words
// that do not need this program's source to be understood. The other way round
// nothing that is refused by the form is good, but actions for which the app's
// container has neither systemd nor Docker.
func TestMistakesInTheForm(t *testing.T) {
	t.Parallel()
	const certificate = `"name":"home","domains":["home.example.org"],"challenge":"http-01"`
	in := map[string]string{
		"top": `{%s}`, "certificate": `{"certificates":[{` + certificate + `,%s}]}`, "whole": `{"certificates":[{%s}]}`,
		"watch": `{"watch":[{"name":"nas","source":"nas.local:5001",%s}]}`, "mqtt": `{"mqtt":{%s}}`,
	}
	for _, c := range []struct{ where, typed, form, app string }{ // empty = accepted
		{"whole", `"name":"Home","domains":["home.example.org"],"challenge":"http-01"`, "(?#name: a to z, 0 to 9 and _", "1 to 32 of a to z"},
		{"whole", `"name":"_home","domains":["home.example.org"],"challenge":"http-01"`, "no _ at either end", "with no _ at either end"},
		{"whole", `"name":"` + strings.Repeat("a", 32) + `","domains":["home.example.org"],"challenge":"http-01"`, "", ""},
		{"whole", `"name":"` + strings.Repeat("a", 33) + `","domains":["home.example.org"],"challenge":"http-01"`, "at most 32", "1 to 32"},
		{"whole", `"name":"service","domains":["home.example.org"],"challenge":"http-01"`, "", "is kept for Certsitter's own topics"},
		{"whole", `"domains":["home.example.org"],"challenge":"http-01"`, "Missing option 'name' in certificates", "is missing: give it a short name"},
		{"whole", `"name":"home","challenge":"http-01"`, "Missing option 'domains'", "needs at least one domain"},
		{"whole", `"name":"home","domains":[],"challenge":"http-01"`, "", "needs at least one domain"},
		{"whole", `"name":"home","domains":["home.example.org"]`, "Missing option 'challenge'", "is missing: choose http-01, dns-01 or tls-alpn-01"},
		{"whole", `"name":"home","domains":["https://home.example.org/"],"challenge":"http-01"`, "", "is a URL: write the domain alone"},
		{"whole", `"name":"home","domains":["home.local"],"challenge":"http-01"`, "", "a public CA signs public names only"},
		{"whole", `"name":"home","domains":["*.example.org"],"challenge":"http-01"`, "", "is a wildcard, which needs the challenge dns-01"},
		{"whole", `"name":"home","domains":["home.example.org"],"challenge":"dns-01"`, "", "dns-01 needs the code of your DNS provider"},
		{"whole", `"name":"home","domains":["home.example.org"],"challenge":"dns-01","provider":"cloudfare"`, "", "did you mean cloudflare?"},
		{"whole", `"name":"home","domains":["home.example.org"],"challenge":"dns-01","provider":"duckdns"`, "", "lacks DUCKDNS_TOKEN, which duckdns needs"},
		{"whole", `"name":"home","domains":["home.example.org"],"challenge":"dns-01","provider":"duckdns","env":["hush"]`, "", "needs the form KEY=VALUE"},
		{"whole", `"name":"home","domains":["home.example.org"],"challenge":"dns","provider":"duckdns"`, "value must be one of ['dns-01'", "choose http-01"},
		{"certificate", `"after":["restart homeassistant"]`, "", ""},
		{"certificate", `"after":[" restart  app  core_nginx_proxy "]`, "", ""},
		{"certificate", `"after":["restart app a0d7b954_nginxproxymanager","restart homeassistant"]`, "", ""},
		{"certificate", `"after":["run /bin/true"]`, "restart homeassistant, or restart app and its slug", "can not be used in the app"},
		{"certificate", `"after":["restart addon core_nginx_proxy"]`, "restart app and its slug", "add-ons are called apps now"},
		{"certificate", `"after":["restart app"]`, "restart app and its slug", "restart app needs one slug"},
		{"certificate", `"after":["restart app -x"]`, "restart app and its slug", "is no app's slug"},
		{"certificate", `"after":["restart homeassistant now"]`, "restart homeassistant", "can only restart Home Assistant"},
		{"certificate", `"after":["Restart homeassistant"]`, "restart homeassistant", "begins no action"},
		{"certificate", `"after":[""]`, "restart homeassistant", "is empty: remove it"},
		{"certificate", `"after":"restart homeassistant"`, "Invalid list for option 'after'", "needs a list"},
		{"certificate", `"endpoints":["home.example.org"]`, "", "port"},
		{"certificate", `"key_type":"rsa1024"`, "value must be one of ['ec256'", "is not known"},
		{"certificate", `"key_mode":"0640"`, "", ""},
		{"certificate", `"key_mode":"640"`, "", ""},
		{"certificate", `"key_mode":"rw-"`, "three octal digits", "three octal digits"},
		{"certificate", `"key_mode":"0666"`, "", "would let everybody change the private key"},
		{"certificate", `"owner":"root"`, "", ""},
		{"certificate", `"owner":"-x"`, "a user, by name or number", "a user's name or number"},
		{"certificate", `"group":"1000"`, "", ""},
		{"certificate", `"group":"a b"`, "a group, by name or number", "a group's name or number"},
		{"certificate", `"profile":"short lived"`, "a name like shortlived", "the name of a profile"},
		{"certificate", `"profile":"shortlived"`, "", ""},
		{"certificate", `"renew_before_days":-1`, "value must be at least 0", "is out of range"},
		{"certificate", `"renew_before_days":3651`, "value must be at most 3650", "is out of range"},
		{"certificate", `"ca":"https://ca.lan/acme/directory","ca_roots":"home-ca.pem"`, "", ""},
		{"certificate", `"ca":"letsencrypt-staging"`, "", ""},
		{"certificate", `"ca":"letsencrpyt"`, "letsencrypt, letsencrypt-staging or the https URL", "did you mean letsencrypt?"},
		{"certificate", `"ca":"http://ca.lan/"`, "https URL of a directory", "needs an https URL"},
		{"certificate", `"ca_roots":"missing.pem","ca":"https://ca.lan/"`, "", "there is no file /ssl/missing.pem"},
		{"certificate", `"certfile":"/etc/letsencrypt/live/x/fullchain.pem"`, "", "below /etc/letsencrypt"},
		{"certificate", `"certfile":"/data/accounts/x"`, "", "would overwrite Certsitter's own files"},
		{"watch", `"pin":"12:34"`, "", "needs 64 hex digits"},
		{"watch", `"warn_days":0`, "value must be at least 1", "is out of range"},
		{"watch", `"critical_days":30`, "", "is not below warn_days"},
		{"top", `"watch":[{"name":"nas","source":"nas.local"}]`, "", "has neither a port"},
		{"top", `"watch":[{"name":"Nas","source":"nas.local:1"}]`, "a to z, 0 to 9 and _", "1 to 32 of a to z"},
		{"top", `"email":"you@example.org"`, "", ""},
		{"top", `"email":"you"`, "expected an email address", "an address like you@example.org"},
		{"top", `"notify_services":["notify.mobile_app_pixel"]`, "", ""},
		{"top", `"notify_services":["Mobile app"]`, "the name of a notify action, like mobile_app_pixel", "the name of a notify action, like mobile_app_pixel"},
		{"top", `"notify":["tgram://x/y"]`, "", "write telegram://TOKEN@telegram"},
		{"top", `"notify":"ntfy://ntfy.sh/x"`, "Invalid list for option 'notify'", "needs a list"},
		{"top", `"quiet_hours":"22:00-07:00"`, "", ""},
		{"top", `"quiet_hours":" 9:30 – 24:00 "`, "", ""},
		{"top", `"quiet_hours":"10pm-7am"`, "two times of day, like 22:00-07:00", "needs two times of day"},
		{"top", `"quiet_hours":"22-7"`, "two times of day", "needs two times of day"},
		{"top", `"quiet_hours":"22:00-25:00"`, "two times of day", "hours go from 00 to 23"},
		{"top", `"quiet_hours":"24:00-07:00"`, "two times of day", "hours go from 00 to 23"},
		{"top", `"quiet_hours":"22:60-07:00"`, "two times of day", "minutes from 00 to 59"},
		{"top", `"restart_window":"03:00-03:00"`, "", "begins when it ends"},
		{"top", `"restart_window":"3:00-5:00"`, "", ""},
		{"top", `"restart_window":"at night"`, "two times of day, like 03:00-05:00", "needs two times of day"},
		{"top", `"schedule":"every night"`, "", "is no cron expression"},
		{"top", `"language":"fr"`, "value must be one of", "choose en or de"},
		{"top", `"repeat_hours":8761`, "value must be at most 8760", "is out of range"},
		{"top", `"warn_days":5`, "", "is not below warn_days"},
		{"top", `"resolvers":["https://dns.example"]`, "", "is no name server"},
		{"top", `"homeassistant_url":"192.168.1.10"`, "expected a URL", "homeassistant_token"},
		{"top", `"heartbeat_url":"beat"`, "", "needs an http or https URL"},
		{"top", `"notify_homeassistant":"perhaps"`, "expected boolean", "true or false"},
		{"mqtt", `"topic":"certsitter2"`, "", ""},
		{"mqtt", `"topic":"cert/sitter"`, "a to z and 0 to 9 only", "a to z and 0 to 9 only"},
		{"mqtt", `"discovery_prefix":"home/assistant"`, "", ""},
		{"mqtt", `"discovery_prefix":"homeassistant/"`, "no slash at either end", "no slash at either end"},
		{"mqtt", `"discovery_prefix":"home#"`, "without + and #", "without + and #"},
		{"mqtt", `"broker":"mqtt://core-mosquitto"`, "", "write tcp://"},
		{"mqtt", `"broker":"tcp://u:hush@broker"`, "", "they go into username and password"},
		{"top", `"mqtt":"tcp://broker:1883"`, "Invalid dict for option 'mqtt'", "needs a section of keys"},
	} {
		typed := fmt.Sprintf(in[c.where], c.typed)
		t.Run(c.typed, func(t *testing.T) {
			_, formErr := appForm(t).handOn(plain(t, []byte(typed)).(map[string]any))
			check(t, "the form", formErr, c.form)
			_, appErr := Parse("/data/options.json", []byte(typed), appEnvironment(t))
			check(t, "the app", appErr, c.app)
			if refusal, ok := errors.AsType[*Refusal](appErr); ok {
				for _, m := range refusal.Mistakes {
					if strings.Contains(m.Sentence, "hush") || m.Key == "" || len(m.Sentence) < 10 {
						t.Errorf("the app says %+v", m)
					}
				}
			}
		})
	}
}

func check(t *testing.T, who string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s refuses: %v", who, err)
	case want != "" && err == nil:
		t.Errorf("%s accepts", who)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s says: %v", who, err)
	}
}

// What only a machine with systemd or Docker can do is not offered.
func TestActionsOfTheForm(t *testing.T) {
	t.Parallel()
	for kind, text := range map[ActionKind]string{
		RestartHomeAssistant: "restart homeassistant", RestartApp: "restart app core_mosquitto", ReloadUnit: "reload nginx", RestartUnit: "restart nginx",
		RestartContainer: "restart container nginx", SignalContainer: "signal container nginx HUP", RunCommand: "run true",
	} {
		if a, err := ParseAction(text); err != nil || a.Kind != kind {
			t.Errorf("%s: %v %v", text, a, err)
		}
		typed := fmt.Sprintf(`{"certificates":[{"name":"home","domains":["home.example.org"],"challenge":"http-01","after":[%q]}]}`, text)
		_, err := appForm(t).handOn(plain(t, []byte(typed)).(map[string]any))
		if offered := kind == RestartHomeAssistant || kind == RestartApp; offered != (err == nil) {
			t.Errorf("%s: the form says %v", text, err)
		}
	}
}

// Whatever the pages show of certificates and of what is watched is the app's
// options, unless its first line names a file.
func TestEveryShownOptionIsAccepted(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(appFolder, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, filepath.Join(appFolder, "README.md"), filepath.Join(appFolder, "DOCS.md")) {
		text, err := os.ReadFile(page)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range optionBlocks(string(text)) {
			t.Run(filepath.Base(page), func(t *testing.T) {
				options, _, err := entered(t, []byte(block))
				if err != nil {
					t.Fatalf("%v:\n%s", err, block)
				}
				typed, err := json.Marshal(plain(t, []byte(block)))
				if err != nil {
					t.Fatal(err)
				}
				if lost := DroppedKeys(typed, options); lost != nil {
					t.Errorf("the form does not know %v:\n%s", lost, block)
				}
			})
		}
	}
	if got := optionBlocks("```yaml\nwatch: []\n```\n```yaml\n# x.yaml\nwatch: []\n```\n```yaml\nautomation: []\n```\n"); len(got) != 1 {
		t.Errorf("found %q", got)
	}
}

var (
	yamlBlock  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	optionsKey = regexp.MustCompile(`(?m)^(certificates|watch):`)
	namesAFile = regexp.MustCompile(`^#.*\.ya?ml`)
)

func optionBlocks(page string) []string {
	var out []string
	for _, m := range yamlBlock.FindAllStringSubmatch(page, -1) {
		if optionsKey.MatchString(m[1]) && !namesAFile.MatchString(m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// Keys that the Supervisor decides on are not in the form: it drops them, and
// the app would refuse them.
func TestNotOffered(t *testing.T) {
	t.Parallel()
	typed := []byte(`{"listen":":80","http_port":8080,"tls_port":8443,"state_dir":"/x","log_format":"json"}`)
	options, _, err := entered(t, typed)
	if err != nil {
		t.Error(err)
	}
	if regexp.MustCompile(`listen|port|state|format`).Match(options) {
		t.Errorf("handed on: %s", options)
	}
}
