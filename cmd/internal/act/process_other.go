//go:build !linux

package act

import "os/exec"

// awaitEnd returns when the process has ended. It reaps it, too: other systems
// have no portable way to look without doing so.
func awaitEnd(cmd *exec.Cmd) { _ = cmd.Wait() }
