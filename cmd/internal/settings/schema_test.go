package settings

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// violations checks a value against the few words of JSON Schema that Schema
// uses. A word that it does not know is one, too.
func violations(schema map[string]any, value any, at string) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, at+": "+fmt.Sprintf(format, args...)) }
	for word, want := range schema {
		switch word {
		case "$schema", "$id", "title", "description", "default", "writeOnly":
		case "type":
			if kind := kindOf(value); kind != want {
				wrong("is %s, not %s", kind, want)
			}
		case "enum":
			if list, ok := want.([]any); !ok || !slices.Contains(list, value) {
				wrong("%v is not in %v", value, want)
			}
		case "pattern":
			if s, ok := value.(string); ok && !regexp.MustCompile(want.(string)).MatchString(s) {
				wrong("%q does not match %s", s, want)
			}
		case "minimum":
			if n, ok := value.(float64); ok && n < want.(float64) {
				wrong("is below %v", want)
			}
		case "maximum":
			if n, ok := value.(float64); ok && n > want.(float64) {
				wrong("is above %v", want)
			}
		case "minLength":
			if s, ok := value.(string); ok && s == "" {
				wrong("is empty")
			}
		case "minItems":
			if list, ok := value.([]any); ok && len(list) == 0 {
				wrong("is empty")
			}
		case "items":
			list, _ := value.([]any)
			for i, item := range list {
				out = append(out, violations(want.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "required":
			for _, key := range want.([]any) {
				if section, ok := value.(map[string]any); ok && section[key.(string)] == nil {
					wrong("lacks %s", key)
				}
			}
		case "properties":
			section, _ := value.(map[string]any)
			for key, v := range section {
				if inner, ok := want.(map[string]any)[key].(map[string]any); ok {
					out = append(out, violations(inner, v, at+"."+key)...)
				}
			}
		case "additionalProperties":
			section, _ := value.(map[string]any)
			for key := range section {
				if schema["properties"].(map[string]any)[key] == nil {
					wrong("%s is not known", key)
				}
			}
		default:
			wrong("the schema says %s, which this check does not know", word)
		}
	}
	return out
}

func kindOf(value any) string {
	switch v := value.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}

// plain reads YAML or JSON as encoding/json would.
func plain(t *testing.T, data []byte) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(asJSON, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSchema(t *testing.T) {
	t.Parallel()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	if schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("draft: %v", schema["$schema"])
	}
	data, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"contract": string(data), "secrets": fullOfSecrets, "empty": "{}",
		"app": `{"certificates": [{"name": "home", "domains": ["x.example.org"], "challenge": "http-01"}], "watch": [], "mqtt": {}}`,
	} {
		if got := violations(schema, plain(t, []byte(text)), ""); len(got) > 0 {
			t.Errorf("%s is refused:\n%s", name, strings.Join(got, "\n"))
		}
	}
	for _, file := range []string{
		"unknown-key.yaml", "unknown-in-certificate.yaml", "reserved.yaml", "choices.yaml", "challenge.yaml", "names.yaml", "domains-missing.yaml",
		"wrong-types.json", "renew-before.yaml", "repeat.yaml", "email.yaml", "profile.yaml", "key-mode-digits.yaml", "owner.yaml", "mqtt.yaml",
		"notify-services.yaml", "misplaced.yaml",
	} {
		data, err := os.ReadFile(filepath.Join("testdata/refused", file))
		if err != nil {
			t.Fatal(err)
		}
		if len(violations(schema, plain(t, data), "")) == 0 {
			t.Errorf("%s is accepted", file)
		}
	}
}

// The schema tells people what they need at each key.
func TestSchemaDescribes(t *testing.T) {
	t.Parallel()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	at := func(path ...string) map[string]any {
		here := schema
		for _, p := range path {
			next, ok := here[p].(map[string]any)
			if !ok {
				t.Fatalf("%v: there is no %s", path, p)
			}
			here = next
		}
		return here
	}
	certificate := []string{"properties", "certificates", "items", "properties"}
	if got := at(append(certificate, "key_type")...); got["default"] != "ec256" || !slices.Contains(got["enum"].([]any), any("rsa4096")) {
		t.Errorf("key_type: %v", got)
	}
	if got := at(append(certificate, "pkcs12_password")...); got["writeOnly"] != true {
		t.Errorf("pkcs12_password: %v", got)
	}
	if got := at("properties", "warn_days"); got["default"] != 21.0 || got["minimum"] != 1.0 || got["type"] != "integer" {
		t.Errorf("warn_days: %v", got)
	}
	if got := at("properties", "mqtt"); got["additionalProperties"] != false {
		t.Errorf("mqtt: %v", got)
	}
	for _, section := range []map[string]any{at("properties"), at(certificate...), at("properties", "mqtt", "properties"), at("properties", "watch", "items", "properties")} {
		for key, v := range section {
			if text, _ := v.(map[string]any)["description"].(string); len(text) < 10 || !strings.HasSuffix(text, ".") {
				t.Errorf("%s is described by %q", key, text)
			}
		}
	}
}
