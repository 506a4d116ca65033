// Package sitter looks after the certificates: one loop that owns all state,
// starts everything slow beside itself and takes its results back as events.
//
// It knows when and in what order; how is known by the packages it calls. It
// never talks to a network itself.
package sitter

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/directory"
	"github.com/certsitter/certsitter/renew/store"
)

// A World is what the loop needs of the world. cmd/certsitter gives the real
// one; tests give fakes for the CA, time and people.
type World struct {
	Store *store.Store
	// Issue has a certificate issued. Errors: *renew.Fault, *worker.VersionError,
	// or the context's cause.
	Issue  func(context.Context, renew.OrderRequest, worker.Handler) (renew.Issued, error)
	Revoke func(context.Context, renew.RevokeRequest) error
	// Answer gets ready to answer the challenges of one order.
	Answer func(ctx context.Context, kind, webroot string, names []string) (Answers, error)
	CA     CA
	Probe  func(context.Context, probe.Target, time.Time, probe.Options) (probe.Result, error)
	Read   func(path, password string) (*expiry.Certificate, error)
	Act    func(context.Context, settings.Action, Acted) error
	// NotUp: the error of an action says that the other side is not up yet, such
	// as Home Assistant while it starts. nil = never.
	NotUp  func(error) bool
	Send   func(context.Context, notify.Request) error // error: *notify.Undelivered
	Beat   func(ctx context.Context, url string) error // fetches the heartbeat's URL
	Broker Broker                                      // nil = no MQTT
	// Targets are the addresses that messages go to: shoutrrr URLs, and made-up
	// ones of targets that the World knows itself.
	Targets func(*settings.Settings) []string
	// Cautions are what looks wrong in a configuration that is in order.
	Cautions func(*settings.Settings) []Problem
	// Home tells of Home Assistant's Core: ok = its API is there, so that it can
	// be restarted; address = where it may serve TLS itself, as an endpoint is
	// configured (host:port or an https:// URL), "" = nowhere. nil = there is no
	// Home Assistant. It asks nobody and returns at once.
	Home func(*settings.Settings) (address string, ok bool)

	Now     func() time.Time // nil = time.Now
	Build   time.Time        // no clock is before it
	Version string
	Log     zerolog.Logger
	State   string // the state folder
	// Workers bounds the renewals at a time; zero = 4.
	Workers int
	// Manual: nothing is renewed, deployed or told unless asked for: a command
	// line that does one thing without a daemon.
	Manual bool
}

// Answers answers the challenges of one order until it is closed.
type Answers interface {
	Present(context.Context, []renew.Challenge) error
	Close() error
}

// CA is what a CA says without an account.
type CA interface {
	Directory(ctx context.Context, url string, roots []byte) (directory.Directory, error)
	RenewalInfo(ctx context.Context, url, certID string, roots []byte) (directory.Window, error)
	Time(ctx context.Context, url string, roots []byte, build time.Time) (time.Time, error)
}

// Broker is the MQTT side.
type Broker interface {
	Publish(retained []mqtt.Message, obsolete []string)
	Event(name string, e mqtt.Event)
	State() mqtt.Link
	Changed() <-chan struct{}
	Commands() <-chan mqtt.Command
}

// Acted is what an action is told of the certificate it is for.
type Acted struct {
	Name     string
	Domains  []string
	CertFile string
	KeyFile  string
}

// ErrRestart ends Run when the worker's version is another one: the program was
// upgraded beneath us, and a restart brings both together again.
var ErrRestart = errors.New("the worker belongs to another version: a restart is needed")

// tickEvery bounds the time between two passes of the loop. Timers stand still
// while a machine sleeps, so this is also how soon after waking it looks.
const tickEvery = 5 * time.Minute

