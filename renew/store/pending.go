package store

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// A Want is what a new certificate is to be like.
type Want struct {
	Names     []string // DNS names, wildcards, IP addresses; the first DNS name becomes the common name
	KeyType   string   // ec256 ec384 rsa2048 rsa3072 rsa4096
	Profile   string
	Directory string // URL of the CA's directory
	EABKid    string
	ReuseKey  bool // take the current version's key, if it is of KeyType
	Staging   bool // Directory is a public CA's staging environment
}

// A Pending is an order that is being prepared or under way.
type Pending struct {
	Key        []byte // PEM, PKCS#8
	CSR        []byte // DER
	Names      []string
	KeyType    string
	Profile    string
	Directory  string
	EABKid     string
	AccountURL string // empty until the order is placed
	OrderURL   string // empty until the order is placed
	Staging    bool
	MadeAt     time.Time

	reused bool // the key is an older version's
}

// order is order.json.
type order struct {
	Format     int       `json:"format"`
	Names      []string  `json:"names"`
	KeyType    string    `json:"key_type"`
	Profile    string    `json:"profile,omitempty"`
	Directory  string    `json:"directory"`
	EABKid     string    `json:"eab_kid,omitempty"`
	AccountURL string    `json:"account_url,omitempty"`
	OrderURL   string    `json:"order_url,omitempty"`
	Staging    bool      `json:"staging,omitempty"`
	Reused     bool      `json:"reused_key,omitempty"`
	MadeAt     time.Time `json:"made_at"`
}

const (
	csrFile   = "csr.pem"
	orderFile = "order.json"
)

func parseOrder(data []byte) (order, error) {
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		return order{}, err
	}
	if o.Format > format {
		return order{}, ErrNewer
	}
	if len(o.Names) == 0 {
		return order{}, errors.New("it names nothing")
	}
	return o, nil
}

func (s *Store) pendingFolder(name string) string { return filepath.Join(s.folder(name), "pending") }

// Pending returns the order that is being prepared or under way, if there is
// one. One that is broken is an error, and replaced by the next Prepare.
func (s *Store) Pending(name string) (Pending, bool, error) {
	if err := checkName(name); err != nil {
		return Pending{}, false, err
	}
	p, err := s.readPending(name)
	if errors.Is(err, fs.ErrNotExist) {
		if there, _ := exists(s.pendingFolder(name)); !there {
			return Pending{}, false, nil
		}
	}
	if err != nil {
		return Pending{}, false, fmt.Errorf("read pending order of %s: %w", name, err)
	}
	return p, true, nil
}

func (s *Store) readPending(name string) (Pending, error) {
	folder := s.pendingFolder(name)
	data, _, err := read(filepath.Join(folder, orderFile))
	if err != nil {
		return Pending{}, err
	}
	o, err := parseOrder(data)
	if err != nil {
		return Pending{}, fmt.Errorf("%s: %w", orderFile, err)
	}
	key, _, err := read(filepath.Join(folder, keyFile))
	if err != nil {
		return Pending{}, err
	}
	request, _, err := read(filepath.Join(folder, csrFile))
	if err != nil {
		return Pending{}, err
	}
	block, _ := pem.Decode(request)
	if block == nil {
		return Pending{}, fmt.Errorf("%s: no certificate request", csrFile)
	}
	if err := checkCSR(block.Bytes, key, o.Names); err != nil {
		return Pending{}, fmt.Errorf("%s: %w", csrFile, err)
	}
	return Pending{
		Key: key, CSR: block.Bytes, Names: o.Names, KeyType: o.KeyType, Profile: o.Profile, Directory: o.Directory, EABKid: o.EABKid,
		AccountURL: o.AccountURL, OrderURL: o.OrderURL, Staging: o.Staging, MadeAt: o.MadeAt, reused: o.Reused,
	}, nil
}

func (p Pending) order() order {
	return order{
		Format: format, Names: p.Names, KeyType: p.KeyType, Profile: p.Profile, Directory: p.Directory, EABKid: p.EABKid,
		AccountURL: p.AccountURL, OrderURL: p.OrderURL, Staging: p.Staging, Reused: p.reused, MadeAt: p.MadeAt,
	}
}

