package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/internal/providers"
)

// load reads a configuration of ours as it would be read in its place: every
// secret file that it names is there.
func load(t *testing.T, file string, image bool) *settings.Settings {
	t.Helper()
	folder := t.TempDir()
	text, err := os.ReadFile(filepath.Join(repository, file))
	config, secret := filepath.Join(folder, "certsitter.yaml"), filepath.Join(folder, "secret")
	if err := errors.Join(err, os.WriteFile(config, text, 0o600), os.WriteFile(secret, []byte("secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	mounted := func(name string) string {
		if strings.HasPrefix(name, "/config/") || strings.HasPrefix(name, "/etc/certsitter/") {
			return secret
		}
		return name
	}
	conf, err := settings.Load(config, settings.Environment{
		Image: image, User: os.Geteuid(), Providers: providers.Table{}, Getenv: func(string) string { return "" },
		ReadFile: func(name string) ([]byte, error) { return os.ReadFile(mounted(name)) },
		Stat:     func(name string) (fs.FileInfo, error) { return os.Stat(mounted(name)) },
	})
	if err != nil {
		t.Fatalf("%s is refused:\n%v", file, err)
	}
	return conf
}

// What the package brings does nothing, and says nothing that is wrong: with the
// signs for comments taken away, its suggestions are accepted, too.
func TestStarter(t *testing.T) {
	const starter = "packaging/deb/certsitter.yaml"
	conf := load(t, starter, false)
	if len(conf.Certificates)+len(conf.Watch)+len(conf.Notify) != 0 || conf.MQTT.Broker != "" {
		t.Errorf("it does something: %+v", conf)
	}
	text, err := os.ReadFile(filepath.Join(repository, starter))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	_, suggestions, found := strings.Cut(string(text), "certificates: []\n")
	if !found {
		t.Fatal("there is no list of certificates")
	}
	for line := range strings.Lines(suggestions) {
		if !strings.HasPrefix(line, "watch: []") {
			all.WriteString(strings.TrimPrefix(line, "# "))
		}
	}
	folder := t.TempDir()
	config := filepath.Join(folder, "certsitter.yaml")
	if err := os.WriteFile(config, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(folder, "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := func(name string) string {
		if strings.HasPrefix(name, "/etc/certsitter/") {
			return secret
		}
		return name
	}
	conf, err = settings.Load(config, settings.Environment{
		User: os.Geteuid(), Providers: providers.Table{}, Getenv: func(string) string { return "" },
		ReadFile: func(name string) ([]byte, error) { return os.ReadFile(elsewhere(name)) },
		Stat:     func(name string) (fs.FileInfo, error) { return os.Stat(elsewhere(name)) },
	})
	if err != nil {
		t.Fatalf("the suggestions are refused:\n%v\n%s", err, all.String())
	}
	if len(conf.Certificates) != 1 || len(conf.Watch) != 1 || len(conf.Notify) != 1 || conf.MQTT.Broker == "" {
		t.Errorf("not all suggestions were read: %+v", conf)
	}
}

type composition struct {
	Services map[string]struct {
		Image         string
		ContainerName string `yaml:"container_name"`
		NetworkMode   string `yaml:"network_mode"`
		Ports         []string
		Volumes       []string
		Configs       []struct{ Source, Target string }
	}
	Configs map[string]struct{ Content string }
	Volumes map[string]any
}

// mounts are a service's folders with where they come from.
func (c composition) mounts(t *testing.T, service string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, volume := range c.Services[service].Volumes {
		parts := strings.Split(volume, ":")
		if len(parts) < 2 {
			t.Fatalf("%s: the volume %q has no place", service, volume)
		}
		if _, declared := c.Volumes[parts[0]]; !declared && !strings.HasPrefix(parts[0], "./") && !strings.HasPrefix(parts[0], "/") {
			t.Errorf("%s: the volume %s is not declared", service, parts[0])
		}
		all[parts[1]] = parts[0]
	}
	return all
}

// So does what the page about openHAB shows: nothing is ordered without a folder for
// the pair.
func TestComposeOfOpenHABsPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "docs/openhab.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "```yaml\nservices:\n")
	text, _, closed := strings.Cut(text, "```")
	if !found || !closed {
		t.Fatal("the page shows no composition")
	}
	var c composition
	if err := yaml.Unmarshal([]byte("services:\n"+text), &c); err != nil {
		t.Fatal(err)
	}
	ours := c.mounts(t, "certsitter")
	for _, folder := range []string{"/config", "/data", "/ssl", "/openhab/userdata"} {
		if ours[folder] == "" {
			t.Errorf("nothing is mounted at %s, but %v", folder, ours)
		}
	}
}

// The composition with openHAB fits together, and its configuration fits it.
func TestComposeOfOpenHAB(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "packaging/docker/compose.openhab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c composition
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	conf := load(t, "packaging/docker/certsitter.openhab.yaml", true)
	cert := conf.Certificates[0]
	ours, openhab, mosquitto := c.mounts(t, "certsitter"), c.mounts(t, "openhab"), c.mounts(t, "mosquitto")
	used := map[string]bool{}
	for _, m := range []map[string]string{ours, openhab, mosquitto} {
		for _, source := range m {
			used[source] = true
		}
	}
	for name := range c.Volumes {
		if !used[name] {
			t.Errorf("nobody uses the volume %s", name)
		}
	}
	if ours["/config"] != "./certsitter" || ours[conf.StateDir] != "certsitter" {
		t.Errorf("mounted are %v", ours)
	}
	// The keystore is openHAB's own: the same volume in the same place.
	if cert.Keystore != "/openhab/userdata/etc/keystore" || ours["/openhab/userdata"] != openhab["/openhab/userdata"] || ours["/openhab/userdata"] == "" {
		t.Errorf("the keystore %s is in %v and %v", cert.Keystore, ours, openhab)
	}
	// Mosquitto's files: the same volume in another place.
	theirs := c.Configs["mosquitto"].Content
	if source := ours[filepath.Dir(cert.CertFile)]; source == "" || mosquitto["/mosquitto/certificates"] != source ||
		!strings.Contains(theirs, "certfile /mosquitto/certificates/"+filepath.Base(cert.CertFile)+"\n") ||
		!strings.Contains(theirs, "keyfile /mosquitto/certificates/"+filepath.Base(cert.KeyFile)+"\n") {
		t.Errorf("Mosquitto reads other files than %s and %s", cert.CertFile, cert.KeyFile)
	}
	signal := cert.After[0]
	if signal.Argument != c.Services["mosquitto"].ContainerName || ours["/var/run/docker.sock"] != "/var/run/docker.sock" {
		t.Errorf("%s does not reach %+v", signal, c.Services["mosquitto"])
	}
	if c.Services["certsitter"].NetworkMode != "host" || !slices.Contains(c.Services["mosquitto"].Ports, "127.0.0.1:1883:1883") || conf.MQTT.Broker != "tcp://127.0.0.1:1883" {
		t.Error("the broker is not where Certsitter looks for it")
	}
}
