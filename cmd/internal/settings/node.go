package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of what is read at all. A configuration is a few kilobytes; the
// parser's time grows with the square of depth and of keys in one mapping
// (measured: 20,000 open brackets take 1.6 s).
const (
	maxFile  = 256 << 10
	maxDepth = 100
	maxNodes = 50_000
)

type nodeKind int

const (
	null nodeKind = iota
	text
	number  // a whole number
	boolean // true or false
	other   // fractions and what else there is; text holds it
	list
	section
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "text", "a number", "true or false", "a number with a fraction", "a list", "a section of keys"}[k]
}

// node is one value of the file, with its line and without what YAML calls it.
type node struct {
	kind    nodeKind
	line    int
	order   int    // counts the nodes of the file
	text    string // of text: the value; of other scalars: as it is written
	number  int
	flag    bool
	loose   bool // came from !env or !file: text that may stand for a number, a flag or a list
	items   []*node
	entries []entry
}

type entry struct {
	key   string
	line  int
	value *node
}

func (n *node) entry(key string) (entry, bool) {
	if n == nil {
		return entry{}, false
	}
	for _, e := range n.entries {
		if e.key == key {
			return e, true
		}
	}
	return entry{}, false
}

// reader turns the parser's tree into nodes and reports what has no place in a
// configuration.
type reader struct {
	env     Environment
	report  *report
	folder  string // that !file paths are relative to
	anchors map[string]ast.Node
	left    int // nodes that may still come: an alias may be named often
}

// read parses data. A nil node without a report is an empty file.
func (r *reader) read(data []byte) *node {
	if len(data) > maxFile {
		r.report.add(0, 0, "", fmt.Sprintf("has %d bytes: a configuration has at most %d", len(data), maxFile))
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if line := tooDeep(data); line > 0 {
		r.report.add(line, 0, "", fmt.Sprintf("more than %d brackets are open here: one is missing, or this is no configuration", maxDepth))
		return nil
	}
	file, err := parse(data)
	if err != nil {
		r.syntax(data, err)
		return nil
	}
	body, second := documents(file)
	if second != nil {
		r.report.add(second.GetToken().Position.Line, 0, "", "a second YAML document begins here: put everything into one, without ---")
		return nil
	}
	if body == nil {
		return nil
	}
	r.anchors, r.left = map[string]ast.Node{}, maxNodes
	return r.convert("", body, 0)
}

// parse guards the foreign parser: the text of a user may find a panic in it.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("this is no YAML that can be read")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// documents gives the first document's content and the second's, if any.
func documents(f *ast.File) (first, second ast.Node) {
	for _, d := range f.Docs {
		switch d.Body.(type) {
		case nil, *ast.DirectiveNode, *ast.CommentGroupNode:
			continue
		}
		if first != nil {
			return first, d.Body
		}
		first = d.Body
	}
	return first, nil
}

func tooDeep(data []byte) (line int) {
	line = 1
	depth, run := 0, 0
	for i, c := range data {
		switch c {
		case '\n':
			line++
			run = 0
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '-', '?', '!', '&', ':':
			// "- - - -" nests as well.
			if i+1 < len(data) && data[i+1] == ' ' {
				run++
			}
		}
		if depth > maxDepth || run > maxDepth {
			return line
		}
	}
	return 0
}

// syntax reports the one error that the parser found.
func (r *reader) syntax(data []byte, err error) {
	m := Mistake{File: r.report.file, Sentence: "is no valid YAML"}
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		m.Line = max(1, at.GetToken().Position.Line)
		m.Sentence = "is no valid YAML here: " + plainSyntax(at.GetMessage())
		m.Excerpt = excerpt(data, m.Line, at.GetToken().Position.Column)
	}
	r.report.mistakes = append(r.report.mistakes, m)
}

