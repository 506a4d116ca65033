//go:build !linux

package homeassistant

import "testing"

// The addresses of the network that the Supervisor makes for its apps.
const (
	CoreAddress       = "172.30.32.1"
	SupervisorAddress = "172.30.32.2"
	AppAddress        = "172.30.33.5"
)

// Main runs the tests of a package. Home Assistant is there on Linux alone.
func Main(m *testing.M) int { return m.Run() }
