package page

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

//go:embed page.css page.js icon.svg
var files embed.FS

// Deadlines of commands. A renewal is answered when it has begun; looks, test
// messages and revocations when they are over, which slow peers may draw out.
const (
	renewLimit  = 30 * time.Second // a restart of Home Assistant, too
	checkLimit  = 2 * time.Minute
	notifyLimit = 3 * time.Minute
	revokeLimit = 5 * time.Minute
	makeLimit   = 10 * time.Second // to make a download: nobody else is asked for it
	writeMargin = 10 * time.Second // to write the answer after a command's deadline
)

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /page.css", asset("text/css; charset=utf-8"))
	mux.HandleFunc("GET /page.js", asset("text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /icon.svg", asset("image/svg+xml"))
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /files/{name}", s.file)
	mux.HandleFunc("GET /api/state", s.state)
	mux.HandleFunc("GET /api/events", s.events)
	mux.HandleFunc("POST /api/certificates/{name}/renew", s.command("renew", renewLimit, s.renew))
	mux.HandleFunc("POST /api/check", s.command("check", checkLimit, s.check))
	mux.HandleFunc("POST /api/notify/test", s.command("notify", notifyLimit, s.testNotify))
	mux.HandleFunc("POST /api/homeassistant/restart", s.command("restart", renewLimit, s.restartHomeAssistant))
	return mux
}

// controlRoutes are the same and what only the state folder's owner may ask.
func (s *Server) controlRoutes() *http.ServeMux {
	mux := s.routes()
	mux.HandleFunc("POST /api/certificates/{name}/revoke", s.command("revoke", revokeLimit, s.revoke))
	return mux
}

// secured puts the access rules and the headers around everything.
func (s *Server) secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		// Everything is ours and comes from here; no inline script or style,
		// so a hostile name has nothing to get hold of. Ingress shows us in a
		// frame of Home Assistant's own origin, which is ours there.
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'self'")
		h.Set("X-Frame-Options", "SAMEORIGIN")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		// Not no-referrer: with it browsers send "Origin: null" with a form.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if d := s.admit(r); d != nil {
			if d.status == http.StatusUnauthorized {
				h.Set("WWW-Authenticate", `Basic realm="Certsitter", charset="UTF-8"`)
			}
			s.answer(w, r, d.status, trouble{Error: d.text(s.words()), Code: d.code, Until: d.until})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) words() words {
	if snap := s.sitter.Snapshot(); snap != nil && snap.Language != "" {
		return wordsIn(snap.Language)
	}
	return wordsIn(s.config.Load().Language)
}

func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	c := s.config.Load()
	from := peerOf(r, c.App)
	v := look(s.sitter.Snapshot(), s.words(), reader{
		now:    s.now(),
		zone:   s.zone,
		base:   ingressBase(r, from),
		mayAct: from != beyond || c.Password != "",
		said:   r.URL.Query().Get("done"),
	})
	v.Downloads = c.Downloads
	v.Version = cmp.Or(v.Version, c.Version)
	render(w, http.StatusOK, v.html())
}

// ingressBase is where the page is under Home Assistant's address. Nobody but
// the Supervisor is asked for it.
func ingressBase(r *http.Request, from peer) string {
	base := r.Header.Get("X-Ingress-Path")
	if from != ingress || !ingressPath.MatchString(base) {
		return ""
	}
	return strings.TrimSuffix(base, "/") + "/"
}

var ingressPath = regexp.MustCompile(`^(/[A-Za-z0-9_-]+){1,8}/?$`)

func render(w http.ResponseWriter, status int, page g.Node) {
	var b bytes.Buffer
	_ = page.Render(&b) // its errors are the buffer's, which has none
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the reader may be gone
}

func asset(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, err := files.ReadFile(path.Base(r.URL.Path))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content)
	}
}

// file makes one of the downloads. A name is looked up among them, never in a
// folder.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	all := s.config.Load().Downloads
	i := slices.IndexFunc(all, func(d Download) bool { return d.Name == r.PathValue("name") })
	if i < 0 {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), makeLimit)
	defer cancel()
	text, err := all[i].Make(ctx)
	if err != nil {
		status, t := s.explain(err)
		s.answer(w, r, status, t)
		return
	}
	w.Header().Set("Content-Type", cmp.Or(all[i].ContentType, "text/plain; charset=utf-8"))
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

