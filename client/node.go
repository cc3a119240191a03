package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	rpcclient "github.com/cometbft/cometbft/rpc/client"
	rpchttp "github.com/cometbft/cometbft/rpc/client/http"
	jsonrpc "github.com/cometbft/cometbft/rpc/jsonrpc/client"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
	"github.com/pacioli-ledger/pacioli/ledger/query"
)

const (
	// callTimeout bounds one call to one node: a node that takes longer is as good as down, and there are others.
	callTimeout = 10 * time.Second
	// maxAnswer bounds one answer in bytes: the largest is a proof.Inclusion of 2 MiB, in base64.
	maxAnswer = 4 << 20
	// SubmitPath is where a node takes transactions: POST, the raw bytes as application/octet-stream.
	SubmitPath = "/v1/transactions"
)

// node is one node that is asked. It knows how to ask, and nothing about what to believe.
type node struct {
	name string
	base string // URL without a trailing slash
	rpc  *rpchttp.HTTP
	web  *http.Client
}

// newNode makes a node of its URL. Nothing is sent.
func newNode(address string) (*node, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("node %q: want a URL such as http://127.0.0.1:26657", address)
	}
	address = strings.TrimRight(address, "/")
	web, err := jsonrpc.DefaultHTTPClient(address)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", address, err)
	}
	web.Timeout = callTimeout
	web.Transport = bounded{web.Transport}
	n := &node{name: address, base: address, web: web}
	if n.rpc, err = rpchttp.NewWithClient(address, "/websocket", web); err != nil {
		return nil, fmt.Errorf("node %q: %w", address, err)
	}
	// CometBFT's client dials by itself, so what is not RPC needs a transport of the usual kind.
	n.web = &http.Client{Timeout: callTimeout, Transport: connections}
	return n, nil
}

// connections are kept open between submissions: the default of 2 idle ones for each node would make a program that
// sends hundreds at once open a connection for nearly every one.
var connections = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 256
	return t
}()

// bounded cuts answers off at maxAnswer: the RPC client reads to the end, whatever comes.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxAnswer), response.Body}
	}
	return response, err
}

// nodeError says which node failed.
type nodeError struct {
	node string
	err  error
}

func (e *nodeError) Error() string { return "node " + e.node + ": " + printable(e.err.Error()) }
func (e *nodeError) Unwrap() error { return e.err }

// queryError is a node's refusal to answer.
type queryError struct {
	code uint32
	log  string
}

func (e *queryError) Error() string {
	if e.log == "" {
		return fmt.Sprintf("query refused with code %d", e.code)
	}
	return e.log
}

func (e *queryError) Is(target error) bool { return target == ErrPruned && e.code == query.Pruned }

// refusedQuery tells whether the node answered with one of these codes.
func refusedQuery(err error, codes ...uint32) bool {
	q, ok := errors.AsType[*queryError](err)
	for _, c := range codes {
		if ok && q.code == c {
			return true
		}
	}
	return false
}

// query asks for a path. The answer is a stranger's.
func (n *node) query(ctx context.Context, path string, data []byte, height uint64, prove bool) (abci.ResponseQuery, error) {
	result, err := n.rpc.ABCIQueryWithOptions(ctx, path, data, rpcclient.ABCIQueryOptions{Height: int64(height), Prove: prove})
	if err != nil {
		return abci.ResponseQuery{}, &nodeError{n.name, err}
	}
	if r := result.Response; r.Code != 0 {
		return abci.ResponseQuery{}, &nodeError{n.name, &queryError{r.Code, printable(r.Log)}}
	}
	return result.Response, nil
}

// printable keeps a stranger's text short and free of what a terminal would act on.
func printable(text string) string {
	const limit = 500
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// submitAnswer is what a node says to a transaction.
type submitAnswer struct {
	ID      crypto.Hash `json:"id"`
	Code    ledger.Code `json:"code"`
	Name    string      `json:"name"`
	Message string      `json:"message"`
	Retry   bool        `json:"retry"`
	Height  uint64      `json:"height"` // of the block that holds it already; 0: none

	wait time.Duration // from Retry-After
}

// errNotSent is wrapped by errors that came before the node could have read the transaction.
var errNotSent = errors.New("no connection")

// submit hands over a transaction. An error that is not errNotSent leaves open whether the node took it.
func (n *node) submit(ctx context.Context, raw []byte) (submitAnswer, error) {
	fail := func(err error) (submitAnswer, error) { return submitAnswer{}, &nodeError{n.name, err} }
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.base+SubmitPath, bytes.NewReader(raw))
	if err != nil {
		return fail(errors.Join(errNotSent, err))
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	response, err := n.web.Do(request)
	if err != nil {
		if neverConnected(err) {
			err = fmt.Errorf("%w: %w", errNotSent, err)
		}
		return fail(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fail(fmt.Errorf("reading its answer: %w", err))
	}
	var a submitAnswer
	switch response.StatusCode {
	case http.StatusOK, http.StatusUnprocessableEntity, http.StatusServiceUnavailable, http.StatusTooManyRequests:
		err = json.Unmarshal(text, &a)
	default:
		return fail(fmt.Errorf("HTTP status %s: %s", printable(response.Status), printable(string(text))))
	}
	if response.StatusCode == http.StatusServiceUnavailable || response.StatusCode == http.StatusTooManyRequests {
		// Also a proxy in between says so, and not in our JSON.
		if seconds, convErr := strconv.Atoi(response.Header.Get("Retry-After")); convErr == nil && seconds > 0 {
			a.wait = min(time.Duration(seconds)*time.Second, maxBackoff)
		}
		a.Retry = true
		if err != nil {
			a.Message, err = "busy", nil
		}
	}
	if err != nil {
		return fail(fmt.Errorf("its answer to a transaction is not the JSON of %s: %w", SubmitPath, err))
	}
	a.Message = printable(a.Message)
	switch {
	case response.StatusCode == http.StatusOK && a.Code != ledger.OK:
		return fail(fmt.Errorf("accepted the transaction with code %d", a.Code))
	case response.StatusCode == http.StatusUnprocessableEntity && a.Code == ledger.OK:
		return fail(fmt.Errorf("refused the transaction with code 0"))
	}
	return a, nil
}

// isNotFound tells whether the node does not know what was asked for.
func isNotFound(err error) bool { return refusedQuery(err, query.NotFound) }
