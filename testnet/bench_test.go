package testnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	benchAccounts = 400
	// benchFee is a max_fee that covers 100 transfers: 100 + 10,400 bytes + 100*20 + 5*10 base units are 12,550.
	benchFee = 100_000
	// benchSpread is the number of seconds over which the ends of validity are spread: with the five minutes of a client they
	// stay within the replay window of ten.
	benchSpread = 240
	// benchConnections bounds the submissions under way: 64 at each node, which has a limit of 900 connections.
	benchConnections = 256
	// benchPatience is how long one measurement may take before it is given up: several times what it takes on two cores.
	benchPatience = 90 * time.Second
)

// BenchmarkNetwork pays through four validators, each a process of this machine with the settings of `pacioli init`, and
// measures what a client sees. It is a closed loop: a window of transactions is submitted and not yet committed, and the
// next one follows when one of them is. They are signed before, go by HTTP to all nodes in turn, and are committed when the
// application of node 0 has executed and stored their block and has told their receipts.
//
// One operation of the benchmark is all its transactions, whose number is fixed; PACIOLI_TIMES multiplies it. The machine's
// cores carry four validators and the client, whose share is client-us/tx: a validator with cores of its own does more.
//
//	go test ./testnet -run '^$' -bench Network -benchtime 1x -v
func BenchmarkNetwork(b *testing.B) {
	payers := make([]*client.Keys, benchAccounts)
	addresses := make([]crypto.Address, benchAccounts)
	for i := range payers {
		seed := make([]byte, crypto.SeedSize)
		binary.BigEndian.PutUint64(seed, uint64(i))
		private, err := crypto.NewPrivateKey(crypto.Ed25519, seed)
		if err != nil {
			b.Fatal(err)
		}
		if payers[i], err = client.NewKeys(private); err != nil {
			b.Fatal(err)
		}
		addresses[i] = payers[i].Address()
	}
	c := openCluster(b, LocalOptions{Validators: 4, KeyType: node.KeyEd25519, ChainID: "bench", Accounts: addresses, Funds: 1e12})
	c.startAll()
	parameters, err := c.client.Parameters(context.Background(), 0)
	if err != nil {
		b.Fatal(err)
	}
	p := &payments{cluster: c, payers: payers, network: c.client.NetworkID(), asset: parameters.Value.FeeAsset}
	transport := &http.Transport{MaxConnsPerHost: benchConnections, MaxIdleConnsPerHost: benchConnections}
	defer transport.CloseIdleConnections()
	p.http = &http.Client{Transport: transport, Timeout: 30 * time.Second}

	// The first transaction of an account carries its policy, and registers it.
	p.run(b, p.sign(b, benchAccounts, 1, true), benchConnections)

	times := int(number(b, "PACIOLI_TIMES", 1))
	for _, m := range []struct{ window, txs, transfers int }{{1, 60, 1}, {64, 5_000, 1}, {2_000, 20_000, 1}, {64, 600, 100}} {
		b.Run(fmt.Sprintf("window=%d/transfers=%d", m.window, m.transfers), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				raws := p.sign(b, m.txs*times, m.transfers, false)
				b.StartTimer()
				p.run(b, raws, m.window).report(b, m.transfers)
			}
		})
	}
	for i := range c.nodes {
		for _, line := range append(c.logged(i, "level=ERROR"), c.logged(i, "level=WARN")...) {
			b.Logf("node %d: %s", i, line)
		}
	}
}

// payments are what BenchmarkNetwork pays with.
type payments struct {
	*cluster
	payers  []*client.Keys
	network ledger.Network
	asset   ledger.AssetID
	http    *http.Client
	nonce   uint64
}

// signed is a transaction that is ready to be sent.
type signed struct {
	id  crypto.Hash
	raw []byte
}

