package store

import "testing"

// What the daemon asks each time it looks at a certificate.
func BenchmarkCurrent(b *testing.B) {
	for _, keyType := range []string{"ec256", "rsa4096"} {
		b.Run(keyType, func(b *testing.B) {
			s, ca := open(b, b.TempDir()), newCA(b, "Test")
			w := want("home.example.org")
			w.KeyType = keyType
			for range keepVersions {
				obtain(b, s, ca, "home", w, start)
			}
			for b.Loop() {
				if _, ok, err := s.Current("home"); !ok || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
