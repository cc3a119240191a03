package batch

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/pacioli-ledger/pacioli/client"
	"github.com/pacioli-ledger/pacioli/crypto"
	"github.com/pacioli-ledger/pacioli/ledger"
)

const (
	journalFormat  = "pacioli.batch"
	journalVersion = 1
	// compactAt is how many bytes of finished transactions a journal may hold before they are dropped on opening: what is
	// needed of them later, whom they paid and how they ended, stays.
	compactAt = 16 << 20
)

// ErrBusy is wrapped by the error for a journal that another process has open.
var ErrBusy = errors.New("another batch from this account is being paid")

// Journal is the memory of all payments that one account has made in batches on one network: a file to which records are
// only added. A transaction is in it, durably, before it is sent, and its end before any of its rows is paid by another.
//
// One process has it open at a time. It belongs to one goroutine. After an error of writing nothing more is written: what
// stands in the file then is not known before it is opened again.
type Journal struct {
	path     string
	network  crypto.Hash
	account  crypto.Address
	earlier  func(id string) (*Earlier, error)
	file     *os.File
	lock     *os.File
	size     int64
	broken   error
	payments map[string]*payment // by the payer's id
	attempts map[crypto.Hash]*attempt
	order    []*attempt

	crash func(point string)     // tests end here
	sync  func(f *os.File) error // tests count what it made durable
}

// Earlier is a payment under an id that was begun elsewhere: by `pacioli pay --id`.
type Earlier struct {
	Transaction Transaction
	Transfer    ledger.Transfer
}

// payment is what was done about one id, the latest attempt last.
type payment struct {
	transfer ledger.Transfer
	attempts []*attempt
}

// attempt is one transaction that was about to be sent, with the ids that it pays, in the order of its operations.
type attempt struct {
	tx  Transaction
	ids []string
	end *end // nil: not known

	unsent  bool // it was never handed to a node
	adopted bool // in this run, from elsewhere
}

// end is the proven end of a transaction.
type end struct {
	Outcome string        `json:"outcome"` // committed, failed, dead
	Height  uint64        `json:"height,omitempty"`
	Code    ledger.Code   `json:"code,omitempty"`
	Failed  uint32        `json:"failed,omitempty"` // 1 + index of the operation that failed
	Fee     ledger.Amount `json:"fee"`
}

const (
	committed = "committed"
	failed    = "failed"
	dead      = "dead"
)

// record is one line of the journal, behind its checksum.
type record struct {
	Format  string          `json:"format,omitempty"` // of the first line
	Version int             `json:"version,omitempty"`
	Network *crypto.Hash    `json:"network_id,omitempty"`
	Account *crypto.Address `json:"account,omitempty"`

	Tx     *crypto.Hash `json:"tx,omitempty"` // of the others
	Raw    []byte       `json:"raw,omitempty"`
	Before *client.Mark `json:"journal_before,omitempty"`
	Rows   []recordRow  `json:"rows,omitempty"`
	End    *end         `json:"end,omitempty"`
}

type recordRow struct {
	ID        string         `json:"id"`
	To        crypto.Address `json:"to"`
	Asset     string         `json:"asset"` // hex
	Amount    ledger.Amount  `json:"amount"`
	Memo      string         `json:"memo,omitempty"`
	Reference string         `json:"reference"` // hex
}

// base is the name of an account's files in the folder of journals.
func base(dir string, network crypto.Hash, account crypto.Address) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%x", account, network[:8]))
}

// OpenJournal opens the journal of an account, or makes it, in a folder that is made when it is missing. earlier finds
// payments that were begun elsewhere under an id; nil, or a nil result, means none.
func OpenJournal(dir string, network crypto.Hash, account crypto.Address, earlier func(id string) (*Earlier, error)) (*Journal, error) {
	return openJournal(&Journal{path: base(dir, network, account) + ".journal", network: network, account: account, earlier: earlier,
		crash: func(string) {}, sync: (*os.File).Sync})
}

func openJournal(j *Journal) (_ *Journal, err error) {
	if j.earlier == nil {
		j.earlier = func(string) (*Earlier, error) { return nil, nil }
	}
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of journals: %w", err)
	}
	if j.lock, err = locked(j.path+".lock", syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	content, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	whole, finished, err := j.replay(content)
	if err != nil {
		return nil, err
	}
	if whole == 0 || finished > compactAt {
		// New, or not even its first line was written; or worth writing anew.
		if err := j.rewrite(); err != nil {
			return nil, err
		}
	}
	if j.file, err = os.OpenFile(j.path, os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("opening the journal: %w", err)
	}
	if whole > 0 && finished <= compactAt {
		j.size = int64(whole)
		if err := j.file.Truncate(j.size); err != nil { // drops what a crash left of a record
			return nil, fmt.Errorf("mending the end of the journal: %w", err)
		}
		// A crash may have kept its last record from the disk, but not from being read just now.
		if err := j.sync(j.file); err != nil {
			return nil, fmt.Errorf("syncing the journal: %w", err)
		}
	}
	j.crash("opened")
	return j, nil
}

