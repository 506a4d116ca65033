package act

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	m := Machine{Systemctl: script(t, "systemctl", `echo "$@" >> `+trace+"\n")}
	for _, action := range []string{"reload haproxy", "restart openhab.service", "reload app@home"} {
		if err := perform(t, t.Context(), action, m); err != nil {
			t.Errorf("%s: %v", action, err)
		}
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	const want = `--no-ask-password --no-pager reload haproxy
--no-ask-password --no-pager restart openhab.service
--no-ask-password --no-pager reload app@home
`
	if string(data) != want {
		t.Errorf("got\n%s", data)
	}
}

// The texts are systemctl's own, of systemd 252.
func TestWhatSystemctlMeans(t *testing.T) {
	for said, c := range map[string]struct {
		code string
		want string
	}{
		"Failed to reload haproxy.service: Unit haproxy.service not found.":                                      {"5", "there is no unit haproxy: systemctl list-units"},
		"haproxy.service is not active, cannot reload.":                                                          {"1", "haproxy is not running"},
		"Failed to reload haproxy.service: Job type reload is not applicable for unit haproxy.service.":          {"1", "write restart haproxy"},
		"Failed to restart haproxy.service: Interactive authentication required.":                                {"1", "polkit rule"},
		"Failed to restart haproxy.service: Access denied":                                                       {"4", "polkit rule"},
		"Failed to restart haproxy.service: Unit haproxy.service is masked.":                                     {"1", "is masked"},
		"System has not been booted with systemd as init system (PID 1). Can't operate.":                         {"1", "there is no systemd"},
		"Job for haproxy.service failed because the control process exited with error code.\nSee \"journalctl\"": {"1", "ended with status 1; journalctl -u haproxy says more: Job for haproxy.service failed"},
	} {
		m := Machine{Systemctl: script(t, "systemctl", "cat >&2 <<'EOF'\n"+said+"\nEOF\nexit "+c.code+"\n")}
		says(t, perform(t, t.Context(), "reload haproxy", m), c.want)
	}
}

func TestARealSystemctlWithoutSystemd(t *testing.T) {
	if _, ok := find("systemctl"); !ok {
		t.Skip("there is no systemctl")
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("there is a systemd, which is not to be disturbed")
	}
	says(t, perform(t, t.Context(), "reload haproxy", Machine{}), "there is no systemd")
}

func TestAUnitThatHangs(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("it did not end within a moment"))
	defer cancel()
	says(t, perform(t, ctx, "restart haproxy", Machine{Systemctl: script(t, "systemctl", "exec sleep 300\n")}), "it did not end within a moment", "systemctl status haproxy")
}

func TestAUnitsNameIsNoOption(t *testing.T) {
	m := Machine{Systemctl: script(t, "systemctl", "exit 0\n")}
	for _, name := range []string{"--user", "a b", "", "a/b", "a\nb", strings.Repeat("a", 256)} {
		if err := unitNamed(t, name, m); err == nil {
			t.Errorf("%q is taken for a unit", name)
		}
	}
}

func unitNamed(t *testing.T, name string, m Machine) error {
	t.Helper()
	a := parsed(t, "reload haproxy")
	a.Argument = name
	return Perform(t.Context(), a, certificate(), m)
}

// nginx makes a configuration of its own and the program that uses it.
func nginx(t *testing.T, directives string) (program, folder string) {
	t.Helper()
	path, ok := find("nginx")
	if !ok {
		t.Skip("there is no nginx")
	}
	folder = t.TempDir()
	writePair(t, folder)
	text := "error_log stderr;\npid " + folder + "/pid;\nevents {}\nhttp {\naccess_log off;\n"
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		text += what + "_temp_path " + folder + "/" + what + ";\n"
	}
	text += "server {\nlisten unix:" + folder + "/s ssl;\nssl_certificate " + folder + "/cert.pem;\nssl_certificate_key " + folder + "/key.pem;\n" + directives + "\n}\n}\n"
	write(t, filepath.Join(folder, "nginx.conf"), text)
	return script(t, "nginx", "exec "+path+" -e stderr -c "+folder+"/nginx.conf \"$@\"\n"), folder
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writePair(t *testing.T, folder string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "home.example.org"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(folder, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

func TestNginxIsAskedBeforeItIsTouched(t *testing.T) {
	for name, c := range map[string]struct {
		directives string
		harm       func(t *testing.T, folder string)
		want       string
	}{
		"good":           {"", nil, ""},
		"mistake":        {"server_nam example.org;", nil, `unknown directive "server_nam"`},
		"no certificate": {"", func(t *testing.T, folder string) { must(t, os.Remove(filepath.Join(folder, "cert.pem"))) }, "cert.pem"},
		"key of another one": {"", func(t *testing.T, folder string) {
			other := t.TempDir()
			writePair(t, other)
			must(t, os.Rename(other+"/key.pem", folder+"/key.pem"))
		}, "key values mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			program, folder := nginx(t, c.directives)
			if c.harm != nil {
				c.harm(t, folder)
			}
			for _, action := range []string{"reload nginx", "restart nginx.service"} {
				trace := filepath.Join(t.TempDir(), "trace")
				err := perform(t, t.Context(), action, Machine{Nginx: program, Systemctl: script(t, "systemctl", "touch "+trace+"\n")})
				_, untouched := os.Stat(trace)
				if c.want == "" {
					if err != nil || untouched != nil {
						t.Errorf("%s: %v, %v", action, err, untouched)
					}
					continue
				}
				says(t, err, "nginx is not touched", c.want)
				if untouched == nil {
					t.Errorf("%s: it was touched", action)
				}
			}
		})
	}
}

func TestNginxThatMayNotReadItsFiles(t *testing.T) {
	m := Machine{Nginx: script(t, "nginx", `echo 'nginx: [emerg] cannot load certificate key "/ssl/privkey.pem": BIO_new_file() failed (SSL: error:8000000D:system library::Permission denied) (13: Permission denied)' >&2; exit 1`+"\n")}
	says(t, perform(t, t.Context(), "reload nginx", m), "run Certsitter as root")
}

func TestNginxThatMayNotWriteItsLogs(t *testing.T) {
	m := Machine{Nginx: script(t, "nginx", `echo 'nginx: [emerg] open() "/srv/log/access.log" failed (30: Read-only file system)' >&2; exit 1`+"\n")}
	says(t, perform(t, t.Context(), "reload nginx", m), "ReadWritePaths=")
}

func TestOtherUnitsAreNotTestedAsNginx(t *testing.T) {
	m := Machine{Nginx: script(t, "nginx", "exit 1\n"), Systemctl: script(t, "systemctl", "exit 0\n")}
	if err := perform(t, t.Context(), "reload nginx-exporter", m); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFindLooksIntoTheFixedPathAlone(t *testing.T) {
	t.Setenv("PATH", filepath.Dir(script(t, "certsitter-test-program", "exit 0\n")))
	if path, ok := find("certsitter-test-program"); ok {
		t.Errorf("found %s", path)
	}
	if _, ok := find("sh"); !ok {
		t.Error("there is no sh")
	}
}
