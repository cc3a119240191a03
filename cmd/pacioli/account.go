package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// An account and the key that signs for it are two things: the account keeps its address when its policy changes. The
// wallet keeps no record of who signs for whom. The account's proven policy says it: of the keys in this home the one with
// just that policy signs, unless --key names another.

// payer is the account that a command acts for, and what this home knows of its keys.
type payer struct {
	address crypto.Address
	known   []crypto.Policy // of keys and of the address book of this home, that the account may have
	keys    []string        // the keys that sign, when the user has named them
}

func keyFlag(f *pflag.FlagSet, keys *[]string) {
	f.StringSliceVar(keys, "key", nil, "NAME[,NAME] of the keys that sign (default: those of this home that the account's policy asks for)")
}

// payer reads what --from and --key say.
func (c *cli) payer(from string, keys []string) (payer, error) { return c.party("--from", from, keys) }

// party reads which account acts, and with which keys. flag says in errors where the account was given.
func (c *cli) party(flag, account string, keys []string) (payer, error) {
	address, err := c.account(flag, account)
	if err != nil {
		return payer{}, err
	}
	p := payer{address: address, keys: keys}
	for _, key := range keys {
		if _, err := c.key(key); err != nil {
			return p, fmt.Errorf("--key: %w", err)
		}
	}
	p.known, err = c.knownPolicies()
	return p, err
}

// usableKeys lists the keys of this home whose files can be read.
func (c *cli) usableKeys() ([]keystore.Info, error) {
	store, err := c.keys()
	if err != nil {
		return nil, err
	}
	infos, err := store.List()
	return slices.DeleteFunc(infos, func(k keystore.Info) bool { return k.Err != nil }), err
}

// keysFor chooses the keys that sign for an account with a policy: those that were named, else the one with just that
// policy, else all that have a key of it.
func (c *cli) keysFor(p payer, account client.SigningAccount) ([]string, error) {
	if len(p.keys) > 0 {
		return p.keys, nil
	}
	infos, err := c.usableKeys()
	if err != nil {
		return nil, err
	}
	hash := account.Policy.Hash()
	if i := slices.IndexFunc(infos, func(k keystore.Info) bool { return k.Policy.Hash() == hash }); i >= 0 {
		return []string{infos[i].Name}, nil
	}
	var names []string
	for _, k := range infos {
		if slices.ContainsFunc(k.Policy.Keys, func(key crypto.Key) bool { return indexOfKey(account.Policy, key) >= 0 }) {
			names = append(names, k.Name)
		}
	}
	if names == nil {
		return nil, &problem{err: fmt.Errorf("no key of this home signs for %s: its policy has version %d and hash %s", p.address, account.Version, hash), name: "key_not_found",
			hint: "pacioli account show " + p.address.String() + " shows which keys it asks for; --out FILE writes the transaction for others to sign with pacioli tx sign"}
	}
	return names, nil
}

// indexOfKey returns which key of a policy one is, whatever it weighs; -1: none.
func indexOfKey(p crypto.Policy, key crypto.Key) int {
	return slices.IndexFunc(p.Keys, func(k crypto.Key) bool { return k.Scheme == key.Scheme && bytes.Equal(k.Public, key.Public) })
}