// health is for the container's HEALTHCHECK and watchdogs: whether the daemon
// answers, not how the certificates are (a restart would not renew them).
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ready(s.sitter.Snapshot()) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "starting\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

func (s *Server) state(w http.ResponseWriter, r *http.Request) {
	snap := s.sitter.Snapshot()
	if !ready(snap) {
		writeJSON(w, http.StatusServiceUnavailable, trouble{Error: s.words().Starting, Code: "starting"})
		return
	}
	writeJSON(w, http.StatusOK, snap)
}

// ready reports whether the loop has looked at anything yet.
func ready(snap *sitter.Snapshot) bool { return snap != nil && !snap.Time.IsZero() }

// trouble is the JSON of everything that was not done.
type trouble struct {
	Error      string            `json:"error"`
	Code       string            `json:"code"` // stable: those of sitter.Refused, and host, origin, password…
	Until      time.Time         `json:"until,omitzero"`
	Deliveries []sitter.Delivery `json:"deliveries,omitempty"` // of a test message that did not reach everybody
}

// accepted is the JSON of a command that was taken.
type accepted struct {
	Accepted   bool              `json:"accepted"`
	Deliveries []sitter.Delivery `json:"deliveries,omitempty"`
}

// request is what a command takes from its caller: the JSON body, the form and
// the query say the same.
type request map[string]string

// command answers a POST: JSON for programs and for the page's script, a page
// or a redirect for a browser without JavaScript.
func (s *Server) command(verb string, limit time.Duration, run func(context.Context, *http.Request, request) ([]sitter.Delivery, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeMargin)) // a connection has one
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		var deliveries []sitter.Delivery
		asked, err := read(w, r)
		if err == nil {
			deliveries, err = run(ctx, r, asked)
		}
		if err != nil {
			status, t := s.explain(err)
			t.Deliveries = deliveries
			s.answer(w, r, status, t)
			return
		}
		if wantsPage(r) {
			w.Header().Set("Location", up(r)+"?done="+verb) // relative: ingress has a path before ours
			w.WriteHeader(http.StatusSeeOther)
			return
		}
		status := http.StatusAccepted
		if deliveries != nil {
			status = http.StatusOK // these are over
		}
		writeJSON(w, status, accepted{Accepted: true, Deliveries: deliveries})
	}
}

func (s *Server) renew(ctx context.Context, r *http.Request, asked request) ([]sitter.Delivery, error) {
	o := sitter.RenewOptions{Force: true} // who presses the button means it, due or not
	known := map[string]*bool{"force": &o.Force, "staging": &o.Staging, "dry_run": &o.DryRun}
	for key, value := range asked {
		option, ok := known[key]
		if !ok { // a misspelt dry_run must not renew in earnest
			return nil, &badRequest{fmt.Sprintf("There is no option %q. The options are force, staging and dry_run.", key)}
		}
		on, err := truth(value)
		if err != nil {
			return nil, &badRequest{fmt.Sprintf("The option %s is true or false, not %q.", key, value)}
		}
		*option = on
	}
	return nil, s.sitter.Renew(ctx, r.PathValue("name"), o)
}

