package probe_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/expiry/internal/testca"
	"github.com/certsitter/certsitter/expiry/probe"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A server is a TLS server of crypto/tls, with a dialogue before the handshake
// where there is one.
type server struct {
	address     string
	connections atomic.Int32
}

// serve starts a server that ends with the test.
func serve(t testing.TB, config *tls.Config, dialogue func(net.Conn) error) *server {
	t.Helper()
	return accept(t, func(conn net.Conn) {
		if dialogue != nil {
			if err := dialogue(conn); err != nil {
				return
			}
		}
		secure := tls.Server(conn, config)
		if secure.Handshake() == nil {
			_, _ = io.Copy(io.Discard, secure) // until the probe says good-bye
		}
	})
}

// accept answers connections until the test ends, each for ten seconds at most.
func accept(t testing.TB, answer func(net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &server{address: l.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				answer(conn)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return s
}

func target(t testing.TB, s string) probe.Target {
	t.Helper()
	parsed, err := probe.ParseTarget(s)
	check(t, err)
	return parsed
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// code is the code of a fault; "" if err is none.
func code(err error) string {
	if f, ok := errors.AsType[*probe.Fault](err); ok {
		return f.Code
	}
	return ""
}

// TestFactsSurvive: whatever is wrong with a certificate, it is read, and each
// thing that is wrong is told apart from the others.
func TestFactsSurvive(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	other := testca.Root(t, "other", noon.Add(-1000*day), noon.Add(1000*day))
	inter := root.Intermediate("inter", noon.Add(-100*day), noon.Add(500*day))
	cross := root.CrossSigned(other, noon.Add(-900*day), noon.Add(-day))
	good := inter.Leaf(noon.Add(-day), noon.Add(80*day), "ha.example.org", "*.example.net", "192.0.2.9")
	expired := inter.Leaf(noon.Add(-80*day), noon.Add(-day), "ha.example.org")
	future := inter.Leaf(noon.Add(2*time.Hour), noon.Add(90*day), "ha.example.org")
	self := testca.SelfSigned(t, noon.Add(-day), noon.Add(80*day), "ha.example.org")
	legacy := inter.Issue(&x509.Certificate{Subject: pkix.Name{CommonName: "ha.example.org"}, NotBefore: noon.Add(-day), NotAfter: noon.Add(80 * day)}, nil)
	hostile := inter.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "{{ states('x') }}\r\n<img onerror>\u202e"}, DNSNames: []string{"a\nb"}, NotBefore: noon.Add(-day), NotAfter: noon.Add(80 * day),
	}, nil)
	for _, test := range []struct {
		name   string
		leaf   *testca.Pair
		chain  []*testca.Pair
		server string // name that is asked for
		nameOK bool
		ok     bool // the chain
		days   int
	}{
		{"good", good, []*testca.Pair{inter}, "ha.example.org", true, true, 80},
		{"good by a wildcard", good, []*testca.Pair{inter}, "nas.example.net", true, true, 80},
		{"good by its address", good, []*testca.Pair{inter}, "192.0.2.9", true, true, 80},
		{"leaf only", good, nil, "ha.example.org", true, false, 80},
		{"expired", expired, []*testca.Pair{inter}, "ha.example.org", true, true, -1},
		{"expired, leaf only", expired, nil, "ha.example.org", true, false, -1},
		{"expired, wrong host", expired, []*testca.Pair{inter}, "nas.example.org", false, true, -1},
		{"future", future, []*testca.Pair{inter}, "ha.example.org", true, true, 90},
		{"wrong host", good, []*testca.Pair{inter}, "nas.example.org", false, true, 80},
		{"self-signed", self, nil, "ha.example.org", true, false, 80},
		{"extra expired cross-sign", good, []*testca.Pair{inter, cross}, "ha.example.org", true, true, 80},
		{"common name only", legacy, []*testca.Pair{inter}, "ha.example.org", false, true, 80},
		{"hostile names", hostile, []*testca.Pair{inter}, "ha.example.org", false, true, 80},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(test.name+"/"+tls.VersionName(version), func(t *testing.T) {
				s := serve(t, &tls.Config{Certificates: []tls.Certificate{test.leaf.TLS(test.chain...)}, MaxVersion: version}, nil)
				r, err := probe.Probe(t.Context(), target(t, test.server+"@"+s.address), noon, probe.Options{Roots: root.Pool()})
				check(t, err)
				if !r.Certificate.Leaf.Equal(test.leaf.Cert) || len(r.Certificate.Chain) != len(test.chain) || r.Version != version {
					t.Errorf("got %s with %d others over %x", r.Certificate.Subject(), len(r.Certificate.Chain), r.Version)
				}
				if got := r.Certificate.Days(noon); got != test.days {
					t.Errorf("%d days, want %d", got, test.days)
				}
				if (r.NameError == nil) != test.nameOK || (r.ChainError == nil) != test.ok {
					t.Errorf("name: %v; chain: %v", r.NameError, r.ChainError)
				}
				for _, err := range []error{r.NameError, r.ChainError} {
					if err != nil && strings.ContainsAny(err.Error(), "\r\n\u202e") {
						t.Errorf("%q goes out as it is", err)
					}
				}
			})
		}
	}
}