// sign makes n transactions, by the payers in turn, of transfers to the payers that follow.
func (p *payments) sign(b *testing.B, n, transfers int, first bool) []signed {
	b.Helper()
	list := make([]signed, n)
	// As if they had been signed over benchSpread: the ledger remembers 65,536 nonces for each second of valid_until.
	until := uint64(time.Now().Add(client.DefaultValidFor).Unix())
	for i := range list {
		payer := p.payers[i%len(p.payers)]
		signer := ledger.Signer{Address: payer.Address()}
		p.nonce++
		binary.BigEndian.PutUint64(signer.Nonce[:], p.nonce)
		if first {
			signer.Policy = payer.Policy().Encode()
		}
		body := ledger.Body{Signers: []ledger.Signer{signer}, ValidUntil: until + uint64(i%benchSpread), MaxFee: ledger.Units(benchFee)}
		for j := range transfers {
			to := p.payers[(i+1+j)%len(p.payers)]
			body.Operations = append(body.Operations, &ledger.Transfer{To: to.Address(), Asset: p.asset, Amount: ledger.Units(1)})
		}
		encoded := body.Encode()
		signature, err := payer.Sign(0, ledger.Preimage(p.network.ID, encoded, 0))
		if err != nil {
			b.Fatal(err)
		}
		list[i] = signed{ledger.BodyID(p.network.ID, encoded), ledger.Assemble(encoded, []ledger.Witness{{Signature: signature}}, nil)}
	}
	return list
}

// measured is what came out of one run.
type measured struct {
	txs, blocks, rounds int // rounds: beyond the first one of a block
	busy                int64
	took, longestGap    time.Duration
	latencies           []time.Duration // ascending
	nodes, client       time.Duration   // processor time
	memory              int64           // bytes of all nodes at the end
}

func (m measured) report(b *testing.B, transfers int) {
	b.Helper()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(m.txs) }
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op") // it would say what tx/s says
	b.ReportMetric(float64(m.txs)/m.took.Seconds(), "tx/s")
	if transfers > 1 {
		b.ReportMetric(float64(m.txs*transfers)/m.took.Seconds(), "transfers/s")
	}
	b.ReportMetric(ms(m.latencies[len(m.latencies)/2]), "p50-ms")
	b.ReportMetric(ms(m.latencies[len(m.latencies)*99/100]), "p99-ms")
	b.ReportMetric(ms(m.longestGap), "gap-ms")
	b.ReportMetric(float64(m.blocks), "blocks")
	b.ReportMetric(float64(m.rounds), "failed-rounds")
	b.ReportMetric(float64(m.busy), "503s")
	b.ReportMetric(each(m.nodes), "nodes-us/tx")
	b.ReportMetric(each(m.client), "client-us/tx")
	b.ReportMetric(float64(m.memory)/(1<<20), "nodes-MiB")
}

// run submits all transactions with at most window of them not committed, and returns when all are.
func (p *payments) run(b *testing.B, txs []signed, window int) measured {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.factor*benchPatience)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	begin, err := p.executed(ctx)
	if err != nil {
		b.Fatal(err)
	}
	m := measured{txs: len(txs)}
	nodes, own, began := p.processors(), processor(b, "self"), time.Now()
	sent := make([]atomic.Int64, len(txs)) // nanoseconds since began
	index := make(map[crypto.Hash]int, len(txs))
	for i, tx := range txs {
		index[tx.id] = i
	}
	slots := make(chan struct{}, window)
	var next, busy atomic.Int64
	var submitters sync.WaitGroup
	for range min(window, benchConnections) {
		submitters.Go(func() {
			for {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				i := int(next.Add(1)) - 1
				if i >= len(txs) {
					return
				}
				sent[i].Store(int64(time.Since(began)))
				if err := p.submit(ctx, i, txs[i].raw, &busy); err != nil {
					fail(err)
					return
				}
			}
		})
	}

	height, lastBlock := begin, began
	for len(index) > 0 && ctx.Err() == nil {
		newest, err := p.executed(ctx)
		if err != nil {
			fail(err)
		}
		if newest == height {
			time.Sleep(4 * time.Millisecond)
			continue
		}
		for height < newest && ctx.Err() == nil {
			receipts, err := p.receipts(ctx, height+1)
			if err != nil {
				fail(err)
				break
			}
			height++
			now := time.Now()
			m.longestGap = max(m.longestGap, now.Sub(lastBlock))
			lastBlock = now
			for _, r := range receipts {
				i, ours := index[r.TxID]
				if !ours || r.Code != ledger.OK {
					fail(fmt.Errorf("block %d has transaction %s, which ended with %s; ours and open: %t", height, r.TxID, r.Code, ours))
					break
				}
				delete(index, r.TxID)
				m.latencies = append(m.latencies, now.Sub(began)-time.Duration(sent[i].Load()))
				<-slots
			}
		}
	}
	m.took = time.Since(began)
	m.nodes, m.client = p.processors()-nodes, processor(b, "self")-own
	open := len(index)
	fail(nil) // ends the submitters that wait for a slot
	submitters.Wait()
	if open > 0 {
		b.Fatalf("%d of %d transactions are not committed after %s: %v", open, len(txs), m.took.Round(time.Millisecond), context.Cause(ctx))
	}
	m.busy, m.blocks = busy.Load(), int(height-begin)
	slices.Sort(m.latencies)
	for h := begin + 1; h <= height; h++ {
		m.rounds += p.round(b, h)
	}
	for i := range p.nodes {
		p.alive(i)
		m.memory += memory(b, p.exit[i].Process.Pid)
	}
	return m
}