func truth(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "", "1", "true", "on", "yes":
		return true, nil
	case "0", "false", "off", "no":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

func (s *Server) check(ctx context.Context, _ *http.Request, _ request) ([]sitter.Delivery, error) {
	return nil, s.sitter.Check(ctx)
}

func (s *Server) restartHomeAssistant(ctx context.Context, _ *http.Request, _ request) ([]sitter.Delivery, error) {
	return nil, s.sitter.RestartHomeAssistant(ctx)
}

func (s *Server) revoke(ctx context.Context, r *http.Request, asked request) ([]sitter.Delivery, error) {
	return nil, s.sitter.Revoke(ctx, r.PathValue("name"), asked["reason"])
}

// testNotify is never told as done where one target did not get its message.
func (s *Server) testNotify(ctx context.Context, _ *http.Request, asked request) ([]sitter.Delivery, error) {
	deliveries, err := s.sitter.TestNotify(ctx, asked["target"])
	if err != nil {
		return deliveries, err
	}
	if len(deliveries) == 0 {
		return nil, &sitter.Refused{Code: "no_target", Sentence: s.words().NoMessage}
	}
	var lost []string
	for _, d := range deliveries {
		if d.Error != "" {
			lost = append(lost, fmt.Sprintf(s.words().Undelivered, d.Target, d.Error))
		}
	}
	if lost != nil {
		return deliveries, &undelivered{strings.Join(lost, "; ")}
	}
	return deliveries, nil
}

type badRequest struct{ sentence string }

func (b *badRequest) Error() string { return b.sentence }

type undelivered struct{ sentence string }

func (u *undelivered) Error() string { return u.sentence }

// explain turns an error into a status and what the caller is told.
func (s *Server) explain(err error) (int, trouble) {
	if r, ok := errors.AsType[*sitter.Refused](err); ok {
		return refusalStatus(r.Code), trouble{Error: r.Sentence, Code: r.Code, Until: r.Until}
	}
	if b, ok := errors.AsType[*badRequest](err); ok {
		return http.StatusBadRequest, trouble{Error: b.sentence, Code: "request"}
	}
	if u, ok := errors.AsType[*undelivered](err); ok {
		return http.StatusBadGateway, trouble{Error: u.sentence, Code: "undelivered"}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return http.StatusServiceUnavailable, trouble{Error: s.words().Busy, Code: "timeout"}
	}
	return http.StatusInternalServerError, trouble{Error: err.Error(), Code: "failed"}
}

// refusalStatus: what waiting heals is 429, what it does not is 409.
func refusalStatus(code string) int {
	switch code {
	case "unknown":
		return http.StatusNotFound
	case "too_soon", "retry_after", "hourly_cap", "issuances":
		return http.StatusTooManyRequests
	}
	return http.StatusConflict
}

// read takes what was asked from the query and the body. A body is JSON if it
// begins like it, whatever its label says: curl -d labels everything as a form.
func read(w http.ResponseWriter, r *http.Request) (request, error) {
	asked := request{}
	fill := func(values url.Values) {
		for key, v := range values {
			asked[key] = v[len(v)-1]
		}
	}
	fill(r.URL.Query())
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		return nil, &badRequest{"The request's body could not be read or is too long."}
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return asked, nil
	}
	if body[0] == '{' {
		return asked, readJSON(body, asked)
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		return nil, &badRequest{`The request's body is no JSON object such as {"force": true}.`}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, &badRequest{"The request's body is neither a JSON object nor a form."}
	}
	fill(form)
	return asked, nil
}

func readJSON(body []byte, asked request) error {
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		return &badRequest{"The request's body is no valid JSON object: " + err.Error() + "."}
	}
	for key, value := range object {
		switch v := value.(type) {
		case string:
			asked[key] = v
		case bool:
			asked[key] = strconv.FormatBool(v)
		default:
			return &badRequest{fmt.Sprintf("The value of %q is neither a text nor true or false.", key)}
		}
	}
	return nil
}

// answer tells why something was not done, as JSON or as a page.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, t trouble) {
	if wait := t.Until.Sub(s.now()); !t.Until.IsZero() && wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	if !wantsPage(r) {
		writeJSON(w, status, t)
		return
	}
	text := s.words()
	heading := text.Refused
	if status == http.StatusTooManyRequests {
		heading = text.NotNow
	}
	until := reader{zone: s.zone}.moment(t.Until)
	render(w, status, refusal{Words: text, Base: up(r), Title: heading, Text: t.Error, Until: until}.html())
}

// wantsPage tells a browser that follows a link or sends a form from a program.
func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// up is the way from a request's path to the page, whatever lies before it.
func up(r *http.Request) string {
	depth := strings.Count(r.URL.EscapedPath(), "/") - 1
	return cmp.Or(strings.Repeat("../", max(0, depth)), "./")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "The answer could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
