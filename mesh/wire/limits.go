// Package wire writes and reads the bytes that nodes exchange, and stands before every decoder.
//
// A message is a version byte and one msgpack value in its only spelling: structs are arrays of all
// their fields in order, integers and lengths take their shortest form, map keys ascend, and what is
// empty is nil. What is signed can therefore be compared, hashed and kept as bytes. Nothing reaches
// the msgpack decoder that the scanner has not passed: five bytes kill the decoder alone (msgpack
// v5.4.1 allocates what a length claims).
package wire

import "fmt"

// What a message may hold where the caller of Check or Unmarshal names no limit of its own.
const (
	DefaultBytes = 1 << 20 // bytes of the whole message
	DefaultItems = 1 << 16 // elements of one array, entries of one map
	DefaultTotal = 1 << 20 // values in all, keys counted
	MaxDepth     = 16      // arrays and maps within one another; a caller may only ask for less
)

// Limits bounds one message. A field of 0 takes the default of the package.
type Limits struct {
	Bytes int // length of the message, the version byte not counted
	Depth int // nesting of arrays and maps, at most MaxDepth
	Items int // declared count of one array or map
	Total int // values in all
}

// orDefault fills in what the caller left open.
func (l Limits) orDefault() Limits {
	if l.Bytes <= 0 {
		l.Bytes = DefaultBytes
	}
	if l.Depth <= 0 || l.Depth > MaxDepth {
		l.Depth = MaxDepth
	}
	if l.Items <= 0 {
		l.Items = DefaultItems
	}
	if l.Total <= 0 {
		l.Total = DefaultTotal
	}
	return l
}

// A LimitError says which limit a message broke; Check, Unmarshal and ReadFrame return it as
// *LimitError, so that a caller can count it and name the peer.
type LimitError struct {
	What  string // what was counted, for people: "bytes of the message"
	Limit int
	Got   int // at least this many; counting stops at the limit
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d, limit %d", e.What, e.Got, e.Limit)
}
