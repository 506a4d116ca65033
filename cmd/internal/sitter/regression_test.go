package sitter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/probe"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/directory"
	"github.com/certsitter/certsitter/renew/store"
)

// Each promise of this file was broken once.

// A life is one run of the real loop, from its start to stop.
type life struct {
	*Sitter
	w      *earth
	stored *store.Store
	err    error         // of Run, once it is over
	over   chan struct{} // closed when Run has ended
	stop   func()        // once
}

// begin starts the loop on this earth. edit may change the world, step hears
// every step of the store on the disk; both may be nil.
func (w *earth) begin(t *testing.T, dir string, s *settings.Settings, edit func(*World), step func(string)) *life {
	t.Helper()
	w.installs = filepath.Join(dir, "ssl", "fullchain.pem")
	stored, err := store.Open(dir, store.Options{Now: w.wall, Step: step})
	if err != nil {
		t.Fatal(err)
	}
	world := w.world(dir, stored)
	if edit != nil {
		edit(&world)
	}
	sitter, err := New(world, s)
	if err != nil {
		_ = stored.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &life{Sitter: sitter, w: w, stored: stored, over: make(chan struct{})}
	events, noted := sitter.Events(ctx), make(chan struct{})
	go func() { defer close(r.over); r.err = sitter.Run(ctx) }()
	go func() {
		defer close(noted)
		for e := range events {
			w.note(e)
		}
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-r.over
		<-noted
		_ = stored.Close()
	})
	return r
}

// home is the managed certificate of conf.
func (r *life) home() Certificate { return r.cert("home") }

func (r *life) cert(name string) Certificate {
	synctest.Wait()
	for _, c := range r.Snapshot().Certificates {
		if c.Name == name {
			return c
		}
	}
	return Certificate{Status: "not there"}
}

func codes(problems []Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.Code)
	}
	return all
}

// until lets time go by until the world is that old.
func (w *earth) until(age time.Duration) {
	for left := age - w.age(); left > 0; left = age - w.age() {
		time.Sleep(left)
	}
	synctest.Wait()
}

// ordered and count are how many orders were begun and certificates issued.
func (w *earth) ordered() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.starts) }
func (w *earth) count() int   { w.mu.Lock(); defer w.mu.Unlock(); return len(w.issued) }

// change edits the earth while it lives.
func (w *earth) change(f func(*earth)) { w.mu.Lock(); defer w.mu.Unlock(); f(w) }

// bubble runs f with a time of its own.
func bubble(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) { f(t, dir) })
}

func restarts(window string) func(*settings.Settings) {
	return func(s *settings.Settings) {
		action, err := settings.ParseAction("restart nginx")
		if err != nil {
			panic(err)
		}
		s.Certificates[0].After = []settings.Action{action}
		if s.RestartWindow, err = settings.ParseWindow(window); err != nil {
			panic(err)
		}
	}
}

func served(s *settings.Settings) {
	restarts("")(s)
	s.Certificates[0].Endpoints = []string{"home.example.org:443"}
}

// second adds another certificate.
func second(dir string, s *settings.Settings) {
	b := s.Certificates[0]
	b.Name, b.Domains = "second", []string{"second.example.org"}
	b.CertFile, b.KeyFile = filepath.Join(dir, "ssl", "second.pem"), filepath.Join(dir, "ssl", "second.key")
	s.Certificates = append(s.Certificates, b)
}

func TestRevokedIsCriticalUntilReplacedWithAnotherKey(t *testing.T) {
	for _, c := range []struct {
		name          string
		refuses       []span
		restart, kill bool
	}{
		{"the order fails", []span{{day, day + 2*time.Hour}}, false, false},
		{"and there is a restart", []span{{day, day + 2*time.Hour}}, true, false},
		{"a restart while it is ordered", nil, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				w.noARI, w.refuses, w.slow = true, c.refuses, 5*time.Minute
				s := conf(t, dir, "", func(s *settings.Settings) { s.Certificates[0].ReuseKey = true })
				r := w.begin(t, dir, s, nil, nil)
				defer func() { r.stop() }()
				w.until(day + time.Minute)
				before, err := os.ReadFile(s.Certificates[0].KeyFile)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Revoke(t.Context(), "home", "keyCompromise"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if !c.kill {
					time.Sleep(time.Hour)
				}
				if home := r.home(); home.Status != "critical" || !slices.Contains(codes(home.Problems), expiry.CodeRevoked) {
					t.Errorf("revoked, and not replaced: %s %+v", home.Status, home.Problems)
				}
				if c.restart {
					r.stop()
					r = w.begin(t, dir, s, nil, nil)
					if time.Sleep(time.Minute); r.home().Status != "critical" {
						t.Errorf("after the restart: %s", r.home().Status)
					}
				}
				w.until(2 * day)
				after, err := os.ReadFile(s.Certificates[0].KeyFile)
				if home := r.home(); home.Status != "ok" || w.count() != 2 || err != nil || string(after) == string(before) {
					t.Errorf("a day later: %s, %d certificates, same key %v, %v: %+v", home.Status, w.count(), string(after) == string(before), err, home.Problems)
				}
			})
		})
	}
}

