package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/internal/supervisor"
)

// One script for each promise to users. Programs of third parties are real: a
// test CA, a broker, a TLS server and an inbox for messages run in this process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(4 * time.Minute),
		Setup: func(e *testscript.Env) error {
			port, err := pebble.FreePort()
			if err != nil {
				return err
			}
			e.Setenv("LISTEN", fmt.Sprintf("127.0.0.1:%d", port))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("TZ", "UTC")
			e.Values[standKey{}] = &stand{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill": fill, "exits": exits, "await": await, "signal": sendSignal, "json": validJSON,
			"ca": startCA, "orders": orders, "revoked": revoked,
			"broker": startBroker, "retained": retained, "topics": topics, "publish": publish,
			"inbox": startInbox, "received": received,
			"certificate": certificate, "serve": serve, "same": same, "lock": lock,
			"secretless": secretless,
			"supervisor": startSupervisor, "options": options, "ports": ports, "shown": shown,
		},
	})
}

// A stand is what stands around one script's certsitter.
type stand struct {
	ca     *pebble.CA
	broker *broker.Broker
	inbox  inbox
	// As an app:
	supervisor *supervisor.Supervisor
	core       *supervisor.Core
}

type standKey struct{}

func standOf(ts *testscript.TestScript) *stand { return ts.Value(standKey{}).(*stand) }

// waitLimit bounds every wait of a script. Nothing waits for it unless it fails.
const waitLimit = 40 * time.Second

// eventually tries until done, or fails with what is missing.
func eventually(ts *testscript.TestScript, what string, done func() bool) {
	for deadline := time.Now().Add(waitLimit); !done(); {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: not within %v", what, waitLimit)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// fill FILE…: variables are put into files.
func fill(ts *testscript.TestScript, _ bool, files []string) {
	for _, f := range files {
		text := os.Expand(ts.ReadFile(f), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(f), []byte(text), 0o600))
	}
}

// exits CODE PROGRAM ARGUMENT…: the program ends with exactly that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := codeOfError(ts, ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func codeOfError(ts *testscript.TestScript, err error) int {
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return failed.ExitCode()
	}
	ts.Check(err)
	return 0
}

// await PATTERN PROGRAM ARGUMENT…: the program's output matches, sooner or later.
func await(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	eventually(ts, "await "+args[0], func() bool {
		_ = ts.Exec(args[1], args[2:]...)
		return pattern.MatchString(ts.ReadFile("stdout")) || pattern.MatchString(ts.ReadFile("stderr"))
	})
}

// signal NAME: all background programs get a signal.
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	number := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[0]]
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(number))
	}
}

// json FILE [PATTERN]: the file is one JSON document, and it matches, without
// its white space.
func validJSON(ts *testscript.TestScript, neg bool, args []string) {
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	var document json.RawMessage
	ts.Check(decoder.Decode(&document))
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("%s holds more than one document", args[0])
	}
	if len(args) < 2 {
		return
	}
	var plain bytes.Buffer
	ts.Check(json.Compact(&plain, document))
	if found := regexp.MustCompile(args[1]).Match(plain.Bytes()); found == neg {
		ts.Fatalf("%s (found: %v) in %s", args[1], found, plain.Bytes())
	}
}

// ca: a test CA. Its directory is in $CA, the port that it asks in
// $HTTP_PORT, its roots in the file roots.pem.
func startCA(ts *testscript.TestScript, _ bool, _ []string) {
	ca, err := pebble.Start(pebble.Options{})
	ts.Check(err)
	ts.Defer(ca.Close)
	standOf(ts).ca = ca
	provider := httptest.NewServer(ca.DNS.Provider())
	ts.Defer(provider.Close)
	ts.Setenv("CA", ca.Directory())
	ts.Setenv("DNS", ca.DNS.Address())
	ts.Setenv("DNS_PROVIDER", provider.URL)
	ts.Setenv("HTTP_PORT", strconv.Itoa(ca.HTTPPort()))
	ts.Check(os.WriteFile(ts.MkAbs("roots.pem"), append(ca.Roots(), ca.IssuerRoots()...), 0o600))
}

