package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// streamWrite is how long a reader of the stream may stay deaf.
const streamWrite = 10 * time.Second

// events streams what happens (server-sent events): first "snapshot" with the
// whole state, then each sitter.Event under its kind, a comment while nothing
// happens. It ends at once when the server is to end.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "60")
		writeJSON(w, http.StatusServiceUnavailable, trouble{Error: fmt.Sprintf("%d streams of events are open already. Close a page that shows Certsitter.", streamLimit), Code: "streams"})
		return
	}
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the reader says nothing more, for days
	write := func(format string, a ...any) error {
		_ = out.SetWriteDeadline(time.Now().Add(streamWrite))
		if _, err := fmt.Fprintf(w, format, a...); err != nil {
			return err
		}
		return out.Flush()
	}
	happened := s.sitter.Events(r.Context()) // before the snapshot: nothing falls between the two
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	snap, err := json.Marshal(s.sitter.Snapshot())
	if err != nil || write("retry: 3000\nevent: snapshot\ndata: %s\n\n", snap) != nil {
		return
	}
	alive := time.NewTicker(s.keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-listenerOf(r.Context()).ending:
			return
		case <-r.Context().Done():
			return
		case <-alive.C:
			err = write(": alive\n\n")
		case e, open := <-happened:
			if !open {
				return // the loop has ended
			}
			err = write("event: %s\ndata: %s\n\n", kind(e), mustJSON(e))
		}
		if err != nil {
			return
		}
	}
}

// kind keeps the line format whole should a kind ever hold a line end.
func kind(e sitter.Event) string {
	if !kinds.MatchString(e.Kind) {
		return "message"
	}
	return e.Kind
}

var kinds = regexp.MustCompile(`^[a-z_]+$`)

func mustJSON(e sitter.Event) []byte {
	b, err := json.Marshal(e)
	if err != nil { // a time outside the years 0–9999
		e.Time = time.Time{}
		b, _ = json.Marshal(e)
	}
	return b
}