// plainSyntax says the parser's commoner complaints in a way that helps.
func plainSyntax(message string) string {
	for _, known := range []struct{ part, plain string }{
		{"cannot start any token", "indent with spaces, not with tabs"},
		{"could not find end character", "a quote is opened and not closed"},
		{"must be specified", "a bracket is opened and not closed, or a comma is missing"},
		{"end token", "a bracket is opened and not closed"},
		{"mapping value is not allowed", "a second colon; put the value in quotes"},
		{"is a reserved character", "put the value in quotes, it begins with a character that YAML keeps for itself"},
		{"pre-defined", "text follows a value in quotes; quote the whole"},
		{"value is not allowed in this context", "this line is not indented like the others of its section"},
		{"unexpected directive", "put the value in quotes, it begins with %"},
	} {
		if strings.Contains(message, known.part) {
			return known.plain
		}
	}
	// The parser's own words may hold a piece of the file, in quotes.
	before, _, quoted := strings.Cut(message, `"`)
	if quoted || message == "" {
		return strings.TrimSpace(before + " …")
	}
	return message
}

func line(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return max(1, tk.Position.Line)
	}
	return 1
}

// convert makes nodes of n, which stands at path. It never gives nil.
func (r *reader) convert(path string, n ast.Node, depth int) *node {
	if n == nil {
		return &node{}
	}
	r.left--
	out := &node{line: line(n), order: maxNodes - r.left}
	if r.left < 0 || depth > maxDepth {
		r.report.add(out.line, out.order, path, "is nested too deeply, or repeats an alias too often")
		return out
	}
	switch v := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = text, v.Value
	case *ast.LiteralNode:
		out.kind, out.text = text, v.Value.Value
	case *ast.BoolNode:
		out.kind, out.flag, out.text = boolean, v.Value, v.Token.Value
	case *ast.IntegerNode:
		out.kind, out.text = number, v.Token.Value
		whole, err := strconv.Atoi(fmt.Sprint(v.Value))
		if err != nil {
			out.kind = other
		}
		out.number = whole
	case *ast.SequenceNode:
		out.kind = list
		taken := map[string]bool{}
		for i, item := range v.Values {
			label := peekName(item)
			if label == "" || taken[label] {
				label = strconv.Itoa(i)
			}
			taken[label] = true
			out.items = append(out.items, r.convert(fmt.Sprintf("%s[%s]", path, label), item, depth+1))
		}
	case *ast.MappingNode:
		out.kind = section
		r.entries(out, path, v.Values, depth)
	case *ast.MappingValueNode:
		out.kind = section
		r.entries(out, path, []*ast.MappingValueNode{v}, depth)
	case *ast.AnchorNode:
		if v.Name != nil {
			r.anchors[v.Name.GetToken().Value] = v.Value
		}
		return r.convert(path, v.Value, depth+1)
	case *ast.AliasNode:
		return r.alias(path, v, out, depth)
	case *ast.TagNode:
		return r.tag(path, v, out, depth)
	case ast.ScalarNode:
		out.kind = other
		if tk := v.GetToken(); tk != nil {
			out.text = tk.Value
		}
	default:
		r.report.add(out.line, out.order, path, "is no value that a configuration can have")
	}
	return out
}

func (r *reader) entries(out *node, path string, values []*ast.MappingValueNode, depth int) {
	for _, v := range values {
		at := line(v.Key)
		key, ok := keyText(v.Key)
		if !ok {
			r.report.add(at, out.order, path, "a key must be a plain word; YAML's << and ? are not understood here")
			continue
		}
		under := join(path, key)
		if earlier, twice := out.entry(key); twice {
			r.report.add(at, out.order, under, fmt.Sprintf("is given twice, in line %d too: keep one", earlier.line))
			continue
		}
		value := r.convert(under, v.Value, depth+1)
		if value.kind == null || value.line == 0 {
			value.line = at
		}
		out.entries = append(out.entries, entry{key: key, line: at, value: value})
	}
}

