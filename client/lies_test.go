package client_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/clienttest"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/proof"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// hide lets a node take transactions and lose them, and know of none.
func hide(n *clienttest.Node, chain *clienttest.Chain, t *testing.T) {
	n.Lie(clienttest.Lies{Submit: swallow(t, chain), Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path == query.PathTx {
			*a = abci.ResponseQuery{Code: query.NotFound, Log: "never heard of it"}
		}
	}})
}

// A line that was closed after the payment, and the mark is zero.
func TestPaidAndClosedIsNotDead(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "r1", alice.Address(), bob.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	id := ledger.NewAssetID(alice.Address(), "AST")
	does(t, c, alice, &ledger.CreateAsset{Code: "AST", MaxSupply: ledger.Units(1000)}, &ledger.Transfer{To: bob.Address(), Asset: id, Amount: ledger.Units(50)})
	in := client.Intent{Signers: []crypto.Address{bob.Address()}, Known: []crypto.Policy{bob.Policy()}, ValidFor: 3 * time.Second,
		Operations: []ledger.Operation{&ledger.Transfer{To: alice.Address(), Asset: id, Amount: ledger.Units(50)}, &ledger.CloseLine{Asset: id, To: bob.Address()}}}
	raw, _ := signed(t, c, in, bob)
	f, err := c.Send(soon(t), raw, client.Mark{})
	if err != nil || f.Receipt.Code != ledger.OK {
		t.Fatal(err, f.Receipt.Code)
	}
	hide(n, chain, t)
	f, err = c.Send(within(t, 8*time.Second), raw, client.Mark{})
	if _, ok := errors.AsType[*client.Dead](err); ok {
		t.Fatalf("committed payment declared dead: %v", err)
	}
	t.Log(err)
}

// A stranger sponsors a transaction that moves nothing: its fee stands in the journal of the stranger.
func TestSponsoredByAStrangerIsNotDead(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "r2", alice.Address(), bob.Address(), clienttest.Signer("mallory").Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	mallory := clienttest.Signer("mallory")
	grant := &ledger.SetGrant{Grantee: bob.Address(), For: ledger.KindTransfer, Asset: pac, Total: ledger.Units(100), Until: uint64(time.Now().Add(time.Hour).Unix())}
	does(t, c, alice, grant)
	does(t, c, mallory, &ledger.Transfer{To: bob.Address(), Asset: pac, Amount: ledger.Units(1)})
	raw, b := signed(t, c, client.Intent{Signers: []crypto.Address{alice.Address()}, Known: []crypto.Policy{alice.Policy()}, ValidFor: 3 * time.Second, Operations: []ledger.Operation{grant}})
	mark := b.Before
	s, err := c.Sponsor(soon(t), b.Draft, client.Intent{Sponsor: mallory.Address()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(mallory); err != nil {
		t.Fatal(err)
	}
	theirs, err := s.Raw()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := c.Send(soon(t), theirs, client.Mark{}); err != nil || f.Receipt.Code != ledger.OK {
		t.Fatal(err, f.Receipt.Code)
	}
	hide(n, chain, t)
	_, err = c.Send(within(t, 8*time.Second), raw, mark)
	if _, ok := errors.AsType[*client.Dead](err); ok {
		t.Fatalf("committed transaction declared dead: %v", err)
	}
	t.Log(err)
}

// One row named on two pages would hide another one.
func TestListNamesARowTwice(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "r3", alice.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	until := uint64(time.Now().Add(time.Hour).Unix())
	does(t, c, alice, &ledger.SetGrant{Grantee: crypto.Address{1}, For: ledger.KindTransfer, Asset: pac, Total: ledger.Units(5), Until: until},
		&ledger.SetGrant{Grantee: crypto.Address{2}, For: ledger.KindTransfer, Asset: pac, Total: ledger.Units(5), Until: until})
	n.Lie(clienttest.Lies{Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path != query.PathGrants {
			return
		}
		first := ledger.GrantKey{Granter: alice.Address(), Grantee: crypto.Address{1}, Kind: ledger.KindTransfer, Asset: pac}
		keys := [][]byte{ledger.GrantRow(first)}
		if len(q.Data) == 32 {
			for i := range query.MaxKeys - 1 { // made up, absent
				keys = append(keys, ledger.GrantRow(ledger.GrantKey{Granter: alice.Address(), Grantee: crypto.Address{9, byte(i >> 8), byte(i)}, Kind: ledger.KindTransfer, Asset: pac}))
			}
		}
		a.Value = query.EncodeKeys(keys)
	}})
	l, err := c.Grants(within(t, 60*time.Second), alice.Address(), 0)
	if err == nil {
		t.Fatalf("a 'complete' list of %d: %x %x", len(l.Rows), l.Rows[0].Key.Grantee[:2], l.Rows[1].Key.Grantee[:2])
	}
	t.Log(err)
}

// A committed payment is sent again after the policy has changed, to a node that does not show its receipt.
func TestRefusedAgainIsUnknown(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "again", alice.Address(), bob.Address())
	chain.Run(10 * time.Millisecond)
	n := chain.Serve()
	c := dial(t, n)
	raw, b := signed(t, c, client.Intent{Signers: []crypto.Address{bob.Address()}, Known: []crypto.Policy{bob.Policy()},
		Operations: []ledger.Operation{&ledger.Transfer{To: alice.Address(), Asset: pac, Amount: ledger.Units(5)}}}, bob)
	if f, err := c.Send(soon(t), raw, b.Before); err != nil || f.Receipt.Code != ledger.OK {
		t.Fatal(err, f.Receipt.Code)
	}
	next := clienttest.Signer("bob2")
	op, err := client.NewSetPolicy(chain.Network.ID, bob.Address(), 0, next)
	if err != nil {
		t.Fatal(err)
	}
	does(t, c, bob, op)
	id := b.ID()
	n.Lie(clienttest.Lies{Submit: func(w http.ResponseWriter, _ *http.Request) { // what admission answers where the index does not go back that far
		clienttest.Answer(w, http.StatusUnprocessableEntity, id, ledger.PolicyMismatch, "", false, 0)
	}, Answer: func(q *abci.RequestQuery, a *abci.ResponseQuery) {
		if q.Path == query.PathTx {
			*a = abci.ResponseQuery{Code: query.NotFound}
		}
	}})
	f, err := c.SendAgain(within(t, 8*time.Second), raw, b.Before)
	if client.OutcomeOf(f, err) == client.Rejected {
		t.Fatalf("a committed payment is 'refused: did not take effect': %v", err)
	}
	t.Log(err)
}