// spent reports whether one of the versions came from this order.
func (p Pending) spent(all []stored) bool {
	for _, v := range all {
		if p.OrderURL != "" && p.OrderURL == v.OrderURL {
			return true
		}
		// The CA may have told no order URL; a key of its own tells as well.
		if !p.reused && sameKey(p.Key, v.bundle.Key) {
			return true
		}
	}
	return false
}

// fits reports whether the order is what is wanted now.
func (p Pending) fits(w Want, currentKey []byte) bool {
	return nameSet(p.Names) == nameSet(w.Names) && p.KeyType == w.KeyType && p.Profile == w.Profile &&
		p.Directory == w.Directory && p.EABKid == w.EABKid && p.Staging == w.Staging &&
		p.reused == (w.ReuseKey && currentKey != nil) && (!p.reused || sameKey(p.Key, currentKey))
}

// Prepare returns a pending order with key and request, both on the disk. One
// that is there and is what is wanted is taken up again, with its OrderURL;
// any other is dropped.
func (s *Store) Prepare(name string, want Want) (Pending, error) {
	if err := checkName(name); err != nil {
		return Pending{}, err
	}
	defer s.gates.lock(name)()
	all, _ := s.load(name) // a broken version does not keep a new one out
	var currentKey []byte
	if len(all) > 0 {
		if c := s.current(name, all); c.KeyType == want.KeyType {
			currentKey = c.bundle.Key
		}
	}
	if p, err := s.readPending(name); err == nil && p.fits(want, currentKey) && !p.spent(all) {
		return p, nil
	}
	if err := s.disk.discard(s.pendingFolder(name)); err != nil {
		return Pending{}, fmt.Errorf("drop order of %s: %w", name, err)
	}
	p, err := newPending(want, currentKey, s.now())
	if err != nil {
		return Pending{}, fmt.Errorf("prepare order of %s: %w", name, err)
	}
	if err := s.writePending(name, p); err != nil {
		return Pending{}, fmt.Errorf("prepare order of %s: %w", name, err)
	}
	return p, nil
}

func newPending(w Want, currentKey []byte, now time.Time) (Pending, error) {
	p := Pending{
		Names: w.Names, KeyType: w.KeyType, Profile: w.Profile, Directory: w.Directory, EABKid: w.EABKid, Staging: w.Staging,
		MadeAt: now.UTC().Truncate(time.Second), reused: w.ReuseKey && currentKey != nil,
	}
	if len(w.Names) == 0 {
		return Pending{}, errors.New("an order needs a name")
	}
	var err error
	p.Key = currentKey
	if !p.reused {
		if p.Key, err = NewKey(w.KeyType); err != nil {
			return Pending{}, err
		}
	}
	p.CSR, err = newCSR(p.Key, w.Names)
	return p, err
}

func (s *Store) writePending(name string, p Pending) error {
	if err := s.makeFolder(name); err != nil {
		return err
	}
	about, err := json.MarshalIndent(p.order(), "", "\t")
	if err != nil {
		return err
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: p.CSR})
	return s.disk.folder(s.pendingFolder(name), []document{{keyFile, p.Key}, {csrFile, request}, {orderFile, about}})
}

// Placed notes the account and the order's URL as soon as the CA has told them.
func (s *Store) Placed(name, accountURL, orderURL string) error {
	return s.change(name, func(p *Pending) { p.AccountURL, p.OrderURL = accountURL, orderURL })
}

// DropOrder forgets the order's URL; key and request stay for the next order.
func (s *Store) DropOrder(name string) error {
	return s.change(name, func(p *Pending) { p.OrderURL = "" })
}

func (s *Store) change(name string, edit func(*Pending)) error {
	if err := checkName(name); err != nil {
		return err
	}
	defer s.gates.lock(name)()
	p, err := s.readPending(name)
	if err != nil {
		return fmt.Errorf("read pending order of %s: %w", name, err)
	}
	edit(&p)
	about, err := json.MarshalIndent(p.order(), "", "\t")
	if err != nil {
		return err
	}
	if err := s.disk.replace(filepath.Join(s.pendingFolder(name), orderFile), about); err != nil {
		return fmt.Errorf("note order of %s: %w", name, err)
	}
	return nil
}

// Drop removes the pending order and its key; if there is none, nothing.
func (s *Store) Drop(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	defer s.gates.lock(name)()
	if err := s.disk.discard(s.pendingFolder(name)); err != nil {
		return fmt.Errorf("drop order of %s: %w", name, err)
	}
	return nil
}
