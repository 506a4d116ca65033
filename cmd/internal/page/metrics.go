package page

import (
	"bytes"
	"cmp"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// metrics answers in the Prometheus text format, version 0.0.4.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(exposition(s.sitter.Snapshot(), s.config.Load().Version))
}

// family is one metric with its samples.
type family struct {
	name, help string
	samples    map[string]float64 // by rendered labels
	order      []string
}

// set adds a sample; labels are pairs of name and value. A second sample with
// the same labels is left out: the format forbids it.
func (f *family) set(value float64, labels ...string) {
	key := rendered(labels)
	if _, there := f.samples[key]; there {
		return
	}
	f.samples[key] = value
	f.order = append(f.order, key)
}

// at adds an instant in seconds. An unknown one is no sample: 0 would read as
// 1970, which every alert takes for an expired certificate.
func (f *family) at(t time.Time, labels ...string) {
	if t.Unix() > 0 { // the zero time is negative
		f.set(float64(t.Unix()), labels...)
	}
}

func (f *family) is(yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	f.set(value, labels...)
}

// rendered writes labels as the format wants them.
func rendered(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		b.WriteString(labels[i] + `="` + escape.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")) + `"`)
	}
	return b.String() + "}"
}

// families are all metrics, in the order of the output. All are gauges.
type families struct{ all []*family }

func (fs *families) new(name, help string) *family {
	f := &family{name: name, help: help, samples: map[string]float64{}}
	fs.all = append(fs.all, f)
	return f
}

func (fs *families) bytes() []byte {
	var b bytes.Buffer
	for _, f := range fs.all {
		if len(f.order) == 0 {
			continue
		}
		b.WriteString("# HELP " + f.name + " " + f.help + "\n# TYPE " + f.name + " gauge\n")
		for _, labels := range f.order {
			b.WriteString(f.name + labels + " " + strconv.FormatFloat(f.samples[labels], 'f', -1, 64) + "\n")
		}
	}
	return b.Bytes()
}

// exposition is what a snapshot says to Prometheus. Labels hold what the
// configuration calls things; what changes with each renewal is in *_info only.
func exposition(snap *sitter.Snapshot, version string) []byte {
	var fs families
	build := fs.new("certsitter_build_info", "The version of Certsitter; always 1.")
	if !ready(snap) {
		build.set(1, "version", version)
		return fs.bytes()
	}
	build.set(1, "version", cmp.Or(snap.Version, version))
	serviceMetrics(&fs, snap)
	certificateMetrics(&fs, snap.Certificates)
	endpointMetrics(&fs, snap.Certificates)
	knownDashboards(&fs, snap.Certificates)
	return fs.bytes()
}

func serviceMetrics(fs *families, snap *sitter.Snapshot) {
	fs.new("certsitter_certificates", "Certificates in the configuration, managed and watched.").set(float64(len(snap.Certificates)))
	fs.new("certsitter_last_check_timestamp_seconds", "When everything was looked at last.").at(snap.LastCheck)
	problem := fs.new("certsitter_service_problem", "A problem of Certsitter itself; 1 while it lasts.")
	for _, p := range snap.Problems {
		problem.set(1, "problem", p.Code)
	}
	if snap.MQTT.Configured {
		fs.new("certsitter_mqtt_connected", "Whether the MQTT broker is connected.").is(snap.MQTT.Connected)
	}
	dead := fs.new("certsitter_notification_dead", "Whether messages to this target are given up.")
	retrying := fs.new("certsitter_notification_retrying", "Whether messages to this target are delayed.")
	for _, t := range snap.Targets {
		dead.is(t.Status == "dead", "target", t.ID)
		retrying.is(t.Status == "retrying", "target", t.ID)
	}
}

func certificateMetrics(fs *families, all []sitter.Certificate) {
	notAfter := fs.new("certsitter_cert_not_after_timestamp_seconds", "The earliest end that counts, of what is installed and what is served.")
	notBefore := fs.new("certsitter_cert_not_before_timestamp_seconds", "When the certificate became valid.")
	severity := fs.new("certsitter_cert_severity", "0 ok, 1 notice, 2 warning, 3 critical, 4 expired, -1 unknown.")
	problem := fs.new("certsitter_cert_problem", "A problem of the certificate by its code; 1 while it lasts.")
	info := fs.new("certsitter_cert_info", "What the certificate says of itself; always 1.")
	deployed := fs.new("certsitter_cert_not_deployed", "Whether another certificate than the installed one was seen served.")
	next := fs.new("certsitter_renewal_next_timestamp_seconds", "When the next renewal is to be tried.")
	last := fs.new("certsitter_renewal_last_success_timestamp_seconds", "When the certificate was renewed last.")
	failures := fs.new("certsitter_renewal_failures", "Failed attempts in a row.")
	running := fs.new("certsitter_renewal_running", "Whether an attempt is under way.")
	for _, c := range all {
		cert := []string{"cert", c.Name}
		notAfter.at(c.NotAfter, "cert", c.Name, "source", c.Source)
		notBefore.at(c.NotBefore, "cert", c.Name, "source", c.Source)
		severity.set(float64(rank(c.Status)-1), cert...) // the contract's words in order, unknown before ok
		for _, p := range c.Problems {
			problem.set(1, "cert", c.Name, "problem", p.Code)
		}
		if c.Print != "" {
			info.set(1, "cert", c.Name, "subject_cn", c.Subject, "issuer_cn", c.Issuer, "key", c.KeyType, "fingerprint_sha256", c.Print)
		}
		deployed.is(c.NotDeployed, cert...)
		if c.Source != "managed" {
			continue
		}
		next.at(c.NextRenewal, cert...)
		last.at(c.LastRenewal, cert...)
		failures.set(float64(c.Failures), cert...)
		running.is(c.Renewing, cert...)
	}
}

// endpointMetrics leave out what has not been looked at yet: it is neither up
// nor down.
func endpointMetrics(fs *families, all []sitter.Certificate) {
	up := fs.new("certsitter_endpoint_up", "Whether the endpoint answered with a certificate at the last look.")
	drift := fs.new("certsitter_endpoint_drift", "Whether it serves an older one of ours (stale) or somebody else's (foreign).")
	notAfter := fs.new("certsitter_endpoint_not_after_timestamp_seconds", "The end of what was served last.")
	seen := fs.new("certsitter_endpoint_last_success_timestamp_seconds", "The last successful look.")
	for _, c := range all {
		for _, e := range c.Endpoints {
			labels := []string{"cert", c.Name, "endpoint", e.Address}
			if e.Verdict != "" {
				up.is(e.Verdict != "unreachable", labels...)
			}
			if e.Verdict != "" && e.Verdict != "unreachable" {
				for _, kind := range []string{"stale", "foreign"} {
					drift.is(e.Verdict == kind, append(slices.Clip(labels), "kind", kind)...)
				}
			}
			notAfter.at(e.NotAfter, labels...)
			seen.at(e.Seen, labels...)
		}
	}
}

// knownDashboards repeats the ends under the names and labels of
// x509-certificate-exporter (dashboard 13922 lists what has a filepath) and of
// blackbox_exporter (whose series are told apart by instance: scrape with
// honor_labels to keep it).
func knownDashboards(fs *families, all []sitter.Certificate) {
	notAfter := fs.new("x509_cert_not_after", "The same as certsitter_cert_not_after_timestamp_seconds, for dashboards of x509-certificate-exporter.")
	notBefore := fs.new("x509_cert_not_before", "The same as certsitter_cert_not_before_timestamp_seconds, for dashboards of x509-certificate-exporter.")
	probe := fs.new("probe_ssl_earliest_cert_expiry", "The end of what an endpoint served last, for dashboards of blackbox_exporter.")
	for _, c := range all {
		where := place(c)
		labels := []string{"cert", c.Name, "filename", filepath.Base(where), "filepath", where, "issuer_CN", c.Issuer, "subject_CN", c.Subject}
		notAfter.at(c.NotAfter, labels...)
		notBefore.at(c.NotBefore, labels...)
		for _, e := range c.Endpoints {
			probe.at(e.NotAfter, "cert", c.Name, "instance", e.Address)
		}
	}
}

// place is where a certificate is: a file or else a server.
func place(c sitter.Certificate) string {
	if len(c.Files) > 0 {
		return c.Files[0]
	}
	if len(c.Endpoints) > 0 {
		return c.Endpoints[0].Address
	}
	return c.Name
}
