package daemon

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/pebble"
)

// serveTLS serves the pair that is in the folder live: whoever copies it there
// reloads the server.
func (s *scene) serveTLS(t *testing.T) (address string) {
	t.Helper()
	s.mkdir(t, "live")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(s.path("live/cert.pem"), s.path("live/key.pem"))
		return &pair, err
	}}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(waitLimit))
				_ = tls.Server(conn, config).Handshake()
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); served.Wait() })
	return listener.Addr().String()
}

// reloading is an action that has serveTLS's server take the files. It writes
// down what it was told.
func (s *scene) reloading() string {
	return fmt.Sprintf(`after: ['run set -e; cp "$CERTSITTER_CERTFILE" %[1]s/new.pem; cp "$CERTSITTER_KEYFILE" %[1]s/key.pem; mv %[1]s/new.pem %[1]s/cert.pem; echo "$CERTSITTER_NAME|$CERTSITTER_DOMAINS|$PATH" >> %[1]s/told']`, s.path("live")) + "\n"
}

// The whole way: issued, installed, the server told, and seen to serve it.
func TestServedAfterTheAction(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	address := s.serveTLS(t)
	s.configure(t, "certificates:\n"+certificate("home", s.reloading()+"endpoints: [\"home.example.org@"+address+"\"]\n"))
	r := s.start(t)
	for n := 1; n <= 2; n++ {
		if n == 2 {
			r.press(t, "home")
		}
		c := r.deployed(t, "home", n)
		leaf := s.pair(t, "live/cert.pem", "live/key.pem")
		if s.read(t, "live/cert.pem") != s.read(t, "ssl/home.pem") {
			t.Errorf("round %d: the server has another certificate", n)
		}
		if c.NotDeployed || c.Status != "ok" || len(c.Endpoints) != 1 || c.Endpoints[0].Verdict != "same" || c.Endpoints[0].Print != c.Print || !c.NotAfter.Equal(leaf.NotAfter) {
			t.Errorf("round %d: %+v", n, c)
		}
	}
	told := strings.Split(strings.TrimSpace(s.read(t, "live/told")), "\n")
	if len(told) != 2 || !strings.HasPrefix(told[0], "home|home.example.org|/") {
		t.Errorf("the action was told %q", told)
	}
	// A look at everything changes nothing, and tells nobody again.
	r.check(t)
	if told := strings.Count(s.read(t, "live/told"), "\n"); told != 2 {
		t.Errorf("the action ran %d times", told)
	}
	wantOrders(t, s, 2)
}

// A server that nobody tells goes on with the old one, and that is seen.
func TestServedButOld(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	address := s.serveTLS(t)
	entry := "endpoints: [\"home.example.org@" + address + "\"]\n"
	s.configure(t, "certificates:\n"+certificate("home", s.reloading()+entry))
	r := s.start(t)
	first := r.deployed(t, "home", 1)
	s.configure(t, "certificates:\n"+certificate("home", entry))
	r.reload(t)
	r.press(t, "home")
	r.eventually(t, "the old one is seen", func() bool { return r.of("home").Endpoints[0].Verdict == "stale" })
	c := r.of("home")
	if c.Endpoints[0].Print != first.Print || c.Print == first.Print {
		t.Errorf("%+v", c)
	}
	if c.Status != "ok" && c.Status != "notice" { // the warning comes 26 hours after the installation
		t.Errorf("status %s: %+v", c.Status, c.Problems)
	}
	if r.seen.count("home", "deployed") != 1 {
		t.Error("called deployed")
	}
	// The server is told by hand: the next look sees it.
	for from, to := range map[string]string{"ssl/home.key": "live/key.pem", "ssl/home.pem": "live/cert.pem"} {
		s.write(t, to, s.read(t, from))
	}
	r.check(t)
	r.deployed(t, "home", 2)
	if c := r.of("home"); c.NotDeployed || c.Endpoints[0].Verdict != "same" {
		t.Errorf("%+v", c)
	}
}

// An action that fails is an event, and is tried again; the certificate in place
// stays.
func TestActionFails(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates:\n"+certificate("home", "after: ['run echo no such luck >&2; exit 3']\n"))
	r := s.start(t)
	r.eventually(t, "the failure is an event", func() bool { return r.seen.count("home", "deploy_failed") == 1 })
	r.eventually(t, "the reason can be seen", func() bool { return strings.Contains(r.of("home").Deployment, "no such luck") })
	s.pair(t, "ssl/home.pem", "ssl/home.key")
	// A restart goes on with the action and orders nothing.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "certificates:\n"+certificate("home", "after: ['run echo done > "+s.path("done")+"']\n"))
	r = s.start(t)
	r.check(t)
	if r.of("home").Deployment == "" {
		t.Error("the action is forgotten")
	}
	wantOrders(t, s, 1)
}

