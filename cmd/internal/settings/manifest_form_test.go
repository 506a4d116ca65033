package settings

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// form is a model of what the Supervisor does with an app's options before it
// writes /data/options.json (supervisor/apps/options.py of 2026.08; its
// validators are those of voluptuous 0.16). Types that the app does not use are
// an error.
type form struct {
	schema  map[string]any
	options map[string]any // what stands where the user said nothing
}

// typePattern takes a type apart as RE_SCHEMA_ELEMENT does.
var typePattern = regexp.MustCompile(`^(bool|email|url|str|password|int(?:\((-?\d+)?,(-?\d+)?\))?|match\((.*)\)|list\((.+)\))(\??)$`)

// elementType is a scalar type of the option schema.
type elementType struct {
	kind     string // bool, email, url, str, password, int, match, list
	min, max string // of int
	pattern  string // of match
	choices  []string
	optional bool
}

func parseType(text string) (elementType, error) {
	m := typePattern.FindStringSubmatch(text)
	if m == nil {
		return elementType{}, fmt.Errorf("unknown type %q", text)
	}
	kind, _, _ := strings.Cut(m[1], "(")
	e := elementType{kind: kind, min: m[2], max: m[3], pattern: m[4], optional: m[6] == "?"}
	if m[5] != "" {
		e.choices = strings.Split(m[5], "|")
	}
	return e, nil
}

// handOn gives the content of options.json for what a user typed, or what the
// Supervisor answers instead.
func (f form) handOn(typed map[string]any) (map[string]any, error) {
	return f.section(f.schema, merged(f.options, typed), "root")
}

// merged lays what was typed over the values of config.yaml: sections key by
// key, lists as a whole.
func merged(under, over map[string]any) map[string]any {
	out := map[string]any{}
	maps.Copy(out, under)
	for key, value := range over {
		below, isSection := out[key].(map[string]any)
		if section, ok := value.(map[string]any); ok && isSection {
			out[key] = merged(below, section)
			continue
		}
		out[key] = value
	}
	return out
}

func (f form) section(schema, typed map[string]any, name string) (map[string]any, error) {
	out := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(typed)) {
		kind, known := schema[key]
		if !known {
			continue // a warning in the Supervisor's log, and nothing else
		}
		value, err := f.element(kind, typed[key], key)
		if err != nil {
			return nil, err
		}
		out[key] = value
	}
	for _, key := range slices.Sorted(maps.Keys(schema)) {
		if _, given := out[key]; !given && !optional(schema[key]) {
			return nil, fmt.Errorf("Missing option '%s' in %s in Certsitter (certsitter)", key, name)
		}
	}
	return out, nil
}

// optional: sections and lists of sections never are.
func optional(kind any) bool {
	if list, ok := kind.([]any); ok && len(list) > 0 {
		kind = list[0]
	}
	text, ok := kind.(string)
	return ok && strings.HasSuffix(text, "?")
}

func (f form) element(kind, value any, key string) (any, error) {
	switch kind := kind.(type) {
	case []any:
		items, ok := value.([]any)
		if !ok {
			return nil, fmt.Errorf("Invalid list for option '%s' in Certsitter (certsitter)", key)
		}
		out := make([]any, len(items))
		for i, item := range items {
			var err error
			if out[i], err = f.element(kind[0], item, key); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		section, ok := value.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("Invalid dict for option '%s' in Certsitter (certsitter)", key)
		}
		return f.section(kind, section, key)
	case string:
		if value == nil {
			return nil, fmt.Errorf("Missing required option '%s' in Certsitter (certsitter)", key)
		}
		if secret, ok := strings.CutPrefix(pythonText(value), "!secret "); ok {
			return nil, fmt.Errorf("Unknown secret '%s' in Certsitter (certsitter)", secret)
		}
		return scalar(kind, value)
	}
	return nil, fmt.Errorf("Unknown type '%v' in Certsitter (certsitter)", kind)
}

