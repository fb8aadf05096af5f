package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"meshd/agent/control"
	"meshd/mesh/bundle"
	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

const importBatch = 8 << 20 // bytes of chunks that are written at once

// ImportBundle: chunks go into the store as they come, where nothing names them yet; records are verified and
// staged in a file. Only when the end of the bundle has verified are the artifacts found whole, and then the
// records merged, as if a peer had sent them. Before that a crash or a refusal leaves bytes that collection
// forgets, or the next import finds there.
func (d door) ImportBundle(ctx context.Context, r io.Reader, sizeBytes int64, progress func(control.Line)) (control.Bundle, error) {
	a := d.a
	if !a.importing.TryLock() {
		return control.Bundle{}, control.Errorf(control.Failed, "another bundle is being imported: try again when it is in")
	}
	defer a.importing.Unlock()
	in, err := a.newIntake(ctx)
	if err != nil {
		return control.Bundle{}, err
	}
	defer in.close()
	meter := newBundleMeter(progress)
	meter.total = sizeBytes
	totals, err := bundle.Read(metered{r, meter}, in)
	if err == nil {
		err = in.settle()
	}
	if err != nil {
		return control.Bundle{}, a.notImported(err)
	}
	if err := in.merge(); err != nil {
		return control.Bundle{}, fmt.Errorf("import: the bundle is whole, but not all of it is in yet; import it again: %w", err)
	}
	meter.end()
	item := in.item
	item.Mesh, item.Records, item.RecordsNew, item.RecordsLeft = a.mesh.Charter().MeshName(), totals.Records, in.records.Fresh, in.records.Keyless
	item.Chunks, item.SizeBytes = totals.Chunks, meter.done
	a.journal.append(Entry{
		At: a.cfg.Wall(), Kind: aboutBundle, Subject: "import", Outcome: "imported",
		Text:  fmt.Sprintf("%d records, %d of them new, and %d artifacts, %d of them new", item.Records, item.RecordsNew, len(item.Artifacts), len(item.ArtifactsNew)),
		Cause: Cause{Text: "meshctl bundle import on " + a.name},
	})
	return item, a.journal.flush()
}

// notImported counts and tells what is wrong with a file; all else (the disk, who sends it) is no fault of it.
func (a *Agent) notImported(err error) error {
	told := fmt.Errorf("import: %w; nothing was taken in", err)
	if !errors.Is(err, bundle.ErrRefused) {
		return told
	}
	a.tally.bundlesRefused.Add(1)
	a.journal.append(Entry{
		At: a.cfg.Wall(), Kind: aboutBundle, Subject: "import", Outcome: "refused", Text: cut(err.Error(), 200),
		Cause: Cause{Text: "meshctl bundle import on " + a.name},
	})
	return errors.Join(told, a.journal.flush())
}

// An intake takes one bundle in.
type intake struct {
	a       *Agent
	ctx     context.Context // of the one call that made it
	records *catalog.Carried
	stage   *os.File // pages of verified records, as frames
	dir     string
	item    control.Bundle

	roots []artifact.Digest // of the artifacts, in order
	kept  []func()          // let go of what keeps the roots from being collected

	chunks []artifact.Summed
	ready  int // bytes of chunks
}

var _ bundle.Intake = (*intake)(nil)

func (a *Agent) newIntake(ctx context.Context) (*intake, error) {
	tmp := tmpDir(a.cfg.Node)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(tmp, "import-")
	if err != nil {
		return nil, err
	}
	stage, err := os.OpenFile(filepath.Join(dir, "records"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &intake{a: a, ctx: ctx, records: a.mesh.Catalog().Carry(), stage: stage, dir: dir}, nil
}

func (in *intake) close() {
	for _, done := range in.kept {
		done()
	}
	_ = in.stage.Close()
	_ = os.RemoveAll(in.dir)
}

// Head refuses a foreign mesh by name.
func (in *intake) Head(h bundle.Head) error {
	if ours := in.a.mesh.Charter().MeshID(); h.Mesh != ours {
		return fmt.Errorf("%w: it is of mesh %s, this node is of mesh %s", bundle.ErrRefused, meshText(h.Mesh), meshText(ours))
	}
	return nil
}

// Records verifies a page and puts it aside.
func (in *intake) Records(page [][]byte) error {
	if err := in.ctx.Err(); err != nil {
		return err
	}
	if err := in.records.Check(page); err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrRefused, err)
	}
	return bundle.WritePage(in.stage, page)
}

// Artifact verifies the record that offers it. Its bytes are spared by collection until the import is over.
func (in *intake) Artifact(record []byte) (artifact.Ref, error) {
	r, err := in.records.Record(record)
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("%w: %w", bundle.ErrRefused, err)
	}
	ref, body, err := r.Ref()
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("%w: %w", bundle.ErrRefused, err)
	}
	has, err := in.a.store.Has(ref.Root)
	if err != nil {
		return artifact.Ref{}, err
	}
	if err := bundle.WritePage(in.stage, [][]byte{record}); err != nil {
		return artifact.Ref{}, err
	}
	name := ref.Name + "@" + offered{ref: ref, body: body}.shown()
	in.item.Artifacts = append(in.item.Artifacts, name)
	in.roots = append(in.roots, ref.Root)
	in.kept = append(in.kept, in.a.supply.startPull(ref.Root))
	if has {
		return ref, nil
	}
	in.item.ArtifactsNew = append(in.item.ArtifactsNew, name)
	if err := in.a.room(ref.SizeBytes); err != nil {
		return artifact.Ref{}, err
	}
	return ref, in.a.store.Expect(ref.Root)()
}

// Chunk gathers bytes and writes them in batches.
func (in *intake) Chunk(d artifact.Digest, b []byte) error {
	in.chunks = append(in.chunks, artifact.Summed{ID: d, CRC: artifact.CRC(b), Bytes: b})
	if in.ready += len(b); in.ready < importBatch {
		return nil
	}
	return in.flush()
}

func (in *intake) flush() error {
	if err := in.ctx.Err(); err != nil || len(in.chunks) == 0 {
		return err
	}
	b := in.a.store.Begin()
	defer b.Close()
	err := b.Write(in.chunks)
	if err == nil {
		err = b.Commit()
	}
	in.chunks, in.ready = nil, 0
	return err
}

// settle sees that every artifact is whole, durably, before anything is said of it.
func (in *intake) settle() error {
	if err := in.flush(); err != nil {
		return err
	}
	for i, root := range in.roots {
		has, err := in.a.store.Has(root)
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("%w: %s lacks bytes that are neither in the file nor here", bundle.ErrRefused, in.item.Artifacts[i])
		}
	}
	return nil
}

// merge takes the records in, page by page. Repeating it does no harm.
func (in *intake) merge() error {
	if _, err := in.stage.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return bundle.ReadPages(bufio.NewReader(in.stage), in.a.mesh.Catalog().Take)
}

// metered tells how far reading has come.
type metered struct {
	r     io.Reader
	meter *bundleMeter
}

func (m metered) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.meter.add(int64(n))
	return n, err
}
