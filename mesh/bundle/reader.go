package bundle

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// An Intake takes what Read found, in the order of the file. An error ends the reading.
//
// Nothing that it is given may have an effect that lasts before Read returns without an error: the file may
// still turn out to be cut or altered.
type Intake interface {
	// Head refuses the bundle of a foreign mesh.
	Head(h Head) error
	// Records verifies a page of encoded records. It may keep them.
	Records(page [][]byte) error
	// Artifact verifies the record of an artifact and returns what it offers.
	Artifact(record []byte) (artifact.Ref, error)
	// Chunk takes bytes that were held against their digest. It may keep them.
	Chunk(id artifact.Digest, b []byte) error
}

// A reader is one bundle on its way in.
type reader struct {
	r      *bufio.Reader
	in     Intake
	sum    hash.Hash
	totals Totals
	seen   known
	at     int64 // bytes read
}

// Read reads a bundle to the end of r, which has to be the end of the bundle. Every error that is not r's or
// in's wraps ErrRefused and says where the file is wrong. It keeps at most a manifest (artifact.MaxManifestBytes)
// and the digests of 131,072 chunks.
func Read(r io.Reader, in Intake) (Totals, error) {
	b := &reader{r: bufio.NewReaderSize(r, 64<<10), in: in, sum: sha256.New(), seen: known{}}
	if err := b.read(); err != nil {
		return b.totals, fmt.Errorf("byte %d: %w", b.at, err)
	}
	return b.totals, nil
}

func refuse(layout string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(layout, args...))
}

func (b *reader) read() error {
	first, err := b.r.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		return refuse("the file is empty")
	case err != nil:
		return err
	case first != version:
		return refuse("format %d, this meshd reads %d: it is no bundle, or one of a newer meshd", first, version)
	}
	b.sum.Write([]byte{first})
	b.at = 1
	kind, body, err := b.next()
	if err != nil {
		return err
	}
	if kind != frameHead {
		return refuse("a frame of kind %d where the head should be", kind)
	}
	var h Head
	if err := decode(body, &h); err != nil {
		return err
	}
	if err := b.in.Head(h); err != nil {
		return err
	}
	for {
		kind, body, err := b.next()
		if err != nil {
			return err
		}
		switch {
		case kind == frameRecords && b.totals.Artifacts == 0:
			err = b.records(body)
		case kind == frameArtifact:
			err = b.artifact(body)
		case kind == frameEnd:
			return b.end(body)
		default:
			err = refuse("a frame of kind %d is out of place", kind)
		}
		if err != nil {
			return err
		}
	}
}

// next reads a frame within the limit of its kind. The end is not part of the sum.
func (b *reader) next() (byte, []byte, error) {
	head, err := b.r.Peek(5)
	if err != nil {
		return 0, nil, b.cut(err)
	}
	most := frameMax(head[4])
	if most == 0 {
		return 0, nil, refuse("a frame of kind %d is not known", head[4])
	}
	kind, body, err := wire.ReadFrame(b.r, most)
	var limit *wire.LimitError
	switch {
	case errors.As(err, &limit):
		return 0, nil, refuse("frame of kind %d: %w", kind, err)
	case err != nil:
		return 0, nil, b.cut(err)
	}
	if kind != frameEnd {
		b.sum.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind))
		b.sum.Write(body)
	}
	b.at += 5 + int64(len(body))
	return kind, body, nil
}

// cut names the end of a file that came too early.
func (b *reader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse("the file is cut short: it has no end")
	}
	return err
}

func decode(body []byte, v any) error {
	if err := wire.Unmarshal(body, version, frameLimits, v); err != nil {
		return refuse("%w", err)
	}
	return nil
}

func (b *reader) records(body []byte) error {
	var f recordsFrame
	if err := decode(body, &f); err != nil {
		return err
	}
	if len(f.Records) == 0 {
		return refuse("a page with no record")
	}
	for _, r := range f.Records {
		if len(r) > maxRecord {
			return refuse("%w", &wire.LimitError{What: "bytes of a record", Limit: maxRecord, Got: len(r)})
		}
	}
	b.totals.Records += uint64(len(f.Records))
	return b.in.Records(f.Records)
}

func (b *reader) artifact(body []byte) error {
	var f artifactFrame
	if err := decode(body, &f); err != nil {
		return err
	}
	if b.totals.Artifacts++; b.totals.Artifacts > maxArtifacts {
		return refuse("%w", &wire.LimitError{What: "artifacts of a bundle", Limit: maxArtifacts, Got: maxArtifacts + 1})
	}
	ref, err := b.in.Artifact(f.Record)
	if err != nil {
		return err
	}
	fetch := func(c artifact.Chunk) ([]byte, error) {
		kind, body, err := b.next()
		switch {
		case err != nil:
			return nil, err
		case kind != frameChunk:
			return nil, refuse("a frame of kind %d where chunk %s should be", kind, c.ID.Short())
		}
		if err := checkChunk(c, body); err != nil {
			return nil, refuse("%w", err)
		}
		b.totals.Chunks++
		b.totals.Bytes += uint64(len(body))
		return body, b.in.Chunk(c.ID, body)
	}
	err = walk(ref, b.seen, fetch, func(c artifact.Chunk) error {
		_, err := fetch(c)
		return err
	})
	if errors.Is(err, artifact.ErrMalformed) && !errors.Is(err, ErrRefused) {
		err = refuse("%w", err)
	}
	if err != nil {
		return fmt.Errorf("artifact %q: %w", ref.Name, err)
	}
	return nil
}

func (b *reader) end(body []byte) error {
	var f endFrame
	if err := decode(body, &f); err != nil {
		return err
	}
	if f.Totals != b.totals {
		return refuse("it holds %d records, %d artifacts and %d chunks, its end says %d, %d and %d", b.totals.Records, b.totals.Artifacts, b.totals.Chunks, f.Totals.Records, f.Totals.Artifacts, f.Totals.Chunks)
	}
	if f.Sum != [32]byte(b.sum.Sum(nil)) {
		return refuse("its bytes are not those that were written: the sum at its end is another")
	}
	switch _, err := b.r.ReadByte(); {
	case err == nil:
		return refuse("there are bytes behind its end")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