// scalar's errors are all that people are told: neither key nor place.
func scalar(text string, value any) (any, error) {
	kind, err := parseType(text)
	if err != nil {
		return nil, err
	}
	written, isText := value.(string)
	switch kind.kind {
	case "str", "password":
		if !isText {
			return nil, errors.New("not a valid value")
		}
		return value, nil
	case "int":
		return wholeNumber(kind, value)
	case "bool":
		return truth(value)
	case "email":
		if !isText || !emailAddress(written) {
			return nil, errors.New("expected an email address")
		}
		return value, nil
	case "url":
		scheme, rest, found := strings.Cut(written, "://")
		if !isText || !found || scheme == "" || strings.TrimLeft(rest, "/") != rest || rest == "" {
			return nil, errors.New("expected a URL")
		}
		return value, nil
	case "match":
		if s := pythonText(value); !goPattern(kind.pattern).MatchString(s) {
			return nil, fmt.Errorf("does not match regular expression %s", kind.pattern)
		}
		return pythonText(value), nil
	case "list":
		if !slices.Contains(kind.choices, pythonText(value)) {
			return nil, fmt.Errorf("value must be one of ['%s']", strings.Join(kind.choices, "', '"))
		}
		return pythonText(value), nil
	}
	return nil, fmt.Errorf("no model of %s", kind.kind)
}

var pythonComment = regexp.MustCompile(`\(\?#[^)]*\)`)

// goPattern is a pattern as Python's re.match takes it: from the beginning on,
// comments are nothing, and $ stands before a last line break as well.
func goPattern(pattern string) *regexp.Regexp {
	pattern = pythonComment.ReplaceAllString(pattern, "")
	if before, ok := strings.CutSuffix(pattern, "$"); ok {
		pattern = before + `\n?$`
	}
	return regexp.MustCompile(`^(?:` + pattern + `)`)
}

// pythonText is str(value).
func pythonText(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case bool:
		return map[bool]string{true: "True", false: "False"}[v]
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}

func wholeNumber(kind elementType, value any) (any, error) {
	var n float64
	switch v := value.(type) {
	case float64:
		n = float64(int(v)) // int() cuts the fraction off
	case bool:
		n = map[bool]float64{true: 1}[v]
	case string:
		whole, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil {
			return nil, errors.New("expected int")
		}
		n = float64(whole)
	default:
		return nil, errors.New("expected int")
	}
	if lowest, err := strconv.ParseFloat(kind.min, 64); err == nil && n < lowest {
		return nil, fmt.Errorf("value must be at least %s", kind.min)
	}
	if highest, err := strconv.ParseFloat(kind.max, 64); err == nil && n > highest {
		return nil, fmt.Errorf("value must be at most %s", kind.max)
	}
	return n, nil
}

func truth(value any) (any, error) {
	switch v := value.(type) {
	case bool:
		return v, nil
	case float64:
		return v != 0, nil
	case string:
		switch strings.ToLower(v) {
		case "1", "true", "yes", "on", "enable":
			return true, nil
		case "0", "false", "no", "off", "disable":
			return false, nil
		}
	}
	return nil, errors.New("expected boolean")
}

var emailUser, emailDomain = regexp.MustCompile("(?i)^[-!#$%&'*+/=?^_`{}|~0-9A-Z]+(\\.[-!#$%&'*+/=?^_`{}|~0-9A-Z]+)*$"),
	regexp.MustCompile(`(?i)^(?:[A-Z0-9](?:[A-Z0-9-]{0,61}[A-Z0-9])?\.)+(?:[A-Z]{2,6}\.?|[A-Z0-9-]{2,}\.?)$`)

func emailAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at >= 0 && emailUser.MatchString(s[:at]) && emailDomain.MatchString(s[at+1:])
}

