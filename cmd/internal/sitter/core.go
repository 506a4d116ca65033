package sitter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
)

// A core is Home Assistant's Core as far as it matters here: it may serve a
// certificate without anybody having said so, and it takes a new one only when it
// starts.
type core struct {
	address string // where it may serve TLS; "" = nowhere that is known
	target  probe.Target
	api     bool // it can be restarted

	next  time.Time
	busy  bool
	again bool // it is to be looked at once more, since something changed meanwhile
}

const (
	// coreSoon is how often a Core is looked at that serves an earlier certificate:
	// somebody may restart it at any time, and it is next door.
	coreSoon = 5 * time.Minute
	// coreAfter is how often it is looked at within coreStarting of a restart.
	coreAfter    = 20 * time.Second
	coreStarting = 5 * time.Minute
	// inVain: a Core that was up again for so long and still serves the earlier
	// certificate does not do so for want of a restart.
	inVain = 2 * time.Minute
	// forgetFound is how long an endpoint that was found by itself may serve
	// strangers' certificates, or nothing, until it is no endpoint any more.
	forgetFound = 24 * time.Hour
	// restartEvery is how often Home Assistant is restarted by hand.
	restartEvery = time.Minute
)

// restartCore is the action that restarts Home Assistant.
var restartCore = settings.Action{Kind: settings.RestartHomeAssistant}

// findCore takes in where the configuration says that Core is.
func (s *Sitter) findCore(conf *settings.Settings) {
	var found core
	if s.world.Home != nil && !s.world.Manual {
		found.address, found.api = s.world.Home(conf)
	}
	if !found.api {
		found.address = ""
	}
	if found.address != "" {
		var err error
		if found.target, err = probe.ParseTarget(found.address); err != nil {
			s.log.Debug().Err(err).Msg("Home Assistant's own address cannot be looked at")
			found.address = ""
		}
	}
	if found.address == s.core.address { // a look may be under way
		found.next, found.busy, found.again = s.core.next, s.core.busy, s.core.again
	}
	s.core = found
	if conf.StandIn || s.world.Manual {
		return // neither says where Core is
	}
	for _, e := range s.memory.Certificates {
		for address, seen := range e.Endpoints {
			if seen.Found && address != found.address {
				delete(e.Endpoints, address)
				s.dirty = true
			}
		}
	}
}

// ofCore: the configured endpoint is Core's own address.
func (s *Sitter) ofCore(t probe.Target) bool {
	return s.core.address != "" && t.Address == s.core.target.Address
}

// finds: Core's own address may be an endpoint of the job besides those that are
// configured.
func (s *Sitter) finds(j *job) bool {
	return s.core.address != "" && !slices.ContainsFunc(j.endpoints, func(e endpoint) bool { return s.ofCore(e.target) })
}

// found is what was seen at Core's own address, if that was seen to serve the
// job's certificate; else nil.
func (s *Sitter) found(j *job) *sighting {
	if !s.finds(j) {
		return nil
	}
	if seen := s.memory.of(j.name).Endpoints[s.core.address]; seen != nil && seen.Found {
		return seen
	}
	return nil
}

// places are the addresses at which the job's certificate is to be served: the
// configured ones, and Core's if it was found there. One that was found and now
// shows a stranger's is none: whoever changed that has not asked us to watch it.
func (s *Sitter) places(j *job) []string {
	all := make([]string, 0, len(j.endpoints)+1)
	for _, p := range j.endpoints {
		all = append(all, p.address)
	}
	if seen := s.found(j); seen != nil && seen.Strange.IsZero() {
		all = append(all, s.core.address)
	}
	return all
}

// coreOf is what was seen at Core's own address, configured or found; nil if
// that is no endpoint of the job.
func (s *Sitter) coreOf(j *job) (address string, seen *sighting) {
	if s.core.address == "" {
		return "", nil
	}
	for _, p := range j.endpoints {
		if s.ofCore(p.target) {
			return p.address, s.memory.of(j.name).Endpoints[p.address]
		}
	}
	if seen := s.found(j); seen != nil && seen.Strange.IsZero() {
		return s.core.address, seen
	}
	return "", nil
}

// lookAtCore looks at Core's own address when its time has come: once for all
// certificates, since Core has one for everybody.
func (s *Sitter) lookAtCore(ctx context.Context, now time.Time) {
	c := &s.core
	if c.busy || !slices.ContainsFunc(s.jobs, s.finds) {
		return
	}
	if now.Before(c.next) {
		s.at(c.next)
		return
	}
	if s.probesOpen >= probesAtATime {
		return // the end of one is the next pass
	}
	c.busy = true
	s.probesOpen++
	address, target, run := c.address, c.target, s.world.Probe
	s.work(ctx, probeLimit, "the look at Home Assistant", func(ctx context.Context) func(time.Time) {
		result, err := run(ctx, target, now, probe.Options{})
		stopped := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
		return func(now time.Time) {
			s.probesOpen--
			if !stopped && s.core.address == address {
				s.sawCore(now, result, err)
			}
		}
	})
}

