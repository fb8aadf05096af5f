package link

import "time"

// A Way is what is known of how the bytes of a stream get to its far end.
type Way struct {
	Bytes     int64         // that the far end has confirmed
	Busy      time.Duration // in which there was something to confirm
	RoundTrip time.Duration // of late, smoothed
	Least     time.Duration // the shortest of some minutes: what RoundTrip is longer by, bytes wait in queues
}
