package service

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/certsitter/certsitter/cmd/internal/sitter"
)

// The keystore of openHAB's package: its folder and owner.
const (
	openhabFolder = "/var/lib/openhab/etc"
	openhabID     = 9001 // user and group
	keystorePath  = openhabFolder + "/keystore"
)

// openHAB's own HTTPS port: Java made the keystore and serves from it, Certsitter
// puts the certificate into it under the unit's restrictions and sees it served.
func TestKeystoreServedByJavaUnderTheUnit(t *testing.T) {
	if !machine(t) {
		return
	}
	for _, program := range []string{"javac", "keytool"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	server := "/run/KeystoreServer.java"
	source := read(t, "testdata/KeystoreServer.java")
	furnish(t)
	write(t, server, source, 0o644)
	h := newHome(t)
	sh(t, "mkdir -p "+openhabFolder)
	keytool := "keytool -J-Xshare:auto -keystore " + keystorePath + " -storepass openhab "
	sh(t, keytool+"-genkeypair -alias mykey -keyalg EC -groupname secp256r1 -dname CN=openhab.org -validity 3650 -storetype JKS -keypass openhab 2>&1")
	sh(t, keytool+"-importcert -noprompt -alias clientca -file /etc/certsitter/ca.pem 2>&1")
	sh(t, fmt.Sprintf("chmod 0640 %s; chown -R %d:%d /var/lib/openhab", keystorePath, openhabID, openhabID))
	java := start(t, "java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", server, keystorePath, "openhab", "8443")
	java.eventually(t, "Java serves", func() bool { return strings.Contains(java.out.String(), "serving") })
	if chain := servedAt("127.0.0.1:8443", domain); len(chain) != 1 || h.trusts(chain) {
		t.Fatalf("served before: %d certificates", len(chain))
	}
	h.configure(t, `certificates:
  - name: openhab
    domains: [`+domain+`]
    keystore: `+keystorePath+`
    endpoints: ["`+domain+`@127.0.0.1:8443"]
`)
	d := startUnit(t, mainUnit)
	for n := 1; n <= 2; n++ {
		d.eventually(t, fmt.Sprintf("certificate %d is served", n), func() bool { return h.count("deployed") == n })
		chain := servedAt("127.0.0.1:8443", domain)
		if len(chain) < 2 || !h.trusts(chain) {
			t.Fatalf("round %d: %d certificates are served, which must be a trusted full chain", n, len(chain))
		}
		print := sha256.Sum256(chain[0].Raw)
		if got := h.status(t); got.Print != hex.EncodeToString(print[:]) || got.NotDeployed {
			t.Errorf("round %d: served is another one than Certsitter's: %+v", n, got)
		}
		info, err := os.Stat(keystorePath)
		check(t, err)
		if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o640 || st.Uid != openhabID || st.Gid != openhabID {
			t.Errorf("round %d: the keystore is %v of %d:%d", n, info.Mode(), st.Uid, st.Gid)
		}
		if n == 1 {
			d.eventually(t, "nobody is doing anything", func() bool { return !h.status(t).Renewing })
			if said, err := certsitter(t, "renew", "openhab", "--force"); err != nil {
				t.Fatalf("certsitter renew: %v: %s", err, said)
			}
		}
	}
	if list := sh(t, keytool+"-list 2>&1"); !strings.Contains(list, "clientca") || !strings.Contains(list, "contains 2 entries") {
		t.Errorf("the other entry is gone:\n%s", list)
	}
	left, err := fs.Glob(os.DirFS(openhabFolder), "*")
	if err != nil || strings.Join(left, " ") != "keystore keystore.certsitter-old" {
		t.Errorf("in openHAB's folder: %v %v", left, err)
	}
}

// Keystores that cannot be taken over: said before anything is ordered, and left
// as they are.
func TestKeystoreRefused(t *testing.T) {
	if !machine(t) {
		return
	}
	if _, err := exec.LookPath("keytool"); err != nil {
		t.Skip("keytool is not installed")
	}
	furnish(t)
	h := newHome(t)
	sh(t, "mkdir -p "+openhabFolder)
	keytool := "keytool -J-Xshare:auto -keystore " + keystorePath + " -keyalg EC -dname CN=openhab.org "
	h.configure(t, `certificates:
  - name: openhab
    domains: [`+domain+`]
    keystore: `+keystorePath+`
`)
	for name, c := range map[string]struct{ make, says string }{
		"another password": {keytool + "-genkeypair -alias mykey -storetype JKS -storepass another -keypass another 2>&1", "keystore_password does not open it"},
		"PKCS#12 with others": {keytool + "-genkeypair -alias mykey -storetype PKCS12 -storepass openhab 2>&1; " +
			keytool + "-genkeypair -alias other -storepass openhab 2>&1", "other entries than mykey"},
		"mounted alone": {keytool + "-genkeypair -alias mykey -storetype JKS -storepass openhab -keypass openhab 2>&1; " +
			"mount --bind " + keystorePath + " " + keystorePath, "mounted as a single file"},
		"no keystore": {"echo garbage > " + keystorePath, "no Java keystore"},
	} {
		sh(t, "! mountpoint -q "+keystorePath+" || umount "+keystorePath+"; rm -rf /var/lib/certsitter "+keystorePath)
		sh(t, c.make)
		before := read(t, keystorePath)
		d := startUnit(t, mainUnit)
		d.eventually(t, name+" is said", func() bool {
			now := h.status(t)
			return strings.Contains(now.LastResult, "the keystore could not be installed") &&
				slices.ContainsFunc(now.Problems, func(p sitter.Problem) bool { return strings.Contains(p.Advice, c.says) })
		})
		d.stop(t)
		if read(t, keystorePath) != before {
			t.Errorf("%s: the keystore has changed", name)
		}
	}
	if n := h.ca.Orders(); n != 0 {
		t.Errorf("%d orders were placed", n)
	}
}
