package catalog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// Config is what a Catalog is made of. All fields without "optional" are required.
type Config struct {
	Shelf   Shelf
	Self    *trust.Identity // its Chain is read when a log needs the certificate
	Charter *trust.Charter
	Wall    func() time.Time // stamps records and names epochs; never orders
	Log     *slog.Logger
	Rand    io.Reader // tells apart epochs opened in one millisecond; optional: crypto/rand

	// CacheBytes is how much memory records may take besides the index, about; what does not fit is read
	// from the shelf. Optional: DefaultCache; negative: none.
	CacheBytes int
}

// DefaultCache holds the records of a mesh of some hundred nodes and ten thousand artifacts.
const DefaultCache = 8 << 20

// A Catalog is everything a node has heard, on disk and in memory. All methods may be called from any
// goroutine. It has none of its own: it works in its callers, and in Session while one runs.
type Catalog struct {
	cfg  Config
	self id.Node

	// writing is held by the one writer while its transaction becomes durable and is merged. Readers
	// never take it. It guards stale.
	writing sync.Mutex
	stale   map[string]bool // keys that the next transaction deletes

	// mu guards what follows, for moments: never across the disk or a stream. Only who holds writing as
	// well changes epoch and set, so a writer may read them without mu.
	mu       sync.RWMutex
	epoch    uint64 // that own records go to
	set      *set
	sessions map[*session]bool
	turn     turn
	forks    map[LogID]Fork
	claims   []time.Time // when own records came from elsewhere, within cloneTime
	cached   int         // bytes of records in memory, about
	stats    Stats
	agreed   atomic.Uint64 // Stats.Agreed, counted while mu may be held
	news     news

	changed chan struct{} // capacity 1, no data
	checked chan struct{} // closed when a peer had its chance to tell the own head
	once    sync.Once     // closes checked
}

// Stats counts since Open what an operator may ask about.
type Stats struct {
	Logs, Records int // live now
	Graves        int // logs that aged out, now
	Forks         int // known now

	Appended   uint64 // own records
	Merged     uint64 // records learnt from peers
	Repeated   uint64 // records heard again, or needless when they came: not verified, not stored
	Keyless    uint64 // records skipped because the certificate of their origin is not known
	Refused    uint64 // sessions ended because of what the peer sent
	Incomplete uint64 // logs that a peer passed on with records left out, after it was asked for all
	Agreed     uint64 // comparisons that found a peer to know the same
	Overflows  uint64 // times a slow peer's queue was given up for a later comparison
	Buried     uint64 // logs that aged out
}

