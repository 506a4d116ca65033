package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certsitter/certsitter/internal/homeassistant"
)

// waitLimit bounds every wait that has no promise of its own. Nothing waits for
// it unless it fails.
const waitLimit = 40 * time.Second

func TestMain(m *testing.M) { os.Exit(homeassistant.Main(m)) }

// program is the path of one of ours: in bin, where make test-homeassistant has
// built it, or in the folder CERTSITTER_BIN.
func program(t *testing.T, name string) string {
	t.Helper()
	folder := os.Getenv("CERTSITTER_BIN")
	if folder == "" {
		folder = "../../../bin"
	}
	path, err := filepath.Abs(filepath.Join(folder, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("make test-homeassistant builds %s: %v", name, err)
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// eventually polls, and gives how long it took.
func eventually(t *testing.T, what string, limit time.Duration, done func() bool) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if done() {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
