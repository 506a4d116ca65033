// Command bound does the least that a job of Certsitter can cost, with the
// standard library and nothing else, in a process of its own. The bench runs it
// in turn with the real programs. It checks nothing and tells nobody anything.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bound:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: bound files FOLDER | handshakes ADDRESS… | classical ADDRESS… | retain BROKER | idle")
	}
	switch args[0] {
	case "files":
		return readFiles(args[1])
	case "handshakes":
		return shakeHands(args[1:], nil)
	case "classical": // without the post-quantum key exchange
		return shakeHands(args[1:], []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521})
	case "retain":
		return retain(args[1])
	case "idle":
		return idle()
	}
	return fmt.Errorf("%q is nothing to do", args[0])
}

// readFiles parses every certificate in every file of a folder.
func readFiles(folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.pem"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// atATime is how many handshakes are under way at once.
const atATime = 50

// shakeHands makes a bare TLS handshake with each address.
func shakeHands(addresses []string, curves []tls.CurveID) error {
	queue := make(chan string)
	errs := make(chan error, len(addresses))
	var workers sync.WaitGroup
	for range atATime {
		workers.Go(func() {
			for address := range queue {
				errs <- shakeHand(address, curves)
			}
		})
	}
	for _, address := range addresses {
		queue <- address
	}
	close(queue)
	workers.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func shakeHand(address string, curves []tls.CurveID) error {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, CurvePreferences: curves,
	})
	if err != nil {
		return err
	}
	return conn.Close()
}

// retain connects to a broker and has one message retained: MQTT 3.1.1, §3.1
// and §3.3, QoS 1. It ends when the broker has it.
func retain(broker string) error {
	conn, err := net.DialTimeout("tcp", broker, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	connect := append([]byte{0x10, 17, 0, 4}, "MQTT\x04\x02\x00\x3c\x00\x05bound"...)
	if err := exchange(conn, connect, 4); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	publish := append([]byte{0x33, 16, 0, 11}, "bound/state\x00\x01x"...)
	if err := exchange(conn, publish, 4); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// exchange sends a packet and reads an answer of that length.
func exchange(conn net.Conn, packet []byte, answer int) error {
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, answer))
	return err
}

// idle is a daemon that does nothing: an HTTP listener, TLS linked in, and a
// timer a minute. It ends with a signal.
func idle() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-minute.C:
		case <-ctx.Done():
			err := server.Close()
			<-ended
			return err
		}
	}
}
