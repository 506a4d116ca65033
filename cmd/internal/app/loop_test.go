package app

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/internal/mosquitto"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/supervisor"
)

const (
	coreServes = homeassistant.CoreAddress + ":8123"
	page       = "http://127.0.0.1:8099/"
	// restartLimit is how long Core may take to be restarted and to serve.
	restartLimit = 90 * time.Second
	// quiet is for what must not happen: longer than the daemon takes to look
	// after its actions, which would bring it about.
	quiet = 3 * time.Second
)

// A loop is a Home Assistant that serves HTTPS by the pair in its folder ssl, and
// all that renews this pair.
type loop struct {
	whole      *testing.T
	ca         *pebble.CA
	provider   string // URL of the DNS provider httpreq
	broker     *mosquitto.Broker
	core       *homeassistant.Core
	supervisor *supervisor.Supervisor
	machine    *machine
	sitter     *process
	ssl        string // Core's folder ssl
}

func TestTheLoopIsClosed(t *testing.T) {
	homeassistant.Needed(t)
	t.Parallel()
	l := newLoop(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"as an app", l.asAnApp},
		{"renewed by a button", l.renewedByAButton},
		{"a pair that does not match", l.pairThatDoesNotMatch},
		{"a folder that cannot be written", l.folderThatCannotBeWritten},
		{"a problem is shown", l.problemIsShown},
		{"a refused configuration", l.refusedConfiguration},
		{"nobody asked for a restart", l.nobodyAskedForARestart},
		{"without a Supervisor", l.withoutASupervisor},
	} {
		if !t.Run(part.name, part.test) {
			t.Log(state(page))
			break // the parts build on each other
		}
	}
}

func newLoop(t *testing.T) *loop {
	t.Helper()
	l := &loop{whole: t, broker: mosquitto.Start(t)}
	var err error
	if l.ca, err = pebble.Start(pebble.Options{Wrap: refusing}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.ca.Close)
	provider := httptest.NewServer(l.ca.DNS.Provider())
	t.Cleanup(provider.Close)
	l.provider = provider.URL
	// What somebody makes who wants HTTPS before there is anything else.
	cert, key := issue(t, haName, haName, time.Now().Add(90*day), haName)
	l.core = homeassistant.Start(t, homeassistant.Options{
		Listen: coreServes, Broker: l.broker.Address, TLS: true,
		Files: map[string]string{"ssl/fullchain.pem": cert, "ssl/privkey.pem": key, "ssl/roots.pem": string(append(l.ca.Roots(), l.ca.IssuerRoots()...))},
	})
	l.ssl = filepath.Join(l.core.Folder, "ssl")
	_, port, _ := strings.Cut(l.broker.Address, ":")
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	l.supervisor, err = supervisor.Start(homeassistant.SupervisorAddress+":80", supervisor.Setup{
		Slug: "a0d7b954_certsitter", Version: "0.1.0", Ports: map[string]int{"80/tcp": 0, "443/tcp": 0},
		Broker: &supervisor.Broker{Host: "127.0.0.1", Port: number}, CoreURL: l.core.URL, CoreToken: l.core.Token,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.supervisor.Close)
	l.machine = newMachine(t, l.ssl, l.ca.IssuerRoots())
	l.machine.env = append(l.machine.env, "SUPERVISOR_TOKEN="+supervisor.Token)
	return l
}

// certificate is an entry of options.json.
func (l *loop) certificate(name string, domains ...string) map[string]any {
	return map[string]any{"name": name, "domains": domains, "challenge": "dns-01", "provider": "httpreq",
		"env": []string{"HTTPREQ_ENDPOINT=" + l.provider, "HTTPREQ_POLLING_INTERVAL=1"}}
}

// home is the entry of the pair that Core serves.
func (l *loop) home(more map[string]any) map[string]any {
	c := l.certificate("home", haName, "*."+haName)
	for key, value := range more {
		c[key] = value
	}
	return c
}

func (l *loop) cared() map[string]any {
	return l.home(map[string]any{"after": []string{"restart homeassistant"}, "endpoints": []string{haName + "@" + coreServes}})
}

func (l *loop) options(t *testing.T, certificates ...map[string]any) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"ca": l.ca.Directory(), "ca_roots": "roots.pem", "resolvers": []string{l.ca.DNS.Address()},
		"certificates": certificates, "watch": []any{}, "mqtt": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	l.machine.write(t, "data/options.json", string(text))
}

