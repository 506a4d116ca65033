package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certsitter/certsitter/notify"
	"github.com/certsitter/certsitter/renew"
)

const testVersion = "1.2.3"

// limit is how long a test waits for what must happen.
const limit = 20 * time.Second

// TestMain lets the test's own program play the child, by role.
func TestMain(m *testing.M) {
	role := os.Getenv("WORKER_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	play, ok := roles[role]
	if !ok {
		fmt.Fprintln(os.Stderr, "there is no role", role)
		os.Exit(3)
	}
	os.Exit(play())
}

// roles are what a child may be, well and badly behaved.
var roles map[string]func() int

// The roles call each other's functions, so the table is filled at run time.
func init() {
	roles = map[string]func() int{
		"ok":            func() int { return serveRole(Jobs{Issue: issueAll, Revoke: revokeAll, Send: sendAll}) },
		"no jobs":       func() int { return serveRole(Jobs{}) },
		"fault":         func() int { return serveRole(Jobs{Issue: issueFault}) },
		"plain error":   func() int { return serveRole(Jobs{Issue: issueError}) },
		"panic":         func() int { return serveRole(Jobs{Issue: issuePanic}) },
		"crash":         func() int { return serveRole(Jobs{Issue: issueCrash}) },
		"late":          func() int { return serveRole(Jobs{Issue: issueLate}) },
		"deaf":          func() int { return serveRole(Jobs{Issue: issueDeaf, Grace: 50 * time.Millisecond}) },
		"hang":          func() int { return serveRole(Jobs{Issue: issueHang}) },
		"orphan":        func() int { return serveRole(Jobs{Issue: issueOrphan}) },
		"hold":          hold,
		"leave":         func() int { return leave(nil, `{"result":{"done":true}}`+"\n") },
		"daemonize":     func() int { return leave(&syscall.SysProcAttr{Setsid: true}, `{"result":{"done":true}}`+"\n") },
		"vanish":        func() int { return leave(&syscall.SysProcAttr{Setsid: true}, "") },
		"version":       func() int { return Serve(context.Background(), os.Args[1:], os.Stdin, os.Stdout, "9.9.9", Jobs{}) },
		"unversioned":   func() int { return ExitRefused },
		"silent":        func() int { return 0 },
		"told":          func() int { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM); select {} },
		"told late":     func() int { return serveRole(Jobs{Issue: issueTold}) },
		"killed":        func() int { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} },
		"garbage":       func() int { return say("Hello, world!\n") },
		"binary":        func() int { return say("\x00\xff\xfe\n") },
		"unknown field": func() int { return say(`{"progress":{"step":"order","text":"x","mood":"good"}}` + "\n") },
		"two parts":     func() int { return say(`{"account":"a","placed":"b","id":1}` + "\n") },
		"no id":         func() int { return say(`{"account":"a"}` + "\n") },
		"nothing":       func() int { return say("{}\n") },
		"two values":    func() int { return say(`{"result":{"done":true}}{}` + "\n") },
		"half":          func() int { return say(`{"result":{"done":`) },
		"no chain":      func() int { return say(`{"result":{"issued":{"chain":"","account_url":"","order_url":""}}}` + "\n") },
		"wrong result":  func() int { return say(`{"result":{"done":true}}` + "\n") },
		"long line":     func() int { _, _ = io.Copy(os.Stdout, endless{}); return 0 },
		"long talk":     floodEvents,
		"loud":          loud,
	}
}

func serveRole(j Jobs) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Serve(ctx, os.Args[1:], os.Stdin, os.Stdout, testVersion, j)
}

