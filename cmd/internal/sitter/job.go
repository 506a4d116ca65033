package sitter

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/store"
)

// A job is one managed certificate: what the configuration wants, and how it
// stands. The first half never changes after configure, so works may read it.
type job struct {
	name, label      string
	digest           string // of the configuration, as far as it bears on attempts
	rules            renew.Settings
	want             store.Want
	order            renew.OrderRequest // all that the configuration gives
	stagingDirectory string
	webroot          string
	slot             string // orders with the same slot run one after another
	target           store.Target
	files            []string
	ownFolder        string
	actions          []settings.Action
	endpoints        []endpoint
	roots            *x509.CertPool // nil = the system's
	warnDays         int
	criticalDays     int

	// how it stands; the loop's
	newest    *renew.Version
	issuances []time.Time
	counted   bool                // issuances are what is stored
	installed *expiry.Certificate // the pair in place; nil = none
	looked    bool
	reading   time.Time // since when its files are being read; zero = they are not
	again     bool      // its files are to be read again at the next look
	lookedAt  time.Time
	lookAt    time.Time
	print     footprint
	asking    bool // for renewal information
	asked     *RenewOptions
	byHand    bool // somebody asked in this run: a command line without a daemon deploys it
	running   bool
	step      string
	deploying bool
	looking   int // endpoints that have not been looked at since the deployment asked
	// unsure: what is served may have changed since it was looked at for the next
	// action: we were not there, or time went by.
	unsure bool
	probes []*probing
	// awaitsCore: Core has not been looked at since the deployment asked.
	awaitsCore bool
}

// endpoint is where the certificate is served.
type endpoint struct {
	address string
	target  probe.Target
}

// A watch is one watched certificate.
type watch struct {
	conf         settings.Watch
	name         string
	path         string   // of a file, or
	probe        *probing // an endpoint
	password     string
	roots        *x509.CertPool
	warnDays     int
	criticalDays int

	current *expiry.Certificate // what was read last
	print   footprint
	next    time.Time
	busy    bool
	began   time.Time // when the reading that is under way began
}

// job is the managed certificate of that name, nil if there is none.
func (s *Sitter) job(name string) *job {
	i := slices.IndexFunc(s.jobs, func(j *job) bool { return j.name == name })
	if i < 0 {
		return nil
	}
	return s.jobs[i]
}

func (s *Sitter) watch(name string) *watch {
	i := slices.IndexFunc(s.watched, func(w *watch) bool { return w.name == name })
	if i < 0 {
		return nil
	}
	return s.watched[i]
}

func (s *Sitter) rootsOf(name string) *x509.CertPool {
	if j := s.job(name); j != nil {
		return j.roots
	}
	if w := s.watch(name); w != nil {
		return w.roots
	}
	return nil
}

