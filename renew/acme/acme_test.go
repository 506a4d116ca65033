package acme

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/internal/pebble"
	"github.com/certsitter/certsitter/renew"
)

func TestHTTP01(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	names := []string{"home.example.org", "www.example.org", "NAS.example.org", "www.example.org"}
	issued, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, names...), known.hooks(m), quick())
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
	want := []string{renew.StepDirectory, renew.StepAccount, renew.StepOrder, renew.StepPresent, renew.StepChallenge, renew.StepFinalize, renew.StepCertificate}
	if got := slices.Compact(known.steps); !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}

func TestTLSALPN01(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	issued, err := issue(deadline(t), orderOf(t, ca, renew.TLSALPN01, "home.example.org"), known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "home.example.org")
}

func TestAddressAsName(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	issued, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "127.0.0.1"), known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "127.0.0.1")
}

// The public function has the pace of people; it must not be slow where the CA
// is quick.
func TestIssueUsesTheAccountItKnows(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var first, second remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	issued, err := Issue(deadline(t), request, first.hooks(m))
	if err != nil {
		t.Fatal(err)
	}
	request.AccountURL = issued.AccountURL
	again, err := Issue(deadline(t), request, second.hooks(m))
	if err != nil {
		t.Fatal(err)
	}
	if again.AccountURL != issued.AccountURL || second.accounts != 0 {
		t.Errorf("account %q became %q, told %d times", issued.AccountURL, again.AccountURL, second.accounts)
	}
}

// A lost account URL is found again by the key.
func TestAccountIsFoundByItsKey(t *testing.T) {
	ca := startCA(t, pebble.Options{EABRequired: true, EAB: map[string]string{"kid-1": macKey}})
	m := startMachine(t, ca)
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	request.EABKid, request.EABHMAC = "kid-1", macKey+"="
	var first, second remembered
	issued, err := issue(deadline(t), request, first.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	request.EABKid, request.EABHMAC = "", "" // used up
	again, err := issue(deadline(t), request, second.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	if again.AccountURL != issued.AccountURL || second.account != issued.AccountURL {
		t.Errorf("account %q became %q, told %q", issued.AccountURL, again.AccountURL, second.account)
	}
}

// macKey has 32 bytes, without padding.
const macKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

func TestExternalAccount(t *testing.T) {
	for _, c := range []struct {
		name, kid, hmac string
		cause           renew.Cause
	}{
		{"none", "", "", renew.CauseEAB},
		{"unknown key id", "kid-9", macKey, renew.CauseEAB},
		{"wrong key", "kid-1", "B" + macKey[1:], renew.CauseEAB},
		{"key that is no base64", "kid-1", "not base64!", renew.CauseEAB},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := startCA(t, pebble.Options{EABRequired: true, EAB: map[string]string{"kid-1": macKey}})
			request := orderOf(t, ca, renew.HTTP01, "home.example.org")
			request.EABKid, request.EABHMAC = c.kid, c.hmac
			var known remembered
			_, err := issue(deadline(t), request, known.hooks(&machine{}), quick())
			if got := causeOf(t, err); got != c.cause {
				t.Errorf("cause %s, want %s: %v", got, c.cause, err)
			}
			if c.hmac != "" && strings.Contains(err.Error(), c.hmac) {
				t.Errorf("the key is in the error: %v", err)
			}
			if ca.Orders() != 0 {
				t.Error("an order was placed")
			}
		})
	}
}

// The CA has forgotten us (it was set up anew): we register again, once.
func TestForgottenAccount(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	for name, url := range map[string]string{
		"unknown":            strings.TrimSuffix(ca.Directory(), pebble.DirectoryPath) + "/my-account/999",
		"of another address": "https://ca.example.org/my-account/1",
	} {
		t.Run(name, func(t *testing.T) {
			request := orderOf(t, ca, renew.HTTP01, "home.example.org")
			request.AccountURL = url
			request.OrderURL = strings.TrimSuffix(ca.Directory(), pebble.DirectoryPath) + "/my-order/x"
			var known remembered
			issued, err := issue(deadline(t), request, known.hooks(m), quick())
			if err != nil {
				t.Fatal(err)
			}
			if known.account == url || known.account != issued.AccountURL {
				t.Errorf("told %q, issued by %q", known.account, issued.AccountURL)
			}
		})
	}
}

