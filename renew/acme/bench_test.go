package acme

import (
	"context"
	"crypto"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/challenge"
	"golang.org/x/sync/errgroup"

	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

// BenchmarkTwentyOrders compares Issue with the least that lego's protocol layer
// can do: one connection and account for all, a poll every 10 ms, nothing
// checked, kept or told. CPU time is that of the whole process, so of Pebble and
// the machine that answers, too.
func BenchmarkTwentyOrders(b *testing.B) {
	for _, c := range []struct {
		name string
		run  func(b *testing.B, ca *pebble.CA, m *machine, atOnce int)
	}{{"bound", boundTwenty}, {"Issue", issueTwenty}} {
		for _, atOnce := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", c.name, atOnce), func(b *testing.B) {
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					ca := startCA(b, pebble.Options{})
					m := startMachine(b, ca)
					before := cpu(b)
					b.StartTimer()
					c.run(b, ca, m, atOnce)
					b.StopTimer()
					used += cpu(b) - before
					ca.Close()
					b.StartTimer()
				}
				b.ReportMetric(used.Seconds()*1000/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

const orders = 20

func issueTwenty(b *testing.B, ca *pebble.CA, m *machine, atOnce int) {
	var known remembered
	request := orderOf(b, ca, renew.HTTP01, "n0.example.org")
	first, err := Issue(deadline(b), request, known.hooks(m))
	if err != nil {
		b.Fatal(err)
	}
	request.AccountURL = first.AccountURL
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range orders - 1 {
		next := request
		next.Names = []string{fmt.Sprintf("n%d.example.org", i+1)}
		next.CSR = newCSR(b, next.Names)
		group.Go(func() error {
			_, err := Issue(deadline(b), next, known.hooks(m))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

func boundTwenty(b *testing.B, ca *pebble.CA, m *machine, atOnce int) {
	w, err := newWire(deadline(b), ca.Roots())
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	var key crypto.PrivateKey
	if key, err = certcrypto.ParsePEMPrivateKey(keyPEM(b)); err != nil {
		b.Fatal(err)
	}
	core, err := api.New(w.client(), "bound", ca.Directory(), "", key)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := core.Accounts.New(acme.Account{TermsOfServiceAgreed: true}); err != nil {
		b.Fatal(err)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range orders {
		name := fmt.Sprintf("n%d.example.org", i)
		csr := newCSR(b, []string{name})
		group.Go(func() error { return boundOrder(core, m, name, csr) })
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

func boundOrder(core *api.Core, m *machine, name string, csr []byte) error {
	order, err := core.Orders.New([]string{name})
	if err != nil {
		return err
	}
	location := order.Location
	authz, err := core.Authorizations.Get(order.Authorizations[0])
	if err != nil {
		return err
	}
	picked, err := challenge.FindChallenge(challenge.HTTP01, authz)
	if err != nil {
		return err
	}
	answer, err := core.GetKeyAuthorization(picked.Token)
	if err != nil {
		return err
	}
	_ = m.present(context.Background(), []renew.Challenge{{Token: picked.Token, Name: name, KeyAuthorization: answer}})
	if _, err := core.Challenges.New(picked.URL); err != nil {
		return err
	}
	for authz.Status != acme.StatusValid {
		time.Sleep(10 * time.Millisecond)
		if authz, err = core.Authorizations.Get(order.Authorizations[0]); err != nil {
			return err
		}
	}
	if order, err = core.Orders.UpdateForCSR(order.Finalize, csr); err != nil {
		return err
	}
	for order.Status != acme.StatusValid {
		time.Sleep(10 * time.Millisecond)
		if order, err = core.Orders.Get(location); err != nil {
			return err
		}
	}
	_, _, err = core.Certificates.Get(order.Certificate, true)
	return err
}
