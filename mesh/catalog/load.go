package catalog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

const scanPage = 1000 // pairs read at once

// scan calls each for all pairs whose key begins with prefix.
func scan(shelf Shelf, prefix byte, each func(key, value []byte) error) error {
	from, to := []byte{prefix}, []byte{prefix + 1}
	for {
		keys, values, err := shelf.Scan(from, to, scanPage)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if err := each(k, values[i]); err != nil {
				return fmt.Errorf("key %x: %w", k, err)
			}
		}
		if len(keys) < scanPage {
			return nil
		}
		from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
}

// load fills the set from the shelf. The records were verified before they were written; a certificate is
// verified again, because what it says is needed, and so is who may revoke.
func (c *Catalog) load() error {
	_, values, err := c.cfg.Shelf.Scan(epochKey, []byte{prefixEpoch, 0}, 1)
	if err != nil {
		return err
	}
	if len(values) == 1 {
		if err := wire.Unmarshal(values[0], shelfVersion, wire.Limits{}, &c.epoch); err != nil {
			return fmt.Errorf("current epoch: %w", err)
		}
	}
	for prefix, read := range map[byte]func(key, value []byte) error{prefixFork: c.loadFork, prefixGrave: c.loadGrave} {
		if err := scan(c.cfg.Shelf, prefix, read); err != nil {
			return err
		}
	}
	lost, err := c.loadRecords()
	if err != nil {
		return err
	}
	c.set.settle()
	if lost { // the own log may end before what others heard of it
		if err := c.newEpoch(); err != nil {
			return err
		}
	}
	return scan(c.cfg.Shelf, prefixCursor, c.loadCursor)
}

// A shelfPage is a page of records; what is below read is there once that is closed.
type shelfPage struct {
	keys, values [][]byte
	read         chan struct{}
	records      []incoming
	broken       [][]byte // keys of records that are not what was written
	err          error
}

// loadRecords reads all records, log after log: one goroutine scans, all cores decode, and the caller's merges.
// Statements wait for the keys that verify them. What the disk made something else of is dropped; lost tells whether
// that was of this node's own.
func (c *Catalog) loadRecords() (lost bool, err error) {
	ahead, ended := make(chan *shelfPage, 2*runtime.GOMAXPROCS(0)), atomic.Bool{}
	go c.scanRecords(ahead, &ended)
	var statements, log []incoming
	var names []*entry // of all logs that are read
	for p := range ahead {
		<-p.read
		if err != nil {
			ended.Store(true)
			continue // until all that was begun has ended
		}
		err = p.err
		for _, key := range p.broken {
			lost = lost || bytes.HasPrefix(key[1:], c.self[:])
			c.cfg.Log.Error("record on disk is not what it was: it is dropped, and peers are asked for it", "key", fmt.Sprintf("%x", key))
			c.stale[string(key)] = true
		}
		for _, in := range p.records {
			if len(log) > 0 && *log[0].log != *in.log {
				if names, err = c.reloadLog(log, names); err != nil {
					break
				}
				log = log[:0]
			}
			if in.kind == KindStatement {
				statements = append(statements, in)
			} else {
				log = append(log, in)
			}
		}
	}
	if err == nil {
		names, err = c.reloadLog(log, names)
	}
	if err != nil {
		return false, err
	}
	c.set.index(names)
	for _, in := range statements {
		c.readOwnBody(in.entry)
		c.take(in.entry)
	}
	return lost, nil
}

// scanRecords sends page after page ahead, each being decoded, until the end, an error, or told to.
func (c *Catalog) scanRecords(ahead chan<- *shelfPage, ended *atomic.Bool) {
	defer close(ahead)
	from, to := []byte{prefixRecord}, []byte{prefixRecord + 1}
	for !ended.Load() {
		p := &shelfPage{read: make(chan struct{})}
		p.keys, p.values, p.err = c.cfg.Shelf.Scan(from, to, scanPage)
		ahead <- p
		if p.err != nil {
			close(p.read)
			return
		}
		go func() {
			defer close(p.read)
			p.err = c.decodeOwn(p)
		}()
		if len(p.keys) < scanPage {
			return
		}
		from = append(bytes.Clone(p.keys[len(p.keys)-1]), 0)
	}
}

// decodeOwn decodes records that were verified before they were written. A certificate is verified again, because what it
// says is needed.
func (c *Catalog) decodeOwn(p *shelfPage) error {
	p.records = make([]incoming, 0, len(p.values))
	var log *LogID
	for i, v := range p.values {
		e, err := readOwn(p.keys[i], v)
		switch {
		case errors.Is(err, errBroken):
			p.broken = append(p.broken, p.keys[i])
			continue
		case err != nil:
			return fmt.Errorf("key %x: %w", p.keys[i], err)
		case e.kind == KindCert:
			c.readOwnBody(e)
		}
		if log == nil || *log != *e.log {
			log = e.log
		} else if e.rec == nil {
			e.log = log
		}
		p.records = append(p.records, incoming{e, v})
	}
	return nil
}

