// Package image has the tests of what makes Certsitter an image: the Dockerfile
// and what it copies, the service under s6, the AppArmor profile. It builds no
// image and asks no registry: the files are laid out as the Dockerfile says, on
// programs of Debian instead of the base image's, in namespaces of their own.
package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/supervisor"
)

// waitLimit bounds every wait. Nothing waits for it unless it fails.
const waitLimit = 20 * time.Second

// A container is the image as it runs.
type container struct {
	t     *testing.T
	root  string
	env   []string
	cmd   *exec.Cmd
	log   output.Buffer
	ended chan struct{} // closed when it has ended
	trace string        // the file with its system calls; "" = none
}

// start runs the image. With a trace all that it does with files is written down.
func start(t *testing.T, root string, trace bool, environment ...string) *container {
	t.Helper()
	c := &container{t: t, root: root, ended: make(chan struct{})}
	c.env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=certsitter"}, stages(t)[2].environment()...)
	c.env = append(c.env, environment...)
	c.cmd = &exec.Cmd{Path: "/init", Args: []string{"/init"}, Env: c.env, Dir: "/", Stdout: &c.log, Stderr: &c.log}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: unix.SIGKILL, Setpgid: true}
	if trace {
		c.trace = filepath.Join(t.TempDir(), "trace")
		if err := unix.Mkfifo(c.path("hold"), 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		// It ends with its first process, as containers do. strace would not tell
		// which number there is whose here.
		c.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if trace {
		c.attach()
	}
	go func() {
		_ = c.cmd.Wait() // code says how it ended
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("the container said:\n%s", c.log.String())
		}
	})
	return c
}

// attach has strace follow the container from its first file on.
func (c *container) attach() {
	c.t.Helper()
	strace, err := lookPath("strace")
	if err != nil {
		c.t.Fatal(err)
	}
	var said output.Buffer
	cmd := exec.Command(strace, "-f", "-y", "-s", "256", "-o", c.trace, "-e", "trace="+tracedCalls, "-p", strconv.Itoa(c.cmd.Process.Pid))
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cmd.Wait() }) // it ends with what it follows
	c.eventually("strace follows", func() bool { return strings.Contains(said.String(), "attached") })
	if err := os.WriteFile(c.path("hold"), []byte("go\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) path(name string) string { return filepath.Join(c.root, name) }

func (c *container) eventually(what string, is func() bool) {
	c.t.Helper()
	eventually(c.t, what, is)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", waitLimit, what)
		}
	}
}

// code waits for the end and gives the exit code.
func (c *container) code() int {
	c.t.Helper()
	c.eventually("the container ends", func() bool {
		select {
		case <-c.ended:
			return true
		default:
			return false
		}
	})
	return c.cmd.ProcessState.ExitCode()
}

// stop is docker stop, and gives the exit code.
func (c *container) stop() int {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	return c.code()
}

// health is what Docker does for HEALTHCHECK.
func (c *container) health() error {
	c.t.Helper()
	rest := strings.Join(stages(c.t)[2].of("HEALTHCHECK"), "")
	_, shell, found := strings.Cut(rest, " CMD ")
	if !found || strings.HasPrefix(shell, "[") {
		c.t.Fatalf("HEALTHCHECK %s is no shell's command, from which AppArmor lets the program in", rest)
	}
	return c.exec(shell)
}

// exec is docker exec.
func (c *container) exec(shell string) error {
	cmd := &exec.Cmd{Path: "/bin/sh", Args: []string{"/bin/sh", "-c", shell}, Env: c.env, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Chroot: c.root}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// daemon is the daemon's process; 0 = there is none.
func (c *container) daemon() int {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, link := range links {
		if program, err := os.Readlink(link); err == nil && program == c.path("usr/bin/certsitter") {
			number, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				c.t.Fatal(err)
			}
			return number
		}
	}
	return 0
}

// A household is what stands around an app: a broker, a Supervisor, a CA.
type household struct {
	supervisor *supervisor.Supervisor
	ca         *pebble.CA
	provider   string // URL of a DNS provider that lego's httpreq speaks to
	retained   map[string]string
	mu         sync.Mutex // guards retained
}

