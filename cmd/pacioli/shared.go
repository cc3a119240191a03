package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/render"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// Policies of shared accounts, and how an account changes its own. A policy file (.policy) collects what has to be there before a
// change of policy can be built: a proof by each new key that somebody holds it.

func (c *cli) accountPolicy() *cobra.Command {
	policy := &cobra.Command{
		Use: "policy", Short: "Make policy files, and collect the proofs of their keys", Args: commandsOnly,
		Long: `Make policy files, and collect the proofs of their keys. A new account needs no proofs: account add takes the file as it is. An
account that is to change to the policy needs one of each key, made for this account: name it with --for, pass the file (or
copies, which merge puts together) to everybody, and give it to account set-policy.`,
		Example: `  pacioli account policy new --for board --threshold 2 --key alice --key ed25519:HEX --out next.policy
  pacioli account policy prove next.policy --key alice
  pacioli account set-policy --from board --policy next.policy --sequence --out change.tx`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	policy.AddCommand(c.policyNew(), c.policyProve(), c.policyMerge(), c.policyShow())
	return policy
}

// policyResult is a policy file as results show it.
type policyResult struct {
	File       string         `json:"file"`
	PolicyHash crypto.Hash    `json:"policy_hash"`
	Address    crypto.Address `json:"address"` // of the account that begins with it
	Threshold  uint32         `json:"threshold"`
	guardView
	Keys     []provenKey     `json:"keys"`
	For      *crypto.Address `json:"for,omitempty"` // the account that is to have it
	Version  uint32          `json:"policy_version,omitempty"`
	Recovery bool            `json:"for_recovery,omitempty"`
	Complete bool            `json:"complete"` // every key has proven that it is there
	said     string
	names    map[crypto.Address]string
}

type provenKey struct {
	keyView
	Proven bool `json:"proven"`
}

func (c *cli) policyResult(file string, f *client.PolicyFile) (policyResult, error) {
	r := policyResult{File: file, PolicyHash: f.Policy.Hash(), Address: f.Policy.Address(), Threshold: f.Policy.Threshold, guardView: newGuardView(f.Policy), names: c.names(),
		Complete: len(f.Missing()) == 0}
	for i, k := range keyViews(f.Policy) {
		r.Keys = append(r.Keys, provenKey{k, f.Proofs[i] != nil})
	}
	if f.For != nil {
		r.For, r.Version, r.Recovery = &f.For.Account, f.For.Version, f.For.Version == ledger.RecoveryVersion
	}
	var err error
	r.said, err = render.Policy(f.Policy, r.names)
	return r, err
}

func (r policyResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s\n", r.said)
	if r.For == nil {
		fmt.Fprintf(w, "address\t%s, of the account that begins with it\n", r.Address)
	} else {
		what := fmt.Sprintf("as version %d", r.Version)
		if r.Recovery {
			what = "by a recovery"
		}
		fmt.Fprintf(w, "for\t%s, %s\n", named(*r.For, r.names[*r.For]), what)
		for i, k := range r.Keys {
			state := "missing"
			if k.Proven {
				state = "there"
			}
			fmt.Fprintf(w, "proof\tof key %d, %s %s: %s\n", i, k.Scheme, short(k.PublicKey), state)
		}
	}
	fmt.Fprintf(w, "file\t%s\n", r.File)
}

func (c *cli) writePolicy(path string, f *client.PolicyFile) error {
	r, err := c.policyResult(path, f)
	if err != nil {
		return err
	}
	content, err := f.Encode(r)
	if err != nil {
		return err
	}
	if err := writeFile(path, content); err != nil {
		return err
	}
	return c.print(r, r.text)
}

// policyKeys reads NAME or SCHEME:HEX, with *WEIGHT behind it. A name stands for all keys of its file.
func (c *cli) policyKeys(text string) ([]crypto.Key, error) {
	what, weightText, weighted := strings.Cut(text, "*")
	weight := uint64(1)
	if weighted {
		var err error
		if weight, err = strconv.ParseUint(weightText, 10, 32); err != nil || weight < 1 || weight > crypto.MaxKeyWeight {
			return nil, usage("--key %q: the weight is %q, want 1 to %d", text, weightText, crypto.MaxKeyWeight)
		}
	}
	if scheme, digits, ok := strings.Cut(what, ":"); ok {
		s, err := crypto.ParseScheme(scheme)
		if err != nil {
			return nil, usage("--key %q: %w", text, err)
		}
		public, err := hex.DecodeString(digits)
		if err != nil {
			return nil, usage("--key %q: the public key is no hex: %w", text, err)
		}
		if err := crypto.CheckPublicKey(s, public); err != nil {
			return nil, usage("--key %q: %w", text, err)
		}
		return []crypto.Key{{Scheme: s, Public: public, Weight: uint32(weight)}}, nil
	}
	k, err := c.key(what)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	var keys []crypto.Key
	for _, key := range k.Policy.Keys {
		key.Weight = uint32(weight)
		keys = append(keys, key)
	}
	return keys, nil
}

func (c *cli) policyNew() *cobra.Command {
	var keys []string
	var threshold, change uint32
	var recovery, account, out string
	var delay time.Duration
	var forRecovery bool
	cmd := &cobra.Command{
		Use: "new --threshold N --key NAME|SCHEME:HEX[*WEIGHT] ... --out FILE", Short: "Make a policy file", Args: args(),
		Long: `Make a policy file: whose keys, with which weights, act for an account. --threshold is the weight that pays, --change-threshold
the one that changes the policy and closes the account. --recovery names an account that may put another policy in force when
keys are lost: it announces it, and the account's keys have --recovery-delay to cancel.

--key takes a key of this home, or a public key as keys show prints it; with *WEIGHT it weighs more than 1. The name of a hybrid
key stands for both of its keys, each with the weight. With --for the file is for an account that has another policy, or with
--for-recovery for one that is to be recovered: the proofs are made for it.

JSON: file, policy_hash, address, threshold, change_threshold, recovery_account, recovery_delay_seconds, keys, for, policy_version, complete.`,
		Example: `  pacioli account policy new --threshold 2 --change-threshold 3 --key alice --key ed25519:HEX --key secp256k1:HEX*2 --out board.policy
  pacioli account policy new --for board --threshold 1 --key alice --recovery bob --recovery-delay 72h --out next.policy`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			var list []crypto.Key
			for _, text := range keys {
				some, err := c.policyKeys(text)
				if err != nil {
					return err
				}
				list = append(list, some...)
			}
			policy, err := crypto.NewPolicy(threshold, list...)
			if err == nil && change != 0 {
				policy, err = policy.WithChangeThreshold(change)
			}
			if err != nil {
				return usage("policy: %w", err)
			}
			if (recovery == "") != (delay == 0) {
				return usage("--recovery and --recovery-delay belong together")
			}
			if recovery != "" {
				by, err := c.account("--recovery", recovery)
				if err != nil {
					return err
				}
				if delay < 0 || delay%time.Second != 0 || delay > crypto.MaxRecoveryDelay*time.Second {
					return usage("--recovery-delay %s: want whole seconds, 1h to 8760h", delay)
				}
				if policy, err = policy.WithRecovery(by, uint32(delay/time.Second)); err != nil {
					return usage("policy: %w", err)
				}
			}
			if account == "" {
				if forRecovery {
					return usage("--for-recovery needs --for ACCOUNT")
				}
				return c.writePolicy(out, client.NewPolicyFile(policy, nil))
			}
			address, err := c.account("--for", account)
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				who, err := nextPolicy(ctx, b, address, forRecovery)
				if err != nil {
					return err
				}
				return c.writePolicy(out, client.NewPolicyFile(policy, who))
			})
		},
	}
	f := cmd.Flags()
	f.Uint32Var(&threshold, "threshold", 1, "weight of signatures that pays")
	f.Uint32Var(&change, "change-threshold", 0, "weight of signatures that changes the policy (default that of --threshold)")
	f.StringArrayVar(&keys, "key", nil, "NAME or SCHEME:HEX, with *WEIGHT if it is not 1; once for each key")
	f.StringVar(&recovery, "recovery", "", "account that may put another policy in force")
	f.DurationVar(&delay, "recovery-delay", 0, "from the announcement of a recovery to its effect, 1h to 8760h")
	f.StringVar(&account, "for", "", "account that is to change to this policy")
	f.BoolVar(&forRecovery, "for-recovery", false, "the change is to be a recovery of the account")
	f.StringVar(&out, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("key")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// nextPolicy says what proofs of an account's next policy are made for.
func nextPolicy(ctx context.Context, b provenBooks, account crypto.Address, recovery bool) (*client.PolicyFor, error) {
	who := &client.PolicyFor{NetworkID: b.network().ID, Account: account, Version: ledger.RecoveryVersion}
	if recovery {
		return who, nil
	}
	a, err := b.Account(ctx, account, 0)
	if err != nil {
		return nil, err
	}
	who.Version = a.Value.PolicyVersion + 1
	return who, nil
}

func (c *cli) policyProve() *cobra.Command {
	var keys []string
	var out string
	cmd := &cobra.Command{
		Use: "prove FILE --key NAME", Short: "Prove that the keys of a policy file which are in this home are there", Args: args("FILE"),
		Long: `Add the proofs of possession of keys of this home to a policy file that was made with --for. A proof agrees to nothing: it says that
somebody holds the key, for this policy of this account, so that a mistyped key cannot lock the account.

JSON: as account policy new.`,
		Example: "  pacioli account policy prove next.policy --key alice",
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := c.readPolicy(args[0])
			if err != nil {
				return err
			}
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			if out == "" {
				out = args[0]
			}
			if f.For == nil {
				return hinted(fmt.Errorf("%s names no account to make proofs for", args[0]), "pacioli account policy new --for ACCOUNT; a new account needs no proofs")
			}
			added, err := c.prove(f, keys)
			if err != nil {
				return err
			}
			if added == 0 {
				return hinted(fmt.Errorf("%s has nothing to prove in %s", strings.Join(keys, ", "), args[0]), "its keys are not in the policy, or have proven it already")
			}
			return c.writePolicy(out, f)
		},
	}
	cmd.Flags().StringSliceVar(&keys, "key", nil, "NAME[,NAME] of the keys of this home that prove")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: replace FILE)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// prove adds the proofs of keys of this home to a policy file.