// Open reads the shelf. On one that holds no epoch it opens a new one: a node that lost its store never
// writes into a log that it can not see the end of.
func Open(cfg Config) (*Catalog, error) {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	c := &Catalog{
		cfg: cfg, self: cfg.Self.ID(), set: newSet(), sessions: map[*session]bool{}, stale: map[string]bool{},
		forks:   map[LogID]Fork{},
		changed: make(chan struct{}, 1), checked: make(chan struct{}),
	}
	if c.cfg.CacheBytes == 0 {
		c.cfg.CacheBytes = DefaultCache
	}
	c.set.fetch = func(e *entry) *Record { return c.record(e) }
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("read the catalog: %w", err)
	}
	if c.epoch == 0 {
		if err := c.NewEpoch(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// epochRandBits is how many of an epoch's low bits are random; the others count milliseconds since 1970,
// which lasts until 2109.
const epochRandBits = 22

// nextEpoch is above every epoch of this node that is known, and above last, whatever the clock says. The
// second result is what the shelf keeps of it.
func (c *Catalog) nextEpoch(last uint64) (uint64, []byte, error) {
	var b [8]byte
	if _, err := io.ReadFull(c.cfg.Rand, b[:]); err != nil {
		return 0, nil, fmt.Errorf("name a new epoch: %w", err)
	}
	random := binary.BigEndian.Uint64(b[:]) & (1<<epochRandBits - 1)
	next := uint64(max(0, c.cfg.Wall().UnixMilli()))<<epochRandBits | random
	next = max(next, c.epoch+1, last+1)
	for _, h := range c.set.order {
		if h.id.Origin == c.self {
			next = max(next, h.id.Epoch+1)
		}
	}
	value, err := wire.Marshal(shelfVersion, next)
	return next, value, err
}

// NewEpoch makes the next own record begin new logs. What is live in the old ones stays live: over its
// epochs an origin is read as if it had written one log, so nothing needs to be said again.
func (c *Catalog) NewEpoch() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.newEpoch()
}

func (c *Catalog) newEpoch() error {
	next, value, err := c.nextEpoch(0)
	if err != nil {
		return err
	}
	if err := c.apply([][]byte{epochKey}, [][]byte{value}); err != nil {
		return fmt.Errorf("open a new epoch: %w", err)
	}
	c.mu.Lock()
	c.epoch = next
	c.mu.Unlock()
	return nil
}

// ErrRevoked is wrapped when this node's own key was revoked: it can not append any more.
var ErrRevoked = errors.New("this node's key is revoked")

// Append signs a record into this node's log of the kind's scope; it is durable, and on its way to all
// peers, when Append returns. keep counts for artifacts only, where it is written into the body unless it
// is 0. The node's certificate goes before the first record of an epoch by itself.
//
// Of a node whose key is in two places a status alone is taken, so that others hear of it: see Cloned.
//
// After an error nothing was appended. The error is a *wire.LimitError when the record is too long, and
// wraps ErrMalformed or artifact.ErrMalformed when name or body are wrong.
func (c *Catalog) Append(kind uint8, name string, body []byte, keep int) (Record, error) {
	if scopeOf(kind) == "" || kind == KindCheckpoint {
		return Record{}, fmt.Errorf("append: kind %d is not yet supported", kind)
	}
	if kind == KindArtifact && keep != 0 {
		a, err := decodeBody[ArtifactBody](body)
		if err == nil {
			a.Keep = keep
			body, err = EncodeArtifact(a)
		}
		if err != nil {
			return Record{}, fmt.Errorf("append: %w", err)
		}
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.prepare(kind); err != nil {
		return Record{}, fmt.Errorf("append: %w", err)
	}
	r, err := c.append(kind, name, body)
	if err != nil {
		return Record{}, fmt.Errorf("append %q: %w", name, err)
	}
	if err := c.checkpoint(); err != nil { // costs room alone; the record is safe
		c.cfg.Log.Warn("no checkpoint of the own log yet", "error", err)
	}
	return r, nil
}

// prepare makes sure that the current epoch may be written to and that others can verify what is.
func (c *Catalog) prepare(kind uint8) error {
	if c.set.caps[c.self] != nil {
		return ErrRevoked
	}
	if kind != KindStatus && c.Cloned() {
		return ErrCloned
	}
	for _, scope := range []string{ScopeNodes, ScopeMain} {
		h := c.set.logs[LogID{c.self, c.epoch, scope}]
		if h == nil || h.complete() && !h.forked {
			continue
		}
		if err := c.newEpoch(); err != nil { // its end is somewhere else
			return err
		}
		break
	}
	if kind == KindCert || c.hasOwn(KindCert) {
		return nil
	}
	if c.cfg.Self.Chain == nil {
		return errors.New("this node has no certificate yet: it was not admitted")
	}
	body, err := EncodeCert(CertBody{Chain: c.cfg.Self.Chain})
	if err == nil {
		_, err = c.append(KindCert, "", body)
	}
	if err != nil {
		return fmt.Errorf("this node's certificate: %w", err)
	}
	return nil
}

func (c *Catalog) append(kind uint8, name string, body []byte) (Record, error) {
	e, encoded, err := c.sign(c.set, kind, name, body, c.cfg.Wall())
	if err != nil {
		return Record{}, err
	}
	r := *e.rec
	return r, c.write([]*entry{e}, [][]byte{encoded})
}

// write makes own records durable, adds them and tells all.
func (c *Catalog) write(entries []*entry, encoded [][]byte) error {
	keys := make([][]byte, len(entries))
	for i, e := range entries {
		keys[i] = e.key()
	}
	if err := c.apply(keys, encoded); err != nil {
		return err
	}
	c.mu.Lock()
	for _, e := range entries {
		c.take(e)
	}
	c.set.settle()
	c.stats.Appended += uint64(len(entries))
	c.mu.Unlock()
	c.tell(entries, nil)
	return nil
}

// sign makes the next record of the own log, as s knows it.
func (c *Catalog) sign(s *set, kind uint8, name string, body []byte, at time.Time) (*entry, []byte, error) {
	log := LogID{c.self, c.epoch, scopeOf(kind)}
	r := Record{Log: log, Seq: 1, Kind: kind, Name: name, Body: body, At: time.UnixMilli(at.UnixMilli()).UTC()}
	if h := s.logs[log]; h != nil {
		r.Seq = h.last() + 1
	}
	core, err := r.core()
	if err != nil {
		return nil, nil, err
	}
	r.Live = s.liveAfter(&r, core)
	r.Sig = [64]byte(ed25519.Sign(c.cfg.Self.Key, toSign(core, r.Live)))
	b := append(append(core, r.Live[:]...), r.Sig[:]...)
	e, err := decodeEntry(b) // with every check that peers make
	if err != nil {
		return nil, nil, err
	}
	if err := c.readBody(e, c.keyOf); err != nil {
		return nil, nil, err
	}
	if kind == KindCert && e.cert() == nil {
		return nil, nil, errors.New("the charter does not back this certificate")
	}
	return e, b, nil
}

// keyOf returns the key of a node, nil when it is not known.
func (c *Catalog) keyOf(n id.Node) ed25519.PublicKey {
	if n == c.self {
		return c.cfg.Self.Public()
	}
	if e := c.set.certificate(n); e != nil {
		return e.cert().Key
	}
	return nil
}

// readBody fills in what the merge needs of a certificate or a revocation, where the charter backs it, and
// refuses one that no honest origin writes.
func (c *Catalog) readBody(e *entry, key func(id.Node) ed25519.PublicKey) error {
	switch e.kind {
	case KindCert:
		body, err := DecodeCert(e.rec.Body)
		if err != nil {
			return err
		}
		cert, err := c.cfg.Charter.VerifyChain(body.Chain)
		if err != nil { // not this node's charter: no fault of who passes it on
			c.cfg.Log.Debug("certificate has no effect", "node", e.log.Origin.Short(), "error", err)
			return nil
		}
		if cert.ID != e.log.Origin {
			return fmt.Errorf("certificate of %s: %w: it is that of %s", e.log.Origin.Short(), ErrMalformed, cert.ID.Short())
		}
		e.more = &extra{cert: cert}
	case KindStatement:
		s, err := trust.ParseStatement(e.rec.Body, key)
		if err != nil {
			return err
		}
		if s.By != e.log.Origin {
			return fmt.Errorf("%w: statement by %s in the log of %s", ErrMalformed, s.By.Short(), e.log.Origin.Short())
		}
		if c.cfg.Charter.Allows(s) != nil {
			break // kept as said, and without effect
		}
		switch s.Kind {
		case trust.Revocation:
			e.more = &extra{revoke: &s}
		case trust.Admission:
			e.more = &extra{admits: id.FromKey(s.Subject)}
		}
	}
	return nil
}

// tell wakes the reader of Changed and sends entries to the peers, but not back to from.
func (c *Catalog) tell(entries []*entry, from *session) {
	select {
	case c.changed <- struct{}{}:
	default:
	}
	given := 0
	for _, s := range c.others(from) {
		if !s.push(entries, from != nil) {
			given++
		}
	}
	if given > 0 {
		c.mu.Lock()
		c.stats.Overflows += uint64(given)
		c.mu.Unlock()
	}
}

// others returns the open sessions without but. Their locks are never taken under mu.
func (c *Catalog) others(but *session) []*session {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]*session, 0, len(c.sessions))
	for s := range c.sessions {
		if s != but {
			out = append(out, s)
		}
	}
	return out
}