func TestAccountThatIsGoneForGood(t *testing.T) {
	ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != pebble.NewOrderPath {
			return false
		}
		refuse(w, http.StatusBadRequest, "accountDoesNotExist", "no such account", "")
		return true
	})})
	var known remembered
	_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(&machine{}), quick())
	fault := faultOf(t, err)
	if !fault.AccountGone || known.accounts != 2 {
		t.Errorf("%+v after %d registrations", fault, known.accounts)
	}
}

func TestAccountThatCannotBeOpenedAgain(t *testing.T) {
	ca := startCA(t, pebble.Options{EABRequired: true})
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	request.AccountURL = strings.TrimSuffix(ca.Directory(), pebble.DirectoryPath) + "/my-account/999"
	var known remembered
	_, err := issue(deadline(t), request, known.hooks(&machine{}), quick())
	if fault := faultOf(t, err); !fault.AccountGone || causeOf(t, err) != renew.CauseEAB {
		t.Errorf("%+v", fault)
	}
}

func refuse(w http.ResponseWriter, status int, kind, detail, retryAfter string) {
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Replay-Nonce", "x")
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, kind, detail, status)
}

func TestProfiles(t *testing.T) {
	ca := startCA(t, pebble.Options{Profiles: map[string]time.Duration{"shortlived": 160 * time.Hour}})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	request.Profile = "shortlived"
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	leaf := chainOf(t, issued)[0]
	if got := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Hour); got != 160*time.Hour {
		t.Errorf("lifetime %v", got)
	}
	request.Profile = "nope"
	_, err = issue(deadline(t), request, known.hooks(m), quick())
	if got := causeOf(t, err); got != renew.CauseProfile {
		t.Errorf("cause %s: %v", got, err)
	}
}

func TestPreferredChain(t *testing.T) {
	ca := startCA(t, pebble.Options{AlternateRoots: 2, ChainLength: 2})
	m := startMachine(t, ca)
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	for i := range 3 {
		root, err := expiry.Parse(ca.IssuerRoot(i))
		if err != nil {
			t.Fatal(err)
		}
		request.PreferredChain = root.Leaf.Subject.CommonName
		var known remembered
		issued, err := issue(deadline(t), request, known.hooks(m), quick())
		if err != nil {
			t.Fatal(err)
		}
		verify(t, issued, ca.IssuerRoot(i), "home.example.org")
	}
	request.PreferredChain = "Nobody's Root"
	var known remembered
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "home.example.org")
}

func TestReplaces(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	order := func(replaces string) renew.Issued {
		t.Helper()
		request.Replaces = replaces
		issued, err := issue(deadline(t), request, known.hooks(m), quick())
		if err != nil {
			t.Fatal(err)
		}
		request.AccountURL = issued.AccountURL
		return issued
	}
	first := order("")
	if first.Replaced {
		t.Error("replaced without being asked to")
	}
	old := (&expiry.Certificate{Leaf: chainOf(t, first)[0]}).CertID()
	for _, c := range []struct {
		name, id string
		want     bool
	}{
		{"the first time", old, true},
		{"already replaced", old, false},
		{"of another CA", "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", false},
		{"garbage", "garbage", false},
	} {
		before := ca.Orders("home.example.org")
		if issued := order(c.id); issued.Replaced != c.want {
			t.Errorf("%s: replaced is %t", c.name, issued.Replaced)
		}
		if n := ca.Orders("home.example.org") - before; n != 1 {
			t.Errorf("%s: %d orders", c.name, n)
		}
	}
}

func TestNoncesThatAreRefused(t *testing.T) {
	ca := startCA(t, pebble.Options{NonceReject: 20})
	m := startMachine(t, ca)
	var known remembered
	issued, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org", "www.example.org"), known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issued, ca.IssuerRoot(0), "home.example.org")
}

