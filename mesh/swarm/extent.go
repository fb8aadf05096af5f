package swarm

import (
	"encoding/binary"
	"hash/fnv"
	"sort"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	extentsWanted = 256     // into so many extents an artifact is cut, as far as minExtent and maxExtent allow
	minSwarm      = 1 << 20 // bytes of content below which nobody waits for a first fetcher
	startPart     = 8       // the first part of so many, at most startBytes, is handed out a chunk at a time
	startBytes    = 4 << 20
	startAim      = 32 << 10 // or as many chunks as have so many bytes: of small files not each is worth a request
)

// extents are the runs of consecutive chunks that the content of an artifact is handed out in: extent e is
// chunks e[i] to e[i+1]-1. All nodes cut the same manifest alike. The last element is the number of chunks.
type extents []int

// cutExtents cuts content into runs of about minExtent to maxExtent bytes. Those of the last quarter are half
// as long: they are fetched last, and all wait for the last one to spread. At the beginning they are single chunks:
// it is not before all nodes have one each that all have something for one another.
func cutExtents(chunks []artifact.Chunk) extents {
	full := extentAim(chunks)
	var total int64
	for _, c := range chunks {
		total += sizeOf(c)
	}
	out := extents{0}
	var bytes, before int64
	for i, c := range chunks {
		size := sizeOf(c)
		aim := full
		if before > total/4*3 {
			aim /= 2
		}
		if before < min(total/startPart, startBytes) {
			aim = startAim
		}
		before += size
		if n := i - out[len(out)-1]; n > 0 && (bytes >= aim || bytes+size > maxExtent || n >= maxWant) {
			out = append(out, i)
			bytes = 0
		}
		bytes += size
	}
	if len(chunks) > 0 {
		out = append(out, len(chunks))
	}
	return out
}

// extentAim is how many bytes an extent is to have.
func extentAim(chunks []artifact.Chunk) int64 {
	var total int64
	for _, c := range chunks {
		total += sizeOf(c)
	}
	return min(max(total/extentsWanted, minExtent), maxExtent)
}

// count is how many extents there are.
func (x extents) count() int { return len(x) - 1 }

// of is the extent that a chunk belongs to.
func (x extents) of(chunk int) int { return sort.SearchInts(x, chunk+1) - 1 }

// A seat is a node's part of a rendezvous weight, computed once.
type seat uint64

func seatOf(key []byte, n id.Node) seat {
	h := fnv.New64a()
	h.Write(key)
	h.Write(n[:])
	return seat(h.Sum64())
}

// weight is the rendezvous weight of a node for an extent: the highest one fetches it first. All who
// know the same nodes agree, and the others' extents stay where they are when one leaves.
func (s seat) weight(extent int) uint64 { return mix(uint64(s) ^ mix(uint64(extent)+1)) }

// mix is the finisher of SplitMix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// shuffled returns 0 to n-1 in an order of its own for each seed.
func shuffled(seed uint64, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	sort.Slice(out, func(a, b int) bool {
		return mix(seed^mix(uint64(out[a])+1)) < mix(seed^mix(uint64(out[b])+1))
	})
	return out
}

func seedOf(seed uint64, n id.Node) uint64 {
	return uint64(seatOf(binary.BigEndian.AppendUint64(nil, seed), n))
}
