package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// askPeople shows in Home Assistant what people are asked, until ctx ends.
func (d *Daemon) askPeople(ctx context.Context) error {
	b := board{
		log: d.o.Log, pace: usualAsking, shown: map[string]sitter.Ask{},
		core: func() *addon.Core { return d.inForce.Load().home },
		want: func() ([]sitter.Ask, bool) {
			snap := d.Sitter.Snapshot()
			return d.wanted(snap.Asks), !snap.Time.IsZero()
		},
		leftover: func() []string { return leftover(d.inForce.Load().settings, d.Sitter.Left()) },
	}
	b.run(ctx, d.Sitter.Events(ctx))
	return nil
}

// wanted are the asks that are shown in Home Assistant. An app's configuration is
// asked for whatever it says itself: it is not in force.
func (d *Daemon) wanted(all []sitter.Ask) []sitter.Ask {
	var shown []sitter.Ask
	for _, a := range all {
		if d.inForce.Load().settings.NotifyHomeAssistant || d.o.App && a.ID == sitter.AskConfiguration {
			shown = append(shown, sitter.Ask{ID: a.ID, Title: d.o.Redactor.String(a.Title), Text: clipped(d.o.Redactor.String(a.Text))})
		}
	}
	return shown
}

// askLength bounds a text in Home Assistant, in characters: more than anybody
// reads there.
const askLength = 6000

func clipped(text string) string {
	if runes := []rune(text); len(runes) > askLength {
		return string(runes[:askLength-1]) + "…"
	}
	return text
}

// leftover are the ids of what an earlier run may have asked, also of certificates
// that have left the configuration since.
func leftover(conf *settings.Settings, left []string) []string {
	ids := []string{sitter.AskConfiguration}
	for _, name := range left {
		ids = append(ids, sitter.AskRestart(name))
	}
	for _, c := range conf.Certificates {
		ids = append(ids, sitter.AskRestart(c.Name))
	}
	return ids
}

// An askPace says how often a board does what.
type askPace struct {
	first, most time.Duration // between two tries while Core does not answer, growing
	stay        time.Duration // between two looks whether Core was restarted, while something is asked
	idle        time.Duration // between two looks while nothing is asked
}

// Core loses its notifications when it restarts, and does not say so. A small one
// on a fast machine is back within eight seconds, which must not be overlooked.
var usualAsking = askPace{first: 2 * time.Second, most: time.Minute, stay: 5 * time.Second, idle: 5 * time.Minute}

// A board is what Home Assistant shows of our asks. It is kept as they are: one
// that appears or changes is created, one that is gone is dismissed. An ask that
// a person has dismissed there does not come back before it changes.
type board struct {
	log      zerolog.Logger
	pace     askPace
	core     func() *addon.Core          // nil = there is no Home Assistant
	want     func() ([]sitter.Ask, bool) // false: it is not known yet
	leftover func() []string             // ids that may be there from before
	shown    map[string]sitter.Ask       // a zero one may be there
	at       *addon.Core                 // that shows them
	away     bool                        // it did not answer the last look
	said     string                      // the last trouble in the log
}

// run keeps the board until ctx or events end.
func (b *board) run(ctx context.Context, events <-chan sitter.Event) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := b.pace.first
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			if e.Kind != "state" {
				continue
			}
		case <-timer.C:
		}
		switch {
		case !b.tend(ctx):
			timer.Reset(wait)
			wait = min(2*wait, b.pace.most)
			continue
		case len(b.shown) > 0:
			timer.Reset(b.pace.stay)
		default:
			timer.Reset(b.pace.idle)
		}
		wait = b.pace.first
	}
}

// tend makes one pass. It is false if something is still to be done.
func (b *board) tend(ctx context.Context) bool {
	core := b.core()
	if core != b.at {
		b.at, b.shown, b.away = core, map[string]sitter.Ask{}, false
		for _, id := range b.leftover() {
			b.shown[id] = sitter.Ask{}
		}
	}
	asks, known := b.want()
	if core == nil || !known {
		return core == nil
	}
	b.seeRestart(ctx, core)
	return b.reconcile(ctx, core, asks)
}

// seeRestart forgets what was shown once Core was away. It is only looked at
// while it is to show something.
func (b *board) seeRestart(ctx context.Context, core *addon.Core) {
	if len(b.shown) == 0 {
		b.away = false
		return
	}
	err := core.Running(ctx)
	if err == nil && b.away {
		for id := range b.shown {
			b.shown[id] = sitter.Ask{}
		}
	}
	b.away = err != nil
}

func (b *board) reconcile(ctx context.Context, core *addon.Core, asks []sitter.Ask) bool {
	done := true
	wanted := map[string]bool{}
	for _, a := range asks {
		wanted[a.ID] = true
		if b.shown[a.ID] == a {
			continue
		}
		if !b.ok(core.PersistentNotification(ctx, a.ID, a.Title, a.Text)) {
			done = false
			continue
		}
		b.shown[a.ID] = a
	}
	for _, id := range slices.Sorted(maps.Keys(b.shown)) {
		if wanted[id] {
			continue
		}
		if !b.ok(core.DismissNotification(ctx, id)) {
			done = false
			continue
		}
		delete(b.shown, id)
	}
	return done
}

// ok says what went wrong, once per reason.
func (b *board) ok(err error) bool {
	if err == nil {
		b.said = ""
		return true
	}
	if text := err.Error(); text != b.said {
		b.log.Debug().Str("reason", text).Msg("what people are asked cannot be shown in Home Assistant")
		b.said = text
	}
	return false
}
