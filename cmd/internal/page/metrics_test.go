package page

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// series parses the text format as strictly as its description is: HELP, TYPE,
// samples, each metric in one piece, no sample twice.
func series(t *testing.T, text []byte) map[string]float64 {
	t.Helper()
	var (
		found  = map[string]float64{}
		seen   = map[string]bool{}
		metric string
		typed  bool
		help   = regexp.MustCompile(`^# HELP ([a-z][a-z0-9_]*) ([^\\\n]+)$`)
		kind   = regexp.MustCompile(`^# TYPE ([a-z][a-z0-9_]*) gauge$`)
		sample = regexp.MustCompile(`^([a-z][a-z0-9_]*)(\{.*\})? (-?[0-9]+)$`)
		labels = regexp.MustCompile(`^\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*")*\}$`)
	)
	if !bytes.HasSuffix(text, []byte("\n")) {
		t.Error("the last line has no end")
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if m := help.FindStringSubmatch(line); m != nil {
			if seen[m[1]] {
				t.Errorf("line %d: %s is in two pieces", i+1, m[1])
			}
			metric, typed, seen[m[1]] = m[1], false, true
			continue
		}
		if m := kind.FindStringSubmatch(line); m != nil && m[1] == metric && !typed {
			typed = true
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil || m[1] != metric || !typed || m[2] != "" && !labels.MatchString(m[2]) {
			t.Errorf("line %d is not of the format: %s", i+1, line)
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		if _, twice := found[m[1]+m[2]]; twice {
			t.Errorf("line %d: %s%s is there twice", i+1, m[1], m[2])
		}
		if strings.Contains(m[1], "timestamp") || strings.HasPrefix(m[1], "x509_") || strings.HasPrefix(m[1], "probe_") {
			if value <= 0 {
				t.Errorf("line %d: an unknown instant is written as %v", i+1, value)
			}
		}
		found[m[1]+m[2]] = value
	}
	return found
}

func TestMetrics(t *testing.T) {
	got := series(t, exposition(sample(), "ignored"))
	home := float64(noon.Add(41*24*time.Hour + 5*time.Hour).Unix())
	for name, want := range map[string]float64{
		`certsitter_build_info{version="0.3.0"}`:                                                  1,
		`certsitter_certificates`:                                                                 5,
		`certsitter_cert_not_after_timestamp_seconds{cert="home",source="managed"}`:               home,
		`certsitter_cert_severity{cert="home"}`:                                                   0,
		`certsitter_cert_severity{cert="mail"}`:                                                   1,
		`certsitter_cert_severity{cert="cloud"}`:                                                  2,
		`certsitter_cert_severity{cert="nas"}`:                                                    3,
		`certsitter_cert_severity{cert="printer"}`:                                                -1,
		`certsitter_cert_problem{cert="cloud",problem="renewal_failed"}`:                          1,
		`certsitter_cert_not_deployed{cert="cloud"}`:                                              1,
		`certsitter_renewal_failures{cert="cloud"}`:                                               3,
		`certsitter_renewal_next_timestamp_seconds{cert="cloud"}`:                                 float64(noon.Add(4 * time.Hour).Unix()),
		`certsitter_endpoint_up{cert="printer",endpoint="printer.lan:443"}`:                       0,
		`certsitter_endpoint_drift{cert="cloud",endpoint="cloud.example.org:443",kind="stale"}`:   1,
		`certsitter_endpoint_drift{cert="cloud",endpoint="cloud.example.org:443",kind="foreign"}`: 0,
		`certsitter_notification_dead{target="telegram_99aa00"}`:                                  1,
		`certsitter_notification_dead{target="ntfy_1a2b3c"}`:                                      0,
		`certsitter_mqtt_connected`:                                                               1,
		`probe_ssl_earliest_cert_expiry{cert="home",instance="home.example.org:443"}`:             float64(noon.Add(41 * 24 * time.Hour).Unix()),
		`x509_cert_not_after{cert="home",filename="fullchain.pem",filepath="/ssl/fullchain.pem",issuer_CN="R12",subject_CN="home.example.org"}`:   home,
		`x509_cert_not_after{cert="nas",filename="nas.local:5001",filepath="nas.local:5001",issuer_CN="Synology Inc. CA",subject_CN="nas.local"}`: float64(noon.Add(3*24*time.Hour + time.Hour).Unix()),
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, there, want)
		}
	}
	for _, unknown := range []string{"printer"} {
		for name := range maps.Keys(got) {
			if strings.Contains(name, `cert="`+unknown+`"`) && (strings.Contains(name, "not_after") || strings.Contains(name, "drift") || strings.Contains(name, "renewal")) {
				t.Errorf("%s says something that nobody knows", name)
			}
		}
	}
}

func TestMetricsOfHostileText(t *testing.T) {
	snap := hostile()
	snap.Certificates[1].Subject = "\xff\xfe invalid UTF-8"
	snap.Certificates[2] = snap.Certificates[1] // the same name twice: no sample twice
	text := exposition(snap, "x")
	if got := series(t, text); len(got) == 0 {
		t.Error("no sample")
	}
	if bytes.ContainsRune(text, 0xFFFD) == false || !bytes.Equal(text, bytes.ToValidUTF8(text, nil)) {
		t.Error("invalid UTF-8 got through")
	}
}

func TestMetricsOfNothing(t *testing.T) {
	got := series(t, exposition(&sitter.Snapshot{Time: noon}, "0.3.0"))
	if names := slices.Sorted(maps.Keys(got)); fmt.Sprint(names) != `[certsitter_build_info{version="0.3.0"} certsitter_certificates]` {
		t.Errorf("an empty configuration gives %v", names)
	}
}

func FuzzLabels(f *testing.F) {
	f.Add("home", "a\"b\\c\nd", "\xff")
	f.Add("", "}", "{")
	f.Fuzz(func(t *testing.T, cert, text, address string) {
		c := sitter.Certificate{Name: cert, Subject: text, Issuer: text, Source: text, Print: text, NotAfter: noon,
			Problems: []sitter.Problem{{Code: text}, {Code: address}}, Endpoints: []sitter.Endpoint{{Address: address, Verdict: "same", NotAfter: noon}}}
		series(t, exposition(&sitter.Snapshot{Time: noon, Version: text, Certificates: []sitter.Certificate{c, c}}, ""))
	})
}