func say(text string) int {
	_, _ = io.WriteString(os.Stdout, text)
	return 0
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func floodEvents() int {
	w := lineWriter{w: os.Stdout}
	for w.write(message{Progress: &renew.Progress{Step: renew.StepOrder, Text: strings.Repeat("x", 1000)}}) == nil {
	}
	return 0
}

func loud() int {
	fmt.Fprintln(os.Stderr, strings.Repeat("l", 3*maxLogLine))
	fmt.Fprint(os.Stderr, "escape \x1b[31m\x00\tand bell\a\n\n")
	for n := range maxLogLines + 100 {
		fmt.Fprintln(os.Stderr, "line", n)
	}
	return serveRole(Jobs{Issue: issueAll})
}

// issueAll does everything that an order may do, and answers with what it saw.
func issueAll(ctx context.Context, r renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepAccount, Text: "registering"})
	if err := h.Account(ctx, "https://ca.example/account/1"); err != nil {
		return renew.Issued{}, fmt.Errorf("account: %w", err)
	}
	if err := h.Placed(ctx, "https://ca.example/order/1"); err != nil {
		return renew.Issued{}, fmt.Errorf("placed: %w", err)
	}
	if err := h.Present(ctx, []renew.Challenge{{Type: renew.HTTP01, Name: "a.example", Token: "t", KeyAuthorization: "t.k"}}); err != nil {
		return renew.Issued{}, fmt.Errorf("present: %w", err)
	}
	seen, err := json.Marshal(map[string]any{"request": r, "environ": os.Environ(), "args": os.Args, "uid": os.Getuid(), "group": syscall.Getpgrp() == os.Getpid()})
	return renew.Issued{Chain: seen, AccountURL: "https://ca.example/account/1", OrderURL: "https://ca.example/order/1", Replaced: true}, err
}

func issueFault(context.Context, renew.OrderRequest, Handler) (renew.Issued, error) {
	return renew.Issued{}, fmt.Errorf("wrapped: %w", testFault)
}

var testFault = &renew.Fault{
	Problems: []renew.Problem{
		{Step: renew.StepChallenge, Name: "a.example", Type: "urn:ietf:params:acme:error:dns", Detail: "NXDOMAIN; the URL was https://dns.example/?token=duck%26token", Status: 400},
		{Step: renew.StepChallenge, Name: "b.example", Detail: "no"},
	},
	RetryAfter:     36 * time.Hour,
	WholeDirectory: true,
	OrderGone:      true,
	Date:           time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
}

func issueError(_ context.Context, r renew.OrderRequest, _ Handler) (renew.Issued, error) {
	return renew.Issued{}, errors.New("token " + r.Env["DUCKDNS_TOKEN"] + " at " + r.Env["DUCKDNS_URL"])
}

func issuePanic(_ context.Context, _ renew.OrderRequest, h Handler) (renew.Issued, error) {
	panic("at the disco")
}

func issueCrash(_ context.Context, r renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepPropagation, Name: "a.example", Text: "waiting"})
	go func() { panic("provider broke with " + r.Env["DUCKDNS_TOKEN"]) }()
	select {}
}

// issueLate succeeds after it was told to stop.
func issueLate(ctx context.Context, _ renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepFinalize, Text: "finalizing"})
	<-ctx.Done()
	if err := h.Placed(context.Background(), "https://ca.example/order/1"); err != nil {
		return renew.Issued{}, err
	}
	return renew.Issued{Chain: []byte("chain")}, nil
}

// issueTold is told to stop by somebody else than the daemon.
func issueTold(ctx context.Context, _ renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepFinalize, Text: "finalizing"})
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	<-ctx.Done()
	return renew.Issued{}, ctx.Err()
}

func issueDeaf(_ context.Context, _ renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepPropagation, Name: "a.example", Text: "waiting"})
	select {}
}

// issueHang starts a child of its own that takes a lock and keeps our outputs,
// and does not return, whatever it is told.
func issueHang(_ context.Context, r renew.OrderRequest, h Handler) (renew.Issued, error) {
	signal.Ignore(syscall.SIGTERM)
	if err := startHolder(r.Env["LOCK"], nil); err != nil {
		return renew.Issued{}, err
	}
	h.Progress(renew.Progress{Step: renew.StepPresent, Name: "a.example", Text: "hanging"})
	select {}
}

