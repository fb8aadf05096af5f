package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestCheck(t *testing.T) {
	deep := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0x01) }
	tests := []struct {
		name string
		in   []byte
		want error // nil, ErrMalformed or errLimit
	}{
		{"nil", []byte{0xc0}, nil},
		{"fixint", []byte{0x7f}, nil},
		{"uint8", []byte{0xcc, 0x80}, nil},
		{"uint8 too small", []byte{0xcc, 0x7f}, ErrMalformed},
		{"uint16", []byte{0xcd, 1, 0}, nil},
		{"uint16 too small", []byte{0xcd, 0, 255}, ErrMalformed},
		{"uint32", []byte{0xce, 0, 1, 0, 0}, nil},
		{"uint32 too small", []byte{0xce, 0, 0, 255, 255}, ErrMalformed},
		{"uint64", []byte{0xcf, 0, 0, 0, 1, 0, 0, 0, 0}, nil},
		{"uint64 too small", []byte{0xcf, 0, 0, 0, 0, 255, 255, 255, 255}, ErrMalformed},
		{"negative fixint", []byte{0xe0}, nil},
		{"int8", []byte{0xd0, 0xdf}, nil},
		{"int8 too small", []byte{0xd0, 0xe0}, ErrMalformed},
		{"int8 above zero", []byte{0xd0, 0x01}, ErrMalformed},
		{"int16", []byte{0xd1, 0xff, 0x7f}, nil},
		{"int16 too small", []byte{0xd1, 0xff, 0x80}, ErrMalformed},
		{"int32", []byte{0xd2, 0xff, 0xff, 0x7f, 0xff}, nil},
		{"int32 too small", []byte{0xd2, 0xff, 0xff, 0x80, 0}, ErrMalformed},
		{"int64 least", []byte{0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}, nil},
		{"int64 too small", []byte{0xd3, 0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0}, ErrMalformed},
		{"float32", []byte{0xca, 0, 0, 0, 0}, ErrMalformed},
		{"float64", []byte{0xcb, 0, 0, 0, 0, 0, 0, 0, 0}, ErrMalformed},
		{"fixext", []byte{0xd4, 1, 1}, ErrMalformed},
		{"ext8", []byte{0xc7, 1, 1, 1}, ErrMalformed},
		{"never used", []byte{0xc1}, ErrMalformed},
		{"text", []byte{0xa2, 0xc3, 0xa9}, nil},
		{"text not utf-8", []byte{0xa1, 0xe9}, ErrMalformed},
		{"text cut", []byte{0xa3, 'a'}, ErrMalformed},
		{"long text, short", []byte{0xd9, 1, 'a'}, ErrMalformed},
		{"long array, short", []byte{0xdc, 0, 1, 1}, ErrMalformed},
		{"long map, short", []byte{0xde, 0, 0}, ErrMalformed},
		{"long bytes, short", []byte{0xc5, 0, 1, 1}, ErrMalformed},
		{"map", []byte{0x82, 0xa1, 'a', 1, 0xa1, 'b', 2}, nil},
		{"map, a key twice", []byte{0x82, 0xa1, 'a', 1, 0xa1, 'a', 2}, ErrMalformed},
		{"map, keys descend", []byte{0x82, 0xa1, 'b', 1, 0xa1, 'a', 2}, ErrMalformed},
		{"map, number as key", []byte{0x81, 1, 1}, ErrMalformed},
		{"map cut", []byte{0x82, 0xa1, 'a', 1}, ErrMalformed},
		{"array cut", []byte{0x92, 1}, ErrMalformed},
		{"number cut", []byte{0xcd, 1}, ErrMalformed},
		{"nothing", nil, ErrMalformed},
		{"two values", []byte{1, 1}, ErrMalformed},
		{"as deep as allowed", deep(16), nil},
		{"too deep", deep(17), errLimit},
		{"too many items", append([]byte{0xdc, 0, 101}, make([]byte, 101)...), errLimit},
		{"too many values", twice(append([]byte{0xdc, 0, 99}, make([]byte, 99)...)), errLimit},
		{"too many bytes", append([]byte{0xc5, 1, 0x30}, make([]byte, 0x130)...), errLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(tt.in, Limits{Bytes: 300, Items: 100, Total: 150})
			var broken *LimitError
			switch {
			case tt.want == errLimit && !errors.As(err, &broken),
				tt.want != errLimit && !errors.Is(err, tt.want):
				t.Errorf("Check(%x) = %v, want %v", tt.in, err, tt.want)
			}
		})
	}
}

// errLimit stands for any *LimitError in a table.
var errLimit = errors.New("a limit")

func twice(b []byte) []byte { return append([]byte{0x92}, append(b, b...)...) }

func FuzzCheck(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b[1:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Check(b, Limits{}) != nil {
			return
		}
		if Check(b[:len(b)-1], Limits{}) == nil || Check(append(b[:len(b):len(b)], 0), Limits{}) == nil {
			t.Errorf("%x is one value, and so is it with a byte more or less", b)
		}
	})
}
