// Package output keeps what a program says while a test reads it. It is for
// tests alone and never part of the daemon.
package output

import (
	"bytes"
	"sync"
)

// Buffer takes what is written and gives all of it back, at any time and to
// several at once. Its zero value is empty and ready. It is never copied.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write takes all of p; it never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String is everything so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