// leave ends and leaves a descendant that holds our outputs.
func leave(attr *syscall.SysProcAttr, text string) int {
	if err := startHolder(os.Getenv("LOCK"), attr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return say(text)
}

// startHolder starts a program that locks path and returns when it has.
func startHolder(path string, attr *syscall.SysProcAttr) error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"WORKER_ROLE=hold", "LOCK=" + path, "GORACE=atexit_sleep_ms=0"}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	ready, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path + ".locked"); err == nil {
			return nil
		}
	}
	return errors.New("the lock was not taken")
}

// hold locks a file for as long as it is there, at most a minute.
func hold() int {
	signal.Ignore(syscall.SIGTERM)
	path := os.Getenv("LOCK")
	f, err := os.Create(path)
	if err != nil || syscall.Flock(int(f.Fd()), syscall.LOCK_EX) != nil || os.WriteFile(path+".locked", nil, 0o600) != nil {
		return 1
	}
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, err = os.Stat(path)
	}
	return min(1, int(f.Fd())) // keeps f alive
}

// issueOrphan waits until it is told to stop and says why it was.
func issueOrphan(ctx context.Context, r renew.OrderRequest, h Handler) (renew.Issued, error) {
	h.Progress(renew.Progress{Step: renew.StepPresent, Text: "waiting"})
	<-ctx.Done()
	return renew.Issued{}, os.WriteFile(r.Env["REPORT"], []byte(context.Cause(ctx).Error()), 0o600)
}

func revokeAll(_ context.Context, r renew.RevokeRequest) error {
	if r.Reason != 1 {
		return &renew.Fault{Problems: []renew.Problem{{Step: renew.StepRevoke, Detail: "not for that reason"}}}
	}
	return nil
}

func sendAll(_ context.Context, r notify.Request) error {
	if r.Title == "" {
		return &notify.Undelivered{Reason: "no title for " + r.URL, Permanent: true, RetryAfter: time.Minute}
	}
	return nil
}

// child is a client of this program in one role.
func child(t *testing.T, role string) *Client {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Client{
		Path:    path,
		Env:     []string{"WORKER_ROLE=" + role, "GORACE=atexit_sleep_ms=0"},
		Version: testVersion,
		Log:     func(line string) { t.Log("child:", line) },
		Grace:   200 * time.Millisecond,
	}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}

type seen struct {
	Request renew.OrderRequest
	Environ []string
	Args    []string
	UID     int
	Group   bool
}

func TestIssue(t *testing.T) {
	t.Setenv("SUPERVISOR_TOKEN", "do-not-leak")
	t.Setenv("TZ", "Europe/Vienna")
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	var told []string
	note := func(what string) { told = append(told, what) }
	request := renew.OrderRequest{
		Directory:  "https://ca.example/directory",
		AccountKey: []byte("account key"),
		CSR:        []byte{1, 2, 3},
		Names:      []string{"a.example"},
		Challenge:  renew.DNS01,
		Env:        map[string]string{"CF_DNS_API_TOKEN": "geheim\nmit Umbruch"},
	}
	issued, err := child(t, "ok").Issue(bounded(t), request, Handler{
		Account:  func(_ context.Context, url string) error { note("account " + url); return nil },
		Placed:   func(_ context.Context, url string) error { note("placed " + url); return nil },
		Progress: func(p renew.Progress) { note("progress " + p.Step) },
		Present: func(_ context.Context, c []renew.Challenge) error {
			note(fmt.Sprintf("present %s %s %s", c[0].Type, c[0].Name, c[0].KeyAuthorization))
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"progress account", "account https://ca.example/account/1", "placed https://ca.example/order/1", "present http-01 a.example t.k"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if issued.AccountURL != "https://ca.example/account/1" || issued.OrderURL != "https://ca.example/order/1" || !issued.Replaced {
		t.Errorf("issued = %+v", issued)
	}
	var s seen
	if err := json.Unmarshal(issued.Chain, &s); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.Request, request) {
		t.Errorf("the child read %+v", s.Request)
	}
	if !s.Group {
		t.Error("the child has no process group of its own")
	}
	if args := strings.Join(s.Args[1:], " "); args != "--protocol=1 --version=1.2.3 issue" {
		t.Errorf("args = %s", args)
	}
	environ := map[string]string{}
	for _, e := range s.Environ {
		name, value, _ := strings.Cut(e, "=")
		environ[name] = value
	}
	want := map[string]string{
		"PATH": searchPath, "HOME": "/nonexistent", "TZ": "Europe/Vienna", "HTTPS_PROXY": "http://proxy.example:3128",
		"CF_DNS_API_TOKEN": "geheim\nmit Umbruch", "WORKER_ROLE": "ok", "GORACE": "atexit_sleep_ms=0",
		"PWD": "/", // package exec's doing
	}
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			want[name] = value
		}
	}
	delete(want, "PWD")
	delete(environ, "PWD")
	if !maps.Equal(environ, want) {
		t.Errorf("environ = %q, want %q", environ, want)
	}
}