// Each name keeps its own problem, and the order is not taken up again.
func TestNamesThatCannotBeValidated(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	ca.DNS.SetAddresses("gone.example.org")
	var known remembered
	hooks := known.hooks(m)
	hooks.Present = func(ctx context.Context, all []renew.Challenge) error {
		for i := range all {
			if all[i].Name == "wrong.example.org" {
				all[i].KeyAuthorization = "TEST"
			}
		}
		return m.present(ctx, all)
	}
	request := orderOf(t, ca, renew.HTTP01, "home.example.org", "wrong.example.org", "gone.example.org")
	_, err := issue(deadline(t), request, hooks, quick())
	fault := faultOf(t, err)
	got := map[string]string{}
	for _, p := range fault.Problems {
		got[p.Name] = strings.TrimPrefix(p.Type, errorType)
		if p.Step != renew.StepChallenge || p.Detail == "" || p.Status == 0 {
			t.Errorf("incomplete: %+v", p)
		}
	}
	if len(got) != 2 || got["wrong.example.org"] != "unauthorized" || got["gone.example.org"] != "connection" {
		t.Errorf("problems %v", got)
	}
	if !fault.OrderGone || fault.Date.IsZero() {
		t.Errorf("%+v", fault)
	}

	request.OrderURL = known.order
	hooks.Present = m.present
	ca.DNS.SetAddresses("gone.example.org", "127.0.0.1")
	issued, err := issue(deadline(t), request, hooks, quick())
	if err != nil {
		t.Fatal(err)
	}
	if issued.OrderURL == request.OrderURL || ca.Orders() != 2 {
		t.Errorf("the dead order was taken up again: %d orders", ca.Orders())
	}
}

// What stays open of a dead order is deactivated.
func TestDeactivation(t *testing.T) {
	var refused, deactivated int
	ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		var signed struct{ Payload string }
		_ = json.Unmarshal(body, &signed)
		payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
		switch {
		case strings.HasPrefix(r.URL.Path, pebble.AuthzPath) && strings.Contains(string(payload), "deactivated"):
			deactivated++
		case strings.HasPrefix(r.URL.Path, pebble.ChallengePath) && refused == 0:
			refused++
			refuse(w, http.StatusForbidden, "unauthorized", "not today", "")
			return true
		}
		return false
	})})
	m := startMachine(t, ca)
	ca.DNS.SetAddresses("gone1.example.org")
	ca.DNS.SetAddresses("gone2.example.org")
	var known remembered
	_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "gone1.example.org", "gone2.example.org"), known.hooks(m), quick())
	if fault := faultOf(t, err); !fault.OrderGone || len(fault.Problems) != 2 {
		t.Errorf("%+v", fault)
	}
	if deactivated != 1 {
		t.Errorf("%d authorizations deactivated, want the one that was never tried", deactivated)
	}
}

// A challenge that the CA refused leaves the order open.
func TestOrderIsTakenUpAfterARefusedChallenge(t *testing.T) {
	refused := 0
	ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, pebble.ChallengePath) || refused > 0 {
			return false
		}
		refused++
		refuse(w, http.StatusForbidden, "unauthorized", "not today", "")
		return true
	})})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	_, err := issue(deadline(t), request, known.hooks(m), quick())
	if fault := faultOf(t, err); fault.OrderGone {
		t.Errorf("the order is still open: %+v", fault)
	}
	request.OrderURL, request.AccountURL = known.order, known.account
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	if issued.OrderURL != known.order || ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
}

