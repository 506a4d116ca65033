package worker

import (
	"cmp"
	"runtime/debug"
)

// BuildVersion is the version of this program for both sides to compare:
// stamped (by -ldflags "-X main.version=…"), or else what Go wrote down of the
// repository when it built the program.
func BuildVersion(stamped string) string {
	version := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return cmp.Or(stamped, version, "(devel)")
}
