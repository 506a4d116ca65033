package supervisor

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
)

// A Core is the little of Home Assistant's Core that messages and restarts need,
// in memory: it answers as Core's REST API does. It asks nobody for a token,
// which is the Supervisor's to do. The zero value runs.
type Core struct {
	// Version is Core's, like 2026.11.0; "" = that one.
	Version string
	// NotifyActions are the actions of the domain notify, like mobile_app_pixel,
	// besides Core's own.
	NotifyActions []string

	// Templates answers /api/template; nil = it is not offered.
	Templates func(template string) string

	mu       sync.Mutex // guards the rest
	starting bool
	shown    map[string]Notification
	calls    []Call
}

// A Notification is a persistent one.
type Notification struct{ Title, Message string }

// A Call is an action that was performed.
type Call struct {
	Action string // like notify.mobile_app_pixel
	Data   string // JSON
}

// Notifications are the persistent ones that are shown: id → what.
func (c *Core) Notifications() map[string]Notification {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.shown)
}

// Calls are the actions that were performed, in their order, without those for
// persistent notifications.
func (c *Core) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Call{}, c.calls...)
}

// Forget is what a restart does to the persistent notifications. Until Up it
// starts and takes no orders.
func (c *Core) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown, c.starting = nil, true
}

// Up ends the start.
func (c *Core) Up() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starting = false
}

// Dismiss is what a person does who has read a persistent notification.
func (c *Core) Dismiss(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.shown, id)
}

// ServeHTTP is the REST API.
func (c *Core) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "413", http.StatusRequestEntityTooLarge)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	action, performs := strings.CutPrefix(r.URL.Path, "/api/services/")
	switch {
	case r.URL.Path == "/api/config":
		c.config(w)
	case r.URL.Path == "/api/services":
		c.services(w)
	case r.URL.Path == "/api/config/core/check_config":
		fmt.Fprint(w, `{"result":"valid","errors":null,"warnings":null}`)
	case r.URL.Path == "/api/template" && c.Templates != nil:
		var asked struct{ Template string }
		_ = json.Unmarshal(body, &asked) // then it is the empty template
		fmt.Fprint(w, c.Templates(asked.Template))
	case performs && r.Method == http.MethodPost:
		c.perform(w, strings.Replace(action, "/", ".", 1), body)
	default:
		http.NotFound(w, r)
	}
}

func (c *Core) config(w io.Writer) {
	state, version := "RUNNING", c.Version
	if c.starting {
		state = "NOT_RUNNING"
	}
	if version == "" {
		version = "2026.11.0"
	}
	fmt.Fprintf(w, `{"state":%q,"recovery_mode":false,"version":%q}`, state, version)
}

func (c *Core) services(w io.Writer) {
	notify := map[string]struct{}{"persistent_notification": {}, "send_message": {}}
	for _, name := range c.NotifyActions {
		notify[name] = struct{}{}
	}
	_ = json.NewEncoder(w).Encode([]map[string]any{ // to an answer
		{"domain": "homeassistant", "services": map[string]struct{}{"restart": {}}},
		{"domain": "hassio", "services": map[string]struct{}{"app_restart": {}}},
		{"domain": "notify", "services": notify},
	})
}

// perform does what an action does. One that Core does not offer is a bad
// request, as with the real one.
func (c *Core) perform(w http.ResponseWriter, action string, body []byte) {
	var n struct {
		ID      string `json:"notification_id"`
		Title   string `json:"title"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &n) != nil {
		http.Error(w, "400: Bad Request", http.StatusBadRequest)
		return
	}
	name, isNotify := strings.CutPrefix(action, "notify.")
	known := action == "homeassistant.restart" || action == "hassio.app_restart"
	for _, offered := range c.NotifyActions {
		known = known || isNotify && name == offered
	}
	switch {
	case action == "persistent_notification.create":
		if c.shown == nil {
			c.shown = map[string]Notification{}
		}
		c.shown[n.ID] = Notification{n.Title, n.Message}
	case action == "persistent_notification.dismiss":
		delete(c.shown, n.ID)
	case known:
		c.calls = append(c.calls, Call{action, string(body)})
	default:
		http.Error(w, "400: Bad Request", http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, "[]")
}
