package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// daemon answers on the control socket in a folder until the test ends.
func daemon(t *testing.T, dir string, loop Sitter) *Control {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	s := newServer(Config{App: true, Password: "secret"}, loop) // neither counts on the socket
	go func() { stopped <- s.RunSocket(ctx, filepath.Join(dir, SocketName)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	var control *Control
	eventually(t, "the socket answers", func() bool {
		c, err := Dial(dir)
		control = c
		if err != nil && !errors.Is(err, ErrNotRunning) {
			t.Fatal(err)
		}
		return err == nil
	})
	return control
}

// folder is a short path: sockets' addresses are.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestControl(t *testing.T) {
	loop := newFake(sample())
	dir := folder(t)
	control := daemon(t, dir, loop)
	ctx := t.Context()

	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	snap, err := control.Snapshot(ctx)
	if err != nil || !reflect.DeepEqual(snap, sample()) {
		t.Errorf("snapshot %+v, %v", snap, err)
	}

	var got string
	loop.renew = func(name string, o sitter.RenewOptions) error {
		got = fmt.Sprint(name, o)
		return nil
	}
	if err := control.Renew(ctx, "a/b c", sitter.RenewOptions{Staging: true}); err != nil || got != "a/b c{false true false}" {
		t.Errorf("renew: %v, %s", err, got)
	}
	loop.revoke = func(name, reason string) error {
		got = name + " " + reason
		return nil
	}
	if err := control.Revoke(ctx, "home", "keyCompromise"); err != nil || got != "home keyCompromise" {
		t.Errorf("revoke: %v, %s", err, got)
	}
	if err := control.Check(ctx); err != nil {
		t.Error(err)
	}
	loop.testNotify = func(target string) ([]sitter.Delivery, error) {
		return []sitter.Delivery{{Target: target}, {Target: "x", Error: "no"}}, nil
	}
	deliveries, err := control.TestNotify(ctx, "ntfy_1a2b3c")
	if want := []sitter.Delivery{{Target: "ntfy_1a2b3c"}, {Target: "x", Error: "no"}}; err != nil || !reflect.DeepEqual(deliveries, want) {
		t.Errorf("test message: %v, %v", deliveries, err)
	}
}

func TestControlRefusals(t *testing.T) {
	loop := newFake(sample())
	control := daemon(t, folder(t), loop)
	want := &sitter.Refused{Code: "hourly_cap", Sentence: "Four attempts an hour are enough. Again at 13:00.", Until: noon.Add(time.Hour)}
	loop.renew = func(string, sitter.RenewOptions) error { return fmt.Errorf("loop: %w", want) }
	loop.revoke = func(string, string) error { return want }
	loop.check = func() error { return errors.New("the state folder is full") }
	loop.testNotify = func(string) ([]sitter.Delivery, error) { return nil, want }
	_, notified := control.TestNotify(t.Context(), "")
	for what, err := range map[string]error{
		"renew":  control.Renew(t.Context(), "home", sitter.RenewOptions{}),
		"revoke": control.Revoke(t.Context(), "home", ""),
		"notify": notified,
	} {
		if r, ok := errors.AsType[*sitter.Refused](err); !ok || *r != *want {
			t.Errorf("%s: %#v", what, err)
		}
	}
	err := control.Check(t.Context())
	if _, ok := errors.AsType[*sitter.Refused](err); ok || err == nil || err.Error() != "the state folder is full" {
		t.Errorf("check: %#v", err)
	}
}

func TestControlEvents(t *testing.T) {
	loop := newFake(sample())
	control := daemon(t, folder(t), loop)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := control.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := sitter.Event{Time: noon, Name: "home", Kind: "progress", Text: "Waiting."} // told at once: Events has subscribed
	loop.tell(want)
	select {
	case got := <-events:
		if got != want {
			t.Errorf("got %+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	cancel()
	for range events { // ends
	}
	eventually(t, "the daemon forgets the viewer", func() bool { return loop.watching() == 0 })
}

func TestNotRunning(t *testing.T) {
	dir := folder(t)
	if _, err := Dial(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := Dial(filepath.Join(dir, "nowhere")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := Dial(filepath.Join(dir, strings.Repeat("deep", 40))); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no folder, long path: %v", err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	if _, err := Dial(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v", err)
	}
	daemon(t, dir, newFake(sample())) // takes the dead one's place
}

func TestControlAfterTheDaemonEnded(t *testing.T) {
	dir := folder(t)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() {
		stopped <- newServer(Config{}, newFake(sample())).RunSocket(ctx, filepath.Join(dir, SocketName))
	}()
	var control *Control
	eventually(t, "the socket answers", func() (ok bool) {
		var err error
		control, err = Dial(dir)
		return err == nil
	})
	cancel()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if _, err := control.Snapshot(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: %v", err)
	}
}

func TestDeepStateFolder(t *testing.T) {
	dir := filepath.Join(folder(t), strings.Repeat("a-rather-long-name/", 12))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	control := daemon(t, dir, newFake(sample()))
	if _, err := control.Snapshot(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOthersMayNotUseTheSocket(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may use every socket")
	}
	dir := folder(t)
	daemon(t, dir, newFake(sample()))
	path := filepath.Join(dir, SocketName)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); err == nil || !strings.Contains(err.Error(), "as root or as the user") {
		t.Errorf("without the right to it: %v", err)
	}
}

func TestSocketIsRefusedInAMissingFolder(t *testing.T) {
	err := newServer(Config{}, newFake(nil)).RunSocket(t.Context(), filepath.Join(folder(t), "nowhere", SocketName))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRunSaysThatThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	err = newServer(Config{Listen: taken.Addr().String()}, newFake(sample())).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another program already uses "+taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestRunWithoutAnAddressWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- newServer(Config{}, newFake(sample())).Run(ctx) }()
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestShutdownLetsCommandsFinish: who presses a button while Certsitter stops
// gets an answer.
func TestShutdownLetsCommandsFinish(t *testing.T) {
	loop := newFake(sample())
	under, finish := make(chan struct{}), make(chan struct{})
	loop.check = func() error {
		close(under)
		<-finish
		return nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped, answered := make(chan error, 1), make(chan string, 1)
	go func() { stopped <- newServer(Config{}, loop).Serve(ctx, ln) }()
	go func() {
		answer, err := http.Post("http://"+ln.Addr().String()+"/api/check", "", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer func() { _ = answer.Body.Close() }()
		b, err := io.ReadAll(answer.Body)
		answered <- fmt.Sprintf("%d%s%v", answer.StatusCode, b, err)
	}()
	<-under
	cancel()
	close(finish)
	if got := <-answered; got != "202{\"accepted\":true}\n<nil>" {
		t.Errorf("answered %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHeadersAreLimited(t *testing.T) {
	address := start(t, newServer(Config{}, newFake(sample())))
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", 2*headerLimit))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %s", answer.Status)
	}
}
