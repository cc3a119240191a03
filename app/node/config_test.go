package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/privval"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	"github.com/pacioli-ledger/pacioli/genesis"
)

// TestConfigRoundTrip: what is written is read again, for each key by file, by variable and by flag, with another value
// than the default.
func TestConfigRoundTrip(t *testing.T) {
	d := DefaultConfig()
	changed := map[string]string{"node.moniker": "it's \"me\" # \\", "log.level": "debug", "log.format": "json", "log.cometbft": "info",
		"p2p.persistent_peers": strings.Repeat("ab", 20) + "@127.0.0.1:1," + strings.Repeat("cd", 20) + "@host:2"}
	for i, k := range d.Keys() {
		if k.Comment == "" || strings.Contains(k.Name, "..") || strings.HasSuffix(k.Name, ".") || k.Env != EnvPrefix+strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_")) {
			t.Errorf("key %+v", k)
		}
		text, ok := changed[k.Name]
		if !ok {
			switch k.Type() {
			case "bool":
				text = fmt.Sprint(k.Value() != "true")
			case "duration":
				text = fmt.Sprintf("%dms", 700+i)
			case "list":
				text = fmt.Sprintf("a%d,b", i)
			case "number":
				text = fmt.Sprint(1100 + i) // no default
			default:
				text = fmt.Sprintf("127.0.0.1:%d", 1000+i)
			}
		}
		var byFlag, byVariable Config
		byFlag, byVariable = DefaultConfig(), DefaultConfig()
		if err := byFlag.Keys()[i].Set(text); err != nil {
			t.Errorf("%s: %s", k.Name, err)
			continue
		}
		if err := byVariable.Environment(func(name string) (string, bool) { return text, name == k.Env }); err != nil {
			t.Errorf("%s: %s", k.Name, err)
		}
		home := t.TempDir()
		if err := Home(home).SaveConfig(byFlag); err != nil {
			t.Fatal(err)
		}
		byFile, err := LoadConfig(home)
		if err != nil {
			t.Errorf("%s = %s: %s", k.Name, text, err)
		}
		byFile.CometBFT = nil
		if got := byFlag.Keys()[i].Value(); got != text {
			t.Errorf("%s is %q, want %q", k.Name, got, text)
		}
		if reflect.DeepEqual(byFlag, DefaultConfig()) || !reflect.DeepEqual(byFlag, byFile) || !reflect.DeepEqual(byFlag, byVariable) {
			t.Errorf("%s: by flag %+v\nby file %+v\nby variable %+v", k.Name, byFlag, byFile, byVariable)
		}
	}
	if err := d.Check(); err != nil {
		t.Errorf("the defaults are refused: %s", err)
	}
}

func TestConfigRefused(t *testing.T) {
	for text, want := range map[string]string{
		"[node]\nmoniker = \"x\"\nmonicker = \"y\"\n": "line 3: unknown key node.monicker",
		"[nod]\nmoniker = \"x\"\n":                    "unknown key nod",
		"surprise = 1\n":                              "line 1: unknown key surprise",
		"[rpc]\nlisten = 5\n":                         "line 2",
		"[rpc\n":                                      "line 1",
		"[rpc]\nready_lag = \"soon\"\n":               "soon",
		"[p2p]\npex = 1\n":                            "line 2",
	} {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, ConfigFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(home); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ConfigFile) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for name, value := range map[string]string{"rpc.max_connections": "many", "p2p.pex": "perhaps", "consensus.timeout_propose": "5", "mempool.max_gap": "-1"} {
		c := DefaultConfig()
		env := EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if err := c.Environment(func(n string) (string, bool) { return value, n == env }); err == nil || !strings.Contains(err.Error(), env) || !strings.Contains(err.Error(), value) {
			t.Errorf("%s=%s: %v", env, value, err)
		}
	}
	for name, value := range map[string]string{"rpc.listen": "localhost", "p2p.listen": "", "p2p.persistent_peers": "abc@host:1", "consensus.idle_block_interval": "11s",
		"consensus.timeout_propose": "1s", "consensus.timeout_commit": "-1s", "consensus.double_sign_check_height": "18446744073709551615", "rpc.ready_lag": "2s",
		"store.keep_versions": "1", "store.cache_mb": "0", "log.level": "loud", "log.format": "xml", "log.cometbft": "", "mempool.max_txs": "0", "p2p.max_inbound": "-1"} {
		c := DefaultConfig()
		for _, k := range c.Keys() {
			if k.Name == name {
				if err := k.Set(value); err != nil {
					t.Errorf("%s: %s", name, err)
				}
			}
		}
		key, _ := name, value
		if err := c.Check(); err == nil {
			t.Errorf("%s = %q passes", key, value)
		}
	}
}

