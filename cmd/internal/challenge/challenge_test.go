package challenge

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/renew"
)

// limit is how long a test waits for what must happen.
const limit = 20 * time.Second

const thumbprint = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"

func answerTo(kind, name, token string) renew.Challenge {
	return renew.Challenge{Type: kind, Name: name, Token: token, KeyAuthorization: token + "." + thumbprint}
}

func open(t *testing.T, r *Responder, kind, webroot string, names ...string) *Session {
	t.Helper()
	s, err := r.Open(t.Context(), kind, webroot, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func present(t *testing.T, s *Session, challenges ...renew.Challenge) {
	t.Helper()
	if err := s.Present(t.Context(), challenges); err != nil {
		t.Fatal(err)
	}
}

// address is where a port listens; the tests let the system choose it.
func (p *port) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("127.0.0.1:%d", p.listener.Addr().(*net.TCPAddr).Port)
}

var client = &http.Client{
	Timeout:       limit,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func fetch(t *testing.T, method, url, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestHTTP(t *testing.T) {
	r := New(0, 0)
	s := open(t, r, renew.HTTP01, "", "a.example", "*.B.example")
	present(t, s, answerTo(renew.HTTP01, "A.example", "token-of-a"), answerTo(renew.HTTP01, "b.example", "token-of-b"))
	base := "http://" + r.http.address()
	if n := s.Validators(); n != 0 {
		t.Errorf("%d validators before anybody asked", n)
	}
	for _, test := range []struct {
		method, path, host string
		status             int
		body               string
	}{
		{"GET", challengePath + "token-of-a", "a.example", 200, "token-of-a." + thumbprint},
		{"GET", challengePath + "token-of-b", "somebody.else", 200, "token-of-b." + thumbprint},
		{"HEAD", challengePath + "token-of-a", "a.example", 200, ""},
		{"POST", challengePath + "token-of-a", "a.example", 404, "404 page not found\n"},
		{"OPTIONS", challengePath + "token-of-a", "a.example", 404, "404 page not found\n"},
		{"GET", challengePath, "a.example", 404, "404 page not found\n"},
		{"GET", challengePath + "token-of-c", "a.example", 404, "404 page not found\n"},
		{"GET", challengePath + "../acme-challenge/token-of-a", "a.example", 404, "404 page not found\n"},
		{"GET", "/", "a.example", 404, "404 page not found\n"},
		{"GET", "/api/state", "a.example", 404, "404 page not found\n"},
		{"GET", "/debug/pprof/", "a.example", 404, "404 page not found\n"},
	} {
		status, body := fetch(t, test.method, base+test.path, test.host)
		if status != test.status || body != test.body {
			t.Errorf("%s %s: %d %q", test.method, test.path, status, body)
		}
	}
	if n := s.Validators(); n != 1 {
		t.Errorf("%d validators from one address", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if _, err := client.Get(base + challengePath + "token-of-a"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the session: %v", err)
	}
	if err := s.Present(t.Context(), []renew.Challenge{answerTo(renew.HTTP01, "a.example", "token-of-a")}); err == nil {
		t.Error("a closed session presents")
	}
}

func TestHTTPOverIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this machine has no IPv6:", err)
	} else {
		l.Close()
	}
	r := New(0, 0)
	s := open(t, r, renew.HTTP01, "", "a.example")
	present(t, s, answerTo(renew.HTTP01, "a.example", "token-of-a"))
	_, portNumber, _ := net.SplitHostPort(r.http.address())
	for _, host := range []string{"[::1]", "127.0.0.1"} {
		if status, _ := fetch(t, "GET", "http://"+host+":"+portNumber+challengePath+"token-of-a", ""); status != 200 {
			t.Errorf("over %s: %d", host, status)
		}
	}
	if n := s.Validators(); n != 2 {
		t.Errorf("%d validators from two addresses", n)
	}
}

// TestHTTPLimits: anybody on the Internet may come to this port.
func TestHTTPLimits(t *testing.T) {
	r := New(0, 0)
	s := open(t, r, renew.HTTP01, "", "a.example")
	present(t, s, answerTo(renew.HTTP01, "a.example", "token-of-a"))
	c, err := net.Dial("tcp", r.http.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	// More than is read of a header; the answer may meet a closed connection.
	_, _ = fmt.Fprintf(c, "GET %stoken-of-a HTTP/1.1\r\nHost: a.example\r\nX: %s\r\n\r\n", challengePath, strings.Repeat("x", 3*maxHeader))
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of %d bytes got %s", 3*maxHeader, res.Status)
	}
	var idle []net.Conn
	for range maxConnections {
		c, err := net.Dial("tcp", r.http.address())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	one, err := net.Dial("tcp", r.http.address())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	_ = one.SetDeadline(time.Now().Add(limit))
	_, _ = fmt.Fprintf(one, "GET %stoken-of-a HTTP/1.1\r\nHost: a.example\r\n\r\n", challengePath)
	if n, err := one.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("one connection too many was served")
	}
	for _, c := range idle {
		c.Close()
	}
	for end := time.Now().Add(limit); ; {
		res, err := client.Get("http://" + r.http.address() + challengePath + "token-of-a")
		if err == nil {
			res.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after the others went: %v", err)
		}
	}
}

// handshake validates as RFC 8737 says, and returns the certificate.
func handshake(t *testing.T, address, name string, protocols ...string) (*x509.Certificate, error) {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: limit}, Config: &tls.Config{
		ServerName: name, NextProtos: protocols, InsecureSkipVerify: true,
	}}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	state := c.(*tls.Conn).ConnectionState()
	if state.NegotiatedProtocol != alpn {
		t.Errorf("the protocol is %q", state.NegotiatedProtocol)
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes after the handshake", n)
	}
	return state.PeerCertificates[0], nil
}

func TestTLS(t *testing.T) {
	r := New(0, 0)
	s := open(t, r, renew.TLSALPN01, "", "a.example", "192.0.2.7", "2001:db8::1")
	present(t, s,
		answerTo(renew.TLSALPN01, "a.example", "token-of-a"),
		answerTo(renew.TLSALPN01, "192.0.2.7", "token-of-4"),
		answerTo(renew.TLSALPN01, "2001:DB8:0::1", "token-of-6"))
	for _, test := range []struct{ server, name, token string }{
		{"a.example", "a.example", "token-of-a"},
		{"A.EXAMPLE", "a.example", "token-of-a"},
		{"7.2.0.192.in-addr.arpa", "192.0.2.7", "token-of-4"},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::1", "token-of-6"},
	} {
		cert, err := handshake(t, r.tls.address(), test.server, alpn)
		if err != nil {
			t.Errorf("%s: %v", test.server, err)
			continue
		}
		checkAnswer(t, cert, test.name, test.token+"."+thumbprint)
	}
	if n := s.Validators(); n != 1 {
		t.Errorf("%d validators from one address", n)
	}
	for _, test := range []struct {
		server    string
		protocols []string
	}{
		{"a.example", nil},
		{"a.example", []string{"h2", "http/1.1"}},
		{"a.example", []string{alpn, "http/1.1"}},
		{"b.example", []string{alpn}},
		{"", []string{alpn}},
	} {
		if cert, err := handshake(t, r.tls.address(), test.server, test.protocols...); err == nil {
			t.Errorf("%q with %q got the certificate of %q", test.server, test.protocols, cert.DNSNames)
		}
	}
	address := r.tls.address()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := handshake(t, address, "a.example", alpn); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the session: %v", err)
	}
}

