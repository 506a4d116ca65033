package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/renew/store"
)

type runCommand struct{}

func (*runCommand) line() *cobra.Command {
	return &cobra.Command{Use: "run", Short: "The daemon: renews, watches, publishes and tells.", Args: noArguments}
}

// Run is the daemon.
func (r *runCommand) Run(ctx context.Context, s shell, c *cli) error {
	// A small machine's memory is dearer than its idle time: garbage may grow by
	// half of what is in use, not by as much again.
	debug.SetGCPercent(50)
	hangup, forget := hangups(ctx)
	defer forget()
	o := daemon.Options{Hangup: hangup}
	if s.environment().App {
		return s.runApp(ctx, c, o)
	}
	conf, err := c.load(s, exitUsage)
	if err != nil {
		return err
	}
	o.Settings, o.Reload = conf, func() (*settings.Settings, error) { return c.load(s, exitUsage) }
	return s.runWith(ctx, o)
}

// runWith runs the daemon with these settings.
func (s shell) runWith(ctx context.Context, o daemon.Options) error {
	conf := o.Settings
	o.Redactor = settings.NewRedactor(conf.Secrets())
	stderr := o.Redactor.Writer(s.err)
	defer stderr.Close()
	log := newLog(stderr, conf, terminal(s.err) || s.environment().App)
	o.Log, o.Worker, o.Version, o.Build = log, s.worker(log), worker.BuildVersion(version), buildTime()
	o.App, o.Image = s.environment().App, s.environment().Image
	d, err := daemon.New(o)
	if err != nil {
		return &startError{conf, err}
	}
	log.Info().Str("version", o.Version).Str("file", conf.File).Int("certificates", len(conf.Certificates)).Int("watched", len(conf.Watch)).Msg("certsitter starts")
	err = d.Run(ctx)
	if errors.Is(err, sitter.ErrRestart) {
		return &exit{exitFailed, err}
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	log.Info().Msg("certsitter stops")
	return nil
}

// A startError kept the daemon from starting.
type startError struct {
	conf *settings.Settings
	err  error
}

func (e *startError) Error() string {
	if errors.Is(e.err, store.ErrLocked) {
		return fmt.Sprintf("another Certsitter already runs on %s: stop it first, or choose another state_dir", e.conf.StateDir)
	}
	return e.err.Error()
}

func (e *startError) Unwrap() error { return e.err }

// hangups turns SIGHUP into a wish to read the configuration again.
func hangups(ctx context.Context) (<-chan struct{}, func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	wishes := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			select {
			case wishes <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return wishes, func() { signal.Stop(signals) }
}

// worker is the program beside ours that talks to third parties.
func (s shell) worker(log zerolog.Logger) worker.Client {
	return worker.Client{
		Path: workerPath(), Version: worker.BuildVersion(version), User: "certsitter",
		Log: func(line string) { log.Debug().Str("part", "worker").Msg(line) },
	}
}

// workerPath is certsitter-worker beside this program, or where distributions
// keep programs that nobody calls by hand.
func workerPath() string {
	const name = "certsitter-worker"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	if resolved, err := filepath.EvalSymlinks(self); err == nil {
		self = resolved
	}
	for _, path := range []string{filepath.Join(filepath.Dir(self), name), "/usr/lib/certsitter/" + name} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(filepath.Dir(self), name) // its absence is said when it is started
}

// newLog writes readable lines for people and JSON for programs.
func newLog(w io.Writer, conf *settings.Settings, people bool) zerolog.Logger {
	if conf.LogFormat == "text" || conf.LogFormat == "auto" && people {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "2006-01-02 15:04:05", NoColor: true}
	}
	level, err := zerolog.ParseLevel(conf.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// manual is the loop without a daemon, for one command under the folder's lock.
func (s shell) manual(conf *settings.Settings) (*daemon.Daemon, error) {
	if err := become(conf.StateDir); err != nil {
		return nil, err
	}
	redactor := settings.NewRedactor(conf.Secrets())
	log := zerolog.Nop()
	d, err := daemon.New(daemon.Options{
		Settings: conf, Worker: s.worker(log), Version: worker.BuildVersion(version), Build: buildTime(),
		Log: log, Redactor: redactor, App: s.environment().App, Manual: true,
	})
	if err != nil {
		return nil, &startError{conf, err}
	}
	return d, nil
}

// become makes root the user whose state folder it is, so that nothing in it
// ends up root's and unreadable for the daemon.
func become(stateDir string) error {
	info, err := os.Stat(stateDir)
	if err != nil || os.Geteuid() != 0 {
		return nil // there is none yet, or we are somebody already
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	err = syscall.Setgroups([]int{gid})
	if err == nil {
		err = syscall.Setgid(gid)
	}
	if err == nil {
		err = syscall.Setuid(uid)
	}
	if err != nil {
		return fmt.Errorf("become the user of %s: %w", stateDir, err)
	}
	return nil
}
