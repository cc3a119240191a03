package node

import (
	"bytes"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/go-viper/mapstructure/v2"
	"github.com/pelletier/go-toml/v2"

	"github.com/pacioli-ledger/pacioli/app/mempool"
	"github.com/pacioli-ledger/pacioli/app/snapshot"
)

// ConfigFile is the name of the one configuration file, in the home folder.
const ConfigFile = "pacioli.toml"

// EnvPrefix begins the name of every environment variable: the key "p2p.listen" is PACIOLI_P2P_LISTEN.
const EnvPrefix = "PACIOLI_"

// Duration is a time.Duration that is written as "1s" or "250ms".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Config is everything that an operator can set. Each key of the file is also an environment variable and a flag of
// `pacioli start`; a flag wins over a variable, a variable over the file, the file over the default.
type Config struct {
	Node      NodeConfig      `toml:"node"`
	Log       LogConfig       `toml:"log"`
	RPC       RPCConfig       `toml:"rpc"`
	P2P       P2PConfig       `toml:"p2p"`
	Consensus ConsensusConfig `toml:"consensus"`
	Mempool   MempoolConfig   `toml:"mempool"`
	Store     StoreConfig     `toml:"store"`
	Retention RetentionConfig `toml:"retention"`
	Snapshot  SnapshotConfig  `toml:"snapshot"`
	StateSync StateSyncConfig `toml:"state_sync"`
	Metrics   MetricsConfig   `toml:"metrics"`
	Wallet    WalletConfig    `toml:"wallet"`
	// CometBFT overrides settings of CometBFT by its own names, as "p2p.send_rate". What the ledger depends on cannot be
	// overridden: see Comet.
	CometBFT map[string]any `toml:"cometbft"`
}

// NodeConfig names the node.
type NodeConfig struct {
	Moniker        string   `toml:"moniker" comment:"name by which other operators see this node"`
	MinFreeMB      uint64   `toml:"min_free_mb" comment:"the node stops, with exit code 12, when the disk of its data has less left; 0: never"`
	MaxClockOffset Duration `toml:"max_clock_offset" comment:"the node stops, with exit code 13, when its clock is further from the other validators' for ten seconds; 1s to 55s"`
}

// LogConfig says what is logged to standard error.
type LogConfig struct {
	Level    string `toml:"level" comment:"debug, info, warn or error"`
	Format   string `toml:"format" comment:"text or json"`
	CometBFT string `toml:"cometbft" comment:"level for what CometBFT logs"`
}

// RPCConfig is the one port for wallets and explorers: CometBFT's RPC, /v1 and the health pages.
type RPCConfig struct {
	Listen         string   `toml:"listen" comment:"host:port; \"\" for none. Anyone who reaches it can read everything and submit transactions"`
	MaxConnections int      `toml:"max_connections" comment:"connections at once, 0 for no limit"`
	CORSOrigins    []string `toml:"cors_origins" comment:"origins whose pages may call, [] for none"`
	ReadyLag       Duration `toml:"ready_lag" comment:"/readyz fails when no block was committed for so long"`
}

// P2PConfig is the network of nodes.
type P2PConfig struct {
	Listen          string   `toml:"listen" comment:"host:port"`
	ExternalAddress string   `toml:"external_address" comment:"host:port that peers are told, when it differs from listen"`
	PersistentPeers []string `toml:"persistent_peers" comment:"node_id@host:port of nodes to stay connected to"`
	PEX             bool     `toml:"pex" comment:"learn of further nodes from peers; validators of a closed network leave it off"`
	MaxInbound      int      `toml:"max_inbound" comment:"peers that may connect besides the persistent ones"`
}

// ConsensusConfig is about time, and about not signing twice.
type ConsensusConfig struct {
	IdleBlockInterval     Duration `toml:"idle_block_interval" comment:"how long a proposer waits for a first transaction before it proposes an empty block"`
	TimeoutPropose        Duration `toml:"timeout_propose" comment:"how long to wait for a proposal; at least twice idle_block_interval"`
	TimeoutCommit         Duration `toml:"timeout_commit" comment:"pause after a block, to let the votes of slow validators in"`
	DoubleSignCheckHeight uint64   `toml:"double_sign_check_height" comment:"blocks below the first signature that are searched for signatures of this key by another node; 0 to search none, ever"`
}

