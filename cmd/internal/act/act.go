// Package act performs the actions that follow an installation: what makes a
// server take the new certificate into use.
package act

import (
	"context"
	"fmt"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

// Certificate is what an action is told of the certificate it is for.
type Certificate struct {
	Name     string
	Domains  []string
	CertFile string
	KeyFile  string
}

// Machine is what the actions need of this machine.
type Machine struct {
	Secrets    func(string) string // cuts secrets out of an output
	ConfigFile string
}

// Perform carries one action out.
func Perform(ctx context.Context, a settings.Action, c Certificate, m Machine) error {
	return fmt.Errorf("the action %q is not possible here", a)
}