func (c *cli) prove(f *client.PolicyFile, keys []string) (added int, err error) {
	store, err := c.keys()
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		signer, err := c.unlock(store, key)
		if err != nil {
			return added, err
		}
		n, err := f.Prove(signer)
		if err != nil {
			return added, err
		}
		added += n
	}
	return added, nil
}

func (c *cli) policyMerge() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "merge FILE FILE... --out FILE", Short: "Put the proofs of copies of one policy file together", Args: atLeast(2, "FILE"),
		Example: "  pacioli account policy merge a.policy b.policy --out both.policy",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := (sendFlags{out: out}).checkOut(); err != nil {
				return err
			}
			f, err := c.readPolicy(args[0])
			if err != nil {
				return err
			}
			for _, path := range args[1:] {
				other, err := c.readPolicy(path)
				if err != nil {
					return err
				}
				if err := f.Merge(other); err != nil {
					return fmt.Errorf("%s and %s do not merge: %w", args[0], path, err)
				}
			}
			return c.writePolicy(out, f)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (c *cli) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show a policy file, and which proofs are there", Args: args("FILE"), Example: "  pacioli account policy show board.policy",
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := c.readPolicy(args[0])
			if err != nil {
				return err
			}
			r, err := c.policyResult(args[0], f)
			if err != nil {
				return err
			}
			return c.print(r, r.text)
		},
	}
}

