package image

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's, from here.
const root = "../../.."

// An instruction of the Dockerfile: its word, and the rest of it as one line.
type instruction struct{ word, rest string }

// A stage begins with FROM.
type stage []instruction

// stages reads the Dockerfile. The first one is what stands before any FROM.
func stages(t *testing.T) []stage {
	t.Helper()
	text := readFile(t, "Dockerfile")
	text = regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	all := []stage{nil}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			all = append(all, nil)
		}
		if word != "" {
			all[len(all)-1] = append(all[len(all)-1], instruction{word, rest})
		}
	}
	if len(all) != 3 {
		t.Fatalf("the Dockerfile has %d stages, not two", len(all)-1)
	}
	return all
}

// of are the instructions of one word.
func (s stage) of(word string) (rests []string) {
	for _, i := range s {
		if i.word == word {
			rests = append(rests, i.rest)
		}
	}
	return rests
}

// environment is what ENV and HEALTHCHECK's shell see beside the base's own.
func (s stage) environment() []string {
	var all []string
	for _, rest := range s.of("ENV") {
		all = append(all, strings.Fields(rest)...)
	}
	return all
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A build is one go build of the Dockerfile.
type build struct {
	arguments          []string // with the shell's variables in them
	tags, ldflags, pkg string
}

// builds are the programs that the image has, and how they are built.
func builds(t *testing.T) []build {
	t.Helper()
	var all []build
	for _, run := range stages(t)[1].of("RUN") {
		for command := range strings.SplitSeq(run, ";") {
			if command = strings.TrimSpace(command); !strings.HasPrefix(command, "go build ") {
				continue
			}
			words := shellWords(command)[1:]
			b := build{arguments: words, pkg: words[len(words)-1]}
			for i, word := range words {
				switch word {
				case "-tags":
					b.tags = words[i+1]
				case "-ldflags":
					b.ldflags = words[i+1]
				}
			}
			all = append(all, b)
		}
	}
	if len(all) != 2 {
		t.Fatalf("the Dockerfile builds %v, not two programs", all)
	}
	return all
}

// shellWords splits a command as the shell does, but for its variables.
func shellWords(command string) (words []string) {
	for _, m := range regexp.MustCompile(`(?:[^\s'"]|"[^"]*"|'[^']*')+`).FindAllString(command, -1) {
		words = append(words, strings.NewReplacer(`"`, "", "'", "").Replace(m))
	}
	return words
}

func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	inner, _, _ := strings.Cut(rest, after)
	return inner
}

// The programs of the image are those that make build builds.
func TestBuildsAsMakefileDoes(t *testing.T) {
	t.Parallel()
	makefile := readFile(t, "Makefile")
	tags := regexp.MustCompile(`(?m)^DAEMON\s*:=\s*-tags (\S+)$`).FindStringSubmatch(makefile)
	ldflags := regexp.MustCompile(`(?m)^LDFLAGS\s*:=\s*(.*)$`).FindStringSubmatch(makefile)
	if tags == nil || ldflags == nil {
		t.Fatal("the Makefile does not say DAEMON and LDFLAGS")
	}
	stamped := regexp.MustCompile(`main\.\w+`)
	run := strings.Join(stages(t)[1].of("RUN"), ";")
	if got, want := stamped.FindAllString(run, -1), stamped.FindAllString(ldflags[1], -1); !slices.Equal(got, want) {
		t.Errorf("the Dockerfile stamps %v, the Makefile %v", got, want)
	}
	for i, want := range []build{{tags: tags[1], pkg: "./cmd/certsitter"}, {pkg: "./cmd/certsitter-worker"}} {
		got := builds(t)[i]
		if got.tags != want.tags || got.pkg != want.pkg || got.ldflags != "-s -w $stamp" || !slices.Contains(got.arguments, "-trimpath") {
			t.Errorf("the Dockerfile builds %q, the Makefile %s with the tags %q", got.arguments, want.pkg, want.tags)
		}
	}
	if !slices.Contains(stages(t)[1].environment(), "CGO_ENABLED=0") {
		t.Error("the Dockerfile does not build static programs")
	}
}

// Everything that is compiled or embedded is in the build's context, and what
// is large and not needed is not.
func TestContext(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-C", root, "-deps", "-json=ImportPath,GoFiles,EmbedFiles,Module",
		"-tags", "nethttpomithttp2", "./cmd/certsitter", "./cmd/certsitter-worker").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	ignored := ignoring(t)
	files := []string{"go.mod", "go.sum"}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p struct {
			ImportPath          string
			GoFiles, EmbedFiles []string
			Module              *struct{ Main bool }
		}
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		folder := strings.TrimPrefix(p.ImportPath, "github.com/certsitter/certsitter/")
		for _, f := range append(p.GoFiles, p.EmbedFiles...) {
			files = append(files, path.Join(folder, f))
		}
	}
	tree, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "rootfs").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files = append(files, strings.Fields(string(tree))...)
	if len(files) < 50 {
		t.Fatalf("only %d files are needed?", len(files))
	}
	for _, f := range files {
		if ignored(f) {
			t.Errorf(".dockerignore keeps %s out, which the image needs", f)
		}
	}
	for _, f := range []string{".git/HEAD", "bin/certsitter", "dist/x", "docs/page.png", "certsitter.yaml", "cmd/internal/page/testdata/page.en.html", "renew/cause_test.go"} {
		if !ignored(f) {
			t.Errorf(".dockerignore lets %s in", f)
		}
	}
}