func TestWhatTheCASaysAboutComingBack(t *testing.T) {
	soon := time.Now().UTC().Add(90 * time.Second).Format(http.TimeFormat)
	for _, c := range []struct {
		name, path string
		answer     func(w http.ResponseWriter)
		cause      renew.Cause
		min, max   time.Duration
		whole      bool
	}{
		{"rate limit of a name", pebble.NewOrderPath, func(w http.ResponseWriter) {
			refuse(w, 429, "rateLimited", "too many certificates (5) already issued for this exact set of identifiers", "36973")
		}, renew.CauseRateDuplicate, 36973 * time.Second, 36973 * time.Second, false},
		{"rate limit of the account", pebble.NewOrderPath, func(w http.ResponseWriter) {
			refuse(w, 429, "rateLimited", "too many new orders (300) from this account in the last 3h0m0s", "60")
		}, renew.CauseRateLimited, time.Minute, time.Minute, true},
		{"rate limit of accounts", pebble.AccountPath, func(w http.ResponseWriter) {
			refuse(w, 429, "rateLimited", "too many new registrations (10) from this IP address", "60")
		}, renew.CauseRateLimited, time.Minute, time.Minute, true},
		{"maintenance", pebble.NewOrderPath, func(w http.ResponseWriter) {
			refuse(w, 503, "serverInternal", "maintenance", soon)
		}, renew.CauseCADown, 80 * time.Second, 90 * time.Second, true},
		{"page of a load balancer", pebble.NewOrderPath, func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(503)
			fmt.Fprint(w, "<html><b>Service busy; retry later.</b></html>")
		}, renew.CauseCADown, 2 * time.Minute, 2 * time.Minute, true},
		{"directory", pebble.DirectoryPath, func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(502)
		}, renew.CauseCADown, 30 * time.Second, 30 * time.Second, true},
		{"paused", pebble.NewOrderPath, func(w http.ResponseWriter) {
			refuse(w, 429, "rateLimited", "Your account is temporarily prevented from requesting certificates. Please visit: https://ca.example/unpause", "")
		}, renew.CausePaused, 0, 0, false},
		{"of an authorization", pebble.AuthzPath, func(w http.ResponseWriter) {
			refuse(w, 500, "serverInternal", "boom", "60")
		}, renew.CauseCADown, time.Minute, time.Minute, false},
		{"refused at the end", pebble.FinalizePath, func(w http.ResponseWriter) {
			refuse(w, 403, "caa", "CAA record for home.example.org prevents issuance", "")
		}, renew.CauseCAA, 0, 0, false},
		{"no certificate", pebble.CertificatePath, func(w http.ResponseWriter) {
			refuse(w, 500, "serverInternal", "boom", "60")
		}, renew.CauseCADown, time.Minute, time.Minute, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
				hit := strings.HasPrefix(r.URL.Path, c.path)
				if hit {
					c.answer(w)
				}
				return hit
			})})
			m := startMachine(t, ca)
			var known remembered
			_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(m), quick())
			fault := faultOf(t, err)
			if got := causeOf(t, err); got != c.cause {
				t.Errorf("cause %s, want %s: %v", got, c.cause, err)
			}
			if fault.RetryAfter < c.min || fault.RetryAfter > c.max || fault.WholeDirectory != c.whole {
				t.Errorf("retry after %v (whole directory %t), want %v to %v (%t)", fault.RetryAfter, fault.WholeDirectory, c.min, c.max, c.whole)
			}
			if fault.Problems[0].Status == 0 || fault.Date.IsZero() {
				t.Errorf("incomplete: %+v", fault)
			}
			if strings.Contains(err.Error(), "<") {
				t.Errorf("markup in %v", err)
			}
		})
	}
}

