package main

import (
	"bytes"
	"context"
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
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

func (c *cli) initCommand() *cobra.Command {
	var o struct {
		chainID, moniker, keyType, issuer, collector, asset, maxSupply string
		operator, network                                              string
		join                                                           []string
		scale                                                          uint32
		balances, validators                                           []string
		evidenceAge                                                    time.Duration
	}
	config := node.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a node's home folder: keys, configuration, genesis",
		Long: `Make a node's home folder: keys, configuration, genesis.

To join a network, give nodes of it with --join and its id with --network-id, as an operator whom you trust tells it (pacioli
params show): the genesis file is fetched and checked against the id, and the nodes and their peers become persistent peers. Or give
the genesis file itself with --genesis, and the peers.

To begin a network, give --chain-id, --issuer, --collector and --operator: the node is then a validator, for which the account
--operator acts, with those of --validator, which are files that their operators made by
"pacioli show-validator --operator ADDRESS --output json". Those operators need a home before there is a genesis file: with none of these flags
the home is made without, and the file is put to config/genesis.json later.

Every setting of pacioli.toml is a flag here and is written to the file.`,
		Example: `  pacioli init --home /srv/pacioli --moniker bank-two
  pacioli init --home /srv/pacioli --join http://10.0.0.1:26657 --network-id 3f9a... --moniker bank-five
  pacioli init --home /srv/pacioli --genesis genesis.json --moniker bank-one
  pacioli keys new bank && pacioli keys new treasury && pacioli keys new ops
  pacioli init --chain-id clearing-1 --issuer bank --collector treasury --operator ops --balance treasury=1000 --asset PAC`,
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
			given, begin := cmd.Flags().Changed("genesis"), o.chainID != "" || o.issuer != "" || o.collector != "" || o.operator != "" || len(o.validators)+len(o.balances) > 0
			switch {
			case len(o.join) > 0 && (given || begin):
				return usage("--join fetches the genesis file: --genesis and what begins a network go without it")
			case len(o.join) > 0:
				if doc, err = c.joinNetwork(cmd, o.join, o.network, &config); err != nil {
					return err
				}
			case o.network != "":
				return usage("--network-id is what --join checks")
			case given && begin:
				return usage("--genesis joins a network, --chain-id, --issuer, --collector, --operator, --balance and --validator begin one: want one or the other")
			case given:
				if doc, err = genesis.Load(c.genesisFile); err != nil {
					return err
				}
			case begin:
				if o.chainID == "" || o.issuer == "" || o.collector == "" {
					return usage("want --chain-id, --issuer and --collector to begin a network, or --join or --genesis to join one")
				}
				if o.operator == "" {
					return usage("want --operator, the account that acts for this validator: without operators nobody could ever change the validators")
				}
				if state, err = c.genesisState(o.issuer, o.collector, o.asset, o.scale, o.maxSupply, o.balances); err != nil {
					return err
				}
				if others, state.Validators, err = readValidators(o.validators); err != nil {
					return err
				}
				own := ledger.GenesisValidator{Name: config.Node.Moniker}
				if own.Operator, err = c.account("--operator", o.operator); err != nil {
					return err
				}
				state.Validators = append([]ledger.GenesisValidator{own}, state.Validators...)
			}
			own, err := node.NewHome(h, config, o.keyType)
			if err != nil {
				return err
			}
			if begin {
				state.Validators[0].PubKey = own.PubKey.Bytes()
				doc, err = genesis.New(o.chainID, time.Now(), append([]types.GenesisValidator{own}, others...), state)
				if err == nil && o.evidenceAge != genesis.EvidenceHours*time.Hour {
					err = genesis.SetEvidenceAge(doc, o.evidenceAge)
				}
				if err != nil {
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
					fmt.Fprintf(w, "\nGive whoever makes the genesis file: pacioli show-validator --operator ADDRESS --output json --home %s\nThen put that file to %s\n", c.home, h.Genesis())
					return
				}
				fmt.Fprintf(w, "\nStart it: pacioli start --home %s\n", c.home)
			})
		},
	}
	f := cmd.Flags()
	settingFlags(f, &config)
	f.StringVar(&o.chainID, "chain-id", "", "name of the network to begin, as clearing-1")
	f.StringSliceVar(&o.join, "join", nil, "URL[,URL] of nodes of the network to join")
	f.StringVar(&o.network, "network-id", "", "id of the network that --join must be: 64 hex digits, from an operator whom you trust")
	f.StringVar(&o.operator, "operator", "", "key or address that acts for this validator, of a network to begin")
	f.StringVar(&o.moniker, "moniker", "", "name by which other operators see this node")
	f.StringVar(&o.keyType, "validator-key-type", node.KeyEd25519, "ed25519 or ml_dsa_65")
	f.StringVar(&o.issuer, "issuer", "", "key or address that issues the fee asset")
	f.StringVar(&o.collector, "collector", "", "key or address that receives the fees")
	f.StringVar(&o.asset, "asset", "PAC", "code of the fee asset")
	f.Uint32Var(&o.scale, "scale", 6, "decimals of the fee asset")
	f.StringVar(&o.maxSupply, "max-supply", "1000000000", "most of the fee asset that can ever exist")
	f.StringArrayVar(&o.balances, "balance", nil, "NAME|ADDRESS=AMOUNT of the fee asset at the beginning; repeatable")
	f.DurationVar(&o.evidenceAge, "evidence-age", genesis.EvidenceHours*time.Hour, "how long equivocation can be reported; nodes keep headers for so long, so a test network wants it short")
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