func (c *cli) accountCommand() *cobra.Command {
	account := &cobra.Command{
		Use: "account", Short: "Show accounts, share them, and change their keys", Args: commandsOnly,
		Long: `Show accounts, share them, and change their keys. An account has a policy: keys with weights, the weight that pays, and the one
that changes the policy. It keeps its address, its balances and its history when its policy changes.

A shared account begins with a policy file (account policy new), which all members add to their address book (account add);
its address is the policy's hash. What it sends is written to a file (--out), and signed by one member after the other (tx sign).`,
		Example: `  pacioli account show alice
  pacioli account policy new --threshold 2 --key alice --key ed25519:HEX --key ed25519:HEX --out board.policy
  pacioli account add board --policy board.policy
  pacioli pay --from board --to bob 10 PAC --sequence --out 1.tx`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	account.AddCommand(c.accountShow(), c.accountRotate(), c.accountPolicy(), c.accountSetPolicy(), c.accountRecover(), c.accountAdd(), c.accountList(), c.accountRemove(), c.accountOptIn(), c.accountClose())
	return account
}

// accountResult is an account as results show it.
type accountResult struct {
	Address       crypto.Address `json:"address"`
	Name          string         `json:"name,omitempty"`
	Registered    bool           `json:"registered"` // it has signed; before that its policy is the one that its address is the hash of
	Sequence      uint64         `json:"sequence"`
	PolicyVersion uint32         `json:"policy_version"`
	PolicyHash    crypto.Hash    `json:"policy_hash"`
	Threshold     uint32         `json:"threshold,omitempty"` // 0: the policy is not known here
	Keys          []keyView      `json:"keys,omitempty"`
	guardView
	Pending  *pendingView `json:"recovery_pending,omitempty"` // a recovery that was announced
	SignedBy string       `json:"signed_by,omitempty"`        // the key of this home that signs for it alone
	Members  []string     `json:"members,omitempty"`          // keys of this home that are in the policy, where none signs alone
	Closed   bool         `json:"closed"`
	OptIn    bool         `json:"opt_in"`            // lines are opened by the account itself only
	Deposit  string       `json:"deposit,omitempty"` // for its row
	FeeAsset string       `json:"fee_asset,omitempty"`
	Lines    uint64       `json:"lines"`
	Grants   uint64       `json:"grants"` // that it has given
	Assets   uint64       `json:"assets"` // that it has issued
	Height   uint64       `json:"height"`
	Time     string       `json:"time"`
}

// pendingView is a recovery that was announced.
type pendingView struct {
	PolicyHash crypto.Hash `json:"policy_hash"`
	ReadyAt    string      `json:"ready_at"` // RFC 3339: from then on it can be put in force
}

func (r accountResult) text(w io.Writer) {
	fmt.Fprintf(w, "account\t%s\n", named(r.Address, r.Name))
	switch {
	case r.Closed:
		fmt.Fprintf(w, "state\tclosed for ever\n")
	case !r.Registered:
		fmt.Fprintf(w, "state\thas not signed yet\n")
	}
	fmt.Fprintf(w, "sequence\t%d\npolicy\tversion %d, %s\n", r.Sequence, r.PolicyVersion, r.PolicyHash)
	if r.Threshold > 0 {
		fmt.Fprintf(w, "threshold\t%d\n", r.Threshold)
	}
	if r.ChangeThreshold > 0 {
		fmt.Fprintf(w, "to change it\t%d\n", r.ChangeThreshold)
	}
	if by := r.recovery(nil); by != "" {
		fmt.Fprintf(w, "recovered by\t%s\n", by)
	}
	for _, k := range r.Keys {
		fmt.Fprintf(w, "public key\t%s %s, weight %d\n", k.Scheme, short(k.PublicKey), k.Weight)
	}
	if p := r.Pending; p != nil {
		fmt.Fprintf(w, "RECOVERY ANNOUNCED\tpolicy %s can be put in force from %s on\n", p.PolicyHash, p.ReadyAt)
	}
	if r.SignedBy != "" {
		fmt.Fprintf(w, "signed by\tkey %s of this home\n", r.SignedBy)
	}
	if r.Members != nil {
		fmt.Fprintf(w, "signed by\tamong others, of this home: %s\n", strings.Join(r.Members, ", "))
	}
	if r.OptIn {
		fmt.Fprintf(w, "opt-in\tonly the account itself opens lines\n")
	}
	fmt.Fprintf(w, "holds\t%d lines, %d grants given, %d assets issued\n", r.Lines, r.Grants, r.Assets)
	if r.Deposit != "" {
		fmt.Fprintf(w, "deposit\t%s\n", strings.TrimSpace(r.Deposit+" "+r.FeeAsset))
	}
	fmt.Fprintf(w, "proven\tat height %d\n", r.Height)
}

func (c *cli) accountShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME|ADDRESS", Short: "Show an account's policy and which key signs for it, proven", Args: args("NAME|ADDRESS"),
		Example: "  pacioli account show alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := c.account("account", args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				r, err := c.showAccount(ctx, b, address, 0)
				if err != nil {
					return err
				}
				return c.print(r, r.text)
			})
		},
	}
}

