// Command generate writes the table of package providers from the descriptions
// and the source text of the lego that go.mod names. It is run by go generate
// in the package's folder and links nothing of lego.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run("table.go"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	lego, err := findLego()
	if err != nil {
		return err
	}
	found, err := lego.providers()
	if err != nil {
		return err
	}
	source, err := render(lego.version, found)
	if err != nil {
		return err
	}
	return os.WriteFile(path, source, 0o644)
}