// newHousehold takes the addresses that these parts have in Home Assistant.
func newHousehold(t *testing.T) *household {
	t.Helper()
	h := &household{retained: map[string]string{}}
	startMosquitto(t)
	h.read(t)
	ca, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	provider := httptest.NewServer(ca.DNS.Provider())
	t.Cleanup(provider.Close)
	h.ca, h.provider = ca, provider.URL
	h.supervisor, err = supervisor.Start("127.0.0.2:80", supervisor.Setup{
		Slug: "a0d7b954_certsitter", Ports: map[string]int{"80/tcp": 0, "443/tcp": 0}, TimeZone: "Europe/Berlin",
		Broker: &supervisor.Broker{Host: "core-mosquitto", Port: 1883, Username: "addons", Password: "secret"}, Core: &supervisor.Core{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.supervisor.Close)
	return h
}

const broker = "127.0.0.1:1883"

func startMosquitto(t *testing.T) {
	t.Helper()
	program, err := lookPath("mosquitto")
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	write(t, conf, "persistence false\nlog_dest stderr\nlistener 1883 127.0.0.1\nallow_anonymous true\nuser root\n", 0o600)
	var log output.Buffer
	cmd := exec.Command(program, "-c", conf)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto's log:\n%s", log.String())
		}
	})
	eventually(t, "mosquitto comes up", func() bool {
		conn, err := net.Dial("tcp", broker)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// read keeps what is retained on the broker.
func (h *household) read(t *testing.T) {
	t.Helper()
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("reader").SetAutoReconnect(false))
	if token := client.Connect(); !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
	t.Cleanup(func() { client.Disconnect(10) })
	token := client.Subscribe("#", 1, func(_ paho.Client, m paho.Message) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.retained[m.Topic()] = string(m.Payload())
	})
	if !token.WaitTimeout(waitLimit) || token.Error() != nil {
		t.Fatalf("reader: %v", token.Error())
	}
}

// says: the broker's last word on the topic holds the text.
func (h *household) says(topic, text string) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return strings.Contains(h.retained[topic], text)
	}
}

// fill writes the app's options.
func (h *household) fill(t *testing.T, root, key string, value any) {
	t.Helper()
	write(t, filepath.Join(root, "ssl/roots.pem"), string(append(h.ca.Roots(), h.ca.IssuerRoots()...)), 0o644)
	options := map[string]any{
		"ca": h.ca.Directory(), "ca_roots": "/ssl/roots.pem", "resolvers": []string{h.ca.DNS.Address()}, "watch": []any{}, "mqtt": map[string]any{},
		"certificates": []any{map[string]any{
			"name": "home", "domains": []string{"home.example.org"}, "challenge": "dns-01", "provider": "httpreq",
			"env": []string{"HTTPREQ_ENDPOINT=" + h.provider, "HTTPREQ_POLLING_INTERVAL=1"},
		}},
	}
	options[key] = value
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "data/options.json"), string(text), 0o600)
	h.supervisor.Set(func(s *supervisor.Setup) { s.Options = text })
}

const asApp = "SUPERVISOR_TOKEN=" + supervisor.Token

