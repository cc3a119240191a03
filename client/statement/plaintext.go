package statement

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

// The files for hledger and beancount hold one transaction for each entry that changed the balance: the account on one
// side, and on the other an account named by the entry's kind or counterparty. What only became pending, or no longer is,
// is a comment: these programs know no second set of counters. The file ends with an assertion of the closing balance.
//
// Memos come from whoever paid. In hledger they stand in comments of transactions, where nothing of them has a meaning; in
// beancount they are quoted strings.

// account names an account as a list of parts, in lower case letters, digits and "-", "_" or spaces.
func (s *Statement) own() []string { return []string{"assets", "pacioli", partyOf(s.Name, s.Account)} }

// other names the account at the other side of an entry.
func (e Entry) other() []string {
	switch {
	case e.Kind == ledger.EntryFee.String():
		return []string{"expenses", "pacioli", "fees"}
	case e.Kind == ledger.EntryFees.String():
		return []string{"income", "pacioli", "fees"}
	case e.Kind == ledger.EntryDeposit.String() || e.Kind == ledger.EntryRefund.String():
		return []string{"assets", "pacioli", "deposits"}
	case e.Kind == ledger.EntryGenesis.String(), e.Counterparty == crypto.Address{}:
		return []string{"equity", "pacioli", "of-the-network", e.Kind}
	}
	return []string{"equity", "pacioli", "with", partyOf(e.Name, e.Counterparty)}
}

// opening is the other side of the opening balance.
var opening = []string{"equity", "pacioli", "opening"}

// partyOf is the name of a key, or the address.
func partyOf(name string, a crypto.Address) string {
	if name == "" {
		return a.String()
	}
	return name
}

// preamble says what the file is, each line behind a comment sign.
func (s *Statement) preamble(w *bufio.Writer) {
	fmt.Fprintf(w, "; Statement of %s in %s, network %s (%s)\n", s.title(), s.Asset, s.NetworkID, s.ChainID)
	fmt.Fprintf(w, "; Blocks %d to %d, %s to %s\n", s.First, s.Last, stamp(s.FirstTime), stamp(s.LastTime))
	fmt.Fprintf(w, "; %s, hash %x\n", s.Summary(), s.Proof.Hash)
}

// pendingAtEnd is a comment where something is pending at the end.
func (s *Statement) pendingAtEnd() string {
	if text := s.holds(Entry{PendingIn: s.Closing.PendingIn, PendingOut: s.Closing.PendingOut}); text != "" {
		return "; besides the closing balance: " + text + " " + s.Asset + "\n"
	}
	return ""
}

// aside is an entry that changed no balance, as a comment.
func (s *Statement) aside(w *bufio.Writer, e Entry) {
	what := s.holds(e)
	if what == "" {
		what = "0"
	}
	text := fmt.Sprintf("; %s %s %s %s %s", e.Time.Format(time.DateOnly), e.Kind, e.who(), what, s.Asset)
	fmt.Fprintf(w, "\n%s\n; %s\n", strings.ReplaceAll(text, "  ", " "), strings.Join(facts(e), ", "))
}

// facts are what identifies an entry, as tags.
func facts(e Entry) []string {
	list := []string{fmt.Sprintf("number:%d", e.Number), fmt.Sprintf("height:%d", e.Height), "time:" + stamp(e.Time), "kind:" + e.Kind}
	if e.TxID != (crypto.Hash{}) {
		list = append(list, fmt.Sprintf("tx:%s", e.TxID), fmt.Sprintf("operation:%d", e.Operation))
	}
	if e.Hold != (crypto.Hash{}) {
		list = append(list, fmt.Sprintf("hold:%s", e.Hold))
	}
	if e.Reference != "" {
		list = append(list, "reference:"+e.Reference)
	}
	if e.Code != 0 {
		list = append(list, fmt.Sprintf("code:%d", e.Code))
	}
	return list
}

