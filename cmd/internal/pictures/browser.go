package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// stepLimit bounds each thing that the browser is asked to do. Home Assistant's
// frontend takes seconds on a busy machine.
const stepLimit = 60 * time.Second

// browser starts a headless Chromium that talks to nobody but this machine.
func browser(ctx context.Context) (context.Context, context.CancelFunc, error) {
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		return nil, nil, errors.New("no Chromium on this machine: install the package chromium")
	}
	profile, err := os.MkdirTemp("", "certsitter-pictures-browser-")
	if err != nil {
		return nil, nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // root and containers have none; it sees nothing but our own pages
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Flag("hide-scrollbars", true),
	)
	ctx, stopAllocator := chromedp.NewExecAllocator(ctx, options...)
	ctx, stop := chromedp.NewContext(ctx)
	end := func() {
		stop()
		stopAllocator()
		_ = os.RemoveAll(profile)
	}
	if _, err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil {
		end()
		return nil, nil, fmt.Errorf("start Chromium: %w", err)
	}
	return ctx, end, nil
}

// do runs steps one after another.
func do(ctx context.Context, steps ...chromedp.Action[chromedp.Void]) error {
	for i, step := range steps {
		limited, cancel := context.WithTimeout(ctx, stepLimit)
		err := chromedp.Do(limited, step)
		cancel()
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// logIn makes every page of this browser find a session, as the welcome page
// would leave it.
func logIn(h *home) chromedp.Action[chromedp.Void] {
	session, _ := json.Marshal(map[string]any{ // texts and numbers: it cannot fail
		"access_token": h.Token, "token_type": "Bearer", "expires_in": 86400, "hassUrl": h.URL, "clientId": h.URL + "/",
		"expires": time.Now().Add(day).UnixMilli(), "refresh_token": "",
	})
	source := fmt.Sprintf("if (location.origin === %q) localStorage.setItem('hassTokens', %q)", h.URL, session)
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: source})
		return err
	})
}

// scheme sets what prefers-color-scheme answers.
func scheme(value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
		})
		return err
	})
}

// A shape is the window of a device.
type shape struct {
	name          string
	width, height int64
	scale         float64
}

func (s shape) viewport() chromedp.Action[chromedp.Void] {
	return chromedp.EmulateViewport(s.width, s.height, chromedp.EmulateScale(s.scale))
}

// take writes what can be seen.
func take(folder, name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		picture, err := chromedp.CaptureScreenshot()(ctx, t)
		if err == nil {
			picture, err = smaller(picture)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644)
	})
}
