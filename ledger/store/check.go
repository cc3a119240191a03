package store

import (
	"bytes"
	"context"
	"fmt"
)

// maxFindings bounds a report: a disk that lost a file gives as many findings as it had rows.
const maxFindings = 100

// Report is what Check found. A sound store has no findings.
type Report struct {
	Height, FirstHeight uint64
	AppHash             []byte

	Nodes     int64 // rows of the trees, over all kept heights
	NodeBytes int64 // keys and values of those rows
	Leaves    int64 // leaves of the committed height, with the 19 sentinels
	Rows      int64 // flat rows that a tree holds
	Beside    int64 // flat rows beside the trees
	FlatBytes int64 // keys and values of both
	Index     int64 // rows of the index

	Findings []string // what is wrong, at most 100, in the order found
	Omitted  int64    // findings beyond those
}

// OK says that nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

func (r *Report) find(format string, args ...any) {
	if len(r.Findings) == maxFindings {
		r.Omitted++
		return
	}
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

// checkEvery is how many rows pass between two looks at the context and two lines of progress.
const checkEvery = 100_000

// Check reads the whole store at the committed height and proves it right or says what is wrong: every node of every
// kept version hashes to what its parent says, every kept height's roots are those in its record and give its AppHash,
// the newest trees hash from their leaves up to the record, and their leaves are the flat rows, exactly and both ways.
// row, when not nil, is called for every flat row in ascending order of keys, so that the ledger can check its own
// invariants; an error of its is a finding.
//
// Check works on a snapshot; the store may go on committing. It takes time in proportion to the store (some 20 µs per
// node) and keeps one path of a tree in memory. Its error means that it could not finish: ctx ended, or reading failed.
func (s *Store) Check(ctx context.Context, progress func(string), row func(key, value []byte) error) (Report, error) {
	var rep Report
	p, err := s.acquire()
	if err != nil {
		return rep, err
	}
	defer s.release(p)
	if progress == nil {
		progress = func(string) {}
	}
	rep.Height, rep.FirstHeight = p.meta.height, p.meta.first
	if p.meta.height == 0 {
		return rep, nil
	}
	rep.AppHash = bytes.Clone(p.appHash[:])
	c := checker{ctx: ctx, p: p, rep: &rep, progress: progress, row: row}
	for _, step := range []func() error{c.records, c.nodes, c.leaves, c.flat, c.index} {
		if err := step(); err != nil {
			return rep, fmt.Errorf("check height %d: %w", p.meta.height, err)
		}
	}
	return rep, nil
}

type checker struct {
	ctx      context.Context
	p        *published
	rep      *Report
	progress func(string)
	row      func(key, value []byte) error
	seen     int64
	lost     bool // a leaf without its flat row was found, so as many rows as leaves proves nothing
}

func (c *checker) tick(what string) error {
	c.seen++
	if c.seen%checkEvery == 0 {
		c.progress(fmt.Sprintf("%s: %d rows read", what, c.seen))
		return c.ctx.Err()
	}
	return nil
}

func (c *checker) tree(i int) *treeDB { return &treeDB{r: c.p.snap, prefix: treePrefix(i)} }

// records: every kept height has a record, its roots give its AppHash, and the roots on the disk are those.
func (c *checker) records() error {
	c.progress(fmt.Sprintf("records of heights %d to %d", c.p.meta.first, c.p.meta.height))
	next := c.p.meta.first
	err := scan(c.p.snap, spaceRecord, nil, nil, false, func(key, value []byte) error {
		if err := c.tick("records"); err != nil {
			return err
		}
		if want := heightKey(spaceRecord, next)[1:]; !bytes.Equal(key, want) {
			c.rep.find("record at height %x, want %x", key, want)
			return nil
		}
		height := next
		next++
		rec, err := decodeRecord(value)
		if err != nil {
			c.rep.find("height %d: %v", height, err)
			return nil
		}
		if got := appHash(&rec.roots); got != rec.appHash {
			c.rep.find("height %d: the record's roots give AppHash %x, the record says %x", height, got, rec.appHash)
		}
		if height == c.p.meta.height && rec.appHash != c.p.appHash {
			c.rep.find("height %d: the record says AppHash %x, the store opened with %x", height, rec.appHash, c.p.appHash)
		}
		for i := range rec.roots {
			root, err := c.tree(i).readRoot(int64(height))
			if err != nil {
				c.rep.find("height %d: tree %s: %v", height, treeNames[i], err)
			} else if root.hash != rec.roots[i] {
				c.rep.find("height %d: tree %s has root %x, the record says %x", height, treeNames[i], root.hash, rec.roots[i])
			}
		}
		return nil
	})
	if err == nil && next != c.p.meta.height+1 {
		c.rep.find("records end at height %d, committed is %d", next-1, c.p.meta.height)
	}
	return err
}

// nodes: every inner node's hash is that of its two children as they say it. With records above, that makes every kept
// version right from its root down to its leaves.
func (c *checker) nodes() error {
	for i := range treeNames {
		c.progress("nodes of tree " + treeNames[i])
		d := c.tree(i)
		err := scan(c.p.snap, spaceTree, []byte{byte(i)}, []byte{byte(i) + 1}, false, func(key, value []byte) error {
			if err := c.tick("nodes"); err != nil {
				return err
			}
			c.rep.Nodes++
			c.rep.NodeBytes += int64(1 + len(key) + len(value))
			id, ok := parseNodeID(key[1:])
			if !ok {
				c.rep.find("tree %s: row %x is not a node's", treeNames[i], key[1:])
				return nil
			}
			if id.version > int64(c.p.meta.height) {
				c.rep.find("tree %s: node %d/%d is above the committed height", treeNames[i], id.version, id.nonce)
				return nil
			}
			if _, ref := parseNodeID(value); ref {
				return nil // records followed it, if its height is kept
			}
			n, err := parseNode(id, value)
			if err != nil {
				c.rep.find("tree %s: node %d/%d: %v", treeNames[i], id.version, id.nonce, err)
				return nil
			}
			if n.leaf() {
				return nil
			}
			left, lerr := d.readNode(n.left)
			right, rerr := d.readNode(n.right)
			if lerr != nil || rerr != nil {
				c.rep.find("tree %s: below node %d/%d: left: %v; right: %v", treeNames[i], id.version, id.nonce, lerr, rerr)
				return nil
			}
			if sum := n.innerSum(left.hash, right.hash); sum != n.hash {
				c.rep.find("tree %s: node %d/%d hashes to %x, but says %x", treeNames[i], id.version, id.nonce, sum, n.hash)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// leaves: the newest version of every tree, hashed from the leaves up, and each leaf has its flat row.
func (c *checker) leaves() error {
	rec, err := readRecord(c.p.snap, c.p.meta.height)
	if err != nil {
		c.rep.find("%v", err)
		return nil
	}
	for i := range treeNames {
		c.progress("leaves of tree " + treeNames[i])
		d := c.tree(i)
		root, err := d.readRoot(int64(c.p.meta.height))
		if err != nil {
			c.rep.find("tree %s: %v", treeNames[i], err)
			continue
		}
		var last []byte
		leaves := int64(0)
		sum, err := d.walk(root, &last, func(n *node) error {
			if err := c.tick("leaves"); err != nil {
				return err
			}
			leaves++
			if leaves == 1 {
				if k, v := sentinel(i); !bytes.Equal(n.key, k) || !bytes.Equal(n.value, v) {
					c.rep.find("tree %s begins with %x = %x, which is not its sentinel", treeNames[i], n.key, n.value)
				}
				return nil
			}
			if treeIndex(n.key) != i {
				c.rep.find("tree %s holds key %x, which is not its", treeNames[i], n.key)
			}
			flat, err := get(c.p.snap, flatKey(n.key))
			switch {
			case err != nil:
				return fmt.Errorf("read state key %x: %w", n.key, err)
			case flat == nil:
				c.lost = true
				c.rep.find("tree %s has key %x = %x, the flat row is missing", treeNames[i], n.key, n.value)
			case !bytes.Equal(flat, n.value):
				c.rep.find("tree %s has key %x = %x, the flat row %x", treeNames[i], n.key, n.value, flat)
			}
			return nil
		})
		c.rep.Leaves += leaves
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if err != nil {
			c.rep.find("tree %s: %v", treeNames[i], err)
		} else if sum != rec.roots[i] {
			c.rep.find("tree %s hashes from its leaves to %x, the record says %x", treeNames[i], sum, rec.roots[i])
		}
	}
	return nil
}

// flat: when every leaf has its row and there are as many rows as leaves, there is no other row. Where not, each row is
// looked up in its tree.
func (c *checker) flat() error {
	c.progress("flat rows")
	err := scan(c.p.snap, spaceFlat, nil, nil, false, func(key, value []byte) error {
		if err := c.tick("flat rows"); err != nil {
			return err
		}
		c.rep.FlatBytes += int64(1 + len(key) + len(value))
		switch i := treeIndex(key); {
		case i < 0:
			c.rep.find("flat row %x is of a kind that nothing may hold", key)
		case i == beside:
			c.rep.Beside++
		default:
			c.rep.Rows++
		}
		if len(value) == 0 {
			c.rep.find("flat row %x is empty", key)
		}
		if c.row != nil {
			if err := c.row(key, value); err != nil {
				c.rep.find("row %x: %v", key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.rep.Rows != c.rep.Leaves-treeCount {
		c.rep.find("%d flat rows, but %d leaves besides the sentinels", c.rep.Rows, c.rep.Leaves-treeCount)
	} else if !c.lost {
		return nil
	}
	c.progress("flat rows that no tree holds")
	return scan(c.p.snap, spaceFlat, nil, nil, false, func(key, _ []byte) error {
		if err := c.tick("flat rows"); err != nil {
			return err
		}
		i := treeIndex(key)
		if i < 0 || i == beside {
			return nil
		}
		if held, err := c.tree(i).holds(int64(c.p.meta.height), key); err == nil && !held {
			c.rep.find("flat row %x is not in tree %s", key, treeNames[i])
		}
		return nil // what cannot be read was found by leaves
	})
}

// index: its rows can be read. What they mean only the index knows.
func (c *checker) index() error {
	c.progress("index")
	return scan(c.p.snap, spaceIndex, nil, nil, false, func(_, _ []byte) error {
		c.rep.Index++
		return c.tick("index")
	})
}
