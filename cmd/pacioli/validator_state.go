package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cometbft/cometbft/types"
	"github.com/spf13/cobra"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/light"
)

// signStateMargin is how many blocks above the newest one a new sign state forbids. Whoever signed with the key until a moment
// ago did so for the next block; some more cost seconds of a validator that was away already.
const signStateMargin = 5

const (
	// goesOn is how many blocks must come while the command looks.
	goesOn = 2
	// standsStill is how long it waits for one.
	standsStill = 30 * time.Second
)

func (c *cli) validatorResetSignState() *cobra.Command {
	var blocks uint64
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "reset-sign-state", Short: "Write a safe sign state for a validator that has lost its own, or was restored", Args: args(),
		Long: `For a stopped node whose data/priv_validator_state.json is lost, or older than what its key has signed: after the loss of a disk, or
when a home was restored from a backup. First make sure that no other machine has the key.

It follows the chain by verified headers until so many blocks in a row have no signature of the key (by default
double_sign_check_height of the configuration), and refuses when one that is made while it looks has: then the key signs elsewhere. Then
it writes a sign state that forbids everything up to some blocks above the newest one. A chain that stands still, because it needs
this validator, shows nothing, and the command gives up: docs/OPERATING.md says what then.

JSON: home, validator, height (up to which nothing can be signed), last_signed (of the blocks that were looked at; 0: none).`,
		Example: "  pacioli validator reset-sign-state --home /srv/pacioli --node http://10.0.0.1:26657,http://10.0.0.2:26657",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := node.Home(c.home)
			config, err := node.LoadConfig(c.home)
			if err != nil {
				return hinted(err, "--home names the home of the node")
			}
			v, err := h.Validator()
			if err != nil {
				return err
			}
			address, err := hex.DecodeString(v.Address)
			if err != nil {
				return fmt.Errorf("the validator's address: %w", err)
			}
			if !cmd.Flags().Changed("blocks") {
				blocks = max(config.Consensus.DoubleSignCheckHeight, 10)
			}
			if blocks < 2 {
				return usage("--blocks %d: want at least 2", blocks)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			cl, err := c.dial(ctx)
			if err != nil {
				return err
			}
			var height, signed uint64
			err = h.ResetSignState(func() (int64, error) {
				height, signed, err = c.silent(ctx, cl, address, blocks)
				return int64(height + signStateMargin), err
			})
			if err != nil {
				return err
			}
			r := struct {
				Home       string `json:"home"`
				Validator  string `json:"validator"`
				Height     uint64 `json:"height"`
				LastSigned uint64 `json:"last_signed"`
			}{c.home, v.Address, height + signStateMargin, signed}
			return c.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "validator\t%s\nsign state\tnothing up to height %d can be signed\n\nStart it: pacioli start --home %s\n", r.Validator, r.Height, r.Home)
			})
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&blocks, "blocks", 0, "blocks in a row that must have no signature of the key (default: double_sign_check_height of the configuration, at least 10)")
	f.DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for them")
	return cmd
}

// silent follows the chain until a key has not signed some blocks in a row, and returns the newest of them, and the last block
// that the key was seen to have signed.
func (c *cli) silent(ctx context.Context, cl *client.Client, address []byte, blocks uint64) (height, signed uint64, err error) {
	newest, err := cl.Headers().Latest(ctx)
	if err != nil {
		return 0, 0, err
	}
	begun := newest.Height
	height = max(begun, blocks) - blocks
	said, grown := time.Time{}, time.Now()
	// It must be seen to go on: a chain that waits for this very key would be told never to get its signature.
	for height < begun+goesOn || height < signed+blocks {
		// As the next block has them: beside what a header needs, a node that lies could leave the key's signature out.
		commit, err := cl.Commit(ctx, height+1)
		if err != nil {
			if ctx.Err() != nil {
				return 0, 0, hinted(fmt.Errorf("waiting for block %d: %w", height+2, err), "does the chain stand still? pacioli status; see \"Lost sign state\" in docs/OPERATING.md")
			}
			if !errors.Is(err, light.ErrNotYet) {
				return 0, 0, err
			}
			if waited := time.Since(grown); height >= begun && waited > standsStill {
				return 0, 0, &problem{err: fmt.Errorf("no block has come after block %d for %s: the chain stands still", begun, waited.Round(time.Second)), name: "chain_stalled",
					hint: "nothing was written: if the chain waits for this validator, a safe height is not to be found from blocks; see \"Lost sign state\" in docs/OPERATING.md"}
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		height, grown = height+1, time.Now()
		for _, s := range commit.Signatures {
			if string(s.ValidatorAddress) == string(address) && s.BlockIDFlag != types.BlockIDFlagAbsent {
				signed = height
			}
		}
		// The block after may have a signature that this node gave before it stopped.
		if signed > begun+1 {
			return 0, 0, &problem{err: fmt.Errorf("block %d is signed by the key %s while this node is stopped: it signs on another machine", signed, strings.ToUpper(hex.EncodeToString(address))), name: "key_signs_elsewhere",
				hint: "nothing was written; stop the other node and take the key away from it, then run this again"}
		}
		if left := int64(max(begun, signed+blocks)) - int64(height); left > 0 && time.Since(said) > 2*time.Second {
			said = time.Now()
			c.say("block %d; the key has last signed block %d; %d more to see without it", height, signed, left)
		}
	}
	return height + 1, signed, nil // the next block is there
}
