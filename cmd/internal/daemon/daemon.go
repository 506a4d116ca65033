// Package daemon puts the real world together: the store, the worker, the
// answers to challenges, the broker, the page and the loop that uses them. The
// daemon, the command line without a daemon, and the demo all start here.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/act"
	"github.com/certsitter/certsitter/cmd/internal/challenge"
	"github.com/certsitter/certsitter/cmd/internal/page"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/renew/directory"
	"github.com/certsitter/certsitter/renew/store"
)

// Options say what kind of daemon it is to be.
type Options struct {
	Settings *settings.Settings
	// Reload reads the configuration again; nil = it never changes.
	Reload   func() (*settings.Settings, error)
	Hangup   <-chan struct{} // asks for it
	Worker   worker.Client
	Version  string
	Build    time.Time // no clock is before it
	Log      zerolog.Logger
	Redactor *settings.Redactor
	App      bool
	Image    bool // we run in our own container image
	// Supervisor is who runs us as an app; nil = the real one.
	Supervisor *addon.Supervisor
	// Form is where an app's Settings come from; nil = they do not come from one,
	// and nothing is kept of them.
	Form *Form
	// Refused says why the present configuration is not in Settings; nil = it is.
	Refused *settings.Refusal
	// Remark is what is to be said besides Refused; "" = nothing.
	Remark string
	// Core is where Home Assistant's Core may serve TLS itself, for an app; "" =
	// where the Supervisor has it.
	Core     string
	Listener net.Listener // the page's; nil = Settings.Listen
	// Manual: one thing is done by hand, without broker, page or loop of its own.
	Manual bool
}

// A Daemon is everything put together.
type Daemon struct {
	Sitter *sitter.Sitter

	o       Options // Settings are those of the start
	store   *store.Store
	self    *self // nil = we are no app
	link    *link // nil = no MQTT
	page    *page.Server
	inForce atomic.Pointer[force] // stored by New and reload alone
}

// A force is a configuration and what was made from it. It never changes.
type force struct {
	settings  *settings.Settings
	responder *challenge.Responder
	home      *addon.Core // nil = there is none
}

// New opens the state folder and puts everything together. It starts nothing.
// The error is store.ErrLocked if another one runs on the state folder.
func New(o Options) (*Daemon, error) {
	stored, err := store.Open(o.Settings.StateDir, store.Options{})
	if err != nil {
		return nil, err
	}
	d := &Daemon{o: o, store: stored}
	if o.App {
		d.self = newSelf(o.Supervisor)
	}
	if o.Form != nil {
		d.self = o.Form.self
	}
	d.inForce.Store(d.enforce(o.Settings, nil))
	world := sitter.World{
		Store: stored, Issue: o.Worker.Issue, Revoke: o.Worker.Revoke, Send: d.send, Targets: d.targets,
		Answer: d.answer, CA: &directory.Client{UserAgent: "certsitter/" + o.Version},
		Probe: probe.Probe, Read: probe.ReadFile, Act: d.act, NotUp: func(err error) bool { return errors.Is(err, addon.ErrNotUp) }, Beat: beat,
		Cautions: func(conf *settings.Settings) []sitter.Problem { return append(cautions(conf), o.ground(conf)...) },
		Home:     func(conf *settings.Settings) (string, bool) { return home(conf, o) }, Build: o.Build, Version: o.Version, Log: o.Log, State: o.Settings.StateDir, Manual: o.Manual,
	}
	if hasBroker(o.Settings) && !o.Manual {
		d.link = newLink(o.Log, o.Supervisor)
		world.Broker = d.link
	}
	if d.Sitter, err = sitter.New(world, o.Settings); err != nil {
		return nil, errors.Join(err, stored.Close())
	}
	if d.link != nil {
		way, err := prepare(d.mqttConfig(o.Settings))
		if err != nil {
			return nil, errors.Join(err, stored.Close())
		}
		d.link.use(way)
	}
	d.page = page.New(d.pageConfig(o.Settings), d.Sitter)
	return d, nil
}

// endLimit is how long Run takes to end at most. A service manager's patience,
// and a container's, is what ends it otherwise: without a word of the reason.
const endLimit = 4800 * time.Millisecond

// Run looks after the certificates until ctx ends. It has closed everything
// when it returns, but for what its error names: something that hangs, such as
// a disk, and keeps the state folder until the process ends.
func (d *Daemon) Run(ctx context.Context) error {
	parts := []part{{"the loop", d.Sitter.Run}}
	if !d.o.Manual {
		socket := filepath.Join(d.o.Settings.StateDir, page.SocketName)
		parts = append(parts,
			part{"the page", d.keepPage},
			part{"the control socket", func(ctx context.Context) error { return d.page.RunSocket(ctx, socket) }},
			part{"the reload", d.reloads},
			part{"the memory that is given back", d.rests},
			part{"what is said of the configuration", d.tellStart},
			part{"what people are asked in Home Assistant", d.askPeople})
	}
	if d.link != nil {
		parts = append(parts, part{"the connection to the broker", d.link.run})
	}
	err := together(ctx, endLimit, parts, part{"the state folder", func(context.Context) error { return d.store.Close() }})
	if late, ok := errors.AsType[*lateError](err); ok {
		d.o.Log.Error().Err(late).Msg("left behind")
	}
	return err
}

// Close gives the state folder free. It is for a daemon that was never run.
func (d *Daemon) Close() error { return d.store.Close() }

