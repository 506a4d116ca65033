package sitter

import "time"

// A Snapshot is everything that the outside may see at one moment. It is
// immutable: the loop makes a new one after each change. Page, API, metrics,
// MQTT and the command line are made of it and of nothing else.
type Snapshot struct {
	Version      string        `json:"version"`
	Installation string        `json:"installation"` // random id, kept in the state folder
	Time         time.Time     `json:"time"`         // when it was made
	Status       string        `json:"status"`       // the worst of all certificates: ok notice warning critical expired unknown
	Certificates []Certificate `json:"certificates"` // in the order of the configuration, managed first
	Targets      []Target      `json:"targets"`
	Problems     []Problem     `json:"problems"`                           // of the service itself: configuration, state, broker, clock
	Asks         []Ask         `json:"asks"`                               // what a person is asked to do, in the order of the certificates
	Restarting   bool          `json:"restarting_homeassistant,omitempty"` // a restart of ours is under way
	MQTT         MQTT          `json:"mqtt"`
	LowestDays   *int          `json:"lowest_days_left"` // null = nothing known
	NextExpiry   time.Time     `json:"next_expiry,omitzero"`
	LastCheck    time.Time     `json:"last_check,omitzero"`
	NextRenewal  time.Time     `json:"next_renewal,omitzero"`
	Language     string        `json:"language"` // en | de
}

// Certificate is one certificate, managed or watched.
type Certificate struct {
	Name      string     `json:"name"`
	Label     string     `json:"label"`             // first domain that is no wildcard; watched: its name
	Source    string     `json:"source"`            // managed | file | endpoint
	Domains   []string   `json:"domains,omitempty"` // configured names of a managed one
	Status    string     `json:"status"`            // ok notice warning critical expired unknown
	Problem   bool       `json:"problem"`
	Problems  []Problem  `json:"problems"`  // what is wrong, worst first
	DaysLeft  *int       `json:"days_left"` // floor; null = unknown
	NotBefore time.Time  `json:"not_before,omitzero"`
	NotAfter  time.Time  `json:"not_after,omitzero"` // the earliest that counts
	Subject   string     `json:"subject"`
	Issuer    string     `json:"issuer"`
	Names     []string   `json:"names,omitempty"` // in the certificate
	Print     string     `json:"fingerprint"`     // SHA-256, lower-case hex
	KeyType   string     `json:"key_type"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Files     []string   `json:"files,omitempty"` // where it is installed, or what is watched

	LastResult  string    `json:"last_result"` // one sentence, at most 200 characters
	LastRenewal time.Time `json:"last_renewal,omitzero"`
	NextRenewal time.Time `json:"next_renewal,omitzero"` // when the next attempt is to be made
	Failures    int       `json:"failures"`              // attempts in a row
	NotDeployed bool      `json:"not_deployed"`
	Deployment  string    `json:"deployment,omitempty"` // empty = done; else what it waits for, one sentence
	Renewing    bool      `json:"renewing"`             // an attempt is under way
	Step        string    `json:"step,omitempty"`       // what it is doing, one sentence
}

// Endpoint is a place where a certificate is served.
type Endpoint struct {
	Address  string    `json:"address"`            // as configured
	Print    string    `json:"fingerprint"`        // of what was served last
	NotAfter time.Time `json:"not_after,omitzero"` // of what was served last
	Verdict  string    `json:"verdict"`            // same | stale | foreign | unreachable | "" (not looked at yet)
	Error    string    `json:"error,omitempty"`    // why it could not be looked at
	Seen     time.Time `json:"seen,omitzero"`      // last successful look
}

// Problem is one finding.
type Problem struct {
	Code     string `json:"code"`     // stable, for programs: "renewal_failed", "stale", "config"…
	Severity string `json:"severity"` // notice warning critical expired unknown
	Text     string `json:"text"`     // what happened and what it means
	Advice   string `json:"advice"`   // what to do
	// Details are what Text sums up, one a line: the mistakes of a refused
	// configuration. Empty = Text says it all.
	Details []string `json:"details,omitempty"`
}

// An Ask is something that a person is asked to do in Home Assistant itself,
// without calling anybody. It goes away by itself once it is done.
type Ask struct {
	ID    string `json:"id"`    // stable: AskConfiguration, or what AskRestart gives
	Title string `json:"title"` // in the configured language, like Text
	Text  string `json:"text"`  // plain words, several lines; the same while nothing changes
}

// AskConfiguration is the id of the ask to correct a configuration that was
// refused.
const AskConfiguration = "certsitter_configuration"

// AskRestart is the id of the ask to restart Home Assistant so that it takes the
// new certificate of that name.
func AskRestart(name string) string { return "certsitter_" + name + "_restart" }

// Target is a place where messages go.
type Target struct {
	ID        string    `json:"id"`     // <scheme>_<6 hex of the URL's SHA-256>
	Name      string    `json:"name"`   // for people
	Status    string    `json:"status"` // ok | retrying | dead
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"` // redacted
}

// MQTT is how the broker is.
type MQTT struct {
	Configured bool   `json:"configured"`
	Connected  bool   `json:"connected"`
	Broker     string `json:"broker,omitempty"` // URL without user and password
	Error      string `json:"error,omitempty"`
}

// An Event is something that happened, for those who look on: the log, the
// page's stream, `certsitter renew` and the demo.
type Event struct {
	Time time.Time `json:"time"`
	Name string    `json:"name,omitempty"` // certificate; empty = the service
	// Kind is "progress" (a step of a renewal), "started", one of the contract's
	// event types (renewed, renewal_failed, deployed, deploy_failed, warning,
	// critical, expired, resolved), "waiting" (a deployment waits for its window),
	// "restart" (a step of a restart of Home Assistant by hand),
	// "refused", "checked", "message" or "state"
	// (something of the snapshot changed).
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Refused says that a command was understood and is not carried out now.
type Refused struct {
	Code     string    // unknown, too_soon, retry_after, hourly_cap, issuances, busy, clock, staging, not_managed, no_homeassistant
	Sentence string    // with the reason and, where there is one, until when
	Until    time.Time // zero = no instant
}

func (r *Refused) Error() string { return r.Sentence }

// RenewOptions says how a renewal by hand is meant.
type RenewOptions struct {
	Force   bool `json:"force"`   // even if it is not due
	Staging bool `json:"staging"` // at the CA's staging environment; files in use stay
	DryRun  bool `json:"dry_run"` // likewise, and nothing is kept
}

// Delivery is how one test message went.
type Delivery struct {
	Target string `json:"target"`
	Error  string `json:"error,omitempty"` // empty = delivered
}
