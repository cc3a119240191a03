package app

import (
	"context"

	abcicli "github.com/cometbft/cometbft/abci/client"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/libs/service"
	"github.com/cometbft/cometbft/proxy"
)

// ClientCreator connects CometBFT to an application in the same process without the lock that CometBFT's own local
// clients hold around every call: queries and admission must not wait for execution, nor for each other. [App] keeps its
// own order where it needs one.
//
// fatal is called, with what was recovered, when FinalizeBlock, Commit or InitChain panics or fails: it must end the
// process. CometBFT would recover the panic and go on as a node that never advances again.
func ClientCreator(application abci.Application, fatal func(call string, cause any)) proxy.ClientCreator {
	return &creator{application, fatal}
}

type creator struct {
	application abci.Application
	fatal       func(string, any)
}

func (c *creator) NewABCIClient() (abcicli.Client, error) {
	client := &directClient{Application: c.application, fatal: c.fatal}
	client.BaseService = *service.NewBaseService(nil, "directClient", client)
	return client, nil
}

// directClient hands every call to the application as it comes.
type directClient struct {
	service.BaseService
	abci.Application
	fatal    func(string, any)
	callback abcicli.Callback
}

func (c *directClient) Error() error                { return nil }
func (c *directClient) Flush(context.Context) error { return nil }
func (c *directClient) Echo(_ context.Context, message string) (*abci.ResponseEcho, error) {
	return &abci.ResponseEcho{Message: message}, nil
}

// SetResponseCallback is called once, before the first CheckTxAsync.
func (c *directClient) SetResponseCallback(callback abcicli.Callback) { c.callback = callback }

// CheckTxAsync serves CometBFT's own mempool, where an operator has chosen it; it answers before it returns.
func (c *directClient) CheckTxAsync(ctx context.Context, req *abci.RequestCheckTx) (*abcicli.ReqRes, error) {
	res, err := c.CheckTx(ctx, req)
	if err != nil {
		return nil, err
	}
	request, response := abci.ToRequestCheckTx(req), abci.ToResponseCheckTx(res)
	if c.callback != nil {
		c.callback(request, response)
	}
	r := abcicli.NewReqRes(request)
	r.Response = response
	r.Done() // the answer is there: whoever waits for it must not wait for ever
	r.InvokeCallback()
	return r, nil
}

// stop ends the process when a call that must not fail has failed.
func (c *directClient) stop(call string, err *error) {
	if r := recover(); r != nil {
		c.fatal(call, r)
		panic(r)
	}
	if *err != nil {
		c.fatal(call, *err)
	}
}

func (c *directClient) InitChain(ctx context.Context, req *abci.RequestInitChain) (res *abci.ResponseInitChain, err error) {
	defer c.stop("InitChain", &err)
	return c.Application.InitChain(ctx, req)
}

func (c *directClient) FinalizeBlock(ctx context.Context, req *abci.RequestFinalizeBlock) (res *abci.ResponseFinalizeBlock, err error) {
	defer c.stop("FinalizeBlock", &err)
	return c.Application.FinalizeBlock(ctx, req)
}

func (c *directClient) Commit(ctx context.Context, req *abci.RequestCommit) (res *abci.ResponseCommit, err error) {
	defer c.stop("Commit", &err)
	return c.Application.Commit(ctx, req)
}