// provenPolicy makes sure that a policy file has all proofs for an account, and makes those that keys of this home can.
func (c *cli) provenPolicy(ctx context.Context, b provenBooks, path string, account crypto.Address, recovery bool) (*client.PolicyFile, error) {
	f, err := c.readPolicy(path)
	if err != nil {
		return nil, err
	}
	who, err := nextPolicy(ctx, b, account, recovery)
	if err != nil {
		return nil, err
	}
	if f.For == nil {
		f.For = who
	}
	if *f.For != *who {
		return nil, &problem{err: fmt.Errorf("the proofs in %s are for %s and policy version %d, and not for %s and version %d", path, f.For.Account, f.For.Version, account, who.Version),
			name: "other_account", hint: "the policy may have changed since: make the file anew with account policy new --for"}
	}
	infos, err := c.usableKeys()
	if err != nil {
		return nil, err
	}
	var own []string
	for _, k := range infos {
		if slices.ContainsFunc(f.Missing(), func(i int) bool { return indexOfKey(k.Policy, f.Policy.Keys[i]) >= 0 }) {
			own = append(own, k.Name)
		}
	}
	if _, err := c.prove(f, own); err != nil {
		return nil, err
	}
	if missing := f.Missing(); len(missing) > 0 {
		return nil, &problem{err: fmt.Errorf("the policy in %s lacks %d of %d proofs: of key %d and so on", path, len(missing), len(f.Policy.Keys), missing[0]), name: "incomplete",
			hint: "account policy new --for makes a file that account policy prove adds proofs to"}
	}
	return f, nil
}

