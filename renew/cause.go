package renew

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/certsitter/certsitter/expiry"
)

// A Cause is a stable code for why an attempt failed. Scripts may rely on it.
type Cause string

// The causes that Explain tells apart.
const (
	CauseUnknown Cause = "unknown"

	// What the CA saw when it looked at the machine.
	CauseGeoBlock     Cause = "geo_block"     // from one place it could, from another not
	CauseAAAAWrong    Cause = "aaaa_wrong"    // over IPv6 it could not
	CauseCGNAT        Cause = "cgnat"         // no route to the address
	CauseRedirectPort Cause = "redirect_port" // port 80 redirects to a port the CA does not go to
	CauseHTTPTimeout  Cause = "http_timeout"  // nobody answers on port 80
	CauseHTTPRefused  Cause = "http_refused"  // the port is closed
	CauseWrongDevice  Cause = "wrong_device"  // somebody else answers
	CauseALPN         Cause = "cf_alpn"       // TLS-ALPN-01 does not get through
	CauseTLSTimeout   Cause = "tls_timeout"   // nobody answers on port 443

	// What it saw in DNS.
	CauseNoPublicIP  Cause = "no_public_ip"
	CauseNXDomain    Cause = "nxdomain"
	CauseDNSSEC      Cause = "dnssec"
	CauseNSBroken    Cause = "ns_broken"
	CauseCAA         Cause = "caa"
	CauseSingleTXT   Cause = "single_txt"
	CausePropagation Cause = "propagation"
	CauseStaleCNAME  Cause = "stale_cname"

	// What went wrong here.
	CausePortOff          Cause = "port_off"
	CausePortBusy         Cause = "port_busy"
	CausePortDenied       Cause = "port_denied"
	CauseWildcardNeedsDNS Cause = "wildcard_needs_dns"
	CauseDisk             Cause = "disk"
	CauseFiles            Cause = "files" // the certificate could not be installed
	CauseClock            Cause = "clock"
	CausePresent          Cause = "present"

	// What the DNS provider said.
	CauseDNSCredentials Cause = "dns_credentials"
	CauseDNSScope       Cause = "dns_scope"
	CauseProviderEOL    Cause = "provider_eol"
	CauseSplitDNS       Cause = "split_dns"
	CausePort53Blocked  Cause = "port53_blocked"
	CauseProviderDown   Cause = "dns_provider_down"
	CauseProvider       Cause = "dns_provider"

	// What the CA said about us.
	CauseRateDuplicate Cause = "rl_duplicate"
	CauseRateFailures  Cause = "rl_failures"
	CauseRateDomain    Cause = "rl_domain"
	CausePaused        Cause = "paused"
	CauseRateLimited   Cause = "rate_limited"
	CauseAccount       Cause = "account"
	CauseEAB           Cause = "eab"
	CauseContact       Cause = "contact"
	CauseReplaces      Cause = "replaces"
	CauseProfile       Cause = "profile"
	CauseBadName       Cause = "bad_name"
	CauseBadKey        Cause = "bad_key"
	CauseOrderGone     Cause = "order_gone"

	// The CA itself.
	CauseUntrustedCA Cause = "ca_untrusted"
	CauseCADown      Cause = "ca_down"
	CauseCASlow      Cause = "ca_slow"
)

// An Explanation says in plain words what happened and what to do.
type Explanation struct {
	Cause    Cause  `json:"cause"`
	Sentence string `json:"sentence"` // what happened and what it means; at most 200 characters
	Advice   string `json:"advice"`   // what to do
}

// A symptom is one row of the catalogue: what a problem looks like, and what it
// means. In the texts, {name} is the name it is about and {1} what the pattern
// caught.
type symptom struct {
	cause    Cause
	steps    string // of which the problem's is one; "" = any
	kind     string // ACME error type without its prefix; "" = any
	statuses string // first characters of the HTTP status, alternatives by space; "" = any
	detail   string // pattern in the problem's detail; "" = any
	sentence string
	advice   string

	pattern *regexp.Regexp
}

