package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

// leaks says in which form a secret is in a text; "" = it is not.
func leaks(text []byte, secret string) string {
	forms := map[string]string{
		"it is":     secret,
		"query":     url.QueryEscape(secret),
		"path":      url.PathEscape(secret),
		"hex":       hex.EncodeToString([]byte(secret)),
		"user info": url.UserPassword("u", secret).String(),
	}
	// Base64 of a longer text that holds the secret depends on where in a group
	// of three bytes it begins; the characters at both ends are shared.
	for offset := range 3 {
		padded := append(make([]byte, offset), secret...)
		whole := base64.RawStdEncoding.EncodeToString(padded)
		from, to := (offset*8+5)/6, len(whole)
		if len(padded)%3 != 0 {
			to--
		}
		forms["base64 "+string(rune('0'+offset))] = whole[from:to]
		forms["base64url "+string(rune('0'+offset))] = base64.RawURLEncoding.EncodeToString(padded)[from:to]
	}
	for name, form := range forms {
		if bytes.Contains(text, []byte(form)) {
			return name
		}
	}
	return ""
}

// The test of the tests: what finds secrets finds them.
func TestLeaks(t *testing.T) {
	const secret = "s3cr3t/with+all~kinds"
	for _, text := range []string{
		"token=" + secret + "&", url.Values{"token": {secret}}.Encode(), "/" + url.PathEscape(secret) + "/",
		base64.StdEncoding.EncodeToString([]byte("user:" + secret)), base64.StdEncoding.EncodeToString([]byte("u:" + secret + "x")),
		base64.URLEncoding.EncodeToString([]byte(":" + secret)), hex.EncodeToString([]byte(secret)),
	} {
		if leaks([]byte(text), secret) == "" {
			t.Errorf("not found in %s", text)
		}
	}
	if form := leaks([]byte("nothing of s3cr3t here"), secret); form != "" {
		t.Errorf("found as %s in what does not hold it", form)
	}
}

// secrets of a whole configuration, each made to be found. Their characters are
// escaped in some form wherever they may be.
var secrets = map[string]string{
	"eab_hmac":          base64.RawURLEncoding.EncodeToString([]byte("EAB>>>secret???key-of-32-bytes!!")),
	"page_password":     "Page+secret/1~x",
	"mqtt password":     "Mqtt secret&2=x",
	"pkcs12_password":   "P12+secret/3",
	"keystore_password": "Jks+secret/4",
	"provider variable": "Dns+secret/5&x",
	"notify URL":        "Hook-secret-6.x",
	"heartbeat_url":     "Beat-secret-7.x",
	"homeassistant":     "eyJhbGciOi.Token-secret-8.x",
	"watch password":    "Nas+secret/9",
}