func (c *cli) accountSetPolicy() *cobra.Command {
	var from, policy string
	var keys []string
	var revoke bool
	var s sendFlags
	cmd := &cobra.Command{
		Use: "set-policy --from ACCOUNT --policy FILE", Short: "Put another policy in force for an account; its address stays", Args: args(),
		Long: `Put another policy in force for an account: its members, their weights and thresholds, who recovers it. It needs signatures of the
weight that changes the present policy, and a proof by each new key, which the policy file collects; those of keys of this home are
made here. Address, balances and history stay; what was signed before and is not in a block yet is dead. With --revoke-grants
every grant that the account has given ends, as it should where old keys may be in wrong hands.

JSON: as pacioli pay, or with --out as tx inspect.`,
		Example: `  pacioli account set-policy --from board --policy next.policy --sequence --out change.tx
  pacioli tx sign change.tx --key alice`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			p, err := c.payer(from, keys)
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
				f, err := c.provenPolicy(ctx, b, policy, p.address, false)
				if err != nil {
					return err
				}
				op := &ledger.SetPolicy{Policy: f.Policy.Encode(), Proofs: f.Proofs, RevokeGrants: revoke}
				return c.perform(ctx, b, request{[]payer{p}, []ledger.Operation{op}, s})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "account whose policy changes: a name of this home, or an address")
	f.StringVar(&policy, "policy", "", "policy file, as account policy new --for writes it")
	f.BoolVar(&revoke, "revoke-grants", false, "end every grant that the account has given")
	keyFlag(f, &keys)
	s.add(cmd)
	_ = cmd.MarkFlagRequired("from")
	_ = cmd.MarkFlagRequired("policy")
	return cmd
}

func (c *cli) accountRecover() *cobra.Command {
	recover := &cobra.Command{
		Use: "recover", Short: "Recover an account whose keys are lost, or stop that", Args: commandsOnly,
		Long: `Recover an account whose keys are lost. Its policy names the account that may do it, and a delay. That account announces another
policy (start), which everybody sees in account show; until the delay is over the account's own keys can cancel it; then the
recovery account puts the policy in force (finish), with a proof by each of its keys.`,
		Example: `  pacioli account policy new --for alice --for-recovery --key alice-new --out new.policy
  pacioli account recover start alice --from bob --policy new.policy
  pacioli account recover finish alice --from bob --policy new.policy`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	step := func(use, short, long, example, by string, policy bool, operation func(ctx context.Context, b provenBooks, account crypto.Address, file string) (ledger.Operation, error)) *cobra.Command {
		var from, file string
		var keys []string
		var s sendFlags
		cmd := &cobra.Command{
			Use: use, Short: short, Args: args("ACCOUNT"), Long: long + "\n\nJSON: as pacioli pay, or with --out as tx inspect.", Example: example,
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := s.check(); err != nil {
					return err
				}
				account, err := c.account("ACCOUNT", args[0])
				if err != nil {
					return err
				}
				p, err := c.payer(from, keys)
				if err != nil {
					return err
				}
				return c.online(cmd.Context(), s, func(ctx context.Context, b provenBooks) error {
					op, err := operation(ctx, b, account, file)
					if err != nil {
						return err
					}
					return c.perform(ctx, b, request{[]payer{p}, []ledger.Operation{op}, s})
				})
			},
		}
		cmd.Flags().StringVar(&from, "from", "", by)
		keyFlag(cmd.Flags(), &keys)
		if policy {
			cmd.Flags().StringVar(&file, "policy", "", "policy file that the account is to have")
			_ = cmd.MarkFlagRequired("policy")
		}
		s.add(cmd)
		_ = cmd.MarkFlagRequired("from")
		return cmd
	}
	recover.AddCommand(
		step("start ACCOUNT --from RECOVERY --policy FILE", "Announce another policy for an account", `Announce another policy for an account whose policy names --from as its recovery account. From the delay of that policy on it can be
put in force. No proofs are needed yet.`,
			"  pacioli account recover start alice --from bob --policy new.policy", "recovery account of the account's policy", true,
			func(_ context.Context, _ provenBooks, account crypto.Address, file string) (ledger.Operation, error) {
				f, err := c.readPolicy(file)
				if err != nil {
					return nil, err
				}
				return &ledger.StartRecovery{Account: account, PolicyHash: f.Policy.Hash()}, nil
			}),
		step("cancel ACCOUNT --from ACCOUNT", "End a recovery that was announced", `End a recovery that was announced. --from is the account itself, which needs the weight that changes its policy, or its recovery account.`,
			"  pacioli account recover cancel alice --from alice", "the account itself, or its recovery account", false,
			func(_ context.Context, _ provenBooks, account crypto.Address, _ string) (ledger.Operation, error) {
				return &ledger.CancelRecovery{Account: account}, nil
			}),
		step("finish ACCOUNT --from RECOVERY --policy FILE", "Put the announced policy in force", `Put the announced policy in force, once its time has come. The policy file needs a proof of each of its keys (account policy new
--for ACCOUNT --for-recovery, then account policy prove); those of keys of this home are made here. Every grant of the account ends.`,
			"  pacioli account recover finish alice --from bob --policy new.policy", "recovery account of the account's policy", true,
			func(ctx context.Context, b provenBooks, account crypto.Address, file string) (ledger.Operation, error) {
				f, err := c.provenPolicy(ctx, b, file, account, true)
				if err != nil {
					return nil, err
				}
				return &ledger.FinishRecovery{Account: account, Policy: f.Policy.Encode(), Proofs: f.Proofs}, nil
			}),
		c.recoverShow())
	return recover
}