func TestIssueWithoutHandler(t *testing.T) {
	_, err := child(t, "ok").Issue(bounded(t), renew.OrderRequest{}, Handler{})
	f, ok := errors.AsType[*renew.Fault](err)
	if !ok || !strings.Contains(f.Problems[0].Detail, "answers no challenges") {
		t.Errorf("err = %v", err)
	}
}

func TestIssueRefusedByParent(t *testing.T) {
	no := errors.New("the disk is full")
	for name, h := range map[string]Handler{
		"account": {Account: func(context.Context, string) error { return no }},
		"placed":  {Placed: func(context.Context, string) error { return no }},
		"present": {Present: func(context.Context, []renew.Challenge) error { return no }},
	} {
		_, err := child(t, "ok").Issue(bounded(t), renew.OrderRequest{}, h)
		f, ok := errors.AsType[*renew.Fault](err)
		if !ok || f.Problems[0].Detail != name+": the disk is full" {
			t.Errorf("%s: err = %v", name, err)
		}
	}
}

func TestIssueFault(t *testing.T) {
	_, err := child(t, "fault").Issue(bounded(t), renew.OrderRequest{Env: map[string]string{"DUCKDNS_TOKEN": "duck&token"}}, Handler{})
	want := *testFault
	want.Problems = slices.Clone(testFault.Problems)
	want.Problems[0].Detail = "NXDOMAIN; the URL was https://dns.example/?token=[redacted]"
	f, ok := errors.AsType[*renew.Fault](err)
	if !ok || !reflect.DeepEqual(*f, want) {
		t.Errorf("err = %+v", err)
	}
}

// TestSecretsStayOut: providers put tokens into errors.
func TestSecretsStayOut(t *testing.T) {
	var mu sync.Mutex
	var logged []string
	for _, role := range []string{"plain error", "crash"} {
		c := child(t, role)
		c.Log = func(line string) {
			mu.Lock()
			defer mu.Unlock()
			logged = append(logged, line)
		}
		_, err := c.Issue(bounded(t), renew.OrderRequest{Env: map[string]string{
			"DUCKDNS_TOKEN": "f00ba4-token", "DUCKDNS_URL": "https://dns.example/api",
		}}, Handler{})
		f, ok := errors.AsType[*renew.Fault](err)
		if !ok || !strings.Contains(f.Error(), "[redacted]") || strings.Contains(f.Error(), "f00ba4") {
			t.Errorf("%s: err = %v", role, err)
		}
		if role == "plain error" && !strings.Contains(f.Error(), "https://dns.example/api") {
			t.Errorf("%s: an address was cut out: %v", role, err)
		}
	}
	if all := strings.Join(logged, "\n"); !strings.Contains(all, "provider broke") || strings.Contains(all, "f00ba4") {
		t.Errorf("logged %s", all)
	}
}