// configure takes a configuration into force. Jobs that stay keep how they
// stand; those that left are closed and put aside.
func (s *Sitter) configure(conf *settings.Settings) error {
	jobs := make([]*job, 0, len(conf.Certificates))
	for i := range conf.Certificates {
		j, err := newJob(s.memory.Installation, conf, &conf.Certificates[i])
		if err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	watched := make([]*watch, 0, len(conf.Watch))
	for _, c := range conf.Watch {
		w, err := newWatch(c)
		if err != nil {
			return err
		}
		watched = append(watched, w)
	}
	old := s.jobs
	s.settings, s.jobs, s.watched = conf, jobs, watched
	s.parsed = map[string]*expiry.Certificate{}
	s.caution()
	s.targets = conf.Notify
	if s.world.Targets != nil {
		s.targets = s.world.Targets(conf)
	}
	s.published = false
	for _, j := range s.jobs {
		s.adoptJob(j, old)
	}
	s.findCore(conf)
	s.putAside()
	return nil
}

// caution makes what looks wrong in the configuration visible.
func (s *Sitter) caution() {
	s.cautions = nil
	if s.world.Cautions == nil {
		return
	}
	s.cautions = s.world.Cautions(s.settings)
	for _, p := range s.cautions {
		s.log.Warn().Msg(p.Text + " " + p.Advice)
	}
}

// adoptJob gives a job what is stored for it and what its predecessor, of an
// earlier configuration, is doing. What cannot be read is said and keeps no
// other certificate from being looked after.
func (s *Sitter) adoptJob(j *job, old []*job) {
	trouble := func(what string, err error) {
		if err != nil {
			s.log.Error().Err(err).Str("cert", j.name).Msg(what)
		}
	}
	if !s.storing(j.name) { // else it is there
		_, err := s.world.Store.Restore(j.name, j.rules.Names)
		trouble("cannot bring back what was stored under this name", err)
	}
	if j.ownFolder != "" {
		_, err := s.world.Store.Live(j.name)
		trouble("cannot make the certificate's folder", err)
	}
	j.unsure = true
	e := s.memory.of(j.name)
	versions, err := s.world.Store.Versions(j.name)
	trouble("a stored certificate is damaged", err)
	for _, v := range versions {
		e.remember(v.Fingerprint) // also after the state was lost
	}
	if version, there, _ := s.world.Store.Current(j.name); there { // damage was said above
		j.newest = &version
		if version.StoredAt.After(e.Record.LastEnd) && (e.Record.Open || e.Record.Failing()) {
			e.Record = e.Record.Succeeded(version.StoredAt) // a crash came between the store and the state
			e.LastResult = clip(fmt.Sprintf("Renewed on %s, valid until %s.", dateOf(version.StoredAt), dateOf(version.NotAfter)))
			s.dirty = true
		}
	}
	for _, o := range old {
		if o.name == j.name && o.looked && o.target == j.target { // until it is looked at again
			j.looked, j.installed = true, o.installed
		}
		if o.name == j.name {
			j.asked, j.running, j.step, j.asking, j.deploying = o.asked, o.running, o.step, o.asking, o.deploying
		}
	}
	if s.holding[j.name] > 0 { // it is looked at once that has ended
		j.reading = s.world.Now()
	}
	if e.Digest != j.digest {
		if e.Digest != "" {
			e.Record = e.Record.Reconfigured()
		}
		e.Digest, s.dirty = j.digest, true
	}
	if j.newest != nil && renew.TooCoarse(*j.newest, e.ARI.Window, j.rules) {
		s.log.Warn().Str("cert", j.name).Msg("the schedule has no pass in time for this certificate, so it is renewed by a pass of its own when a quarter of its lifetime is left")
	}
}

// putAside closes what is no longer in the configuration: its files and store
// stay, its incident closes silently, its topics are emptied by publish.
func (s *Sitter) putAside() {
	if s.settings.StandIn {
		return // nobody has taken anything out
	}
	keep := map[string]bool{}
	for _, j := range s.jobs {
		keep[j.name] = true
	}
	for _, w := range s.watched {
		keep[w.name] = true
	}
	for name := range s.memory.Certificates {
		if !keep[name] {
			delete(s.memory.Certificates, name)
			s.dirty = true
		}
	}
	stored, err := s.world.Store.Names()
	if err != nil {
		s.log.Error().Err(err).Msg("cannot list what is stored")
	}
	for _, name := range stored {
		if s.job(name) != nil || s.world.Manual || s.storing(name) {
			continue // what is still written is put aside at its end
		}
		if err := s.world.Store.Remove(name); err != nil {
			s.log.Warn().Err(err).Str("cert", name).Msg("cannot put aside what is no longer configured")
		}
	}
}

// storing: an order, an installation or a look of that name is under way. It
// may hold the name's lock in the store for as long as a disk hangs.
func (s *Sitter) storing(name string) bool {
	if s.holding[name] > 0 {
		return true
	}
	for _, running := range s.running {
		if running == name {
			return true
		}
	}
	return false
}

// released takes in that an installation or a look has ended.
func (s *Sitter) released(name string) {
	if s.holding[name]--; s.holding[name] <= 0 {
		delete(s.holding, name)
	}
	j := s.job(name)
	if j == nil { // it left the configuration meanwhile
		s.putAside()
		return
	}
	if s.holding[name] == 0 {
		j.reading = time.Time{}
	}
}

func newJob(installation string, conf *settings.Settings, c *settings.Certificate) (*job, error) {
	j := &job{
		name: c.Name, label: c.Label(),
		rules: renew.Settings{
			Names: c.Domains, Directory: c.Directory, Private: c.Private, Staging: c.Staging,
			RenewBefore: time.Duration(c.RenewBeforeDays) * 24 * time.Hour,
			Seed:        installation + "/" + c.Name,
		},
		want: store.Want{Names: c.Domains, KeyType: c.KeyType, Profile: c.Profile, ReuseKey: c.ReuseKey},
		order: renew.OrderRequest{
			Directory: c.Directory, Roots: c.Roots, Email: c.Email, EABKid: c.EABKid, EABHMAC: c.EABHMAC,
			Names: c.Domains, Profile: c.Profile, PreferredChain: c.PreferredChain,
			Challenge: c.Challenge, Provider: c.Provider, Env: c.Env, Resolvers: c.Resolvers,
		},
		stagingDirectory: c.StagingDirectory,
		webroot:          c.Webroot,
		target: store.Target{
			CertFile: c.CertFile, KeyFile: c.KeyFile, LeafFile: c.LeafFile, ChainFile: c.ChainFile, CombinedFile: c.CombinedFile,
			KeyMode: c.KeyMode, Owner: c.Owner, Group: c.Group,
			PKCS12: c.PKCS12, PKCS12Password: c.PKCS12Password, Keystore: c.Keystore, KeystorePassword: c.KeystorePassword,
		},
		ownFolder:    c.OwnFolder,
		actions:      c.After,
		roots:        pool(c.Roots),
		warnDays:     conf.WarnDays,
		criticalDays: conf.CriticalDays,
	}
	if !conf.Schedule.IsZero() {
		j.rules.Schedule = conf.Schedule
	}
	j.slot = slotOf(c)
	for _, f := range []string{c.CertFile, c.KeyFile, c.LeafFile, c.ChainFile, c.CombinedFile, c.PKCS12, c.Keystore} {
		if f != "" && !slices.Contains(j.files, f) {
			j.files = append(j.files, f)
		}
	}
	for _, address := range c.Endpoints {
		t, err := probe.ParseTarget(address)
		if err != nil {
			return nil, fmt.Errorf("certificates[%s].endpoints: %w", c.Name, err)
		}
		if !strings.Contains(address, "@") && c.ServerName() != "" {
			t.ServerName = c.ServerName()
		}
		j.endpoints = append(j.endpoints, endpoint{address, t})
		j.probes = append(j.probes, &probing{address: address, target: t})
	}
	j.digest = digestOf(c)
	return j, nil
}

// slotOf: certificates that use the same DNS account are ordered one after
// another, since many providers read, change and write one record set. The
// other challenges have no such trouble.
func slotOf(c *settings.Certificate) string {
	if c.Challenge != renew.DNS01 {
		return "certificate " + c.Name
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		fmt.Fprintf(&b, "%s=%s\n", k, c.Env[k])
	}
	return "dns " + c.Provider + " " + sum(b.String())
}

// digestOf tells configurations apart without keeping their secrets.
func digestOf(c *settings.Certificate) string {
	plain := *c
	plain.After, plain.Endpoints = nil, nil // they do not bear on attempts
	text, _ := json.Marshal(plain)          // settings hold nothing that cannot be written
	return sum(string(text))
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:8])
}

