package shout

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/certsitter/certsitter/notify"
)

// transport is how a service is talked to.
type transport int

const (
	overHTTP transport = iota
	overSMTP
)

// place says where a service has room for a title.
type place int

const (
	// inBody: it knows no title, drops it silently, or refuses the message.
	inBody place = iota
	asParam
	// asParamOfTemplate: the generic webhook drops it without a template.
	asParamOfTemplate
)

// A form is how a message is put for one service of shoutrrr v0.13.2.
type form struct {
	transport transport
	title     place
	// params are the parameters of a severity. A parameter that the user has put
	// into the URL is left alone. Unknown ones make most services refuse the
	// message, hence the table.
	params map[string]levels
	// incident is the parameter for the incident's stable id, if there is one.
	incident string
	// resolved is sent with the end of an incident.
	resolved map[string]string
	// fallback is sent where the URL does not say otherwise.
	fallback map[string]string
	// arrived looks at the answers with a good status; nil means that the status
	// says it all. why is a refusal.
	arrived func(u *url.URL, body []byte) (ok bool, why string)
	// nobody is the reason where no answer said that the message has arrived.
	nobody string
	// oneFailure: the service would try again by itself for minutes, and the
	// message would arrive after we have said that it did not.
	oneFailure bool
	// refuse is why the service is of no use.
	refuse string
}

// levels are the values of a parameter.
type levels struct{ notice, warning, critical, expired string }

func (l levels) of(s notify.Severity) string {
	switch {
	case s.Compare(notify.Expired) >= 0:
		return l.expired
	case s.Compare(notify.Critical) >= 0:
		return l.critical
	case s.Compare(notify.Warning) >= 0:
		return l.warning
	}
	return l.notice
}

// Colours of a message's border.
var (
	hexColours  = levels{"0x2e7d32", "0xf9a825", "0xc62828", "0x6a1b1a"}
	hashColours = levels{"#2e7d32", "#f9a825", "#c62828", "#6a1b1a"}
	bareColours = levels{"2e7d32", "f9a825", "c62828", "6a1b1a"}
)

// forms are the services. What each takes was read in the sources of v0.13.2
// and tried; see the tests.
var forms = map[string]form{
	"bark":    {title: asParam},
	"discord": {title: asParam, params: map[string]levels{"color": hexColours}, fallback: map[string]string{"splitlines": "no"}, oneFailure: true},
	"generic": {title: asParamOfTemplate},
	"gotify": {
		title:    asParam,
		params:   map[string]levels{"priority": {"3", "5", "8", "10"}},
		fallback: map[string]string{"useheader": "yes"}, // keeps the token out of the server's access log
	},
	"googlechat": {},
	"hangouts":   {},
	"ifttt":      {},
	"join":       {title: asParam, arrived: joinArrived},
	"lark":       {title: asParam},
	"logger":     {refuse: "logger:// tells nobody: use another service"},
	"matrix":     {arrived: matrixArrived, nobody: "the Matrix account is in no room, so nobody was told: invite it, or name rooms in the URL"},
	"mattermost": {},
	"notifiarr":  {},
	"ntfy":       {title: asParam, params: map[string]levels{"priority": {"low", "default", "high", "max"}}},
	"opsgenie":   {title: asParam, params: map[string]levels{"priority": {"P5", "P3", "P2", "P1"}}, incident: "alias"},
	"pagerduty": {
		params:   map[string]levels{"severity": {"info", "warning", "critical", "critical"}},
		incident: "dedup_key",
		resolved: map[string]string{"action": "resolve"},
	},
	"pushbullet": {title: asParam},
	// 2 would be an emergency, which needs parameters that shoutrrr does not send.
	"pushover":   {title: asParam, params: map[string]levels{"priority": {"-1", "0", "1", "1"}}},
	"rocketchat": {},
	"signal":     {},
	"slack":      {title: asParam, params: map[string]levels{"color": hashColours}},
	"smtp":       {transport: overSMTP, title: asParam},
	"teams":      {title: asParam, params: map[string]levels{"color": bareColours}},
	"telegram":   {title: asParam, params: map[string]levels{"notification": {"no", "yes", "yes", "yes"}}, arrived: telegramArrived},
	"wecom":      {},
	"zulip":      {arrived: zulipArrived, fallback: map[string]string{"topic": "Certsitter"}},
}

func (f form) missing() string {
	if f.nobody != "" {
		return f.nobody
	}
	return "the message was not sent, and the notification library does not say why"
}

// schemeOf is the service's name in a URL.
func schemeOf(u *url.URL) string {
	scheme, _, _ := strings.Cut(u.Scheme, "+")
	return scheme
}

// compose puts a request into a service's form.
func (f form) compose(r notify.Request, target *url.URL) (message string, params types.Params) {
	said := map[string]bool{}
	for key := range target.Query() {
		said[strings.ToLower(key)] = true
	}
	params = types.Params{}
	set := func(key, value string) {
		if !said[key] && value != "" {
			params[key] = value
		}
	}
	for key, l := range f.params {
		set(key, l.of(r.Severity))
	}
	for key, value := range f.fallback {
		set(key, value)
	}
	if f.incident != "" {
		set(f.incident, r.ID)
	}
	if r.Resolved {
		for key, value := range f.resolved {
			set(key, value)
		}
	}
	title, body := oneLine(r.Title), shorten(r.Body)
	if f.title == asParam || f.title == asParamOfTemplate && said["template"] {
		params.SetTitle(ascii(title))
		if body == "" {
			body = title // some services refuse an empty message
		}
		return body, params
	}
	return strings.TrimSpace(title + "\n" + body), params
}

// telegramArrived: shoutrrr drops the error of a message that Telegram has
// refused with a good status, and of one that never got there.
func telegramArrived(_ *url.URL, body []byte) (bool, string) {
	var said struct {
		OK bool `json:"ok"`
	}
	if json.Unmarshal(body, &said) != nil || !said.OK {
		return false, refusal("Telegram", body)
	}
	return true, ""
}

func zulipArrived(_ *url.URL, body []byte) (bool, string) {
	var said struct {
		Result string `json:"result"`
	}
	if json.Unmarshal(body, &said) != nil || said.Result != "success" {
		return false, refusal("Zulip", body)
	}
	return true, ""
}

// joinArrived: Join answers 200 to a wrong key.
func joinArrived(_ *url.URL, body []byte) (bool, string) {
	said := struct {
		Success bool `json:"success"`
	}{}
	if json.Unmarshal(body, &said) != nil || !said.Success {
		return false, refusal("Join", body)
	}
	return true, ""
}

// matrixArrived: logging in and joining a room is not yet a message.
func matrixArrived(u *url.URL, _ []byte) (bool, string) {
	return strings.Contains(u.Path, "/send/"), ""
}

func refusal(service string, body []byte) string {
	if words := wordsOf(body); words != "" {
		return service + " refused the message: " + words
	}
	return service + " did not confirm the message"
}
