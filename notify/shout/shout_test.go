package shout

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"

	"github.com/certsitter/certsitter/notify"
)

const sentBody = "The CA cannot be reached. Look at the router."

func request(target string) notify.Request {
	return notify.Request{
		ID: "certsitter_home", URL: target, Severity: notify.Critical,
		Title: "URGENT: Zertifikat läuft ab\r\nBcc: x@example.org", Body: sentBody,
	}
}

const foldedTitle = "URGENT: Zertifikat laeuft ab Bcc: x@example.org"

// everywhere is a URL for each service that Certsitter lets through. The
// secrets in them are made to be found.
var everywhere = map[string]string{
	"bark":       "bark://:SECRETdevicekey@bark.test/",
	"discord":    "discord://SECRETtoken@123456789012345678",
	"generic":    "generic://hook.test/SECRETpath?template=json&token=SECRETquery&@Authorization=Bearer+SECRETbearer",
	"gotify":     "gotify://gotify.test/ASECRETtoken_15",
	"googlechat": "googlechat://chat.googleapis.com/v1/spaces/SECRETspace/messages?key=SECRETkey&token=SECRETtoken",
	"hangouts":   "hangouts://chat.googleapis.com/v1/spaces/SECRETspace/messages?key=SECRETkey&token=SECRETtoken",
	"ifttt":      "ifttt://SECRETkey/?events=certificate",
	"join":       "join://shoutrrr:SECRETapikey@join/?devices=SECRETdevice",
	"lark":       "lark://open.larksuite.com/SECRETtoken?secret=SECRETsign",
	"matrix":     "matrix://:SECRETaccess@matrix.test/?rooms=!SECRETroom:matrix.test",
	"mattermost": "mattermost://mattermost.test/SECRETtoken",
	"notifiarr":  "notifiarr://SECRETapikey?channel=123456789012345678",
	"ntfy":       "ntfy://SECRETuser:SECRETpass@ntfy.test/SECRETtopic",
	"opsgenie":   "opsgenie://api.opsgenie.com/SECRETapikey",
	"pagerduty":  "pagerduty://events.pagerduty.com:443/5ec7e75ec7e75ec7e75ec7e75ec7e75e",
	"pushbullet": "pushbullet://o.SECRETSECRETSECRETSECRETSECRETSE",
	"pushover":   "pushover://shoutrrr:SECRETtoken@SECRETuserkey/",
	"rocketchat": "rocketchat://rocket.test/SECRETtokenA/SECRETtokenB",
	"signal":     "signal://SECRETuser:SECRETpass@signal.test:443/+49123456789/+49987654321",
	"slack":      "slack://hook:SECRETTTT-SECRETBBB-SECRETSECRETSECRETSECRET@webhook",
	"teams":      "teams://11111111-4444-4444-8444-cccccccccccc@22222222-4444-4444-8444-cccccccccccc/33333333012222222222333333333344/44444444-4444-4444-8444-cccccccccccc/V2ESyij_gAljSoUQHvZoZYzlpAoAXExyOl26dlf1xHEx05?host=test.webhook.office.com",
	"telegram":   "telegram://123456789:SECRETSECRETSECRETSECRETSECRETSECRE@telegram?chats=@SECRETchan",
	"wecom":      "wecom://SECRETkey",
	"zulip":      "zulip://SECRETbot%40zulip.test:SECRETkey@zulip.test?stream=SECRETstream",
}

// yes answers in the words of every service at once.
func yes(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.Host, "slack"):
		_, _ = io.WriteString(w, "ok")
	case strings.Contains(r.Host, "office.com"):
		_, _ = io.WriteString(w, "1")
	case strings.Contains(r.Host, "pushbullet"):
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "note", "active": true, "title": foldedTitle, "body": sentBody})
	case strings.Contains(r.Host, "larksuite"):
		_, _ = io.WriteString(w, `{"code": 0}`)
	case strings.Contains(r.Host, "opsgenie"), strings.Contains(r.Host, "pagerduty"):
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"status": "success"}`)
	case strings.Contains(r.Host, "signal"):
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"timestamp": 1}`)
	default:
		_, _ = io.WriteString(w, `{"ok": true, "result": "success", "success": true, "code": 200, "errcode": 0, "room_id": "!r:x", "event_id": "1"}`)
	}
}

