package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pacioli-ledger/pacioli/app/node"
	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/client/light"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/crypto/keystore"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// problem is an error with what the command line adds to it. All fields but err are optional.
type problem struct {
	err  error
	code int    // exit code; 0: 1
	name string // stable, for programs
	hint string // what to do
	id   string // of the transaction
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// usage is an error in how the program was called.
func usage(format string, args ...any) error {
	return &problem{err: fmt.Errorf(format, args...), name: "usage"}
}

// hinted adds what to do to an error.
func hinted(err error, format string, args ...any) error {
	return &problem{err: err, hint: fmt.Sprintf(format, args...)}
}

// outcomeNames are the stable names of errors by exit code, where nothing more special is known.
var outcomeNames = map[int]string{1: "error", 2: "refused", 3: "failed", 4: "unknown"}

// describe finds the exit code, name and hint of an error.
func describe(err error) problem {
	p := problem{err: err}
	if given, ok := errors.AsType[*problem](err); ok {
		p = *given
		p.err = err
	}
	hint := func(name, text string) {
		if p.name == "" {
			p.name = name
		}
		if p.hint == "" {
			p.hint = text
		}
	}
	if r, ok := errors.AsType[*client.Refusal](err); ok {
		p.code, p.id = int(client.Rejected), r.ID.String()
		e, _ := ledger.Explain(r.Code)
		hint(r.Code.String(), e.Remedy)
	} else if d, ok := errors.AsType[*client.Dead](err); ok {
		p.code, p.id = int(client.Rejected), d.ID.String()
		hint("dead", "it is safe to do the same again")
	} else if u, ok := errors.AsType[*client.Unknown](err); ok {
		p.code, p.id = int(client.Uncertain), u.ID.String()
		hint("unknown", "ask before doing it again: pacioli tx show "+u.ID.String())
	} else if s, ok := errors.AsType[*node.Stop](err); ok {
		p.code = s.Code
		hint(s.Name, s.Hint)
	} else if _, ok := errors.AsType[*light.Divergence](err); ok {
		hint("divergence", "")
	}
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		hint("key_not_found", "pacioli keys list shows the keys of this home")
	case errors.Is(err, keystore.ErrExists):
		hint("key_exists", "choose another name")
	case errors.Is(err, keystore.ErrPassphrase):
		hint("wrong_passphrase", "")
	case errors.Is(err, client.ErrStale):
		hint("stale", "the chain stands still or the nodes lag: pacioli status; and look at this machine's clock")
	case unreachable(err):
		hint("no_node", "is a node running there? --node names others, and pacioli status asks them")
	case errors.Is(err, node.ErrNoSignState):
		hint("sign_state_missing", "put the newest one back if it lies somewhere, else: pacioli validator reset-sign-state")
	case errors.Is(err, light.ErrTrustExpired):
		hint("trust_expired", "give --trust HEIGHT:HASH of a recent header, as a validator's operator tells it")
	}
	if p.code == 0 {
		p.code = 1
	}
	if p.name == "" {
		p.name = outcomeNames[p.code]
	}
	return p
}

// unreachable tells whether no connection could be made.
func unreachable(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// report writes an error, if there is one, and returns the exit code.
func (c *cli) report(err error, args []string) int {
	if err == nil {
		return 0
	}
	p := describe(err)
	// A command line that could not be parsed has not set it.
	asJSON := c.output == "json" || slices.Contains(args, "--output=json")
	if i := slices.Index(args, "--output"); i >= 0 && i+1 < len(args) && args[i+1] == "json" {
		asJSON = true
	}
	if asJSON {
		type inner struct {
			Code    int    `json:"code"`
			Name    string `json:"name"`
			Message string `json:"message"`
			Hint    string `json:"hint,omitempty"`
			ID      string `json:"id,omitempty"`
		}
		_ = json.NewEncoder(c.err).Encode(map[string]inner{"error": {p.code, p.name, p.err.Error(), p.hint, p.id}})
		return p.code
	}
	// Errors can carry what a node or a file said: nothing of it may act on the terminal.
	fmt.Fprintf(c.err, "error: %s\n", strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(p.err.Error(), "?")))
	if p.hint != "" {
		fmt.Fprintf(c.err, "hint: %s\n", p.hint)
	}
	return p.code
}

// print writes a result: as JSON, or as text by a function.
func (c *cli) print(result any, text func(w io.Writer)) error {
	if c.output == "json" {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(result); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 4, 2, ' ', 0)
	text(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// say writes a line for the person at the terminal, which is no result.
func (c *cli) say(format string, args ...any) { fmt.Fprintf(c.err, format+"\n", args...) }

// keyView is one key of a policy as results show it.
type keyView struct {
	Scheme    string `json:"scheme"`
	PublicKey string `json:"public_key"` // hex
	Weight    uint32 `json:"weight"`
}

func keyViews(p crypto.Policy) []keyView {
	var views []keyView
	for _, k := range p.Keys {
		views = append(views, keyView{k.Scheme.String(), fmt.Sprintf("%x", k.Public), k.Weight})
	}
	return views
}

// guardView is what a policy says about changing itself: nothing where the payment's threshold changes it and nobody
// recovers the account. A signer who is not shown this may give the account away.
type guardView struct {
	ChangeThreshold      uint32          `json:"change_threshold,omitempty"`
	RecoveryAccount      *crypto.Address `json:"recovery_account,omitempty"`
	RecoveryDelaySeconds uint32          `json:"recovery_delay_seconds,omitempty"`
}

func newGuardView(p crypto.Policy) guardView {
	v := guardView{ChangeThreshold: p.ChangeThreshold}
	if p.Recovery != nil {
		v.RecoveryAccount, v.RecoveryDelaySeconds = &p.Recovery.Account, p.Recovery.DelaySeconds
	}
	return v
}

// recovery says in words who recovers the account; empty where nobody does.
func (v guardView) recovery(names map[crypto.Address]string) string {
	if v.RecoveryAccount == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s after announcing it", named(*v.RecoveryAccount, names[*v.RecoveryAccount]), time.Duration(v.RecoveryDelaySeconds)*time.Second)
}

// kind names the kind of account that a policy makes, as `keys new --scheme` calls it where it can.
func kind(p crypto.Policy) string {
	var names []string
	for _, k := range p.Keys {
		names = append(names, k.Scheme.String())
	}
	text := strings.Join(names, "+")
	if text == "ed25519+ml-dsa-65" && p.Threshold == 2 {
		return keystore.Hybrid
	}
	return text
}
