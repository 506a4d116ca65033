package settings

import (
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

// maxDays bounds every number of days: ten years.
const maxDays = 3650

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9_]{0,30}[a-z0-9])?$`)
	topicPattern   = regexp.MustCompile(`^[a-z0-9]+$`)
	prefixPattern  = regexp.MustCompile(`^[^+#\s/]+(/[^+#\s/]+)*$`)
	profilePattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	accountPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	servicePattern = regexp.MustCompile(`^(notify\.)?[a-z0-9_]+$`)
	emailPattern   = regexp.MustCompile(`^[^@\s<>,]+@[^@\s<>,]+\.[^@\s<>,]+$`)
	octalPattern   = regexp.MustCompile(`^0?[0-7]{3}$`)
)

const nameShape = "1 to 32 of a to z, 0 to 9 and _, with no _ at either end"

// serviceFields are the keys at the top of the file.
func serviceFields() []field[Settings] {
	return []field[Settings]{
		{key: "ca", doc: "The certificate authority: letsencrypt, letsencrypt-staging or the https URL of an ACME directory.",
			into: func(s *Settings) decoder { return textInto{&s.CA} }, fallback: letsEncrypt},
		{key: "ca_roots", doc: "PEM file with the roots of a private CA (step-ca, Pebble).",
			into: func(s *Settings) decoder { return textInto{&s.CARoots} }},
		{key: "email", doc: "Contact that is given to the CA; optional.",
			into: func(s *Settings) decoder { return textInto{&s.Email} }, pattern: emailPattern, shape: "an address like you@example.org"},
		{key: "eab_kid", doc: "Key id of the external account binding, if the CA wants one.",
			into: func(s *Settings) decoder { return textInto{&s.EABKid} }},
		{key: "eab_hmac", doc: "HMAC key of the external account binding, base64url.",
			into: func(s *Settings) decoder { return textInto{&s.EABHMAC} }, secret: true},
		{key: "schedule", doc: "Cron expression that routine renewals wait for (five fields, or @daily and the like); empty: as soon as due.",
			into: func(s *Settings) decoder {
				return parsedInto{func(t string) (err error) { s.Schedule, err = ParseSchedule(t, s.Location); return }}
			}},
		{key: "restart_window", doc: "Time of day, like 03:00-05:00, that actions which interrupt a service wait for.",
			into: func(s *Settings) decoder {
				return parsedInto{func(t string) (err error) { s.RestartWindow, err = ParseWindow(t); return }}
			}},
		{key: "warn_days", doc: "Days left below which a problem is a warning, for a lifetime of 90 days; scaled down for shorter ones.",
			into: func(s *Settings) decoder { return numberInto{&s.WarnDays} }, fallback: 21, min: 1, max: maxDays},
		{key: "critical_days", doc: "Days left below which it is critical.",
			into: func(s *Settings) decoder { return numberInto{&s.CriticalDays} }, fallback: 7, min: 0, max: maxDays},
		{key: "http_port", doc: "Port where HTTP-01 challenges are answered while a certificate without webroot is being ordered.",
			into: func(s *Settings) decoder { return numberInto{&s.HTTPPort} }, fallback: 80, min: 1, max: 65535, notApp: true},
		{key: "tls_port", doc: "Port where TLS-ALPN-01 challenges are answered.",
			into: func(s *Settings) decoder { return numberInto{&s.TLSPort} }, fallback: 443, min: 1, max: 65535, notApp: true},
		{key: "resolvers", doc: "Name servers for propagation checks; empty: public ones, or the system's with ca_roots.",
			into: func(s *Settings) decoder { return textsInto{&s.Resolvers} }},
		{key: "certificates", doc: "The certificates that Certsitter renews.",
			into: func(s *Settings) decoder { return itemsInto[Certificate]{certificateFields(), &s.Certificates} }},
		{key: "watch", doc: "Certificates that somebody else renews.",
			into: func(s *Settings) decoder { return itemsInto[Watch]{watchFields(), &s.Watch} }},
		{key: "notify", doc: "Where messages go: shoutrrr URLs.",
			into: func(s *Settings) decoder { return textsInto{&s.Notify} }, secret: true},
		{key: "notify_homeassistant", doc: "A persistent notification in Home Assistant, where its API is there.",
			into: func(s *Settings) decoder { return flagInto{&s.NotifyHomeAssistant} }, fallback: true},
		{key: "notify_services", doc: "Home Assistant notify actions, like mobile_app_pixel.",
			into:    func(s *Settings) decoder { return textsInto{&s.NotifyServices} },
			pattern: servicePattern, shape: "the name of a notify action, like mobile_app_pixel"},
		{key: "homeassistant_url", doc: "URL of Home Assistant, where there is no Supervisor.",
			into: func(s *Settings) decoder { return textInto{&s.HomeAssistantURL} }},
		{key: "homeassistant_token", doc: "Long-lived access token for homeassistant_url.",
			into: func(s *Settings) decoder { return textInto{&s.HomeAssistantToken} }, secret: true},
		{key: "heartbeat_url", doc: "URL that is fetched after every good round.",
			into: func(s *Settings) decoder { return textInto{&s.HeartbeatURL} }, secret: true},
		{key: "quiet_hours", doc: "Time of day, like 22:00-07:00, in which messages wait; empty: off.",
			into: func(s *Settings) decoder {
				return parsedInto{func(t string) (err error) { s.QuietHours, err = ParseWindow(t); return }}
			}},
		{key: "repeat_hours", doc: "How often a message about an open warning is repeated.",
			into: func(s *Settings) decoder { return numberInto{&s.RepeatHours} }, fallback: 72, min: 1, max: 24 * 365},
		{key: "language", doc: "Language of messages and page.",
			into: func(s *Settings) decoder { return textInto{&s.Language} }, fallback: "en", choices: []string{"en", "de"}},
		{key: "mqtt", doc: "The MQTT broker.",
			into: func(s *Settings) decoder { return sectionInto[MQTT]{mqttFields(), &s.MQTT} }},
		{key: "state_dir", doc: "Folder for accounts, keys and what is remembered; default /data in the image, else /var/lib/certsitter.",
			into: func(s *Settings) decoder { return textInto{&s.StateDir} }, notApp: true},
		{key: "ssl_dir", doc: "Folder that relative paths of certificates are in; default /ssl as an app and in the image, else a folder for each certificate below state_dir.",
			into: func(s *Settings) decoder { return textInto{&s.SSLDir} }},
		{key: "listen", doc: "Address of the page, the API and the metrics; default 127.0.0.1:8099, in the image :8099.",
			into: func(s *Settings) decoder { return textInto{&s.Listen} }, notApp: true},
		{key: "page_password", doc: "Password for the buttons of the page from beyond this machine and Home Assistant.",
			into: func(s *Settings) decoder { return textInto{&s.PagePassword} }, secret: true},
		{key: "log_level", doc: "How much is logged.",
			into: func(s *Settings) decoder { return textInto{&s.LogLevel} }, fallback: "info", choices: []string{"trace", "debug", "info", "warn", "error"}},
		{key: "log_format", doc: "Readable lines or one JSON object a line; auto: lines on a terminal.",
			into: func(s *Settings) decoder { return textInto{&s.LogFormat} }, fallback: "auto", choices: []string{"auto", "text", "json"}, notApp: true},
	}
}

