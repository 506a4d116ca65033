package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 30}, 3}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// TestRounds: the order is bound, ours, ours, bound, and each row is the median
// over the rounds, per thing.
func TestRounds(t *testing.T) {
	var order strings.Builder
	var boundRuns time.Duration
	bound := func(context.Context) (cost, error) {
		order.WriteByte('A')
		boundRuns++
		return cost{boundRuns * time.Millisecond, 10 * time.Millisecond}, nil
	}
	ours := func(context.Context) (cost, error) {
		order.WriteByte('B')
		return cost{6 * time.Millisecond, 5 * time.Millisecond}, nil
	}
	rounds, err := compare(t.Context(), 3, bound, ours)
	if err != nil || order.String() != "ABBAABBAABBA" {
		t.Fatal(order.String(), err)
	}
	// Bound in CPU: 1+2, 3+4, 5+6 ms. Ours: 12 ms each.
	cpu := rowOf("x", rounds, 2, cpuOf)
	if cpu.ours != 3e6 || cpu.bound != 1.75e6 || cpu.ratio != 12.0/7 || cpu.same != 4.0/3 {
		t.Errorf("%+v", cpu)
	}
	if r := rate(rowOf("x", rounds, 1, wallOf)); r.ours != 200 || r.bound != 100 || r.ratio != 2 {
		t.Errorf("%+v", r)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	write(&out, []row{
		{name: "a", ours: 2.5e6, bound: 2e6, ratio: 1.25, same: 1.01, show: milliseconds, goal: goal{most: 1.3, ratio: true}},
		{name: "b", ours: 15e6, show: megabytes, goal: goal{most: 14e6}},
		{name: "c", ours: 3 << 20, bound: 1 << 20, ratio: 3, show: mebibytes},
	})
	want := `figure  ours      bound    ratio  bound/bound  to reach    
a       2.5 ms    2.0 ms   1.25   1.01         ≤ 1.3 ×     reached
b       15.00 MB  –        –      –            ≤ 14.00 MB  MISSED
c       3.0 MiB   1.0 MiB  3.00   –                        
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

// TestAccounts: what the kernel says of this process can be read.
func TestAccounts(t *testing.T) {
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Skip("this system does not tell what memory a process shares")
	}
	a, err := accounts(os.Getpid())
	if err != nil || a.pss <= 0 || a.rss < a.pss {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := accounts(1 << 30); err == nil {
		t.Error("a process that does not exist has memory")
	}
}

// TestOnlyFine: a command that found nothing, or something wrong, is not quick
// but useless.
func TestOnlyFine(t *testing.T) {
	good := `[{"name":"a","status":"ok","text":""}]`
	for _, test := range []struct {
		out  string
		code int
		want bool
	}{{good, 0, true}, {good, 1, false}, {"[]", 0, false}, {"", 3, false}, {strings.Replace(good, "ok", "warning", 1), 0, false}} {
		if err := allFine(1)(test.code, []byte(test.out)); (err == nil) != test.want {
			t.Errorf("%q with %d: %v", test.out, test.code, err)
		}
	}
}

// TestChain: the authority's certificates are believed by its root.
func TestChain(t *testing.T) {
	authority, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.issue(time.Hour, day, "a.test")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.pem")
	if err := os.WriteFile(path, chainPEM(leaf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := parseAll(path); err != nil || len(leaf.Certificate) != 2 {
		t.Errorf("%d certificates, %v", len(leaf.Certificate), err)
	}
	if err := leaf.Leaf.CheckSignatureFrom(authority.inter.Leaf); err != nil {
		t.Error(err)
	}
	if err := authority.inter.Leaf.CheckSignatureFrom(authority.root); err != nil {
		t.Error(err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-only", "nothing"}} {
		if err := start(t.Context(), args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
