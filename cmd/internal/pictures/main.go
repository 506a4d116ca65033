// Command pictures takes the pictures of the documentation: it starts a real
// Home Assistant, a broker, and the real daemon with certificates of every
// kind, and looks at them with a browser. Nothing in the pictures is drawn, and
// nothing is asked beyond this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/broker"
	"github.com/certsitter/certsitter/mqtt"
	"github.com/certsitter/certsitter/renew"
	"github.com/certsitter/certsitter/renew/acme"
)

// asWorker is the first argument with which the program starts itself.
const asWorker = "worker"

func main() {
	if len(os.Args) > 1 && os.Args[1] == asWorker {
		os.Exit(serveAsWorker(os.Args[2:]))
	}
	folder := flag.String("folder", filepath.Join("docs", "pictures"), "where the pictures go")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *folder)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

// serveAsWorker is the worker without DNS providers and without messages.
func serveAsWorker(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return worker.Serve(ctx, args, os.Stdin, os.Stdout, worker.BuildVersion(""), worker.Jobs{
		Issue: func(ctx context.Context, r renew.OrderRequest, h worker.Handler) (renew.Issued, error) {
			return acme.Issue(ctx, r, acme.Hooks{Present: h.Present, Account: h.Account, Placed: h.Placed, Progress: h.Progress})
		},
		Revoke: acme.Revoke,
		Grace:  time.Second,
	})
}

func run(ctx context.Context, folder string) (err error) {
	b, err := broker.Start("127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	defer b.Close()
	h, err := startHome(ctx, b.Address())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.remove()) }()
	s, err := newStage(b.URL(), time.Now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	d, err := s.daemon()
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	if err := ready(ctx, d.Sitter); err != nil {
		return err
	}
	if err := h.wait(ctx, "sensor.certsitter_mail_status", "warning"); err != nil {
		return err
	}
	// An event is not kept for those who come later, so there is to be one more.
	if err := h.press(ctx, "button.certsitter_home_renew"); err != nil {
		return err
	}
	if err := h.wait(ctx, "event.certsitter_home_event", "20.*"); err != nil {
		return err
	}
	if err := ready(ctx, d.Sitter); err != nil {
		return err
	}
	if err := h.paste(ctx, mqtt.Dashboard(mqtt.Config{}, d.Sitter.Snapshot().ForBroker(), nil)); err != nil {
		return fmt.Errorf("paste the dashboard: %w", err)
	}
	device, err := h.device(ctx, "certsitter_home")
	if err != nil {
		return err
	}
	return pictures(ctx, folder, h, []subject{
		{"dashboard", h.URL + dashboardPath, 1170, 1860},
		{"device", h.URL + device, 1000, 1480},
		{"page", "http://" + s.page.Addr().String() + "/", 1452, 2880},
	})
}

// A subject is a page to be taken, with the heights that it has on a wide screen
// and on a phone.
type subject struct {
	name, url   string
	wide, phone int64 // pixels
}

// settle is how long a page is given to load and to come to rest. There is
// nothing that says when Home Assistant's has.
const settle = 6 * time.Second

func pictures(ctx context.Context, folder string, h *home, subjects []subject) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	ctx, stop, err := browser(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := do(ctx, logIn(h)); err != nil {
		return err
	}
	for _, s := range subjects {
		for _, shape := range []shape{{"wide", 1280, s.wide, 1}, {"phone", 390, s.phone, 1}} {
			for _, colours := range []string{"light", "dark"} {
				name := s.name + "-" + shape.name + "-" + colours
				if err := do(ctx, shape.viewport(), scheme(colours), chromedp.Navigate(s.url), chromedp.Sleep(settle), take(folder, name)); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				fmt.Println(filepath.Join(folder, name+".png"))
			}
		}
	}
	return nil
}

// readyLimit: an order takes a second, and a first look as long.
const readyLimit = time.Minute

// ready waits until every certificate is what it is to be seen as.
func ready(ctx context.Context, s *sitter.Sitter) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	want := map[string]string{"home": "ok", "cloud": "ok", "mail": "warning", "nas": "expired"}
	for {
		is := map[string]string{}
		for _, c := range s.Snapshot().Certificates {
			if want[c.Name] != c.Status || c.Renewing {
				is[c.Name] = c.Status + ": " + c.LastResult
			}
		}
		if len(is) == 0 && len(s.Snapshot().Certificates) == len(want) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %v the certificates are not as they should be: %v", readyLimit, is)
		}
	}
}
