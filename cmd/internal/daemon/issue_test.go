package daemon

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/pebble"
)

// Each way to prove a name, from the configuration to the pair in place.
func TestChallenges(t *testing.T) {
	t.Parallel()
	ca, err := pebble.Start(pebble.Options{NonceReject: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	provider := serveHTTP(t, ca.DNS.Provider())
	root := startNginx(t, ca.HTTPPort())
	for name, more := range map[string]string{
		"listener":  "",
		"webroot":   "webroot: " + root + "\n",
		"tlsalpn":   "challenge: tls-alpn-01\n",
		"dnsrecord": fmt.Sprintf("challenge: dns-01\nprovider: httpreq\nenv: [%q, HTTPREQ_POLLING_INTERVAL=1]\n", "HTTPREQ_ENDPOINT="+provider),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSceneWith(t, ca)
			if name == "listener" { // nginx has the port that the CA asks
				s = newScene(t, pebble.Options{NonceReject: 20})
			}
			s.configure(t, "certificates:\n"+certificate(name, more))
			r := s.start(t)
			c := r.deployed(t, name, 1)
			leaf := s.pair(t, "ssl/"+name+".pem", "ssl/"+name+".key")
			if !slices.Equal(leaf.DNSNames, []string{name + ".example.org"}) || c.Status != "ok" || c.Failures != 0 || *c.DaysLeft != 89 {
				t.Errorf("names %v, %+v", leaf.DNSNames, c)
			}
			wantOrders(t, s, 1, name+".example.org")
			// Nothing is left of the answers.
			if left, _ := filepath.Glob(root + "/.well-known/acme-challenge/*"); len(left) > 0 {
				t.Errorf("left in the webroot: %v", left)
			}
			if left := s.ca.DNS.TXT("_acme-challenge." + name + ".example.org"); len(left) > 0 {
				t.Errorf("left in the DNS: %v", left)
			}
			if name != "webroot" {
				for _, port := range []int{s.ca.HTTPPort(), s.ca.TLSPort()} {
					if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
						_ = l.Close()
					} else if port == s.ca.TLSPort() || name == "listener" {
						t.Errorf("port %d is still taken: %v", port, err)
					}
				}
			}
		})
	}
}

