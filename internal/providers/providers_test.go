package providers

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestByCode(t *testing.T) {
	for _, code := range []string{"acme-dns", "acmedns", "domainnameshop", "fastdns", "linodev4", "dnsupdate", "webnamesru", "cloudflare"} {
		if _, ok := ByCode(code); !ok {
			t.Errorf("%s is not known", code)
		}
	}
	alias, _ := ByCode("dnsupdate")
	if alias.Code != "rfc2136" || alias.Sequence != time.Minute || alias.Propagation != time.Minute {
		t.Errorf("dnsupdate is %s with a pause of %v and a wait of %v", alias.Code, alias.Sequence, alias.Propagation)
	}
	if p, _ := ByCode("namecheap"); p.Propagation != time.Hour || p.Sequence != 0 {
		t.Errorf("namecheap waits %v with a pause of %v", p.Propagation, p.Sequence)
	}
	if p, ok := ByCode("Cloudflare"); ok {
		t.Errorf("a name is no code: %v", p.Code)
	}
}

func TestAllIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		for _, code := range append([]string{p.Code}, p.Aliases...) {
			if seen[code] {
				t.Errorf("%s is there twice", code)
			}
			seen[code] = true
		}
		if p.Name == "" {
			t.Errorf("%s has no name", p.Code)
		}
		for _, v := range append(slices.Clone(p.Credentials), p.Options...) {
			if v.Text == "" || strings.ToUpper(v.Name) != v.Name {
				t.Errorf("%s: variable %q is described as %q", p.Code, v.Name, v.Text)
			}
		}
	}
	if !slices.IsSortedFunc(All(), func(a, b Provider) int { return strings.Compare(a.Code, b.Code) }) {
		t.Error("the codes are not in order")
	}
}

func TestAllCannotBeSpoilt(t *testing.T) {
	All()[0] = Provider{}
	if All()[0].Code == "" {
		t.Error("the table can be written to")
	}
}

func TestClosest(t *testing.T) {
	for _, test := range []struct{ given, want string }{
		{"clouflare", "cloudflare"},
		{"Cloudflare", "cloudflare"},
		{"dukdns", "duckdns"},
		{"hetzner-cloud", "hetzner"},
		{"gandi", "gandi"},
		{"acmedsn", "acmedns"},
		{"netcpu", "netcup"},
		{"xyzzyxyzzy", ""},
		{"", ""},
	} {
		got := Closest(test.given)
		if test.want == "" && len(got) == 0 {
			continue
		}
		if len(got) == 0 || got[0] != test.want || len(got) > 3 {
			t.Errorf("Closest(%q) = %q, want %q first", test.given, got, test.want)
		}
	}
}

func TestKnows(t *testing.T) {
	cloudflare, _ := ByCode("cloudflare")
	for variable, want := range map[string]bool{
		"CF_DNS_API_TOKEN":           true,
		"CF_DNS_API_TOKEN_FILE":      true,
		"CLOUDFLARE_DNS_API_TOKEN":   true,
		"CLOUDFLARE_TTL":             true,
		"LEGO_DISABLE_CNAME_SUPPORT": true,
		"CF_DNS_TOKEN":               false,
		"_FILE":                      false,
	} {
		if got := cloudflare.Knows(variable); got != want {
			t.Errorf("Knows(%s) = %v", variable, got)
		}
	}
	if got := cloudflare.ClosestVariables("CF_DNS_APITOKEN"); len(got) == 0 || got[0] != "CF_DNS_API_TOKEN" {
		t.Errorf("closest to CF_DNS_APITOKEN: %q", got)
	}
	if rfc2136, _ := ByCode("rfc2136"); !rfc2136.Knows("RFC2136_NAMESERVER") {
		t.Error("the older spelling of a variable is not known")
	}
	exec, _ := ByCode("exec")
	if !exec.Knows("EXEC_PATH") {
		t.Error("exec's variables, which have no description, are not known")
	}
}

func TestTable(t *testing.T) {
	var table Table
	for code, want := range map[string][]string{
		"duckdns":    {"DUCKDNS_TOKEN"},
		"cloudflare": nil, // several kinds of credentials
		"hetzner":    nil, // an old interface beside the new one
		"dnsupdate":  nil, // another spelling of each variable
		"exec":       {"EXEC_PATH"},
		"nobody":     nil,
	} {
		if got := table.Required(code); !slices.Equal(got, want) {
			t.Errorf("%s requires %q, want %q", code, got, want)
		}
		if table.Known(code) != (code != "nobody") {
			t.Errorf("%s is known: %v", code, table.Known(code))
		}
	}
	for _, p := range All() {
		for _, v := range p.Required {
			if !p.Knows(v) {
				t.Errorf("%s requires %s and does not know it", p.Code, v)
			}
		}
	}
}

func FuzzClosest(f *testing.F) {
	f.Add("clouflare")
	f.Add("ü\xff")
	f.Add(strings.Repeat("a", 300))
	f.Fuzz(func(t *testing.T, code string) {
		for _, c := range Closest(code) {
			if _, ok := ByCode(c); !ok {
				t.Errorf("Closest(%q) names %q, which is none", code, c)
			}
		}
		if _, ok := ByCode(code); ok && !slices.Contains(Closest(code), code) {
			t.Errorf("%q is not near itself", code)
		}
	})
}
