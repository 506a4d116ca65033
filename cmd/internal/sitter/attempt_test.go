package sitter

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/certsitter/certsitter/cmd/internal/settings"
	"github.com/certsitter/certsitter/cmd/internal/worker"
	"github.com/certsitter/certsitter/internal/providers"
	"github.com/certsitter/certsitter/renew"
)

func TestAttemptMayTakeAsLongAsItsProvider(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		provider string
		env      map[string]string
		names    int
		want     time.Duration // for the records to be seen
	}{
		{"cloudflare", nil, 1, 2 * minute},
		{"cloudflare", nil, 20, 2 * minute}, // all at once
		{"cloudflare", map[string]string{"CLOUDFLARE_PROPAGATION_TIMEOUT": "600"}, 1, 10 * minute},
		{"cloudflare", map[string]string{"CF_PROPAGATION_TIMEOUT": "600", "CLOUDFLARE_PROPAGATION_TIMEOUT": "60"}, 1, 10 * minute},
		{"namecheap", nil, 2, 60 * minute},
		{"namecheap", map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": "90"}, 2, 90 * time.Second},
		{"namecheap", map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": " 90 "}, 2, 60 * minute},
		{"namecheap", map[string]string{"LOOPIA_PROPAGATION_TIMEOUT": "90"}, 2, 60 * minute},
		{"namecheap", map[string]string{"LOOPIA_PROPAGATION_TIMEOUT": "7200"}, 2, 120 * minute},
		{"namecheap", map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": "soon"}, 2, 60 * minute},
		{"namecheap", map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": "-1"}, 2, 60 * minute},
		{"namecheap", map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": "9999999999"}, 2, limitWaits},
		{"rfc2136", nil, 3, 3 * 2 * minute}, // one after another
		{"rfc2136", map[string]string{"RFC2136_PROPAGATION_TIMEOUT": "120", "RFC2136_SEQUENCE_INTERVAL": "30"}, 4, 10 * minute},
		{"rfc2136", map[string]string{"RFC2136_PROPAGATION_TIMEOUT": "3600"}, 100, limitWaits},
		{"nobody", nil, 1, 2 * minute},
	} {
		if got := recordWaits(c.provider, c.env, c.names); got != c.want {
			t.Errorf("%s with %v, %d names: %v, want %v", c.provider, c.env, c.names, got, c.want)
		}
	}
	for _, p := range providers.All() {
		j := &job{order: renew.OrderRequest{Challenge: renew.DNS01, Provider: p.Code}}
		j.rules.Names = []string{"a.example.org", "b.example.org"}
		if got := j.limit(); got <= p.Propagation || p.Sequence > 0 && got <= 2*p.Propagation+p.Sequence {
			t.Errorf("%s is ended after %v, and waits for %v", p.Code, got, p.Propagation)
		}
	}
}

// The loop ends an attempt by that limit, and no sooner.
func TestAttemptIsEndedByItsLimit(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want time.Duration
	}{
		{nil, 5*time.Minute + time.Minute + 30*time.Minute + time.Hour},
		{map[string]string{"NAMECHEAP_PROPAGATION_TIMEOUT": "7200"}, 5*time.Minute + time.Minute + 30*time.Minute + 2*time.Hour},
	} {
		bubble(t, func(t *testing.T, dir string) {
			w := newEarth(t, 90*day)
			took := make(chan time.Duration, 1)
			r := w.begin(t, dir, conf(t, dir, "", func(s *settings.Settings) {
				home := &s.Certificates[0]
				home.Challenge, home.Provider, home.Env = renew.DNS01, "namecheap", c.env
			}), func(x *World) {
				x.Issue = func(ctx context.Context, _ renew.OrderRequest, _ worker.Handler) (renew.Issued, error) {
					began := time.Now()
					<-ctx.Done()
					select {
					case took <- time.Since(began):
					default:
					}
					return renew.Issued{}, context.Cause(ctx)
				}
			}, nil)
			defer r.stop()
			w.until(c.want + time.Minute)
			select {
			case got := <-took:
				if got != c.want {
					t.Errorf("ended after %v, want %v", got, c.want)
				}
			default:
				t.Errorf("not ended after %v", c.want)
			}
			if home := r.home(); home.Failures != 1 || slices.Contains(codes(home.Problems), "unknown") {
				t.Errorf("%d failures, %+v", home.Failures, home.Problems)
			}
		})
	}
}

func TestTrialPromisesNoOtherTry(t *testing.T) {
	for _, c := range []struct{ detail, want string }{
		{"boom", "The trial failed: boom. Nothing was changed. Try it again later."},
		{"", "The trial failed: The attempt failed without a reason. See the log."},
	} {
		f := &renew.Fault{}
		if c.detail != "" {
			f.Problems = []renew.Problem{{Detail: c.detail}}
		}
		if got := trialFailed(renew.Explain(f)); got != c.want {
			t.Errorf("%q: %q", c.detail, got)
		}
	}
}
