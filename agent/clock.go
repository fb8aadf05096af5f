package agent

import (
	"container/heap"
	"time"
)

// A clock holds when each instance is to be looked at with no event: one time an instance. It belongs to
// the loop. The zero value is empty.
type clock struct{ heap instanceHeap }

// set says when to look at in next; the zero time takes it out.
func (c *clock) set(in *instance, at time.Time) {
	switch {
	case at.IsZero():
		c.drop(in)
	case in.slot == 0:
		in.at = at
		heap.Push(&c.heap, in)
	default:
		in.at = at
		heap.Fix(&c.heap, in.slot-1)
	}
}

func (c *clock) drop(in *instance) {
	if in.slot > 0 {
		heap.Remove(&c.heap, in.slot-1)
	}
}

// next is the earliest time; zero when there is none.
func (c *clock) next() time.Time {
	if len(c.heap) == 0 {
		return time.Time{}
	}
	return c.heap[0].at
}

// due takes out one instance whose time has come; nil when there is none.
func (c *clock) due(now time.Time) *instance {
	if len(c.heap) == 0 || now.Before(c.heap[0].at) {
		return nil
	}
	return heap.Pop(&c.heap).(*instance)
}

type instanceHeap []*instance

func (h instanceHeap) Len() int           { return len(h) }
func (h instanceHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h instanceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (h *instanceHeap) Push(x any) {
	in := x.(*instance)
	*h = append(*h, in)
	in.slot = len(*h)
}

func (h *instanceHeap) Pop() any {
	old := *h
	in := old[len(old)-1]
	*h = old[:len(old)-1]
	in.slot = 0
	return in
}
