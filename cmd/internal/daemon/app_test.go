package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/internal/supervisor"
)

// A household is a Home Assistant with the app in it: the folders that it is given,
// its options, a Supervisor and a Core.
type household struct {
	*scene
	supervisor *supervisor.Supervisor
	core       *supervisor.Core
	provider   string // address of a DNS provider that lego's httpreq speaks to
}

func newHome(t *testing.T, ca *pebble.CA) *household {
	t.Helper()
	h := &household{scene: newSceneWith(t, ca), core: &supervisor.Core{NotifyActions: []string{"mobile_app_pixel"}}}
	h.provider = serveHTTP(t, ca.DNS.Provider())
	h.mkdir(t, "data")
	var err error
	if h.supervisor, err = supervisor.Start("127.0.0.1:0", supervisor.Setup{
		Slug: "a0d7b954_certsitter", Core: h.core, Ports: map[string]int{"80/tcp": 0, "443/tcp": 0},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.supervisor.Close)
	return h
}

func (h *household) asApp() *addon.Supervisor {
	return &addon.Supervisor{URL: h.supervisor.URL(), Token: func() string { return supervisor.Token }}
}

// fill writes the options as the Supervisor does, which knows what was typed.
func (h *household) fill(t *testing.T, options map[string]any) {
	t.Helper()
	all := map[string]any{"ca": h.ca.Directory(), "ca_roots": h.path("roots.pem"), "resolvers": []string{h.ca.DNS.Address()}, "certificates": []any{}, "watch": []any{}, "mqtt": map[string]any{}}
	maps.Copy(all, options)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "data/options.json", string(text))
	h.supervisor.Set(func(s *supervisor.Setup) { s.Options = text })
}

// certificate is an entry of the options that can be issued.
func (h *household) certificate(name string, more ...any) map[string]any {
	entry := map[string]any{
		"name": name, "domains": []string{name + ".example.org"}, "challenge": "dns-01", "provider": "httpreq",
		"env":      []string{"HTTPREQ_ENDPOINT=" + h.provider, "HTTPREQ_POLLING_INTERVAL=1"},
		"certfile": name + ".pem", "keyfile": name + ".key",
	}
	for i := 0; i+1 < len(more); i += 2 {
		entry[more[i].(string)] = more[i+1]
	}
	return entry
}

func (h *household) form() *Form {
	return NewForm(h.path("data/options.json"), settings.Environment{
		App: true, Image: true, Root: h.dir, User: os.Geteuid(), Providers: providers.Table{}, Getenv: func(string) string { return "" },
	}, h.asApp())
}