// locked opens a file and locks it, until it is closed or the process ends.
func locked(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the journal: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

// Close ends the use of the journal.
func (j *Journal) Close() {
	for _, f := range []*os.File{j.file, j.lock} {
		if f != nil {
			_ = f.Close() // everything that counts is synced
		}
	}
}

// line encodes a record: the CRC-32 of the JSON in eight hex digits, a blank, the JSON, a newline.
func (r record) line() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing a record of the journal: %w", err)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(text), text), nil
}

// parse reads a line without its newline.
func parse(line []byte) (r record, ok bool) {
	sum, text, _ := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || len(sum) != 8 || uint32(want) != crc32.ChecksumIEEE(text) {
		return r, false
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return r, decoder.Decode(&r) == nil
}

// replay takes up what a journal says. It returns how many bytes are whole records, and how many of them finished
// transactions take. Only the last record can be torn, because each is synced before the next one is written.
func (j *Journal) replay(content []byte) (whole, finished int, err error) {
	j.payments, j.attempts, j.order = map[string]*payment{}, map[crypto.Hash]*attempt{}, nil
	damaged := func(why string) error {
		return fmt.Errorf("%s is damaged at byte %d: %s; it is the memory of what was paid, so look at it before you remove it", j.path, whole, why)
	}
	for whole < len(content) {
		length := bytes.IndexByte(content[whole:], '\n') + 1
		last := length == 0 || whole+length == len(content)
		r, ok := record{}, false
		if length > 0 {
			r, ok = parse(content[whole : whole+length-1])
		}
		switch {
		case !ok && last:
			return whole, finished, nil
		case !ok:
			return 0, 0, damaged("a record does not have its checksum")
		case whole == 0 && (r.Format != journalFormat || r.Version != journalVersion || r.Network == nil || *r.Network != j.network || r.Account == nil || *r.Account != j.account):
			return 0, 0, damaged("it is not the journal of this account and network, in this version")
		case whole > 0 && r.Tx == nil:
			return 0, 0, damaged("a record is of no transaction")
		case whole > 0:
			a := j.attempts[*r.Tx]
			if a == nil {
				if a, err = r.attempt(); err != nil {
					return 0, 0, damaged(err.Error())
				}
				j.enter(a, r.transfers())
			}
			if r.End != nil {
				finished += len(a.tx.Raw)
				a.end, a.tx.Raw = r.End, nil
			}
		}
		whole += length
	}
	return whole, finished, nil
}

func (r record) attempt() (*attempt, error) {
	a := &attempt{tx: Transaction{ID: *r.Tx, Raw: r.Raw}}
	if r.Before != nil {
		a.tx.Before = *r.Before
	}
	for _, row := range r.Rows {
		a.ids = append(a.ids, row.ID)
	}
	if len(a.ids) == 0 || len(a.tx.Raw) == 0 && r.End == nil {
		return nil, errors.New("a transaction pays nothing, or has no bytes")
	}
	return a, nil
}

func (r record) transfers() (list []ledger.Transfer) {
	for _, row := range r.Rows {
		t := ledger.Transfer{To: row.To, Amount: row.Amount, Memo: row.Memo}
		// What stands behind a checksum was written by us; anything else would differ from every row, and be found.
		_, _ = hex.Decode(t.Asset[:], []byte(row.Asset[:min(len(row.Asset), 32)]))
		_, _ = hex.Decode(t.Reference[:], []byte(row.Reference[:min(len(row.Reference), 32)]))
		list = append(list, t)
	}
	return list
}

// enter notes an attempt.
func (j *Journal) enter(a *attempt, transfers []ledger.Transfer) {
	j.attempts[a.tx.ID], j.order = a, append(j.order, a)
	for i, id := range a.ids {
		p := j.payments[id]
		if p == nil {
			p = &payment{transfer: transfers[i]}
			j.payments[id] = p
		}
		p.attempts = append(p.attempts, a)
	}
}

// record encodes an attempt with all that is known of it.
func (j *Journal) record(a *attempt) record {
	r := record{Tx: &a.tx.ID, Raw: a.tx.Raw, End: a.end}
	if a.end == nil {
		r.Before = &a.tx.Before
	} else {
		r.Raw = nil
	}
	for _, id := range a.ids {
		t := j.payments[id].transfer
		r.Rows = append(r.Rows, recordRow{id, t.To, hex.EncodeToString(t.Asset[:]), t.Amount, t.Memo, hex.EncodeToString(t.Reference[:])})
	}
	return r
}

// rewrite puts a journal of what is known in the place of the file. A crash leaves the old file or the new one.
func (j *Journal) rewrite() error {
	records := []record{{Format: journalFormat, Version: journalVersion, Network: &j.network, Account: &j.account}}
	for _, a := range j.order {
		records = append(records, j.record(a))
	}
	temporary := j.path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	defer f.Close()
	j.size = 0
	for _, r := range records {
		line, err := r.line()
		if err == nil {
			_, err = f.Write(line)
		}
		if err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
		j.size += int64(len(line))
	}
	if err := j.sync(f); err != nil {
		return fmt.Errorf("syncing the journal: %w", err)
	}
	j.crash("journal rewritten")
	if err := os.Rename(temporary, j.path); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.crash("journal renamed")
	folder, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return fmt.Errorf("syncing the folder of the journal: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("syncing the folder of the journal: %w", err)
	}
	return nil
}

// add writes a record behind the others, durably.
func (j *Journal) add(r record) error {
	if j.broken != nil {
		return j.broken
	}
	line, err := r.line()
	if err != nil {
		return err
	}
	j.crash("before a record")
	// From here on, until it is synced, a crash leaves nothing of the record, a part, or all of it.
	if _, err = j.file.WriteAt(line, j.size); err == nil {
		j.crash("a record is written")
		err = j.sync(j.file)
	}
	if err != nil {
		j.broken = fmt.Errorf("writing %s: %w", j.path, err)
		return j.broken
	}
	j.size += int64(len(line))
	j.crash("a record is durable")
	return nil
}

// begin notes durably that a transaction is about to be sent. When a payment of these ids was begun elsewhere meanwhile,
// nothing is written and the index of the first such row is returned, else -1.
func (j *Journal) begin(tx Transaction, rows []Row) (taken int, err error) {
	claim, err := locked(j.path+".claim", syscall.LOCK_EX)
	if err != nil {
		return -1, err
	}
	defer claim.Close()
	a := &attempt{tx: tx}
	var transfers []ledger.Transfer
	for i, row := range rows {
		if p := j.payments[row.ID]; p == nil {
			e, err := j.earlier(row.ID)
			if err != nil {
				return -1, err
			}
			if e != nil {
				return i, nil
			}
		}
		a.ids, transfers = append(a.ids, row.ID), append(transfers, row.Transfer)
	}
	return -1, j.append(a, transfers)
}

func (j *Journal) append(a *attempt, transfers []ledger.Transfer) error {
	j.enter(a, transfers)
	return j.add(j.record(a))
}

// adopt takes over a payment that was begun elsewhere, if there is one.
func (j *Journal) adopt(row Row) error {
	if j.payments[row.ID] != nil {
		return nil
	}
	if e, err := j.earlier(row.ID); err != nil || e == nil {
		return err
	}
	claim, err := locked(j.path+".claim", syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer claim.Close()
	e, err := j.earlier(row.ID) // it may have been replaced, but it does not go away
	if err != nil || e == nil {
		return err
	}
	if field := Differs(e.Transfer, row.Transfer); field != "" {
		return fmt.Errorf("line %d: %s", row.Line, changed(row.ID, field, e.Transaction.ID))
	}
	return j.append(&attempt{tx: e.Transaction, ids: []string{row.ID}, adopted: true}, []ledger.Transfer{row.Transfer})
}

// finish notes durably how a transaction ended.
func (j *Journal) finish(a *attempt, e end) error {
	a.end = &e
	err := j.add(record{Tx: &a.tx.ID, End: &e})
	a.tx.Raw = nil
	return err
}

func changed(id, field string, tx crypto.Hash) string {
	return fmt.Sprintf("id %q was used with another %s, in transaction %s; another payment needs another id", id, field, tx)
}

// Check finds the rows whose ids were used before for a payment with other details.
func (j *Journal) Check(rows []Row) (problems Problems, err error) {
	for _, row := range rows {
		if p := j.payments[row.ID]; p != nil {
			if field := Differs(p.transfer, row.Transfer); field != "" {
				problems = append(problems, Problem{row.Line, changed(row.ID, field, p.attempts[len(p.attempts)-1].tx.ID)})
			}
			continue
		}
		e, err := j.earlier(row.ID)
		if err != nil {
			return nil, err
		}
		if e != nil {
			if field := Differs(e.Transfer, row.Transfer); field != "" {
				problems = append(problems, Problem{row.Line, changed(row.ID, field, e.Transaction.ID)})
			}
		}
	}
	return problems, nil
}

// Begun is a payment that a batch has begun: its latest transaction and how that ended.
type Begun struct {
	Transfer ledger.Transfer
	Tx       crypto.Hash
	Ended    bool // its end is proven
	Paid     bool // it took effect
}

// Claim is for whoever pays a single payment by its id outside of a batch. It tells whether a batch has begun to pay it, nil
// when none has, and keeps all batches from beginning until release is called: before that, what earlier looks at must be on
// the disk.
func Claim(dir string, network crypto.Hash, account crypto.Address, id string) (begun *Begun, release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making the folder of journals: %w", err)
	}
	path := base(dir, network, account) + ".journal"
	claim, err := locked(path+".claim", syscall.LOCK_EX)
	if err != nil {
		return nil, nil, err
	}
	release = func() { _ = claim.Close() }
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		release()
		return nil, nil, fmt.Errorf("reading the journal: %w", err)
	}
	j := &Journal{path: path, network: network, account: account}
	if _, _, err := j.replay(content); err != nil {
		release()
		return nil, nil, err
	}
	if p := j.payments[id]; p != nil {
		a := p.attempts[len(p.attempts)-1]
		begun = &Begun{Transfer: p.transfer, Tx: a.tx.ID, Ended: a.end != nil, Paid: a.end != nil && a.end.Outcome == committed}
	}
	return begun, release, nil
}