// certificateFields are the keys of an item of certificates.
func certificateFields() []field[Certificate] {
	return []field[Certificate]{
		{key: "name", doc: "Short name, used in topics and folders: " + nameShape + ".",
			into: func(c *Certificate) decoder { return textInto{&c.Name} }, required: true, pattern: namePattern, shape: nameShape},
		{key: "domains", doc: "The names that the certificate is for: domains, wildcards (with dns-01), IP addresses.",
			into: func(c *Certificate) decoder { return textsInto{&c.Domains} }, required: true},
		{key: "ca", doc: "This certificate's CA, if it is another one.",
			into: func(c *Certificate) decoder { return textInto{&c.CA} }},
		{key: "ca_roots", doc: "PEM file with the roots of this certificate's private CA.",
			into: func(c *Certificate) decoder { return textInto{&c.CARoots} }},
		{key: "eab_kid", doc: "Key id of this certificate's external account binding.",
			into: func(c *Certificate) decoder { return textInto{&c.EABKid} }},
		{key: "eab_hmac", doc: "HMAC key of this certificate's external account binding, base64url.",
			into: func(c *Certificate) decoder { return textInto{&c.EABHMAC} }, secret: true},
		{key: "challenge", doc: "How the CA is shown that the names are ours; http-01 where nothing is said, and needed in the app.",
			into: func(c *Certificate) decoder { return textInto{&c.Challenge} }, choices: []string{"http-01", "dns-01", "tls-alpn-01"}},
		{key: "provider", doc: "lego's code of the DNS provider, with dns-01.",
			into: func(c *Certificate) decoder { return textInto{&c.Provider} }},
		{key: "env", doc: "The DNS provider's variables, KEY=VALUE each; KEY_FILE=PATH is read.",
			into: func(c *Certificate) decoder { return textsInto{&c.env} }, secret: true},
		{key: "webroot", doc: "Folder of another web server that answers HTTP-01 for us.",
			into: func(c *Certificate) decoder { return textInto{&c.Webroot} }},
		{key: "key_type", doc: "Kind of the private key.",
			into: func(c *Certificate) decoder { return textInto{&c.KeyType} }, fallback: "ec256",
			choices: []string{"ec256", "ec384", "rsa2048", "rsa3072", "rsa4096"}},
		{key: "reuse_key", doc: "Keep the private key over renewals.",
			into: func(c *Certificate) decoder { return flagInto{&c.ReuseKey} }, fallback: false},
		{key: "profile", doc: "ACME profile of the CA, like classic, tlsserver or shortlived.",
			into: func(c *Certificate) decoder { return textInto{&c.Profile} }, pattern: profilePattern, shape: "the name of a profile, like shortlived"},
		{key: "preferred_chain", doc: "Common name of the root to prefer among the CA's alternate chains.",
			into: func(c *Certificate) decoder { return textInto{&c.PreferredChain} }},
		{key: "renew_before_days", doc: "Days before the end when it is renewed; 0: the CA's advice, else a third of the lifetime.",
			into: func(c *Certificate) decoder { return numberInto{&c.RenewBeforeDays} }, fallback: 0, min: 0, max: maxDays},
		{key: "certfile", doc: "Where the chain goes; under ssl_dir unless absolute. The same path as keyfile gives one combined file.",
			into: func(c *Certificate) decoder { return textInto{&c.CertFile} }, fallback: "fullchain.pem"},
		{key: "keyfile", doc: "Where the private key goes.",
			into: func(c *Certificate) decoder { return textInto{&c.KeyFile} }, fallback: "privkey.pem"},
		{key: "leaffile", doc: "Where the leaf alone goes.",
			into: func(c *Certificate) decoder { return textInto{&c.LeafFile} }},
		{key: "chainfile", doc: "Where the chain without the leaf goes.",
			into: func(c *Certificate) decoder { return textInto{&c.ChainFile} }},
		{key: "combinedfile", doc: "Where key and chain go together.",
			into: func(c *Certificate) decoder { return textInto{&c.CombinedFile} }},
		{key: "key_mode", doc: "Mode of new files that hold the key, octal in quotes.",
			into:    func(c *Certificate) decoder { return parsedInto{func(t string) error { return c.setMode(t) }} },
			pattern: octalPattern, fallback: "0600"},
		{key: "owner", doc: "Owner of new files, name or number.",
			into: func(c *Certificate) decoder { return textInto{&c.Owner} }, pattern: accountPattern, shape: "a user's name or number"},
		{key: "group", doc: "Group of new files, name or number.",
			into: func(c *Certificate) decoder { return textInto{&c.Group} }, pattern: accountPattern, shape: "a group's name or number"},
		{key: "pkcs12", doc: "Also write a PKCS#12 file here.",
			into: func(c *Certificate) decoder { return textInto{&c.PKCS12} }},
		{key: "pkcs12_password", doc: "Password of the PKCS#12 file.",
			into: func(c *Certificate) decoder { return textInto{&c.PKCS12Password} }, secret: true},
		{key: "keystore", doc: "Also install into openHAB's Jetty keystore here (JKS, alias mykey).",
			into: func(c *Certificate) decoder { return textInto{&c.Keystore} }},
		{key: "keystore_password", doc: "Password of the keystore.",
			into: func(c *Certificate) decoder { return textInto{&c.KeystorePassword} }, secret: true, fallback: wellKnownKeystorePassword},
		{key: "after", doc: "What is done once new files are there: restart homeassistant, restart app SLUG, reload UNIT, restart UNIT, restart container NAME, signal container NAME SIGNAL, run COMMAND.",
			into: func(c *Certificate) decoder { return eachInto{c.addAction} }},
		{key: "endpoints", doc: "Where it is served, [name@]host:port; looked at after each renewal and ever after.",
			into: func(c *Certificate) decoder { return textsInto{&c.Endpoints} }},
	}
}