// hledger writes a journal for hledger. The opening balance is assigned, not added: where the file of the period before is
// loaded too it changes nothing.
func (s *Statement) hledger(ctx context.Context, w *bufio.Writer) error {
	commodity := s.Asset
	if strings.ContainsAny(commodity, "0123456789") {
		commodity = `"` + commodity + `"`
	}
	zero := s.decimal(new(big.Int))
	own := strings.Join(s.own(), ":")
	sample := zero
	if s.Scale == 0 {
		sample = "0." // the sign has to be there
	}
	used := map[string]bool{own: true}
	s.preamble(w)
	fmt.Fprintf(w, "\ndecimal-mark .\ncommodity %s %s\n", sample, commodity)
	if s.Opening.Balance.Sign() != 0 {
		used[strings.Join(opening, ":")] = true
		fmt.Fprintf(w, "\n%s * opening balance\n    %s   = %s %s\n    %s\n", s.FirstTime.Format(time.DateOnly), own,
			s.decimal(s.Opening.Balance), commodity, strings.Join(opening, ":"))
	}
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return err
		}
		if e.Amount.Sign() == 0 {
			s.aside(w, e)
			continue
		}
		fmt.Fprintf(w, "\n%s * %s\n    ; %s\n", e.Time.Format(time.DateOnly), strings.TrimSpace(e.Kind+" "+e.who()), strings.Join(facts(e), ", "))
		if pending := s.holds(e); pending != "" {
			fmt.Fprintf(w, "    ; %s\n", pending)
		}
		if e.Memo != "" {
			fmt.Fprintf(w, "    ; memo:%s\n", plain(e.Memo))
		}
		other := strings.Join(e.other(), ":")
		used[other] = true
		fmt.Fprintf(w, "    %s  %s %s\n    %s  %s %s\n", own, s.decimal(e.Amount), commodity, other, s.decimal(new(big.Int).Neg(e.Amount)), commodity)
	}
	fmt.Fprintf(w, "\n%s%s * closing balance\n    %s  %s %s = %s %s\n",
		s.pendingAtEnd(), s.LastTime.Format(time.DateOnly), own, zero, commodity, s.decimal(s.Closing.Balance), commodity)
	for i, name := range slices.Sorted(maps.Keys(used)) { // hledger --strict wants them declared, wherever
		fmt.Fprintf(w, "%saccount %s\n", []string{"\n", ""}[min(i, 1)], name)
	}
	return nil
}

// beancount writes a file for beancount. It stands for itself: it opens its accounts and adds the opening balance.
func (s *Statement) beancount(ctx context.Context, w *bufio.Writer) error {
	commodity := s.Asset
	if commodity == "TRUE" || commodity == "FALSE" || commodity == "NULL" {
		commodity = "PACIOLI-" + commodity // these words mean something else there
	}
	own := beanAccount(s.own())
	opened := map[string]bool{own: true}
	transaction := func(day time.Time, payee, narration string, facts []string, other string, amount *big.Int) {
		opened[other] = true
		fmt.Fprintf(w, "\n%s * %s %s\n", day.Format(time.DateOnly), beanString(payee), beanString(narration))
		for _, f := range facts {
			name, value, _ := strings.Cut(f, ":")
			fmt.Fprintf(w, "  %s: %s\n", name, beanString(value))
		}
		fmt.Fprintf(w, "  %s  %s %s\n  %s  %s %s\n", own, s.decimal(amount), commodity, other, s.decimal(new(big.Int).Neg(amount)), commodity)
	}
	s.preamble(w)
	fmt.Fprintf(w, "\n%s commodity %s\n", s.FirstTime.Format(time.DateOnly), commodity)
	if s.Opening.Balance.Sign() != 0 {
		transaction(s.FirstTime, "", "opening balance", nil, beanAccount(opening), s.Opening.Balance)
	}
	for e, err := range s.Entries(ctx) {
		if err != nil {
			return err
		}
		if e.Amount.Sign() == 0 {
			s.aside(w, e)
			continue
		}
		narration := e.Memo
		if narration == "" {
			narration = e.Kind
		}
		list := facts(e)
		if pending := s.holds(e); pending != "" {
			list = append(list, "pending:"+pending)
		}
		transaction(e.Time, e.who(), narration, list, beanAccount(e.other()), e.Amount)
	}
	// The balance of a day is that at its beginning, and must be right to the last digit.
	fmt.Fprintf(w, "\n%s%s balance %s  %s ~ %s %s\n\n", s.pendingAtEnd(), s.LastTime.UTC().AddDate(0, 0, 1).Format(time.DateOnly), own,
		s.decimal(s.Closing.Balance), s.decimal(new(big.Int)), commodity)
	for _, name := range slices.Sorted(maps.Keys(opened)) {
		fmt.Fprintf(w, "%s open %s %s\n", s.FirstTime.Format(time.DateOnly), name, commodity)
	}
	return nil
}

// beanAccount joins the parts of an account as beancount wants them: each begins with an upper-case letter or a digit and
// goes on with letters, digits and "-". Different parts stay different: "_", which the names of keys may have, becomes
// "-U-", and a "-" that could be mistaken for such a one is doubled.
func beanAccount(parts []string) string {
	var names []string
	for _, p := range parts {
		if strings.Contains(p, "_") {
			p = strings.ReplaceAll(strings.ReplaceAll(p, "-", "--"), "_", "-U-")
		}
		names = append(names, strings.ToUpper(p[:1])+p[1:])
	}
	return strings.Join(names, ":")
}

// beanString quotes a text of one line.
func beanString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(plain(text)) + `"`
}
