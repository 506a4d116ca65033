package expiry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Problem is one finding about a certificate.
type Problem struct {
	Code     string // stable, snake case, for programs: one of the Code constants
	Severity Severity
	Text     string // what happened and what it means, for a person
	Advice   string // what to do
}

// The codes of problems.
const (
	CodeExpired         = "expired"          // a certificate in force or served has expired
	CodeExpiring        = "expiring"         // a watched one expires soon
	CodeNotYetValid     = "not_yet_valid"    // it begins in the future
	CodeRenewalFailed   = "renewal_failed"   // the last attempt failed
	CodeRenewalOverdue  = "renewal_overdue"  // none succeeded in time
	CodeNoCertificate   = "no_certificate"   // nothing is in force
	CodeNamesMissing    = "names_missing"    // the one in force lacks a configured name
	CodeNotInstalled    = "not_installed"    // issued, but not in its place
	CodeStale           = "stale"            // a server still uses an earlier one of ours
	CodeForeign         = "foreign"          // a server uses one that is not ours
	CodeWaiting         = "waiting"          // an action waits for its window or a person
	CodeForeignClient   = "foreign_client"   // another ACME client renews it
	CodeStaging         = "staging"          // issued by a staging CA
	CodeUnreadable      = "unreadable"       // the source could not be looked at
	CodeUnreachable     = "unreachable"      // an endpoint of a managed one could not be looked at
	CodeActionFailed    = "action_failed"    // what is to make a server take the new one does not succeed
	CodeRevoked         = "revoked"          // the one in force was revoked and is not yet replaced
	CodePinMismatch     = "pin_mismatch"     // not the fingerprint that is expected
	CodeWrongName       = "wrong_name"       // a server's certificate is for other names
	CodeChainIncomplete = "chain_incomplete" // a server does not send the intermediate certificate
	CodeUntrusted       = "untrusted"        // no trusted CA stands behind it
)

// Facts is what is known of one certificate when it is judged.
type Facts struct {
	Managed      bool // ours to renew; else watched
	WarnDays     int
	CriticalDays int
	Literal      bool     // the days are taken literally, not scaled by the lifetime
	Names        []string // configured names of a managed one

	// Installed is what is in force on disk, nil if nothing is. Of a watched
	// certificate it is what was read or served last.
	Installed *Certificate
	Served    []Served

	AttemptFailed bool      // the last attempt to renew it failed
	FirstFailure  time.Time // since when attempts fail without a success between
	DueAt         time.Time // when the attempt was to be made; zero = not due
	LastSuccess   time.Time // when one succeeded last
	FailureText   string    // why the last attempt failed, a sentence
	FailureAdvice string    // what to do about it

	IssuedNotInstalled bool   // the newest certificate is stored but not in its place
	InstallError       string // why; empty while it is being installed

	Unreadable      string    // why the source could not be read, a sentence; empty = it could
	UnreadableSince time.Time // since when

	ActionError string    // why the present action did not succeed; empty = it did
	InstalledAt time.Time // when the newest certificate was installed
	Revoked     bool      // the one in force was revoked

	ForeignClient bool      // a newer one that another client made was adopted
	Waiting       string    // what the deployment waits for, a sentence; empty = nothing
	DeployEnded   time.Time // when the last action ended; without actions, when it was installed
	HasActions    bool
	ActionAdvice  string // what makes the server take the new certificate
	Pin           string // expected SHA-256 fingerprint in hex, with or without colons; empty = none
}

// Served is what was seen at one endpoint.
type Served struct {
	Address     string
	Certificate *Certificate // nil if it could not be looked at
	Known       bool         // one that we installed or adopted, now or earlier
	Same        bool         // the one that is installed
	Error       string       // why it could not be looked at, a sentence
	NameOK      bool         // it covers the endpoint's name
	ChainOK     bool         // it chains to a trusted root
	Since       time.Time    // since when it differs from what is installed
	Advice      string       // what makes it take the new one, if that is known of this address; else ActionAdvice
	// Attended: no action of the configuration makes it take the new one, but a
	// person has been asked to.
	Attended bool
}

