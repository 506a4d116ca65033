package worker

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// farewell is what a child gets to end by itself after its result.
	farewell = 5 * time.Second
	// draining is how long the child's output may stay open after its end:
	// everything it said is in the pipe by then, but somebody who left its
	// process group may hold the other end for ever.
	draining = time.Second
	// searchPath is the child's PATH: exec's script may call programs.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// home is the child's HOME: nothing of the daemon's user (~/.aws, ~/.oci)
	// is taken for a credential.
	home = "/nonexistent"
)

// inherited are the variables of the daemon that a child gets, if they are set.
var inherited = []string{
	"TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// environment is the whole environment of a child. It is never nil, which
// would mean everything that we have.
func environment(lookup func(string) (string, bool), more []string) []string {
	env := []string{"PATH=" + searchPath, "HOME=" + home}
	for _, name := range inherited {
		if value, ok := lookup(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, more...)
}

// process is a running child with a process group of its own.
type process struct {
	in          *os.File // the child's standard input
	out, errors *os.File // and outputs
	cmd         *exec.Cmd
	exited      chan struct{} // closed when the child has ended and its group was killed

	mu     sync.Mutex // guards reaped: no signal may be sent to a number that is somebody else's by now
	reaped bool
}

// start runs the command. Its output is read from files, not by package exec,
// because a descendant that holds them must not make us wait.
func start(cmd *exec.Cmd) (_ *process, err error) {
	var theirs [3]*os.File
	p := &process{cmd: cmd, exited: make(chan struct{})}
	defer func() {
		closeAll(theirs[:]...)
		if err != nil {
			closeAll(p.in, p.out, p.errors)
		}
	}()
	if theirs[0], p.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.out, theirs[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.errors, theirs[2], err = os.Pipe(); err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go p.reap()
	return p, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing of ours is in it
		}
	}
}

// reap waits for the child's end, kills what is left of its group and closes
// its outputs when they had time to be read.
func (p *process) reap() {
	awaitEnd(p.cmd)
	p.mu.Lock()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait() // the state is what counts
	p.reaped = true
	p.mu.Unlock()
	deadline := time.Now().Add(draining)
	_ = p.out.SetReadDeadline(deadline)
	_ = p.errors.SetReadDeadline(deadline)
	close(p.exited)
}

// signal sends sig to the child and everything that it started.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// end waits for the child's end, for no longer than limit.
func (p *process) end(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
		p.signal(syscall.SIGKILL)
		<-p.exited
	}
}

// stopWhen ends the child, politely first, when done is closed; it returns when
// the child has ended. Only then does patience know how long it may take.
func (p *process) stopWhen(done <-chan struct{}, patience func() time.Duration) {
	select {
	case <-p.exited:
	case <-done:
		p.signal(syscall.SIGTERM)
		p.end(patience())
	}
}

// attributes puts the child into a process group of its own and makes it the
// named user, if we are root and there is such a user.
func attributes(name string) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if name == "" || os.Geteuid() != 0 {
		return attr
	}
	u, err := user.Lookup(name)
	if err != nil {
		return attr
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if errUID == nil && errGID == nil {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// noSwitch tells that a program could not be started because the system does
// not let us become another user: a container without the right to, or a user
// namespace that does not know the user.
func noSwitch(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)
}