// restart is what the Supervisor does when the user presses Save.
func (l *loop) restart(t *testing.T) {
	t.Helper()
	if l.sitter != nil {
		l.sitter.stop(t)
	}
	l.sitter = l.machine.start(l.whole)
}

// asked is how often the Supervisor was asked to have Core restarted.
func (l *loop) asked() (n int) {
	for _, r := range l.supervisor.Requests() {
		if r.Path == "/core/api/services/homeassistant/restart" {
			n++
		}
	}
	return n
}

// installed is the leaf in Core's folder.
func (l *loop) installed(t *testing.T) []byte {
	t.Helper()
	leaf, err := pairIn(l.ssl)
	if err != nil {
		t.Fatalf("the pair that Core would start with: %v", err)
	}
	return leaf
}

// replaced waits until another pair is installed. Its files are renamed one after
// the other, so that who looks between them sees none.
func (l *loop) replaced(t *testing.T, before []byte) (now []byte) {
	t.Helper()
	eventually(t, "another certificate is installed", waitLimit, func() bool {
		leaf, err := pairIn(l.ssl)
		now = leaf
		return err == nil && !bytes.Equal(leaf, before)
	})
	return now
}

// closed waits until Core serves another certificate than before, the installed
// one, and Home Assistant says that all is well.
func (l *loop) closed(t *testing.T, before []byte) (now []byte) {
	t.Helper()
	since := time.Now()
	now = l.replaced(t, before)
	eventually(t, "Core serves it", restartLimit, func() bool {
		leaf, err := served(coreServes)
		return err == nil && bytes.Equal(leaf, now)
	})
	t.Logf("the new certificate is served %.1f s after the order", time.Since(since).Seconds())
	leaf, err := x509.ParseCertificate(now)
	if err != nil {
		t.Fatal(err)
	}
	expires := leaf.NotAfter.UTC().Format("2006-01-02T15:04:05-07:00")
	l.core.Wait(t, "sensor.certsitter_home_not_after", strings.ReplaceAll(expires, "+", `\+`), restartLimit)
	l.core.Wait(t, "sensor.certsitter_home_status", "ok", restartLimit)
	l.core.Wait(t, "binary_sensor.certsitter_home_problem", "off", restartLimit)
	l.core.Wait(t, "binary_sensor.certsitter_home_not_deployed", "off", restartLimit)
	eventually(t, "deployed is written down", restartLimit, func() bool {
		return strings.Contains(l.sitter.log.String(), "serves the new certificate")
	})
	return now
}

// never fails if it happens within quiet.
func never(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if happened() {
			t.Fatal(what)
		}
	}
}

// From the form to the browser: the options are saved, the certificate is
// ordered, installed, and Core, restarted by the Supervisor's API, serves it.
func (l *loop) asAnApp(t *testing.T) {
	old, err := served(coreServes)
	if err != nil {
		t.Fatal(err)
	}
	l.options(t, l.cared())
	l.restart(t)
	now := l.closed(t, old)
	leaf, err := x509.ParseCertificate(now)
	if err != nil {
		t.Fatal(err)
	}
	if names := []string{"*." + haName, haName}; !slices.Equal(slices.Sorted(slices.Values(leaf.DNSNames)), names) {
		t.Errorf("it is for %v", leaf.DNSNames)
	}
	if got := l.asked(); got != 1 {
		t.Errorf("Core was restarted %d times", got)
	}
	l.checkedBefore(t)
	if complaints := l.core.Complaints(t); complaints != "" {
		t.Errorf("Home Assistant complains:\n%s", complaints)
	}
}

// checkedBefore: Core checks its configuration before each restart.
func (l *loop) checkedBefore(t *testing.T) {
	t.Helper()
	checked := false
	for _, r := range l.supervisor.Requests() {
		switch r.Path {
		case "/core/api/config/core/check_config":
			checked = r.Status == 200
		case "/core/api/services/homeassistant/restart":
			if !checked {
				t.Error("Core was restarted without a look at its configuration")
			}
			checked = false
		}
	}
}

func (l *loop) renewedByAButton(t *testing.T) {
	before, restarts := l.installed(t), l.asked()
	l.core.Call(t, "button.press", map[string]string{"entity_id": "button.certsitter_home_renew"})
	l.closed(t, before)
	if got := l.asked() - restarts; got != 1 {
		t.Errorf("Core was restarted %d times", got)
	}
	l.checkedBefore(t)
}

