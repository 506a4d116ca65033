package settings

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A DroppedKey is a key that a user wrote into an app's options and that its
// form does not know, so that Home Assistant does not hand it on.
type DroppedKey struct {
	Key   string // certificates[home].cert_file; what is no plain word in it is veiled
	Meant string // the known key that is closest; "" = none is
}

// DroppedKeys compares the options as a user left them with those that were
// handed on, both JSON, and gives the keys that are missing, in order. Text that
// is no JSON object has none. It never looks at values.
func DroppedKeys(typed, handed []byte) []DroppedKey {
	var before, after map[string]any
	if json.Unmarshal(typed, &before) != nil || json.Unmarshal(handed, &after) != nil {
		return nil
	}
	return dropped("", before, after, formKeys[""])
}

// formKeys are the keys that an app's form has in each section.
var formKeys = map[string]func() []string{
	"":             func() []string { return offered(serviceFields()) },
	"certificates": func() []string { return offered(certificateFields()) },
	"watch":        func() []string { return offered(watchFields()) },
	"mqtt":         func() []string { return offered(mqttFields()) },
}

// offered are the keys that the app's form can have.
func offered[T any](fields []field[T]) []string {
	var keys []string
	for _, f := range fields {
		if !f.notApp {
			keys = append(keys, f.key)
		}
	}
	return keys
}

func dropped(path string, before, after map[string]any, known func() []string) []DroppedKey {
	var all []DroppedKey
	for _, key := range slices.Sorted(maps.Keys(before)) {
		here := join(path, key)
		value, kept := after[key]
		if !kept {
			d := DroppedKey{Key: here}
			if known != nil {
				d.Meant = closest(key, known())
			}
			all = append(all, d)
			continue
		}
		all = append(all, droppedBelow(here, key, before[key], value)...)
	}
	return all
}

func droppedBelow(path, key string, before, after any) []DroppedKey {
	known := formKeys[key]
	switch b := before.(type) {
	case map[string]any:
		if a, ok := after.(map[string]any); ok {
			return dropped(path, b, a, known)
		}
	case []any:
		if a, ok := after.([]any); ok {
			return droppedItems(path, b, a, known)
		}
	}
	return nil
}

// droppedItems compares the items of two lists: those of the same name, or the
// same place where there is none.
func droppedItems(path string, before, after []any, known func() []string) []DroppedKey {
	var all []DroppedKey
	for i, item := range before {
		b, ok := item.(map[string]any)
		if !ok {
			continue
		}
		name, _ := b["name"].(string)
		a, label := itemOf(after, i, name)
		if a != nil {
			all = append(all, dropped(path+"["+label+"]", b, a, known)...)
		}
	}
	return all
}

func itemOf(items []any, i int, name string) (item map[string]any, label string) {
	if namePattern.MatchString(name) {
		for _, other := range items {
			if o, ok := other.(map[string]any); ok && o["name"] == name {
				return o, name
			}
		}
	}
	if i < len(items) {
		item, _ = items[i].(map[string]any)
	}
	return item, fmt.Sprint(i)
}
