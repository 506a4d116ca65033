package act

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
)

const (
	// maxOutput bounds what is kept of an output in the end.
	maxOutput = 4 << 10
	// maxHeld bounds what is held of it until then: secrets are cut out before
	// it is made that short, so that none is cut in two and overlooked.
	maxHeld = 64 << 10
	// maxSecret: of an output that was longer than maxHeld so much is dropped at
	// its beginning, where half a secret may stand.
	maxSecret = 8 << 10
	// maxWords bounds what an error repeats.
	maxWords = 300
)

// A Failure is what a program of this machine ended with.
type Failure struct {
	Reason string // what happened, what it means, what to do
	Output string // the end of what the program said, redacted, at most 4 KiB; may be several lines
	Err    error  // context's cause if it was ended; else nil
}

// Error is the reason and the last lines of the output.
func (f *Failure) Error() string {
	words := lastWords(f.Output)
	if words == "" {
		return f.Reason
	}
	return f.Reason + ": " + words
}

func (f *Failure) Unwrap() error { return f.Err }

// lastWords are the last lines of an output in one.
func lastWords(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	lines = lines[max(0, len(lines)-3):]
	words := []rune(strings.Join(lines, " / "))
	if len(words) > maxWords {
		return "…" + string(words[len(words)-maxWords:])
	}
	return string(words)
}

// A tail holds the end of what is written to it.
type tail struct {
	held []byte
	more bool // there was more before it
}

func (t *tail) Write(p []byte) (int, error) {
	t.held = append(t.held, p...)
	if len(t.held) > 2*maxHeld {
		t.shorten()
	}
	return len(p), nil
}

func (t *tail) shorten() {
	if over := len(t.held) - maxHeld; over > 0 {
		t.held, t.more = append(t.held[:0], t.held[over:]...), true
	}
}

// readFrom takes all that there is until the end or an error, which a deadline is.
func (t *tail) readFrom(r io.Reader) { _, _ = io.Copy(t, r) }

var (
	colours     = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	privateKey  = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)
	halfAnother = regexp.MustCompile(`(?s)\A.*-----END [A-Z0-9 ]*PRIVATE KEY-----`)
)

// text is the output without secrets, private keys and control characters, not
// longer than maxOutput.
func (t *tail) text(secrets func(string) string) string {
	t.shorten()
	s := secrets(string(t.held))
	if t.more {
		s = s[min(len(s), maxSecret):]
	}
	s = privateKey.ReplaceAllString(s, "***")
	s = halfAnother.ReplaceAllString(s, "***")
	s = printable(colours.ReplaceAllString(s, ""))
	s = s[max(0, len(s)-maxOutput):]
	return strings.TrimSpace(strings.ToValidUTF8(s, ""))
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
}

// failed makes a Failure of an outcome.
func failed(o outcome, m Machine, format string, values ...any) *Failure {
	return &Failure{Reason: fmt.Sprintf(format, values...), Output: o.output.text(m.Secrets), Err: o.cut}
}
