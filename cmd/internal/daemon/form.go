package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certsitter/certsitter/addon"
	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/renew"
)

// A Form is the configuration of a Home Assistant app: the options that a person
// filled in, which the Supervisor writes at each start, and beside them those
// that were accepted last. It always gives settings that a daemon can run with:
// an app that ends for a mistake in its options shows nobody what the mistake is.
type Form struct {
	path string
	env  settings.Environment
	self *self

	mu     sync.Mutex // guards the rest
	latest *settings.Settings
	text   []byte // that latest was read from
}

// NewForm is the form whose options are at path. supervisor nil = the one that
// runs us.
func NewForm(path string, e settings.Environment, supervisor *addon.Supervisor) *Form {
	f := &Form{path: path, env: e, self: newSelf(supervisor)}
	if f.env.Getenv == nil {
		f.env.Getenv = os.Getenv
	}
	return f
}

// startWithin is how long the Supervisor may take to answer before the first
// settings are there: it runs on the same machine and has what it is asked at
// hand. What it does not say in time is asked later.
const startWithin = 5 * time.Second

// A Beginning is what an app begins with.
type Beginning struct {
	Settings *settings.Settings
	// Refused says why the options are not in force; nil = they are.
	Refused *settings.Refusal
	// Remark is what else went wrong; "" = nothing.
	Remark string

	accepted bool // Settings are those that were accepted last, or stand in
}

// Begin reads the options, for a daemon that starts. ctx bounds it.
func (f *Form) Begin(ctx context.Context) Beginning {
	f.learnZone(ctx)
	conf, err := f.Read(ctx)
	if err == nil {
		return Beginning{Settings: conf}
	}
	return f.Fallback(Beginning{}, err)
}

// Fallback is what an app begins with when what it would have begun with cannot
// be put in force.
func (f *Form) Fallback(b Beginning, err error) Beginning {
	next := Beginning{Refused: b.Refused, Remark: b.Remark, accepted: true}
	if next.Refused == nil {
		next.Refused = f.refusal(err)
	}
	if !b.accepted {
		if next.Settings, err = f.lastAccepted(); err == nil {
			return next
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		next.Remark = "The options that were accepted before cannot be used either: " + oneLine(err)
	}
	next.Settings = f.standIn()
	return next
}

// refusal is an error as mistakes of the options.
func (f *Form) refusal(err error) *settings.Refusal {
	if r, ok := errors.AsType[*settings.Refusal](err); ok {
		return r
	}
	return &settings.Refusal{Mistakes: []settings.Mistake{{File: f.path, Sentence: oneLine(err)}}}
}

// learnZone asks the Supervisor for the time zone where the environment does not
// name it. Without one times of day are in UTC, as the container's clock is.
func (f *Form) learnZone(ctx context.Context) {
	getenv := f.env.Getenv
	if getenv("TZ") != "" {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("the Supervisor did not name the time zone within %v", startWithin))
	defer cancel()
	zone, err := f.self.supervisor.TimeZone(ctx)
	if _, unknown := time.LoadLocation(zone); err != nil || unknown != nil {
		return
	}
	f.env.Getenv = func(name string) string {
		if name == "TZ" {
			return zone
		}
		return getenv(name)
	}
}

// Read reads the options. The error is a *settings.Refusal.
func (f *Form) Read(ctx context.Context) (*settings.Settings, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.refusal(errors.New("the options are not there, though Home Assistant writes them at each start: restart the app"))
	}
	if err != nil {
		return nil, f.refusal(fmt.Errorf("the options cannot be read: %w. Restart the app", err))
	}
	conf, err := settings.Parse(f.path, text, f.env)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("the Supervisor did not say which ports are on within %v", startWithin))
	defer cancel()
	if app, err := f.self.ask(ctx, 0); err == nil { // else it is asked before each order
		if mistakes := portMistakes(f.path, conf, app); len(mistakes) > 0 {
			return nil, &settings.Refusal{Mistakes: mistakes}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest, f.text = conf, text
	return conf, nil
}

// InForce are settings for a command beside the daemon, and why they are not the
// options; nil = they are. The Supervisor is not asked.
func (f *Form) InForce() (*settings.Settings, *settings.Refusal) {
	conf, err := settings.Load(f.path, f.env)
	if err == nil {
		return conf, nil
	}
	b := f.Fallback(Beginning{}, err)
	return b.Settings, b.Refused
}

// Keep remembers settings that are in force as those that were accepted last, if
// they are the options.
func (f *Form) Keep(conf *settings.Settings) error {
	f.mu.Lock()
	text := f.text
	if conf != f.latest {
		text = nil
	}
	f.mu.Unlock()
	if text == nil {
		return nil
	}
	path := f.acceptedPath()
	if kept, err := os.ReadFile(path); err == nil && bytes.Equal(kept, text) {
		return nil // a memory card's life counts
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("keep the options: %w", err)
	}
	return nil
}

func (f *Form) acceptedPath() string { return filepath.Join(f.env.StateDir(), settings.AcceptedName) }

// lastAccepted are the settings that were in force last. The error is
// fs.ErrNotExist if there are none.
func (f *Form) lastAccepted() (*settings.Settings, error) {
	text, err := os.ReadFile(f.acceptedPath())
	if err != nil {
		return nil, err
	}
	return settings.Parse(f.acceptedPath(), text, f.env)
}

// plainOptions are kept of refused options in settings that stand in: how people
// are spoken to, and where the broker is, hold for whatever else is wrong.
var plainOptions = []string{"language", "mqtt", "notify_homeassistant", "page_password", "log_level"}

// standIn are settings without certificates.
func (f *Form) standIn() *settings.Settings {
	for _, text := range [][]byte{f.plainPart(), []byte("{}")} {
		if conf, err := settings.Parse(f.path, text, f.env); err == nil {
			conf.StandIn = true
			return conf
		}
	}
	// Only the time zone can be wrong now.
	bare := f.env
	bare.Getenv = func(string) string { return "" }
	conf, err := settings.Parse(f.path, []byte("{}"), bare)
	if err != nil {
		panic(err) // an empty configuration is a good one, which is tested
	}
	conf.StandIn = true
	return conf
}

// plainPart are the plain options in the options, if those can be read at all.
func (f *Form) plainPart() []byte {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) != nil {
		return nil
	}
	for key := range all {
		if !slices.Contains(plainOptions, key) {
			delete(all, key)
		}
	}
	part, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return part
}