// healthy is a root and what a server needs.
func healthy(t testing.TB) (*testca.Pair, *tls.Config) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	leaf := root.Leaf(noon.Add(-day), noon.Add(80*day), "ha.example.org")
	return root, &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
}

func TestServerNameIsSent(t *testing.T) {
	root, config := healthy(t)
	asked := make(chan string, 1)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		asked <- hello.ServerName
		return nil, nil
	}
	s := serve(t, config, nil)
	_, err := probe.Probe(t.Context(), target(t, "HA.example.org.@"+s.address), noon, probe.Options{Roots: root.Pool()})
	check(t, err)
	if got := <-asked; got != "ha.example.org" {
		t.Errorf("asked for %q", got)
	}
}

// TestClientCertificateWanted: a broker that wants a certificate from its clients
// still shows its own.
func TestClientCertificateWanted(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		root, config := healthy(t)
		config.ClientAuth, config.MaxVersion = tls.RequireAnyClientCert, version
		s := serve(t, config, nil)
		r, err := probe.Probe(t.Context(), target(t, "ha.example.org@"+s.address), noon, probe.Options{Roots: root.Pool()})
		if err != nil || r.ChainError != nil || r.NameError != nil || r.Version != version {
			t.Errorf("%s: %v, %+v", tls.VersionName(version), err, r)
		}
	}
}

// TestOldDevices: what they serve is read, too.
func TestOldDevices(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	leaf := root.Issue(&x509.Certificate{DNSNames: []string{"ha.example.org"}, NotBefore: noon.Add(-day), NotAfter: noon.Add(80 * day)}, key)
	for name, config := range map[string]*tls.Config{
		"TLS 1.0":          {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"RSA key exchange": {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
		"3DES":             {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}},
	} {
		config.Certificates = []tls.Certificate{leaf.TLS()}
		s := serve(t, config, nil)
		r, err := probe.Probe(t.Context(), target(t, "ha.example.org@"+s.address), noon, probe.Options{Roots: root.Pool()})
		if err != nil || r.ChainError != nil {
			t.Errorf("%s: %v, %v", name, err, r.ChainError)
		}
	}
}

// TestCurves: leaving out the post-quantum key exchanges changes nothing that is
// seen, and a server that insists on them is asked once more.
func TestCurves(t *testing.T) {
	for _, test := range []struct {
		name        string
		curves      []tls.CurveID
		connections int32
	}{
		{"Go's defaults", nil, 1},
		{"P-384 only", []tls.CurveID{tls.CurveP384}, 1},
		{"post-quantum only", []tls.CurveID{tls.X25519MLKEM768}, 2},
	} {
		root, config := healthy(t)
		config.CurvePreferences = test.curves
		s := serve(t, config, nil)
		r, err := probe.Probe(t.Context(), target(t, "ha.example.org@"+s.address), noon, probe.Options{Roots: root.Pool()})
		if err != nil || r.ChainError != nil || s.connections.Load() != test.connections {
			t.Errorf("%s: %v over %d connections", test.name, err, s.connections.Load())
		}
	}
}

// TestSameCertificateAsOthersSee: with TLS 1.2 a server chooses between its
// certificates by the curves that are offered.
func TestSameCertificateAsOthersSee(t *testing.T) {
	root := testca.Root(t, "root", noon.Add(-1000*day), noon.Add(1000*day))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	ec := root.Leaf(noon.Add(-day), noon.Add(80*day), "ha.example.org")
	twin := root.Issue(&x509.Certificate{DNSNames: []string{"ha.example.org"}, NotBefore: noon.Add(-day), NotAfter: noon.Add(80 * day)}, key)
	s := serve(t, &tls.Config{Certificates: []tls.Certificate{ec.TLS(), twin.TLS()}, MaxVersion: tls.VersionTLS12}, nil)

	r, err := probe.Probe(t.Context(), target(t, "ha.example.org@"+s.address), noon, probe.Options{Roots: root.Pool()})
	check(t, err)
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: "ha.example.org", RootCAs: root.Pool(), Time: func() time.Time { return noon }}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.address)
	check(t, err)
	defer conn.Close()
	others := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if !r.Certificate.Leaf.Equal(others) {
		t.Errorf("we see %s, others see %s", r.Certificate.KeyType(), (&expiry.Certificate{Leaf: others}).KeyType())
	}
}

