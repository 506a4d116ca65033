package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

func TestWhenQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan sitter.Event)
		start := time.Now()
		var done []time.Duration
		ended := make(chan struct{})
		go func() {
			whenQuiet(events, 10*time.Second, func() { done = append(done, time.Since(start)) })
			close(ended)
		}()
		for _, pause := range []time.Duration{time.Hour, 4 * time.Second, 9 * time.Second, time.Minute} {
			time.Sleep(pause)
			events <- sitter.Event{}
		}
		close(events)
		<-ended
		want := []time.Duration{10 * time.Second, time.Hour + 23*time.Second}
		if len(done) != 2 || done[0] != want[0] || done[1] != want[1] {
			t.Errorf("done after %v, want %v", done, want)
		}
	})
}
