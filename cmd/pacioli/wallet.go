package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// keys opens the folder of keys.
func (c *cli) keys() (*keystore.Store, error) { return keystore.Open(filepath.Join(c.home, "keys")) }

// passphrase finds the passphrase of the keys: file, then environment, then a prompt, twice for a new key.
func (c *cli) passphrase(fresh bool) (string, error) {
	if c.passphraseFile != "" {
		content, err := os.ReadFile(c.passphraseFile)
		if err != nil {
			return "", fmt.Errorf("reading the passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(content), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", fmt.Errorf("the first line of %s, the passphrase, is empty", c.passphraseFile)
		}
		return line, nil
	}
	if text, ok := os.LookupEnv("PACIOLI_PASSPHRASE"); ok {
		if text == "" {
			return "", errors.New("the environment variable PACIOLI_PASSPHRASE is empty")
		}
		return text, nil
	}
	if !term.IsTerminal(int(c.in.Fd())) {
		return "", hinted(errors.New("a passphrase is needed, and there is no terminal to ask at"), "give --passphrase-file FILE, or set PACIOLI_PASSPHRASE")
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(c.err, prompt)
		text, err := term.ReadPassword(int(c.in.Fd()))
		fmt.Fprintln(c.err)
		if err != nil {
			return "", fmt.Errorf("reading the passphrase: %w", err)
		}
		return string(text), nil
	}
	if !fresh {
		return ask("Passphrase: ")
	}
	first, err := ask("New passphrase: ")
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", errors.New("the passphrase is empty")
	}
	second, err := ask("Again: ")
	if err == nil && first != second {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// confirm asks before something that cannot be undone. Without a terminal the flag --yes must say it.
func (c *cli) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(c.in.Fd())) {
		return hinted(errors.New("this needs a confirmation, and there is no terminal to ask at"), "give --yes")
	}
	fmt.Fprintf(c.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("not confirmed, nothing was done")
	}
	return nil
}

// key finds a key by its name, without its passphrase.
func (c *cli) key(name string) (keystore.Info, error) {
	store, err := c.keys()
	if err != nil {
		return keystore.Info{}, err
	}
	infos, err := store.List()
	if err != nil {
		return keystore.Info{}, err
	}
	i := slices.IndexFunc(infos, func(k keystore.Info) bool { return k.Name == name })
	if i < 0 {
		return keystore.Info{}, fmt.Errorf("key %q: %w", name, keystore.ErrNotFound)
	}
	return infos[i], infos[i].Err
}

// account reads the name of a key or of the address book, or an address. flag says in errors where it was given.
func (c *cli) account(flag, text string) (crypto.Address, error) {
	if len(text) == crypto.AddressLength || strings.HasPrefix(strings.ToLower(text), crypto.AddressPrefix+"1") {
		a, err := crypto.ParseAddress(text)
		if err != nil {
			return a, usage("%s %q: %w", flag, text, err)
		}
		return a, nil
	}
	k, err := c.key(text)
	if errors.Is(err, keystore.ErrNotFound) {
		if e, ok, err := c.contact(text); ok || err != nil {
			return e.Address, err
		}
		return crypto.Address{}, &problem{err: fmt.Errorf("%s %q is neither a key of this home, nor in its address book, nor an address", flag, text), name: "key_not_found",
			hint: "an address has 63 characters and begins with pac1p; pacioli keys list shows the keys, pacioli account list the address book"}
	}
	return k.Address, err
}

// names returns the names of this home's keys and address book by address, for showing.
func (c *cli) names() map[crypto.Address]string {
	names := map[crypto.Address]string{ledger.DepositPool(): "deposit pool"}
	all, _ := c.contacts() // what cannot be read is shown by its address
	for _, e := range all {
		names[e.Address] = e.Name
	}
	if _, err := os.Stat(filepath.Join(c.home, "keys")); err != nil {
		return names // showing needs no keys, and makes no folder for them
	}
	store, err := c.keys()
	if err != nil {
		return names
	}
	infos, _ := store.List()
	for _, k := range infos {
		if k.Err == nil {
			names[k.Address] = k.Name
		}
	}
	return names
}

// genesisPath is where the genesis file is, and whether it was named by the user.
func (c *cli) genesisPath() (path string, named bool) {
	if c.genesisFile != "" {
		return c.genesisFile, true
	}
	return filepath.Join(c.home, "config", "genesis.json"), false
}

// dial opens the client of this home's network.
func (c *cli) dial(ctx context.Context) (*client.Client, error) {
	o := client.Options{Nodes: c.nodes, Dir: c.home, ChainID: c.chainID}
	if err := os.MkdirAll(c.home, 0o700); err != nil {
		return nil, fmt.Errorf("making the home folder: %w", err)
	}
	path, named := c.genesisPath()
	switch _, err := os.Stat(path); {
	case err == nil:
		o.GenesisFile = path
	case named || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading genesis: %w", err)
	}
	if c.trust != "" {
		trust, err := client.ParseTrust(c.trust)
		if err != nil {
			return nil, usage("--trust: %w", err)
		}
		o.Trust = trust
		if o.GenesisFile == "" && c.chainID == "" {
			return nil, usage("--trust needs --chain-id when there is no genesis file")
		}
	}
	if o.GenesisFile == "" && o.Trust == nil {
		return nil, hinted(fmt.Errorf("nothing to trust: %s is missing", path),
			"get the genesis file from an operator you trust and give --genesis FILE, or give --trust HEIGHT:HASH with --chain-id; pacioli up makes a network of your own")
	}
	cl, err := client.Dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", strings.Join(c.nodes, ", "), err)
	}
	return cl, nil
}