func TestClockThatRanAheadHoldsNothingBack(t *testing.T) {
	for _, ahead := range []time.Duration{60 * day, 400 * day} {
		for _, back := range []time.Duration{-time.Second, time.Hour} {
			t.Run(fmt.Sprintf("%v, back %v after the network", ahead, back), func(t *testing.T) {
				bubble(t, func(t *testing.T, dir string) {
					w := newEarth(t, 6*day)
					w.lost = []span{{day, 2 * day}}
					time.AfterFunc(day+time.Hour, func() { w.change(func(w *earth) { w.wrong = ahead }) })
					time.AfterFunc(2*day+back, func() { w.change(func(w *earth) { w.wrong = 0 }) })
					var reads atomic.Int64
					r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
						s.Watch = []settings.Watch{{Name: "nas", Source: filepath.Join(dir, "ssl", "*chain.pem"), File: true, WarnDays: 1, CriticalDays: 1}}
					}), func(x *World) {
						x.Read = func(p, q string) (*expiry.Certificate, error) { reads.Add(1); return probe.ReadFile(p, q) }
					}, nil)
					defer r.stop()
					w.until(2*day + 2*time.Hour)
					was := reads.Load()
					w.until(2*day + 8*time.Hour)
					if n := reads.Load() - was; n < 6*12-1 {
						t.Errorf("the watched file was read %d times within six hours", n)
					}
					w.until(8 * day)
					if w.count() != 3 || w.lowest < 2*day || r.Snapshot().Status != "ok" || strings.Contains(w.pages(), "EXPIRED") {
						t.Errorf("%d certificates, %v left at least, %s: %s", w.count(), w.lowest, r.Snapshot().Status, w.pages())
					}
				})
			})
		}
	}
}

func TestTimeIsAskedForAgainUntilItIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.noARI, w.lost = true, []span{{day - time.Minute, day + time.Hour}}
		time.AfterFunc(day, func() { w.change(func(w *earth) { w.wrong = 100 * day }) })
		r := w.begin(t, dir, conf(t, dir, "", nil), nil, nil)
		defer r.stop()
		w.until(2*day + 3*time.Hour)
		if r.Snapshot().Status != "unknown" || w.count() != 1 || !slices.Contains(codes(r.Snapshot().Problems), "clock") {
			t.Errorf("a clock that is 100 days ahead is believed: %s, %d certificates", r.Snapshot().Status, w.count())
		}
	})
}

// dated tells its Date with the directory, and has no renewal information.
type dated struct{ *earth }

func (d dated) Directory(context.Context, string, []byte) (directory.Directory, error) {
	return directory.Directory{Date: d.now()}, nil
}

func TestDateOfTheCAIsHeard(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   func(*earth) func(*World)
		orders int // at most
	}{
		{"with the directory", func(w *earth) func(*World) { return func(x *World) { x.CA = dated{w} } }, 2},
		{"with a fault", func(w *earth) func(*World) {
			return func(x *World) {
				x.Issue = func(context.Context, renew.OrderRequest, worker.Handler) (renew.Issued, error) {
					w.change(func(w *earth) { w.starts = append(w.starts, time.Now()) })
					return renew.Issued{}, &renew.Fault{Date: w.now(), Problems: []renew.Problem{{Step: renew.StepOrder, Status: 500, Detail: "out of order"}}}
				}
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 90*day)
				w.wrong = 70 * day // from the beginning: a dead clock battery, and no NTP
				r := w.begin(t, dir, conf(t, dir, "", nil), c.edit(w), nil)
				defer r.stop()
				w.until(day)
				if w.ordered() > c.orders || !slices.Contains(codes(r.Snapshot().Problems), "clock") {
					t.Errorf("a clock that is 70 days ahead: %d orders, %+v", w.ordered(), r.Snapshot().Problems)
				}
			})
		})
	}
}