const (
	aboutNames = StepAuthorization + " " + StepChallenge
	aboutDNS   = StepPresent + " " + StepPropagation
	// orDNS ends most advice about HTTP-01.
	orDNS = ", or switch to the DNS challenge (challenge: dns-01)."
)

// symptoms is the catalogue in the sequence in which it is searched: special
// ones first. The texts are those of Boulder (va/, bdns/problem.go,
// ratelimits/limiter.go), Pebble, lego and Go's library.
var symptoms = sync.OnceValue(func() []symptom {
	all := catalogue()
	for i := range all {
		all[i].pattern = regexp.MustCompile(`(?is)` + all[i].detail)
	}
	return all
})

func catalogue() []symptom {
	return []symptom{
		{cause: CauseClock,
			detail:   `certificate has expired or is not yet valid: current time \S+ is (before|after)`,
			sentence: "The clock of this machine seems to be wrong: the CA's own certificate is not valid at the time it shows, so nobody can be trusted.",
			advice:   "Set the date and time, and switch on time synchronisation (NTP)."},
		// Folders of others that are read-only are no full disk.
		{cause: CausePresent, steps: StepPresent, detail: `below the webroot (.*) \(read-only file system\)`,
			sentence: "The webroot {1} is read-only for Certsitter, so the answer for the CA could not be put there.",
			advice:   "Give it that folder: a systemd unit by ReadWritePaths=, and restart the unit if it is older than the folder; a container by a mount without :ro."},
		{cause: CauseDisk,
			detail:   `no space left on device|disk quota exceeded|read-only file system`,
			sentence: "The disk is full or cannot be written to, so nothing could be kept. The certificate in use is untouched.",
			advice:   "Free at least 20 MB and see that the state folder can be written to."},
		// What the store says of a file that it would have to write is advice, too.
		{cause: CauseFiles, steps: StepOrder, detail: `^(certfile|keyfile|leaffile|chainfile|combinedfile|pkcs12|keystore) /`,
			sentence: "Nothing was ordered, because the {1} could not be installed.",
			advice:   "{detail}."},

		// Rate limits come before what they are about.
		{cause: CausePaused, kind: "rateLimited", detail: `temporarily prevented.*?(https://\S+)`,
			sentence: "The CA has paused {name} after a long row of failures. It will not try again until somebody asks it to.",
			advice:   "Open this link once to unpause, then renew by hand: {1}"},
		{cause: CauseRateDuplicate, kind: "rateLimited", detail: `exact set of (?:identifiers|domains)`,
			sentence: "The CA has issued too many certificates for the same names this week. The one in use stays in force.",
			advice:   "Nothing to do: it is tried again when the CA allows it. If other programs order the same names, stop them."},
		{cause: CauseRateFailures, kind: "rateLimited", detail: `too many failed authorizations|failed authorizations`,
			sentence: "The CA has seen too many failed validations of {name} and wants a rest of an hour.",
			advice:   "Remove the reason of the earlier failures; it is tried again by itself."},
		{cause: CauseRateDomain, kind: "rateLimited", detail: `already issued for "([^"]+)"`,
			sentence: "The CA has issued too many certificates below {1} this week. If that is a dynamic DNS service, you share this limit with its other users.",
			advice:   "It is tried again by itself. If it happens often, use another dynamic DNS service or a domain of your own."},
		{cause: CauseRateLimited, kind: "rateLimited",
			sentence: "The CA's limit for orders is reached. The certificate in use stays in force.",
			advice:   "Nothing to do: it is tried again when the CA allows it."},

		{cause: CauseReplaces, kind: "alreadyReplaced",
			sentence: "The CA says that the old certificate was replaced already.",
			advice:   "Nothing to do: the next attempt does without this notice."},
		{cause: CauseEAB, kind: "externalAccountRequired",
			sentence: "This CA opens accounts only for its customers: it wants an external account binding.",
			advice:   "Get the key id and the HMAC key from the CA's web site and set eab_kid and eab_hmac."},
		{cause: CauseEAB, steps: StepAccount, detail: `external account|eab|hmac|mac key|unknown key|not known`,
			sentence: "The CA did not accept the external account binding: the key id or the HMAC key is wrong, used up or expired.",
			advice:   "Get a new pair from the CA's web site and set eab_kid and eab_hmac."},
		{cause: CauseContact, kind: "invalidContact",
			sentence: "The CA does not accept the e-mail address as a contact.",
			advice:   "Correct email, or remove it: no contact is needed."},
		{cause: CauseContact, kind: "unsupportedContact",
			sentence: "The CA does not accept this kind of contact.",
			advice:   "Remove email: no contact is needed."},
		{cause: CauseAccount, kind: "userActionRequired",
			sentence: "The CA wants something to be agreed to before it goes on, usually new terms of service.",
			advice:   "See what the CA says on its web site: {detail}"},
		{cause: CauseAccount, kind: "accountDoesNotExist",
			sentence: "The CA does not know the account any more, and a new one could not be opened.",
			advice:   "It is tried again by itself. If it goes on, remove the accounts folder in the state folder to begin with a new key."},
		{cause: CauseAccount, steps: StepAccount + " " + StepOrder, detail: `account\b.*\b(?:deactivated|revoked|not valid)`,
			sentence: "The account with the CA was closed.",
			advice:   "Remove the accounts folder in the state folder: a new account is opened then."},
		{cause: CauseAccount, steps: StepAccount, statuses: "4",
			sentence: "The CA refused to open an account.",
			advice:   "See what it says: {detail}"},
		{cause: CauseAccount, steps: StepAccount, detail: `key cannot be read`,
			sentence: "The key of the account with the CA is damaged.",
			advice:   "Restore the accounts folder in the state folder from a backup, or remove it to begin with a new account."},

		{cause: CauseProfile, kind: "invalidProfile",
			sentence: "The CA does not offer the profile that is configured.",
			advice:   "Correct profile, or remove it to take the CA's usual one: {detail}"},
		{cause: CauseProfile, steps: StepOrder, detail: `\bprofile\b`,
			sentence: "The CA does not sign these names with the profile that is configured.",
			advice:   "Correct profile, or remove it to take the CA's usual one: {detail}"},
		{cause: CauseCAA, kind: "caa",
			sentence: "A CAA record in the DNS of {name} forbids this CA to issue certificates for it.",
			advice:   `Add a CAA record that allows the CA (for Let's Encrypt: 0 issue "letsencrypt.org"), or remove the CAA records.`},
		{cause: CauseDNSSEC, detail: `DNSSEC`,
			sentence: "The DNSSEC signatures of {name} are broken, so the CA cannot trust what DNS says.",
			advice:   "Repair DNSSEC (DS records and keys) where the domain is registered."},
		{cause: CauseNXDomain, detail: `NXDOMAIN`,
			sentence: "The name {name} does not exist in DNS: it has expired, is not set up, or is misspelt.",
			advice:   "Check the name and its DNS entry."},
		{cause: CauseNSBroken, detail: `(?:SERVFAIL|query timed out|REFUSED|networking error|server failure at resolver) looking up|nameservers may be malfunctioning`,
			sentence: "The DNS servers of {name} did not answer the CA.",
			advice:   "Usually it passes, and it is tried again by itself. If it stays, tell the DNS provider."},
		{cause: CauseNoPublicIP, detail: `no valid (?:A|AAAA|IP) (?:records|addresses) found|(?:reserved|private|non-public) (?:IP )?address|unroutable`,
			sentence: "The name {name} has no public address, so the CA cannot reach this machine under it.",
			advice:   "Give the name a public address (A record)" + orDNS},
		{cause: CauseCAA, detail: `CAA record`,
			sentence: "The CAA records in the DNS of {name} could not be read, or forbid this CA.",
			advice:   `Check the CAA records; for Let's Encrypt there must be none, or one that says 0 issue "letsencrypt.org".`},

		{cause: CauseGeoBlock, steps: aboutNames, detail: `secondary validation`,
			sentence: "The CA could validate {name} from one place in the world, but not from others.",
			advice:   "Let the whole world in on port 80 (no blocking by country)" + orDNS},
		{cause: CauseRedirectPort, steps: aboutNames, detail: `invalid port in redirect target.*?not (\d+)`,
			sentence: "Port 80 of {name} redirects to port {1}, and the CA goes to ports 80 and 443 only.",
			advice:   "Do not redirect /.well-known/acme-challenge/" + orDNS},
		{cause: CauseALPN, steps: aboutNames, detail: `acme-tls/1|negotiate ALPN|acmeIdentifier|id-pe-acme`,
			sentence: "Something between the CA and this machine (a proxy like Cloudflare's, or another web server) answers on port 443 for {name}.",
			advice:   "Switch the proxy off for this name (grey cloud), forward port 443 to this machine, or use the DNS challenge (challenge: dns-01)."},
		{cause: CauseAAAAWrong, steps: aboutNames, kind: "connection", detail: `^(?:[0-9a-f]{0,4}:){2,}[0-9a-f.]*:? `,
			sentence: "The CA tried {name} over IPv6, as its AAAA record says, and did not get through.",
			advice:   "Open port 80 for IPv6 to this machine, or remove the AAAA record."},
		{cause: CauseAAAAWrong, steps: aboutNames, kind: "unauthorized", detail: `^(?:[0-9a-f]{0,4}:){2,}[0-9a-f.]*: Invalid response`,
			sentence: "The CA tried {name} over IPv6, as its AAAA record says, and met another device.",
			advice:   "Let the AAAA record point to this machine, or remove it."},
		{cause: CauseCGNAT, steps: aboutNames, detail: `network (?:is )?unreachable|no route to host`,
			sentence: "There is no way from the Internet to the address of {name}: your provider may give you no public IPv4 address.",
			advice:   "Use the DNS challenge (challenge: dns-01): it needs no way in."},
		{cause: CauseHTTPTimeout, steps: aboutNames, detail: `http://.*(?:timeout|deadline exceeded|timed out)`,
			sentence: "Nobody answered the CA on port 80 of {name}: the router does not forward it, or the name points to an old address.",
			advice:   "Forward TCP port 80 of your router to this machine and check that the name has your present address" + orDNS},
		{cause: CauseHTTPRefused, steps: aboutNames, detail: `http://.*(?:refused|reset by peer|EOF|error getting validation data)`,
			sentence: "Port 80 of {name} is closed: the CA was turned away at the door.",
			advice:   "Forward TCP port 80 of your router to the port where Certsitter answers (http_port)" + orDNS},
		{cause: CauseWrongDevice, steps: aboutNames, detail: `invalid response from http|did not match this challenge|non-200 status code|key authorization file`,
			sentence: "Something else answered the CA on port 80 of {name}, often the router's own page or another web server.",
			advice:   "Forward port 80 to this machine, or set webroot to the other server's folder" + orDNS},
		{cause: CauseTLSTimeout, steps: aboutNames, detail: `tls-alpn-01|timeout during connect|connection refused|failed to connect to`,
			sentence: "Nobody answered the CA on port 443 of {name}.",
			advice:   "Forward TCP port 443 of your router to the port where Certsitter answers (tls_port), or use the DNS challenge (challenge: dns-01)."},
		{cause: CauseSingleTXT, steps: aboutNames, detail: `incorrect TXT record|correct value not found`,
			sentence: "The CA found a DNS record of another attempt for {name}: an old one was left, or the provider keeps only one.",
			advice:   "Remove old _acme-challenge records. With a provider that holds one value (DuckDNS) let only one program renew at a time."},
		{cause: CausePropagation, steps: aboutNames, detail: `no TXT records? found|error retrieving TXT`,
			sentence: "The CA did not find the DNS record for {name}: the change was too slow, or went to another zone.",
			advice:   "Raise the provider's propagation timeout (its …_PROPAGATION_TIMEOUT variable) and check that it manages this domain."},

		{cause: CauseWildcardNeedsDNS, detail: `could not determine solvers.*(?:\*|wildcard)`,
			sentence: "A wildcard like {name} can be validated with the DNS challenge only.",
			advice:   "Set challenge: dns-01 and a provider, or list the names one by one."},
		{cause: CauseWildcardNeedsDNS, detail: `could not determine solvers`,
			sentence: "The CA does not offer the configured challenge for {name}.",
			advice:   "Choose another challenge for this certificate."},

		// What the DNS provider said.
		{cause: CauseProviderEOL, steps: aboutDNS, detail: `hetzner.*(?:404|410|zone.*not found)|godaddy.*ACCESS_DENIED|namecheap.*(?:invalid request IP|\bIP\b)`,
			sentence: "The DNS provider does not let this account use its interface (any more).",
			advice:   "Hetzner: use HETZNER_API_TOKEN of the new console. GoDaddy: only larger customers have access. Namecheap: allow this machine's address."},
		{cause: CauseSplitDNS, steps: aboutDNS, detail: `could not find the start of authority|could not find zone`,
			sentence: "The zone of {name} was not found: the name servers that were asked do not know the public domain.",
			advice:   "Set resolvers to public ones (1.1.1.1:53, 9.9.9.9:53): a local name server that hides the domain is the usual reason."},
		{cause: CauseDNSScope, steps: aboutDNS, detail: `insufficient (?:permissions|scope)|not authorized to perform`,
			sentence: "The DNS provider's key may not change {name}, or the domain is in another account.",
			advice:   "Give the key the rights to read the zone and to edit DNS for exactly this domain (Cloudflare: Zone:Read and DNS:Edit)."},
		{cause: CauseDNSCredentials, steps: aboutDNS, detail: `credentials information (?:are|is) missing|\bmissing\b.*(?:[A-Z]+_[A-Z_]+)`,
			sentence: "Settings of the DNS provider are missing.",
			advice:   "Add them to env of this certificate: {detail}"},
		{cause: CauseDNSCredentials, steps: aboutDNS, detail: `\b(?:401|403|9109|6003|10000)\b|\bKO\b|invalid (?:api |access )?(?:token|key)|unauthori[sz]ed|forbidden|authenticat|access.?denied|bad credentials|login failed`,
			sentence: "The DNS provider rejected the key or password.",
			advice:   "Copy the key from the DNS provider once more, or make a new one there, and put it into env of this certificate."},
		{cause: CauseDNSScope, steps: aboutDNS, detail: `fail\w* to find zone|zone \S*\s*(?:could not be|was not|not) found|(?:no|find) (?:matching )?zone`,
			sentence: "The DNS provider's key may not change {name}, or the domain is in another account.",
			advice:   "Give the key the rights to read the zone and to edit DNS for exactly this domain (Cloudflare: Zone:Read and DNS:Edit)."},
		{cause: CausePort53Blocked, steps: aboutDNS, detail: `DNS call error|:53:.*(?:timeout|refused|unreachable)`,
			sentence: "The name servers could not be asked about the DNS record of {name}: the network seems to block DNS.",
			advice:   "Allow DNS (port 53, UDP and TCP) to the outside, or set resolvers to a server that can be reached."},
		{cause: CauseStaleCNAME, steps: StepPropagation, detail: `expected TXT record for `,
			sentence: "The entry _acme-challenge of {name} is an alias, and the record did not appear where it points to.",
			advice:   "Remove the CNAME of _acme-challenge, or configure the provider of the zone that it points to."},
		{cause: CausePropagation, steps: StepPropagation,
			sentence: "The DNS record for {name} was not seen in time, so the CA was not asked.",
			advice:   "Raise the provider's propagation timeout (its …_PROPAGATION_TIMEOUT variable); check that the provider's key is for this domain."},
		{cause: CauseProvider, steps: StepPresent, detail: `unrecognized DNS provider|unknown provider|no such provider`,
			sentence: "There is no DNS provider with the configured code.",
			advice:   "List the codes with: certsitter providers"},
		{cause: CauseProviderDown, steps: StepPresent, detail: `error presenting token.*(?:timeout|deadline exceeded|no such host|connection|EOF|\b50[0234]\b|TLS handshake)`,
			sentence: "The DNS provider could not be reached.",
			advice:   "Usually it passes, and it is tried again by itself. Check the provider's status page if it stays."},
		{cause: CauseProvider, steps: StepPresent, detail: `error presenting token|^provider `,
			sentence: "The DNS provider did not write the record for {name}.",
			advice:   "See what it says: {detail}"},
		{cause: CausePortOff, steps: StepPresent, detail: `port (\d+) of the app is off`,
			sentence: "Port {1} of the app is off, so the CA cannot reach it. Nothing was ordered.",
			advice:   "Turn it on in Home Assistant under Settings → Apps → Certsitter → Configuration → Network, or switch to the DNS challenge (challenge: dns-01)."},
		{cause: CausePortBusy, steps: StepPresent, detail: `address already in use|is taken|\bin use by\b`,
			sentence: "The port for the CA's validation is taken by another program on this machine.",
			advice:   "Stop the other program, use its webroot, or switch to the DNS challenge. {detail}"},
		{cause: CausePortDenied, steps: StepPresent, detail: `permission denied|not permitted`,
			sentence: "Certsitter may not put the answer for the CA in place: it lacks a permission.",
			advice:   "Allow it to bind the port or to write the webroot: {detail}"},
		{cause: CausePresent, steps: StepPresent,
			sentence: "The answer for the CA could not be put in place.",
			advice:   "See why: {detail}"},

		// What the CA said about the order.
		{cause: CauseBadName, kind: "rejectedIdentifier",
			sentence: "The CA does not issue certificates for {name}.",
			advice:   "Public CAs sign public domain names only. See what it says: {detail}"},
		{cause: CauseBadName, kind: "unsupportedIdentifier",
			sentence: "The CA does not issue certificates for this kind of name.",
			advice:   "Remove IP addresses from the names, or choose a profile that allows them."},
		{cause: CauseBadName, steps: StepOrder, detail: `public suffix|invalid (?:domain|identifier)|illegal (?:character|wildcard)|Domain name|identifier value|no names`,
			sentence: "The CA does not take one of the names: it is not a public domain name, or is misspelt.",
			advice:   "Public CAs sign public domain names only, not .local or .lan: {detail}"},
		{cause: CauseReplaces, steps: StepOrder, detail: `replac|\bARI\b`,
			sentence: "The CA did not accept what the order says about the certificate that it replaces.",
			advice:   "Nothing to do: it is tried again."},
		{cause: CauseBadKey, kind: "badCSR",
			sentence: "The CA did not accept the certificate request, usually for its key.",
			advice:   "Set key_type to ec256 or rsa2048: {detail}"},
		{cause: CauseBadKey, kind: "badPublicKey",
			sentence: "The CA did not accept the key.",
			advice:   "Set key_type to ec256 or rsa2048, and reuse_key to false."},
		{cause: CauseBadKey, kind: "badSignatureAlgorithm",
			sentence: "The CA did not accept the kind of key of the account.",
			advice:   "Remove the accounts folder in the state folder to begin with a new key."},
		{cause: CauseBadKey, detail: `not for the key of the request`,
			sentence: "The CA sent a certificate for another key than the one it was asked for.",
			advice:   "Nothing to do: the next attempt places a new order."},

		// The CA itself.
		{cause: CauseUntrustedCA, detail: `unknown authority|certificate is not trusted|certificate is valid for|not valid for any names|doesn't contain any IP SANs`,
			sentence: "The CA's server shows a certificate that this machine does not trust.",
			advice:   "For a CA of your own set ca_roots to the file with its roots. With a public CA somebody is in between: check proxies."},
		{cause: CauseUntrustedCA, detail: `no certificate in the roots`,
			sentence: "The file with the CA's roots holds no certificate.",
			advice:   "Set ca_roots to a PEM file with the roots of the CA."},
		{cause: CauseCASlow, detail: `not come to a result`,
			sentence: "The CA took too long to come to a result. The order stays open and is taken up again.",
			advice:   "Nothing to do yet."},
		{cause: CauseCADown, statuses: "5",
			sentence: "The CA has trouble of its own at the moment.",
			advice:   "Nothing to do yet: it is tried again by itself."},
		{cause: CauseCADown, kind: "serverInternal",
			sentence: "The CA has trouble of its own at the moment.",
			advice:   "Nothing to do yet: it is tried again by itself."},
		{cause: CauseCADown, kind: "badNonce",
			sentence: "The CA refused one message after another as outdated; it has trouble of its own.",
			advice:   "Nothing to do yet: it is tried again by itself."},
		{cause: CauseCADown, steps: StepDirectory, statuses: "4",
			sentence: "There is no CA at the configured address.",
			advice:   "Check ca: it must be the URL of an ACME directory."},
		{cause: CauseCADown, detail: `dial tcp|no such host|connection refused|connection reset|timeout|deadline exceeded|EOF|TLS handshake|broken pipe|server closed|http2:|(?:get|post|head) "https://`,
			sentence: "The CA could not be reached.",
			advice:   "Nothing to do if the Internet connection was down: it is tried again by itself. Else check the network and the CA's address."},
		{cause: CauseCADown, detail: `unmarshal|invalid character|directory missing|makes no sense|did not say|no certificate in what|more than 1 MiB`,
			sentence: "What the CA answered makes no sense: something between may have answered in its place, like a proxy or a login page.",
			advice:   "It is tried again by itself. If it stays, check the CA's address and the network."},
		{cause: CauseOrderGone, steps: aboutNames, detail: `the authorization is`,
			sentence: "The CA does not go on with {name}: its permission has expired or was withdrawn.",
			advice:   "Nothing to do: the next attempt places a new order."},
	}
}

