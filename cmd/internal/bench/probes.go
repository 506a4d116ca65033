package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// endpointCount is how many ports there are, each with a certificate of its own.
const endpointCount = 200

// latencies are how long servers wait in each handshake.
var latencies = []time.Duration{20 * time.Millisecond, 0}

// servers is where the servers are.
type servers struct {
	Addresses []string
	Root      []byte // PEM
}

// probes measures `certsitter check` on many endpoints at once beside bare
// handshakes. Both are whole processes.
func (b *bench) probes(ctx context.Context) error {
	for _, latency := range latencies {
		if err := b.probe(ctx, latency); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) probe(ctx context.Context, latency time.Duration) error {
	var at servers
	part, err := startPart(ctx, &at, asServers, latency.String())
	if err != nil {
		return err
	}
	defer part.end()
	roots := filepath.Join(b.folder, "probe-roots.pem")
	if err := os.WriteFile(roots, slices.Concat(systemRoots(os.ReadFile), at.Root), 0o600); err != nil {
		return err
	}
	env := []string{"SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + filepath.Join(b.folder, "none")}
	check := command(env, allFine(endpointCount), filepath.Join(b.programs, "certsitter"), slices.Concat([]string{"check", "--json"}, at.Addresses)...)
	what := fmt.Sprintf("endpoint of 200, %v latency: ", latency)
	for _, bound := range []struct{ role, note string }{{"handshakes", ""}, {"classical", ", bound without post-quantum too"}} {
		rounds, err := compare(ctx, b.rounds, command(nil, nil, filepath.Join(b.programs, "bound"), slices.Concat([]string{bound.role}, at.Addresses)...), check)
		if err != nil {
			return err
		}
		cpu, wall := rowOf(what+"CPU"+bound.note, rounds, endpointCount, cpuOf), rowOf(what+"wall"+bound.note, rounds, endpointCount, wallOf)
		if latency > 0 && bound.note == "" {
			cpu.goal, wall.goal = lookGoal, lookGoal
		}
		b.rows = append(b.rows, cpu, wall)
	}
	return nil
}

// playServers serves on many ports.
func playServers(args []string) error {
	latency, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	at := servers{Root: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.root.Raw})}
	for i := range endpointCount {
		leaf, err := authority.issue(day, 89*day, fmt.Sprintf("host%d.example.org", i))
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		at.Addresses = append(at.Addresses, listener.Addr().String())
		go serveTLS(listener, &tls.Config{Certificates: []tls.Certificate{leaf}, GetConfigForClient: wait(latency)})
	}
	return announce(at)
}

// wait is a server's latency, once in each handshake.
func wait(latency time.Duration) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	if latency == 0 {
		return nil
	}
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		time.Sleep(latency)
		return nil, nil
	}
}

// serveTLS shakes hands with everybody and waits for the good-bye, until the
// process ends.
func serveTLS(l net.Listener, config *tls.Config) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(io.Discard, tls.Server(conn, config))
		}()
	}
}

// pool is a set of roots.
func pool(text []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("there is no root in %d bytes", len(text))
	}
	return roots, nil
}
