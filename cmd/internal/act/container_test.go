package act

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeEngine plays Docker's API (v1.52) on a socket.
type fakeEngine struct {
	mu    sync.Mutex // guards asked
	asked []string

	id     string // of the container web
	status int    // of a POST; 0 = 204
	body   string
	hang   bool
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	f.mu.Unlock()
	switch {
	case f.hang:
		<-r.Context().Done()
	case r.Method == http.MethodGet && r.URL.Path == "/containers/web/json":
		fmt.Fprintf(w, `{"Id":%q,"State":{"Running":true}}`, f.id)
	case r.Method == http.MethodGet:
		w.WriteHeader(http.StatusNotFound)
	case f.status != 0:
		w.WriteHeader(f.status)
		fmt.Fprint(w, f.body)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fakeEngine) orders() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.asked), func(s string) bool { return s[:4] == "GET " })
}

// start listens on a socket, whose path must be short.
func (f *fakeEngine) start(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "act")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: wait}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
		_ = os.RemoveAll(folder)
	})
	return socket
}

func TestContainers(t *testing.T) {
	f := &fakeEngine{id: "4c01db0b339c"}
	m := Machine{DockerSocket: f.start(t)}
	for _, action := range []string{"restart container web", "signal container web hup", "restart container other_1.x"} {
		if err := perform(t, t.Context(), action, m); err != nil {
			t.Errorf("%s: %v", action, err)
		}
	}
	want := []string{"POST /containers/web/restart", "POST /containers/web/kill?signal=SIGHUP", "POST /containers/other_1.x/restart"}
	if got := f.orders(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
}

func TestWhatAnEngineMeans(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"none":        {404, `{"message":"No such container: web"}`, "there is no container web"},
		"stopped":     {409, `{"message":"Container 4c01 is not running"}`, "the container web is not running"},
		"not begun":   {500, `{"cause":"container state improper","message":"can only kill running containers. 0435 is in state created: container state improper","response":500}`, "the container web is not running"},
		"forbidden":   {403, `{"message":"denied by the proxy"}`, "forbids this: denied by the proxy"},
		"broken":      {500, `{"message":"Cannot restart container web: driver failed\nprogramming s3cret"}`, "status 500): Cannot restart container web: driver failed / programming ***"},
		"no reason":   {500, `<html>`, "it gives no reason"},
		"a new place": {301, ``, "status 301"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeEngine{status: c.status, body: c.body}
			m := Machine{DockerSocket: f.start(t), Secrets: func(s string) string { return strings.ReplaceAll(s, "s3cret", "***") }}
			says(t, perform(t, t.Context(), "signal container web SIGUSR1", m), c.want)
			says(t, perform(t, t.Context(), "restart container web", m), c.want)
		})
	}
}

func TestNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "")
	folder := t.TempDir()
	says(t, perform(t, t.Context(), "restart container web", Machine{DockerSocket: filepath.Join(folder, "none")}), "there is no Docker socket at", "mount the socket")

	left := filepath.Join(folder, "left")
	listener, err := net.Listen("unix", left)
	if err != nil {
		t.Skip(err) // the path is too long here
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, listener.Close())
	says(t, perform(t, t.Context(), "restart container web", Machine{DockerSocket: left}), "nobody answers at", "start Docker")
}

func TestASocketOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		says(t, engine{socket: "/s"}.unreachable(t.Context(), os.ErrPermission), "may not use the Docker socket")
		return
	}
	socket := (&fakeEngine{}).start(t)
	must(t, os.Chmod(socket, 0))
	says(t, perform(t, t.Context(), "restart container web", Machine{DockerSocket: socket}), "may not use the Docker socket")
}

func TestWhichSocket(t *testing.T) {
	for _, c := range []struct{ wanted, host, want string }{
		{"", "", "/var/run/docker.sock"},
		{"/x", "unix:///run/podman/podman.sock", "/x"},
		{"", "unix:///run/podman/podman.sock", "/run/podman/podman.sock"},
		{"", "tcp://10.0.0.1:2375", "no local socket"},
		{"", "ssh://me@nas", "no local socket"},
		{"", "unix://relative", "no local socket"},
	} {
		got, err := socketOf(c.wanted, c.host)
		if err != nil {
			says(t, err, c.want)
		} else if got != c.want {
			t.Errorf("%q and %q: %s", c.wanted, c.host, got)
		}
	}
	f := &fakeEngine{}
	t.Setenv("DOCKER_HOST", "unix://"+f.start(t))
	if err := perform(t, t.Context(), "signal container web HUP", Machine{}); err != nil || len(f.orders()) != 1 {
		t.Errorf("by DOCKER_HOST: %v, asked %q", err, f.orders())
	}
}

func TestAnEngineThatHangs(t *testing.T) {
	f := &fakeEngine{hang: true}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("it did not end within a moment"))
	defer cancel()
	says(t, perform(t, ctx, "signal container web HUP", Machine{DockerSocket: f.start(t)}), "it did not end within a moment")
}

func TestOurOwnContainer(t *testing.T) {
	f := &fakeEngine{id: "4c01db0b339c4711"}
	e := engine{socket: f.start(t), secrets: func(s string) string { return s }}
	for _, c := range []struct {
		container, host string
		want            bool
	}{
		{"web", "4c01db0b339c", true},
		{"web", "4c01db0b3390", false},
		{"web", "4c01", false}, // a name that somebody chose
		{"web", "", false},
		{"other", "4c01db0b339c", false},
	} {
		if got := e.isOurs(t.Context(), c.container, c.host); got != c.want {
			t.Errorf("%s at %q: %v", c.container, c.host, got)
		}
	}
	host, err := os.Hostname()
	if err != nil || len(host) < 12 {
		return
	}
	f.id = host + "4711"
	says(t, perform(t, t.Context(), "restart container web", Machine{DockerSocket: e.socket}), "Certsitter itself")
	if len(f.orders()) > 0 {
		t.Errorf("asked %q", f.orders())
	}
}

func TestAContainersNameIsNoPath(t *testing.T) {
	f := &fakeEngine{}
	m := Machine{DockerSocket: f.start(t)}
	for _, name := range []string{"", "../images", "a/b", "a?x=1", "-a", "a b", strings.Repeat("a", 256)} {
		a := parsed(t, "restart container web")
		a.Argument = name
		if err := Perform(t.Context(), a, certificate(), m); err == nil {
			t.Errorf("%q is taken for a container", name)
		}
	}
	a := parsed(t, "signal container web HUP")
	a.Signal = "SIGHUP&x=1"
	if err := Perform(t.Context(), a, certificate(), m); err == nil {
		t.Error("anything is taken for a signal")
	}
	if len(f.asked) > 0 {
		t.Errorf("asked %q", f.asked)
	}
}
