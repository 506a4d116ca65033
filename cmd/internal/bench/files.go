package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/certsitter/certsitter/expiry/probe"
)

// fileCount is as many as a folder may have for `certsitter check`.
const fileCount = 1000

// lookGoal is how many times the bound a look may cost.
var lookGoal = goal{most: 1.3, ratio: true}

// files measures how certificate files are inspected: by the function alone,
// and by the whole command on a folder. Both read leaf and intermediate.
func (b *bench) files(ctx context.Context) error {
	folder := filepath.Join(b.folder, "files")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	var paths []string
	for i := range fileCount {
		leaf, err := authority.issue(day, 89*day, fmt.Sprintf("host%d.example.org", i), "www.example.org")
		if err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("host%d.pem", i))
		if err := os.WriteFile(path, chainPEM(leaf), 0o600); err != nil {
			return err
		}
		paths = append(paths, path)
	}
	rounds, err := compare(ctx, b.rounds, inProcess(func() error { return each(paths, parseAll) }), inProcess(func() error {
		return each(paths, func(path string) error { _, err := probe.ReadFile(path, ""); return err })
	}))
	if err != nil {
		return err
	}
	cpu := rowOf("file read: CPU", rounds, fileCount, cpuOf)
	cpu.goal = lookGoal
	b.rows = append(b.rows, cpu, rate(rowOf("file read: rate", rounds, fileCount, wallOf)))

	check := command(nil, allFine(fileCount), filepath.Join(b.programs, "certsitter"), "check", "--json", folder)
	rounds, err = compare(ctx, b.rounds, command(nil, nil, filepath.Join(b.programs, "bound"), "files", folder), check)
	if err != nil {
		return err
	}
	b.rows = append(b.rows,
		rowOf("file by `check FOLDER` of 1000, start included: CPU", rounds, fileCount, cpuOf),
		rate(rowOf("file by `check FOLDER` of 1000: rate", rounds, fileCount, wallOf)))
	return nil
}

func each(paths []string, f func(string) error) error {
	for _, path := range paths {
		if err := f(path); err != nil {
			return err
		}
	}
	return nil
}

// parseAll is the bound: all of a file's certificates, and nothing else.
func parseAll(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// rate shows a row of times as how many there are in a second.
func rate(r row) row {
	perTime := func(ns float64) float64 { return float64(time.Second) / ns }
	r.ours, r.bound, r.ratio, r.show = perTime(r.ours), perTime(r.bound), 1/r.ratio, perSecond
	return r
}

// allFine accepts the output of `certsitter check --json` if it has n targets
// and nothing is wrong with any: what fails is quickly done.
func allFine(n int) func(code int, out []byte) error {
	return func(code int, out []byte) error {
		var answer []struct{ Name, Status, Text string }
		if err := json.Unmarshal(out, &answer); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		if len(answer) != n {
			return fmt.Errorf("%d targets in the answer, not %d", len(answer), n)
		}
		for _, c := range answer {
			if c.Status != "ok" {
				return fmt.Errorf("%s is %s: %s", c.Name, c.Status, c.Text)
			}
		}
		if code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return nil
	}
}