func TestClockIsBelievedOnceNTPHasSetIt(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.wrong, w.lost = -20000*day, []span{{30 * time.Minute, 20 * day}}
		time.AfterFunc(2*time.Hour, func() { w.change(func(w *earth) { w.wrong = 0 }) })
		r := w.begin(t, dir, conf(t, dir, "", nil), nil, nil)
		defer r.stop()
		w.until(119 * time.Minute)
		if !slices.Contains(codes(r.Snapshot().Problems), "clock") {
			t.Error("nothing was said about a clock in 1945")
		}
		w.until(2*time.Hour + 11*time.Minute)
		if slices.Contains(codes(r.Snapshot().Problems), "clock") || w.ordered() == 0 {
			t.Errorf("the clock is right, the CA out of reach: %d orders, %+v", w.ordered(), r.Snapshot().Problems)
		}
	})
}

func TestCommandAtTheStartFindsAClock(t *testing.T) {
	for range 20 {
		bubble(t, func(t *testing.T, dir string) {
			w := newEarth(t, 90*day)
			r := w.begin(t, dir, conf(t, dir, "", nil), nil, nil)
			defer r.stop()
			err := r.Renew(t.Context(), "home", RenewOptions{Force: true})
			if refused, ok := errors.AsType[*Refused](err); err != nil && (!ok || refused.Code == "clock") {
				t.Fatal(err)
			}
			if err := r.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestEndpointThatIsOffIsNotSaidToServeTheOldOne(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 6*day)
		var off atomic.Bool
		r := w.begin(t, dir, conf(t, dir, "", served), func(x *World) {
			x.Probe = func(ctx context.Context, target probe.Target, now time.Time, o probe.Options) (probe.Result, error) {
				if off.Load() {
					return probe.Result{}, errors.New("no route to host")
				}
				return w.Probe(ctx, target, now, o)
			}
		}, nil)
		defer r.stop()
		w.until(day)
		off.Store(true)
		for w.age() < 9*day {
			time.Sleep(time.Hour)
			if home := r.home(); home.NotDeployed || home.Problem || slices.Contains(codes(home.Problems), expiry.CodeStale) {
				t.Fatalf("day %d: not deployed %v: %+v", w.age()/day, home.NotDeployed, home.Problems)
			}
		}
		if w.count() < 3 || strings.Contains(w.pages(), "told") {
			t.Errorf("%d certificates: %s", w.count(), w.pages())
		}
	})
}

func TestNotDeployedWaitsForTheActions(t *testing.T) {
	for _, healthy := range []bool{true, false} {
		t.Run(fmt.Sprintf("healthy %v", healthy), func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 6*day)
				r := w.begin(t, dir, conf(t, dir, "", served), func(x *World) {
					x.Act = func(ctx context.Context, a settings.Action, f Acted) error {
						time.Sleep(3 * time.Minute) // Home Assistant restarts
						return w.Act(ctx, a, f)
					}
				}, nil)
				defer r.stop()
				w.until(day)
				w.change(func(w *earth) { w.reload = healthy })
				for w.count() < 2 {
					time.Sleep(time.Minute)
				}
				quiet := time.Minute // well within the action
				if healthy {
					quiet = 15 * time.Minute
				}
				for since := w.now(); w.now().Sub(since) < quiet; time.Sleep(10 * time.Second) {
					if r.home().NotDeployed {
						t.Fatalf("not deployed after %v", w.now().Sub(since))
					}
				}
				time.Sleep(5 * time.Minute) // the action has ended, and it was looked at
				if home := r.home(); home.NotDeployed == healthy || (home.Deployment == "") != healthy {
					t.Errorf("not_deployed is %v: %q", home.NotDeployed, home.Deployment)
				}
			})
		})
	}
}

