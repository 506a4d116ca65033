package addon

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/certsitter/certsitter/internal/supervisor"
)

func TestWhatAPhoneIsTold(t *testing.T) {
	for _, c := range []struct {
		urgency    Urgency
		page, want string
	}{
		{Quiet, "/app/x", `{"clickAction":"/app/x","group":"certsitter","push":{"interruption-level":"passive"},"tag":"t","url":"/app/x"}`},
		{Usual, "", `{"group":"certsitter","tag":"t"}`},
		{Urgent, "", `{"channel":"Certsitter","group":"certsitter","importance":"high","priority":"high","push":{"interruption-level":"time-sensitive"},"tag":"t","ttl":0}`},
	} {
		got, err := json.Marshal(c.urgency.Data("t", c.page))
		if err != nil || string(got) != c.want {
			t.Errorf("got %s (%v), want %s", got, err, c.want)
		}
	}
}

func TestPagePath(t *testing.T) {
	for version, want := range map[string]string{
		"2026.11.0": "/app/x", "2026.2.0b1": "/app/x", "2026.1.3": "/hassio/ingress/x", "2025.12.4": "/hassio/ingress/x", "dev": "/app/x", "": "/app/x",
	} {
		s, err := supervisor.Start("127.0.0.1:0", supervisor.Setup{Core: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"state": "RUNNING", "version": version})
		})})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := asked(s).Core().PagePath(t.Context(), "x"); got != want {
			t.Errorf("%q: %s, want %s", version, got, want)
		}
		s.Set(func(setup *supervisor.Setup) { setup.CoreDown = true })
		if got := asked(s).Core().PagePath(t.Context(), "x"); got != "/app/x" {
			t.Errorf("while Core is down: %s", got)
		}
	}
}

// asked is the app's side of a Supervisor.
func asked(s *supervisor.Supervisor) *Supervisor {
	return &Supervisor{URL: s.URL(), Token: func() string { return supervisor.Token }}
}
