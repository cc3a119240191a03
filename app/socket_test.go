package app

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abcicli "github.com/cometbft/cometbft/abci/client"
	abciserver "github.com/cometbft/cometbft/abci/server"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/proxy"

	"github.com/pacioli-ledger/pacioli/ledger/query"
)

// TestSocket runs the application behind CometBFT's own socket server and client, and in process behind ClientCreator: the
// answers are the same, so nothing of them depends on sharing memory with CometBFT.
func TestSocket(t *testing.T) {
	w := newWorld(t)
	remote, local := open(t, vfs.NewMem(), nil), open(t, vfs.NewMem(), nil)
	defer closeApp(t, remote)
	defer closeApp(t, local)
	address := "unix://" + filepath.Join(t.TempDir(), "abci.sock")
	server := must[interface {
		Start() error
		Stop() error
	}](t)(abciserver.NewServer(address, "socket", remote))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Stop() }()
	var clients []abcicli.Client
	for _, creator := range []proxy.ClientCreator{proxy.NewRemoteClientCreator(address, "socket", true), ClientCreator(local, func(call string, cause any) { t.Errorf("%s: %v", call, cause) })} {
		c := must[abcicli.Client](t)(creator.NewABCIClient())
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Stop() }()
		clients = append(clients, c)
	}
	// both asks both and compares the answers' bytes; it returns the first.
	type message interface{ Marshal() ([]byte, error) }
	both := func(name string, call func(c abcicli.Client) (message, error)) message {
		t.Helper()
		var answers []message
		var encoded [][]byte
		for _, c := range clients {
			m, err := call(c)
			if err != nil {
				t.Fatalf("%s: %s", name, err)
			}
			answers, encoded = append(answers, m), append(encoded, must[[]byte](t)(m.Marshal()))
		}
		if !bytes.Equal(encoded[0], encoded[1]) {
			t.Fatalf("%s: by socket %+v, in process %+v", name, answers[0], answers[1])
		}
		return answers[0]
	}
	both("Echo", func(c abcicli.Client) (message, error) { return c.Echo(background, "hello") })
	both("Info", func(c abcicli.Client) (message, error) { return c.Info(background, &abci.RequestInfo{}) })
	both("InitChain", func(c abcicli.Client) (message, error) { return c.InitChain(background, w.initChain()) })
	raw := w.transfer(w.actors[1], w.bank.address, 5)
	second := w.transfer(w.actors[1], w.bank.address, 6)
	both("CheckTx", func(c abcicli.Client) (message, error) {
		return c.CheckTx(background, &abci.RequestCheckTx{Tx: raw})
	})
	both("CheckTxAsync", func(c abcicli.Client) (message, error) {
		r, err := c.CheckTxAsync(background, &abci.RequestCheckTx{Tx: []byte("garbage")})
		if err != nil {
			return nil, err
		}
		if err := c.Flush(background); err != nil {
			return nil, err
		}
		r.Wait()
		return r.Response.GetCheckTx(), nil
	})
	both("InsertTx", func(c abcicli.Client) (message, error) {
		return c.InsertTx(background, &abci.RequestInsertTx{Tx: second})
	})
	for _, a := range []*App{remote, local} {
		for begin := time.Now(); a.pool.Stats().Ready < 2 && time.Since(begin) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
	}
	both("ReapTxs", func(c abcicli.Client) (message, error) {
		return c.ReapTxs(background, &abci.RequestReapTxs{MaxBytes: 1 << 20})
	})
	b := block{height: 1, time: w.doc.GenesisTime}
	prepared := both("PrepareProposal", func(c abcicli.Client) (message, error) { return c.PrepareProposal(background, b.prepare(1<<20)) })
	if b.txs = prepared.(*abci.ResponsePrepareProposal).Txs; len(b.txs) != 2 {
		t.Fatalf("%d transactions proposed", len(b.txs))
	}
	both("ProcessProposal", func(c abcicli.Client) (message, error) { return c.ProcessProposal(background, b.process()) })
	both("FinalizeBlock", func(c abcicli.Client) (message, error) { return c.FinalizeBlock(background, b.finalize()) })
	both("FinalizeBlock again", func(c abcicli.Client) (message, error) { return c.FinalizeBlock(background, b.finalize()) })
	both("Commit", func(c abcicli.Client) (message, error) { return c.Commit(background, &abci.RequestCommit{}) })
	both("Info", func(c abcicli.Client) (message, error) { return c.Info(background, &abci.RequestInfo{}) })
	both("Query", func(c abcicli.Client) (message, error) {
		return c.Query(background, &abci.RequestQuery{Path: query.PathAccount, Data: w.bank.address[:]})
	})
	both("ListSnapshots", func(c abcicli.Client) (message, error) {
		return c.ListSnapshots(background, &abci.RequestListSnapshots{})
	})
	both("ExtendVote", func(c abcicli.Client) (message, error) { return c.ExtendVote(background, &abci.RequestExtendVote{}) })
}

// TestFatalCalls: a call that must not fail is reported when it does, also when it panics.
func TestFatalCalls(t *testing.T) {
	a := open(t, vfs.NewMem(), nil)
	defer closeApp(t, a)
	var reported []string
	c := must[abcicli.Client](t)(ClientCreator(a, func(call string, cause any) {
		if cause == nil {
			t.Errorf("%s: no cause", call)
		}
		reported = append(reported, call)
	}).NewABCIClient())
	if _, err := c.FinalizeBlock(background, &abci.RequestFinalizeBlock{Height: 1}); err == nil {
		t.Error("FinalizeBlock without a genesis")
	}
	if _, err := c.Commit(background, &abci.RequestCommit{}); err == nil {
		t.Error("Commit of nothing")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is swallowed")
			}
		}()
		_, _ = c.InitChain(background, nil)
	}()
	if len(reported) != 3 || reported[0] != "FinalizeBlock" || reported[1] != "Commit" || reported[2] != "InitChain" {
		t.Errorf("reported %v", reported)
	}
}