// An order that the CA keeps is taken up again; one that it refused is not.
func TestOrderGone(t *testing.T) {
	for _, c := range []struct {
		path, kind string
		status     int
		gone       bool
	}{
		{pebble.FinalizePath, "badCSR", 400, true},
		{pebble.FinalizePath, "rateLimited", 429, false},
		{pebble.FinalizePath, "serverInternal", 500, false},
		{pebble.CertificatePath, "serverInternal", 500, false},
		{pebble.AuthzPath, "serverInternal", 500, false},
	} {
		t.Run(c.path+c.kind, func(t *testing.T) {
			ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
				hit := strings.HasPrefix(r.URL.Path, c.path)
				if hit {
					refuse(w, c.status, c.kind, "no", "60")
				}
				return hit
			})})
			m := startMachine(t, ca)
			var known remembered
			_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(m), quick())
			if fault := faultOf(t, err); fault.OrderGone != c.gone {
				t.Errorf("%+v", fault)
			}
		})
	}
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	for _, path := range []string{pebble.DirectoryPath, pebble.AccountPath, pebble.NewOrderPath, pebble.AuthzPath, pebble.ChallengePath, pebble.FinalizePath, pebble.CertificatePath} {
		for name, body := range map[string]string{
			"empty": "", "page": "<html>Log in to this hotel's network</html>", "wrong types": `{"status":7,"newOrder":[],"identifiers":{}}`,
			"null": "null", "half": `{"status":"val`, "huge": strings.Repeat("x", 3<<20), "PEM": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		} {
			t.Run(strings.Trim(path, "/")+" "+name, func(t *testing.T) {
				ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
					hit := strings.HasPrefix(r.URL.Path, path)
					if hit {
						w.Header().Set("Replay-Nonce", "x")
						fmt.Fprint(w, body)
					}
					return hit
				})})
				m := startMachine(t, ca)
				var known remembered
				p := quick()
				p.validation, p.issuance = 300*time.Millisecond, 300*time.Millisecond
				_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(m), p)
				fault := faultOf(t, err)
				if len(fault.Problems) == 0 || len(fault.Problems[0].Detail) > 4*maxDetail {
					t.Errorf("%+v", fault)
				}
				if name == "huge" && !strings.Contains(err.Error(), "1 MiB") {
					t.Errorf("the answer was taken: %v", err)
				}
			})
		}
	}
}

func TestRefusedBeforeAnybodyIsAsked(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	good := orderOf(t, ca, renew.HTTP01, "home.example.org")
	for _, c := range []struct {
		name   string
		change func(r *renew.OrderRequest)
		cause  renew.Cause
	}{
		{"wildcard", func(r *renew.OrderRequest) { r.Names = []string{"example.org", "*.example.org"} }, renew.CauseWildcardNeedsDNS},
		{"no names", func(r *renew.OrderRequest) { r.Names = nil }, renew.CauseBadName},
		{"unknown challenge", func(r *renew.OrderRequest) { r.Challenge = "mail-01" }, renew.CausePresent},
		{"no CSR", func(r *renew.OrderRequest) { r.CSR = nil }, renew.CauseUnknown},
		{"no account key", func(r *renew.OrderRequest) { r.AccountKey = []byte("secret but no key") }, renew.CauseAccount},
		{"roots without a certificate", func(r *renew.OrderRequest) { r.Roots = []byte("x") }, renew.CauseUntrustedCA},
		{"not over TLS", func(r *renew.OrderRequest) { r.Directory = "http" + strings.TrimPrefix(r.Directory, "https") }, renew.CauseUnknown},
		{"no provider", func(r *renew.OrderRequest) { r.Challenge, r.Provider = renew.DNS01, "nope" }, renew.CauseProvider},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := good
			c.change(&request)
			var known remembered
			hooks := known.hooks(&machine{})
			hooks.Provider = func(code string) (challenge.Provider, error) {
				return nil, fmt.Errorf("unrecognized DNS provider: %s", code)
			}
			_, err := issue(deadline(t), request, hooks, quick())
			if got := causeOf(t, err); got != c.cause {
				t.Errorf("cause %s, want %s: %v", got, c.cause, err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the key is in the error: %v", err)
			}
		})
	}
	if n := ca.Requests(); n != 0 {
		t.Errorf("the CA was asked %d times", n)
	}
}

func TestUntrustedCA(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	request.Roots = nil
	var known remembered
	_, err := issue(deadline(t), request, known.hooks(&machine{}), quick())
	if got := causeOf(t, err); got != renew.CauseUntrustedCA {
		t.Errorf("cause %s: %v", got, err)
	}
}

