package sitter

import "time"

// pullBack takes back what a clock that ran ahead has left: instants in the
// future would hold looks and attempts back until then. It is done at the first
// pass and whenever the time went back.
func (s *Sitter) pullBack(now time.Time) {
	back := s.passed.IsZero() || now.Before(s.passed)
	s.passed = now
	if !back {
		return
	}
	s.memory.pullBack(now)
	for _, j := range s.jobs {
		j.lookAt = earlier(j.lookAt, now)
		j.print.at = earlier(j.print.at, now)
		for _, p := range j.probes {
			p.next = earlier(p.next, now.Add(endpointsEvery))
		}
	}
	s.core.next = earlier(s.core.next, now.Add(endpointsEvery))
	s.coreUp = earlier(s.coreUp, now)
	s.restarted = earlier(s.restarted, now)
	for _, w := range s.watched {
		w.next = earlier(w.next, now)
		w.print.at = earlier(w.print.at, now)
		if w.probe != nil {
			w.probe.next = earlier(w.probe.next, now.Add(endpointsEvery))
		}
	}
	s.beatAt = earlier(s.beatAt, now)
	for url, m := range s.metadata {
		m.at = earlier(m.at, now)
		s.metadata[url] = m
	}
	s.dirty = true
}

// pullBack: what was remembered happened by now, and nothing waits longer than
// its own limit.
func (m *memory) pullBack(now time.Time) {
	for i := range m.Attempts {
		m.Attempts[i].At = earlier(m.Attempts[i].At, now)
	}
	for url, until := range m.Directories {
		m.Directories[url] = earlier(until, now.Add(7*24*time.Hour)) // renew's limit of a Retry-After
	}
	m.LastCheck = earlier(m.LastCheck, now)
	for _, e := range m.Certificates {
		e.pullBack(now)
	}
}

func (e *entry) pullBack(now time.Time) {
	e.Record = e.Record.NotAfter(now)
	e.ARI.Next = earlier(e.ARI.Next, now.Add(ariUnknown))
	e.Since = earlier(e.Since, now)
	if d := e.Deployment; d != nil {
		for _, t := range []*time.Time{&d.StartedAt, &d.InstalledAt, &d.EndedAt} {
			*t = earlier(*t, now)
		}
		d.Next = earlier(d.Next, now.Add(deployRetries[len(deployRetries)-1]))
	}
	for _, seen := range e.Endpoints {
		for _, t := range []*time.Time{&seen.Seen, &seen.Differs, &seen.Failing, &seen.Strange, &seen.Restarted} {
			*t = earlier(*t, now)
		}
	}
	if e.Seen != nil {
		e.Seen.At = earlier(e.Seen.At, now)
	}
}

func earlier(t, limit time.Time) time.Time {
	if t.After(limit) {
		return limit
	}
	return t
}
