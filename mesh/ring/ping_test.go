package ring

import (
	"bytes"
	"testing"

	"meshd/mesh/id"
)

func TestPingsTravelAsTheirNumber(t *testing.T) {
	from, to := id.Node{1, 2, 3}, id.Node{0xff, 4}
	for _, number := range []string{"\x00", "\x7f", "\xcc\x80", "\xcd\x01\x00", "\xce\x00\x01\x00\x00"} {
		whole, ok := wholePing([]byte(number), from, to)
		if !ok {
			t.Fatalf("wholePing(%q) takes no number", number)
		}
		if short, ok := shortPing(whole, from, to); !ok || string(short) != number {
			t.Errorf("shortPing(wholePing(%q)) = %q, %v", number, short, ok)
		}
		if short, ok := shortPing(whole, to, from); ok {
			t.Errorf("a ping between others is shortened to %q", short)
		}
	}
}

func FuzzWholePing(f *testing.F) {
	for _, seed := range []string{"", "\x01", "\x80", "\xcc", "\xcc\x80", "\xcf\x00\x00\x00\x00\x00\x00\x00\x01", "\x85\xa4Node"} {
		f.Add([]byte(seed))
	}
	from, to := id.Node{1}, id.Node{2}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, ok := wholePing(b, from, to)
		if short, back := shortPing(whole, from, to); ok != back || ok && !bytes.Equal(short, b) {
			t.Fatalf("%q: whole %q, %v; short %q, %v", b, whole, ok, short, back)
		}
	})
}
