package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// notifier is a service that messages can go to.
type notifier struct {
	scheme string
	// hostSecret: what stands where others have a host is a key.
	hostSecret bool
}

// notifiers are the services of shoutrrr v0.13.2 (pkg/router/servicemap.go).
var notifiers = []notifier{
	{"bark", false}, {"discord", true}, {"generic", false}, {"gotify", false}, {"googlechat", false}, {"hangouts", false},
	{"ifttt", true}, {"join", false}, {"lark", false}, {"logger", false}, {"matrix", false}, {"mattermost", false}, {"notifiarr", true},
	{"ntfy", false}, {"opsgenie", false}, {"pagerduty", false}, {"pushbullet", true}, {"pushover", true}, {"rocketchat", false},
	{"signal", false}, {"slack", false}, {"smtp", false}, {"teams", true}, {"telegram", false}, {"wecom", true}, {"zulip", false},
}

// foreignNotifiers are what other programs, or other versions, call a service.
var foreignNotifiers = map[string]string{
	"http": "write generic+http://… for a web hook", "https": "write generic+https://… for a web hook",
	"mailto": "write smtp://user:password@host:587/?from=…&to=…", "mailtos": "write smtp://user:password@host:587/?from=…&to=…",
	"tgram": "write telegram://TOKEN@telegram?chats=…", "ntfys": "write ntfy://…, which is encrypted", "gotifys": "write gotify://…, which is encrypted",
	"homeassistant": "use notify_homeassistant or notify_services", "hassio": "use notify_homeassistant or notify_services",
}

func notifierSchemes() []string {
	out := make([]string, len(notifiers))
	for i, n := range notifiers {
		out[i] = n.scheme
	}
	return out
}

// schemeOf is the service that a notification URL names: generic+https is
// generic. Empty if there is none.
func schemeOf(target string) string {
	scheme, _, ok := strings.Cut(target, "://")
	if !ok {
		return ""
	}
	scheme, _, _ = strings.Cut(strings.ToLower(scheme), "+")
	return scheme
}

// checkNotify checks notification URLs as far as that is possible without
// their service. No sentence holds more of them than the scheme.
func checkNotify(p place, targets []string) {
	for i, t := range targets {
		at := p.item(i)
		if !at.ok() {
			continue
		}
		scheme := schemeOf(t)
		_, rest, _ := strings.Cut(t, "://")
		_, parseErr := url.Parse(t)
		switch {
		case scheme == "":
			at.refuse("is no notification URL: needs one like ntfy://ntfy.sh/my-topic")
		case foreignNotifiers[scheme] != "":
			at.refuse("%s:// is not known: %s", scheme, foreignNotifiers[scheme])
		case !slices.Contains(notifierSchemes(), scheme):
			if near := closest(scheme, notifierSchemes()); near != "" {
				at.refuse("%.20s:// is not known: did you mean %s://?", scheme, near)
				continue
			}
			at.refuse("%.20s:// is not known: needs one of %s", scheme, strings.Join(notifierSchemes(), ", "))
		case rest == "" && scheme != "logger":
			at.refuse("%s:// is not complete: the service's address and key are missing", scheme)
		case parseErr != nil:
			at.refuse("is no URL that can be read: characters like / ? # %% and spaces in a password must be percent-encoded")
		case slices.Contains(targets[:i], t):
			at.refuse("is there already: remove one")
		}
	}
}

// checkWebURL wants an http or https URL with a host. It never quotes it.
func checkWebURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("is no URL that can be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("needs an http or https URL")
	case u.Hostname() == "":
		return errors.New("has no host")
	}
	if u.Port() != "" {
		if _, err := portNumber(u.Port(), 1); err != nil {
			return err
		}
	}
	return checkDialled(u.Hostname())
}

// checkHomeAssistant checks the way to Home Assistant, and who is told there.
func (c *checker) checkHomeAssistant(s *Settings) {
	at := c.top.key("homeassistant_url")
	checkTogether(c.top, "homeassistant_url", s.HomeAssistantURL, "homeassistant_token", s.HomeAssistantToken)
	if s.HomeAssistantURL != "" {
		if err := checkWebURL(s.HomeAssistantURL); err != nil {
			at.refuse("%s", err)
		}
		if u, err := url.Parse(s.HomeAssistantURL); err == nil && (u.User != nil || u.RawQuery != "") {
			at.refuse("is more than Home Assistant's address: write http://host:8123, and the token into homeassistant_token")
		}
		s.HomeAssistantURL = strings.TrimRight(s.HomeAssistantURL, "/")
	}
	for i, service := range s.NotifyServices {
		s.NotifyServices[i] = strings.TrimPrefix(service, "notify.")
		if at := c.top.key("notify_services").item(i); slices.Contains(s.NotifyServices[:i], s.NotifyServices[i]) {
			at.refuse("is there already: remove one")
		}
	}
	if len(s.NotifyServices) > 0 && !c.env.App && s.HomeAssistantURL == "" {
		c.top.key("notify_services").refuse("needs homeassistant_url and homeassistant_token, to reach Home Assistant")
	}
}

