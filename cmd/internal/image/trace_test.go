package image

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tracedCalls are those that AppArmor has a say in, and those that make
// processes or change whose they are. Looking at a file's status is always allowed.
const tracedCalls = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat," +
	"chmod,fchmodat,chown,lchown,fchownat,truncate,utimensat,flock,bind,connect,execve,execveat,clone,clone3,fork,vfork,setuid"

// A use is what a process of a room did with a file.
type use struct{ room, path, needs, call string }

var (
	tracedLine = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	unfinished = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	quoted     = regexp.MustCompile(`(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"`)
	socketPath = regexp.MustCompile(`sun_path="([^"]+)"`)
	described  = regexp.MustCompile(`^\d+<(/[^>]*)>`)
)

// readTrace gives what was done with files, by whom, and which programs were
// started in which room. enter says in which room a program runs that a process
// of a room starts.
func readTrace(t *testing.T, c *container, enter func(room, program string) string) (uses []use, starts map[string][]string) {
	t.Helper()
	lines := wholeLines(t, c.trace)
	parents := map[string]string{}
	for _, m := range lines {
		if made[m[2]] {
			parents[m[4]] = m[1]
		}
	}
	rooms := map[string]string{}
	var room func(process string) string
	room = func(process string) string {
		if _, known := rooms[process]; !known {
			rooms[process] = "certsitter" // the first one
			if parent, known := parents[process]; known {
				rooms[process] = room(parent)
			}
		}
		return rooms[process]
	}
	starts = map[string][]string{}
	for _, m := range lines {
		process, name, arguments, result := m[1], m[2], m[3], m[4]
		here := room(process)
		if strings.HasPrefix(result, "-") || made[name] {
			continue
		}
		if name == "execve" {
			program := c.inside(unquote(arguments))
			if !path.IsAbs(program) {
				continue // s6's ./run and ./finish: the folder is not shown
			}
			next := enter(here, program)
			if next == "" {
				t.Errorf("%s must not start %s", here, program)
			}
			rooms[process] = next
			starts[next] = append(starts[next], program)
			continue
		}
		for _, u := range c.usesOf(name, arguments) {
			u.room, u.call = here, m[0]
			uses = append(uses, u)
		}
	}
	if len(lines) < 100 || len(uses) < 50 {
		t.Fatalf("strace saw %d calls and %d uses of files: that is not all", len(lines), len(uses))
	}
	return uses, starts
}

var made = map[string]bool{"clone": true, "clone3": true, "fork": true, "vfork": true}

// wholeLines are the calls, each in one piece: process, name, arguments, result.
func wholeLines(t *testing.T, file string) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begun := map[string]string{}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if m := unfinished.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + begun[m[1]] + m[2]
		}
		if m := tracedLine.FindStringSubmatch(line); m != nil {
			all = append(all, m)
		}
	}
	return all
}

func unquote(arguments string) string {
	m := quoted.FindStringSubmatch(arguments)
	if m == nil {
		return ""
	}
	return m[2]
}

// inside is a path as the container has it.
func (c *container) inside(name string) string {
	if short, below := strings.CutPrefix(name, c.root); below && (short == "" || short[0] == '/') {
		return "/" + strings.TrimPrefix(short, "/")
	}
	return name
}

// usesOf says which permissions a call needed, for which paths.
func (c *container) usesOf(name, arguments string) []use {
	if name == "bind" || name == "connect" {
		if m := socketPath.FindStringSubmatch(arguments); m != nil && path.IsAbs(m[1]) {
			return []use{{path: m[1], needs: map[string]string{"bind": "w", "connect": "rw"}[name]}}
		}
		return nil
	}
	if name == "flock" {
		if m := described.FindStringSubmatch(arguments); m != nil {
			return []use{{path: c.inside(m[1]), needs: "k"}}
		}
		return nil
	}
	var paths []string
	for _, m := range quoted.FindAllStringSubmatch(arguments, -1) {
		paths = append(paths, c.named(m[1], m[2]))
	}
	if len(paths) == 0 {
		return nil
	}
	switch {
	case strings.HasPrefix(name, "open"):
		return []use{{path: paths[0], needs: opening(arguments)}}
	case strings.HasPrefix(name, "rename") && len(paths) == 2:
		return []use{{path: paths[0], needs: "rw"}, {path: paths[1], needs: "w"}}
	case strings.HasPrefix(name, "link") && len(paths) == 2:
		return []use{{path: paths[0], needs: "r"}, {path: paths[1], needs: "wl"}}
	case strings.HasPrefix(name, "symlink") && len(paths) == 2:
		return []use{{path: paths[1], needs: "w"}}
	default: // it makes, changes or removes one
		return []use{{path: paths[0], needs: "w"}}
	}
}

// named is a path with the folder that it is below of, a folder's with a slash.
func (c *container) named(folder, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(c.inside(folder), name)
	}
	name = path.Clean(name)
	if info, err := os.Stat(filepath.Join(c.root, name)); err == nil && info.IsDir() && name != "/" {
		name += "/"
	}
	return resolved(name)
}

// resolved names a process's own files as the kernel does.
func resolved(name string) string {
	if rest, own := strings.CutPrefix(name, "/proc/self/"); own {
		return "/proc/7/" + rest
	}
	return name
}

// opening is what the flags of open ask for.
func opening(arguments string) string {
	needs := "r"
	switch {
	case strings.Contains(arguments, "O_PATH"):
		return ""
	case strings.Contains(arguments, "O_WRONLY"):
		needs = "w"
	case strings.Contains(arguments, "O_RDWR"):
		needs = "rw"
	}
	if strings.Contains(arguments, "O_CREAT") && !strings.Contains(needs, "w") {
		needs += "w"
	}
	return needs
}
