package act

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wait is the end of every wait in these tests.
const wait = 20 * time.Second

func TestACommandSeesWhatIsPromisedAndNothingElse(t *testing.T) {
	t.Setenv("SUPERVISOR_TOKEN", "do-not-leak")
	t.Setenv("CF_DNS_API_TOKEN", "do-not-leak")
	t.Setenv("PATH", "/nowhere:"+os.Getenv("PATH"))
	t.Setenv("HOME", "/home/sitter")
	t.Setenv("TZ", "Europe/Berlin")
	file := filepath.Join(t.TempDir(), "environment")
	if err := perform(t, t.Context(), "run env > "+file+"; pwd >> "+file, Machine{}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if folder := lines[len(lines)-1]; folder != "/" {
		t.Errorf("it ran in %s", folder)
	}
	got := slices.DeleteFunc(lines[:len(lines)-1], func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_"}, name) // the shell's own
	})
	slices.Sort(got)
	want := []string{
		"CERTSITTER_CERTFILE=/ssl/fullchain.pem", "CERTSITTER_DOMAINS=home.example.org *.home.example.org",
		"CERTSITTER_KEYFILE=/ssl/privkey.pem", "CERTSITTER_NAME=home", "HOME=/home/sitter", "PATH=" + searchPath, "TZ=Europe/Berlin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("it saw\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHowACommandEnds(t *testing.T) {
	for command, want := range map[string]string{
		"echo working; echo 'scp: connection refused' >&2; exit 3": "it ended with status 3: working / scp: connection refused",
		"exit 1":                           "it ended with status 1",
		"push-to-nowhere":                  "PATH is /usr/local/sbin",
		"/etc/passwd":                      "may not be executed",
		"kill -9 $$":                       "signal 9 (killed)",
		"read line || exit 4":              "it ended with status 4", // nobody types anything
		"printf 'a\\033[31mb\\007'; false": "status 1: ab",
		"seq 1 100; exit 1":                "status 1: 98 / 99 / 100",
	} {
		err := perform(t, t.Context(), "run "+command, Machine{})
		says(t, err, want)
		if _, ok := errors.AsType[*Failure](err); !ok {
			t.Errorf("%s: %T", command, err)
		}
	}
	if err := perform(t, t.Context(), "run echo fine", Machine{}); err != nil {
		t.Error(err)
	}
}

func outputOf(t *testing.T, err error) string {
	t.Helper()
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	return f.Output
}

func TestAnOutputIsCappedAtItsBeginning(t *testing.T) {
	err := perform(t, t.Context(), "run head -c 3000000 /dev/zero | tr '\\0' 'x'; echo the end; exit 1", Machine{})
	out := outputOf(t, err)
	if len(out) > maxOutput || len(out) < maxOutput/2 || !strings.HasSuffix(out, "the end") {
		t.Errorf("%d bytes, the last: %q", len(out), out[max(0, len(out)-20):])
	}
	if len(err.Error()) > 3*maxWords {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

func TestSecretsAreCutOutBeforeTheOutputIsMadeShort(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	m := Machine{Secrets: func(s string) string { return strings.ReplaceAll(s, secret, "***") }}
	for _, n := range []int{maxHeld, maxHeld - 5, maxOutput - 10, 2*maxHeld + maxHeld/2 + 3, 50} {
		// The secret stands so that a cut by length alone goes through it.
		err := perform(t, t.Context(), fmt.Sprintf("run printf '%%s' %s; head -c %d /dev/zero | tr '\\0' ' '; echo %s; exit 1", secret, n-len(secret), secret), m)
		out := outputOf(t, err)
		for i := range len(secret) - 6 {
			if part := secret[i : i+7]; strings.Contains(out, part) {
				t.Errorf("after %d bytes: %q is left of it: %q", n, part, out)
				break
			}
		}
		if !strings.HasSuffix(out, "***") {
			t.Errorf("after %d bytes: %q", n, out)
		}
	}
}

func TestAPrivateKeyIsCutOut(t *testing.T) {
	const body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
	for name, text := range map[string]string{
		"whole":            "a\n-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\nb",
		"of another kind":  "a\n-----BEGIN EC PRIVATE KEY-----\n" + body + "\n-----END EC PRIVATE KEY-----\nb",
		"without its end":  "a\n-----BEGIN PRIVATE KEY-----\n" + body + "\n",
		"without its head": body + "\n-----END PRIVATE KEY-----\nb",
		"two":              "-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\nx\n-----BEGIN PRIVATE KEY-----\n" + body,
	} {
		out := (&tail{held: []byte(text)}).text(func(s string) string { return s })
		if strings.Contains(out, body) || !strings.Contains(out, "***") {
			t.Errorf("%s: %q", name, out)
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add("a\x1b[31mb\xff\u202e\x00\r\n-----BEGIN PRIVATE KEY-----\nx", 3)
	f.Add(strings.Repeat("ü", 3000), 7)
	f.Fuzz(func(t *testing.T, s string, n int) {
		var whole tail
		for rest := s; rest != ""; {
			size := min(len(rest), 1+n&0xff)
			if _, err := whole.Write([]byte(rest[:size])); err != nil {
				t.Fatal(err)
			}
			rest = rest[size:]
		}
		out := whole.text(func(s string) string { return s })
		if len(out) > maxOutput {
			t.Errorf("%d bytes", len(out))
		}
		if strings.ContainsAny(out, "\x00\x1b\r\u202e") || strings.ToValidUTF8(out, "") != out {
			t.Errorf("%q", out)
		}
		if words := lastWords(out); strings.Contains(words, "\n") || len([]rune(words)) > maxWords+1 {
			t.Errorf("%q", words)
		}
	})
}

// alive tells whether a process still runs; a zombie that nobody reaps does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// pidIn waits until a command has written a process's number.
func pidIn(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(file)
		if text, whole := strings.CutSuffix(string(data), "\n"); whole {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("nothing was written to %s", file)
	return 0
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(wait); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("the process %d is left", pid)
		}
	}
}

// endWhen ends the context once a command has written its grandchild's number.
func endWhen(t *testing.T, file string, cancel func()) <-chan int {
	pid := make(chan int, 1)
	go func() {
		defer cancel()
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			data, _ := os.ReadFile(file)
			if text, whole := strings.CutSuffix(string(data), "\n"); whole {
				n, _ := strconv.Atoi(text)
				pid <- n
				return
			}
		}
		pid <- 0
	}()
	return pid
}

func TestACommandThatIsStoppedIsEndedWithItsChildren(t *testing.T) {
	for name, trap := range map[string]string{"politely": "", "though it does not listen": "trap '' TERM; "} {
		t.Run(name, func(t *testing.T) {
			stopped := errors.New("the daemon ends")
			ctx, cancel := context.WithCancelCause(t.Context())
			file := filepath.Join(t.TempDir(), "pid")
			pid := endWhen(t, file, func() { cancel(stopped) })
			err := perform(t, ctx, "run "+trap+"sleep 300 & echo working; echo $! > "+file+"; wait; sleep 300", Machine{})
			says(t, err, "the daemon ends and was ended: working")
			if !errors.Is(err, stopped) {
				t.Errorf("got %v", err)
			}
			waitGone(t, <-pid)
		})
	}
}

func TestTheDeadlineHasAReason(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("it did not end within a moment"))
	defer cancel()
	says(t, perform(t, ctx, "run echo waiting for the NAS; sleep 300", Machine{}), "it did not end within a moment and was ended: waiting for the NAS")
}

// A grandchild with a session of its own is no part of the group and holds the
// other end of the pipe.
func TestAGrandchildThatHoldsTheOutputIsNotWaitedFor(t *testing.T) {
	if _, ok := find("setsid"); !ok {
		t.Skip("there is no setsid")
	}
	for name, code := range map[string]string{"success": "0", "failure": "7"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			err := perform(t, t.Context(), "run setsid sh -c 'echo $$ > "+file+"; exec sleep 40' & while ! [ -s "+file+" ]; do sleep 0.01; done; echo said; exit "+code, Machine{})
			pid := pidIn(t, file)
			defer syscall.Kill(pid, syscall.SIGKILL)
			if !alive(pid) {
				t.Error("it was waited for, or ended")
			}
			if code == "0" && err != nil {
				t.Error(err)
			}
			if code != "0" {
				says(t, err, "status 7: said")
			}
		})
	}
}

// What a command leaves running on purpose, a server for instance, is its own
// business.
func TestWhatACommandLeavesRunningIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	if err := perform(t, t.Context(), "run sleep 40 >/dev/null 2>&1 & echo $! > "+file, Machine{}); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, file)
	defer syscall.Kill(pid, syscall.SIGKILL)
	if !alive(pid) {
		t.Error("it was ended")
	}
}

