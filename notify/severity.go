package notify

import (
	"cmp"
	"slices"
)

// Severity says how bad a subject is, in the contract's words. The zero value
// means that nothing is wrong.
type Severity string

// The severities, from good to bad. A notice is seen and calls nobody.
const (
	OK       Severity = ""
	Notice   Severity = "notice"
	Warning  Severity = "warning"
	Critical Severity = "critical"
	Expired  Severity = "expired"
)

// ladder is the order of the severities.
var ladder = []Severity{OK, Notice, Warning, Critical, Expired}

// Compare orders severities from good to bad. An unknown word is as good as OK.
func (s Severity) Compare(other Severity) int { return cmp.Compare(s.rank(), other.rank()) }

func (s Severity) rank() int { return max(slices.Index(ladder, s), 0) }

// known says whether it is one of ours; "ok" is another spelling of OK.
func (s Severity) known() bool { return s == "ok" || slices.Contains(ladder, s) }

// calls says whether somebody is to be told at this severity.
func (s Severity) calls() bool { return s.Compare(Warning) >= 0 }
