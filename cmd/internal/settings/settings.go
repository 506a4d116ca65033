// Package settings is the configuration: one schema for the YAML file and for
// Home Assistant's options.json, every mistake at once with its line, and the
// secrets that must not leave. Load gives either settings that hold together or
// a Refusal, never half of them.
//
// It reads the configuration file and the files that it names; it never
// writes, never opens a connection and never asks the time.
package settings

import (
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/certsitter/certsitter/renew"
)

// Settings are the whole configuration, checked and resolved: paths are
// absolute, defaults are filled in, times of day are in Location. They are
// not changed after Load and may be shared.
type Settings struct {
	File     string         // the file they were read from, as it was named
	Location *time.Location // zone of all times of day
	// StandIn: the configuration was refused, and these settings, which are empty,
	// stand in for it. What they do not name is not to be put aside, emptied or
	// swept: nobody has removed it.
	StandIn bool

	CA      string // letsencrypt, letsencrypt-staging or a directory URL
	CARoots string // path of a PEM file; empty = the system's roots
	Email   string
	EABKid  string
	EABHMAC string

	Schedule      Schedule // zero = as soon as due
	RestartWindow Window   // zero = at any time
	WarnDays      int      // for a lifetime of 90 days
	CriticalDays  int
	HTTPPort      int
	TLSPort       int
	Resolvers     []string // host:port, as configured; the resolved ones are each certificate's

	Certificates []Certificate
	Watch        []Watch

	Notify              []string // shoutrrr URLs
	NotifyHomeAssistant bool
	NotifyServices      []string // without "notify."
	HomeAssistantURL    string   // without a slash at its end
	HomeAssistantToken  string
	HeartbeatURL        string
	QuietHours          Window // zero = off
	RepeatHours         int
	Language            string // en | de

	MQTT MQTT

	StateDir     string
	SSLDir       string // empty = each certificate has a folder of its own below StateDir/live
	Listen       string // host:port
	PagePassword string
	LogLevel     string // trace | debug | info | warn | error
	LogFormat    string // auto | text | json
}

// Certificate is one that Certsitter renews.
type Certificate struct {
	Name    string
	Domains []string // lower case; DNS names, wildcards, IP addresses

	// The CA, resolved from this certificate's own keys and the general ones.
	CA               string
	Directory        string // URL
	Staging          bool   // Directory is a public CA's staging environment
	StagingDirectory string // where a dry run goes: the CA's staging, a private CA itself; empty = there is none
	Private          bool   // the CA has roots of its own
	CARoots          string // path
	Roots            []byte // what CARoots holds, PEM; nil = the system's
	Email            string
	EABKid           string
	EABHMAC          string

	Challenge string            // http-01 | dns-01 | tls-alpn-01
	Provider  string            // lego's code, with dns-01
	Env       map[string]string // the provider's variables; those named X_FILE are read and stand as X
	Resolvers []string          // host:port; empty = the system's
	Webroot   string            // absolute; empty = answered on HTTPPort

	KeyType         string
	ReuseKey        bool
	Profile         string
	PreferredChain  string
	RenewBeforeDays int // 0 = the CA's advice, else a third of the lifetime

	// The files, absolute; empty = not wanted. CertFile and KeyFile are never
	// empty, and equal if one combined file is wanted.
	CertFile         string
	KeyFile          string
	LeafFile         string
	ChainFile        string
	CombinedFile     string
	PKCS12           string
	PKCS12Password   string
	Keystore         string
	KeystorePassword string
	KeyMode          fs.FileMode // for new files
	Owner            string
	Group            string
	// OwnFolder is the folder below StateDir/live that relative paths are in
	// and that is ours to make; empty if the user named ssl_dir.
	OwnFolder string

	After     []Action
	Endpoints []string // [name@]host:port, or a URL that the probe knows

	env []string // as it is written
}