// ours reports whether what is served counts: of a managed certificate only what
// we know, of a watched one everything.
func (f *Facts) ours(s Served) bool {
	return s.Certificate != nil && (!f.Managed || s.Same || s.Known)
}

// Earliest is the certificate with the earliest expiry that counts: of those that
// are installed or served, the ones that are ours (an earlier one of ours, too).
// It is nil if there is none.
func Earliest(f Facts) *Certificate {
	earliest := f.Installed
	for _, s := range f.Served {
		if f.ours(s) && (earliest == nil || s.Certificate.Leaf.NotAfter.Before(earliest.Leaf.NotAfter)) {
			earliest = s.Certificate
		}
	}
	return earliest
}

// How long a server may go on with the old certificate: after the last action
// ended, and after the installation where there is no action. The latter is a day
// and some, since many machines restart their services at night.
const (
	holdAfterAction = 15 * time.Minute
	holdWithout     = 26 * time.Hour
)

// criticalWithout is how long nothing may be in force, or a name be missing,
// while attempts fail.
const criticalWithout = 24 * time.Hour

// skew is how far in the future a certificate may begin: as much as a clock is
// allowed to be wrong.
const skew = 5 * time.Minute

// unknownHold is how long something may be unknown until that alarms.
const unknownHold = time.Hour

// Assess says what is wrong, worst first, by docs/renewal.md. It is pure: the
// same facts at the same time give the same problems, and with the time alone
// they only get worse (but for a certificate that is not valid yet).
func Assess(now time.Time, f Facts) []Problem {
	j := judge{now: now, Facts: f, name: subjectOf(f)}
	rules := []func(*judge){(*judge).source, (*judge).dates, (*judge).served, (*judge).pinned}
	if f.Managed { // an action that fails comes before what a server does for want of it
		rules = []func(*judge){(*judge).source, (*judge).dates, (*judge).action, (*judge).served, (*judge).pinned,
			(*judge).inForce, (*judge).renewal, (*judge).installation, (*judge).deployment}
	}
	for _, rule := range rules {
		rule(&j)
	}
	slices.SortStableFunc(j.problems, func(a, b Problem) int { return b.Severity.Compare(a.Severity) })
	return j.problems
}

// Alarming reports whether the problems are worth calling somebody: from warning
// on, and where the source has been unreadable for an hour.
func Alarming(now time.Time, f Facts, problems []Problem) bool {
	worst := Worst(problems)
	if worst == Unknown {
		return !f.UnreadableSince.IsZero() && now.Sub(f.UnreadableSince) >= unknownHold
	}
	return worst >= Warning
}

// subjectOf names the certificate in a sentence.
func subjectOf(f Facts) string {
	for _, name := range f.Names {
		if !strings.HasPrefix(name, "*.") {
			return Printable(name)
		}
	}
	if len(f.Names) > 0 {
		return Printable(f.Names[0])
	}
	if c := Earliest(f); c != nil && c.Subject() != "" {
		return c.Subject()
	}
	return "this certificate"
}

// A judge collects the problems of one certificate.
type judge struct {
	Facts
	now      time.Time
	name     string
	problems []Problem
}

func (j *judge) add(code string, s Severity, text, advice string) {
	j.problems = append(j.problems, Problem{Code: code, Severity: s, Text: text, Advice: advice})
}

// date writes an instant for people, in the zone that now is in.
func (j *judge) date(t time.Time) string {
	return t.In(j.now.Location()).Format("2 January 2006, 15:04 MST")
}

// thresholds are W and K for a certificate.
func (j *judge) thresholds(c *Certificate) (warn, critical time.Duration) {
	if j.Literal {
		return time.Duration(j.WarnDays) * day, time.Duration(j.CriticalDays) * day
	}
	return Scale(j.WarnDays, c.Lifetime()), Scale(j.CriticalDays, c.Lifetime())
}

// urgency is how bad it is that nothing renews the certificate: by what is left
// of it. It says nothing of one that has expired already: that is a problem of
// its own.
func (j *judge) urgency(c *Certificate) Severity {
	warn, critical := j.thresholds(c)
	switch left := c.Left(j.now); {
	case left < critical:
		return Critical
	case left < warn:
		return Warning
	}
	return Notice
}