func TestIncidentEndsWhereEndpointsCannotBeSeen(t *testing.T) {
	for _, kind := range []string{"unreachable", "foreign", "none"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w, other := newEarth(t, 6*day), newEarth(t, 365*day)
				w.refuses = []span{{2 * day, 5*day + 8*time.Hour}}
				proxy, err := expiry.Parse(other.sign(renew.OrderRequest{CSR: request(t)}))
				if err != nil {
					t.Fatal(err)
				}
				r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
					served(s)
					if kind == "none" {
						s.Certificates[0].Endpoints = nil
					}
				}), func(x *World) {
					x.Probe = func(context.Context, probe.Target, time.Time, probe.Options) (probe.Result, error) {
						if kind == "unreachable" {
							return probe.Result{}, errors.New("connection timed out")
						}
						return probe.Result{Certificate: proxy}, nil
					}
				}, nil)
				defer r.stop()
				w.until(7 * day)
				told := strings.Split(w.pages(), "\n")
				if last := told[len(told)-1]; len(told) < 3 || !strings.Contains(last, "is fine again") {
					t.Errorf("the last of %d: %s", len(told), last)
				}
			})
		})
	}
}

// request is a stranger's CSR.
func request(t *testing.T) []byte {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Prepare("proxy", store.Want{Names: []string{"proxy.example"}, KeyType: "ec256", Directory: "https://ca.example/directory"})
	if err != nil {
		t.Fatal(err)
	}
	return p.CSR
}

func TestFailingActionIsToldAndResolved(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		var mended atomic.Bool
		r := w.begin(t, dir, conf(t, dir, "", restarts("")), func(x *World) {
			x.Act = func(context.Context, settings.Action, Acted) error {
				if mended.Load() {
					return nil
				}
				return errors.New("nginx -t: unknown directive")
			}
		}, nil)
		defer r.stop()
		for _, c := range []struct {
			age          time.Duration
			status, told string
			mend         bool
		}{
			{10 * time.Minute, "notice", "", false},
			{25 * time.Minute, "warning", "told", false},
			{3 * time.Hour, "ok", "is fine again", true},
		} {
			mended.Store(c.mend)
			w.until(c.age)
			if home := r.home(); home.Status != c.status || (c.status != "ok") != slices.Contains(codes(home.Problems), expiry.CodeActionFailed) {
				t.Errorf("after %v: %s, want %s: %+v", c.age, home.Status, c.status, home.Problems)
			}
			if told := w.pages(); !strings.Contains(told, c.told) || c.told == "" && strings.Contains(told, "told") {
				t.Errorf("after %v: %s", c.age, told)
			}
		}
	})
}

func TestHangingDiskHoldsNothingElseBack(t *testing.T) {
	hang := make(map[string]func(*settings.Settings, chan struct{}) (func(*World), func(string)))
	hang["a watched file"] = func(s *settings.Settings, free chan struct{}) (func(*World), func(string)) {
		s.Watch = []settings.Watch{{Name: "nas", Source: s.Certificates[0].CertFile, File: true, WarnDays: 21, CriticalDays: 7}}
		return func(x *World) {
			x.Read = func(string, string) (*expiry.Certificate, error) { <-free; return nil, os.ErrNotExist }
		}, nil
	}
	hang["an installation"] = func(s *settings.Settings, free chan struct{}) (func(*World), func(string)) {
		return nil, func(step string) {
			if strings.HasPrefix(step, "rename ") && strings.HasSuffix(step, "ssl/fullchain.pem") {
				<-free
			}
		}
	}
	for name, prepare := range hang {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w, free := newEarth(t, 90*day), make(chan struct{})
				s := conf(t, dir, "", func(s *settings.Settings) { second(dir, s) })
				if err := os.WriteFile(s.Certificates[0].CertFile, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				edit, step := prepare(s, free)
				r := w.begin(t, dir, s, edit, step)
				time.Sleep(2 * time.Minute)
				if r.Snapshot().Time.IsZero() || r.cert("second").Status != "ok" {
					t.Errorf("the other certificate after two minutes: %+v", r.cert("second"))
				}
				orders := w.ordered()
				if err := r.Renew(t.Context(), "second", RenewOptions{Force: true}); err != nil {
					t.Error(err)
				}
				if err := r.Reload(t.Context(), s); err != nil {
					t.Error(err)
				}
				without := *s
				without.Certificates = s.Certificates[1:]
				if err := errors.Join(r.Reload(t.Context(), &without), r.Reload(t.Context(), s)); err != nil {
					t.Error(err)
				}
				asked := time.Now()
				if err := r.Check(t.Context()); err != nil || time.Since(asked) > time.Minute {
					t.Errorf("check: %v after %v", err, time.Since(asked))
				}
				time.Sleep(time.Minute)
				if w.ordered() == orders || r.cert("second").Failures != 0 {
					t.Errorf("%d orders: %+v", w.ordered(), r.cert("second"))
				}
				ended := time.Now()
				go func() { time.Sleep(time.Minute); close(free) }()
				if r.stop(); time.Since(ended) > endLimit {
					t.Errorf("the end took %v", time.Since(ended))
				}
				<-free
			})
		})
	}
}

