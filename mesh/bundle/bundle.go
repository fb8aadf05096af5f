// Package bundle writes and reads the file that carries catalog records and artifacts to where no network
// leads: on a stick, to an air-gapped node or mesh.
//
// A bundle proves nothing by itself and needs not: its records are signed by their origins, its bytes are
// named by digests in them, and whoever reads it verifies both as if a peer had sent them. What is altered
// is found at the first byte that is, what is cut at the cut.
package bundle

import (
	"errors"
	"fmt"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// version is the first byte of a bundle, and of the messages in it.
//
// The rest is frames as mesh/wire writes them. All but chunks hold one wire-encoded message.
//
//	head      of which mesh it is; first, once
//	records   a page of catalog records, certificates before what they verify
//	artifact  the signed record that offers it; its bytes follow
//	chunk     bytes: the root block, the parts of the manifest, then of the content, in the manifest's order,
//	          each chunk that is not among the first knownMax of the file
//	end       how much there was, and the SHA-256 of every byte before this frame; last, once
//
// Pages come before artifacts. Equal content is equal bytes: there is no time in it and no name of a machine.
const version = 1

const (
	frameHead     = 1
	frameRecords  = 2
	frameArtifact = 3
	frameChunk    = 4
	frameEnd      = 5
)

// Limits of a bundle, held by writer and reader alike.
const (
	PageRecords  = 1000      // records of one page
	PageBytes    = 256 << 10 // of one page, as far as a single record leaves the choice
	maxPageFrame = PageBytes + 8<<10
	maxRecord    = 2048    // bytes of one record
	maxHead      = 128     // bytes of head and end
	knownMax     = 1 << 17 // content chunks that are remembered, so that they are not there twice
	maxArtifacts = 1 << 20
)

// ErrRefused is wrapped by every error about a file that is no whole, unaltered bundle.
var ErrRefused = errors.New("bundle refused")

// Head says of which mesh a bundle is: the hash of its charter's first version.
type Head struct{ Mesh [32]byte }

// Totals count what a bundle holds.
type Totals struct {
	Records, Artifacts, Chunks uint64
	Bytes                      uint64 // of chunks
}

type recordsFrame struct{ Records [][]byte }

type artifactFrame struct{ Record []byte }

type endFrame struct {
	Totals Totals
	Sum    [32]byte
}

var frameLimits = wire.Limits{Bytes: maxPageFrame, Items: PageRecords, Total: 2 * PageRecords}

// frameMax is how long the body of a frame may be; 0 for a kind that is not known.
func frameMax(kind byte) int {
	switch kind {
	case frameHead, frameEnd:
		return maxHead
	case frameRecords:
		return maxPageFrame
	case frameArtifact:
		return maxRecord + 64
	case frameChunk:
		return artifact.MaxChunk
	}
	return 0
}

// known is the content chunks that need not be there again: the first knownMax of the file.
type known map[artifact.Digest]struct{}

func (k known) has(d artifact.Digest) bool { _, ok := k[d]; return ok }

func (k known) add(d artifact.Digest) {
	if len(k) < knownMax {
		k[d] = struct{}{}
	}
}

// walk goes through all chunks of an artifact in the order of the file. fetch returns the bytes of a chunk of
// the manifest, content takes one of the files.
func walk(ref artifact.Ref, seen known, fetch func(artifact.Chunk) ([]byte, error), content func(artifact.Chunk) error) error {
	block, err := fetch(artifact.Chunk{ID: ref.Root})
	if err != nil {
		return err
	}
	root, err := artifact.DecodeRoot(block)
	if err != nil {
		return fmt.Errorf("root block: %w", err)
	}
	if root.Tree != ref.Tree || root.SizeBytes != ref.SizeBytes {
		return fmt.Errorf("root block: %w: it is of tree %s, %d bytes, its record says %s, %d", artifact.ErrMalformed, root.Tree.Short(), root.SizeBytes, ref.Tree.Short(), ref.SizeBytes)
	}
	var parts []byte
	for _, c := range root.Parts {
		b, err := fetch(c)
		if err != nil {
			return err
		}
		parts = append(parts, b...)
	}
	entries, err := artifact.DecodeEntries(parts, root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, c := range e.Chunks {
			if seen.has(c.ID) {
				continue
			}
			if err := content(c); err != nil {
				return fmt.Errorf("%q: %w", e.Name, err)
			}
			seen.add(c.ID)
		}
	}
	return nil
}

// checkChunk holds bytes against the chunk that they should be. SizeBytes 0 is any size.
func checkChunk(c artifact.Chunk, b []byte) error {
	if c.SizeBytes != 0 && len(b) != int(c.SizeBytes) {
		return fmt.Errorf("chunk %s has %d bytes, want %d", c.ID.Short(), len(b), c.SizeBytes)
	}
	if got := artifact.Sum(b); got != c.ID {
		return fmt.Errorf("chunk is %s, want %s", got.Short(), c.ID.Short())
	}
	return nil
}