// orders COUNT [NAME…]: how many orders the CA has accepted.
func orders(ts *testscript.TestScript, _ bool, args []string) {
	if got := standOf(ts).ca.Orders(args[1:]...); strconv.Itoa(got) != args[0] {
		ts.Fatalf("the CA accepted %d orders, want %s", got, args[0])
	}
}

// revoked FILE: the CA holds the certificate in it for revoked.
func revoked(ts *testscript.TestScript, neg bool, args []string) {
	got, err := standOf(ts).ca.Revoked([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	if got == neg {
		ts.Fatalf("revoked: %v", got)
	}
}

// broker: an MQTT broker; its URL is in $BROKER.
func startBroker(ts *testscript.TestScript, _ bool, _ []string) {
	b, err := broker.Start("127.0.0.1:0")
	ts.Check(err)
	ts.Defer(b.Close)
	standOf(ts).broker = b
	ts.Setenv("BROKER", b.URL())
}

// retained TOPIC PATTERN: the broker keeps such a message, sooner or later;
// ! retained TOPIC: none any more.
func retained(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		eventually(ts, "nothing on "+args[0], func() bool {
			_, there := standOf(ts).broker.Retained(args[0])
			return !there
		})
		return
	}
	pattern := regexp.MustCompile(args[1])
	eventually(ts, args[0]+" "+args[1], func() bool {
		payload, there := standOf(ts).broker.Retained(args[0])
		return there && pattern.MatchString(payload)
	})
}

// topics PATTERN: there is a retained topic like this, sooner or later; !
// topics: none any more.
func topics(ts *testscript.TestScript, neg bool, args []string) {
	like := regexp.MustCompile(args[0])
	eventually(ts, fmt.Sprintf("topics like %s: %v", args[0], !neg), func() bool {
		return slices.ContainsFunc(standOf(ts).broker.Topics(), like.MatchString) != neg
	})
}

// publish TOPIC PAYLOAD: somebody else's retained message.
func publish(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(standOf(ts).broker.Publish(args[0], []byte(args[1]), true))
}

// supervisor: we are a Home Assistant app, whose container's root is $WORK.
func startSupervisor(ts *testscript.TestScript, _ bool, _ []string) {
	stand := standOf(ts)
	stand.core = &supervisor.Core{}
	setup := supervisor.Setup{Slug: "a0d7b954_certsitter", Core: stand.core, Ports: map[string]int{"80/tcp": 0, "443/tcp": 0}}
	if stand.broker != nil {
		host, digits, err := net.SplitHostPort(stand.broker.Address())
		ts.Check(err)
		port, err := strconv.Atoi(digits)
		ts.Check(err)
		setup.Broker = &supervisor.Broker{Host: host, Port: port}
	}
	s, err := supervisor.Start("127.0.0.1:0", setup)
	ts.Check(err)
	ts.Defer(s.Close)
	stand.supervisor = s
	for key, value := range map[string]string{
		"SUPERVISOR_TOKEN": supervisor.Token, "SUPERVISOR_API": s.URL(), "CERTSITTER_IMAGE": "1", "CERTSITTER_ROOT": ts.Getenv("WORK"),
	} {
		ts.Setenv(key, value)
	}
}

// options FILE: the app's options, with variables, which are in force at its next
// start.
func options(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.MkdirAll(ts.MkAbs("data"), 0o700))
	ts.Check(os.WriteFile(ts.MkAbs("data/options.json"), []byte(text), 0o600))
	standOf(ts).supervisor.Set(func(s *supervisor.Setup) { s.Options = json.RawMessage(text) })
}

// ports [PORT…]: these ports of the app are on, no others.
func ports(ts *testscript.TestScript, _ bool, args []string) {
	on := map[string]int{"80/tcp": 0, "443/tcp": 0}
	for i, port := range args {
		on[port] = 50000 + i
	}
	standOf(ts).supervisor.Set(func(s *supervisor.Setup) { s.Ports = on })
}

