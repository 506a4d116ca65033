package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/certsitter/certsitter/cmd/internal/daemon"
	"github.com/certsitter/certsitter/mqtt"
)

// openhabCommand prints a file for openHAB, from the configuration alone: no
// daemon and no broker is asked.
type openhabCommand struct {
	File   string
	Bridge string // UID of the broker that openHAB has already; "" = Things come with one of their own
}

func (o *openhabCommand) line() *cobra.Command {
	l := &cobra.Command{
		Use:   "openhab FILE",
		Short: "Print files for openHAB, for the configured certificates.",
		Long: `Print files for openHAB, for the configured certificates.

FILE is things, items, rules, sitemap, or yaml: things and items for openHAB 5.`,
		Args: oneOf("FILE", &o.File, "things", "items", "rules", "sitemap", "yaml"),
	}
	l.Flags().StringVar(&o.Bridge, "bridge", "", "`UID` of the broker that openHAB has already, like\nmqtt:broker:NAME. Without it, Things come with a broker of\ntheir own")
	return l
}

// Run prints the file.
func (o *openhabCommand) Run(_ context.Context, s shell, c *cli) error {
	if o.Bridge != "" {
		if err := mqtt.CheckOpenHABBridge(o.Bridge); err != nil {
			return &exit{exitUsage, fmt.Errorf("--bridge: %w", err)}
		}
	}
	conf, err := c.load(s, exitFailed)
	if err != nil {
		return err
	}
	if conf.MQTT.Broker == "" && !conf.MQTT.Supervisor {
		fmt.Fprintln(s.err, "certsitter: mqtt.broker is empty, so nothing is published yet that openHAB could read.")
	}
	input := daemon.OpenHAB(conf)
	input.Bridge = o.Bridge
	_, err = s.out.Write(generators()[o.File](input))
	return err
}

func generators() map[string]func(mqtt.OpenHAB) []byte {
	return map[string]func(mqtt.OpenHAB) []byte{
		"things": mqtt.OpenHABThings, "items": mqtt.OpenHABItems, "rules": mqtt.OpenHABRules,
		"sitemap": mqtt.OpenHABSitemap, "yaml": mqtt.OpenHABYAML,
	}
}
