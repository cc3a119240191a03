package client

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	// recentBlocks is how many of the newest blocks are searched for a validator's last signature.
	recentBlocks = 20
	// missedBlocks is how many of the newest ones a validator may be missing from before it counts as offline. A block is
	// made as soon as two thirds have signed, so a healthy but slower validator is missing from some of them.
	missedBlocks = 3
)

// stalledAfter is how old the newest block of a network that makes at least one per second may be, a dead proposer and a
// clock that is a little off included.
const stalledAfter = 8 * time.Second

// stalledPatience is how long a network whose newest block is old gets to show another: a dead proposer's turn included.
const stalledPatience = 4 * time.Second

// Status is what nodes say about their network. Nothing of it is verified: it is for operators, about their own nodes.
type Status struct {
	ChainID    string            `json:"chain_id"`
	Height     uint64            `json:"height"`
	Time       time.Time         `json:"time"` // of the newest block
	Hash       string            `json:"hash"` // of the newest block: with the height, a --trust
	AppHash    string            `json:"app_hash"`
	Nodes      []NodeStatus      `json:"nodes"`
	Validators []ValidatorStatus `json:"validators"`
	// TotalPower is that of all validators, OnlinePower of those that signed one of the last three blocks.
	TotalPower  int64 `json:"total_power"`
	OnlinePower int64 `json:"online_power"`
	// Stalled: no block for a while; the online validators are then those whose votes for the next one are seen.
	Stalled bool `json:"stalled"`
	// MayFail is how many validators, the strongest first, can still fail before the network stops; -1 when it has
	// stopped already.
	MayFail int `json:"may_fail"`
}

// NodeStatus is one node that was asked.
type NodeStatus struct {
	URL        string `json:"url"`
	Error      string `json:"error,omitempty"` // why it did not answer
	Moniker    string `json:"moniker,omitempty"`
	NodeID     string `json:"node_id,omitempty"`
	Height     uint64 `json:"height,omitempty"`
	CatchingUp bool   `json:"catching_up"`
	Peers      int    `json:"peers"`
}

// ValidatorStatus is one validator of the set.
type ValidatorStatus struct {
	Address string `json:"address"`
	Name    string `json:"name,omitempty"` // that its operator has given it
	KeyType string `json:"key_type"`
	Power   int64  `json:"power"`
	Online  bool   `json:"online"`
	// LastSigned is the newest of the last blocks that it signed; 0: none of them.
	LastSigned uint64 `json:"last_signed"`
	// Late is how many of the newest twenty blocks it is missing from: its votes came after two thirds had decided, or never.
	Late int `json:"late"`
}