// wellKnownKeystorePassword is what openHAB ships its keystore with.
const wellKnownKeystorePassword = "openhab"

// watchFields are the keys of an item of watch.
func watchFields() []field[Watch] {
	return []field[Watch]{
		{key: "name", doc: "Short name, used in topics: " + nameShape + ".",
			into: func(w *Watch) decoder { return textInto{&w.Name} }, required: true, pattern: namePattern, shape: nameShape},
		{key: "source", doc: "host:port, a URL (https, smtp, smtps, imap, imaps, pop3, pop3s, ftp, ftps, ldap, ldaps, postgres, mqtt, mqtts), a path or a glob.",
			into: func(w *Watch) decoder { return textInto{&w.Source} }, required: true},
		{key: "server_name", doc: "The name to ask for and to check, if it is not the host.",
			into: func(w *Watch) decoder { return textInto{&w.ServerName} }},
		{key: "ca_roots", doc: "PEM file with the roots of its own CA.",
			into: func(w *Watch) decoder { return textInto{&w.CARoots} }},
		{key: "pin", doc: "SHA-256 fingerprint that is expected, 64 hex digits.",
			into: func(w *Watch) decoder {
				return parsedInto{func(t string) (err error) { w.Pin, err = parsePin(t); return }}
			}},
		{key: "password", doc: "Password of a PKCS#12 or JKS file.",
			into: func(w *Watch) decoder { return textInto{&w.Password} }, secret: true},
		{key: "warn_days", doc: "As at the top of the file, for this one.",
			into: func(w *Watch) decoder { return numberInto{&w.WarnDays} }, min: 1, max: maxDays},
		{key: "critical_days", doc: "As at the top of the file, for this one.",
			into: func(w *Watch) decoder { return numberInto{&w.CriticalDays} }, min: 0, max: maxDays},
	}
}