// source says that there is nothing to judge by.
func (j *judge) source() {
	if j.Unreadable == "" {
		return
	}
	text := "It cannot be looked at: " + j.Unreadable
	if j.Installed != nil {
		text += fmt.Sprintf(" When it was seen last, it was good until %s.", j.date(j.Installed.Leaf.NotAfter))
	}
	j.add(CodeUnreadable, Unknown, text, "Make sure that it is there and can be read; Certsitter looks again by itself.")
}

// dates judges what is in force by its own dates.
func (j *judge) dates() {
	c := j.Installed
	if !j.Managed {
		c = Earliest(j.Facts) // of several addresses
	}
	if c == nil {
		return
	}
	if c.Left(j.now) <= 0 {
		j.add(CodeExpired, Expired, j.expiredText(c), j.renewAdvice())
	} else if s := j.urgency(c); !j.Managed && s > Notice {
		j.add(CodeExpiring, s, fmt.Sprintf("The certificate of %s expires on %s and nobody has renewed it yet. From then on browsers and apps refuse it.",
			j.name, j.date(c.Leaf.NotAfter)), "Renew it where it is managed, and restart what uses it.")
	}
	if c.Leaf.NotBefore.Sub(j.now) > skew {
		j.add(CodeNotYetValid, Warning, fmt.Sprintf("The certificate of %s is not valid before %s. Until then browsers and apps refuse it.",
			j.name, j.date(c.Leaf.NotBefore)), "Check the clock of this machine and of the one that made the certificate.")
	}
	if c.Staging() {
		j.add(CodeStaging, Notice, fmt.Sprintf("The certificate of %s comes from a staging CA, which is for tests. No browser trusts it.", j.name),
			"When the tests are done, set the real CA (ca: letsencrypt).")
	}
}

func (j *judge) expiredText(c *Certificate) string {
	text := fmt.Sprintf("The certificate of %s expired on %s. Browsers and apps refuse it.", j.name, j.date(c.Leaf.NotAfter))
	if j.AttemptFailed && j.FailureText != "" {
		text += " It could not be renewed: " + Sentence(j.FailureText)
	}
	return text
}

// renewAdvice is what to do about a managed certificate that is not renewed, or
// about a watched one that has expired.
func (j *judge) renewAdvice() string {
	if !j.Managed {
		return "Renew it where it is managed, and restart what uses it."
	}
	if j.AttemptFailed && j.FailureAdvice != "" {
		return j.FailureAdvice
	}
	return "Start the renewal by hand (certsitter renew, or the button on the page) and read what it says."
}

// overdue reports whether an attempt was to be made and none has succeeded since,
// for longer than grace.
func (j *judge) overdue(grace time.Duration) bool {
	return !j.DueAt.IsZero() && j.LastSuccess.Before(j.DueAt) && j.now.Sub(j.DueAt) > grace
}

// inForce judges that nothing is in force, or something that lacks a name. Both
// are ordered at once, so only a failure is worth a warning.
func (j *judge) inForce() {
	code, text := j.gap()
	if code == "" {
		return
	}
	failing := j.AttemptFailed || j.overdue(Grace(0))
	since := j.FirstFailure
	if since.IsZero() {
		since = j.DueAt
	}
	severity := Warning
	if c := j.running(); c != nil {
		severity = max(severity, j.urgency(c))
	}
	switch {
	case failing && !since.IsZero() && j.now.Sub(since) >= criticalWithout:
		j.add(code, Critical, text+" For more than a day no attempt to get one has succeeded."+j.reason(), j.renewAdvice())
	case j.AttemptFailed:
		j.add(code, severity, text+" The attempt to get one failed."+j.reason(), j.renewAdvice())
	case failing:
		j.add(code, severity, text+fmt.Sprintf(" One was to be ordered on %s, and that has not happened.", j.date(j.DueAt)), j.renewAdvice())
	case !j.IssuedNotInstalled:
		j.add(code, Notice, text+" One is being ordered.", "Nothing; if it does not come, you will be told why.")
	}
}