// TestCometOverrides: what the ledger depends on cannot be overridden, however it is spelt.
func TestCometOverrides(t *testing.T) {
	load := func(text string) (Config, error) {
		c := DefaultConfig()
		return c, c.decode([]byte(text))
	}
	for _, text := range []string{
		"[cometbft]\n\"p2p.send_rate\" = 77\n", "[cometbft]\np2p.send_rate = 77\n", "[cometbft.p2p]\nsend_rate = 77\n", "[cometbft]\np2p = {send_rate = 77}\n",
	} {
		c, err := load(text)
		if err != nil {
			t.Fatal(err)
		}
		if cc, err := c.Comet("home"); err != nil || cc.P2P.SendRate != 77 {
			t.Errorf("%q: %v", text, err)
		}
	}
	c, err := load("[cometbft]\n\"consensus.peer_gossip_sleep_duration\" = \"7ms\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if cc, err := c.Comet("home"); err != nil || cc.Consensus.PeerGossipSleepDuration != 7*time.Millisecond || cc.RootDir != "home" {
		t.Errorf("%v", err)
	}
	for key := range fixed {
		section, name, ok := strings.Cut(key, ".")
		texts := []string{fmt.Sprintf("[cometbft]\n%q = false\n", key)}
		if ok {
			texts = append(texts, fmt.Sprintf("[cometbft]\n%s = false\n", key), fmt.Sprintf("[cometbft.%s]\n%s = false\n", section, name))
		}
		for _, text := range texts {
			c, err := load(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(); err == nil || !strings.Contains(err.Error(), "cannot be overridden") {
				t.Errorf("%q: %v", text, err)
			}
		}
		shouted, err := load(fmt.Sprintf("[cometbft]\n%q = false\n", strings.ToUpper(key)))
		if err != nil {
			t.Fatal(err)
		}
		if err := shouted.Check(); err == nil {
			t.Errorf("%s in capitals passes", key)
		}
	}
	for _, text := range []string{"[cometbft]\n\"p2p.surprise\" = 1\n", "[cometbft]\nsurprise = 1\n", "[cometbft]\n\"p2p.send_rate\" = \"fast\"\n", "[cometbft]\n\"a.b.c\" = 1\n"} {
		c, err := load(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err == nil {
			t.Errorf("%q passes", text)
		}
	}
	cc, err := DefaultConfig().Comet("home")
	if err != nil {
		t.Fatal(err)
	}
	if cc.Mempool.Type != "app" || !cc.Consensus.CreateEmptyBlocks || cc.Consensus.CreateEmptyBlocksInterval != 0 || cc.BlockSync.AdaptiveSync || cc.Mempool.ReapInterval <= 0 {
		t.Errorf("%+v %+v", cc.Mempool, cc.Consensus)
	}
}

// TestGuard runs the guard before a real key file and blocks that the test makes.
func TestGuard(t *testing.T) {
	key, other := ed25519.GenPrivKey(), ed25519.GenPrivKey()
	commit := func(flag types.BlockIDFlag, by ...ed25519.PrivKey) *types.Commit {
		c := &types.Commit{}
		for _, k := range by {
			c.Signatures = append(c.Signatures, types.CommitSig{BlockIDFlag: flag, ValidatorAddress: k.PubKey().Address(), Signature: []byte{1}})
		}
		return c
	}
	absent := &types.Commit{Signatures: []types.CommitSig{types.NewCommitSigAbsent()}}
	for name, c := range map[string]struct {
		signed, height int64
		look           uint64
		commits        map[int64]*types.Commit
		refused        bool
	}{
		"new chain":                    {0, 1, 10, nil, false},
		"own signatures":               {9, 10, 10, map[int64]*types.Commit{9: commit(types.BlockIDFlagCommit, key, other), 8: commit(types.BlockIDFlagCommit, key)}, false},
		"others' signatures":           {5, 10, 10, map[int64]*types.Commit{9: commit(types.BlockIDFlagCommit, other), 8: absent, 7: absent}, false},
		"signed elsewhere":             {8, 10, 10, map[int64]*types.Commit{9: commit(types.BlockIDFlagCommit, other, key)}, true},
		"nil signed elsewhere":         {8, 10, 10, map[int64]*types.Commit{9: commit(types.BlockIDFlagNil, key)}, true},
		"signed elsewhere, long since": {2, 100, 10, map[int64]*types.Commit{99: absent, 98: absent, 97: absent, 96: absent, 95: absent, 94: absent, 93: absent, 92: absent, 91: absent, 90: absent, 89: commit(types.BlockIDFlagCommit, key)}, false},
		"the last block looked at":     {2, 100, 10, map[int64]*types.Commit{99: absent, 98: absent, 97: absent, 96: absent, 95: absent, 94: absent, 93: absent, 92: absent, 91: absent, 90: commit(types.BlockIDFlagCommit, key)}, true},
		"sign state from a backup":     {3, 6, 10, map[int64]*types.Commit{5: commit(types.BlockIDFlagCommit, key), 4: commit(types.BlockIDFlagCommit, key)}, true},
		"not asked to look":            {3, 6, 0, map[int64]*types.Commit{5: commit(types.BlockIDFlagCommit, key)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pv := privval.NewFilePV(key, filepath.Join(dir, "key"), filepath.Join(dir, "state"))
			pv.LastSignState.Height = c.signed
			pv.Save()
			reports := 0
			g := &guard{PrivValidator: pv, address: key.PubKey().Address(), signed: pv.LastSignState.Height, look: c.look,
				commit: func(h int64) *types.Commit { return c.commits[h] }, forbidden: func(error) { reports++ }}
			hash := bytes.Repeat([]byte{1}, 32)
			id := cmtproto.BlockID{Hash: hash, PartSetHeader: cmtproto.PartSetHeader{Total: 1, Hash: hash}}
			for i := range int64(2) {
				proposal := &cmtproto.Proposal{Type: cmtproto.ProposalType, Height: c.height + i, PolRound: -1, BlockID: id}
				vote := &cmtproto.Vote{Type: cmtproto.PrevoteType, Height: c.height + i, BlockID: id}
				err1, err2 := g.SignProposal("chain", proposal), g.SignVote("chain", vote)
				if (err1 != nil) != c.refused || (err2 != nil) != c.refused || (len(vote.Signature) == 0) != c.refused || (len(proposal.Signature) == 0) != c.refused {
					t.Fatalf("proposal: %v, vote: %v", err1, err2)
				}
			}
			if (reports == 1) != c.refused || reports > 1 {
				t.Errorf("%d reports", reports)
			}
		})
	}
}

// TestGuardRepeats: what the key will not sign again, consensus gets as it was signed, the prevote that the sign state has
// forgotten with it.
func TestGuardRepeats(t *testing.T) {
	key, dir := ed25519.GenPrivKey(), t.TempDir()
	var got []*types.Vote
	begin := func() *guard { // as a node that has lost everything else
		pv := privval.LoadFilePV(filepath.Join(dir, "key"), filepath.Join(dir, "state"))
		return &guard{PrivValidator: pv, address: key.PubKey().Address(), prevote: filepath.Join(dir, "prevote"), decided: func(int64, int32) bool { return false },
			again: func(v *types.Vote) { got = append(got, v) }}
	}
	privval.NewFilePV(key, filepath.Join(dir, "key"), filepath.Join(dir, "state")).Save()
	block := func(b byte) cmtproto.BlockID {
		hash := bytes.Repeat([]byte{b}, 32)
		return cmtproto.BlockID{Hash: hash, PartSetHeader: cmtproto.PartSetHeader{Total: 1, Hash: hash}}
	}
	vote := func(kind cmtproto.SignedMsgType, height int64, round int32, b byte) *cmtproto.Vote {
		v := &cmtproto.Vote{Type: kind, Height: height, Round: round, Timestamp: time.Unix(1, 5).UTC()}
		if b != 0 {
			v.BlockID = block(b)
		}
		return v
	}
	g := begin()
	for _, v := range []*cmtproto.Vote{vote(cmtproto.PrevoteType, 5, 1, 1), vote(cmtproto.PrecommitType, 5, 1, 0)} {
		if err := g.SignVote("chain", v); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(v *cmtproto.Vote, want ...types.BlockID) {
		t.Helper()
		got = nil
		g := begin()
		if err := g.SignVote("chain", v); err == nil {
			t.Fatal("it signs twice")
		}
		if len(got) != len(want) {
			t.Fatalf("%d votes, want %d", len(got), len(want))
		}
		for i, v := range got {
			if err := v.Verify("chain", key.PubKey()); err != nil || v.BlockID.Key() != want[i].Key() || v.Height != 5 || v.Round != 1 {
				t.Errorf("%v: %v", v, err)
			}
		}
	}
	first := types.BlockID{Hash: block(1).Hash, PartSetHeader: types.PartSetHeader{Total: 1, Hash: block(1).Hash}}
	refused(vote(cmtproto.PrevoteType, 5, 1, 2), first, types.BlockID{})   // the prevote is forgotten by the sign state
	refused(vote(cmtproto.PrecommitType, 5, 1, 2), first, types.BlockID{}) // the precommit would be another
	refused(vote(cmtproto.PrevoteType, 5, 0, 2), first, types.BlockID{})   // an earlier round
	refused(vote(cmtproto.PrevoteType, 4, 0, 2))                           // nobody needs votes of another height
	if err := os.WriteFile(filepath.Join(dir, "prevote"), []byte("torn{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(vote(cmtproto.PrevoteType, 5, 1, 2), types.BlockID{})
}

// TestLockedValidatorsTurn: while one validator of seven is locked on a block and another is dishonest, every round ends
// with both waits, until the locked one proposes. That is at most six rounds, and G6 leaves 15 s.
func TestLockedValidatorsTurn(t *testing.T) {
	cc, err := DefaultConfig().Comet("home")
	if err != nil {
		t.Fatal(err)
	}
	var waited time.Duration
	for round := range int32(6) {
		waited += cc.Consensus.Prevote(round) + cc.Consensus.Precommit(round)
	}
	if waited > 12*time.Second { // proposals and votes take some of it
		t.Errorf("six rounds take %s", waited)
	}
}

func TestHome(t *testing.T) {
	for _, kind := range []string{KeyEd25519, KeyMLDSA65} {
		h := Home(filepath.Join(t.TempDir(), "home"))
		v, err := NewHome(h, DefaultConfig(), kind)
		if err != nil || v.PubKey.Type() != kind || v.Power != genesis.EqualPower || !bytes.Equal(v.Address, v.PubKey.Address()) {
			t.Fatalf("%+v: %v", v, err)
		}
		pv, err := h.loadValidator()
		if err != nil || !pv.Key.PubKey.Equals(v.PubKey) {
			t.Fatalf("%s: %v", kind, err)
		}
		if id, err := h.ID(); err != nil || len(id) != 40 {
			t.Errorf("id %q: %v", id, err)
		}
		for _, path := range []string{h.ValidatorKey(), h.Config(), h.NodeKey()} {
			if s, err := os.Stat(path); err != nil || s.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, mode %v", path, err, s.Mode())
			}
		}
		if _, err := NewHome(h, DefaultConfig(), kind); err == nil {
			t.Error("a home is made over another")
		}
		release, err := h.lock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.lock(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("locked twice: %v", err)
		}
		copied := Home(t.TempDir()) // another home with the same key file
		if err := os.MkdirAll(filepath.Join(string(copied), "config"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(h.ValidatorKey(), copied.ValidatorKey()); err != nil {
			t.Fatal(err)
		}
		if _, err := copied.lock(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a key is locked twice: %v", err)
		}
		release()
		if release, err = h.lock(); err != nil {
			t.Errorf("not released: %v", err)
		} else {
			release()
		}
		for _, bad := range []string{"", "{}", "null", `{"priv_key":{"type":"no/such","value":"AA=="}}`} {
			if err := os.WriteFile(h.ValidatorKey(), []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := h.loadValidator(); err == nil {
				t.Errorf("key file %q is taken", bad)
			}
		}
	}
	if _, err := NewHome(Home(t.TempDir()), DefaultConfig(), "rsa"); err == nil {
		t.Error("a key type that nobody knows")
	}
}
