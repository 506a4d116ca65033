package shout

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certsitter/certsitter/notify"
)

// The test binary plays the child: it takes one request on stdin and answers
// with what Send says, as the worker does.
const (
	roleVariable  = "SHOUT_TEST_CHILD"
	limitVariable = "SHOUT_TEST_LIMIT"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "" {
		os.Exit(m.Run())
	}
	limit, err := time.ParseDuration(os.Getenv(limitVariable))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var r notify.Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		panic(err)
	}
	answer := struct{ Err *notify.Undelivered }{}
	if err := Send(ctx, r); err != nil {
		answer.Err = err.(*notify.Undelivered)
	}
	_ = json.NewEncoder(os.Stdout).Encode(answer)
	os.Exit(0)
}

// An internet is every host of the Internet, in this process: a proxy that
// answers for all of them with certificates of its own.
type internet struct {
	t       *testing.T
	proxy   string
	roots   string // file
	handler http.HandlerFunc
	mu      sync.Mutex
	seen    []seen
}

// seen is one request as it arrived.
type seen struct {
	method, url, body string
	header            http.Header
}

// connect makes an Internet whose servers all answer with the handler.
func connect(t *testing.T, handler http.HandlerFunc) *internet {
	t.Helper()
	i := &internet{t: t, handler: handler}
	authority, key := i.authority()
	i.roots = filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(i.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	inner := httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	inner.Config.ErrorLog = log.New(io.Discard, "", 0)
	inner.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return issue(authority, key, hello.ServerName)
	}}
	inner.StartTLS()
	t.Cleanup(inner.Close)
	proxy := httptest.NewServer(tunnel(inner.Listener.Addr().String(), http.HandlerFunc(i.serve)))
	t.Cleanup(proxy.Close)
	i.proxy = proxy.URL
	return i
}

// tunnel is a proxy that leads all tunnels to one address, and answers plain
// requests itself.
func tunnel(address string, plain http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			plain.ServeHTTP(w, r)
			return
		}
		server, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer server.Close()
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(server, client)
			_ = server.(*net.TCPConn).CloseWrite()
			close(done)
		}()
		_, _ = io.Copy(client, server)
		_ = client.Close()
		<-done
	})
}

func (i *internet) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	i.mu.Lock()
	i.seen = append(i.seen, seen{r.Method, r.Host + r.URL.RequestURI(), string(body), r.Header})
	i.mu.Unlock()
	i.handler(w, r)
}

func (i *internet) requests() []seen {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen
}

func (i *internet) authority() (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Internet"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		i.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return certificate, key
}

func issue(authority *x509.Certificate, key *ecdsa.PrivateKey, name string) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// A child is a process that sends one message.
type child struct {
	proxy, roots string
	limit        time.Duration
}

func (i *internet) child() child {
	return child{proxy: i.proxy, roots: i.roots, limit: 20 * time.Second}
}

// offline is a child whose proxy is not there.
func offline(t *testing.T) child {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return child{proxy: "http://" + l.Addr().String(), limit: 20 * time.Second}
}

// send sends a message in a child process and gives its answer. A child that
// dies or hangs fails the test.
func (c child) send(t *testing.T, r notify.Request) *notify.Undelivered {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	input, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = []string{
		"GOCOVERDIR=" + t.TempDir(),
		roleVariable + "=1", limitVariable + "=" + c.limit.String(), "GORACE=atexit_sleep_ms=0",
		"HTTPS_PROXY=" + c.proxy, "HTTP_PROXY=" + c.proxy, "SSL_CERT_FILE=" + c.roots, "SSL_CERT_DIR=/nonexistent",
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(input), &stderr, time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the child died: %v: %s", err, stderr.Bytes())
	}
	if stderr.Len() > 0 {
		t.Errorf("the child said: %s", stderr.Bytes())
	}
	var answer struct{ Err *notify.Undelivered }
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return answer.Err
}

// hole accepts connections and says nothing.
func hole(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// mailbox is a mail server that takes everything; its answers can be changed by
// the command they answer.
type mailbox struct {
	address string
	mail    chan string
}

func newMailbox(t *testing.T, host string, answers map[string]string) *mailbox {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mailbox{address: l.Addr().String(), mail: make(chan string, 10)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { m.talk(conn, answers) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return m
}

func (m *mailbox) talk(conn net.Conn, answers map[string]string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	say := func(command, usual string) {
		if other, ok := answers[command]; ok {
			usual = other
		}
		_, _ = io.WriteString(conn, usual+"\r\n")
	}
	say("", "220 mail.test ESMTP")
	in := bufio.NewScanner(conn)
	for in.Scan() {
		switch command := strings.ToUpper(strings.SplitN(in.Text(), " ", 2)[0]); command {
		case "EHLO", "HELO":
			say(command, "250-mail.test\r\n250 AUTH PLAIN LOGIN")
		case "AUTH":
			say(command, "235 welcome")
		case "DATA":
			say(command, "354 go on")
			var mail strings.Builder
			for in.Scan() && in.Text() != "." {
				mail.WriteString(in.Text() + "\n")
			}
			m.mail <- mail.String()
			say("END", "250 taken")
		case "QUIT":
			say(command, "221 bye")
			return
		default:
			say(command, "250 fine")
		}
	}
}
