package acme

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

func TestRetryAfter(t *testing.T) {
	date := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"120":                           2 * time.Minute,
		" 120 ":                         2 * time.Minute,
		"-5":                            0,
		"soon":                          0,
		"Sat, 21 Nov 2026 10:01:30 GMT": 90 * time.Second,
		"Sat, 21 Nov 2026 09:00:00 GMT": 0,
		"9223372036854775807":           87600 * time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT": 87600 * time.Hour,
	} {
		if got := retryAfter(header, date); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"", "120", "-1", "1e9", "99999999999999999999", "Sat, 21 Nov 2026 10:01:30 GMT"} {
		f.Add(header, int64(1795255200))
	}
	f.Fuzz(func(t *testing.T, header string, date int64) {
		if got := retryAfter(header, time.Unix(date, 0)); got < 0 || got > 87600*time.Hour {
			t.Errorf("%q: %v", header, got)
		}
	})
}

// Polls begin at once, get slower, and keep to what the CA asks for.
func TestPollPace(t *testing.T) {
	for _, c := range []struct {
		name       string
		retryAfter time.Duration
		looks      int
		want       time.Duration
	}{
		{"done at once", 0, 1, 0},
		{"soon", 0, 2, 50 * time.Millisecond},
		{"growing", 0, 4, 258 * time.Millisecond},
		{"as the CA asks", 3 * time.Second, 3, 6 * time.Second},
		{"not as long as it likes", 24 * time.Hour, 2, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &session{ctx: t.Context(), pace: usualPace(), wire: &wire{last: answer{status: 200, retryAfter: c.retryAfter}}}
				began, looks := time.Now(), 0
				err := s.poll(time.Hour, func() (bool, error) { looks++; return looks == c.looks, nil })
				if took := time.Since(began).Round(time.Millisecond); err != nil || took != c.want {
					t.Errorf("took %v, want %v (%v)", took, c.want, err)
				}
			})
		})
	}
}

func TestPollGivesUp(t *testing.T) {
	broken := errors.New("connection reset by peer")
	for _, c := range []struct {
		name     string
		answer   answer
		err      error
		min, max time.Duration
		want     error
	}{
		{"no result", answer{status: 200}, nil, 5 * time.Minute, 6 * time.Minute, errSlow},
		{"not reached", answer{}, broken, 20 * time.Second, 30 * time.Second, broken},
		{"trouble", answer{status: 500}, broken, 20 * time.Second, 30 * time.Second, broken},
		{"trouble, come back much later", answer{status: 503, retryAfter: time.Hour}, broken, 0, 0, broken},
		{"refused", answer{status: 403}, broken, 0, 0, broken},
		{"not to be healed", answer{status: 200}, permanent{broken}, 0, 0, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &session{ctx: t.Context(), pace: usualPace(), wire: &wire{last: c.answer}}
				began := time.Now()
				err := s.poll(5*time.Minute, func() (bool, error) { return false, c.err })
				if took := time.Since(began); !errors.Is(err, c.want) || took < c.min || took > c.max {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// A CA that comes back in between is waited for anew.
func TestPollForgivesBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{ctx: t.Context(), pace: usualPace(), wire: &wire{}}
		looks := 0
		err := s.poll(time.Hour, func() (bool, error) {
			if looks++; looks == 40 {
				return true, nil
			}
			if looks%2 == 0 {
				return false, nil
			}
			return false, io.ErrUnexpectedEOF
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyHTTPS(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, plain.URL, http.StatusFound)
		return true
	})})
	var known remembered
	_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(&machine{}), quick())
	if fault := faultOf(t, err); !strings.Contains(strings.ToLower(fault.Problems[0].Detail), "https") {
		t.Errorf("%+v", fault)
	}
}

func TestClean(t *testing.T) {
	s := &session{names: []string{"home.example.org"}, request: renew.OrderRequest{EABHMAC: "hmac-secret", Env: map[string]string{
		"TOKEN": "to/ken+secret", "TTL": "120", "ZONE": "Example.org.", "USER": "to/ken", "LONG": "hmac-secret-and-more",
	}}}
	for text, want := range map[string]string{
		"hmac-secret-and-more, Example.org.": "[redacted], Example.org.",
		"plain":                              "plain",
		" a\r\n\tb\x00c\x1b[31m ":            "a b c [31m",
		"ttl 120, url ?t=to%2Fken%2Bsecret":  "ttl 120, url ?t=[redacted]",
		"to/ken+secret and hmac-secret":      "[redacted] and [redacted]",
		strings.Repeat("ä", 1100):            strings.Repeat("ä", 1000) + "…",
		"\xff\xfe":                           "",
	} {
		if got := s.clean(text); got != want {
			t.Errorf("%.40q: %.40q, want %.40q", text, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("text with s3cret-value", "s3cret-value")
	f.Add("\x1b[2J\u202e", "aaaaaaa")
	f.Fuzz(func(t *testing.T, text, secret string) {
		s := &session{request: renew.OrderRequest{Env: map[string]string{"X": secret}}}
		got := s.clean(text)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > maxDetail+1 || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("%q", got)
		}
		if len(secret) >= 6 && !strings.Contains("[redacted]", secret) && strings.Contains(got, secret) && strings.Contains(text, secret) &&
			!strings.Contains(strings.ReplaceAll(text, url.QueryEscape(secret), ""), secret) {
			t.Errorf("the secret is left in %q", got)
		}
	})
}

func FuzzParseChain(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X-----\n-----END X-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := parseChain(data)
		if (err == nil) != (len(chain) > 0) {
			t.Errorf("%d certificates, %v", len(chain), err)
		}
		if err == nil {
			again, err := parseChain(encodeChain(chain))
			if err != nil || len(again) != len(chain) {
				t.Errorf("written and read again: %d, %v", len(again), err)
			}
		}
	})
}

func TestCanonicalNames(t *testing.T) {
	got := strings.Join(canonical([]string{"B.Example.org", "*.Example.org", "b.example.org", "2001:DB8:0::1", " 192.0.2.1"}), " ")
	if want := "b.example.org *.example.org 2001:db8::1 192.0.2.1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A context that has ended needs no CA to be noticed.
func TestEndedContext(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var known remembered
	if _, err := Issue(ctx, orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(&machine{})); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := Revoke(ctx, renew.RevokeRequest{Directory: ca.Directory(), Roots: ca.Roots(), AccountKey: keyPEM(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := ca.Requests(); n != 0 {
		t.Errorf("%d requests", n)
	}
}