// dropped are the keys that the user wrote and that are not in the options.
func (f *Form) dropped(app addon.App) []settings.DroppedKey {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil
	}
	return settings.DroppedKeys(app.Options, text)
}

// replaceFile writes a secret file so that a crash leaves the old one or the new
// one.
func replaceFile(path string, text []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(0o600), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// A door is a port of the app, by which the CA comes to see the answers to one
// kind of challenge.
type door struct {
	port string // as the app's manifest calls it
	name string // for people
}

var doors = map[string]door{
	renew.HTTP01:    {"80/tcp", "Port 80"},
	renew.TLSALPN01: {"443/tcp", "Port 443"},
}

// shut tells whether the app's own port for the challenge is off.
func (p door) shut(app addon.App) bool {
	host, declared := app.Ports[p.port]
	return declared && host == 0
}

func (p door) sentence(challenge string) string {
	return fmt.Sprintf("%s of the app is off, so the CA cannot reach the answers to %s challenges.", p.name, strings.ToUpper(challenge))
}

// advice is the way to the switch in Home Assistant.
func (p door) advice() string {
	return fmt.Sprintf("Give %s a port of the host under Settings → Apps → Certsitter → Configuration → Network, or use the DNS challenge (challenge: dns-01).", p.port)
}

// doorOf is the door that answers go through; ok is false if they need none.
func doorOf(challenge, webroot string) (p door, ok bool) {
	p, ok = doors[challenge]
	return p, ok && webroot == ""
}

// portMistakes are the certificates whose port is off.
func portMistakes(file string, conf *settings.Settings, app addon.App) []settings.Mistake {
	var all []settings.Mistake
	for _, c := range conf.Certificates {
		if p, needed := doorOf(c.Challenge, c.Webroot); needed && p.shut(app) {
			all = append(all, settings.Mistake{File: file, Key: fmt.Sprintf("certificates[%s].challenge", c.Name), Sentence: p.sentence(c.Challenge) + " " + p.advice()})
		}
	}
	return all
}
