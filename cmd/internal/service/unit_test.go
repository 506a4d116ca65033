package service

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is the repository's root.
const repository = "../../.."

const (
	mainUnit  = "certsitter.service"
	watchUnit = "certsitter-watch.service"
)

// A unit is the section [Service] of a unit file: each directive with its values,
// in their order. An empty assignment has emptied the list (systemd.syntax(7)).
type unit map[string][]string

func unitPath(name string) string { return filepath.Join(repository, "packaging/systemd", name) }

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	f, err := os.Open(unitPath(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, section := unit{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		key, value, isPair := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = line
		case !isPair || strings.HasSuffix(line, `\`):
			t.Fatalf("%s: %q is not understood here", name, line)
		case section != "[Service]":
		case value == "":
			u[key] = []string{}
		default:
			u[key] = append(u[key], value)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return u
}

// words are all values of a directive that takes lists.
func (u unit) words(key string) []string { return strings.Fields(strings.Join(u[key], " ")) }

// one is the value of a directive that is given once.
func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is given %d times", key, len(u[key]))
	}
	return u[key][0]
}

// capabilities are all that the service that installs files may have.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID",
}

func TestRightsOfTheUnits(t *testing.T) {
	u := readUnit(t, mainUnit)
	have := u.words("CapabilityBoundingSet")
	slices.Sort(have)
	if !slices.Equal(have, capabilities) || len(u["AmbientCapabilities"]) != 0 {
		t.Errorf("capabilities %v", have)
	}
	if user := u.one(t, "User"); user != "root" {
		t.Errorf("user %s", user)
	}
	w := readUnit(t, watchUnit)
	if len(w.words("CapabilityBoundingSet")) != 0 || w["CapabilityBoundingSet"] == nil || len(w["ReadWritePaths"]) != 0 || w.one(t, "User") != "certsitter" {
		t.Errorf("who only watches has rights: %v", w)
	}
	for name, u := range map[string]unit{mainUnit: u, watchUnit: w} {
		for _, key := range []string{"NoNewPrivileges", "PrivateTmp", "ProtectHome"} {
			if got := u.one(t, key); got != "true" {
				t.Errorf("%s: %s=%s", name, key, got)
			}
		}
		if u.one(t, "ProtectSystem") != "strict" || len(u.words("SystemCallFilter")) == 0 {
			t.Errorf("%s: the system is not protected", name)
		}
	}
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestUnitsAreVerified(t *testing.T) {
	for _, name := range []string{mainUnit, watchUnit} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(unitPath(name))
			if err != nil {
				t.Fatal(err)
			}
			// The program need not be installed where this is tested.
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "ExecStart=/usr/bin/certsitter", "ExecStart="+self)), 0o644); err != nil {
				t.Fatal(err)
			}
			// Without --recursive-errors=no the machine's other units are judged as well.
			if said := analyze(t, "verify", "--man=no", "--recursive-errors=no", path); said != "" {
				t.Errorf("systemd-analyze verify says:\n%s", said)
			}
		})
	}
}

// maxExposure is what systemd-analyze may at most give, from 0 to 10, in tenths.
const maxExposure = 39

// Each exposure that is left has its reason in the pages about security.
func TestExposureOfTheUnits(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), `\|`, "|") // as a table has to write it
	for _, name := range []string{mainUnit, watchUnit} {
		t.Run(name, func(t *testing.T) {
			analyze(t, "security", "--offline=true", fmt.Sprintf("--threshold=%d", maxExposure), "--no-pager", unitPath(name))
			var table []struct {
				Name     string
				Exposure *string
			}
			if err := json.Unmarshal([]byte(analyze(t, "security", "--offline=true", "--json=short", unitPath(name))), &table); err != nil {
				t.Fatal(err)
			}
			if len(table) < 50 {
				t.Fatalf("only %d lines", len(table))
			}
			for _, line := range table {
				if line.Exposure != nil && !strings.Contains(page, "`"+line.Name+"`") {
					t.Errorf("docs/security.md does not say why %s is as it is (exposure %s)", line.Name, *line.Exposure)
				}
			}
		})
	}
}
