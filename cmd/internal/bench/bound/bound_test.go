package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certsitter/certsitter/internal/broker"
)

// A bound that does nothing would make everything look slow.

func TestRetain(t *testing.T) {
	b, err := broker.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := run([]string{"retain", b.Address()}); err != nil {
		t.Fatal(err)
	}
	if payload, ok := b.Retained("bound/state"); !ok || payload != "x" {
		t.Errorf("%q %v is retained", payload, ok)
	}
}

func TestHandshakes(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "https://")
	for _, verb := range []string{"handshakes", "classical"} {
		if err := run([]string{verb, address, address}); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	server.Close()
	if err := run([]string{"handshakes", address}); err == nil {
		t.Error("a handshake with nobody succeeds")
	}
}

func TestFiles(t *testing.T) {
	folder := t.TempDir()
	damaged := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	if err := os.WriteFile(filepath.Join(folder, "a.pem"), []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"files", folder}); err == nil {
		t.Error("a damaged certificate is not seen, so none is parsed")
	}
}

func TestWrongVerb(t *testing.T) {
	for _, args := range [][]string{nil, {"nothing"}} {
		if err := run(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