func TestACommandFromAFileThatOthersMayWriteIsNotRun(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "certsitter.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(file, linked); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, folder os.FileMode
		want         string
	}{
		"ours alone":           {0o600, 0o700, ""},
		"read by all":          {0o644, 0o755, ""},
		"written by the group": {0o664, 0o755, "may be written by its group"},
		"written by all":       {0o646, 0o755, "may be written by everybody"},
		"in a group's folder":  {0o644, 0o775, "folder " + folder + " may be written by its group"},
		"in all's folder":      {0o644, 0o757, "folder " + folder + " may be written by everybody"},
		"in a folder as /tmp":  {0o644, 0o777 | os.ModeSticky, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.Chmod(file, c.file), os.Chmod(folder, c.folder)); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{file, linked} {
				trace := filepath.Join(t.TempDir(), "trace")
				err := perform(t, t.Context(), "run touch "+trace, Machine{ConfigFile: path})
				_, missing := os.Stat(trace)
				if c.want == "" {
					if err != nil || missing != nil {
						t.Errorf("%s: %v, %v", path, err, missing)
					}
					continue
				}
				says(t, err, "commands are not run", c.want)
				if missing == nil {
					t.Error("it was run all the same")
				}
			}
		})
	}
	says(t, perform(t, t.Context(), "run true", Machine{ConfigFile: filepath.Join(folder, "none.yaml")}), "commands are not run", "no such file")
}

func TestACommandFromAnotherUsersFileIsNotRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "certsitter.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	us := os.Geteuid()
	if us == 0 {
		if err := os.Chown(file, 12345, -1); err != nil {
			t.Skip(err) // a container that knows no other user
		}
		says(t, perform(t, t.Context(), "run true", Machine{ConfigFile: file}), "belongs to another user (id 12345)")
		return
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if why := writableByOthers(info, us+1); !strings.Contains(why, "belongs to another user") {
		t.Errorf("got %q", why)
	}
}

func TestAShellThatCannotBeStarted(t *testing.T) {
	_, err := program{path: filepath.Join(t.TempDir(), "none")}.run(t.Context())
	says(t, err, "no such file")
	if _, wrapped := errors.AsType[*exec.Error](err); wrapped {
		t.Errorf("got %v", err)
	}
}
