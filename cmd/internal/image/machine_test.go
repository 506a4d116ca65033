package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// insideVariable tells the test program that it is in a machine of its own.
	insideVariable = "CERTSITTER_TEST_INSIDE"
	// programsVariable names the folder with the programs there.
	programsVariable = "CERTSITTER_TEST_PROGRAMS"
)

// inMachine runs the calling test again in namespaces of its own, in which it may
// mount, open any port and let processes lose, and reports its result. It says
// true there, after the network has come up.
//
// Whatever is left over ends with the test: it is process 1 there.
func inMachine(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		furnish(t)
		return true
	}
	for _, program := range []string{"mosquitto", "s6-svscan", "execlineb", "strace", "apparmor_parser"} {
		if !installed(program) {
			t.Skipf("%s is not installed", program)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-test.v", "-test.run", "^" + t.Name() + "$"}
	environment := append(os.Environ(), insideVariable+"=1", programsVariable+"="+programs(t))
	cmd := exec.CommandContext(t.Context(), self, arguments...)
	cmd.Env = environment
	cmd.SysProcAttr = machine()
	out, err := cmd.CombinedOutput()
	if notAllowed(out, err) && os.Getenv("NOTHING_LEFT_OUT") == "1" {
		// Nothing may be left out where tests run for all: there root is asked.
		sudo := append([]string{"-n", "--preserve-env", "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", self}, arguments...)
		cmd = exec.CommandContext(t.Context(), "sudo", sudo...)
		cmd.Env = environment
		out, err = cmd.CombinedOutput()
	} else if notAllowed(out, err) {
		t.Skipf("this user may not make a machine of its own: %v %s", err, out)
	}
	t.Logf("in the machine:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatal("the test did not run there")
	}
	return false
}

// machine are the namespaces. Who is not root becomes it there.
func machine() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// refusedMachine is what furnish says when the system does not let it.
const refusedMachine = "no machine of its own: "

func notAllowed(out []byte, err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || bytes.Contains(out, []byte(refusedMachine))
}

// furnish makes the namespaces a machine: mounts stay in it, processes and the
// loopback device are its own.
func furnish(t *testing.T) {
	t.Helper()
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		loopback(),
	); err != nil {
		t.Fatal(refusedMachine, err)
	}
}

// loopback brings lo up, which a new network does not do by itself.
func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// lookPath finds a program where not every user's PATH leads.
func lookPath(program string) (string, error) {
	if found, err := exec.LookPath(program); err == nil {
		return found, nil
	}
	for _, folder := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if found, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", program)
}

func installed(program string) bool { _, err := lookPath(program); return err == nil }

// furniture are the programs of Debian that do what those of the base image do.
var furniture = []string{
	"sh", "cat", "cp", "mkdir", "sleep", "env", "chmod", "execlineb",
	"s6-svscan", "s6-supervise", "s6-svc", "s6-svscanctl", "s6-svstat", "s6-svwait", "s6-svlisten1", "s6-ftrigrd", "s6-envdir",
}

// newRoot is the image's file system: a base of Debian's programs, and on it
// what the Dockerfile copies. It is in memory and dies with the machine.
func newRoot(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	mount := func(source, target, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			t.Fatalf("mount %s on %s: %v", source, target, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	mount("tmpfs", top, "tmpfs", 0)
	inTop := func(name string) string { return filepath.Join(top, name) }
	for _, folder := range []string{"usr/bin", "usr/lib", "command", "data", "ssl", "config", "dev", "etc", "proc", "sys", "run", "tmp"} {
		if err := os.MkdirAll(inTop(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, library := range []string{"/usr/lib", "/lib", "/lib64"} {
		target, err := os.Readlink(library)
		switch {
		case err == nil: // into /usr
			err = os.Symlink(target, inTop(library))
		case exists(library):
			if err = os.MkdirAll(inTop(library), 0o755); err == nil {
				mount(library, inTop(library), "", unix.MS_BIND|unix.MS_REC)
			}
		default:
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if target, err := os.Readlink("/lib64"); err == nil && exists("/"+target) && !strings.HasPrefix(target, "usr/lib/") {
		if err := os.MkdirAll(inTop(target), 0o755); err != nil {
			t.Fatal(err)
		}
		mount("/"+target, inTop(target), "", unix.MS_BIND|unix.MS_REC)
	}
	for _, device := range []string{"null", "zero", "urandom"} {
		write(t, inTop("dev/"+device), "", 0o666)
		mount("/dev/"+device, inTop("dev/"+device), "", unix.MS_BIND)
	}
	mount("/proc", inTop("proc"), "", unix.MS_BIND|unix.MS_REC)
	mount("/sys", inTop("sys"), "", unix.MS_BIND|unix.MS_REC)
	mount("tmpfs", inTop("data"), "tmpfs", 0) // volumes
	mount("tmpfs", inTop("ssl"), "tmpfs", 0)
	if err := os.Symlink("usr/bin", inTop("bin")); err != nil {
		t.Fatal(err)
	}
	for _, program := range furniture {
		found, err := lookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, found, inTop("usr/bin/"+program)) // where Debian's s6 looks for itself
		if strings.HasPrefix(program, "s6-") {
			if err := os.Symlink("/usr/bin/"+program, inTop("command/"+program)); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyTree(t, "testdata/base", top)
	write(t, inTop("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ncertsitter:x:100:101::/nonexistent:/sbin/nologin\n", 0o644)
	write(t, inTop("etc/group"), "root:x:0:\ncertsitter:x:101:\n", 0o644)
	write(t, inTop("etc/hosts"), "127.0.0.1 localhost core-mosquitto\n127.0.0.2 supervisor\n", 0o644)
	write(t, inTop("etc/resolv.conf"), "nameserver 127.0.0.3\n", 0o644)
	layOut(t, top, os.Getenv(programsVariable))
	return top
}

// layOut does what COPY of the last stage does. What comes from the build stage
// is in programs.
func layOut(t *testing.T, top, programs string) {
	t.Helper()
	copied := 0
	for _, rest := range stages(t)[2].of("COPY") {
		words := strings.Fields(rest)
		target := filepath.Join(top, words[len(words)-1])
		switch {
		case len(words) == 2:
			copyTree(t, filepath.Join(root, words[0]), target)
		case len(words) == 3 && words[0] == "--from=build" && words[1] == "/out/":
			copyTree(t, programs, target)
		default:
			t.Fatalf("COPY %s is not understood", rest)
		}
		copied++
	}
	if copied < 2 {
		t.Fatal("the image copies less than its files and its programs")
	}
	user := regexp.MustCompile(`adduser .* certsitter(\s|$)`)
	if !user.MatchString(strings.Join(stages(t)[2].of("RUN"), "\n")) {
		t.Error("the image has no user certsitter")
	}
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

func write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), mode)); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(content), info.Mode().Perm())
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		short, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		copyFile(t, name, filepath.Join(to, short))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
