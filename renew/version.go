package renew

import "time"

// A Version is what is known of one stored certificate. renew/store keeps it
// as meta.json beside the version's files.
type Version struct {
	ID          string    `json:"id"`    // folder name, "v0001"; ascending
	Names       []string  `json:"names"` // of the certificate: DNS names and IP addresses
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	StoredAt    time.Time `json:"stored_at"`             // when we got or adopted it
	Fingerprint string    `json:"fingerprint"`           // SHA-256 of the leaf's DER, lower-case hex
	CertID      string    `json:"cert_id,omitempty"`     // ARI certificate id (RFC 9773 §4.1); empty without an authority key id
	Directory   string    `json:"directory,omitempty"`   // that issued it; empty if adopted
	AccountURL  string    `json:"account_url,omitempty"` // that ordered it; empty if adopted
	EABKid      string    `json:"eab_kid,omitempty"`     // of that account
	KeyType     string    `json:"key_type"`              // ec256 ec384 rsa2048 rsa3072 rsa4096, or what was adopted
	Profile     string    `json:"profile,omitempty"`     // that was asked for
	Staging     bool      `json:"staging,omitempty"`     // issued by a public CA's staging environment
	Adopted     bool      `json:"adopted,omitempty"`     // found at its path, made by somebody else
}

// Lifetime is notAfter − notBefore.
func (v Version) Lifetime() time.Duration { return v.NotAfter.Sub(v.NotBefore) }
