package store

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A deed is a change beside the renewal, done by a process that is killed.
type deed struct {
	do   func(s *Store, target Target) error
	done func(t *testing.T, s *Store, target Target)
}

// deeds start with one version of home, installed.
var deeds = map[string]deed{
	"remove": {
		func(s *Store, _ Target) error { return s.Remove("home") },
		func(t *testing.T, s *Store, target Target) {
			if names, err := s.Names(); len(names) > 0 || err != nil {
				t.Errorf("names %v, %v", names, err)
			}
			if back, err := s.Restore("home", []string{"home.example.org"}); !back || err != nil {
				t.Errorf("cannot be restored: %v", err)
			}
		},
	},
	"remove and restore": {
		func(s *Store, _ Target) error {
			if err := s.Remove("home"); err != nil {
				return err
			}
			_, err := s.Restore("home", []string{"home.example.org"})
			return err
		},
		func(t *testing.T, s *Store, target Target) {
			if v, ok, err := s.Current("home"); !ok || err != nil || v.Fingerprint != inForce(t, target) {
				t.Errorf("current %s, %v, %v", v.ID, ok, err)
			}
		},
	},
	"change the order": {
		func(s *Store, _ Target) error {
			for _, w := range []Want{want("a.example.org"), want("b.example.org")} {
				if _, err := s.Prepare("other", w); err != nil {
					return err
				}
			}
			if err := s.Placed("other", "https://ca.example/account/1", "https://ca.example/order/1"); err != nil {
				return err
			}
			return s.DropOrder("other")
		},
		func(t *testing.T, s *Store, _ Target) {
			p, ok, err := s.Pending("other")
			if !ok || err != nil || nameSet(p.Names) != "b.example.org" || p.OrderURL != "" {
				t.Errorf("pending %v, %v, %v", p.Names, ok, err)
			}
		},
	},
	"drop": {
		func(s *Store, _ Target) error {
			if _, err := s.Prepare("other", want("a.example.org")); err != nil {
				return err
			}
			return s.Drop("other")
		},
		func(t *testing.T, s *Store, _ Target) {
			if _, ok, err := s.Pending("other"); ok || err != nil {
				t.Errorf("pending %v, %v", ok, err)
			}
		},
	},
	"trial": {
		func(s *Store, _ Target) error {
			trial, err := s.Scratch("staging")
			if err != nil {
				return err
			}
			_, err = trial.Prepare("home", want("home.example.org"))
			return err
		},
		func(t *testing.T, s *Store, target Target) {
			if _, ok, err := s.Pending("home"); ok || err != nil {
				t.Errorf("pending %v, %v", ok, err)
			}
		},
	},
	"account": {
		func(s *Store, _ Target) error {
			if _, err := s.Account(directory, "kid"); err != nil {
				return err
			}
			return s.SetAccountURL(directory, "kid", "https://ca.example/account/1")
		},
		func(t *testing.T, s *Store, _ Target) {
			if a, err := s.Account(directory, "kid"); err != nil || a.URL == "" || len(a.Key) == 0 {
				t.Errorf("account %q, %v", a.URL, err)
			}
		},
	},
}

func deedRole() error {
	dir := os.Getenv("STORE_TEST_DIR")
	last, _ := strconv.Atoi(os.Getenv("STORE_TEST_LAST"))
	n := 0
	s, err := Open(filepath.Join(dir, "state"), Options{Now: func() time.Time { return start }, Step: func(name string) {
		n++
		if n == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}})
	if err != nil {
		return err
	}
	return deeds[os.Getenv("STORE_TEST_DEED")].do(s, targetIn(filepath.Join(dir, "live")))
}

func TestDeedsKilledAtEveryStep(t *testing.T) {
	before := world{dir: quickFolder(t), scenario: scenario{name: "deeds", want: want("home.example.org"), stored: 1, target: targetIn}}
	before.build(t)
	for name, d := range deeds {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				if n > 100 {
					t.Fatal("it never ends")
				}
				w := before.copied(t)
				err := play(t, "deed", "STORE_TEST_DIR="+w.dir, "STORE_TEST_DEED="+name, fmt.Sprintf("STORE_TEST_LAST=%d", n)).Run()
				if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
					t.Fatalf("step %d: %v", n, err)
				}
				s := open(t, w.state())
				if _, err := s.Scratch("staging"); err != nil {
					t.Fatal(err)
				}
				if left := leftovers(t, w.dir); len(left) > 0 {
					t.Errorf("step %d left %v", n, left)
				}
				inForce(t, w.target())
				if redo := d.do(s, w.target()); redo != nil {
					t.Fatalf("step %d, once more: %v", n, redo)
				}
				d.done(t, s, w.target())
				if closed := s.Close(); closed != nil {
					t.Fatal(closed)
				}
				if err == nil {
					if n < 5 {
						t.Errorf("ends after %d steps", n)
					}
					return
				}
			}
		})
	}
}

// Several goroutines work with one store; they see whole versions only.
func TestTogether(t *testing.T) {
	s := open(t, t.TempDir())
	var g sync.WaitGroup
	for n := range 4 {
		ca := newCA(t, "Test")
		ca.serial *= int64(n + 1)
		name := "home" + strconv.Itoa(n/2) // two at each
		target := targetIn(t.TempDir())
		g.Go(func() {
			for i := range 6 {
				w := want(name + ".example.org")
				v, err := tryObtain(s, ca, name, w, start.Add(time.Duration(i)*time.Hour))
				if err != nil && !errors.Is(err, ErrUnfit) && !strings.Contains(err.Error(), "pending order") {
					t.Error(err) // the other one at this name may have taken the order
				}
				if err == nil {
					if _, err := s.Install(name, v, target); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
				}
				if _, err := s.Versions(name); err != nil {
					t.Error(err)
				}
				if _, err := s.Issuances(w.Names, directory, start); err != nil {
					t.Error(err)
				}
				if _, err := s.Account(directory, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
}
