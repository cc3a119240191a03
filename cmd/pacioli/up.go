package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/testnet"
)

const (
	// upPatience is how long a local network may take to its first block: on two loaded cores a few seconds.
	upPatience = 90 * time.Second
	// downPatience is how long its nodes may take to end.
	downPatience = 15 * time.Second
)

func (c *cli) upCommand() *cobra.Command {
	var validators int
	var dir, keyType, chainID, topology string
	var detach bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a ledger on this machine: validators as processes, and a funded wallet",
		Long: `Run a ledger on this machine: validators as separate processes on free loopback ports, and a wallet with the funded key
alice. A folder that holds a network is gone on with: nodes that do not run are started. A topology file says more about a
new network than the flags: full nodes, sentries, parameters, settings, versions.

Without --detach the network ends with Ctrl-C; its data stays, and the same command goes on with it.`,
		Example: `  pacioli up
  pacioli up --validators 7 --dir /tmp/seven --detach
  pacioli down --dir /tmp/seven
  pacioli up --topology testnet/topology.toml --dir /tmp/five`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			created := !testnet.Exists(dir)
			if topology != "" {
				for _, flag := range []string{"validators", "validator-key-type", "chain-id"} {
					if cmd.Flags().Changed(flag) {
						return usage("--%s says what the topology file says: leave one of them out", flag)
					}
				}
				if !created {
					return usage("there is a network in %s: leave --topology out to go on with it, or choose another --dir", dir)
				}
			}
			if created {
				o := testnet.LocalOptions{Validators: validators, KeyType: keyType, ChainID: chainID}
				if topology != "" {
					t, err := testnet.LoadTopology(topology)
					if err != nil {
						return err
					}
					o.Topology = &t
					c.say("make the network %s of %d nodes in %s", t.ChainID, len(t.Nodes), dir)
				} else {
					c.say("make a network of %d validators in %s", validators, dir)
				}
				if _, err := testnet.CreateLocal(dir, o); err != nil {
					return err
				}
			} else if cmd.Flags().Changed("validators") {
				if l, err := testnet.OpenLocal(dir); err == nil && len(l.Nodes) != validators {
					return usage("the network in %s has %d validators: leave --validators out, or choose another --dir", dir, len(l.Nodes))
				}
			}
			absolute, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("resolving --dir: %w", err)
			}
			l, err := testnet.OpenLocal(absolute)
			if err != nil {
				return err
			}
			return c.up(cmd.Context(), l, created, detach)
		},
	}
	f := cmd.Flags()
	f.IntVar(&validators, "validators", 4, fmt.Sprintf("number of validators, 1 to %d", testnet.MaxLocalValidators))
	f.StringVar(&dir, "dir", filepath.Join(".pacioli", "local"), "folder of the network")
	f.StringVar(&keyType, "validator-key-type", node.KeyEd25519, "ed25519 or ml_dsa_65")
	f.StringVar(&chainID, "chain-id", "local-1", "name of the network")
	f.StringVar(&topology, "topology", "", "file that describes the network to make")
	f.BoolVar(&detach, "detach", false, "leave the nodes running; pacioli down ends them")
	return cmd
}

// upResult is what `up` prints.
type upResult struct {
	Dir     string              `json:"dir"`
	ChainID string              `json:"chain_id"`
	Network string              `json:"network_id"`
	Height  uint64              `json:"height"`
	Nodes   []testnet.LocalNode `json:"nodes"`
	Wallet  string              `json:"wallet"`
	Payment *upPayment          `json:"payment,omitempty"`
}

type upPayment struct {
	ID          string `json:"id"`
	Amount      string `json:"amount"`
	Asset       string `json:"asset"`
	Height      uint64 `json:"height"`
	ProofHeight uint64 `json:"proof_height"`
	Millis      int64  `json:"milliseconds"`
}

