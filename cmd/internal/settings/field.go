package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A field is one key of a section: what decodes it, what describes it, what
// the JSON Schema says of it. T is what the section is decoded into.
type field[T any] struct {
	key      string
	doc      string // one sentence for people, part of the JSON Schema
	into     func(*T) decoder
	fallback any // string, int or bool that stands where the file is silent; nil = the zero value, or resolved later

	required bool
	secret   bool
	notApp   bool     // the app's form does not offer it
	choices  []string // of a text
	pattern  *regexp.Regexp
	shape    string // says pattern in words: "needs …"
	min      int    // of a number
	max      int
}

// A decoder takes a node's value. It reports what it can not take.
type decoder interface {
	decode(n *node, p place, r rules)
	schema() map[string]any
}

// rules are what a field asks of its value beyond the type.
type rules struct {
	secret   bool
	choices  []string
	pattern  *regexp.Regexp
	shape    string
	min, max int
	app      bool
}

func (f field[T]) rules(app bool) rules {
	return rules{secret: f.secret, choices: f.choices, pattern: f.pattern, shape: f.shape, min: f.min, max: f.max, app: app}
}

// decodeSection decodes every key of n into t, after the defaults.
func decodeSection[T any](fields []field[T], t *T, n *node, p place, r rules) {
	setDefaults(fields, t)
	for _, e := range n.entries {
		at := p.key(e.key)
		i := slices.IndexFunc(fields, func(f field[T]) bool { return f.key == e.key })
		if i < 0 {
			refuseKey(at, e.key, keysOf(fields))
			continue
		}
		f := fields[i]
		if r.app && f.notApp {
			at.refuse("can not be set in the app: the Supervisor decides on it; remove it")
			continue
		}
		if e.value.kind == null || e.value.kind == text && e.value.text == "" {
			continue // nothing said: the default stands
		}
		f.into(t).decode(e.value, at, f.rules(r.app))
	}
}

// setDefaults sets what stands where the file is silent, in sections that the
// file does not have as well.
func setDefaults[T any](fields []field[T], t *T) {
	for _, f := range fields {
		into := f.into(t)
		if f.fallback != nil {
			into.decode(nodeOf(f.fallback), place{report: newReport("")}, f.rules(false))
		}
		if inner, ok := into.(interface{ defaults() }); ok {
			inner.defaults()
		}
	}
}

func keysOf[T any](fields []field[T]) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

func nodeOf(v any) *node {
	switch v := v.(type) {
	case string:
		return &node{kind: text, text: v}
	case int:
		return &node{kind: number, number: v}
	case bool:
		return &node{kind: boolean, flag: v}
	}
	return &node{}
}

// reserved keys have a meaning in a later version.
var reserved = []string{"fallback_ca", "listen_tls", "issuer"}

func refuseKey(at place, key string, known []string) {
	if slices.Contains(reserved, key) {
		at.refuse("not yet: this key is kept for a later version; remove it")
		return
	}
	if home := homeOf(key); home != "" {
		at.refuse("does not belong here but %s", home)
		return
	}
	if near := closest(key, known); near != "" {
		at.refuse("is not known: did you mean %s?", near)
		return
	}
	at.refuse("is not known: remove it")
}

// homeOf names the section that knows a key.
func homeOf(key string) string {
	switch {
	case slices.Contains(keysOf(mqttFields()), key):
		return "into mqtt"
	case slices.Contains(keysOf(serviceFields()), key):
		return "at the top of the file"
	case slices.Contains(keysOf(certificateFields()), key):
		return "into an item of certificates"
	case slices.Contains(keysOf(watchFields()), key):
		return "into an item of watch"
	}
	return ""
}

func mismatch(p place, n *node, want string) {
	hint := ""
	switch {
	case want == "text" && (n.kind == number || n.kind == boolean || n.kind == other):
		hint = ": put it in quotes"
	case want == "a list" && n.kind == text:
		hint = ": put it in [brackets]"
	case want == "a number" && n.kind == text:
		hint = ": write it in digits, without quotes"
	case want == "true or false" && n.kind == text:
		hint = ": write it without quotes"
	}
	p.refuse("needs %s, and this is %s%s", want, n.kind, hint)
}

// textInto takes a text.
type textInto struct{ to *string }

func (t textInto) decode(n *node, p place, r rules) {
	if n.kind != text {
		mismatch(p, n, "text")
		return
	}
	if sentence := r.judge(n.text); sentence != "" {
		p.refuse("%s", sentence)
		return
	}
	*t.to = n.text
}

// judge says what is wrong with a text; secrets are not quoted.
func (r rules) judge(s string) string {
	if i := strings.IndexFunc(s, isControl); i >= 0 && !r.secret {
		return "holds a control character: write it anew"
	}
	if len(r.choices) > 0 && !slices.Contains(r.choices, s) {
		if near := closest(s, r.choices); near != "" {
			return fmt.Sprintf("%q is not known: did you mean %s?", s, near)
		}
		return fmt.Sprintf("%q is not known: choose %s", s, oneOf(r.choices))
	}
	if r.pattern != nil && !r.pattern.MatchString(s) {
		if r.secret {
			return "needs " + r.shape
		}
		return fmt.Sprintf("%q: needs %s", s, r.shape)
	}
	return ""
}

