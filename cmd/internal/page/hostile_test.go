package page

import (
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// attack breaks out of text, of attributes in both quotes, of comments and of
// scripts, for those who let it.
const attack = `"'></title></script><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><iframe srcdoc='<script>parent.pwned=1</script>'>{{.Words}}javascript:window.pwned=1` + "\u202e\x00\n-->"

// hostile is a snapshot in which everything that comes from elsewhere attacks.
func hostile() *sitter.Snapshot {
	s := sample()
	for i := range s.Certificates {
		c := &s.Certificates[i]
		c.Label, c.Subject, c.Issuer, c.KeyType, c.Print = attack, attack, attack, attack, attack
		c.Names, c.Domains, c.Files = []string{attack}, []string{attack}, []string{attack}
		c.LastResult, c.Step, c.Deployment, c.Status, c.Source = attack, attack, attack, attack, attack
		c.Problems = []sitter.Problem{{Code: attack, Severity: "warning", Text: attack, Advice: attack}, {Code: attack, Severity: attack, Text: attack, Advice: attack}}
		c.Endpoints = []sitter.Endpoint{{Address: attack, Verdict: attack, Error: attack, Seen: noon, NotAfter: noon}}
	}
	s.Certificates[0].Name = strings.ReplaceAll(attack, "\x00", "") // names are the configuration's, but nothing here relies on it
	s.Certificates[0].NotAfter = noon.Add(-time.Hour)
	s.Targets = []sitter.Target{{ID: attack, Status: "dead", LastError: attack}}
	s.Problems = []sitter.Problem{{Code: attack, Severity: "critical", Text: attack, Advice: attack}, {Code: "config", Severity: "warning", Details: []string{attack, attack}}}
	s.Asks = []sitter.Ask{{ID: sitter.AskRestart(s.Certificates[0].Name), Title: attack, Text: attack}}
	s.MQTT = sitter.MQTT{Configured: true, Broker: attack, Error: attack}
	s.Version, s.Status = attack, attack
	return s
}
