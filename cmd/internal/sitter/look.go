package sitter

import (
	"context"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/directory"
	"github.com/certsitter/certsitter/renew/store"
)

const (
	// filesEvery is how often files are read: certificates are small, and another
	// client may have renewed one.
	filesEvery = 5 * time.Minute
	// endpointsEvery is how often endpoints are looked at; endpointsSoon while
	// something is wrong with them.
	endpointsEvery = 6 * time.Hour
	endpointsSoon  = 30 * time.Minute
	probeLimit     = 30 * time.Second // STARTTLS dialogues included
	// probesAtATime leaves sockets and memory for the rest: more brings little without latency.
	probesAtATime = 8
	// askEvery is how often the time is asked for while the clock is insane.
	askEvery = 10 * time.Minute
	askLimit = time.Minute
)

// look reads files and asks endpoints and CAs, each when its time has come.
func (s *Sitter) look(ctx context.Context, now time.Time) {
	for _, j := range s.jobs {
		if j.reading.IsZero() && !j.deploying && (!j.looked || !now.Before(j.lookAt) || now.Before(j.lookedAt)) {
			s.lookAtFiles(ctx, now, j)
		}
		if j.reading.IsZero() && !j.deploying { // the end of either is the next pass
			s.at(j.lookAt)
		}
		s.atLimit(now, j.reading)
		s.askARI(ctx, now, j)
		s.probeDue(ctx, now, j.name, j.probes)
	}
	s.lookAtCore(ctx, now)
	for _, w := range s.watched {
		s.lookAtWatched(ctx, now, w)
		if w.busy {
			s.atLimit(now, w.began)
		}
	}
	s.checkOver()
	if s.lookedAtAll() && now.Sub(s.memory.LastCheck).Abs() >= roundEvery {
		s.memory.LastCheck, s.dirty = now, true
	}
}

// atLimit asks for a pass when a reading that began then is waited for no longer.
func (s *Sitter) atLimit(now, began time.Time) {
	if limit := began.Add(probeLimit); limit.After(now) {
		s.at(limit)
	}
}

// roundEvery is how often a round of looks is noted as the last check: each of
// them changes a sensor.
const roundEvery = time.Hour

// lookedAtAll: there is something to say of every certificate, from this run or
// an earlier one.
func (s *Sitter) lookedAtAll() bool {
	now := s.world.Now()
	for _, j := range s.jobs {
		if !j.looked && (j.reading.IsZero() || now.Sub(j.reading) < probeLimit) {
			return false
		}
	}
	for _, w := range s.watched {
		if w.busy && now.Sub(w.began) >= probeLimit {
			continue // it hangs, and that is what is to be said
		}
		if e := s.memory.of(w.name); e.Seen == nil && e.Unreadable == "" && len(e.Endpoints) == 0 {
			return false
		}
	}
	return true
}

// found is what a look at a managed certificate's files brought.
type found struct {
	print      footprint
	same       bool // nothing changed since the last look: the rest is empty
	adopted    bool
	version    renew.Version // that was adopted
	adoptError error
	installed  *expiry.Certificate
}

// lookAtFiles reads what is at the certificate's paths: it may be missing,
// older, or a newer one that somebody else made. It is done beside the loop,
// since a disk or a share may hang. The first look completes an installation that
// was cut off: until it is over nothing else is done with the files.
func (s *Sitter) lookAtFiles(ctx context.Context, now time.Time, j *job) {
	j.reading, j.again = now, false
	name, target, names, roots, files, print := j.name, j.target, j.rules.Names, j.roots, j.files, j.print
	stored, first := s.world.Store, !j.looked && !s.world.Manual
	s.holding[name]++
	s.work(ctx, probeLimit, "reading the files of "+name, func(context.Context) func(time.Time) {
		if first {
			s.recover(name, target)
		}
		f := found{print: print}
		if f.same = !f.print.changed(now, files); !f.same {
			f.version, f.adopted, f.adoptError = stored.Adopt(name, target, names, roots, now)
			f.installed = installedAt(target)
		}
		return func(now time.Time) { s.foundFiles(now, j, f) }
	})
}

