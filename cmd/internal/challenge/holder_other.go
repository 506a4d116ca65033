//go:build !linux

package challenge

// holder names the program that listens on a TCP port: only Linux says.
func holder(int) string { return "" }
