//go:build !linux

package worker

import "os/exec"

// awaitEnd returns when the child has ended. It reaps it, too: other systems
// have no portable way to look without doing so.
func awaitEnd(cmd *exec.Cmd) { _ = cmd.Wait() }
