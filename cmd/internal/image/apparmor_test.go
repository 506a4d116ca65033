package image

import (
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A profile is one room of apparmor.txt, as far as files go.
type profile struct {
	name  string // certsitter//daemon
	rules []fileRule
	all   []string // every rule's text
}

// A fileRule allows something with the files of a pattern.
type fileRule struct {
	pattern string
	files   *regexp.Regexp
	may     string // of "rwamklixcp"
	enters  string // the child profile of cx; "" = none
	deny    bool
}

// profiles has apparmor_parser read the profile, checks that it takes it, and
// gives its rooms with what they include.
func profiles(t *testing.T) map[string]*profile {
	t.Helper()
	parser, err := lookPath("apparmor_parser")
	if err != nil {
		t.Skip("apparmor_parser is not installed")
	}
	file := filepath.Join(root, "apparmor.txt")
	out, err := exec.CommandContext(t.Context(), parser, "--skip-kernel-load", "--skip-cache", "--skip-read-cache", "--warn=all", file).CombinedOutput()
	if err != nil {
		t.Fatalf("apparmor_parser: %v\n%s", err, out)
	}
	text, err := exec.CommandContext(t.Context(), parser, "--preprocess", file).Output()
	if err != nil {
		t.Fatalf("apparmor_parser --preprocess: %v", err)
	}
	return readProfiles(t, string(text))
}

var (
	variableLine = regexp.MustCompile(`^(@\{\w+\})\s*\+?=\s*(.*)$`)
	profileLine  = regexp.MustCompile(`^profile (\S+) .*\{$`)
	fileLine     = regexp.MustCompile(`^(?:owner )?(deny )?(/\S*|@\{\w+\}\S*)\s+([rwamklixcpu]+)(?: -> (\S+))?,$`)
	// otherLine are rules about something else than files.
	otherLine = regexp.MustCompile(`^(abi|capability|network|signal|unix|ptrace|include if exists)\b`)
)

func readProfiles(t *testing.T, text string) map[string]*profile {
	t.Helper()
	variables := map[string][]string{}
	all := map[string]*profile{}
	var open []*profile
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		line = strings.TrimSpace(line)
		switch m := []string(nil); {
		case line == "" || line[0] == '#':
		case line == "}":
			open = open[:len(open)-1]
		case variableLine.MatchString(line):
			m = variableLine.FindStringSubmatch(line)
			variables[m[1]] = append(variables[m[1]], strings.Fields(m[2])...)
		case profileLine.MatchString(line):
			p := &profile{name: profileLine.FindStringSubmatch(line)[1]}
			if len(open) > 0 {
				p.name = open[len(open)-1].name + "//" + p.name
			}
			all[p.name] = p
			open = append(open, p)
		case len(open) == 0:
			t.Fatalf("outside of all profiles: %q", line)
		case fileLine.MatchString(line):
			m = fileLine.FindStringSubmatch(line)
			p := open[len(open)-1]
			p.all = append(p.all, line)
			for _, pattern := range expand(m[2], variables, 0) {
				expression, err := regexp.Compile("^" + translate(pattern) + "$")
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				p.rules = append(p.rules, fileRule{pattern: pattern, files: expression, may: m[3], enters: m[4], deny: m[1] != ""})
			}
		case otherLine.MatchString(line):
			open[len(open)-1].all = append(open[len(open)-1].all, line)
		default:
			t.Fatalf("this test does not understand %q", line)
		}
	}
	return all
}

// expand puts in the variables' values.
func expand(pattern string, variables map[string][]string, depth int) []string {
	m := regexp.MustCompile(`@\{\w+\}`).FindStringIndex(pattern)
	if m == nil || depth > 5 {
		return []string{regexp.MustCompile(`/+`).ReplaceAllString(pattern, "/")}
	}
	var all []string
	for _, value := range variables[pattern[m[0]:m[1]]] {
		all = append(all, expand(pattern[:m[0]]+value+pattern[m[1]:], variables, depth+1)...)
	}
	return all
}

// translate makes a regular expression of AppArmor's globs.
func translate(glob string) string {
	var b strings.Builder
	for depth, i := 0, 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString(`[^\x00]*`)
			// Between slashes it stands for something.
			if i > 0 && glob[i-1] == '/' && (i+2 == len(glob) || glob[i+2] == '/') {
				b.Reset()
				b.WriteString(translate(glob[:i]) + `[^/\x00][^\x00]*`)
			}
			i++
		case c == '*' && i > 0 && glob[i-1] == '/' && (i+1 == len(glob) || glob[i+1] == '/'):
			b.WriteString(`[^/\x00]+`)
		case c == '*':
			b.WriteString(`[^/\x00]*`)
		case c == '?':
			b.WriteString(`[^/\x00]`)
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}':
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '[' || c == ']' || c == '-':
			b.WriteByte(c)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String()
}

