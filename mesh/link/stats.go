package link

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what crossed the port since the start. All only grow.
type Stats struct {
	PacketsIn, PacketsOut, BytesIn, BytesOut int64 // sealed packets that were taken or sent, with their heads

	PacketsMalformed int64 // too short, too long or of no known version
	PacketsUnknown   int64 // of a sender without a known certificate, or a revoked one
	PacketsForged    int64 // whose box did not open: damaged, reflected, of another mesh
	PacketsReplayed  int64 // that came before
	PacketsUnheard   int64 // of a run of the sender that no stream has told of yet, or of no known kind
	PacketsUnsent    int64 // dropped for want of a key, an address or room in the queue

	StreamsRefused int64 // over a cap, or while offline
	StreamsFailed  int64 // that failed in the handshake or the preface: garbage, strangers, revoked keys
}

type counters struct {
	packetsIn, packetsOut, bytesIn, bytesOut              atomic.Int64
	malformed, unknown, forged, replayed, unheard, unsent atomic.Int64
	streamsRefused, streamsFailed                         atomic.Int64
}

// Stats returns the counters. They are read one by one, not at one instant.
func (l *Link) Stats() Stats {
	c := &l.counters
	return Stats{
		PacketsIn: c.packetsIn.Load(), PacketsOut: c.packetsOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		PacketsMalformed: c.malformed.Load(), PacketsUnknown: c.unknown.Load(), PacketsForged: c.forged.Load(),
		PacketsReplayed: c.replayed.Load(), PacketsUnheard: c.unheard.Load(), PacketsUnsent: c.unsent.Load(),
		StreamsRefused: c.streamsRefused.Load(), StreamsFailed: c.streamsFailed.Load(),
	}
}

// complainEvery is how often bad input from outside may write a line of log.
const complainEvery = time.Minute

// A complaint logs at most once in complainEvery and says how many it kept to itself.
type complaint struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

func (c *complaint) log(log *slog.Logger, msg string, args ...any) {
	c.mu.Lock()
	now := time.Now()
	if !c.last.IsZero() && now.Sub(c.last) < complainEvery {
		c.skipped++
		c.mu.Unlock()
		return
	}
	skipped := c.skipped
	c.last, c.skipped = now, 0
	c.mu.Unlock()
	log.Log(context.Background(), slog.LevelWarn, msg, append(args, "more_like_this", skipped)...)
}
