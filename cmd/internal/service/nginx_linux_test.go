package service

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/pebble"
)

const domain = "openhab.example.org"

// nginx in front of openHAB as openHAB's pages describe it, by plain root.
func TestNginxInFrontOfOpenHAB(t *testing.T) {
	if machine(t) {
		proveNginx(t, "testdata/nginx-redirects-all.conf", func() *process {
			return start(t, "/usr/bin/certsitter", "run", "--config", "/etc/certsitter/certsitter.yaml")
		})
	}
}

// The same with the unit's user, capabilities and files.
func TestNginxInFrontOfOpenHABUnderTheUnit(t *testing.T) {
	if machine(t) {
		proveNginx(t, "testdata/nginx-redirects-all.conf", func() *process { return startUnit(t, mainUnit) })
	}
}

// The same with the nginx configuration that we offer.
func TestOurNginxConfigurationUnderTheUnit(t *testing.T) {
	if machine(t) {
		proveNginx(t, filepath.Join(repository, "packaging/nginx/openhab.conf"), func() *process { return startUnit(t, mainUnit) })
	}
}

const nginxEntry = `certificates:
  - name: openhab
    domains: [` + domain + `]
    challenge: http-01
    webroot: /var/www/` + domain + `
    certfile: /etc/ssl/openhab.crt
    keyfile: /etc/ssl/openhab.key
    after: ["reload nginx"]
    endpoints: ["` + domain + `@127.0.0.1:443"]
`

// fakeSystemctl stands for systemd, which no machine of a test has: it reloads
// nginx as nginx.service does.
const fakeSystemctl = `#!/bin/sh
echo "$*" >> /run/systemctl.log
case "$*" in
*" reload nginx") exec nginx -s reload ;;
esac
echo "Unit not found." >&2
exit 5
`

func proveNginx(t *testing.T, config string, daemon func() *process) {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("nginx is not installed")
	}
	site := read(t, config)
	furnish(t)
	h := newHome(t)
	write(t, "/usr/local/sbin/systemctl", fakeSystemctl, 0o755)
	sh(t, "mkdir -p /var/www/"+domain)
	sh(t, "openssl req -x509 -nodes -newkey rsa:2048 -days 30 -subj /CN="+domain+" -keyout /etc/ssl/openhab.key -out /etc/ssl/openhab.crt 2>&1")
	write(t, "/etc/nginx/sites-enabled/openhab", site, 0o644)
	nginx := start(t, "nginx", "-g", "daemon off;")
	nginx.eventually(t, "nginx serves", func() bool { return served(domain) != nil })
	if h.trusts(served(domain)) {
		t.Fatal("trusted before there is a certificate")
	}
	h.configure(t, nginxEntry)
	d := daemon()
	d.eventually(t, "the first certificate is served", func() bool { return h.count("deployed") == 1 })
	first := served(domain)
	if !h.trusts(first) || len(first) < 2 {
		t.Fatalf("served is no trusted full chain, but %d certificates", len(first))
	}
	if answer := get(t, h, "https://"+domain+"/rest/"); answer != "openHAB" {
		t.Errorf("behind nginx: %q", answer)
	}
	for path, mode := range map[string]os.FileMode{"/etc/ssl/openhab.key": 0o600, "/etc/ssl/openhab.crt": 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if left, _ := os.ReadDir("/var/www/" + domain); len(left) != 0 {
		t.Errorf("left in the webroot: %v", left)
	}

	// A mistake in nginx's configuration: nginx is not touched, and that is told.
	write(t, "/etc/nginx/sites-enabled/mistake", "server { listen 81 }\n", 0o644)
	reloads := strings.Count(read(t, "/run/systemctl.log"), "reload nginx")
	if said, err := certsitter(t, "renew", "openhab", "--force"); err == nil || !strings.Contains(said, "not in use yet") {
		t.Errorf("certsitter renew: %v: %s", err, said)
	}
	d.eventually(t, "the failure is an event", func() bool { return h.count("deploy_failed") == 1 })
	if got := h.status(t).Deployment; !strings.Contains(got, "its configuration has a mistake") {
		t.Errorf("the reason: %s", got)
	}
	if now := served(domain); now == nil || !now[0].Equal(first[0]) {
		t.Error("nginx does not go on with the old certificate")
	}
	if n := strings.Count(read(t, "/run/systemctl.log"), "reload nginx"); n != reloads {
		t.Error("nginx was reloaded onto a mistake")
	}
	// After a quarter of an hour somebody is called.
	d.stop(t)
	h.age(t, 20*time.Minute)
	told := len(h.messages())
	d = daemon()
	d.eventually(t, "a message has gone out, and is noted", func() bool {
		return strings.Contains(h.messages()[told:], domain) && strings.Contains(d.out.String(), "message delivered")
	})
	h.sentByWorker(t)

	// The mistake is gone: it goes on by itself, and those who were told hear that.
	check(t, os.Remove("/etc/nginx/sites-enabled/mistake"))
	d.stop(t)
	h.age(t, 0) // the next attempt is soon, not in some minutes
	told = len(h.messages())
	d = daemon()
	d.eventually(t, "the second certificate is served", func() bool {
		now := served(domain)
		return h.count("deployed") == 2 && now != nil && !now[0].Equal(first[0]) && h.trusts(now)
	})
	d.eventually(t, "it is fine again, and that is told", func() bool { return len(h.messages()) > told })
	if got := h.status(t); got.Status != "ok" || got.Deployment != "" {
		t.Errorf("%+v", got)
	}
	if said, err := certsitter(t, "status"); err != nil || !strings.Contains(said, domain) {
		t.Errorf("certsitter status, by the control socket: %v: %s", err, said)
	}
	d.stop(t)
	if d.err != nil {
		t.Errorf("the daemon's end: %v", d.err)
	}
}