func (c *cli) up(ctx context.Context, l *testnet.Local, created, detach bool) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	type ended struct {
		i   int
		err error
	}
	started, exits := 0, make(chan ended, len(l.Nodes))
	defer func() {
		// Whatever ends this command, but for success with --detach, ends the nodes that it started.
		if started > 0 && (!detach || err != nil) {
			c.say("stop the nodes")
			if _, stopErr := l.Stop(context.Background(), downPatience); stopErr != nil {
				c.say("%s", stopErr)
			}
		}
	}()
	for i, n := range l.Nodes {
		if p, ok := l.Running(i); ok {
			c.say("%s runs already, as process %d", n.Name, p.PID)
			continue
		}
		var command *exec.Cmd
		var binary string
		if binary, err = l.Program(i, program); err != nil {
			return err
		}
		if command, err = l.Start(i, binary, !detach); err != nil {
			return err
		}
		started++
		go func() { exits <- ended{i, command.Wait()} }()
	}
	c.say("wait for the first block")
	ready := make(chan error, 1)
	var result upResult
	go func() {
		var upErr error
		result, upErr = c.welcome(ctx, l, created)
		ready <- upErr
	}()
	for waiting := true; waiting; {
		select {
		case err = <-ready:
			if err != nil {
				return err
			}
			waiting = false
		case e := <-exits:
			err = hinted(fmt.Errorf("%s ended: %v", l.Nodes[e.i].Name, e.err), "its log says why: %s", l.Log(e.i))
			return err
		}
	}
	if err = c.print(result, func(w io.Writer) { printWelcome(w, result, program) }); err != nil {
		return err
	}
	if detach {
		return nil
	}
	if started == 0 {
		c.say("\nall nodes ran already and go on; end them with: %s down --dir %s", program, l.Dir)
		return nil
	}
	c.say("\nCtrl-C ends the network; its data stays in %s", l.Dir)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-exits:
			state := "ended"
			if e.err != nil {
				state = "ended: " + e.err.Error()
			}
			c.say("%s %s; its log is %s", l.Nodes[e.i].Name, state, l.Log(e.i))
			running := 0
			for i := range l.Nodes {
				if _, ok := l.Running(i); ok {
					running++
				}
			}
			if running == 0 {
				c.say("no node is left")
				return nil
			}
			c.say("%d of %d still run; start it again from another terminal: %s up --detach --dir %s", running, len(l.Nodes), program, l.Dir)
		}
	}
}