// Whatever goes wrong, and however talkative the others are: no secret of the
// configuration leaves, but to whom it belongs.
func TestSecretsStay(t *testing.T) {
	t.Parallel()
	arrived := newGate(t)
	var heard sync.Map // places where a secret has to be: proof that the others were told
	// A server that repeats what it was told, as careless ones do.
	echo := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		heard.Store(strings.SplitN(r.URL.Path, "/", 3)[1], true)
		if strings.HasPrefix(r.URL.Path, "/dns") {
			arrived.wait(r)
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "no: %s %s %s %s %s %s", r.URL, r.Header.Get("Authorization"), user, password, r.Header, body)
	})
	h := newHome(t, pebble.Options{EABRequired: true, EAB: map[string]string{"kid-1": secrets["eab_hmac"]}})
	nas, err := selfSigned(10, "nas.example.org")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "nas.pem", string(certificatePEM(nas)))
	config := h.configure(t, fmt.Sprintf(`
eab_kid: kid-1
eab_hmac: %q
page_password: %q
homeassistant_url: http://%[5]s/ha
homeassistant_token: %[3]q
heartbeat_url: http://%[5]s/beat/%[4]s
notify: ["generic://%[5]s/hook/%[6]s?disabletls=yes"]
log_level: trace
certificates:
- name: home
  domains: [home.example.org]
  challenge: dns-01
  provider: httpreq
  env: ["HTTPREQ_ENDPOINT=http://%[5]s/dns", "HTTPREQ_USERNAME=somebody", %[7]q]
  pkcs12: home.p12
  pkcs12_password: %[8]q
  keystore: keystore
  keystore_password: %[9]q
watch:
- {name: nas, source: nas.pem, password: %[10]q}
mqtt:
  broker: %[11]s
  username: certsitter
  password: %[12]q
`, secrets["eab_hmac"], secrets["page_password"], secrets["homeassistant"], secrets["heartbeat_url"], echo, secrets["notify URL"],
		"HTTPREQ_PASSWORD="+secrets["provider variable"], secrets["pkcs12_password"], secrets["keystore_password"], secrets["watch password"], h.broker.URL(), secrets["mqtt password"]))
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	page := "http://" + between(string(text), "listen: ", "\n")

	messages := &output.Buffer{}
	seen := map[string]*output.Buffer{"MQTT": messages}
	if err := h.broker.Subscribe("#", func(topic string, payload []byte, _ bool) {
		fmt.Fprintf(messages, "%s %s\n", topic, payload)
	}); err != nil {
		t.Fatal(err)
	}
	p := start(t, "run", "--config", config)
	arrived.told(t, p)
	seen["argv and environment of children"] = &output.Buffer{}
	children(t, p, seen["argv and environment of children"])
	arrived.release()

	p.eventually(t, "the renewal failed", func() bool {
		payload, _ := h.broker.Retained("certsitter/cert/home/state")
		return strings.Contains(payload, `"failures":1`)
	})
	for _, place := range []string{"hook", "beat", "dns"} {
		p.eventually(t, place+" was asked", func() bool { _, asked := heard.Load(place); return asked })
	}
	p.eventually(t, "the message is seen as not delivered", func() bool {
		return strings.Contains(messages.String(), `"status":"retrying"`)
	})
	for _, path := range []string{"/", "/api/state", "/metrics", "/healthz"} {
		seen[path] = &output.Buffer{}
		fetch(t, page+path, seen[path])
	}
	for _, command := range [][]string{{"status"}, {"status", "--json"}, {"check"}, {"notify", "test"}, {"renew", "home", "--force"}, {"unpublish"}} {
		q := start(t, append(command, "--config", config)...)
		q.exit(t)
		seen["certsitter "+strings.Join(command, " ")] = &q.out
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	seen["log"] = &p.out
	everyFile(t, h.path("state"), seen)

	for place, text := range seen {
		if text.String() == "" {
			t.Errorf("%s is empty: nothing was looked at", place)
		}
		for of, secret := range secrets {
			if form := leaks([]byte(text.String()), secret); form != "" {
				t.Errorf("%s holds the secret of %s as %s:\n%s", place, of, form, text.String())
			}
		}
	}
}

func between(text, before, after string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, after)
	return text
}

func fetch(t *testing.T, url string, into io.Writer) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Fprintln(into, answer.Status, answer.Header)
	if _, err := io.Copy(into, answer.Body); err != nil {
		t.Fatal(err)
	}
}

// children writes how the program's children were called, and with what
// environment.
func children(t *testing.T, p *program, into io.Writer) {
	t.Helper()
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		fmt.Fprintln(into, "this system does not show command lines")
		return
	}
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		_, rest, _ := strings.Cut(string(text), ") ") // state, parent… (proc_pid_stat(5))
		if fields := strings.Fields(rest); len(fields) < 2 || fields[1] != strconv.Itoa(p.cmd.Process.Pid) {
			continue
		}
		for _, name := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(into, "%q\n", bytes.Split(text, []byte{0}))
		}
	}
}

// everyFile takes in every file of the state folder: none of them is a place for
// secrets of the configuration.
func everyFile(t *testing.T, folder string, seen map[string]*output.Buffer) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if len(text) > 0 {
			seen[path] = &output.Buffer{}
			_, _ = seen[path].Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
