package probe_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry/internal/testca"
	"github.com/certsitter/certsitter/expiry/probe"
)

// The benchmarks stand beside the least that their work can cost: Bound does it
// with the standard library and nothing else. What counts is CPU time: ns of it
// per file or probe, in cpu-ns/op. The server runs in a process of its own, so its
// share is not counted.

// serverRole makes the test binary a TLS server: the value is its latency in each
// handshake.
const serverRole = "PROBE_BENCHMARK_SERVER"

func TestMain(m *testing.M) {
	if latency, ok := os.LookupEnv(serverRole); ok {
		playServer(latency)
	}
	os.Exit(m.Run())
}

// playServer serves a leaf and its intermediate, and prints address and root. It
// ends with its standard input.
func playServer(latency string) {
	wait, err := time.ParseDuration(latency)
	if err != nil {
		panic(err)
	}
	t := &testing.T{} // only for errors of crypto/rand, which do not come
	now := time.Now()
	root := testca.Root(t, "root", now.Add(-day), now.Add(1000*day))
	inter := root.Intermediate("inter", now.Add(-day), now.Add(500*day))
	leaf := inter.Leaf(now.Add(-day), now.Add(89*day), "home.example.org")
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(inter)}}
	if wait > 0 {
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			time.Sleep(wait) // the latency that is asked for
			return nil, nil
		}
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n%s\n", l.Addr(), root.PEM())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() { _, _ = io.Copy(io.Discard, conn); conn.Close() }()
	}
}

func startServer(b *testing.B, latency time.Duration) (address string, roots *x509.CertPool) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), serverRole+"="+latency.String())
	stdin, err := cmd.StdinPipe()
	check(b, err)
	stdout, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	b.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	r := bufio.NewReader(stdout)
	address, err = r.ReadString('\n')
	check(b, err)
	roots = x509.NewCertPool()
	var text strings.Builder
	for !strings.Contains(text.String(), "-----END") {
		line, err := r.ReadString('\n')
		check(b, err)
		text.WriteString(line)
	}
	if !roots.AppendCertsFromPEM([]byte(text.String())) {
		b.Fatal("the server has no root")
	}
	return strings.TrimSpace(address), roots
}

// cpu reports the process's CPU time per operation of what f runs.
func cpu(b *testing.B, f func()) {
	before := used()
	f()
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op")
}

func used() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func benchmarkFiles(b *testing.B, read func(path string) error) {
	now := time.Now()
	root := testca.Root(b, "root", now.Add(-day), now.Add(1000*day))
	inter := root.Intermediate("inter", now.Add(-day), now.Add(500*day))
	dir := b.TempDir()
	paths := make([]string, 50)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		leaf := inter.Leaf(now.Add(-day), now.Add(89*day), fmt.Sprintf("host%d.example.org", i), "www.example.org")
		check(b, os.WriteFile(paths[i], leaf.PEM(inter), 0o600))
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu(b, func() {
		for i := 0; b.Loop(); i++ {
			if err := read(paths[i%len(paths)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadFile(b *testing.B) {
	benchmarkFiles(b, func(path string) error {
		_, err := probe.ReadFile(path, "")
		return err
	})
}

func BenchmarkReadFileBound(b *testing.B) {
	benchmarkFiles(b, func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return err
			}
		}
		return nil
	})
}

// benchmarkProbes runs look against a server, one at a time and, with a latency,
// 50 at a time.
func benchmarkProbes(b *testing.B, look func(b *testing.B, address string, roots *x509.CertPool) error) {
	b.Run("local", func(b *testing.B) {
		address, roots := startServer(b, 0)
		check(b, look(b, address, roots)) // roots are parsed on their first use
		b.ReportAllocs()
		b.ResetTimer()
		cpu(b, func() {
			for b.Loop() {
				check(b, look(b, address, roots))
			}
		})
	})
	b.Run("20ms", func(b *testing.B) {
		address, roots := startServer(b, 20*time.Millisecond)
		check(b, look(b, address, roots))
		b.SetParallelism(25) // times GOMAXPROCS
		b.ReportAllocs()
		b.ResetTimer()
		cpu(b, func() {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := look(b, address, roots); err != nil {
						b.Error(err)
					}
				}
			})
		})
	})
}

func BenchmarkProbe(b *testing.B) {
	benchmarkProbes(b, func(b *testing.B, address string, roots *x509.CertPool) error {
		target, err := probe.ParseTarget("home.example.org@" + address)
		if err != nil {
			return err
		}
		r, err := probe.Probe(b.Context(), target, time.Now(), probe.Options{Roots: roots})
		if err != nil {
			return err
		}
		return r.ChainError
	})
}

// BenchmarkProbeBound is a bare handshake with Go's defaults, unverified.
func BenchmarkProbeBound(b *testing.B) {
	benchmarkProbes(b, func(b *testing.B, address string, _ *x509.CertPool) error {
		dialer := &net.Dialer{Timeout: 10 * time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{ServerName: "home.example.org", InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
