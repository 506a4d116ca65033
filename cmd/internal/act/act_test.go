package act

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

// certificate is what the actions of the tests are for.
func certificate() Certificate {
	return Certificate{Name: "home", Domains: []string{"home.example.org", "*.home.example.org"}, CertFile: "/ssl/fullchain.pem", KeyFile: "/ssl/privkey.pem"}
}

// perform performs an action as it is written in a configuration.
func perform(t *testing.T, ctx context.Context, action string, m Machine) error {
	t.Helper()
	return Perform(ctx, parsed(t, action), certificate(), m)
}

func parsed(t *testing.T, action string) settings.Action {
	t.Helper()
	a, err := settings.ParseAction(action)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// says fails unless the error holds every text.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("there is no error, want %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %q, want %q in it", err, text)
		}
	}
}

// script writes a program.
func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	// Renamed into place by another process: a file that a test is writing to
	// while a parallel test forks cannot be executed (ETXTBSY).
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("cp", "-p", path+".new", path).Run(); err != nil {
		t.Fatal(err)
	}
	return path
}

type fakeHome struct {
	asked []string
	err   error
}

func (f *fakeHome) Restart(context.Context) error {
	f.asked = append(f.asked, "restart")
	return f.err
}

func (f *fakeHome) RestartApp(_ context.Context, slug string) error {
	f.asked = append(f.asked, "app "+slug)
	return f.err
}

func TestHomeAssistant(t *testing.T) {
	home := &fakeHome{}
	for _, action := range []string{"restart homeassistant", "restart app core_nginx_proxy"} {
		if err := perform(t, t.Context(), action, Machine{HomeAssistant: home}); err != nil {
			t.Errorf("%s: %v", action, err)
		}
		says(t, perform(t, t.Context(), action, Machine{}), "homeassistant_url and homeassistant_token")
	}
	if got := strings.Join(home.asked, ", "); got != "restart, app core_nginx_proxy" {
		t.Errorf("asked: %s", got)
	}
	home.err = errors.New("its configuration is not valid")
	says(t, perform(t, t.Context(), "restart homeassistant", Machine{HomeAssistant: home}), "its configuration is not valid")
}

func TestEveryKindHasADeadline(t *testing.T) {
	for _, kind := range []settings.ActionKind{
		settings.RestartHomeAssistant, settings.RestartApp, settings.ReloadUnit, settings.RestartUnit,
		settings.RestartContainer, settings.SignalContainer, settings.RunCommand,
	} {
		if d := deeds()[kind]; d.limit <= 0 || d.do == nil {
			t.Errorf("%s: limit %v", kind, d.limit)
		}
	}
	says(t, Perform(t.Context(), settings.Action{Kind: "dance"}, certificate(), Machine{}), "not possible")
}

// After a restart of ours the action would still be due.
func TestWeDoNotRestartOurselves(t *testing.T) {
	home := &fakeHome{}
	m := Machine{HomeAssistant: home, Systemctl: script(t, "systemctl", "exit 0\n")}
	for _, action := range []string{"restart app local_certsitter", "restart app a0d7b954_certsitter", "restart certsitter", "reload certsitter.service"} {
		says(t, perform(t, t.Context(), action, m), "Certsitter itself")
	}
	if len(home.asked) > 0 {
		t.Errorf("asked: %q", home.asked)
	}
}

func TestAnActionIsNotBegunWhenWeAreStopped(t *testing.T) {
	stopped := errors.New("the daemon ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	trace := filepath.Join(t.TempDir(), "trace")
	m := Machine{Systemctl: script(t, "systemctl", "touch "+trace+"\n"), DockerSocket: filepath.Join(t.TempDir(), "docker.sock")}
	for _, action := range []string{"run touch " + trace, "reload haproxy", "restart container web"} {
		if err := perform(t, ctx, action, m); !errors.Is(err, stopped) {
			t.Errorf("%s: %v", action, err)
		}
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("something was begun")
	}
}
