package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certsitter/certsitter/internal/providers"
)

// module is where the descriptions come from.
const module = "github.com/go-acme/lego/v4"

// unfit are providers that lego still has and nobody should choose. All but
// manual are gone from lego 5 (its docs/content/migration/library.md).
var unfit = map[string]string{
	"manual":        "it asks a person at a terminal, and nobody is there",
	"azure":         "lego gives it up with its next version; use azuredns",
	"brandit":       "lego gives it up with its next version",
	"cloudxns":      "lego gives it up with its next version; the service was closed",
	"dnspod":        "lego gives it up with its next version; use tencentcloud",
	"googledomains": "lego gives it up with its next version; the service was closed",
	"iij":           "lego gives it up with its next version",
	"iwantmyname":   "lego gives it up with its next version",
}

// source is lego's module in the module cache.
type source struct{ dir, version string }

func findLego() (source, error) {
	out, err := exec.Command("go", "list", "-m", "-json", module).Output()
	if err != nil {
		return source{}, fmt.Errorf("find %s: %w", module, err)
	}
	var m struct{ Dir, Version string }
	if err := json.Unmarshal(out, &m); err != nil {
		return source{}, fmt.Errorf("find %s: %w", module, err)
	}
	if m.Dir == "" {
		return source{}, fmt.Errorf("%s is not in the module cache: run go mod download", module)
	}
	return source{m.Dir, m.Version}, nil
}

// providers reads every description, in the order of the codes.
func (s source) providers() ([]providers.Provider, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "providers", "dns", "*", "*.toml"))
	if err != nil {
		return nil, err
	}
	var all []providers.Provider
	for _, file := range files {
		p, err := s.provider(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b providers.Provider) int { return strings.Compare(a.Code, b.Code) })
	return all, nil
}

func (s source) provider(file string) (providers.Provider, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return providers.Provider{}, err
	}
	doc, err := parseDescription(string(text))
	if err != nil {
		return providers.Provider{}, err
	}
	code, err := s.readCode(filepath.Dir(file))
	if err != nil {
		return providers.Provider{}, err
	}
	p := providers.Provider{
		Code:        doc.value["Code"],
		Aliases:     doc.list["Aliases"],
		Name:        doc.value["Name"],
		URL:         absolute(doc.value["URL"]),
		Credentials: doc.variables["Configuration.Credentials"],
		Options:     doc.variables["Configuration.Additional"],
		Propagation: code.longest("PropagationTimeout"),
		Sequence:    code.longest("SequenceInterval"),
		Required:    code.required,
		Unfit:       unfit[doc.value["Code"]],
	}
	if p.Code == "" || p.Name == "" {
		return p, fmt.Errorf("no code or no name")
	}
	if !code.sequential {
		p.Sequence = 0
	}
	for _, name := range code.variables {
		if !p.Knows(name) {
			p.Undocumented = append(p.Undocumented, name)
		}
	}
	return p, nil
}

// description is one of lego's TOML files.
type description struct {
	value     map[string]string
	list      map[string][]string
	variables map[string][]providers.Variable // by table
}

var (
	variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]+$`)
	listElement  = regexp.MustCompile(`"([^"]*)"`)
)

// parseDescription reads the few shapes of TOML that the files have: tables,
// strings of three kinds, and lists of strings in one line.
func parseDescription(text string) (description, error) {
	d := description{map[string]string{}, map[string][]string{}, map[string][]providers.Variable{}}
	table := ""
	for number, lines := 0, strings.Split(text, "\n"); number < len(lines); number++ {
		line := strings.TrimSpace(lines[number])
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.Trim(strings.TrimSpace(key), `"'`), strings.TrimSpace(value)
		if !ok {
			return d, fmt.Errorf("line %d is neither a table nor a value", number+1)
		}
		quote := value[:min(3, len(value))]
		switch {
		case quote == `'''` || quote == `"""`:
			body := value[3:]
			for !strings.Contains(body, quote) {
				if number++; number == len(lines) {
					return d, fmt.Errorf("%s has no end", key)
				}
				body += "\n" + lines[number]
			}
			value, _, _ = strings.Cut(body, quote)
		case strings.HasPrefix(value, "["):
			body, _, _ := strings.Cut(value, "]") // a comment may follow
			for _, m := range listElement.FindAllStringSubmatch(body, -1) {
				d.list[key] = append(d.list[key], m[1])
			}
			continue
		case strings.HasPrefix(value, "'"):
			value = strings.Trim(value, "'")
		default:
			unquoted, err := strconv.Unquote(value)
			if err != nil {
				return d, fmt.Errorf("line %d: %s is no string: %w", number+1, key, err)
			}
			value = unquoted
		}
		switch {
		case table == "":
			d.value[key] = value
		case variableName.MatchString(key):
			d.variables[table] = append(d.variables[table], providers.Variable{Name: key, Text: value})
		}
	}
	return d, nil
}