// submit hands a transaction to the nodes in turn until one takes it. busy counts the times that one did not.
func (p *payments) submit(ctx context.Context, turn int, raw []byte, busy *atomic.Int64) error {
	urls := p.local.URLs()
	for ; ; turn++ {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, urls[turn%len(urls)]+client.SubmitPath, bytes.NewReader(raw))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/octet-stream")
		response, err := p.http.Do(request)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		switch {
		case err != nil:
			return err
		case response.StatusCode == http.StatusOK:
			return nil
		case response.StatusCode != http.StatusServiceUnavailable:
			return fmt.Errorf("submitting to %s: %s: %s", request.URL, response.Status, text)
		}
		busy.Add(1)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// get asks node 0 by RPC, with as little work for both sides as it takes.
func (p *payments) get(ctx context.Context, path string, result any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.local.URLs()[0]+path, nil)
	if err != nil {
		return err
	}
	response, err := p.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Result any             `json:"result"`
		Error  json.RawMessage `json:"error"`
	}{Result: result}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(answer.Error) > 0 {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// executed returns the newest height whose state is stored. CometBFT's status would name a block before it is executed.
func (p *payments) executed(ctx context.Context) (uint64, error) {
	var r struct {
		Response struct {
			Height uint64 `json:"last_block_height,string"`
		} `json:"response"`
	}
	err := p.get(ctx, "/abci_info", &r)
	return r.Response.Height, err
}

func (p *payments) receipts(ctx context.Context, height uint64) ([]ledger.Receipt, error) {
	var r struct {
		Results []struct {
			Data []byte `json:"data"`
		} `json:"txs_results"`
	}
	if err := p.get(ctx, fmt.Sprintf("/block_results?height=%d", height), &r); err != nil {
		return nil, err
	}
	receipts := make([]ledger.Receipt, len(r.Results))
	for i, result := range r.Results {
		var err error
		if receipts[i], err = ledger.DecodeReceipt(result.Data); err != nil {
			return nil, fmt.Errorf("receipt %d of block %d: %w", i, height, err)
		}
	}
	return receipts, nil
}

// round returns the round in which a block was committed: 0 when the first proposal was.
func (p *payments) round(b *testing.B, height uint64) int {
	b.Helper()
	var r struct {
		Header struct {
			Commit struct {
				Round int `json:"round"`
			} `json:"commit"`
		} `json:"signed_header"`
	}
	if err := p.get(context.Background(), fmt.Sprintf("/commit?height=%d", height), &r); err != nil {
		b.Fatal(err)
	}
	return r.Header.Commit.Round
}

// processors returns the processor time of all nodes so far.
func (p *payments) processors() (sum time.Duration) {
	for i := range p.nodes {
		p.alive(i)
		sum += processor(p, strconv.Itoa(p.exit[i].Process.Pid))
	}
	return sum
}

// processor returns the user and system time of a process, in the kernel's ticks of 10 ms.
func processor(t testing.TB, process string) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name in parentheses may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		t.Fatalf("/proc/%s/stat is %q", process, text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory returns the bytes of a process that are in memory.
func memory(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		t.Fatalf("/proc/%d/statm is %q", pid, text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
