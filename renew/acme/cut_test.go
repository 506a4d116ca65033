package acme

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

// A cut is where an order is cut off: the connection is dropped at one request,
// and at all that follow.
type cut struct {
	here     func(n int, path string) bool // nil = nowhere (any more)
	answered bool                          // the request still reaches the CA, only its answer is lost

	mu    sync.Mutex
	n     int
	where string
}

func (c *cut) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, dropped := c.drops(r)
		if !dropped {
			next.ServeHTTP(w, r)
			return
		}
		if first && c.answered {
			next.ServeHTTP(discard{}, r)
		}
		panic(http.ErrAbortHandler)
	})
}

func (c *cut) drops(r *http.Request) (first, dropped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n++
	if c.here == nil {
		return false, false
	}
	if c.where == "" && c.here(n, r.URL.Path) {
		c.where = r.Method + " " + r.URL.Path
		return true, true
	}
	return false, c.where != ""
}

func (c *cut) heal() (where string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.here = nil
	return c.where
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// An order that was cut off after any of its messages is taken up again, not
// placed again. The only exception cannot be helped: when the answer to newOrder
// itself is lost, its URL is not known.
func TestCutOffAnywhere(t *testing.T) {
	for _, answered := range []bool{false, true} {
		// How often the CA is polled differs, so the last messages are cut by
		// their kind, too.
		for after := 0; cutOff(t, answered, func(n int, _ string) bool { return n == after }); after++ {
		}
		for _, path := range []string{pebble.DirectoryPath, pebble.NoncePath, pebble.AccountPath, pebble.NewOrderPath, pebble.AuthzPath,
			pebble.ChallengePath, pebble.FinalizePath, pebble.OrderPath, pebble.CertificatePath} {
			if !cutOff(t, answered, func(_ int, p string) bool { return strings.HasPrefix(p, path) }) {
				t.Errorf("no message to %s", path)
			}
		}
	}
}

// cutOff says whether the order came as far as the cut.
func cutOff(t *testing.T, answered bool, here func(n int, path string) bool) bool {
	t.Helper()
	c := &cut{here: here, answered: answered}
	ca := startCA(t, pebble.Options{Wrap: c.wrap})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org", "www.example.org")
	_, err := issue(deadline(t), request, known.hooks(m), quick())
	where := c.heal()
	if err == nil && where == "" {
		return false
	}
	if got := causeOf(t, err); got != renew.CauseCADown {
		t.Errorf("cut off at %s: cause %s: %v", where, got, err)
	}
	want := 1
	if known.order == "" && ca.Orders() == 1 {
		want = 2 // the answer to newOrder was lost
	}
	request.AccountURL, request.OrderURL = known.account, known.order
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatalf("cut off at %s (answered %t): %v", where, answered, err)
	}
	verify(t, issued, ca.IssuerRoot(0), "home.example.org", "www.example.org")
	if n := ca.Orders(); n != want {
		t.Errorf("cut off at %s (answered %t): the CA counts %d orders, want %d", where, answered, n, want)
	}
	return true
}

// A short break in the middle is waited out.
func TestShortBreak(t *testing.T) {
	for _, path := range []string{pebble.AuthzPath, pebble.FinalizePath, pebble.OrderPath, pebble.CertificatePath} {
		t.Run(path, func(t *testing.T) {
			var mu sync.Mutex
			asked, failures := 0, 3
			ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if !strings.HasPrefix(r.URL.Path, path) {
					return false
				}
				asked++
				if path == pebble.AuthzPath && asked == 1 || failures == 0 {
					return false // the first look belongs to no wait
				}
				failures--
				if failures%2 == 0 {
					refuse(w, http.StatusInternalServerError, "serverInternal", "boom", "")
					return true
				}
				panic(http.ErrAbortHandler)
			})})
			m := startMachine(t, ca)
			p := quick()
			p.patience = usualPace().patience
			var known remembered
			issued, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(m), p)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, issued, ca.IssuerRoot(0), "home.example.org")
			if ca.Orders() != 1 {
				t.Errorf("%d orders", ca.Orders())
			}
		})
	}
}

// Orders that cannot be taken up are replaced by a new one in the same call.
func TestOrdersThatCannotBeTakenUp(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	first, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(r *renew.OrderRequest)
	}{
		{"unknown to the CA", func(r *renew.OrderRequest) { r.OrderURL += "x" }},
		{"for another key", func(r *renew.OrderRequest) { r.CSR = newCSR(t, r.Names) }},
		{"for other names", func(r *renew.OrderRequest) {
			r.Names = []string{"www.example.org"}
			r.CSR = newCSR(t, r.Names)
		}},
		{"of another account", func(r *renew.OrderRequest) { r.AccountKey, r.AccountURL = keyPEM(t), "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			again := request
			again.AccountURL, again.OrderURL = first.AccountURL, first.OrderURL
			c.change(&again)
			before := ca.Orders()
			issued, err := issue(deadline(t), again, known.hooks(m), quick())
			if err != nil {
				t.Fatal(err)
			}
			verify(t, issued, ca.IssuerRoot(0), again.Names...)
			if issued.OrderURL == again.OrderURL || ca.Orders() != before+1 {
				t.Errorf("order %s, %d placed", issued.OrderURL, ca.Orders()-before)
			}
		})
	}
	t.Run("valid already", func(t *testing.T) {
		again := request
		again.AccountURL, again.OrderURL = first.AccountURL, first.OrderURL
		before := ca.Orders()
		issued, err := issue(deadline(t), again, known.hooks(m), quick())
		if err != nil {
			t.Fatal(err)
		}
		if string(issued.Chain) != string(first.Chain) || ca.Orders() != before {
			t.Error("it was not downloaded again")
		}
	})
}
