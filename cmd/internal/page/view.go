package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// view is the page as data: everything that it shows, in the language and the
// zone of the reader, and nothing left to decide.
type view struct {
	Words        words
	Ready        bool   // there is a snapshot
	Refused      bool   // the configuration was refused
	Base         string // of all links; "" = where the page is
	Tone         string // the worst status, for the colour
	Verdict      string
	Checked      moment
	Next         moment
	NextName     string
	Said         string // what the last button did, without JavaScript
	MayAct       bool   // whether buttons would be listened to
	Problems     []problem
	Certificates []card
	Targets      []target
	MQTT         broker
	Downloads    []Download
	Version      string
}

// moment is an instant for people and for programs. Text is "" for the zero
// time.
type moment struct {
	Machine string // RFC 3339, UTC
	Text    string // server's zone; the page's script puts it into the browser's
}

type problem struct {
	Tone, Word   string
	Name, Anchor string // the certificate; Anchor "" = the service itself
	Text, Advice string
	Details      []string // one a line
}

type card struct {
	Name, Label         string
	More                int // further names
	Tone, Word          string
	Source              string
	Managed             bool
	Big, Unit           string // "41", "days left"; Big "" = unknown
	Life                int    // percent of the lifetime that is left
	LifeText            string
	End                 string // the word before Expires
	Expires, From       moment
	Issuer, Result      string
	Renewed, Next       moment
	Failures            string // a sentence; "" = none
	Deployment          string
	Asks                bool // for a restart of Home Assistant
	Restarting          bool // it is under way
	Renewing            bool
	Step                string
	Notices             []problem
	Served              []served
	Names               []name
	Files               []string
	Key, Print, Subject string
}

type served struct{ Address, Tone, Text string }

type name struct {
	Text  string
	Lacks bool // configured, but not in the certificate
}

type target struct {
	Name, Tone, Word, Error string
	Since                   moment
}

type broker struct{ Tone, Word, URL, Error string }

// reader is for whom a view is made.
type reader struct {
	now    time.Time
	zone   *time.Location
	base   string
	mayAct bool
	said   string // a key of words.Done
}

// look makes a view. The snapshot is only read.
func look(snap *sitter.Snapshot, w words, r reader) view {
	if !ready(snap) {
		return view{Words: w, Base: r.base, Tone: "unknown", Verdict: w.Starting}
	}
	v := view{
		Words:   w,
		Ready:   true,
		Refused: slices.ContainsFunc(snap.Problems, isRefusal),
		Base:    r.base,
		Tone:    tone(snap.Status),
		Checked: r.moment(snap.LastCheck),
		Next:    r.moment(snap.NextRenewal),
		Said:    w.Done[r.said],
		MayAct:  r.mayAct,
		MQTT:    brokerOf(snap.MQTT, w),
		Version: snap.Version,
	}
	for _, c := range soonestFirst(snap.Certificates) {
		card := cardOf(c, w, r)
		card.Asks = slices.ContainsFunc(snap.Asks, func(a sitter.Ask) bool { return a.ID == sitter.AskRestart(c.Name) })
		card.Restarting = card.Asks && snap.Restarting
		v.Certificates = append(v.Certificates, card)
		if v.NextName == "" && !c.NextRenewal.IsZero() && c.NextRenewal.Equal(snap.NextRenewal) {
			v.NextName = c.Label
		}
	}
	for _, t := range snap.Targets {
		v.Targets = append(v.Targets, target{Name: cmp.Or(t.Name, t.ID), Tone: targetTone(t.Status), Word: cmp.Or(w.Target[t.Status], t.Status), Error: t.LastError, Since: r.moment(t.Since)})
	}
	v.Problems = problemsOf(snap, w)
	if len(snap.Certificates) == 0 {
		v.Tone = "notice" // nothing is wrong, but something is to be done
	}
	for _, p := range v.Problems {
		if rank(p.Tone) > rank(v.Tone) {
			v.Tone = p.Tone
		}
	}
	v.Verdict = verdict(snap, w, rank(v.Tone) >= rank("warning"))
	return v
}

