package addon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// checkLimit is how long Core may look at its configuration: it loads every
	// integration that is named there, a minute and more on a Raspberry Pi.
	checkLimit = 3 * time.Minute
	// appLimit is how long an app's restart may take. Core answers when it is
	// done.
	appLimit = 3 * time.Minute
)

// A Core is Home Assistant itself, asked over its REST API. Its methods may be
// called in parallel.
type Core struct {
	URL    string        // without /api; the Supervisor's proxy or homeassistant_url
	Token  func() string // asked for at each use
	Client *http.Client  // nil = one of our own; redirections are never followed

	supervised bool // reached through the Supervisor
	rhythm     rhythm

	mu   sync.Mutex // guards away
	away bool       // a restart began whose end was not seen
}

func (c *Core) peer() peer {
	return peer{url: strings.TrimRight(c.URL, "/"), token: c.Token, client: c.Client, direct: c.supervised}
}

func (c *Core) ask(ctx context.Context, q question) (answer, error) { return c.peer().ask(ctx, q) }

// get reads an answer's JSON.
func (c *Core) get(ctx context.Context, q question, into any) error {
	got, err := c.ask(ctx, q)
	switch {
	case err != nil:
		return c.lost(err)
	case got.status != http.StatusOK:
		return c.refusal(got)
	case json.Unmarshal(got.body, into) != nil:
		return errors.New(c.stranger())
	}
	return nil
}

// A status is what Core says of itself.
type status struct {
	State        string `json:"state"`
	RecoveryMode bool   `json:"recovery_mode"`
	Version      string `json:"version"`
}

const running = "RUNNING"

func (c *Core) status(ctx context.Context, limit time.Duration) (status, error) {
	var s status
	if err := c.get(ctx, question{method: http.MethodGet, path: "/api/config", limit: limit}, &s); err != nil {
		return status{}, err
	}
	if s.State == "" {
		return status{}, errors.New(c.stranger())
	}
	return s, nil
}

// Running tells with nil that Core has started and takes orders. The error is
// ErrNotUp while it has not.
func (c *Core) Running(ctx context.Context) error {
	s, err := c.status(ctx, 0)
	if err != nil {
		return err
	}
	return s.up()
}

func (s status) up() error {
	if s.State == running {
		return nil
	}
	state := strings.ToLower(strings.ReplaceAll(foreign(s.State), "_", " "))
	return notUp("Home Assistant is not up yet (%s): it is tried again", state)
}

// sound: a Core in recovery mode waits for a person, and its settings are not
// the usual ones.
func (s status) sound() error {
	if !s.RecoveryMode {
		return nil
	}
	return sentence("Home Assistant runs in recovery mode because it could not start as configured: repair its configuration and restart it by hand")
}

// CheckConfig has Core check its configuration. An invalid one is an error with
// Core's words. It needs an administrator's token.
func (c *Core) CheckConfig(ctx context.Context) error {
	var result struct {
		Result string  `json:"result"`
		Errors *string `json:"errors"`
	}
	got, err := c.ask(ctx, question{method: http.MethodPost, path: "/api/config/core/check_config", limit: checkLimit})
	switch {
	case err != nil:
		return c.lost(err)
	case got.status == http.StatusNotFound:
		return nil // a Core without the integration "config"; the restart checks too
	case got.status != http.StatusOK:
		return c.refusal(got)
	case json.Unmarshal(got.body, &result) != nil || result.Result == "":
		return errors.New(c.stranger())
	case result.Result == "valid":
		return nil
	}
	why := "it gives no reason"
	if result.Errors != nil {
		why = cmp.Or(foreign(*result.Errors), why)
	}
	return sentence("Home Assistant's own configuration is not valid, so that it is not restarted: %s. Correct it, see Developer tools > YAML > Check configuration", why)
}

// perform has Core perform an action ("notify", "mobile_app_pixel").
func (c *Core) perform(ctx context.Context, domain, action string, data any, limit time.Duration) (answer, error) {
	return c.ask(ctx, question{
		method: http.MethodPost, path: "/api/services/" + url.PathEscape(domain) + "/" + url.PathEscape(action), body: data, limit: limit,
	})
}

