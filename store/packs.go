package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	packBytes    = 64 << 20 // a pack is full when the next write would pass this
	packVersion  = 1        // the first byte of a pack; chunks follow, with nothing between them
	maxOpenPacks = 64       // files kept open for reading

	// keepCached bytes of what came from peers stay in the system's memory: others ask for them next.
	keepCached = 32 << 20
)

// packs are the append-only files that hold chunks. They know bytes and offsets; what is where is told by
// the index alone. Methods may be called at once from many goroutines.
type packs struct {
	dir          string
	maxSizeBytes int64 // of all packs; 0 = no limit

	appending sync.Mutex // held by the one that appends; taken before mu

	// mu guards what follows. Readers hold it shared while they read a file, so that none is closed
	// under them.
	mu      sync.RWMutex
	known   map[uint32]*pack
	current *pack // the one appended to; nil = the next append begins one
	next    uint32
	opened  int
	closed  bool

	// cached are spans that came from peers, oldest first, and are still in the system's memory.
	cached      []span
	cachedBytes int64
}

// pack is one file.
type pack struct {
	number uint32
	// end, pending and file are guarded by packs.mu.
	end     int64    // where the next append goes
	pending int      // appends whose index rows are not committed: it must not be removed
	file    *os.File // nil = not open

	syncing sync.Mutex // held while the disk works; guards what follows
	synced  int64
	failed  error // a sync failed: what it covered may be lost whatever a later one says
}

// span is where one append went.
type span struct {
	pack *pack
	from int64
	to   int64
}

func (p *packs) path(number uint32) string {
	return filepath.Join(p.dir, fmt.Sprintf("%08d.pack", number))
}