// checkAnswer checks what RFC 8737 §3 asks of the certificate.
func checkAnswer(t *testing.T, cert *x509.Certificate, name, keyAuthorization string) {
	t.Helper()
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if !slices.Equal(names, []string{name}) {
		t.Errorf("%s: the certificate names %q", name, names)
	}
	if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("%s: the key is %T", name, cert.PublicKey)
	}
	if err := cert.CheckSignatureFrom(cert); err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) {
		t.Errorf("%s: the certificate may sign others: %v", name, err)
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		t.Errorf("%s: not signed by itself: %v", name, err)
	}
	want := sha256.Sum256([]byte(keyAuthorization))
	found := 0
	for _, e := range cert.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) {
			continue
		}
		found++
		var got []byte
		rest, err := asn1.Unmarshal(e.Value, &got)
		if err != nil || len(rest) > 0 || !slices.Equal(got, want[:]) || !e.Critical {
			t.Errorf("%s: the extension is %x (critical %v), %v", name, e.Value, e.Critical, err)
		}
	}
	if found != 1 {
		t.Errorf("%s: %d acmeIdentifier extensions", name, found)
	}
}

// TestParallelSessions: they share a port, hear only their own, and the port
// is free after the last one.
func TestParallelSessions(t *testing.T) {
	r := New(0, 0)
	first := open(t, r, renew.HTTP01, "", "a.example")
	address := r.http.address()
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			s, err := r.Open(t.Context(), renew.HTTP01, "", []string{"b.example"})
			if err != nil {
				t.Error(err)
				return
			}
			c := answerTo(renew.HTTP01, "b.example", fmt.Sprint("token-number-", n))
			if err := s.Present(t.Context(), []renew.Challenge{c}); err != nil {
				t.Error(err)
			}
			res, err := client.Get("http://" + address + challengePath + c.Token)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if body, _ := io.ReadAll(res.Body); string(body) != c.KeyAuthorization {
				t.Errorf("%d: %q", n, body)
			}
			if s.Validators() != 1 {
				t.Errorf("%d: %d validators", n, s.Validators())
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if first.Validators() != 0 {
		t.Errorf("the first session heard %d validators of others", first.Validators())
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	l.Close()
	second := open(t, r, renew.HTTP01, "", "a.example") // bound anew
	present(t, second, answerTo(renew.HTTP01, "a.example", "token-of-a"))
	if status, _ := fetch(t, "GET", "http://"+r.http.address()+challengePath+"token-of-a", ""); status != 200 {
		t.Errorf("the second time: %d", status)
	}
}

// TestSameTokenTwice: a CA gives parallel orders of one name the same
// authorization, so both sessions answer for the token until both are closed.
func TestSameTokenTwice(t *testing.T) {
	r := New(0, 0)
	first, second := open(t, r, renew.HTTP01, "", "a.example"), open(t, r, renew.HTTP01, "", "a.example")
	c := answerTo(renew.HTTP01, "a.example", "token-of-a")
	present(t, first, c)
	present(t, second, c)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _ := fetch(t, "GET", "http://"+r.http.address()+challengePath+c.Token, ""); status != 200 {
		t.Errorf("the second session's answer is gone: %d", status)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	number := l.Addr().(*net.TCPAddr).Port
	r := New(number, number)
	for kind, setting := range map[string]string{renew.HTTP01: "http_port", renew.TLSALPN01: "tls_port"} {
		_, err := r.Open(t.Context(), kind, "", []string{"a.example"})
		o, ok := errors.AsType[*Obstacle](err)
		if !ok || !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%s: %v", kind, err)
		}
		want := fmt.Sprintf("Port %d is taken by ", number)
		if runtime.GOOS == "linux" {
			name := filepath.Base(os.Args[0])
			want += fmt.Sprintf("%q (process %d)", name[:min(len(name), 15)], os.Getpid()) // TASK_COMM_LEN
		}
		if !strings.HasPrefix(o.Sentence, want) || !strings.Contains(o.Advice, setting) {
			t.Errorf("%s: %v, want %s", kind, o, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, r, renew.HTTP01, "", "a.example") // no trace of the failure
}

func TestPortForbidden(t *testing.T) {
	p := &port{number: 80, setting: "http_port", what: "answers"}
	err := p.obstacle(&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	if o, ok := errors.AsType[*Obstacle](err); !ok || !strings.Contains(o.Sentence, "no permission to open port 80") || !strings.Contains(o.Advice, "CAP_NET_BIND_SERVICE") {
		t.Errorf("%v", err)
	}
	err = p.obstacle(&net.OpError{Op: "listen", Err: os.NewSyscallError("socket", syscall.EMFILE)})
	if !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("%v", err)
	}
}

func TestWebroot(t *testing.T) {
	root := t.TempDir()
	r := New(0, 0)
	s := open(t, r, renew.HTTP01, root, "a.example")
	token := filepath.Join(root, ".well-known", "acme-challenge", "token-of-a")
	// A link at the answer's place is replaced, not followed.
	victim := filepath.Join(root, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, token); err != nil {
		t.Fatal(err)
	}
	present(t, s, answerTo(renew.HTTP01, "a.example", "token-of-a"))
	body, err := os.ReadFile(token)
	if err != nil || string(body) != "token-of-a."+thumbprint {
		t.Errorf("the file has %q, %v", body, err)
	}
	if body, _ := os.ReadFile(victim); string(body) != "mine" {
		t.Errorf("the link was followed: %q", body)
	}
	for path, want := range map[string]os.FileMode{token: 0o644, filepath.Dir(token): os.ModeDir | 0o755, filepath.Dir(filepath.Dir(token)): os.ModeDir | 0o755} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if s.Validators() != -1 {
		t.Errorf("%d validators at another web server", s.Validators())
	}
	other := open(t, r, renew.HTTP01, root, "b.example")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	present(t, other, answerTo(renew.HTTP01, "b.example", "token-of-b")) // the folders are made again
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if left := entries(t, root); !slices.Equal(left, []string{"victim"}) {
		t.Errorf("left behind: %q", left)
	}
}

// entries are all files and folders below root.
func entries(t *testing.T, root string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if path != root {
			found = append(found, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWebrootKeepsWhatIsNotOurs(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, ".well-known", "acme-challenge")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, New(0, 0), renew.HTTP01, root, "a.example")
	present(t, s, answerTo(renew.HTTP01, "a.example", "token-of-a"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left := entries(t, root); !slices.Equal(left, []string{".well-known", ".well-known/acme-challenge"}) {
		t.Errorf("left: %q", left)
	}
}

func TestWebrootObstacles(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(root, "blocked")
	if err := os.Mkdir(blocked, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blocked, ".well-known"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	readOnly := filepath.Join(root, "read-only")
	if err := os.Mkdir(readOnly, 0o555); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		filepath.Join(root, "missing"): "does not exist",
		file:                           "is not a folder",
		blocked:                        "cannot write to .well-known/acme-challenge/ below the webroot",
	}
	if os.Geteuid() != 0 { // root may write anywhere
		tests[readOnly] = "permission denied"
	}
	for webroot, want := range tests {
		_, err := New(0, 0).Open(t.Context(), renew.HTTP01, webroot, []string{"a.example"})
		if o, ok := errors.AsType[*Obstacle](err); !ok || !strings.Contains(o.Sentence, want) || o.Advice == "" {
			t.Errorf("%s: %v", webroot, err)
		}
	}
}

// A webroot that systemd keeps read-only, as one that was made after the service was
// started, is no full disk.
func TestReadOnlyWebroot(t *testing.T) {
	err := unwritable("/var/www/html", &fs.PathError{Op: "mkdir", Path: "/var/www/html/.well-known", Err: syscall.EROFS})
	said := renew.Explain(&renew.Fault{Problems: []renew.Problem{{Step: renew.StepPresent, Detail: err.Error()}}})
	for _, text := range []string{err.Error(), said.Sentence + " " + said.Advice} {
		if !strings.Contains(text, "/var/www/html") || !strings.Contains(text, "ReadWritePaths=") || strings.Contains(text, "20 MB") {
			t.Errorf("said is %q", text)
		}
	}
}

// TestPresentIsNotTrusting: the worker talks to strangers; what it says must
// not lead a file or a certificate astray.
func TestPresentIsNotTrusting(t *testing.T) {
	root := t.TempDir()
	r := New(0, 0)
	sessions := map[string]*Session{
		"webroot": open(t, r, renew.HTTP01, root, "a.example"),
		"port":    open(t, r, renew.HTTP01, "", "a.example"),
		"tls":     open(t, r, renew.TLSALPN01, "", "a.example"),
		"dns":     open(t, r, renew.DNS01, "", "a.example"),
	}
	good := answerTo(renew.HTTP01, "a.example", "token-of-a")
	change := func(f func(*renew.Challenge)) renew.Challenge { c := good; f(&c); return c }
	bad := []renew.Challenge{
		answerTo(renew.HTTP01, "a.example", "../../victim"),
		answerTo(renew.HTTP01, "a.example", "..%2f..%2fvictim"),
		answerTo(renew.HTTP01, "a.example", "/etc/passwd"),
		answerTo(renew.HTTP01, "a.example", "token\x00of-a"),
		answerTo(renew.HTTP01, "a.example", "token-of-a\n"),
		answerTo(renew.HTTP01, "a.example", "........"),
		answerTo(renew.HTTP01, "a.example", strings.Repeat("x", 257)),
		answerTo(renew.HTTP01, "a.example", "xxxxxxx"),
		answerTo(renew.HTTP01, "a.example", ""),
		answerTo(renew.HTTP01, "somebody.else", "token-of-a"),
		answerTo(renew.DNS01, "a.example", "token-of-a"),
		change(func(c *renew.Challenge) { c.KeyAuthorization = "<script>" }),
		change(func(c *renew.Challenge) { c.KeyAuthorization = "another." + thumbprint }),
		change(func(c *renew.Challenge) { c.KeyAuthorization += "\n" }),
	}
	for name, s := range sessions {
		for _, c := range bad {
			if name == "tls" && c.Type == renew.HTTP01 {
				c.Type = renew.TLSALPN01
			}
			if err := s.Present(t.Context(), []renew.Challenge{c}); err == nil {
				t.Errorf("%s: presented %+v", name, c)
			}
		}
		// One that is not good spoils all.
		if err := s.Present(t.Context(), []renew.Challenge{good, bad[0]}); err == nil {
			t.Errorf("%s: presented half", name)
		}
	}
	if left := entries(t, root); !slices.Equal(left, []string{".well-known", ".well-known/acme-challenge"}) {
		t.Errorf("files: %q", left)
	}
	if status, _ := fetch(t, "GET", "http://"+r.http.address()+challengePath+good.Token, ""); status != 404 {
		t.Errorf("half of what was refused is served: %d", status)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := New(0, 0).Open(t.Context(), "dns-persist-01", "", nil); err == nil {
		t.Error("opened for a challenge of the future")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(0, 0).Open(ctx, renew.HTTP01, "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("opened after the end: %v", err)
	}
}

// TestBehindNginx: the way in which most people use a webroot.
func TestBehindNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx = "/usr/sbin/nginx"; exec.Command(nginx, "-v").Run() != nil {
			t.Skip("nginx is not installed")
		}
	}
	// nginx's workers have another user when root starts it.
	dir, err := os.MkdirTemp("/tmp", "certsitter-nginx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root := filepath.Join(dir, "www")
	for _, d := range []string{dir, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	address := startNginx(t, nginx, dir, root)
	old := syscall.Umask(0o077) // the web server is to read the answers even so
	defer syscall.Umask(old)
	s := open(t, New(0, 0), renew.HTTP01, root, "a.example")
	c := answerTo(renew.HTTP01, "a.example", "token-of-a")
	present(t, s, c)
	if status, body := fetch(t, "GET", "http://"+address+challengePath+c.Token, "a.example"); status != 200 || body != c.KeyAuthorization {
		t.Errorf("nginx says %d %q", status, body)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if status, _ := fetch(t, "GET", "http://"+address+challengePath+c.Token, "a.example"); status != 404 {
		t.Errorf("after the session nginx says %d", status)
	}
}

// startNginx starts one that serves root, on a port that was free a moment ago.
func startNginx(t *testing.T, nginx, dir, root string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s; root %[3]s; }
}`, dir, address, root)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", conf)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = limit
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return address
		}
		if time.Now().After(end) {
			t.Fatalf("nginx does not come up: %v", err)
		}
	}
}

func TestServerName(t *testing.T) {
	for name, want := range map[string]string{
		"A.Example.":       "a.example",
		"192.0.2.1":        "1.2.0.192.in-addr.arpa",
		"::ffff:192.0.2.1": "1.2.0.192.in-addr.arpa",
		"2001:db8::ab":     "b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := serverName(name); got != want {
			t.Errorf("serverName(%s) = %s", name, got)
		}
	}
}

// FuzzToken: no token that is let through can be more than a file's name.
func FuzzToken(f *testing.F) {
	for _, seed := range []string{"token-of-a", "../../etc/passwd", "..", "a/b", "a\\b", "tok\x00en-of", "ünicode-token"} {
		f.Add(seed, "a.example")
	}
	s := &Session{kind: renew.HTTP01, names: []string{"a.example"}}
	f.Fuzz(func(t *testing.T, token, name string) {
		if s.fits(answerTo(renew.HTTP01, name, token)) != nil {
			return
		}
		if filepath.Base(token) != token || strings.HasPrefix(token, ".") || !filepath.IsLocal(token) || canonical(name) != "a.example" {
			t.Errorf("token %q for %q was let through", token, name)
		}
	})
}

// FuzzAnswerCertificate: whatever the name, there is an answer for it or none.
func FuzzAnswerCertificate(f *testing.F) {
	f.Add("a.example")
	f.Add("192.0.2.1")
	f.Add("2001:db8::1")
	f.Add("fe80::1%eth0")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, name string) {
		made, err := answerCertificate(name, "token."+thumbprint)
		if err != nil {
			return
		}
		cert, err := x509.ParseCertificate(made.Certificate[0])
		if err != nil {
			return // a name that no certificate can have
		}
		if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" && !slices.ContainsFunc(cert.IPAddresses, func(ip net.IP) bool { return ip.Equal(net.IP(a.AsSlice())) }) {
			t.Errorf("%s is not in %v", name, cert.IPAddresses)
		}
	})
}
