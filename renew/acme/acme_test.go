package acme

import (
	"testing"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

func TestHTTP01(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	names := []string{"home.example.org", "www.example.org", "NAS.example.org"}
	request := orderOf(t, ca, renew.HTTP01, names...)
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), names...)
	if n := ca.Orders("home.example.org", "www.example.org", "nas.example.org"); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	if m.calls != 1 {
		t.Errorf("Present was called %d times; all names belong into one", m.calls)
	}
	if known.account != issued.AccountURL || known.order != issued.OrderURL || known.accounts != 1 || known.orders != 1 {
		t.Errorf("told %q %q, issued %q %q", known.account, known.order, issued.AccountURL, issued.OrderURL)
	}
}