func TestReloadThatFailsForOneLeavesTheOthersAlone(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := conf(t, dir, "", nil)
		r := w.begin(t, dir, s, nil, nil)
		defer r.stop()
		w.until(day)
		// The folder of the new one, which comes first, cannot be made.
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "live"), 0o755), os.WriteFile(filepath.Join(dir, "live", "nas"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		nas, both := s.Certificates[0], *s
		nas.Name, nas.Domains, nas.OwnFolder = "nas", []string{"nas.example.org"}, filepath.Join(dir, "live", "nas")
		nas.CertFile, nas.KeyFile = filepath.Join(nas.OwnFolder, "fullchain.pem"), filepath.Join(nas.OwnFolder, "privkey.pem")
		both.Certificates = []settings.Certificate{nas, s.Certificates[0]}
		if err := r.Reload(t.Context(), &both); err != nil {
			t.Fatal(err)
		}
		w.until(day + time.Hour)
		if home := r.home(); w.ordered() != 1 || home.Status != "ok" {
			t.Errorf("%d orders: %+v", w.ordered(), home)
		}
		if nas := r.cert("nas"); nas.Status == "ok" || !strings.Contains(nas.LastResult, "failed") {
			t.Errorf("the new one: %s %q", nas.Status, nas.LastResult)
		}
	})
}

func TestDamagedVersionKeepsNobodyFromStarting(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := conf(t, dir, "", func(s *settings.Settings) { second(dir, s) })
		r := w.begin(t, dir, s, nil, nil)
		w.until(day)
		r.stop()
		if err := os.WriteFile(filepath.Join(dir, "certificates", "home", "v0001", "meta.json"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r = w.begin(t, dir, s, nil, nil)
		defer r.stop()
		w.until(day + time.Hour)
		if home, other := r.home(), r.cert("second"); home.Status != "ok" || other.Status != "ok" || w.ordered() > 3 {
			t.Errorf("%d orders, %s %s: %+v", w.ordered(), home.Status, other.Status, home.Problems)
		}
	})
}

// overdue says of the first certificate that it was to be renewed yesterday.
type overdue struct {
	*earth
	now atomic.Bool
}

func (o *overdue) RenewalInfo(ctx context.Context, url, id string, roots []byte) (directory.Window, error) {
	window, err := o.earth.RenewalInfo(ctx, url, id, roots)
	if o.now.Load() && o.count() == 1 {
		window.Start, window.End = time.Now().Add(-2*day), time.Now().Add(-day)
	}
	return window, err
}

func TestRestartWindowIsNotWaitedForInNeed(t *testing.T) {
	for _, c := range []struct {
		name    string
		refuses []span
		past    bool
		waits   bool
	}{
		{"restart nginx: in no need", nil, false, true},
		{"restart nginx: little life left", []span{{2 * day, 5*day + 7*time.Hour}}, false, false},
		{"restart nginx: the CA's window is past", nil, true, false},
		{"restart homeassistant: in no need", nil, false, true},
		{"restart homeassistant: little life left", []span{{2 * day, 5*day + 7*time.Hour}}, false, false},
		{"restart app core_nginx_proxy: in no need", nil, false, true},
		{"restart app core_nginx_proxy: the CA's window is past", nil, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, 6*day) // at midnight
				w.refuses = c.refuses
				var mu sync.Mutex
				var acted []time.Time
				ca := &overdue{earth: w}
				action, _, _ := strings.Cut(c.name, ":")
				r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
					restarts("03:00-03:01")(s)
					s.Certificates[0].After = nil
					actions(action)(s)
				}), func(x *World) {
					x.CA = ca
					x.Act = func(ctx context.Context, a settings.Action, f Acted) error {
						mu.Lock()
						defer mu.Unlock()
						acted = append(acted, time.Now())
						return nil
					}
				}, nil)
				defer r.stop()
				w.until(day + 5*time.Hour)
				ca.now.Store(c.past)
				for w.count() < 2 {
					time.Sleep(time.Minute)
				}
				time.Sleep(day)
				mu.Lock()
				defer mu.Unlock()
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(acted) < 2 || (acted[1].Sub(w.issued[1]) > time.Minute) != c.waits {
					t.Errorf("issued at %v, acted at %v", w.issued, acted)
				}
			})
		})
	}
}