// A Sitter looks after certificates. Its state belongs to the goroutine that
// calls Run.
type Sitter struct {
	world World
	log   zerolog.Logger

	// owned by the loop
	settings     *settings.Settings
	jobs         []*job
	watched      []*watch
	memory       *memory
	left         []string // certificates of earlier runs that left the configuration; never changes
	file         stateFile
	dirty        bool // memory differs from its file
	clock        clock
	asking       bool          // for the time
	askedAt      time.Duration // since the start; zero = not asked
	checking     bool          // a check of everything was asked for and is under way
	answerChecks bool          // it has ended: its callers hear so once the snapshot shows it
	awaiting     []chan error
	probesOpen   int
	parsed       map[string]*expiry.Certificate // by name and address
	shown        mqtt.Snapshot                  // what was published last
	shownAt      time.Time
	late         bool          // what is to be published is another
	told         []brokerEvent // that wait for the state they speak of
	judged       map[string]judgement
	published    bool
	topicsWanted int       // how many of the remembered topics are in use
	notes        []Problem // of the service
	cautions     []Problem // of the configuration in force
	targets      []string  // addresses that messages go to
	sending      map[string]bool
	running      map[string]string // slot → name of the running renewal
	holding      map[string]int    // works that may hold a name's lock in the store
	core         core
	coreUp       time.Time                // when Core came back from a restart of ours
	restarted    time.Time                // when Core was restarted by hand
	acting       map[settings.Action]bool // that are under way
	metadata     map[string]metadata
	beatAt       time.Time
	passed       time.Time // the last pass with a sane clock
	asksOpen     int       // questions for renewal information under way
	start        time.Time // monotonic
	fatal        error
	wake         time.Time
	open         sync.WaitGroup // works under way

	done     chan func(now time.Time)
	steps    chan func(now time.Time) // progress of orders; what finds no room is left out
	commands chan command
	over     chan struct{} // closed when Run has ended

	snapshot atomic.Pointer[Snapshot]
	hub      hub
}

// New makes a Sitter with what the state folder remembers. It starts nothing.
func New(w World, conf *settings.Settings) (*Sitter, error) {
	if w.Now == nil {
		w.Now = time.Now
	}
	if w.Workers == 0 {
		w.Workers = 4
	}
	s := &Sitter{
		world: w, log: w.Log,
		file:     stateFile{filepath.Join(w.State, "state.json")},
		sending:  map[string]bool{},
		running:  map[string]string{},
		holding:  map[string]int{},
		metadata: map[string]metadata{},
		acting:   map[settings.Action]bool{},
		start:    time.Now(),
		done:     make(chan func(time.Time)),
		steps:    make(chan func(time.Time), 64),
		commands: make(chan command),
		over:     make(chan struct{}),
	}
	var notes []string
	var err error
	if s.memory, notes, err = s.file.load(); err != nil {
		return nil, err
	}
	for _, note := range notes {
		s.log.Warn().Msg(note)
		s.notes = append(s.notes, Problem{Code: "state", Severity: "notice", Text: note})
	}
	if s.memory.Installation == "" {
		s.memory.Installation, s.dirty = newInstallation(), true
	}
	s.clock = clock{build: w.Build, saved: s.memory.Saved}
	known := slices.Collect(maps.Keys(s.memory.Certificates))
	if err := s.configure(conf); err != nil {
		return nil, err
	}
	s.left = slices.DeleteFunc(known, func(name string) bool { return s.memory.Certificates[name] != nil })
	s.snapshot.Store(&Snapshot{Version: w.Version, Installation: s.memory.Installation, Status: expiry.Unknown.String(),
		Certificates: []Certificate{}, Targets: []Target{}, Problems: []Problem{}, Asks: []Ask{}, Language: conf.Language})
	return s, nil
}

func newInstallation() string {
	var id [3]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return hex.EncodeToString(id[:])
}

// Installation is the random id that is kept in the state folder.
func (s *Sitter) Installation() string { return s.memory.Installation }

// Left are the certificates that earlier runs looked after and that are not in
// the configuration of the start any more.
func (s *Sitter) Left() []string { return slices.Clone(s.left) }

// Topics are the retained topics that earlier runs have published.
func (s *Sitter) Topics() []string { return slices.Clone(s.memory.Topics) }

// Run looks after the certificates until ctx ends.
func (s *Sitter) Run(ctx context.Context) error {
	defer close(s.over)
	works, stop := context.WithCancel(ctx)
	defer stop()
	// One pass before anything is asked: a command must find a clock that was
	// read and files that are being looked at.
	timer := time.NewTimer(s.tend(works, s.world.Now()))
	defer timer.Stop()
	var linkChanged <-chan struct{}
	var pressed <-chan mqtt.Command
	if s.world.Broker != nil {
		linkChanged, pressed = s.world.Broker.Changed(), s.world.Broker.Commands()
	}
	for {
		select {
		case <-ctx.Done():
			return s.end(nil)
		case <-timer.C:
		case <-linkChanged:
		case step := <-s.steps:
			step(s.world.Now())
		case result := <-s.done:
			s.tellSteps()
			result(s.world.Now())
		case command := <-s.commands:
			command(works, s.world.Now())
		case c := <-pressed:
			s.pressed(works, s.world.Now(), c)
		}
		if s.fatal != nil {
			stop()
			return s.end(s.fatal)
		}
		timer.Reset(s.tend(works, s.world.Now()))
	}
}

