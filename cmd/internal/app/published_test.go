package app

import (
	"context"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/internal/mosquitto"
	"github.com/certsitter/certsitter/mqtt"
)

// A published home has a Home Assistant that is told of certificates by a test,
// without anybody who looks after them.
type published struct {
	core      *homeassistant.Core
	config    mqtt.Config
	publisher *mqtt.Publisher
	stop      func() // the publisher, as a good end of Certsitter does
}

func newPublished(t *testing.T, files map[string]string) *published {
	t.Helper()
	broker := mosquitto.Start(t)
	p := &published{config: mqtt.Config{Broker: broker.URL(), Installation: "test", Version: "0.1.0"}}
	p.core = homeassistant.Start(t, homeassistant.Options{Broker: broker.Address, Files: files})
	p.start(t)
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *published) start(t *testing.T) {
	t.Helper()
	var err error
	if p.publisher, err = mqtt.New(p.config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.publisher.Run(ctx) }()
	p.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the publisher: %v", err)
		}
		p.stop = func() {}
	}
}

func (p *published) show(t *testing.T, s mqtt.Snapshot) {
	t.Helper()
	all, err := mqtt.Messages(p.config, s)
	if err != nil {
		t.Fatal(err)
	}
	p.publisher.Publish(all, nil)
}

// snapshot is of certificates in a state that they can really be in.
func snapshot(certs ...mqtt.Certificate) mqtt.Snapshot {
	s := mqtt.Snapshot{Service: mqtt.Service{Certificates: len(certs), LastCheck: time.Now()}, Certificates: certs}
	for _, c := range certs {
		if c.State.Problem {
			s.Service.Problems++
		}
	}
	return s
}

func fine(name, label string) mqtt.Certificate {
	now := time.Now()
	return mqtt.Certificate{Name: name, Label: label, Managed: true, State: mqtt.State{
		Status: "ok", DaysLeft: new(59), NotBefore: now.AddDate(0, 0, -30), NotAfter: now.AddDate(0, 0, 60), LastResult: "Renewed.",
		LastRenewal: now.AddDate(0, 0, -30), NextRenewal: now.AddDate(0, 0, 30), Source: "managed",
	}}
}

func failing(c mqtt.Certificate, status string, days int, result string) mqtt.Certificate {
	c.State.Status, c.State.Problem, c.State.DaysLeft, c.State.LastResult, c.State.Failures = status, true, &days, result, 3
	c.State.NotAfter = time.Now().AddDate(0, 0, days).Add(time.Hour)
	return c
}
