package sitter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew/store"
)

const (
	installLimit = 2 * time.Minute // a slow memory card, not a network
	actLimit     = 6 * time.Minute // the longest action is a restart of Home Assistant on a Raspberry Pi
)

// deployments brings every deployment one step further that can go on now.
func (s *Sitter) deployments(ctx context.Context, now time.Time) {
	for _, j := range s.jobs {
		d := s.memory.of(j.name).Deployment
		if d == nil || d.Stage == deployed || j.deploying || s.world.Manual && !j.byHand {
			continue
		}
		if now.Before(d.Next) {
			s.at(d.Next)
			continue
		}
		switch d.Stage {
		case toInstall:
			if s.holding[j.name] == 0 { // else its end is the next pass
				s.install(ctx, j, *d)
			}
		case toAct:
			s.act(ctx, now, j, *d)
		case toVerify:
			s.verify(now, j, *d)
		}
	}
}

// install puts the version in place.
func (s *Sitter) install(ctx context.Context, j *job, d deployment) {
	v := j.newest
	if v == nil || v.ID != d.Version { // it was stored by an earlier run and is gone
		s.memory.of(j.name).Deployment = nil
		s.dirty = true
		return
	}
	j.deploying = true
	s.holding[j.name]++
	stored, version, target, name, files := s.world.Store, *v, j.target, j.name, j.files
	s.work(ctx, installLimit, "the installation of "+j.name, func(context.Context) func(time.Time) {
		changed, err := stored.Install(name, version, target)
		f := found{}
		f.print.changed(s.world.Now(), files)
		f.installed = installedAt(target)
		return func(now time.Time) { s.wasInstalled(now, name, d, f, changed, err) }
	})
}

func (s *Sitter) wasInstalled(now time.Time, name string, d deployment, f found, changed bool, err error) {
	s.released(name)
	j, current := s.deploying(name, d)
	if j == nil {
		return
	}
	j.print, j.installed = f.print, f.installed
	if err != nil {
		if errors.Is(err, store.ErrStaging) { // it stays as it is until the configuration changes
			s.memory.of(name).LastResult = clip(err.Error())
		}
		s.stumbled(now, j, current, err)
		return
	}
	s.log.Info().Str("cert", name).Bool("changed", changed).Strs("files", j.files).Msg("installed")
	after := current.installed(now, len(j.actions))
	s.memory.of(name).Deployment = &after
	s.memory.of(name).Files = j.paths()
	s.dirty = true
	s.emit(Event{Name: name, Kind: "progress", Text: "Installed."})
	j.unsure = false
	s.lookAtEndpoints(j) // an endpoint that reads the files itself may serve it already
}

// act performs the next action, when its time has come.
func (s *Sitter) act(ctx context.Context, now time.Time, j *job, d deployment) {
	if len(j.actions) <= d.Action { // the configuration has fewer now
		after := d.acted(now, len(j.actions))
		s.memory.of(j.name).Deployment = &after
		s.dirty = true
		s.at(now)
		return
	}
	if !j.looked || j.looking > 0 || j.awaitsCore {
		return // whether an action is needed at all, and how much, is being looked at
	}
	// Where a certificate is served is for the configuration to say: what was found
	// by itself tells of Core alone.
	if len(j.endpoints) > 0 && s.servedEverywhere(j) {
		s.log.Info().Str("cert", j.name).Msg("every endpoint serves the new certificate: the remaining actions are left out")
		after := d.acted(now, 0)
		s.memory.of(j.name).Deployment = &after
		s.dirty = true
		s.at(now)
		return
	}
	action := j.actions[d.Action]
	if action == restartCore && s.coreServes(j, d) {
		s.log.Info().Str("cert", j.name).Msg("Home Assistant serves the new certificate already: it is not restarted")
		after := d.acted(now, len(j.actions))
		s.memory.of(j.name).Deployment = &after
		s.dirty = true
		s.at(now)
		return
	}
	if wait := s.waitFor(now, j, action); !wait.IsZero() {
		j.unsure = true
		s.waits(j, d, "The action \""+label(action)+"\" waits for the restart window, which opens at "+clockTime(wait, now)+".")
		s.at(wait)
		return
	}
	shared := action.Kind != settings.RunCommand // a command is told which certificate it is for
	if shared && s.acting[action] {
		return // for another certificate, perhaps for this one, too; its end is the next pass
	}
	if broken := s.unready(); action == restartCore && broken != nil {
		s.waits(j, d, "Home Assistant is not restarted while the files of "+broken.name+" are not a certificate with its key: it would come back without HTTPS.")
		return // what makes them whole is a pass of its own
	}
	if j.unsure { // somebody may have restarted it meanwhile, or all of the machine
		j.unsure = false
		s.lookAtEndpoints(j)
		return
	}
	if shared {
		s.acting[action] = true
	}
	j.deploying = true
	name := j.name
	facts := Acted{Name: name, Domains: j.rules.Names, CertFile: j.target.CertFile, KeyFile: j.target.KeyFile}
	s.emit(Event{Name: name, Kind: "progress", Text: "Performing: " + label(action) + "."})
	perform := s.world.Act
	s.work(ctx, actLimit, "the action "+label(action), func(ctx context.Context) func(time.Time) {
		err := perform(ctx, action, facts)
		stopped := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
		return func(end time.Time) {
			if shared {
				delete(s.acting, action)
			}
			j, current := s.deploying(name, d)
			if err == nil {
				defer s.performed(end, action, now)
			}
			if j == nil || stopped {
				return // it is performed again after the restart
			}
			now := end
			if err != nil {
				s.stumbled(now, j, current, fmt.Errorf("%s: %w", label(action), err))
				return
			}
			s.log.Info().Str("cert", name).Str("action", label(action)).Msg("performed")
			after := current.acted(now, len(j.actions))
			s.memory.of(name).Deployment = &after
			s.dirty = true
			s.save()
		}
	})
}

