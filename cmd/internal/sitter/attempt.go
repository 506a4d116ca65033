package sitter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/store"
)

// place is where an order is made: the configured CA, or its staging
// environment for a trial.
type place struct {
	directory string
	account   string // directory and EAB kid: whose limits it counts against
	kid       string
	trial     bool
	keep      bool // the certificate is kept (a trial's in the scratch store)
}

// place is where a renewal with these options goes.
func (j *job) place(o RenewOptions) place {
	if o.Staging || o.DryRun {
		at := place{directory: j.stagingDirectory, trial: true, keep: o.Staging}
		if j.stagingDirectory == j.rules.Directory { // a private CA is its own staging
			at.kid = j.order.EABKid
		}
		at.account = accountKey(at.directory, at.kid)
		return at
	}
	return place{directory: j.rules.Directory, kid: j.order.EABKid, account: accountKey(j.rules.Directory, j.order.EABKid), keep: true}
}

func accountKey(directory, kid string) string { return directory + " " + kid }

// decide says when the job's certificate is renewed next.
func (s *Sitter) decide(now time.Time, j *job) renew.Decision {
	return renew.Decide(now, s.factsAt(now, j, j.place(RenewOptions{})), s.memory.of(j.name).Record, j.rules)
}

func (s *Sitter) factsAt(now time.Time, j *job, at place) renew.Facts {
	e := s.memory.of(j.name)
	f := renew.Facts{
		Newest:     j.newest,
		Covers:     j.newest != nil && j.newest.Covers(j.rules.Names),
		RetryAfter: s.memory.Directories[at.directory],
		Attempts:   s.memory.attemptsOf(now, at.account, j.rules.Names),
	}
	if j.newest != nil && e.ARI.CertID == j.newest.CertID {
		f.Window = e.ARI.Window
	}
	f.Revoked = j.newest != nil && e.Revoked == j.newest.Fingerprint
	if !at.trial {
		f.Issuances = j.issuances
		if e.Record.RetryAfter.After(f.RetryAfter) {
			f.RetryAfter = e.Record.RetryAfter
		}
	}
	return f
}

// renewals begins every attempt that is to be made.
func (s *Sitter) renewals(ctx context.Context, now time.Time) {
	for _, j := range s.jobs {
		if j.running || !j.looked {
			continue
		}
		if j.asked == nil && s.world.Manual {
			continue
		}
		if d := s.decide(now, j); j.asked == nil && !d.Now(now) {
			s.at(d.At)
			continue
		}
		if len(s.running) >= s.world.Workers || s.running[j.slot] != "" {
			continue // the end of the one that runs is the next pass
		}
		s.countIssuances(now, j) // only now: it reads what is stored
		if j.asked == nil {
			if d := s.decide(now, j); !d.Now(now) {
				s.at(d.At)
				continue
			}
			s.attempt(ctx, now, j, RenewOptions{})
			continue
		}
		o := *j.asked
		if until, why := renew.Guard(now, s.factsAt(now, j, j.place(o)), j.rules); !until.IsZero() {
			j.asked = nil // it waited for another one, after which the CA may have asked for quiet
			s.refuse(j.name, o, guardRefusal(why, until, now))
			continue
		}
		if d := s.decide(now, j); d.Reason == renew.Fresh && !o.Force && !o.Staging && !o.DryRun {
			j.asked = nil // what is installed was not known yet when it was asked for
			s.refuse(j.name, o, notDue(d, now))
			continue
		}
		s.attempt(ctx, now, j, o)
	}
}

