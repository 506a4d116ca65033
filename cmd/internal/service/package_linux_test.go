package service

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A debian is a Debian of its own: a layer above the one that make test-packages
// has installed.
type debian struct {
	root   string
	leader int // its process 1, once it is booted
}

func newDebian(t *testing.T) *debian {
	t.Helper()
	d := &debian{root: filepath.Join(t.TempDir(), "debian")}
	own := t.TempDir()
	check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(t, unix.Mount("tmpfs", own, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { check(t, unix.Unmount(own, unix.MNT_DETACH)) })
	for _, dir := range []string{d.root, filepath.Join(own, "upper"), filepath.Join(own, "work")} {
		check(t, os.Mkdir(dir, 0o755))
	}
	check(t, unix.Mount("overlay", d.root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", os.Getenv("CERTSITTER_DEBIAN"), own, own)))
	t.Cleanup(func() { check(t, unix.Unmount(d.root, unix.MNT_DETACH)) })
	// Nobody gave it a name or a way to names, and nothing but lo is needed.
	write(t, d.path("/etc/hostname"), "debian\n", 0o644)
	write(t, d.path("/etc/hosts"), "127.0.0.1 localhost debian\n", 0o644)
	return d
}

func (d *debian) path(name string) string { return filepath.Join(d.root, name) }

// try runs a command there: in the booted system, or in its files.
func (d *debian) try(t *testing.T, command string) (string, error) {
	t.Helper()
	args := []string{"chroot", d.root, "/bin/sh", "-ec", command}
	if d.leader != 0 {
		args = []string{"nsenter", "--target", fmt.Sprint(d.leader), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wdns=/", "/bin/sh", "-ec", command}
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *debian) run(t *testing.T, command string) string {
	t.Helper()
	out, err := d.try(t, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// boot starts its own systemd.
func (d *debian) boot(t *testing.T) *process {
	t.Helper()
	args := []string{"systemd-nspawn", "--quiet", "--directory=" + d.root, "--boot", "--register=no", "--kill-signal=SIGRTMIN+4", "--console=pipe", "--resolv-conf=off", "--link-journal=no"}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		args = append(args, "--keep-unit") // there is no systemd here that could give it one
	}
	p := start(t, args...)
	t.Cleanup(func() {
		if d.leader != 0 { // with its process 1 all others end, which the end of systemd-nspawn does not do
			_ = syscall.Kill(d.leader, syscall.SIGKILL)
		}
	})
	p.eventually(t, "process 1 is there", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", p.cmd.Process.Pid))
		if err != nil {
			return false
		}
		for child := range strings.FieldsSeq(string(children)) {
			if name, err := os.ReadFile("/proc/" + child + "/comm"); err == nil && strings.HasPrefix(string(name), "systemd") && string(name) != "systemd-nspawn\n" {
				_, err = fmt.Sscan(child, &d.leader)
				return err == nil
			}
		}
		return false
	})
	out := ""
	defer func() {
		if t.Failed() {
			t.Logf("systemctl is-system-running: %s", out)
		}
	}()
	p.eventually(t, "it is booted", func() bool {
		out, _ = d.try(t, "systemctl is-system-running")
		return strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	return p
}

// packages gives the package and a newer one, in the Debian's /tmp.
func (d *debian) packages(t *testing.T) (older, newer string) {
	t.Helper()
	older, newer = "/srv/certsitter-older.deb", "/srv/certsitter-newer.deb"
	install(t, os.Getenv("CERTSITTER_DEB"), d.path(older))
	d.run(t, `dpkg-deb -R `+older+` /srv/newer
sed -i 's/^Version: .*/Version: 99/' /srv/newer/DEBIAN/control
dpkg-deb -Zgzip -z1 -b /srv/newer `+newer+` && rm -rf /srv/newer`)
	return older, newer
}

// booted skips unless make test-packages runs the test, and is true on the machine.
func booted(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CERTSITTER_DEB") == "" {
		t.Skip("run by make test-packages")
	}
	return machine(t)
}

const configPath = "/etc/certsitter/certsitter.yaml"

// The package on a Debian without a running systemd, as in the making of an image.
func TestPackageWithoutSystemd(t *testing.T) {
	if !booted(t) {
		return
	}
	d := newDebian(t)
	older, newer := d.packages(t)
	d.run(t, "dpkg -i "+older)
	for command, want := range map[string]string{
		"stat -c '%U:%G %a' /etc/certsitter " + configPath: "root:root 750\nroot:root 600\n",
		"getent passwd certsitter | cut -d: -f1,6,7":       "certsitter:/nonexistent:/usr/sbin/nologin\n",
		"id -Gn certsitter":                                "certsitter\n",
		"readlink /etc/systemd/system/multi-user.target.wants/certsitter.service | sed 's|^/usr||'":                  "/lib/systemd/system/certsitter.service\n",
		"ls /etc/systemd/system/multi-user.target.wants | grep -c watch || true":                                     "0\n",
		"systemd-analyze verify --man=no certsitter.service certsitter-watch.service 2>&1 | grep certsitter || true": "",
		"certsitter status 2>/dev/null | head -n 1":                                                                  "No certificates are configured.\n",
		"su certsitter -s /bin/sh -c 'cat " + configPath + "' 2>&1 || true":                                          "cat: " + configPath + ": Permission denied\n",
		"certsitter version | head -n 1 | cut -d' ' -f2":                                                             strings.TrimSpace(d.run(t, "dpkg-query -Wf '${Version}' certsitter")) + "\n",
		"zcat /usr/share/doc/certsitter/licenses.gz | grep -c go-acme/lego/v4":                                       "1\n",
	} {
		if got := d.run(t, command); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", command, got, want)
		}
	}

	// An upgrade keeps what was edited, and whose it is.
	d.run(t, "echo '# mine' >> "+configPath+"; chgrp certsitter "+configPath+"; chmod 0640 "+configPath)
	before := d.run(t, "cat "+configPath)
	d.run(t, "dpkg -i "+newer+" </dev/null")
	if got := d.run(t, "cat "+configPath); got != before {
		t.Errorf("the edited configuration is now\n%s", got)
	}
	if got := d.run(t, "stat -c '%U:%G %a' "+configPath); got != "root:certsitter 640\n" {
		t.Errorf("the edited configuration is %s", got)
	}
	// The starter of the next version is another one: the edited one stays in use.
	d.run(t, `dpkg-deb -R `+newer+` /srv/newest; sed -i 's/^Version: .*/Version: 100/' /srv/newest/DEBIAN/control
echo '# new' >> /srv/newest/etc/certsitter/certsitter.yaml; dpkg-deb -Zgzip -z1 -b /srv/newest; dpkg --force-confold -i /srv/newest.deb </dev/null`)
	if got := d.run(t, "cat "+configPath); got != before {
		t.Errorf("the edited configuration is now\n%s", got)
	}

	// Switched off stays off.
	d.run(t, "systemctl disable certsitter; dpkg --force-confold -i "+newer+" </dev/null; test ! -e /etc/systemd/system/multi-user.target.wants/certsitter.service")

	// Removed: configuration and state stay. Purged: installed certificates stay.
	d.run(t, "mkdir -p /var/lib/certsitter/live/home /var/lib/certsitter/accounts; touch /var/lib/certsitter/live/home/fullchain.pem /var/lib/certsitter/state.json /etc/ssl/home.crt")
	d.run(t, "dpkg -r certsitter; test -e "+configPath+"; test -e /var/lib/certsitter/state.json; test ! -e /usr/bin/certsitter")
	d.run(t, "dpkg -P certsitter; test ! -e "+configPath+"; test ! -e /var/lib/certsitter/state.json; test ! -e /var/lib/certsitter/accounts")
	d.run(t, "test -e /var/lib/certsitter/live/home/fullchain.pem; test -e /etc/ssl/home.crt")
	d.run(t, "dpkg -i "+older+"; rm -rf /var/lib/certsitter; mkdir -p /var/lib/certsitter/accounts; dpkg -P certsitter; test ! -e /var/lib/certsitter; test ! -e /etc/certsitter")
	if left := d.run(t, "find /etc/systemd /var/lib/systemd /usr/lib/systemd /usr/lib/sysusers.d -name '*certsitter*'"); left != "" {
		t.Errorf("left after purging:\n%s", left)
	}
}

// The package on a Debian that runs: systemd starts the unit with all that it says,
// nginx is reloaded by systemd, and an upgrade restarts the service.
func TestPackageUnderSystemd(t *testing.T) {
	if !booted(t) {
		return
	}
	d := newDebian(t)
	older, newer := d.packages(t)
	check(t, loopbackUp())
	write(t, d.path("/etc/nginx/sites-enabled/openhab"), read(t, filepath.Join(repository, "packaging/nginx/openhab.conf")), 0o644)
	sh(t, fmt.Sprintf("rm %[1]s/etc/nginx/sites-enabled/default; mkdir -p %[1]s/var/www/%[2]s; openssl req -x509 -nodes -newkey rsa:2048 -days 30 -subj /CN=%[2]s -keyout %[1]s/etc/ssl/openhab.key -out %[1]s/etc/ssl/openhab.crt 2>&1", d.root, domain))
	h := newHomeIn(t, d.root)
	system := d.boot(t)
	d.run(t, "systemctl is-active nginx")
	eventually := func(what string, done func() bool) {
		t.Helper()
		defer func() {
			if t.Failed() {
				out, _ := d.try(t, "journalctl --no-pager -u certsitter -u certsitter-watch -u nginx -n 60")
				t.Log(out)
			}
		}()
		system.eventually(t, what, done)
	}

	// Just installed it runs, and does nothing.
	d.run(t, "dpkg -i "+older)
	d.run(t, "systemctl is-enabled certsitter && systemctl is-active certsitter")
	eventually("the page answers", func() bool { return healthy(t) })
	pid := d.mainPID(t, "certsitter")
	for line, want := range map[string]string{"CapEff": "00000000000004eb", "CapBnd": "00000000000004eb", "NoNewPrivs": "1", "Seccomp": "2", "Uid": "0\t0\t0\t0"} {
		if got := statusLine(t, pid, line); got != want {
			t.Errorf("%s of the daemon is %q, want %q", line, got, want)
		}
	}
	for path, works := range map[string]bool{
		"/etc/ssl": true, "/etc/nginx": true, "/run": true, "/var/www": true, "/var/lib/certsitter": true, "/tmp": true,
		"/etc": false, "/usr/bin": false, "/var/lib": false, "/boot": false, "/proc/sys/kernel": false,
	} {
		if err := writable(t, pid, path); (err == nil) != works {
			t.Errorf("%s for the daemon: %v", path, err)
		}
	}

	// A certificate through nginx's webroot; systemd reloads nginx.
	h.configure(t, nginxEntry)
	d.run(t, "systemctl restart certsitter") // a broker comes only so
	eventually("the first certificate is served", func() bool { return h.count("deployed") == 1 })
	first := served(domain)
	if !h.trusts(first) || len(first) < 2 {
		t.Fatalf("served is no trusted full chain, but %d certificates", len(first))
	}
	write(t, d.path("/etc/nginx/sites-enabled/mistake"), "server { listen 81 }\n", 0o644)
	if said, err := d.try(t, "certsitter renew openhab --force"); err == nil || !strings.Contains(said, "not in use yet") {
		t.Errorf("certsitter renew: %v: %s", err, said)
	}
	eventually("the failure is an event", func() bool { return h.count("deploy_failed") == 1 })
	if now := served(domain); now == nil || !now[0].Equal(first[0]) {
		t.Error("nginx was touched")
	}
	check(t, os.Remove(d.path("/etc/nginx/sites-enabled/mistake")))
	d.run(t, "nginx -t 2>&1; certsitter status || true; certsitter notify test")
	h.sentByWorkerIn(t, d)

	// The upgrade: another process, the same configuration.
	d.run(t, "dpkg -i "+newer+" </dev/null")
	eventually("it runs again", func() bool { return healthy(t) })
	if again := d.mainPID(t, "certsitter"); again == pid {
		t.Error("the upgrade did not restart the service")
	}
	if h.status(t).Name != "openhab" {
		t.Error("the upgrade lost the configuration")
	}

	// The other unit: another user, the same state folder, and back.
	d.run(t, "chgrp certsitter /etc/certsitter "+configPath+" /etc/certsitter/ca.pem; chmod 0640 "+configPath)
	h.configure(t, "watch:\n  - {name: openhab, source: \"127.0.0.1:443\", server_name: "+domain+", ca_roots: /etc/certsitter/ca.pem}\n")
	d.run(t, "systemctl disable --now certsitter 2>&1; chmod 0640 "+configPath+"; systemctl enable --now certsitter-watch 2>&1")
	eventually("the other unit watches", func() bool { return h.status(t).Status == "ok" })
	watching := d.mainPID(t, "certsitter-watch")
	if caps, seccomp := statusLine(t, watching, "CapEff"), statusLine(t, watching, "Seccomp"); caps != "0000000000000000" || seccomp != "2" {
		t.Errorf("who only watches has the capabilities %s, filter %s", caps, seccomp)
	}
	if got := d.run(t, "stat -c %U /var/lib/certsitter /var/lib/certsitter/state.json"); got != "certsitter\ncertsitter\n" {
		t.Errorf("the state folder is %s", got)
	}
	if got := d.run(t, "certsitter notify test 2>&1 || true"); !strings.Contains(got, "delivered") {
		t.Errorf("a test message of who only watches: %s", got)
	}
	d.run(t, "systemctl disable --now certsitter-watch 2>&1; systemctl enable --now certsitter 2>&1")
	eventually("the first unit runs again", func() bool { return h.status(t).Status == "ok" })
	if got := d.run(t, "stat -c %U /var/lib/certsitter /var/lib/certsitter/state.json"); got != "root\nroot\n" {
		t.Errorf("the state folder is %s", got)
	}

	// Removed while it runs.
	d.run(t, "dpkg -P certsitter; ! systemctl is-active certsitter; test -e /etc/ssl/openhab.crt")
	if now := served(domain); now == nil {
		t.Error("nginx serves no longer")
	}
	if said := d.run(t, "journalctl --no-pager -k -b 2>/dev/null | grep -i seccomp || true"); said != "" {
		t.Errorf("calls that the filter has ended:\n%s", said)
	}
}

func (d *debian) mainPID(t *testing.T, unit string) string {
	t.Helper()
	inside := strings.TrimSpace(d.run(t, "systemctl show --property=MainPID --value "+unit))
	// Its number here is another one than there.
	all, err := filepath.Glob("/proc/[0-9]*/status")
	check(t, err)
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if strings.HasPrefix(string(text), "Name:\tcertsitter\n") && strings.Contains(string(text), "\nNSpid:\t"+filepath.Base(filepath.Dir(path))+"\t"+inside+"\n") {
			return filepath.Base(filepath.Dir(path))
		}
	}
	t.Fatalf("no process is %s's main process %s", unit, inside)
	return ""
}

func statusLine(t *testing.T, pid, key string) string {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/"+pid+"/status")) {
		if value, ok := strings.CutPrefix(line, key+":\t"); ok {
			return strings.TrimSuffix(value, "\n")
		}
	}
	t.Fatalf("/proc/%s/status has no %s", pid, key)
	return ""
}

// writable reports whether a process's files are writable below a folder, by the
// options of the mount that holds it there.
func writable(t *testing.T, pid, path string) error {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/proc/"+pid+"/root"+path, &st); err != nil {
		return err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return syscall.EROFS
	}
	return nil
}
