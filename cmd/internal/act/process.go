package act

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// searchPath is the PATH of everything that is started here.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// grace is between SIGTERM and SIGKILL after a deadline.
	grace = 5 * time.Second
	// haste is the same when the daemon itself ends: the service manager that
	// stops it does not wait for long.
	haste = 2 * time.Second
	// dying is how long a killed process may take to be gone. One that hangs in
	// the kernel, at a network drive for instance, is not waited for.
	dying = 2 * time.Second
	// draining is how long the output may stay open after the end: everything
	// that was said is in the pipe by then, but a grandchild may hold the other
	// end for ever.
	draining = time.Second
)

// A program is one to start.
type program struct {
	path        string
	arguments   []string
	environment []string // all of it
}

// An outcome is how a program ended.
type outcome struct {
	output tail
	cut    error          // why it was ended; nil = it ended by itself
	code   int            // exit status; -1 if a signal ended it
	signal syscall.Signal // that ended it
}

func (o outcome) good() bool { return o.cut == nil && o.code == 0 }

// run starts the program in a process group of its own, in the folder /, with
// nothing on standard input, and returns when it has ended. When ctx ends, the
// whole group is ended. What a program that ended by itself leaves running
// behind it is left alone. The error is why it did not start.
func (p program) run(ctx context.Context) (outcome, error) {
	if ctx.Err() != nil {
		return outcome{}, context.Cause(ctx)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return outcome{}, err
	}
	cmd := exec.Command(p.path, p.arguments...)
	cmd.Dir, cmd.Env = "/", append([]string{}, p.environment...) // never nil, which would mean all of ours
	cmd.Stdout, cmd.Stderr = out, out                            // a file: package exec waits for no grandchild
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	_ = out.Close() // the child has its own
	if err != nil {
		_ = in.Close()
		return outcome{}, bare(err)
	}
	var o outcome
	read := make(chan struct{})
	go func() {
		defer close(read)
		o.output.readFrom(in)
	}()
	cut := await(ctx, cmd)
	_ = in.SetReadDeadline(time.Now().Add(draining))
	<-read
	_ = in.Close()
	o.cut, o.code = cut, -1
	if state := cmd.ProcessState; cut == nil && state != nil {
		o.code = state.ExitCode()
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			o.signal = status.Signal()
		}
	}
	return o, nil
}

// await waits for the end of cmd, which it brings about when ctx ends. It then
// returns ctx's cause.
func await(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitEnd(cmd)
	}()
	select {
	case <-ended:
		_ = cmd.Wait() // the state is what counts
		return nil
	case <-ctx.Done():
	}
	// The child is not reaped before the last signal: its number is nobody
	// else's until then.
	group, patience := -cmd.Process.Pid, grace
	if errors.Is(ctx.Err(), context.Canceled) {
		patience = haste
	}
	_ = syscall.Kill(group, syscall.SIGTERM)
	gone := within(patience, ended)
	_ = syscall.Kill(group, syscall.SIGKILL) // the rest of the group, too
	if gone || within(dying, ended) {
		_ = cmd.Wait()
		return context.Cause(ctx)
	}
	go func() { // nobody waits for this one: its end may never come
		<-ended
		_ = cmd.Wait()
	}()
	return fmt.Errorf("%w, and it could not be ended", context.Cause(ctx))
}

func within(limit time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// find is the program of that name in the fixed PATH. The daemon's own PATH says
// nothing.
func find(name string) (string, bool) {
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// bare is a system's error without the operation and the path before it.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*os.PathError](err); ok {
		return wrapped.Err
	}
	return err
}
