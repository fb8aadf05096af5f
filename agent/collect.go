package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"meshd/store/artifact"
)

const (
	collectEvery = 10 * time.Minute
	scrubBytes   = 64 << 20  // are read again after each collection: 9 GB a day,
	scrubRate    = 8 << 20   // no faster than that a second
	floorShare   = 50        // new pulls are refused below 1/50 of the disk,
	floorBytes   = 256 << 20 // but never for want of more than this
)

// collect forgets, now and then, what nobody keeps here, so that a node that has run for years is no larger
// than what it plays. It never touches what is offered, placed, kept for rollback, copied, or on its way, nor
// what somebody absent still wants (see courier).
func (a *Agent) collect(ctx context.Context) error {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	from := artifact.Sum(binary.BigEndian.AppendUint64(nil, a.cfg.Seed)) // anywhere: many starts read all in time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := a.collectOnce(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("what nobody keeps can't be collected now", "error", err)
		}
		var err error
		if from, err = a.scrub(ctx, from); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("what is on disk can't be read again now", "error", err)
		}
	}
}

// scrub reads a part of what is on disk again, slowly, and fetches what the disk damaged from whoever holds it.
// It returns where the next part begins.
func (a *Agent) scrub(ctx context.Context, from artifact.Digest) (artifact.Digest, error) {
	next, lost, err := a.store.Scrub(ctx, from, scrubBytes, scrubRate)
	if err != nil || lost == 0 {
		return next, err
	}
	roots, err := a.store.Roots()
	if err != nil {
		return next, err
	}
	a.cfg.Log.Warn("the disk damaged bytes of artifacts: they are fetched again", "chunks", lost)
	for _, root := range roots {
		o := a.supply.index.find(root)
		if has, err := a.store.Has(root); err != nil || has || o == nil {
			continue
		}
		pullCtx, cancel := context.WithTimeout(ctx, copyTimeout)
		err := a.supply.pull(pullCtx, o.ref)
		cancel()
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("a damaged artifact can't be fetched again now", "artifact", o.ref.Name, "error", err)
		}
	}
	return next, nil
}

func (a *Agent) collectOnce(ctx context.Context) error {
	placed, err := a.supply.placedRoots()
	if err != nil {
		return err
	}
	courier := a.newCourier()
	return a.store.Collect(ctx, func(root artifact.Digest) bool {
		if placed[root] || a.supply.isPulling(root) {
			return true
		}
		o := a.supply.index.find(root)
		return o != nil && (o.ref.Version.By == a.mesh.Self() || o.ref.Name == scoreName || a.isCopy(*o) || a.keepsForLeaf(*o) || courier.keeps(*o))
	})
}

// placedRoots is what this node's wants have in place, and what they keep to go back to.
func (s *supply) placedRoots() (map[artifact.Digest]bool, error) {
	_, values, err := s.placed.Scan(nil, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("read what is placed: %w", err)
	}
	out := map[artifact.Digest]bool{}
	for _, v := range values {
		for _, p := range decodePlacements(v) {
			for _, text := range append(slices.Clone(p.Before), p.Root) {
				if root, err := artifact.ParseDigest(text); err == nil {
					out[root] = true
				}
			}
		}
	}
	return out, nil
}

// startPull keeps a root from being collected until the returned function is called.
func (s *supply) startPull(root artifact.Digest) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulling[root]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pulling[root]--; s.pulling[root] == 0 {
			delete(s.pulling, root)
		}
	}
}

func (s *supply) isPulling(root artifact.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pulling[root] > 0
}

// A diskRoom is how the disk of the data folder stands, in bytes. What is below the floor is a reserve.
type diskRoom struct{ total, free, floor uint64 }

func (a *Agent) disk() (diskRoom, error) {
	u, err := disk.Usage(a.cfg.Node.Dir)
	if err != nil {
		return diskRoom{}, err
	}
	return diskRoom{u.Total, u.Free, min(u.Total/floorShare, floorBytes)}, nil
}

// room refuses a pull that would pass the quota or bring the disk below its floor: what is there is worth more
// than what is new. An artifact counts whole, also where parts of it are here.
func (a *Agent) room(size int64) error {
	if limit := a.cfg.MaxSizeBytes; limit > 0 {
		packs, _, err := a.store.SizeBytes()
		if err != nil {
			return err
		}
		if packs+size > limit {
			return fmt.Errorf("no room for %d bytes more: artifacts take %d of the %d that max-size allows; raise it, or withdraw what nobody needs", size, packs, limit)
		}
	}
	d, err := a.disk()
	if err != nil {
		return nil //nolint:nilerr // a disk that can't be asked is found full when it is
	}
	if d.free < d.floor+uint64(max(size, 0)) {
		return fmt.Errorf("no room for %d bytes more: %d are free and %d are kept as a reserve; make room in %s", size, d.free, d.floor, a.cfg.Node.Dir)
	}
	return nil
}
