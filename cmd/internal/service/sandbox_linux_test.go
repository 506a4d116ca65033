package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A sandbox is what of a unit is done here without systemd: its user, its
// capabilities, and what of the files it may see and write. It is made from the
// unit file's own directives, so that it cannot be another one than the unit's.
type sandbox struct {
	User, Group  string
	UMask        uint32
	Capabilities []string
	State        string // folder, with its mode
	StateMode    uint32
	Writable     []string // "-" before what may be missing
	Empty        []string // seen as empty folders
	ReadOnly     []string // whatever is mounted below "/"
	Devices      bool     // only those that are none
}

// bySystemd are the directives that this sandbox leaves to systemd: those that
// filter system calls, and those that say when to start what. A machine that is
// booted proves them (package_test.go).
var bySystemd = []string{
	"Type", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus",
	"ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
	"LockPersonality", "MemoryDenyWriteExecute", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
	"RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber",
	"RemoveIPC", "PrivateUsers", "ProtectProc",
}

// sandboxOf reads the directives. One that it does not know is a failure.
func sandboxOf(t *testing.T, u unit) (s sandbox, command []string) {
	t.Helper()
	u = maps.Clone(u)
	take := func(key string) string {
		value := u.one(t, key)
		delete(u, key)
		return value
	}
	octal := func(key string) uint32 {
		n, err := strconv.ParseUint(take(key), 8, 32)
		check(t, err)
		return uint32(n)
	}
	s = sandbox{
		User: take("User"), Group: take("Group"), UMask: octal("UMask"),
		State: filepath.Join("/var/lib", take("StateDirectory")), StateMode: octal("StateDirectoryMode"),
		Capabilities: u.words("CapabilityBoundingSet"), Writable: u.words("ReadWritePaths"),
	}
	delete(u, "CapabilityBoundingSet")
	delete(u, "ReadWritePaths")
	if got := take("ProtectSystem"); got != "strict" {
		t.Fatalf("ProtectSystem=%s is not known here", got)
	}
	on := func(key string, does func()) {
		if got := take(key); got != "true" {
			t.Fatalf("%s=%s is not known here", key, got)
		}
		does()
	}
	on("NoNewPrivileges", func() {})
	on("PrivateMounts", func() {})
	on("ProtectHome", func() { s.Empty = append(s.Empty, "/home", "/root", "/run/user") })
	on("PrivateDevices", func() { s.Devices = true })
	on("ProtectControlGroups", func() { s.ReadOnly = append(s.ReadOnly, "/sys/fs/cgroup") })
	on("ProtectKernelTunables", func() { s.ReadOnly = append(s.ReadOnly, "/proc/sys", "/sys") })
	on("PrivateTmp", func() { s.Empty = append(s.Empty, "/tmp", "/var/tmp") })
	command = strings.Fields(take("ExecStart"))
	for key := range u {
		if !slices.Contains(bySystemd, key) {
			t.Fatalf("%s= is neither done by this sandbox nor known to be left to systemd", key)
		}
	}
	return s, command
}

// startUnit starts the unit's own command in its sandbox.
func startUnit(t *testing.T, name string) *process {
	t.Helper()
	s, command := sandboxOf(t, readUnit(t, name))
	said, err := json.Marshal(s)
	check(t, err)
	self, err := os.Executable()
	check(t, err)
	return start(t, append([]string{self, asSandbox, string(said)}, command...)...)
}

// inUnit runs another command in the unit's sandbox and gives what it says.
func inUnit(t *testing.T, name string, command ...string) (string, error) {
	t.Helper()
	s, _ := sandboxOf(t, readUnit(t, name))
	said, err := json.Marshal(s)
	check(t, err)
	self, err := os.Executable()
	check(t, err)
	out, err := exec.CommandContext(t.Context(), self, append([]string{asSandbox, string(said)}, command...)...).CombinedOutput()
	return string(out), err
}

