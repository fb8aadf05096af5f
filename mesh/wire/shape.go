package wire

import (
	"encoding"
	"fmt"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// The decoded form of a message takes at most maxExpansion bytes for each of its own and freeBytes
// besides: 64 KiB of input stay below 1 MiB (SPEC 12). Without it a byte could name a struct of any
// size, and the decoder allocates a list twice.
const (
	maxExpansion = 12
	freeBytes    = 64 << 10
)

// Bytes that the decoder takes for an entry of a map: two strings, doubled by the map's load.
const mapEntryBytes = 80

// A shape is what a Go type looks like on the wire. A shape of nil fits everything.
type shape struct {
	fam      family
	optional bool     // a pointer: nil is right
	fixed    int      // exact length of bytes or count of an array; -1 any
	charge   int      // memory taken by each byte or element, or by a pointer's target, beside what holds it
	elem     *shape   // of every element of an array, every value of a map
	fields   []*shape // of a struct, instead of elem
	typ      reflect.Type
}

// shapes holds the shape of each type that was asked for: reflect.Type to *shape, which nobody changes.
var shapes sync.Map

// shapeFor is the shape of a type, read once in the life of the process.
func shapeFor(t reflect.Type) (*shape, error) {
	if sh, ok := shapes.Load(t); ok {
		return sh.(*shape), nil
	}
	sh, err := shapeOf(t, 0)
	if err != nil {
		return nil, err
	}
	shapes.Store(t, sh)
	return sh, nil
}

// shapeOf reads the shape of a type, or says what of it cannot be sent.
func shapeOf(t reflect.Type, depth int) (*shape, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("type %s: nested deeper than %d, or in itself", t, MaxDepth)
	}
	if ownCodec(t) {
		return nil, fmt.Errorf("type %s: encodes itself, which the scanner cannot follow", t)
	}
	sh := &shape{fixed: -1, typ: t}
	switch t.Kind() {
	case reflect.Bool:
		sh.fam = famBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		sh.fam = famInt
	case reflect.String:
		sh.fam, sh.charge = famText, 1
	case reflect.Slice, reflect.Array:
		return sh, sh.list(t, depth)
	case reflect.Map:
		return sh, sh.table(t, depth)
	case reflect.Pointer:
		if t.Elem().Kind() != reflect.Struct {
			return nil, fmt.Errorf("type %s: only pointers to structs are sent", t)
		}
		sh, err := shapeOf(t.Elem(), depth)
		if err != nil {
			return nil, err
		}
		sh.optional, sh.charge = true, int(t.Elem().Size())
		return sh, nil
	case reflect.Struct:
		return sh, sh.record(t, depth)
	default:
		return nil, fmt.Errorf("type %s: kind %s is not sent", t, t.Kind())
	}
	return sh, nil
}

// list fills in the shape of a slice or an array.
func (sh *shape) list(t reflect.Type, depth int) (err error) {
	if t.Kind() == reflect.Array {
		sh.fixed = t.Len()
	} else {
		sh.charge = 2 * int(t.Elem().Size())
	}
	if t.Elem().Kind() == reflect.Uint8 {
		sh.fam, sh.charge = famBytes, sh.charge/2
		return nil
	}
	sh.fam = famArray
	sh.elem, err = shapeOf(t.Elem(), depth+1)
	return err
}

// table fills in the shape of a map. The encoder sorts the keys of two map types only.
func (sh *shape) table(t reflect.Type, depth int) (err error) {
	text, flag := reflect.TypeFor[string](), reflect.TypeFor[bool]()
	if t.Key() != text || t.Elem() != text && t.Elem() != flag {
		return fmt.Errorf("type %s: only map[string]string and map[string]bool are sent", t)
	}
	sh.fam, sh.charge = famMap, mapEntryBytes
	sh.elem, err = shapeOf(t.Elem(), depth+1)
	return err
}

// record fills in the shape of a struct: an array of its exported fields, as the encoder takes them.
func (sh *shape) record(t reflect.Type, depth int) error {
	sh.fam = famArray
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			return fmt.Errorf("type %s: embedded field %s is not sent", t, f.Name)
		}
		if !f.IsExported() || f.Tag.Get("msgpack") == "-" {
			continue
		}
		field, err := shapeOf(f.Type, depth+1)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		sh.fields = append(sh.fields, field)
	}
	sh.fixed = len(sh.fields)
	return nil
}

// ownCodec reports whether msgpack would let the type write itself.
func ownCodec(t reflect.Type) bool {
	for _, own := range []reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.CustomDecoder](),
		reflect.TypeFor[msgpack.Marshaler](), reflect.TypeFor[msgpack.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	} {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return true
		}
	}
	return false
}

// element is the shape of the i-th element of an array or map.
func (sh *shape) element(i int) *shape {
	switch {
	case sh == nil:
		return nil
	case sh.fields != nil:
		return sh.fields[i]
	}
	return sh.elem
}

// within names the element in which err came up.
func (sh *shape) within(i int, err error) error {
	switch {
	case sh == nil:
		return err
	case sh.fields == nil:
		return fmt.Errorf("[%d]: %w", i, err)
	}
	n := 0
	for f := range sh.typ.Fields() {
		if !f.IsExported() || f.Tag.Get("msgpack") == "-" {
			continue
		}
		if n == i {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		n++
	}
	return err
}

// fit compares what head read with the shape, and returns the shape of what is inside.
func (s *scanner) fit(sh *shape, fam family, n, start int) (*shape, error) {
	if fam == famNil {
		if sh.optional || sh.fixed < 0 && sh.nilable() {
			return nil, nil
		}
		return nil, s.bad("nil, want %s", sh.fam)
	}
	if fam != sh.fam {
		return nil, s.bad("%s, want %s", fam, sh.fam)
	}
	if sh.fixed >= 0 && n != sh.fixed && (fam == famBytes || fam == famArray) {
		return nil, s.bad("%s of %d, want %d", fam, n, sh.fixed)
	}
	if n == 0 && sh.fixed < 0 && sh.nilable() {
		if !s.collect {
			return nil, s.bad("empty %s not spelled nil", fam)
		}
		s.empties = append(s.empties, span{start, s.pos})
	}
	if s.left() < n && fam != famInt {
		return sh, nil // told by the caller, with the count
	}
	return sh, s.grow(sh, n)
}

// grow counts the memory that the decoder will take for n bytes or elements of the shape.
func (s *scanner) grow(sh *shape, n int) error {
	most := maxExpansion*len(s.b) + freeBytes
	charge := sh.charge
	if sh.fields != nil {
		n = 1
	}
	if charge > 0 && n > (most-s.grown)/charge {
		return &LimitError{"bytes of the decoded message", most, most + 1}
	}
	s.grown += n * charge
	return nil
}

// nilable reports whether the empty value of the shape is nil.
func (sh *shape) nilable() bool {
	return sh.fam == famBytes || sh.fam == famArray || sh.fam == famMap
}
