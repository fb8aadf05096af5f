package link

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// A Shelf is what the peer book needs of a disk: ordered keys and values that are its own.
type Shelf interface {
	// Scan returns copies of up to limit entries with from <= key < to, in order.
	Scan(from, to []byte, limit int) (keys, values [][]byte, err error)

	// Apply writes all entries in one durable transaction; a nil value deletes its key.
	Apply(keys, values [][]byte) error
}

// The shelf maps 'p' and a node id to a wire-encoded page, version 1. Written seconds after a peer told
// something new; removed by Forget alone.
const (
	pageVersion = 1
	pageBytes   = 16 << 10
	pageChain   = 8
	scanPage    = 256
)

// A page is one peer on disk.
type page struct {
	Chain  [][]byte // leaf first; empty: no certificate yet
	Addrs  []string // the best first
	SeenMs int64    // Unix milliseconds; 0: never
}

// saveEvery is the least time between two savings of the book and of its text copy.
const saveEvery = 3 * time.Second

// openBook reads the book from its shelf or, where that is empty, from the text copy.
func openBook(cfg Config, self id.Node, priv *[32]byte) (*book, error) {
	b := &book{
		cfg: cfg, self: self, mesh: cfg.Charter.MeshID(), priv: priv, kick: make(chan struct{}, 1),
		peers: map[id.Node]*entry{}, byShort: map[shortID]*entry{}, dirty: map[id.Node]bool{},
	}
	from, to := []byte("p"), []byte("q")
	for {
		keys, values, err := cfg.Book.Scan(from, to, scanPage)
		if err != nil {
			return nil, err
		}
		for i, key := range keys {
			if err := b.load(key, values[i]); err != nil {
				cfg.Log.Warn("an entry of the peer book is not readable and left out", "error", err)
			}
		}
		if len(keys) < scanPage {
			break
		}
		from = append(slices.Clone(keys[len(keys)-1]), 0)
	}
	if len(b.peers) == 0 && cfg.BookFile != "" {
		if err := b.readText(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// load takes in one entry of the shelf. It runs before any other goroutine knows the book.
func (b *book) load(key, value []byte) error {
	var p page
	if len(key) != 1+len(id.Node{}) {
		return fmt.Errorf("key of %d bytes, want %d", len(key), 1+len(id.Node{}))
	}
	n := id.Node(key[1:])
	lim := wire.Limits{Bytes: pageBytes, Depth: 3, Items: max(prefaceAddrs+1, pageChain), Total: 64}
	if err := wire.Unmarshal(value, pageVersion, lim, &p); err != nil {
		return fmt.Errorf("node %s: %w", n, err)
	}
	if n == b.self {
		return nil
	}
	e := b.entryLocked(n)
	e.addrs = p.Addrs
	if p.SeenMs != 0 {
		e.seen = time.UnixMilli(p.SeenMs).UTC()
		e.saved = e.seen
	}
	if len(p.Chain) == 0 {
		return nil
	}
	cert, err := b.cfg.Charter.VerifyChain(p.Chain)
	if err != nil || cert.ID != n {
		return fmt.Errorf("node %s: certificate: %w", n, errors.Join(err, errors.New("its addresses are kept")))
	}
	e.cert = cert
	e.pair = newPair(b.mesh, b.self, n, &cert.Box, b.priv)
	e.revoked = b.cfg.Revoked != nil && b.cfg.Revoked(cert.Key)
	return nil
}

// keep saves what changed until ctx ends, and once more then.
func (b *book) keep(ctx context.Context) error {
	for {
		select {
		case <-b.kick:
			if err := b.save(); err != nil {
				b.cfg.Log.Warn("the peer book could not be saved; it is tried again", "error", err)
				b.kickAgain()
			}
			if pause(ctx, saveEvery) {
				continue
			}
		case <-ctx.Done():
		}
		b.mu.Lock()
		for _, e := range b.peers {
			if e.seen != e.saved {
				b.dirty[e.id] = true
			}
		}
		b.mu.Unlock()
		if err := b.save(); err != nil {
			return fmt.Errorf("save the peer book: %w", err)
		}
		return nil
	}
}

func (b *book) kickAgain() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// save writes what is dirty to the shelf in one transaction, then the text copy.
func (b *book) save() error {
	b.mu.Lock()
	dirty := b.dirty
	b.dirty = map[id.Node]bool{}
	var keys, values [][]byte
	for n := range dirty {
		keys = append(keys, append([]byte("p"), n[:]...))
		values = append(values, nil)
		if e := b.peers[n]; e != nil {
			v, err := wire.Marshal(pageVersion, e.page())
			if err != nil {
				b.mu.Unlock()
				return err
			}
			values[len(values)-1] = v
			e.saved = e.seen
		}
	}
	text := b.textLocked()
	b.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	if err := b.cfg.Book.Apply(keys, values); err != nil {
		b.mu.Lock()
		for n := range dirty {
			b.dirty[n] = true
		}
		b.mu.Unlock()
		return err
	}
	if b.cfg.BookFile == "" {
		return nil
	}
	return trust.ReplaceFile(b.cfg.BookFile, text)
}

func (e *entry) page() page {
	p := page{Addrs: e.addresses()}
	if !e.seen.IsZero() {
		p.SeenMs = e.seen.UnixMilli()
	}
	if e.cert != nil {
		p.Chain = e.cert.Chain
	}
	return p
}

// textHead is the first line of the text copy; its number is the version of the format. Each further line
// is a node id and its addresses, parted by spaces.
const (
	textHead  = "# meshd peers 1: where this node's peers were; read when state.db is lost"
	textBytes = 16 << 20
)

// textLocked returns the text copy, the most recently seen peers first.
func (b *book) textLocked() []byte {
	all := make([]*entry, 0, len(b.peers))
	for _, e := range b.peers {
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y *entry) int {
		if c := y.seen.Compare(x.seen); c != 0 {
			return c
		}
		return x.id.Compare(y.id)
	})
	var out bytes.Buffer
	fmt.Fprintln(&out, textHead)
	for _, e := range all {
		if addrs := e.addresses(); len(addrs) > 0 {
			fmt.Fprintln(&out, e.id, strings.Join(addrs, " "))
		}
	}
	return out.Bytes()
}

// readText takes in the text copy. A missing one is an empty one; a line that is not understood is left
// out, for a person may have edited it.
func (b *book) readText() error {
	info, err := os.Stat(b.cfg.BookFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > textBytes {
		return fmt.Errorf("%s: %w; remove it to go on without", b.cfg.BookFile,
			&wire.LimitError{What: "bytes of the file", Limit: textBytes, Got: int(info.Size())})
	}
	text, err := os.ReadFile(b.cfg.BookFile)
	if err != nil {
		return err
	}
	b.parseText(text)
	return nil
}

func (b *book) parseText(text []byte) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := id.Parse(fields[0])
		if err != nil || n == b.self {
			continue
		}
		b.mu.Lock()
		b.addrsLocked(b.entryLocked(n), fields[1:])
		b.mu.Unlock()
	}
}
