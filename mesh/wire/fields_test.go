package wire

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

type fielded struct {
	A     uint64
	Name  string
	Bytes []byte
	List  []string
	Last  int64
}

func TestFieldsAreReadAsTheyWereWritten(t *testing.T) {
	for _, n := range []uint64{0, 1, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64} {
		for _, text := range []string{"", "x", strings.Repeat("long ", 20), strings.Repeat("longer ", 100)} {
			b, err := Marshal(3, fielded{n, text, []byte(text), []string{text, text}, int64(n >> 1)})
			if err != nil {
				t.Fatal(err)
			}
			var f [5][]byte
			if err := Fields(b, 3, Limits{}, f[:]); err != nil {
				t.Fatalf("%d %q: %v", n, text, err)
			}
			a, okA := Uint(f[0])
			name, okName := Bytes(f[1])
			raw, okRaw := Bytes(f[2])
			last, okLast := Uint(f[4])
			if a != n || string(name) != text || string(raw) != text || last != n>>1 || !(okA && okName && okRaw && okLast) {
				t.Errorf("%d %q became %d %q %q %d", n, text, a, name, raw, last)
			}
			for _, other := range []int{0, 3} {
				if _, ok := Bytes(f[other]); ok && f[other][0] != 0xc0 {
					t.Errorf("field %d of %x passes for bytes", other, b)
				}
			}
			for _, other := range []int{1, 2, 3} {
				if v, ok := Uint(f[other]); ok {
					t.Errorf("field %d of %x passes for the number %d", other, b, v)
				}
			}
			for _, count := range []int{4, 6} {
				if err := Fields(b, 3, Limits{}, make([][]byte, count)); !errors.Is(err, ErrMalformed) {
					t.Errorf("%d fields of 5: %v", count, err)
				}
			}
			if err := Fields(b, 2, Limits{}, f[:]); !errors.Is(err, ErrVersion) {
				t.Errorf("another version: %v", err)
			}
		}
	}
}

func FuzzFields(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var out [5][]byte
		if len(b) == 0 || Fields(b, b[0], Limits{}, out[:]) != nil {
			return
		}
		if Check(b[1:], Limits{}) != nil {
			t.Errorf("%x is split and not canonical", b)
		}
		if joined := bytes.Join(out[:], nil); !bytes.Equal(joined, b[len(b)-len(joined):]) {
			t.Errorf("%x is split into %x", b, out)
		}
		for _, field := range out {
			Uint(field)
			Bytes(field)
		}
	})
}