// foundFiles takes in what a look brought.
func (s *Sitter) foundFiles(now time.Time, j *job, f found) {
	s.released(j.name)
	if s.job(j.name) != j {
		return // there is another configuration, which looks itself
	}
	j.reading, j.looked, j.lookedAt, j.lookAt = time.Time{}, true, now, now.Add(filesEvery)
	if j.again {
		j.lookAt = now
	}
	if d := s.memory.of(j.name).Deployment; f.same || j.deploying && d != nil && d.Stage == toInstall {
		return // what is being installed is read at its end
	}
	j.print, j.installed = f.print, f.installed
	if f.adoptError != nil {
		s.log.Warn().Err(f.adoptError).Str("cert", j.name).Msg("cannot adopt what is installed")
	}
	if f.adopted {
		s.adopted(now, j, f.version)
	}
	s.redeploy(now, j)
}

// adopted makes a certificate that somebody else made and installed ours.
func (s *Sitter) adopted(now time.Time, j *job, v renew.Version) {
	e := s.memory.of(j.name)
	replaced := j.newest != nil
	j.newest = &v
	e.remember(v.Fingerprint)
	e.ARI, e.Deployment, e.Files = ariMemory{}, nil, j.paths()
	e.Foreign = replaced
	e.Record = e.Record.Succeeded(now)
	e.LastResult = clip("Took over the certificate that was there, valid until " + dateOf(v.NotAfter) + ".")
	if replaced {
		e.LastResult = clip("Another client has renewed it; its certificate was taken over, valid until " + dateOf(v.NotAfter) + ".")
	}
	s.dirty = true
	s.log.Info().Str("cert", j.name).Msg(e.LastResult)
}

// installedAt reads the pair in place: nil if there is none that can be used.
func installedAt(t store.Target) *expiry.Certificate {
	c, _, err := store.Installed(t)
	if err != nil {
		return nil
	}
	return c
}

// redeploy begins a deployment if the newest version is not what is in place.
func (s *Sitter) redeploy(now time.Time, j *job) {
	e := s.memory.of(j.name)
	if j.newest == nil || e.Deployment != nil && e.Deployment.Stage == toInstall && e.Deployment.Version == j.newest.ID {
		return
	}
	complete := j.installed != nil && j.installed.Fingerprint() == j.newest.Fingerprint && j.samePaths(e.Files)
	if complete {
		return
	}
	s.log.Info().Str("cert", j.name).Str("version", j.newest.ID).Msg("the newest version is not installed")
	e.Deployment = &deployment{Version: j.newest.ID, Fingerprint: j.newest.Fingerprint, Stage: toInstall, StartedAt: now}
	s.dirty = true
}

// ariRetries are the waits after the first, second, … question without an answer.
var ariRetries = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

const (
	ariLimit   = 45 * time.Second
	ariUnknown = 24 * time.Hour // the CA does not know the certificate
)

// askARI asks the CA when to renew. A CA that gives no answer is no trouble:
// the certificate's age decides as well.
func (s *Sitter) askARI(ctx context.Context, now time.Time, j *job) {
	v := j.newest
	if v == nil || v.CertID == "" || j.asking || !now.Before(v.NotAfter) || s.world.Manual {
		return
	}
	e := s.memory.of(j.name)
	if e.ARI.CertID != v.CertID {
		e.ARI = ariMemory{CertID: v.CertID}
	}
	if now.Before(e.ARI.Next) {
		s.at(e.ARI.Next)
		return
	}
	if s.asksOpen >= probesAtATime {
		return // the end of one is the next pass
	}
	s.asksOpen++
	url, roots, name, id := v.Directory, j.order.Roots, j.name, v.CertID
	if url == "" {
		url = j.rules.Directory // adopted: the configured CA may know it
	}
	j.asking = true
	known := s.metadata[url]
	s.work(ctx, ariLimit, "the question for renewal information", func(ctx context.Context) func(time.Time) {
		known, window, err := s.renewalInfo(ctx, known, url, id, roots)
		return func(now time.Time) {
			s.asksOpen--
			if known.at.After(s.metadata[url].at) { // it was read just now
				s.metadata[url] = known
				s.heardDate(now, known.Date)
			}
			s.advised(now, name, id, window, err)
		}
	})
}