// gap says what is missing in force: everything, or names. An empty code means
// nothing, or nothing that is known.
func (j *judge) gap() (code, text string) {
	if j.Installed == nil {
		if j.Unreadable != "" {
			return "", ""
		}
		return CodeNoCertificate, fmt.Sprintf("There is no certificate for %s yet.", j.name)
	}
	if missing := j.Installed.Missing(j.Names); len(missing) > 0 {
		return CodeNamesMissing, fmt.Sprintf("The certificate in use does not cover %s, so browsers and apps refuse it there.", Printable(list(missing)))
	}
	return "", ""
}

func (j *judge) reason() string {
	if j.FailureText == "" {
		return ""
	}
	return " " + Sentence(j.FailureText)
}

// running is the earliest to expire of those that count and have not expired:
// what has expired is a problem of its own.
func (j *judge) running() *Certificate {
	for _, c := range []*Certificate{Earliest(j.Facts), j.Installed} {
		if c != nil && c.Left(j.now) > 0 {
			return c
		}
	}
	return nil
}

// renewal judges that the certificate in force is not renewed in time.
func (j *judge) renewal() {
	c := j.running()
	if c == nil || j.has(CodeNamesMissing, CodeNoCertificate) {
		return // said already
	}
	until := fmt.Sprintf(" The one in use is good until %s.", j.date(c.Leaf.NotAfter))
	switch {
	case j.AttemptFailed:
		j.add(CodeRenewalFailed, j.urgency(c), fmt.Sprintf("The renewal of %s failed.", j.name)+j.reason()+until, j.renewAdvice())
	case j.overdue(Grace(c.Lifetime())):
		j.add(CodeRenewalOverdue, j.urgency(c), fmt.Sprintf("%s was to be renewed on %s, and that has not happened.", j.name, j.date(j.DueAt))+until, j.renewAdvice())
	}
}

func (j *judge) has(codes ...string) bool {
	return slices.ContainsFunc(j.problems, func(p Problem) bool { return slices.Contains(codes, p.Code) && p.Severity > Notice })
}

// installation judges a certificate that was issued and is not in its place: an
// incident of its own.
func (j *judge) installation() {
	if !j.IssuedNotInstalled {
		return
	}
	if j.InstallError == "" {
		j.add(CodeNotInstalled, Notice, fmt.Sprintf("The new certificate of %s is being installed.", j.name), "Nothing.")
		return
	}
	severity := Warning
	if c := j.running(); c != nil {
		severity = max(severity, j.urgency(c))
	}
	text := fmt.Sprintf("A new certificate of %s was issued but could not be put in its place: %s", j.name, Sentence(j.InstallError))
	if j.Installed != nil {
		text += " The earlier one stays in use until it can."
	}
	j.add(CodeNotInstalled, severity, text,
		"Remove the cause; the installation is tried again by itself and nothing is ordered anew.")
}

// action judges one that does not succeed.
func (j *judge) action() {
	if j.ActionError == "" {
		return
	}
	severity := Notice
	if !j.InstalledAt.IsZero() && j.now.Sub(j.InstalledAt) >= holdAfterAction {
		severity = Warning
	}
	j.add(CodeActionFailed, severity, fmt.Sprintf("The new certificate of %s is installed, but what is to make it used fails: %s", j.name, Sentence(j.ActionError)),
		"Remove the cause, or do it by hand; it is tried again by itself.")
}

// deployment tells of what waits and of another client at work.
func (j *judge) deployment() {
	if j.Waiting != "" {
		j.add(CodeWaiting, Notice, Sentence(j.Waiting), cmp.Or(j.ActionAdvice, "Nothing, or do it by hand now."))
	}
	if j.Revoked {
		j.add(CodeRevoked, Critical, fmt.Sprintf("The certificate of %s was revoked and its replacement has not come yet: browsers may refuse it.", j.name),
			cmp.Or(j.FailureAdvice, "Nothing, unless the order keeps failing."))
	}
	if j.ForeignClient {
		j.add(CodeForeignClient, Notice, fmt.Sprintf("Another program has renewed %s and Certsitter has taken its certificate over. Two that renew the same certificate use up the CA's limits.", j.name),
			"Switch off the renewal in the other program, or remove the certificate here and watch it instead.")
	}
}