// books is where commands look up assets and parameters: the proven state, or genesis when there is no node to ask.
type books interface {
	network() ledger.Network
	parameters(ctx context.Context) (ledger.Parameters, error)
	feeRate(ctx context.Context) (ledger.FeeRate, error)
	assetByCode(ctx context.Context, code string) (ledger.AssetID, ledger.Asset, error)
	asset(ctx context.Context, id ledger.AssetID) (ledger.Asset, error)
}

// provenBooks reads the newest proven state.
type provenBooks struct{ *client.Client }

func (b provenBooks) network() ledger.Network { return b.NetworkID() }

func (b provenBooks) parameters(ctx context.Context) (ledger.Parameters, error) {
	p, err := b.Parameters(ctx, 0)
	return p.Value, err
}

func (b provenBooks) feeRate(ctx context.Context) (ledger.FeeRate, error) {
	r, err := b.FeeRate(ctx, 0)
	return r.Value, err
}

func (b provenBooks) assetByCode(ctx context.Context, code string) (ledger.AssetID, ledger.Asset, error) {
	id, a, err := b.AssetByCode(ctx, code, 0)
	if err == nil && !a.Present {
		err = &problem{err: fmt.Errorf("there is no asset %s at height %d", code, a.Height), name: "asset_unknown", hint: "codes are upper case; pacioli asset create makes one"}
	}
	return id, a.Value, err
}

func (b provenBooks) asset(ctx context.Context, id ledger.AssetID) (ledger.Asset, error) {
	a, err := b.Asset(ctx, id, 0)
	if err == nil && !a.Present {
		err = fmt.Errorf("there is no asset %x at height %d", id, a.Height)
	}
	return a.Value, err
}

// genesisBooks knows what a network began with.
type genesisBooks struct {
	id   ledger.Network
	rows ledger.Memory
}

// genesis reads the genesis file of this home.
func (c *cli) genesis() (*genesisBooks, error) {
	path, _ := c.genesisPath()
	_, g, err := client.ReadGenesis(path)
	if err != nil {
		return nil, hinted(err, "give --genesis FILE")
	}
	outcome, network, err := g.Outcome()
	if err != nil {
		return nil, fmt.Errorf("genesis %s: %w", path, err)
	}
	b := &genesisBooks{network, ledger.Memory{}}
	b.rows.Apply(outcome.Writes)
	return b, nil
}

func (b *genesisBooks) network() ledger.Network { return b.id }

func (b *genesisBooks) parameters(context.Context) (ledger.Parameters, error) {
	return ledger.DecodeParameters(b.rows[string(ledger.ParametersRow())])
}

func (b *genesisBooks) feeRate(context.Context) (ledger.FeeRate, error) {
	return ledger.DecodeFeeRate(b.rows[string(ledger.FeeRateRow())])
}

func (b *genesisBooks) assetByCode(ctx context.Context, code string) (ledger.AssetID, ledger.Asset, error) {
	if err := ledger.CheckAssetCode(code); err != nil {
		return ledger.AssetID{}, ledger.Asset{}, err
	}
	row := b.rows[string(ledger.CodeRow(code))]
	if row == nil {
		return ledger.AssetID{}, ledger.Asset{}, &problem{err: fmt.Errorf("the genesis file has no asset %s", code), name: "asset_unknown", hint: "only assets of genesis are known offline; codes are upper case"}
	}
	id, err := ledger.DecodeAssetID(row)
	if err != nil {
		return id, ledger.Asset{}, err
	}
	a, err := b.asset(ctx, id)
	return id, a, err
}

func (b *genesisBooks) asset(_ context.Context, id ledger.AssetID) (ledger.Asset, error) {
	row := b.rows[string(ledger.AssetRow(id))]
	if row == nil {
		return ledger.Asset{}, fmt.Errorf("the genesis file has no asset %x", id)
	}
	return ledger.DecodeAsset(row)
}

// writeFile puts a file under a name as a whole or not at all, and durably.
func writeFile(path string, content []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	if err == nil {
		err = temporary.Sync()
	}
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil { // a folder that cannot be synced is no reason to fail
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// maxCodes bounds the list of asset codes that a home remembers.
const maxCodes = 1000

func (c *cli) codesFile() string { return filepath.Join(c.home, "assets") }

// seenCodes returns the asset codes that this home has met.
func (c *cli) seenCodes() []string {
	content, _ := os.ReadFile(c.codesFile()) // only a memory: without it the user names the codes
	var codes []string
	for line := range bytes.Lines(content) {
		if code := string(bytes.TrimSpace(line)); ledger.CheckAssetCode(code) == nil && len(codes) < maxCodes {
			codes = append(codes, code)
		}
	}
	return codes
}

// remember notes asset codes, so that `balance` without a code shows them too.
func (c *cli) remember(codes ...string) {
	seen := c.seenCodes()
	all := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(seen), codes...))))
	if len(all) == len(seen) || len(all) > maxCodes {
		return
	}
	_ = writeFile(c.codesFile(), []byte(strings.Join(all, "\n")+"\n"))
}