// MempoolConfig bounds the transactions that wait.
type MempoolConfig struct {
	MaxTxs            int      `toml:"max_txs" comment:"transactions, ready and waiting for a sequence"`
	MaxBytes          int64    `toml:"max_bytes" comment:"their bytes"`
	MaxTxsPerSender   int      `toml:"max_txs_per_sender" comment:"share of one account"`
	MaxBytesPerSender int64    `toml:"max_bytes_per_sender" comment:"share of one account"`
	MaxGap            uint64   `toml:"max_gap" comment:"how far a sequence may be ahead"`
	MaxAge            Duration `toml:"max_age" comment:"after which a transaction that no block has taken is forgotten"`
	Workers           int      `toml:"workers" comment:"goroutines that verify signatures"`
	QueueLength       int      `toml:"queue_length" comment:"transactions that wait to be verified; beyond it they are shed"`
	OfferAgainAfter   Duration `toml:"offer_again_after" comment:"after which a waiting transaction is offered to peers again"`
}

// StoreConfig is the application's database.
type StoreConfig struct {
	CacheMB        int    `toml:"cache_mb" comment:"block cache of the database"`
	TreeCacheNodes int    `toml:"tree_cache_nodes" comment:"Merkle nodes in memory, about 0.5 kB each"`
	KeepVersions   uint64 `toml:"keep_versions" comment:"heights whose state stays provable, 0 for all that retention keeps"`
}

// RetentionConfig says how much history this node keeps: blocks, their results, provable states and the index. Each limit that
// is set is kept, so the one that keeps least decides.
type RetentionConfig struct {
	Heights uint64   `toml:"heights" comment:"newest heights to keep, 0 for no limit"`
	Time    Duration `toml:"time" comment:"age up to which heights are kept, 0s for no limit"`
	Bytes   int64    `toml:"bytes" comment:"size of the data folder above which the oldest heights go, 0 for no limit"`
}

// SnapshotConfig is about the snapshots that the node makes for others.
type SnapshotConfig struct {
	Interval uint64 `toml:"interval" comment:"heights between two snapshots that the node makes in the background, 0 for none"`
	Keep     int    `toml:"keep" comment:"snapshots that stay; each has about 115 bytes per row of the state"`
}

// StateSyncConfig is about beginning with a snapshot of others instead of the first block.
type StateSyncConfig struct {
	Enable      bool     `toml:"enable" comment:"a node without data takes a snapshot of others, instead of executing every block"`
	Servers     []string `toml:"servers" comment:"RPC URLs of nodes to take headers and the snapshot from; both are verified, so the nodes need not be trusted"`
	Peers       bool     `toml:"peers" comment:"take the snapshot from the peers, through CometBFT, and only headers from the servers"`
	TrustHeight uint64   `toml:"trust_height" comment:"height of a recent block that somebody trusted has told, 0 to begin trust with genesis"`
	TrustHash   string   `toml:"trust_hash" comment:"hash of that block"`
}

// source is where the node takes headers from.
func (c StateSyncConfig) source() StateSource {
	return StateSource{Servers: c.Servers, Height: c.TrustHeight, Hash: c.TrustHash}
}

// MetricsConfig is where Prometheus reads.
type MetricsConfig struct {
	Listen string `toml:"listen" comment:"host:port of /metrics, \"\" for none"`
}

// WalletConfig is read by the wallet's commands only.
type WalletConfig struct {
	Nodes          []string `toml:"nodes" comment:"URLs of nodes to ask; answers are verified, so they need not be trusted"`
	PassphraseFile string   `toml:"passphrase_file" comment:"file with the passphrase of this home's keys, \"\" to be asked"`
	Genesis        string   `toml:"genesis" comment:"genesis file that trust begins with, \"\" for config/genesis.json in the home"`
}