// metadata is a directory and when it was read.
type metadata struct {
	directory.Directory
	at time.Time
}

// metadataFor is how long a directory is believed.
const metadataFor = 24 * time.Hour

// errNoARI: the CA has no renewal information.
var errNoARI = errors.New("the CA gives no renewal information")

func (s *Sitter) renewalInfo(ctx context.Context, known metadata, url, id string, roots []byte) (metadata, directory.Window, error) {
	if now := s.world.Now(); known.at.IsZero() || now.Sub(known.at).Abs() > metadataFor {
		d, err := s.world.CA.Directory(ctx, url, roots)
		if err != nil {
			return known, directory.Window{}, err
		}
		known = metadata{d, now}
	}
	if known.RenewalInfo == "" {
		return known, directory.Window{}, errNoARI
	}
	window, err := s.world.CA.RenewalInfo(ctx, known.RenewalInfo, id, roots)
	return known, window, err
}

// advised takes in the CA's answer, or that there was none.
func (s *Sitter) advised(now time.Time, name, id string, w directory.Window, err error) {
	j := s.job(name)
	if j == nil {
		return
	}
	j.asking = false
	e := s.memory.of(name)
	if e.ARI.CertID != id {
		return // it was replaced meanwhile
	}
	s.dirty = true
	if err != nil {
		wait := ariRetries[min(e.ARI.Errors, len(ariRetries)-1)]
		if errors.Is(err, errNoARI) || errors.Is(err, directory.ErrNotFound) {
			wait = ariUnknown
		}
		e.ARI.Errors++
		e.ARI.Next = now.Add(wait)
		s.log.Debug().Err(err).Str("cert", name).Msg("no renewal information")
		return
	}
	s.heardDate(now, w.Date)
	window := renew.Window{Start: w.Start, End: w.End, Explanation: w.Explanation}
	if window != e.ARI.Window {
		s.log.Info().Str("cert", name).Time("start", w.Start).Time("end", w.End).Str("explanation", w.Explanation).Msg("the CA's advice on when to renew")
	}
	e.ARI.Window, e.ARI.Errors, e.ARI.Next = window, 0, now.Add(w.RetryAfter)
}

// probing is one endpoint of the loop's, with when to look again.
type probing struct {
	address string
	target  probe.Target
	next    time.Time
	busy    bool
	again   bool // it is to be looked at once more, since something changed meanwhile
}

// probeDue looks at the endpoints whose time has come.
func (s *Sitter) probeDue(ctx context.Context, now time.Time, name string, all []*probing) {
	for _, p := range all {
		if p.busy {
			continue
		}
		if now.Before(p.next) {
			s.at(p.next)
			continue
		}
		if s.probesOpen >= probesAtATime {
			return // the end of one is the next pass
		}
		s.probe(ctx, now, name, p)
	}
}

func (s *Sitter) probe(ctx context.Context, now time.Time, name string, p *probing) {
	p.busy = true
	s.probesOpen++
	target, roots, run := p.target, s.rootsOf(name), s.world.Probe
	s.work(ctx, probeLimit, "the look at "+p.address, func(ctx context.Context) func(time.Time) {
		result, err := run(ctx, target, now, probe.Options{Roots: roots})
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return func(time.Time) { s.probesOpen-- }
		}
		return func(now time.Time) {
			s.probesOpen--
			p.busy = false
			s.probed(now, name, p, result, err)
		}
	})
}

// probed takes in what was served.
func (s *Sitter) probed(now time.Time, name string, p *probing, r probe.Result, err error) {
	p.next = s.saw(now, name, p.address, r, err)
	if p.again { // what was seen is from before
		p.again, p.next = false, time.Time{}
		return
	}
	if j := s.job(name); j != nil {
		j.looking = max(j.looking-1, 0)
	}
}

// remembered is a certificate for state.json, with the first one of its chain: a
// server that sends no chain is told from one whose CA nobody knows, after a
// restart too.
func remembered(c *expiry.Certificate) []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw})
	if len(c.Chain) > 0 {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Chain[0].Raw})...)
	}
	return text
}