// The configuration is read again while an order and an action are under way:
// both go on, and what is new begins beside them.
func TestReloadWhileBusy(t *testing.T) {
	t.Parallel()
	held := newGate(t)
	s := newScene(t, pebble.Options{Wrap: held.at(pebble.FinalizePath)})
	s.mkdir(t, "told")
	held.release()
	act := "after: ['run touch " + s.path("told/begun") + "; while [ ! -e " + s.path("told/go") + " ]; do sleep 0.05; done']\n"
	s.configure(t, "certificates:\n"+certificate("acting", act))
	r := s.start(t)
	r.eventually(t, "the action runs", func() bool { return fileExists(s.path("told/begun")) })
	held.close()
	s.configure(t, "certificates:\n"+certificate("acting", act)+certificate("first", ""))
	r.reload(t)
	held.told(t)
	s.configure(t, "certificates:\n"+certificate("acting", act)+certificate("first", "")+certificate("second", ""))
	r.reload(t)
	held.told(t) // both of them wait now: the second could answer beside the first
	s.write(t, "told/go", "")
	held.release()
	for _, name := range []string{"acting", "first", "second"} {
		r.deployed(t, name, 1)
		if c := r.of(name); c.Failures != 0 {
			t.Errorf("%s: %s", name, c.LastResult)
		}
		wantOrders(t, s, 1, name+".example.org")
	}
}

// What a change of the configuration means.
func TestChanges(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.mkdir(t, "elsewhere")
	entry := func(domains, more string) string {
		return "certificates:\n- name: home\n  domains: [" + domains + "]\n  certfile: home.pem\n  keyfile: home.key\n" + indent(more)
	}
	s.configure(t, entry("a.example.org", ""))
	r := s.start(t)
	r.deployed(t, "home", 1)
	old := s.read(t, "ssl/home.pem")

	// Only the type of the key: at the next due instant.
	s.configure(t, entry("a.example.org", "key_type: rsa2048\n"))
	r.reload(t)
	r.check(t)
	wantOrders(t, s, 1)

	// A name added: at once. The key's type comes along.
	s.configure(t, entry("a.example.org, b.example.org", "key_type: rsa2048\n"))
	r.reload(t)
	r.deployed(t, "home", 2)
	leaf := s.pair(t, "ssl/home.pem", "ssl/home.key")
	if !slices.Equal(leaf.DNSNames, []string{"a.example.org", "b.example.org"}) || leaf.PublicKeyAlgorithm.String() != "RSA" {
		t.Errorf("%v %v", leaf.DNSNames, leaf.PublicKeyAlgorithm)
	}
	if s.read(t, "ssl/home.pem") == old {
		t.Error("the file is the old one")
	}

	// A name removed: at the next due instant.
	s.configure(t, entry("b.example.org", "key_type: rsa2048\n"))
	r.reload(t)
	r.check(t)
	wantOrders(t, s, 2)

	// A path moved: installed there, the old file left. More forms.
	s.configure(t, strings.Replace(entry("b.example.org", "chainfile: chain.pem\ncombinedfile: all.pem\nkey_type: rsa2048\n"), "home.pem", s.path("elsewhere/home.pem"), 1))
	r.reload(t)
	r.eventually(t, "the file is where it was moved to", func() bool {
		return fileExists(s.path("elsewhere/home.pem")) && fileExists(s.path("ssl/all.pem")) && fileExists(s.path("ssl/chain.pem")) && r.of("home").Deployment == ""
	})
	if s.read(t, "elsewhere/home.pem") != s.read(t, "ssl/home.pem") {
		t.Error("the old file is gone or another one")
	}
	wantOrders(t, s, 2)

	// Removed and used again for another name.
	s.configure(t, "certificates: []\n")
	r.reload(t)
	r.eventually(t, "it is gone", func() bool { return r.of("home").Name == "" })
	if left, _ := filepath.Glob(s.path("state/certificates/.removed/home-*")); len(left) != 1 {
		t.Errorf("put aside: %v", left)
	}
	if !fileExists(s.path("ssl/home.pem")) {
		t.Error("the files in use are gone")
	}
	s.configure(t, strings.Replace(entry("c.example.org", ""), "home.pem", "c.pem", 1))
	r.reload(t)
	r.eventually(t, "a new one is there", func() bool { return fileExists(s.path("ssl/c.pem")) && r.of("home").Deployment == "" })
	wantOrders(t, s, 1, "c.example.org")
}

// Modes and owners: new files get what is configured, old ones keep what they
// have, and links are followed.
func TestModesAndLinks(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.mkdir(t, "real")
	s.write(t, "real/home.pem", "old")
	if err := os.Chmod(s.path("real/home.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../real/home.pem", s.path("ssl/home.pem")); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "certificates:\n"+certificate("home", "key_mode: \"0640\"\n"))
	r := s.start(t)
	r.deployed(t, "home", 1)
	s.pair(t, "real/home.pem", "ssl/home.key")
	if info, err := os.Lstat(s.path("ssl/home.pem")); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link: %v %v", info, err)
	}
	for path, want := range map[string]os.FileMode{"real/home.pem": 0o640, "ssl/home.key": 0o640, "state": os.ModeDir | 0o700} {
		info, err := os.Stat(s.path(path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	err := filepath.WalkDir(s.path("state"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
