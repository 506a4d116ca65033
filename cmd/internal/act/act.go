// Package act performs the actions that follow an installation: what makes a
// server take the new certificate into use.
//
// It performs one action once, within its deadline, and says how that ended. It
// never decides which action is due, never tries again by itself, never asks a
// person for a password, and gives a command nothing of the daemon's environment
// but what such a command needs. What another program said is in an error only
// without secrets and private keys, and never more than 4 KiB of it.
package act

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

// Certificate is what an action is told of the certificate it is for.
type Certificate struct {
	Name     string
	Domains  []string
	CertFile string
	KeyFile  string
}

// HomeAssistant is what restarts Home Assistant and its apps.
type HomeAssistant interface {
	Restart(ctx context.Context) error
	RestartApp(ctx context.Context, slug string) error
}

// Machine is what the actions need of this machine. The zero value is a machine
// without Home Assistant.
type Machine struct {
	Secrets    func(string) string // cuts secrets out of an output; nil = there are none
	ConfigFile string              // where the actions come from; "" = no file that others could write

	HomeAssistant HomeAssistant // nil = there is none
	DockerSocket  string        // "" = DOCKER_HOST of the environment, else /var/run/docker.sock
	Systemctl     string        // the program; "" = from the fixed PATH
	Nginx         string        // the program; "" = from the fixed PATH
}

// A deed is how one kind of action is performed, and how long it may take.
type deed struct {
	limit time.Duration
	do    func(context.Context, settings.Action, Certificate, Machine) error
}

// deeds are the kinds of actions. A unit may take as long to stop and to start as
// systemd lets it by default (DefaultTimeoutStopSec and -StartSec, 90 s each), a
// container as long as its own stop timeout (10 s if it has none). Home
// Assistant's restart has limits of its own, which come first.
func deeds() map[settings.ActionKind]deed {
	return map[settings.ActionKind]deed{
		settings.RunCommand:           {time.Minute, runCommand},
		settings.ReloadUnit:           {200 * time.Second, unitAction("reload")},
		settings.RestartUnit:          {200 * time.Second, unitAction("restart")},
		settings.RestartContainer:     {2 * time.Minute, restartContainer},
		settings.SignalContainer:      {30 * time.Second, signalContainer},
		settings.RestartHomeAssistant: {345 * time.Second, restartHomeAssistant},
		settings.RestartApp:           {200 * time.Second, restartApp},
	}
}

// Perform carries one action out and returns when it has ended. The error is a
// sentence that says what to do; a *[Failure] if a program of this machine did
// not succeed. Performing an action twice does no harm but the interruption.
func Perform(ctx context.Context, a settings.Action, c Certificate, m Machine) error {
	d, ok := deeds()[a.Kind]
	if !ok {
		return fmt.Errorf("the action %q is not possible here", a)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.limit, fmt.Errorf("it did not end within %v", d.limit))
	defer cancel()
	if m.Secrets == nil {
		m.Secrets = func(s string) string { return s }
	}
	return d.do(ctx, a, c, m)
}

var errNoHomeAssistant = errors.New("there is no Home Assistant to ask: run Certsitter as its app, or set homeassistant_url and homeassistant_token")

func restartHomeAssistant(ctx context.Context, _ settings.Action, _ Certificate, m Machine) error {
	if m.HomeAssistant == nil {
		return errNoHomeAssistant
	}
	return m.HomeAssistant.Restart(ctx)
}

func restartApp(ctx context.Context, a settings.Action, _ Certificate, m Machine) error {
	switch {
	case ours(a.Argument):
		return errOurselves
	case m.HomeAssistant == nil:
		return errNoHomeAssistant
	}
	return m.HomeAssistant.RestartApp(ctx, a.Argument)
}

// errOurselves: after a restart the action would still be due, and the next.
var errOurselves = errors.New("that is Certsitter itself, which would restart for ever: remove the action, Certsitter reads the new certificate without it")

// ours tells that a unit or an app is Certsitter. An app's slug has the
// repository's name before it: local_certsitter, a0d7b954_certsitter.
func ours(name string) bool {
	name = strings.TrimSuffix(name, ".service")
	return name == "certsitter" || strings.HasSuffix(name, "_certsitter")
}
