package sitter

import (
	"context"
	"sync"
)

// hub hands events to everybody who looks on. Who does not keep up loses
// events, never the loop's time.
type hub struct {
	mu      sync.Mutex // guards the rest
	viewers map[chan Event]bool
	closed  bool
}

// backlog is how many events a viewer may be behind.
const backlog = 64

func (h *hub) tell(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for viewer := range h.viewers {
		select {
		case viewer <- e:
		default:
		}
	}
}

// join gives a channel that is closed when ctx or the hub ends.
func (h *hub) join(ctx context.Context) <-chan Event {
	viewer := make(chan Event, backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(viewer)
		return viewer
	}
	if h.viewers == nil {
		h.viewers = map[chan Event]bool{}
	}
	h.viewers[viewer] = true
	context.AfterFunc(ctx, func() { h.leave(viewer) })
	return viewer
}

func (h *hub) leave(viewer chan Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.viewers[viewer] {
		delete(h.viewers, viewer)
		close(viewer)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for viewer := range h.viewers {
		delete(h.viewers, viewer)
		close(viewer)
	}
}
