package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pacioli-ledger/pacioli/crypto/keystore"
)

// keyResult is a key as results show it.
type keyResult struct {
	Name      string    `json:"name"`
	Address   string    `json:"address,omitempty"`
	Kind      string    `json:"kind,omitempty"` // as --scheme takes it
	Threshold uint32    `json:"threshold,omitempty"`
	Keys      []keyView `json:"keys,omitempty"`
	Words     string    `json:"words,omitempty"`
	Path      string    `json:"path,omitempty"`
	Error     string    `json:"error,omitempty"`
}

func newKeyResult(k keystore.Info) keyResult {
	if k.Err != nil {
		return keyResult{Name: k.Name, Error: k.Err.Error()}
	}
	return keyResult{Name: k.Name, Address: k.Address.String(), Kind: kind(k.Policy), Threshold: k.Policy.Threshold, Keys: keyViews(k.Policy)}
}

func (r keyResult) text(w io.Writer) {
	fmt.Fprintf(w, "name\t%s\naddress\t%s\nkind\t%s\n", r.Name, r.Address, r.Kind)
	for _, k := range r.Keys {
		fmt.Fprintf(w, "public key\t%s %s\n", k.Scheme, short(k.PublicKey))
	}
	if r.Path != "" {
		fmt.Fprintf(w, "path\t%s\n", r.Path)
	}
	if r.Words != "" {
		fmt.Fprintf(w, "words\t%s\n", r.Words)
	}
}

const schemeHelp = "ed25519, secp256k1, p256-webauthn, ml-dsa-44, ml-dsa-65, or hybrid: ed25519 and ml-dsa-65, both needed"

func (c *cli) keysCommand() *cobra.Command {
	keys := &cobra.Command{
		Use: "keys", Short: "Make, show, back up and recover keys", Args: commandsOnly,
		Long: `Keys are kept encrypted in HOME/keys, one file for each account, readable by their owner only. The passphrase comes from
--passphrase-file, from PACIOLI_PASSPHRASE, or from a prompt. A file and its passphrase, or the 24 words, are the money.`,
		Example: "  pacioli keys new alice --scheme hybrid",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	keys.AddCommand(c.keysNew(), c.keysList(), c.keysShow(), c.keysExport(), c.keysImport(), c.keysRecover(), c.keysDelete())
	return keys
}

func (c *cli) keysNew() *cobra.Command {
	var spec keystore.Spec
	cmd := &cobra.Command{
		Use: "new NAME", Short: "Make a key, and show its 24 words once", Args: args("NAME"),
		Example: "  pacioli keys new alice\n  pacioli keys new vault --scheme hybrid",
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := c.keys()
			if err != nil {
				return err
			}
			passphrase, err := c.passphrase(true)
			if err != nil {
				return err
			}
			if err := c.notInBook(args[0]); err != nil {
				return err
			}
			info, words, err := store.Create(args[0], spec, passphrase)
			if err != nil {
				return err
			}
			r := newKeyResult(info)
			r.Words = words
			c.say("Write the 24 words on paper. They bring the key back without the file, and without the passphrase; whoever has them has the money.")
			return c.print(r, r.text)
		},
	}
	cmd.Flags().StringVar(&spec.Kind, "scheme", "ed25519", schemeHelp)
	cmd.Flags().Uint32Var(&spec.Account, "account", 0, "account number in the derivation path")
	return cmd
}

func (c *cli) keysList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys of this home", Args: args(), Example: "  pacioli keys list --output json",
		RunE: func(*cobra.Command, []string) error {
			store, err := c.keys()
			if err != nil {
				return err
			}
			infos, err := store.List()
			if err != nil {
				return err
			}
			result := struct {
				Keys []keyResult `json:"keys"`
			}{[]keyResult{}}
			for _, k := range infos {
				result.Keys = append(result.Keys, newKeyResult(k))
			}
			return c.print(result, func(w io.Writer) {
				for _, k := range result.Keys {
					if k.Error != "" {
						fmt.Fprintf(w, "%s\tcannot be used: %s\n", k.Name, k.Error)
						continue
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, k.Kind, k.Address)
				}
			})
		},
	}
}

func (c *cli) keysShow() *cobra.Command {
	var words bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a key's address and public keys", Args: args("NAME"),
		Example: "  pacioli keys show alice\n  pacioli keys show alice --words",
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := c.key(args[0])
			if err != nil {
				return err
			}
			r := newKeyResult(info)
			if words {
				store, err := c.keys()
				if err != nil {
					return err
				}
				passphrase, err := c.passphrase(false)
				if err != nil {
					return err
				}
				if r.Words, r.Path, err = store.Words(args[0], passphrase); err != nil {
					return err
				}
			}
			return c.print(r, r.text)
		},
	}
	cmd.Flags().BoolVar(&words, "words", false, "show the 24 words as well; needs the passphrase")
	return cmd
}