// Explain says what a failure means. It takes the first row of the catalogue
// that fits one of the problems, so that a precise cause of the second name is
// preferred to a vague one of the first.
func Explain(f *Fault) Explanation {
	if f == nil || len(f.Problems) == 0 {
		return Explanation{Cause: CauseUnknown, Sentence: "The attempt failed without a reason.", Advice: "See the log."}
	}
	rows := symptoms()
	for i := range rows {
		for _, p := range f.Problems {
			if caught, ok := rows[i].matches(p); ok {
				return rows[i].explain(p, caught)
			}
		}
	}
	p := f.Problems[0]
	return Explanation{
		Cause:    CauseUnknown,
		Sentence: "The attempt failed: " + expiry.Sentence(short(p.Detail, 140)),
		Advice:   "It is tried again by itself. If it stays, see the log.",
	}
}

func (s *symptom) matches(p Problem) (caught []string, ok bool) {
	if s.steps != "" && !oneOf(s.steps, p.Step) ||
		s.kind != "" && p.Type != acmeError+s.kind ||
		s.statuses != "" && !strings.HasPrefix(fmt.Sprint(p.Status), s.statuses) {
		return nil, false
	}
	if s.cause == CauseStaleCNAME && !aliased(p) {
		return nil, false
	}
	caught = s.pattern.FindStringSubmatch(p.Detail)
	return caught, caught != nil
}