func TestOwnCertificateIsKnownForEver(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("state lost %v", lost), func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newEarth(t, day)
				s := conf(t, dir, "", served)
				r := w.begin(t, dir, s, nil, nil)
				defer func() { r.stop() }()
				w.until(time.Hour)
				w.change(func(w *earth) { w.reload = false })
				w.until(18 * time.Hour)
				if lost {
					r.stop()
					for _, file := range []string{"state.json", "state.json.previous"} {
						if err := os.WriteFile(filepath.Join(dir, file), []byte{0, 0}, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					r = w.begin(t, dir, s, nil, nil)
				}
				w.until(10 * day)
				if home := r.home(); w.count() < maxKnown+3 || home.Status != "expired" || home.Endpoints[0].Verdict != "stale" {
					t.Errorf("after %d renewals: %s %+v", w.count(), home.Status, home.Endpoints)
				}
			})
		})
	}
}

func TestCrashBetweenStoreAndStateIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 6*day)
		w.refuses = []span{{2 * day, 4 * day}}
		s := conf(t, dir, "", nil)
		r := w.begin(t, dir, s, nil, nil)
		w.until(3*day + 12*time.Hour)
		state := filepath.Join(dir, "state.json")
		before, err := os.ReadFile(state)
		if err != nil || r.home().Failures == 0 {
			t.Fatalf("%d failures, %v", r.home().Failures, err)
		}
		for w.count() < 2 {
			time.Sleep(time.Minute)
		}
		r.stop()
		if err := os.WriteFile(state, before, 0o600); err != nil {
			t.Fatal(err)
		}
		r = w.begin(t, dir, s, nil, nil)
		defer r.stop()
		time.Sleep(time.Minute)
		if home := r.home(); home.Status != "ok" || home.Failures != 0 || strings.Contains(home.LastResult, "failed") {
			t.Errorf("%s, %d failures, %q: %+v", home.Status, home.Failures, home.LastResult, home.Problems)
		}
	})
}

func TestStateThatCannotBeSavedIsSaidAndForgiven(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		var beats atomic.Int64
		r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) { s.HeartbeatURL = "https://beat.example/" }), func(x *World) {
			x.Beat = func(context.Context, string) error { beats.Add(1); return nil }
		}, nil)
		defer r.stop()
		w.until(day + 7*time.Second)
		if err := os.Mkdir(filepath.Join(dir, "state.json.new"), 0o700); err != nil {
			t.Fatal(err)
		}
		for range 5 { // more than the CA's hourly cap
			if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute)
			if home := r.home(); w.ordered() != 1 || !strings.Contains(home.LastResult, "Nothing can be remembered") {
				t.Errorf("%d orders, %q", w.ordered(), home.LastResult)
			}
		}
		was := beats.Load()
		time.Sleep(2 * time.Hour)
		if !slices.Contains(codes(r.Snapshot().Problems), "state_unwritable") || beats.Load() != was {
			t.Errorf("%d heartbeats, problems %+v", beats.Load()-was, r.Snapshot().Problems)
		}
		if err := os.Remove(filepath.Join(dir, "state.json.new")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if len(r.Snapshot().Problems) != 0 || beats.Load() == was {
			t.Errorf("once it is mended: %d heartbeats, problems %+v", beats.Load()-was, r.Snapshot().Problems)
		}
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
			t.Error(err)
		}
		if time.Sleep(time.Minute); w.count() != 2 {
			t.Errorf("%d certificates", w.count())
		}
	})
}

func TestUnfitCertificateIsCountedAndNotAskedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		stranger, taken := request(t), atomic.Int64{}
		r := w.begin(t, dir, conf(t, dir, "", nil), func(x *World) {
			x.Issue = func(ctx context.Context, q renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
				if q.OrderURL != "" {
					taken.Add(1)
				}
				q.CSR = stranger
				return w.Issue(ctx, q, h)
			}
		}, nil)
		defer r.stop()
		w.until(10 * day)
		if n := mostIn(w.issued, 7*day); n != 3 || taken.Load() != 0 {
			t.Errorf("%d certificates within seven days, %d times the same order", n, taken.Load())
		}
	})
}