// ignoring reads .dockerignore: the last line that names a path, or a folder
// that it is in, decides.
func ignoring(t *testing.T) func(string) bool {
	t.Helper()
	type line struct {
		pattern *regexp.Regexp
		ignored bool
	}
	var all []line
	for text := range strings.Lines(readFile(t, ".dockerignore")) {
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		pattern, kept := strings.CutPrefix(text, "!")
		expression := regexp.QuoteMeta(pattern)
		expression = strings.ReplaceAll(expression, `\*\*/`, `(.*/)?`)
		expression = strings.ReplaceAll(expression, `\*`, `[^/]*`)
		all = append(all, line{regexp.MustCompile("^" + expression + "(/.*)?$"), !kept})
	}
	return func(name string) (ignored bool) {
		for _, l := range all {
			if l.pattern.MatchString(name) {
				ignored = l.ignored
			}
		}
		return ignored
	}
}

// One base, whoever reads which file.
func TestBase(t *testing.T) {
	t.Parallel()
	base := strings.TrimPrefix(strings.Join(stages(t)[0].of("ARG"), " "), "BUILD_FROM=")
	if !regexp.MustCompile(`^ghcr\.io/home-assistant/base:3\.\d+-\d{4}\.\d+\.\d+$`).MatchString(base) {
		t.Errorf("the base %q is no dated one", base)
	}
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^  (\w+): (\S+)$`).FindAllStringSubmatch(readFile(t, "build.yaml"), -1) {
		found = append(found, m[1])
		if m[2] != base {
			t.Errorf("build.yaml has %s for %s, the Dockerfile %s", m[2], m[1], base)
		}
	}
	if want := []string{"aarch64", "amd64"}; !slices.Equal(found, want) {
		t.Errorf("build.yaml has %v, not %v", found, want)
	}
	if got := stages(t)[2][0]; got != (instruction{"FROM", "${BUILD_FROM}"}) {
		t.Errorf("the image begins with %v", got)
	}
	from := stages(t)[1][0].rest
	if !regexp.MustCompile(`^--platform=\$BUILDPLATFORM golang:\d+\.\d+\.\d+-alpine AS build$`).MatchString(from) {
		t.Errorf("the builder is %q", from)
	}
	// The builder's Go is not older than what go.mod asks for.
	var module, builder [2]int
	_, _ = fmt.Sscanf(between(readFile(t, "go.mod"), "\ngo ", "\n"), "%d.%d", &module[0], &module[1])
	_, _ = fmt.Sscanf(between(from, "golang:", "-"), "%d.%d", &builder[0], &builder[1])
	if module[0] == 0 || builder[0] < module[0] || builder[0] == module[0] && builder[1] < module[1] {
		t.Errorf("go.mod asks for Go %v, the builder has %v", module, builder)
	}
}

// The service as s6-rc-compile wants it, which Debian does not have.
func TestService(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(root, "rootfs/etc/s6-overlay/s6-rc.d")
	want := map[string]string{ // its content; "x" for a program, "" for an empty file
		"certsitter/type":                "longrun\n",
		"certsitter/dependencies.d/base": "",
		"certsitter/run":                 "x",
		"certsitter/finish":              "x",
		"certsitter/timeout-kill":        "7000\n",
		"user/contents.d/certsitter":     "",
	}
	found := 0
	err := filepath.WalkDir(filepath.Join(root, "rootfs"), func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		short, err := filepath.Rel(folder, name)
		content, known := want[short]
		if err != nil || !known {
			t.Errorf("%s: what for?", name)
			return err
		}
		found++
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		switch {
		case err != nil:
			return err
		case strings.Contains(string(text), "\r"):
			t.Errorf("%s has line ends of another system", short)
		case content == "x" && (info.Mode().Perm()&0o111 != 0o111 || !strings.HasPrefix(string(text), "#!")):
			t.Errorf("%s is no program: mode %v", short, info.Mode())
		case content != "x" && string(text) != content:
			t.Errorf("%s has %q, not %q", short, text, content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(want) {
		t.Errorf("%d of %d files are there", found, len(want))
	}
	for _, script := range []string{"certsitter/run", "certsitter/finish"} {
		// with-contenv is a wrapper of the base: the rest is for any POSIX shell.
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join(folder, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}
