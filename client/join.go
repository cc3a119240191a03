package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/genesis"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// What a new node of a running network asks those that are there. Nothing of it is verified: the network's id is, by whoever
// was told it, and peers prove their ids when they are connected to.

// maxGenesisChunk bounds one chunk of a genesis file: 16 MiB in base64, and JSON around it.
const maxGenesisChunk = 24 << 20

// FetchGenesis asks nodes for the genesis document of their network, and returns it with the identity of the network that
// begins with it. The caller compares that with what it was told by somebody trusted. All that answer have to give the same:
// CometBFT's own parameters are not in the identity, and one node could give others.
func FetchGenesis(ctx context.Context, urls []string) (*types.GenesisDoc, ledger.Network, error) {
	var errs []error
	var first []byte
	var from string
	var found *types.GenesisDoc
	var identity ledger.Network
	for _, u := range urls {
		n, err := newNode(u)
		if err != nil {
			return nil, ledger.Network{}, err
		}
		text, err := n.genesisFile(ctx)
		if err == nil {
			var doc *types.GenesisDoc
			if doc, err = genesis.Parse(text); err == nil {
				var network ledger.Network
				if network, err = genesis.NetworkOf(doc); err == nil {
					if text, err = cmtjson.Marshal(doc); err == nil {
						if found != nil && !bytes.Equal(text, first) {
							return nil, ledger.Network{}, &nodeError{n.name, fmt.Errorf("gives another genesis document than %s: leave out the one that you do not trust", from)}
						}
						first, from, found, identity = text, n.name, doc, network
						continue
					}
				}
			}
		}
		errs = append(errs, &nodeError{n.name, fmt.Errorf("fetching genesis: %w", err)})
	}
	if found != nil {
		return found, identity, nil
	}
	return nil, ledger.Network{}, join(append(errs, errIfNone(urls))...)
}

func errIfNone(urls []string) error {
	if len(urls) == 0 {
		return errors.New("no node is given")
	}
	return nil
}

// genesisFile puts the chunks together. CometBFT's client is not used: what it may read at once is bounded to less.
func (n *node) genesisFile(ctx context.Context) ([]byte, error) {
	var file []byte
	for chunk, total := 0, 1; chunk < total; chunk++ {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/genesis_chunked?chunk=%d", n.base, chunk), nil)
		if err != nil {
			return nil, err
		}
		response, err := n.web.Do(request)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, maxGenesisChunk))
		response.Body.Close()
		if err != nil {
			return nil, err
		}
		var answer struct {
			Result struct {
				Total int    `json:"total,string"`
				Data  []byte `json:"data"`
			} `json:"result"`
			Error *struct {
				Data string `json:"data"`
			} `json:"error"`
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return nil, fmt.Errorf("chunk %d: %w", chunk, err)
		}
		if answer.Error != nil {
			return nil, fmt.Errorf("chunk %d: %s", chunk, printable(answer.Error.Data))
		}
		total = answer.Result.Total
		if file = append(file, answer.Result.Data...); len(file) > MaxGenesisFile {
			return nil, fmt.Errorf("has more than %d bytes", MaxGenesisFile)
		}
	}
	return bytes.Clone(file), nil
}

// PeerAddresses asks nodes for their own addresses in the network of nodes and for those of their peers, as
// node_id@host:port, each once. Where a node says that it listens on every address, it is the one by which it was asked, or by
// which its peer sees it.
func PeerAddresses(ctx context.Context, urls []string) ([]string, error) {
	var list []string
	seen := map[string]bool{}
	add := func(id, listen, host string) {
		if _, address, ok := strings.Cut(listen, "://"); ok {
			listen = address
		}
		own, port, err := net.SplitHostPort(listen)
		if err != nil || len(id) != 40 || seen[id] {
			return
		}
		if ip := net.ParseIP(own); own != "" && (ip == nil || !ip.IsUnspecified()) {
			host = own
		}
		if host != "" {
			seen[id] = true
			list = append(list, id+"@"+net.JoinHostPort(host, port))
		}
	}
	var errs []error
	for _, u := range urls {
		n, err := newNode(u)
		if err != nil {
			return nil, err
		}
		status, err := n.rpc.Status(ctx)
		if err != nil {
			errs = append(errs, &nodeError{n.name, err})
			continue
		}
		host := ""
		if base, err := url.Parse(n.base); err == nil {
			host = base.Hostname()
		}
		add(string(status.NodeInfo.ID()), status.NodeInfo.ListenAddr, host)
		peers, err := n.rpc.NetInfo(ctx)
		if err != nil {
			errs = append(errs, &nodeError{n.name, err})
			continue
		}
		for _, p := range peers.Peers {
			add(string(p.NodeInfo.ID()), p.NodeInfo.ListenAddr, p.RemoteIP)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no node tells its address: %w", join(append(errs, errIfNone(urls))...))
	}
	return list, nil
}
