package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"

	"github.com/vmihailenco/msgpack/v5"
)

// Marshal returns the version byte and the canonical msgpack of v: a value has one encoding, and
// Unmarshal takes no other.
//
// Structs are sent as arrays of their exported fields in order (a field is never added, removed or
// moved within a version), [n]byte and []byte as bytes, maps sorted by key. Empty slices, maps and
// bytes are sent as nil and come back as nil. A type may hold booleans, integers, text, bytes,
// slices, arrays, structs, pointers to structs, map[string]string and map[string]bool; anything else
// is an error, as is text that is not UTF-8. Time is sent as an int64 of Unix milliseconds.
func Marshal(version byte, v any) ([]byte, error) {
	t := reflect.TypeOf(v)
	if t == nil {
		return nil, errors.New("encode nil: no value")
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	sh, err := shapeFor(t)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t, err)
	}
	var buf bytes.Buffer
	buf.WriteByte(version)
	if err := encoder(&buf).Encode(v); err != nil {
		return nil, fmt.Errorf("encode %s: %w", t, err)
	}
	b := buf.Bytes()
	most := Limits{Bytes: math.MaxInt32, Items: math.MaxInt32, Total: math.MaxInt32}
	s := scanner{b: b[1:], lim: most.orDefault(), collect: true}
	if err := s.whole(sh); err != nil {
		return nil, fmt.Errorf("encode %s: %w", t, err)
	}
	return respell(b, s.empties), nil
}

// respell replaces each span of b[1:] by nil. The spans ascend.
func respell(b []byte, empties []span) []byte {
	out, from := b[:1], 1
	for _, e := range empties {
		out = append(out, b[from:1+e.from]...)
		out = append(out, 0xc0)
		from = 1 + e.to
	}
	return append(out, b[from:]...)
}

// Unmarshal decodes b into v, a non-nil pointer to a type that Marshal takes. The value that v
// points to is overwritten, and zero after an error.
//
// b must be what Marshal(version, v) returns, to the byte. It is scanned against lim and the type
// before anything is allocated: a list of a wrong length, an unknown field or a nil out of place
// never reaches the decoder. The decoded value takes at most 12 times the bytes of b and 64 KiB, and
// keeps none of b. The error is a *LimitError, wraps ErrMalformed, or wraps ErrVersion.
func Unmarshal(b []byte, version byte, lim Limits, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("decode into %T: want a pointer that is not nil", v)
	}
	sh, err := shapeFor(p.Type().Elem())
	if err != nil {
		return fmt.Errorf("decode %s: %w", p.Type().Elem(), err)
	}
	return unmarshal(b, version, lim, sh, v, p.Elem())
}

func unmarshal(b []byte, version byte, lim Limits, sh *shape, v any, target reflect.Value) error {
	target.SetZero()
	if len(b) == 0 {
		return fmt.Errorf("decode %s: %w: no bytes", target.Type(), ErrMalformed)
	}
	if b[0] != version {
		return fmt.Errorf("decode %s: %w: version %d, want %d; one of the two programs is too old",
			target.Type(), ErrVersion, b[0], version)
	}
	s := scanner{b: b[1:], lim: lim.orDefault()}
	if err := s.whole(sh); err != nil {
		return fmt.Errorf("decode %s: %w", target.Type(), err)
	}
	err := msgpack.NewDecoder(bytes.NewReader(b[1:])).Decode(v)
	if err == nil {
		same := comparison{want: b[1:]}
		err = encoder(&same).Encode(v)
		if err == nil && len(same.want) != 0 {
			err = errors.New("the encoding of the value is shorter")
		}
	}
	if err != nil {
		target.SetZero()
		return fmt.Errorf("decode %s: %w: %v", target.Type(), ErrMalformed, err)
	}
	return nil
}

// ErrVersion is wrapped when the version byte of a message is not the one asked for.
var ErrVersion = errors.New("unknown version of the format")

// writer is what spares the encoder an allocation for each byte.
type writer interface {
	Write(p []byte) (int, error)
	WriteByte(c byte) error
}

func encoder(w writer) *msgpack.Encoder {
	e := msgpack.NewEncoder(w)
	e.UseArrayEncodedStructs(true)
	e.UseCompactInts(true)
	e.SetSortMapKeys(true)
	return e
}

// A comparison is a writer that fails at the first byte that is not the wanted one.
type comparison struct{ want []byte }

func (c *comparison) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.want, p) {
		return 0, errors.New("not the canonical spelling of its value")
	}
	c.want = c.want[len(p):]
	return len(p), nil
}

func (c *comparison) WriteByte(b byte) error {
	if len(c.want) == 0 || c.want[0] != b {
		return errors.New("not the canonical spelling of its value")
	}
	c.want = c.want[1:]
	return nil
}
