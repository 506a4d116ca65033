package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mostBytes is what the daemon may have as it is shipped.
const mostBytes = 14_000_000

// Where methods may be called by names that are made at run time, the linker has
// to keep every exported method of the whole program: two megabytes of it. So
// does what executes templates, hence nothing here may use text/template or
// html/template. That a library imports them does no harm as long as nothing
// calls that part of it.
func TestDaemonIsSmall(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "certsitter")
	// The linker tells "function -> what it needs", a line each.
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nethttpomithttp2", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -dumpdep", "-o", program, module+"/cmd/certsitter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%.2000s", err, said)
	}
	ours := 0
	for line := range strings.Lines(string(said)) {
		from, to, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		if strings.HasPrefix(from, "main.") {
			ours++
		}
		if callee, yes := strings.CutSuffix(to, " <ReflectMethod>"); yes {
			t.Errorf("%s calls %s, which calls methods by their names", from, callee)
		}
	}
	if ours == 0 {
		t.Errorf("the linker says nothing of this package: %.200s", said)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > mostBytes {
		t.Errorf("the daemon has %d bytes, more than %d", info.Size(), mostBytes)
	}
}