// What was seen with the real validators; the model must answer the same.
func TestFormIsTheSupervisors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind  string
		value any
		want  any // nil = refused
	}{
		{"str", "abc", "abc"}, {"str?", "", ""}, {"str", 5.0, nil}, {"str", true, nil}, {"str?", nil, nil}, {"password?", "", ""}, {"password", 1.5, nil},
		{"int(1,60)", 5.0, 5.0}, {"int(1,60)", " 5 ", 5.0}, {"int(1,60)", 5.7, 5.0}, {"int(1,60)", true, 1.0}, {"int(1,60)", "x", nil}, {"int(1,60)", 61.0, nil},
		{"int(1,60)", 0.0, nil}, {"int(1,60)?", "5.5", nil}, {"int(1,60)", "", nil}, {"int(1,60)", []any{1.0}, nil}, {"int(1,60)?", nil, nil},
		{"bool", "Enable", true}, {"bool", "off", false}, {"bool?", "x", nil}, {"bool", 2.0, true}, {"bool", "", nil},
		{"email", "a@b.org", "a@b.org"}, {"email?", "a@b", nil}, {"email?", "", nil}, {"email", "a b@c.org", nil}, {"email", 5.0, nil}, {"email", "a@b.o", nil},
		{"url", "http://a", "http://a"}, {"url", "a", nil}, {"url?", "", nil}, {"url", "http://", nil}, {"url", "http:///x", nil},
		{"match((?#a name)^[a-z]+$)", "abc", "abc"}, {"match((?#a name)^[a-z]+$)", "abc\n", "abc\n"}, {"match((?#a name)^[a-z]+$)?", "A", nil},
		{"match(^[0-9]+$)", 640.0, "640"}, {"match([0-9])", "5x", "5x"}, {"list(a|b)", "b", "b"}, {"list(a|b)?", "c", nil}, {"list(1|2)", 2.0, "2"},
		{"float", 1.0, nil}, {"str(1,64)", "abc", nil}, // with a range the Supervisor refuses every text
	} {
		got, err := form{}.element(c.kind, c.value, "key")
		if (err == nil) != (c.want != nil) || err == nil && got != c.want {
			t.Errorf("%s, %#v: got %#v, %v", c.kind, c.value, got, err)
		}
	}
}

// Unknown keys vanish, sections are merged, lists replaced, null is refused, and
// only scalars and lists of them can be optional.
func TestFormOfSections(t *testing.T) {
	t.Parallel()
	f := form{
		schema: map[string]any{
			"a": "str?", "b": []any{"str?"}, "s": map[string]any{"x": "str?", "y": "str?"},
			"l": []any{map[string]any{"n": "str", "o": []any{"str?"}}},
		},
		options: map[string]any{"s": map[string]any{"x": "1"}, "l": []any{map[string]any{"n": "1"}}},
	}
	for _, c := range []struct{ typed, want string }{
		{`{}`, `map[l:[map[n:1]] s:map[x:1]]`},
		{`{"z":"1","s":{"y":"2","z":"3"}}`, `map[l:[map[n:1]] s:map[x:1 y:2]]`},
		{`{"l":[{"n":"2","z":"3"},{"n":"4","o":["5"]}]}`, `map[l:[map[n:2] map[n:4 o:[5]]] s:map[x:1]]`},
		{`{"a":null}`, "Missing required option 'a' in Certsitter (certsitter)"},
		{`{"l":[{"o":[]}]}`, "Missing option 'n' in l in Certsitter (certsitter)"},
		{`{"l":null}`, "Invalid list for option 'l' in Certsitter (certsitter)"},
		{`{"s":[]}`, "Invalid dict for option 's' in Certsitter (certsitter)"},
		{`{"b":"1"}`, "Invalid list for option 'b' in Certsitter (certsitter)"},
		{`{"a":"!secret x"}`, "Unknown secret 'x' in Certsitter (certsitter)"},
	} {
		got, err := f.handOn(plain(t, []byte(c.typed)).(map[string]any))
		said := fmt.Sprint(got)
		if err != nil {
			said = err.Error()
		}
		if said != c.want {
			t.Errorf("%s: got %s", c.typed, said)
		}
	}
	f.options = nil
	if _, err := f.handOn(map[string]any{"l": []any{}}); err == nil {
		t.Error("a section without a value is optional")
	}
}