func TestRevoke(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	m := startMachine(t, ca)
	var known remembered
	request := orderOf(t, ca, renew.HTTP01, "home.example.org")
	issued, err := issue(deadline(t), request, known.hooks(m), quick())
	if err != nil {
		t.Fatal(err)
	}
	revocation := renew.RevokeRequest{
		Directory: request.Directory, Roots: request.Roots, AccountKey: request.AccountKey,
		AccountURL: issued.AccountURL, Certificate: chainOf(t, issued)[0].Raw, Reason: 1,
	}
	for _, account := range []string{issued.AccountURL, ""} { // the second time it is revoked already
		revocation.AccountURL = account
		if err := Revoke(deadline(t), revocation); err != nil {
			t.Fatal(err)
		}
	}
	if revoked, err := ca.Revoked(issued.Chain); !revoked || err != nil {
		t.Errorf("revoked: %t, %v", revoked, err)
	}
	revocation.Certificate = []byte("no certificate")
	fault := faultOf(t, Revoke(deadline(t), revocation))
	if fault.Problems[0].Step != renew.StepRevoke {
		t.Errorf("%+v", fault)
	}
	revocation.AccountKey = keyPEM(t)
	if fault := faultOf(t, Revoke(deadline(t), revocation)); fault.Problems[0].Step != renew.StepAccount {
		t.Errorf("%+v", fault)
	}
}

// What the caller could not store must not go on.
func TestHooksThatFail(t *testing.T) {
	full := errors.New("write order.json: no space left on device")
	for _, c := range []struct {
		name   string
		change func(h *Hooks)
		orders int
		cause  renew.Cause
	}{
		{"account", func(h *Hooks) { h.Account = func(context.Context, string) error { return full } }, 0, renew.CauseDisk},
		{"placed", func(h *Hooks) { h.Placed = func(context.Context, string) error { return full } }, 1, renew.CauseDisk},
		{"present", func(h *Hooks) {
			h.Present = func(context.Context, []renew.Challenge) error {
				return errors.New("listen tcp :80: bind: address already in use")
			}
		}, 1, renew.CausePortBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := startCA(t, pebble.Options{})
			m := startMachine(t, ca)
			var known remembered
			hooks := known.hooks(m)
			c.change(&hooks)
			_, err := issue(deadline(t), orderOf(t, ca, renew.HTTP01, "home.example.org"), hooks, quick())
			if got := causeOf(t, err); got != c.cause {
				t.Errorf("cause %s, want %s: %v", got, c.cause, err)
			}
			if ca.Orders() != c.orders {
				t.Errorf("%d orders", ca.Orders())
			}
		})
	}
}

func TestCancel(t *testing.T) {
	reason := errors.New("the daemon stops")
	for _, path := range []string{pebble.DirectoryPath, pebble.NoncePath, pebble.AccountPath, pebble.NewOrderPath, pebble.AuthzPath, pebble.ChallengePath, pebble.FinalizePath, pebble.OrderPath, pebble.CertificatePath} {
		t.Run(strings.Trim(path, "/"), func(t *testing.T) {
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			ctx, cancel := context.WithCancelCause(deadline(t))
			ca := startCA(t, pebble.Options{Wrap: disturb(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, path) {
					cancel(reason)
					<-release // the CA would never answer
				}
				return false
			})})
			m := startMachine(t, ca)
			var known remembered
			ended := make(chan error, 1)
			go func() {
				_, err := issue(ctx, orderOf(t, ca, renew.HTTP01, "home.example.org"), known.hooks(m), quick())
				ended <- err
			}()
			select {
			case err := <-ended:
				if _, ok := errors.AsType[*renew.Fault](err); ok || !errors.Is(err, reason) {
					t.Errorf("got %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("does not end")
			}
		})
	}
}

// A deadline is a failure with a reason, and the order stays open.
func TestDeadline(t *testing.T) {
	ca := startCA(t, pebble.Options{})
	var known remembered
	hooks := known.hooks(nil)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	hooks.Present = func(ctx context.Context, _ []renew.Challenge) error { <-ctx.Done(); return ctx.Err() }
	ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := issue(ctx, orderOf(t, ca, renew.HTTP01, "home.example.org"), hooks, quick())
	fault := faultOf(t, err)
	if fault.OrderGone || fault.Problems[0].Step != renew.StepPresent || known.order == "" {
		t.Errorf("%+v", fault)
	}
}

// The worker injects the provider, so that this package links in seconds.
func TestImports(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path := strings.Trim(i.Path.Value, `"`); strings.Contains(path, "/providers/") || strings.HasSuffix(path, "/lego") {
				t.Errorf("%s imports %s", e.Name(), path)
			}
		}
	}
}
