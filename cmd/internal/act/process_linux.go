package act

import (
	"errors"
	"os/exec"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when the process has ended and leaves it unreaped, so that its
// number still names its group (waitid(2), WNOWAIT).
func awaitEnd(cmd *exec.Cmd) {
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}