func TestPressThatWaitedHearsOfTheCAsWishForQuiet(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		var busy atomic.Bool
		r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
			s.Certificates[0].Challenge, s.Certificates[0].Provider = renew.DNS01, "exec" // one slot for both
			second(dir, s)
		}), func(x *World) {
			x.Issue = func(ctx context.Context, q renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
				if !busy.Load() {
					return w.Issue(ctx, q, h)
				}
				w.change(func(w *earth) { w.starts = append(w.starts, time.Now()) })
				time.Sleep(20 * time.Second)
				return renew.Issued{}, &renew.Fault{RetryAfter: 2 * day, WholeDirectory: true,
					Problems: []renew.Problem{{Step: renew.StepOrder, Type: "urn:ietf:params:acme:error:rateLimited", Status: 503, Detail: "busy"}}}
			}
		}, nil)
		defer r.stop()
		w.until(day)
		busy.Store(true)
		orders := w.ordered()
		for _, name := range []string{"home", "second"} {
			if err := r.Renew(t.Context(), name, RenewOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if n := w.ordered() - orders; n != 1 || !strings.Contains(r.cert("second").LastResult, "left alone until") {
			t.Errorf("%d orders, the second: %q", n, r.cert("second").LastResult)
		}
		err := r.Renew(t.Context(), "second", RenewOptions{Force: true})
		if refused, ok := errors.AsType[*Refused](err); !ok || refused.Until.Sub(w.now()) < day {
			t.Errorf("pressed again: %v", err)
		}
	})
}

// A broker that empties topics only when it is told to.
type slowBroker struct {
	mu        sync.Mutex // guards the rest
	published int
	emptying  []string
}

func (b *slowBroker) Publish(_ []mqtt.Message, obsolete []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published++
	for _, topic := range obsolete {
		if !slices.Contains(b.emptying, topic) {
			b.emptying = append(b.emptying, topic)
		}
	}
}

func (b *slowBroker) State() mqtt.Link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return mqtt.Link{Connected: true, Emptying: slices.Clone(b.emptying)}
}

func (b *slowBroker) Event(string, mqtt.Event)      {}
func (b *slowBroker) Changed() <-chan struct{}      { return nil }
func (b *slowBroker) Commands() <-chan mqtt.Command { return nil }

func TestAnotherTopicIsPublishedAtOnceAndTheOldOnesEmptied(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, b := newEarth(t, 90*day), &slowBroker{}
		s := conf(t, dir, "", func(s *settings.Settings) {
			s.MQTT = settings.MQTT{Broker: "tcp://broker.example:1883", Topic: "certsitter", DiscoveryPrefix: "homeassistant"}
		})
		r := w.begin(t, dir, s, func(x *World) { x.Broker = b }, nil)
		defer r.stop()
		w.until(day)
		b.mu.Lock()
		was := b.published
		b.mu.Unlock()
		other := *s
		other.MQTT.Topic = "other"
		if err := r.Reload(t.Context(), &other); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.mu.Lock()
		if b.published != was+1 || !slices.Contains(b.emptying, "certsitter/status") {
			t.Errorf("published %d times, emptying %q", b.published-was, b.emptying)
		}
		b.mu.Unlock()
		remembered := func() bool {
			m, _, err := stateFile{filepath.Join(dir, "state.json")}.load()
			return err == nil && slices.Contains(m.Topics, "certsitter/status") && slices.Contains(m.Topics, "other/status")
		}
		if time.Sleep(day); !remembered() {
			t.Error("topics that are not yet empty are forgotten")
		}
		b.mu.Lock()
		b.emptying = nil
		b.mu.Unlock()
		if time.Sleep(day); remembered() {
			t.Error("empty topics are still remembered")
		}
	})
}

func TestUpgradedWorkerEndsTheRunForARestart(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.refuses = []span{{0, day}}
		r := w.begin(t, dir, conf(t, dir, "", nil), func(x *World) {
			x.Send = func(context.Context, notify.Request) error {
				return &worker.VersionError{Path: "/usr/bin/certsitter-worker", Want: "1.0", Have: "1.1"}
			}
		}, nil)
		defer r.stop()
		select {
		case <-r.over:
		case <-time.After(day):
			t.Fatal("it goes on")
		}
		if !errors.Is(r.err, ErrRestart) {
			t.Error(r.err)
		}
	})
}

func TestEndDuringADeliveryIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.refuses = []span{{0, day}}
		s, sending := conf(t, dir, "", nil), make(chan struct{})
		r := w.begin(t, dir, s, func(x *World) {
			x.Send = func(ctx context.Context, _ notify.Request) error {
				close(sending)
				<-ctx.Done()
				return &worker.Interrupted{Cause: context.Cause(ctx)}
			}
		}, nil)
		<-sending
		r.stop()
		m, _, err := stateFile{filepath.Join(dir, "state.json")}.load()
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range m.Messages.Targets() {
			if target.Status != "ok" || target.LastError != "" {
				t.Errorf("%+v", target)
			}
		}
		r = w.begin(t, dir, s, nil, nil)
		defer r.stop()
		if time.Sleep(10 * time.Minute); !strings.Contains(w.pages(), "told") {
			t.Error("it is not sent after the restart")
		}
	})
}

func TestRemovedAndAddedWhileItIsOrdered(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.slow = 5 * time.Minute
		s := conf(t, dir, "", nil)
		r := w.begin(t, dir, s, nil, nil)
		defer r.stop()
		time.Sleep(time.Minute)
		none := *s
		none.Certificates = nil
		if err := r.Reload(t.Context(), &none); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := r.Reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if home := r.home(); home.Status != "ok" || w.count() != 1 || w.ordered() != 1 {
			t.Errorf("%s, %d orders, %d certificates", home.Status, w.ordered(), w.count())
		}
	})
}

func TestTwinsShareTheLimitOfIssuances(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
			second(dir, s)
			s.Certificates[1].Domains = s.Certificates[0].Domains
		}), nil, nil)
		defer r.stop()
		for range 8 {
			time.Sleep(2 * time.Hour)
			for _, name := range []string{"home", "second"} {
				_ = r.Renew(t.Context(), name, RenewOptions{Force: true}) // some are refused
				time.Sleep(time.Hour)
			}
		}
		if n := mostIn(w.issued, 7*day); n != 3 {
			t.Errorf("%d certificates for the same names within a day", n)
		}
	})
}

func TestReloadDuringADeploymentTellsNobody(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := conf(t, dir, "", restarts(""))
		r := w.begin(t, dir, s, func(x *World) {
			x.Act = func(context.Context, settings.Action, Acted) error { time.Sleep(5 * time.Minute); return nil }
		}, nil)
		defer r.stop()
		w.until(time.Minute) // it is installed, and the action is under way
		for range 3 {
			if err := r.Reload(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			reloaded := time.Now()
			time.Sleep(time.Minute)
			if home := r.home(); home.Status != "ok" || home.Deployment == "" || r.Snapshot().Time.Before(reloaded) {
				t.Errorf("%s %q at %v: %+v", home.Status, home.Deployment, r.Snapshot().Time, home.Problems)
			}
		}
		if time.Sleep(10 * time.Minute); r.home().Deployment != "" || w.pages() != "" {
			t.Errorf("%q: %s", r.home().Deployment, w.pages())
		}
	})
}

// A name that could not be had and is taken out again leaves no failure behind
// that "is tried again by itself"; one by hand stays to be seen.
func TestFailureOfAnEarlierConfigurationIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		w.refuses = []span{{from: day, to: 3 * day}}
		s := conf(t, dir, "", nil)
		more := *s
		more.Certificates = slices.Clone(s.Certificates)
		more.Certificates[0].Domains = []string{"home.example.org", "new.example.org"}
		r := w.begin(t, dir, s, nil, nil)
		defer r.stop()
		w.until(day + time.Minute)
		for _, step := range []struct {
			conf *settings.Settings
			want string
		}{{&more, "warning"}, {s, "ok"}} {
			if err := r.Reload(t.Context(), step.conf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			if home := r.home(); home.Status != step.want {
				t.Errorf("%d names: %s %+v", len(step.conf.Certificates[0].Domains), home.Status, home.Problems)
			}
		}
		if err := r.Renew(t.Context(), "home", RenewOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if home := r.home(); home.Status != "notice" || home.Problems[0].Code != expiry.CodeRenewalFailed {
			t.Errorf("by hand: %s %+v", home.Status, home.Problems)
		}
	})
}