// Label is what people call the certificate: its first domain that is no
// wildcard, else what the first wildcard is under.
func (c *Certificate) Label() string {
	for _, d := range c.Domains {
		if !strings.HasPrefix(d, "*.") {
			return d
		}
	}
	if len(c.Domains) == 0 {
		return c.Name
	}
	return strings.TrimPrefix(c.Domains[0], "*.")
}

// ServerName is the name that its endpoints are asked for unless they say
// otherwise: the first domain that is no wildcard; empty if there is none.
func (c *Certificate) ServerName() string {
	for _, d := range c.Domains {
		if !strings.HasPrefix(d, "*.") {
			return d
		}
	}
	return ""
}

// Watch is a certificate that somebody else renews.
type Watch struct {
	Name         string
	Source       string // host:port, a URL, an absolute path or glob
	File         bool   // Source is a path or a glob
	ServerName   string
	CARoots      string
	Roots        []byte // what CARoots holds, PEM
	Pin          string // SHA-256, 64 lower-case hex digits
	Password     string
	WarnDays     int
	CriticalDays int
}

// MQTT is the way to the broker.
type MQTT struct {
	Broker          string // URL with a port; empty = none, or the Supervisor's
	Supervisor      bool   // Broker, Username and Password are to be asked of the Supervisor
	Username        string
	Password        string
	CAFile          string
	ClientCert      string
	ClientKey       string
	CA              []byte // what CAFile holds, PEM
	ClientCertPEM   []byte
	ClientKeyPEM    []byte
	Topic           string
	DiscoveryPrefix string
	Homie           bool
}

// Environment is what the settings depend on beside their file. Functions
// that are nil are those of package os.
type Environment struct {
	App   bool // we are a Home Assistant app
	Image bool // we run in our own container image
	User  int  // the daemon's effective user id
	// Root is the folder that stands for / where /data, /ssl and /config are meant,
	// so that the app and the image can be run outside of a container; "" = /.
	Root string

	Getenv   func(string) string
	ReadFile func(string) ([]byte, error)
	Stat     func(string) (fs.FileInfo, error)

	Providers ProviderTable // nil = codes and variables are not checked
}

// A ProviderTable knows the DNS providers that the worker has.
type ProviderTable interface {
	Known(code string) bool
	Closest(code string) []string  // codes that may have been meant, best first
	Required(code string) []string // variables without which the provider certainly fails
}

// defaultFor names what is used where the file says nothing and the place
// where we run decides.
type defaultFor struct{ stateDir, sslDir, listen, challenge string }

func (e Environment) defaults() defaultFor {
	d := defaultFor{stateDir: "/var/lib/certsitter", listen: "127.0.0.1:8099", challenge: renew.HTTP01}
	if e.App || e.Image {
		d.stateDir, d.sslDir, d.listen = e.inside("data"), e.inside("ssl"), ":8099"
	}
	if e.App {
		d.challenge = "" // the form asks for it: port 80 is off unless somebody turned it on
	}
	return d
}

// inside is a path of the container.
func (e Environment) inside(path string) string { return filepath.Join("/", e.Root, path) }

// StateDir is the state folder of a configuration that names none. As an app
// none can.
func (e Environment) StateDir() string { return e.defaults().stateDir }

// Find says which configuration file is used: the one that was named by
// --config, else the first of the usual places where there is one.
func Find(flag string, e Environment) string {
	e = e.complete()
	if flag != "" {
		return flag
	}
	if e.App {
		return e.inside("data/options.json")
	}
	places := []string{"certsitter.yaml"}
	if e.Image {
		places = append(places, e.inside("config/certsitter.yaml"))
	}
	places = append(places, "/etc/certsitter/certsitter.yaml")
	for _, p := range places {
		if _, err := e.Stat(p); err == nil {
			return p
		}
	}
	return places[1] // where it should be made
}

// absolute is path below folder unless it is absolute already; empty stays
// empty.
func absolute(folder, path string) string {
	if path == "" {
		return ""
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(folder, path)
}
