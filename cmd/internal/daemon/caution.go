package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/sitter"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/renew"
)

// cautions are what looks wrong in a configuration that is in order: nothing
// that may be refused, but worth to be said.
func cautions(conf *settings.Settings) []sitter.Problem {
	var all []sitter.Problem
	for _, c := range conf.Certificates {
		if c.Challenge != renew.DNS01 {
			continue
		}
		p, known := providers.ByCode(c.Provider)
		if !known {
			continue
		}
		if p.Unfit != "" {
			all = append(all, sitter.Problem{Code: "provider_" + c.Name, Severity: "notice",
				Text: fmt.Sprintf("The DNS provider %s of %s: %s", p.Name, c.Name, p.Unfit), Advice: "Move the zone to another provider, or delegate _acme-challenge to one."})
		}
		for _, variable := range slices.Sorted(maps.Keys(c.Env)) {
			if p.Knows(variable) {
				continue
			}
			advice := "See certsitter providers " + p.Code + "."
			if closest := p.ClosestVariables(variable); len(closest) > 0 {
				advice = "Perhaps " + strings.Join(closest, " or ") + " was meant. " + advice
			}
			all = append(all, sitter.Problem{Code: "variable_" + c.Name + "_" + variable, Severity: "notice",
				Text: fmt.Sprintf("%s of %s is not known to be read by the DNS provider %s.", variable, c.Name, p.Name), Advice: advice})
		}
	}
	return all
}
