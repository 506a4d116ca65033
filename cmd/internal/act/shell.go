package act

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

const shell = "/bin/sh"

// runCommand runs a command as the daemon's user.
func runCommand(ctx context.Context, a settings.Action, c Certificate, m Machine) error {
	if err := refuseForeign(m.ConfigFile); err != nil {
		return err
	}
	o, err := program{shell, []string{"-c", a.Argument}, commandEnvironment(os.LookupEnv, c)}.run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("start %s: %w", shell, err)
	case o.good():
		return nil
	}
	return failed(o, m, "%s", ending(o))
}

// commandEnvironment is all that a command sees. HOME and TZ are the daemon's:
// scp and git look for their keys there, and date for its zone.
func commandEnvironment(lookup func(string) (string, bool), c Certificate) []string {
	env := []string{
		"PATH=" + searchPath,
		"CERTSITTER_NAME=" + c.Name,
		"CERTSITTER_DOMAINS=" + strings.Join(c.Domains, " "),
		"CERTSITTER_CERTFILE=" + c.CertFile,
		"CERTSITTER_KEYFILE=" + c.KeyFile,
	}
	for _, name := range []string{"HOME", "TZ"} {
		if value, ok := lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// ending says how a command ended, as a shell's user knows it.
func ending(o outcome) string {
	switch {
	case o.cut != nil:
		return o.cut.Error() + " and was ended"
	case o.signal != 0:
		return fmt.Sprintf("it was ended by the signal %d (%s)", int(o.signal), o.signal)
	case o.code == 126:
		return "it ended with status 126, so that something in it may not be executed"
	case o.code == 127:
		return "it ended with status 127, so that something in it was not found (PATH is " + searchPath + ")"
	}
	return fmt.Sprintf("it ended with status %d", o.code)
}

// refuseForeign: who can write the configuration file could have the daemon run
// anything. Who can write its folder can put another one in its place, but for a
// folder like /tmp.
func refuseForeign(file string) error {
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("commands are not run, because nobody can say who may write the configuration file %s: %w", file, bare(err))
	}
	if why := writableByOthers(info, os.Geteuid()); why != "" {
		return fmt.Errorf("commands are not run, because the configuration file %s %s: chmod go-w and chown it to root or to the user that Certsitter runs as", file, why)
	}
	folder, err := realFolder(file)
	if err != nil {
		return fmt.Errorf("commands are not run, because the folder of the configuration file %s cannot be looked at: %w", file, bare(err))
	}
	if info, err = os.Stat(folder); err != nil {
		return fmt.Errorf("commands are not run, because the configuration file's folder %s cannot be looked at: %w", folder, bare(err))
	}
	if why := writableByOthers(info, os.Geteuid()); why != "" && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("commands are not run, because the configuration file's folder %s %s: chmod go-w and chown it to root or to the user that Certsitter runs as", folder, why)
	}
	return nil
}

// realFolder is the folder that holds the file itself, not a link to it.
func realFolder(file string) (string, error) {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", err
	}
	return filepath.Dir(file), nil
}

// writableByOthers says which user but root and us may write to it; "" = none.
func writableByOthers(info fs.FileInfo, us int) string {
	switch stat, ok := info.Sys().(*syscall.Stat_t); {
	case !ok:
		return "has no owner that is known"
	case int(stat.Uid) != us && stat.Uid != 0:
		return fmt.Sprintf("belongs to another user (id %d)", stat.Uid)
	case info.Mode().Perm()&0o002 != 0:
		return "may be written by everybody"
	case info.Mode().Perm()&0o020 != 0:
		return fmt.Sprintf("may be written by its group (id %d)", stat.Gid)
	}
	return ""
}