// An app's life: it orders, publishes, survives its daemon's death, ends.
// Everything that it did with files is allowed by the profile.
func TestApp(t *testing.T) {
	if !inMachine(t) {
		return
	}
	h, root := newHousehold(t), newRoot(t)
	h.fill(t, root, "language", "en")
	c := start(t, root, true, asApp, "TZ=Europe/Berlin")

	c.eventually("the certificate's state is published", h.says("certsitter/cert/home/state", `"status":"ok"`))
	c.eventually("it is available", h.says("certsitter/status", "online"))
	if text, err := os.ReadFile(c.path("ssl/fullchain.pem")); err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE-----")) {
		t.Errorf("/ssl/fullchain.pem: %v %.40s", err, text)
	}
	if info, err := os.Stat(c.path("ssl/privkey.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("/ssl/privkey.pem: %v %v", info, err)
	}
	if err := c.health(); err != nil {
		t.Error(err)
	}

	first := c.daemon()
	if first == 0 {
		t.Fatal("there is no daemon")
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.eventually("the last will is published", h.says("certsitter/status", "offline"))
	c.eventually("another daemon runs", func() bool { next := c.daemon(); return next != 0 && next != first })
	c.eventually("it is available again", h.says("certsitter/status", "online"))
	if !strings.Contains(c.log.String(), "the daemon ended by signal 9. It is started again") {
		t.Error("the log does not say that the daemon died")
	}

	if code := c.stop(); code != 0 {
		t.Errorf("stopped, it ends with %d", code)
	}
	if !h.says("certsitter/status", "offline")() {
		eventually(t, "it has said farewell", h.says("certsitter/status", "offline"))
	}
	if n := h.ca.Orders("home.example.org"); n != 1 {
		t.Errorf("%d orders", n)
	}
	checkTrace(t, c)
	trace, err := os.ReadFile(c.trace)
	if err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if alone := strings.HasSuffix(strings.TrimSpace(string(users)), " 1"); !alone && !bytes.Contains(trace, []byte("setuid(100)")) {
		t.Error("the worker did not become the user certsitter")
	}
}

// Options that are refused end nothing: the app stays, healthy, to be looked at.
func TestAppWithRefusedOptions(t *testing.T) {
	if !inMachine(t) {
		return
	}
	h, root := newHousehold(t), newRoot(t)
	h.fill(t, root, "languag", "en")
	c := start(t, root, false, asApp)
	c.eventually("the problem is published", h.says("certsitter/service/state", `"problems":1`))
	c.eventually("it is healthy", func() bool { return c.health() == nil })
	if first := c.daemon(); first == 0 {
		t.Error("there is no daemon")
	}
	if code := c.stop(); code != 0 {
		t.Errorf("stopped, it ends with %d", code)
	}
	if strings.Contains(c.log.String(), "started again") {
		t.Error("the daemon died")
	}
}

// Without the Supervisor the image is a program with a configuration file.
func TestWithoutSupervisor(t *testing.T) {
	if !inMachine(t) {
		return
	}
	h, root := newHousehold(t), newRoot(t)
	write(t, filepath.Join(root, "ssl/roots.pem"), string(append(h.ca.Roots(), h.ca.IssuerRoots()...)), 0o644)
	conf := fmt.Sprintf("ca: %s\nca_roots: /ssl/roots.pem\nresolvers: [%q]\ncertificates:\n  - name: home\n    domains: [home.example.org]\n    challenge: dns-01\n"+
		"    provider: httpreq\n    env: [\"HTTPREQ_ENDPOINT=%s\", \"HTTPREQ_POLLING_INTERVAL=1\"]\nmqtt:\n  broker: tcp://%s\n", h.ca.Directory(), h.ca.DNS.Address(), h.provider, broker)
	write(t, filepath.Join(root, "config/certsitter.yaml"), conf, 0o600)
	c := start(t, root, false)
	c.eventually("the certificate's state is published", h.says("certsitter/cert/home/state", `"status":"ok"`))
	c.eventually("it is available", h.says("certsitter/status", "online"))
	if err := c.health(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"ssl/fullchain.pem", "ssl/privkey.pem", "data/state.json"} {
		if !exists(c.path(name)) {
			t.Errorf("/%s is not there", name)
		}
	}
	// As docs/docker.md says.
	if err := c.exec("/command/s6-svc -h /run/service/certsitter"); err != nil {
		t.Error(err)
	}
	c.eventually("it has read its configuration again", func() bool { return strings.Contains(c.log.String(), "configuration read again") })
	if code := c.stop(); code != 0 {
		t.Errorf("stopped, it ends with %d", code)
	}
	eventually(t, "it has said farewell", h.says("certsitter/status", "offline"))

	// A configuration that is refused ends the container, and says how to cure it.
	for name, text := range map[string]string{"with a mistake": conf + "languag: de\n", "none": ""} {
		write(t, filepath.Join(root, "config/certsitter.yaml"), text, 0o600)
		if text == "" {
			if err := os.Remove(filepath.Join(root, "config/certsitter.yaml")); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.RemoveAll(filepath.Join(root, "run/service")), os.RemoveAll(filepath.Join(root, "run/s6/container_environment"))); err != nil {
			t.Fatal(err)
		}
		c := start(t, root, false)
		if code := c.code(); code != 2 {
			t.Errorf("configuration %s: it ends with %d, not 2", name, code)
		}
		if log := c.log.String(); !strings.Contains(log, "certsitter.yaml") || strings.Contains(log, "started again") {
			t.Errorf("configuration %s: the log says\n%s", name, log)
		}
	}
}
