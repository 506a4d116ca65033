package addon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// SupervisorURL is where an app finds the Supervisor, unless SUPERVISOR_API of
// the environment names another place, as for other apps (hassio-addons/bashio).
const SupervisorURL = "http://supervisor"

// A Supervisor is what runs the apps of Home Assistant. The zero value is the
// one that runs us.
type Supervisor struct {
	URL    string        // "" = SUPERVISOR_API of the environment, or SupervisorURL
	Token  func() string // nil = SUPERVISOR_TOKEN of the environment
	Client *http.Client  // nil = one of our own, without a proxy; redirections are never followed
}

func supervisorToken() string { return os.Getenv("SUPERVISOR_TOKEN") }

func (s *Supervisor) peer() peer {
	token := s.Token
	if token == nil {
		token = supervisorToken
	}
	return peer{url: strings.TrimRight(cmp.Or(s.URL, os.Getenv("SUPERVISOR_API"), SupervisorURL), "/"), token: token, client: s.Client, direct: true}
}

// Core is Home Assistant's Core, reached through this Supervisor.
func (s *Supervisor) Core() *Core {
	p := s.peer()
	return &Core{URL: p.url + "/core", Token: p.token, Client: p.client, supervised: true}
}

// A Broker is the MQTT broker that the Supervisor offers to its apps.
type Broker struct {
	Host               string
	Port               int
	TLS                bool
	Username, Password string
}

// URL is the broker's address: tcp://host:port, or ssl:// with TLS.
func (b Broker) URL() string {
	scheme := "tcp"
	if b.TLS {
		scheme = "ssl"
	}
	return scheme + "://" + net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
}

// String is the broker's address, so that no log shows the password by accident.
func (b Broker) String() string { return b.URL() }

// MQTT asks for the broker. The error is ErrNoBroker if there is none (the
// Mosquitto app is not installed or does not run), ErrNotUp if asking again may
// help, else a sentence.
func (s *Supervisor) MQTT(ctx context.Context) (Broker, error) {
	var data struct {
		Host     string      `json:"host"`
		Port     json.Number `json:"port"` // a number; the documentation says a string
		SSL      bool        `json:"ssl"`
		Username string      `json:"username"`
		Password string      `json:"password"`
	}
	if err := s.get(ctx, "/services/mqtt", &data, http.StatusBadRequest, &failure{
		sentence: "Home Assistant has no MQTT broker: install and start the Mosquitto broker app, or set mqtt.broker.", kind: ErrNoBroker,
	}); err != nil {
		return Broker{}, err
	}
	port, err := strconv.ParseUint(string(data.Port), 10, 16)
	if err != nil || port == 0 || data.Host == "" {
		return Broker{}, errors.New("the Supervisor names an MQTT broker without a host and a port: set mqtt.broker")
	}
	return Broker{Host: data.Host, Port: int(port), TLS: data.SSL, Username: data.Username, Password: data.Password}, nil
}

// An App is what the Supervisor says of ourselves.
type App struct {
	Slug    string
	Version string
	Ingress bool
	// IngressEntry is the path of our page in Home Assistant, ending in a
	// slash; "" without ingress.
	IngressEntry string
	// Ports are the container's ports ("80/tcp") and the host's port each is
	// reached at; 0 = it is off.
	Ports map[string]int
	// Options are the user's options as the Supervisor keeps them: a JSON object,
	// with defaults and with keys that the app's form does not know. They hold
	// secrets.
	Options json.RawMessage
}

// String leaves the options out, so that no log shows a secret by accident.
func (a App) String() string { return a.Slug + " " + a.Version }

// Mapped tells that a port of ours ("80/tcp") is reached from outside.
func (a App) Mapped(port string) bool { return a.Ports[port] != 0 }

// Self asks about ourselves. The errors are MQTT's but for ErrNoBroker.
func (s *Supervisor) Self(ctx context.Context) (App, error) {
	var data struct {
		Slug    string          `json:"slug"`
		Version string          `json:"version"`
		Ingress bool            `json:"ingress"`
		URL     *string         `json:"ingress_url"`
		Network map[string]*int `json:"network"`
		Options json.RawMessage `json:"options"`
	}
	if err := s.get(ctx, "/addons/self/info", &data, 0, nil); err != nil {
		return App{}, err
	}
	app := App{Slug: data.Slug, Version: data.Version, Ingress: data.Ingress, Ports: make(map[string]int, len(data.Network)), Options: data.Options}
	if data.URL != nil {
		app.IngressEntry = *data.URL
	}
	for port, host := range data.Network {
		app.Ports[port] = 0
		if host != nil {
			app.Ports[port] = *host
		}
	}
	return app, nil
}

// TimeZone asks for the system's time zone, like Europe/Berlin. The errors are
// Self's.
func (s *Supervisor) TimeZone(ctx context.Context) (string, error) {
	var data struct {
		TimeZone string `json:"timezone"`
	}
	err := s.get(ctx, "/info", &data, 0, nil)
	return data.TimeZone, err
}

// get reads the data of an answer in the Supervisor's envelope. A status that
// means something to this question gives its error.
func (s *Supervisor) get(ctx context.Context, path string, into any, status int, meaning error) error {
	got, err := s.peer().ask(ctx, question{method: http.MethodGet, path: path})
	switch {
	case err != nil:
		return supervisorLost(err)
	case status != 0 && got.status == status && !starting(got):
		return meaning
	case got.status != http.StatusOK:
		return supervisorRefusal(got)
	}
	envelope := struct {
		Result string `json:"result"`
		Data   any    `json:"data"`
	}{Data: into}
	if err := json.Unmarshal(got.body, &envelope); err != nil || envelope.Result != "ok" {
		return fmt.Errorf("the Supervisor's answer to %s is not understood: is this Certsitter too old for it?", path)
	}
	return nil
}

func supervisorLost(err error) error {
	if errors.Is(err, errNoToken) {
		return errors.New("SUPERVISOR_TOKEN is not set: only a Home Assistant app has a Supervisor")
	}
	if l, ok := errors.AsType[*lost](err); ok {
		return notUp("the Supervisor cannot be reached (%s): it is asked again", foreign(l.Error()))
	}
	return err // we were stopped
}

// starting: the Supervisor answers everything alike while it starts itself.
func starting(a answer) bool {
	return a.status == http.StatusBadRequest && strings.HasPrefix(a.message(), "System is not ready")
}

// supervisorRefusal puts a status into words that no question expects. A token
// that it does not know is forbidden like a question that it does not allow.
func supervisorRefusal(a answer) error {
	switch {
	case a.status == http.StatusUnauthorized:
		return errors.New("the Supervisor does not know our token: restart the app")
	case a.status == http.StatusForbidden:
		return errors.New("the Supervisor forbids this question (403): restart the app; if that does not help, update or reinstall it, since it lacks a permission")
	case a.status >= http.StatusInternalServerError || starting(a):
		return notUp("the Supervisor is not ready (status %d): it is asked again", a.status)
	}
	return fmt.Errorf("the Supervisor answers with status %d: %s", a.status, cmp.Or(a.message(), "no reason given"))
}
