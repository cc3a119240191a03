package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
)

// The address book of a home names accounts that are not one key of it: shared ones, with the policy that they began with, and
// other people's. One file each, HOME/accounts/NAME.json.

// contact is an account of the address book.
type contact struct {
	Name    string         `json:"-"`
	Address crypto.Address `json:"address"`
	Policy  []byte         `json:"policy,omitempty"` // that it began with, of which the address is the hash
}

// maxContact bounds a file: a policy is at most 31 kB, in base64.
const maxContact = 64 << 10

var contactName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`) // as of keys: a name stands for one of both

func (c *cli) contactFile(name string) string {
	return filepath.Join(c.home, "accounts", name+".json")
}

// notInBook tells that a key may have a name. A name stands for a key or for an entry of the address book: were it both,
// payments that went to one account would go to another.
func (c *cli) notInBook(name string) error {
	if !contactName.MatchString(name) {
		return nil // which is refused elsewhere
	}
	if _, err := os.Lstat(c.contactFile(name)); err == nil {
		return &problem{err: fmt.Errorf("%q is in the address book already", name), name: "name_taken", hint: "pacioli account remove " + name + ", or choose another name"}
	}
	return nil
}

// contact reads an entry; ok is false when there is none.
func (c *cli) contact(name string) (e contact, ok bool, err error) {
	if !contactName.MatchString(name) {
		return e, false, nil
	}
	path := c.contactFile(name)
	content, err := readFile(path, maxContact)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &e)
	}
	if err != nil {
		return e, false, fmt.Errorf("address book: %s: %w", path, err)
	}
	e.Name = name
	if e.Policy != nil && crypto.DomainAddress.Hash(e.Policy) != crypto.Hash(e.Address) {
		return e, false, fmt.Errorf("address book: %s: the policy is not the one that %s began with", path, e.Address)
	}
	return e, true, nil
}

// contacts reads the address book. Entries that cannot be read are left out, with the first error.
func (c *cli) contacts() (all []contact, bad error) {
	files, err := os.ReadDir(filepath.Join(c.home, "accounts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the address book: %w", err)
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		e, ok, err := c.contact(name)
		if ok {
			all = append(all, e)
		} else if bad == nil {
			bad = err
		}
	}
	return all, bad
}

type contactView struct {
	Name    string         `json:"name"`
	Address crypto.Address `json:"address"`
	Policy  bool           `json:"policy"` // the one that it began with is known here
}

func (c *cli) accountAdd() *cobra.Command {
	var address, policy string
	cmd := &cobra.Command{
		Use: "add NAME --policy FILE | --address ADDRESS", Short: "Name a shared account, or somebody's, in the address book", Args: args("NAME"),
		Long: `Name an account that is not one key of this home. With --policy it is the shared account that begins with this policy: its
address is the policy's hash, nothing has to be sent to open it, and the first transaction that it signs carries the policy. Then
--from NAME acts for it with the keys of this home that are in it. With --address it is somebody's account, shown by this
name beside its address.`,
		Example: "  pacioli account add board --policy board.policy\n  pacioli account add shop --address pac1p...",
		RunE: func(_ *cobra.Command, args []string) error {
			e := contact{Name: args[0]}
			if !contactName.MatchString(e.Name) {
				return usage("NAME %q: want 1 to 64 of a-z, 0-9, _ and -, a letter or digit first", e.Name)
			}
			if (address == "") == (policy == "") {
				return usage("want --policy FILE or --address ADDRESS")
			}
			if _, err := c.key(e.Name); err == nil || !errors.Is(err, keystore.ErrNotFound) {
				return &problem{err: fmt.Errorf("%q is the name of a key of this home", e.Name), name: "name_taken", hint: "choose another name"}
			}
			if err := c.notInBook(e.Name); err != nil {
				return err
			}
			if policy != "" {
				f, err := c.readPolicy(policy)
				if err != nil {
					return err
				}
				e.Address, e.Policy = f.Policy.Address(), f.Policy.Encode()
			} else {
				var err error
				if e.Address, err = crypto.ParseAddress(address); err != nil {
					return usage("--address %q: %w", address, err)
				}
			}
			content, err := json.MarshalIndent(e, "", "  ")
			if err != nil {
				return fmt.Errorf("writing the address book: %w", err)
			}
			if err := os.MkdirAll(filepath.Dir(c.contactFile(e.Name)), 0o700); err != nil {
				return fmt.Errorf("making the address book: %w", err)
			}
			if err := writeFile(c.contactFile(e.Name), append(content, '\n')); err != nil {
				return err
			}
			v := contactView{e.Name, e.Address, e.Policy != nil}
			return c.print(v, func(w io.Writer) { fmt.Fprintf(w, "name\t%s\naddress\t%s\n", v.Name, v.Address) })
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "policy file that the account begins with, as account policy new writes it")
	cmd.Flags().StringVar(&address, "address", "", "address of the account")
	return cmd
}

func (c *cli) accountList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the address book", Args: args(), Example: "  pacioli account list",
		RunE: func(*cobra.Command, []string) error {
			all, err := c.contacts()
			if err != nil {
				return err
			}
			views := []contactView{}
			for _, e := range all {
				views = append(views, contactView{e.Name, e.Address, e.Policy != nil})
			}
			return c.print(map[string]any{"accounts": views}, func(w io.Writer) {
				for _, v := range views {
					fmt.Fprintf(w, "%s\t%s\n", v.Name, v.Address)
				}
			})
		},
	}
}

func (c *cli) accountRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Remove a name from the address book; the account itself stays", Args: args("NAME"), Example: "  pacioli account remove shop",
		Long: `Remove a name from the address book. The account itself stays. Of a shared account that has not signed yet the policy is lost with
the entry, unless the policy file is kept: without it nobody can sign for the account.`,
		RunE: func(_ *cobra.Command, args []string) error {
			e, ok, err := c.contact(args[0])
			if err != nil {
				return err
			}
			if !ok {
				return &problem{err: fmt.Errorf("%q is not in the address book", args[0]), name: "not_found", hint: "pacioli account list shows it"}
			}
			if err := c.confirm(yes, "Remove "+e.Name+"?"); err != nil {
				return err
			}
			if err := os.Remove(c.contactFile(e.Name)); err != nil {
				return fmt.Errorf("removing %s: %w", e.Name, err)
			}
			v := contactView{e.Name, e.Address, e.Policy != nil}
			return c.print(v, func(w io.Writer) { fmt.Fprintf(w, "removed\t%s, %s\n", v.Name, v.Address) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// readPolicy reads a policy file.
func (c *cli) readPolicy(path string) (*client.PolicyFile, error) {
	content, err := readFile(path, client.MaxPolicyFile)
	if err != nil {
		return nil, err
	}
	f, err := client.DecodePolicyFile(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// knownPolicies are those that accounts may have begun with: of keys of this home and of its address book.
func (c *cli) knownPolicies() ([]crypto.Policy, error) {
	var known []crypto.Policy
	infos, err := c.usableKeys()
	if err != nil {
		return nil, err
	}
	for _, k := range infos {
		known = append(known, k.Policy)
	}
	all, err := c.contacts()
	for _, e := range all {
		if e.Policy == nil {
			continue
		}
		p, policyErr := crypto.DecodePolicy(e.Policy)
		if policyErr != nil {
			return nil, fmt.Errorf("address book: %s: %w", e.Name, policyErr)
		}
		known = append(known, p)
	}
	return slices.Clip(known), err
}