// welcome waits until the network works and shows that it does: on a new one alice pays bob.
func (c *cli) welcome(ctx context.Context, l *testnet.Local, created bool) (upResult, error) {
	ctx, cancel := context.WithTimeout(ctx, upPatience)
	defer cancel()
	result := upResult{Dir: l.Dir, ChainID: l.ChainID, Nodes: l.Nodes, Wallet: l.Wallet()}
	for {
		if r, err := client.Ready(ctx, l.URLs()[0]); err == nil && r.OK && r.Height >= 2 {
			break
		}
		select {
		case <-ctx.Done():
			return result, hinted(fmt.Errorf("the network makes no blocks: %w", ctx.Err()), "the logs say why: %s", l.Log(0))
		case <-time.After(100 * time.Millisecond):
		}
	}
	for i, url := range l.URLs()[1:] { // the others need not be up to date, but there
		for {
			if _, err := client.Ready(ctx, url); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return result, hinted(fmt.Errorf("%s does not answer: %w", l.Nodes[i+1].Name, ctx.Err()), "its log says why: %s", l.Log(i+1))
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	cl, err := client.Dial(ctx, client.Options{Nodes: l.URLs(), GenesisFile: node.Home(l.Wallet()).Genesis(), Dir: l.Wallet()})
	if err != nil {
		return result, err
	}
	result.Network = cl.NetworkID().ID.String()
	if created {
		if result.Payment, err = firstPayment(ctx, cl, l); err != nil {
			return result, fmt.Errorf("the first payment: %w", err)
		}
	}
	header, err := cl.Headers().Latest(ctx)
	result.Height = header.Height
	return result, err
}

// firstPayment is alice paying bob.
func firstPayment(ctx context.Context, cl *client.Client, l *testnet.Local) (*upPayment, error) {
	begin := time.Now()
	passphrase, err := os.ReadFile(filepath.Join(l.Wallet(), "passphrase"))
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	keys, err := keystore.Open(filepath.Join(l.Wallet(), "keys"))
	if err != nil {
		return nil, err
	}
	alice, err := keys.Unlock(testnet.KeyAlice, string(firstLine(passphrase)))
	if err != nil {
		return nil, err
	}
	infos, err := keys.List()
	if err != nil {
		return nil, err
	}
	transfer := &ledger.Transfer{Memo: "the first payment"}
	for _, i := range infos {
		if i.Name == testnet.KeyBob {
			transfer.To = i.Address
		}
	}
	id, asset, err := cl.AssetByCode(ctx, testnet.FeeAsset, 0)
	if err != nil {
		return nil, err
	}
	transfer.Asset = id
	if transfer.Amount, err = ledger.ParseAmount("10", asset.Value.Scale); err != nil {
		return nil, err
	}
	built, err := cl.Build(ctx, client.Intent{Signers: []crypto.Address{alice.Address()}, Known: []crypto.Policy{alice.Policy()}, Operations: []ledger.Operation{transfer}})
	if err != nil {
		return nil, err
	}
	if _, err := built.Sign(alice); err != nil {
		return nil, err
	}
	raw, err := built.Raw()
	if err != nil {
		return nil, err
	}
	final, err := cl.Send(ctx, raw, built.Before)
	if err != nil {
		return nil, err
	}
	if final.Receipt.Code != ledger.OK {
		return nil, errors.New(final.Receipt.Code.String())
	}
	return &upPayment{ID: final.ID.String(), Amount: transfer.Amount.Format(asset.Value.Scale), Asset: testnet.FeeAsset,
		Height: final.Height, ProofHeight: final.ProofHeight, Millis: time.Since(begin).Milliseconds()}, nil
}

func firstLine(text []byte) []byte {
	for i, b := range text {
		if b == '\n' {
			return text[:i]
		}
	}
	return text
}

func printWelcome(w io.Writer, r upResult, program string) {
	fmt.Fprintf(w, "The ledger %s runs, at height %d.\n\n", r.ChainID, r.Height)
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "  %s\thttp://%s\n", n.Name, n.RPC)
	}
	if p := r.Payment; p != nil {
		fmt.Fprintf(w, "\nThe first payment: alice paid bob %s %s, final in block %d and proven by header %d, in %d ms.\n  id %s\n", p.Amount, p.Asset, p.Height, p.ProofHeight, p.Millis, p.ID)
	}
	fmt.Fprintf(w, "\nTry next:\n")
	fmt.Fprintf(w, "  %s balance alice --home %s\n", program, r.Wallet)
	fmt.Fprintf(w, "  %s pay --from alice --to bob 12.50 PAC --home %s\n", program, r.Wallet)
	fmt.Fprintf(w, "  %s status --home %s\n", program, r.Wallet)
}

func (c *cli) downCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "End the nodes of a local network; its data stays",
		Example: `  pacioli down --dir .pacioli/local`,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := testnet.OpenLocal(dir)
			if err != nil {
				return hinted(err, "--dir names the folder that pacioli up was given")
			}
			ended, err := l.Stop(cmd.Context(), downPatience)
			if err != nil {
				return err
			}
			if ended == nil {
				ended = []string{} // null in JSON otherwise
			}
			return c.print(map[string][]string{"ended": ended}, func(w io.Writer) {
				if len(ended) == 0 {
					fmt.Fprintln(w, "no node was running")
				}
				for _, name := range ended {
					fmt.Fprintf(w, "%s ended\n", name)
				}
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", filepath.Join(".pacioli", "local"), "folder of the network")
	return cmd
}
