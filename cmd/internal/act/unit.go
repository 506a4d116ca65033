package act

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

// unitPattern is what may be a unit's name (systemd.unit(5)); none begins like an
// option.
var unitPattern = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.:@\\]*$`)

// unitEnvironment keeps systemctl and nginx from speaking another language.
func unitEnvironment() []string { return []string{"PATH=" + searchPath, "LC_ALL=C"} }

// A saying is what systemctl writes, and what that means.
type saying struct {
	holds string // in lower case
	means string // %s is the unit
}

// sayings are of systemctl(1) 252 to 258, the most telling first.
var sayings = []saying{
	{"not been booted with systemd", noSystemd},
	{"failed to connect to bus", noSystemd},
	{"failed to connect to system scope bus", noSystemd},
	{"interactive authentication", notAllowed},
	{"access denied", notAllowed},
	{"authorization", notAllowed},
	{"permission denied", notAllowed},
	{"cannot reload", "%s is not running, so that nothing uses the certificate: start it, or remove the action"},
	{"is not active", "%s is not running, so that nothing uses the certificate: start it, or remove the action"},
	{"reload is not applicable", "%[1]s cannot be reloaded: write restart %[1]s"},
	{"is masked", "%s is masked: unmask it, or remove the action"},
	{"not found", noUnit},
	{"not loaded", noUnit},
	{"could not be found", noUnit},
	{"bad-setting", "%s has a mistake in its unit file"},
}

const (
	noSystemd  = "there is no systemd that could be asked about %s, as in a container: use restart container NAME or run COMMAND"
	notAllowed = "the user that Certsitter runs as may not do that to %s: allow it by a polkit rule (org.freedesktop.systemd1.manage-units), or run Certsitter as root"
	noUnit     = "there is no unit %s: systemctl list-units shows what there is"
)

// unitAction reloads or restarts a systemd unit.
func unitAction(verb string) func(context.Context, settings.Action, Certificate, Machine) error {
	return func(ctx context.Context, a settings.Action, _ Certificate, m Machine) error {
		switch unit := a.Argument; {
		case len(unit) > nameLength || !unitPattern.MatchString(unit):
			return fmt.Errorf("%.60q is no systemd unit's name", unit)
		case ours(unit):
			return errOurselves
		case strings.TrimSuffix(unit, ".service") == "nginx":
			if err := testNginx(ctx, m); err != nil {
				return err
			}
		}
		return systemctl(ctx, verb, a.Argument, m)
	}
}

func systemctl(ctx context.Context, verb, unit string, m Machine) error {
	path, ok := find("systemctl")
	if !ok && m.Systemctl == "" {
		return fmt.Errorf("there is no systemctl on this machine, as in a container: use restart container NAME or run COMMAND instead of %s %s", verb, unit)
	}
	o, err := program{cmp.Or(m.Systemctl, path), []string{"--no-ask-password", "--no-pager", verb, unit}, unitEnvironment()}.run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("start systemctl: %w", err)
	case o.good():
		return nil
	case o.cut != nil:
		return failed(o, m, "systemctl %s %s: %v; systemctl status %s says what it waits for", verb, unit, o.cut, unit)
	}
	f := failed(o, m, "systemctl %s %s ended with status %d; journalctl -u %s says more", verb, unit, o.code, unit)
	said := strings.ToLower(f.Output)
	for _, s := range sayings {
		if strings.Contains(said, s.holds) {
			f.Reason = fmt.Sprintf(s.means, unit)
			break
		}
	}
	return f
}

// testNginx has nginx read its configuration, certificates included: one that
// was reloaded onto a mistake goes on with the old certificate, and one that was
// restarted onto it is gone.
func testNginx(ctx context.Context, m Machine) error {
	path, ok := find("nginx")
	if !ok && m.Nginx == "" {
		return errors.New("nginx is not touched, because nginx -t cannot be run first: there is no nginx in " + searchPath)
	}
	o, err := program{cmp.Or(m.Nginx, path), []string{"-t"}, unitEnvironment()}.run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("nginx is not touched, because nginx -t cannot be run first: %w", err)
	case o.good():
		return nil
	case o.cut != nil:
		return failed(o, m, "nginx is not touched, because nginx -t did not end: %v", o.cut)
	}
	f := failed(o, m, "nginx is not touched, because its configuration has a mistake (nginx -t)")
	switch {
	case strings.Contains(f.Output, "(13: Permission denied)"):
		f.Reason = "nginx is not touched, because the user that Certsitter runs as may not read what nginx -t reads: run Certsitter as root, or use run sudo …"
	case strings.Contains(f.Output, "(30: Read-only file system)"):
		f.Reason = "nginx is not touched, because nginx -t may not open its logs or its folders where Certsitter runs: add those to its unit by ReadWritePaths=, or restart Certsitter if nginx was installed after it"
	}
	return f
}