// verdict is the one sentence that a person in a hurry reads.
func verdict(snap *sitter.Snapshot, w words, trouble bool) string {
	all, wrong, unknown := len(snap.Certificates), 0, 0
	for _, c := range snap.Certificates {
		if needsAttention(c) {
			wrong++
		} else if tone(c.Status) == "unknown" {
			unknown++
		}
	}
	switch {
	case wrong > 0 && all == 1:
		return w.NeedOne
	case wrong == 1:
		return fmt.Sprintf(w.NeedSomeOne, all)
	case wrong > 1:
		return fmt.Sprintf(w.NeedSome, wrong, all)
	case all == 0 && slices.ContainsFunc(snap.Problems, isRefusal):
		return w.RefusedNone
	case all == 0:
		return w.None
	case unknown > 0:
		return w.Looking
	case trouble:
		return w.ServiceNeeds
	case all == 1:
		return w.AllFineOne
	}
	return fmt.Sprintf(w.AllFineMany, all)
}

func needsAttention(c sitter.Certificate) bool {
	return c.Problem || rank(c.Status) >= rank("warning")
}

// problemsOf collects what is shown on top: everything about the service, of a
// certificate what is more than a notice. Worst first.
func problemsOf(snap *sitter.Snapshot, w words) []problem {
	var found []problem
	for _, p := range snap.Problems {
		shown := problemOf(p, w, w.Itself, "")
		if isRefusal(p) { // in the reader's language, with every mistake in a line of its own
			shown.Text, shown.Advice, shown.Details = w.RefusedConf, w.RefusedAdvice, p.Details
			if len(snap.Certificates) > 0 {
				shown.Text += " " + w.RefusedOld
			}
		}
		found = append(found, shown)
	}
	for _, t := range snap.Targets {
		text := map[string]string{"dead": w.MessagesDead, "retrying": w.MessagesRetrying}[t.Status]
		if text != "" {
			found = append(found, problem{Tone: targetTone(t.Status), Word: w.Status[targetTone(t.Status)], Name: w.Messages, Text: fmt.Sprintf(text, cmp.Or(t.Name, t.ID), t.LastError), Advice: w.MessagesAdvice})
		}
	}
	for _, c := range soonestFirst(snap.Certificates) {
		for _, p := range c.Problems {
			if urgent(p, c) {
				found = append(found, problemOf(p, w, c.Label, anchor(c.Name)))
			}
		}
	}
	slices.SortStableFunc(found, func(a, b problem) int { return rank(b.Tone) - rank(a.Tone) })
	return found
}

// isRefusal: the configuration was refused, and its mistakes are known.
func isRefusal(p sitter.Problem) bool { return p.Code == "config" && len(p.Details) > 0 }

// urgent tells what is shown on top from what is shown at its certificate.
func urgent(p sitter.Problem, c sitter.Certificate) bool {
	return rank(p.Severity) >= rank("warning") || tone(p.Severity) == "unknown" && c.Problem
}

func problemOf(p sitter.Problem, w words, name, anchor string) problem {
	return problem{Tone: tone(p.Severity), Word: w.Status[tone(p.Severity)], Name: name, Anchor: anchor, Text: p.Text, Advice: p.Advice}
}

func cardOf(c sitter.Certificate, w words, r reader) card {
	v := card{
		Name:       c.Name,
		Label:      c.Label,
		More:       max(0, len(c.Domains)-1),
		Tone:       tone(c.Status),
		Word:       w.Status[tone(c.Status)],
		Source:     w.Source[c.Source],
		Managed:    c.Source == "managed",
		End:        w.Expires,
		Expires:    r.moment(c.NotAfter),
		From:       r.moment(c.NotBefore),
		Issuer:     c.Issuer,
		Result:     c.LastResult,
		Renewed:    r.moment(c.LastRenewal),
		Next:       r.moment(c.NextRenewal),
		Deployment: c.Deployment,
		Renewing:   c.Renewing,
		Step:       c.Step,
		Names:      namesOf(c),
		Files:      c.Files,
		Key:        c.KeyType,
		Print:      grouped(c.Print),
		Subject:    c.Subject,
	}
	if c.Failures > 0 {
		v.Failures = fmt.Sprintf(w.Failures, c.Failures)
	}
	v.Big, v.Unit = span(c, w, r.now)
	if life := c.NotAfter.Sub(c.NotBefore); !c.NotBefore.IsZero() && life > 0 {
		v.Life = int(math.Round(100 * min(1, max(0, float64(c.NotAfter.Sub(r.now))/float64(life)))))
		v.LifeText = fmt.Sprintf(w.LifeLeft, v.Life)
	}
	if !c.NotAfter.IsZero() && !r.now.Before(c.NotAfter) {
		v.End = w.Expired
	}
	for _, p := range c.Problems {
		if !urgent(p, c) {
			v.Notices = append(v.Notices, problemOf(p, w, "", ""))
		}
	}
	for _, e := range c.Endpoints {
		v.Served = append(v.Served, served{Address: e.Address, Tone: endpointTone(e.Verdict), Text: sentence(cmp.Or(w.Verdict[e.Verdict], e.Verdict), e.Error)})
	}
	return v
}

