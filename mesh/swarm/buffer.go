package swarm

import "sync"

// Buffers come in two sizes, so that a small answer does not hold the memory of a large one. Smaller
// ones than smallBuffer are not worth keeping.
const (
	smallBuffer  = 64 << 10
	middleBuffer = headRoom + 256<<10
	largeBuffer  = headRoom + maxExtent
)

// buffers lends byte slices for whole extents, so that a transfer of any size allocates a window.
type buffers struct{ middle, large sync.Pool }

// A buffer is a borrowed slice. refs counts the chunks in it that are still needed; it belongs to
// whoever holds the buffer.
type buffer struct {
	b    []byte
	refs int
	home *sync.Pool
}

// get lends a buffer of so many bytes, at most largeBuffer.
func (p *buffers) get(size int) *buffer {
	if size <= smallBuffer {
		return &buffer{b: make([]byte, size)}
	}
	home, most := &p.large, largeBuffer
	if size <= middleBuffer {
		home, most = &p.middle, middleBuffer
	}
	x, ok := home.Get().(*buffer)
	if !ok {
		x = &buffer{b: make([]byte, most), home: home}
	}
	x.b, x.refs = x.b[:size], 0
	return x
}

// release gives the buffer back. Nobody may use its bytes any more.
func (x *buffer) release() {
	if x != nil && x.home != nil {
		x.home.Put(x)
	}
}
