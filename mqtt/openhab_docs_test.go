package mqtt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/goccy/go-yaml"

	"github.com/certsitter/certsitter/internal/mosquitto"
)

// shown are the blocks of one kind in docs/openhab.md.
func shown(t *testing.T, kind string) (blocks []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/openhab.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(page), "\n```"+kind+"\n")[1:] {
		block, _, closed := strings.Cut(part, "\n```")
		if !closed {
			t.Fatalf("a block has no end: %.60q", block)
		}
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		t.Fatalf("there is no block of the kind %s", kind)
	}
	return blocks
}

// What the page shows of openHAB's files is what the command prints.
func TestOpenHABPageShowsWhatIsPrinted(t *testing.T) {
	own := OpenHAB{Broker: "tcp://127.0.0.1:1883", Certificates: []Certificate{{Name: "home", Label: "home.example.org", Managed: true, Endpoints: true}}}
	given := own
	given.Bridge = "mqtt:broker:mosquitto"
	printed := "\n"
	for _, generate := range openHABFiles() {
		printed += string(generate(own)) + string(generate(given))
	}
	for _, block := range shown(t, "java") {
		for line := range strings.Lines(block + "\n") {
			if !strings.Contains(printed, "\n"+line) {
				t.Errorf("nothing prints %s", line)
			}
		}
	}
	for _, block := range shown(t, "yaml") {
		var read map[string]any
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(block, "!file ", "")), &read); err != nil {
			t.Errorf("%v\n%s", err, block)
		}
	}
}

// Every channel of Homie's table is there, with that name.
func TestOpenHABPageNamesHomiesChannels(t *testing.T) {
	page, err := os.ReadFile("../docs/openhab.md")
	if err != nil {
		t.Fatal(err)
	}
	tree := byTopic(homieOnly(mustMessages(t, homieConfig("x"), testSnapshot())))
	for _, id := range strings.Split(tree["homie/certsitter/home/$properties"], ",") {
		if !strings.Contains(string(page), "`"+id+"`") {
			t.Errorf("%s is not explained", id)
		}
	}
}

// With the rights that the page gives, everything works for both.
func TestMosquittoRightsOfTheOpenHABPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rights")
	if err := os.WriteFile(file, []byte(shown(t, "conf")[0]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mosquitto.Start(t, "acl_file "+file)
	p := newPublisher(t, homieConfig(m.Address))
	p.broker.username = "certsitter"
	p.pace.echo = time.Second
	all := mustMessages(t, p.config, testSnapshot())
	p.Publish(all, nil)
	run(t, p)

	r := &reader{has: map[string]string{}}
	client := paho.NewClient(paho.NewClientOptions().AddBroker(m.URL()).SetClientID("openhab").SetUsername("openhab").SetAutoReconnect(false).SetConnectTimeout(patience))
	if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("openHAB: %v", token.Error())
	}
	t.Cleanup(func() { client.Disconnect(10) })
	r.client = client
	seen := func(_ paho.Client, got paho.Message) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.has[got.Topic()] = string(got.Payload())
		r.lines = append(r.lines, got.Topic()+" "+string(got.Payload()))
	}
	for _, filter := range []string{"homeassistant/#", "certsitter/#", "+/+/$homie", "homie/certsitter/#"} {
		if token := client.Subscribe(filter, 1, seen); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("openHAB: %s: %v", filter, token.Error())
		}
	}
	await(t, "openHAB reads everything", func() bool { return r.holds(all) && r.get("homie/certsitter/$state") == homieReady })
	for _, topic := range []string{"certsitter/cert/home/renew/set", "homie/certsitter/home/renew/set", "certsitter/service/check/set"} {
		r.send(t, topic, press, false)
		await(t, "command by "+topic, func() bool { return len(p.commands) > 0 })
		<-p.Commands()
	}
	last := lines(all)[len(all)-1]
	r.forget()
	r.send(t, "homeassistant/status", online, false)
	await(t, "everything again", func() bool { return r.count(last) > 0 })
	if link := p.State(); link.Error != "" {
		t.Errorf("trouble: %s", link.Error)
	}
}
