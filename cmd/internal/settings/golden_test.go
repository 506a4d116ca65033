package settings

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// table is a ProviderTable of three.
type table struct{}

var tableVariables = map[string][]string{"cloudflare": nil, "duckdns": {"DUCKDNS_TOKEN"}, "hetzner": {"HETZNER_API_TOKEN"}, "exec": nil}

func (table) Known(code string) bool { _, ok := tableVariables[code]; return ok }

func (table) Closest(code string) []string {
	var near []string
	for known := range tableVariables {
		if distance(code, known) <= 2 {
			near = append(near, known)
		}
	}
	return near
}

func (table) Required(code string) []string { return tableVariables[code] }

// testEnvironment is that of files named app-*, image-* and others.
func testEnvironment(name string) Environment {
	variables := map[string]string{"TZ": "Europe/Berlin", "SOME_TOKEN": "from-the-environment", "SOME_DAYS": "30", "SOME_FLAG": "true", "SOME_LIST": "ntfy://ntfy.sh/one\nntfy://ntfy.sh/two\n"}
	if strings.Contains(name, "zone") {
		variables["TZ"] = "Europe/Bielefeld"
	}
	return Environment{
		App:       strings.HasPrefix(name, "app-"),
		Image:     strings.HasPrefix(name, "image-"),
		User:      os.Geteuid(),
		Getenv:    func(key string) string { return variables[key] },
		Providers: table{},
	}
}

func TestGoldenMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/refused/*.*")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return !slices.Contains([]string{".yaml", ".json"}, filepath.Ext(f)) })
	if len(files) < 50 {
		t.Fatalf("%d files with mistakes; there were more", len(files))
	}
	here, err := filepath.Abs("testdata/refused")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(file, testEnvironment(name))
			refusal, ok := errors.AsType[*Refusal](err)
			if !ok {
				t.Fatalf("Load gave %v, no refusal", err)
			}
			got := strings.ReplaceAll(refusal.Error(), here, "DIR")
			got = strings.ReplaceAll(got, "testdata/refused/", "") + "\n"
			if strings.Contains(got, "hush") {
				t.Errorf("a secret is in the message:\n%s", got)
			}
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + filepath.Ext(file) + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
