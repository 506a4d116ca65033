package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/certsitter/certsitter/internal/pebble"
)

// harness starts and asks a real Home Assistant; paths are from the
// repository's root, where make runs.
const harness = "internal/homeassistant/harness/home-assistant"

// harnessLimit: an installation takes minutes, and happens once.
const harnessLimit = 10 * time.Minute

// home is a running Home Assistant.
type home struct {
	name  string
	URL   string `json:"url"`
	Token string `json:"token"`
}

// startHome starts a Home Assistant that uses the broker at host:port.
func startHome(ctx context.Context, broker string) (h *home, err error) {
	port, err := pebble.FreePort()
	if err != nil {
		return nil, err
	}
	h = &home{name: fmt.Sprintf("pictures-%d", port)}
	out, err := ask(ctx, "start", h.name, "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--broker", broker)
	if err == nil {
		err = json.Unmarshal(out, h)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Home Assistant: %w", err), h.remove())
	}
	return h, nil
}

func (h *home) remove() error {
	_, err := ask(context.Background(), "remove", h.name) // also after an interrupt
	return err
}

// send performs WebSocket commands and gives the result of the last one.
func (h *home) send(ctx context.Context, commands ...map[string]any) (json.RawMessage, error) {
	arguments := []string{"ask", h.name}
	for _, c := range commands {
		text, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, string(text))
	}
	out, err := ask(ctx, arguments...)
	if err != nil {
		return nil, err
	}
	var results []json.RawMessage
	if err := json.Unmarshal(out, &results); err != nil || len(results) == 0 {
		return nil, fmt.Errorf("answer of Home Assistant: %.200s (%w)", out, err)
	}
	return results[len(results)-1], nil
}

// wait waits until an entity has a state.
func (h *home) wait(ctx context.Context, entity, state string) error {
	_, err := ask(ctx, "wait", h.name, entity, state, "--seconds", "60")
	return err
}

func (h *home) press(ctx context.Context, button string) error {
	_, err := ask(ctx, "call", h.name, "button.press", fmt.Sprintf(`{"entity_id": %q}`, button))
	return err
}

// dashboardPath is where the dashboard is shown.
const dashboardPath = "/home-certificates/certificates"

// paste makes a dashboard of a view, as a person would.
func (h *home) paste(ctx context.Context, view []byte) error {
	var parsed map[string]any
	if err := yaml.Unmarshal(view, &parsed); err != nil {
		return err
	}
	const path = "home-certificates"
	_, err := h.send(ctx,
		map[string]any{"type": "lovelace/dashboards/create", "url_path": path, "title": "Certificates", "icon": "mdi:certificate", "mode": "storage"},
		map[string]any{"type": "lovelace/config/save", "url_path": path, "config": map[string]any{"views": []any{parsed}}})
	return err
}

// device is the path of the page of an MQTT device.
func (h *home) device(ctx context.Context, identifier string) (string, error) {
	out, err := h.send(ctx, map[string]any{"type": "config/device_registry/list"})
	if err != nil {
		return "", err
	}
	var devices []struct {
		ID          string
		Identifiers [][]string
	}
	if err := json.Unmarshal(out, &devices); err != nil {
		return "", err
	}
	for _, d := range devices {
		for _, i := range d.Identifiers {
			if len(i) == 2 && i[1] == identifier {
				return "/config/devices/device/" + d.ID, nil
			}
		}
	}
	return "", fmt.Errorf("no device %s in Home Assistant", identifier)
}

// ask runs a command of the harness.
func ask(ctx context.Context, arguments ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, harnessLimit)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, harness, arguments...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &complaint, time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %s (%w)", arguments[0], bytes.TrimSpace(complaint.Bytes()), err)
	}
	return out.Bytes(), nil
}
