package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	cmtcrypto "github.com/cometbft/cometbft/crypto"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) initCommand() *cobra.Command {
	var o struct {
		chainID, moniker, keyType, issuer, collector, asset, maxSupply string
		scale                                                          uint32
		balances, validators                                           []string
	}
	config := node.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a node's home folder: keys, configuration, genesis",
		Long: `Make a node's home folder: keys, configuration, genesis.

To join a network, give its genesis file with --genesis. To begin one, give --chain-id, --issuer and --collector: the node
is then a validator, with those of --validator, which are files that their operators made by
"pacioli show-validator --output json". Those operators need a home before there is a genesis file: with none of these flags
the home is made without, and the file is put to config/genesis.json later.

Every setting of pacioli.toml is a flag here and is written to the file.`,
		Example: `  pacioli init --home /srv/pacioli --moniker bank-two
  pacioli init --home /srv/pacioli --genesis genesis.json --moniker bank-one
  pacioli keys new bank && pacioli keys new treasury
  pacioli init --chain-id clearing-1 --issuer bank --collector treasury --balance treasury=1000 --asset PAC`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := node.Home(c.home)
			if o.moniker != "" {
				config.Node.Moniker = o.moniker
			}
			var doc *types.GenesisDoc
			var state ledger.GenesisState
			var others []types.GenesisValidator
			var err error
			given, begin := cmd.Flags().Changed("genesis"), o.chainID != "" || o.issuer != "" || o.collector != "" || len(o.validators)+len(o.balances) > 0
			switch {
			case given && begin:
				return usage("--genesis joins a network, --chain-id, --issuer, --collector, --balance and --validator begin one: want one or the other")
			case given:
				if doc, err = genesis.Load(c.genesisFile); err != nil {
					return err
				}
			case begin:
				if o.chainID == "" || o.issuer == "" || o.collector == "" {
					return usage("want --chain-id, --issuer and --collector to begin a network, or --genesis to join one")
				}
				if state, err = c.genesisState(o.issuer, o.collector, o.asset, o.scale, o.maxSupply, o.balances); err != nil {
					return err
				}
				if others, err = readValidators(o.validators); err != nil {
					return err
				}
			}
			own, err := node.NewHome(h, config, o.keyType)
			if err != nil {
				return err
			}
			if begin {
				if doc, err = genesis.New(o.chainID, time.Now(), append([]types.GenesisValidator{own}, others...), state); err != nil {
					return hinted(err, "the home has its keys and no genesis file: remove %s, %s and %s before you do it again", h.Config(), filepath.Dir(h.Genesis()), h.Data())
				}
			}
			var network ledger.Network
			if doc != nil {
				if err := genesis.Save(doc, h.Genesis()); err != nil {
					return err
				}
				if network, err = genesis.NetworkOf(doc); err != nil {
					return err
				}
			}
			id, err := h.ID()
			if err != nil {
				return err
			}
			result := struct {
				Home      string `json:"home"`
				ChainID   string `json:"chain_id,omitempty"`
				Network   string `json:"network_id,omitempty"`
				NodeID    string `json:"node_id"`
				Validator string `json:"validator"`
				KeyType   string `json:"key_type"`
			}{Home: c.home, NodeID: id, Validator: own.Address.String(), KeyType: own.PubKey.Type()}
			if doc != nil {
				result.ChainID, result.Network = network.ChainID, network.ID.String()
			}
			return c.print(result, func(w io.Writer) {
				fmt.Fprintf(w, "home\t%s\n", result.Home)
				if doc != nil {
					fmt.Fprintf(w, "chain\t%s\nnetwork\t%s\n", result.ChainID, result.Network)
				}
				fmt.Fprintf(w, "node id\t%s\nvalidator\t%s (%s)\n", result.NodeID, result.Validator, result.KeyType)
				if doc == nil {
					fmt.Fprintf(w, "\nGive whoever makes the genesis file: pacioli show-validator --output json --home %s\nThen put that file to %s\n", c.home, h.Genesis())
					return
				}
				fmt.Fprintf(w, "\nStart it: pacioli start --home %s\n", c.home)
			})
		},
	}
	f := cmd.Flags()
	settingFlags(f, &config)
	f.StringVar(&o.chainID, "chain-id", "", "name of the network to begin, as clearing-1")
	f.StringVar(&o.moniker, "moniker", "", "name by which other operators see this node")
	f.StringVar(&o.keyType, "validator-key-type", node.KeyEd25519, "ed25519 or ml_dsa_65")
	f.StringVar(&o.issuer, "issuer", "", "key or address that issues the fee asset")
	f.StringVar(&o.collector, "collector", "", "key or address that receives the fees")
	f.StringVar(&o.asset, "asset", "PAC", "code of the fee asset")
	f.Uint32Var(&o.scale, "scale", 6, "decimals of the fee asset")
	f.StringVar(&o.maxSupply, "max-supply", "1000000000", "most of the fee asset that can ever exist")
	f.StringArrayVar(&o.balances, "balance", nil, "NAME|ADDRESS=AMOUNT of the fee asset at the beginning; repeatable")
	f.StringArrayVar(&o.validators, "validator", nil, "file with another validator's key; repeatable")
	return cmd
}

// genesisState is the state of a network that begins with one asset.
func (c *cli) genesisState(issuer, collector, code string, scale uint32, maxSupply string, balances []string) (s ledger.GenesisState, err error) {
	s.Parameters = ledger.DefaultParameters().Genesis(code, s.Parameters.FeeCollector)
	asset := ledger.GenesisAsset{Code: code, Scale: scale, MaxSupply: maxSupply}
	if asset.Issuer, err = c.account("--issuer", issuer); err != nil {
		return s, err
	}
	if s.Parameters.FeeCollector, err = c.account("--collector", collector); err != nil {
		return s, err
	}
	s.Assets = []ledger.GenesisAsset{asset}
	for _, b := range balances {
		who, amount, ok := strings.Cut(b, "=")
		if !ok {
			return s, usage("--balance %q: want NAME|ADDRESS=AMOUNT", b)
		}
		address, err := c.account("--balance", who)
		if err != nil {
			return s, err
		}
		s.Accounts = append(s.Accounts, ledger.GenesisAccount{Address: address, Balances: []ledger.GenesisBalance{{Asset: code, Amount: amount}}})
	}
	slices.SortFunc(s.Accounts, func(a, b ledger.GenesisAccount) int { return bytes.Compare(a.Address[:], b.Address[:]) })
	return s, nil
}

// readValidators reads what `pacioli show-validator --output json` printed elsewhere.
func readValidators(files []string) ([]types.GenesisValidator, error) {
	var list []types.GenesisValidator
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading a validator's key: %w", err)
		}
		var v node.Validator
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		var key cmtcrypto.PubKey
		if err := cmtjson.Unmarshal([]byte(v.Genesis), &key); err != nil {
			return nil, fmt.Errorf("%s: field genesis: %w", path, err)
		}
		list = append(list, types.GenesisValidator{Address: key.Address(), PubKey: key, Power: genesis.EqualPower})
	}
	return list, nil
}
