// Package renew decides when a certificate is renewed, remembers how attempts
// went and says why one failed. It is pure: it never asks for the time, reads
// no file and talks to nobody.
package renew
