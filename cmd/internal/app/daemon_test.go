package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/output"
	"github.com/certsitter/certsitter/internal/pebble"
)

// A process is the daemon as it is built.
type process struct {
	cmd   *exec.Cmd
	log   *output.Buffer
	ended chan struct{}
}

// launch starts the daemon and has it end with the test.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: &output.Buffer{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.log, p.log, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("log of certsitter:\n%s", p.log.String())
		}
	})
	return p
}

// end sends a signal and waits for the end.
func (p *process) end(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended
	<-p.ended
}

// stop ends the daemon as a service manager does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.end(syscall.SIGTERM); p.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("certsitter ended with %v", p.cmd.ProcessState)
	}
}

// hangup has the configuration read again and waits until the log says so.
func (p *process) hangup(t *testing.T, says string) {
	t.Helper()
	before := strings.Count(p.log.String(), says)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says "+says, waitLimit, func() bool { return strings.Count(p.log.String(), says) > before })
}

// A place is a folder with a configuration, and what stands around it.
type place struct {
	dir    string
	ca     *pebble.CA
	listen string // the page's host:port
}

func newPlace(t *testing.T, o pebble.Options) *place {
	t.Helper()
	ca, err := pebble.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	port, err := pebble.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{dir: t.TempDir(), ca: ca, listen: fmt.Sprintf("127.0.0.1:%d", port)}
	write(t, p.path("roots.pem"), string(append(ca.Roots(), ca.IssuerRoots()...)))
	if err := os.Mkdir(p.path("ssl"), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// configure writes certsitter.yaml: what every test needs, and the rest.
func (p *place) configure(t *testing.T, rest string) {
	t.Helper()
	write(t, p.path("certsitter.yaml"), fmt.Sprintf(`ca: %s
ca_roots: roots.pem
http_port: %d
tls_port: %d
resolvers: [%q]
listen: %s
state_dir: state
ssl_dir: ssl
%s`, p.ca.Directory(), p.ca.HTTPPort(), p.ca.TLSPort(), p.ca.DNS.Address(), p.listen, rest))
}

func (p *place) start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(program(t, "certsitter"), "run", "--config", p.path("certsitter.yaml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	return launch(t, cmd)
}

// serveTLS serves a pair as it is in the files at each handshake, until the
// test's end.
func serveTLS(t *testing.T, cert, key string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
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

// issue makes a certificate and its key in PEM. Its issuer has another name but
// the same key.
func issue(t *testing.T, subject, issuer string, until time.Time, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: subject},
		NotBefore: until.Add(-90 * 24 * time.Hour), NotAfter: until, DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}
