package wire

import (
	"bytes"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type inner struct {
	Digest [33]byte
	Name   string
	Seq    uint64
}

type sample struct {
	ID     [16]byte
	Sig    [64]byte
	Key    []byte
	Text   string
	Small  uint8
	Signed int64
	Flag   bool
	Names  []string
	Tags   map[string]string
	Set    map[string]bool
	List   []inner
	Chain  [][]byte
	Maybe  *inner
	Pair   [2]uint16
	hidden int
	Local  time.Time `msgpack:"-"`
}

var roomy = Limits{Bytes: 1 << 24}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawSample(t)
		in.hidden = 7
		b, err := Marshal(3, in)
		if err != nil {
			t.Fatal(err)
		}
		byPointer, err := Marshal(3, &in)
		if err != nil || !bytes.Equal(b, byPointer) {
			t.Fatalf("a pointer encodes unlike its value: %v", err)
		}
		if err := Check(b[1:], roomy); err != nil {
			t.Fatalf("Check refuses what Marshal wrote: %v", err)
		}
		out := sample{Text: "left over", Tags: map[string]string{"left": "over"}}
		if err := Unmarshal(b, 3, roomy, &out); err != nil {
			t.Fatalf("Unmarshal: %v", err)
		}
		in.hidden = 0 // it stays at home
		if d := cmp.Diff(in, out, cmp.AllowUnexported(sample{})); d != "" {
			t.Fatalf("round trip (-want +got):\n%s", d)
		}
	})
}

// drawSample draws values in the form in which they come back: what is empty is nil.
func drawSample(t *rapid.T) sample {
	text := rapid.StringN(-1, -1, 300)
	in := sample{
		Text:   text.Draw(t, "text"),
		Small:  rapid.Uint8().Draw(t, "small"),
		Signed: rapid.Int64().Draw(t, "signed"),
		Flag:   rapid.Bool().Draw(t, "flag"),
		Pair:   [2]uint16{rapid.Uint16().Draw(t, "pair"), 1},
	}
	copy(in.ID[:], text.Draw(t, "id"))
	copy(in.Sig[:], text.Draw(t, "sig"))
	if s := text.Draw(t, "key"); s != "" {
		in.Key = []byte(s)
	}
	draw := func(i int) inner { return inner{Name: text.Draw(t, "name"), Seq: rapid.Uint64().Draw(t, "seq")} }
	for i := range rapid.IntRange(0, 20).Draw(t, "n") {
		if i == 0 {
			in.Tags, in.Set = map[string]string{}, map[string]bool{}
		}
		in.Names = append(in.Names, text.Draw(t, "names"))
		in.Tags[text.Draw(t, "tag")] = text.Draw(t, "value")
		in.Set[text.Draw(t, "member")] = rapid.Bool().Draw(t, "in")
		in.List = append(in.List, draw(i))
		in.Chain = append(in.Chain, nil)
	}
	if rapid.Bool().Draw(t, "maybe") {
		v := draw(0)
		in.Maybe = &v
	}
	return in
}

