// Package providers says which DNS providers the worker can use and which
// variables they read: for the command line, the configuration's checks and the
// documentation. It is made of lego's own descriptions and links none of lego,
// so the daemon may know the providers without having them.
package providers

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

//go:generate go run ./generate

// Provider is a DNS provider as lego describes it.
type Provider struct {
	Code        string   // as in the configuration: "cloudflare"
	Aliases     []string // other codes that mean the same
	Name        string   // for people: "Cloudflare"
	URL         string   // of the provider; may be empty
	Credentials []Variable
	Options     []Variable
	// Required are variables without which the provider certainly cannot work.
	// Most providers that take several sets of credentials have none.
	Required []string
	// Undocumented are variables that are read and described nowhere.
	Undocumented []string
	// Propagation is how long lego waits by default until a record is seen; zero
	// if the provider's code does not say.
	Propagation time.Duration
	// Sequence is the pause between two names of one order; zero means that
	// their records may be written at the same time.
	Sequence time.Duration
	// Unfit says why the provider is of no use here any more; empty = it is.
	Unfit string
}

// Variable is an environment variable that a provider reads. Each may also be
// given with "_FILE" at its end and the name of a file with the value.
type Variable struct {
	Name string
	Text string // what it is, in lego's words (Markdown)
}

// All are the providers in the order of their codes. Nothing in them may be
// changed.
func All() []Provider { return slices.Clone(table) }

// ByCode finds a provider by its code or one of its aliases.
func ByCode(code string) (Provider, bool) {
	i := slices.IndexFunc(table, func(p Provider) bool { return p.Code == code || slices.Contains(p.Aliases, code) })
	if i < 0 {
		return Provider{}, false
	}
	return table[i], true
}

// Closest are up to three codes that somebody may have meant, the likeliest
// first. It is empty if none is near.
func Closest(code string) []string {
	var codes []string
	for _, p := range table {
		codes = append(append(codes, p.Code), p.Aliases...)
	}
	return nearest(strings.ToLower(code), codes)
}

// Table answers questions by code. It is ready for use as it is.
type Table struct{}

// Known tells whether there is a provider with this code or alias.
func (Table) Known(code string) bool {
	_, ok := ByCode(code)
	return ok
}

// Closest is [Closest].
func (Table) Closest(code string) []string { return Closest(code) }

// Required are the variables without which the provider certainly cannot work;
// none for an unknown code.
func (Table) Required(code string) []string {
	p, _ := ByCode(code)
	return slices.Clone(p.Required)
}

// Knows tells whether the provider is known to read a variable. A few read
// others, too, by way of their vendor's library or, as exec does, by handing
// them on: an unknown variable deserves a warning and no more.
func (p Provider) Knows(variable string) bool {
	if strings.HasPrefix(variable, "LEGO_") { // lego's own, of all providers
		return true
	}
	known := p.variables()
	return slices.Contains(known, variable) ||
		slices.Contains(known, strings.TrimSuffix(variable, "_FILE"))
}

// ClosestVariables are up to three of the provider's variables that somebody
// may have meant, the likeliest first.
func (p Provider) ClosestVariables(variable string) []string {
	return nearest(strings.ToUpper(variable), p.variables())
}

func (p Provider) variables() []string {
	var names []string
	for _, v := range p.Credentials {
		names = append(names, v.Name)
	}
	for _, v := range p.Options {
		names = append(names, v.Name)
	}
	return append(names, p.Undocumented...)
}

// nearest are up to three candidates that differ from word in few places or
// that begin with it, or it with them.
func nearest(word string, candidates []string) []string {
	type rated struct {
		word     string
		distance int
	}
	var near []rated
	for _, c := range candidates {
		// A third of the letters: "clouflare" is cloudflare, "ovh" is not "otc".
		d := distance(word, c)
		begins := len(word) > 2 && (strings.HasPrefix(c, word) || len(c) > 3 && strings.HasPrefix(word, c))
		if d <= max(1, min(len(word), len(c))/3) || begins {
			near = append(near, rated{c, d})
		}
	}
	slices.SortStableFunc(near, func(a, b rated) int {
		return cmp.Or(a.distance-b.distance, strings.Compare(a.word, b.word))
	})
	var words []string
	for _, r := range near[:min(3, len(near))] {
		words = append(words, r.word)
	}
	return words
}

// distance is how many letters must be added, left out, replaced or swapped with
// their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := 0
			if a[i] != b[j] {
				change = 1
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