// code is what a provider's source text says of its variables and waits.
type code struct {
	variables  []string // sorted
	required   []string
	sequential bool
	durations  map[string][]time.Duration // of the fields of its default configuration
}

func (c code) longest(field string) time.Duration {
	if len(c.durations[field]) == 0 {
		return 0
	}
	return slices.Max(c.durations[field])
}

// readCode reads the Go files in a provider's folder and below.
func (s source) readCode(dir string) (code, error) {
	c := code{durations: map[string][]time.Duration{}}
	var files []*ast.File
	own := map[*ast.File]bool{} // in the folder itself, not below
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		files = append(files, f)
		own[f] = filepath.Dir(path) == dir
		return err
	})
	if err != nil {
		return c, err
	}
	known := constants{}
	for _, f := range files {
		known.add(f)
	}
	for name, value := range known {
		if text, ok := known.text(value, 0); ok && strings.Contains(strings.ToLower(name), "env") &&
			variableName.MatchString(text) && !strings.HasSuffix(text, "_") {
			c.variables = append(c.variables, text)
		}
	}
	c.variables = append(c.variables, known.otherSpellings(c.variables)...)
	slices.Sort(c.variables)
	c.variables = slices.Compact(c.variables)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				c.sequential = c.sequential || n.Name.Name == "Sequential" && n.Recv != nil
				if n.Name.Name == "NewDNSProvider" && n.Recv == nil && own[f] {
					c.required = append(c.required, known.required(n.Body)...)
				}
			case *ast.KeyValueExpr:
				c.wait(n, known)
			}
			return true
		})
	}
	return c, nil
}

// otherSpellings are the variables in a second namespace: RFC2136_TTL is the old
// name of DNSUPDATE_TTL. The files of lego put them together in a function.
func (c constants) otherSpellings(variables []string) (others []string) {
	main, ok := c.text(&ast.Ident{Name: "envNamespace"}, 0)
	if !ok {
		return nil
	}
	for _, name := range []string{"altEnvNamespace", "altEnvRFC2136Namespace"} {
		other, ok := c.text(&ast.Ident{Name: name}, 0)
		for _, v := range variables {
			if rest, found := strings.CutPrefix(v, main); ok && found {
				others = append(others, other+rest)
			}
		}
	}
	return others
}

// wait notes the default of a field that is a duration:
// PropagationTimeout: env.GetOrDefaultSecond(EnvPropagationTimeout, 2*time.Minute).
func (c code) wait(n *ast.KeyValueExpr, known constants) {
	field, ok := n.Key.(*ast.Ident)
	if !ok || field.Name != "PropagationTimeout" && field.Name != "SequenceInterval" {
		return
	}
	value := n.Value
	if call, ok := value.(*ast.CallExpr); ok && len(call.Args) > 1 {
		value = call.Args[1]
	}
	if d, ok := known.duration(value, 0); ok {
		c.durations[field.Name] = append(c.durations[field.Name], d)
	}
}

// required are the variables that a constructor cannot do without: those of the
// first env.Get that is reached whatever else is set.
func (c constants) required(body *ast.BlockStmt) []string {
	for i, statement := range body.List {
		assignment, ok := statement.(*ast.AssignStmt)
		if !ok {
			if _, ok := statement.(*ast.DeclStmt); ok {
				continue
			}
			return nil // a decision: what follows may not be reached
		}
		call, ok := assignment.Rhs[0].(*ast.CallExpr)
		if !ok {
			continue
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			continue
		}
		if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "env" {
			if i+1 == len(body.List) || !endsOnError(body.List[i+1]) {
				return nil // another set of variables comes next
			}
			switch f.Sel.Name {
			case "Get":
				return c.texts(call.Args)
			case "GetWithFallback":
				return c.withoutFallback(call.Args)
			}
		}
	}
	return nil
}

// endsOnError tells whether a statement is "if err != nil { …; return … }".
func endsOnError(statement ast.Stmt) bool {
	choice, ok := statement.(*ast.IfStmt)
	if !ok || choice.Else != nil || len(choice.Body.List) == 0 {
		return false
	}
	condition, ok := choice.Cond.(*ast.BinaryExpr)
	if !ok || condition.Op != token.NEQ {
		return false
	}
	_, returns := choice.Body.List[len(choice.Body.List)-1].(*ast.ReturnStmt)
	failed, ok := condition.X.(*ast.Ident)
	return ok && returns && failed.Name == "err"
}