// TestCommitHidesNobody: a node that leaves a validator's signature out of a block's commit, which light clients take as long as
// two thirds are in it, is noticed, and another one is asked.
func TestCommitHidesNobody(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "commit", alice.Address())
	chain.Run(10 * time.Millisecond)
	liar, honest := chain.Serve(), chain.Serve()
	liar.Lie(clienttest.Lies{Block: func(b *types.LightBlock) *types.LightBlock {
		commit := b.Commit.Clone()
		commit.Signatures[len(commit.Signatures)-1] = types.NewCommitSigAbsent()
		return &types.LightBlock{SignedHeader: &types.SignedHeader{Header: b.Header, Commit: commit}, ValidatorSet: b.ValidatorSet}
	}})
	signers := func(commit *types.Commit) (n int) {
		for _, s := range commit.Signatures {
			if s.BlockIDFlag == types.BlockIDFlagCommit {
				n++
			}
		}
		return n
	}
	alone, both := dial(t, liar), dial(t, liar, honest)
	header, err := alone.Headers().Header(soon(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Commit(soon(t), 2); !errors.Is(err, proof.ErrInvalid) {
		t.Errorf("a liar alone: %v", err)
	}
	commit, err := both.Commit(soon(t), 2)
	if err != nil || signers(commit) != len(commit.Signatures) || signers(commit) <= signers(header.Block.Commit) {
		t.Errorf("%v: %d of %d signatures, with the liar's header %d", err, signers(commit), len(commit.Signatures), signers(header.Block.Commit))
	}
}

// TestFetchGenesis: of nodes that give different genesis files none is believed, also when both are of one network.
func TestFetchGenesis(t *testing.T) {
	t.Parallel()
	chain := clienttest.New(t, "join", alice.Address())
	serve := func(change func(*types.ConsensusParams)) string {
		doc := *chain.Doc
		params := *types.DefaultConsensusParams()
		params.Block.MaxBytes, params.Evidence.MaxBytes, params.Validator.PubKeyTypes = 4<<20, 256<<10, []string{"ed25519", "ml_dsa_65"}
		change(&params)
		doc.ConsensusParams = &params
		text, err := cmtjson.Marshal(&doc)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"result": map[string]any{"total": "1", "data": text}})
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	honest := func(*types.ConsensusParams) {}
	first, second, liar := serve(honest), serve(honest), serve(func(p *types.ConsensusParams) { p.Evidence.MaxAgeNumBlocks = 1 })
	if _, network, err := client.FetchGenesis(soon(t), []string{"http://127.0.0.1:1", first, second}); err != nil || network.ID != chain.Network.ID {
		t.Errorf("%s, %v", network.ID, err)
	}
	if _, _, err := client.FetchGenesis(soon(t), []string{first, liar}); err == nil || !strings.Contains(err.Error(), "another genesis document") {
		t.Errorf("another age of evidence: %v", err)
	}
}
