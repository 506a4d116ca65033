package image

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// layoutVariable names the folder for both architectures' files, wholly as the
// Dockerfile makes them: make image sets it. Without it the programs are built
// for this machine alone, and with what the other tests have compiled already.
const layoutVariable = "CERTSITTER_LAYOUT"

// Version is what the programs are stamped with.
const version = "0.1.0-test"

var buildOnce sync.Once

// programs is a folder with the image's two programs for this machine.
func programs(t *testing.T) string {
	t.Helper()
	layout := os.Getenv(layoutVariable)
	folder := filepath.Join(layout, runtime.GOARCH, "usr/bin")
	if layout == "" {
		// Kept between the runs: what is up to date is not linked again.
		folder = filepath.Join(root, "dist/test")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		t.Fatal(err)
	}
	buildOnce.Do(func() {
		if layout != "" {
			layOutAll(t, layout)
			return
		}
		for _, b := range builds(t) {
			arguments := []string{"build", "-ldflags", "-s -w " + stamp, "-o", folder + "/"}
			if b.tags != "" {
				arguments = append(arguments, "-tags", b.tags)
			}
			compile(t, runtime.GOARCH, append(arguments, b.pkg))
		}
	})
	for _, b := range builds(t) {
		if program := filepath.Join(folder, filepath.Base(b.pkg)); !exists(program) {
			t.Fatalf("%s is not there", program)
		}
	}
	return folder
}

const stamp = "-X main.version=" + version

// compile runs go for an architecture of Linux.
func compile(t *testing.T, arch string, arguments []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", arguments...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), append(stages(t)[1].environment(), "GOOS=linux", "GOARCH="+arch)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q for %s: %v\n%s", arguments, arch, err, out)
	}
}

// asDockerfile are a build's arguments as the Dockerfile has them.
func (b build) asDockerfile(out string) []string {
	all := slices.Clone(b.arguments)
	for i, argument := range all {
		all[i] = strings.NewReplacer("$stamp", stamp, "$jobs", strconv.Itoa(runtime.NumCPU()), "/out/", out+"/").Replace(argument)
	}
	return all
}

// architectures are those that the app is offered for.
var architectures = []string{"amd64", "arm64"}

// layOutAll puts both architectures' files into a folder as they lie in the
// image.
func layOutAll(t *testing.T, layout string) {
	t.Helper()
	for _, arch := range architectures {
		out := t.TempDir()
		for _, b := range builds(t) {
			compile(t, arch, b.asDockerfile(out))
		}
		top := filepath.Join(layout, arch)
		if err := os.RemoveAll(top); err != nil {
			t.Fatal(err)
		}
		layOut(t, top, out)
	}
}

func TestLayout(t *testing.T) {
	layout := os.Getenv(layoutVariable)
	if layout == "" {
		t.Skip("run by make image")
	}
	programs(t)
	for _, arch := range architectures {
		for _, b := range builds(t) {
			wantStatic(t, filepath.Join(layout, arch, "usr/bin", filepath.Base(b.pkg)), arch)
		}
	}
}

// wantStatic: a stripped program of that architecture that needs no library, and
// names no path of the machine that it was built on.
func wantStatic(t *testing.T, name, arch string) {
	t.Helper()
	program, err := elf.Open(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer program.Close()
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if program.Machine != machines[arch] {
		t.Errorf("%s is for %v, not for %s", name, program.Machine, arch)
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static", name)
		}
	}
	for _, section := range program.Sections {
		if section.Name == ".symtab" || strings.HasPrefix(section.Name, ".debug") {
			t.Errorf("%s is not stripped: it has %s", name, section.Name)
		}
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte(here+"/cmd/")) {
		t.Errorf("%s names the folder that it was built in", name)
	}
}

// The daemon is small enough to be built for the other architecture each time.
func TestOtherArchitecture(t *testing.T) {
	if os.Getenv("NOTHING_LEFT_OUT") != "1" || os.Getenv(layoutVariable) != "" {
		t.Skip("make image builds for all architectures")
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	folder := t.TempDir()
	compile(t, other, builds(t)[0].asDockerfile(folder))
	wantStatic(t, filepath.Join(folder, "certsitter"), other)
}