// begin starts the app with the options as they are now.
func (h *household) begin(t *testing.T, change ...func(*Options)) *running {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	form := h.form()
	b := form.Begin(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return h.launch(t, Options{
		Settings: b.Settings, Refused: b.Refused, Remark: b.Remark, Form: form, Supervisor: h.asApp(), App: true, Image: true, Listener: listener,
		Core:   "127.0.0.1:1",
		Reload: func() (*settings.Settings, error) { return form.Read(t.Context()) }, Version: version, Redactor: settings.NewRedactor(b.Settings.Secrets()),
		Worker: worker.Client{Path: self, Args: []string{asWorker}, Env: []string{noRest}, Version: version},
	}, change...)
}

// problem is the service's problem of that code; nil = there is none.
func (r *running) problem(code string) *sitter.Problem {
	for _, p := range r.Sitter.Snapshot().Problems {
		if p.Code == code {
			return &p
		}
	}
	return nil
}

func (r *running) hasProblem(t *testing.T, code string) sitter.Problem {
	t.Helper()
	r.eventually(t, "the problem "+code, func() bool { return r.problem(code) != nil })
	return *r.problem(code)
}

// shows waits for a persistent notification.
func (h *household) shows(t *testing.T, r *running, id, text string) {
	t.Helper()
	r.eventually(t, fmt.Sprintf("Home Assistant shows %s with %q", id, text), func() bool {
		n, there := h.core.Notifications()[id]
		return there && strings.Contains(n.Title+"\n"+n.Message, text)
	})
}

func (h *household) showsNo(t *testing.T, r *running, id string) {
	t.Helper()
	r.eventually(t, "Home Assistant shows no "+id, func() bool { _, there := h.core.Notifications()[id]; return !there })
}

func startCA(t *testing.T) *pebble.CA {
	t.Helper()
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return ca
}

// What a refused configuration means for an app, over its life.
func TestAppWithRefusedOptions(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.supervisor.Set(func(s *supervisor.Setup) { s.TimeZone = "Europe/Berlin" })
	b := startBroker(t)
	host, port, _ := net.SplitHostPort(b.Address())
	var number int
	fmt.Sscan(port, &number)
	h.supervisor.Set(func(s *supervisor.Setup) { s.Broker = &supervisor.Broker{Host: host, Port: number} })
	// Something of an earlier life is on the broker.
	const leftover = "homeassistant/sensor/certsitter_old/days_left/config"
	if err := b.Publish(leftover, []byte(`{"name":"x","origin":{"name":"Certsitter"},"availability_topic":"certsitter/status","state_topic":"certsitter/cert/old/state"}`), true); err != nil {
		t.Fatal(err)
	}

	// None was accepted yet.
	h.fill(t, map[string]any{"language": "de", "notify_homeassistant": false, "page_password": "geheim-42", "certificates": []any{h.certificate("home", "key_type", "rsa1", "env", []string{"HTTPREQ_PASSWORD"})}})
	r := h.begin(t)
	p := r.hasProblem(t, "config")
	if all := strings.Join(p.Details, "\n"); len(p.Details) != 2 || !strings.Contains(all, "certificates[home].key_type: ") || !strings.Contains(all, "certificates[home].env[0]: ") || strings.Contains(all, "options.json") {
		t.Errorf("details %q", p.Details)
	}
	h.shows(t, r, sitter.AskConfiguration, "key_type")
	if page := fetched(t, "http://"+r.o.Listener.Addr().String()); !strings.Contains(page, "certificates[home].key_type") || !strings.Contains(page, "certificates[home].env[0]") {
		t.Errorf("the page does not list the mistakes:\n%s", page)
	}
	h.shows(t, r, sitter.AskConfiguration, "Certsitter")
	r.eventually(t, "the broker says that there is a problem", retains(b, "certsitter/service/state", `"certificates":0,"problems":1`))
	if r.inForce.Load().settings.Location.String() != "Europe/Berlin" {
		t.Errorf("the time zone is %v", r.inForce.Load().settings.Location)
	}
	if _, err := os.Stat(h.path("data/" + settings.AcceptedName)); err == nil {
		t.Error("refused options are kept as accepted ones")
	}
	if r.Sitter.Snapshot().Language != "de" || r.inForce.Load().settings.PagePassword != "geheim-42" {
		t.Error("what holds whatever else is wrong was not kept")
	}
	if !r.mqttConfig(r.inForce.Load().settings).KeepFound {
		t.Error("what is found on the broker would be emptied")
	}
	// It reads them again and takes them once they are good.
	h.fill(t, map[string]any{"certificates": []any{h.certificate("home")}})
	r.reloaded(t, 1)
	h.showsNo(t, r, sitter.AskConfiguration)
	r.deployed(t, "home", 1)
	if r.problem("config") != nil || r.mqttConfig(r.inForce.Load().settings).KeepFound {
		t.Error("the problem stays")
	}
	r.eventually(t, "what is left of an earlier life is emptied", gone(b, leftover))
	h.kept(t, `"home"`)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	// Refused at the next start: the accepted ones are in force.
	h.fill(t, map[string]any{"certificates": []any{h.certificate("home"), h.certificate("nas", "renew_before_dais", 3)}})
	r = h.begin(t)
	r.hasProblem(t, "config")
	h.shows(t, r, sitter.AskConfiguration, "renew_before_days")
	if c := r.of("home"); c.Status != "ok" || r.of("nas").Name != "" {
		t.Errorf("in force: %+v", r.Sitter.Snapshot().Certificates)
	}
	h.kept(t, `"home"`)
	// And a reload with another mistake shows that one.
	h.fill(t, map[string]any{"certificates": []any{h.certificate("home", "certfile", "")}, "languag": "de"})
	r.reload(t)
	h.shows(t, r, sitter.AskConfiguration, "languag")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	wantOrders(t, h.scene, 1, "home.example.org")

	// What is kept is garbled: nothing is in force, and nothing is lost.
	h.write(t, "data/"+settings.AcceptedName, `{"certificates": [`)
	topics := b.Topics()
	r = h.begin(t)
	if p := r.hasProblem(t, "config"); !strings.Contains(p.Details[0], "cannot be used either") {
		t.Errorf("details %q", p.Details)
	}
	h.shows(t, r, sitter.AskConfiguration, "languag")
	r.eventually(t, "the service's state", retains(b, "certsitter/service/state", `"certificates":0`))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.Topics(); !slices.Equal(got, topics) {
		t.Errorf("the broker has %v, before it had %v", got, topics)
	}
	if _, err := os.Stat(h.path("data/certificates/home/current")); err != nil {
		t.Errorf("the store: %v", err)
	}
	h.fill(t, map[string]any{"certificates": []any{h.certificate("home")}})
	r = h.begin(t)
	h.showsNo(t, r, sitter.AskConfiguration)
	r.eventually(t, "it is as before", func() bool { return r.of("home").Status == "ok" })
	r.check(t)
	wantOrders(t, h.scene, 1, "home.example.org")
	h.kept(t, `"home"`)
}

func fetched(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// kept holds the options that were accepted last against what is to be in them.
func (h *household) kept(t *testing.T, text string) {
	t.Helper()
	path := h.path("data/" + settings.AcceptedName)
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
	if kept := h.read(t, "data/"+settings.AcceptedName); !strings.Contains(kept, text) || strings.Contains(kept, "nas") {
		t.Errorf("kept: %s", kept)
	}
}

func TestAppWithoutOptions(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	r := h.begin(t)
	if p := r.hasProblem(t, "config"); !strings.Contains(p.Text, "restart the app") {
		t.Error(p.Text)
	}
	h.shows(t, r, sitter.AskConfiguration, "restart the app")
}

// Each environment that can be given leaves settings to run with.
func TestFormAlwaysGivesSettings(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	for name, text := range map[string]string{
		"empty": "", "no JSON": "{{{{", "a list": "[]", "null": "null", "wrong types": `{"certificates": 3, "mqtt": [], "language": {}}`,
		"a broker that is none": `{"mqtt": {"broker": "nonsense"}, "ca": 3}`, "binary": "\x00\xff",
	} {
		for _, zone := range []string{"", "Europe/Berlin", "Nowhere/Land"} {
			h.write(t, "data/options.json", text)
			form := h.form()
			form.env.Getenv = func(string) string { return zone }
			b := form.Begin(t.Context())
			if b.Settings == nil || !b.Settings.StandIn && b.Refused != nil || !b.Settings.MQTT.Supervisor {
				t.Errorf("%s in %q: %+v", name, zone, b)
			}
			if conf, _ := form.InForce(); conf == nil {
				t.Errorf("%s in %q: no settings for a command", name, zone)
			}
		}
	}
}

// Options that were read, but could not be put in force, are not kept; and what
// is in force instead is what was accepted before.
func TestOnlyWhatIsInForceIsKept(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.fill(t, map[string]any{"certificates": []any{h.certificate("home")}})
	form := h.form()
	b := form.Begin(t.Context())
	if err := form.Keep(b.Settings); err != nil {
		t.Fatal(err)
	}
	h.kept(t, `"home"`)
	h.fill(t, map[string]any{"certificates": []any{h.certificate("nas")}})
	b = form.Begin(t.Context())
	b = form.Fallback(b, errors.New("it cannot be put in force"))
	if b.Refused == nil || b.Settings.StandIn || len(b.Settings.Certificates) != 1 || b.Settings.Certificates[0].Name != "home" {
		t.Errorf("falls back to %+v", b)
	}
	if err := form.Keep(b.Settings); err != nil {
		t.Fatal(err)
	}
	h.kept(t, `"home"`)
	if b = form.Fallback(b, errors.New("nor can this")); !b.Settings.StandIn || b.Refused.Mistakes[0].Sentence != "it cannot be put in force" || !strings.Contains(b.Remark, "nor can this") {
		t.Errorf("falls back to %+v", b)
	}
}

// A port that is off is told at the start; one that goes off later, before an
// order.
func TestAppWithItsPortsOff(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.fill(t, map[string]any{"certificates": []any{
		map[string]any{"name": "home", "domains": []string{"home.example.org"}, "challenge": "http-01"},
		map[string]any{"name": "alpn", "domains": []string{"alpn.example.org"}, "challenge": "tls-alpn-01", "certfile": "a.pem", "keyfile": "a.key"},
		map[string]any{"name": "root", "domains": []string{"root.example.org"}, "challenge": "http-01", "webroot": h.path("ssl"), "certfile": "r.pem", "keyfile": "r.key"},
	}})
	b := h.form().Begin(t.Context())
	if b.Refused == nil || len(b.Refused.Mistakes) != 2 || !b.Settings.StandIn {
		t.Fatalf("begins with %+v", b.Refused)
	}
	for i, want := range []string{"certificates[home].challenge: Port 80 of the app is off", "certificates[alpn].challenge: Port 443 of the app is off"} {
		if text := b.Refused.Mistakes[i].String(); !strings.Contains(text, want) || !strings.Contains(text, "Settings → Apps → Certsitter → Configuration → Network") {
			t.Errorf("mistake %q", text)
		}
	}
	// A Supervisor that does not answer delays nothing: it is asked before the order.
	h.supervisor.Leave()
	b = h.form().Begin(t.Context())
	if b.Refused != nil {
		t.Fatal(b.Refused)
	}
	if err := h.supervisor.Return(); err != nil {
		t.Fatal(err)
	}
	h.fill(t, map[string]any{"certificates": []any{map[string]any{"name": "home", "domains": []string{"home.example.org"}, "challenge": "http-01"}}})
	h.supervisor.Leave()
	r := h.begin(t, func(*Options) {
		if err := h.supervisor.Return(); err != nil {
			t.Error(err)
		}
	})
	r.eventually(t, "the attempt fails", func() bool { return r.of("home").Failures == 1 })
	if got := r.of("home").LastResult; !strings.Contains(got, "Port 80 of the app is off") {
		t.Errorf("last result %q", got)
	}
	wantOrders(t, h.scene, 0)
	// On: the order goes its way, which ends at the port that the CA cannot reach.
	h.supervisor.Set(func(s *supervisor.Setup) { s.Ports = map[string]int{"80/tcp": 80, "443/tcp": 0} })
	r.self.at = r.self.at.Add(-doorAge)
	if err := r.shut(t.Context(), "http-01", ""); err != nil {
		t.Error(err)
	}
	if err := r.shut(t.Context(), "tls-alpn-01", ""); err == nil {
		t.Error("443/tcp is off, and nobody says so")
	}
	if err := r.shut(t.Context(), "dns-01", ""); err != nil {
		t.Error(err)
	}
}

func TestAppSaysWhichKeysTheFormDropped(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.fill(t, nil)
	h.supervisor.Set(func(s *supervisor.Setup) {
		s.Options = json.RawMessage(`{"emial":"s3cret-a","certificates":[],"mqtt":{"passwort":"s3cret-b"},"watch":[]}`)
	})
	r := h.begin(t)
	if p := r.hasProblem(t, "dropped_emial"); p.Advice != "Perhaps email was meant." || p.Severity != "notice" {
		t.Errorf("%+v", p)
	}
	if p := r.hasProblem(t, "dropped_mqtt.passwort"); p.Advice != "Perhaps password was meant." {
		t.Errorf("%+v", p)
	}
	if text := fmt.Sprint(r.Sitter.Snapshot().Problems, r.log.String()); strings.Contains(text, "s3cret") {
		t.Errorf("a value is shown: %s", text)
	}
	if r.problem("config") != nil {
		t.Error("it is refused")
	}
}

func TestAppWithoutTheFolderForCertificates(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.fill(t, nil)
	if err := os.Remove(filepath.Join(h.dir, "ssl")); err != nil {
		t.Fatal(err)
	}
	r := h.begin(t)
	if p := r.hasProblem(t, "ssl_dir"); !strings.Contains(p.Text, h.path("ssl")) {
		t.Errorf("%+v", p)
	}
}

func TestMountOf(t *testing.T) {
	const mounts = `1 0 0:30 / / rw,relatime - overlay overlay rw
2 1 0:5 / /dev rw - tmpfs tmpfs rw
3 1 8:1 /docker/volumes/x/_data /data rw,relatime master:1 - ext4 /dev/sda1 rw
4 1 8:1 /y /mnt/with\040space rw - ext4 /dev/sda1 rw
garbled
`
	for folder, want := range map[string]string{"/data": "/data", "/data/x": "/data", "/database": "/", "/var/lib/certsitter": "/", "/mnt/with space/x": "/mnt/with space", "/": "/"} {
		if got := mountOf(mounts, folder); got != want {
			t.Errorf("%s is on %q, want %q", folder, got, want)
		}
	}
	if got := mountOf("", "/data"); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

// Keys and account that go with the container are said to do so.
func TestStateFolderThatIsNoVolume(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    Options
		dir  string
		want bool
	}{
		"image":         {Options{Image: true}, "/etc/certsitter-is-not-here", true},
		"a volume":      {Options{Image: true}, "/proc/self", false},
		"not the image": {Options{}, "/etc", false},
		"an app":        {Options{Image: true, App: true}, "/etc", false},
	} {
		got := slices.ContainsFunc(c.o.ground(&settings.Settings{StateDir: c.dir, SSLDir: t.TempDir()}), func(p sitter.Problem) bool { return p.Code == "state_dir" })
		if got != c.want {
			t.Errorf("%s: told %v, want %v", name, got, c.want)
		}
	}
}

// What the Supervisor names is what a phone opens, as urgently as it is.
func TestMessagesToAPhone(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	h.fill(t, map[string]any{"notify_services": []string{"notify.mobile_app_pixel"}})
	r := h.begin(t)
	if _, err := r.Sitter.TestNotify(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	calls := h.core.Calls()
	if len(calls) != 1 || calls[0].Action != "notify.mobile_app_pixel" || !strings.Contains(calls[0].Data, `"clickAction":"/app/a0d7b954_certsitter"`) ||
		!strings.Contains(calls[0].Data, `"tag":"certsitter_test"`) || strings.Contains(calls[0].Data, "interruption") {
		t.Errorf("%+v", calls)
	}
}

// The files that the page offers are those of the configuration in force, the
// dashboard with the ids that Home Assistant gave.
func TestFilesToTakeElsewhere(t *testing.T) {
	t.Parallel()
	h := newHome(t, startCA(t))
	b := startBroker(t)
	h.core.Templates = func(string) string {
		return `[{"ids":["certsitter_home"],"name":"Home","entities":[{"id":"binary_sensor.my_own_name","name":"Home Problem","class":"problem"}]}]`
	}
	h.fill(t, map[string]any{"language": "de", "certificates": []any{h.certificate("home")}, "mqtt": map[string]any{"broker": b.URL()}})
	r := h.begin(t)
	r.deployed(t, "home", 1)
	files := map[string]string{}
	for _, f := range r.downloads(r.inForce.Load().settings) {
		text, err := f.Make(t.Context())
		if err != nil || f.Title == "" {
			t.Errorf("%s: %v", f.Name, err)
		}
		files[f.Name] = string(text)
	}
	if len(files) != 6 {
		t.Errorf("%d files", len(files))
	}
	if text := files["dashboard.yaml"]; !strings.Contains(text, "binary_sensor.my_own_name") || !strings.Contains(text, "sensor.certsitter_home_days_left") {
		t.Errorf("dashboard:\n%s", text)
	}
	for _, name := range []string{"certsitter.things", "certsitter.yaml"} {
		if !strings.Contains(files[name], "certsitter/cert/home/state") {
			t.Errorf("%s:\n%s", name, files[name])
		}
	}
	h.supervisor.Set(func(s *supervisor.Setup) { s.CoreDown = true })
	if text := string(r.dashboard(t.Context(), r.inForce.Load().settings)); !strings.Contains(text, "binary_sensor.certsitter_home_problem") {
		t.Errorf("while Core is down:\n%s", text)
	}
}
