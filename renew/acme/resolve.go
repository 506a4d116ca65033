package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/miekg/dns"
)

// dnsTimeout is how long one name server has for one answer.
const dnsTimeout = 5 * time.Second

// resolvers look whether a TXT record can be seen: at the zone's own name
// servers if they can be asked, since a resolver that is asked too early
// remembers for up to an hour that there is nothing (RFC 2308).
type resolvers struct {
	addresses []string // host:port; those that answer, or all if none does
	answering bool
	port      string // of the zones' own name servers
}

const resolvConf = "/etc/resolv.conf"

// findResolvers keeps those of the wanted name servers that answer; without any,
// those of the system that do.
func findResolvers(ctx context.Context, wanted []string) *resolvers {
	system := systemResolvers()
	wanted = dns01.ParseNameservers(wanted)
	for _, candidates := range [][]string{wanted, system} {
		if found := answering(ctx, candidates); len(found) > 0 {
			return &resolvers{addresses: found, answering: true, port: "53"}
		}
	}
	if len(wanted) == 0 {
		wanted = system
	}
	return &resolvers{addresses: wanted, port: "53"}
}

func systemResolvers() []string {
	configuration, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil
	}
	return dns01.ParseNameservers(configuration.Servers)
}

func (r *resolvers) usable() bool { return r.answering }

// answering asks all of them at once for the root's name servers. Any answer
// will do: one that serves its own zone only refuses this question.
func answering(ctx context.Context, candidates []string) []string {
	ok := make([]bool, len(candidates))
	var asking sync.WaitGroup
	for i, address := range candidates {
		asking.Go(func() {
			_, err := exchange(ctx, address, ".", dns.TypeNS, true)
			ok[i] = err == nil
		})
	}
	asking.Wait()
	var found []string
	for i, address := range candidates {
		if ok[i] {
			found = append(found, address)
		}
	}
	return found
}

// wait looks until the record can be seen or the context ends. The error is
// what was seen last.
func (r *resolvers) wait(ctx context.Context, fqdn, value string, interval time.Duration) error {
	const soon = 250 * time.Millisecond
	authorities := r.authorities(ctx, fqdn)
	if len(authorities) == 0 && !pause(ctx, min(interval, time.Second)) {
		return ctx.Err()
	}
	var last error
	for next := min(soon, interval); ; next = min(next*3/2, interval) {
		err := r.look(ctx, authorities, fqdn, value)
		if err == nil {
			return nil
		}
		if last == nil || !ended(ctx) { // a look that was cut off says nothing
			last = err
		}
		if !pause(ctx, next) {
			return last
		}
	}
}

// ended is true from the deadline on. The context's own timer comes late on a
// busy machine, the network's deadlines do not.
func ended(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// look asks every authority that answers, and each must have the record. If
// none answers, one of the resolvers must.
func (r *resolvers) look(ctx context.Context, authorities []string, fqdn, value string) error {
	answers := 0
	for _, server := range authorities {
		records, err := txt(ctx, server, fqdn, false)
		if err != nil {
			continue
		}
		answers++
		if !slices.Contains(records, value) {
			return missing(server, fqdn, records)
		}
	}
	if answers > 0 {
		return nil
	}
	var all []error
	for _, server := range r.addresses {
		records, err := txt(ctx, server, fqdn, true)
		switch {
		case err != nil:
			all = append(all, err)
		case slices.Contains(records, value):
			return nil
		default:
			all = append(all, missing(server, fqdn, records))
		}
	}
	return errors.Join(all...)
}

func missing(server, fqdn string, records []string) error {
	return fmt.Errorf("name server %s did not return the expected TXT record for %s (it has %d others)", server, fqdn, len(records))
}

func txt(ctx context.Context, server, fqdn string, recursive bool) (records []string, err error) {
	reply, err := exchange(ctx, server, fqdn, dns.TypeTXT, recursive)
	if err != nil {
		return nil, err
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("name server %s answered %s for %s", server, dns.RcodeToString[reply.Rcode], fqdn)
	}
	for _, record := range reply.Answer {
		if record, ok := record.(*dns.TXT); ok {
			records = append(records, strings.Join(record.Txt, ""))
		}
	}
	return records, nil
}

// authorities are the addresses of the name servers of the zone that a name is
// in; none if they cannot be found, as in many private networks.
func (r *resolvers) authorities(ctx context.Context, fqdn string) []string {
	zone, ok := r.zone(ctx, fqdn)
	if !ok {
		return nil
	}
	var addresses []string
	for _, record := range r.ask(ctx, zone, dns.TypeNS) {
		if server, ok := record.(*dns.NS); ok {
			if address, ok := r.address(ctx, server.Ns); ok {
				addresses = append(addresses, net.JoinHostPort(address, r.port))
			}
		}
	}
	return addresses
}

// zone climbs the labels up to the first that has a start of authority.
func (r *resolvers) zone(ctx context.Context, fqdn string) (string, bool) {
	for start, end := 0, false; !end; start, end = dns.NextLabel(fqdn, start) {
		name := fqdn[start:]
		for _, record := range r.ask(ctx, name, dns.TypeSOA) {
			if soa, ok := record.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, name) {
				return name, true
			}
		}
	}
	return "", false
}

// address is one address of a name server; IPv4 first, since a home without
// IPv6 is more usual than one without IPv4.
func (r *resolvers) address(ctx context.Context, host string) (string, bool) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, record := range r.ask(ctx, host, kind) {
			switch record := record.(type) {
			case *dns.A:
				return record.A.String(), true
			case *dns.AAAA:
				return record.AAAA.String(), true
			}
		}
	}
	return "", false
}

// ask asks the resolvers one after another until one has an answer.
func (r *resolvers) ask(ctx context.Context, name string, kind uint16) []dns.RR {
	for _, server := range r.addresses {
		reply, err := exchange(ctx, server, name, kind, true)
		if err == nil && len(reply.Answer) > 0 {
			return reply.Answer
		}
		if err == nil && reply.Rcode == dns.RcodeSuccess {
			return nil // it knows that there is none
		}
	}
	return nil
}

// exchange asks one server, by TCP again if UDP was too short.
func exchange(ctx context.Context, server, name string, kind uint16, recursive bool) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(name, kind)
	question.SetEdns0(1232, false)
	question.RecursionDesired = recursive
	reply, err := send(ctx, "udp", server, question)
	if err == nil && reply.Truncated {
		reply, err = send(ctx, "tcp", server, question)
	}
	if err != nil {
		return nil, fmt.Errorf("DNS call error: name server %s: %w", server, err)
	}
	return reply, nil
}

// send closes the connection when the context ends: the library looks at its
// deadline only.
func send(ctx context.Context, network, server string, question *dns.Msg) (*dns.Msg, error) {
	client := &dns.Client{Net: network, Timeout: dnsTimeout}
	connection, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer func() {
		if stop() {
			connection.Close()
		}
	}()
	reply, _, err := client.ExchangeWithConnContext(ctx, question, connection)
	return reply, err
}
