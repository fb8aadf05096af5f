package mesh

import (
	"bytes"
	"runtime"
	"slices"
	"testing"

	"meshd/mesh/wire"
)

// What one question or answer of 64 KiB may cost to read (SPEC 12).
const (
	readBytes  = 64 << 10
	readBudget = 1 << 20
)

func FuzzQuestion(f *testing.F) {
	for _, q := range []Question{{}, {Kind: AskChain, Entry: 7}, {Kind: AskInvite, Subject: "web", Tags: map[string]string{"tier": "web"}, Seconds: 60, Replace: true}} {
		if b, err := wire.Marshal(askV1, &q); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q Question
		if err := wire.Unmarshal(b, askV1, questionLimits, &q); err != nil {
			return
		}
		if again, err := wire.Marshal(askV1, &q); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
		}
		if len(b) > maxQuestion || len(q.Tags) > questionLimits.Items {
			t.Errorf("a question of %d bytes and %d tags is taken", len(b), len(q.Tags))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []Answer{
		{},
		{Problem: "no"},
		{Has: true, Token: "t", Chain: [][]byte{{1}, {2}}},
		{Entries: []Entry{{ID: 1, Node: "ab", Cause: 2, CauseText: "x"}}, Promises: []Promise{{Address: "p.file.x", Since: 1}}},
	} {
		if b, err := wire.Marshal(askV1, &a); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Answer
		if err := wire.Unmarshal(b, askV1, answerLimits, &a); err != nil {
			return
		}
		if again, err := wire.Marshal(askV1, &a); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
		}
		if len(a.Entries) > maxItems || len(a.Promises) > maxItems || len(a.Chain) > maxItems {
			t.Errorf("an answer of %d entries and %d promises is taken", len(a.Entries), len(a.Promises))
		}
	})
}

// The answer that costs most for its bytes: as many small items as 64 KiB hold.
func TestAnAnswerCostsLittleToRead(t *testing.T) {
	var best []byte
	for n := 1; n <= maxItems; n *= 2 {
		for _, a := range []Answer{
			{Entries: slices.Repeat([]Entry{{Text: "twenty-four bytes of it"}}, n)},
			{Promises: slices.Repeat([]Promise{{Address: "p.file.twenty-four-bytes"}}, n)},
			{Chain: slices.Repeat([][]byte{{1, 2, 3, 4, 5, 6, 7, 8}}, n)},
		} {
			b, err := wire.Marshal(askV1, &a)
			if err != nil || len(b) > readBytes {
				continue
			}
			var before, after runtime.MemStats
			least := uint64(1 << 62) // other goroutines allocate too
			for range 3 {
				runtime.ReadMemStats(&before)
				var got Answer
				if err := wire.Unmarshal(b, askV1, answerLimits, &got); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				least = min(least, after.TotalAlloc-before.TotalAlloc)
			}
			if least > readBudget {
				t.Errorf("%d bytes cost %d to read, the limit is %d", len(b), least, readBudget)
			}
			if len(b) > len(best) {
				best = b
			}
		}
	}
	if len(best) < readBytes/4 {
		t.Errorf("the largest answer that was read has %d bytes", len(best))
	}
}