// lacks is which of the wanted permissions (r, w, k, l, m) the profile does not
// give for a path; a folder's path ends with a slash.
func (p *profile) lacks(path, wanted string) string {
	missing := wanted
	for _, r := range p.rules {
		if !r.files.MatchString(path) {
			continue
		}
		if r.deny && strings.ContainsAny(r.may, wanted) {
			return wanted
		}
		for _, may := range r.may {
			missing = strings.ReplaceAll(missing, string(may), "")
		}
	}
	return missing
}

// enters is the profile in which a program runs that is started from p; "" =
// it may not be started. A rule with the program's whole path goes first.
func (p *profile) enters(path string) string {
	found := ""
	for _, r := range p.rules {
		switch {
		case !r.files.MatchString(path) || !strings.Contains(r.may, "x"):
		case r.enters != "" && r.pattern == path:
			return p.name + "//" + r.enters
		case strings.Contains(r.may, "ix"):
			found = p.name
		}
	}
	return found
}

// The Supervisor finds the profile's name in one line, and puts the app's there.
func TestProfileHasOneName(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^profile ([^ ]+).*$`).FindAllStringSubmatch(readFile(t, "apparmor.txt"), -1) {
		names = append(names, m[1])
	}
	if !slices.Equal(names, []string{"certsitter"}) {
		t.Errorf("the Supervisor finds the names %v", names)
	}
	if slug := regexp.MustCompile(`(?m)^slug: (\S+)$`).FindStringSubmatch(readFile(t, "config.yaml")); slug == nil || slug[1] != "certsitter" {
		t.Errorf("the app's slug is %v", slug)
	}
}

// Who gets what; strace sees only what was asked for.
func TestProfile(t *testing.T) {
	t.Parallel()
	all := profiles(t)
	s6, daemon, worker := all["certsitter"], all["certsitter//daemon"], all["certsitter//daemon//worker"]
	if len(all) != 3 || s6 == nil || daemon == nil || worker == nil {
		t.Fatalf("the profiles are %v", all)
	}
	for program, want := range map[string]string{
		"/init": s6.name, "/bin/sh": s6.name, "/command/s6-svscan": s6.name, "/package/admin/s6/command/s6-supervise": s6.name,
		"/run/service/certsitter/run": s6.name, "/run/s6-rc:s6-rc-init:aBcDeF/servicedirs/certsitter/finish": s6.name, "/run/s6/basedir/bin/halt": s6.name,
		"/usr/bin/certsitter": daemon.name, "/data/program": "", "/ssl/program": "", "/usr/bin/certsitter-worker": s6.name,
	} {
		if got := s6.enters(program); got != want {
			t.Errorf("s6 starts %s in %q, not in %q", program, got, want)
		}
	}
	for program, want := range map[string]string{"/usr/bin/certsitter-worker": worker.name, "/bin/sh": "", "/usr/bin/certsitter": "", "/ssl/x": "", "/data/x": "", "/tmp/x": ""} {
		if got := daemon.enters(program); got != want {
			t.Errorf("the daemon starts %s in %q, not in %q", program, got, want)
		}
		if got := worker.enters(program); got != "" {
			t.Errorf("the worker starts %s in %q", program, got)
		}
	}
	for _, c := range []struct {
		who         *profile
		path, needs string // what it must have
		never       string // what it must not
	}{
		{daemon, "/data/", "r", ""},
		{daemon, "/data/state.json", "rwk", "m"},
		{daemon, "/data/certificates/home/", "rw", ""},
		{daemon, "/data/certificates/home/1/key.pem", "rw", "m"},
		{daemon, "/data/control.sock", "rw", ""},
		{daemon, "/ssl/", "r", ""},
		{daemon, "/ssl/.fullchain.pem.123", "rw", "m"},
		{daemon, "/ssl/proxy/privkey.pem", "rw", "m"},
		{daemon, "/etc/resolv.conf", "r", "w"},
		{daemon, "/etc/ssl/certs/ca-certificates.crt", "r", "w"},
		{daemon, "/usr/share/zoneinfo/Europe/Berlin", "r", "w"},
		{daemon, "/usr/bin/certsitter", "rm", "w"},
		{daemon, "/usr/bin/certsitter-worker", "", "w"},
		{daemon, "/run/s6/container_environment/SUPERVISOR_TOKEN", "", "rw"},
		{daemon, "/etc/shadow", "", "rw"},
		{worker, "/etc/resolv.conf", "r", "w"},
		{worker, "/etc/ssl/certs/ca-certificates.crt", "r", "w"},
		{worker, "/ssl/dns-credentials/transip.key", "r", "w"},
		{worker, "/ssl/privkey.pem", "", "rwmkl"},
		{worker, "/ssl/proxy/privkey.pem", "", "rwmkl"},
		{worker, "/data/options.json", "", "rwmkl"},
		{worker, "/data/certificates/home/1/key.pem", "", "rwmkl"},
		{worker, "/data/control.sock", "", "rw"},
		{worker, "/run/s6/container_environment/SUPERVISOR_TOKEN", "", "rw"},
		{worker, "/proc/1/environ", "", "r"},
		{worker, "/tmp/x", "", "w"},
		{s6, "/run/s6-linux-init-container-results/exitcode", "rw", ""},
		{s6, "/run/service/certsitter/supervise/lock", "rwk", ""},
		{s6, "/ssl/privkey.pem", "", "rw"},
		{s6, "/data/options.json", "", "rw"},
		{s6, "/usr/bin/certsitter", "r", "w"},
	} {
		if missing := c.who.lacks(c.path, c.needs); missing != "" {
			t.Errorf("%s has not %s for %s", c.who.name, missing, c.path)
		}
		for _, may := range c.never {
			if c.who.lacks(c.path, string(may)) == "" {
				t.Errorf("%s has %c for %s", c.who.name, may, c.path)
			}
		}
	}
	for _, rule := range worker.all {
		if strings.HasPrefix(rule, "capability") {
			t.Errorf("the worker has a %s", rule)
		}
	}
	for _, rule := range []string{"network inet stream,", "network inet6 stream,", "network inet dgram,", "network inet6 dgram,"} {
		if !slices.Contains(worker.all, rule) || !slices.Contains(daemon.all, rule) {
			t.Errorf("daemon or worker lack %s", rule)
		}
	}
	for _, capability := range []string{"net_bind_service", "setuid", "setgid", "kill", "chown", "dac_override"} {
		if !slices.Contains(daemon.all, "capability "+capability+",") {
			t.Errorf("the daemon lacks the capability %s", capability)
		}
	}
}

// checkTrace holds what the container did against the profile.
func checkTrace(t *testing.T, c *container) {
	t.Helper()
	all := profiles(t)
	uses, starts := readTrace(t, c, func(room, program string) string {
		if p := all[room]; p != nil {
			return p.enters(program)
		}
		return ""
	})
	seen := map[string]int{}
	for _, u := range uses {
		p := all[u.room]
		if p == nil {
			t.Errorf("%s runs in %q, which is no profile", u.call, u.room)
			continue
		}
		seen[p.name]++
		if p.name == "certsitter" && debian(u.path) {
			continue // Debian's programs, not the base's
		}
		if p.name == "certsitter" && !path.IsAbs(u.path) {
			continue // s6 in one of its folders, which is not shown
		}
		// What was a folder cannot be seen any more if it is gone.
		if p.lacks(u.path, u.needs) != "" && p.lacks(u.path+"/", u.needs) != "" {
			t.Errorf("%s needs %s for %s: %s", u.room, p.lacks(u.path, u.needs), u.path, u.call)
		}
	}
	for room, program := range map[string]string{"certsitter": "/command/s6-svscan", "certsitter//daemon": "/usr/bin/certsitter", "certsitter//daemon//worker": "/usr/bin/certsitter-worker"} {
		if !slices.Contains(starts[room], program) || seen[room] < 5 {
			t.Errorf("in %s %v were started and %d files were used: that is not all", room, starts[room], seen[room])
		}
	}
	t.Logf("files that were used: %v", seen)
}

func debian(path string) bool {
	for _, folder := range []string{"/usr/lib", "/lib", "/etc/ld.so", "/hold"} {
		if strings.HasPrefix(path, folder) {
			return true
		}
	}
	return false
}

// The matcher is right about the forms that the profile uses.
func TestGlobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		glob, path string
		is         bool
	}{
		{"/data/{,**}", "/data/", true},
		{"/data/{,**}", "/data/a/b", true},
		{"/data/{,**}", "/data", false},
		{"/data/{,**}", "/database", false},
		{"/{,usr/}{,local/}{bin,sbin}/**", "/usr/local/bin/x", true},
		{"/{,usr/}{,local/}{bin,sbin}/**", "/bin/", false},
		{"/proc/{1,2}/net/{tcp,tcp6}", "/proc/2/net/tcp6", true},
		{"/proc/[1-9]/fd/", "/proc/7/fd/", true},
		{"/etc/*.conf", "/etc/a/b.conf", false},
		{"/etc/*.conf", "/etc/b.conf", true},
		{"/usr/share/**/locale/**", "/usr/share/a/b/locale/c", true},
	} {
		if got := regexp.MustCompile("^" + translate(c.glob) + "$").MatchString(c.path); got != c.is {
			t.Errorf("%s matches %s: %v, as %s", c.glob, c.path, got, fmt.Sprint(translate(c.glob)))
		}
	}
}
