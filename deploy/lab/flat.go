package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"strings"
	"time"

	"meshd/agent/control"
)

// sampleTime is how often the memory of a process is looked at: its kinds have no peaks of their own.
const sampleTime = 10 * time.Millisecond

func parseSizes(text string) (out []int64, err error) {
	for word := range strings.SplitSeq(text, ",") {
		n, ok := control.ParseBytes(word)
		if !ok || n < 1 {
			return nil, fmt.Errorf("-sizes: %q is no amount of bytes such as 256MiB", word)
		}
		out = append(out, n)
	}
	return out, nil
}

// measureFlat publishes a file of each size at a fresh node, has another pull and place it, and looks at the memory of
// both all the while.
func measureFlat(ctx context.Context, l *lab) ([]figure, error) {
	var out []figure
	for _, size := range l.sizes {
		figures, err := l.flat(ctx, size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sizeText(size), err)
		}
		out = append(out, figures...)
	}
	return out, nil
}

func sizeText(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (l *lab) flat(ctx context.Context, size int64) (_ []figure, err error) {
	m, err := l.newPair(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	a, b := m.nodes[0], m.nodes[1]
	if err := m.publishScore(ctx, wantScore()); err != nil {
		return nil, err
	}
	for _, n := range m.nodes {
		if _, err := n.settled(ctx); err != nil {
			return nil, err
		}
	}
	sender, err := watchMemory(a.PID())
	if err != nil {
		return nil, err
	}
	receiver, err := watchMemory(b.PID())
	if err != nil {
		return nil, errors.Join(err, sender.stop())
	}
	began := time.Now()
	err = a.publishNoise(ctx, "doc", size)
	took := time.Since(began)
	placed := m.path("b", "work", "doc")
	if err == nil {
		err = exists(ctx, placed)
	}
	whole := time.Since(began)
	disk, ioErr := readBytes(b.PID())
	if err := errors.Join(err, ioErr, sender.stop(), receiver.stop()); err != nil {
		return nil, err
	}
	if err := isNoise(placed, size); err != nil {
		return nil, err
	}
	name := sizeText(size) + " one to one, placed: "
	out := append(sender.figures(name+"sender, RSS above idle"), receiver.figures(name+"receiver, RSS above idle")...)
	return append(
		out,
		single(name+"call of publish", "s", took.Seconds(), 0),
		single(name+"call of publish to placed", "s", whole.Seconds(), 0),
		single(name+"receiver, read from disk", "MiB", disk/(1<<20), 0),
	), nil
}

// noise is what no compression shortens, alike in every run.
func noise(size int64) io.Reader {
	return io.LimitReader(mrand.NewChaCha8([32]byte{7}), size)
}

// publishNoise offers so many bytes, which lie in no file.
func (n *node) publishNoise(ctx context.Context, name string, size int64) error {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(w, 256<<10)
		tw := tar.NewWriter(out)
		err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: ".", Size: size, Mode: 0o644})
		if err == nil {
			_, err = io.Copy(tw, noise(size))
		}
		w.CloseWithError(errors.Join(err, tw.Close(), out.Flush()))
	}()
	_, err := n.door.Publish(ctx, name, "", r, nil)
	_ = r.Close()
	return err
}

func isNoise(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	from := noise(size)
	for {
		n, err := io.ReadFull(from, want)
		if _, err := io.ReadFull(f, got[:n]); err != nil || string(got[:n]) != string(want[:n]) {
			return fmt.Errorf("%s is not what was published: %v", path, err)
		}
		if err != nil {
			break
		}
	}
	if n, err := f.Read(got); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is longer than what was published", path)
	}
	return nil
}

// A memoryWatch follows one process: the most it held of each kind, above what it held at the begin (bytes).
type memoryWatch struct {
	idle, most [3]float64 // all, anonymous, of files
	end        chan struct{}
	done       chan error
}

func memoryNow(pid int) (out [3]float64, err error) {
	f, err := memoryOf(pid, "VmRSS", "RssAnon", "RssFile")
	if err == nil {
		copy(out[:], f)
	}
	return out, err
}

func watchMemory(pid int) (*memoryWatch, error) {
	idle, err := memoryNow(pid)
	if err != nil {
		return nil, err
	}
	w := &memoryWatch{idle: idle, most: idle, end: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		ticker := time.NewTicker(sampleTime)
		defer ticker.Stop()
		for {
			select {
			case <-w.end:
				w.done <- nil
				return
			case <-ticker.C:
			}
			now, err := memoryNow(pid)
			if err != nil {
				w.done <- err
				return
			}
			for i, v := range now {
				w.most[i] = max(w.most[i], v)
			}
		}
	}()
	return w, nil
}

func (w *memoryWatch) stop() error {
	close(w.end)
	return <-w.done
}

func (w *memoryWatch) figures(name string) []figure {
	above := func(i int) float64 { return (w.most[i] - w.idle[i]) / (1 << 20) }
	return []figure{
		single(name, "MiB", above(0), 32), single(name+", of it anonymous", "MiB", above(1), 0), single(name+", of it pages of files", "MiB", above(2), 0),
	}
}

// readBytes is what a process had the disk read so far.
func readBytes(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	var n float64
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			_, err = fmt.Sscan(rest, &n)
		}
	}
	return n, err
}
