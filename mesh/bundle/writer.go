package bundle

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// A Writer writes one bundle. Its methods are called from one goroutine, in the order of the file: Records,
// then Artifact, then Close. After an error the bundle is of no use.
type Writer struct {
	w      io.Writer
	sum    hash.Hash
	totals Totals
	seen   known
}

// NewWriter writes the head. Nothing is buffered.
func NewWriter(w io.Writer, h Head) (*Writer, error) {
	b := &Writer{w: w, sum: sha256.New(), seen: known{}}
	if _, err := b.out().Write([]byte{version}); err != nil {
		return nil, err
	}
	return b, b.frame(frameHead, &h)
}

// out is the file and the sum of all that is in it.
func (w *Writer) out() io.Writer { return io.MultiWriter(w.w, w.sum) }

func (w *Writer) frame(kind byte, body any) error {
	b, err := wire.Marshal(version, body)
	if err != nil {
		return err
	}
	return wire.WriteFrame(w.out(), kind, b)
}

// Records writes encoded records, at most PageRecords and PageBytes of them.
func (w *Writer) Records(page [][]byte) error {
	w.totals.Records += uint64(len(page))
	return w.frame(frameRecords, &recordsFrame{page})
}

// Artifact writes the artifact that record, as encoded, offers as ref. read returns the bytes of a chunk, in
// buf where it is large enough; they are verified before they are written. wrote is told each chunk's length.
func (w *Writer) Artifact(record []byte, ref artifact.Ref, read func(id artifact.Digest, buf []byte) ([]byte, error), wrote func(bytes int) error) error {
	if err := w.frame(frameArtifact, &artifactFrame{record}); err != nil {
		return err
	}
	w.totals.Artifacts++
	var buf []byte
	fetch := func(c artifact.Chunk) ([]byte, error) {
		b, err := read(c.ID, buf)
		if err != nil {
			return nil, err
		}
		buf = b
		if err := checkChunk(c, b); err != nil {
			return nil, err
		}
		w.totals.Chunks++
		w.totals.Bytes += uint64(len(b))
		if err := wire.WriteFrame(w.out(), frameChunk, b); err != nil {
			return nil, err
		}
		return b, wrote(len(b))
	}
	err := walk(ref, w.seen, fetch, func(c artifact.Chunk) error {
		_, err := fetch(c)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s to the bundle: %w", ref.Name, err)
	}
	return nil
}

// Close writes the end and returns what is in the bundle.
func (w *Writer) Close() (Totals, error) {
	return w.totals, w.frame(frameEnd, &endFrame{w.totals, [32]byte(w.sum.Sum(nil))})
}
