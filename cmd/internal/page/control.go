package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// ErrNotRunning says that no daemon holds the state folder's control socket.
var ErrNotRunning = errors.New("no Certsitter is running on this state folder")

const (
	dialTimeout = 5 * time.Second // a local socket answers at once or its owner is stuck
	answerLimit = 16 << 20        // bytes; a snapshot of a thousand certificates is 1 MiB
	eventLimit  = 16 << 20        // bytes of one line of the stream, whose first is a snapshot
)

// Control asks the daemon that runs on a state folder, for the command line.
// A refusal comes back as *sitter.Refused.
type Control struct {
	path   string
	client *http.Client
}

// Dial looks whether a daemon answers on stateDir's control socket:
// ErrNotRunning where there is none.
func Dial(stateDir string) (*Control, error) {
	c := &Control{path: filepath.Join(stateDir, SocketName)}
	c.client = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true, // a command asks once or twice
	}}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c, conn.Close()
}

func (c *Control) dial(ctx context.Context) (net.Conn, error) {
	short, done, err := shortened(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", c.path, err)
	}
	defer done()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", short)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // never there, or left by a dead one
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("this user may not use the control socket %s; run the command as root or as the user that runs Certsitter: %w", c.path, err)
	case err != nil:
		return nil, fmt.Errorf("control socket %s: %w", c.path, err)
	}
	return conn, nil
}

// Snapshot returns what the daemon knows.
func (c *Control) Snapshot(ctx context.Context) (*sitter.Snapshot, error) {
	snap := &sitter.Snapshot{}
	if err := c.call(ctx, http.MethodGet, "/api/state", nil, snap); err != nil {
		return nil, err
	}
	return snap, nil
}

// Events streams what happens from this moment on; the channel is closed when
// ctx or the daemon ends. What the caller does not take in time is lost to it
// alone.
func (c *Control) Events(ctx context.Context) (<-chan sitter.Event, error) {
	answer, err := c.do(ctx, http.MethodGet, "/api/events", nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, failure(answer)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 0, 64<<10), eventLimit)
	// The daemon subscribes before it writes the snapshot: once that is here,
	// nothing is missed.
	if kind, _ := nextEvent(lines); kind != "snapshot" {
		return nil, errors.Join(c.cut("events", lines.Err()), answer.Body.Close())
	}
	events := make(chan sitter.Event, 64)
	go func() { // ends with ctx, which ends the body, or with the daemon
		defer close(events)
		defer func() { _ = answer.Body.Close() }()
		for {
			kind, data := nextEvent(lines)
			if kind == "" {
				return
			}
			var e sitter.Event
			if json.Unmarshal(data, &e) != nil {
				continue // from another version; the snapshot tells the rest
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}

// nextEvent reads one event of a stream; kind "" = the stream is over.
func nextEvent(lines *bufio.Scanner) (kind string, data []byte) {
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case len(line) == 0 && kind != "":
			return kind, data
		case bytes.HasPrefix(line, []byte("event: ")):
			kind = string(line[len("event: "):])
		case bytes.HasPrefix(line, []byte("data: ")):
			data = bytes.Clone(line[len("data: "):])
		}
	}
	return "", nil
}

// Renew asks for a renewal; nil = accepted. What becomes of it is in the
// events, to which the caller subscribes before.
func (c *Control) Renew(ctx context.Context, name string, o sitter.RenewOptions) error {
	return c.call(ctx, http.MethodPost, "/api/certificates/"+url.PathEscape(name)+"/renew", o, nil)
}

// Check asks for a look at everything.
func (c *Control) Check(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/api/check", nil, nil)
}

// Revoke revokes the certificate in force; reason is an RFC 5280 name such as
// keyCompromise, "" = none.
func (c *Control) Revoke(ctx context.Context, name, reason string) error {
	return c.call(ctx, http.MethodPost, "/api/certificates/"+url.PathEscape(name)+"/revoke", map[string]string{"reason": reason}, nil)
}

// TestNotify sends a test message to one target, "" = to all, and returns how
// each went. That one did not arrive is in its Delivery, not in the error.
func (c *Control) TestNotify(ctx context.Context, target string) ([]sitter.Delivery, error) {
	asked := map[string]string{}
	if target != "" {
		asked["target"] = target
	}
	answer, err := c.do(ctx, http.MethodPost, "/api/notify/test", asked)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	var told struct {
		trouble
		Deliveries []sitter.Delivery `json:"deliveries"`
	}
	if err := decode(answer, &told); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK && len(told.Deliveries) == 0 {
		return nil, told.asError()
	}
	return told.Deliveries, nil
}

// call sends in (nil = nothing) as JSON and reads the answer into out (nil =
// not wanted).
func (c *Control) call(ctx context.Context, method, path string, in, out any) error {
	answer, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return failure(answer)
	}
	defer func() { _ = answer.Body.Close() }()
	if out == nil {
		return nil
	}
	return decode(answer, out)
}

func (c *Control) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, &body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	answer, err := c.client.Do(request)
	if err == nil {
		return answer, nil
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // its URL is of no use to anybody
	}
	if errors.Is(err, ErrNotRunning) || ctx.Err() != nil {
		return nil, err
	}
	return nil, c.cut("ask the daemon", err)
}

func (c *Control) cut(what string, err error) error {
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s over %s: the daemon ended or restarted; try again: %w", what, c.path, err)
}

// failure turns an answer that is no success back into what the daemon said,
// and closes it.
func failure(answer *http.Response) error {
	defer func() { _ = answer.Body.Close() }()
	var t trouble
	if err := decode(answer, &t); err != nil {
		return err
	}
	return t.asError()
}

func decode(answer *http.Response, out any) error {
	if err := json.NewDecoder(io.LimitReader(answer.Body, answerLimit)).Decode(out); err != nil {
		return fmt.Errorf("the daemon answered %s in a form that this program does not know; are both of one version? %w", answer.Status, err)
	}
	return nil
}

// asError gives refusals back as they left the loop.
func (t trouble) asError() error {
	switch t.Code {
	case "failed", "timeout", "starting", "request", "streams", "undelivered":
		return errors.New(t.Error)
	}
	return &sitter.Refused{Code: t.Code, Sentence: t.Error, Until: t.Until}
}
