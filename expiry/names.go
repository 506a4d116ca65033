package expiry

import (
	"net/netip"
	"slices"
	"strings"
)

// Uncovered returns those of the wanted names that a certificate for the names
// it has does not cover. A wildcard covers one label (RFC 9525 §6.3), and "*.x"
// is covered by "*.x" only.
func Uncovered(has, wanted []string) []string {
	var missing []string
	for _, name := range wanted {
		if !covered(has, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

func covered(has []string, name string) bool {
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return slices.ContainsFunc(has, func(h string) bool {
			have, err := netip.ParseAddr(h)
			return err == nil && have.Unmap() == ip.Unmap()
		})
	}
	name = plainName(name)
	_, parent, _ := strings.Cut(name, ".")
	return slices.ContainsFunc(has, func(have string) bool {
		have = plainName(have)
		return have == name || parent != "" && have == "*."+parent
	})
}