func TestEveryServiceIsKnown(t *testing.T) {
	have := slices.Sorted(maps.Keys(forms))
	want := slices.Sorted(slices.Values(new(router.ServiceRouter).ListServices()))
	if !slices.Equal(have, want) {
		t.Errorf("forms for %v\nshoutrrr has %v", have, want)
	}
	for scheme, f := range forms {
		if f.refuse == "" && f.transport == overHTTP && everywhere[scheme] == "" {
			t.Errorf("%s is not tested", scheme)
		}
	}
}

// What the services get.
func TestEveryServiceDelivers(t *testing.T) {
	// What has to be in the request, beside the text. Titles are parameters of
	// their own or the first line.
	want := map[string][]string{
		"ntfy":      {"Title=" + foldedTitle, "Priority=High"},
		"gotify":    {`"title":"` + foldedTitle, `"priority":8`, "X-Gotify-Key=ASECRETtoken_15"},
		"pushover":  {"priority=1"},
		"telegram":  {"\\u003cb\\u003e" + foldedTitle, `"disable_notification": false`},
		"opsgenie":  {`"priority":"P2"`, `"alias":"certsitter_home"`, `"message":"` + foldedTitle},
		"pagerduty": {`"severity":"critical"`, `"dedup_key":"certsitter_home"`, `"event_action":"trigger"`},
		"slack":     {"#c62828"},
		"teams":     {`"themeColor":"c62828"`},
		"discord":   {fmt.Sprintf(`"color":%d`, 0xc62828)},
		"generic":   {`"title":"` + foldedTitle, "Authorization=Bearer SECRETbearer"},
		"zulip":     {"topic=Certsitter"},
	}
	for scheme, target := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			i := connect(t, yes)
			r := request(target)
			if err := i.child().send(t, r); err != nil {
				t.Fatalf("undelivered: %+v", err)
			}
			got := ""
			for _, s := range i.requests() {
				body, _ := url.QueryUnescape(s.body)
				query, _ := url.QueryUnescape(s.url)
				got += s.method + " " + query + "\n" + body + "\n" + s.body + "\n"
				for key, values := range s.header {
					got += key + "=" + values[0] + "\n"
				}
			}
			for _, part := range append(want[scheme], "The CA cannot be reached.", "URGENT: Zertifikat l") {
				if !strings.Contains(got, part) {
					t.Errorf("no %q in\n%s", part, got)
				}
			}
			if strings.Contains(got, "\nBcc:") {
				t.Errorf("a header was injected:\n%s", got)
			}
		})
	}
}