// startNginx is Debian's web server on that port; it serves the folder.
func startNginx(t *testing.T, port int) (root string) {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx = "/usr/sbin/nginx"; exec.Command(nginx, "-v").Run() != nil {
			t.Skip("nginx is not installed")
		}
	}
	// nginx's workers have another user when root starts it.
	dir, err := os.MkdirTemp("", "certsitter-nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root = filepath.Join(dir, "www")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, root} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen 127.0.0.1:%[2]d; root %[3]s; }
}`, dir, port, root)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", conf)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = waitLimit
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(waitLimit); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return root
		}
		if time.Now().After(end) {
			t.Fatalf("nginx does not come up: %v", err)
		}
	}
}

// What the CA or this machine does not let through is said in a sentence, and
// where it can be known before, it costs no order.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const kid = "kid-1"
	hmac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	account := pebble.Options{EABRequired: true, EAB: map[string]string{kid: hmac}}
	for name, c := range map[string]struct {
		ca     pebble.Options
		rest   string // before the certificates
		more   string // in the certificate
		before func(t *testing.T, s *scene)
		says   []string // in last_result or a problem
		orders int
	}{
		"no external account": {ca: account, says: []string{"eab_kid"}},
		"a wrong external account": {ca: account, rest: "eab_kid: " + kid + "\neab_hmac: " + base64.RawURLEncoding.EncodeToString([]byte("fedcba9876543210fedcba9876543210")) + "\n",
			says: []string{"eab_"}},
		"an unknown profile":       {more: "profile: fastest\n", says: []string{"profile", "fastest"}},
		"a name that is refused":   {ca: pebble.Options{Blocked: []string{"home.example.org"}}, says: []string{"home.example.org"}},
		"a folder that is missing": {more: "leaffile: " + "nowhere/leaf.pem\n", says: []string{"nowhere"}},
		"a folder that is a file": {more: "leaffile: " + "file/leaf.pem\n", before: func(t *testing.T, s *scene) { s.write(t, "ssl/file", "") },
			says: []string{"ssl/file"}},
		"a target that is a folder": {before: func(t *testing.T, s *scene) { s.mkdir(t, "ssl/home.pem") }, says: []string{"home.pem"}},
		"a webroot that is missing": {more: "webroot: /nonexistent/www\n", says: []string{"/nonexistent/www"}},
		"a port that is taken": {before: func(t *testing.T, s *scene) {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", s.ca.HTTPPort()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, says: []string{"http_port"}},
		"a name without an address": {before: func(t *testing.T, s *scene) { s.ca.DNS.SetAddresses("home.example.org") },
			says: []string{"home.example.org"}, orders: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, c.ca)
			if c.before != nil {
				c.before(t, s)
			}
			s.configure(t, c.rest+"certificates:\n"+certificate("home", c.more))
			r := s.start(t)
			r.eventually(t, "the first attempt has failed", func() bool { return r.of("home").Failures == 1 })
			got := r.of("home")
			text := got.LastResult
			for _, p := range got.Problems {
				text += " " + p.Text + " " + p.Advice
			}
			for _, word := range c.says {
				if !strings.Contains(text, word) {
					t.Errorf("%q is not in %q", word, text)
				}
			}
			if len(got.LastResult) > 200 || strings.ContainsAny(got.LastResult, "\n{") {
				t.Errorf("no sentence: %q", got.LastResult)
			}
			if until := time.Until(got.NextRenewal); until < 14*time.Minute || until > 16*time.Minute {
				t.Errorf("tried again in %v", until)
			}
			wantOrders(t, s, c.orders)
			if c.before == nil && fileExists(s.path("ssl/home.pem")) {
				t.Error("there is a certificate")
			}
		})
	}
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestExternalAccount(t *testing.T) {
	t.Parallel()
	hmac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	s := newScene(t, pebble.Options{EABRequired: true, EAB: map[string]string{"kid-1": hmac}, Profiles: map[string]time.Duration{"classic": 90 * 24 * time.Hour, "shortlived": 160 * time.Hour}})
	s.configure(t, "eab_kid: kid-1\neab_hmac: "+hmac+"\ncertificates:\n"+certificate("home", "profile: shortlived\n"))
	r := s.start(t)
	r.deployed(t, "home", 1)
	leaf := s.pair(t, "ssl/home.pem", "ssl/home.key")
	if life := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Hour); life != 160*time.Hour {
		t.Errorf("a lifetime of %v", life)
	}
}

// Twenty at once: four at a time, and each of them once.
func TestTwentyAtOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	var b strings.Builder
	b.WriteString("certificates:\n")
	for i := range 20 {
		b.WriteString(certificate(fmt.Sprintf("n%02d", i), ""))
	}
	s.configure(t, b.String())
	r := s.start(t)
	most := 0
	r.eventually(t, "all are deployed", func() bool {
		renewing, done := 0, 0
		for _, c := range r.Sitter.Snapshot().Certificates {
			if c.Renewing {
				renewing++
			}
			if r.seen.count(c.Name, "deployed") == 1 {
				done++
			}
		}
		most = max(most, renewing)
		return done == 20
	})
	if most != 4 {
		t.Errorf("at most %d at a time, want 4", most)
	}
	for i := range 20 {
		name := fmt.Sprintf("n%02d", i)
		wantOrders(t, s, 1, name+".example.org")
		s.pair(t, "ssl/"+name+".pem", "ssl/"+name+".key")
	}
}

// One order at a time for one DNS account, whatever else is running.
func TestOneAtATimePerAccount(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	var mu sync.Mutex
	open, most := map[string]int{}, map[string]int{}
	next := s.ca.DNS.Provider()
	provider := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		mu.Lock()
		switch r.URL.Path {
		case "/present":
			open[user]++
			most[user] = max(most[user], open[user])
		case "/cleanup":
			open[user]--
		}
		mu.Unlock()
		next.ServeHTTP(w, r)
	}))
	text := "certificates:\n"
	for i := range 6 {
		text += certificate(fmt.Sprintf("n%d", i), fmt.Sprintf("challenge: dns-01\nprovider: httpreq\nenv: [%q, HTTPREQ_USERNAME=user%d, HTTPREQ_PASSWORD=secret%d, HTTPREQ_POLLING_INTERVAL=1]\n", "HTTPREQ_ENDPOINT="+provider, i%2, i%2))
	}
	s.configure(t, text)
	r := s.start(t)
	for i := range 6 {
		r.deployed(t, fmt.Sprintf("n%d", i), 1)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, user := range []string{"user0", "user1"} {
		if most[user] != 1 || open[user] != 0 {
			t.Errorf("%s had %d records at a time and has %d now", user, most[user], open[user])
		}
	}
}

// A worker of another version is no failure of the renewal: both come together
// again by a restart.
func TestWorkerOfAnotherVersion(t *testing.T) {
	t.Parallel()
	s := newScene(t, pebble.Options{})
	s.configure(t, "certificates:\n"+certificate("home", ""))
	r := s.start(t, func(o *Options) { o.Worker.Version = "older" })
	select {
	case <-r.ended:
	case <-time.After(waitLimit):
		t.Fatal("the daemon goes on")
	}
	if err := r.stop(); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("it ended with %v", err)
	}
	if strings.Contains(s.read(t, "state/state.json"), `"first_failure"`) {
		t.Errorf("remembered as a failure: %s", s.read(t, "state/state.json"))
	}
	wantOrders(t, s, 0)
	s.start(t).deployed(t, "home", 1)
}
