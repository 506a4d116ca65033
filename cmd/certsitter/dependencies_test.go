package main

import (
	"encoding/json"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/certsitter/certsitter"

// dependencies are all packages that a package links, and those that it imports
// itself.
func dependencies(t *testing.T, of string) (all, direct []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=Imports,Deps", module+"/"+of).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", of, err)
	}
	var listed struct{ Imports, Deps []string }
	if err := json.Unmarshal(out, &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Deps) == 0 {
		t.Fatalf("go list names nothing that %s depends on", of)
	}
	return listed.Deps, listed.Imports
}

// The daemon stays small: what talks a third party's protocol is the worker's.
func TestDaemonLinksNoThirdParties(t *testing.T) {
	t.Parallel()
	all, _ := dependencies(t, "cmd/certsitter")
	for _, p := range all {
		for _, never := range []string{"go-acme/lego", "shoutrrr", module + "/renew/acme", module + "/notify/shout", "letsencrypt/", "mochi", module + "/internal/pebble", module + "/internal/broker", module + "/internal/mosquitto", module + "/internal/output", "testing"} {
			if p == never || strings.Contains(p, never) && never != "testing" {
				t.Errorf("cmd/certsitter links %s", p)
			}
		}
	}
}

// Who may know whom.
func TestImports(t *testing.T) {
	t.Parallel()
	own := func(names ...string) []string {
		for i := range names {
			names[i] = module + "/" + names[i]
		}
		return names
	}
	stores := []string{"software.sslmate.com/src/go-pkcs12", "github.com/pavlo-v-chernykh/keystore-go"}
	rules := map[string]struct {
		may   []string // of what is not the standard library; whole paths or what they begin with
		never []string // directly
	}{
		"expiry":          {may: stores},
		"expiry/probe":    {may: own("expiry")},
		"renew":           {may: own("expiry"), never: []string{"net", "net/http", "os", "os/exec"}},
		"renew/store":     {may: append(append(own("renew", "expiry"), stores...), "golang.org/x/sys/unix"), never: []string{"net/http"}},
		"renew/acme":      {may: append(own("renew", "expiry"), "github.com/go-acme/lego/v4/", "github.com/miekg/dns")},
		"notify":          {never: []string{"net", "net/http", "os", "os/exec"}},
		"notify/shout":    {may: append(own("notify"), "github.com/nicholas-fedor/shoutrrr")},
		"mqtt":            {may: []string{"github.com/eclipse/paho.mqtt.golang"}},
		"addon":           {},
		"renew/directory": {may: own("renew", "expiry")},
	}
	for of, rule := range rules {
		_, direct := dependencies(t, of)
		for _, p := range direct {
			if !allowed(p, module+"/"+of, rule.may) {
				t.Errorf("%s may not import %s", of, p)
			}
			for _, never := range rule.never {
				if p == never {
					t.Errorf("%s may never import %s", of, p)
				}
			}
			if of == "renew/acme" && strings.Contains(p, "lego/v4/providers") {
				t.Errorf("%s imports %s, so that its tests link every provider", of, p)
			}
		}
	}
}

// allowed: the standard library, what is internal to the package, and the list.
func allowed(p, of string, may []string) bool {
	if !strings.Contains(strings.SplitN(p, "/", 2)[0], ".") || strings.HasPrefix(p, of+"/internal/") {
		return true
	}
	for _, m := range may {
		if p == m || strings.HasPrefix(p, strings.TrimSuffix(m, "/")+"/") && !strings.HasPrefix(m, module) {
			return true
		}
	}
	return path.Dir(p) == of && strings.HasSuffix(p, "/internal")
}
