package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/internal/providers"
)

// lego finds lego's source text, which a machine that built us has.
func lego(t *testing.T) source {
	t.Helper()
	s, err := findLego()
	if err != nil {
		t.Skip(err)
	}
	return s
}

func TestTableIsFresh(t *testing.T) {
	s := lego(t)
	found, err := s.providers()
	if err != nil {
		t.Fatal(err)
	}
	want, err := render(s.version, found)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../table.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("table.go is not what lego says: run go generate ./internal/providers")
	}
}

// TestEveryCodeOfLego compares with the switch by which lego finds a provider.
func TestEveryCodeOfLego(t *testing.T) {
	file := filepath.Join(lego(t).dir, "providers", "dns", "zz_gen_dns_providers.go")
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CaseClause); ok {
			for _, e := range c.List {
				code, err := strconv.Unquote(e.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				codes = append(codes, code)
			}
		}
		return true
	})
	if len(codes) < 190 {
		t.Fatalf("only %d codes were found in %s", len(codes), file)
	}
	for _, code := range codes {
		if _, ok := providers.ByCode(code); !ok {
			t.Errorf("lego knows %q and the table does not", code)
		}
	}
	for _, p := range providers.All() {
		for _, code := range append([]string{p.Code}, p.Aliases...) {
			if !slices.Contains(codes, code) {
				t.Errorf("the table has %q and lego does not know it", code)
			}
		}
	}
}

func TestParseDescription(t *testing.T) {
	d, err := parseDescription(`Name = "A \"B\""
Description = ''''''
Aliases = ["b", "c"] # "-"
Example = '''
KEY=x \
[not a table]
'''

[Configuration]
  [Configuration.Credentials]
    A_KEY = "key"
    A_NAME= 'the "name"'
    'prose about it' = "no variable"
  [Configuration.Additional]
    A_TTL = "time"
[Links]
  API = "https://example.org"
`)
	if err != nil {
		t.Fatal(err)
	}
	if d.value["Name"] != `A "B"` || !slices.Equal(d.list["Aliases"], []string{"b", "c"}) {
		t.Errorf("name %q, aliases %q", d.value["Name"], d.list["Aliases"])
	}
	want := []providers.Variable{{Name: "A_KEY", Text: "key"}, {Name: "A_NAME", Text: `the "name"`}}
	if got := d.variables["Configuration.Credentials"]; !slices.Equal(got, want) {
		t.Errorf("credentials %q", got)
	}
	if got := d.variables["Configuration.Additional"]; len(got) != 1 {
		t.Errorf("options %q", got)
	}
	for _, broken := range []string{"no value", "Name = bare", "Text = '''\nwithout end"} {
		if _, err := parseDescription(broken); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

func FuzzParseDescription(f *testing.F) {
	f.Add("Name = \"x\"\n[T]\n  A_B = 'c'\nL = [\"a\"]\nE = '''\n'''")
	f.Add("A = ''")
	f.Add("A =")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDescription(text)
		if err == nil && len(d.value) > strings.Count(text, "\n")+1 {
			t.Errorf("more values than lines in %q", text)
		}
	})
}
