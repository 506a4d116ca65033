package page

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// stream opens the stream of a real server.
func stream(t *testing.T, address string) (*bufio.Scanner, io.Closer) {
	t.Helper()
	answer, err := http.Get("http://" + address + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" || answer.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("answered %s %v", answer.Status, answer.Header)
	}
	return bufio.NewScanner(answer.Body), answer.Body
}

func TestEvents(t *testing.T) {
	loop := newFake(sample())
	address := start(t, newServer(Config{}, loop))
	lines, body := stream(t, address)
	lines.Buffer(nil, 1<<20)

	kind, data := nextEvent(lines)
	if got := unmarshal[sitter.Snapshot](t, data); kind != "snapshot" || len(got.Certificates) != 5 {
		t.Fatalf("the stream begins with %s %s", kind, data)
	}
	sent := []sitter.Event{
		{Time: noon, Name: "home", Kind: "started", Text: "Line one\nline two\r\n\r\nevent: forged\ndata: {}"},
		{Time: noon, Name: "home", Kind: "progress", Text: attack},
		{Time: noon, Kind: "state"},
		{Time: noon, Kind: "bad\nevent: kind", Text: "x"},
	}
	for _, e := range sent {
		loop.tell(e)
	}
	for i, want := range []string{"started", "progress", "state", "message"} {
		kind, data := nextEvent(lines)
		got := unmarshal[sitter.Event](t, data)
		if kind != want || !got.Time.Equal(sent[i].Time) || got.Text != strings.ToValidUTF8(sent[i].Text, "\ufffd") {
			t.Errorf("event %d came as %s %s", i+1, kind, data)
		}
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the viewer that left is forgotten", func() bool { return loop.watching() == 0 })
}

func TestStreamsEndWithTheServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loop := newFake(sample())
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- newServer(Config{}, loop).Serve(ctx, ln) }()
	lines, _ := stream(t, ln.Addr().String())
	lines.Buffer(nil, 1<<20)
	nextEvent(lines)
	cancel()
	if kind, _ := nextEvent(lines); kind != "" {
		t.Errorf("after the end comes %s", kind)
	}
	if lines.Err() != nil {
		t.Errorf("the stream is cut, not ended: %v", lines.Err())
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(shutdownGrace / 2): // an open stream would use the grace up
		t.Error("the server waits for its streams")
	}
}

// TestKeepAlive lives through a silent hour.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Second)
		defer cancel()
		r := newRequest("GET", "/api/events", "127.0.0.1:1").WithContext(ctx)
		w := httptest.NewRecorder()
		New(Config{}, newFake(sample())).Handler().ServeHTTP(w, r) // returns when ctx ends
		if n := strings.Count(w.Body.String(), ": alive\n\n"); n != 240 {
			t.Errorf("%d signs of life in an hour, want 240", n)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	s := newServer(Config{}, newFake(sample()))
	for range streamLimit {
		s.streams <- struct{}{}
	}
	w := serve(s, newRequest("GET", "/api/events", "127.0.0.1:1"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", w.Code, w.Body)
	}
}

func TestStreamEndsWithTheLoop(t *testing.T) {
	loop := newFake(sample())
	ended := make(chan sitter.Event)
	close(ended)
	s := newServer(Config{}, closing{loop, ended})
	w := serve(s, newRequest("GET", "/api/events", "127.0.0.1:1")) // would hang
	if !strings.HasPrefix(w.Body.String(), "retry: 3000\nevent: snapshot\ndata: {") {
		t.Errorf("streamed %.60s", w.Body)
	}
}

// closing is a loop that has ended.
type closing struct {
	*fake
	events chan sitter.Event
}

func (c closing) Events(context.Context) <-chan sitter.Event { return c.events }