// span is how long a certificate has, in the largest unit that says something.
// Days are the snapshot's, so that page, MQTT and API show the same number.
func span(c sitter.Certificate, w words, now time.Time) (number, unit string) {
	if c.NotAfter.IsZero() || c.DaysLeft == nil {
		return "", w.NoDate
	}
	left, day, days, hours, minutes := c.NotAfter.Sub(now), w.DayLeft, w.DaysLeft, w.HoursLeft, w.MinutesLeft
	whole := *c.DaysLeft
	if left <= 0 {
		left, day, days, hours, minutes = -left, w.DayOver, w.DaysOver, w.HoursOver, w.MinutesOver
		whole = -whole - 1 // the floor of a negative number: -1 is less than a day ago
	}
	switch {
	case whole == 1:
		return "1", day
	case whole > 1:
		return strconv.Itoa(whole), days
	case left >= time.Hour:
		return strconv.Itoa(int(left.Hours())), hours
	}
	return strconv.Itoa(int(left.Minutes())), minutes
}

// namesOf lists the configured names, and those of the certificate that are
// not among them.
func namesOf(c sitter.Certificate) []name {
	var names []name
	for _, d := range c.Domains {
		names = append(names, name{Text: d, Lacks: len(c.Names) > 0 && !slices.ContainsFunc(c.Names, func(n string) bool { return strings.EqualFold(n, d) || covers(strings.ToLower(n), strings.ToLower(d)) })})
	}
	for _, n := range c.Names {
		if !slices.ContainsFunc(c.Domains, func(d string) bool { return strings.EqualFold(n, d) }) {
			names = append(names, name{Text: n})
		}
	}
	return names
}

// soonestFirst orders by the end; a certificate without a date comes first
// where that is a problem and last where it is not.
func soonestFirst(all []sitter.Certificate) []sitter.Certificate {
	at := func(c sitter.Certificate) int {
		switch {
		case !c.NotAfter.IsZero():
			return 1
		case needsAttention(c):
			return 0
		}
		return 2
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b sitter.Certificate) int {
		return cmp.Or(cmp.Compare(at(a), at(b)), a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Label, b.Label))
	})
}

func brokerOf(m sitter.MQTT, w words) broker {
	switch {
	case !m.Configured:
		return broker{Tone: "notice", Word: w.BrokerOff}
	case m.Connected:
		return broker{Tone: "ok", Word: w.BrokerOn, URL: m.Broker}
	}
	return broker{Tone: "warning", Word: w.BrokerLost, URL: m.Broker, Error: m.Error}
}

// statuses are the contract's words, from good to bad; what is none of them is
// unknown.
var statuses = []string{"unknown", "ok", "notice", "warning", "critical", "expired"}

func rank(status string) int { return slices.Index(statuses, tone(status)) }

func tone(status string) string {
	if slices.Contains(statuses, status) {
		return status
	}
	return "unknown"
}

func targetTone(status string) string {
	switch status {
	case "ok":
		return "ok"
	case "retrying":
		return "notice"
	case "dead":
		return "warning"
	}
	return "unknown"
}

func endpointTone(verdict string) string {
	switch verdict {
	case "same":
		return "ok"
	case "stale":
		return "warning"
	case "foreign", "unreachable":
		return "notice"
	}
	return "unknown"
}

func (r reader) moment(t time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	return moment{Machine: t.UTC().Format(time.RFC3339), Text: t.In(r.zone).Format("2006-01-02 15:04 MST")}
}

func sentence(text, detail string) string {
	if detail == "" {
		return text
	}
	return text + ": " + detail
}

// grouped breaks a fingerprint into pairs, as browsers show it.
func grouped(print string) string {
	var b strings.Builder
	for i := 0; i < len(print); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strings.ToUpper(print[i:min(i+2, len(print))]))
	}
	return b.String()
}

func anchor(name string) string { return "cert-" + name }