const acmeError = "urn:ietf:params:acme:error:"

func oneOf(list, word string) bool {
	for one := range strings.FieldsSeq(list) {
		if one == word {
			return true
		}
	}
	return false
}

// aliased says whether a record was looked for elsewhere than under the name,
// because _acme-challenge is a CNAME.
func aliased(p Problem) bool {
	own := "_acme-challenge." + strings.TrimPrefix(strings.ToLower(p.Name), "*.")
	return p.Name != "" && !strings.Contains(strings.ToLower(p.Detail), own)
}

func (s *symptom) explain(p Problem, caught []string) Explanation {
	first := ""
	if len(caught) > 1 {
		first = strings.TrimRight(caught[1], ".,;)")
	}
	name := p.Name
	if name == "" {
		name = "the certificate"
	}
	fill := func(text string, nameLength, foreign int) string {
		return strings.NewReplacer(
			"{name}", short(name, nameLength), "{1}", short(first, foreign), "{detail}", short(p.Detail, foreign),
		).Replace(text)
	}
	return Explanation{Cause: s.cause, Sentence: fill(s.sentence, 50, 50), Advice: fill(s.advice, 253, 300)}
}

// short cuts a text that others wrote.
func short(text string, length int) string { return cut(strings.TrimSpace(text), length) }

func cut(text string, length int) string {
	runes := []rune(text)
	if len(runes) <= length {
		return text
	}
	return string(runes[:length-1]) + "…"
}
