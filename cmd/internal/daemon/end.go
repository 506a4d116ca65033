package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A part of the daemon runs until its context ends.
type part struct {
	name string // with its article, for people
	run  func(context.Context) error
}

// A lateError names the parts that did not end in time.
type lateError struct {
	limit time.Duration
	parts []string
}

func (e *lateError) Error() string {
	return fmt.Sprintf("not ended within %v: %s. Perhaps a disk or a network folder hangs", e.limit, strings.Join(e.parts, ", "))
}

// together runs parts until ctx or one of them ends with an error, and the last
// one when all others have ended. What takes longer than limit then is left
// behind, and is named by a *lateError beside the first part's error.
func together(ctx context.Context, limit time.Duration, parts []part, last part) error {
	group, running := errgroup.WithContext(ctx)
	open := newUnended(append(parts[:len(parts):len(parts)], last))
	for _, p := range parts {
		group.Go(func() error {
			defer open.end(p.name)
			return p.run(running)
		})
	}
	over := make(chan error, 1)
	go func() {
		err := group.Wait()
		err = errors.Join(err, last.run(ctx))
		open.end(last.name)
		over <- err
	}()
	<-running.Done()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-over:
		return err
	case <-late.C:
	}
	err := &lateError{limit, open.names()}
	if ctx.Err() == nil {
		return errors.Join(context.Cause(running), err)
	}
	return err
}

// unended are the names of the parts that have not ended, in their order.
type unended struct {
	mu   sync.Mutex // guards the rest
	left []string
}

func newUnended(parts []part) *unended {
	u := &unended{}
	for _, p := range parts {
		u.left = append(u.left, p.name)
	}
	return u
}

func (u *unended) end(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, n := range u.left {
		if n == name {
			u.left = append(u.left[:i:i], u.left[i+1:]...)
			return
		}
	}
}

func (u *unended) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.left) > 1 { // the last part waits for the others: it is not what hangs
		return append([]string{}, u.left[:len(u.left)-1]...)
	}
	return append([]string{}, u.left...)
}
