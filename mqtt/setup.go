// Package mqtt shows certificates to Home Assistant, to openHAB and to every
// other reader of an MQTT broker: it says which messages belong on the broker
// for a snapshot of the service, keeps them there, and hands on the commands
// that come back. It never looks at a certificate, never decides anything
// about one, never logs, and never changes a topic that is not its own.
package mqtt

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Config says which broker to use, how, and under which topics.
type Config struct {
	Broker   string // tcp:// (mqtt://), ssl:// (mqtts://, tls://), ws:// or wss://, with host and optional port
	Username string
	Password string

	CA         []byte // PEM: the only authorities to trust; empty = the system's
	ClientCert []byte // PEM: certificate to log in with, its chain behind it
	ClientKey  []byte // PEM: its key

	Topic           string // base of all our own topics, [a-z0-9]+; empty = certsitter
	DiscoveryPrefix string // empty = homeassistant
	Homie           bool   // also the Homie tree homie/<Topic>, over a connection of its own

	Installation string // random id of this installation: client id, and how two on one base are told apart
	Version      string // of the program, for the origin of discovery messages

	// KeepFound: what is found of former times on the broker is left there, since
	// it is not known what is wanted. Usually it is emptied.
	KeepFound bool
}

// The reserved words of the contract.
const (
	defaultBase   = "certsitter"
	defaultPrefix = "homeassistant"

	online  = "online"
	offline = "offline"
	press   = "PRESS"
	none    = "None" // stands wherever there is no value; Home Assistant reads it as unknown
)

var (
	baseForm         = regexp.MustCompile(`^[a-z0-9]+$`)
	installationForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	// certificateName is the contract's form of a name (docs/configuration.md).
	certificateName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_]{0,30}[a-z0-9])?$`)
	// targetID is <scheme>_<6 hex>; schemes such as generic+https lose their sign.
	targetID = regexp.MustCompile(`^[a-z0-9][a-z0-9_]*$`)
)

// Lengths are no part of the patterns, which would be so many times as large.
const (
	installationLength = 64
	targetLength       = 62
)

func isInstallation(id string) bool {
	return len(id) <= installationLength && installationForm.MatchString(id)
}

func (c Config) base() string   { return cmp.Or(c.Topic, defaultBase) }
func (c Config) prefix() string { return cmp.Or(c.DiscoveryPrefix, defaultPrefix) }

// Topics of our own, below the base.

func (c Config) statusTopic() string              { return c.base() + "/status" }
func (c Config) serviceTopic() string             { return c.base() + "/service/state" }
func (c Config) stateTopic(name string) string    { return c.base() + "/cert/" + name + "/state" }
func (c Config) eventTopic(name string) string    { return c.base() + "/cert/" + name + "/event" }
func (c Config) renewTopic(name string) string    { return c.base() + "/cert/" + name + "/renew/set" }
func (c Config) targetTopic(id string) string     { return c.base() + "/target/" + id + "/state" }
func (c Config) serviceSetTopic(do string) string { return c.base() + "/service/" + do + "/set" }

// discoveryTopic is where the entity object of node is announced.
func (c Config) discoveryTopic(component, node, object string) string {
	return c.prefix() + "/" + component + "/" + node + "/" + object + "/config"
}

// birthTopic is where Home Assistant, and openHAB after a scan, say that they
// are there.
func (c Config) birthTopic() string { return c.prefix() + "/status" }

// checkTopics refuses what would make topics that others cannot read, or that
// collide with those of another installation.
func (c Config) checkTopics() error {
	switch {
	case !baseForm.MatchString(c.base()):
		return fmt.Errorf("mqtt.topic is %q: only lower-case letters and digits are possible", c.base())
	case !plainTopic(c.prefix()):
		return fmt.Errorf("mqtt.discovery_prefix is %q: it must be a topic without + and #, such as homeassistant", c.prefix())
	case c.prefix() == c.base() || strings.HasPrefix(c.prefix(), c.base()+"/"):
		return fmt.Errorf("mqtt.topic and mqtt.discovery_prefix are both %q: they must differ", c.base())
	}
	return nil
}

// plainTopic says whether a message can be published on topic (MQTT 3.1.1
// §4.7), without levels that are empty.
func plainTopic(topic string) bool {
	return topic != "" && len(topic) <= 65535 && utf8.ValidString(topic) &&
		!strings.ContainsAny(topic, "+#\x00") && topic[0] != '$' &&
		topic[0] != '/' && topic[len(topic)-1] != '/' && !strings.Contains(topic, "//")
}

// brokerAddress is a broker's address, taken apart.
type brokerAddress struct {
	url                *url.URL // scheme tcp, ssl, ws or wss; without user and password
	address            string   // host:port
	username, password string
	tls                *tls.Config // nil = plain
}

// transports maps every scheme to what it means. The left column also has the
// names that other programs' users are used to.
var transports = map[string]struct {
	scheme, port string
	tls          bool
}{
	"tcp":   {"tcp", "1883", false},
	"mqtt":  {"tcp", "1883", false},
	"ssl":   {"ssl", "8883", true},
	"tls":   {"ssl", "8883", true},
	"mqtts": {"ssl", "8883", true},
	"ws":    {"ws", "80", false},
	"wss":   {"wss", "443", true},
}

// parseBroker reads the address and the files that go with it. Its errors are
// sentences, and never show the password.
func (c Config) parseBroker() (brokerAddress, error) {
	raw := c.Broker
	if raw == "" {
		return brokerAddress{}, errors.New("mqtt.broker is empty: write an address such as tcp://192.168.1.10:1883")
	}
	if !strings.Contains(raw, "://") {
		raw = "tcp://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" { // the error would show a password that is part of the address
		return brokerAddress{}, errors.New("mqtt.broker is no address: write one such as tcp://192.168.1.10:1883")
	}
	transport, ok := transports[strings.ToLower(u.Scheme)]
	if !ok {
		return brokerAddress{}, fmt.Errorf("mqtt.broker begins with %s://: possible are tcp://, ssl://, ws:// and wss://", u.Scheme)
	}
	b := brokerAddress{username: c.Username, password: c.Password}
	if u.User != nil && c.Username == "" && c.Password == "" {
		b.username = u.User.Username()
		b.password, _ = u.User.Password()
	}
	u.User = nil
	u.Scheme = transport.scheme
	b.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), transport.port))
	u.Host = b.address
	b.url = u
	if !transport.tls {
		if len(c.CA)+len(c.ClientCert)+len(c.ClientKey) > 0 {
			return brokerAddress{}, errors.New("mqtt.ca_file, client_cert and client_key need an encrypted connection: write ssl:// or wss:// in mqtt.broker")
		}
		return b, nil
	}
	b.tls, err = c.tlsConfig(u.Hostname())
	return b, err
}

func (c Config) tlsConfig(host string) (*tls.Config, error) {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if len(c.CA) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("mqtt.ca_file holds no certificate in PEM form (a block that begins with -----BEGIN CERTIFICATE-----)")
		}
	}
	if len(c.ClientCert)+len(c.ClientKey) == 0 {
		return t, nil
	}
	if len(c.ClientCert) == 0 || len(c.ClientKey) == 0 {
		return nil, errors.New("mqtt.client_cert and mqtt.client_key belong together: set both or none")
	}
	pair, err := tls.X509KeyPair(c.ClientCert, c.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("mqtt.client_cert and mqtt.client_key do not fit together: %w", err)
	}
	t.Certificates = []tls.Certificate{pair}
	return t, nil
}