func sortedAddresses(list []crypto.Address) []crypto.Address {
	return slices.SortedFunc(slices.Values(list), func(a, b crypto.Address) int { return bytes.Compare(a[:], b[:]) })
}

// joinNetwork fetches the genesis document of a network and the addresses of its nodes, and sets what of them goes into the
// configuration. Whether it is the right network only the user's word for its id can tell.
func (c *cli) joinNetwork(cmd *cobra.Command, urls []string, id string, config *node.Config) (*types.GenesisDoc, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	doc, network, err := client.FetchGenesis(ctx, urls)
	if err != nil {
		return nil, hinted(err, "--join wants URLs of the RPC of nodes that run, such as http://10.0.0.1:26657")
	}
	switch {
	case id != "" && !strings.EqualFold(id, network.ID.String()):
		return nil, &problem{err: fmt.Errorf("the nodes are of network %s (%s), not of %s: nothing was made", network.ID, network.ChainID, id), name: "other_network",
			hint: "ask an operator whom you trust which network it is: pacioli params show"}
	case id == "" && c.trust == "":
		return nil, hinted(usage("--network-id is missing: whoever answers on %s could make up a network", strings.Join(urls, ", ")),
			"the nodes say %s: compare that with what an operator whom you trust tells you over another channel, then give --network-id", network.ID)
	case id == "":
		trust, err := client.ParseTrust(c.trust)
		if err != nil {
			return nil, usage("--trust: %w", err)
		}
		cl, err := client.Dial(ctx, client.Options{Nodes: urls, Trust: trust, ChainID: network.ChainID})
		if err != nil {
			return nil, fmt.Errorf("checking the genesis file against --trust: %w", err)
		}
		if cl.NetworkID() != network {
			return nil, &problem{err: fmt.Errorf("the header of --trust is of network %s (%s), and the genesis file of %s: nothing was made", cl.NetworkID().ID, cl.NetworkID().ChainID, network.ID), name: "other_network"}
		}
	}
	if !cmd.Flags().Changed("p2p.persistent_peers") {
		if config.P2P.PersistentPeers, err = client.PeerAddresses(ctx, urls); err != nil {
			return nil, hinted(err, "give the peers yourself: --p2p.persistent_peers NODE_ID@HOST:PORT,...")
		}
	}
	if !cmd.Flags().Changed("wallet.nodes") {
		config.Wallet.Nodes = urls
	}
	return doc, nil
}

// readValidators reads what `pacioli show-validator --operator ADDRESS --output json` printed elsewhere.
func readValidators(files []string) (list []types.GenesisValidator, operated []ledger.GenesisValidator, err error) {
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("reading a validator's key: %w", err)
		}
		var v shownValidator
		if err := json.Unmarshal(text, &v); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		var key cmtcrypto.PubKey
		if err := cmtjson.Unmarshal([]byte(v.Genesis), &key); err != nil {
			return nil, nil, fmt.Errorf("%s: field genesis: %w", path, err)
		}
		if v.Operator == nil {
			return nil, nil, hinted(fmt.Errorf("%s names no operator: nobody could ever act for this validator", path), "have it made again: pacioli show-validator --operator ADDRESS --output json")
		}
		list = append(list, types.GenesisValidator{Address: key.Address(), PubKey: key, Power: genesis.EqualPower})
		operated = append(operated, ledger.GenesisValidator{PubKey: key.Bytes(), Operator: *v.Operator, Name: v.Name})
	}
	return list, operated, nil
}

// shownValidator is a validator's key as it is given to whoever makes the genesis file.
type shownValidator struct {
	Address   string          `json:"address"` // consensus address
	KeyType   string          `json:"key_type"`
	PublicKey string          `json:"public_key"`         // hex
	Genesis   string          `json:"genesis"`            // the key as genesis.json and CometBFT's tools write it
	Operator  *crypto.Address `json:"operator,omitempty"` // who acts for it
	Name      string          `json:"name,omitempty"`
}
