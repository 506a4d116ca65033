package settings

import (
	"fmt"
	"image/png"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tracked are the files that somebody's Supervisor gets when it clones the
// repository.
func tracked(t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	if _, err := os.Stat(filepath.Join(appFolder, ".git")); err != nil {
		t.Skip("this is no clone of the repository")
	}
	// Tests that run as root look at a tree that may be somebody else's.
	list, err := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "-C", appFolder, "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 })
}

// found are the files that a glob of the Supervisor like **/config.* finds, with
// an end that it reads. Only the search for apps leaves hidden folders out.
func found(files []string, base string, search bool) []string {
	return slices.DeleteFunc(slices.Clone(files), func(file string) bool {
		parts := strings.Split(file, "/")
		hidden := slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(p, ".") || p == "rootfs" })
		return !strings.HasPrefix(path.Base(file), base+".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(file)) || search && hidden
	})
}

// One file that is called like an app's takes the app's place in everybody's
// store, or breaks the store as a whole.
func TestStoreFindsOneApp(t *testing.T) {
	t.Parallel()
	files := tracked(t)
	for base, search := range map[string]bool{"config": true, "build": false, "repository": false} {
		if got := found(files, base, search); !slices.Equal(got, []string{base + ".yaml"}) {
			t.Errorf("for %s.yaml the store takes %v", base, got)
		}
	}
	for _, name := range []string{
		"apparmor.txt", "CHANGELOG.md", "Dockerfile", "icon.png", "logo.png", "README.md", "translations/de.yaml", "translations/en.yaml",
	} {
		if !slices.Contains(files, name) {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestWhatTheStoreFinds(t *testing.T) {
	t.Parallel()
	files := []string{
		"config.yaml", "docs/config.example.yaml", "x/config.json", "x/config.go", "x/my.config.yaml", "x/config_test.yaml", "x/config.yaml.tmpl",
		".github/config.yml", "rootfs/etc/config.yml", "x/.y/config.json", "x/config.schema.json", "Config.yaml",
	}
	if got := found(files, "config", true); fmt.Sprint(got) != "[config.yaml docs/config.example.yaml x/config.json x/config.schema.json]" {
		t.Errorf("apps: %v", got)
	}
	if got := found([]string{".github/workflows/build.yaml", "build.yaml", "build.sh"}, "build", false); len(got) != 2 {
		t.Errorf("builds: %v", got)
	}
}

// manifestDefaults are the keys of config.yaml, with the default where there is
// one: the app linter refuses a key that says it once more.
var manifestDefaults = map[string]any{
	"name": nil, "version": nil, "slug": nil, "description": nil, "arch": nil, "url": nil, "image": nil, "ports": nil, "map": nil, "services": nil,
	"options": nil, "schema": nil, "panel_title": nil, "ingress_entry": nil, "environment": nil, "homeassistant": nil, "breaking_versions": nil,
	"startup": "application", "boot": "auto", "init": true, "stage": "stable", "ingress": false, "ingress_port": 8099.0, "ingress_stream": false,
	"panel_icon": "mdi:puzzle", "panel_admin": true, "homeassistant_api": false, "hassio_api": false, "hassio_role": "default", "auth_api": false,
	"apparmor": true, "timeout": 10.0, "backup": "hot", "backup_exclude": nil, "tmpfs": false, "journald": false, "stdin": false,
	"host_network": false, "host_pid": false, "host_uts": false, "host_dbus": false, "full_access": false, "docker_api": false, "kernel_modules": false,
	"privileged": nil,
}

const publishedImage = "ghcr.io/certsitter/certsitter"

// manifestMistakes are what the Supervisor or the app linter would say of an
// app's config.yaml, and what our own rules forbid.
func manifestMistakes(manifest map[string]any) []string {
	var out []string
	wrong := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for key, value := range manifest {
		usual, known := manifestDefaults[key]
		switch {
		case !known:
			wrong("%s is not known", key)
		case usual != nil && fmt.Sprint(usual) == fmt.Sprint(value):
			wrong("%s says its default once more", key)
		}
	}
	for key, pattern := range map[string]string{
		"name": `^Certsitter$`, "version": `^\d+\.\d+\.\d+$`, "slug": `^certsitter$`, "description": `^[A-Z].{20,80}[^.]$`, "panel_icon": `^mdi:[a-z-]+$`, "startup": `^services$`,
	} {
		if text, _ := manifest[key].(string); !regexp.MustCompile(pattern).MatchString(text) {
			wrong("%s: %#v", key, manifest[key])
		}
	}
	for key, want := range map[string]any{
		"arch": []any{"aarch64", "amd64"}, "init": false, "ingress": true, "homeassistant_api": true, "services": []any{"mqtt:want"},
		"map": []any{map[string]any{"type": "ssl", "read_only": false}}, "ports": map[string]any{"80/tcp": nil, "443/tcp": nil},
	} {
		if fmt.Sprint(manifest[key]) != fmt.Sprint(want) {
			wrong("%s: %v", key, manifest[key])
		}
	}
	if text, _ := manifest["url"].(string); !webAddress(text) {
		wrong("url: %v", manifest["url"])
	}
	if image, given := manifest["image"]; given && image != publishedImage {
		wrong("image: %v", image)
	}
	if timeout, _ := manifest["timeout"].(float64); timeout < 10 || timeout > 300 || timeout != float64(int(timeout)) {
		wrong("timeout: %v", manifest["timeout"])
	}
	for _, line := range flat("", manifest["schema"]) {
		at, text, _ := strings.Cut(line, ": ")
		if _, err := parseType(text); err != nil || strings.Contains(at, "[][]") {
			wrong("schema%s: %s", at, text)
		}
	}
	slices.Sort(out)
	return out
}

func webAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

func TestManifest(t *testing.T) {
	t.Parallel()
	if got := manifestMistakes(readYAML(t, "config.yaml")); got != nil {
		t.Errorf("config.yaml:\n%s", strings.Join(got, "\n"))
	}
	repository := readYAML(t, "repository.yaml")
	if name, _ := repository["name"].(string); name != "Certsitter" {
		t.Errorf("repository.yaml: name: %v", repository["name"])
	}
	if address, _ := repository["url"].(string); !webAddress(address) || address != readYAML(t, "config.yaml")["url"] {
		t.Errorf("repository.yaml: url: %v", repository["url"])
	}
	for key := range repository {
		if !slices.Contains([]string{"name", "url", "maintainer"}, key) {
			t.Errorf("repository.yaml: %s", key)
		}
	}
}

// Each of these is a mistake that somebody made in an app's config.yaml.
func TestManifestMistakes(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]func(m map[string]any){
		"version: 1.1":         func(m map[string]any) { m["version"] = 1.1 },
		"boot says its":        func(m map[string]any) { m["boot"] = "auto" },
		"ingress_port says":    func(m map[string]any) { m["ingress_port"] = 8099.0 },
		"watchdog is not":      func(m map[string]any) { m["watchdog"] = "http://[HOST]:8099/" },
		"init: true":           func(m map[string]any) { m["init"] = true },
		"ports: ":              func(m map[string]any) { m["ports"] = map[string]any{"80/tcp": 80.0, "443/tcp": nil} },
		"image: ghcr.io/Certs": func(m map[string]any) { m["image"] = "ghcr.io/Certsitter/certsitter" },
		"timeout: 301":         func(m map[string]any) { m["timeout"] = 301.0 },
		"schema.x[][]: str":    func(m map[string]any) { m["schema"] = map[string]any{"x": []any{[]any{"str"}}} },
		"schema.x: date":       func(m map[string]any) { m["schema"] = map[string]any{"x": "date"} },
		"map: ":                func(m map[string]any) { m["map"] = []any{"ssl:rw", "config:rw"} },
	} {
		manifest := readYAML(t, "config.yaml")
		want(manifest)
		if got := strings.Join(manifestMistakes(manifest), "\n"); !strings.Contains(got, change) {
			t.Errorf("%s: got %q", change, got)
		}
	}
}

// rating is the Supervisor's security rating of an installed app
// (supervisor/apps/utils.py), as far as our rules let the keys be.
func rating(manifest map[string]any, profile bool) int {
	if manifest["docker_api"] == true || manifest["full_access"] == true {
		return 1
	}
	stars := 5
	switch {
	case manifest["apparmor"] == false:
		stars--
	case profile:
		stars++
	}
	switch {
	case manifest["ingress"] == true:
		stars += 2
	case manifest["auth_api"] == true:
		stars++
	}
	if manifest["privileged"] != nil || manifest["kernel_modules"] == true {
		stars--
	}
	switch manifest["hassio_role"] {
	case "manager":
		stars--
	case "admin":
		stars -= 2
	}
	if manifest["host_network"] == true {
		stars--
	}
	if manifest["host_pid"] == true {
		stars -= 2
	}
	return max(1, min(8, stars))
}

func TestRating(t *testing.T) {
	t.Parallel()
	manifest := readYAML(t, "config.yaml")
	_, err := os.Stat(filepath.Join(appFolder, "apparmor.txt"))
	if got := rating(manifest, err == nil); got != 8 {
		t.Errorf("the app's rating is %d of 8", got)
	}
	if got := rating(manifest, false); got != 7 {
		t.Errorf("in the store it is %d", got)
	}
	manifest["hassio_role"], manifest["host_network"] = "manager", true
	if got := rating(manifest, true); got != 6 {
		t.Errorf("with a manager's role on the host's network it is %d", got)
	}
}

// The Supervisor puts the app's whole slug where the profile's name is, in the
// one line that names it.
func TestProfileHasTheAppsName(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(appFolder, "apparmor.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^profile ([^ ]+) `).FindAllStringSubmatch(string(text), -1)
	if len(names) != 1 || names[0][1] != "certsitter" {
		t.Errorf("profiles: %q", names)
	}
}

// Older Supervisors take the base from build.yaml, newer ones from the
// Dockerfile.
func TestBuildFile(t *testing.T) {
	t.Parallel()
	build := readYAML(t, "build.yaml")
	dockerfile, err := os.ReadFile(filepath.Join(appFolder, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	from, _ := build["build_from"].(map[string]any)
	if got := slices.Sorted(maps.Keys(from)); !slices.Equal(got, []string{"aarch64", "amd64"}) {
		t.Errorf("build_from: %v", build["build_from"])
	}
	for arch, base := range from {
		name, _ := base.(string)
		m := regexp.MustCompile(`^([a-zA-Z\-.:\d{}]+/)*?([-\w{}]+)/([-\w{}]+):([.\-\w{}]+)$`).FindStringSubmatch(name)
		if m == nil || m[4] == "latest" {
			t.Errorf("build_from: %s: %v is no image with a tag that stays", arch, base)
		}
		if !strings.Contains(string(dockerfile), "\nARG BUILD_FROM="+name+"\n") {
			t.Errorf("the Dockerfile has another base than %s", name)
		}
	}
	for key, value := range build {
		section, ok := value.(map[string]any)
		if !ok || !slices.Contains([]string{"args", "build_from", "labels"}, key) {
			t.Errorf("build.yaml: %s: %v", key, value)
		}
		for k, v := range section {
			if _, isText := v.(string); !isText {
				t.Errorf("build.yaml: %s: %s: %v is no text", key, k, v)
			}
		}
	}
}

// config.yaml is the one place of the version; the changes tell of it, and
// before it is released there is no image to pull.
func TestOneVersion(t *testing.T) {
	t.Parallel()
	manifest := readYAML(t, "config.yaml")
	version, _ := manifest["version"].(string)
	changes, err := os.ReadFile(filepath.Join(appFolder, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(changes), -1) {
		headings = append(headings, m[1])
	}
	here := slices.IndexFunc(headings, func(h string) bool { return slices.Contains(strings.FieldsFunc(h, notVersion), version) })
	if here < 0 {
		t.Fatalf("CHANGELOG.md does not tell of %s: %v", version, headings)
	}
	if here > 1 {
		t.Errorf("CHANGELOG.md tells of more than the next version: %v", headings[:here+1])
	}
	if image, pulled := manifest["image"]; pulled && strings.HasPrefix(headings[here], "Unreleased") {
		t.Errorf("%s is to be pulled, and the changes say %q", image, headings[here])
	}
}

func notVersion(r rune) bool { return r != '.' && (r < '0' || r > '9') }

// The programs get their version from scripts/version, which reads config.yaml.
func TestVersionOfThePrograms(t *testing.T) {
	t.Parallel()
	tracked(t)
	got, err := exec.CommandContext(t.Context(), filepath.Join(appFolder, "scripts/version")).Output()
	if err != nil {
		t.Fatal(err)
	}
	version, _ := readYAML(t, "config.yaml")["version"].(string)
	number, _, _ := strings.Cut(strings.TrimSpace(string(got)), "+")
	// On the commit of a tag it is the tag's, which may be newer.
	if number != version && !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?\n$`).Match(got) {
		t.Errorf("scripts/version says %s, config.yaml %s", got, version)
	}
}

// A release's version is the tag's, whatever config.yaml says yet: it is the last to
// be changed. Debian sorts a candidate before its release only by a tilde.
func TestVersionOfARelease(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ release, programs, debian string }{
		{"7.8.9", "7.8.9", "7.8.9"},
		{"7.8.9-rc1", "7.8.9-rc1", "7.8.9~rc1"},
	} {
		for argument, want := range map[string]string{"": tt.programs, "debian": tt.debian} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(appFolder, "scripts/version"), argument)
			cmd.Env = append(os.Environ(), "VERSION="+tt.release)
			got, err := cmd.Output()
			if err != nil || string(got) != want+"\n" {
				t.Errorf("scripts/version %s of %s: %q, %v; want %s", argument, tt.release, got, err, want)
			}
		}
	}
	// The release gives it to make, which has to hand it on.
	text, err := os.ReadFile(filepath.Join(appFolder, "scripts/deb"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "$(./scripts/version debian)") {
		t.Error("scripts/deb takes its version from elsewhere")
	}
}

// What the release makes of config.yaml is as good, and it can be done again.
func TestPublished(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(appFolder, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copy.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	published := func(version string) error {
		return exec.CommandContext(t.Context(), filepath.Join(appFolder, "scripts/published"), version, file).Run()
	}
	want := readYAML(t, "config.yaml")
	for _, version := range []string{"0.2.0", "1.10.0"} {
		if err := published(version); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := plain(t, text).(map[string]any)
		want["version"], want["image"] = version, publishedImage
		if fmt.Sprint(got) != fmt.Sprint(want) || manifestMistakes(got) != nil {
			t.Errorf("%s:\n%s", version, text)
		}
	}
	before, _ := os.ReadFile(file)
	for version, refused := range map[string]bool{"": true, "v2.0.0": true, "2.0": true, "2.0.0-rc1": true, "2.0.0\nx: y": true, "1.9.0": false} {
		if err := published(version); (err != nil) != refused {
			t.Errorf("%q: %v", version, err)
		}
	}
	if after, _ := os.ReadFile(file); string(after) != string(before) {
		t.Errorf("a refused or an older version changed the file:\n%s", after)
	}
}

// The notes of a release are what the changes tell of it; there is none without.
func TestChangesOfAVersion(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "CHANGELOG.md")
	if err := os.WriteFile(file, []byte("# Changes\n\nText.\n\n## Unreleased (0.3.0)\n\nThird.\n\n## 0.2.0 (2026-12-01)\n\n* Second.\n\n## 0.1.10\n\nFirst.\n\n## 0.1.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"0.2.0": "* Second.\n", "0.1.10": "First.\n", "0.3.0-rc1": "Third.\n", "0.2.0-rc1": "* Second.\n",
		"0.3.0": "", "0.1.1": "", "0.1.0": "", "2.0": "", "0.2": "", "": "",
	} {
		got, err := exec.CommandContext(t.Context(), filepath.Join(appFolder, "scripts/changes"), version, file).Output()
		if strings.TrimSpace(string(got)) != strings.TrimSpace(want) || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", version, got, err)
		}
	}
}

func TestPictures(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]func(w, h int) bool{
		"icon.png": func(w, h int) bool { return w == 128 && h == 128 },
		"logo.png": func(w, h int) bool { return 200 <= w && w <= 320 && 80 <= h && h <= 120 },
	} {
		file, err := os.Open(filepath.Join(appFolder, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		picture, err := png.Decode(file)
		if err != nil {
			t.Fatal(err)
		}
		size := picture.Bounds().Size()
		_, _, _, corner := picture.At(0, 0).RGBA()
		if !good(size.X, size.Y) || corner != 0 {
			t.Errorf("%s is %v, its corner %d", name, size, corner)
		}
	}
}

// Somebody else's action is named by its commit, and a workflow may write only
// where a job says so.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(appFolder, ".github/workflows")
	workflows, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, w := range workflows {
		names = append(names, w.Name())
		text, err := fs.ReadFile(os.DirFS(folder), w.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)uses: *(.*)$`).FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`^([\w./-]+@[0-9a-f]{40} # v?\d+\.\d+\.\d+|\./\.github/workflows/ci\.yaml)$`).MatchString(m[1]) {
				t.Errorf("%s: %s", w.Name(), m[1])
			}
		}
		content := plain(t, text).(map[string]any)
		if got := fmt.Sprint(content["permissions"]); got != "map[contents:read]" {
			t.Errorf("%s: permissions: %s", w.Name(), got)
		}
		for name, v := range content["jobs"].(map[string]any) {
			job := v.(map[string]any)
			limit, _ := job["timeout-minutes"].(float64)
			if called := job["uses"] != nil; !called && (limit == 0 || limit > 120) {
				t.Errorf("%s: %s has no limit of time", w.Name(), name)
			}
		}
	}
	if !slices.Equal(names, []string{"ci.yaml", "release.yaml"}) {
		t.Errorf("workflows: %v", names)
	}
}
