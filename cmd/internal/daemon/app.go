package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/challenge"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/expiry"
)

// tellStart makes visible what is wrong with the configuration of the start, and
// keeps it if nothing is.
func (d *Daemon) tellStart(ctx context.Context) error {
	if d.o.Refused != nil {
		_ = d.refuse(ctx, d.o.Refused, d.o.Remark) // an error is the loop's end
	} else {
		d.keep(ctx, d.inForce.Load().settings)
	}
	if d.o.Form != nil {
		d.tellDropped(ctx)
	}
	return nil
}

// refuse makes a refused configuration visible, with what else is to be said of
// it. The error is the loop's end.
func (d *Daemon) refuse(ctx context.Context, err error, remarks ...string) error {
	lines := d.mistakeLines(err)
	for _, remark := range remarks {
		if remark != "" {
			lines = append([]string{remark}, lines...)
		}
	}
	for _, line := range lines {
		d.o.Log.Error().Str("mistake", d.o.Redactor.String(line)).Msg("the configuration is refused")
	}
	shown := make([]string, 0, len(lines))
	for _, line := range bounded(lines) {
		shown = append(shown, expiry.Sentence(d.o.Redactor.String(line)))
	}
	return d.Sitter.Refuse(ctx, shown...)
}

// mistakeLines is each mistake of a refused configuration as one line, without
// the excerpt, which is for those who edit the file. Nobody edits an app's
// options.json, so its name and lines tell nothing.
func (d *Daemon) mistakeLines(err error) []string {
	refusal, ok := errors.AsType[*settings.Refusal](err)
	if !ok {
		return []string{oneLine(err)}
	}
	var all []string
	for _, m := range refusal.Mistakes {
		m.Excerpt = ""
		text := m.String()
		if d.o.Form != nil && m.File == d.o.Form.path {
			text = strings.TrimPrefix(m.Key+": "+m.Sentence, ": ")
		}
		all = append(all, strings.Join(strings.Fields(text), " "))
	}
	return all
}

const (
	// mistakesShown and mistakeLength bound what a page and a notification show of
	// a file that may be anything. The log has all of it.
	mistakesShown = 20
	mistakeLength = 300
)

func bounded(lines []string) []string {
	var all []string
	for i, line := range lines {
		if i == mistakesShown {
			return append(all, fmt.Sprintf("… and %d more, see the log.", len(lines)-mistakesShown))
		}
		if runes := []rune(line); len(runes) > mistakeLength {
			line = string(runes[:mistakeLength-1]) + "…"
		}
		all = append(all, line)
	}
	return all
}

// keep remembers the options that are in force now.
func (d *Daemon) keep(ctx context.Context, conf *settings.Settings) {
	if d.o.Form == nil {
		return
	}
	if err := d.o.Form.Keep(conf); err != nil {
		d.note(ctx, sitter.Problem{Code: "accepted", Severity: "notice",
			Text:   "These options could not be kept for the case that later ones are refused: " + oneLine(err) + ".",
			Advice: "Make room in the state folder, or make it writable."})
	}
}

func (d *Daemon) note(ctx context.Context, p sitter.Problem) {
	d.o.Log.Warn().Msg(p.Text + " " + p.Advice)
	_ = d.Sitter.Note(ctx, p) // an error is the loop's end
}

// selfEvery is how often a Supervisor is asked again that does not answer.
const selfEvery = 30 * time.Second

// tellDropped says which keys the app's form has dropped, as soon as the
// Supervisor tells what the user wrote. The options change with a start only.
func (d *Daemon) tellDropped(ctx context.Context) {
	again := time.NewTicker(selfEvery)
	defer again.Stop()
	app, err := d.self.ask(ctx, selfEvery) // asked a moment ago, for the ports
	for err != nil {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		app, err = d.self.ask(ctx, 0)
	}
	for _, k := range d.o.Form.dropped(app) {
		advice := "Remove it, or see the documentation for the right name."
		if k.Meant != "" {
			advice = fmt.Sprintf("Perhaps %s was meant.", k.Meant)
		}
		d.note(ctx, sitter.Problem{Code: "dropped_" + k.Key, Severity: "notice",
			Text: fmt.Sprintf("The option %s is not known, so Home Assistant has left it out.", k.Key), Advice: advice})
	}
}

const (
	// doorAge is how old the Supervisor's word for our ports may be before an
	// order: switching one restarts the app, but the configuration in force may be
	// an older one.
	doorAge = time.Minute
	// doorWithin is how long it may take; without it the order goes on, since it
	// tells by itself whether the port can be reached.
	doorWithin = 10 * time.Second
)

// shut is why an order has no use: the CA would come to a port of the app that is
// off. The error is a *challenge.Obstacle.
func (d *Daemon) shut(ctx context.Context, kind, webroot string) error {
	p, needed := doorOf(kind, webroot)
	if d.self == nil || !needed {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, doorWithin, fmt.Errorf("the Supervisor did not say within %v which ports are on", doorWithin))
	defer cancel()
	app, err := d.self.ask(ctx, doorAge)
	if err != nil {
		d.o.Log.Debug().Err(err).Msg("whether the app's port is on is not known")
		return nil
	}
	if p.shut(app) {
		return &challenge.Obstacle{Sentence: p.sentence(kind), Advice: p.advice()}
	}
	return nil
}
