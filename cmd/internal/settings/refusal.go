package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Mistake is one thing that is wrong with the configuration.
type Mistake struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`    // counted from 1; 0 = the file as a whole
	Key      string `json:"key,omitempty"`     // "certificates[home].provider"; empty = the file as a whole
	Sentence string `json:"sentence"`          // what is wrong and what to do
	Excerpt  string `json:"excerpt,omitempty"` // of a syntax error: the line, veiled where it may hold a secret

	order int // of the value in the file
}

// String is file, line, key and sentence in the way that editors understand,
// with the excerpt in lines of its own.
func (m Mistake) String() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d", m.Line)
	}
	b.WriteString(": ")
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Sentence)
	if m.Excerpt != "" {
		b.WriteString("\n" + m.Excerpt)
	}
	return b.String()
}

// A Refusal is a configuration that is not used, with all that is wrong with
// it in the order of its lines. No sentence holds a secret.
type Refusal struct{ Mistakes []Mistake }

// Error is one mistake a line.
func (r *Refusal) Error() string {
	lines := make([]string, len(r.Mistakes))
	for i, m := range r.Mistakes {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// report collects mistakes, one for each key: what follows from the first is
// not said.
type report struct {
	file     string
	mistakes []Mistake
	refused  map[string]bool
}

func newReport(file string) *report {
	return &report{file: file, refused: map[string]bool{}}
}

func (r *report) add(line, order int, key, sentence string) {
	if r.refused[key] {
		return
	}
	r.refused[key] = true
	r.mistakes = append(r.mistakes, Mistake{File: r.file, Line: line, Key: key, Sentence: shorten(sentence), order: order})
}

// shorten keeps the beginning of a sentence, which says what is wrong, and its
// end, which says what to do: a value between them may be a whole file that was
// pasted into the wrong place.
func shorten(sentence string) string {
	const most, part = 500, 200
	runes := []rune(sentence)
	if len(runes) <= most {
		return sentence
	}
	return string(runes[:part]) + " … " + string(runes[len(runes)-part:])
}

func (r *report) refusal() error {
	if len(r.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(r.mistakes, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.order, b.order))
	})
	return &Refusal{Mistakes: r.mistakes}
}

// place is where a value stands in the file, or would stand.
type place struct {
	path   string
	node   *node // nil = the file does not have it
	line   int   // of the value, or of what it would stand in
	order  int
	report *report
}

func (p place) refuse(format string, args ...any) {
	p.report.add(p.line, p.order, p.path, fmt.Sprintf(format, args...))
}

// ok: nothing was refused at this very place so far.
func (p place) ok() bool { return !p.report.refused[p.path] }

// given: the file says something here, be it the default.
func (p place) given() bool { return p.node != nil && p.node.kind != null }

// key is the place of a key in a section.
func (p place) key(name string) place {
	child := place{path: join(p.path, name), line: p.line, order: p.order, report: p.report}
	if e, ok := p.node.entry(name); ok {
		child.node, child.line, child.order = e.value, e.line, e.value.order
	}
	return child
}

// item is the place of an item of a list.
func (p place) item(i int) place {
	child := place{path: fmt.Sprintf("%s[%d]", p.path, i), line: p.line, order: p.order, report: p.report}
	if p.node != nil && i < len(p.node.items) {
		child.node = p.node.items[i]
		child.line, child.order = child.node.line, child.node.order
	}
	return child
}

// named is item, called by its name once there is one that is good and not
// taken by an earlier item.
func (p place) named(i int) place {
	child := p.item(i)
	name := itemName(child.node)
	if name == "" {
		return child
	}
	for j := range i {
		if itemName(p.node.items[j]) == name {
			return child
		}
	}
	child.path = fmt.Sprintf("%s[%s]", p.path, name)
	return child
}

func itemName(n *node) string {
	e, ok := n.entry("name")
	if !ok || e.value.kind != text || !namePattern.MatchString(e.value.text) {
		return ""
	}
	return e.value.text
}