// saw remembers what was served at an address, and says when to look again.
func (s *Sitter) saw(now time.Time, name, address string, r probe.Result, err error) (next time.Time) {
	e := s.memory.of(name)
	j := s.job(name)
	s.dirty = true
	if e.Endpoints == nil {
		e.Endpoints = map[string]*sighting{}
	}
	seen := e.Endpoints[address]
	if seen == nil {
		seen = &sighting{}
		e.Endpoints[address] = seen
	}
	if err != nil {
		if seen.Failing.IsZero() {
			seen.Failing = now
		}
		seen.Error = err.Error()
		s.log.Debug().Err(err).Str("cert", name).Str("endpoint", address).Msg("not reached")
		return now.Add(s.soon(now, j, address))
	}
	next = now.Add(spread(endpointsEvery, address))
	fingerprint := r.Certificate.Fingerprint()
	differs, restarted := seen.Differs, time.Time{}
	if j != nil && j.installed != nil && fingerprint != j.installed.Fingerprint() {
		if differs.IsZero() {
			differs = now
		}
		if fingerprint == seen.Fingerprint {
			restarted = seen.Restarted
		}
		next = now.Add(s.soon(now, j, address))
	} else {
		differs = time.Time{}
	}
	*seen = sighting{
		Found: seen.Found, Restarted: restarted,
		Fingerprint: fingerprint, Seen: now, Differs: differs,
		PEM:        remembered(r.Certificate),
		NameError:  sentenceOf(r.NameError),
		ChainError: sentenceOf(r.ChainError),
	}
	s.parsed[name+" "+address] = r.Certificate
	if j != nil && differs.IsZero() {
		if at, _ := s.coreOf(j); at == address {
			s.serviceOK(codeRestart) // it has started all the same
		}
	}
	return next
}

// soon is when to look again at an address with which something is wrong.
func (s *Sitter) soon(now time.Time, j *job, address string) time.Duration {
	if j == nil {
		return endpointsSoon
	}
	if at, seen := s.coreOf(j); seen == nil || at != address {
		return endpointsSoon
	}
	if since := now.Sub(s.coreUp); !s.coreUp.IsZero() && since >= 0 && since < coreStarting {
		return coreAfter
	}
	return coreSoon
}

// lookAtEndpoints makes every endpoint of the job due now, and Core's own address
// with them, where somebody may have let it use the files.
func (s *Sitter) lookAtEndpoints(j *job) {
	j.looking = len(j.probes)
	for _, p := range j.probes {
		p.next, p.again = time.Time{}, p.busy
	}
	if s.finds(j) {
		j.awaitsCore = true
		s.lookAtCoreSoon()
	}
	s.at(s.world.Now())
}

// lookAtWatched looks at a certificate that somebody else renews.
func (s *Sitter) lookAtWatched(ctx context.Context, now time.Time, w *watch) {
	if w.probe != nil {
		s.probeDue(ctx, now, w.name, []*probing{w.probe})
		return
	}
	if w.busy {
		return
	}
	if now.Before(w.next) {
		s.at(w.next)
		return
	}
	w.busy, w.began = true, now
	read, path, password, name, print := s.world.Read, w.path, w.password, w.name, w.print
	s.work(ctx, probeLimit, "reading "+w.path, func(context.Context) func(time.Time) {
		if !changed(&print, now, path) {
			return func(now time.Time) { s.unchanged(now, name) }
		}
		c, err := earliestOf(path, password, read)
		return func(now time.Time) { s.read(now, name, print, c, err) }
	})
}

func (s *Sitter) unchanged(now time.Time, name string) {
	if w := s.watch(name); w != nil {
		w.busy, w.next = false, now.Add(filesEvery)
	}
}

// changed: the watched file may have changed. What a glob stands for is always
// looked for.
func changed(print *footprint, now time.Time, path string) bool {
	return print.changed(now, []string{path}) || strings.ContainsAny(path, "*?[")
}

