// Package homeassistant runs a real Home Assistant Core for tests, by the program
// in its folder harness, and asks it as a browser does. Every call has a
// deadline, and what was started ends with the test.
//
// It is for tests alone, and only for those that `make test-homeassistant` runs:
// it takes root and seconds. It never stands in for the Supervisor.
package homeassistant

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/pebble"
)

const (
	// installLimit: one to two minutes, and more over a slow line.
	installLimit = 10 * time.Minute
	// startLimit: eight seconds, of which most are work for one processor, and
	// as often as not there is none free.
	startLimit = 2 * time.Minute
	// commandLimit is for what needs Core's Python and an answer.
	commandLimit = 40 * time.Second
	// questionLimit is for one request over HTTP.
	questionLimit = 20 * time.Second
	// pollPause is how often Wait looks.
	pollPause = 50 * time.Millisecond
)

// Wanted tells whether tests with a real Home Assistant are to run.
func Wanted() bool { return os.Getenv("CERTSITTER_HOMEASSISTANT") == "1" }

// Needed skips a test unless it is run by make test-homeassistant.
func Needed(t testing.TB) {
	t.Helper()
	if !Wanted() {
		t.Skip("run by make test-homeassistant")
	}
}

// Options say how a Core is to be started. The zero value is one without MQTT on
// a free port of 127.0.0.1.
type Options struct {
	Listen string // host:port; "" = a free port of 127.0.0.1
	Broker string // host:port; "" = no MQTT
	// Files are there before the first start: the path in its configuration
	// folder → the content. packages/, automations/, blueprints/ and ssl/ are read.
	Files map[string]string
	// TLS serves ssl/fullchain.pem with ssl/privkey.pem of Files.
	TLS bool
}

// A Core is one instance, with its user made and its broker connected.
type Core struct {
	URL    string // http(s)://host:port
	Token  string // an administrator's, long-lived
	Folder string // its configuration

	name   string
	client *http.Client
}

// A State is what Core says of an entity.
type State struct {
	ID         string         `json:"entity_id"`
	State      string         `json:"state"`
	Attributes map[string]any `json:"attributes"`
	Changed    time.Time      `json:"last_changed"`
	Updated    time.Time      `json:"last_updated"`
}

// Absent is the state of an entity that is not there.
const Absent = "absent"

// A Device is one of Core's MQTT devices.
type Device struct {
	Name         string            `json:"name"`
	Manufacturer string            `json:"manufacturer"`
	Model        string            `json:"model"`
	Version      string            `json:"sw_version"`
	Identifiers  [][]string        `json:"identifiers"`
	Via          string            `json:"via"` // the other device's name
	Entities     map[string]Entity `json:"entities"`
}

// An Entity is one in Core's registry, by its id.
type Entity struct {
	UniqueID   string `json:"unique_id"`
	Category   string `json:"entity_category"` // config, diagnostic or ""
	DisabledBy string `json:"disabled_by"`     // integration, user or "" = it is enabled
	Name       string `json:"original_name"`
}

// A Registry is what Core has made of everybody's discovery messages.
type Registry struct {
	Devices []Device          `json:"devices"` // by name
	Loose   map[string]Entity `json:"without_device"`
}