// What the services say when they are told no, and where nobody is: nothing of
// the URL's secrets, and never that it was delivered.
func TestEveryServiceFailsInSilence(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"refused": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"ok": false, "description": "you are `+r.URL.String()+`", "error": "x", "errors": ["SECRETtoken"]}`)
		},
		"redirected": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusFound)
		},
		"broken": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
		},
	}
	for scheme, target := range everywhere {
		for name, answer := range answers {
			t.Run(scheme+"/"+name, func(t *testing.T) {
				t.Parallel()
				i := connect(t, answer)
				err := i.child().send(t, request(target))
				checkFailure(t, target, err)
				if err == nil {
					return
				}
				if permanent := name == "refused"; err.Permanent != permanent {
					t.Errorf("permanent: %t: %s", err.Permanent, err.Reason)
				}
				for _, s := range i.requests() {
					if strings.Contains(s.url, "login") {
						t.Errorf("followed to %s", s.url)
					}
				}
				if scheme == "discord" && len(i.requests()) != 1 {
					t.Errorf("tried %d times", len(i.requests()))
				}
			})
		}
		t.Run(scheme+"/offline", func(t *testing.T) {
			t.Parallel()
			err := offline(t).send(t, request(target))
			checkFailure(t, target, err)
			if err != nil && err.Permanent {
				t.Errorf("a network that is down is not for ever: %s", err.Reason)
			}
		})
	}
}

func checkFailure(t *testing.T, target string, err *notify.Undelivered) {
	t.Helper()
	if err == nil {
		t.Error("taken for delivered")
		return
	}
	if err.Reason == "" || utf8.RuneCountInString(err.Reason) > maxReason {
		t.Errorf("reason of %d characters: %q", utf8.RuneCountInString(err.Reason), err.Reason)
	}
	if strings.Contains(err.Reason, "SECRET") || strings.Contains(err.Reason, "gAljSoUQ") || strings.Contains(err.Reason, "5ec7e7") {
		t.Errorf("%s\ngives away %s", err.Reason, target)
	}
	t.Log(err.Reason)
}

func TestAnswersThatAreNotWhatTheySeem(t *testing.T) {
	say := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := []struct {
		name, scheme string
		answer       http.HandlerFunc
		want         string
		permanent    bool
		retryAfter   time.Duration
	}{
		{"telegram says no with 200", "telegram", say(200, `{"ok": false, "description": "chat not found"}`), "Telegram refused the message: chat not found", false, 0},
		{"telegram says nothing", "telegram", say(200, ""), "Telegram did not confirm the message", false, 0},
		{"telegram has enough", "telegram", say(429, `{"ok": false, "description": "Too Many Requests", "parameters": {"retry_after": 35}}`), "429 Too Many Requests: Too Many Requests", false, 35 * time.Second},
		{"telegram does not know the token", "telegram", say(401, `{"ok": false, "description": "Unauthorized"}`), "401 Unauthorized: Unauthorized", true, 0},
		{"zulip says no with 200", "zulip", say(200, `{"result": "error", "msg": "Stream does not exist"}`), "Stream does not exist", false, 0},
		{"join says no with 200", "join", say(200, `{"success": false, "errorMessage": "x"}`), "Join did not confirm", false, 0},
		{"busy", "generic", say(503, "", "Retry-After", "3600"), "503", false, time.Hour},
		{"busy until", "generic", say(429, "", "Retry-After", "Tue, 01 Dec 2026 09:00:00 GMT", "Date", "Tue, 01 Dec 2026 08:30:00 GMT"), "429", false, 30 * time.Minute},
		{"gone", "ntfy", say(410, `{"error": "no such topic"}`), "410 Gone: no such topic", true, 0},
		{"not found", "gotify", say(404, `{"error": "Not Found", "errorDescription": "page not found"}`), "404 Not Found: page not found", true, 0},
		{"an endless answer", "generic", say(400, strings.Repeat("x", 1<<20)), "400", true, 0},
		{"moved", "mattermost", say(301, "", "Location", "https://elsewhere.test/"), "elsewhere", false, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := connect(t, test.answer).child().send(t, request(everywhere[test.scheme]))
			checkFailure(t, everywhere[test.scheme], err)
			if err == nil {
				return
			}
			if !strings.Contains(err.Reason, test.want) || err.Permanent != test.permanent || err.RetryAfter != test.retryAfter {
				t.Errorf("%+v; want %q, %t, %v", err, test.want, test.permanent, test.retryAfter)
			}
		})
	}
}

// A Matrix account in no room at all tells nobody, and shoutrrr is content.
func TestMatrixWithoutRooms(t *testing.T) {
	i := connect(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"joined_rooms": []}`) })
	err := i.child().send(t, request("matrix://:SECRETaccess@matrix.test/"))
	checkFailure(t, "matrix", err)
	if err != nil && !strings.Contains(err.Reason, "in no room") {
		t.Errorf("%s", err.Reason)
	}
}

// Nothing hangs longer than it may.
func TestNothingHangs(t *testing.T) {
	silent := hole(t)
	for name, target := range map[string]string{
		"generic":    "generic://" + silent + "/x?disabletls=yes",
		"ntfy":       "ntfy://" + silent + "/topic?scheme=http",
		"gotify":     "gotify://" + silent + "/ASECRETtoken_15?disabletls=yes",
		"mattermost": "mattermost://" + silent + "/token?disabletls=yes",
		"smtp":       "smtp://" + silent + "/?from=a@b.test&to=c@d.test&auth=none&timeout=1s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := child{limit: 300 * time.Millisecond}
			err := c.send(t, request(target))
			if err == nil || err.Permanent || !strings.Contains(err.Reason, "deadline exceeded") {
				t.Errorf("%+v", err)
			}
		})
	}
}

