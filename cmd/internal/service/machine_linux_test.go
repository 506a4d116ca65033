package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/certsitter/certsitter/internal/output"
)

const (
	// waitLimit bounds every wait. Nothing waits for it unless it fails.
	waitLimit = 60 * time.Second
	// onMachine is set in the test program that runs on a machine of its own.
	onMachine = "CERTSITTER_TEST_MACHINE"
	// asSandbox is the first argument with which the test program becomes a unit.
	asSandbox = "sandbox"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asSandbox {
		fmt.Fprintln(os.Stderr, becomeUnit(os.Args[2], os.Args[3:]))
		os.Exit(126) // it became nothing
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// built is the folder of what programs has built; removed at the end.
var built string

// programs builds what is installed on machines, with the flags that have it in
// the build cache.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "certsitter-programs-"); err != nil {
		return "", err
	}
	built = dir
	for _, args := range [][]string{
		{"-tags", "nethttpomithttp2", "./cmd/certsitter"},
		{"./cmd/certsitter-worker"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", dir + "/"}, args...)...)
		cmd.Dir, cmd.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build %v: %w: %s", args, err, out)
		}
	}
	return dir, nil
})

// machine runs the test once more, on a machine of its own: with files and a
// network that nobody else sees, where it is root, port 80 is free, and Certsitter
// is installed. It returns true there; elsewhere the test is over.
func machine(t *testing.T) bool {
	t.Helper()
	if os.Getenv(onMachine) != "" {
		return true
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a machine of its own")
	}
	installed, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), onMachine+"="+installed, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this container may not make a machine of its own (CAP_SYS_ADMIN)")
	}
	// What it leaves out counts as left out here.
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name())) {
		t.Skipf("%s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("on a machine of its own: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// furnish makes the namespaces that we are in a machine: changes to its files are
// seen by nobody else, and the programs, unit and user are installed.
func furnish(t *testing.T) {
	t.Helper()
	own := t.TempDir()
	check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(t, unix.Mount("tmpfs", own, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { check(t, unix.Unmount(own, unix.MNT_DETACH)) })
	for _, dir := range []string{"/etc", "/usr", "/var"} {
		name := strings.ReplaceAll(dir[1:], "/", "-")
		upper, work := filepath.Join(own, name), filepath.Join(own, name+".work")
		check(t, errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
		check(t, unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)))
	}
	check(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
	check(t, loopbackUp())
	install(t, filepath.Join(os.Getenv(onMachine), "certsitter"), "/usr/bin/certsitter")
	install(t, filepath.Join(os.Getenv(onMachine), "certsitter-worker"), "/usr/lib/certsitter/certsitter-worker")
	install(t, unitPath("certsitter.sysusers"), "/usr/lib/sysusers.d/certsitter.conf")
	for _, args := range [][]string{{"systemd-sysusers", "certsitter.conf"}, {"rm", "-rf", "/etc/nginx/sites-enabled", "/etc/nginx/conf.d", "/etc/certsitter"}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	for _, dir := range []string{"/etc/certsitter", "/etc/nginx/sites-enabled", "/etc/nginx/conf.d"} {
		check(t, os.MkdirAll(dir, 0o755))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func install(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	check(t, err)
	defer in.Close()
	check(t, os.MkdirAll(filepath.Dir(to), 0o755))
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	check(t, err)
	_, err = io.Copy(out, in)
	check(t, errors.Join(err, out.Close()))
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	check(t, errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

// loopbackUp makes 127.0.0.1 work in a new network namespace (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_UP}
	copy(request.name[:], "lo")
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// A process is a program that runs until the test's end, or until it is ended.
type process struct {
	cmd   *exec.Cmd
	out   *output.Buffer
	ended chan struct{}
	err   error // how it ended, once ended is closed
}

// start starts a program; nil is the environment of services.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...), out: &output.Buffer{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = time.Second // its children may hold its output
	p.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	// A Pdeathsig would come when the thread that starts it ends, not the process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(t, p.cmd.Start())
	go func() { p.err = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("%s says:\n%s", strings.Join(args, " "), p.out.String())
		}
	})
	return p
}

// stop ends it as systemd does, and waits for that.
func (p *process) stop(t *testing.T) {
	t.Helper()
	check(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(waitLimit):
		t.Fatalf("%s does not end", p.cmd.Path)
	}
}

// eventually polls until done, and fails if p ends before.
func (p *process) eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-p.ended:
			t.Fatalf("%s ended (%v) before: %s", p.cmd.Path, p.err, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
