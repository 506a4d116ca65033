package settings

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certsitter/certsitter/internal/output"
)

func TestRedactorCutsEverySpelling(t *testing.T) {
	t.Parallel()
	secrets := []string{"s3cr&t/p@ss word", "plain-token-1234", `quo"te\back`, "päßwörd", "tiny", "a+b=c&d<e>", strings.Repeat("long", 300)}
	r := NewRedactor(secrets)
	for _, s := range secrets {
		asJSON, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		request := url.URL{Scheme: "https", User: url.UserPassword("me", s), Host: "x", Path: "/" + s, RawQuery: url.Values{"k": {s}}.Encode()}
		spellings := map[string]string{
			"raw": "error: " + s + " is wrong", "JSON": string(asJSON), "URL": request.String(), "query": url.QueryEscape(s),
			"path": url.PathEscape(s), "Go": fmt.Sprintf("%q", s), "HTML": html.EscapeString(s), "lower": strings.ToLower(url.QueryEscape("/")) + s,
			"base64": base64.StdEncoding.EncodeToString([]byte(s)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(s)),
		}
		for _, user := range []string{"u", "me", "you", "someone@example.org"} {
			if len(s) >= 10 {
				spellings["basic "+user] = base64.StdEncoding.EncodeToString([]byte(user + ":" + s))
			}
		}
		for how, text := range spellings {
			got := r.String(text)
			if !strings.Contains(got, veiled) {
				t.Errorf("%q as %s stays: %q", s, how, got)
			}
			decoded, _ := url.PathUnescape(got)
			if strings.Contains(got, s) || strings.Contains(decoded, s) {
				t.Errorf("%q as %s: %q", s, how, got)
			}
		}
	}
	for _, innocent := range []string{"", "nothing to see", "tin", "https://x/y?z=1", "plain-token-123"} {
		if got := r.String(innocent); got != innocent {
			t.Errorf("%q became %q", innocent, got)
		}
	}
	var none Redactor
	if got := none.String("plain-token-1234"); got != "plain-token-1234" {
		t.Errorf("the zero Redactor gives %q", got)
	}
}

func TestRedactorOverlaps(t *testing.T) {
	t.Parallel()
	r := NewRedactor([]string{"abcdef", "defghi", "abcd", "abc"})
	for text, want := range map[string]string{
		"abcdefghi": "***", "abcdx": "***x", "abcx": "abcx", "xabcdefabcdef": "x******",
	} {
		if got := r.String(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestRedactorOfSeveralLines(t *testing.T) {
	t.Parallel()
	key := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n"
	r := NewRedactor([]string{key})
	var out bytes.Buffer
	w := r.Writer(&out)
	for l := range strings.Lines("the key is\n" + key + "so\n") {
		if _, err := w.Write([]byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if want := "the key is\n***\n***\n***\n***\nso\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestRedactorWritesWholeLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewRedactor([]string{"hush-hush"}).Writer(&out)
	for _, c := range []struct{ write, seen string }{
		{"one hush", ""}, {"-hu", ""}, {"sh two\nthree", "one *** two\n"}, {"\n\n", "one *** two\nthree\n\n"}, {"hush-hush", "one *** two\nthree\n\n"},
	} {
		if n, err := w.Write([]byte(c.write)); n != len(c.write) || err != nil {
			t.Fatalf("Write gave %d, %v", n, err)
		}
		if out.String() != c.seen {
			t.Errorf("after %q: %q, want %q", c.write, out.String(), c.seen)
		}
	}
	if err := w.Close(); err != nil || !strings.HasSuffix(out.String(), "\n***") {
		t.Errorf("Close: %v, %q", err, out.String())
	}
}

// A line that never ends is passed on in pieces, and what is held stays small.
func TestRedactorHoldsLittleBack(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery-staple"
	var out bytes.Buffer
	r := NewRedactor([]string{secret})
	w, ok := r.Writer(&out).(*redactedWriter)
	if !ok {
		t.Fatal("Writer is another type")
	}
	piece := strings.Repeat("x", 1000) + secret
	var whole strings.Builder
	for range 300 {
		for part := range slices.Chunk([]byte(piece), 77) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
			if len(w.held) > maxHeldBack+77 {
				t.Fatalf("%d bytes are held back", len(w.held))
			}
		}
		whole.WriteString(piece)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(whole.String(), secret, veiled); out.String() != want {
		t.Errorf("%d bytes came out, want %d", out.Len(), len(want))
	}

	broken := r.Writer(writerFunc(func([]byte) (int, error) { return 0, errors.New("disk full") })).(*redactedWriter)
	for range 10 {
		if _, err := broken.Write([]byte("line\n")); err == nil {
			t.Error("the error is lost")
		}
	}
	if len(broken.held) > 0 {
		t.Errorf("%d bytes pile up before a writer that fails", len(broken.held))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRedactorForgetsTheOldest(t *testing.T) {
	t.Parallel()
	r := NewRedactor(nil)
	many := make([]string, maxSecrets+10)
	for i := range many {
		many[i] = fmt.Sprintf("secret-number-%05d", i)
	}
	r.Add(many...)
	r.Add(many[len(many)-1]) // known already
	if len(r.secrets) != maxSecrets {
		t.Errorf("%d secrets are kept", len(r.secrets))
	}
	if got := r.String(many[0] + " " + many[10]); got != many[0]+" ***" {
		t.Errorf("got %q", got)
	}
}

func TestRedactorTogether(t *testing.T) {
	t.Parallel()
	r := NewRedactor([]string{"first-secret"})
	var out output.Buffer
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			w := r.Writer(&out)
			for range 200 {
				fmt.Fprintf(w, "first-secret %d\n", i)
				_ = r.String("first-secret")
			}
		})
		wg.Go(func() { r.Add(fmt.Sprintf("another-secret-%d", i)) })
	}
	wg.Wait()
	if got := out.String(); strings.Contains(got, "first") || strings.Count(got, "\n") != 800 {
		t.Errorf("got %q…", got[:100])
	}
}

func FuzzRedactor(f *testing.F) {
	f.Add("hush-hush", "say hush-hush\nand hu", "sh-hush", 3)
	f.Add("a b&c", "a+b%26c a%20b&c", "", 1)
	f.Add("line one\nline two", "line one\nline two\n", "x", 5)
	f.Fuzz(func(t *testing.T, secret, before, after string, size int) {
		r := NewRedactor([]string{secret})
		text := before + secret + after
		if got := r.String(text); len(secret) >= shortestSecret && strings.Contains(got, secret) && !strings.Contains(veiled, secret) && !strings.Contains(strings.ReplaceAll(got, veiled, ""), "*") {
			t.Fatalf("%q in %q stays: %q", secret, text, got)
		}
		var out bytes.Buffer
		w := r.Writer(&out)
		for part := range slices.Chunk([]byte(text), max(1, min(size, 50))) {
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(secret, "\n") && !strings.Contains(text, "\n") && out.String() != r.String(text) {
			t.Fatalf("in pieces %q, as a whole %q", out.String(), r.String(text))
		}
	})
}
