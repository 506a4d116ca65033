package page

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldenPage(t *testing.T) {
	for _, language := range []string{"en", "de"} {
		snap := sample()
		snap.Language = language
		snap.Certificates[0].Renewing, snap.Certificates[0].Step = true, "Waiting for the CA's answer."
		snap.Problems = []sitter.Problem{{Code: "config", Severity: "warning", Text: "The new configuration was refused.", Advice: "Correct it.",
			Details: []string{"options.json:3: certificates[home].provider: there is no provider cloudflar", "options.json:9: mqtt.topic: it has a slash"}}}
		got := ask(t, newServer(Config{Downloads: downloads()}, newFake(snap)), "GET", "/", nil, "").Body.String()
		got = broken(got)
		golden := filepath.Join("testdata", "page."+language+".html")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the page differs from %s (write it anew with -update and look at the difference); first at %q", golden, difference(got, string(want)))
		}
	}
}

// broken has a line for each part of a page, which has none: to be read, and
// for differences to be small.
func broken(page string) string {
	return strings.TrimSpace(part.ReplaceAllString(page, "\n$0")) + "\n"
}

var part = regexp.MustCompile(`<(?:html|/?head|meta|title|base|link|script|/?body|/?main|/?header|/?section|/?article|/?footer|h[1-3]|/?div|p|/?dl|dt|ul|/?details|form|svg class="life")\b`)

func difference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return a[max(0, i-40):min(len(a), i+80)]
}