// An answer that never ends is cut off by the deadline, too.
func TestAnAnswerThatTrickles(t *testing.T) {
	i := connect(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	c := i.child()
	c.limit = 500 * time.Millisecond
	if err := c.send(t, request(everywhere["generic"])); err == nil || !strings.Contains(err.Reason, "deadline exceeded") {
		t.Errorf("%+v", err)
	}
}

func TestURLsThatAreWrong(t *testing.T) {
	for target, want := range map[string]string{
		"":                                      "does not begin with a service",
		"::SECRETstuff":                         "cannot be read",
		"http://SECRETuser:SECRETpass@x/":       `no notification service "http"`,
		"telegram://SECRETtoken@telegram":       "invalid telegram token",
		"gotify://host/SECRETtoken":             "token",
		"ntfy://ntfy.sh/":                       "topic is required",
		"ntfy://ntfy.sh/SECRETtopic?nonsense=1": "nonsense",
		"logger://":                             "tells nobody",
		"smtp://SECRETuser:SECRETpass@x/":       "fromAddress missing",
		"pagerduty://x":                         "",
	} {
		err := child{limit: 5 * time.Second}.send(t, request(target))
		checkFailure(t, target, err)
		if err != nil && (!err.Permanent || !strings.Contains(err.Reason, want)) {
			t.Errorf("%s: %+v; want %q", target, err, want)
		}
	}
}

func TestMail(t *testing.T) {
	m := newMailbox(t, "127.0.0.1", nil)
	r := request("smtp://" + m.address + "/?from=certsitter@example.org&to=me@example.org")
	if err := (child{limit: 10 * time.Second}).send(t, r); err != nil {
		t.Fatal(err)
	}
	mail := <-m.mail
	head, body, _ := strings.Cut(mail, "\n\n")
	if !strings.Contains(head, "Subject: "+foldedTitle+"\n") || strings.Contains(head, "\nBcc") || !strings.Contains(body, sentBody) {
		t.Errorf("mail:\n%s", mail)
	}
}

func TestMailThatIsRefused(t *testing.T) {
	for command, test := range map[string]struct {
		answer    string
		permanent bool
	}{
		"":     {"554 go away", true},
		"RCPT": {"550 no such user", true},
		"MAIL": {"451 try later", false},
		"END":  {"552 too much", true},
	} {
		m := newMailbox(t, "127.0.0.1", map[string]string{command: test.answer})
		err := child{limit: 10 * time.Second}.send(t, request("smtp://"+m.address+"/?from=certsitter@example.org&to=SECRET@example.org"))
		checkFailure(t, "smtp", err)
		if err != nil && (err.Permanent != test.permanent || !strings.Contains(err.Reason, test.answer[4:])) {
			t.Errorf("%s: %+v", test.answer, err)
		}
	}
}

// Passwords go over encrypted connections only (but to the machine itself, which
// is what 127.0.0.2 is not to Go).
func TestMailPasswordIsNotSentInTheClear(t *testing.T) {
	m := newMailbox(t, "127.0.0.2", nil)
	const sender = "?from=a@example.org&to=b@example.org"
	for query, want := range map[string]string{"": "unencrypted connection", "&requirestarttls=yes": "does not support StartTLS"} {
		err := child{limit: 10 * time.Second}.send(t, request("smtp://user:SECRETpass@"+m.address+"/"+sender+query))
		checkFailure(t, "smtp", err)
		if err != nil && !strings.Contains(err.Reason, want) {
			t.Errorf("%s; want %q", err.Reason, want)
		}
	}
}

// Two messages in a row: shoutrrr keeps the first one's title and priority in
// its services, so each message needs one of its own.
func TestParametersDoNotStick(t *testing.T) {
	i := connect(t, yes)
	c := i.child()
	first, second := request(everywhere["ntfy"]), request(everywhere["ntfy"])
	second.Title, second.Severity, second.Resolved = "Fine again", notify.Notice, true
	for _, r := range []notify.Request{first, second} {
		if err := c.send(t, r); err != nil {
			t.Fatal(err)
		}
	}
	got := i.requests()
	if len(got) != 2 || got[0].header.Get("Title") != foldedTitle || got[1].header.Get("Title") != "Fine again" || got[1].header.Get("Priority") != "Low" {
		t.Errorf("%+v", got)
	}
}

func TestTheEndOfAnIncident(t *testing.T) {
	i := connect(t, yes)
	r := request(everywhere["pagerduty"])
	r.Resolved, r.Severity = true, notify.Notice
	if err := i.child().send(t, r); err != nil {
		t.Fatal(err)
	}
	if got := i.requests()[0].body; !strings.Contains(got, `"event_action":"resolve"`) || !strings.Contains(got, `"dedup_key":"certsitter_home"`) {
		t.Error(got)
	}
}

// What the user says in the URL stands.
func TestParametersOfTheUser(t *testing.T) {
	i := connect(t, yes)
	if err := i.child().send(t, request(everywhere["ntfy"]+"?priority=min&tags=lock")); err != nil {
		t.Fatal(err)
	}
	if got := i.requests()[0].header; got.Get("Priority") != "Min" || got.Get("Tags") != "lock" {
		t.Errorf("%v", got)
	}
}