// New tells whether the journal remembers nothing.
func (j *Journal) New() bool { return len(j.payments) == 0 }

// Recalled is a payment that the ledger has and a new journal does not.
type Recalled struct {
	Row       Row
	Final     client.Final // proven, and committed
	Operation int          // that made the payment
	Transfer  ledger.Transfer
}

// Recall takes payments of the ledger into a new journal, all or, after a crash, none of them. With other details than their
// rows' they are problems, and nothing is taken.
func (j *Journal) Recall(list []Recalled) (Problems, error) {
	if !j.New() {
		return nil, errors.New("the journal has payments already")
	}
	var problems Problems
	for _, r := range list {
		if field := Differs(r.Transfer, r.Row.Transfer); field != "" {
			problems = append(problems, Problem{r.Row.Line, changed(r.Row.ID, field, r.Final.ID)})
		}
	}
	if problems != nil || len(list) == 0 {
		return problems, nil
	}
	known := map[crypto.Hash][]ledger.Transfer{}
	for _, r := range list {
		a := j.attempts[r.Final.ID]
		if a == nil {
			n := len(r.Final.Tx.Body.Operations)
			receipt := r.Final.Receipt
			// The places of operations whose ids are not known stay empty: no payment has that id.
			a = &attempt{tx: Transaction{ID: r.Final.ID}, ids: make([]string, n), end: &end{Outcome: committed, Height: r.Final.Height, Fee: receipt.Fee}}
			j.attempts[r.Final.ID], j.order = a, append(j.order, a)
			known[r.Final.ID] = make([]ledger.Transfer, n)
		}
		a.ids[r.Operation], known[r.Final.ID][r.Operation] = r.Row.ID, r.Row.Transfer
	}
	slices.SortStableFunc(j.order, func(a, b *attempt) int { return cmp.Compare(a.end.Height, b.end.Height) })
	order := j.order
	j.order = nil
	for _, a := range order {
		j.enter(a, known[a.tx.ID])
	}
	return nil, j.replace()
}

// replace rewrites the open journal.
func (j *Journal) replace() error {
	err := j.rewrite()
	if err == nil {
		_ = j.file.Close()
		j.file, err = os.OpenFile(j.path, os.O_RDWR, 0o600)
	}
	if err != nil {
		j.broken = err
	}
	return err
}

// open returns the attempts without a known end that pay one of these ids.
func (j *Journal) open(ids map[string]int) (list []*attempt) {
	for _, a := range j.order {
		if a.end == nil && slices.ContainsFunc(a.ids, func(id string) bool { _, ok := ids[id]; return ok }) {
			list = append(list, a)
		}
	}
	return list
}
