package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	_ "time/tzdata" // images and routers often have no zone data of their own
)

// complete fills in package os for the functions that are nil.
func (e Environment) complete() Environment {
	if e.Getenv == nil {
		e.Getenv = os.Getenv
	}
	if e.ReadFile == nil {
		e.ReadFile = os.ReadFile
	}
	if e.Stat == nil {
		e.Stat = os.Stat
	}
	return e
}

// Load reads, checks and resolves the configuration file. The error is a
// *Refusal with every mistake that was found.
func Load(path string, e Environment) (*Settings, error) {
	e = e.complete()
	data, err := e.ReadFile(path)
	if err != nil {
		return nil, &Refusal{[]Mistake{{File: path, Sentence: unreadableConfiguration(err)}}}
	}
	return Parse(path, data, e)
}

func unreadableConfiguration(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file: write one, or name yours with --config"
	case errors.Is(err, fs.ErrPermission):
		return "may not be read by the user that this runs as: run it with sudo, or give the file to that user"
	}
	return fmt.Sprintf("can not be read: %s", reason(err))
}

// Parse is Load for a configuration that was read already, like the last
// accepted one. Paths in it are relative to the folder of path, and as an app
// to /ssl.
func Parse(path string, data []byte, e Environment) (*Settings, error) {
	e = e.complete()
	report := newReport(path)
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		folder = filepath.Dir(path)
	}
	if e.App {
		folder = e.defaults().sslDir
	}

	r := reader{env: e, report: report, folder: folder}
	root := r.read(data)
	if root == nil && len(report.mistakes) > 0 {
		return nil, report.refusal()
	}
	if root == nil || root.kind == null {
		root = &node{kind: section, line: 1}
	}
	top := place{node: root, line: 1, report: report}
	if root.kind != section {
		top.refuse("a configuration is a section of keys, and this is %s", root.kind)
		return nil, report.refusal()
	}

	s := &Settings{File: path, Location: zone(e.Getenv("TZ"), report)}
	decodeSection(serviceFields(), s, root, top, rules{app: e.App})
	c := checker{env: e, report: report, top: top, folder: folder}
	c.check(s)
	if err := report.refusal(); err != nil {
		return nil, err
	}
	return s, nil
}

// zone is the location that TZ names. ":/etc/localtime" and the like are
// glibc's way to say the system's.
func zone(tz string, report *report) *time.Location {
	name := strings.TrimPrefix(tz, ":")
	if _, after, ok := strings.Cut(name, "/zoneinfo/"); ok {
		name = after
	}
	if name == "" || name == "/etc/localtime" {
		return time.Local
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		report.mistakes = append(report.mistakes, Mistake{File: "the environment", Key: "TZ",
			Sentence: fmt.Sprintf("%.60q is no time zone: needs one like Europe/Berlin", tz)})
		return time.UTC
	}
	return loc
}

// checker checks what one value alone can not show, and resolves.
type checker struct {
	env    Environment
	report *report
	top    place
	folder string // relative paths of files that are read are in it

	generalRoots []byte
	names        map[string]place // taken by certificates and watch
	targets      map[string]place // paths that are written
}

func (c *checker) check(s *Settings) {
	c.names, c.targets = map[string]place{}, map[string]place{}
	c.checkService(s)
	list := c.top.key("certificates")
	for i := range s.Certificates {
		if p := list.named(i); p.node.isSection() {
			c.checkCertificate(p, s, &s.Certificates[i])
		}
	}
	list = c.top.key("watch")
	for i := range s.Watch {
		if p := list.named(i); p.node.isSection() {
			c.checkWatch(p, s, &s.Watch[i])
		}
	}
	c.checkUnusedRoots(s)
	c.checkPorts(s)
}

func (n *node) isSection() bool { return n != nil && n.kind == section }

// checkService checks what stands at the top of the file.
func (c *checker) checkService(s *Settings) {
	defaults := c.env.defaults()
	s.StateDir = absolute(c.folder, cmp.Or(s.StateDir, defaults.stateDir))
	s.SSLDir = absolute(c.folder, cmp.Or(s.SSLDir, defaults.sslDir))
	s.Listen = cmp.Or(s.Listen, defaults.listen)

	c.generalRoots = c.checkAuthority(c.top, s.CA, s.CARoots, s.EABKid, s.EABHMAC)
	checkDays(c.top, s.WarnDays, s.CriticalDays)
	s.Resolvers = checkResolvers(c.top.key("resolvers"), s.Resolvers)
	checkNotify(c.top.key("notify"), s.Notify)
	c.checkHomeAssistant(s)
	if s.HeartbeatURL != "" {
		if err := checkWebURL(s.HeartbeatURL); err != nil {
			c.top.key("heartbeat_url").refuse("%s", err)
		}
	}
	c.checkMQTT(c.top.key("mqtt"), &s.MQTT)
	if err := checkListen(s.Listen); err != nil {
		c.top.key("listen").refuse("%s", err)
	}
}

func checkDays(p place, warn, critical int) {
	if warn <= critical && p.key("warn_days").ok() {
		p.key("critical_days").refuse("%d is not below warn_days (%d): a warning comes first", critical, warn)
	}
}

// checkResolvers gives name servers with their ports.
func checkResolvers(p place, servers []string) []string {
	out := make([]string, len(servers))
	for i, s := range servers {
		at := p.item(i)
		if !at.ok() {
			continue
		}
		address := s
		if isIP(strings.Trim(s, "[]")) {
			address = net.JoinHostPort(strings.Trim(s, "[]"), "53")
		} else if !strings.Contains(s, ":") {
			address = s + ":53"
		}
		if err := checkHostPort(address); err != nil {
			at.refuse("is no name server: needs an address like 192.0.2.53, with a port if it is not 53")
		}
		out[i] = address
	}
	return out
}

