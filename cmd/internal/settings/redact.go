package settings

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of a Redactor.
const (
	shortestSecret = 4        // shorter ones are in every second word
	shortestLine   = 8        // of a secret of several lines
	longestSecret  = 64 << 10 // a longer one is cut up to there
	maxSecrets     = 4096     // the oldest are forgotten first
	maxHeldBack    = 64 << 10 // of a line without an end
)

// veiled stands for a secret.
const veiled = "***"

// A Redactor cuts secrets out of text, whoever wrote it: as they are, escaped
// as in URLs, JSON, Go and HTML, and inside of base64. Secrets of fewer than
// four characters stay. It is safe for concurrent use; the zero Redactor cuts
// nothing.
type Redactor struct {
	mu      sync.Mutex // guards secrets and the change of forms
	secrets []string   // oldest first
	forms   atomic.Pointer[forms]
}

// NewRedactor cuts secrets.
func NewRedactor(secrets []string) *Redactor {
	r := &Redactor{}
	r.Add(secrets...)
	return r
}

// Add cuts these as well, from the next write on. Those that were known
// before stay, since words of the past may still be under way.
func (r *Redactor) Add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, s := range secrets {
		if s = s[:min(len(s), longestSecret)]; len(s) < shortestSecret || slices.Contains(r.secrets, s) {
			continue
		}
		r.secrets = append(r.secrets, s)
		changed = true
	}
	if !changed {
		return
	}
	if over := len(r.secrets) - maxSecrets; over > 0 {
		r.secrets = slices.Delete(r.secrets, 0, over)
	}
	r.forms.Store(formsOf(r.secrets))
}

// String is s without secrets.
func (r *Redactor) String(s string) string {
	f := r.forms.Load()
	if f == nil || s == "" {
		return s
	}
	out, _ := f.cut([]byte(s), true)
	return string(out)
}

// Writer cuts secrets out of what is written to w, line by line: the last
// line is held back until it ends, or until Close. A secret that reaches over
// several writes is found. Close does not close w.
func (r *Redactor) Writer(w io.Writer) io.WriteCloser { return &redactedWriter{redactor: r, to: w} }

type redactedWriter struct {
	redactor *Redactor
	to       io.Writer

	mu   sync.Mutex // guards held, and keeps lines whole
	held []byte     // the line that has not ended
}

// Write takes all of p; what is passed on may be shorter or longer.
func (w *redactedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	end := bytes.LastIndexByte(w.held, '\n') + 1
	if end > 0 {
		if err := w.pass(end, true); err != nil {
			return 0, err
		}
	}
	if len(w.held) > maxHeldBack {
		if err := w.pass(len(w.held), false); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Close passes on the line that has not ended.
func (w *redactedWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pass(len(w.held), true)
}

// pass writes the first n held bytes. Unless they are whole, those that may
// be the beginning of a secret stay.
func (w *redactedWriter) pass(n int, whole bool) error {
	out, rest := w.held[:n], n
	if f := w.redactor.forms.Load(); f != nil {
		out, rest = f.cut(w.held[:n], whole)
	}
	var err error
	if len(out) > 0 {
		_, err = w.to.Write(out)
	}
	w.held = append(w.held[:0], w.held[rest:]...) // written or lost, it does not pile up
	return err
}

// forms are all ways in which secrets are written, by their first four bytes,
// the longest first.
type forms struct {
	by      map[[shortestSecret]byte][]string
	first   [256]bool
	longest int
}

func formsOf(secrets []string) *forms {
	f := &forms{by: map[[shortestSecret]byte][]string{}}
	seen := map[string]bool{}
	for _, s := range secrets {
		for _, form := range spellings(s) {
			if len(form) < shortestSecret || seen[form] {
				continue
			}
			seen[form] = true
			start := [shortestSecret]byte([]byte(form[:shortestSecret]))
			f.by[start] = append(f.by[start], form)
			f.first[form[0]] = true
			f.longest = max(f.longest, len(form))
		}
	}
	for _, list := range f.by {
		slices.SortFunc(list, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	}
	return f
}

// cut gives data without secrets, and how much of data that stands for. If
// more will follow (not whole), it stops where a secret may have begun.
// Secrets that overlap are cut as one.
func (f *forms) cut(data []byte, whole bool) (out []byte, rest int) {
	out = make([]byte, 0, len(data))
	stop := len(data)
	if !whole {
		stop = max(0, len(data)-f.longest+1)
	}
	i := 0
	for i < stop {
		n := f.at(data[i:])
		if n == 0 {
			out = append(out, data[i])
			i++
			continue
		}
		end := i + n
		for j := i + 1; j < end; j++ {
			end = max(end, j+f.at(data[j:]))
		}
		out = append(out, veiled...)
		i = end
	}
	return out, i
}

// at is the length of the longest form that data begins with.
func (f *forms) at(data []byte) int {
	if len(data) < shortestSecret || !f.first[data[0]] {
		return 0
	}
	for _, form := range f.by[[shortestSecret]byte(data[:shortestSecret])] {
		if len(data) >= len(form) && string(data[:len(form)]) == form {
			return len(form)
		}
	}
	return 0
}

// spellings are the ways in which programs write s.
func spellings(s string) []string {
	out := escapings(s)
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		out = append(out, inBase64(s, encoding)...)
	}
	if !strings.Contains(s, "\n") {
		return out
	}
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); len(l) >= shortestLine {
			out = append(out, escapings(l)...)
		}
	}
	return out
}

func escapings(s string) []string {
	quoted := strconv.Quote(s)
	out := []string{s, url.QueryEscape(s), url.PathEscape(s), (&url.URL{Path: s}).EscapedPath(), url.UserPassword("", s).String()[1:],
		quoted[1 : len(quoted)-1], html.EscapeString(s)}
	out = append(out, jsonSpellings(s)...)
	for _, form := range out {
		if strings.Contains(form, "%") {
			out = append(out, lowerEscapes(form))
		}
	}
	return out
}

func jsonSpellings(s string) []string {
	var out []string
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(escapeHTML)
		_ = e.Encode(s) // a text always can
		text := strings.TrimSuffix(b.String(), "\n")
		out = append(out, text[1:len(text)-1])
	}
	return append(out, strings.ReplaceAll(out[len(out)-1], "/", `\/`))
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// inBase64 is what is seen of s in base64, however many bytes stand before it
// there: basic authentication puts the user first. Characters that depend on
// the neighbours are left out.
func inBase64(s string, encoding *base64.Encoding) []string {
	const shortest = 8 // shorter pieces come up by chance
	encoding = encoding.WithPadding(base64.NoPadding)
	out := []string{encoding.EncodeToString([]byte(s))}
	for before := range 3 {
		bits := (before + len(s)) * 8
		whole := encoding.EncodeToString(append(make([]byte, before), s...))
		from, to := (before*8+5)/6, bits/6
		if from < to && to-from >= shortest {
			out = append(out, whole[from:to])
		}
	}
	return out
}
