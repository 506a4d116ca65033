package image

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/internal/providers"
)

// The example for Docker Compose gives the image what it needs, and its parts
// fit together.
func TestCompose(t *testing.T) {
	t.Parallel()
	var compose struct {
		Services map[string]struct {
			Image      string
			Ports      []string
			Volumes    []string
			ExtraHosts []string `yaml:"extra_hosts"`
			DependsOn  []string `yaml:"depends_on"`
			Configs    []struct{ Source, Target string }
		}
		Configs map[string]struct{ Content string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal([]byte(readFile(t, "packaging/docker/compose.home-assistant.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	conf := composed(t)
	us := compose.Services["certsitter"]
	if name, _, _ := strings.Cut(us.Image, ":"); name != "ghcr.io/certsitter/certsitter" {
		t.Errorf("the image is %q", us.Image)
	}
	mounts := map[string]string{}
	for _, service := range compose.Services {
		for _, volume := range service.Volumes {
			source, target, _ := strings.Cut(volume, ":")
			target, _, _ = strings.Cut(target, ":")
			if service.Image == us.Image {
				mounts[target] = source
			}
			if _, declared := compose.Volumes[source]; !declared && !strings.HasPrefix(source, "./") {
				t.Errorf("the volume %s is not declared", source)
			}
		}
		for _, other := range service.DependsOn {
			if _, there := compose.Services[other]; !there {
				t.Errorf("%s depends on %s, which is not there", service.Image, other)
			}
		}
		for _, c := range service.Configs {
			if compose.Configs[c.Source].Content == "" {
				t.Errorf("the file %s of %s is not there", c.Source, service.Image)
			}
		}
	}
	if mounts[conf.StateDir] != "certsitter" || mounts[conf.SSLDir] != "certificates" || mounts["/config"] != "./certsitter" {
		t.Errorf("mounted are %v", mounts)
	}
	if !slices.Contains(compose.Services["homeassistant"].Volumes, "certificates:"+path.Dir(conf.Certificates[0].CertFile)+":ro") {
		t.Error("Home Assistant does not get the certificates")
	}
	page := regexp.MustCompile(`\d+$`).FindString(conf.Listen)
	if !slices.Contains(us.Ports, page+":"+page) || !strings.Contains(strings.Join(stages(t)[2].of("EXPOSE"), " "), page) {
		t.Errorf("the page is on %s, published are %v", conf.Listen, us.Ports)
	}
	if broker := conf.MQTT.Broker; broker != "tcp://mosquitto:1883" || compose.Services["mosquitto"].Image == "" {
		t.Errorf("the broker is %s", broker)
	}
	if name := conf.Certificates[0].Domains[0]; !slices.Contains(us.ExtraHosts, name+":host-gateway") || conf.HomeAssistantURL != "https://"+name+":8123" {
		t.Errorf("Home Assistant is looked for at %s, known are %v", conf.HomeAssistantURL, us.ExtraHosts)
	}
}

// The token is made in a Home Assistant that runs already: what docs/docker.md says
// to leave out until then is enough.
func TestComposeWithoutToken(t *testing.T) {
	t.Parallel()
	const said = "Leave the lines\n   `homeassistant_url` and `homeassistant_token` out for now"
	if !strings.Contains(readFile(t, "docs/docker.md"), said) {
		t.Errorf("docs/docker.md does not say %q", said)
	}
	kept := slices.DeleteFunc(slices.Collect(strings.Lines(readFile(t, exampleConfiguration))), func(line string) bool {
		return strings.HasPrefix(line, "homeassistant_url:") || strings.HasPrefix(line, "homeassistant_token:")
	})
	file := filepath.Join(t.TempDir(), "certsitter.yaml")
	write(t, file, strings.Join(kept, ""), 0o600)
	if conf := loaded(t, file); conf.HomeAssistantURL != "" || len(conf.Certificates) != 1 {
		t.Errorf("left is %+v", conf)
	}
}

const exampleConfiguration = "packaging/docker/certsitter.yaml"

// composed is the configuration of the example, read as in the image.
func composed(t *testing.T) *settings.Settings {
	t.Helper()
	return loaded(t, filepath.Join(root, exampleConfiguration))
}

func loaded(t *testing.T, file string) *settings.Settings {
	t.Helper()
	folder := t.TempDir()
	write(t, filepath.Join(folder, "secret"), "secret\n", 0o600)
	mounted := func(name string) string {
		if strings.HasPrefix(name, "/config/") {
			return filepath.Join(folder, "secret")
		}
		return name
	}
	conf, err := settings.Load(file, settings.Environment{
		Image: true, User: os.Geteuid(), Providers: providers.Table{}, Getenv: func(string) string { return "" },
		ReadFile: func(name string) ([]byte, error) { return os.ReadFile(mounted(name)) },
		Stat:     func(name string) (fs.FileInfo, error) { return os.Stat(mounted(name)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return conf
}
