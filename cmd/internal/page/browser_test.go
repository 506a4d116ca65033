package page

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browser starts a headless Chromium that talks to nobody but this machine.
func browser(t *testing.T) context.Context {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("no Chromium on this machine: the page is not tried in a browser")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], // without background networking already
		chromedp.ExecPath(program),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // root and containers have none; it sees nothing but our page
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Env("TZ=UTC"),
	)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	return ctx
}

// start serves on a free port of this machine until the test ends.
func start(t *testing.T, s *Server) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// shot writes a screenshot for people into the folder CERTSITTER_SCREENSHOTS.
func shot(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		folder := os.Getenv("CERTSITTER_SCREENSHOTS")
		if folder == "" {
			return nil
		}
		png, err := chromedp.FullScreenshot(100)(ctx, t)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644)
	})
}

// scheme sets what prefers-color-scheme answers.
func scheme(value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
		})
		return err
	})
}

// do runs steps of at most half a minute.
func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for i, step := range steps {
		if err := within(ctx, func(ctx context.Context) error { return chromedp.Do(ctx, step) }); err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

func value[T any](t *testing.T, ctx context.Context, a chromedp.Action[T]) (v T) {
	t.Helper()
	err := within(ctx, func(ctx context.Context) (err error) {
		v, err = chromedp.Run(ctx, a)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return f(ctx)
}

func TestBrowser(t *testing.T) {
	ctx := browser(t)
	loop := newFake(sample())
	asked := make(chan sitter.RenewOptions, 1)
	loop.renew = func(name string, o sitter.RenewOptions) error {
		if name != "cloud" {
			return &sitter.Refused{Code: "too_soon", Sentence: name + " was renewed a moment ago.", Until: noon.Add(time.Minute)}
		}
		asked <- o
		return nil
	}
	restarts := make(chan bool, 1)
	loop.restart = func() error { restarts <- true; return nil }
	address := start(t, newServer(Config{Downloads: downloads()}, loop))
	if _, err := chromedp.Run(ctx, chromedp.Navigate("about:blank")); err != nil { // the browser lives as long as this context
		t.Fatal(err)
	}

	t.Run("renew now", func(t *testing.T) {
		do(t, ctx, scheme("light"), chromedp.EmulateViewport(1200, 900),
			chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("#renew-cloud"), shot("light"))
		<-loop.joined // its stream is open
		do(t, ctx, chromedp.Click("#renew-cloud"), chromedp.WaitVisible("#said"))
		if o := <-asked; !o.Force || o.DryRun || o.Staging {
			t.Errorf("the button asked for %+v", o)
		}
		if text := value(t, ctx, chromedp.Text("#said")); text != english().RenewSaid {
			t.Errorf("the page says %q", text)
		}

		going := sample()
		going.Certificates[1].Renewing, going.Certificates[1].Step = true, "Waiting for the DNS records to be seen."
		loop.become(going)
		loop.tell(sitter.Event{Time: noon, Name: "cloud", Kind: "started", Text: "Asking Let's Encrypt for a certificate."})
		loop.tell(sitter.Event{Time: noon, Name: "cloud", Kind: "progress", Text: "Waiting for the DNS records to be seen."})
		loop.tell(sitter.Event{Kind: "state"})
		do(t, ctx, chromedp.WaitVisible("#cert-cloud[data-renewing] .run li:nth-child(2)"), shot("progress"))
		text := value(t, ctx, chromedp.Text("#cert-cloud .run"))
		if !strings.Contains(text, "Asking Let's Encrypt") || !strings.Contains(text, "Waiting for the DNS") {
			t.Errorf("progress shows %q", text)
		}

		done := sample()
		done.Certificates[1].Status, done.Certificates[1].Problem, done.Certificates[1].Problems = "ok", false, nil
		done.Certificates[1].DaysLeft, done.Certificates[1].NotAfter = days(89), noon.Add(89*24*time.Hour+time.Hour)
		loop.become(done)
		loop.tell(sitter.Event{Time: noon, Name: "cloud", Kind: "renewed", Text: "The new certificate is in use."})
		loop.tell(sitter.Event{Kind: "state"})
		do(t, ctx, chromedp.WaitVisible("#cert-cloud.ok .run li:nth-child(3)"))
		if text := value(t, ctx, chromedp.Text("#cert-cloud .left")); !strings.Contains(text, "89") {
			t.Errorf("after the renewal the card says %q", text)
		}
		loop.become(sample())
	})

	t.Run("refusal", func(t *testing.T) {
		do(t, ctx, chromedp.Click("#renew-home"), chromedp.WaitVisible("#said.bad"))
		if text := value(t, ctx, chromedp.Text("#said")); text != "home was renewed a moment ago." {
			t.Errorf("the page says %q", text)
		}
	})

	t.Run("restart Home Assistant", func(t *testing.T) {
		for len(loop.joined) > 0 { // of earlier pages
			<-loop.joined
		}
		do(t, ctx, chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("#restart-cloud"))
		<-loop.joined
		do(t, ctx, chromedp.Click("#restart-cloud"), chromedp.WaitVisible("#said:not(.bad)"))
		<-restarts
		if text := value(t, ctx, chromedp.Text("#said")); text != english().RestartSaid {
			t.Errorf("the page says %q", text)
		}
		going := sample()
		going.Restarting = true
		loop.become(going)
		loop.tell(sitter.Event{Time: noon, Name: "cloud", Kind: "restart", Text: "Restarting Home Assistant."})
		do(t, ctx, chromedp.WaitVisible("#restart-cloud:disabled"), chromedp.WaitVisible("#cert-cloud .run li"), shot("restarting"))
		if text := value(t, ctx, chromedp.Text("#cert-cloud")); !strings.Contains(text, english().Restarting) || strings.Contains(text, english().Renewing) {
			t.Errorf("meanwhile the card says %q", text)
		}
		done := sample()
		done.Asks = nil
		loop.become(done)
		loop.tell(sitter.Event{Time: noon, Name: "cloud", Kind: "deployed", Text: "Every endpoint serves the new certificate."})
		do(t, ctx, chromedp.WaitNotPresent("#restart-cloud"))
		loop.become(sample())
	})

	t.Run("copy", func(t *testing.T) {
		const button, text = "#copy-dashboard\\.yaml", "title: \"Certificates\" # <b>\n"
		prepare := func(script string) {
			t.Helper()
			do(t, ctx, chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible(button))
			_ = value(t, ctx, chromedp.Evaluate[int]("(() => { "+script+" })(), 0"))
			do(t, ctx, chromedp.Click(button))
		}
		copied := func(want string) {
			t.Helper()
			if got := value(t, ctx, chromedp.Poll[string]("window.copied")); got != want {
				t.Errorf("copied %q", got)
			}
			do(t, ctx, chromedp.WaitVisible("#said:not(.bad)"), chromedp.WaitNotPresent("dialog"))
			if got := value(t, ctx, chromedp.Text("#said")); got != english().Copied {
				t.Errorf("the page says %q", got)
			}
		}
		const none = "Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true }); "
		prepare("Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (t) => { window.copied = t; } }, configurable: true });")
		copied(text)
		// Over plain http a page has none.
		prepare(none + "document.addEventListener('copy', () => { const a = document.activeElement; window.copied = a.value.slice(a.selectionStart, a.selectionEnd); });")
		copied(text)
		// And where nothing is allowed, it is selected for a person.
		prepare(none + "document.execCommand = () => false;")
		do(t, ctx, chromedp.WaitVisible("dialog textarea"), shot("copy"))
		if got := value(t, ctx, chromedp.Evaluate[string]("(() => { const a = document.activeElement; return a.value.slice(a.selectionStart, a.selectionEnd); })()")); got != text {
			t.Errorf("selected %q", got)
		}
		if got := value(t, ctx, chromedp.Text("dialog p")); got != english().CopyByHand {
			t.Errorf("it says %q", got)
		}
		do(t, ctx, chromedp.Click("dialog button"), chromedp.WaitNotPresent("dialog"))
	})

	t.Run("without the script", func(t *testing.T) {
		// form.submit() passes the page's script by, as a browser without
		// JavaScript does.
		press := func(button string) chromedp.Action[chromedp.Void] {
			return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
				_, err := chromedp.Evaluate[int]("document.getElementById('"+button+"').form.submit(), 0")(ctx, t)
				return err
			})
		}
		do(t, ctx, chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("#restart-cloud"), press("restart-cloud"), chromedp.WaitVisible("#said:not(.bad)"))
		<-restarts
		if at := value(t, ctx, chromedp.Location()); at != "http://"+address+"/?done=restart" {
			t.Errorf("after the restart's button the browser is at %s", at)
		}
		do(t, ctx, press("renew-cloud"), chromedp.WaitVisible("#said:not(.bad)"))
		<-asked
		if at := value(t, ctx, chromedp.Location()); at != "http://"+address+"/?done=renew" {
			t.Errorf("after the button the browser is at %s", at)
		}
		do(t, ctx, press("renew-home"), chromedp.WaitVisible("main a"), shot("refused"))
		if text := value(t, ctx, chromedp.Text("main")); !strings.Contains(text, "home was renewed a moment ago.") {
			t.Errorf("the refusal shows %q", text)
		}
		do(t, ctx, chromedp.Click("main a"), chromedp.WaitVisible("#renew-cloud"))
		if at := value(t, ctx, chromedp.Location()); at != "http://"+address+"/" {
			t.Errorf("the way back leads to %s", at)
		}
	})

	t.Run("in Home Assistant's frame", func(t *testing.T) {
		const path = "/api/hassio_ingress/t0ken"
		inner := newServer(Config{App: true, Downloads: downloads()}, loop).Handler()
		outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" { // Home Assistant shows apps in a frame of its own origin
				w.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(w, `<iframe src="`+path+`/" width="1000" height="900"></iframe>`)
				return
			}
			r.RemoteAddr = "172.30.32.2:40000"
			r.Header.Set("X-Ingress-Path", path)
			r.Header.Set("X-Forwarded-For", "192.168.1.20")
			http.StripPrefix(path, inner).ServeHTTP(w, r)
		}))
		defer outer.Close()
		defer outer.CloseClientConnections() // the stream
		inside := func(script string) chromedp.Action[string] {
			return chromedp.Poll[string]("(() => { const d = document.querySelector('iframe').contentDocument; " + script + " })()")
		}
		do(t, ctx, chromedp.Navigate(outer.URL))
		if got := value(t, ctx, inside("const b = d.getElementById('renew-cloud'); if (b) { b.click(); return 'pressed'; }")); got != "pressed" {
			t.Fatal(got)
		}
		<-asked
		if got := value(t, ctx, inside("const s = d.getElementById('said'); if (!s.hidden) return s.textContent;")); got != english().RenewSaid {
			t.Errorf("the page says %q", got)
		}
		value(t, ctx, inside("d.getElementById('restart-cloud').click(); return 'pressed';"))
		<-restarts
		if got := value(t, ctx, inside("const a = d.querySelector('.files a'); if (a) return a.href;")); got != outer.URL+path+"/files/dashboard.yaml" {
			t.Errorf("the file is at %s", got)
		}
		if got := value(t, ctx, inside("return getComputedStyle(d.querySelector('.card')).display;")); got != "flex" {
			t.Errorf("without its style sheet: %s", got)
		}
		value(t, ctx, inside("d.getElementById('renew-cloud').form.submit(); return 'sent';"))
		<-asked
		if got := value(t, ctx, inside("if (d.location.search) return d.location.pathname + d.location.search;")); got != path+"/?done=renew" {
			t.Errorf("without the script the button leads to %s", got)
		}
	})

	t.Run("no sideways scrolling", func(t *testing.T) {
		for _, width := range []int64{320, 360, 768, 1200} {
			do(t, ctx, chromedp.EmulateViewport(width, 800), chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("#renew-cloud"))
			_ = value(t, ctx, chromedp.Evaluate[int]("document.querySelectorAll('details').forEach(d => d.open = true), 0"))
			wide := value(t, ctx, chromedp.Evaluate[[]string]("[...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + .5).map(e => e.tagName + '.' + e.className)"))
			if got := value(t, ctx, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")); got > width {
				t.Errorf("at %d pixels the page is %d wide because of %q", width, got, wide)
			}
		}
	})

	t.Run("hostile names", func(t *testing.T) {
		loop.become(hostile())
		for len(loop.joined) > 0 { // of earlier pages
			<-loop.joined
		}
		do(t, ctx, chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("article.card"))
		<-loop.joined
		loop.tell(sitter.Event{Name: hostile().Certificates[0].Name, Kind: "progress", Text: attack})
		do(t, ctx, chromedp.WaitVisible(".run:not([hidden]) li"))
		if got := value(t, ctx, chromedp.Evaluate[bool]("'pwned' in window")); got {
			t.Error("a certificate's text was carried out as a script")
		}
		if n := value(t, ctx, chromedp.Evaluate[int]("document.querySelectorAll('main img, main script, main iframe').length")); n != 0 {
			t.Errorf("%d elements came from a certificate's text", n)
		}
		loop.become(sample())
	})

	if os.Getenv("CERTSITTER_SCREENSHOTS") == "" {
		return
	}
	t.Run("screenshots", func(t *testing.T) {
		look := func(name, colours string, width int64, snap *sitter.Snapshot) {
			loop.become(snap)
			do(t, ctx, scheme(colours), chromedp.EmulateViewport(width, 800), chromedp.Navigate("http://"+address+"/"), chromedp.WaitVisible("h1"), shot(name))
		}
		look("dark", "dark", 1200, sample())
		look("phone", "light", 360, sample())
		look("phone-dark", "dark", 320, sample())
		german := sample()
		german.Language = "de"
		look("german", "light", 1200, german)
		fine := sample()
		fine.Status, fine.Certificates, fine.Targets = "ok", fine.Certificates[:1], nil
		look("fine", "light", 1200, fine)
		refused := sample()
		refused.Problems = []sitter.Problem{{Code: "config", Severity: "warning", Text: "The new configuration was refused.",
			Details: []string{"options.json: certificates[home].provider: there is no DNS provider cloudflar, perhaps cloudflare is meant", "options.json: mqtt.topic: holds a slash"}}}
		look("refused", "light", 900, refused)
		look("empty", "light", 1200, &sitter.Snapshot{Version: "0.3.0", Time: noon, Status: "ok", Language: "en"})
	})
}
