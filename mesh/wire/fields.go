package wire

import "encoding/binary"

// Fields splits what Marshal made of a struct of len(out) fields into their encodings, which stay parts of b. It checks
// spelling and limits as Check does, but no types: it is for what this program wrote itself, knows by its hash, and reads
// by the million.
func Fields(b []byte, version byte, lim Limits, out [][]byte) error {
	if len(b) == 0 || b[0] != version {
		return ErrVersion
	}
	s := scanner{b: b[1:], lim: lim.orDefault()}
	if len(s.b) > s.lim.Bytes {
		return &LimitError{"bytes of the message", s.lim.Bytes, len(s.b)}
	}
	fam, n, err := s.head()
	if err != nil {
		return err
	}
	if fam != famArray || n != len(out) {
		return s.bad("%s of %d, want a list of %d fields", fam, n, len(out))
	}
	for i := range out {
		from := s.pos
		if err := s.value(nil, 1); err != nil {
			return err
		}
		out[i] = s.b[from:s.pos]
	}
	if s.left() > 0 {
		return s.bad("%d bytes after the value", s.left())
	}
	return nil
}

// Uint reads one of Fields; false for what is no integer that is at least 0.
func Uint(field []byte) (v uint64, ok bool) {
	if len(field) == 1 && field[0] <= 0x7f {
		return uint64(field[0]), true
	}
	if len(field) < 2 || field[0] < 0xcc || field[0] > 0xcf || len(field) != 1+1<<(field[0]-0xcc) {
		return 0, false
	}
	var b [8]byte
	copy(b[9-len(field):], field[1:])
	return binary.BigEndian.Uint64(b[:]), true
}

// Bytes reads one of Fields: the bytes of a text, or bytes; false for anything else. They stay part of field.
func Bytes(field []byte) (v []byte, ok bool) {
	s := scanner{b: field}
	fam, n, err := s.head()
	if err != nil || fam != famText && fam != famBytes || n != s.left() {
		return nil, fam == famNil && len(field) == 1
	}
	return field[s.pos:], true
}
