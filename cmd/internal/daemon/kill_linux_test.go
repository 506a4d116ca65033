package daemon

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/internal/pebble"
)

// onChange calls f at the nth change in the folders, and counts all of them.
func onChange(t *testing.T, nth int, f func(), folders ...string) (count func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if _, err := unix.InotifyAddWatch(fd, folder, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_CLOSE_WRITE); err != nil {
			t.Fatal(err)
		}
	}
	events := os.NewFile(uintptr(fd), "inotify")
	seen := make(chan int, 1)
	go func() {
		n := 0
		defer func() { seen <- n }()
		for buffer := make([]byte, 64<<10); ; {
			length, err := events.Read(buffer)
			if err != nil {
				return
			}
			for at := 0; at < length; n++ {
				if n+1 == nth {
					f()
				}
				at += unix.SizeofInotifyEvent + int(buffer[at+12]) // the name's length; below 256
			}
		}
	}()
	return func() int {
		if err := events.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		return <-seen
	}
}

// kill -9 at changes of the files, while a certificate is being replaced: the
// next start has a pair that fits together, whatever had been written.
func TestKillAtEachChange(t *testing.T) {
	t.Parallel()
	// replace runs a renewal over a pair in place and has it killed at one change.
	replace := func(t *testing.T, nth int) (s *scene, killed bool, changes int) {
		s = newScene(t, pebble.Options{AlwaysValid: true}) // the dead answer no challenge
		s.configure(t, "certificates:\n"+certificate("home", ""))
		s.recovers(t, 1, 1)
		s.configure(t, "certificates:\n- name: home\n  domains: [home.example.org, more.example.org]\n  certfile: home.pem\n  keyfile: home.key\n")
		s.mkdir(t, "state/certificates/home/pending")
		started, now := make(chan *victim, 1), make(chan struct{})
		stop := onChange(t, nth, func() { (<-started).kill(); close(now) }, s.path("ssl"), s.path("state"), s.path("state/certificates/home"), s.path("state/certificates/home/pending"))
		v := s.begin(t)
		started <- v
		for end := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
			select {
			case <-now:
				v.gone(t)
				return s, true, stop()
			default:
			}
			if c := s.home(t); inUse(c) && len(c.Names) == 2 {
				v.kill()
				v.gone(t)
				return s, false, stop()
			}
			if time.Now().After(end) {
				t.Fatal("neither killed nor renewed")
			}
		}
	}
	_, _, changes := replace(t, 0)
	if changes < 20 {
		t.Fatalf("a renewal changes files %d times only", changes)
	}
	t.Logf("%d changes", changes)
	slots := make(chan struct{}, 4)
	for nth := 1; nth <= changes; nth += max(1, changes/24) {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			s, _, _ := replace(t, nth)
			orders := 2
			if s.ca.Orders("home.example.org", "more.example.org") == 1 && s.lost(t, "v0002") {
				orders = 3
			}
			before := s.attempts(t)
			if before > 3 {
				t.Errorf("%d attempts", before)
			}
			attempts := before + 1
			if fileExists(s.path("state/certificates/home/v0002")) {
				attempts = before
			}
			s.recovers(t, orders, attempts)
		})
	}
}