func TestChildrenThatFail(t *testing.T) {
	for _, test := range []struct{ role, want string }{
		{"panic", "the worker crashed: at the disco"},
		{"crash", "the worker ended without a result (exit status 2): panic: provider broke with (its last step was propagation)"},
		{"silent", "the worker ended without a result (exit status 0)"},
		{"killed", "the worker ended without a result (signal: killed): the system may have run out of memory"},
		{"garbage", "broke the protocol: invalid character 'H'"},
		{"binary", "broke the protocol: invalid character"},
		{"unknown field", `broke the protocol: json: unknown field "mood"`},
		{"two parts", "broke the protocol: a message has 2 parts"},
		{"no id", "broke the protocol: a message has an id and nobody waits"},
		{"nothing", "broke the protocol: a message has 0 parts"},
		{"two values", "broke the protocol: more than one value"},
		{"half", "the worker ended without a result"},
		{"no chain", "broke the protocol: the result has no chain"},
		{"wrong result", "another question"},
		{"long line", "broke the protocol: a line is longer than"},
		{"long talk", "broke the protocol: more than"},
	} {
		t.Run(test.role, func(t *testing.T) {
			t.Parallel()
			_, err := child(t, test.role).Issue(bounded(t), renew.OrderRequest{}, Handler{})
			f, ok := errors.AsType[*renew.Fault](err)
			if !ok || len(f.Problems) != 1 || f.Problems[0].Step != StepWorker || !strings.Contains(f.Problems[0].Detail, test.want) {
				t.Errorf("err = %v, want %q", err, test.want)
			}
		})
	}
}

func TestVersionError(t *testing.T) {
	for role, want := range map[string]VersionError{
		"version":     {Want: testVersion, Have: "9.9.9", Protocol: Protocol},
		"unversioned": {Want: testVersion},
	} {
		c := child(t, role)
		want.Path = c.Path
		_, err := c.Issue(bounded(t), renew.OrderRequest{}, Handler{})
		got, ok := errors.AsType[*VersionError](err)
		if !ok || *got != want || !strings.Contains(got.Error(), "restart the daemon") {
			t.Errorf("%s: err = %#v", role, err)
		}
	}
	// Even a job that it does not know.
	if err := child(t, "no jobs").Revoke(bounded(t), renew.RevokeRequest{}); err == nil {
		t.Error("a child without a job did it")
	}
}

func TestMissingChild(t *testing.T) {
	c := &Client{Path: filepath.Join(t.TempDir(), "certsitter-worker"), Version: testVersion}
	_, err := c.Issue(bounded(t), renew.OrderRequest{}, Handler{})
	f, ok := errors.AsType[*renew.Fault](err)
	if !ok || f.Problems[0].Step != StepWorker || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("err = %v", err)
	}
	err = c.Send(bounded(t), notify.Request{URL: "ntfy://ntfy.sh/topic"})
	if u, ok := errors.AsType[*notify.Undelivered](err); !ok || u.Permanent || !strings.Contains(u.Reason, "cannot be started") {
		t.Errorf("err = %v", err)
	}
}

// TestDeadline: nothing of the child is left, even if it hears nothing and its
// own child holds our pipes.
func TestDeadline(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	late := errors.New("no certificate within the time")
	// The test's own end of time comes when the child has begun to hang.
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	deadline := &ending{Context: ctx, err: context.DeadlineExceeded}
	_, err := child(t, "hang").Issue(deadline, renew.OrderRequest{Env: map[string]string{"LOCK": lock}}, Handler{
		Progress: func(renew.Progress) { cancel(late) },
	})
	if !errors.Is(err, late) || err.Error() != "no certificate within the time, at step present of a.example" {
		t.Errorf("err = %v", err)
	}
	if _, ok := errors.AsType[*renew.Fault](err); ok {
		t.Error("the end of the time was taken for a failure")
	}
	waitForLock(t, lock)
}

// waitForLock waits for the end of whoever holds a file's lock.
func waitForLock(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for end := time.Now().Add(limit); syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child's child still lives")
		}
	}
}

// ending is a context that ends with an error of the test's choice.
type ending struct {
	context.Context
	err error
}

func (e *ending) Err() error {
	if e.Context.Err() == nil {
		return nil
	}
	return e.err
}

