package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/notify"
)

// Home Assistant is a target of messages like any other. Its addresses are made
// up: what they stand for is asked of Core's API, not of shoutrrr.
const (
	homeScheme     = "homeassistant://"
	homePersistent = homeScheme + "persistent_notification"
	homeNotify     = homeScheme + "notify/"
)

// core is Home Assistant, where it can be asked: through the Supervisor, or at
// the address that is configured. nil = there is none.
func core(conf *settings.Settings, o Options) *addon.Core {
	switch {
	case conf.HomeAssistantURL != "":
		return &addon.Core{URL: conf.HomeAssistantURL, Token: func() string { return conf.HomeAssistantToken }}
	case o.App:
		return cmp.Or(o.Supervisor, &addon.Supervisor{}).Core()
	}
	return nil
}

// supervisedCore is where the Supervisor has Core (supervisor/homeassistant/const.py).
const supervisedCore = "homeassistant:8123"

// home is where Core may serve TLS itself, and whether its API is there. Core does
// not know that address as its name, so a configured one must have https.
func home(conf *settings.Settings, o Options) (address string, ok bool) {
	switch {
	case core(conf, o) == nil:
		return "", false
	case conf.HomeAssistantURL == "":
		return cmp.Or(o.Core, supervisedCore), true
	}
	u, err := url.Parse(conf.HomeAssistantURL)
	if err != nil || u.Scheme != "https" {
		return "", true
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), true
}

// targets are all addresses that messages go to.
func (d *Daemon) targets(conf *settings.Settings) []string {
	all := append([]string{}, conf.Notify...)
	if core(conf, d.o) == nil {
		return all
	}
	if conf.NotifyHomeAssistant {
		all = append(all, homePersistent)
	}
	for _, service := range conf.NotifyServices {
		all = append(all, homeNotify+service)
	}
	return all
}

// send delivers a message: Home Assistant's by its API, all others by the
// worker.
func (d *Daemon) send(ctx context.Context, r notify.Request) error {
	if !strings.HasPrefix(r.URL, homeScheme) {
		return d.o.Worker.Send(ctx, r)
	}
	home := d.inForce.Load().home
	if home == nil {
		return &notify.Undelivered{Reason: "Home Assistant's API is not configured (homeassistant_url).", Permanent: true}
	}
	err := d.deliver(ctx, home, r)
	if err == nil {
		return nil
	}
	return &notify.Undelivered{Reason: d.o.Redactor.String(err.Error()), Permanent: !errors.Is(err, addon.ErrNotUp)}
}

func (d *Daemon) deliver(ctx context.Context, home *addon.Core, r notify.Request) error {
	id := r.ID
	if id == "" {
		id = "certsitter_test"
	}
	if service, ok := strings.CutPrefix(r.URL, homeNotify); ok {
		return home.Notify(ctx, service, r.Title, r.Body, urgency(r).Data(id, d.pagePath(ctx, home)))
	}
	if r.Resolved {
		return home.DismissNotification(ctx, id)
	}
	return home.PersistentNotification(ctx, id, r.Title, r.Body)
}

// urgency is how a phone shows a message. That something is over can wait until
// somebody looks.
func urgency(r notify.Request) addon.Urgency {
	switch {
	case r.Resolved:
		return addon.Quiet
	case r.Severity == notify.Critical || r.Severity == notify.Expired:
		return addon.Urgent
	}
	return addon.Usual
}

// slugAge is how old the Supervisor's word for our slug may be: it changes with a
// reinstallation only, which is another start.
const slugAge = 365 * 24 * time.Hour

// pagePath is where a tap on a message leads to: our page in Home Assistant, if
// we are an app of it.
func (d *Daemon) pagePath(ctx context.Context, home *addon.Core) string {
	if d.self == nil {
		return ""
	}
	app, err := d.self.ask(ctx, slugAge)
	if err != nil || !app.Ingress || app.Slug == "" {
		return "" // the message is what counts
	}
	return home.PagePath(ctx, app.Slug)
}

// ErrNoBroker says that a configuration is without MQTT.
var ErrNoBroker = errors.New("no broker is configured under mqtt")

// supervisorWithin is how long the Supervisor may take to name the broker.
const supervisorWithin = 15 * time.Second

// BrokerConfig is the way to the broker of a configuration, without Installation
// and Version. The Supervisor (nil = the one that runs us) is asked, with a
// deadline, if the configuration leaves the broker to it. The error is
// ErrNoBroker or a sentence of the Supervisor's.
func BrokerConfig(ctx context.Context, conf *settings.Settings, s *addon.Supervisor) (mqtt.Config, error) {
	if !hasBroker(conf) {
		return mqtt.Config{}, ErrNoBroker
	}
	return supervisorBroker(ctx, askedBroker(conf), s)
}

func hasBroker(conf *settings.Settings) bool { return conf.MQTT.Broker != "" || conf.MQTT.Supervisor }

// askedBroker is the way to the broker as the configuration has it: without an
// address if that is the Supervisor's to name.
func askedBroker(conf *settings.Settings) mqtt.Config {
	m := conf.MQTT
	return mqtt.Config{
		Broker: m.Broker, Username: m.Username, Password: m.Password, CA: m.CA, ClientCert: m.ClientCertPEM, ClientKey: m.ClientKeyPEM,
		Topic: m.Topic, DiscoveryPrefix: m.DiscoveryPrefix, Homie: m.Homie,
	}
}

// supervisorBroker completes a configuration without a broker.
func supervisorBroker(ctx context.Context, c mqtt.Config, s *addon.Supervisor) (mqtt.Config, error) {
	if c.Broker != "" {
		return c, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, supervisorWithin, fmt.Errorf("the Supervisor did not name the broker within %v", supervisorWithin))
	defer cancel()
	b, err := cmp.Or(s, &addon.Supervisor{}).MQTT(ctx)
	if err != nil {
		return c, err
	}
	c.Broker, c.Username, c.Password = b.URL(), b.Username, b.Password
	return c, nil
}