// actions are the actions that Core offers: domain → names.
func (c *Core) actions(ctx context.Context) (map[string][]string, error) {
	var domains []struct {
		Domain   string                     `json:"domain"`
		Services map[string]json.RawMessage `json:"services"`
	}
	if err := c.get(ctx, question{method: http.MethodGet, path: "/api/services"}, &domains); err != nil {
		return nil, err
	}
	offered := make(map[string][]string, len(domains))
	for _, d := range domains {
		for name := range d.Services {
			offered[d.Domain] = append(offered[d.Domain], name)
		}
	}
	return offered, nil
}

// Template has Core fill in a template and gives the text. It needs an
// administrator's token.
func (c *Core) Template(ctx context.Context, template string) ([]byte, error) {
	got, err := c.ask(ctx, question{method: http.MethodPost, path: "/api/template", body: map[string]string{"template": template}})
	switch {
	case err != nil:
		return nil, c.lost(err)
	case got.status != http.StatusOK:
		return nil, c.refusal(got)
	}
	return got.body, nil
}

// lost puts a missing answer into words.
func (c *Core) lost(err error) error {
	if errors.Is(err, errNoToken) {
		if c.supervised {
			return errors.New("SUPERVISOR_TOKEN is not set: set homeassistant_url and homeassistant_token")
		}
		return errors.New("homeassistant_token is empty: make a long-lived access token in Home Assistant (your profile > Security)")
	}
	if errors.Is(err, errBrokenToken) {
		return errors.New("homeassistant_token holds a space or a line break: copy it again, as one word")
	}
	l, ok := errors.AsType[*lost](err)
	switch {
	case !ok:
		return err // we were stopped
	case unknownPeer(l):
		return sentence("Home Assistant's certificate is not accepted (%s): use a name that its certificate has in homeassistant_url", foreign(l.Error()))
	case noTLS(l):
		return errors.New("homeassistant_url says https, but Home Assistant speaks plain HTTP there: write http")
	}
	why := foreign(l.Error())
	if c.supervised {
		return notUp("Home Assistant cannot be reached (%s): it is tried again", why)
	}
	return notUp("Home Assistant cannot be reached (%s): it is tried again; is homeassistant_url right?", why)
}

// refusal puts a status that no question expects into words.
func (c *Core) refusal(a answer) error {
	switch {
	case a.status >= 300 && a.status < 400:
		return c.redirected(a.location)
	case a.status == http.StatusUnauthorized && c.supervised:
		return errors.New("the Supervisor does not let us talk to Home Assistant (401): restart the app; if that does not help, reinstall it")
	case a.status == http.StatusUnauthorized:
		return sentence("Home Assistant does not accept homeassistant_token (401): make a new long-lived access token as an administrator (your profile > Security)")
	case a.status == http.StatusForbidden && c.supervised:
		return errors.New("the Supervisor forbids this (403): the app lacks a permission; update or reinstall it")
	case a.status == http.StatusForbidden:
		return sentence("Home Assistant forbids this (403): it may have banned this machine's address after wrong tokens; look into its ip_bans.yaml")
	case a.status == http.StatusNotFound:
		return errors.New(c.stranger())
	case a.status == http.StatusBadGateway || a.status == http.StatusServiceUnavailable || a.status == http.StatusGatewayTimeout:
		return notUp("Home Assistant is not up yet (status %d): it is tried again", a.status)
	}
	return sentence("Home Assistant refused this with status %d: %s", a.status, cmp.Or(a.message(), "see its log for the reason"))
}

func (c *Core) redirected(location string) error {
	to, err := url.Parse(location)
	if err != nil || to.Host == "" {
		return sentence("Home Assistant's address leads to another page: write the address that the browser ends at into homeassistant_url")
	}
	return sentence("Home Assistant's address leads on to %s: write that into homeassistant_url", foreign(to.Scheme+"://"+to.Host))
}

// stranger is the sentence for a server that is none of Home Assistant's.
func (c *Core) stranger() string {
	if c.supervised {
		return "the answer is not understood: is this Certsitter too old for this Home Assistant?"
	}
	return "what answers there is not Home Assistant's API: check homeassistant_url"
}
