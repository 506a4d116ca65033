package daemon

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A gate holds requests while it is closed.
type gate struct {
	arrived chan struct{}

	mu   sync.Mutex
	open chan struct{} // closed when the gate is open
}

// newGate is closed.
func newGate(t *testing.T) *gate {
	g := &gate{arrived: make(chan struct{}, 1000), open: make(chan struct{})}
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) way() (<-chan struct{}, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		return g.open, true
	default:
		return g.open, false
	}
}

// at holds requests whose path begins so.
func (g *gate) at(path string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if way, open := g.way(); !open && strings.HasPrefix(r.URL.Path, path) {
				body, _ := io.ReadAll(r.Body) // only then does net/http notice a connection's end
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				g.arrived <- struct{}{}
				select {
				case <-way:
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// told waits until one more request waits at the gate.
func (g *gate) told(t *testing.T) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-time.After(waitLimit):
		t.Fatal("nobody comes to the gate")
	}
}
