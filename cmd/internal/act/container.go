package act

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/certsitter/certsitter/cmd/internal/settings"
)

const (
	dockerSocket = "/var/run/docker.sock"
	// maxAnswer bounds an answer: what is told of one container is some 20 KiB.
	maxAnswer = 1 << 20
	// nameLength bounds a container's and a unit's name. It is no part of the
	// patterns, which would be hundreds of times as large.
	nameLength = 255
)

var (
	containerPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	signalPattern    = regexp.MustCompile(`^SIG[A-Z0-9]{1,10}$`)
)

func restartContainer(ctx context.Context, a settings.Action, _ Certificate, m Machine) error {
	e, err := engineOf(a.Argument, m)
	if err != nil {
		return err
	}
	if host, err := os.Hostname(); err == nil && e.isOurs(ctx, a.Argument, host) {
		return errOurselves
	}
	return e.order(ctx, a.Argument, "restart")
}

func signalContainer(ctx context.Context, a settings.Action, _ Certificate, m Machine) error {
	if !signalPattern.MatchString(a.Signal) {
		return fmt.Errorf("%.20q is no signal: it is like SIGHUP", a.Signal)
	}
	e, err := engineOf(a.Argument, m)
	if err != nil {
		return err
	}
	return e.order(ctx, a.Argument, "kill?signal="+a.Signal)
}

// An engine is Docker, or Podman, which answers as Docker does. Paths have no
// version before them: each of the two then takes its newest (Engine API, "the
// maximum supported version is used"), and what is asked here has not changed
// since the first.
type engine struct {
	socket  string
	secrets func(string) string
}

func engineOf(container string, m Machine) (engine, error) {
	if len(container) > nameLength || !containerPattern.MatchString(container) {
		return engine{}, fmt.Errorf("%.60q is no container's name", container)
	}
	socket, err := socketOf(m.DockerSocket, os.Getenv("DOCKER_HOST"))
	return engine{socket: socket, secrets: m.Secrets}, err
}

func socketOf(wanted, host string) (string, error) {
	if wanted != "" || host == "" {
		return cmp.Or(wanted, dockerSocket), nil
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", errors.New("DOCKER_HOST is no local socket: only one like unix:///run/podman/podman.sock is used")
	}
	return path, nil
}

// podmanIdle is what Podman 4 says, with status 500, where Docker says 409.
const podmanIdle = "can only kill running containers"

// order has something done to a container.
func (e engine) order(ctx context.Context, container, deed string) error {
	status, body, err := e.ask(ctx, http.MethodPost, container, deed)
	switch {
	case err != nil:
		return err
	case status == http.StatusNoContent || status == http.StatusOK:
		return nil
	}
	reason := e.reason(body)
	switch {
	case status == http.StatusNotFound:
		return fmt.Errorf("there is no container %s: docker ps -a shows what there is", container)
	case status == http.StatusConflict || strings.Contains(reason, podmanIdle):
		return fmt.Errorf("the container %s is not running, so that nothing uses the certificate: start it, or remove the action (%s)", container, reason)
	case status == http.StatusForbidden:
		return fmt.Errorf("what is behind %s forbids this: %s", e.socket, reason)
	}
	return fmt.Errorf("the container engine did not do it (status %d): %s", status, reason)
}

// isOurs tells that a container is the one that we run in: Docker and Podman give
// a container the beginning of its id for a host name, if it is given no other.
func (e engine) isOurs(ctx context.Context, container, host string) bool {
	if len(host) < 12 {
		return false
	}
	status, body, err := e.ask(ctx, http.MethodGet, container, "json")
	var seen struct {
		ID string `json:"Id"`
	}
	return err == nil && status == http.StatusOK && json.Unmarshal(body, &seen) == nil && strings.HasPrefix(seen.ID, host)
}

func (e engine) ask(ctx context.Context, method, container, deed string) (int, []byte, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
	}}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request, err := http.NewRequestWithContext(ctx, method, "http://engine/containers/"+url.PathEscape(container)+"/"+deed, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, e.unreachable(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, nil, e.unreachable(ctx, err)
	}
	return response.StatusCode, body, nil
}

func (e engine) unreachable(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no Docker socket at %s: install Docker, set DOCKER_HOST, or mount the socket into Certsitter's container", e.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the user that Certsitter runs as may not use the Docker socket %s: add it to the socket's group (who may use it is as mighty as root)", e.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers at the Docker socket %s: start Docker", e.socket)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("the container engine at %s: %w", e.socket, err)
}

// reason is what the engine says: {"message": "…"}.
func (e engine) reason(body []byte) string {
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		return "it gives no reason"
	}
	t := tail{held: []byte(said.Message)}
	return cmp.Or(lastWords(t.text(e.secrets)), "it gives no reason")
}
