package pebble

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is a name server for tests: every name has the address 127.0.0.1 until
// told otherwise, and none has a TXT record. Letsencrypt's challtestsrv is not
// used because it answers for the whole process through miekg/dns's global
// handler: a second one takes over the first one's questions.
type DNS struct {
	address string
	servers []*dns.Server
	ended   sync.WaitGroup

	mu        sync.Mutex
	txt       map[string][]string
	addresses map[string][]string
	cname     map[string]string
	zones     map[string][]string // name → its name servers
	broken    map[string]bool
	asked     map[string]int
}

// StartDNS starts a name server on a free port of 127.0.0.1, UDP and TCP. It
// must be closed.
func StartDNS() (*DNS, error) {
	d := &DNS{
		txt:       map[string][]string{},
		addresses: map[string][]string{},
		cname:     map[string]string{},
		zones:     map[string][]string{},
		broken:    map[string]bool{},
		asked:     map[string]int{},
	}
	listener, packets, err := listenBoth()
	if err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	d.address = listener.Addr().String()
	d.serve(&dns.Server{Listener: listener})
	d.serve(&dns.Server{PacketConn: packets})
	return d, nil
}

// listenBoth binds one port number for TCP and UDP; the UDP one of a free TCP
// port may be taken, so it tries a few.
func listenBoth() (net.Listener, net.PacketConn, error) {
	var last error
	for range 20 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return listener, packets, nil
		}
		listener.Close()
		last = err
	}
	return nil, nil, last
}

// serve returns when the server answers, so that Close finds it running.
func (d *DNS) serve(server *dns.Server) {
	running := make(chan struct{})
	server.Handler = dns.HandlerFunc(d.answer)
	server.NotifyStartedFunc = func() { close(running) }
	d.servers = append(d.servers, server)
	d.ended.Go(func() { _ = server.ActivateAndServe() })
	<-running
}

// Address is the host:port of the server.
func (d *DNS) Address() string { return d.address }

// Close ends the server.
func (d *DNS) Close() {
	for _, server := range d.servers {
		_ = server.Shutdown()
	}
	d.ended.Wait()
}

// AddTXT adds a TXT record; a name may have several.
func (d *DNS) AddTXT(name, value string) {
	d.change(func() { d.txt[key(name)] = append(d.txt[key(name)], value) })
}

// RemoveTXT removes one TXT record.
func (d *DNS) RemoveTXT(name, value string) {
	d.change(func() {
		d.txt[key(name)] = slices.DeleteFunc(d.txt[key(name)], func(v string) bool { return v == value })
	})
}

// TXT is what the TXT records of a name say now.
func (d *DNS) TXT(name string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.txt[key(name)])
}

// SetAddresses gives a name its A and AAAA records; none means it has none.
func (d *DNS) SetAddresses(name string, addresses ...string) {
	d.change(func() { d.addresses[key(name)] = slices.Clone(addresses) })
}

// SetCNAME makes a name an alias of another.
func (d *DNS) SetCNAME(name, target string) {
	d.change(func() { d.cname[key(name)] = key(target) })
}

// SetZone makes a name the start of a zone that these name servers serve. Their
// addresses are those of the names.
func (d *DNS) SetZone(name string, servers ...string) {
	d.change(func() { d.zones[key(name)] = slices.Clone(servers) })
}

// Break makes every question about a name end in SERVFAIL.
func (d *DNS) Break(name string) {
	d.change(func() { d.broken[key(name)] = true })
}

// Asked is how often somebody asked for the TXT records of a name.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[key(name)]
}

func (d *DNS) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func key(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func (d *DNS) answer(w dns.ResponseWriter, question *dns.Msg) {
	reply := new(dns.Msg).SetReply(question)
	d.mu.Lock()
	for _, q := range question.Question {
		d.answerOne(reply, q)
	}
	d.mu.Unlock()
	_ = w.WriteMsg(reply)
}

func (d *DNS) answerOne(reply *dns.Msg, q dns.Question) {
	name := key(q.Name)
	if q.Qtype == dns.TypeTXT {
		d.asked[name]++
	}
	if d.broken[name] {
		reply.Rcode = dns.RcodeServerFailure
		return
	}
	if target, ok := d.cname[name]; ok {
		reply.Answer = append(reply.Answer, &dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: target})
		name = target
	}
	switch q.Qtype {
	case dns.TypeTXT:
		for _, value := range d.txt[name] {
			reply.Answer = append(reply.Answer, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: []string{value}})
		}
	case dns.TypeA, dns.TypeAAAA:
		reply.Answer = append(reply.Answer, d.addressRecords(name, q.Qtype)...)
	case dns.TypeSOA, dns.TypeNS:
		reply.Answer = append(reply.Answer, d.zoneRecords(name, q.Qtype)...)
	}
}

func (d *DNS) addressRecords(name string, kind uint16) (records []dns.RR) {
	addresses, ok := d.addresses[name]
	if !ok {
		addresses = []string{"127.0.0.1"}
	}
	for _, address := range addresses {
		ip := net.ParseIP(address)
		switch {
		case ip.To4() != nil && kind == dns.TypeA:
			records = append(records, &dns.A{Hdr: header(name, kind), A: ip})
		case ip.To4() == nil && kind == dns.TypeAAAA:
			records = append(records, &dns.AAAA{Hdr: header(name, kind), AAAA: ip})
		}
	}
	return records
}

func (d *DNS) zoneRecords(name string, kind uint16) (records []dns.RR) {
	for i, server := range d.zones[name] {
		switch {
		case kind == dns.TypeNS:
			records = append(records, &dns.NS{Hdr: header(name, kind), Ns: key(server)})
		case i == 0:
			records = append(records, &dns.SOA{Hdr: header(name, kind), Ns: key(server), Mbox: key("hostmaster." + name),
				Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 1})
		}
	}
	return records
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
}

// Provider is the HTTP interface that lego's provider "httpreq" talks to: with
// it as HTTPREQ_ENDPOINT, DNS-01 works against this server.
func (d *DNS) Provider() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /present", d.record(d.AddTXT))
	mux.HandleFunc("POST /cleanup", d.record(d.RemoveTXT))
	return mux
}

func (d *DNS) record(change func(name, value string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var wanted struct{ FQDN, Value string }
		if err := json.NewDecoder(r.Body).Decode(&wanted); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		change(wanted.FQDN, wanted.Value)
	}
}
