package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// peer is where a request comes from, which decides what it may do.
type peer int

const (
	beyond   peer = iota // from another machine, or through a proxy on this one
	loopback             // from this machine
	ingress              // from Home Assistant's Supervisor, which has checked the user
	socket               // from the control socket, which only its owner can open
)

// supervisor is the address that ingress traffic comes from, the only one.
var supervisor = netip.AddrFrom4([4]byte{172, 30, 32, 2})

// forwarding are the headers by which a proxy shows itself. A proxy on this
// machine brings strangers to the loopback address: they are beyond it.
// Whoever adds such a header can only lose by it.
var forwarding = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}

func peerOf(r *http.Request, app bool) peer {
	if listenerOf(r.Context()).socket {
		return socket
	}
	from := remoteAddress(r)
	if app && from == supervisor {
		return ingress
	}
	proxied := slices.ContainsFunc(forwarding, func(h string) bool { return r.Header.Get(h) != "" })
	if from.IsLoopback() && !proxied {
		return loopback
	}
	return beyond
}

func remoteAddress(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap().WithZone("")
}

// denial is why a request does not get in.
type denial struct {
	status int
	code   string // stable, for programs
	text   func(words) string
	until  time.Time // when it may be tried again; zero = no instant
}

// admit says whether r may be answered: nil, or why not.
func (s *Server) admit(r *http.Request) *denial {
	c := s.config.Load()
	from := peerOf(r, c.App)
	switch {
	case from == socket:
		return nil
	case c.App && from == beyond:
		return &denial{status: http.StatusForbidden, code: "address", text: func(w words) string { return w.DeniedAddress }}
	case from != ingress && !knownHost(r.Host, c.Names, s.sitter.Snapshot):
		// DNS rebinding: a stranger's name that resolves to us makes the
		// browser believe that the stranger's page and ours are one.
		return &denial{status: http.StatusMisdirectedRequest, code: "host", text: func(w words) string { return w.DeniedHost }}
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return nil
	case !sameOrigin(r, from):
		return &denial{status: http.StatusForbidden, code: "origin", text: func(w words) string { return w.DeniedOrigin }}
	case from == beyond:
		return s.guesses.admit(s.now(), r, c.Password)
	}
	return nil
}

// knownHost reports whether a Host header is one of ours: an address,
// localhost, a name that no public DNS can give away, or a configured one.
func knownHost(host string, names []string, snapshot func() *sitter.Snapshot) bool {
	name := strings.ToLower(strings.TrimSuffix(hostname(host), "."))
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" {
		return true
	}
	for _, suffix := range []string{".local", ".lan", ".home.arpa"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	match := func(pattern string) bool { return covers(strings.ToLower(pattern), name) }
	if slices.ContainsFunc(names, match) {
		return true
	}
	snap := snapshot()
	if snap == nil {
		return false
	}
	return slices.ContainsFunc(snap.Certificates, func(c sitter.Certificate) bool { return slices.ContainsFunc(c.Domains, match) })
}

// covers reports whether pattern is name, or a wildcard for it (one label).
func covers(pattern, name string) bool {
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		label, rest, _ := strings.Cut(name, ".")
		return label != "" && rest == parent
	}
	return name != "" && pattern == name
}

// hostname cuts the port and the brackets of a Host header off.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// sameOrigin reports whether a command comes from our own page, or from a
// script where those are welcome. Both headers count where both are there:
// behind a proxy that hides itself, Sec-Fetch-Site alone would be right and
// the loopback address wrong.
func sameOrigin(r *http.Request, from peer) bool {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site != "" && site != "same-origin" {
		return false
	}
	if origin == "" {
		return site != "" || from != ingress // through the ingress come browsers alone, and they say it
	}
	at, err := url.Parse(origin)
	if err != nil || at.Hostname() == "" { // "null" too
		return false
	}
	if from != ingress {
		return sameHost(at, r.Host)
	}
	// Proxies before Home Assistant change ports, and its own session cookie
	// is SameSite=Strict: the name is enough.
	forwarded := r.Header.Get("X-Forwarded-Host")
	return strings.EqualFold(at.Hostname(), hostname(r.Host)) || forwarded != "" && strings.EqualFold(at.Hostname(), hostname(forwarded))
}

// sameHost compares an origin with a Host header, where a scheme's usual port
// may be missing on either side.
func sameHost(origin *url.URL, host string) bool {
	usual := map[string]string{"http": "80", "https": "443"}[origin.Scheme]
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		port = usual
	}
	originPort := origin.Port()
	if originPort == "" {
		originPort = usual
	}
	return strings.EqualFold(origin.Hostname(), hostname(host)) && port == originPort
}

const (
	freeGuesses   = 5                // wrong passwords before anybody has to wait
	firstWait     = time.Minute      // after the last free one; doubled with each further guess
	longestWait   = 15 * time.Minute // 4 guesses an hour: a password of four words outlives us all
	guessesForget = time.Hour        // without a wrong one
	guessers      = 1024             // addresses remembered
)

// guesses slows those down who try passwords: per IPv4 address and per IPv6
// /64, which is what one household has.
type guesses struct {
	mu sync.Mutex // guards by
	by map[netip.Prefix]guess
}

type guess struct {
	wrong int
	last  time.Time
}

func newGuesses() *guesses { return &guesses{by: map[netip.Prefix]guess{}} }

// until says when the next try is listened to; in the past = now.
func (g guess) until() time.Time {
	if g.wrong < freeGuesses {
		return time.Time{}
	}
	doubled := firstWait << min(g.wrong-freeGuesses, 10)
	return g.last.Add(min(doubled, longestWait))
}

// admit checks the password of a request from beyond. The lock is held over the
// comparison so that parallel tries do not share one free guess.
func (g *guesses) admit(now time.Time, r *http.Request, password string) *denial {
	if password == "" {
		return &denial{status: http.StatusForbidden, code: "no_password", text: func(w words) string { return w.DeniedNoPassword }}
	}
	who := household(remoteAddress(r))
	g.mu.Lock()
	defer g.mu.Unlock()
	past := g.by[who]
	if now.Sub(past.last) > guessesForget {
		past = guess{}
	}
	if until := past.until(); now.Before(until) {
		return &denial{status: http.StatusTooManyRequests, code: "guesses", until: until, text: func(w words) string { return w.DeniedGuesses }}
	}
	_, given, ok := r.BasicAuth()
	if ok && equal(given, password) {
		delete(g.by, who)
		return nil
	}
	if ok { // to ask without a password is no guess: browsers do so first
		g.remember(who, guess{wrong: past.wrong + 1, last: now})
	}
	return &denial{status: http.StatusUnauthorized, code: "password", text: func(w words) string { return w.DeniedPassword }}
}

// remember keeps the number of addresses bounded: the one that has been quiet
// for longest is forgotten for a new one.
func (g *guesses) remember(who netip.Prefix, latest guess) {
	if _, known := g.by[who]; !known && len(g.by) >= guessers {
		var oldest netip.Prefix
		for p, e := range g.by {
			if !oldest.IsValid() || e.last.Before(g.by[oldest].last) {
				oldest = p
			}
		}
		delete(g.by, oldest)
	}
	g.by[who] = latest
}

func household(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// equal takes the same time whatever is wrong with given, its length included.
func equal(given, password string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
