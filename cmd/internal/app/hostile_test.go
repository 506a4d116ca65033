package app

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certsitter/certsitter/internal/homeassistant"
	"github.com/certsitter/certsitter/internal/pebble"
)

// hostile are texts that break something somewhere if they are taken for more
// than texts.
func hostile() map[string]string {
	return map[string]string{
		"jinja":  `{{ states('sun.sun') }}{% for x in range(9) %}{# x`,
		"quotes": `"' \" \\ ' "", } { ] [ : , \n \u0000 ${HOME} $(id)`,
		"html":   `<script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;`,
		"emoji":  "🦊🏳️‍🌈 ÄÖÜ ẞ 漢字 \u202etxt.exe\u202c e\u0301",
		"space":  "a\tb\nc\r\nd\u2028e\u00a0f\u0000g",
		"long":   strings.Repeat("long ", 13000),
		"none":   "None",
		"states": "unavailable",
	}
}

// hostileDomain is the domain of names whose orders the CA refuses with one of the
// texts: the one that the first label names.
const hostileDomain = "hostile.example.org"

// refusing is a CA that refuses orders for hostileDomain.
func refusing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != pebble.NewOrderPath {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		label, _, found := strings.Cut(orderedName(body), ".")
		if err != nil || !found || !strings.HasSuffix(orderedName(body), hostileDomain) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Replay-Nonce", nonce(next))
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": hostile()[label], "status": http.StatusForbidden})
	})
}

// orderedName is the first name of a signed newOrder request (RFC 8555 §7.4).
func orderedName(body []byte) string {
	var signed struct{ Payload string }
	if json.Unmarshal(body, &signed) != nil {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	var order struct{ Identifiers []struct{ Value string } }
	if err != nil || json.Unmarshal(payload, &order) != nil || len(order.Identifiers) == 0 {
		return ""
	}
	return order.Identifiers[0].Value
}

// nonce is one that the CA takes.
func nonce(ca http.Handler) string {
	answer := httptest.NewRecorder()
	ca.ServeHTTP(answer, httptest.NewRequest(http.MethodHead, pebble.NoncePath, nil))
	return answer.Header().Get("Replay-Nonce")
}

// Texts of strangers: subjects and issuers of certificates that are watched, and
// what a CA says to an order.
func (h *house) hostileTexts(t *testing.T) {
	texts := hostile()
	before := h.values(t)
	orders, watch := "", "watch:\n- {name: nas, source: nas.pem}\n"
	for name, text := range texts {
		cert, _ := issue(t, text, text, time.Now().Add(40*24*time.Hour), "nas.lan")
		write(t, h.path(name+".pem"), cert)
		watch += fmt.Sprintf("- {name: %[1]s, source: %[1]s.pem}\n", name)
		orders += fmt.Sprintf("- {name: ca_%[1]s, domains: [%[1]s.%[2]s], certfile: ca_%[1]s.pem, keyfile: ca_%[1]s.key}\n", name, hostileDomain)
	}
	h.configure(t, h.managed("home")+h.managed("second")+orders+watch)
	h.sitter.hangup(t, "configuration read again")
	for name := range texts {
		h.core.Wait(t, "sensor.certsitter_"+name+"_status", "ok", failed)
		h.core.Wait(t, "sensor.certsitter_ca_"+name+"_status", "warning", failed)
	}
	h.showIssuers(t)
	for name, text := range texts {
		h.core.WaitFor(t, "sensor.certsitter_"+name+"_issuer", fmt.Sprintf("%.60q as its issuer", text), failed, func(s homeassistant.State) bool { return plain(s.State, text) })
		result := h.core.Wait(t, "sensor.certsitter_ca_"+name+"_last_result", "(?s)Renewal failed: .+", failed).State
		if utf8.RuneCountInString(result) > 200 || strings.ContainsAny(result, "\n\t\u202e\x00") {
			t.Errorf("the last result is %q", result)
		}
		want := "The attempt failed: " + hostile()[name]
		if name != "long" && !strings.HasSuffix(visible(result), visible(want)) && !strings.HasSuffix(visible(result), visible(want)+".") {
			t.Errorf("the last result is %q, want %q", result, want)
		}
		h.core.Wait(t, "binary_sensor.certsitter_ca_"+name+"_problem", "on", failed)
	}
	h.content(t)

	h.refused(t)

	h.configure(t, h.managed("home")+h.managed("second")+h.watched("nas", "nas.pem"))
	h.sitter.hangup(t, "configuration read again")
	h.back(t, before, time.Now())
	h.content(t)
}

// plain tells whether a state is the text of a stranger as people may see it:
// without what cannot be seen, and cut.
func plain(state, text string) bool {
	if text == "None" { // how a message says that there is no value
		return state == "unknown"
	}
	got, want := visible(state), visible(text)
	if len(text) > 1000 {
		return len(got) > 100 && strings.HasPrefix(want, strings.TrimSuffix(got, "…"))
	}
	return got == want
}

func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// showIssuers does what a user does who wants to see the disabled entities. Home
// Assistant then sets MQTT up anew, half a minute later; here it is told to.
func (h *house) showIssuers(t *testing.T) {
	t.Helper()
	for name := range hostile() {
		h.core.Ask(t, map[string]any{"type": "config/entity_registry/update", "entity_id": "sensor.certsitter_" + name + "_issuer", "disabled_by": nil}, nil)
	}
	var entries []struct {
		ID string `json:"entry_id"`
	}
	h.core.Ask(t, map[string]any{"type": "config_entries/get", "domain": "mqtt"}, &entries)
	h.core.Call(t, "homeassistant.reload_config_entry", map[string]string{"entry_id": entries[0].ID})
}

// refused: where a text is no name, the whole configuration is refused, all of it
// in one sentence each, and Home Assistant sees no change.
func (h *house) refused(t *testing.T) {
	t.Helper()
	before := h.values(t)
	delete(before, "sensor.certsitter_problems") // a refused configuration is one
	rest := ""
	for _, text := range hostile() {
		name, err := json.Marshal(text) // JSON is YAML
		if err != nil {
			t.Fatal(err)
		}
		rest += fmt.Sprintf("- {name: %s, domains: [%s]}\n", name, name)
	}
	h.configure(t, h.managed("home")+rest)
	h.sitter.hangup(t, "the configuration was not taken into force")
	h.core.Wait(t, "sensor.certsitter_problems", "[1-9][0-9]*", failed)
	now := h.values(t)
	delete(now, "sensor.certsitter_problems")
	if !maps.Equal(before, now) {
		t.Errorf("was %v\nis %v", before, now)
	}
	for line := range strings.Lines(h.sitter.log.String()) {
		if len(line) > 64<<10 {
			t.Errorf("a line of the log has %d bytes", len(line))
		}
	}
}
