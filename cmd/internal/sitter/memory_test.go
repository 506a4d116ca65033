package sitter

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/renew"
)

func sample() *memory {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	m := newMemory()
	m.Installation, m.Saved, m.LastCheck = "5eed5e", at, at
	m.Directories["https://ca.example/dir"] = at.Add(time.Hour)
	m.Attempts = []attempt{{At: at, Account: "https://ca.example/dir ", Names: []string{"home.example.org"}}}
	m.Topics = []string{"certsitter/status"}
	e := m.of("home")
	e.Record = renew.Record{Failures: 2, FirstFailure: at, LastEnd: at, Sentence: "It failed.", Patient: true}
	e.Deployment = &deployment{Version: "v0002", Stage: toAct, StartedAt: at}
	e.Endpoints = map[string]*sighting{"home.example.org:443": {Fingerprint: "ab", Seen: at}}
	e.remember("ab")
	return m
}

func TestMemoryRoundTrip(t *testing.T) {
	f := stateFile{filepath.Join(t.TempDir(), "state.json")}
	want := sample()
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	got, notes, err := f.load()
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	info, err := os.Stat(f.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What can happen to the file, and what is remembered then.
func TestMemoryAfterDamage(t *testing.T) {
	for _, c := range []struct {
		name         string
		damage       func(t *testing.T, f stateFile)
		installation string
		note         string // part of what is said
	}{
		{"nothing there", func(t *testing.T, f stateFile) { os.Remove(f.path); os.Remove(f.previous()) }, "", ""},
		{"cut off between the renames", func(t *testing.T, f stateFile) { os.Remove(f.path) }, "first", ""},
		{"empty after a power cut", func(t *testing.T, f stateFile) { write(t, f.path, "") }, "first", "previous generation is used"},
		{"cut in the middle", func(t *testing.T, f stateFile) { write(t, f.path, `{"version":1,"instal`) }, "first", "previous generation is used"},
		{"from a newer program", func(t *testing.T, f stateFile) { write(t, f.path, `{"version":2}`) }, "first", "newer Certsitter"},
		{"both are damaged", func(t *testing.T, f stateFile) { write(t, f.path, "x"); write(t, f.previous(), "x") }, "", "begin anew"},
		{"without a version", func(t *testing.T, f stateFile) { write(t, f.path, "{}") }, "first", "no version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := stateFile{filepath.Join(t.TempDir(), "state.json")}
			for _, installation := range []string{"first", "second"} {
				m := sample()
				m.Installation = installation
				if err := f.save(m); err != nil {
					t.Fatal(err)
				}
			}
			c.damage(t, f)
			m, notes, err := f.load()
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(notes, " ")
			if m.Installation != c.installation || !strings.Contains(said, c.note) || (said == "") != (c.note == "") {
				t.Errorf("installation %q, said %q; want %q, %q", m.Installation, said, c.installation, c.note)
			}
			if err := f.save(m); err != nil { // it goes on from there
				t.Error(err)
			}
			if aside, _ := filepath.Glob(f.path + ".unreadable-*"); (len(aside) == 1) != (c.note != "") {
				t.Errorf("set aside: %v", aside)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAttemptsOfTheHour(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	m := newMemory()
	for _, a := range []attempt{
		{At: now.Add(-2 * time.Hour), Account: "a", Names: []string{"x"}},
		{At: now.Add(-50 * time.Minute), Account: "a", Names: []string{"x", "y"}},
		{At: now.Add(-40 * time.Minute), Account: "b", Names: []string{"x"}},
		{At: now.Add(-30 * time.Minute), Account: "a", Names: []string{"y"}},
		{At: now.Add(-10 * time.Minute), Account: "a", Names: []string{"y"}},
	} {
		m.began(a)
	}
	if len(m.Attempts) != 4 {
		t.Errorf("%d attempts are kept", len(m.Attempts))
	}
	for _, c := range []struct {
		account string
		names   []string
		want    int
	}{{"a", []string{"x"}, 1}, {"a", []string{"x", "y"}, 3}, {"b", []string{"x", "y"}, 1}, {"c", []string{"x"}, 0}} {
		if got := m.attemptsOf(now, c.account, c.names); len(got) != c.want {
			t.Errorf("%s %v: %d attempts, want %d", c.account, c.names, len(got), c.want)
		}
	}
	m.began(attempt{At: now.Add(-48 * time.Hour), Account: "a", Names: []string{"x"}}) // the clock ran ahead before
	if got := m.attemptsOf(now.Add(-48*time.Hour), "a", []string{"x"}); len(got) != 1 {
		t.Errorf("attempts from the future count: %v", got)
	}
}

func TestKnownFingerprintsAreBounded(t *testing.T) {
	e := &entry{}
	for i := range 30 {
		e.remember(string(rune('a' + i)))
	}
	e.remember("")
	if len(e.Known) != maxKnown || e.Known[maxKnown-1] != string(rune('a'+29)) {
		t.Errorf("known: %q", e.Known)
	}
}

func FuzzParseMemory(f *testing.F) {
	good, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), "", "{}", `{"version":1,"certificates":{"home":null}}`, `{"version":1,"certificates":null,"directories":null}`,
		`{"version":1,"certificates":{"home":{"endpoints":{"a":null}}}}`, `{"version":1,"messages":{"incidents":{"x":{}}}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMemory(data)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if err != nil {
			return
		}
		m.of("home").remember("ab") // what the loop does with it must not panic
		_ = m.attemptsOf(time.Now(), "a", []string{"x"})
		for name := range m.Certificates {
			for _, s := range m.of(name).Endpoints {
				_ = s.Fingerprint
			}
		}
		if _, err := json.Marshal(m); err != nil {
			t.Fatal(err)
		}
	})
}
