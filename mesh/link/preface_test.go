package link

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"meshd/mesh/wire"
)

func TestPrefaceRoundTrip(t *testing.T) {
	want := preface{Boot: [8]byte{1, 2}, Sent: 1 << 40, Port: 6374, Addrs: []string{"node.example:6374", "[::1]:1"}, Refused: "no"}
	var b bytes.Buffer
	must(t, writePreface(&b, want))
	got, err := readPreface(&b)
	must(t, err)
	if !reflect.DeepEqual(got, want) || b.Len() != 0 {
		t.Errorf("got %+v with %d bytes over, want %+v", got, b.Len(), want)
	}
}

func TestPrefaceLimits(t *testing.T) {
	long := preface{Addrs: []string{strings.Repeat("a", addrBytes+1)}}
	many := preface{Addrs: make([]string, prefaceAddrs+1)}
	for _, p := range []preface{long, many} {
		var b bytes.Buffer
		must(t, writePreface(&b, p))
		_, err := readPreface(&b)
		wantError(t, err, "limit")
	}
	var b bytes.Buffer
	must(t, wire.WriteFrame(&b, prefaceKind, make([]byte, prefaceBytes+1)))
	_, err := readPreface(&b)
	wantError(t, err, "limit")
	b.Reset()
	must(t, wire.WriteFrame(&b, prefaceKind+1, nil))
	_, err = readPreface(&b)
	wantError(t, err, "kind")
}

func FuzzPreface(f *testing.F) {
	var b bytes.Buffer
	must(f, writePreface(&b, preface{Port: 6374, Addrs: []string{"10.0.0.1:6374"}}))
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := readPreface(bytes.NewReader(in))
		if err != nil {
			return
		}
		var b bytes.Buffer
		must(t, writePreface(&b, p))
		if !bytes.HasPrefix(in, b.Bytes()) {
			t.Errorf("%x reads as %+v and writes as %x", in, p, b.Bytes())
		}
	})
}