// publicResolvers are asked where nothing else is said: name servers of a home
// network often have their own idea of the public zone.
var publicResolvers = []string{"1.1.1.1:53", "9.9.9.9:53", "8.8.8.8:53"}

func checkListen(s string) error {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("needs host:port, like 127.0.0.1:8099, or :8099 for every address")
	}
	if _, err := portNumber(digits, 0); err != nil {
		return err
	}
	if host == "" {
		return nil
	}
	return checkDialled(host)
}

// checkPorts refuses two listeners on one port.
func (c *checker) checkPorts(s *Settings) {
	if s.HTTPPort == s.TLSPort {
		c.top.key("tls_port").refuse("%d is http_port as well: they need different ports", s.TLSPort)
		return
	}
	_, digits, _ := net.SplitHostPort(s.Listen)
	page, err := portNumber(digits, 1)
	if err != nil {
		return
	}
	for _, cert := range s.Certificates {
		taken := cert.Challenge == "http-01" && cert.Webroot == "" && page == s.HTTPPort ||
			cert.Challenge == "tls-alpn-01" && page == s.TLSPort
		if taken {
			c.top.key("listen").refuse("takes port %d, on which %s challenges are answered: give the page another one", page, cert.Challenge)
			return
		}
	}
}

// checkUnusedRoots refuses roots at the top that hold for no certificate,
// since somebody believes that they do.
func (c *checker) checkUnusedRoots(s *Settings) {
	at := c.top.key("ca_roots")
	if s.CARoots == "" || !at.ok() || len(s.Certificates) == 0 {
		return
	}
	if d, err := directoryOf(s.CA); err != nil || stagings[d] == "" {
		return
	}
	for _, cert := range s.Certificates {
		if cert.Private {
			return
		}
	}
	at.refuse("is for a private CA, and all certificates are from %s: name the private CA in ca, or remove ca_roots", s.CA)
}

// reservedName: topics of our own have these names.
func reservedName(name string) bool {
	return name == "lowest" || name == "service" || strings.HasPrefix(name, "target_")
}

func (c *checker) checkName(p place, name string) {
	at := p.key("name")
	switch earlier, taken := c.names[name]; {
	case !at.ok():
	case name == "":
		at.refuse("is missing: give it a short name of %s", nameShape)
	case reservedName(name):
		at.refuse("%q is kept for Certsitter's own topics: choose another name", name)
	case taken:
		at.refuse("%q is taken by %s (line %d): every name is used once", name, earlier.path, earlier.line)
	default:
		c.names[name] = place{path: p.path, line: at.line}
	}
}

func (c *checker) checkWatch(p place, s *Settings, w *Watch) {
	c.checkName(p, w.Name)
	c.checkSource(p, w)
	w.Roots = c.roots(p.key("ca_roots"), w.CARoots)
	w.CARoots = absolute(c.folder, w.CARoots)
	if !p.key("warn_days").given() {
		w.WarnDays = s.WarnDays
	}
	if !p.key("critical_days").given() {
		w.CriticalDays = s.CriticalDays
	}
	checkDays(p, w.WarnDays, w.CriticalDays)
}

func (c *checker) checkCertificate(p place, s *Settings, cert *Certificate) {
	c.checkName(p, cert.Name)
	challenge := p.key("challenge")
	if cert.Challenge == "" && challenge.ok() {
		cert.Challenge = c.env.defaults().challenge
		if cert.Challenge == "" {
			challenge.refuse("is missing: choose http-01, dns-01 or tls-alpn-01")
		}
	}
	cert.Roots = c.checkAuthority(p, cert.CA, cert.CARoots, cert.EABKid, cert.EABHMAC)
	c.resolveAuthority(p, s, cert)
	c.checkDomains(p, cert)
	c.checkProvider(p, cert)
	c.checkTargets(p, s, cert)
	checkEndpoints(p, cert)
	c.checkActions(p, cert)

	cert.env = nil
	cert.Resolvers = s.Resolvers
	if len(cert.Resolvers) == 0 && !cert.Private {
		cert.Resolvers = publicResolvers
	}
}

// checkActions refuses commands where somebody else could write them.
func (c *checker) checkActions(p place, cert *Certificate) {
	why := ""
	for i, a := range cert.After {
		at := p.key("after").item(i)
		if a.Kind != RunCommand || !at.ok() {
			continue
		}
		if c.env.App {
			at.refuse("can not be used in the app: its container holds nothing of yours to run; use restart app, or an automation of Home Assistant")
			continue
		}
		if why == "" {
			why = cmp.Or(c.writers(), "nobody")
		}
		if why != "nobody" {
			at.refuse("run is refused, since %s", why)
		}
	}
}

// writers says who else may write the configuration file, as the end of a
// sentence with what to do; empty if nobody may.
func (c *checker) writers() string {
	path := c.report.file
	info, err := c.env.Stat(path)
	if err != nil {
		return "" // it was read through something else, by ourselves
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Sprintf("others may write %s: chmod go-w it", path)
	}
	// In the image the file is the host's, whose user ids say nothing here.
	if owner, ok := ownerOf(info); ok && !c.env.Image && owner != 0 && owner != c.env.User {
		return fmt.Sprintf("%s belongs to another user (%d): chown it to root or to the daemon's user", path, owner)
	}
	folder := filepath.Dir(path)
	if info, err := c.env.Stat(folder); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Sprintf("everybody may replace files in %s: chmod o-w it", folder)
	}
	return ""
}