// withoutFallback are the variables of groups of one.
func (c constants) withoutFallback(groups []ast.Expr) (names []string) {
	for _, g := range groups {
		if list, ok := g.(*ast.CompositeLit); ok && len(list.Elts) == 1 {
			names = append(names, c.texts(list.Elts)...)
		}
	}
	return names
}

func (c constants) texts(list []ast.Expr) (texts []string) {
	for _, e := range list {
		if text, ok := c.text(e, 0); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// constants are the values of a package's constants and variables, by name.
type constants map[string]ast.Expr

// deepest bounds how far a constant may lead to another.
const deepest = 10

func (c constants) add(f *ast.File) {
	for _, decl := range f.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			values, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, name := range values.Names {
				if i < len(values.Values) {
					c[name.Name] = values.Values[i]
				}
			}
		}
	}
}

// text is the value of an expression that is a string.
func (c constants) text(e ast.Expr, depth int) (string, bool) {
	if depth > deepest {
		return "", false
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		value, ok := c[e.Name]
		if !ok {
			return "", false
		}
		return c.text(value, depth+1)
	case *ast.BinaryExpr:
		left, ok := c.text(e.X, depth+1)
		right, ok2 := c.text(e.Y, depth+1)
		return left + right, ok && ok2 && e.Op == token.ADD
	}
	return "", false
}

// units are the names in durations: package time's and lego's own defaults
// (challenge/dns01).
var units = map[string]time.Duration{
	"time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour,
	"dns01.DefaultPropagationTimeout": 60 * time.Second, "dns01.DefaultPollingInterval": 2 * time.Second,
	"gcore.DefaultPropagationTimeout": 6 * time.Minute,
}

// duration is the value of an expression that is a duration.
func (c constants) duration(e ast.Expr, depth int) (time.Duration, bool) {
	if depth > deepest {
		return 0, false
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.Atoi(e.Value)
		return time.Duration(n), err == nil
	case *ast.Ident:
		value, ok := c[e.Name]
		if !ok {
			return 0, false
		}
		return c.duration(value, depth+1)
	case *ast.SelectorExpr:
		pkg, ok := e.X.(*ast.Ident)
		if !ok {
			return 0, false
		}
		d, ok := units[pkg.Name+"."+e.Sel.Name]
		return d, ok
	case *ast.BinaryExpr:
		left, ok := c.duration(e.X, depth+1)
		right, ok2 := c.duration(e.Y, depth+1)
		return left * right, ok && ok2 && e.Op == token.MUL
	}
	return 0, false
}

// render writes the table as Go source text.
func render(version string, all []providers.Provider) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by go generate from lego %s (MIT license, its providers' descriptions); DO NOT EDIT.\n\n", version)
	b.WriteString("package providers\n\nimport \"time\"\n\n")
	fmt.Fprintf(&b, "// LegoVersion is the version of lego that the table is made of.\nconst LegoVersion = %q\n\n", version)
	b.WriteString("// table is never written to.\nvar table = []Provider{\n")
	for _, p := range all {
		fmt.Fprintf(&b, "{\nCode: %q, Name: %q, URL: %q,\n", p.Code, p.Name, p.URL)
		writeStrings(&b, "Aliases", p.Aliases)
		writeVariables(&b, "Credentials", p.Credentials)
		writeVariables(&b, "Options", p.Options)
		writeStrings(&b, "Required", p.Required)
		writeStrings(&b, "Undocumented", p.Undocumented)
		writeSeconds(&b, "Propagation", p.Propagation)
		writeSeconds(&b, "Sequence", p.Sequence)
		if p.Unfit != "" {
			fmt.Fprintf(&b, "Unfit: %q,\n", p.Unfit)
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

func writeStrings(b *bytes.Buffer, field string, values []string) {
	if len(values) > 0 {
		fmt.Fprintf(b, "%s: %#v,\n", field, values)
	}
}

func writeVariables(b *bytes.Buffer, field string, values []providers.Variable) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(b, "%s: []Variable{\n", field)
	for _, v := range values {
		fmt.Fprintf(b, "{%q, %q},\n", v.Name, v.Text)
	}
	b.WriteString("},\n")
}

func writeSeconds(b *bytes.Buffer, field string, d time.Duration) {
	if d > 0 {
		fmt.Fprintf(b, "%s: %d * time.Second,\n", field, d/time.Second)
	}
}

// absolute is a URL that leads somewhere from outside lego's own pages, too.
func absolute(url string) string {
	if strings.HasPrefix(url, "/") {
		return "https://go-acme.github.io" + url
	}
	return url
}
