package pebble

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func start(t *testing.T, o Options) *CA {
	t.Helper()
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestDirectoryOverTrustedTLS(t *testing.T) {
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "7")
	c := start(t, Options{EABRequired: true, AlternateRoots: 2, Profiles: map[string]time.Duration{"short": time.Hour}})
	if got := os.Getenv("PEBBLE_WFE_NONCEREJECT"); got != "7" {
		t.Errorf("the environment was left changed: %q", got)
	}
	if n := strings.Count(string(c.IssuerRoots()), "BEGIN CERTIFICATE"); n != 3 {
		t.Errorf("%d issuing roots, want 3", n)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.Roots())
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Directory(), nil)
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var directory struct {
		NewOrder string
		Meta     struct {
			ExternalAccountRequired bool
			Profiles                map[string]string
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&directory); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(directory.NewOrder, NewOrderPath) || !directory.Meta.ExternalAccountRequired || directory.Meta.Profiles["short"] != "1h0m0s" {
		t.Errorf("directory is %+v", directory)
	}
	if c.Requests() != 1 {
		t.Errorf("%d requests counted, want 1", c.Requests())
	}
}

func TestTwoNameServersDoNotMix(t *testing.T) {
	one, two := start(t, Options{}).DNS, start(t, Options{}).DNS
	one.AddTXT("_acme-challenge.example.org", "one")
	two.AddTXT("_acme-challenge.example.org", "two")
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(t, one, network, "_acme-challenge.EXAMPLE.org", dns.TypeTXT); !slices.Equal(got, []string{"one"}) {
			t.Errorf("%s: %q, want one", network, got)
		}
	}
	if got := two.TXT("_acme-challenge.example.org."); !slices.Equal(got, []string{"two"}) {
		t.Errorf("%q, want two", got)
	}
}

func TestRecords(t *testing.T) {
	d := start(t, Options{}).DNS
	d.SetAddresses("six.example.org", "2001:db8::1")
	d.SetCNAME("alias.example.org", "six.example.org")
	d.Break("broken.example.org")
	d.SetZone("example.org", "ns1.example.org", "ns2.example.org")
	for _, c := range []struct {
		name string
		kind uint16
		want []string
	}{
		{"any.example.org", dns.TypeA, []string{"127.0.0.1"}},
		{"any.example.org", dns.TypeAAAA, nil},
		{"six.example.org", dns.TypeA, nil},
		{"six.example.org", dns.TypeAAAA, []string{"2001:db8::1"}},
		{"alias.example.org", dns.TypeAAAA, []string{"six.example.org.", "2001:db8::1"}},
		{"example.org", dns.TypeNS, []string{"ns1.example.org.", "ns2.example.org."}},
		{"example.org", dns.TypeSOA, []string{"ns1.example.org."}},
		{"any.example.org", dns.TypeSOA, nil},
		{"broken.example.org", dns.TypeA, []string{"SERVFAIL"}},
	} {
		if got := ask(t, d, "udp", c.name, c.kind); !slices.Equal(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestProviderEndpoint(t *testing.T) {
	d := start(t, Options{}).DNS
	server := httptest.NewServer(d.Provider())
	defer server.Close()
	post := func(path string) {
		t.Helper()
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(`{"fqdn":"_acme-challenge.a.example.","value":"v"}`))
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	post("/present")
	if got := d.TXT("_acme-challenge.a.example"); !slices.Equal(got, []string{"v"}) {
		t.Errorf("after present: %q", got)
	}
	post("/cleanup")
	if got := d.TXT("_acme-challenge.a.example"); len(got) != 0 {
		t.Errorf("after cleanup: %q", got)
	}
}

func TestCloseDoesNotWaitForARequestThatHangs(t *testing.T) {
	hang := make(chan struct{})
	asked := make(chan struct{})
	defer close(hang)
	c, err := Start(Options{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(asked); <-hang })
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		connection, err := tls.Dial("tcp", strings.TrimPrefix(c.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			defer connection.Close()
			_, _ = connection.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			_, _ = connection.Read(make([]byte, 1))
		}
	}()
	<-asked
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for a request")
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, o := range map[string]Options{
		"key that is no base64url": {EAB: map[string]string{"kid": "!"}},
		"address that is taken":    {Address: taken.Addr().String()},
	} {
		if c, err := Start(o); err == nil {
			c.Close()
			t.Errorf("%s: started", name)
		}
	}
}

func ask(t *testing.T, d *DNS, network, name string, kind uint16) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	client := &dns.Client{Net: network}
	reply, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), d.Address())
	if err != nil {
		t.Fatal(err)
	}
	if reply.Rcode != dns.RcodeSuccess {
		return []string{dns.RcodeToString[reply.Rcode]}
	}
	for _, record := range reply.Answer {
		switch r := record.(type) {
		case *dns.TXT:
			got = append(got, strings.Join(r.Txt, ""))
		case *dns.A:
			got = append(got, r.A.String())
		case *dns.AAAA:
			got = append(got, r.AAAA.String())
		case *dns.NS:
			got = append(got, r.Ns)
		case *dns.SOA:
			got = append(got, r.Ns)
		case *dns.CNAME:
			got = append(got, r.Target)
		}
	}
	return got
}

func TestFreePortGivesNoneTwice(t *testing.T) {
	t.Parallel()
	given := map[int]bool{}
	for n := range 15000 { // more than there are
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if n < 1000 && given[port] {
			t.Fatalf("%d is given twice", port)
		}
		given[port] = true
	}
}
