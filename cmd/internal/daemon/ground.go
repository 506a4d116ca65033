package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// ground is what is wrong with the folders that a container was given. It is said
// at the start: later it would cost a certificate.
func (o Options) ground(conf *settings.Settings) []sitter.Problem {
	var all []sitter.Problem
	if o.App {
		if info, err := os.Stat(conf.SSLDir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			all = append(all, sitter.Problem{Code: "ssl_dir", Severity: "warning",
				Text:   fmt.Sprintf("The folder %s is not there, so no certificate can be installed in it.", conf.SSLDir),
				Advice: "Restart the app; if that does not help, reinstall it, since Home Assistant has not given it the folder ssl. If ssl_dir is set, correct it."})
		}
	}
	if o.Image && !o.App && passing(conf.StateDir) {
		all = append(all, sitter.Problem{Code: "state_dir", Severity: "warning",
			Text:   fmt.Sprintf("The state folder %s is no volume: keys, certificates and the account are lost with the container, and CAs refuse too many new ones.", conf.StateDir),
			Advice: fmt.Sprintf("Give the container a volume for it: -v certsitter:%s, or volumes: in compose.yaml.", conf.StateDir)})
	}
	return all
}

// passing tells whether a folder is on the container's own file system, which goes
// with the container. What cannot be found out is taken for lasting.
func passing(folder string) bool {
	if runtime.GOOS != "linux" {
		return false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	if resolved, err := filepath.EvalSymlinks(folder); err == nil {
		folder = resolved
	}
	return mountOf(string(mounts), folder) == "/"
}

// mountOf is the mount point that a folder is below, by the text of
// /proc/self/mountinfo (proc(5)); "" if that has none.
func mountOf(mounts, folder string) string {
	best := ""
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescaped(fields[4])
		below := point == "/" || folder == point || strings.HasPrefix(folder, point+"/")
		if below && len(point) > len(best) {
			best = point
		}
	}
	return best
}

// unescaped is a path in which \040 stands for a space, and the like.
func unescaped(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
