package store

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certsitter/certsitter/expiry"
	"github.com/certsitter/certsitter/renew"
)

// again writes a document and reads it back: nothing may get lost on the way.
func again[T any](t *testing.T, first T, parse func([]byte) (T, error)) {
	t.Helper()
	data, err := json.Marshal(first)
	if err != nil {
		return // a date beyond the year 9999
	}
	second, err := parse(data)
	if err != nil {
		t.Fatalf("cannot read what was written: %v: %s", err, data)
	}
	if twice, err := json.Marshal(second); err != nil || string(twice) != string(data) {
		t.Errorf("%s became %s, %v", data, twice, err)
	}
}

func seed(f *testing.F, documents ...any) {
	for _, d := range documents {
		data, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range []string{"", "{}", "null", "[]", `{"format":2}`, `{"format":-1}`, `{"id":"../v0001"}`, `{"names":null}`, "\x00"} {
		f.Add([]byte(text))
	}
}

func FuzzMeta(f *testing.F) {
	seed(f, meta{Format: 1, Version: renew.Version{ID: "v0001", Names: []string{"a.example"}, NotBefore: start, NotAfter: start.Add(day), StoredAt: start, KeyType: "ec256"}, OrderURL: "https://ca.example/1"})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMeta(data)
		if err != nil {
			if !reflect.DeepEqual(m, meta{}) {
				t.Errorf("refused and returned: %+v", m)
			}
			return
		}
		if m.Format > format || versionNumber(m.ID) == 0 || strings.ContainsAny(m.ID, "/.") {
			t.Errorf("accepted %+v", m)
		}
		again(t, m, parseMeta)
	})
}

func FuzzOrder(f *testing.F) {
	seed(f, order{Format: 1, Names: []string{"a.example", "192.0.2.1"}, KeyType: "rsa2048", Directory: directory, OrderURL: "https://ca.example/1", Reused: true, MadeAt: start})
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseOrder(data)
		if err != nil {
			return
		}
		if o.Format > format || len(o.Names) == 0 {
			t.Errorf("accepted %+v", o)
		}
		again(t, o, parseOrder)
	})
}

func FuzzLedger(f *testing.F) {
	one := issuance{Names: "a.example", Directory: directory, Fingerprint: "00ff", At: start}
	seed(f, ledger{Format: 1, Issuances: []issuance{one}})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLedger(data)
		if err != nil {
			return
		}
		again(t, l, parseLedger)
		grown := l.with(one)
		last := grown.Issuances[len(grown.Issuances)-1]
		if last != one || len(grown.Issuances) > len(l.Issuances)+1 {
			t.Errorf("%+v", grown)
		}
		for _, i := range grown.Issuances {
			if one.At.Sub(i.At) >= keepIssuances {
				t.Errorf("kept one of %v", i.At)
			}
		}
	})
}

func FuzzIntent(f *testing.F) {
	seed(f,
		intent{Format: 1, Version: "v0002", Cert: "/ssl/fullchain.pem", Key: "/ssl/privkey.pem", Temps: []string{"/ssl/.privkey.pem.certsitter-new"}},
		intent{Format: 1, Version: "v0002", Temps: []string{"/etc/passwd"}},
		intent{Format: 1, Version: "v0002", Temps: []string{".x.certsitter-new"}},
	)
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := parseIntent(data)
		if err != nil {
			if len(in.Temps) > 0 {
				t.Errorf("refused, and would remove %v", in.Temps)
			}
			return
		}
		for _, path := range in.Temps {
			if base := filepath.Base(path); !filepath.IsAbs(path) || !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, newSuffix) {
				t.Errorf("would remove %q", path)
			}
		}
		again(t, in, parseIntent)
	})
}

func FuzzAccount(f *testing.F) {
	seed(f, account{Format: 1, Directory: directory, EABKid: "kid", URL: "https://ca.example/account/1"})
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := parseAccount(data); err == nil {
			again(t, a, parseAccount)
		}
	})
}

// FuzzKeystore: a damaged keystore is refused, at once and without harm.
func FuzzKeystore(f *testing.F) {
	ca := newCA(f, "Test")
	key, chain := ca.pair(f, start, "home.example.org")
	c, err := expiry.Parse(chain)
	if err != nil {
		f.Fatal(err)
	}
	p := bundleOf(key, c)
	good, err := keystoreForm(nil, p, "openhab", start)
	if err != nil {
		f.Fatal(err)
	}
	body := func(data []byte) []byte { return data[:len(data)-sha1.Size] }
	f.Add(body(good.data), true)
	f.Add(good.data, false)
	f.Add(body(good.data)[:len(good.data)/2], true)
	f.Add([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x01"), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed { // with the sum that the format asks for, so that the rest is looked at
			h := sha1.New()
			h.Write([]byte("\x00o\x00p\x00e\x00n\x00h\x00a\x00bMighty Aphrodite"))
			h.Write(data)
			data = h.Sum(bytes.Clone(data))
		}
		if len(data) > 0 && data[0] == derSequence {
			return // PKCS#12, whose passwords take time; expiry has its own test of that
		}
		form, err := keystoreForm(data, p, "openhab", time.Unix(0, 0))
		if err != nil {
			return
		}
		ks, err := readKeystore(form.data, "openhab")
		if err != nil {
			t.Fatal(err)
		}
		if have, _, ok := entryOf(ks, "openhab"); !ok || !sameBundle(have, p) {
			t.Error("the entry is not ours")
		}
	})
}
