package challenge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxConnections bounds those that are open at a time on one port. Everybody
// on the Internet may come, and each connection ends after seconds.
const maxConnections = 256

// port is a TCP port that is bound while there are sessions.
type port struct {
	number  int
	setting string // its key in the configuration
	what    string // that it is for
	serve   func(net.Listener, *port) (stop func())

	mu       sync.Mutex // guards the rest
	sessions []*Session
	listener net.Listener
	stop     func()
}

// join adds a session and binds the port for the first one, on all addresses
// of both families.
func (p *port) join(ctx context.Context, s *Session) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) == 0 {
		// Binding does not wait for anybody; package net makes the socket of
		// both families where the system has both.
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", ":"+strconv.Itoa(p.number))
		if err != nil {
			return p.obstacle(err)
		}
		p.listener = l
		p.stop = p.serve(&bounded{Listener: l, free: make(chan struct{}, maxConnections)}, p)
	}
	p.sessions = append(p.sessions, s)
	return nil
}

// leave takes a session away and releases the port with the last one.
func (p *port) leave(s *Session) error {
	p.mu.Lock()
	rest := make([]*Session, 0, len(p.sessions))
	for _, other := range p.sessions {
		if other != s {
			rest = append(rest, other)
		}
	}
	p.sessions = rest
	if len(rest) > 0 || p.stop == nil {
		p.mu.Unlock()
		return nil
	}
	l, stop := p.listener, p.stop
	p.listener, p.stop = nil, nil
	// Released before the lock: whoever opens a session now finds the port free.
	err := l.Close()
	p.mu.Unlock()
	stop()
	return err
}

// current are the sessions of this moment; the slice is never changed.
func (p *port) current() []*Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions
}

// obstacle explains why the port cannot be bound.
func (p *port) obstacle(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &Obstacle{
			Sentence: fmt.Sprintf("Port %d is taken by %s, so %s cannot be served there.", p.number, cmp.Or(holder(p.number), "another program"), p.what),
			Advice:   p.takenAdvice(),
			Err:      err,
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &Obstacle{
			Sentence: fmt.Sprintf("Certsitter has no permission to open port %d, so %s cannot be served there.", p.number, p.what),
			Advice: fmt.Sprintf("Ports below 1024 need the right CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), "+
				"or set %s to a higher port to which the router forwards.", p.setting),
			Err: err,
		}
	}
	return &Obstacle{
		Sentence: fmt.Sprintf("Port %d cannot be opened (%s), so %s cannot be served there.", p.number, reason(err), p.what),
		Advice:   fmt.Sprintf("Set %s to a port that can be opened here.", p.setting),
		Err:      err,
	}
}

func (p *port) takenAdvice() string {
	if p.setting == "http_port" {
		return "Stop that program, give the certificate the webroot that it serves, or set http_port to a free port to which the router forwards port 80."
	}
	return "Stop that program, use another challenge, or set tls_port to a free port to which the router forwards port 443."
}

// reason is the system's own word for what went wrong.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return strings.TrimSpace(err.Error())
}

// bounded closes connections beyond the number that may be open at a time.
type bounded struct {
	net.Listener
	free chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.free <- struct{}{}:
			return &counted{Conn: c, done: sync.OnceFunc(func() { <-b.free })}, nil
		default:
			_ = c.Close()
		}
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	done func()
}

func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// remote is the address of the other side.
func remote(a string) netip.Addr {
	ap, err := netip.ParseAddrPort(a)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