// Start starts a Core, which takes some seconds. The test's end forgets it.
func Start(t testing.TB, o Options) *Core {
	t.Helper()
	Needed(t)
	if o.Listen == "" {
		port, err := pebble.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		o.Listen = fmt.Sprintf("127.0.0.1:%d", port)
	}
	run(t, installLimit, nil, "install")
	c := &Core{name: instanceName(t), client: &http.Client{Timeout: questionLimit, Transport: &http.Transport{
		// It is restarted: what was open before is dead after.
		DisableKeepAlives: true,
		// The tests look at what it serves; who asks its API need not.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}}
	c.Folder = strings.TrimSpace(string(run(t, commandLimit, nil, "folder", c.name)))
	t.Cleanup(func() { c.forget(t) })
	for path, text := range o.Files {
		write(t, filepath.Join(c.Folder, path), text)
	}
	arguments := []string{"start", c.name, "--listen", o.Listen}
	if o.Broker != "" {
		arguments = append(arguments, "--broker", o.Broker)
	}
	if o.TLS {
		arguments = append(arguments, "--tls")
	}
	var said struct{ URL, Token string }
	if err := json.Unmarshal(run(t, startLimit, nil, arguments...), &said); err != nil {
		t.Fatalf("start Home Assistant: %v", err)
	}
	c.URL, c.Token = said.URL, said.Token
	return c
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// instanceName is one of at most 32 characters that no other test has.
func instanceName(t testing.TB) string {
	name := strings.Trim(unfit.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	return fmt.Sprintf("%.23s-%08x", name, rand.Uint32())
}

func write(t testing.TB, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// forget ends the instance and takes its folder away, after its log was shown if
// the test failed.
func (c *Core) forget(t testing.TB) {
	if t.Failed() {
		if log, err := os.ReadFile(filepath.Join(c.Folder, "output.log")); err == nil {
			// Without the details of what is always wrong, they are long.
			t.Logf("log of Home Assistant:\n%s", bytes.Join(logLine.FindAll(log, -1), []byte("\n")))
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startLimit)
	defer cancel()
	if _, err := command(ctx, nil, "remove", c.name); err != nil {
		t.Errorf("end Home Assistant: %v", err)
	}
}

var logLine = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d .*$`)

// Stop ends the process and keeps its folder.
func (c *Core) Stop(t testing.TB) {
	t.Helper()
	run(t, startLimit, nil, "stop", c.name)
}

// Restart ends the process, if it runs, and starts it again: it has its storage,
// but hears everything anew. Complaints begin anew, too.
func (c *Core) Restart(t testing.TB) {
	t.Helper()
	run(t, startLimit, nil, "restart", c.name)
}

// States are all entities whose id matches.
func (c *Core) States(t testing.TB, pattern string) map[string]State {
	t.Helper()
	var all []State
	if err := c.get(t.Context(), "/api/states", &all); err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile(pattern)
	found := map[string]State{}
	for _, s := range all {
		if wanted.MatchString(s.ID) {
			found[s.ID] = s
		}
	}
	return found
}

// State is one entity's; Absent if it is not there.
func (c *Core) State(t testing.TB, entity string) State {
	t.Helper()
	s, err := c.state(t.Context(), entity)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *Core) state(ctx context.Context, entity string) (State, error) {
	status, text, err := c.do(ctx, http.MethodGet, "/api/states/"+entity, nil)
	switch {
	case err != nil:
		return State{}, err
	case status == http.StatusNotFound:
		return State{ID: entity, State: Absent}, nil
	case status != http.StatusOK:
		return State{}, fmt.Errorf("state of %s: %d %.300s", entity, status, text)
	}
	var s State
	return s, json.Unmarshal(text, &s)
}

// Wait waits until the whole state of an entity matches. Core may be away
// meanwhile.
func (c *Core) Wait(t testing.TB, entity, pattern string, limit time.Duration) State {
	t.Helper()
	return c.WaitFor(t, entity, "a state like "+pattern, limit, func(s State) bool {
		return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(s.State)
	})
}

// WaitFor waits until an entity is as wanted.
func (c *Core) WaitFor(t testing.TB, entity, what string, limit time.Duration, wanted func(State) bool) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	again := time.NewTicker(pollPause)
	defer again.Stop()
	for last := ""; ; {
		s, err := c.state(ctx, entity)
		if err == nil && wanted(s) {
			return s
		}
		if ctx.Err() == nil {
			last = fmt.Sprintf("%q %v", s.State, s.Attributes)
			if err != nil {
				last = err.Error()
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s has not %s after %v but %s", entity, what, limit, last)
		case <-again.C:
		}
	}
}

// Registry is asked for by a browser, too, when it shows a device's page.
func (c *Core) Registry(t testing.TB) Registry {
	t.Helper()
	var r Registry
	if err := json.Unmarshal(run(t, commandLimit, nil, "registry", c.name), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Device is the one with an identifier of MQTT; nil if there is none.
func (r Registry) Device(identifier string) *Device {
	i := slices.IndexFunc(r.Devices, func(d Device) bool {
		return slices.ContainsFunc(d.Identifiers, func(id []string) bool { return slices.Equal(id, []string{"mqtt", identifier}) })
	})
	if i < 0 {
		return nil
	}
	return &r.Devices[i]
}

// Call performs an action ("button.press") and returns when that is done.
func (c *Core) Call(t testing.TB, action string, data any) {
	t.Helper()
	domain, name, _ := strings.Cut(action, ".")
	status, text, err := c.do(t.Context(), http.MethodPost, "/api/services/"+domain+"/"+name, data)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %.300s %v", action, status, text, err)
	}
}

// Template is what Core makes of a template.
func (c *Core) Template(t testing.TB, template string) string {
	t.Helper()
	status, text, err := c.do(t.Context(), http.MethodPost, "/api/template", map[string]string{"template": template})
	if err != nil || status != http.StatusOK {
		t.Fatalf("template: %d %.300s %v", status, text, err)
	}
	return string(text)
}

// Ask sends one WebSocket command, such as {"type": "blueprint/list"} with more
// keys, and reads its result.
func (c *Core) Ask(t testing.TB, question map[string]any, into any) {
	t.Helper()
	if err := c.TryAsk(t, question, into); err != nil {
		t.Fatal(err)
	}
}

// TryAsk is Ask where a refusal is no failure of the test.
func (c *Core) TryAsk(t testing.TB, question map[string]any, into any) error {
	t.Helper()
	text, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	out, err := command(ctx, nil, "ask", c.name, string(text))
	if err != nil {
		return err
	}
	var results []json.RawMessage
	if err := json.Unmarshal(out, &results); err != nil || len(results) != 1 {
		return fmt.Errorf("%v: %.300s (%v)", question["type"], out, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(results[0], into)
}

// A Notification is one that Home Assistant shows until somebody dismisses it.
type Notification struct {
	ID      string `json:"notification_id"`
	Title   string `json:"title"`
	Message string `json:"message"`
}

// Notifications are those that are shown, by id.
func (c *Core) Notifications(t testing.TB) map[string]Notification {
	t.Helper()
	var all []Notification
	c.Ask(t, map[string]any{"type": "persistent_notification/get"}, &all)
	shown := map[string]Notification{}
	for _, n := range all {
		shown[n.ID] = n
	}
	return shown
}

// Complaints are what Core has logged as a warning or an error since its start
// that it does not log without us; "" = none.
func (c *Core) Complaints(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	if _, err := command(ctx, nil, "complaints", c.name); err != nil {
		return err.Error()
	}
	return ""
}

// Validate holds discovery messages (topic → payload) against Core's own
// schemas, without an instance. The error has a line for each that is refused.
func Validate(t testing.TB, messages map[string]string) error {
	t.Helper()
	Needed(t)
	run(t, installLimit, nil, "install")
	var lines bytes.Buffer
	for _, topic := range slices.Sorted(maps.Keys(messages)) {
		fmt.Fprintf(&lines, "%s %s\n", topic, messages[topic])
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	out, err := command(ctx, &lines, "validate")
	if err != nil {
		return err
	}
	var said struct{ Valid int }
	if err := json.Unmarshal(out, &said); err != nil || said.Valid != len(messages) {
		t.Fatalf("not all of %d messages were looked at: %s", len(messages), out)
	}
	return nil
}

func (c *Core) get(ctx context.Context, path string, into any) error {
	status, text, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s: %d %.300s", path, status, text)
	}
	return json.Unmarshal(text, into)
}

func (c *Core) do(ctx context.Context, method, path string, body any) (status int, text []byte, err error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.URL+path, content)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := c.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(answer.Body)
	return answer.StatusCode, text, err
}

// harness is the program, beside this file.
var harness = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(file), "harness", "home-assistant")
	_, err := os.Stat(program)
	return program, err
})

// run runs a command of the harness that must not fail.
func run(t testing.TB, limit time.Duration, input io.Reader, arguments ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := command(ctx, input, arguments...)
	if err != nil {
		t.Fatalf("%s: %v", arguments[0], err)
	}
	return out
}

// command gives what was printed. The error is the command's own words.
func command(ctx context.Context, input io.Reader, arguments ...string) ([]byte, error) {
	program, err := harness()
	if err != nil {
		return nil, err
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &out, &complaint
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s took too long: %s", arguments[0], complaint.Bytes())
	case err != nil:
		return nil, fmt.Errorf("%s (%w)", bytes.TrimSpace(complaint.Bytes()), err)
	}
	return out.Bytes(), nil
}