// Survey asks every node how it is, and the one that is furthest about the validators. It fails only when none answers.
func Survey(ctx context.Context, urls []string) (*Status, error) {
	s := &Status{Nodes: make([]NodeStatus, len(urls))}
	nodes := make([]*node, len(urls))
	for i, u := range urls {
		n, err := newNode(u)
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	var wait sync.WaitGroup
	for i, n := range nodes {
		wait.Go(func() { s.Nodes[i] = n.status(ctx) })
	}
	wait.Wait()
	best := -1
	var errs []error
	for i, n := range s.Nodes {
		switch {
		case n.Error != "":
			errs = append(errs, errors.New(n.Error))
		case best < 0 || n.Height > s.Nodes[best].Height:
			best = i
		}
	}
	if best < 0 {
		return nil, fmt.Errorf("no node answers: %w", errors.Join(errs...))
	}
	return s, s.survey(ctx, nodes[best])
}

func (n *node) status(ctx context.Context) NodeStatus {
	s := NodeStatus{URL: n.name}
	status, err := n.rpc.Status(ctx)
	if err != nil {
		s.Error = (&nodeError{n.name, err}).Error()
		return s
	}
	s.Moniker, s.NodeID = status.NodeInfo.Moniker, string(status.NodeInfo.ID())
	s.Height, s.CatchingUp = uint64(status.SyncInfo.LatestBlockHeight), status.SyncInfo.CatchingUp
	if info, err := n.rpc.NetInfo(ctx); err == nil {
		s.Peers = info.NPeers
	}
	return s
}

// survey fills in what the last blocks say.
func (s *Status) survey(ctx context.Context, n *node) error {
	newest, err := n.rpc.Commit(ctx, nil)
	if err != nil {
		return &nodeError{n.name, err}
	}
	s.ChainID, s.Height, s.Time = newest.ChainID, uint64(newest.Height), newest.Time.UTC()
	s.Hash, s.AppHash = hex.EncodeToString(newest.Header.Hash()), hex.EncodeToString(newest.AppHash)
	page, perPage := 1, 100
	set, err := n.rpc.Validators(ctx, &newest.Height, &page, &perPage)
	if err != nil {
		return &nodeError{n.name, err}
	}
	signed, late := map[string]uint64{}, map[string]int{}
	for h := newest.Height; h > 0 && h > newest.Height-recentBlocks; h-- {
		commit := newest
		if h != newest.Height {
			if commit, err = n.rpc.Commit(ctx, &h); err != nil {
				break // pruned: what is there is enough
			}
		}
		here := map[string]bool{}
		for _, v := range commit.Commit.Signatures {
			here[v.ValidatorAddress.String()] = v.BlockIDFlag != types.BlockIDFlagAbsent
			if v.BlockIDFlag != types.BlockIDFlagAbsent && signed[v.ValidatorAddress.String()] == 0 {
				signed[v.ValidatorAddress.String()] = uint64(h)
			}
		}
		if commit.ValidatorsHash.String() == newest.ValidatorsHash.String() { // below a change, others voted
			for _, v := range set.Validators {
				if !here[v.Address.String()] {
					late[v.Address.String()]++
				}
			}
		}
	}
	if s.Stalled = time.Since(newest.Time) > stalledAfter; s.Stalled {
		// A block's time is that of the votes below it: the first one after a pause looks as old as the last before it.
		select {
		case <-ctx.Done():
		case <-time.After(stalledPatience):
		}
		if later, err := n.rpc.Commit(ctx, nil); err == nil {
			s.Stalled = later.Height == newest.Height
		}
	}
	voted := map[string]uint64{}
	if s.Stalled {
		// The last blocks are old. Who is there now shows in the votes of the round that does not come to an end, whose set may be
		// another than that of the last block.
		next := newest.Height + 1
		if set, err = n.rpc.Validators(ctx, &next, &page, &perPage); err != nil {
			return &nodeError{n.name, err}
		}
		if voted, err = n.voters(ctx, set.Validators); err != nil {
			return err
		}
	}
	names := n.validatorNames(ctx)
	var online []int64
	for _, v := range set.Validators {
		vs := ValidatorStatus{Address: v.Address.String(), Name: names[v.Address.String()], KeyType: v.PubKey.Type(), Power: v.VotingPower, LastSigned: signed[v.Address.String()], Late: late[v.Address.String()]}
		vs.Online = vs.LastSigned+missedBlocks > s.Height
		if s.Stalled {
			vs.Online = voted[vs.Address] > 0
		}
		s.TotalPower += v.VotingPower
		if vs.Online {
			s.OnlinePower += v.VotingPower
			online = append(online, v.VotingPower)
		}
		s.Validators = append(s.Validators, vs)
	}
	s.MayFail = mayFail(online, s.TotalPower)
	return nil
}

// validatorNames asks for the names in the newest state, by consensus address. They only stand beside the addresses: a node
// that does not say them is asked no further.
func (n *node) validatorNames(ctx context.Context) map[string]string {
	tree, ok := ledger.TreeOf(ledger.ValidatorsRow())
	if !ok {
		return nil
	}
	answer, err := n.query(ctx, query.StorePath(tree), ledger.ValidatorsRow(), 0, false)
	if err != nil {
		return nil
	}
	set, err := ledger.DecodeValidators(answer.Value)
	if err != nil {
		return nil
	}
	names := map[string]string{}
	for _, v := range set {
		names[fmt.Sprintf("%X", v.Address())] = v.Name
	}
	return names
}

// voters returns who has voted in the present round, by address.
func (n *node) voters(ctx context.Context, set []*types.Validator) (map[string]uint64, error) {
	state, err := n.rpc.ConsensusState(ctx)
	if err != nil {
		return nil, &nodeError{n.name, err}
	}
	var round struct {
		Place string `json:"height/round/step"`
		Votes []struct {
			Prevotes   []string `json:"prevotes"`
			Precommits []string `json:"precommits"`
		} `json:"height_vote_set"`
	}
	if err := json.Unmarshal(state.RoundState, &round); err != nil {
		return nil, &nodeError{n.name, fmt.Errorf("reading its consensus state: %w", err)}
	}
	place, _, _ := strings.Cut(round.Place, "/")
	height, _ := strconv.ParseUint(place, 10, 64)
	voted := map[string]uint64{}
	for _, votes := range round.Votes {
		for _, list := range [][]string{votes.Prevotes, votes.Precommits} {
			for i, vote := range list {
				if i < len(set) && vote != "nil-Vote" {
					voted[set[i].Address.String()] = height
				}
			}
		}
	}
	return voted, nil
}

// mayFail returns how many of the online validators can go, the strongest first, with more than two thirds of the total
// left; -1 when there is less already.
func mayFail(online []int64, total int64) int {
	slices.Sort(online)
	left := int64(0)
	for _, p := range online {
		left += p
	}
	n := -1
	for ; left*3 > total*2; n++ { // ends: with nobody online, left is 0
		left -= online[len(online)-1]
		online = online[:len(online)-1]
	}
	return n
}

// Readiness is a node's answer to /readyz.
type Readiness struct {
	ChainID    string   `json:"chain_id,omitempty"` // that the node says it is of
	OK         bool     `json:"ok"`
	Reasons    []string `json:"reasons,omitempty"`
	Height     uint64   `json:"height"`
	CatchingUp bool     `json:"catching_up"`
	Peers      int      `json:"peers"`
}

// Ready asks a node whether it advances. An error means that it did not answer.
func Ready(ctx context.Context, address string) (r Readiness, err error) {
	n, err := newNode(address)
	if err != nil {
		return r, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+"/readyz", nil)
	if err != nil {
		return r, &nodeError{n.name, err}
	}
	response, err := n.web.Do(request)
	if err != nil {
		return r, &nodeError{n.name, err}
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&r); err != nil {
		return r, &nodeError{n.name, fmt.Errorf("reading its health: %w", err)}
	}
	return r, nil
}