// TestHostileTextStaysText looks for markup that came out of a snapshot. The
// browser test tries the same with a browser.
func TestHostileTextStaysText(t *testing.T) {
	snap := hostile()
	for i := range snap.Certificates {
		snap.Certificates[i].Renewing = true
	}
	got := ask(t, newServer(Config{}, newFake(snap)), "GET", "/", nil, "").Body.String()
	for _, bad := range []string{"<img", "<iframe", "<script>", "onerror=\"", "href=\"javascript"} {
		if strings.Contains(got, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	if n := strings.Count(got, "&lt;img src=x"); n < 20 {
		t.Errorf("only %d hostile texts are shown", n)
	}
	if n := strings.Count(got, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
}

func TestEveryLinkIsRelative(t *testing.T) {
	got := ask(t, newServer(Config{}, newFake(sample())), "GET", "/", nil, "").Body.String()
	links := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(got, -1)
	if len(links) < 10 {
		t.Fatalf("only %d links", len(links))
	}
	for _, link := range links {
		if strings.HasPrefix(link[1], "/") || strings.Contains(link[1], ":") {
			t.Errorf("%s leaves the ingress path", link[0])
		}
	}
	script, err := files.ReadFile("page.js")
	if err != nil {
		t.Fatal(err)
	}
	if bad := regexp.MustCompile("[\"'`]/[a-z]").Find(script); bad != nil {
		t.Errorf("the script asks for %s", bad)
	}
}

func TestIngressPageHasItsBase(t *testing.T) {
	s := newServer(Config{App: true}, newFake(sample()))
	get := func(from string) string {
		r := newRequest("GET", "/", from)
		r.Header.Set("X-Ingress-Path", "/api/hassio_ingress/token")
		return serve(s, r).Body.String()
	}
	if page := get("172.30.32.2:1"); !strings.Contains(page, `<base href="/api/hassio_ingress/token/">`) {
		t.Error("no base under ingress")
	}
	if page := get("127.0.0.1:1"); strings.Contains(page, "<base") {
		t.Error("a base from somebody who is not the Supervisor")
	}
}

func TestButtonsOnlyForThoseWhoMay(t *testing.T) {
	for _, c := range []struct {
		config Config
		from   string
		want   bool
	}{
		{Config{}, "127.0.0.1:1", true},
		{Config{}, "192.168.1.20:1", false},
		{Config{Password: "x"}, "192.168.1.20:1", true},
		{Config{App: true}, "172.30.32.2:1", true},
	} {
		page := serve(newServer(c.config, newFake(sample())), newRequest("GET", "/", c.from)).Body.String()
		if got := strings.Contains(page, "<form"); got != c.want {
			t.Errorf("%+v from %s: buttons %v", c.config, c.from, got)
		}
		if got := strings.Contains(page, english().Mute); got == c.want {
			t.Errorf("%+v from %s: says why there are none: %v", c.config, c.from, got)
		}
	}
}

func TestButtonToRestartWhereItIsAsked(t *testing.T) {
	for _, c := range []struct {
		name       string
		from       string
		asks       bool
		restarting bool
		want       string // of the button; "" = none
	}{
		{"asked", "127.0.0.1:1", true, false, `<button id="restart-cloud">Restart Home Assistant</button>`},
		{"under way", "127.0.0.1:1", true, true, `<button id="restart-cloud" disabled>Restart Home Assistant</button>`},
		{"not asked", "127.0.0.1:1", false, true, ""},
		{"asked, and not for the reader to do", "192.168.1.20:1", true, false, ""},
	} {
		snap := sample()
		snap.Restarting = c.restarting
		if !c.asks {
			snap.Asks = nil
		}
		page := serve(newServer(Config{}, newFake(snap)), newRequest("GET", "/", c.from)).Body.String()
		if n := strings.Count(page, `"restart-`); (n == 1) != (c.want != "") || !strings.Contains(page, c.want) {
			t.Errorf("%s: %d buttons, no %s", c.name, n, c.want)
		}
		if strings.Contains(page, english().Restarting) != (c.asks && c.restarting) {
			t.Errorf("%s: whether it restarts is told wrongly", c.name)
		}
	}
}

func TestVerdict(t *testing.T) {
	ok := sitter.Certificate{Status: "ok", Label: "a"}
	bad := sitter.Certificate{Status: "critical", Problem: true}
	unknown := sitter.Certificate{Status: "unknown"}
	notice := sitter.Certificate{Status: "notice"}
	config := []sitter.Problem{{Severity: "warning", Text: "refused"}}
	refusal := []sitter.Problem{{Code: "config", Severity: "warning", Text: "refused", Details: []string{"a mistake"}}}
	w := english()
	for _, c := range []struct {
		status   string
		all      []sitter.Certificate
		problems []sitter.Problem
		want     string
		tone     string
	}{
		{"ok", nil, nil, w.None, "notice"},
		{"ok", nil, config, w.None, "warning"},
		{"ok", nil, refusal, w.RefusedNone, "warning"},
		{"ok", []sitter.Certificate{ok}, refusal, w.ServiceNeeds, "warning"},
		{"ok", []sitter.Certificate{ok}, nil, w.AllFineOne, "ok"},
		{"notice", []sitter.Certificate{ok, notice}, nil, "All 2 certificates are fine.", "notice"},
		{"ok", []sitter.Certificate{ok}, config, w.ServiceNeeds, "warning"},
		{"critical", []sitter.Certificate{bad}, config, w.NeedOne, "critical"},
		{"critical", []sitter.Certificate{bad, ok, unknown}, nil, "1 of 3 certificates needs attention.", "critical"},
		{"critical", []sitter.Certificate{bad, bad, ok}, nil, "2 of 3 certificates need attention.", "critical"},
		{"unknown", []sitter.Certificate{ok, unknown}, nil, w.Looking, "unknown"},
	} {
		v := look(&sitter.Snapshot{Time: noon, Status: c.status, Certificates: c.all, Problems: c.problems}, w, reader{now: noon, zone: time.UTC})
		if v.Verdict != c.want || v.Tone != c.tone {
			t.Errorf("%s, %d certificates: %q (%s), want %q (%s)", c.status, len(c.all), v.Verdict, v.Tone, c.want, c.tone)
		}
	}
}

// Where nothing was in force before, nothing stays in force; and who has tried
// to configure something is not asked to begin.
func TestRefusalOfTheFirstConfiguration(t *testing.T) {
	w := english()
	snap := sitter.Snapshot{Time: noon, Status: "ok", Problems: []sitter.Problem{{Code: "config", Severity: "warning", Details: []string{"a mistake"}}}}
	first := look(&snap, w, reader{now: noon, zone: time.UTC})
	if first.Problems[0].Text != w.RefusedConf || first.certificates() != nil {
		t.Errorf("the first one: %q, steps %v", first.Problems[0].Text, first.certificates())
	}
	snap.Certificates = []sitter.Certificate{{Status: "ok", Label: "a"}}
	if later := look(&snap, w, reader{now: noon, zone: time.UTC}); later.Problems[0].Text != w.RefusedConf+" "+w.RefusedOld {
		t.Errorf("a later one: %q", later.Problems[0].Text)
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		left time.Duration
		want string
	}{
		{90*24*time.Hour + time.Second, "90 days left"},
		{48 * time.Hour, "2 days left"},
		{47 * time.Hour, "1 day left"},
		{24 * time.Hour, "1 day left"},
		{23*time.Hour + 59*time.Minute, "23 hours left"},
		{59 * time.Minute, "59 minutes left"},
		{30 * time.Second, "0 minutes left"},
		{0, "0 minutes past its end"},
		{-30 * time.Minute, "30 minutes past its end"},
		{-23 * time.Hour, "23 hours past its end"},
		{-25 * time.Hour, "1 day past its end"},
		{-49 * time.Hour, "2 days past its end"},
	} {
		floor := int(c.left / (24 * time.Hour))
		if c.left < 0 && c.left%(24*time.Hour) != 0 {
			floor--
		}
		number, unit := span(sitter.Certificate{NotAfter: noon.Add(c.left), DaysLeft: &floor}, english(), noon)
		if got := number + " " + unit; got != c.want {
			t.Errorf("%v: %q, want %q", c.left, got, c.want)
		}
	}
	if number, unit := span(sitter.Certificate{}, english(), noon); number != "" || unit != english().NoDate {
		t.Errorf("unknown: %q %q", number, unit)
	}
}

func TestSoonestFirst(t *testing.T) {
	in := func(d int) time.Time { return noon.Add(time.Duration(d) * 24 * time.Hour) }
	all := []sitter.Certificate{
		{Name: "late", NotAfter: in(80)}, {Name: "new"}, {Name: "gone", NotAfter: in(-1)}, {Name: "lost", Problem: true}, {Name: "soon", NotAfter: in(3)},
	}
	var got []string
	for _, c := range soonestFirst(all) {
		got = append(got, c.Name)
	}
	if want := []string{"lost", "gone", "soon", "late", "new"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if all[0].Name != "late" {
		t.Error("the snapshot was changed")
	}
}

func TestNamesThatTheCertificateLacks(t *testing.T) {
	got := namesOf(sitter.Certificate{Domains: []string{"a.example.org", "b.example.org", "x.b.example.org"}, Names: []string{"A.example.org", "*.b.example.org", "old.example.org"}})
	want := []name{{"a.example.org", false}, {"b.example.org", true}, {"x.b.example.org", false}, {"*.b.example.org", false}, {"old.example.org", false}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWordsAreWhole: what one language says, the other says too, with the same
// blanks.
func TestWordsAreWhole(t *testing.T) {
	verbs := regexp.MustCompile(`%[a-z]`)
	var compare func(path string, a, b reflect.Value)
	compare = func(path string, a, b reflect.Value) {
		switch a.Kind() {
		case reflect.String:
			if a.String() == "" || b.String() == "" {
				t.Errorf("%s: %q and %q", path, a, b)
			}
			if !slices.Equal(verbs.FindAllString(a.String(), -1), verbs.FindAllString(b.String(), -1)) {
				t.Errorf("%s: the blanks differ in %q and %q", path, a, b)
			}
		case reflect.Map:
			if a.Len() != b.Len() {
				t.Errorf("%s: %d and %d", path, a.Len(), b.Len())
			}
			for _, k := range a.MapKeys() {
				if !b.MapIndex(k).IsValid() {
					t.Errorf("%s: %s is missing", path, k)
					continue
				}
				compare(path+"."+k.String(), a.MapIndex(k), b.MapIndex(k))
			}
		case reflect.Array:
			for i := range a.Len() {
				compare(path, a.Index(i), b.Index(i))
			}
		default:
			t.Errorf("%s: a %s is not compared", path, a.Kind())
		}
	}
	en, de := reflect.ValueOf(english()), reflect.ValueOf(german())
	for i := range en.NumField() {
		compare(en.Type().Field(i).Name, en.Field(i), de.Field(i))
	}
	if wordsIn("de").Lang != "de" || wordsIn("").Lang != "en" || wordsIn("fr").Lang != "en" {
		t.Error("the wrong language is taken")
	}
}
