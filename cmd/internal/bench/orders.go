package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/challenge"
	"golang.org/x/sync/errgroup"
)

// The bound of renewals: one process, one account, one connection or a few, a
// poll every 10 ms, nothing checked, kept or told.
const (
	ordersAtOnce = 8
	pollEvery    = 10 * time.Millisecond
)

// boundOrders has certificates issued for a new account. Its arguments are the
// directory, the file with the CA's roots and the port for HTTP-01.
func boundOrders(args []string) error {
	roots, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	believed, err := pool(roots)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: believed}, MaxIdleConnsPerHost: ordersAtOnce, ForceAttemptHTTP2: true,
	}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	core, err := api.New(client, "bound", args[0], "", key)
	if err != nil {
		return err
	}
	if _, err := core.Accounts.New(acme.Account{TermsOfServiceAgreed: true}); err != nil {
		return err
	}
	var answers sync.Map // token → key authorization
	listener, err := net.Listen("tcp", "127.0.0.1:"+args[2])
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, answer(&answers)) }() // to the process's end
	return orderAll(core, &answers)
}

func answer(answers *sync.Map) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if text, ok := answers.Load(path.Base(r.URL.Path)); ok {
			fmt.Fprint(w, text)
		}
	}
}

// orderAll places all orders before it goes on with any: the test CA locks
// itself up more easily otherwise.
func orderAll(core *api.Core, answers *sync.Map) error {
	var placed [certificateCount]acme.ExtendedOrder
	var group errgroup.Group
	group.SetLimit(ordersAtOnce)
	for i := range placed {
		group.Go(func() (err error) {
			placed[i], err = core.Orders.New([]string{domain(i)})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	group = errgroup.Group{}
	group.SetLimit(ordersAtOnce)
	for i, order := range placed {
		group.Go(func() error { return finish(core, order, domain(i), answers) })
	}
	return group.Wait()
}

// finish brings one order to its certificate.
func finish(core *api.Core, order acme.ExtendedOrder, name string, answers *sync.Map) error {
	location := order.Location
	authorization, err := core.Authorizations.Get(order.Authorizations[0])
	if err != nil {
		return err
	}
	picked, err := challenge.FindChallenge(challenge.HTTP01, authorization)
	if err != nil {
		return err
	}
	text, err := core.GetKeyAuthorization(picked.Token)
	if err != nil {
		return err
	}
	answers.Store(picked.Token, text)
	if _, err := core.Challenges.New(picked.URL); err != nil {
		return err
	}
	for authorization.Status != acme.StatusValid {
		if authorization.Status == acme.StatusInvalid {
			return fmt.Errorf("%s was not believed", name)
		}
		time.Sleep(pollEvery)
		if authorization, err = core.Authorizations.Get(order.Authorizations[0]); err != nil {
			return err
		}
	}
	csr, err := request(name)
	if err != nil {
		return err
	}
	if order, err = core.Orders.UpdateForCSR(order.Finalize, csr); err != nil {
		return err
	}
	for order.Status != acme.StatusValid {
		if order.Status == acme.StatusInvalid {
			return fmt.Errorf("the order for %s failed", name)
		}
		time.Sleep(pollEvery)
		if order, err = core.Orders.Get(location); err != nil {
			return err
		}
	}
	_, _, err = core.Certificates.Get(order.Certificate, true)
	return err
}

// request makes a key and asks for a certificate for it.
func request(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
}
