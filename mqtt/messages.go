package mqtt

import (
	"errors"
	"fmt"
	"strings"
)

// Message is one message as it goes to the broker. An empty payload with
// Retain empties the topic.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

func retained(topic string, payload []byte) Message {
	return Message{Topic: topic, Payload: payload, QoS: 1, Retain: true}
}

// Messages returns every retained message that belongs on the broker for s,
// byte for byte the same for the same input, but for the status topic, which
// is the Publisher's. States come before discovery, and the service's
// discovery before that of its certificates. The Homie tree, if it is wanted,
// is last.
//
// What has no name of its own is left out and named in the error beside the
// others: one certificate must not take the rest along. The Publisher validates
// what it sends.
func Messages(c Config, s Snapshot) ([]Message, error) {
	if err := c.checkTopics(); err != nil {
		return nil, err
	}
	certs, targets, refused := namedOnce(s)
	all := []Message{retained(c.serviceTopic(), s.Service.payload(c.Version, c.Installation))}
	for _, cert := range certs {
		all = append(all, retained(c.stateTopic(cert.Name), cert.State.payload(cert.Name)))
	}
	for _, t := range targets {
		all = append(all, retained(c.targetTopic(t.ID), t.payload()))
	}
	for _, e := range serviceEntities(c) {
		all = append(all, e.complete(c, c.base(), c.serviceDevice()).message(c, c.base()))
	}
	for _, t := range targets {
		all = append(all, targetEntity(c, t).complete(c, c.base(), c.serviceDevice()).message(c, c.base()))
	}
	for _, cert := range certs {
		node, entities := c.node(cert.Name), certificateEntities(c, cert)
		for _, e := range entities {
			all = append(all, e.complete(c, node, c.certificateDevice(cert, entities)).message(c, node))
		}
	}
	if c.Homie {
		all = append(all, c.homieMessages(s, certs, targets)...)
	}
	return all, errors.Join(refused...)
}

// OwnTopics are the retained topics that the Publisher writes by itself, in
// addition to Messages. They are to be remembered like those.
func (c Config) OwnTopics() []string {
	if c.Homie {
		return []string{c.statusTopic(), c.homieStateTopic()}
	}
	return []string{c.statusTopic()}
}

// reserved says of a certificate's name that it would give ids of the service
// device (docs/configuration.md).
func reserved(name string) bool {
	return name == "lowest" || name == "service" || strings.HasPrefix(name, "target_")
}

// namedOnce leaves out what has no usable name, or one that is taken.
func namedOnce(s Snapshot) (certs []Certificate, targets []Target, refused []error) {
	taken := map[string]bool{}
	for _, cert := range s.Certificates {
		switch {
		case !certificateName.MatchString(cert.Name), reserved(cert.Name):
			refused = append(refused, fmt.Errorf("certificate %q: a name is 1 to 32 of a-z, 0-9 and _, and not lowest, service or target_…", cert.Name))
		case taken["cert/"+cert.Name]:
			refused = append(refused, fmt.Errorf("certificate %q is there twice", cert.Name))
		default:
			taken["cert/"+cert.Name] = true
			certs = append(certs, cert)
		}
	}
	for _, t := range s.Targets {
		switch {
		case len(t.ID) > targetLength || !targetID.MatchString(t.ID):
			refused = append(refused, fmt.Errorf("notification target %q: an id is made of a-z, 0-9 and _", t.ID))
		case taken["target/"+t.ID]:
			// The same URL twice in the configuration is one place.
		default:
			taken["target/"+t.ID] = true
			targets = append(targets, t)
		}
	}
	return certs, targets, refused
}
