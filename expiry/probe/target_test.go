package probe_test

import (
	"strings"
	"testing"

	"github.com/certsitter/certsitter/expiry/probe"
)

func TestParseTarget(t *testing.T) {
	for _, test := range []struct {
		in   string
		want probe.Target
	}{
		{"nas.local:5001", probe.Target{"tls", "nas.local", "5001", "nas.local", "nas.local:5001"}},
		{"NAS.Local.:5001", probe.Target{"tls", "nas.local", "5001", "nas.local", "nas.local:5001"}},
		{"home.example.org@192.168.1.10:8123", probe.Target{"tls", "192.168.1.10", "8123", "home.example.org", "192.168.1.10:8123"}},
		{"home.example.org@[2001:db8::1]:443", probe.Target{"tls", "2001:db8::1", "443", "home.example.org", "[2001:db8::1]:443"}},
		{"[2001:DB8:0::1]:443", probe.Target{"tls", "2001:db8::1", "443", "2001:db8::1", "[2001:db8::1]:443"}},
		{"[fe80::1%eth0]:443", probe.Target{"tls", "fe80::1%eth0", "443", "fe80::1", "[fe80::1%eth0]:443"}},
		{"[::1]@127.0.0.1:443", probe.Target{"tls", "127.0.0.1", "443", "::1", "127.0.0.1:443"}},
		{"https://Home.Example.org/path?q#f", probe.Target{"https", "home.example.org", "443", "home.example.org", "home.example.org:443"}},
		{"https://[2001:db8::1]/", probe.Target{"https", "2001:db8::1", "443", "2001:db8::1", "[2001:db8::1]:443"}},
		{"https://[fe80::1%25eth0]:8443", probe.Target{"https", "fe80::1%eth0", "8443", "fe80::1", "[fe80::1%eth0]:8443"}},
		{"HTTPS://nas:8443", probe.Target{"https", "nas", "8443", "nas", "nas:8443"}},
		{"smtp://mail.example.org", probe.Target{"smtp", "mail.example.org", "25", "mail.example.org", "mail.example.org:25"}},
		{"smtp://mail.example.org@10.0.0.1:587", probe.Target{"smtp", "10.0.0.1", "587", "mail.example.org", "10.0.0.1:587"}},
		{"smtps://m", probe.Target{"smtps", "m", "465", "m", "m:465"}},
		{"imap://m", probe.Target{"imap", "m", "143", "m", "m:143"}},
		{"imaps://m", probe.Target{"imaps", "m", "993", "m", "m:993"}},
		{"pop3://m", probe.Target{"pop3", "m", "110", "m", "m:110"}},
		{"pop3s://m", probe.Target{"pop3s", "m", "995", "m", "m:995"}},
		{"ftp://m", probe.Target{"ftp", "m", "21", "m", "m:21"}},
		{"ftps://m", probe.Target{"ftps", "m", "990", "m", "m:990"}},
		{"ldap://m", probe.Target{"ldap", "m", "389", "m", "m:389"}},
		{"ldaps://m", probe.Target{"ldaps", "m", "636", "m", "m:636"}},
		{"postgres://m", probe.Target{"postgres", "m", "5432", "m", "m:5432"}},
		{"postgresql://m", probe.Target{"postgresql", "m", "5432", "m", "m:5432"}},
		{"mqtt://m", probe.Target{"mqtt", "m", "8883", "m", "m:8883"}},
		{"mqtts://m", probe.Target{"mqtts", "m", "8883", "m", "m:8883"}},
		{"my_nas:0443", probe.Target{"tls", "my_nas", "443", "my_nas", "my_nas:443"}},
	} {
		got, err := probe.ParseTarget(test.in)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v", test.in, got, err)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "port is missing",
		"nas.local":                      "port is missing",
		"tls://nas.local":                "port is missing",
		"nas.local:":                     "port is missing",
		"[::1]":                          "port is missing",
		":443":                           "host is missing",
		"https://":                       "host is missing",
		"@nas.local:443":                 "host is missing",
		"nas.local:0":                    "1 to 65535",
		"nas.local:65536":                "1 to 65535",
		"nas.local:https":                "1 to 65535",
		"nas.local:-1":                   "1 to 65535",
		"::1:443":                        "stands in brackets",
		"2001:db8::1":                    "stands in brackets",
		"[::1:443":                       "not closed",
		"[::1]443":                       "only a colon",
		"[127.0.0.1]:443":                "no IPv6 address",
		"127.0.0.1]:443":                 "letters, digits",
		"nas local:443":                  "letters, digits",
		"nas.local :443":                 "letters, digits",
		"nas\n.local:443":                "letters, digits",
		"nas..local:443":                 "1 to 63",
		"*.example.org:443":              "wildcard",
		"*.example.org@nas:443":          "wildcard",
		"bücher.example:443":             "xn--",
		"ssh://nas:22":                   "protocol",
		"file:///ssl/fullchain.pem":      "protocol",
		"http://nas":                     "protocol",
		"/ssl/fullchain.pem":             "port is missing",
		`C:\ssl\fullchain.pem`:           "1 to 65535",
		strings.Repeat("a", 64) + ":443": "1 to 63",
		strings.Repeat("abcdefghi.", 26) + "de:443":    "longer",
		"mqtt://user:topsecret@broker.example.org:abc": "1 to 65535",
		"mqtt://user:topsecret@broker.example.org":     "letters, digits",
	} {
		got, err := probe.ParseTarget(in)
		if code(err) != probe.CodeTarget || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", in, got, err)
			continue
		}
		if strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q", in, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{
		"nas.local:5001", "home.example.org@[2001:db8::1]:443", "https://[fe80::1%25eth0]:8443/x", "smtp://a@b", "[::1]@127.0.0.1:443", "://", "@", "[", "[]:1", "mqtt://u:p@h:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := probe.ParseTarget(s)
		if err != nil {
			if code(err) != probe.CodeTarget || got != (probe.Target{}) {
				t.Fatalf("%q: %+v, %v", s, got, err)
			}
			return
		}
		if got.Host == "" || got.Port == "" || got.ServerName == "" || got.Protocol == "" {
			t.Fatalf("%q: %+v", s, got)
		}
		again, err := probe.ParseTarget(got.String())
		if err != nil || again != got {
			t.Fatalf("%q is %+v, written %s, and then %+v, %v", s, got, got, again, err)
		}
	})
}