// recoverResult is the recovery of an account as results show it.
type recoverResult struct {
	Address crypto.Address `json:"address"`
	guardView
	Pending *pendingView `json:"recovery_pending,omitempty"`
	Ready   bool         `json:"ready"` // it can be put in force now
	Height  uint64       `json:"height"`
	Time    string       `json:"time"`
}

func (c *cli) recoverShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ACCOUNT", Short: "Show who may recover an account, and whether somebody is at it, proven", Args: args("ACCOUNT"), Example: "  pacioli account recover show alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := c.account("ACCOUNT", args[0])
			if err != nil {
				return err
			}
			return c.online(cmd.Context(), sendFlags{timeout: readTimeout}, func(ctx context.Context, b provenBooks) error {
				a, err := c.showAccount(ctx, b, address, 0)
				if err != nil {
					return err
				}
				r := recoverResult{Address: address, guardView: a.guardView, Pending: a.Pending, Height: a.Height, Time: a.Time}
				if r.Pending != nil {
					ready, readyErr := time.Parse(time.RFC3339, r.Pending.ReadyAt)
					now, nowErr := time.Parse(time.RFC3339Nano, r.Time)
					if err := errors.Join(readyErr, nowErr); err != nil {
						return fmt.Errorf("reading times: %w", err)
					}
					r.Ready = !now.Before(ready)
				}
				return c.print(r, func(w io.Writer) {
					names := c.names()
					fmt.Fprintf(w, "account\t%s\n", named(address, names[address]))
					if by := r.recovery(names); by != "" {
						fmt.Fprintf(w, "recovered by\t%s\n", by)
					} else {
						fmt.Fprintf(w, "recovered by\tnobody: lost keys lose the account\n")
					}
					switch {
					case r.Pending == nil:
						fmt.Fprintf(w, "announced\tnothing\n")
					case r.Ready:
						fmt.Fprintf(w, "announced\tpolicy %s, which can be put in force since %s\n", r.Pending.PolicyHash, r.Pending.ReadyAt)
					default:
						fmt.Fprintf(w, "announced\tpolicy %s, which can be put in force from %s on, and cancelled until it is\n", r.Pending.PolicyHash, r.Pending.ReadyAt)
					}
					fmt.Fprintf(w, "proven\tat height %d\n", r.Height)
				})
			})
		},
	}
}