// attempt begins one renewal: what would make it fail for certain is looked at
// first, then it is remembered, then it begins.
func (s *Sitter) attempt(ctx context.Context, now time.Time, j *job, o RenewOptions) {
	byHand := j.asked != nil
	j.asked = nil
	at := j.place(o)
	e := s.memory.of(j.name)
	before := e.Record
	if !at.trial || byHand {
		e.Record = e.Record.Begin(now, byHand)
	}
	s.memory.began(attempt{At: now, Account: at.account, Names: j.rules.Names})
	s.dirty = true
	if s.save(); s.dirty { // an attempt that cannot be remembered is not made: a crash loop must not spend the CA's limits
		e.Record = before
		s.memory.neverBegan(now, at.account)
		if byHand {
			s.refuse(j.name, o, &Refused{Code: "state", Sentence: "Nothing can be remembered in the state folder, so nothing is ordered. Make room in it, or make it writable."})
		}
		s.at(now.Add(time.Minute))
		return
	}
	j.running, j.step = true, "begins"
	s.running[j.slot] = j.name
	begins := startSentence(s.decide(now, j).Reason, byHand, at)
	s.log.Info().Str("cert", j.name).Strs("names", j.rules.Names).Msg(begins)
	s.emit(Event{Name: j.name, Kind: "started", Text: begins})
	request := j.order
	request.Directory, request.EABKid = at.directory, at.kid
	if at.kid == "" {
		request.EABHMAC = ""
	}
	if v := j.newest; v != nil && !at.trial && v.Directory == at.directory {
		request.Replaces = v.CertID
	}
	order := ordering{
		world: s.world, job: j, at: at, request: request,
		newest: j.newest, fresh: e.Revoked != "", begun: now,
		progress: func(p renew.Progress) { s.progress(j.name, p) },
	}
	s.work(ctx, j.limit(), "the renewal of "+j.name, order.run(s))
}

// Limits of an attempt: an order of many names over slow DNS needs its time, and
// the end must come before the next attempt.
const (
	limitBase    = 5 * time.Minute
	limitPerName = time.Minute
	limitDNS     = 30 * time.Minute // for a provider's interface, besides the waits that are known
	limitWaits   = 24 * time.Hour   // whatever is configured
)

func (j *job) limit() time.Duration {
	names := len(j.rules.Names)
	limit := limitBase + time.Duration(names)*limitPerName
	if j.order.Challenge == renew.DNS01 {
		limit += limitDNS + recordWaits(j.order.Provider, j.order.Env, names)
	}
	return limit
}

// recordWaits is how long an order of so many names waits at most until its DNS
// records are seen: as long as the provider needs, or the configuration says by
// the provider's variables; once for all of them, or where the provider holds one
// record at a time, once for each and with a rest between.
func recordWaits(code string, env map[string]string, names int) time.Duration {
	p, _ := providers.ByCode(code)
	wait := seconds(p, env, "_PROPAGATION_TIMEOUT", cmp.Or(p.Propagation, 2*time.Minute)) // where its code does not say: twice lego's usual
	if p.Sequence > 0 {
		wait = time.Duration(names) * min(limitWaits, wait+seconds(p, env, "_SEQUENCE_INTERVAL", p.Sequence))
	}
	return min(limitWaits, wait)
}

// seconds is the longest time that a variable with this ending gives, read as
// lego does; usual without one. Some providers have several names for a variable.
// One that is not known to be the provider's makes nothing shorter.
func seconds(p providers.Provider, env map[string]string, ending string, usual time.Duration) time.Duration {
	longest := time.Duration(-1)
	for name, text := range env {
		if !strings.HasSuffix(name, ending) {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			continue
		}
		if given := time.Duration(min(n, int(limitWaits/time.Second))) * time.Second; given > usual || p.Knows(name) {
			longest = max(longest, given)
		}
	}
	if longest < 0 {
		return usual
	}
	return longest
}

// progress takes a step of an order into the loop. It is called from beside the
// loop and never waits: an order must not stand still because the loop is busy.
func (s *Sitter) progress(name string, p renew.Progress) {
	step := func(time.Time) {
		if j := s.job(name); j != nil && j.running {
			j.step = p.Text
		}
		s.emit(Event{Name: name, Kind: "progress", Text: p.Text})
	}
	select {
	case s.steps <- step:
	default:
	}
}

// ordering is one attempt, run beside the loop. It touches nothing of the
// loop's but through what it returns.
type ordering struct {
	world    World
	job      *job // only what configure made, which never changes
	at       place
	request  renew.OrderRequest
	newest   *renew.Version
	fresh    bool // the key in force must not be used again
	begun    time.Time
	progress func(renew.Progress)
}

// run makes the order and gives what it means for the loop.
func (o ordering) run(s *Sitter) func(context.Context) func(time.Time) {
	return func(ctx context.Context) func(time.Time) {
		version, err := o.order(ctx)
		// A service manager may signal the worker before it signals us.
		stopped := ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) || errors.Is(err, worker.ErrStopped)
		return func(now time.Time) { s.attempted(now, o, version, err, stopped) }
	}
}

