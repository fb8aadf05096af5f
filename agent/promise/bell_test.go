//go:build !nocontainers

package promise

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBellTellsThoseWhomItConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed, cut := make(chan map[string]string), make(chan struct{})
		streams := 0
		b := bell{follow: func(ctx context.Context, begun func(), heard func(map[string]string)) {
			streams++
			begun()
			for {
				select {
				case labels := <-feed:
					heard(labels)
				case <-cut:
					return
				case <-ctx.Done():
					return
				}
			}
		}}
		a, c := 0, 0
		stopA := b.watch(map[string]string{"guest": "a"}, func() { a++ })
		stopC := b.watch(map[string]string{"guest": "c"}, func() { c++ })
		expect := func(what string, wantA, wantC, wantStreams int) {
			t.Helper()
			synctest.Wait()
			if a != wantA || c != wantC || streams != wantStreams {
				t.Errorf("%s: a %d, c %d, %d streams; want %d, %d, %d", what, a, c, streams, wantA, wantC, wantStreams)
			}
		}
		expect("at first all look", 1, 1, 1)
		feed <- map[string]string{"guest": "a", "more": "x"}
		expect("one's own", 2, 1, 1)
		feed <- map[string]string{"guest": "b"}
		expect("a stranger's", 2, 1, 1)
		feed <- nil
		expect("anybody's", 3, 2, 1)
		cut <- struct{}{}
		time.Sleep(2 * bellPause)
		expect("after a lost stream all look", 4, 3, 2)
		stopC()
		feed <- nil
		expect("one left", 5, 3, 2)
		stopA()
		expect("nobody listens, no stream", 5, 3, 2)
		b.watch(nil, func() { a++ })
		expect("a new one", 6, 3, 3)
		b.close()
		b.watch(nil, func() { a++ })()
		expect("closed", 6, 3, 3)
	})
}
