package sitter

import "time"

// A deployment brings one stored version to where it is served. It is kept in
// state.json, so that a restart in the middle goes on where it was:
// install → act → verify → done.
type deployment struct {
	Version     string    `json:"version"` // stored version's id
	Fingerprint string    `json:"fingerprint"`
	Stage       stage     `json:"stage"`
	StartedAt   time.Time `json:"started_at"`
	InstalledAt time.Time `json:"installed_at,omitzero"`
	Action      int       `json:"action,omitzero"`   // the next one
	EndedAt     time.Time `json:"ended_at,omitzero"` // the last action ended, or it was installed and there is none
	Look        int       `json:"look,omitzero"`     // how many looks after EndedAt were made
	Failures    int       `json:"failures,omitzero"` // in a row, of the present stage
	Next        time.Time `json:"next,omitzero"`     // when to go on after a failure
	Error       string    `json:"error,omitzero"`
	Told        bool      `json:"told,omitzero"`    // the failure was an event
	Waiting     string    `json:"waiting,omitzero"` // what it waits for, one sentence
	Urgent      bool      `json:"urgent,omitzero"`  // no window is waited for
}

type stage string

const (
	toInstall stage = "install"
	toAct     stage = "act"
	toVerify  stage = "verify"
	deployed  stage = "done"
)

// deployRetries are the waits after the first, second, … failure in a row of an
// installation or an action: both are local and cost nobody else anything.
var deployRetries = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// looksAfter are when the endpoints are looked at after the last action: most
// services are back within seconds, Home Assistant on a Raspberry Pi within
// minutes, and after 15 minutes the contract warns.
var looksAfter = []time.Duration{time.Second, settle, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute}

// failed is the deployment after a step that did not succeed.
func (d deployment) failed(now time.Time, err error) deployment {
	d.Next = now.Add(deployRetries[min(d.Failures, len(deployRetries)-1)])
	d.Failures++
	d.Error = err.Error()
	return d
}

// went is the deployment after a step that succeeded.
func (d deployment) went() deployment {
	d.Failures, d.Error, d.Told, d.Next, d.Waiting = 0, "", false, time.Time{}, ""
	return d
}

// installed is the deployment once the pair is in place.
func (d deployment) installed(now time.Time, actions int) deployment {
	d = d.went()
	d.InstalledAt, d.Stage = now, toAct
	if actions == 0 {
		d = d.acted(now, actions)
	}
	return d
}

// acted is the deployment once one action has succeeded, or when none is left.
func (d deployment) acted(now time.Time, actions int) deployment {
	d = d.went()
	if d.Action++; d.Action >= actions {
		d.Stage, d.EndedAt = toVerify, now
	}
	return d
}

// settle is how long a server has after the last action before what it serves
// is held against it.
const settle = 10 * time.Second

// nextLook is when the endpoints are looked at next; false once the looks are
// used up and the usual rhythm does.
func (d deployment) nextLook() (time.Time, bool) {
	if d.Stage != toVerify || d.Look >= len(looksAfter) {
		return time.Time{}, false
	}
	return d.EndedAt.Add(looksAfter[d.Look]), true
}