// tellSteps takes in the steps that came before a result.
func (s *Sitter) tellSteps() {
	for {
		select {
		case step := <-s.steps:
			step(s.world.Now())
		default:
			return
		}
	}
}

// tend makes one pass over everything and gives the time until the next one.
func (s *Sitter) tend(ctx context.Context, now time.Time) time.Duration {
	s.wake = now.Add(tickEvery)
	s.clock.tick(now, time.Since(s.start))
	if s.clock.sane() {
		s.pullBack(now)
		s.keepTime(now)
		s.look(ctx, now)
		s.renewals(ctx, now)
		s.deployments(ctx, now)
		s.judged = map[string]judgement{} // from here on nothing of a certificate changes in this pass
		s.tell(ctx, now)
		s.beat(ctx, now)
	}
	s.askTime(ctx, now)
	s.save()
	s.view(now)
	s.judged = nil
	return max(s.wake.Sub(now), 0)
}

// at asks for a pass at t at the latest.
func (s *Sitter) at(t time.Time) {
	if t.Before(s.wake) {
		s.wake = t
	}
}

// work runs f beside the loop. What f returns is done in the loop, even while
// it is ending.
func (s *Sitter) work(ctx context.Context, limit time.Duration, what string, f func(context.Context) func(now time.Time)) {
	s.open.Add(1)
	go func() {
		defer s.open.Done()
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took longer than %v", what, limit))
		defer cancel()
		result := f(ctx)
		select {
		case s.done <- result:
		case <-s.over: // it was left behind
		}
	}()
}

// end waits for the works, which the context's end has told to stop, and takes
// in what they bring: a certificate that arrives now is a certificate.
func (s *Sitter) end(err error) error {
	late := time.NewTimer(endLimit)
	defer late.Stop()
	over := make(chan struct{})
	go func() { s.open.Wait(); close(over) }()
	for {
		select {
		case result := <-s.done:
			result(s.world.Now())
			continue
		case <-late.C:
			s.log.Error().Msg("something does not end, perhaps a disk that hangs: it is left behind")
		case <-over:
		}
		break
	}
	s.save()
	s.showLast(s.world.Now())
	s.hub.close()
	return err
}

// endLimit is how long the loop waits for what is under way: children have three
// seconds to end (worker.DefaultHaste), and the whole has five.
const endLimit = 4 * time.Second

// save writes what must not be forgotten, before the deed that depends on it.
func (s *Sitter) save() {
	if !s.dirty {
		return
	}
	if err := s.file.save(s.memory); err != nil {
		s.log.Error().Err(err).Msg("cannot save state")
		s.service(Problem{Code: "state_unwritable", Severity: "warning",
			Text:   fmt.Sprintf("What happened cannot be remembered: %v.", err),
			Advice: "Make room in the state folder, or make it writable."})
		return
	}
	s.serviceOK("state_unwritable")
	s.dirty = false
}

// keepEvery is how often the time is kept on disk while nothing else is. A
// memory card's life counts, and an hour is well below what sanity needs.
const keepEvery = time.Hour

func (s *Sitter) keepTime(now time.Time) {
	if s.memory.Saved.Equal(s.clock.saved) && now.Sub(s.memory.Saved) < keepEvery && now.After(s.memory.Saved.Add(-backwards)) {
		return
	}
	s.memory.Saved, s.clock.saved = now, now
	s.dirty = true
}

// service notes a problem of the service itself; one per code.
func (s *Sitter) service(p Problem) {
	s.serviceOK(p.Code)
	s.notes = append(s.notes, p)
}

// serviceOK takes a problem of the service back.
func (s *Sitter) serviceOK(code string) {
	s.notes = slices.DeleteFunc(s.notes, func(p Problem) bool { return p.Code == code })
}
