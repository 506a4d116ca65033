package renew

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The details are what the CAs, lego's providers and Go's library really say.
var failures = []struct {
	cause Cause
	p     Problem
}{
	{CauseHTTPTimeout, Problem{StepChallenge, "home.example.org", acmeError + "connection", "203.0.113.7: Fetching http://home.example.org/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)", 400}},
	{CauseHTTPTimeout, Problem{StepChallenge, "home.example.org", acmeError + "connection", "203.0.113.7: Fetching http://home.example.org/.well-known/acme-challenge/x: Timeout after connect (your server may be slow or overloaded)", 400}},
	{CauseHTTPRefused, Problem{StepChallenge, "home.example.org", acmeError + "connection", "203.0.113.7: Fetching http://home.example.org/.well-known/acme-challenge/x: Connection refused", 400}},
	{CauseHTTPRefused, Problem{StepChallenge, "home.example.org", acmeError + "connection", `Get "http://home.example.org:5002/.well-known/acme-challenge/x": dial tcp 127.0.0.1:5002: connect: connection refused`, 400}},
	{CauseCGNAT, Problem{StepChallenge, "home.example.org", acmeError + "connection", "100.64.1.2: Fetching http://home.example.org/.well-known/acme-challenge/x: Network unreachable", 400}},
	{CauseAAAAWrong, Problem{StepChallenge, "home.example.org", acmeError + "connection", "2001:db8::7: Fetching http://home.example.org/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)", 400}},
	{CauseAAAAWrong, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", `2001:db8:1:2::7: Invalid response from http://home.example.org/.well-known/acme-challenge/x: 404`, 403}},
	{CauseWrongDevice, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", `203.0.113.7: Invalid response from http://home.example.org/.well-known/acme-challenge/x: "<!DOCTYPE html><title>FRITZ!Box</title>"`, 403}},
	{CauseWrongDevice, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", `203.0.113.7: The key authorization file from the server did not match this challenge "a.b" != "TEST"`, 403}},
	{CauseRedirectPort, Problem{StepChallenge, "home.example.org", acmeError + "connection", "203.0.113.7: Fetching https://home.example.org:8123/: Invalid port in redirect target. Only ports 80 and 443 are supported, not 8123", 400}},
	{CauseGeoBlock, Problem{StepChallenge, "home.example.org", acmeError + "connection", "During secondary validation: 203.0.113.7: Fetching http://home.example.org/.well-known/acme-challenge/x: Timeout during connect (likely firewall problem)", 400}},
	{CauseALPN, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", `104.16.1.1: Cannot negotiate ALPN protocol "acme-tls/1" for tls-alpn-01 challenge`, 403}},
	{CauseTLSTimeout, Problem{StepChallenge, "home.example.org", acmeError + "connection", "203.0.113.7: Timeout during connect (likely firewall problem)", 400}},
	{CauseTLSTimeout, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", "Failed to connect to home.example.org:5001 for the tls-alpn-01 challenge", 403}},
	{CauseNoPublicIP, Problem{StepChallenge, "home.example.org", acmeError + "dns", "no valid A records found for home.example.org; no valid AAAA records found for home.example.org", 400}},
	{CauseNXDomain, Problem{StepChallenge, "home.example.org", acmeError + "dns", "DNS problem: NXDOMAIN looking up A for home.example.org - check that a DNS record exists for this domain; DNS problem: NXDOMAIN looking up AAAA for home.example.org - check that a DNS record exists for this domain", 400}},
	{CauseNSBroken, Problem{StepChallenge, "home.example.org", acmeError + "dns", "DNS problem: SERVFAIL looking up TXT for _acme-challenge.home.example.org - the domain's nameservers may be malfunctioning", 400}},
	{CauseNSBroken, Problem{StepChallenge, "home.example.org", acmeError + "dns", "DNS problem: query timed out looking up CAA for example.org", 400}},
	{CauseDNSSEC, Problem{StepChallenge, "home.example.org", acmeError + "dns", "DNS problem: looking up A for home.example.org: DNSSEC: RRSIGs Missing: validation failure", 400}},
	{CauseCAA, Problem{StepFinalize, "", acmeError + "caa", "Error finalizing order :: While processing CAA for home.example.org: CAA record for home.example.org prevents issuance", 403}},
	{CauseCAA, Problem{StepChallenge, "home.example.org", acmeError + "caa", "CAA record for example.org prevents issuance", 403}},
	{CausePropagation, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", "No TXT record found at _acme-challenge.home.example.org", 403}},
	{CausePropagation, Problem{StepChallenge, "home.example.org", acmeError + "unauthorized", "No TXT records found for DNS challenge", 403}},
	{CausePropagation, Problem{StepPropagation, "home.example.org", "", "not seen within 1m0s: name server 192.0.2.1:53 did not return the expected TXT record for _acme-challenge.home.example.org. (it has 0 others)", 0}},
	{CausePropagation, Problem{StepPropagation, "*.Home.example.org", "", "not seen within 1m0s: name server 192.0.2.1:53 did not return the expected TXT record for _acme-challenge.home.example.org. (it has 0 others)", 0}},
	{CauseStaleCNAME, Problem{StepPropagation, "home.example.org", "", "not seen within 1m0s: name server 192.0.2.1:53 did not return the expected TXT record for abc.auth.acme-dns.io. (it has 0 others)", 0}},
	{CauseSingleTXT, Problem{StepChallenge, "home.duckdns.org", acmeError + "unauthorized", `Incorrect TXT record "abc" found at _acme-challenge.home.duckdns.org`, 403}},
	{CauseSingleTXT, Problem{StepChallenge, "home.duckdns.org", acmeError + "unauthorized", "Correct value not found for DNS challenge", 403}},
	{CauseWildcardNeedsDNS, Problem{StepPresent, "*.example.org", "", "could not determine solvers: a wildcard needs dns-01", 0}},
	{CauseWildcardNeedsDNS, Problem{StepAuthorization, "192.0.2.1", "", "could not determine solvers: the CA offers no dns-01 challenge for 192.0.2.1", 0}},

	{CauseDNSCredentials, Problem{StepPresent, "home.example.org", "", `error presenting token: cloudflare: failed to find zone example.org.: [status code 403] 9109: Invalid access token`, 0}},
	{CauseDNSCredentials, Problem{StepPresent, "home.duckdns.org", "", "error presenting token: duckdns: request to change TXT record for DuckDNS returned the following result (KO) this does not match expected (OK) used url [redacted]", 0}},
	{CauseDNSCredentials, Problem{StepPresent, "", "", "provider cloudflare: cloudflare: some credentials information are missing: CLOUDFLARE_EMAIL,CLOUDFLARE_API_KEY or some credentials information are missing: CLOUDFLARE_DNS_API_TOKEN,CLOUDFLARE_ZONE_API_TOKEN", 0}},
	{CauseDNSScope, Problem{StepPresent, "home.example.org", "", "error presenting token: cloudflare: failed to find zone example.org.: zone could not be found", 0}},
	{CauseSplitDNS, Problem{StepPresent, "home.example.org", "", "error presenting token: cloudflare: could not find zone for domain \"home.example.org\": [fqdn=_acme-challenge.home.example.org.] could not find the start of authority for '_acme-challenge.home.example.org.' [question='org. IN  SOA', code=NOERROR]", 0}},
	{CausePort53Blocked, Problem{StepPropagation, "home.example.org", "", "not seen within 1m0s: DNS call error: name server 1.1.1.1:53: read udp 192.168.1.5:40000->1.1.1.1:53: i/o timeout", 0}},
	{CauseProviderEOL, Problem{StepPresent, "home.example.org", "", "error presenting token: hetzner: zone example.org not found: 404", 0}},
	{CauseProviderEOL, Problem{StepPresent, "home.example.org", "", "error presenting token: godaddy: failed to get TXT records: [status code: 403] ACCESS_DENIED: Authenticated user is not allowed access", 0}},
	{CauseProviderDown, Problem{StepPresent, "home.example.org", "", `error presenting token: desec: failed to get records: Get "https://desec.io/api/v1/": dial tcp: lookup desec.io: no such host`, 0}},
	{CauseProvider, Problem{StepPresent, "home.example.org", "", "error presenting token: inwx: (2302) Object exists", 0}},
	{CauseProvider, Problem{StepPresent, "", "", "provider nope: unrecognized DNS provider: nope", 0}},
	{CausePortOff, Problem{StepPresent, "", "", "Port 80 of the app is off, so the CA cannot reach the answers. Turn it on.", 0}},
	{CausePortBusy, Problem{StepPresent, "", "", "listen tcp :80: bind: address already in use", 0}},
	{CausePortDenied, Problem{StepPresent, "", "", "listen tcp :80: bind: permission denied", 0}},
	{CausePresent, Problem{StepPresent, "", "", "the answer did not come back", 0}},
	{CausePresent, Problem{StepPresent, "", "", "Certsitter cannot write to .well-known/acme-challenge/ below the webroot /var/www/html (read-only file system), so answers to challenges cannot be put there. Give it that folder.", 0}},
	{CauseDisk, Problem{StepOrder, "", "", "write /data/certificates/home/pending/order.json.tmp: no space left on device", 0}},

	{CauseRateDuplicate, Problem{StepOrder, "", acmeError + "rateLimited", "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-08-16 01:23:49 UTC: see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers", 429}},
	{CauseRateFailures, Problem{StepOrder, "", acmeError + "rateLimited", `too many failed authorizations (5) for "home.example.org" in the last 1h0m0s, retry after 2026-08-16 01:23:49 UTC`, 429}},
	{CauseRateDomain, Problem{StepOrder, "", acmeError + "rateLimited", `too many certificates (50) already issued for "ddns.net" in the last 168h0m0s, retry after 2026-08-16 01:23:49 UTC`, 429}},
	{CauseRateLimited, Problem{StepOrder, "", acmeError + "rateLimited", "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-08-16 01:23:49 UTC", 429}},
	{CausePaused, Problem{StepOrder, "", acmeError + "rateLimited", "Your account is temporarily prevented from requesting certificates for home.example.org and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc.", 429}},
	{CauseClock, Problem{StepDirectory, "", "", `get directory at 'https://acme-v02.api.letsencrypt.org/directory': Get "https://acme-v02.api.letsencrypt.org/directory": tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2000-01-01T00:00:09Z is before 2026-08-01T00:00:00Z`, 0}},
	{CauseAccount, Problem{StepOrder, "", acmeError + "accountDoesNotExist", `Account "https://acme-v02.api.letsencrypt.org/acme/acct/1" not found`, 400}},
	{CauseAccount, Problem{StepOrder, "", acmeError + "unauthorized", `Account is not valid, has status "deactivated"`, 403}},
	{CauseAccount, Problem{StepAccount, "", acmeError + "unauthorized", "An account with the provided public key exists but is deactivated", 403}},
	{CauseAccount, Problem{StepAccount, "", acmeError + "userActionRequired", "Terms of service have changed", 403}},
	{CauseAccount, Problem{StepAccount, "", "", "the account's key cannot be read", 0}},
	{CauseContact, Problem{StepAccount, "", acmeError + "invalidContact", `Error validating contact(s) :: contact email has forbidden domain "example.com"`, 400}},
	{CauseEAB, Problem{StepAccount, "", acmeError + "externalAccountRequired", "ACME server policy requires newAccount requests must include a value for the 'externalAccountBinding' field", 403}},
	{CauseEAB, Problem{StepAccount, "", acmeError + "unauthorized", "the field 'kid' references a key that is not known to the ACME server", 403}},
	{CauseFiles, Problem{StepOrder, "", "", "keystore /var/lib/openhab/etc/keystore: it is mounted as a single file, which cannot be replaced: mount its folder instead", 0}},
	{CauseDisk, Problem{StepOrder, "", "", "keyfile /etc/ssl/home.key: there is no space left in the folder /etc/ssl: make room there: no space left on device", 0}},
	{CauseReplaces, Problem{StepOrder, "", acmeError + "alreadyReplaced", "cannot indicate an order replaces certificate with serial \"04\", which already has a replacement order", 409}},
	{CauseReplaces, Problem{StepOrder, "", acmeError + "malformed", "While validating 'replaces': parsing ARI CertID failed", 400}},
	{CauseProfile, Problem{StepOrder, "", acmeError + "invalidProfile", `Order includes unrecognized profile name "longlived"`, 400}},
	{CauseProfile, Problem{StepOrder, "", acmeError + "rejectedIdentifier", "Profile \"classic\" does not permit ip type identifiers", 400}},
	{CauseBadName, Problem{StepOrder, "", acmeError + "rejectedIdentifier", `Invalid identifiers requested :: Cannot issue for "nas.local": Domain name does not end with a valid public suffix (TLD)`, 400}},
	{CauseBadName, Problem{StepOrder, "", acmeError + "malformed", `Order included DNS identifier with a value containing an illegal character: '_'`, 400}},
	{CauseBadName, Problem{StepOrder, "192.0.2.1", acmeError + "unsupportedIdentifier", "IP identifiers are not supported", 400}},
	{CauseBadKey, Problem{StepFinalize, "", acmeError + "badCSR", "Error parsing certificate request: unsupported key", 400}},
	{CauseBadKey, Problem{StepFinalize, "", acmeError + "badPublicKey", "public key is in the list of compromised keys", 400}},

	{CauseUntrustedCA, Problem{StepDirectory, "", "", `Get "https://ca.lan/dir": tls: failed to verify certificate: x509: certificate signed by unknown authority`, 0}},
	{CauseCADown, Problem{StepOrder, "", acmeError + "rateLimited!", "Service busy; retry later.", 503}},
	{CauseCADown, Problem{StepOrder, "", "", "the CA answered 503 Service Unavailable: Service busy; retry later.", 503}},
	{CauseCADown, Problem{StepDirectory, "", "", `Get "https://acme-v02.api.letsencrypt.org/directory": dial tcp: lookup acme-v02.api.letsencrypt.org: no such host`, 0}},
	{CauseCADown, Problem{StepDirectory, "", "", `get directory at 'https://ca.lan/': failed to unmarshal "<html>" to type acme.Directory: invalid character '<' looking for beginning of value`, 200}},
	{CauseCADown, Problem{StepDirectory, "", "", "the CA answered 404 Not Found:", 404}},
	{CauseCADown, Problem{StepChallenge, "home.example.org", "", `Post "https://acme-v02.api.letsencrypt.org/acme/chall/1": EOF`, 0}},
	{CauseCADown, Problem{StepOrder, "", "", `Post "https://ca.lan/order-plz": stream error: stream ID 7; INTERNAL_ERROR; received from peer`, 0}},
	{CauseCASlow, Problem{StepChallenge, "home.example.org", "", "the CA has not come to a result in time", 200}},
	{CauseOrderGone, Problem{StepAuthorization, "home.example.org", "", "the authorization is expired", 0}},
	{CauseUnknown, Problem{StepOrder, "", acmeError + "compound", "something new", 400}},
}

func TestExplain(t *testing.T) {
	explained := map[Cause]bool{}
	for _, c := range failures {
		got := Explain(&Fault{Problems: []Problem{c.p}})
		explained[got.Cause] = true
		if got.Cause != c.cause {
			t.Errorf("%s\n\tis taken for %s (%s), want %s", c.p.Detail, got.Cause, got.Sentence, c.cause)
		}
		checkTexts(t, got)
	}
	for _, row := range symptoms() {
		if !explained[row.cause] {
			t.Errorf("no example for %s", row.cause)
		}
	}
}

var placeholder = regexp.MustCompile(`\{[a-z0-9]+\}`)

func checkTexts(t *testing.T, e Explanation) {
	t.Helper()
	if n := utf8.RuneCountInString(e.Sentence); n == 0 || n > 200 {
		t.Errorf("%s: the sentence has %d characters: %s", e.Cause, n, e.Sentence)
	}
	if e.Advice == "" {
		t.Errorf("%s: no advice", e.Cause)
	}
	if all := e.Sentence + e.Advice; placeholder.MatchString(all) || strings.Contains(all, "  ") {
		t.Errorf("%s: unfinished text: %s", e.Cause, all)
	}
}

// Every row stays within its limits whatever others write.
func TestSentencesStayShort(t *testing.T) {
	long := strings.Repeat("ä", 300)
	for _, row := range symptoms() {
		checkTexts(t, row.explain(Problem{Name: long, Detail: long}, []string{"", long}))
	}
}

func TestExplainPrefersThePreciseCause(t *testing.T) {
	vague := Problem{Step: StepChallenge, Name: "a.example.org", Detail: "the CA has not come to a result in time"}
	precise := Problem{Step: StepChallenge, Name: "b.example.org", Type: acmeError + "dns", Detail: "DNS problem: NXDOMAIN looking up A for b.example.org"}
	got := Explain(&Fault{Problems: []Problem{vague, precise}})
	if got.Cause != CauseNXDomain || !strings.Contains(got.Sentence, "b.example.org") {
		t.Errorf("got %+v", got)
	}
}

func TestExplainCatchesWhatHelps(t *testing.T) {
	for _, c := range []struct {
		cause Cause
		want  string
	}{
		{CausePaused, "https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc"},
		{CauseRateDomain, "ddns.net"},
		{CauseRedirectPort, "8123"},
		{CauseDNSCredentials, "env"},
	} {
		i := slices.IndexFunc(failures, func(f struct {
			cause Cause
			p     Problem
		}) bool {
			return f.cause == c.cause
		})
		got := Explain(&Fault{Problems: []Problem{failures[i].p}})
		if all := got.Sentence + " " + got.Advice + " "; !strings.Contains(all, c.want) || strings.Contains(all, c.want+".") && c.cause == CausePaused {
			t.Errorf("%s lacks %q: %+v", c.cause, c.want, got)
		}
	}
}

func TestExplainNothing(t *testing.T) {
	for _, f := range []*Fault{nil, {}} {
		if got := Explain(f); got.Cause != CauseUnknown {
			t.Errorf("got %+v", got)
		}
	}
}

func FuzzExplain(f *testing.F) {
	for _, c := range failures {
		f.Add(c.p.Step, c.p.Name, c.p.Type, c.p.Detail, c.p.Status)
	}
	f.Fuzz(func(t *testing.T, step, name, kind, detail string, status int) {
		got := Explain(&Fault{Problems: []Problem{{step, name, kind, detail, status}}})
		if n := utf8.RuneCountInString(got.Sentence); n == 0 || n > 200 {
			t.Errorf("a sentence of %d characters", n)
		}
		if got.Cause == "" || got.Advice == "" {
			t.Errorf("incomplete: %+v", got)
		}
	})
}

func TestUnknownCauseIsASentence(t *testing.T) {
	for detail, want := range map[string]string{
		"boom":                     "The attempt failed: boom.",
		" boom. ":                  "The attempt failed: boom.",
		"what?":                    "The attempt failed: what?",
		strings.Repeat("x", 5_000): "The attempt failed: " + strings.Repeat("x", 139) + "…",
	} {
		got := Explain(&Fault{Problems: []Problem{{Detail: detail}}})
		if got.Cause != CauseUnknown || got.Sentence != want {
			t.Errorf("%.20q: %+v, want %q", detail, got, want)
		}
	}
}