// A home is what stands around the daemon: a CA, a broker, a phone, openHAB.
type home struct {
	root   string // where /etc/certsitter is, "" = here
	ca     *pebble.CA
	broker *broker.Broker
	roots  *x509.CertPool
	phone  string // URL

	mu     sync.Mutex
	events map[string]int // kind → how many
	told   strings.Builder
	uids   map[string]bool // of those who sent
}

func newHome(t *testing.T) *home {
	t.Helper()
	return newHomeIn(t, "")
}

// newHomeIn is the home of a daemon whose files are below root.
func newHomeIn(t *testing.T, root string) *home {
	t.Helper()
	check(t, os.MkdirAll(root+"/etc/certsitter", 0o755))
	h := &home{root: root, events: map[string]int{}, uids: map[string]bool{}, roots: x509.NewCertPool()}
	var err error
	h.ca, err = pebble.Start(pebble.Options{HTTPPort: 80, TLSPort: 443})
	check(t, err)
	t.Cleanup(h.ca.Close)
	h.roots.AppendCertsFromPEM(h.ca.IssuerRoots())
	write(t, root+"/etc/certsitter/ca.pem", string(append(h.ca.Roots(), h.ca.IssuerRoots()...)), 0o644)
	h.broker, err = broker.Start("127.0.0.1:1883")
	check(t, err)
	t.Cleanup(h.broker.Close)
	check(t, h.broker.Subscribe("certsitter/cert/+/event", func(_ string, payload []byte, _ bool) {
		var event struct {
			Kind string `json:"event_type"`
		}
		_ = json.Unmarshal(payload, &event) // what is none has no kind
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events[event.Kind]++
	}))
	phone := httptest.NewServer(http.HandlerFunc(h.hear))
	t.Cleanup(phone.Close)
	h.phone = strings.TrimPrefix(phone.URL, "http://")
	serve(t, "127.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "openHAB") }))
	return h
}

func serve(t *testing.T, address string, handler http.Handler) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	check(t, err)
	server := &http.Server{Handler: handler}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
}

// hear is the phone: it notes what it is told, and of which user's process.
func (h *home) hear(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	uid := userOf(r.RemoteAddr)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Write(body)
	h.uids[uid] = true
}

