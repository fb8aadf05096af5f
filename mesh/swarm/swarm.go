// Package swarm moves the bytes of artifacts between nodes: what to ask whom, pull and serve.
package swarm

import (
	"context"
	"log/slog"
	"net"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// Proto is the protocol name under which link carries swarm streams.
const Proto = "meshd/swarm/1"

// Chunks is what the swarm needs of a store.
type Chunks interface {
	Missing(chunks []artifact.Chunk) ([]artifact.Chunk, error)
	Read(id artifact.Digest, buf []byte) ([]byte, error)
	Write(chunks [][]byte) error
}

// Config is what a Swarm is made of.
type Config struct {
	Self   id.Node
	Open   func(ctx context.Context, to id.Node) (net.Conn, error)
	Chunks Chunks
	Allow  func(peer id.Node, root artifact.Digest) bool
	Log    *slog.Logger
	Wall   func() time.Time
	Seed   uint64
}

// Swarm pulls artifacts from peers and serves them to peers.
type Swarm struct{ cfg Config }

// New returns a Swarm.
func New(cfg Config) *Swarm { return &Swarm{cfg: cfg} }

// Run waits for ctx to end, then closes all streams.
func (s *Swarm) Run(ctx context.Context) error { panic("not built") }

// ServeConn speaks with peer over c until the stream ends.
func (s *Swarm) ServeConn(ctx context.Context, peer id.Node, c net.Conn) { panic("not built") }

// Pull fetches what is missing of the artifact.
func (s *Swarm) Pull(ctx context.Context, ref artifact.Ref, holders func() []id.Node, progress func(done, total int64)) error {
	panic("not built")
}

// Kick makes all pulls call holders again soon.
func (s *Swarm) Kick() { panic("not built") }

// Has reports whether all bytes of the artifact are here.
func (s *Swarm) Has(root artifact.Digest) (bool, error) { panic("not built") }

// Stats is a copy of the counters.
type Stats struct{}

// Stats returns the counters.
func (s *Swarm) Stats() Stats { panic("not built") }