func newWatch(c settings.Watch) (*watch, error) {
	w := &watch{conf: c, name: c.Name, password: c.Password, roots: pool(c.Roots), warnDays: c.WarnDays, criticalDays: c.CriticalDays}
	if c.File {
		w.path = c.Source
		return w, nil
	}
	t, err := probe.ParseTarget(c.Source)
	if err != nil {
		return nil, fmt.Errorf("watch[%s].source: %w", c.Name, err)
	}
	if c.ServerName != "" {
		t.ServerName = c.ServerName
	}
	w.probe = &probing{address: c.Source, target: t}
	return w, nil
}

// pool is the roots of a private CA; nil = the system's.
func pool(roots []byte) *x509.CertPool {
	if len(roots) == 0 {
		return nil
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(roots)
	return p
}

// paths are the installed forms, to notice one that moved.
func (j *job) paths() map[string]string {
	return map[string]string{
		"cert": j.target.CertFile, "key": j.target.KeyFile, "leaf": j.target.LeafFile, "chain": j.target.ChainFile,
		"combined": j.target.CombinedFile, "pkcs12": j.target.PKCS12, "keystore": j.target.Keystore,
	}
}

// samePaths: the other forms are where they were installed last. The pair
// itself is read, so it needs no memory.
func (j *job) samePaths(installed map[string]string) bool {
	for form, path := range j.paths() {
		if form != "cert" && form != "key" && path != "" && installed[form] != path {
			return false
		}
	}
	return true
}

// countIssuances reads how often the CA issued for these names lately. It reads
// all that is stored, so it is done only before an attempt.
func (s *Sitter) countIssuances(now time.Time, j *job) {
	if j.counted {
		return
	}
	issued, err := s.world.Store.Issuances(j.rules.Names, j.rules.Directory, now.Add(-8*24*time.Hour))
	if err != nil {
		s.log.Warn().Err(err).Str("cert", j.name).Msg("cannot count what was issued")
		return
	}
	j.issuances, j.counted = issued, true
}

// inForce is the certificate whose life counts for windows and guards.
func (s *Sitter) inForce(now time.Time, j *job) *expiry.Certificate {
	if judged, known := s.judged[j.name]; known {
		return expiry.Earliest(judged.facts)
	}
	return expiry.Earliest(s.facts(now, j))
}

// timeSource is the CA that is asked for the time.
func (s *Sitter) timeSource() (url string, roots []byte) {
	if len(s.jobs) > 0 {
		return s.jobs[0].rules.Directory, s.jobs[0].order.Roots
	}
	return "https://acme-v02.api.letsencrypt.org/directory", nil
}
