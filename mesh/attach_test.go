package mesh

import (
	"bytes"
	"testing"

	"meshd/mesh/wire"
)

// fuzzFrame reads b as one body of attach/1: what is taken is written the same, and is within the limits.
func fuzzFrame[T any](t *testing.T, b []byte) {
	var body T
	if err := wire.Unmarshal(b, attachV1, attachLimits, &body); err != nil {
		return
	}
	if again, err := wire.Marshal(attachV1, &body); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
	}
	if len(b) > attachBytes {
		t.Errorf("a frame of %d bytes is taken", len(b))
	}
}

func FuzzAttach(f *testing.F) {
	for _, body := range []any{
		&reachFrame{[8]byte{1}}, &reachedFrame{true, "no"}, &emptyFrame{}, &offerFrame{7}, &refusedFrame{"full"},
		&leaseFrame{[]byte{1}, true}, &membersFrame{[][16]byte{{1}}, [][16]byte{{2}, {3}}}, &callFrame{[16]byte{1}, protoSwarm}, &byeFrame{2}, &pongFrame{[8]byte{1}},
	} {
		b, err := wire.Marshal(attachV1, body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzFrame[reachFrame](t, b)
		fuzzFrame[reachedFrame](t, b)
		fuzzFrame[emptyFrame](t, b)
		fuzzFrame[offerFrame](t, b)
		fuzzFrame[refusedFrame](t, b)
		fuzzFrame[leaseFrame](t, b)
		fuzzFrame[membersFrame](t, b)
		fuzzFrame[callFrame](t, b)
		fuzzFrame[byeFrame](t, b)
		fuzzFrame[pongFrame](t, b)
	})
}