// DefaultConfig returns the settings that `pacioli init` writes.
func DefaultConfig() Config {
	m := mempool.DefaultConfig()
	return Config{
		Node:      NodeConfig{Moniker: "pacioli", MinFreeMB: 512, MaxClockOffset: Duration(30 * time.Second)},
		Log:       LogConfig{Level: "info", Format: "text", CometBFT: "error"},
		RPC:       RPCConfig{Listen: "127.0.0.1:26657", MaxConnections: 900, CORSOrigins: []string{}, ReadyLag: Duration(10 * time.Second)},
		P2P:       P2PConfig{Listen: "0.0.0.0:26656", PersistentPeers: []string{}, MaxInbound: 40},
		Consensus: ConsensusConfig{IdleBlockInterval: Duration(time.Second), TimeoutPropose: Duration(2 * time.Second), TimeoutCommit: 0, DoubleSignCheckHeight: 10},
		Mempool: MempoolConfig{MaxTxs: m.MaxTxs, MaxBytes: m.MaxBytes, MaxTxsPerSender: m.MaxTxsPerSender, MaxBytesPerSender: m.MaxBytesPerSender,
			MaxGap: m.MaxGap, MaxAge: Duration(m.MaxAge), Workers: m.Workers, QueueLength: m.QueueLength, OfferAgainAfter: Duration(m.OfferAgainAfter)},
		Snapshot: SnapshotConfig{Interval: 10_000, Keep: 2}, StateSync: StateSyncConfig{Servers: []string{}},
		Store:  StoreConfig{CacheMB: 128, TreeCacheNodes: 200_000, KeepVersions: 0},
		Wallet: WalletConfig{Nodes: []string{"http://127.0.0.1:26657"}},
	}
}

// Key is one setting: its name in the file, as a flag and as an environment variable, what it is for, and its value.
type Key struct {
	Name    string // "p2p.listen", which is also the flag
	Env     string // "PACIOLI_P2P_LISTEN"
	Comment string
	field   reflect.Value
}

// Keys lists every setting of c that has a flag and a variable; setting one changes c.
func (c *Config) Keys() []Key {
	var keys []Key
	sections := reflect.ValueOf(c).Elem()
	for i := range sections.NumField() {
		section := sections.Type().Field(i).Tag.Get("toml")
		fields := sections.Field(i)
		if fields.Kind() != reflect.Struct {
			continue
		}
		for j := range fields.NumField() {
			f := fields.Type().Field(j)
			name := section + "." + f.Tag.Get("toml")
			keys = append(keys, Key{Name: name, Env: EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")), Comment: f.Tag.Get("comment"), field: fields.Field(j)})
		}
	}
	return keys
}

// Value returns the setting as text, as Set takes it.
func (k Key) Value() string {
	switch v := k.field.Interface().(type) {
	case []string:
		return strings.Join(v, ",")
	case Duration:
		return time.Duration(v).String()
	default:
		return fmt.Sprint(v)
	}
}

// Set changes the setting. Lists are separated by commas.
func (k Key) Set(text string) (err error) {
	switch v := k.field.Addr().Interface().(type) {
	case *string:
		*v = text
	case *[]string:
		*v = []string{}
		for _, s := range strings.Split(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*v = append(*v, s)
			}
		}
	case *bool:
		*v, err = strconv.ParseBool(text)
	case *int:
		*v, err = strconv.Atoi(text)
	case *int64:
		*v, err = strconv.ParseInt(text, 10, 64)
	case *uint64:
		*v, err = strconv.ParseUint(text, 10, 64)
	case encoding.TextUnmarshaler:
		err = v.UnmarshalText([]byte(text))
	default:
		return fmt.Errorf("setting %s: no way to set a %s", k.Name, k.field.Type())
	}
	if err != nil {
		return fmt.Errorf("setting %s: %q is not %s", k.Name, text, kindName(k.field))
	}
	return nil
}

// String and Type make a Key a flag's value.
func (k Key) String() string {
	if !k.field.IsValid() {
		return ""
	}
	return k.Value()
}

// Type names the kind of value in the help of the flag.
func (k Key) Type() string { return kindName(k.field) }

func kindName(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return "duration"
	case []string:
		return "list"
	case bool:
		return "bool"
	case string:
		return "text"
	}
	return "number"
}

