package app

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/internal/homeassistant"
)

// A machine is what a container of ours sees: both programs in /usr/bin, the
// user that the worker gets, /data, and Core's folder ssl as /ssl. Its network is
// the test's, with the Supervisor's addresses.
type machine struct {
	root string
	env  []string
}

// haName is the name that Home Assistant is asked for from outside.
const haName = "home.example.org"

func newMachine(t *testing.T, ssl string, roots []byte) *machine {
	t.Helper()
	m := &machine{root: t.TempDir(), env: []string{"PATH=/usr/bin", "TZ=UTC", "CERTSITTER_IMAGE=1"}}
	for _, folder := range []string{"usr/bin", "data", "ssl", "config", "etc/ssl/certs", "dev", "tmp"} {
		if err := os.MkdirAll(m.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"certsitter", "certsitter-worker"} {
		copyProgram(t, program(t, name), m.path("usr/bin/"+name))
	}
	m.write(t, "etc/passwd", "root:x:0:0::/root:/bin/sh\ncertsitter:x:990:990::/nonexistent:/sbin/nologin\n")
	m.write(t, "etc/group", "root:x:0:\ncertsitter:x:990:\n")
	m.write(t, "etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%s supervisor\n%s homeassistant %s\n", homeassistant.SupervisorAddress, homeassistant.CoreAddress, haName))
	m.write(t, "etc/ssl/certs/ca-certificates.crt", string(roots))
	m.mount(t, ssl, "ssl")
	m.mount(t, "/dev", "dev")
	return m
}

// mount shows a folder in another place, until the test's end.
func (m *machine) mount(t *testing.T, folder, as string) {
	t.Helper()
	if err := unix.Mount(folder, m.path(as), "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount /%s: %v", as, err)
	}
	t.Cleanup(func() { // before the folder is taken away
		if err := unix.Unmount(m.path(as), unix.MNT_DETACH); err != nil {
			t.Errorf("unmount /%s: %v", as, err)
		}
	})
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(t *testing.T, name, text string) {
	t.Helper()
	write(t, m.path(name), text)
	if err := os.Chmod(m.path(name), 0o644); err != nil { // the worker is another user
		t.Fatal(err)
	}
}

// start starts the daemon as the image does.
func (m *machine) start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command("/usr/bin/certsitter", "run")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", m.env, &syscall.SysProcAttr{Chroot: m.root}
	return launch(t, cmd)
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(target, source)
	}
	if err == nil {
		err = target.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// served is the leaf that an address shows.
func served(address string) ([]byte, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: haName, InsecureSkipVerify: true}} // what is looked at is the certificate
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw, nil
}

// post presses a button of the page, as a script on this machine.
func post(t *testing.T, url string) {
	t.Helper()
	client := http.Client{Timeout: waitLimit}
	answer, err := client.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s: %d %s %v", url, answer.StatusCode, text, err)
	}
}

// state is what a daemon says of itself, for who looks for what went wrong.
func state(page string) string {
	client := http.Client{Timeout: waitLimit}
	answer, err := client.Get(page + "api/state")
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return fmt.Sprintf("%s %v", text, err)
}

// pairIn reads the pair of a folder and fails if it does not match.
func pairIn(folder string) (leaf []byte, err error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "fullchain.pem"), filepath.Join(folder, "privkey.pem"))
	if err != nil {
		return nil, err
	}
	return pair.Certificate[0], nil
}

const day = 24 * time.Hour