// peekName is the name that an item of a list gives itself, if it is a good one.
func peekName(item ast.Node) string {
	m, ok := item.(ast.MapNode)
	if !ok {
		return ""
	}
	for it := m.MapRange(); it.Next(); {
		key, _ := keyText(it.Key())
		name, ok := it.Value().(*ast.StringNode)
		if key == "name" && ok && namePattern.MatchString(name.Value) {
			return name.Value
		}
	}
	return ""
}

func keyText(k ast.MapKeyNode) (string, bool) {
	switch v := k.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.MergeKeyNode, *ast.MappingKeyNode:
		return "", false
	case ast.ScalarNode:
		return v.GetToken().Value, true
	}
	return "", false
}

// wordPattern is what may be a key. Anything else may be a secret that slipped
// to the wrong side of a colon, and is not shown.
var wordPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

const wordLength = 32

func join(path, key string) string {
	if len(key) > wordLength || !wordPattern.MatchString(key) {
		key = "…"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// alias resolves *name. A wildcard domain without quotes looks like one.
func (r *reader) alias(path string, v *ast.AliasNode, out *node, depth int) *node {
	name := ""
	if v.Value != nil {
		name = v.Value.GetToken().Value
	}
	if target, ok := r.anchors[name]; ok {
		return r.convert(path, target, depth+1)
	}
	if strings.HasPrefix(name, ".") && strings.Contains(path, ".domains[") {
		r.report.add(out.line, out.order, path, fmt.Sprintf("write \"*%s\" in quotes: a star begins something else in YAML", name))
		return out
	}
	r.report.add(out.line, out.order, path, "begins with a star, which means something else in YAML: put it in quotes")
	return out
}

// tag resolves !env NAME and !file PATH.
func (r *reader) tag(path string, v *ast.TagNode, out *node, depth int) *node {
	inner := &node{line: out.line}
	if _, isScalar := v.Value.(ast.ScalarNode); isScalar {
		inner = r.convert(path, v.Value, depth+1)
	}
	scalar := inner.kind != null && inner.text != ""
	switch v.Start.Value {
	case "!env":
		if !scalar {
			r.report.add(out.line, out.order, path, "!env needs the name of a variable: !env NAME")
			return out
		}
		value := r.env.Getenv(inner.text)
		if value == "" {
			r.report.add(out.line, out.order, path, fmt.Sprintf("the environment variable %s is not set or empty", inner.text))
			return out
		}
		return &node{kind: text, line: out.line, order: out.order, text: value, loose: true}
	case "!file":
		if !scalar {
			r.report.add(out.line, out.order, path, "!file needs the path of a file: !file /run/secrets/name")
			return out
		}
		data, err := r.env.load(absolute(r.folder, inner.text))
		if err != nil {
			r.report.add(out.line, out.order, path, err.Error())
			return out
		}
		value := withoutLineBreak(data)
		if value == "" {
			r.report.add(out.line, out.order, path, fmt.Sprintf("the file %s is empty", inner.text))
			return out
		}
		return &node{kind: text, line: out.line, order: out.order, text: value, loose: true}
	case "!!str":
		if scalar {
			inner.kind = text
		}
		return inner
	case "!secret":
		r.report.add(out.line, out.order, path, "!secret is understood by Home Assistant only: use !env NAME or !file PATH")
	default:
		r.report.add(out.line, out.order, path, "begins with !, which means something else in YAML: put it in quotes; only !env NAME and !file PATH are known")
	}
	return out
}

// withoutLineBreak takes one line break off the end, as lego does with its
// *_FILE variables.
func withoutLineBreak(data []byte) string {
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
}

// load reads a small regular file. Its error is a sentence.
func (e Environment) load(path string) ([]byte, error) {
	info, err := e.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	data, err := e.ReadFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return data, nil
}

func unreadable(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by the user that this runs as: run it with sudo, or give the file to that user", path)
	}
	return fmt.Errorf("%s can not be read: %w", path, reason(err))
}

// reason is an error without the path, which the sentence names already.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
