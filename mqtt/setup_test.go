package mqtt

import (
	"strings"
	"testing"
)

func TestBrokerAddresses(t *testing.T) {
	for _, c := range []struct{ in, url, address string }{
		{"tcp://mosquitto.lan:1884", "tcp://mosquitto.lan:1884", "mosquitto.lan:1884"},
		{"tcp://mosquitto.lan", "tcp://mosquitto.lan:1883", "mosquitto.lan:1883"},
		{"mqtt://core-mosquitto", "tcp://core-mosquitto:1883", "core-mosquitto:1883"},
		{"192.168.1.10:1883", "tcp://192.168.1.10:1883", "192.168.1.10:1883"},
		{"192.168.1.10", "tcp://192.168.1.10:1883", "192.168.1.10:1883"},
		{"tcp://[fd00::1]", "tcp://[fd00::1]:1883", "[fd00::1]:1883"},
		{"ssl://m.lan", "ssl://m.lan:8883", "m.lan:8883"},
		{"tls://m.lan", "ssl://m.lan:8883", "m.lan:8883"},
		{"MQTTS://m.lan", "ssl://m.lan:8883", "m.lan:8883"},
		{"ws://m.lan:9001/mqtt", "ws://m.lan:9001/mqtt", "m.lan:9001"},
		{"wss://m.lan/mqtt?x=1", "wss://m.lan:443/mqtt?x=1", "m.lan:443"},
	} {
		b, err := Config{Broker: c.in}.parseBroker()
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if b.url.String() != c.url || b.address != c.address {
			t.Errorf("%s: %s at %s, want %s at %s", c.in, b.url, b.address, c.url, c.address)
		}
		if secure := b.url.Scheme == "ssl" || b.url.Scheme == "wss"; secure != (b.tls != nil) {
			t.Errorf("%s: TLS %v", c.in, b.tls != nil)
		}
	}
}

func TestUserInTheAddress(t *testing.T) {
	b, err := Config{Broker: "mqtt://me:secret@m.lan"}.parseBroker()
	if err != nil || b.username != "me" || b.password != "secret" || strings.Contains(b.url.String(), "secret") {
		t.Errorf("%+v, %v", b, err)
	}
	b, err = Config{Broker: "mqtt://me:secret@m.lan", Username: "you", Password: "other"}.parseBroker()
	if err != nil || b.username != "you" || b.password != "other" {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	_, certPEM, keyPEM := newAuthority(t).issue(t, "client")
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "mqtt.broker is empty"},
		{Config{Broker: "http://m.lan"}, "begins with http://"},
		{Config{Broker: "tcp://"}, "is no address"},
		{Config{Broker: "tcp://user:pass%zzword@m.lan"}, "is no address"},
		{Config{Broker: "tcp://m.lan:port"}, "is no address"},
		{Config{Broker: "tcp://m.lan", CA: certPEM}, "need an encrypted connection"},
		{Config{Broker: "ssl://m.lan", CA: []byte("nothing")}, "mqtt.ca_file holds no certificate"},
		{Config{Broker: "ssl://m.lan", ClientCert: certPEM}, "belong together"},
		{Config{Broker: "ssl://m.lan", ClientKey: keyPEM}, "belong together"},
		{Config{Broker: "ssl://m.lan", ClientCert: certPEM, ClientKey: []byte("nothing")}, "do not fit together"},
		{Config{Broker: "tcp://m.lan", Topic: "Up"}, "mqtt.topic"},
		{Config{Broker: "tcp://m.lan", DiscoveryPrefix: "#"}, "mqtt.discovery_prefix"},
		{Config{Broker: "tcp://m.lan", Installation: "a b"}, "installation id"},
		{Config{Broker: "tcp://m.lan", Installation: longID}, "installation id"},
	} {
		if c.config.Installation == "" {
			c.config.Installation = "7f3a9c"
		}
		_, err := New(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.config.Broker, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "zzword") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
	if _, err := New(Config{Broker: "ssl://m.lan", Installation: "a", ClientCert: certPEM, ClientKey: keyPEM, CA: certPEM}); err != nil {
		t.Error(err)
	}
}
