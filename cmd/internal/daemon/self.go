package daemon

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/certsitter/certsitter/addon"
)

// A self is what the Supervisor says of the app that we are, remembered for a
// while.
type self struct {
	supervisor *addon.Supervisor

	mu  sync.Mutex // guards the rest
	app addon.App
	at  time.Time // of the answer; zero = there was none yet
}

func newSelf(s *addon.Supervisor) *self {
	return &self{supervisor: cmp.Or(s, &addon.Supervisor{})}
}

// ask gives an answer that is at most that old. The errors are those of
// addon.Supervisor.Self.
func (s *self) ask(ctx context.Context, age time.Duration) (addon.App, error) {
	if app, at := s.known(); !at.IsZero() && time.Since(at) < age {
		return app, nil
	}
	app, err := s.supervisor.Self(ctx)
	if err != nil {
		return addon.App{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app, s.at = app, time.Now()
	return app, nil
}

// known is the last answer, and when it came; zero = there was none.
func (s *self) known() (addon.App, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.app, s.at
}
