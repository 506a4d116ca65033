package renew

import "time"

// An OrderRequest asks a CA for one certificate. It is what the worker gets:
// the certificate's private key stays with the daemon, which made the CSR.
type OrderRequest struct {
	Directory  string `json:"directory"`             // URL of the CA's directory (RFC 8555 §7.1.1)
	Roots      []byte `json:"roots,omitempty"`       // PEM with the CA's own TLS roots; empty = the system's
	AccountKey []byte `json:"account_key"`           // PEM, PKCS#8
	AccountURL string `json:"account_url,omitempty"` // empty = register, or find by key
	Email      string `json:"email,omitempty"`       // contact of a new account
	EABKid     string `json:"eab_kid,omitempty"`     // external account binding (RFC 8555 §7.3.4)
	EABHMAC    string `json:"eab_hmac,omitempty"`    // base64url, padded or not

	CSR            []byte   `json:"csr"`                       // DER
	Names          []string `json:"names"`                     // as configured: DNS names, wildcards, IP addresses
	Profile        string   `json:"profile,omitempty"`         // ACME profile, sent as it is
	PreferredChain string   `json:"preferred_chain,omitempty"` // common name of the topmost issuer to prefer
	Replaces       string   `json:"replaces,omitempty"`        // ARI certificate id (RFC 9773 §5) of the one that is replaced
	OrderURL       string   `json:"order_url,omitempty"`       // an order that was cut off and is taken up again

	Challenge string            `json:"challenge"`           // HTTP01, TLSALPN01 or DNS01
	Provider  string            `json:"provider,omitempty"`  // lego's code, with DNS01
	Env       map[string]string `json:"env,omitempty"`       // the provider's variables
	Resolvers []string          `json:"resolvers,omitempty"` // host:port of the name servers for propagation checks; empty = the system's
}

// The types of challenge that Certsitter can answer (RFC 8555 §8, RFC 8737).
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
	DNS01     = "dns-01"
)

// A Challenge is what this machine answers while a name is validated. Only
// HTTP01 and TLSALPN01 are answered by the machine; DNS01 is the worker's own.
type Challenge struct {
	Type             string `json:"type"`
	Name             string `json:"name"` // the identifier, without "*."
	Token            string `json:"token"`
	KeyAuthorization string `json:"key_authorization"`
}

// Issued is a certificate as the CA handed it out.
type Issued struct {
	Chain      []byte `json:"chain"` // PEM, leaf first
	AccountURL string `json:"account_url"`
	OrderURL   string `json:"order_url"`
	Replaced   bool   `json:"replaced,omitempty"` // the CA accepted Replaces
}

// A RevokeRequest asks a CA to revoke a certificate with the account's key.
type RevokeRequest struct {
	Directory   string `json:"directory"`
	Roots       []byte `json:"roots,omitempty"`
	AccountKey  []byte `json:"account_key"`
	AccountURL  string `json:"account_url"`
	Certificate []byte `json:"certificate"` // DER of the leaf
	Reason      uint   `json:"reason"`      // RFC 5280 §5.3.1 code
}

// Progress says what an order is doing, for people who wait.
type Progress struct {
	Step string `json:"step"`           // one of the Step constants
	Name string `json:"name,omitempty"` // the identifier it is about
	Text string `json:"text"`           // one short sentence in plain English
}

// The steps of an order, in their usual sequence. They name where a Problem
// arose, too.
const (
	StepDirectory     = "directory"
	StepAccount       = "account"
	StepOrder         = "order"
	StepAuthorization = "authorization"
	StepPresent       = "present"     // the answer to a challenge is put in place
	StepPropagation   = "propagation" // waiting until the DNS record is seen
	StepChallenge     = "challenge"   // the CA validates
	StepFinalize      = "finalize"
	StepCertificate   = "certificate" // the chain is downloaded
	StepRevoke        = "revoke"
)

// A Problem is one thing that went wrong in an order, as the CA, a DNS provider
// or the network put it.
type Problem struct {
	Step   string `json:"step"`
	Name   string `json:"name,omitempty"`   // the identifier it is about; empty = the whole order
	Type   string `json:"type,omitempty"`   // "urn:ietf:params:acme:error:…" (RFC 8555 §6.7); empty = no ACME problem
	Detail string `json:"detail"`           // the other side's words, or our error's
	Status int    `json:"status,omitempty"` // HTTP status, if there was an answer
}

// A Fault is an attempt that ended without a certificate: what went wrong and
// what the CA said about when to come back. It is an error. Explain turns it
// into a sentence and an advice.
type Fault struct {
	Problems []Problem `json:"problems"`
	// RetryAfter is how long the CA asks us to stay away, counted from the
	// answer's own Date; zero if it did not ask.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	// WholeDirectory: RetryAfter came with a 503 or concerned the account, so
	// it holds for everything that is asked of this directory.
	WholeDirectory bool `json:"whole_directory,omitempty"`
	// OrderGone: the order can not be taken up again (it is invalid, expired or
	// unknown), so the pending one is to be dropped.
	OrderGone bool `json:"order_gone,omitempty"`
	// AccountGone: the CA does not know the account (any more).
	AccountGone bool `json:"account_gone,omitempty"`
	// Date is the last Date header that the CA sent.
	Date time.Time `json:"date,omitzero"`
}

// Error is the first problem's detail and how many more there are.
func (f *Fault) Error() string {
	if len(f.Problems) == 0 {
		return "the attempt failed without a reason"
	}
	p := f.Problems[0]
	if p.Name == "" {
		return p.Step + ": " + p.Detail
	}
	return p.Step + " of " + p.Name + ": " + p.Detail
}