// label is an action for people and logs. Of a command it is the program alone:
// its arguments may hold secrets.
func label(a settings.Action) string {
	if a.Kind != settings.RunCommand {
		return a.String()
	}
	program, _, more := strings.Cut(a.Argument, " ")
	if more {
		program += " …"
	}
	return string(a.Kind) + " " + program
}

// deploying ends the step that was under way: the job and its deployment, if it
// is still the same one.
func (s *Sitter) deploying(name string, d deployment) (*job, deployment) {
	j := s.job(name)
	if j == nil {
		return nil, d
	}
	j.deploying = false
	current := s.memory.of(name).Deployment
	if current == nil || current.Version != d.Version || current.Stage != d.Stage {
		return nil, d // a newer version has taken its place
	}
	return j, *current
}

// stumbled takes in that an installation or an action did not succeed. Who is
// only not up yet is asked again, and has not failed.
func (s *Sitter) stumbled(now time.Time, j *job, d deployment, err error) {
	after := d.failed(now, err)
	j.unsure = true
	s.memory.of(j.name).Deployment = &after
	s.dirty = true
	if s.world.NotUp != nil && s.world.NotUp(err) {
		s.log.Info().Err(err).Str("cert", j.name).Time("retry", after.Next).Msg("deployment waits")
		return
	}
	s.log.Error().Err(err).Str("cert", j.name).Time("retry", after.Next).Msg("deployment failed")
	if !d.Told {
		after.Told = true
		s.event(now, j.name, "deploy_failed", clip("The new certificate could not be brought into use: "+err.Error()))
	}
}

// waitFor is when an interrupting action may be performed; zero = now. Nobody
// waits for a window with little life left, or when the CA is about to revoke.
func (s *Sitter) waitFor(now time.Time, j *job, action settings.Action) time.Time {
	window, zone := s.settings.RestartWindow, s.settings.Location
	if window.IsZero() || !action.Interrupts() || window.Contains(now, zone) || s.memory.of(j.name).Deployment.Urgent {
		return time.Time{}
	}
	if c := s.inForce(now, j); c == nil || s.scarce(now, j, c) { // what is served may be near its end
		return time.Time{}
	}
	return window.Next(now, zone)
}

// scarce: less life is left than people are warned below.
func (s *Sitter) scarce(now time.Time, j *job, c *expiry.Certificate) bool {
	return c.Left(now) < expiry.Scale(j.warnDays, c.Lifetime())
}

func (s *Sitter) waits(j *job, d deployment, sentence string) {
	if d.Waiting == sentence {
		return
	}
	d.Waiting = sentence
	s.memory.of(j.name).Deployment = &d
	s.dirty = true
	s.log.Info().Str("cert", j.name).Msg(sentence)
	s.emit(Event{Name: j.name, Kind: "waiting", Text: sentence})
}

// verify looks at what is served once the last action has ended.
func (s *Sitter) verify(now time.Time, j *job, d deployment) {
	if j.awaitsCore {
		return // whether Core serves it is being looked at
	}
	places := s.places(j)
	if len(places) == 0 || s.servedEverywhere(j) {
		d.Stage = deployed
		s.memory.of(j.name).Deployment = &d
		s.dirty = true
		text := "The new certificate is in place."
		if len(places) > 0 {
			text = "Every endpoint serves the new certificate."
		}
		s.event(now, j.name, "deployed", text)
		return
	}
	at, more := d.nextLook()
	if j.looking > 0 {
		return
	}
	if !more {
		s.unseen(now, j, d)
		return
	}
	if now.Before(at) {
		s.at(at)
		return
	}
	d.Look++
	s.memory.of(j.name).Deployment = &d
	s.dirty = true
	s.lookAtEndpoints(j)
}

// unseen ends a deployment whose endpoints cannot be seen to serve it: they are
// not reached from here, or somebody else's certificate stands before them. One
// that still serves an earlier one of ours goes on being looked at.
func (s *Sitter) unseen(now time.Time, j *job, d deployment) {
	for _, address := range s.places(j) {
		if served := s.served(j.name, address, j.installed); served.Certificate != nil && served.Known && !served.Same {
			return
		}
	}
	d.Stage = deployed
	s.memory.of(j.name).Deployment = &d
	s.dirty = true
	s.event(now, j.name, "deployed", "The new certificate is in place. It could not be seen at every endpoint.")
}

// servedEverywhere: there are endpoints, and each was seen to serve what is
// installed since the deployment began.
func (s *Sitter) servedEverywhere(j *job) bool {
	e, places := s.memory.of(j.name), s.places(j)
	if len(places) == 0 || e.Deployment == nil {
		return false
	}
	for _, address := range places {
		seen := e.Endpoints[address]
		if seen == nil || seen.Fingerprint != e.Deployment.Fingerprint || seen.Error != "" {
			return false
		}
	}
	return true
}

// recover completes what a crash has cut off, before anything else.
func (s *Sitter) recover(name string, target store.Target) {
	switch changed, err := s.world.Store.Recover(name, target); {
	case err != nil:
		s.log.Error().Err(err).Str("cert", name).Msg("cannot complete the installation that was cut off")
	case changed:
		s.log.Info().Str("cert", name).Msg("completed an installation that was cut off")
	}
}