// order keeps what must survive a crash before each step that depends on it:
// the account's key, the certificate's key, the account's URL, the order's URL.
func (o ordering) order(ctx context.Context) (renew.Version, error) {
	if err := o.job.target.Check(); err != nil && !o.at.trial {
		return renew.Version{}, &unasked{err}
	}
	stored, err := o.store()
	if err != nil {
		return renew.Version{}, err
	}
	account, err := stored.Account(o.at.directory, o.at.kid)
	if err != nil {
		return renew.Version{}, fmt.Errorf("prepare account: %w", err)
	}
	want := o.job.want
	want.Directory, want.EABKid = o.at.directory, o.at.kid
	want.Staging = o.job.rules.Staging || (o.at.trial && !o.job.rules.Private)
	want.ReuseKey = want.ReuseKey && !o.fresh
	pending, err := stored.Prepare(o.job.name, want)
	if err != nil {
		return renew.Version{}, fmt.Errorf("prepare key: %w", err)
	}
	answers, err := o.answers(ctx)
	if err != nil {
		return renew.Version{}, err
	}
	if answers != nil {
		defer answers.Close()
	}
	request := o.request
	request.AccountKey, request.AccountURL = account.Key, account.URL
	request.CSR, request.OrderURL = pending.CSR, pending.OrderURL
	if o.newest != nil && o.newest.AccountURL != account.URL {
		request.Replaces = "" // RFC 9773 §5: only the account that ordered it may replace it
	}
	accountURL := account.URL
	issued, err := o.world.Issue(ctx, request, worker.Handler{
		Present: func(ctx context.Context, c []renew.Challenge) error {
			if answers == nil {
				return errors.New("no challenge was to be answered by this machine")
			}
			return answers.Present(ctx, c)
		},
		Account: func(_ context.Context, url string) error {
			accountURL = url
			return stored.SetAccountURL(o.at.directory, o.at.kid, url)
		},
		Placed: func(_ context.Context, url string) error {
			return stored.Placed(o.job.name, accountURL, url)
		},
		Progress: o.progress,
	})
	if err != nil {
		return renew.Version{}, o.cleanUp(stored, err)
	}
	if !o.at.keep {
		return renew.Version{Names: want.Names}, stored.Drop(o.job.name)
	}
	version, err := stored.Add(o.job.name, issued, o.world.Now())
	if errors.Is(err, store.ErrUnfit) { // the CA would hand out the same one again
		return renew.Version{}, fmt.Errorf("store certificate: %w", errors.Join(err, stored.Drop(o.job.name)))
	}
	if err != nil {
		return renew.Version{}, fmt.Errorf("store certificate: %w", err)
	}
	return version, nil
}

// unasked is a failure before anything was asked of the CA.
type unasked struct{ error }

func (u *unasked) Unwrap() error { return u.error }

// store is the real one, or the scratch store of a trial.
func (o ordering) store() (*store.Store, error) {
	if !o.at.trial {
		return o.world.Store, nil
	}
	scratch, err := o.world.Store.Scratch("staging")
	if err != nil {
		return nil, fmt.Errorf("open scratch store: %w", err)
	}
	return scratch, nil
}

// answers binds the port or looks at the webroot before anything is ordered.
func (o ordering) answers(ctx context.Context) (Answers, error) {
	if o.request.Challenge == renew.DNS01 {
		return nil, nil
	}
	answers, err := o.world.Answer(ctx, o.request.Challenge, o.job.webroot, o.job.rules.Names)
	if err != nil {
		return nil, &unasked{localFault(renew.StepPresent, err)}
	}
	return answers, nil
}

// cleanUp forgets what the CA no longer knows.
func (o ordering) cleanUp(stored *store.Store, err error) error {
	fault, ok := errors.AsType[*renew.Fault](err)
	if !ok {
		return err
	}
	if fault.AccountGone {
		err = errors.Join(err, stored.SetAccountURL(o.at.directory, o.at.kid, ""))
	}
	if fault.OrderGone {
		err = errors.Join(err, stored.DropOrder(o.job.name))
	}
	return err
}

// localFault is a fault of this machine: nothing was asked of the CA.
func localFault(step string, err error) *renew.Fault {
	return &renew.Fault{Problems: []renew.Problem{{Step: step, Detail: err.Error()}}}
}