// Somebody has put another key beside the certificate: Core is not restarted
// onto that, by a button either, and the pair is made whole.
func (l *loop) pairThatDoesNotMatch(t *testing.T) {
	before, restarts := l.installed(t), l.asked()
	_, key := issue(t, haName, haName, time.Now().Add(day), haName)
	write(t, filepath.Join(l.ssl, "privkey.pem"), key)
	if _, err := pairIn(l.ssl); err == nil {
		t.Fatal("the pair matches")
	}
	post(t, page+"api/check")
	eventually(t, "the pair is whole again", waitLimit, func() bool {
		leaf, err := pairIn(l.ssl)
		return err == nil && bytes.Equal(leaf, before)
	})
	never(t, "Core was restarted, which serves this certificate", func() bool { return l.asked() > restarts })
	if leaf, err := served(coreServes); err != nil || !bytes.Equal(leaf, before) {
		t.Errorf("Core serves something else: %v", err)
	}
}

// What cannot be installed restarts nobody, and is said.
func (l *loop) folderThatCannotBeWritten(t *testing.T) {
	before, restarts := l.installed(t), l.asked()
	remount := func(flags uintptr) {
		if err := unix.Mount("", l.machine.path("ssl"), "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	defer remount(0)
	l.options(t, l.home(map[string]any{"domains": []string{haName, "other.example.org"}, "after": []string{"restart homeassistant"}, "endpoints": []string{haName + "@" + coreServes}}))
	orders := l.ca.Orders()
	l.restart(t)
	l.core.Wait(t, "sensor.certsitter_home_last_result", "Renewal failed: .*", waitLimit)
	if said := state(page); !strings.Contains(said, "/ssl is read-only") {
		t.Errorf("no word of the folder: %s", said)
	}
	never(t, "Core was restarted", func() bool { return l.asked() > restarts })
	if got := l.ca.Orders() - orders; got != 0 {
		t.Errorf("%d orders, which nobody can use", got)
	}
	if !bytes.Equal(l.installed(t), before) {
		t.Error("the pair is another one")
	}
	// The attempt has failed, and that is not forgotten. But nothing is missing.
	l.options(t, l.cared())
	l.restart(t)
	l.core.Wait(t, "sensor.certsitter_home_status", "ok|notice", waitLimit)
}

// A problem is a notification in Home Assistant, which goes with the problem.
func (l *loop) problemIsShown(t *testing.T) {
	broken := l.certificate("broken", "jinja."+hostileDomain)
	broken["certfile"], broken["keyfile"] = "broken.pem", "broken.key"
	l.options(t, l.cared(), broken)
	l.restart(t)
	var shown homeassistant.Notification
	eventually(t, "the problem is shown", waitLimit, func() bool {
		shown = l.core.Notifications(t)["certsitter_broken"]
		return shown.ID != ""
	})
	t.Logf("%s\n%s", shown.Title, shown.Message)
	if !strings.Contains(shown.Title+shown.Message, "jinja."+hostileDomain) || strings.Contains(shown.Message, "{{") {
		t.Errorf("shown is %q: %q", shown.Title, shown.Message)
	}
	l.core.Wait(t, "binary_sensor.certsitter_broken_problem", "on", waitLimit)
	broken["domains"] = []string{"mended.example.org"}
	l.options(t, l.cared(), broken)
	l.restart(t)
	l.core.Wait(t, "binary_sensor.certsitter_broken_problem", "off", waitLimit)
	eventually(t, "the notification is gone", waitLimit, func() bool {
		return l.core.Notifications(t)["certsitter_broken"].ID == ""
	})
}

// Mistakes in the form: the app lives on with what was accepted, and says so.
func (l *loop) refusedConfiguration(t *testing.T) {
	before := l.installed(t)
	wrong := l.cared()
	wrong["provider"] = "httprek"
	l.options(t, wrong)
	l.restart(t)
	var shown homeassistant.Notification
	eventually(t, "the refusal is shown", waitLimit, func() bool {
		shown = l.core.Notifications(t)["certsitter_configuration"]
		return shown.ID != ""
	})
	t.Logf("%s\n%s", shown.Title, shown.Message)
	if !strings.Contains(shown.Message, "httprek") || !strings.Contains(shown.Message, "provider") {
		t.Errorf("shown is %q", shown.Message)
	}
	l.core.Wait(t, "sensor.certsitter_home_status", "ok|notice", waitLimit) // by what was accepted
	l.options(t, l.cared())
	l.restart(t)
	eventually(t, "the notification is gone", waitLimit, func() bool {
		return l.core.Notifications(t)["certsitter_configuration"].ID == ""
	})
	if !bytes.Equal(l.installed(t), before) {
		t.Error("the pair is another one")
	}
}

// Without an action Core is asked for by its own address, and a person is asked
// to restart it. Nobody else does.
func (l *loop) nobodyAskedForARestart(t *testing.T) {
	before, restarts := l.installed(t), l.asked()
	l.options(t, l.home(nil))
	l.restart(t)
	eventually(t, "Core is found to serve it", waitLimit, func() bool {
		text := state(page)
		return strings.Contains(text, `"endpoints":[{"address":"homeassistant:8123"`) && strings.Contains(text, `"verdict":"same"`)
	})
	// Another name, since the button was pressed within this minute.
	l.options(t, l.home(map[string]any{"domains": []string{haName, "*." + haName, "another.example.org"}}))
	l.restart(t)
	l.replaced(t, before)
	var shown homeassistant.Notification
	since := time.Now()
	eventually(t, "the restart is asked for", waitLimit, func() bool {
		shown = l.core.Notifications(t)["certsitter_home_restart"]
		return shown.ID != ""
	})
	t.Logf("after %.1f s: %s\n%s", time.Since(since).Seconds(), shown.Title, shown.Message)
	l.core.Wait(t, "binary_sensor.certsitter_home_not_deployed", "on", waitLimit)
	if leaf, err := served(coreServes); err != nil || !bytes.Equal(leaf, before) || l.asked() != restarts {
		t.Errorf("Core was restarted: %v", err)
	}
	// The person presses the button of the page.
	post(t, page+"api/homeassistant/restart")
	l.closed(t, before)
	if got := l.asked() - restarts; got != 1 {
		t.Errorf("Core was restarted %d times", got)
	}
	eventually(t, "the ask is gone", waitLimit, func() bool { return l.core.Notifications(t)["certsitter_home_restart"].ID == "" })
}

// The image in Docker, beside a Core in Docker: by Core's address and a token.
func (l *loop) withoutASupervisor(t *testing.T) {
	l.sitter.stop(t)
	asked := len(l.supervisor.Requests())
	before, orders := l.installed(t), l.ca.Orders()
	m := newMachine(l.whole, l.ssl, l.ca.IssuerRoots())
	m.write(t, "config/certsitter.yaml", fmt.Sprintf(`ca: %s
ca_roots: /ssl/roots.pem
resolvers: [%q]
homeassistant_url: https://%s:8123
homeassistant_token: %s
mqtt: {broker: "tcp://%s", topic: docker}
certificates:
- name: home
  domains: [%s, "*.%[3]s"]
  challenge: dns-01
  provider: httpreq
  env: ["HTTPREQ_ENDPOINT=%[7]s", "HTTPREQ_POLLING_INTERVAL=1"]
  after: [restart homeassistant]
  endpoints: ["%[3]s:8123"]
`, l.ca.Directory(), l.ca.DNS.Address(), haName, l.core.Token, l.broker.Address, haName, l.provider))
	if err := os.Chmod(m.path("config/certsitter.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.sitter = m.start(l.whole)
	l.core.Wait(t, "sensor.docker_home_status", "ok", waitLimit)
	if got := l.ca.Orders() - orders; got != 0 {
		t.Errorf("%d orders for a certificate that is there", got)
	}
	l.core.Call(t, "button.press", map[string]string{"entity_id": "button.docker_home_renew"})
	now := l.replaced(t, before)
	eventually(t, "Core serves it", restartLimit, func() bool {
		leaf, err := served(coreServes)
		return err == nil && bytes.Equal(leaf, now)
	})
	eventually(t, "the daemon has seen it", restartLimit, func() bool {
		return strings.Contains(l.sitter.log.String(), "serves the new certificate")
	})
	l.core.Wait(t, "binary_sensor.docker_home_not_deployed", "off", restartLimit)
	if more := l.supervisor.Requests()[asked:]; len(more) > 0 {
		t.Errorf("the Supervisor was asked: %v", more)
	}
}