// LoadConfig reads home/pacioli.toml and the environment. A key that the file should not have is an error that names its
// line. A missing file is an error that is fs.ErrNotExist.
func LoadConfig(home string) (Config, error) {
	c := DefaultConfig()
	path := filepath.Join(home, ConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := c.decode(text); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, c.Environment(os.LookupEnv)
}

// LoadConfigOrDefault is LoadConfig for commands that need no home folder.
func LoadConfigOrDefault(home string) (Config, error) {
	c, err := LoadConfig(home)
	if errors.Is(err, fs.ErrNotExist) {
		c = DefaultConfig()
		err = c.Environment(os.LookupEnv)
	}
	return c, err
}

func (c *Config) decode(text []byte) error {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(c)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var unknown []string
		for _, e := range strict.Errors {
			line, _ := e.Position()
			unknown = append(unknown, fmt.Sprintf("line %d: unknown key %s", line, strings.Join(e.Key(), ".")))
		}
		return errors.New(strings.Join(unknown, "; "))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := bad.Position()
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	return err
}

// Environment applies the environment's variables.
func (c *Config) Environment(lookup func(string) (string, bool)) error {
	for _, k := range c.Keys() {
		if text, ok := lookup(k.Env); ok {
			if err := k.Set(text); err != nil {
				return fmt.Errorf("environment variable %s: %w", k.Env, err)
			}
		}
	}
	return nil
}

// Encode writes the file, with what each key is for.
func (c Config) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Configuration of this Pacioli node and wallet. `pacioli config` shows what is in force.\n\n")
	if c.CometBFT == nil {
		c.CometBFT = map[string]any{}
	}
	if err := toml.NewEncoder(&b).Encode(c); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Check refuses settings that do not work or are not safe, and says what to change.
func (c Config) Check() error {
	var errs []error
	listen := func(name, value string, optional bool) {
		if value == "" && optional {
			return
		}
		if _, _, err := net.SplitHostPort(value); err != nil {
			errs = append(errs, fmt.Errorf("%s is %q, want host:port", name, value))
		}
	}
	listen("rpc.listen", c.RPC.Listen, true)
	listen("p2p.listen", c.P2P.Listen, false)
	listen("p2p.external_address", c.P2P.ExternalAddress, true)
	listen("metrics.listen", c.Metrics.Listen, true)
	for _, p := range c.P2P.PersistentPeers {
		id, address, ok := strings.Cut(p, "@")
		if _, _, err := net.SplitHostPort(address); !ok || len(id) != 40 || err != nil {
			errs = append(errs, fmt.Errorf("p2p.persistent_peers has %q, want node_id@host:port with an id of 40 hex digits: `pacioli show-node-id` prints it", p))
		}
	}
	idle, propose := time.Duration(c.Consensus.IdleBlockInterval), time.Duration(c.Consensus.TimeoutPropose)
	if idle < 0 || idle > 10*time.Second {
		errs = append(errs, fmt.Errorf("consensus.idle_block_interval is %s, want 0s to 10s", idle))
	}
	if propose < 2*idle || propose < 500*time.Millisecond {
		errs = append(errs, fmt.Errorf("consensus.timeout_propose is %s, want at least 500ms and at least twice idle_block_interval (%s), or proposals come too late", propose, idle))
	}
	if time.Duration(c.Consensus.TimeoutCommit) < 0 {
		errs = append(errs, fmt.Errorf("consensus.timeout_commit is %s, want 0s or more", time.Duration(c.Consensus.TimeoutCommit)))
	}
	if n := c.Consensus.DoubleSignCheckHeight; n > maxDoubleSignCheckHeight {
		errs = append(errs, fmt.Errorf("consensus.double_sign_check_height is %d, want at most %d", n, uint64(maxDoubleSignCheckHeight)))
	}
	if lag := time.Duration(c.RPC.ReadyLag); lag < 2*idle+time.Second {
		errs = append(errs, fmt.Errorf("rpc.ready_lag is %s, want at least a second more than twice idle_block_interval (%s), or an idle node is never ready", lag, idle))
	}
	if m := c.Node.MinFreeMB; m > maxMinFreeMB {
		errs = append(errs, fmt.Errorf("node.min_free_mb is %d, want at most %d", m, uint64(maxMinFreeMB)))
	}
	if off := time.Duration(c.Node.MaxClockOffset); off < time.Second || off > 55*time.Second {
		errs = append(errs, fmt.Errorf("node.max_clock_offset is %s, want 1s to 55s: consensus fails on a clock that is 60s behind", off))
	}
	if c.Store.KeepVersions == 1 {
		errs = append(errs, errors.New("store.keep_versions is 1, want 0 (all) or at least 2: a state is proven by the header after it"))
	}
	if n := c.Retention.Heights; n != 0 && n < minRetainHeights {
		errs = append(errs, fmt.Errorf("retention.heights is %d, want 0 (no limit) or at least %d: peers that were away for a minute fetch these blocks from here", n, minRetainHeights))
	}
	if d := time.Duration(c.Retention.Time); d != 0 && d < minRetainTime {
		errs = append(errs, fmt.Errorf("retention.time is %s, want 0s (no limit) or at least %s: peers that were away for a minute fetch these blocks from here", d, minRetainTime))
	}
	if n := c.Retention.Bytes; n != 0 && n < minRetainBytes {
		errs = append(errs, fmt.Errorf("retention.bytes is %d, want 0 (no limit) or at least %d: logs and tables that are about to be merged take so much on a small chain too", n, minRetainBytes))
	}
	if c.Store.CacheMB < 1 || c.Store.TreeCacheNodes < 0 {
		errs = append(errs, fmt.Errorf("store.cache_mb is %d and store.tree_cache_nodes %d, want at least 1 and 0", c.Store.CacheMB, c.Store.TreeCacheNodes))
	}
	if c.Snapshot.Keep < 1 {
		errs = append(errs, fmt.Errorf("snapshot.keep is %d, want at least 1; snapshot.interval = 0 makes none", c.Snapshot.Keep))
	}
	if n := c.Snapshot.Interval; n != 0 && n < minSnapshotInterval {
		errs = append(errs, fmt.Errorf("snapshot.interval is %d, want 0 or at least %d: whoever takes a snapshot needs time to fetch it", n, minSnapshotInterval))
	}
	if s := c.StateSync; s.Enable && len(s.Servers) == 0 {
		errs = append(errs, errors.New("state_sync.enable is true and state_sync.servers is empty: give the RPC URL of at least one node, better of two operators"))
	}
	if s := c.StateSync; (s.TrustHeight == 0) != (s.TrustHash == "") {
		errs = append(errs, fmt.Errorf("state_sync.trust_height is %d and state_sync.trust_hash %q: give both or none", s.TrustHeight, s.TrustHash))
	} else if hash, err := hex.DecodeString(s.TrustHash); err != nil || s.TrustHash != "" && len(hash) != 32 {
		errs = append(errs, fmt.Errorf("state_sync.trust_hash is %q, want 64 hex digits", s.TrustHash))
	}
	if _, err := logLevel(c.Log.Level); err != nil {
		errs = append(errs, fmt.Errorf("log.level: %w", err))
	}
	if _, err := logLevel(c.Log.CometBFT); err != nil {
		errs = append(errs, fmt.Errorf("log.cometbft: %w", err))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format is %q, want text or json", c.Log.Format))
	}
	if err := c.pool().Check(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Comet(""); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pool returns the mempool's limits.
func (c Config) pool() mempool.Config {
	m := mempool.DefaultConfig()
	m.MaxTxs, m.MaxBytes = c.Mempool.MaxTxs, c.Mempool.MaxBytes
	m.MaxTxsPerSender, m.MaxBytesPerSender = c.Mempool.MaxTxsPerSender, c.Mempool.MaxBytesPerSender
	m.MaxGap, m.MaxAge = c.Mempool.MaxGap, time.Duration(c.Mempool.MaxAge)
	m.Workers, m.QueueLength = c.Mempool.Workers, c.Mempool.QueueLength
	m.OfferAgainAfter = time.Duration(c.Mempool.OfferAgainAfter)
	return m
}

// fixed are the settings of CometBFT that the ledger depends on, with the reason.
var fixed = map[string]string{
	"mempool.type":                       "the mempool is the application's",
	"consensus.create_empty_blocks":      "with the application's mempool the chain would stop for ever",
	"consensus.double_sign_check_height": "set double_sign_check_height in [consensus]: the node's own check tells its own signatures from another node's",
	"blocksync.adaptive_sync":            "a validator could sign twice",
	"rpc.laddr":                          "set listen in [rpc]: the node serves CometBFT's RPC itself",
	"priv_validator_laddr":               "a remote signer would sign without the node's check against signing twice",
	"db_backend":                         "CometBFT's databases are on Pebble",
	"storage.discard_abci_responses":     "clients need the results of past blocks",
	"statesync.enable":                   "set enable in [state_sync]",
	"statesync.rpc_servers":              "set servers in [state_sync]",
	"statesync.trust_height":             "set trust_height in [state_sync]",
	"statesync.trust_hash":               "set trust_hash in [state_sync]",
}

// flatten turns tables within the section [cometbft] into keys with dots: `p2p.send_rate = 1`, `"p2p.send_rate" = 1` and a
// table [cometbft.p2p] mean the same, and what is fixed is fixed in each of them.
func flatten(into map[string]any, prefix string, m map[string]any) {
	for key, value := range m {
		if inner, ok := value.(map[string]any); ok {
			flatten(into, prefix+key+".", inner)
		} else {
			into[prefix+key] = value
		}
	}
}

// minSnapshotInterval keeps a snapshot from being replaced while it is fetched.
const minSnapshotInterval = 20

// maxMinFreeMB is a terabyte: more is a mistake.
const maxMinFreeMB = 1 << 20

// maxDoubleSignCheckHeight bounds the blocks that are read before the first signature: 10,000 are read in about a second.
const maxDoubleSignCheckHeight = 10_000

// Comet derives CometBFT's configuration: its defaults, what the ledger needs, the operator's settings, and last the
// overrides of section [cometbft], of which an unknown or a fixed one is an error.
func (c Config) Comet(home string) (*cmtcfg.Config, error) {
	cc := cmtcfg.DefaultConfig()
	cc.Moniker = c.Node.Moniker
	cc.RPC.ListenAddress = ""
	cc.RPC.MaxOpenConnections = c.RPC.MaxConnections
	cc.RPC.CORSAllowedOrigins = c.RPC.CORSOrigins
	cc.P2P.ListenAddress = "tcp://" + c.P2P.Listen
	cc.P2P.ExternalAddress = c.P2P.ExternalAddress
	cc.P2P.PersistentPeers = strings.Join(c.P2P.PersistentPeers, ",")
	cc.P2P.PexReactor = c.P2P.PEX
	cc.P2P.MaxNumInboundPeers = c.P2P.MaxInbound
	// Nodes of one organisation share addresses, and test networks share one host.
	cc.P2P.AddrBookStrict, cc.P2P.AllowDuplicateIP = false, true
	// Latency: the defaults are made for hundreds of validators over the Internet. Peers that are found by PEX are dialled
	// again within seconds; for the persistent ones see redial.
	cc.P2P.FlushThrottleTimeout = time.Millisecond
	cc.P2P.PersistentPeersMaxDialPeriod = 2 * time.Second
	cc.P2P.SendRate, cc.P2P.RecvRate = 100<<20, 100<<20
	cc.P2P.MaxPacketMsgPayloadSize = 16 << 10
	cc.Consensus.PeerGossipSleepDuration = 5 * time.Millisecond
	cc.Consensus.TimeoutPropose = time.Duration(c.Consensus.TimeoutPropose)
	cc.Consensus.TimeoutCommit = time.Duration(c.Consensus.TimeoutCommit)
	// When a proposer is down, its turn costs timeout_propose, and then the pause for late precommits, by default a
	// second. Votes take one way through the network; what is too short for one round is a little longer in the next. By a
	// little: where a validator alone is locked on a block (it was cut off before the others had its vote) and no other can be
	// spared, nothing is committed before its turn to propose, and with CometBFT's half a second that takes six validators 20 s.
	cc.Consensus.TimeoutPrevote, cc.Consensus.TimeoutPrecommit = 500*time.Millisecond, 500*time.Millisecond
	cc.Consensus.TimeoutPrevoteDelta, cc.Consensus.TimeoutPrecommitDelta = 100*time.Millisecond, 100*time.Millisecond
	// CometBFT's check cannot tell its own signatures from another node's: with it a network of which half was restarted
	// would never start again. Ours (guard.go) compares with the sign state.
	cc.Consensus.DoubleSignCheckHeight = 0
	cc.BlockSync.AdaptiveSync = false
	cc.Mempool.Type = cmtcfg.MempoolTypeApp
	cc.Mempool.ReapInterval = 10 * time.Millisecond
	cc.Mempool.ReapMaxBytes = 1 << 20
	cc.Mempool.MaxTxBytes = c.pool().MaxTxBytes
	cc.Mempool.MaxBatchBytes = 2 << 20
	cc.Mempool.Recheck = false
	cc.TxIndex.Indexer = "null" // the application's index finds transactions; CometBFT's cannot be pruned
	if c.StateSync.Enable {
		// Headers come from the node's own provider (provider.go). CometBFT's check of its settings wants what its own needs.
		cc.StateSync.Enable = true
		cc.StateSync.RPCServers = []string{"-", "-"}
		cc.StateSync.TrustHeight, cc.StateSync.TrustHash = 1, strings.Repeat("00", 32)
		cc.StateSync.DiscoveryTime, cc.StateSync.ChunkRequestTimeout = 5*time.Second, 5*time.Second
		cc.StateSync.MaxSnapshotChunks = snapshot.MaxChunks
	}
	cc.Instrumentation.Prometheus = c.Metrics.Listen != ""
	cc.Instrumentation.PrometheusListenAddr = c.Metrics.Listen
	overrides := map[string]any{}
	flatten(overrides, "", c.CometBFT)
	nested := map[string]any{}
	for _, key := range sortedNames(overrides) {
		if why, ok := fixed[key]; ok {
			return nil, fmt.Errorf("cometbft.%q cannot be overridden: %s", key, why)
		}
		section, name, ok := strings.Cut(key, ".")
		if !ok {
			nested[key] = overrides[key]
			continue
		}
		inner, _ := nested[section].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			nested[section] = inner
		}
		inner[name] = overrides[key]
	}
	// Names match to the letter: by default mapstructure ignores case, and "Mempool.Type" would get past the fixed ones.
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{Result: cc, ErrorUnused: true,
		DecodeHook: mapstructure.StringToTimeDurationHookFunc(), MatchName: func(key, field string) bool { return key == field }})
	if err != nil {
		return nil, err
	}
	if err := d.Decode(nested); err != nil {
		return nil, fmt.Errorf("section [cometbft], whose keys are like \"p2p.send_rate\": %w", err)
	}
	cc.SetRoot(home)
	if err := cc.ValidateBasic(); err != nil {
		return nil, fmt.Errorf("settings for CometBFT: %w", err)
	}
	return cc, nil
}