// TestCancellationIsHasty: the daemon is being stopped, and somebody waits.
func TestCancellationIsHasty(t *testing.T) {
	c := child(t, "hang")
	c.Grace, c.Haste = time.Hour, 50*time.Millisecond
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	stopped := errors.New("stopped")
	_, err := c.Issue(ctx, renew.OrderRequest{Env: map[string]string{"LOCK": filepath.Join(t.TempDir(), "lock")}}, Handler{
		Progress: func(renew.Progress) { cancel(stopped) },
	})
	if !errors.Is(err, stopped) {
		t.Errorf("err = %v", err)
	}
}

// TestNothingIsLeft: what a child started ends with it, even if all went well.
func TestNothingIsLeft(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	c := child(t, "leave")
	c.Env = append(c.Env, "LOCK="+lock)
	if err := c.Revoke(bounded(t), renew.RevokeRequest{}); err != nil {
		t.Error(err)
	}
	waitForLock(t, lock)
}

// TestDescendantElsewhere: one that left the group is out of our reach, but
// does not keep us, result or none.
func TestDescendantElsewhere(t *testing.T) {
	for role, want := range map[string]string{"daemonize": "", "vanish": "the worker ended without a result"} {
		c := child(t, role)
		c.Env = append(c.Env, "LOCK="+filepath.Join(t.TempDir(), "lock"))
		err := c.Revoke(bounded(t), renew.RevokeRequest{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", role, err)
		}
	}
}

func TestDeafJobIsAbandoned(t *testing.T) {
	c := child(t, "deaf")
	c.Grace = limit // the child is the one that gives up
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	stopped := errors.New("stopped")
	_, err := c.Issue(ctx, renew.OrderRequest{}, Handler{Progress: func(renew.Progress) { cancel(stopped) }})
	if !errors.Is(err, stopped) {
		t.Errorf("err = %v", err)
	}
}

func TestSuccessWinsOverTheDeadline(t *testing.T) {
	c := child(t, "late")
	c.Grace = limit
	ctx, cancel := context.WithCancelCause(bounded(t))
	defer cancel(nil)
	placed := false
	issued, err := c.Issue(ctx, renew.OrderRequest{}, Handler{
		Progress: func(renew.Progress) { cancel(errors.New("too late")) },
		Placed: func(ctx context.Context, _ string) error {
			placed = true
			return ctx.Err() // what is to be remembered is not cut off
		},
	})
	if err != nil || string(issued.Chain) != "chain" || !placed {
		t.Errorf("issued %q, placed %v, err %v", issued.Chain, placed, err)
	}
}

// TestStoppedByOthers: a service manager tells the whole control group.
func TestStoppedByOthers(t *testing.T) {
	for role, want := range map[string]string{
		"told":      "the worker was told to stop",
		"told late": "the worker was told to stop, at step finalize",
	} {
		_, err := child(t, role).Issue(bounded(t), renew.OrderRequest{}, Handler{})
		if _, ok := errors.AsType[*Interrupted](err); !ok || !errors.Is(err, ErrStopped) || err.Error() != want {
			t.Errorf("%s: %v", role, err)
		}
	}
}

func TestEndedBeforeItBegan(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	_, err := child(t, "ok").Issue(ctx, renew.OrderRequest{}, Handler{})
	if !errors.Is(err, stopped) || err.Error() != "stopped" {
		t.Errorf("err = %v", err)
	}
}

// TestEndOfInputEndsTheChild: the daemon may be killed and tell nobody.
func TestEndOfInputEndsTheChild(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report")
	cmd := child(t, "orphan").command(verbIssue, &syscall.SysProcAttr{Setpgid: true})
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := json.NewEncoder(in).Encode(renew.OrderRequest{Env: map[string]string{"REPORT": report}}); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // an empty chain is no result, which is not the point here
	got, err := os.ReadFile(report)
	if err != nil || string(got) != ErrParentGone.Error() {
		t.Errorf("the job was told %q, %v", got, err)
	}
}

func TestRevoke(t *testing.T) {
	if err := child(t, "ok").Revoke(bounded(t), renew.RevokeRequest{Reason: 1}); err != nil {
		t.Error(err)
	}
	err := child(t, "ok").Revoke(bounded(t), renew.RevokeRequest{})
	if f, ok := errors.AsType[*renew.Fault](err); !ok || f.Problems[0].Step != renew.StepRevoke {
		t.Errorf("err = %v", err)
	}
}

func TestSend(t *testing.T) {
	if err := child(t, "ok").Send(bounded(t), notify.Request{URL: "ntfy://ntfy.sh/topic", Title: "T"}); err != nil {
		t.Error(err)
	}
	err := child(t, "ok").Send(bounded(t), notify.Request{URL: "ntfy://ntfy.sh/my-topic"})
	want := notify.Undelivered{Reason: "no title for [redacted]", Permanent: true, RetryAfter: time.Minute}
	if u, ok := errors.AsType[*notify.Undelivered](err); !ok || *u != want {
		t.Errorf("err = %#v", err)
	}
	err = child(t, "version").Send(bounded(t), notify.Request{URL: "ntfy://ntfy.sh/my-topic"})
	if _, ok := errors.AsType[*VersionError](err); !ok {
		t.Errorf("err = %#v", err)
	}
}

func TestLogIsBounded(t *testing.T) {
	c := child(t, "loud")
	var lines []string // Issue returns after the last one
	c.Log = func(line string) { lines = append(lines, line) }
	_, err := c.Issue(bounded(t), renew.OrderRequest{}, Handler{Present: func(context.Context, []renew.Challenge) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != maxLogLines || !strings.Contains(lines[maxLogLines-1], "left out") {
		t.Errorf("%d lines, the last one %q", len(lines), lines[len(lines)-1])
	}
	if len(lines[0]) != maxLogLine || lines[1] != "escape [31m and bell" || lines[2] != "line 0" {
		t.Errorf("lines of %d bytes, %q, %q", len(lines[0]), lines[1], lines[2])
	}
}

func TestParallelChildren(t *testing.T) {
	c := child(t, "ok")
	var all sync.WaitGroup
	for n := range 5 {
		all.Go(func() {
			token := fmt.Sprint("token number ", n)
			issued, err := c.Issue(bounded(t), renew.OrderRequest{Env: map[string]string{"X_TOKEN": token}}, Handler{
				Present: func(context.Context, []renew.Challenge) error { return nil },
			})
			if err != nil || !strings.Contains(string(issued.Chain), token) {
				t.Errorf("%d: %v", n, err)
			}
		})
	}
	all.Wait()
}

// TestOwnUser needs root: a daemon that is none has no user to give.
func TestOwnUser(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can become another user, and there must be one named nobody")
	}
	// The child's own program may lie where only root can go.
	dir, err := os.MkdirTemp("/tmp", "certsitter-worker-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := child(t, "ok")
	copied := filepath.Join(dir, "worker")
	if out, err := exec.Command("cp", c.Path, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	present := Handler{Present: func(context.Context, []renew.Challenge) error { return nil }}
	for name, want := range map[string]string{"nobody": nobody.Uid, "nobody-of-that-name": "0", "": "0"} {
		c.Path, c.User = copied, name
		issued, err := c.Issue(bounded(t), renew.OrderRequest{}, present)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		var s seen
		if err := json.Unmarshal(issued.Chain, &s); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(s.UID) != want {
			t.Errorf("as %q the child is user %d", name, s.UID)
		}
	}
}

func TestEnvironmentIsNeverNil(t *testing.T) {
	env := environment(func(string) (string, bool) { return "", false }, nil)
	if want := []string{"PATH=" + searchPath, "HOME=/nonexistent"}; !slices.Equal(env, want) {
		t.Errorf("environment = %q", env)
	}
}

func TestServeRefuses(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"issue"},
		{"--protocol=2", "--version=1.2.3", "issue"},
		{"--protocol=1", "--version=1.2.4", "issue"},
		{"--protocol=1", "--version=1.2.3"},
		{"--protocol=1", "--version=1.2.3", "issue", "revoke"},
		{"--protocol=1", "--version=1.2.3", "diagnose"},
		{"--protocol=1", "--version=1.2.3", "--surprise", "issue"},
	} {
		var out strings.Builder
		code := Serve(t.Context(), args, strings.NewReader("{}\n"), &out, testVersion, Jobs{Issue: issueFault})
		m, err := readMessage(newLines(strings.NewReader(out.String())))
		if code != ExitRefused || err != nil || m.Refused == nil || m.Refused.Version != testVersion || m.Refused.Reason == "" {
			t.Errorf("%q: code %d, %+v, %v", args, code, m, err)
		}
	}
}

func TestServeRequests(t *testing.T) {
	args := []string{"--protocol=1", "--version=1.2.3", "revoke"}
	for in, want := range map[string]int{
		"":                                     ExitBroken,
		`{"reason":1}`:                         ExitBroken, // no end of the line: half a request
		`{"reason":1}` + "\n":                  ExitDone,
		`{"reason":1,"private_key":""}` + "\n": ExitDone,
		strings.Repeat("x", maxLine+1):         ExitBroken,
	} {
		var out strings.Builder
		code := Serve(t.Context(), args, strings.NewReader(in), &out, testVersion, Jobs{Revoke: revokeAll})
		if code != want {
			t.Errorf("%.40q: code %d", in, code)
		}
		if refused := strings.Contains(in, "private_key"); code == ExitDone && strings.Contains(out.String(), "unknown field") != refused {
			t.Errorf("%.40q: %s", in, out.String())
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(`{"progress":{"step":"order","name":"a","text":"b"}}` + "\n"))
	f.Add([]byte(`{"id":1,"account":"https://ca.example/1"}` + "\n"))
	f.Add([]byte(`{"id":3,"present":[{"type":"http-01","name":"a","token":"t","key_authorization":"t.k"}]}` + "\n"))
	f.Add([]byte(`{"result":{"fault":{"problems":[{"step":"order","detail":"d"}],"retry_after":1}}}` + "\n"))
	f.Add([]byte(`{"result":{"issued":{"chain":"AA==","account_url":"","order_url":""}}}` + "\n{}\n"))
	f.Add([]byte(`{"refused":{"protocol":2,"version":"x","reason":"y"}}` + "\n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLines(strings.NewReader(string(b)))
		for {
			m, err := readMessage(l)
			if err != nil {
				return
			}
			var out strings.Builder
			w := lineWriter{w: &out}
			if err := w.write(m); err != nil {
				t.Fatal(err)
			}
			again, err := readMessage(newLines(strings.NewReader(out.String())))
			if err != nil || !reflect.DeepEqual(m, again) {
				t.Fatalf("%q was read as %+v and then as %+v, %v", b, m, again, err)
			}
		}
	})
}

func FuzzReadAcknowledgement(f *testing.F) {
	f.Add([]byte(`{"id":1}` + "\n" + `{"id":2,"error":"no"}` + "\n"))
	f.Add([]byte(`{"id":0}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLines(strings.NewReader(string(b)))
		for {
			a, err := readAcknowledgement(l)
			if err != nil {
				return
			}
			if a.ID <= 0 {
				t.Fatalf("%q has the id %d", b, a.ID)
			}
		}
	})
}

// FuzzServe: whatever the parent says, the child answers or ends.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"directory":"https://ca.example/"}` + "\n" + `{"id":1}` + "\n" + `{"id":2}` + "\n" + `{"id":3,"error":"x"}` + "\n"))
	f.Add([]byte(`{"env":{"":"x"}}` + "\n"))
	f.Add([]byte(`{"csr":"AA=="}` + "\n" + `{"id":7}` + "\nnonsense\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(strings.ToLower(string(b)), "env") {
			return // it would change this process
		}
		code := Serve(t.Context(), []string{"--protocol=1", "--version=1.2.3", "issue"}, strings.NewReader(string(b)), io.Discard, testVersion, Jobs{Issue: issueAll})
		if code != ExitDone && code != ExitBroken {
			t.Errorf("%q: code %d", b, code)
		}
	})
}