// showAccount reads an account; height 0 is the newest.
func (c *cli) showAccount(ctx context.Context, b provenBooks, address crypto.Address, height uint64) (accountResult, error) {
	a, err := b.Account(ctx, address, height)
	if err != nil {
		return accountResult{}, err
	}
	r := accountResult{Address: address, Name: c.names()[address], Registered: a.Present, Sequence: a.Value.Sequence, PolicyVersion: a.Value.PolicyVersion,
		PolicyHash: a.Value.Policy, Height: a.Height, Time: a.Time.UTC().Format(time.RFC3339Nano)}
	r.Closed, r.OptIn = a.Value.Flags&ledger.AccountClosedFlag != 0, a.Value.Flags&ledger.AccountOptIn != 0
	if p := a.Value.Recovery; p != (ledger.Recovery{}) {
		r.Pending = &pendingView{p.Policy, time.Unix(int64(p.ReadyAt), 0).UTC().Format(time.RFC3339)}
	}
	if !a.Value.Deposit.IsZero() {
		r.Deposit = a.Value.Deposit.String()
		if p, err := b.parameters(ctx); err == nil {
			if fee, err := b.asset(ctx, p.FeeAsset); err == nil {
				r.Deposit, r.FeeAsset = a.Value.Deposit.Format(fee.Scale), fee.Code
			}
		}
	}
	row, err := b.Row(ctx, ledger.HoldingsRow(address), a.Height)
	if err != nil {
		return r, err
	}
	if row.Present {
		holdings, err := ledger.DecodeHoldings(row.Value)
		if err != nil {
			return r, err
		}
		r.Lines, r.Grants, r.Assets = holdings.Lines, holdings.Grants, holdings.Assets
	}
	known, err := c.knownPolicies()
	if err != nil {
		return r, err
	}
	policy := crypto.Policy{}
	if i := slices.IndexFunc(known, func(p crypto.Policy) bool { return p.Hash() == a.Value.Policy }); i >= 0 {
		policy = known[i]
	} else if !a.Present {
		return r, nil // only who began it knows the policy
	} else if policy, err = b.Policy(ctx, a.Value.Policy); err != nil {
		return r, err
	}
	r.Threshold, r.Keys, r.guardView = policy.Threshold, keyViews(policy), newGuardView(policy)
	infos, err := c.usableKeys()
	for _, k := range infos {
		if k.Policy.Hash() == a.Value.Policy {
			r.SignedBy, r.Members = k.Name, nil
			break
		}
		if slices.ContainsFunc(k.Policy.Keys, func(key crypto.Key) bool { return indexOfKey(policy, key) >= 0 }) {
			r.Members = append(r.Members, k.Name)
		}
	}
	return r, err
}

func (c *cli) accountRotate() *cobra.Command {
	var from, to string
	var keys []string
	var s sendFlags
	cmd := &cobra.Command{
		Use: "rotate --from KEY|ADDRESS --to-key NEWKEY", Short: "Have another key sign for an account; its address stays", Args: args(),
		Long: `Replace the policy of an account by that of another key of this home, which proves that it is there. Address, balances and
sequence stay; everything that was signed with the old key and is not in a block yet is dead. From then on the new key signs
for the old address: "pay --from" takes the old key's name, while its file is there, or the address.

NEWKEY is also an account of its own, which this does not touch: what is paid to NEWKEY by name goes there. Both keys are
needed, with the same passphrase when it comes from a file or the environment. Keep the old file or note the address;
restoring an old backup of the key restores a key that signs for nothing.

Doing it again when it is done changes nothing. JSON: as pacioli pay, or as pacioli account show when it was done already.`,
		Example: "  pacioli keys new alice-2027 --scheme hybrid\n  pacioli account rotate --from alice --to-key alice-2027\n  pacioli pay --from alice --to bob 1 PAC",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			p, err := c.payer(from, keys)
			if err != nil {
				return err
			}
			next, err := c.key(to)
			if err != nil {
				return fmt.Errorf("--to-key: %w", err)
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				account, err := b.Account(ctx, p.address, 0)
				if err != nil {
					return err
				}
				if account.Value.Policy == next.Policy.Hash() {
					c.say("key %s signs for %s already", to, p.address)
					r, err := c.showAccount(ctx, b, p.address, account.Height)
					if err != nil {
						return err
					}
					return c.print(r, r.text)
				}
				store, err := c.keys()
				if err != nil {
					return err
				}
				passphrase, err := c.passphrase(false)
				if err != nil {
					return err
				}
				signer, err := store.Unlock(to, passphrase)
				if errors.Is(err, keystore.ErrPassphrase) {
					err = fmt.Errorf("--to-key: %w", err)
				}
				if err != nil {
					return err
				}
				op, err := client.NewSetPolicy(b.network().ID, p.address, account.Value.PolicyVersion, signer)
				if err != nil {
					return err
				}
				return c.perform(ctx, b, request{[]payer{p}, []ledger.Operation{op}, s})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "account whose key changes: a key of this home, or an address")
	keyFlag(f, &keys)
	f.StringVar(&to, "to-key", "", "key of this home that signs from then on")
	f.DurationVar(&s.validFor, "valid-for", 0, "after which the transaction is dead (default 5m)")
	s.addPaying(cmd)
	s.addWait(cmd)
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("to-key")
	return cmd
}
