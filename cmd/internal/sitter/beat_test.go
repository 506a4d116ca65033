package sitter

import (
	"context"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/expiry/probe"
)

// A heartbeat says that all was looked at: one that ends before is not alive.
func TestHeartbeatFollowsTheFirstRound(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newEarth(t, 90*day)
		s := athome(t, w, dir, func(s *settings.Settings) {
			s.HeartbeatURL = "https://beat.example/"
			s.Watch = []settings.Watch{{Name: "nas", Source: "nas.example:443"}}
		})
		beats := make(chan time.Time, 10)
		r := w.begin(t, dir, s, func(x *World) {
			x.Probe = func(ctx context.Context, _ probe.Target, _ time.Time, _ probe.Options) (probe.Result, error) {
				<-ctx.Done() // 30 s
				return probe.Result{}, context.Cause(ctx)
			}
			x.Beat = func(context.Context, string) error { beats <- time.Now(); return nil }
		}, nil)
		defer r.stop()
		time.Sleep(20 * time.Second)
		if len(beats) != 0 {
			t.Error("a heartbeat before anything was looked at")
		}
		time.Sleep(20 * time.Second)
		if len(beats) != 1 {
			t.Errorf("%d heartbeats after the first round", len(beats))
		}
	})
}
