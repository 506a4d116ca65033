package daemon

import (
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/mqtt"
)

// OpenHAB is what openHAB's files are made from, for all certificates of a
// configuration. Bridge stays empty.
func OpenHAB(conf *settings.Settings) mqtt.OpenHAB {
	o := mqtt.OpenHAB{Topic: conf.MQTT.Topic, Broker: conf.MQTT.Broker}
	for i := range conf.Certificates {
		c := &conf.Certificates[i]
		o.Certificates = append(o.Certificates, mqtt.Certificate{Name: c.Name, Label: c.Label(), Managed: true, Endpoints: len(c.Endpoints) > 0})
	}
	for _, w := range conf.Watch {
		o.Certificates = append(o.Certificates, mqtt.Certificate{Name: w.Name, Label: w.Name})
	}
	return o
}