// shown ID PATTERN: Home Assistant shows such a notification, sooner or later; !
// shown ID: none any more.
func shown(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, fmt.Sprintf("shown %v: %v", args, !neg), func() bool {
		n, there := standOf(ts).core.Notifications()[args[0]]
		if neg || !there {
			return neg && !there
		}
		return regexp.MustCompile(args[1]).MatchString(n.Title + "\n" + n.Message)
	})
}

// An inbox takes messages over HTTP.
type inbox struct {
	mu    sync.Mutex
	texts []string
}

// inbox STATUS: a server that takes messages or not; its host:port is in $INBOX.
func startInbox(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	in := &standOf(ts).inbox
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		in.mu.Lock()
		in.texts = append(in.texts, string(text))
		in.mu.Unlock()
		w.WriteHeader(status)
	}))
	ts.Defer(server.Close)
	ts.Setenv("INBOX", server.Listener.Addr().String())
}

// received COUNT PATTERN: so many messages like this have come, sooner or later.
func received(ts *testscript.TestScript, _ bool, args []string) {
	in, like := &standOf(ts).inbox, regexp.MustCompile(args[1])
	eventually(ts, args[0]+" messages like "+args[1], func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		count := 0
		for _, text := range in.texts {
			if like.MatchString(text) {
				count++
			}
		}
		return strconv.Itoa(count) == args[0]
	})
	ts.Logf("%q", in.all())
}

func (in *inbox) all() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.texts)
}

// certificate DAYS NAME CERTFILE [KEYFILE]: a self-signed certificate with so
// many days left of 90, and half a day, so that the number holds for a while.
func certificate(ts *testscript.TestScript, _ bool, args []string) {
	pair := madeCertificate(ts, args[0], args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), certificatePEM(pair), 0o600))
	if len(args) > 3 {
		der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
}

func madeCertificate(ts *testscript.TestScript, days, name string) tls.Certificate {
	n, err := strconv.Atoi(days)
	ts.Check(err)
	pair, err := selfSigned(n, name)
	ts.Check(err)
	return pair
}

func selfSigned(days int, name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	end := time.Now().Add(time.Duration(days)*24*time.Hour + 12*time.Hour)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: end.AddDate(0, 0, -90), NotAfter: end, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func certificatePEM(pair tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
}

// serve DAYS NAME VARIABLE: a TLS server with such a certificate; its host:port
// is in the variable, its certificate in the file VARIABLE.pem.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	pair := madeCertificate(ts, args[0], args[1])
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	ts.Check(err)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				_ = conn.SetDeadline(time.Now().Add(waitLimit))
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			})
		}
	})
	ts.Defer(func() { _ = listener.Close(); served.Wait() })
	ts.Setenv(args[2], listener.Addr().String())
	ts.Check(os.WriteFile(ts.MkAbs(args[2]+".pem"), certificatePEM(pair), 0o600))
}

// same CERTFILE KEYFILE: the two belong together; ! same FILE FILE: the files
// differ.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if ts.ReadFile(args[0]) == ts.ReadFile(args[1]) {
			ts.Fatalf("%s and %s hold the same", args[0], args[1])
		}
		return
	}
	_, err := tls.LoadX509KeyPair(ts.MkAbs(args[0]), ts.MkAbs(args[1]))
	ts.Check(err)
}

// lock FILE: somebody else holds the lock of a state folder until the script's end.
func lock(ts *testscript.TestScript, _ bool, args []string) {
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Check(syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	ts.Defer(func() { _ = file.Close() })
}

// secretless SECRET FILE|FOLDER…: the secret is nowhere in them, in no form.
func secretless(ts *testscript.TestScript, _ bool, args []string) {
	for _, path := range args[1:] {
		if path == "stdout" || path == "stderr" {
			if form := leaks([]byte(ts.ReadFile(path)), args[0]); form != "" {
				ts.Fatalf("%s holds the secret as %s", path, form)
			}
			continue
		}
		ts.Check(filepath.WalkDir(ts.MkAbs(path), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if form := leaks(text, args[0]); form != "" {
				return fmt.Errorf("%s holds the secret as %s", path, form)
			}
			return err
		}))
	}
}
