//go:build !race

package sitter

const hurried = 1
