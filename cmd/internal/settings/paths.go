package settings

import (
	"path/filepath"
	"slices"
	"strings"
)

// AcceptedName is the file in the state folder of an app that holds the options
// that were accepted last.
const AcceptedName = "accepted-options.json"

// ours are the names in the state folder that nothing else may be written to.
var ours = []string{"accounts", "certificates", "state.json", "lock", "control.sock", "options.json", AcceptedName}

// checkTargets makes paths absolute and refuses those that would destroy
// something: another entry's files, certbot's, our own.
func (c *checker) checkTargets(p place, s *Settings, cert *Certificate) {
	cert.Webroot = absolute(c.folder, cert.Webroot)
	if cert.Webroot != "" && cert.Challenge != "http-01" && cert.Challenge != "" {
		p.key("webroot").refuse("is for the challenge http-01, and this is %s: remove it", cert.Challenge)
	}
	folder := s.SSLDir
	if folder == "" {
		if cert.Name == "" {
			return
		}
		folder = filepath.Join(s.StateDir, "live", cert.Name)
		cert.OwnFolder = folder
	}
	for _, t := range []struct {
		key  string
		path *string
	}{
		{"certfile", &cert.CertFile}, {"keyfile", &cert.KeyFile}, {"leaffile", &cert.LeafFile}, {"chainfile", &cert.ChainFile},
		{"combinedfile", &cert.CombinedFile}, {"pkcs12", &cert.PKCS12}, {"keystore", &cert.Keystore},
	} {
		if *t.path == "" {
			continue
		}
		at := p.key(t.key)
		given := *t.path
		*t.path = absolute(folder, given)
		switch {
		case strings.HasSuffix(given, "/"):
			at.refuse("is a folder: name a file in it")
		case !filepath.IsAbs(given) && !inside(folder, *t.path):
			at.refuse("leaves %s: write the whole path", folder)
		case inside("/etc/letsencrypt", *t.path):
			at.refuse("is below /etc/letsencrypt, which certbot looks after: choose another folder; an existing pair is taken over from certfile and keyfile elsewhere")
		case c.isOurs(s.StateDir, *t.path):
			at.refuse("would overwrite Certsitter's own files: choose another folder than %s", s.StateDir)
		default:
			combined := t.key == "keyfile" && cert.KeyFile == cert.CertFile
			c.take(at, *t.path, combined)
		}
	}
}

// take keeps a path for one place. Certificate and key of one entry in the
// same file are wanted.
func (c *checker) take(at place, path string, combined bool) {
	earlier, taken := c.targets[path]
	if !taken {
		c.targets[path] = at
		return
	}
	if combined && strings.TrimSuffix(earlier.path, ".certfile") == strings.TrimSuffix(at.path, ".keyfile") {
		return
	}
	at.refuse("writes %s, and so does %s (line %d): give one of them another path", path, earlier.path, earlier.line)
}

// inside: path is folder or below it. Both are clean.
func inside(folder, path string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

func (c *checker) isOurs(stateDir, path string) bool {
	if configuration, err := filepath.Abs(c.report.file); err == nil && path == configuration {
		return true
	}
	if !inside(stateDir, path) {
		return false
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(path, stateDir), "/")
	first, _, _ := strings.Cut(rest, "/")
	return rest == "" || slices.Contains(ours, first)
}
