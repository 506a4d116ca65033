// Package directory asks a CA what it says to everybody, without an account:
// its directory (RFC 8555 §7.1.1), its advice on when to renew (RFC 9773), and
// what time it is. It needs net/http and nothing else.
//
// It never places an order, never decides when to renew, and never takes
// garbage for advice: what is not exactly an answer is an error. lego's own
// client takes a CA's error page for "renew now".
package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A Client asks CAs. The zero value works.
type Client struct {
	// HTTP supplies the transport, which is copied for every question; nil is
	// net/http's default one. Its other fields are not used.
	HTTP *http.Client
	// UserAgent is sent with every question (RFC 8555 §6.1); "" = "certsitter".
	UserAgent string
}

// timeout is how long a question may take, connection and answer together.
const timeout = 15 * time.Second

// maxBody is how long an answer may be. Let's Encrypt's are below 2 KiB.
const maxBody = 64 << 10

// A Directory is what a CA says of itself. URLs that are not https are left
// out.
type Directory struct {
	NewNonce    string
	NewAccount  string
	NewOrder    string // never empty
	RevokeCert  string
	KeyChange   string
	RenewalInfo string // "" = the CA gives no advice (RFC 9773 §3)

	TermsOfService string
	Profiles       map[string]string // name → description, empty = the CA has none
	EABRequired    bool              // an external account binding is demanded
	CAAIdentities  []string          // names that a CAA record has to allow (RFC 8659)

	Date time.Time // when the CA said so, by its own clock; zero = it did not say
}

// Directory reads a CA's directory. roots are the PEM of the CA's own TLS roots;
// empty means the system's. An answer that says no is a *StatusError.
func (c *Client) Directory(ctx context.Context, url string, roots []byte) (Directory, error) {
	a, err := c.get(ctx, url, roots)
	if err != nil {
		return Directory{}, fmt.Errorf("read the CA's directory %s: %w", url, err)
	}
	d, err := decodeDirectory(a.body)
	if err != nil {
		return Directory{}, fmt.Errorf("read the CA's directory %s: %w", url, err)
	}
	d.Date = a.date
	return d, nil
}

func decodeDirectory(body []byte) (Directory, error) {
	var answer struct {
		NewNonce    string `json:"newNonce"`
		NewAccount  string `json:"newAccount"`
		NewOrder    string `json:"newOrder"`
		RevokeCert  string `json:"revokeCert"`
		KeyChange   string `json:"keyChange"`
		RenewalInfo string `json:"renewalInfo"`
		Meta        struct {
			TermsOfService string            `json:"termsOfService"`
			Profiles       map[string]string `json:"profiles"`
			EABRequired    bool              `json:"externalAccountRequired"`
			CAAIdentities  []string          `json:"caaIdentities"`
		} `json:"meta"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Directory{}, fmt.Errorf("this is no ACME directory: %w", err)
	}
	d := Directory{
		NewNonce:       secure(answer.NewNonce),
		NewAccount:     secure(answer.NewAccount),
		NewOrder:       secure(answer.NewOrder),
		RevokeCert:     secure(answer.RevokeCert),
		KeyChange:      secure(answer.KeyChange),
		RenewalInfo:    secure(answer.RenewalInfo),
		TermsOfService: answer.Meta.TermsOfService,
		Profiles:       answer.Meta.Profiles,
		EABRequired:    answer.Meta.EABRequired,
		CAAIdentities:  answer.Meta.CAAIdentities,
	}
	if d.NewOrder == "" {
		return Directory{}, fmt.Errorf("this is no ACME directory: it names no place for new orders (newOrder)")
	}
	return d, nil
}

// secure is the URL if it is a complete https one, else "".
func secure(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return ""
	}
	return text
}