// sawCore takes in what Core serves, for every certificate that it may be.
func (s *Sitter) sawCore(now time.Time, r probe.Result, err error) {
	c := &s.core
	c.busy = false
	if c.again { // what was seen is from before
		c.again, c.next = false, time.Time{}
		return
	}
	c.next = now.Add(spread(endpointsEvery, c.address)) // also while nothing is there: that is no trouble
	if err != nil {
		s.log.Debug().Err(err).Msg("Home Assistant serves no certificate at its own address")
	}
	for _, j := range s.jobs {
		j.awaitsCore = false
		if !s.finds(j) {
			continue
		}
		if next := s.sawCoreFor(now, j, r, err); next.Before(c.next) {
			c.next = next
		}
	}
}

// sawCoreFor takes in what Core serves as far as one certificate goes, and says
// when to look again.
func (s *Sitter) sawCoreFor(now time.Time, j *job, r probe.Result, err error) time.Time {
	usual := now.Add(endpointsEvery * 2) // whatever the others say
	e := s.memory.of(j.name)
	before := s.found(j)
	if err != nil {
		if before == nil {
			return usual
		}
		next := s.saw(now, j.name, s.core.address, r, err)
		if s.forget(now, j, before, before.Failing) {
			return usual
		}
		return next
	}
	ours := e.knows(r.Certificate.Fingerprint())
	if before == nil && !ours {
		return usual
	}
	// Core does not look at the name that it is asked for, and who else counts on
	// the certificate's chain than the one who ordered it.
	r.NameError, r.ChainError = nil, r.Certificate.VerifyChain(j.roots, now)
	strange := time.Time{}
	if before == nil {
		if e.Endpoints == nil {
			e.Endpoints = map[string]*sighting{}
		}
		e.Endpoints[s.core.address] = &sighting{Found: true}
		s.log.Info().Str("cert", j.name).Str("endpoint", s.core.address).Msg("Home Assistant serves this certificate itself, so it is looked at there, too")
	} else if !ours {
		if strange = before.Strange; strange.IsZero() {
			strange = now
		}
	}
	next := s.saw(now, j.name, s.core.address, r, nil)
	seen := e.Endpoints[s.core.address]
	seen.Strange = strange
	if s.forget(now, j, seen, strange) {
		return usual
	}
	if ours {
		s.reopen(j, seen)
	}
	return next
}

// forget takes an endpoint that was found out of the list again, if it has been
// another one's, or not there, for long.
func (s *Sitter) forget(now time.Time, j *job, seen *sighting, since time.Time) bool {
	if since.IsZero() || now.Sub(since) < forgetFound {
		return false
	}
	s.log.Info().Str("cert", j.name).Str("endpoint", s.core.address).Msg("Home Assistant does not serve this certificate any more, so it is no longer looked at there")
	delete(s.memory.of(j.name).Endpoints, s.core.address)
	s.dirty = true
	return true
}

// reopen goes on with a deployment that had ended before Core was found to serve
// an earlier certificate: it is over once Core serves the new one.
func (s *Sitter) reopen(j *job, seen *sighting) {
	e := s.memory.of(j.name)
	d := e.Deployment
	if d == nil || d.Stage != deployed || seen.Differs.IsZero() || j.installed == nil || j.installed.Fingerprint() != d.Fingerprint {
		return
	}
	after := *d
	after.Stage, after.Look = toVerify, len(looksAfter)
	e.Deployment, s.dirty = &after, true
}

// coreServes: Core was seen to serve what is deployed, so that nothing needs to
// be restarted for its sake.
func (s *Sitter) coreServes(j *job, d deployment) bool {
	_, seen := s.coreOf(j)
	return seen != nil && seen.Fingerprint == d.Fingerprint && seen.Error == ""
}

// lookAtCoreSoon makes Core due to be looked at now.
func (s *Sitter) lookAtCoreSoon() {
	s.core.next, s.core.again = time.Time{}, s.core.busy
}

// unready is a certificate that Core serves and that it could not read again now:
// it is being installed, or what is in its place is no pair. nil = there is none.
func (s *Sitter) unready() *job {
	for _, j := range s.jobs {
		if _, seen := s.coreOf(j); seen == nil {
			continue
		}
		d := s.memory.of(j.name).Deployment
		if j.deploying && d != nil && d.Stage == toInstall || j.looked && j.installed == nil {
			return j
		}
	}
	return nil
}