// userOf is the user id of the process at the other end of a connection from
// this machine, by the eighth column of /proc/net/tcp (proc_net_tcp).
func userOf(remote string) string {
	_, port, err := net.SplitHostPort(remote)
	if err != nil {
		return ""
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return ""
	}
	f, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if column := strings.Fields(lines.Text()); len(column) > 7 && strings.HasSuffix(column[1], fmt.Sprintf(":%04X", number)) {
			return column[7]
		}
	}
	return ""
}

func (h *home) messages() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told.String()
}

// sentByWorker: the worker has sent, and it was the user certsitter.
func (h *home) sentByWorker(t *testing.T) {
	t.Helper()
	u, err := user.Lookup("certsitter")
	check(t, err)
	h.sentBy(t, u.Uid)
}

func (h *home) sentByWorkerIn(t *testing.T, d *debian) {
	t.Helper()
	h.sentBy(t, strings.TrimSpace(d.run(t, "id -u certsitter")))
}

func (h *home) sentBy(t *testing.T, uid string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.uids) != 1 || !h.uids[uid] {
		t.Errorf("messages came from the users %v, want certsitter's %s", h.uids, uid)
	}
}

// healthy reports whether the page says that the daemon is.
func healthy(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8099/healthz", nil)
	check(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// count is how many events of a kind there were.
func (h *home) count(kind string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events[kind]
}

func (h *home) trusts(chain []*x509.Certificate) bool {
	if len(chain) == 0 {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: domain, Roots: h.roots, Intermediates: between})
	return err == nil
}

// configure writes /etc/certsitter/certsitter.yaml as the package does: for root.
func (h *home) configure(t *testing.T, rest string) {
	t.Helper()
	write(t, h.root+configPath, fmt.Sprintf(`ca: %s
ca_roots: /etc/certsitter/ca.pem
resolvers: [%q]
notify: ["generic://%s/?disabletls=yes&template=json"]
mqtt: {broker: "tcp://127.0.0.1:1883"}
`, h.ca.Directory(), h.ca.DNS.Address(), h.phone)+rest, 0o600)
}

// status is what the daemon's API says of the certificate; nothing while it
// starts.
func (h *home) status(t *testing.T) sitter.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8099/api/state", nil)
	check(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return sitter.Certificate{} // it does not listen yet
	}
	defer response.Body.Close()
	var snap sitter.Snapshot
	if err := json.NewDecoder(response.Body).Decode(&snap); err != nil || len(snap.Certificates) != 1 {
		return sitter.Certificate{} // it has not looked at anything yet
	}
	return snap.Certificates[0]
}

// age makes the installation that much older, and what waits for its next attempt
// wait for two seconds.
func (h *home) age(t *testing.T, by time.Duration) {
	t.Helper()
	const path = "/var/lib/certsitter/state.json"
	document := map[string]any{}
	check(t, json.Unmarshal([]byte(read(t, path)), &document))
	deployment := document["certificates"].(map[string]any)["openhab"].(map[string]any)["deployment"].(map[string]any)
	at, err := time.Parse(time.RFC3339, deployment["installed_at"].(string))
	check(t, err)
	deployment["installed_at"] = at.Add(-by).Format(time.RFC3339Nano)
	deployment["next"] = time.Now().Add(2 * time.Second).Format(time.RFC3339Nano)
	text, err := json.Marshal(document)
	check(t, err)
	write(t, path, string(text), 0o600)
}

func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// certsitter is the command line, which asks the daemon.
func certsitter(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/usr/bin/certsitter", append(args, "--config", "/etc/certsitter/certsitter.yaml")...).CombinedOutput()
	return string(out), err
}

// served is the chain that port 443 shows; nil if there is none.
func served(name string) []*x509.Certificate { return servedAt("127.0.0.1:443", name) }

func servedAt(address, name string) []*x509.Certificate {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} // it is looked at, not trusted
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates
}

// get is a browser that trusts the CA.
func get(t *testing.T, h *home, url string) string {
	t.Helper()
	client := &http.Client{Timeout: waitLimit, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: h.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:443")
		},
	}}
	defer client.CloseIdleConnections()
	response, err := client.Get(url)
	check(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(t, err)
	return string(body)
}
