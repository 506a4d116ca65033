package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

const (
	// maxLine is far above any certificate chain and any request.
	maxLine = 1 << 20
	// maxTalk bounds everything that one side says in one conversation.
	maxTalk = 4 << 20
)

var (
	errLongLine = fmt.Errorf("a line is longer than %d bytes", maxLine)
	errLongTalk = fmt.Errorf("more than %d bytes were said", maxTalk)
)

// A message is one line of the child. Exactly one of its parts is there.
type message struct {
	ID       int               `json:"id,omitempty"` // of an event that waits for an acknowledgement
	Refused  *refusal          `json:"refused,omitempty"`
	Progress *renew.Progress   `json:"progress,omitempty"`
	Account  string            `json:"account,omitempty"` // URL
	Placed   string            `json:"placed,omitempty"`  // URL of the order
	Present  []renew.Challenge `json:"present,omitempty"`
	Result   *result           `json:"result,omitempty"`
}

// refusal is the child's answer to a command line that is not for it.
type refusal struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	Reason   string `json:"reason"`
}

// result ends the conversation. Exactly one of its parts is there.
type result struct {
	Issued *renew.Issued `json:"issued,omitempty"`
	Done   bool          `json:"done,omitempty"` // revoked or delivered
	Fault  *renew.Fault  `json:"fault,omitempty"`
	// Stopped says why the job was cut off, which is no failure.
	Stopped string `json:"stopped,omitempty"`
	// Undelivered is to a message what a fault is to an order.
	Undelivered *notify.Undelivered `json:"undelivered,omitempty"`
}

// acknowledgement is the parent's answer to an event with an ID.
type acknowledgement struct {
	ID    int    `json:"id"`
	Error string `json:"error,omitempty"` // empty = go on
}

// check says why m is not a message of this protocol.
func (m *message) check() error {
	waits := count(m.Account != "", m.Placed != "", len(m.Present) > 0)
	switch parts := waits + count(m.Refused != nil, m.Progress != nil, m.Result != nil); {
	case parts != 1:
		return fmt.Errorf("a message has %d parts, not one", parts)
	case (waits == 1) != (m.ID > 0):
		return errors.New("a message has an id and nobody waits, or the other way round")
	case m.Result != nil:
		return m.Result.check()
	}
	return nil
}

func (r *result) check() error {
	if n := count(r.Issued != nil, r.Done, r.Fault != nil, r.Undelivered != nil, r.Stopped != ""); n != 1 {
		return fmt.Errorf("the result has %d parts, not one", n)
	}
	if r.Issued != nil && len(r.Issued.Chain) == 0 {
		return errors.New("the result has no chain")
	}
	return nil
}

func count(conditions ...bool) (n int) {
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

// readMessage returns the child's next message; io.EOF after the last one.
func readMessage(l *lines) (message, error) {
	var m message
	line, err := l.next()
	if err != nil {
		return m, err
	}
	if err := decode(line, &m); err != nil {
		return m, err
	}
	return m, m.check()
}

// readAcknowledgement returns the parent's next word; io.EOF after the last one.
func readAcknowledgement(l *lines) (acknowledgement, error) {
	var a acknowledgement
	line, err := l.next()
	if err != nil {
		return a, err
	}
	if err := decode(line, &a); err != nil {
		return a, err
	}
	if a.ID <= 0 {
		return a, errors.New("an acknowledgement has no id")
	}
	return a, nil
}

// lines cuts a stream into lines, none longer than maxLine, all together not
// longer than maxTalk.
type lines struct {
	r    *bufio.Reader
	said int
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReader(r)} }

// next returns the next line without its end. A stream that ends within a line
// gives io.ErrUnexpectedEOF: half a message is none.
func (l *lines) next() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		l.said += len(part)
		switch {
		case len(line) > maxLine:
			return nil, errLongLine
		case l.said > maxTalk:
			return nil, errLongTalk
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// decode reads exactly one JSON value without unknown fields.
func decode(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("an empty line")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value in a line")
	}
	return nil
}

// lineWriter writes one JSON value a line, for several goroutines.
type lineWriter struct {
	mu sync.Mutex // guards w: lines do not mix
	w  io.Writer
}

func (l *lineWriter) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxLine {
		return errLongLine
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.w.Write(append(b, '\n'))
	return err
}
