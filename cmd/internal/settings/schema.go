package settings

import (
	"encoding/json"
	"slices"
)

// Schema is the JSON Schema (draft 2020-12) of the configuration file, made of
// the tables that decode it. !env and !file are beyond it.
func Schema() []byte {
	top := sectionSchema(serviceFields())
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = "https://github.com/certsitter/certsitter/schema"
	top["title"] = "Certsitter"
	top["description"] = "The configuration of Certsitter: certsitter.yaml, or options.json of the Home Assistant app."
	out, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		panic(err) // maps of strings, numbers and flags only
	}
	return append(out, '\n')
}

func sectionSchema[T any](fields []field[T]) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range fields {
		properties[f.key] = f.schema()
		if f.required {
			required = append(required, f.key)
		}
	}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		out["required"] = required
	}
	return out
}

func (f field[T]) schema() map[string]any {
	out := f.into(new(T)).schema()
	out["description"] = f.doc
	if f.fallback != nil {
		out["default"] = f.fallback
	}
	value := out
	if items, ok := out["items"].(map[string]any); ok {
		value = items
	}
	if f.secret {
		value["writeOnly"] = true
	}
	optional := !f.required && out["type"] == "string" // empty is as good as silence
	if f.required && out["type"] == "string" {
		value["minLength"] = 1
	}
	if f.required && out["type"] == "array" {
		out["minItems"] = 1
	}
	switch {
	case len(f.choices) > 0 && optional:
		value["enum"] = append(slices.Clone(f.choices), "")
	case len(f.choices) > 0:
		value["enum"] = f.choices
	case f.pattern != nil && optional:
		value["pattern"] = "^$|" + f.pattern.String()
	case f.pattern != nil:
		value["pattern"] = f.pattern.String()
	}
	if f.max > 0 {
		value["minimum"], value["maximum"] = f.min, f.max
	}
	return out
}
