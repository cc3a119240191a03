package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	fileFormat  = "pacioli.tx"
	fileVersion = 1
	// MaxDraftFile bounds a transaction file: body and signatures are at most 256 KiB, and base64 and JSON double that.
	MaxDraftFile = 2 << 20
)

// draftFile is a transaction on its way between machines. Whoever signs decodes the body and looks at that: what stands
// beside it for people to read is not read back.
type draftFile struct {
	Format    string       `json:"format"`
	Version   int          `json:"version"`
	NetworkID crypto.Hash  `json:"network_id"`
	ChainID   string       `json:"chain_id"`
	ID        crypto.Hash  `json:"id"` // of the transaction, derived from network and body
	Body      []byte       `json:"body"`
	Signers   []fileSigner `json:"signers"`
	Sponsor   *fileSponsor `json:"sponsor,omitempty"`
	Before    *Mark        `json:"journal_before,omitempty"`
	View      any          `json:"view,omitempty"` // for people only
}

type fileSigner struct {
	Address       crypto.Address  `json:"address"`
	Policy        []byte          `json:"policy"`
	PolicyVersion uint32          `json:"policy_version"`
	Signatures    []fileSignature `json:"signatures"`
}

// fileSponsor is a signer that pays. Its limits are base units of the fee asset, in decimal digits.
type fileSponsor struct {
	fileSigner
	CarriesPolicy bool   `json:"carries_policy,omitempty"` // its account has no row yet
	MaxFee        string `json:"max_fee"`
	MaxDeposit    string `json:"max_deposit"`
}

type fileSignature struct {
	Key       uint32 `json:"key"`
	Signature []byte `json:"signature"`
}

// Encode writes the draft as a JSON file. The view is shown to people and ignored by [DecodeDraft].
func (d *Draft) Encode(view any) ([]byte, error) {
	f := draftFile{Format: fileFormat, Version: fileVersion, NetworkID: d.network.ID, ChainID: d.network.ChainID, ID: d.ID(), Body: d.body, Before: d.Before, View: view}
	for i, a := range d.accounts {
		s := fileSigner{Address: d.Address(i), Policy: a.Policy.Encode(), PolicyVersion: a.Version, Signatures: []fileSignature{}}
		for _, w := range d.witness {
			if int(w.Signer) == i {
				s.Signatures = append(s.Signatures, fileSignature{w.Key, w.Signature})
			}
		}
		if i == len(d.decoded.Signers) {
			f.Sponsor = &fileSponsor{s, d.sponsor.Policy != nil, d.sponsor.MaxFee.String(), d.sponsor.MaxDeposit.String()}
			break
		}
		f.Signers = append(f.Signers, s)
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing a transaction file: %w", err)
	}
	return append(text, '\n'), nil
}

// DecodeDraft reads what [Draft.Encode] wrote, and checks everything: the body is canonical, the id belongs to it, each
// policy fits its address or the body, every signature verifies. The errors name the field.
func DecodeDraft(text []byte) (*Draft, error) {
	if len(text) > MaxDraftFile {
		return nil, fmt.Errorf("transaction file has %d bytes, at most %d", len(text), MaxDraftFile)
	}
	var f draftFile
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return nil, fmt.Errorf("transaction file: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("transaction file: something stands behind its end")
	}
	if f.Format != fileFormat || f.Version != fileVersion {
		return nil, fmt.Errorf("transaction file: format %q version %d, want %q version %d", f.Format, f.Version, fileFormat, fileVersion)
	}
	if f.ChainID == "" || f.NetworkID == (crypto.Hash{}) {
		return nil, fmt.Errorf("transaction file: chain_id or network_id is missing")
	}
	if len(f.ChainID) > ledger.MaxChainIDBytes || printable(f.ChainID) != f.ChainID {
		return nil, fmt.Errorf("transaction file: chain_id has %d bytes or unprintable ones, want 1 to %d", len(f.ChainID), ledger.MaxChainIDBytes)
	}
	var accounts []SigningAccount
	for i, s := range f.Signers {
		policy, err := crypto.DecodePolicy(s.Policy)
		if err != nil {
			return nil, fmt.Errorf("transaction file: signers[%d].policy: %w", i, err)
		}
		accounts = append(accounts, SigningAccount{policy, s.PolicyVersion})
	}
	d, err := NewDraft(ledger.Network{ChainID: f.ChainID, ID: f.NetworkID}, f.Body, accounts)
	if err != nil {
		return nil, fmt.Errorf("transaction file: %w", err)
	}
	d.Before = f.Before
	if d.ID() != f.ID {
		return nil, fmt.Errorf("transaction file: id is %s, the body's is %s", f.ID, d.ID())
	}
	for i, s := range f.Signers {
		if s.Address != d.decoded.Signers[i].Address {
			return nil, fmt.Errorf("transaction file: signers[%d].address is %s, the body says %s", i, s.Address, d.decoded.Signers[i].Address)
		}
		if err := d.addSignatures(i, s); err != nil {
			return nil, fmt.Errorf("transaction file: signers[%d].%w", i, err)
		}
	}
	if f.Sponsor != nil {
		if err := d.readSponsor(*f.Sponsor); err != nil {
			return nil, fmt.Errorf("transaction file: sponsor.%w", err)
		}
	}
	return d, nil
}

func (d *Draft) addSignatures(party int, s fileSigner) error {
	for n, signature := range s.Signatures {
		if err := d.Add(ledger.Witness{Signer: uint32(party), Key: signature.Key, Signature: signature.Signature}); err != nil {
			return fmt.Errorf("signatures[%d]: %w", n, err)
		}
	}
	return nil
}

func (d *Draft) readSponsor(f fileSponsor) (err error) {
	s := ledger.Sponsor{Address: f.Address}
	policy, err := crypto.DecodePolicy(f.Policy)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if f.CarriesPolicy {
		s.Policy = f.Policy
	}
	if s.MaxFee, err = ledger.ParseAmount(f.MaxFee, 0); err != nil {
		return fmt.Errorf("max_fee: %w", err)
	}
	if s.MaxDeposit, err = ledger.ParseAmount(f.MaxDeposit, 0); err != nil {
		return fmt.Errorf("max_deposit: %w", err)
	}
	if err := d.AddSponsor(s, SigningAccount{policy, f.PolicyVersion}); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return d.addSignatures(len(d.decoded.Signers), f.fileSigner)
}
