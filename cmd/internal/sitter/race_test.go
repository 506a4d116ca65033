//go:build race

package sitter

// hurried: under the race detector a year costs ten times as much and more, so lives are
// shorter there. Without it they are lived to the end (scripts/test does both).
const hurried = 50
