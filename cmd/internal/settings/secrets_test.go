package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each secret of this file has "hush" in it, and nothing else has.
const fullOfSecrets = `
ca: https://ca.lan/acme/directory
ca_roots: roots.txt
eab_kid: kid
eab_hmac: aHVzaC1obWFj
page_password: hush-page
homeassistant_url: http://homeassistant.lan:8123
homeassistant_token: hush-token
heartbeat_url: https://user:hush-heart@ping.example.org/ping/hush-1111-uuid?run=hush-query&x=1
notify:
  - ntfy://me:hush%40ntfy@ntfy.lan/hush-topic?scheme=http&tags=warning&priority=high
  - gotify://gotify.lan/message/hush-Agotify?useheader=yes
  - telegram://110201543:hush-AAHdq@telegram?chats=@channel-hush
  - discord://hush-discord@hush4711
  - generic+https://hooks.lan/services/hush-T000?template=json&@Authorization=Bearer%20hush-bearer&$extra=hush-extra
  - pushbullet://hushpushbullettoken
  - smtp://mail:hush-smtp@mail.example.org:587/?from=a@example.org&to=b@example.org
mqtt:
  broker: tcp://broker.lan
  username: certsitter
  password: hush-mqtt
certificates:
  - name: home
    domains: [home.example.org]
    challenge: dns-01
    provider: duckdns
    env:
      - DUCKDNS_TOKEN=hush-duck
      - DUCKDNS_TTL=120
      - DUCKDNS_HTTP_TIMEOUT=1000000
      - DUCKDNS_SWITCH=true
      - DUCKDNS_ZONE=Home.example.org
    eab_kid: other
    eab_hmac: aHVzaC1vd24
    pkcs12: x.p12
    pkcs12_password: hush-p12
    keystore_password: openhab
watch:
  - name: nas
    source: /ssl/nas.p12
    password: hush-watch
`

func TestSecrets(t *testing.T) {
	t.Parallel()
	s := parseText(t, "testdata/certsitter.yaml", fullOfSecrets)
	got := s.Secrets()
	for _, want := range []string{
		"aHVzaC1obWFj", "hush-page", "hush-token", "user:hush-heart", "hush-heart", "hush-1111-uuid", "hush-query",
		"me:hush@ntfy", "hush@ntfy", "hush-topic", "hush-Agotify", "hush-AAHdq", "@channel-hush", "hush-discord", "hush4711", "hush-T000",
		"Bearer hush-bearer", "hush-bearer", "hush-extra", "hushpushbullettoken", "hush-smtp", "certsitter:hush-mqtt", "hush-mqtt",
		"hush-duck", "aHVzaC1vd24", "hush-p12", "hush-watch",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is no secret", want)
		}
	}
	for _, innocent := range []string{"120", "true", "1000000", "Home.example.org", "openhab", "warning", "high", "json", "yes", "message", "services",
		"ntfy.lan", "mail.example.org", "telegram", "http", "ping", "kid", "certsitter", "user", "1"} {
		if slices.Contains(got, innocent) {
			t.Errorf("%q is taken for a secret", innocent)
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("not in order, or double: %q", got)
	}
	// Whatever is printed of the settings, no secret is left in it.
	r := NewRedactor(got)
	if text := r.String(fmt.Sprintf("%+v", *s)); strings.Contains(text, "hush") {
		i := strings.Index(text, "hush")
		t.Errorf("a secret is left: …%s…", text[max(0, i-60):min(len(text), i+60)])
	}
}

// Every key that is marked as a secret is among Secrets, so that a new one can
// not be forgotten.
func TestEverySecretKeyIsCut(t *testing.T) {
	t.Parallel()
	const value = "https://hush.example.org/hush-value"
	var secrets []string
	collect := func(name string, found []string) {
		if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, "hush-value") }) {
			t.Errorf("%s is marked as a secret and not among Secrets", name)
		}
		secrets = append(secrets, name)
	}
	fill := func(d decoder) bool {
		switch into := d.(type) {
		case textInto:
			*into.to = value
		case textsInto:
			*into.to = []string{value}
		default:
			return false
		}
		return true
	}
	for _, f := range serviceFields() {
		var s Settings
		if f.secret && fill(f.into(&s)) {
			collect(f.key, s.Secrets())
		}
	}
	for _, f := range certificateFields() {
		var c Certificate
		if f.secret && fill(f.into(&c)) {
			if f.key == "env" {
				c.Env = map[string]string{"X": value} // as variables makes it
			}
			collect(f.key, (&Settings{Certificates: []Certificate{c}}).Secrets())
		}
	}
	for _, f := range watchFields() {
		var w Watch
		if f.secret && fill(f.into(&w)) {
			collect(f.key, (&Settings{Watch: []Watch{w}}).Secrets())
		}
	}
	for _, f := range mqttFields() {
		var s Settings
		if f.secret && fill(f.into(&s.MQTT)) {
			collect(f.key, s.Secrets())
		}
	}
	if len(secrets) != 11 {
		t.Errorf("secret keys: %v", secrets)
	}
}

// However a file with secrets is broken, the refusal holds none.
func TestRefusalsHoldNoSecret(t *testing.T) {
	t.Parallel()
	roots, err := os.ReadFile("testdata/roots.txt")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "roots.txt"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "certsitter.yaml")
	check := func(text string) {
		t.Helper()
		if _, err := Parse(file, []byte(text), testEnvironment("")); err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("a secret is in the refusal:\n%v", err)
		}
	}
	for i := 0; i < len(fullOfSecrets); i += 3 { // cut off
		check(fullOfSecrets[:i])
	}
	for i := range fullOfSecrets { // one character too many
		for j, c := range []string{"\"", "\t", "[", ": ", "\n", "*", "%", "!", "|", "-"} {
			if (i+j)%17 != 0 && !strings.ContainsAny(fullOfSecrets[max(0, i-1):i], " ") {
				continue // all of it at the beginnings of words, some of it elsewhere
			}
			check(fullOfSecrets[:i] + c + fullOfSecrets[i:])
		}
	}
}