// earliestOf reads the certificates that a path or a glob stands for and gives
// the one that expires first.
func earliestOf(path, password string, read func(string, string) (*expiry.Certificate, error)) (*expiry.Certificate, error) {
	files, err := probe.Glob(path)
	if err != nil {
		return nil, err
	}
	var first *expiry.Certificate
	var errs []error
	for _, file := range files {
		c, err := read(file, password)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if first == nil || c.Leaf.NotAfter.Before(first.Leaf.NotAfter) {
			first = c
		}
	}
	if first == nil || len(errs) > 0 && len(files) == 1 {
		return nil, errors.Join(errs...)
	}
	return first, nil
}

// read takes in the certificate of a watched file.
func (s *Sitter) read(now time.Time, name string, print footprint, c *expiry.Certificate, err error) {
	w := s.watch(name)
	if w == nil {
		return
	}
	w.busy, w.next, w.print = false, now.Add(filesEvery), print
	e := s.memory.of(name)
	if err != nil {
		w.print.forget()
		if e.Unreadable == "" {
			e.Since = now
			s.dirty = true
		}
		e.Unreadable = err.Error()
		return
	}
	if e.Unreadable != "" || e.Seen == nil || w.current == nil || c.Fingerprint() != w.current.Fingerprint() {
		e.Unreadable, e.Since = "", time.Time{}
		e.Seen = &seen{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw}), At: now}
		s.dirty = true
	}
	w.current = c
}

// checkAll makes everything due now. done hears when all of it has come back.
func (s *Sitter) checkAll(done chan error) {
	for _, j := range s.jobs {
		j.lookAt, j.again = time.Time{}, !j.reading.IsZero()
		j.print.forget()
		s.lookAtEndpoints(j)
	}
	for _, w := range s.watched {
		w.next = time.Time{}
		w.print.forget()
		if w.probe != nil {
			w.probe.next = time.Time{}
		}
	}
	s.lookAtCoreSoon()
	s.awaiting = append(s.awaiting, done)
	s.checking = true
}

// checkOver ends a check once every look has come back.
func (s *Sitter) checkOver() {
	if !s.checking || s.probesOpen > 0 {
		return
	}
	now := s.world.Now()
	for _, j := range s.jobs {
		if !j.reading.IsZero() && now.Sub(j.reading) < probeLimit || s.finds(j) && !now.Before(s.core.next) {
			return
		}
		for _, p := range j.probes {
			if !now.Before(p.next) {
				return
			}
		}
	}
	for _, w := range s.watched {
		if w.busy && now.Sub(w.began) < probeLimit || w.probe == nil && !w.busy && !now.Before(w.next) || w.probe != nil && !now.Before(w.probe.next) {
			return
		}
	}
	s.checking = false
	s.memory.LastCheck, s.dirty = now, true
	s.answerChecks = true
	s.emit(Event{Kind: "checked", Text: "Looked at everything."})
}

// askTime asks the CA for the time while the clock is doubtful or insane.
func (s *Sitter) askTime(ctx context.Context, now time.Time) {
	if s.clock.sane() {
		s.serviceOK("clock")
		if !s.clock.unproven {
			return
		}
	}
	if s.clock.blind() {
		s.service(Problem{Code: "clock", Severity: "unknown",
			Text:   "The clock has been wrong for more than an hour, so nothing is judged, renewed or sent.",
			Advice: "Set the time, or let this machine reach an NTP server."})
	}
	if s.asking {
		return
	}
	if next := s.askedAt + askEvery; s.askedAt != 0 && s.clock.mono < next {
		s.at(now.Add(next - s.clock.mono))
		return
	}
	s.asking, s.askedAt = true, max(s.clock.mono, 1)
	url, roots := s.timeSource()
	s.work(ctx, askLimit, "the question for the time", func(ctx context.Context) func(time.Time) {
		date, err := s.world.CA.Time(ctx, url, roots, s.world.Build)
		return func(now time.Time) {
			s.asking = false
			if err != nil {
				s.log.Warn().Err(err).Msg("the time could not be asked for")
				s.clock.unheard()
				return
			}
			s.heardDate(now, date)
		}
	})
}

// heardDate takes in a Date that a CA sent over verified TLS.
func (s *Sitter) heardDate(now, date time.Time) {
	if date.IsZero() {
		return
	}
	s.clock.heard(now, date)
	if s.clock.sane() && !s.clock.unproven {
		s.askedAt = 0
	}
}
