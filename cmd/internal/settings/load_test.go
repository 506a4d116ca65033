package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// parse is Parse of a text that is no secret and no file.
func parseText(t *testing.T, name, text string) *Settings {
	t.Helper()
	s, err := Parse(name, []byte(text), testEnvironment(filepath.Base(name)))
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	return s
}

func TestContractsExample(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// In a folder that nobody else may write, since it has a run action.
	file := filepath.Join(t.TempDir(), "certsitter.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file, testEnvironment(file))
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	live := "/var/lib/certsitter/live/home/"
	want := &Settings{
		File: file, Location: got.Location,
		CA: "letsencrypt", WarnDays: 21, CriticalDays: 7, HTTPPort: 80, TLSPort: 443, Resolvers: []string{},
		Certificates: []Certificate{{
			Name: "home", Domains: []string{"home.example.org", "*.home.example.org"},
			CA: "letsencrypt", Directory: letsEncryptURL, StagingDirectory: letsEncryptStagingURL,
			Challenge: "dns-01", Provider: "cloudflare", Env: map[string]string{"CF_DNS_API_TOKEN": "…"}, Resolvers: publicResolvers,
			KeyType: "ec256", CertFile: live + "fullchain.pem", KeyFile: live + "privkey.pem", KeyMode: 0o600,
			OwnFolder: "/var/lib/certsitter/live/home", KeystorePassword: "openhab",
			After: []Action{{Kind: RestartHomeAssistant}, {Kind: RestartApp, Argument: "core_nginx_proxy"},
				{Kind: ReloadUnit, Argument: "nginx"}, {Kind: RunCommand, Argument: "/usr/local/bin/push-to-nas"}},
			Endpoints: []string{"home.example.org:443", "home.example.org@192.168.1.10:8123"},
		}},
		Watch:  []Watch{{Name: "nas", Source: "nas.local:5001", WarnDays: 21, CriticalDays: 7}},
		Notify: []string{"ntfy://ntfy.sh/my-topic", "telegram://…"}, NotifyHomeAssistant: true,
		RepeatHours: 72, Language: "en",
		MQTT:     MQTT{Topic: "certsitter", DiscoveryPrefix: "homeassistant"},
		StateDir: "/var/lib/certsitter", Listen: "127.0.0.1:8099", LogLevel: "info", LogFormat: "auto",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Location.String() != "Europe/Berlin" {
		t.Errorf("location is %v, not TZ's", got.Location)
	}
	// What the example says is what holds if nothing is said.
	if empty := parseText(t, "certsitter.yaml", ""); empty.LogLevel != got.LogLevel || empty.MQTT.Topic != got.MQTT.Topic ||
		empty.WarnDays != got.WarnDays || empty.Listen != got.Listen || !empty.NotifyHomeAssistant || empty.Certificates != nil {
		t.Errorf("an empty file gives %+v", empty)
	}
}

// Every key of the contract is known, and nothing else is.
func TestKeysAreTheContracts(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := reader{env: testEnvironment("").complete(), report: newReport("contract.yaml")}
	root := r.read(data)
	keys := func(n *node) []string {
		var out []string
		for _, e := range n.entries {
			out = append(out, e.key)
		}
		slices.Sort(out)
		return out
	}
	value := func(key string) *node { e, _ := root.entry(key); return e.value }
	also := []string{"ca", "ca_roots", "eab_hmac", "eab_kid"} // "also per certificate"
	for _, c := range []struct {
		section string
		known   []string
		listed  []string
	}{
		{"the file", keysOf(serviceFields()), keys(root)},
		{"certificates", keysOf(certificateFields()), append(keys(value("certificates").items[0]), also...)},
		{"watch", keysOf(watchFields()), keys(value("watch").items[0])},
		{"mqtt", keysOf(mqttFields()), keys(value("mqtt"))},
	} {
		slices.Sort(c.known)
		slices.Sort(c.listed)
		if !slices.Equal(c.known, c.listed) {
			t.Errorf("%s:\nknown  %v\nlisted %v", c.section, c.known, c.listed)
		}
	}
}

func TestDefaultsByPlace(t *testing.T) {
	t.Parallel()
	const one = `{"certificates": [{"name": "home", "domains": ["Home.example.org"], "challenge": "http-01"}], "watch": [], "mqtt": {}}`
	for _, c := range []struct{ name, state, ssl, listen, cert string }{
		{"app-options.json", "/data", "/ssl", ":8099", "/ssl/fullchain.pem"},
		{"image-certsitter.yaml", "/data", "/ssl", ":8099", "/ssl/fullchain.pem"},
		{"certsitter.yaml", "/var/lib/certsitter", "", "127.0.0.1:8099", "/var/lib/certsitter/live/home/fullchain.pem"},
	} {
		s := parseText(t, c.name, one)
		if s.StateDir != c.state || s.SSLDir != c.ssl || s.Listen != c.listen || s.Certificates[0].CertFile != c.cert {
			t.Errorf("%s: %q %q %q %q", c.name, s.StateDir, s.SSLDir, s.Listen, s.Certificates[0].CertFile)
		}
		if got := s.Certificates[0].Domains[0]; got != "home.example.org" {
			t.Errorf("%s: domain %q", c.name, got)
		}
		if s.MQTT.Supervisor != strings.HasPrefix(c.name, "app-") {
			t.Errorf("%s: Supervisor is %v", c.name, s.MQTT.Supervisor)
		}
	}
}

func TestPathsAreResolved(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	s := parseText(t, "testdata/certsitter.yaml", `
ca: https://ca.lan/acme/directory
ca_roots: roots.txt
state_dir: state
certificates:
  - name: home
    domains: [home.lan]
    webroot: www
    certfile: both.pem
    keyfile: ./x/../both.pem
    pkcs12: /tmp/x/../home.p12
watch:
  - {name: file, source: a.pem}
  - {name: glob, source: "/ssl/**/*.pem"}
  - {name: host, source: "nas:443", server_name: NAS.lan}
`)
	c := s.Certificates[0]
	got := []string{s.StateDir, c.CARoots, c.Webroot, c.CertFile, c.KeyFile, c.PKCS12, c.OwnFolder, s.Watch[0].Source, s.Watch[1].Source, s.Watch[2].ServerName}
	live := folder + "/state/live/home"
	want := []string{folder + "/state", folder + "/roots.txt", folder + "/www", live + "/both.pem", live + "/both.pem", "/tmp/home.p12", live, folder + "/a.pem", "/ssl/**/*.pem", "nas.lan"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if !s.Watch[0].File || !s.Watch[1].File || s.Watch[2].File {
		t.Error("files and endpoints are mixed up")
	}
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	const private = "https://ca.lan/acme/directory"
	s := parseText(t, "testdata/certsitter.yaml", `
ca: https://ca.lan/acme/directory
ca_roots: roots.txt
email: me@example.org
eab_kid: general
eab_hmac: aGVsbG8
ssl_dir: /ssl
certificates:
  - {name: a, domains: [nas], certfile: a, keyfile: ak}
  - {name: b, domains: [b.example.org], certfile: b, keyfile: bk, ca: letsencrypt}
  - {name: c, domains: [c.example.org], certfile: c, keyfile: ck, ca: letsencrypt-staging}
  - {name: d, domains: [d.lan], certfile: d, keyfile: dk, ca: "https://ca.lan/acme/other"}
  - {name: e, domains: [e.example.org], certfile: e, keyfile: ek, ca: "https://acme.zerossl.com/v2/DV90", eab_kid: own, eab_hmac: b3du}
  - {name: f, domains: [10.0.0.1], certfile: f, keyfile: fk, ca: "https://other.lan/dir", ca_roots: roots.txt}
  - {name: g, domains: ["93.184.216.34", "2606:2800:0220::1"], certfile: g, keyfile: gk, ca: "https://acme-v02.api.letsencrypt.org/directory", profile: shortlived}
`)
	type facts struct {
		Directory, Staging string
		IsStaging, Private bool
		Roots              bool
		Kid                string
		Resolvers          int
	}
	want := []facts{
		{private, private, false, true, true, "general", 0},
		{letsEncryptURL, letsEncryptStagingURL, false, false, false, "", 3},
		{letsEncryptStagingURL, letsEncryptStagingURL, true, false, false, "", 3},
		{"https://ca.lan/acme/other", "https://ca.lan/acme/other", false, true, true, "", 0},
		{"https://acme.zerossl.com/v2/DV90", "", false, false, false, "own", 3},
		{"https://other.lan/dir", "https://other.lan/dir", false, true, true, "", 0},
		{letsEncryptURL, letsEncryptStagingURL, false, false, false, "", 3},
	}
	for i, c := range s.Certificates {
		got := facts{c.Directory, c.StagingDirectory, c.Staging, c.Private, len(c.Roots) > 0, c.EABKid, len(c.Resolvers)}
		if got != want[i] {
			t.Errorf("%s: got %+v, want %+v", c.Name, got, want[i])
		}
		if c.Email != "me@example.org" {
			t.Errorf("%s: e-mail %q", c.Name, c.Email)
		}
	}
	if got := s.Certificates[6].Domains; !slices.Equal(got, []string{"93.184.216.34", "2606:2800:220::1"}) {
		t.Errorf("addresses: %v", got)
	}
	// Roots beside the default CA are for the certificates that name another.
	s = parseText(t, "testdata/certsitter.yaml", `
ca_roots: roots.txt
certificates:
  - {name: a, domains: [a.example.org]}
  - {name: b, domains: [b.lan], ca: "https://ca.lan/dir"}
`)
	if s.Certificates[0].Private || !s.Certificates[1].Private {
		t.Errorf("general roots went to the wrong certificate: %+v", s.Certificates)
	}
}

func TestTagsAndAliases(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "token"), []byte("from-the-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := parseText(t, filepath.Join(folder, "certsitter.yaml"), `
email: !!str you@example.org
page_password: !file token
warn_days: !env SOME_DAYS
notify_homeassistant: !env SOME_FLAG
notify: !env SOME_LIST
quiet_hours:
ssl_dir: /ssl
certificates:
  - name: home
    domains: &names [home.example.org]
    challenge: dns-01
    provider: duckdns
    env: &env
      - DUCKDNS_TOKEN_FILE=token
      - OCI_PRIVKEY_FILE=token
      - AWS_CONFIG_FILE=/etc/aws
      - "EMPTY_IS=a=b"
  - name: again
    domains: *names
    certfile: a
    keyfile: b
    challenge: dns-01
    provider: duckdns
    env: *env
watch: # nothing yet
`)
	if s.PagePassword != "from-the-file" || s.WarnDays != 30 || !s.NotifyHomeAssistant || s.Email != "you@example.org" {
		t.Errorf("got %q %d %v %q", s.PagePassword, s.WarnDays, s.NotifyHomeAssistant, s.Email)
	}
	if !slices.Equal(s.Notify, []string{"ntfy://ntfy.sh/one", "ntfy://ntfy.sh/two"}) {
		t.Errorf("notify: %v", s.Notify)
	}
	want := map[string]string{"DUCKDNS_TOKEN": "from-the-file", "OCI_PRIVKEY": "ZnJvbS10aGUtZmlsZQ0K", "AWS_CONFIG_FILE": "/etc/aws", "EMPTY_IS": "a=b"}
	for _, c := range s.Certificates {
		if !maps.Equal(c.Env, want) {
			t.Errorf("%s: %v", c.Name, c.Env)
		}
	}
}

func TestRunNeedsAFileThatIsOurs(t *testing.T) {
	t.Parallel()
	const text = "certificates:\n  - {name: home, domains: [home.example.org], after: [run /bin/true]}\n"
	for _, c := range []struct {
		name           string
		mode, folder   fs.FileMode
		user           int
		image, refused bool
	}{
		{name: "private", mode: 0o600, folder: 0o700, user: os.Geteuid()},
		{name: "readable", mode: 0o644, folder: 0o755, user: os.Geteuid()},
		{name: "group", mode: 0o664, folder: 0o755, user: os.Geteuid(), refused: true},
		{name: "everybody", mode: 0o602, folder: 0o755, user: os.Geteuid(), refused: true},
		{name: "folder", mode: 0o600, folder: 0o777, user: os.Geteuid(), refused: true},
		{name: "sticky folder", mode: 0o600, folder: 0o777 | fs.ModeSticky, user: os.Geteuid()},
		{name: "another's", mode: 0o600, folder: 0o755, user: os.Geteuid() + 1, refused: os.Geteuid() != 0},
		{name: "the host's", mode: 0o600, folder: 0o755, user: os.Geteuid() + 1, image: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			file := filepath.Join(folder, "certsitter.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			// Not by the mode of creation, which the umask changes.
			if err := errors.Join(os.Chmod(file, c.mode), os.Chmod(folder, c.folder)); err != nil {
				t.Fatal(err)
			}
			e := testEnvironment("")
			e.User, e.Image = c.user, c.image
			_, err := Load(file, e)
			if refused := err != nil && strings.Contains(err.Error(), "run is refused"); refused != c.refused || err != nil != refused {
				t.Errorf("refused %v, want %v: %v", refused, c.refused, err)
			}
		})
	}
}

func TestFilesThatAreMissing(t *testing.T) {
	t.Parallel()
	_, err := Load("testdata/not-there.yaml", testEnvironment(""))
	if want := "testdata/not-there.yaml: there is no such file: write one, or name yours with --config"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = Load("testdata", testEnvironment(""))
	if want := "testdata: can not be read: is a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = Parse("big.yaml", make([]byte, maxFile+1), testEnvironment(""))
	if want := "big.yaml: has 262145 bytes: a configuration has at most 262144"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestEmptyFiles(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null\n", "{}", "\ufeff", "certificates: []\n", "certificates:\nwatch:\nmqtt:\n", `{"certificates": [], "watch": [], "mqtt": {}}`} {
		if s, err := Parse("x.yaml", []byte(text), testEnvironment("")); err != nil || s.MQTT.Topic != "certsitter" {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	there := func(paths ...string) func(string) (fs.FileInfo, error) {
		return func(p string) (fs.FileInfo, error) {
			if slices.Contains(paths, p) {
				return nil, nil
			}
			return nil, fs.ErrNotExist
		}
	}
	for _, c := range []struct {
		flag string
		env  Environment
		want string
	}{
		{"x.yaml", Environment{App: true}, "x.yaml"},
		{"", Environment{App: true, Image: true}, "/data/options.json"},
		{"", Environment{Stat: there("certsitter.yaml", "/etc/certsitter/certsitter.yaml")}, "certsitter.yaml"},
		{"", Environment{Stat: there("/config/certsitter.yaml", "/etc/certsitter/certsitter.yaml")}, "/etc/certsitter/certsitter.yaml"},
		{"", Environment{Image: true, Stat: there("/config/certsitter.yaml", "/etc/certsitter/certsitter.yaml")}, "/config/certsitter.yaml"},
		{"", Environment{Image: true, Stat: there("/etc/certsitter/certsitter.yaml")}, "/etc/certsitter/certsitter.yaml"},
		{"", Environment{Image: true, Stat: there()}, "/config/certsitter.yaml"},
		{"", Environment{Stat: there()}, "/etc/certsitter/certsitter.yaml"},
	} {
		if got := Find(c.flag, c.env); got != c.want {
			t.Errorf("%q, %+v: %s, want %s", c.flag, c.env, got, c.want)
		}
	}
}

func TestZone(t *testing.T) {
	t.Parallel()
	for tz, want := range map[string]string{
		"": "Local", ":/etc/localtime": "Local", "/usr/share/zoneinfo/Europe/Berlin": "Europe/Berlin",
		":America/New_York": "America/New_York", "UTC": "UTC",
	} {
		report := newReport("x")
		if got := zone(tz, report); got.String() != want || len(report.mistakes) > 0 {
			t.Errorf("%q: %v, %v", tz, got, report.mistakes)
		}
	}
	if report := newReport("x"); zone("CET-1CEST", report) != time.UTC || len(report.mistakes) != 1 {
		t.Errorf("POSIX zone: %v", report.mistakes)
	}
}

func TestBroker(t *testing.T) {
	t.Parallel()
	for broker, want := range map[string]string{
		"tcp://broker.lan": "tcp://broker.lan:1883", "ssl://broker.lan/": "ssl://broker.lan:8883", "ws://[2001:db8::1]/mqtt": "ws://[2001:db8::1]:80/mqtt",
		"WSS://broker.lan:9001/mqtt": "wss://broker.lan:9001/mqtt", "tcp://core_mosquitto:1884": "tcp://core_mosquitto:1884",
	} {
		if got, err := completeBroker(broker); got != want || err != nil {
			t.Errorf("%s: %s, %v", broker, got, err)
		}
	}
	folder := t.TempDir()
	certificate, key := selfSigned(t)
	if err := errors.Join(os.WriteFile(filepath.Join(folder, "cert.pem"), certificate, 0o600), os.WriteFile(filepath.Join(folder, "key.pem"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	s := parseText(t, filepath.Join(folder, "certsitter.yaml"), `
mqtt: {broker: "ssl://broker.lan", ca_file: cert.pem, client_cert: cert.pem, client_key: key.pem, username: me, password: secret, homie: true}
`)
	m := s.MQTT
	if string(m.CA) != string(certificate) || string(m.ClientCertPEM) != string(certificate) || string(m.ClientKeyPEM) != string(key) || m.ClientKey != filepath.Join(folder, "key.pem") || m.Supervisor || !m.Homie {
		t.Errorf("got %+v", m)
	}
}

// selfSigned makes a certificate and its key, both PEM.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestPin(t *testing.T) {
	t.Parallel()
	const want = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	for _, text := range []string{want, strings.ToUpper(want), "sha256 Fingerprint=" + colons(want), "SHA256:" + want, " " + colons(want) + " "} {
		if got, err := parsePin(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "xyz", want[:40], want + "00"} {
		if got, err := parsePin(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func colons(hex string) string {
	var pairs []string
	for i := 0; i < len(hex); i += 2 {
		pairs = append(pairs, hex[i:i+2])
	}
	return strings.Join(pairs, ":")
}

// An alias that names itself, or grows with every use, ends.
func TestAliasesEnd(t *testing.T) {
	t.Parallel()
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i)
	}
	for _, text := range []string{"notify: &x [*x, *x]\n", bomb.String()} {
		if _, err := Parse("x.yaml", []byte(text), testEnvironment("")); err == nil || !strings.Contains(err.Error(), "repeats an alias too often") {
			t.Errorf("got %.200v", err)
		}
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		domains       []string
		label, server string
	}{
		{[]string{"*.example.org", "www.example.com"}, "www.example.com", "www.example.com"},
		{[]string{"*.example.org"}, "example.org", ""},
		{nil, "home", ""},
	} {
		cert := Certificate{Name: "home", Domains: c.domains}
		if cert.Label() != c.label || cert.ServerName() != c.server {
			t.Errorf("%v: %q, %q", c.domains, cert.Label(), cert.ServerName())
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/refused/*.yaml", "testdata/refused/*.json", "testdata/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, false)
			f.Add(data, true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, app bool) {
		e := testEnvironment("")
		e.App = app
		e.Stat = func(string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }
		s, err := Parse("x.yaml", data, e)
		if (s == nil) == (err == nil) {
			t.Fatalf("settings %v, error %v", s, err)
		}
		if refusal, ok := errors.AsType[*Refusal](err); err != nil && (!ok || len(refusal.Mistakes) == 0) {
			t.Fatalf("the error is no refusal: %v", err)
		}
		if s != nil {
			_ = NewRedactor(s.Secrets()).String("x")
		}
	})
}

// A key that does not look like one may be a secret before a colon.
func TestJoinShowsKeysAlone(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"name": "mqtt.name", "x-y_1": "mqtt.x-y_1", strings.Repeat("a", 32): "mqtt." + strings.Repeat("a", 32),
		strings.Repeat("a", 33): "mqtt.…", "": "mqtt.…", "pass word": "mqtt.…", "tok=en": "mqtt.…",
	} {
		if got := join("mqtt", key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

// A file that was pasted in the place of a name is not repeated whole.
func TestLongValuesAreShortened(t *testing.T) {
	t.Parallel()
	_, err := Parse("certsitter.yaml", []byte("certificates:\n- {name: "+strings.Repeat("a", 64<<10)+", domains: [\""+strings.Repeat("é ", 32<<10)+"\"]}\n"), testEnvironment("certsitter.yaml"))
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || len(refusal.Mistakes) != 2 {
		t.Fatalf("got %.300v", err)
	}
	for i, end := range []string{"with no _ at either end", "begins with xn--"} {
		if s := refusal.Mistakes[i].Sentence; len(s) > 1000 || !strings.HasPrefix(s, `"`) || !strings.HasSuffix(s, end) {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	}
}
