package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
)

// An Account is what we are at one CA.
type Account struct {
	Key []byte // PEM, PKCS#8
	URL string // empty = not registered yet
}

// account is account.json.
type account struct {
	Format    int    `json:"format"`
	Directory string `json:"directory"`
	EABKid    string `json:"eab_kid,omitempty"`
	URL       string `json:"url,omitempty"`
}

const accountFile = "account.json"

func parseAccount(data []byte) (account, error) {
	var a account
	if err := json.Unmarshal(data, &a); err != nil {
		return account{}, err
	}
	if a.Format > format {
		return account{}, ErrNewer
	}
	return a, nil
}

// accountFolder is named after the CA's host, for people, and a hash of what
// makes the account: the directory's URL and the EAB key id.
func (s *Store) accountFolder(directory, eabKid string) string {
	host := "ca"
	if u, err := url.Parse(directory); err == nil && u.Hostname() != "" {
		host = strings.Map(func(r rune) rune {
			if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", r) {
				return r
			}
			return '_'
		}, strings.ToLower(u.Hostname()))
	}
	sum := sha256.Sum256([]byte(directory + "\n" + eabKid))
	return filepath.Join(s.accounts(), host[:min(len(host), 64)]+"-"+hex.EncodeToString(sum[:8]))
}

// Account returns the account for a CA's directory and an EAB key id (may be
// empty). If there is none its key is made and on the disk on return, so that
// the CA never knows an account whose key is lost.
func (s *Store) Account(directory, eabKid string) (Account, error) {
	folder := s.accountFolder(directory, eabKid)
	defer s.gates.lock(folder)()
	key, _, err := read(filepath.Join(folder, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s.newAccount(folder, account{Format: format, Directory: directory, EABKid: eabKid})
	}
	if err != nil {
		return Account{}, fmt.Errorf("read account key: %w", err)
	}
	if _, err := parseKey(key); err != nil {
		return Account{}, fmt.Errorf("the account key %s is damaged; restore it, or remove the folder to open a new account: %w", filepath.Join(folder, keyFile), err)
	}
	// Without a readable account.json the CA is asked again, by key (RFC 8555 §7.3.1).
	data, _, err := read(filepath.Join(folder, accountFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Account{}, fmt.Errorf("read account: %w", err)
	}
	about, _ := parseAccount(data)
	return Account{Key: key, URL: about.URL}, nil
}

func (s *Store) newAccount(folder string, about account) (Account, error) {
	key, err := NewKey(accountKeyType)
	if err != nil {
		return Account{}, err
	}
	data, err := json.MarshalIndent(about, "", "\t")
	if err != nil {
		return Account{}, err
	}
	// A folder without a key is of no use: what is registered needs its key.
	if err := s.disk.discard(folder); err != nil {
		return Account{}, fmt.Errorf("store account key: %w", err)
	}
	if err := s.disk.folder(folder, []document{{keyFile, key}, {accountFile, data}}); err != nil {
		return Account{}, fmt.Errorf("store account key: %w", err)
	}
	return Account{Key: key}, nil
}

// SetAccountURL notes where the CA keeps the account; "" forgets it, so that
// the CA is asked again.
func (s *Store) SetAccountURL(directory, eabKid, accountURL string) error {
	folder := s.accountFolder(directory, eabKid)
	defer s.gates.lock(folder)()
	data, err := json.MarshalIndent(account{Format: format, Directory: directory, EABKid: eabKid, URL: accountURL}, "", "\t")
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(folder, accountFile), data); err != nil {
		return fmt.Errorf("note account: %w", err)
	}
	return nil
}
