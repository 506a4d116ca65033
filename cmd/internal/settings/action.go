package settings

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An Action is what is done once a new pair is in place.
type Action struct {
	Kind     ActionKind
	Argument string // the app's slug, the unit, the container, or the command; empty for Home Assistant
	Signal   string // of SignalContainer: "SIGHUP" and the like
}

// ActionKind says what an Action does.
type ActionKind string

// The kinds of actions, as they are written.
const (
	RestartHomeAssistant ActionKind = "restart homeassistant"
	RestartApp           ActionKind = "restart app"
	ReloadUnit           ActionKind = "reload"
	RestartUnit          ActionKind = "restart"
	RestartContainer     ActionKind = "restart container"
	SignalContainer      ActionKind = "signal container"
	RunCommand           ActionKind = "run"
)

// String is the action as ParseAction reads it.
func (a Action) String() string {
	s := string(a.Kind)
	if a.Argument != "" {
		s += " " + a.Argument
	}
	if a.Signal != "" {
		s += " " + a.Signal
	}
	return s
}

// Interrupts reports that the action ends connections, so that it waits for
// restart_window. A command may do anything and is taken for one that does.
func (a Action) Interrupts() bool { return a.Kind != ReloadUnit && a.Kind != SignalContainer }

var (
	slugPattern      = regexp.MustCompile(`^[A-Za-z0-9_][-_.A-Za-z0-9]*$`)
	unitPattern      = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.:@\\]*$`)
	containerPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	signals          = []string{"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL", "SIGCONT"}
)

const actionForms = "restart homeassistant, restart app SLUG, reload UNIT, restart UNIT, restart container NAME, signal container NAME SIGNAL or run COMMAND"

// ParseAction reads one action. Errors are sentences.
func ParseAction(s string) (Action, error) {
	if strings.ContainsFunc(s, isControl) {
		return Action{}, errors.New("holds a line break or another control character: one action is one line")
	}
	verb, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	rest = strings.TrimSpace(rest)
	if verb == "run" {
		if rest == "" {
			return Action{}, errors.New("run needs a command, like run /usr/local/bin/push-to-nas")
		}
		return Action{Kind: RunCommand, Argument: rest}, nil
	}
	words := strings.Fields(rest)
	object := ""
	if len(words) > 0 {
		object = words[0]
	}
	switch {
	case verb != "restart" && verb != "reload" && verb != "signal":
		return Action{}, fmt.Errorf("%.20q begins no action: needs %s", verb, actionForms)
	case object == "app" || object == "addon" || object == "add-on":
		return appAction(verb, words)
	case object == "container":
		return containerAction(verb, words)
	case verb == "signal":
		return Action{}, errors.New("signal needs a container: signal container NAME SIGHUP")
	case object == "homeassistant":
		return homeAssistantAction(verb, words)
	}
	return unitAction(verb, words)
}

func homeAssistantAction(verb string, words []string) (Action, error) {
	if verb != "restart" || len(words) != 1 {
		return Action{}, errors.New("can only restart Home Assistant: write restart homeassistant")
	}
	return Action{Kind: RestartHomeAssistant}, nil
}

func appAction(verb string, words []string) (Action, error) {
	switch {
	case words[0] != "app":
		return Action{}, errors.New("write restart app SLUG: add-ons are called apps now")
	case verb != "restart":
		return Action{}, errors.New("can only restart an app: write restart app SLUG")
	case len(words) != 2:
		return Action{}, errors.New("restart app needs one slug, like restart app core_nginx_proxy")
	case !slugPattern.MatchString(words[1]):
		return Action{}, fmt.Errorf("%.60q is no app's slug: needs one like core_nginx_proxy", words[1])
	}
	return Action{Kind: RestartApp, Argument: words[1]}, nil
}

func containerAction(verb string, words []string) (Action, error) {
	want, form := 2, "restart container NAME"
	if verb == "signal" {
		want, form = 3, "signal container NAME SIGHUP"
	}
	switch {
	case verb == "reload":
		return Action{}, errors.New("a container can not be reloaded: write signal container NAME SIGHUP, if its program understands that")
	case len(words) != want:
		return Action{}, fmt.Errorf("needs the form %s", form)
	case !containerPattern.MatchString(words[1]):
		return Action{}, fmt.Errorf("%.60q is no container's name", words[1])
	case verb == "restart":
		return Action{Kind: RestartContainer, Argument: words[1]}, nil
	}
	signal := strings.ToUpper(words[2])
	if !strings.HasPrefix(signal, "SIG") {
		signal = "SIG" + signal
	}
	if !slices.Contains(signals, signal) {
		return Action{}, fmt.Errorf("%.60q is no signal: needs one of %s", words[2], strings.Join(signals, ", "))
	}
	return Action{Kind: SignalContainer, Argument: words[1], Signal: signal}, nil
}

func unitAction(verb string, words []string) (Action, error) {
	if len(words) != 1 {
		return Action{}, fmt.Errorf("%s needs one systemd unit, like %s nginx", verb, verb)
	}
	if !unitPattern.MatchString(words[0]) {
		return Action{}, fmt.Errorf("%.60q is no systemd unit's name", words[0])
	}
	kind := ReloadUnit
	if verb == "restart" {
		kind = RestartUnit
	}
	return Action{Kind: kind, Argument: words[0]}, nil
}
