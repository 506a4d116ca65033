package daemon

import (
	"context"
	"errors"
	"strings"

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
func core(conf *settings.Settings, app bool) *addon.Core {
	switch {
	case conf.HomeAssistantURL != "":
		return &addon.Core{URL: conf.HomeAssistantURL, Token: func() string { return conf.HomeAssistantToken }}
	case app:
		return (&addon.Supervisor{}).Core()
	}
	return nil
}

// targets are all addresses that messages go to.
func (d *Daemon) targets(conf *settings.Settings) []string {
	all := append([]string{}, conf.Notify...)
	if core(conf, d.o.App) == nil {
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
	home := d.home.Load()
	if home == nil {
		return &notify.Undelivered{Reason: "Home Assistant's API is not configured (homeassistant_url).", Permanent: true}
	}
	err := deliver(ctx, home, r)
	if err == nil {
		return nil
	}
	return &notify.Undelivered{Reason: d.o.Redactor.String(err.Error()), Permanent: !errors.Is(err, addon.ErrNotUp)}
}

func deliver(ctx context.Context, home *addon.Core, r notify.Request) error {
	id := r.ID
	if id == "" {
		id = "certsitter_test"
	}
	if service, ok := strings.CutPrefix(r.URL, homeNotify); ok {
		return home.Notify(ctx, service, r.Title, r.Body, map[string]any{"tag": id})
	}
	if r.Resolved {
		return home.DismissNotification(ctx, id)
	}
	return home.PersistentNotification(ctx, id, r.Title, r.Body)
}

// supervisorBroker asks the Supervisor for the broker.
func supervisorBroker(ctx context.Context, c mqtt.Config) (mqtt.Config, error) {
	b, err := (&addon.Supervisor{}).MQTT(ctx)
	if err != nil {
		return c, err
	}
	c.Broker, c.Username, c.Password = b.URL(), b.Username, b.Password
	return c, nil
}