// TestFaults: each way in which there is no certificate has its code and its
// sentence.
func TestFaults(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	nobody := closed.Addr().String()
	check(t, closed.Close())
	silent := accept(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	hangsUp := accept(t, func(net.Conn) {})
	web := accept(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	_, config := healthy(t)
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }
	config.Certificates = nil
	alert := serve(t, config, nil)
	lookup := func(dns *net.DNSError) probe.Options {
		return probe.Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: dns}
		}}
	}
	for _, test := range []struct {
		name, target, code string
		o                  probe.Options
	}{
		{"nobody there", nobody, probe.CodeRefused, probe.Options{}},
		{"silent", silent.address, probe.CodeTimeout, probe.Options{Timeout: 50 * time.Millisecond}},
		{"silent mail server", "smtp://" + silent.address, probe.CodeTimeout, probe.Options{Timeout: 50 * time.Millisecond}},
		{"hangs up", hangsUp.address, probe.CodeClosed, probe.Options{}},
		{"mail server hangs up", "smtp://" + hangsUp.address, probe.CodeClosed, probe.Options{}},
		{"no TLS", web.address, probe.CodeTLS, probe.Options{}},
		{"alert", alert.address, probe.CodeTLS, probe.Options{}},
		{"unknown name", "nas.invalid:443", probe.CodeDNS, lookup(&net.DNSError{IsNotFound: true})},
		{"no name server", "nas.invalid:443", probe.CodeDNS, lookup(&net.DNSError{IsTimeout: true})},
	} {
		_, err := probe.Probe(t.Context(), target(t, test.target), noon, test.o)
		if code(err) != test.code {
			t.Errorf("%s: %v (%s), want %s", test.name, err, code(err), test.code)
			continue
		}
		if text := err.Error(); !strings.HasSuffix(text, ".") || strings.Contains(text, "\n") {
			t.Errorf("%s: no sentence: %q", test.name, text)
		}
		t.Log(err)
	}
}

// TestContextEndsIt at each stage: before, while connecting, in the dialogue and
// in the handshake. Being stopped is no fault of the other side.
func TestContextEndsIt(t *testing.T) {
	stopped := errors.New("stopped")
	for _, scheme := range []string{"", "smtp://", "imap://", "pop3://", "ftp://", "ldap://", "postgres://"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		s := accept(t, func(conn net.Conn) {
			cancel(stopped)
			_, _ = io.Copy(io.Discard, conn)
		})
		if _, err := probe.Probe(ctx, target(t, scheme+s.address), noon, probe.Options{}); !errors.Is(err, stopped) {
			t.Errorf("%s: %v", scheme, err)
		}
		if _, err := probe.Probe(ctx, target(t, scheme+s.address), noon, probe.Options{}); !errors.Is(err, stopped) {
			t.Errorf("%s, stopped before: %v", scheme, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	hang := probe.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	if _, err := probe.Probe(ctx, target(t, "nas.local:443"), noon, hang); !errors.Is(err, context.DeadlineExceeded) || code(err) != "" {
		t.Errorf("the caller's deadline: %v", err)
	}
}

// TestDeadlineCoversEverything: a server that sends a byte now and then does not
// keep a probe alive.
func TestDeadlineCoversEverything(t *testing.T) {
	drip := accept(t, func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, "2"); err != nil {
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	_, err := probe.Probe(t.Context(), target(t, "smtp://"+drip.address), noon, probe.Options{Timeout: 100 * time.Millisecond})
	if code(err) != probe.CodeTimeout {
		t.Error(err)
	}
}