// pinned judges the fingerprint that the configuration expects.
func (j *judge) pinned() {
	if j.Pin == "" || j.Installed == nil || j.pinHolds(j.Installed) {
		return
	}
	j.add(CodePinMismatch, Warning, fmt.Sprintf("The certificate of %s is not the expected one: its fingerprint is %s.", j.name, j.Installed.Fingerprint()),
		"If it was renewed on purpose, put the new fingerprint into pin. If not, somebody else may be answering in its place.")
}

func (j *judge) pinHolds(c *Certificate) bool {
	return strings.EqualFold(strings.ReplaceAll(j.Pin, ":", ""), c.Fingerprint())
}

// served judges what each endpoint serves.
func (j *judge) served() {
	for _, s := range j.Served {
		switch {
		case s.Certificate == nil:
			j.unseen(s)
		case !j.Managed:
			j.watched(s)
		case s.Same:
			j.same(s)
		case s.Known:
			j.stale(s)
		default:
			j.foreign(s)
		}
	}
}

// unseen is an endpoint that could not be looked at. Of a managed certificate
// the files are what counts, and many an endpoint cannot be reached from inside
// its own network; of a watched one nothing is known then.
func (j *judge) unseen(s Served) {
	switch {
	case s.Error == "":
	case j.Managed:
		j.add(CodeUnreachable, Notice, fmt.Sprintf("What %s serves cannot be seen: %s", s.Address, Sentence(s.Error)),
			"Nothing if it is off or cannot be reached from here; else check the address under endpoints.")
	case j.Unreadable == "":
		j.add(CodeUnreadable, Unknown, fmt.Sprintf("%s cannot be looked at: %s", s.Address, Sentence(s.Error)),
			"Make sure that it is there and can be reached; Certsitter looks again by itself.")
	}
}

// watched judges the name and the issuer of a watched endpoint; its dates are
// judged already. They are notices: many a device at home has a certificate of its
// own making, and the one who watches it wants to know its dates. A pin is all the
// trust that it needs.
func (j *judge) watched(s Served) {
	c := s.Certificate
	if j.Pin != "" {
		return
	}
	if !s.NameOK {
		j.add(CodeWrongName, Notice, fmt.Sprintf("The certificate that %s serves is for %s and not for the name that it was asked for. Browsers and apps warn of it.", s.Address, namesOf(c)),
			"Nothing if that is meant; else set server_name to the name that is used, or give the server the right certificate.")
	}
	if s.ChainOK {
		return
	}
	if c.SelfSigned() {
		j.add(CodeUntrusted, Notice, fmt.Sprintf("%s serves a certificate that it has signed itself. Browsers and apps warn of it.", s.Address),
			"If that is meant, put its fingerprint into pin: "+c.Fingerprint())
		return
	}
	j.add(CodeUntrusted, Notice, fmt.Sprintf("No trusted CA stands behind the certificate that %s serves: its issuer %q is unknown, or the server does not send the certificates between. Browsers and apps warn of it.", s.Address, c.Issuer()),
		"Set ca_roots to the file with its CA's certificate, or let the server send the full chain.")
}

// lacksNames: what is installed is not for all configured names, a starter pair
// for instance, which is a finding of its own.
func (j *judge) lacksNames() bool { return j.Installed != nil && len(j.Installed.Missing(j.Names)) > 0 }