// errBroken is what a disk made of a record.
var errBroken = errors.New("not what was written")

// readOwn reads a record of the shelf and holds it against the hash in its key. Of an artifact, as most are, it reads what
// the merge needs alone: rec is nil then.
func readOwn(key, b []byte) (*entry, error) {
	if len(b) <= tailBytes {
		return nil, errBroken
	}
	said := b[:len(b)-tailBytes]
	hash := sha256.Sum256(said)
	if !bytes.HasSuffix(key, hash[:keyHash]) {
		return nil, errBroken
	}
	var f [8][]byte // of core
	if wire.Fields(said, recordVersion, coreLimits, f[:]) != nil {
		return decodeEntry(b) // which says what is wrong
	}
	kind, _ := wire.Uint(f[4])
	if kind != KindArtifact {
		return decodeEntry(b)
	}
	var a [6][]byte // of ArtifactBody
	origin, okOrigin := wire.Bytes(f[0])
	epoch, okEpoch := wire.Uint(f[1])
	scope, okScope := wire.Uint(f[2])
	seq, okSeq := wire.Uint(f[3])
	name, okName := wire.Bytes(f[5])
	body, _ := wire.Bytes(f[6])
	if wire.Fields(body, bodyVersion, bodyLimits, a[:]) != nil {
		return decodeEntry(b)
	}
	keep, okKeep := wire.Uint(a[4])
	if !okOrigin || !okEpoch || !okScope || !okSeq || !okName || !okKeep || len(origin) != len(id.Node{}) || scope != 2 || keep > MaxKeep {
		return decodeEntry(b)
	}
	return &entry{
		log: &LogID{id.Node(origin), epoch, ScopeMain}, name: string(name), seq: seq, hash: hash, kind: KindArtifact, keep: uint16(keep),
	}, nil
}

func (c *Catalog) readOwnBody(e *entry) {
	if err := c.readBody(e, c.keyOf); err != nil {
		c.cfg.Log.Warn("record on disk has no effect", "log", e.log, "seq", e.seq, "error", err)
	}
}

// reloadLog adds the records of one log, by age, that were read from the shelf. Where all are live, as nearly always,
// their entries are appended to names, which c.set.index takes in the end.
func (c *Catalog) reloadLog(list []incoming, names []*entry) ([]*entry, error) {
	if len(list) == 0 {
		return names, nil
	}
	byAge := make([]*entry, len(list))
	for i, in := range list {
		byAge[i] = in.entry
	}
	byName := slices.Clone(byAge)
	slices.SortFunc(byName, (*entry).compareName)
	if !allLive(byAge, byName) {
		for _, in := range list {
			if err := in.complete(); err != nil {
				return nil, err
			}
			c.take(in.entry)
		}
		return names, nil
	}
	last := list[len(list)-1].encoded
	h, lifted := c.set.addLog(byAge, artifact.Digest(last[len(last)-tailBytes:]))
	if _, forked := c.forks[h.id]; forked {
		h.forked = true
	}
	if lifted {
		c.stale[string(h.grave().key())] = true
	}
	for _, in := range list {
		c.news.note(in.entry)
		if in.rec == nil && c.cached+recordCost+len(in.encoded) > c.cfg.CacheBytes {
			continue // it stays on the shelf
		}
		if err := in.complete(); err != nil {
			return nil, err
		}
		c.remember(in.entry)
	}
	return append(names, byName...), nil
}

// complete reads all of a record of which readOwn read a part.
func (in incoming) complete() error {
	if in.rec != nil {
		return nil
	}
	whole, err := decodeEntry(in.encoded)
	if err == nil {
		in.rec = whole.rec
	}
	return err
}

func (c *Catalog) loadFork(_, value []byte) error {
	var p proof
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &p); err != nil {
		return fmt.Errorf("proof of a fork: %w", err)
	}
	a, b, err := p.decode()
	if err == nil {
		c.forks[*a.log] = Fork{*a.rec, *b.rec}
	}
	return err
}

func (c *Catalog) loadGrave(key, value []byte) error {
	var leaf [8]byte
	if len(key) != 1+16 {
		return fmt.Errorf("grave: %w: key of %d bytes", ErrMalformed, len(key))
	}
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &leaf); err != nil {
		return fmt.Errorf("grave: %w", err)
	}
	c.set.inter(grave{[8]byte(key[1:9]), [8]byte(key[9:]), leaf})
	return nil
}

func (c *Catalog) loadCursor(key, value []byte) error {
	var seq uint64
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &seq); err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	log, ok := readLogKey(key[1:])
	if h := c.set.logs[log]; ok && h != nil && !h.complete() {
		h.cursor = seq
	} else {
		c.stale[string(key)] = true
	}
	return nil
}