// openPacks makes the folder agree with the index, which says how many bytes of each pack count: what a
// crash left behind them is cut off, files without a row are removed. short are packs that hold less
// than the index says, with what they hold.
func openPacks(dir string, ends map[uint32]int64) (p *packs, short map[uint32]int64, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	p = &packs{dir: dir, known: map[uint32]*pack{}, next: 1}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	short = map[uint32]int64{}
	for number, end := range ends {
		p.next = max(p.next, number+1)
		size := int64(0)
		if info, err := os.Stat(p.path(number)); err == nil {
			size = info.Size()
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
		switch {
		case size < end:
			short[number] = size
			if size == 0 {
				continue
			}
			end = size
		case size > end:
			if err := os.Truncate(p.path(number), end); err != nil {
				return nil, nil, err
			}
		}
		p.known[number] = &pack{number: number, end: end, synced: end}
	}
	for _, f := range list {
		number, ok := strings.CutSuffix(f.Name(), ".pack")
		n, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue // not ours
		}
		if _, counted := ends[uint32(n)]; !counted {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, k := range p.known {
		if k.end < packBytes && (p.current == nil || k.number > p.current.number) {
			p.current = k
		}
	}
	return p, short, nil
}

// append writes chunks to the end of a pack, one after the other. They are not durable before sync. The pack
// cannot be removed before release.
func (p *packs) append(chunks [][]byte) (span, error) {
	var size int64
	for _, c := range chunks {
		size += int64(len(c))
	}
	p.appending.Lock()
	defer p.appending.Unlock()
	p.mu.Lock()
	k, err := p.writable(size)
	if err != nil {
		p.mu.Unlock()
		return span{}, err
	}
	f, from := k.file, k.end
	k.pending++
	p.mu.Unlock()

	if err := writeChunks(f, chunks, from); err != nil {
		_ = f.Truncate(from) // gives its room back; if it fails too, the next append goes over it
		p.release(span{pack: k})
		return span{}, fmt.Errorf("write %d bytes to %s: %w", size, p.path(k.number), err)
	}
	p.mu.Lock()
	k.end = from + size
	p.mu.Unlock()
	return span{pack: k, from: from, to: from + size}, nil
}

// writable returns an open pack with room for n bytes. mu is held.
func (p *packs) writable(n int64) (*pack, error) {
	if p.closed {
		return nil, fmt.Errorf("write to a pack: %w", os.ErrClosed)
	}
	if limit := p.maxSizeBytes; limit > 0 && p.sizeLocked()+n > limit {
		return nil, fmt.Errorf("packs hold %d bytes, %d more would pass the limit of %d: free space or raise the limit: %w",
			p.sizeLocked(), n, limit, syscall.ENOSPC)
	}
	if k := p.current; k != nil && (k.end+n <= packBytes || k.end <= 1) {
		return k, p.openLocked(k)
	}
	k := &pack{number: p.next, end: 1}
	f, err := os.OpenFile(p.path(k.number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin a pack: %w", err)
	}
	_, err = f.Write([]byte{packVersion})
	if err == nil {
		err = syncDir(p.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a pack: %w", err), f.Close(), os.Remove(f.Name()))
	}
	k.file = f
	p.opened++
	p.next++
	p.known[k.number] = k
	p.current = k
	return k, nil
}

// openLocked opens the file of k, closing another when too many are open. mu is held.
func (p *packs) openLocked(k *pack) error {
	if p.closed {
		return fmt.Errorf("open a pack: %w", os.ErrClosed)
	}
	if k.file != nil {
		return nil
	}
	if p.opened >= maxOpenPacks {
		for _, other := range p.known {
			if other.file != nil && other.pending == 0 && other != p.current {
				_ = other.file.Close() // nothing unsynced is in it
				other.file = nil
				p.opened--
				break
			}
		}
	}
	f, err := os.OpenFile(p.path(k.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	k.file = f
	p.opened++
	return nil
}

// sync makes what was appended up to the span's end durable. Those who wait for a sync of the same pack
// share it. After a failure the pack takes no more appends.
func (p *packs) sync(s span) error {
	k := s.pack
	k.syncing.Lock()
	defer k.syncing.Unlock()
	if s.to <= k.synced {
		return nil
	}
	if k.failed != nil {
		return k.failed
	}
	p.mu.RLock()
	end, f := k.end, k.file // pending keeps it open
	p.mu.RUnlock()
	if err := syncData(f); err != nil {
		k.failed = fmt.Errorf("sync %s: %w", p.path(k.number), err)
		p.mu.Lock()
		if p.current == k {
			p.current = nil
		}
		p.mu.Unlock()
		return k.failed
	}
	k.synced = max(k.synced, end)
	return nil
}

// cool is told of a durable span that came from a peer, and has the system let go of what came before the
// last keepCached bytes: an artifact of any size fills no memory, and takes the pages that it had before
// instead of new ones.
func (p *packs) cool(s span) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cached = append(p.cached, s)
	p.cachedBytes += s.to - s.from
	for p.cachedBytes > keepCached {
		old := p.cached[0]
		p.cached = p.cached[1:]
		p.cachedBytes -= old.to - old.from
		if f := old.pack.file; f != nil {
			uncache(f, old.from, old.to)
		}
	}
}

// forgetCached has the system let go of bytes that nobody asked for, where they do not lie in the pack that is
// appended to.
func (p *packs) forgetCached(number uint32, off, n int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if k := p.known[number]; k != nil && k != p.current && k.file != nil {
		uncache(k.file, off, off+n)
	}
}

// release tells that the rows of an append are committed, or never will be.
func (p *packs) release(s span) {
	p.mu.Lock()
	s.pack.pending--
	p.mu.Unlock()
}

// read fills buf from a pack. io.ErrUnexpectedEOF and os.ErrNotExist mean that the bytes are not there.
func (p *packs) read(number uint32, off int64, buf []byte) error {
	for {
		p.mu.RLock()
		k := p.known[number]
		if k == nil {
			p.mu.RUnlock()
			return fmt.Errorf("%s: %w", p.path(number), os.ErrNotExist)
		}
		if k.file != nil {
			_, err := k.file.ReadAt(buf, off)
			p.mu.RUnlock()
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		p.mu.RUnlock()
		p.mu.Lock()
		err := p.openLocked(k)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// retireBytes is the size from which on the pack that is appended to may be given up as too sparse.
const retireBytes = 1 << 20

// sparse lists the packs of which less than half is live, that are appended to no more and have no append
// on its way to the index. A listed pack stays so for ever.
func (p *packs) sparse(live map[uint32]int64) map[uint32]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.current; k != nil && k.pending == 0 && k.end > retireBytes && live[k.number]*2 < k.end {
		p.current = nil
	}
	out := map[uint32]bool{}
	for number, k := range p.known {
		if k != p.current && k.pending == 0 && live[number]*2 < k.end {
			out[number] = true
		}
	}
	return out
}

// remove deletes a pack that sparse listed and the index no longer names.
func (p *packs) remove(number uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.known[number]; k != nil {
		p.closeLocked(k)
		delete(p.known, number)
	}
	return os.Remove(p.path(number))
}

func (p *packs) closeLocked(k *pack) {
	if k.file != nil {
		_ = k.file.Close() // read only, or synced
		k.file = nil
		p.opened--
	}
}

func (p *packs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, k := range p.known {
		p.closeLocked(k)
	}
}

func (p *packs) sizeLocked() (sum int64) {
	for _, k := range p.known {
		sum += k.end
	}
	return sum
}