// attempted takes in how an attempt ended.
func (s *Sitter) attempted(now time.Time, o ordering, v renew.Version, err error, stopped bool) {
	j := s.job(o.job.name)
	delete(s.running, o.job.slot)
	for _, other := range s.jobs {
		other.counted = false // another one for the same names counts, too
	}
	if _, ok := errors.AsType[*unasked](err); ok {
		s.memory.neverBegan(o.begun, o.at.account)
	}
	if j == nil { // it left the configuration meanwhile
		s.putAside()
		return
	}
	j.running, j.step = false, ""
	s.dirty = true
	stopped = s.upgraded(err) || stopped
	switch e := s.memory.of(j.name); {
	case err == nil:
		s.succeeded(now, j, o.at, v)
	case stopped: // no failure of the renewal: the order is taken up again
		e.Record = e.Record.Stopped()
	default:
		fault, ok := errors.AsType[*renew.Fault](err)
		if !ok {
			fault = localFault(renew.StepOrder, err)
		}
		s.failed(now, j, o.at, fault)
	}
	s.save()
}

// succeeded takes a new version in and begins to deploy it.
func (s *Sitter) succeeded(now time.Time, j *job, at place, v renew.Version) {
	e := s.memory.of(j.name)
	if at.trial {
		e.Record = e.Record.Stopped()
		s.emit(Event{Name: j.name, Kind: "renewed", Text: fmt.Sprintf("The trial succeeded: %s issued a certificate for %s. The files in use were not touched.", host(at.directory), listNames(v.Names))})
		return
	}
	e.Record = e.Record.Succeeded(now)
	e.LastResult = clip(fmt.Sprintf("Renewed on %s, valid until %s.", dateOf(now), dateOf(v.NotAfter)))
	s.stored(now, j, v)
	s.event(now, j.name, "renewed", e.LastResult)
}

// trialFailed is what a trial brought. Nothing tries it again by itself.
func trialFailed(why renew.Explanation) string {
	advice := why.Advice
	if strings.Contains(advice, "tried again by itself") {
		advice = "Nothing was changed. Try it again later."
	}
	return "The trial failed: " + strings.TrimPrefix(why.Sentence, "The attempt failed: ") + " " + advice
}

// failed takes a failure in.
func (s *Sitter) failed(now time.Time, j *job, at place, f *renew.Fault) {
	e := s.memory.of(j.name)
	if f.RetryAfter > 0 && f.WholeDirectory {
		s.memory.Directories[at.directory] = renew.RetryAt(now, f)
	}
	s.dirty = true
	s.heardDate(now, f.Date)
	if at.trial {
		e.Record = e.Record.Stopped()
		why := renew.Explain(f)
		s.emit(Event{Name: j.name, Kind: "renewal_failed", Text: trialFailed(why)})
		return
	}
	e.Record = e.Record.Failed(now, f)
	next := s.decide(now, j)
	e.LastResult = clip("Renewal failed: " + e.Record.Sentence)
	for _, p := range f.Problems {
		s.log.Error().Str("cert", j.name).Str("step", p.Step).Str("name", p.Name).Str("type", p.Type).Str("detail", p.Detail).Msg("renewal failed")
	}
	s.log.Info().Str("cert", j.name).Time("next", next.At).Int("failures", e.Record.Failures).Msg("next attempt")
	s.event(now, j.name, "renewal_failed", e.Record.Sentence+" "+e.Record.Advice)
}

// stored makes v the newest version and begins its deployment.
func (s *Sitter) stored(now time.Time, j *job, v renew.Version) {
	e := s.memory.of(j.name)
	before := s.inForce(now, j)
	urgent := e.ARI.Window.Past(now) || e.Revoked != "" || before == nil || s.scarce(now, j, before)
	j.newest = &v
	e.ARI, e.Foreign, e.Revoked = ariMemory{}, false, ""
	e.remember(v.Fingerprint)
	e.Deployment = &deployment{Version: v.ID, Fingerprint: v.Fingerprint, Stage: toInstall, StartedAt: now, Urgent: urgent}
	s.dirty = true
}

// startSentences say why an attempt begins.
var startSentences = map[renew.Reason]string{
	renew.Missing: "There is no certificate yet: ordering one",
	renew.Names:   "A configured name is not in the certificate: ordering a new one",
	renew.Trusted: "The certificate is from a staging CA: ordering a trusted one",
	renew.ARI:     "The CA advises to renew now: ordering",
	renew.Age:     "The certificate is due: ordering a new one",
	renew.Revoked: "The certificate was revoked: ordering another one with a new key",
}

func startSentence(why renew.Reason, byHand bool, at place) string {
	sentence, known := startSentences[why]
	if !known || byHand && why == renew.Fresh {
		sentence = "Renewing by hand"
	}
	if at.trial {
		sentence = "A trial"
	}
	return sentence + " at " + host(at.directory) + "."
}
