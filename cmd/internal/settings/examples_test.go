package settings_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/internal/providers"
)

// repository is the repository's root, where examples and docs are.
const repository = "../../.."

// anybody is an environment for files that people are shown: what they name
// below /etc/certsitter is there.
func anybody(t *testing.T) settings.Environment {
	t.Helper()
	roots, err := os.ReadFile("testdata/roots.txt")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for name, content := range map[string]string{
		"home-ca.pem": string(roots), "eab-hmac": "bWFjIGtleQ\n",
		"cloudflare-token": "token\n", "duckdns-token": "token\n", "mqtt-password": "password\n",
		"homeassistant-token": "token\n", "page-password": "password\n", "p12-password": "password\n",
	} {
		files["etc/certsitter/"+name] = &fstest.MapFile{Data: []byte(content), Mode: 0o600}
	}
	made := func(path string) (string, bool) {
		return strings.TrimPrefix(path, "/"), strings.HasPrefix(path, "/etc/certsitter/")
	}
	return settings.Environment{
		User: os.Geteuid(), Providers: providers.Table{},
		Getenv: func(name string) string {
			return map[string]string{
				"TZ": "Europe/Berlin", "TELEGRAM_URL": "telegram://1:a@telegram?chats=2", "HEARTBEAT_URL": "https://beat.example.org/1",
			}[name]
		},
		ReadFile: func(path string) ([]byte, error) {
			if name, ok := made(path); ok {
				return files.ReadFile(name)
			}
			return os.ReadFile(path)
		},
		Stat: func(path string) (fs.FileInfo, error) {
			if name, ok := made(path); ok {
				return files.Stat(name)
			}
			return os.Stat(path)
		},
	}
}

// accepted loads a configuration from a folder that nobody else may write to,
// since it may hold commands.
func accepted(t *testing.T, text []byte) *settings.Settings {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "certsitter.yaml")
	if err := errors.Join(os.Chmod(folder, 0o700), os.WriteFile(file, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(file, anybody(t))
	if err != nil {
		t.Errorf("refused:\n%v", err)
	}
	return s
}

func TestEveryExampleIsAccepted(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob(filepath.Join(repository, "examples", "*.yaml"))
	if err != nil || len(examples) < 10 {
		t.Fatalf("found %d examples (%v)", len(examples), err)
	}
	list, err := os.ReadFile(filepath.Join(repository, "examples", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range examples {
		name := filepath.Base(path)
		if !bytes.Contains(list, []byte("["+name+"]("+name+")")) {
			t.Errorf("%s is not in the list of examples", name)
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if s := accepted(t, text); s != nil && len(s.Certificates)+len(s.Watch) == 0 {
				t.Error("it holds nothing")
			}
		})
	}
}

// Whatever the documentation shows as a part of certsitter.yaml begins with a
// comment that says so.
func TestEveryShownConfigurationIsAccepted(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, path := range append(pages, filepath.Join(repository, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```yaml\n# certsitter.yaml")[1:] {
			shown++
			body, _, closed := strings.Cut(block, "\n```")
			if !closed {
				t.Errorf("%s: block %d has no end", path, i+1)
			}
			t.Run(filepath.Base(path), func(t *testing.T) { accepted(t, []byte("#"+body)) })
		}
	}
	if shown < 5 {
		t.Errorf("found %d configurations", shown)
	}
}

// TestEveryKeyIsExplained holds docs/configuration.md against the schema: a row
// for each key, with its default.
func TestEveryKeyIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	var root section
	if err := json.Unmarshal(settings.Schema(), &root); err != nil {
		t.Fatal(err)
	}
	parts := map[string]section{
		"## Top of the file": root, "## certificates": root.Properties["certificates"].item(),
		"## watch": root.Properties["watch"].item(), "## mqtt": root.Properties["mqtt"],
	}
	for title, part := range parts {
		_, rest, found := strings.Cut(string(page), "\n"+title+"\n")
		if !found {
			t.Errorf("there is no part %q", title)
			continue
		}
		text, _, _ := strings.Cut(rest, "\n## ")
		var explained []string
		for line := range strings.Lines(text) {
			cells := strings.Split(line, "|")
			if len(cells) < 5 || !strings.HasPrefix(cells[1], " `") {
				continue
			}
			key := strings.Trim(cells[1], " `")
			explained = append(explained, key)
			known, there := part.Properties[key]
			if !there {
				t.Errorf("%s: there is no key %s", title, key)
			}
			if known.Default != nil && strings.Trim(cells[2], " `\"") != strings.Trim(string(known.Default), `"`) {
				t.Errorf("%s: the default of %s is %s, not %s", title, key, known.Default, cells[2])
			}
		}
		for key := range part.Properties {
			if !slices.Contains(explained, key) {
				t.Errorf("%s: %s is not explained", title, key)
			}
		}
	}
}

// section is as much of a JSON Schema as is needed.
type section struct {
	Properties map[string]section `json:"properties"`
	Items      *section           `json:"items"`
	Default    json.RawMessage    `json:"default"`
}

func (s section) item() section {
	if s.Items == nil {
		return section{}
	}
	return *s.Items
}
