package probe

import (
	"bytes"
	"strings"
	"testing"
)

// wire is a connection whose server has said everything already.
type wire struct {
	*bytes.Reader
	said strings.Builder
}

func (w *wire) Write(p []byte) (int, error) { return w.said.Write(p) }

// FuzzStartTLS feeds every dialogue with whatever a server may say. It ends, reads
// no further than its last answer, and says only what it is meant to.
func FuzzStartTLS(f *testing.F) {
	for _, seed := range []string{
		"220 a\r\n250-b\r\n250 STARTTLS\r\n220 go\r\nx", "* OK\r\n* x\r\na1 OK\r\nx", "+OK\r\n+OK\r\nx", "220-a\r\nb\r\n220 c\r\n234 d\r\nx",
		"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00x", "Sx", "N", "\r\n", "\n", "220\r\n", "\x30\x84\xff\xff\xff\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		for name, s := range schemes {
			if s.upgrade == nil {
				continue
			}
			w := &wire{Reader: bytes.NewReader(said)}
			err := s.upgrade(w)
			read := said[:len(said)-w.Len()]
			if len(read) > 4*(maxLines+1)*(maxLine+2) || w.said.Len() > 100 {
				t.Fatalf("%s reads %d bytes and says %d", name, len(read), w.said.Len())
			}
			if err != nil {
				continue
			}
			switch name {
			case "postgres", "postgresql":
				if string(read) != "S" {
					t.Fatalf("%s agrees to %q", name, read)
				}
			case "ldap":
				if again := s.upgrade(&wire{Reader: bytes.NewReader(read)}); again != nil {
					t.Fatalf("ldap has read too much or too little: %v", again)
				}
			default:
				if !bytes.HasSuffix(read, []byte("\r\n")) {
					t.Fatalf("%s stops in %q", name, read)
				}
				last := bytes.LastIndex(read[:len(read)-2], []byte("\r\n"))
				for cut := last + 2; cut < len(read) && last >= 0; cut++ {
					if s.upgrade(&wire{Reader: bytes.NewReader(read[:cut])}) == nil {
						t.Fatalf("%s agrees before the end of %q", name, read)
					}
				}
			}
		}
	})
}
