package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/expiry"
)

// A row is one certificate as check and status show it.
type row struct {
	Name      string           `json:"name"`
	Status    string           `json:"status"` // ok notice warning critical expired unknown
	DaysLeft  *int             `json:"days_left"`
	NotAfter  time.Time        `json:"not_after,omitzero"`
	NotBefore time.Time        `json:"not_before,omitzero"`
	Subject   string           `json:"subject"`
	Issuer    string           `json:"issuer"`
	Names     []string         `json:"names"`
	Print     string           `json:"fingerprint"`
	KeyType   string           `json:"key_type"`
	Problems  []sitter.Problem `json:"problems"`
	Text      string           `json:"text"` // what is worth saying first; may be empty
}

func rowOf(c sitter.Certificate) row {
	r := row{
		Name: c.Name, Status: c.Status, DaysLeft: c.DaysLeft, NotAfter: c.NotAfter, NotBefore: c.NotBefore,
		Subject: c.Subject, Issuer: c.Issuer, Names: c.Names, Print: c.Print, KeyType: c.KeyType, Problems: c.Problems,
	}
	if len(c.Problems) > 0 {
		r.Text = c.Problems[0].Text
	}
	return r
}

func (r row) severity() expiry.Severity {
	var s expiry.Severity
	if err := s.UnmarshalText([]byte(r.Status)); err != nil {
		return expiry.Unknown
	}
	return s
}

// verdict prints the rows, soonest first, and ends with their exit code.
func (s shell) verdict(rows []row, asJSON bool) error {
	slices.SortStableFunc(rows, soonest)
	code := codeOf(rows)
	if asJSON {
		for i := range rows {
			rows[i].Problems = append([]sitter.Problem{}, rows[i].Problems...)
			rows[i].Names = append([]string{}, rows[i].Names...)
		}
		if err := writeJSON(s.out, rows); err != nil {
			return err
		}
	} else {
		s.table(rows)
	}
	if code == exitOK {
		return nil
	}
	return &exit{code: code}
}

// looks of the severities: a word that can be read without colours, and one of
// the eight colours that every terminal has.
var looks = map[expiry.Severity]struct{ word, colour string }{
	expiry.OK:       {"ok", "32"},
	expiry.Notice:   {"notice", "36"},
	expiry.Warning:  {"warning", "33"},
	expiry.Critical: {"critical", "31"},
	expiry.Expired:  {"expired", "1;31"},
	expiry.Unknown:  {"unknown", "35"},
}

// table prints rows for people: one line each, and the text of those with a
// problem below it.
func (s shell) table(rows []row) {
	colours := s.fancy(s.out)
	cells := [][]string{{"STATUS", "DAYS", "EXPIRES", "CERTIFICATE", "ISSUER"}}
	for _, r := range rows {
		days, expires := "-", "-"
		if r.DaysLeft != nil {
			days, expires = strconv.Itoa(*r.DaysLeft), r.NotAfter.Local().Format("2006-01-02 15:04")
		}
		cells = append(cells, []string{looks[r.severity()].word, days, expires, r.title(), dash(r.Issuer)})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, line := range cells {
		paint := func(text string) string { return text }
		if i > 0 && colours {
			paint = func(text string) string { return "\x1b[" + looks[rows[i-1].severity()].colour + "m" + text + "\x1b[0m" }
		}
		fmt.Fprintln(s.out, strings.TrimRight(fmt.Sprintf("%s  %s  %s  %s  %s",
			paint(pad(line[0], widths[0])), paint(lead(line[1], widths[1])), pad(line[2], widths[2]), pad(line[3], widths[3]), line[4]), " "))
		if i > 0 && rows[i-1].Text != "" {
			fmt.Fprintf(s.out, "%s%s\n", strings.Repeat(" ", widths[0]+2), rows[i-1].Text)
		}
	}
}

// title is where the certificate is and, if that does not say it, what it is for.
func (r row) title() string {
	if r.Subject == "" || strings.Contains(r.Name, r.Subject) {
		return r.Name
	}
	return r.Name + " (" + r.Subject + ")"
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", width-utf8.RuneCountInString(text))
}

func lead(text string, width int) string {
	return strings.Repeat(" ", width-utf8.RuneCountInString(text)) + text
}

// progress says on a terminal what takes longer than a second, until the
// function it returns is called.
func (s shell) progress(what string) (over func()) {
	if !terminal(s.err) {
		return func() {}
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() { defer close(gone); show(s.err, what, done) }()
	return func() { close(done); <-gone }
}

// show writes a line that counts seconds and takes it away at the end.
func show(w io.Writer, what string, done <-chan struct{}) {
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if time.Since(start) > time.Second {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			fmt.Fprintf(w, "\r%s … %d s", what, int(time.Since(start).Seconds()))
		}
	}
}
