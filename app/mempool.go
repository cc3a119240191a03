package app

import (
	"context"

	abci "github.com/cometbft/cometbft/abci/types"
)

// Codespace names the ledger's codes in ABCI answers.
const Codespace = "pacioli"

// CheckTx admits a transaction that came by RPC, and answers when it is verified. Codes from 32000 on mean: not now, try again.
func (a *App) CheckTx(ctx context.Context, req *abci.RequestCheckTx) (*abci.ResponseCheckTx, error) {
	if req.Type == abci.CheckTxType_Recheck {
		return &abci.ResponseCheckTx{Code: abci.CodeTypeOK}, nil // the pool rechecks by itself after every block
	}
	verdict := a.pool.Check(ctx, req.Tx)
	return &abci.ResponseCheckTx{Code: uint32(verdict.Code), Log: verdict.Message, Codespace: Codespace, Data: verdict.ID[:]}, nil
}

// InsertTx takes a transaction from a peer. It runs in the peer's receive routine, where consensus votes wait behind it,
// so it only queues; a full queue sheds the transaction, which the peer offers again later.
func (a *App) InsertTx(_ context.Context, req *abci.RequestInsertTx) (*abci.ResponseInsertTx, error) {
	if !a.pool.Insert(req.Tx) {
		return &abci.ResponseInsertTx{Code: abci.CodeTypeRetry}, nil
	}
	return &abci.ResponseInsertTx{Code: abci.CodeTypeOK}, nil
}

// ReapTxs gives out transactions to offer to peers.
func (a *App) ReapTxs(_ context.Context, req *abci.RequestReapTxs) (*abci.ResponseReapTxs, error) {
	return &abci.ResponseReapTxs{Txs: a.pool.Reap(int64(req.MaxBytes))}, nil
}