func (c *cli) keysExport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "export NAME --out FILE", Short: "Write a key, still encrypted, for another machine", Args: args("NAME"),
		Example: "  pacioli keys export alice --out alice.key",
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := c.keys()
			if err != nil {
				return err
			}
			passphrase, err := c.passphrase(false)
			if err != nil {
				return err
			}
			content, err := store.Export(args[0], passphrase)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(out); err == nil {
				return usage("--out %s exists", out)
			}
			if err := writeFile(out, content); err != nil {
				return err
			}
			result := struct {
				Name string `json:"name"`
				File string `json:"file"`
			}{args[0], out}
			return c.print(result, func(w io.Writer) { fmt.Fprintf(w, "wrote %s, which opens with the passphrase of %s\n", out, args[0]) })
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// maxKeyFile bounds a key file that is read, in bytes; the keystore's own limit is the same.
const maxKeyFile = 1 << 20

func (c *cli) keysImport() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Take over a key that was exported", Args: args("FILE"),
		Long:    "Take over a key that was exported, under the name that it has in the file and with the passphrase that it was exported with.",
		Example: "  pacioli keys import alice.key",
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := c.keys()
			if err != nil {
				return err
			}
			content, err := readFile(args[0], maxKeyFile)
			if err != nil {
				return err
			}
			var file struct {
				Name string `json:"name"`
			}
			if err := json.Unmarshal(content, &file); err == nil { // else Import says what is wrong
				if err := c.notInBook(file.Name); err != nil {
					return err
				}
			}
			passphrase, err := c.passphrase(false)
			if err != nil {
				return err
			}
			info, err := store.Import(content, passphrase)
			if err != nil {
				return err
			}
			r := newKeyResult(info)
			return c.print(r, r.text)
		},
	}
}

func (c *cli) keysRecover() *cobra.Command {
	var spec keystore.Spec
	var extra string
	cmd := &cobra.Command{
		Use: "recover NAME", Short: "Make a key from its 24 words", Args: args("NAME"),
		Long: `Make a key from its 24 words, which are read from standard input. Scheme and account must be those of old, or another
account comes out: compare the address.

The words do not bring back which payment ids were paid: that is remembered in HOME/outbox and HOME/batches. Bring these from a
backup before you pay by id again; without them pay --id and the first pay-batch ask the nodes, which could hide a payment.`,
		Example: "  pacioli keys recover alice < words.txt",
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := c.keys()
			if err != nil {
				return err
			}
			var words string
			if term.IsTerminal(int(c.in.Fd())) {
				fmt.Fprint(c.err, "Words: ")
				words, err = bufio.NewReader(c.in).ReadString('\n')
			} else {
				var content []byte
				content, err = io.ReadAll(io.LimitReader(c.in, 4096))
				words = string(content)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("reading the words: %w", err)
			}
			bip39 := ""
			if extra != "" {
				content, err := readFile(extra, 4096)
				if err != nil {
					return err
				}
				bip39, _, _ = strings.Cut(string(content), "\n")
			}
			passphrase, err := c.passphrase(true)
			if err != nil {
				return err
			}
			if err := c.notInBook(args[0]); err != nil {
				return err
			}
			info, err := store.Recover(args[0], spec, words, bip39, passphrase)
			if err != nil {
				return err
			}
			r := newKeyResult(info)
			return c.print(r, r.text)
		},
	}
	cmd.Flags().StringVar(&spec.Kind, "scheme", "ed25519", schemeHelp)
	cmd.Flags().Uint32Var(&spec.Account, "account", 0, "account number in the derivation path")
	cmd.Flags().StringVar(&extra, "bip39-passphrase-file", "", "file whose first line is the BIP-39 passphrase, when the words have one")
	return cmd
}

func (c *cli) keysDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a key's file", Args: args("NAME"), Example: "  pacioli keys delete alice --yes",
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := c.key(args[0])
			if err != nil {
				return err
			}
			if err := c.confirm(yes, fmt.Sprintf("Delete key %s of %s? Without its 24 words or a backup its money is lost.", info.Name, info.Address)); err != nil {
				return err
			}
			store, err := c.keys()
			if err != nil {
				return err
			}
			passphrase, err := c.passphrase(false)
			if err != nil {
				return err
			}
			if err := store.Delete(args[0], passphrase); err != nil {
				return err
			}
			r := keyResult{Name: info.Name, Address: info.Address.String()}
			return c.print(r, func(w io.Writer) { fmt.Fprintf(w, "deleted %s\n", info.Name) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return content, nil
}

// short cuts the text of a key that fills a screen; JSON output has it whole.
func short(hex string) string {
	if len(hex) <= 80 {
		return hex
	}
	return fmt.Sprintf("%s... (%d bytes)", hex[:32], len(hex)/2)
}
