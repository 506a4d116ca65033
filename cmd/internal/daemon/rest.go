package daemon

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// restAfter is how long nothing has happened when memory is given back: longer
// than the pauses within an order.
const restAfter = 10 * time.Second

// rests gives memory back after something has happened. What a start or an order
// needed for a moment would stay ours until much more is needed: a tenth of all
// that the daemon has.
func (d *Daemon) rests(ctx context.Context) error {
	whenQuiet(d.Sitter.Events(ctx), restAfter, debug.FreeOSMemory)
	return nil
}

// whenQuiet does something once after the start and after each event, when no
// other one has followed for a while. It returns when events is closed.
func whenQuiet(events <-chan sitter.Event, after time.Duration, do func()) {
	quiet := time.NewTimer(after)
	defer quiet.Stop()
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
			quiet.Reset(after)
		case <-quiet.C:
			do()
		}
	}
}