// restart restarts Home Assistant because somebody pressed the button. How it
// goes on is in the events.
func (s *Sitter) restart(works context.Context, now time.Time) error {
	switch since := now.Sub(s.restarted); {
	case !s.core.api:
		return &Refused{Code: "no_homeassistant", Sentence: "There is no Home Assistant that Certsitter could restart: it has to run as Home Assistant's app, or to know homeassistant_url and homeassistant_token."}
	case s.acting[restartCore]:
		return &Refused{Code: "busy", Sentence: "Home Assistant is being restarted already."}
	case s.unready() != nil:
		return &Refused{Code: "pair", Sentence: fmt.Sprintf("The files of %s are not a certificate with its key just now: Home Assistant would come back without HTTPS. Remove the cause, have everything looked at, and try again.", s.unready().name)}
	case !s.restarted.IsZero() && since >= 0 && since < restartEvery:
		until := s.restarted.Add(restartEvery)
		return &Refused{Code: "too_soon", Until: until, Sentence: "Home Assistant was restarted less than a minute ago. Possible again at " + clockTime(until, now) + "."}
	}
	s.restarted = now
	s.acting[restartCore] = true
	s.serviceOK(codeRestart)
	asked := s.asked(now)
	s.log.Info().Msg("Home Assistant is restarted because somebody asked for it")
	s.tellOf(asked, "Restarting Home Assistant.")
	perform := s.world.Act
	s.work(works, actLimit, "the restart of Home Assistant", func(ctx context.Context) func(time.Time) {
		err := perform(ctx, restartCore, Acted{})
		stopped := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
		return func(end time.Time) {
			delete(s.acting, restartCore)
			if err != nil && !stopped {
				s.notRestarted(end, asked, err)
			}
			if err == nil {
				s.performed(end, restartCore, now)
				for _, name := range asked {
					if s.job(name) != nil {
						s.memory.of(name).LastResult = clip("Home Assistant was restarted on " + dateOf(end) + " for the new certificate.")
					}
				}
				s.tellOf(asked, "Home Assistant has restarted. Looking at what it serves.")
			}
		}
	})
	return nil
}

// codeRestart is the problem that a restart by hand did not succeed.
const codeRestart = "restart_homeassistant"

// notRestarted takes in that a restart by hand did not succeed.
func (s *Sitter) notRestarted(now time.Time, asked []string, err error) {
	text := "Home Assistant could not be restarted: " + err.Error()
	s.log.Error().Err(err).Msg("Home Assistant could not be restarted")
	// A notice: whoever pressed the button is looking, and a late certificate is a
	// problem of its own.
	s.service(Problem{Code: codeRestart, Severity: "notice", Text: expiry.Sentence(text), Advice: "Remove the cause, or restart it in Home Assistant: Settings → System → Restart."})
	for _, name := range asked {
		if s.job(name) == nil {
			continue
		}
		s.memory.of(name).LastResult, s.dirty = clip(text), true
		s.event(now, name, "deploy_failed", clip(text))
	}
	s.lookAtCoreSoon() // it may have gone down all the same
}

// tellOf emits a step of something that is done for these certificates.
func (s *Sitter) tellOf(names []string, text string) {
	for _, name := range names {
		s.emit(Event{Name: name, Kind: "restart", Text: text})
	}
	if len(names) == 0 {
		s.emit(Event{Kind: "restart", Text: text})
	}
}

// performed takes in that an action has succeeded that began then. It counts for
// everybody who waits for the same one and was installed before: a server is
// interrupted once, not once for each certificate. A command is told which
// certificate it is for, so each has its own.
func (s *Sitter) performed(now time.Time, a settings.Action, began time.Time) {
	if a.Kind == settings.RunCommand {
		return
	}
	if a == restartCore {
		s.coreUp = now
		s.serviceOK(codeRestart)
	}
	for _, j := range s.jobs {
		if a == restartCore {
			s.wasRestarted(now, j)
		}
		d := s.memory.of(j.name).Deployment
		if d == nil || d.Stage != toAct || j.deploying || d.InstalledAt.After(began) || d.Action >= len(j.actions) || j.actions[d.Action] != a {
			continue
		}
		s.log.Info().Str("cert", j.name).Str("action", label(a)).Msg("performed for another certificate")
		after := d.acted(now, len(j.actions))
		s.memory.of(j.name).Deployment, s.dirty = &after, true
	}
}

// wasRestarted notes that Core has been restarted while it served an earlier
// certificate, and looks at what it serves now.
func (s *Sitter) wasRestarted(now time.Time, j *job) {
	if _, seen := s.coreOf(j); seen != nil && !seen.Differs.IsZero() {
		seen.Restarted, s.dirty = now, true
	}
	for _, p := range j.probes {
		if s.ofCore(p.target) {
			p.next, p.again = time.Time{}, p.busy
		}
	}
	s.lookAtCoreSoon()
}