func TestEmptyIsNil(t *testing.T) {
	type lists struct {
		A []string
		B map[string]string
		C []byte
		D [][]byte
	}
	full, err := Marshal(1, lists{[]string{}, map[string]string{}, []byte{}, [][]byte{{}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	none, err := Marshal(1, lists{D: [][]byte{nil, nil}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(full, none) {
		t.Errorf("empty and nil have two spellings: %x, %x", full, none)
	}
	for name, b := range map[string][]byte{
		"array": {1, 0x94, 0x90, 0xc0, 0xc0, 0xc0},
		"map":   {1, 0x94, 0xc0, 0x80, 0xc0, 0xc0},
		"bytes": {1, 0x94, 0xc0, 0xc0, 0xc4, 0, 0xc0},
	} {
		var l lists
		if err := Unmarshal(b, 1, Limits{}, &l); !errors.Is(err, ErrMalformed) {
			t.Errorf("empty %s: %v, want %v", name, err, ErrMalformed)
		}
	}
}

func TestMarshalRefusesWhatCannotBeRead(t *testing.T) {
	type loop struct{ Next []loop }
	type embeds struct{ inner }
	for name, v := range map[string]any{
		"nil":            nil,
		"interface":      struct{ V any }{1},
		"float":          struct{ V float64 }{1},
		"time":           struct{ V time.Time }{},
		"unsorted map":   struct{ V map[uint64]string }{},
		"typed key":      struct{ V map[string]uint64 }{},
		"recursive type": loop{},
		"embedded":       embeds{},
		"pointer to int": struct{ V *int }{},
		"channel":        struct{ V chan int }{},
		"latin 1":        struct{ V string }{"caf\xe9"},
	} {
		if b, err := Marshal(1, v); err == nil {
			t.Errorf("%s: encoded to %x, want an error", name, b)
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	type two struct {
		A uint8
		B string
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrMalformed},
		{"version alone", []byte{1}, ErrMalformed},
		{"another version", []byte{2, 0x92, 1, 0xa1, 'x'}, ErrVersion},
		{"a field less", []byte{1, 0x91, 1}, ErrMalformed},
		{"a field more", []byte{1, 0x93, 1, 0xa1, 'x', 1}, ErrMalformed},
		{"no field", []byte{1, 0x90}, ErrMalformed},
		{"struct as map", []byte{1, 0x82, 0xa1, 'A', 1, 0xa1, 'B', 0xa1, 'x'}, ErrMalformed},
		{"struct as nil", []byte{1, 0xc0}, ErrMalformed},
		{"number as nil", []byte{1, 0x92, 0xc0, 0xa1, 'x'}, ErrMalformed},
		{"text as nil", []byte{1, 0x92, 1, 0xc0}, ErrMalformed},
		{"text as bytes", []byte{1, 0x92, 1, 0xc4, 1, 'x'}, ErrMalformed},
		{"number out of range", []byte{1, 0x92, 0xcd, 1, 0, 0xa1, 'x'}, ErrMalformed},
		{"number below zero", []byte{1, 0x92, 0xff, 0xa1, 'x'}, ErrMalformed},
		{"number as flag", []byte{1, 0x92, 0xc3, 0xa1, 'x'}, ErrMalformed},
		{"one byte after", []byte{1, 0x92, 1, 0xa1, 'x', 0}, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := two{7, "before"}
			if err := Unmarshal(tt.in, 1, Limits{}, &v); !errors.Is(err, tt.want) {
				t.Fatalf("Unmarshal(%x) = %v, want %v", tt.in, err, tt.want)
			}
			if tt.want != nil && v != (two{}) && len(tt.in) > 0 {
				t.Errorf("left %+v behind", v)
			}
		})
	}
	var v [3]byte
	if err := Unmarshal([]byte{1, 0xc4, 2, 1, 2}, 1, Limits{}, &v); !errors.Is(err, ErrMalformed) {
		t.Errorf("two bytes into [3]byte: %v", err)
	}
	if err := Unmarshal([]byte{1, 1}, 1, Limits{}, 5); err == nil {
		t.Error("decoded into a value that is not a pointer")
	}
}

// hostile are inputs that cost a plain decoder gigabytes, and others that try its bounds (notes:
// five bytes made msgpack v5.4.1 take 24 GiB).
func hostile() map[string][]byte {
	const size = 64 << 10
	fill := func(head []byte, with ...byte) []byte {
		return append(head, bytes.Repeat(with, (size-len(head)-1)/len(with))...)
	}
	count := func(code byte, n int) []byte {
		return []byte{1, code, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	return map[string][]byte{
		"array32 of 4G":         {1, 0xdd, 255, 255, 255, 255},
		"map32 of 4G":           {1, 0xdf, 255, 255, 255, 255},
		"bin32 of 4G":           {1, 0xc6, 255, 255, 255, 255},
		"bin32 of 2G":           {1, 0xc6, 127, 255, 255, 255},
		"str32 of 4G":           {1, 0xdb, 255, 255, 255, 255},
		"array16 in a struct":   {1, 0x91, 0xdc, 255, 255, 1},
		"array32 in a struct":   {1, 0x91, 0xdd, 127, 255, 255, 255, 1},
		"bin32 in a struct":     {1, 0x91, 0xc6, 127, 255, 255, 255},
		"ext32 of 4G":           {1, 0xc9, 255, 255, 255, 255, 5},
		"nested 64k":            fill([]byte{1}, 0x91),
		"nested maps":           fill([]byte{1}, 0x81, 0xa0),
		"empty arrays":          fill(count(0xdd, size-6), 0x90),
		"empty maps":            fill(count(0xdd, size-6), 0x80),
		"nils":                  fill(count(0xdd, size-6), 0xc0),
		"numbers":               fill(count(0xdd, size-7), 1),
		"short texts":           fill(count(0xdd, size-7), 0xa0),
		"one field structs":     fill(count(0xdd, size/2-4), 0x91, 1),
		"map of one key":        fill(count(0xdf, size/2-4), 0xa0, 0xa0),
		"one large text":        append([]byte{1, 0xda, 255, 0xf0}, bytes.Repeat([]byte{'x'}, 0xfff0)...),
		"one large blob":        append([]byte{1, 0xc5, 255, 0xf0}, bytes.Repeat([]byte{'x'}, 0xfff0)...),
		"texts just in the cap": fill(count(0xdd, (size-6)/3), 0xa2, 'x', 'y'),
		"map up to the cap":     ascending(6500),
	}
}

func ascending(n int) []byte {
	b := []byte{1, 0xde, byte(n >> 8), byte(n)}
	for i := range n {
		b = append(b, 0xa4, byte('a'+i>>12), byte('a'+i>>8&15), byte('a'+i>>4&15), byte('a'+i&15), 0xa4, 'l', 'o', 'n', 'g')
	}
	return b
}

func TestHostileInputStaysSmall(t *testing.T) {
	type fat struct{ A, B, C, D, E, F, G, H, I, J [33]byte }
	type thin struct{ A uint64 }
	targets := map[string]func() any{
		"[]byte": func() any { return new([]byte) }, "string": func() any { return new(string) },
		"[]string": func() any { return new([]string) }, "[]int64": func() any { return new([]int64) },
		"[]fat": func() any { return new([]fat) }, "[]thin": func() any { return new([]thin) },
		"[]*fat": func() any { return new([]*fat) }, "[][]byte": func() any { return new([][]byte) },
		"map": func() any { return new(map[string]string) }, "set": func() any { return new(map[string]bool) },
		"struct": func() any { return new(struct{ V []fat }) }, "sample": func() any { return new(sample) },
	}
	const most = 1 << 20
	worst, accepted := uint64(0), 0
	for input, b := range hostile() {
		if got := allocated(func() { _ = Check(b[1:], Limits{}) }); got > 16<<10 {
			t.Errorf("Check of %s allocated %d bytes, limit 16384", input, got)
		}
		for name, target := range targets {
			v := target()
			var err error
			got := allocated(func() { err = Unmarshal(b, 1, Limits{}, v) })
			if got > most {
				t.Errorf("%s into %s allocated %d bytes, limit %d (error: %v)", input, name, got, most, err)
			}
			if err == nil {
				accepted++
			}
			worst = max(worst, got)
		}
	}
	if accepted == 0 {
		t.Error("no input reached the decoder: the bound was not tried")
	}
	t.Logf("worst: %d bytes allocated for at most 65536; %d pairs accepted", worst, accepted)
}

// allocated returns the bytes that f allocates in the best of three runs: others may be at work.
func allocated(f func()) uint64 {
	best := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		best = min(best, after.TotalAlloc-before.TotalAlloc)
	}
	return best
}

func FuzzUnmarshal(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b)
	}
	if b, err := Marshal(1, sample{Names: []string{"a"}, Tags: map[string]string{"k": "v"}, Maybe: &inner{}}); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		err := Unmarshal(b, 1, Limits{}, &v)
		if err != nil {
			return
		}
		if err := Check(b[1:], Limits{}); err != nil {
			t.Fatalf("Unmarshal takes what Check refuses: %v", err)
		}
		again, err := Marshal(1, v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to a value that encodes to %x (%v)", b, again, err)
		}
	})
}

func BenchmarkUnmarshalRecord(b *testing.B) {
	v := sample{Text: strings.Repeat("x", 100), Key: make([]byte, 200), Tags: map[string]string{"tier": "edge"}}
	enc, err := Marshal(1, v)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		var out sample
		if err := Unmarshal(enc, 1, Limits{}, &out); err != nil {
			b.Fatal(err)
		}
	}
}
