package daemon

import (
	"context"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/mqtt"
)

// A file is one that people take elsewhere.
type file struct {
	name   string
	titles map[string]string // by language
	make   func(mqtt.OpenHAB) []byte
}

// openHABFiles have the names under which openHAB reads them.
var openHABFiles = []file{
	{"certsitter.things", map[string]string{"en": "openHAB: things", "de": "openHAB: Things"}, mqtt.OpenHABThings},
	{"certsitter.items", map[string]string{"en": "openHAB: items", "de": "openHAB: Items"}, mqtt.OpenHABItems},
	{"certsitter.rules", map[string]string{"en": "openHAB: rules", "de": "openHAB: Regeln"}, mqtt.OpenHABRules},
	{"certsitter.sitemap", map[string]string{"en": "openHAB: sitemap", "de": "openHAB: Sitemap"}, mqtt.OpenHABSitemap},
	{"certsitter.yaml", map[string]string{"en": "openHAB 5: things and items in one file", "de": "openHAB 5: Things und Items in einer Datei"}, mqtt.OpenHABYAML},
}

// downloads are the files that the page offers. All of them are about what is
// published, so there are none without a broker.
func (d *Daemon) downloads(conf *settings.Settings) []page.Download {
	if d.link == nil {
		return nil
	}
	all := []page.Download{{
		Name: "dashboard.yaml", Copy: true,
		Title: inLanguage(map[string]string{"en": "Dashboard for Home Assistant", "de": "Dashboard für Home Assistant"}, conf.Language),
		Make:  func(ctx context.Context) ([]byte, error) { return d.dashboard(ctx, conf), nil },
	}}
	for _, f := range openHABFiles {
		all = append(all, page.Download{
			Name: f.name, Title: inLanguage(f.titles, conf.Language), Copy: true,
			Make: func(context.Context) ([]byte, error) { return f.make(OpenHAB(conf)), nil },
		})
	}
	return all
}

func inLanguage(texts map[string]string, language string) string {
	if text, known := texts[language]; known {
		return text
	}
	return texts["en"]
}

// idsWithin is how long Home Assistant may take to tell the entities' ids: a
// person waits.
const idsWithin = 5 * time.Second

// dashboard is made with the ids that Home Assistant gave, if it tells them, and
// else with those that were proposed to it.
func (d *Daemon) dashboard(ctx context.Context, conf *settings.Settings) []byte {
	shown, config := d.Sitter.Snapshot().ForBroker(), d.mqttConfig(conf)
	ids := mqtt.EntityIDs{}
	if home := d.inForce.Load().home; home != nil {
		ctx, cancel := context.WithTimeout(ctx, idsWithin)
		defer cancel()
		answer, err := home.Template(ctx, mqtt.EntityTemplate)
		if err != nil {
			d.o.Log.Debug().Err(err).Msg("Home Assistant does not tell its entity ids; the proposed ones are used")
		} else {
			ids = mqtt.RealEntityIDs(config, shown, answer)
		}
	}
	return mqtt.Dashboard(config, shown, ids)
}