// pageRetry is how often the page's address is tried again. A taken port is no
// reason to stop renewing.
const pageRetry = time.Minute

// keepPage serves the page for as long as the daemon runs.
func (d *Daemon) keepPage(ctx context.Context) error {
	for ctx.Err() == nil {
		err := d.servePage(ctx)
		if ctx.Err() != nil || err == nil {
			return nil
		}
		d.o.Log.Error().Err(err).Msg("no page")
		_ = d.Sitter.Note(ctx, sitter.Problem{Code: "page", Severity: "warning",
			Text: fmt.Sprintf("The page cannot be served: %v.", err), Advice: "Free the port, or choose another one with listen."})
		select {
		case <-ctx.Done():
		case <-time.After(pageRetry):
		}
	}
	return nil
}

func (d *Daemon) servePage(ctx context.Context) error {
	if d.o.Listener != nil {
		return d.page.Serve(ctx, d.o.Listener)
	}
	return d.page.Run(ctx)
}

// reloads takes new configurations into force when it is asked to.
func (d *Daemon) reloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.o.Hangup:
		}
		if err := d.reload(ctx); err != nil && ctx.Err() == nil {
			if d.refuse(ctx, err) != nil {
				return nil // the loop has ended
			}
			d.o.Log.Error().Msg("the configuration was not taken into force; the old one stays")
		}
	}
}

func (d *Daemon) reload(ctx context.Context) error {
	if d.o.Reload == nil {
		return nil
	}
	conf, err := d.o.Reload()
	if err != nil {
		return err
	}
	old := d.inForce.Load()
	if conf.StateDir != old.settings.StateDir || conf.Listen != old.settings.Listen {
		return errors.New("state_dir and listen change only at a restart")
	}
	if hasBroker(conf) != (d.link != nil) {
		return errors.New("mqtt.broker comes and goes only at a restart")
	}
	d.o.Redactor.Add(conf.Secrets()...)
	var way way
	if d.link != nil {
		if way, err = prepare(d.mqttConfig(conf)); err != nil {
			return err
		}
	}
	// Before the loop has it: what the loop begins at once is to find the new
	// ports.
	d.inForce.Store(d.enforce(conf, old))
	if err := d.Sitter.Reload(ctx, conf); err != nil {
		d.inForce.Store(old)
		return err
	}
	// Nothing below can fail.
	d.page.Reconfigure(d.pageConfig(conf))
	if d.link != nil {
		d.link.use(way)
	}
	d.keep(ctx, conf)
	d.o.Log.Info().Str("file", conf.File).Msg("configuration read again")
	return nil
}

// enforce makes what a configuration needs, and keeps of the old one what has
// not changed: a responder may hold its ports for orders under way, and a Core
// remembers a restart whose end it has not seen.
func (d *Daemon) enforce(conf *settings.Settings, old *force) *force {
	if old == nil {
		return &force{conf, challenge.New(conf.HTTPPort, conf.TLSPort), core(conf, d.o)}
	}
	f := &force{conf, old.responder, old.home}
	if was := old.settings; was.HTTPPort != conf.HTTPPort || was.TLSPort != conf.TLSPort {
		f.responder = challenge.New(conf.HTTPPort, conf.TLSPort)
	}
	if was := old.settings; was.HomeAssistantURL != conf.HomeAssistantURL || was.HomeAssistantToken != conf.HomeAssistantToken {
		f.home = core(conf, d.o)
	}
	return f
}

func (d *Daemon) answer(ctx context.Context, kind, webroot string, names []string) (sitter.Answers, error) {
	if err := d.shut(ctx, kind, webroot); err != nil {
		return nil, err
	}
	session, err := d.inForce.Load().responder.Open(ctx, kind, webroot, names)
	if err != nil {
		return nil, err // not a nil *Session in an interface
	}
	return session, nil
}

func (d *Daemon) act(ctx context.Context, a settings.Action, facts sitter.Acted) error {
	now := d.inForce.Load()
	machine := act.Machine{Secrets: d.o.Redactor.String, ConfigFile: now.settings.File}
	if now.home != nil { // not a nil *Core in an interface
		machine.HomeAssistant = now.home
	}
	return act.Perform(ctx, a, act.Certificate{Name: facts.Name, Domains: facts.Domains, CertFile: facts.CertFile, KeyFile: facts.KeyFile}, machine)
}

// mqttConfig is the way to the broker as it is asked for.
func (d *Daemon) mqttConfig(conf *settings.Settings) mqtt.Config {
	c := askedBroker(conf)
	c.Installation, c.Version, c.KeepFound = d.Sitter.Installation(), d.o.Version, conf.StandIn
	return c
}

func (d *Daemon) pageConfig(conf *settings.Settings) page.Config {
	var names []string
	for _, c := range conf.Certificates {
		names = append(names, c.Domains...)
	}
	if host, err := os.Hostname(); err == nil { // a container is asked for by its name
		names = append(names, host)
	}
	slices.Sort(names)
	return page.Config{
		Listen: conf.Listen, Password: conf.PagePassword, App: d.o.App, Names: slices.Compact(names), Language: conf.Language, Version: d.o.Version,
		Log:       func(line string) { d.o.Log.Debug().Str("part", "page").Msg(line) },
		Downloads: d.downloads(conf),
	}
}

// beat fetches the heartbeat's URL.
func beat(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return fmt.Errorf("it answered %s", answer.Status)
	}
	return nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
