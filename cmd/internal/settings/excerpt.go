package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// keyLine is a line that gives a key, in YAML or JSON.
var keyLine = regexp.MustCompile(`^[\s\-{\[]*["']?([A-Za-z_][A-Za-z0-9_]*)["']?\s*:(\s|$|["'{\[])`)

// sayable are the keys whose values may be shown: all that are known and no
// secrets, and that do not hold others.
func sayable() []string {
	var out []string
	add := func(key string, secret bool) {
		if !secret && key != "mqtt" && key != "certificates" && key != "watch" {
			out = append(out, key)
		}
	}
	for _, f := range serviceFields() {
		add(f.key, f.secret)
	}
	for _, f := range certificateFields() {
		add(f.key, f.secret)
	}
	for _, f := range watchFields() {
		add(f.key, f.secret)
	}
	for _, f := range mqttFields() {
		add(f.key, f.secret)
	}
	return out
}

// excerpt shows the line of a syntax error and points at the column. Since
// nothing is known of a file that can not be read, it shows values only where
// the line, or the nearest one above that has a key, has one key that is no
// secret.
func excerpt(data []byte, line, column int) string {
	lines := strings.Split(string(data), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	shown := strings.TrimRight(lines[line-1], "\r")
	if !harmless(lines[:line]) {
		shown = veil(shown)
	}
	shown = strings.Map(func(r rune) rune {
		if isControl(r) {
			return '→'
		}
		return r
	}, shown)
	runes := []rune(shown)
	const longest = 100
	if len(runes) > longest {
		runes = append(runes[:longest], '…')
	}
	lead := fmt.Sprintf("  %d | ", line)
	out := lead + string(runes)
	if column >= 1 && column <= len(runes)+1 {
		out += "\n" + strings.Repeat(" ", len(lead)+column-1) + "^"
	}
	return out
}

// harmless reports that the last of lines can be shown as it is.
func harmless(lines []string) bool {
	known := sayable()
	last := lines[len(lines)-1]
	if strings.Count(last, ":") > 4 {
		return false // many keys in one line
	}
	for i := len(lines) - 1; i >= 0; i-- {
		m := keyLine.FindStringSubmatch(lines[i])
		if m == nil {
			if last := strings.TrimSpace(lines[i]); last == "" || strings.HasPrefix(last, "#") {
				continue
			}
			if len(lines)-1-i > 100 {
				return false
			}
			continue
		}
		return slices.Contains(known, m[1]) && onlyKey(last, m[1])
	}
	return true
}

// anyKey is what looks like a key or a variable; https:// does not.
var anyKey = regexp.MustCompile(`([A-Za-z_]+)["']?\s*(?:=|:(?:[^/]|$))`)

// onlyKey: no other key stands in the line.
func onlyKey(line, key string) bool {
	for _, w := range anyKey.FindAllStringSubmatch(line, -1) {
		if w[1] != key {
			return false
		}
	}
	return true
}

// veil keeps a key and what structures the line, and hides the rest.
func veil(line string) string {
	if m := keyLine.FindStringSubmatchIndex(line); m != nil {
		return line[:m[3]] + strings.TrimRight(line[m[3]:m[4]], "\n") + " …"
	}
	trimmed := strings.TrimLeft(line, " \t-[]{},")
	if trimmed == "" {
		return line
	}
	return line[:len(line)-len(trimmed)] + "…"
}
