package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A part is somebody else's role, played by this program in a process of its
// own. It says in one line of JSON where it is to be found, and ends with its
// standard input.
type part struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// startPart starts a part and reads what it says into where.
func startPart(ctx context.Context, where any, args ...string) (*part, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &part{cmd, stdin}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, where)
	}
	if err != nil {
		p.end()
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return p, nil
}

func (p *part) end() {
	_ = p.stdin.Close()
	_ = p.cmd.Wait() // its exit code says nothing
}

// announce is the part's side: it says where it is to be found and waits for the
// end of standard input.
func announce(where any) error {
	line, err := json.Marshal(where)
	if err != nil {
		return err
	}
	if _, err := fmt.Println(string(line)); err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, os.Stdin); errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