// same judges an endpoint that serves what is installed: then its name and chain
// are right, unless the configuration is not.
func (j *judge) same(s Served) {
	if c := s.Certificate; c.Left(j.now) <= 0 && (j.Installed == nil || c.Fingerprint() != j.Installed.Fingerprint()) {
		// The twin with another type of key.
		j.add(CodeExpired, Expired, fmt.Sprintf("The certificate that %s serves expired on %s. Browsers and apps refuse it.", s.Address, j.date(c.Leaf.NotAfter)), j.renewAdvice())
	}
	if !s.NameOK && !j.lacksNames() {
		j.add(CodeWrongName, Warning, fmt.Sprintf("%s serves the right certificate, but that is for %s and not for the name that is used there. Browsers and apps refuse it.", s.Address, namesOf(s.Certificate)),
			"Add the name to domains, or correct the one before the @ in endpoints.")
	}
	if s.ChainOK {
		return
	}
	if j.Installed != nil && len(j.Installed.Chain) > 0 && len(s.Certificate.Chain) == 0 {
		j.add(CodeChainIncomplete, Warning, fmt.Sprintf("%s sends the certificate without the intermediate certificate. Browsers often cope, but apps on phones refuse it.", s.Address),
			"Let the server use the full chain (certfile), not the certificate alone (leaffile).")
		return
	}
	if !s.Certificate.Staging() { // said already
		j.add(CodeUntrusted, Notice, fmt.Sprintf("The certificate that %s serves comes from %q, which this machine does not trust.", s.Address, s.Certificate.Issuer()),
			"Nothing if that is your own CA; ca_roots tells Certsitter of it.")
	}
}

// stale judges an endpoint that still serves an earlier certificate of ours.
func (j *judge) stale(s Served) {
	text := fmt.Sprintf("%s is renewed, but %s still serves the earlier certificate, which is good until %s.", j.name, s.Address, j.date(s.Certificate.Leaf.NotAfter))
	advice := cmp.Or(s.Advice, j.ActionAdvice, j.actAdvice(s))
	switch {
	case s.Certificate.Left(j.now) <= 0:
		j.add(CodeExpired, Expired, fmt.Sprintf("%s is renewed, but %s still serves the earlier certificate, which expired on %s. Browsers and apps refuse it.",
			j.name, s.Address, j.date(s.Certificate.Leaf.NotAfter)), advice)
	case j.Waiting != "":
		j.add(CodeStale, Notice, text, advice)
	case !j.held(s) && s.Attended:
		j.add(CodeStale, Notice, text, advice)
	case !j.held(s):
		j.add(CodeStale, Notice, text, "Nothing yet; it is looked at again by itself.")
	default:
		j.add(CodeStale, max(Warning, j.urgency(s.Certificate)), text, advice)
	}
}

// actAdvice is what makes a server take the new certificate.
func (j *judge) actAdvice(s Served) string {
	if j.ActionError != "" {
		return "Remove what makes the action fail, or do it by hand; it is tried again by itself."
	}
	return "Restart or reload the program that serves " + s.Address + ", and add that under after so that it happens by itself."
}

// held reports whether the server has had its time to take the new certificate.
func (j *judge) held(s Served) bool {
	since := j.DeployEnded
	if since.IsZero() {
		since = s.Since // an action hangs, or was never recorded
	}
	hold := holdWithout
	if j.HasActions && !s.Attended {
		hold = holdAfterAction
	}
	return !since.IsZero() && j.now.Sub(since) >= hold
}

// foreign tells of an endpoint that serves something that is not ours.
func (j *judge) foreign(s Served) {
	text := fmt.Sprintf("%s serves a certificate that is not Certsitter's: for %s, from %q, good until %s.",
		s.Address, namesOf(s.Certificate), s.Certificate.Issuer(), j.date(s.Certificate.Leaf.NotAfter))
	j.add(CodeForeign, Notice, text,
		"Nothing if a proxy in front of it has one of its own. Else let the server use Certsitter's files, or switch off the other program that renews it.")
}

// namesOf lists a certificate's names for a sentence.
func namesOf(c *Certificate) string {
	names := list(c.Names())
	switch {
	case names == "":
		return "no name"
	case len(c.Leaf.DNSNames)+len(c.Leaf.IPAddresses) == 0:
		return "no name (its common name, " + names + ", counts for nobody)"
	}
	return names
}

// list writes names for a sentence: three of them and how many more there are.
func list(names []string) string {
	const shown = 3
	if more := len(names) - shown; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), more)
	}
	return strings.Join(names, ", ")
}
