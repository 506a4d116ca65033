package homeassistant

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The addresses of the network that the Supervisor makes for its apps. In a test
// that Main runs, this machine has all of them.
const (
	CoreAddress       = "172.30.32.1" // also of all that runs in the host's network
	SupervisorAddress = "172.30.32.2"
	AppAddress        = "172.30.33.5" // of an app like us
)

// stage says which of the three processes of Main this is.
const stage = "CERTSITTER_TEST_STAGE"

// Main runs the tests of a package where they disturb nobody and where nobody
// disturbs them, if a real Home Assistant is wanted: with a network of their own,
// in which every port is free and the Supervisor's addresses are there; with
// mounts of their own; and with processes of their own, all of which end with the
// tests, however these end. It gives the exit code.
//
// Three processes: the one that go test has started waits; the first one of the
// new namespaces has their processes reaped; its child runs the tests.
func Main(m *testing.M) int {
	if !Wanted() {
		return m.Run()
	}
	var err error
	code := 1
	switch os.Getenv(stage) {
	case "":
		code, err = wait("first", &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
		})
		if errors.Is(err, syscall.EPERM) {
			err = errors.New("it needs root, and the right to make namespaces")
		}
	case "first":
		if err = furnish(); err == nil {
			code, err = wait("tests", nil)
		}
	default:
		return m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "homeassistant:", err)
		return 1
	}
	return code
}

// wait runs this program again as the next stage, and reaps all that ends until
// that does.
func wait(next string, attributes *syscall.SysProcAttr) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	signal.Ignore(syscall.SIGINT) // a terminal's goes to the tests as well
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stage+"="+next)
	cmd.SysProcAttr = attributes
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case pid == cmd.Process.Pid && status.Signaled():
			return 0, fmt.Errorf("the tests ended by %v", status.Signal())
		case pid == cmd.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// furnish makes the new namespaces habitable.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for label, address := range map[string]string{"lo": "127.0.0.1", "lo:1": CoreAddress, "lo:2": SupervisorAddress, "lo:3": AppAddress} {
		if err := raise(label, address); err != nil {
			return fmt.Errorf("give the network the address %s: %w", address, err)
		}
	}
	return nil
}

// raise gives an interface an address and puts it up.
func raise(label, address string) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq(label)
	if err != nil {
		return err
	}
	if err := request.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFADDR, request); err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}
