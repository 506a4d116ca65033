package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// As an app the broker is the Supervisor's to name: that it cannot be asked is
// no reason to say that none is configured.
func TestUnpublishAsksTheSupervisor(t *testing.T) {
	t.Setenv("SUPERVISOR_TOKEN", "of two words")
	path := filepath.Join(t.TempDir(), "options.json")
	if err := os.WriteFile(path, []byte(`{"certificates":[],"watch":[],"mqtt":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	code := run(t.Context(), []string{"unpublish", "--config", path}, shell{out: &out, err: &said, getenv: os.Getenv})
	if text := said.String(); code != exitFailed || strings.Contains(text, "no broker is configured") || !strings.Contains(text, "token") {
		t.Errorf("exit code %d, stderr %q", code, text)
	}
}