func isControl(c rune) bool { return c < 0x20 || c == 0x7f }

// oneOf lists choices as a sentence does.
func oneOf(choices []string) string {
	if len(choices) == 1 {
		return choices[0]
	}
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

func (t textInto) schema() map[string]any { return map[string]any{"type": "string"} }

// numberInto takes a whole number.
type numberInto struct{ to *int }

func (t numberInto) decode(n *node, p place, r rules) {
	value := n.number
	if n.loose {
		parsed, err := strconv.Atoi(strings.TrimSpace(n.text))
		if err != nil {
			p.refuse("needs a number, and what was read is none")
			return
		}
		value = parsed
	} else if n.kind != number {
		mismatch(p, n, "a number")
		return
	}
	if value < r.min || value > r.max {
		p.refuse("%d is out of range: needs %d to %d", value, r.min, r.max)
		return
	}
	*t.to = value
}

func (t numberInto) schema() map[string]any { return map[string]any{"type": "integer"} }

// flagInto takes true or false.
type flagInto struct{ to *bool }

func (t flagInto) decode(n *node, p place, _ rules) {
	value := n.flag
	if n.loose {
		parsed, err := strconv.ParseBool(strings.TrimSpace(n.text))
		if err != nil {
			p.refuse("needs true or false, and what was read is neither")
			return
		}
		value = parsed
	} else if n.kind != boolean {
		mismatch(p, n, "true or false")
		return
	}
	*t.to = value
}

func (t flagInto) schema() map[string]any { return map[string]any{"type": "boolean"} }

// parsedInto gives a text to a function whose error is a sentence.
type parsedInto struct{ parse func(string) error }

func (t parsedInto) decode(n *node, p place, r rules) {
	if n.kind != text {
		mismatch(p, n, "text")
		return
	}
	if err := t.parse(n.text); err != nil {
		p.refuse("%s", err)
	}
}

func (t parsedInto) schema() map[string]any { return map[string]any{"type": "string"} }

// textsInto takes a list of texts. What !env and !file bring is one a line.
type textsInto struct{ to *[]string }

func (t textsInto) decode(n *node, p place, r rules) {
	items, ok := listItems(n, p)
	if !ok {
		return
	}
	*t.to = nil
	for i, item := range items {
		one := ""
		textInto{&one}.decode(item, p.item(i), r)
		*t.to = append(*t.to, one) // a bad one as well: the places must fit
	}
}

func (t textsInto) schema() map[string]any {
	return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
}

// listItems are the items of a list of texts. The node becomes that list, for
// the checks that come later.
func listItems(n *node, p place) ([]*node, bool) {
	if n.loose {
		n.kind, n.loose, n.items = list, false, nil
		for item := range strings.Lines(n.text) {
			if item = strings.TrimSpace(item); item != "" {
				n.items = append(n.items, &node{kind: text, line: n.line, order: n.order, text: item})
			}
		}
	}
	if n.kind != list {
		mismatch(p, n, "a list")
		return nil, false
	}
	for i, item := range n.items {
		if item.kind == null || item.kind == text && item.text == "" {
			p.item(i).refuse("is empty: remove it")
		}
	}
	return n.items, true
}

// eachInto gives each text of a list to a function whose error is a sentence.
type eachInto struct{ parse func(string) error }

func (t eachInto) decode(n *node, p place, r rules) {
	items, ok := listItems(n, p)
	if !ok {
		return
	}
	for i, item := range items {
		if item.kind != text {
			mismatch(p.item(i), item, "text")
		}
		if err := t.parse(item.text); err != nil { // a bad one as well: the places must fit
			p.item(i).refuse("%s", err)
		}
	}
}

func (t eachInto) schema() map[string]any {
	return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
}

// sectionInto takes a section of keys.
type sectionInto[T any] struct {
	fields []field[T]
	to     *T
}

func (t sectionInto[T]) decode(n *node, p place, r rules) {
	if n.kind != section {
		mismatch(p, n, "a section of keys")
		return
	}
	decodeSection(t.fields, t.to, n, p, r)
}

func (t sectionInto[T]) defaults() { setDefaults(t.fields, t.to) }

func (t sectionInto[T]) schema() map[string]any { return sectionSchema(t.fields) }

// itemsInto takes a list of sections.
type itemsInto[T any] struct {
	fields []field[T]
	to     *[]T
}

func (t itemsInto[T]) decode(n *node, p place, r rules) {
	if n.kind != list {
		mismatch(p, n, "a list")
		return
	}
	*t.to = nil
	for i, item := range n.items {
		var one T
		at := p.named(i)
		if item.kind == section {
			decodeSection(t.fields, &one, item, at, r)
		} else {
			mismatch(at, item, "a section of keys")
		}
		*t.to = append(*t.to, one) // a bad one as well: the places must fit
	}
}

func (t itemsInto[T]) schema() map[string]any {
	return map[string]any{"type": "array", "items": sectionSchema(t.fields)}
}