// brokerPorts are the schemes of brokers and their usual ports.
var brokerPorts = map[string]string{"tcp": "1883", "ssl": "8883", "ws": "80", "wss": "443"}

// foreignBrokers are what other programs call those schemes.
var foreignBrokers = map[string]string{"mqtt": "tcp", "mqtts": "ssl", "tls": "ssl", "http": "ws", "https": "wss"}

// checkMQTT checks and completes the way to the broker.
func (c *checker) checkMQTT(p place, m *MQTT) {
	m.Supervisor = c.env.App && m.Broker == ""
	encrypted := m.Supervisor
	if at := p.key("broker"); m.Broker != "" && at.ok() {
		broker, err := completeBroker(m.Broker)
		if err != nil {
			at.refuse("%s", err)
		}
		m.Broker = broker
		encrypted = err != nil || strings.HasPrefix(broker, "ssl:") || strings.HasPrefix(broker, "wss:")
	}
	if m.Password != "" && m.Username == "" && p.key("username").ok() {
		p.key("password").refuse("needs username as well")
	}
	checkTogether(p, "client_cert", m.ClientCert, "client_key", m.ClientKey)
	for _, f := range []struct {
		key  string
		path *string
	}{{"ca_file", &m.CAFile}, {"client_cert", &m.ClientCert}, {"client_key", &m.ClientKey}} {
		*f.path = absolute(c.folder, *f.path)
		if at := p.key(f.key); *f.path != "" && m.Broker != "" && !encrypted {
			at.refuse("is for an encrypted connection, and broker begins with %s://: use %s://", schemeOf(m.Broker), secured(m.Broker))
		}
	}
	m.CA = c.roots(p.key("ca_file"), m.CAFile)
	c.checkClientPair(p, m)
}

func secured(broker string) string {
	if schemeOf(broker) == "ws" {
		return "wss"
	}
	return "ssl"
}

func (c *checker) checkClientPair(p place, m *MQTT) {
	if m.ClientCert == "" || m.ClientKey == "" || !p.key("client_cert").ok() || !p.key("client_key").ok() {
		return
	}
	var errCert, errKey error
	if m.ClientCertPEM, errCert = c.env.load(m.ClientCert); errCert != nil {
		p.key("client_cert").refuse("%s", errCert)
	}
	if m.ClientKeyPEM, errKey = c.env.load(m.ClientKey); errKey != nil {
		p.key("client_key").refuse("%s", errKey)
	}
	if errCert != nil || errKey != nil {
		return
	}
	if _, err := tls.X509KeyPair(m.ClientCertPEM, m.ClientKeyPEM); err != nil {
		p.key("client_cert").refuse("does not belong to client_key, or one of them is no PEM file")
	}
}

// completeBroker adds the usual port. Errors are sentences without the URL,
// which may hold a password.
func completeBroker(broker string) (string, error) {
	scheme := schemeOf(broker)
	u, err := url.Parse(broker)
	switch {
	case scheme == "":
		return broker, errors.New("needs a URL like tcp://192.0.2.10:1883")
	case foreignBrokers[scheme] != "":
		return broker, fmt.Errorf("%s:// is not known: write %s://", scheme, foreignBrokers[scheme])
	case brokerPorts[scheme] == "":
		return broker, fmt.Errorf("%.20s:// is not known: needs tcp://, ssl://, ws:// or wss://", scheme)
	case err != nil:
		return broker, errors.New("is no URL that can be read: a user and a password go into username and password")
	case u.User != nil:
		return broker, errors.New("holds a user or a password: they go into username and password")
	case u.RawQuery != "" || u.Fragment != "":
		return broker, errors.New("holds more than scheme, host, port and path")
	case (scheme == "tcp" || scheme == "ssl") && strings.Trim(u.Path, "/") != "":
		return broker, fmt.Errorf("has a path, which %s:// can not have: a base topic goes into topic", scheme)
	}
	if err := checkDialled(u.Hostname()); err != nil {
		return broker, err
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), brokerPorts[scheme])
	} else if _, err := portNumber(u.Port(), 1); err != nil {
		return broker, err
	}
	if scheme == "tcp" || scheme == "ssl" {
		u.Path = ""
	}
	u.Scheme = scheme
	return u.String(), nil
}