// becomeUnit makes this process the unit and then the command. It returns only if
// that does not succeed.
func becomeUnit(said string, command []string) error {
	var s sandbox
	if err := json.Unmarshal([]byte(said), &s); err != nil {
		return err
	}
	// What follows is for the thread that becomes the command.
	runtime.LockOSThread()
	uid, gid, err := s.ids()
	if err != nil {
		return err
	}
	if err := errors.Join(s.makeState(uid, gid)); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := s.mounts(); err != nil {
		return err
	}
	unix.Umask(int(s.UMask))
	if err := s.dropCapabilities(); err != nil {
		return err
	}
	if uid != 0 {
		if err := errors.Join(unix.Setgroups([]int{gid}), unix.Setresgid(gid, gid, gid), unix.Setresuid(uid, uid, uid)); err != nil {
			return fmt.Errorf("become %s: %w", s.User, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("become %s: %w", path, unix.Exec(path, command, os.Environ()))
}

func (s sandbox) ids() (uid, gid int, err error) {
	u, err := user.Lookup(s.User)
	if err != nil {
		return 0, 0, err
	}
	g, err := user.LookupGroup(s.Group)
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(g.Gid)
	return uid, gid, err
}

// makeState makes the state folder, and gives all in it to the user if it is
// another's (systemd.exec(5)).
func (s sandbox) makeState(uid, gid int) error {
	if err := os.MkdirAll(s.State, 0o755); err != nil {
		return err
	}
	return errors.Join(os.Chmod(s.State, os.FileMode(s.StateMode)), filepath.WalkDir(s.State, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	}))
}

// mounts makes the files as the unit sees them, in a namespace of its own.
func (s sandbox) mounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a namespace of its own: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, path := range append(slices.Clone(s.Writable), s.State) {
		path, optional := strings.CutPrefix(path, "-")
		if _, err := os.Stat(path); err != nil && optional {
			continue
		}
		// A mount of its own, which can be writable when the one below is not.
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("writable %s: %w", path, err)
		}
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	for _, path := range append(slices.Clone(s.Writable), s.State, "/proc", "/sys", "/dev") {
		path = strings.TrimPrefix(path, "-")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("writable %s: %w", path, err)
		}
	}
	for _, path := range s.ReadOnly {
		if err := errors.Join(unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""), unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, readOnly)); err != nil {
			return fmt.Errorf("read-only %s: %w", path, err)
		}
	}
	for _, path := range s.Empty {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=1777"); err != nil {
			return fmt.Errorf("empty %s: %w", path, err)
		}
	}
	if s.Devices {
		return noDevices()
	}
	return nil
}

// noDevices leaves of /dev what is no device of the machine.
func noDevices() error {
	const beside = "/tmp/dev" // which is ours by now
	if err := errors.Join(os.Mkdir(beside, 0o755), unix.Mount("tmpfs", beside, "tmpfs", 0, "mode=0755")); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		to := filepath.Join(beside, name)
		if err := errors.Join(os.WriteFile(to, nil, 0o666), unix.Mount("/dev/"+name, to, "", unix.MS_BIND, "")); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	return unix.Mount(beside, "/dev", "", unix.MS_MOVE, "")
}

// dropCapabilities takes those from the bounding set that the unit does not name:
// root then has the rest, and nobody else any.
func (s sandbox) dropCapabilities() error {
	keep := map[int]bool{}
	for _, name := range s.Capabilities {
		number, ok := capabilityNumbers[name]
		if !ok {
			return fmt.Errorf("the capability %s is not known here", name)
		}
		keep[number] = true
	}
	for number := 0; number <= unix.CAP_LAST_CAP; number++ {
		if keep[number] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // an older kernel's last one comes sooner
			return fmt.Errorf("drop capability %d: %w", number, err)
		}
	}
	return nil
}

var capabilityNumbers = map[string]int{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_FOWNER": unix.CAP_FOWNER,
	"CAP_KILL": unix.CAP_KILL, "CAP_SETGID": unix.CAP_SETGID, "CAP_SETUID": unix.CAP_SETUID,
	"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
}

// The sandbox keeps what the unit promises.
func TestSandbox(t *testing.T) {
	if !machine(t) {
		return
	}
	furnish(t)
	check(t, os.MkdirAll("/etc/ssl/home", 0o755))
	for _, c := range []struct {
		unit, command string
		works         bool
	}{
		{mainUnit, "touch /etc/ssl/home/a /var/lib/certsitter/a /run/a /tmp/a", true},
		{mainUnit, "touch /etc/a", false},
		{mainUnit, "touch /usr/bin/a", false},
		{mainUnit, "touch /var/lib/a", false},
		{mainUnit, "test -e /root/. && touch /root/a && test ! -e " + os.Args[0], true}, // its own, empty ones
		{mainUnit, "echo 1 > /proc/sys/kernel/sysrq", false},
		{mainUnit, "test ! -e /dev/kmsg && echo > /dev/null", true},
		{mainUnit, "chown 1 /etc/ssl/home/a && chmod 0400 /etc/ssl/home/a && cat /etc/ssl/home/a", true},
		{mainUnit, "mount -t tmpfs tmpfs /mnt", false},
		{mainUnit, "mknod /etc/ssl/home/b c 1 3", false},
		{mainUnit, `test "$(awk '/CapEff/ {print $2}' /proc/self/status)" = 00000000000004eb`, true},
		{watchUnit, "touch /var/lib/certsitter/a", true},
		{watchUnit, "touch /etc/ssl/home/a", false},
		{watchUnit, `test "$(awk '/CapEff/ {print $2}' /proc/self/status)" = 0000000000000000`, true},
	} {
		out, err := inUnit(t, c.unit, "/bin/sh", "-ec", c.command)
		if (err == nil) != c.works {
			t.Errorf("%s: %s: %v: %s", c.unit, c.command, err, out)
		}
	}
}