// mqttFields are the keys of mqtt.
func mqttFields() []field[MQTT] {
	return []field[MQTT]{
		{key: "broker", doc: "tcp://, ssl://, ws:// or wss:// URL; empty: no MQTT, and as an app the Supervisor's broker.",
			into: func(m *MQTT) decoder { return textInto{&m.Broker} }},
		{key: "username", doc: "User at the broker.",
			into: func(m *MQTT) decoder { return textInto{&m.Username} }},
		{key: "password", doc: "The user's password.",
			into: func(m *MQTT) decoder { return textInto{&m.Password} }, secret: true},
		{key: "ca_file", doc: "PEM file with the broker's CA.",
			into: func(m *MQTT) decoder { return textInto{&m.CAFile} }},
		{key: "client_cert", doc: "PEM file with our certificate for the broker.",
			into: func(m *MQTT) decoder { return textInto{&m.ClientCert} }},
		{key: "client_key", doc: "PEM file with its key.",
			into: func(m *MQTT) decoder { return textInto{&m.ClientKey} }},
		{key: "topic", doc: "Base topic; several Certsitters on one broker need different ones.",
			into: func(m *MQTT) decoder { return textInto{&m.Topic} }, fallback: "certsitter",
			pattern: topicPattern, shape: "a to z and 0 to 9 only"},
		{key: "discovery_prefix", doc: "Where Home Assistant looks for devices.",
			into: func(m *MQTT) decoder { return textInto{&m.DiscoveryPrefix} }, fallback: "homeassistant",
			pattern: prefixPattern, shape: "a topic without + and #, with no slash at either end"},
		{key: "homie", doc: "Also publish the Homie 4 tree for openHAB.",
			into: func(m *MQTT) decoder { return flagInto{&m.Homie} }, fallback: false},
	}
}

func (c *Certificate) setMode(t string) error {
	mode, err := strconv.ParseUint(t, 8, 32)
	if err != nil || !octalPattern.MatchString(t) {
		return errors.New("needs three octal digits in quotes, like \"0600\"")
	}
	if mode&0o600 != 0o600 {
		return errors.New("leaves the owner unable to read and write the file: needs \"0600\" or more")
	}
	if mode&0o002 != 0 {
		return errors.New("would let everybody change the private key: the last digit must be 0, 1, 4 or 5")
	}
	c.KeyMode = fs.FileMode(mode)
	return nil
}

func (c *Certificate) addAction(t string) error {
	a, err := ParseAction(t)
	c.After = append(c.After, a) // a bad one as well: the places must fit
	return err
}

// parsePin takes a fingerprint as openssl, browsers and Certsitter print it.
func parsePin(t string) (string, error) {
	t = strings.ToLower(strings.TrimSpace(t))
	for _, lead := range []string{"sha256 fingerprint=", "sha256:", "sha-256:"} {
		t = strings.TrimPrefix(t, lead)
	}
	digits := strings.Map(func(r rune) rune {
		if r == ':' || r == ' ' {
			return -1
		}
		return r
	}, t)
	notHex := func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }
	switch {
	case strings.ContainsFunc(digits, notHex):
		return "", errors.New("is no SHA-256 fingerprint: needs 64 hex digits, colons between them are fine")
	case len(digits) == 40:
		return "", errors.New("is a SHA-1 fingerprint: needs the SHA-256 one of 64 hex digits")
	case len(digits) != 64:
		return "", errors.New("is no SHA-256 fingerprint: needs 64 hex digits, colons between them are fine")
	}
	return digits, nil
}

// closest is the word of known that s is most likely a misspelling of; empty
// if none is near.
func closest(s string, known []string) string {
	best, bestDistance := "", max(1, len(s)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(s), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance counts the letters to change, add, take away or swap with their
// neighbour (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
