package promise

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meshd/policies"
)

// Limits of a file promise.
const (
	maxEditBytes    = 64 << 20         // the largest file whose lines are edited: it is held in memory
	validateTimeout = 60 * time.Second // for one run of validate
)

// A fileKeeper keeps one file: its bytes, mode and owner.
type fileKeeper struct {
	address policies.Address
	site    Site
	spec    policies.File
	at      place
	from    *place    // of copy
	edit    *lineEdit // of lines
	mode    *fs.FileMode

	target, source trust
}

func newFile(p policies.Promise, f policies.File, s Site) (Keeper, error) {
	k := &fileKeeper{address: p.Address, site: s, spec: f}
	var err error
	if k.at, err = newPlace(s, f.Path); err != nil {
		return nil, err
	}
	if k.at.rel == "." || filepath.Dir(k.at.abs) == k.at.abs {
		return nil, fmt.Errorf("path %q is a whole tree: promise what is in it", f.Path)
	}
	if f.Mode != "" {
		mode, err := parseMode(f.Mode)
		if err != nil {
			return nil, err
		}
		k.mode = &mode
	}
	if f.Copy != "" {
		from, err := newPlace(s, f.Copy)
		if err != nil {
			return nil, fmt.Errorf("copy: %w", err)
		}
		if from.abs == k.at.abs {
			return nil, fmt.Errorf("copy: %s is the file itself", from)
		}
		k.from = &from
	}
	if f.Lines != nil {
		if k.edit, err = newLineEdit(f.Lines); err != nil {
			return nil, err
		}
	}
	switch {
	case f.State == "absent":
		return &absentKeeper{at: k.at}, nil
	case f.State == "dir":
		return &dirKeeper{file: k}, nil
	case f.State != "" && f.State != "present":
		return nil, fmt.Errorf("state %q: it is \"present\", \"absent\" or \"dir\"", f.State)
	case f.Tree != nil:
		return newTree(k, p)
	}
	return k, nil
}

// ownText reports whether the promise says all of the file's bytes, so that no one else edits it.
func (k *fileKeeper) ownText() bool { return k.spec.Content != nil || k.from != nil }

// A text is what a file should hold: bytes in memory, or those of a file that is copied whole.
type text struct {
	any    bool // nothing is said of the bytes
	data   []byte
	stream bool // the bytes are those of k.from
	sum    [sha256.Size]byte
	size   int64
	mode   fs.FileMode // the source's, for copy; else 0
	source fs.FileInfo // for copy
}

func (k *fileKeeper) wanted(ctx context.Context, dir *os.Root, name string) (text, error) {
	var t text
	switch {
	case k.from != nil:
		f, info, err := k.from.open()
		if err != nil {
			return text{}, err
		}
		defer f.Close()
		t.source, t.mode = info, info.Mode().Perm()
		if k.edit == nil {
			t.stream = true
			t.sum, t.size, err = digest(ctx, f, info.Size())
			return t, err
		}
		if t.data, err = readAll(ctx, f, k.from.String()); err != nil {
			return text{}, err
		}
	case k.spec.Content != nil:
		t.data = []byte(*k.spec.Content)
	case k.edit != nil:
		now, err := k.readNow(ctx, dir, name)
		if err != nil {
			return text{}, err
		}
		t.data = now
	default:
		return text{any: true}, nil
	}
	if k.edit != nil {
		t.data = []byte(k.edit.apply(string(t.data)))
	}
	t.sum, t.size = sha256.Sum256(t.data), int64(len(t.data))
	return t, nil
}

// readNow is the present file, which lines alone go by; nothing when it is missing. dir is nil when its
// folder is.
func (k *fileKeeper) readNow(ctx context.Context, dir *os.Root, name string) ([]byte, error) {
	if dir == nil {
		return nil, nil
	}
	f, _, err := openFile(dir, name)
	if isGone(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(ctx, f, k.at.String())
}

// A look is what was found at the path, beside what should be.
type look struct {
	why   string // what is untrue; "" when all is as promised
	bytes bool   // the bytes are wrong, not the mode or owner alone
	want  text
	now   fs.FileInfo // nil: nothing there
}

func (k *fileKeeper) look(ctx context.Context) (look, error) {
	var info fs.FileInfo
	dir, name, err := k.at.parent(false)
	if err == nil {
		defer dir.Close()
		info, err = dir.Lstat(name)
	}
	switch {
	case isGone(err):
	case err != nil:
		return look{}, err
	case info.Mode().IsRegular():
	case info.Mode()&fs.ModeSymlink != 0 && k.ownText():
	default:
		return look{}, fmt.Errorf("%s is %s: move it away, meshd replaces only files", k.at, kindOf(info))
	}
	want, err := k.wanted(ctx, dir, name)
	if err != nil {
		return look{}, err
	}
	l := look{want: want, now: info}
	switch {
	case info == nil:
		l.why, l.bytes = fmt.Sprintf("%s is missing", k.at), true
	case !info.Mode().IsRegular():
		l.why, l.bytes = fmt.Sprintf("%s is %s", k.at, kindOf(info)), true
	default:
		same, err := k.sameBytes(ctx, dir, name, want)
		if err != nil {
			return look{}, err
		}
		if !same {
			l.why, l.bytes = fmt.Sprintf("%s differs", k.at), true
			break
		}
		l.why, err = k.metaDiffers(info, want)
		if err != nil {
			return look{}, err
		}
	}
	return l, nil
}

func (k *fileKeeper) sameBytes(ctx context.Context, dir *os.Root, name string, want text) (bool, error) {
	if want.any {
		return true, nil
	}
	f, info, err := openFile(dir, name)
	if isGone(err) {
		return false, nil // went while we looked
	} else if err != nil {
		return false, err
	}
	defer f.Close()
	if info.Size() != want.size {
		return false, nil
	}
	sum, _, err := digest(ctx, f, info.Size())
	return sum == want.sum, err
}

// promisedMode is the mode the file must have; ok is false when nothing is said of it.
func (k *fileKeeper) promisedMode(want text) (mode fs.FileMode, ok bool) {
	switch {
	case k.mode != nil:
		return *k.mode, true
	case want.source != nil:
		return want.mode, true
	}
	return 0, false
}

func (k *fileKeeper) metaDiffers(info fs.FileInfo, want text) (string, error) {
	if mode, said := k.promisedMode(want); said && info.Mode()&modeBits != mode {
		return fmt.Sprintf("mode of %s is %04o, promised %04o", k.at, octal(info.Mode()), octal(mode)), nil
	}
	uid, gid, err := lookupOwner(k.spec.Owner, k.spec.Group)
	if err != nil {
		return "", err
	}
	u, g, ok := ownerOf(info)
	if ok && (uid >= 0 && u != uid || gid >= 0 && g != gid) {
		return fmt.Sprintf("owner of %s is %d:%d, promised %s:%s", k.at, u, g, k.spec.Owner, k.spec.Group), nil
	}
	return "", nil
}

// Check costs one or two system calls while nothing changed since the last look that read the bytes.
func (k *fileKeeper) Check(ctx context.Context) (Finding, error) {
	if k.target.holds(k.at.abs, false) && (k.from == nil || k.source.holds(k.from.abs, true)) {
		return Finding{OK: true}, nil
	}
	l, err := k.look(ctx)
	if err != nil {
		return Finding{}, err
	}
	if l.why != "" {
		k.target.doubt()
		return Finding{Reason: l.why}, nil
	}
	k.target.found(l.now)
	if k.from != nil {
		k.source.found(l.want.source)
	}
	return Finding{OK: true}, nil
}

// Repair writes a new file beside the old one and renames it, or sets mode and owner alone.
func (k *fileKeeper) Repair(ctx context.Context) (Finding, error) {
	for range restLooks {
		found, err := k.repairOnce(ctx)
		if !errors.Is(err, errTouched) {
			return found, err
		}
	}
	return Finding{}, fmt.Errorf("put %s in place: %w", k.at, errTouched)
}

func (k *fileKeeper) repairOnce(ctx context.Context) (Finding, error) {
	l, err := k.look(ctx)
	if err == nil && k.edited() {
		l, err = k.rest(ctx, l)
	}
	if err != nil {
		return Finding{}, err
	}
	if l.why == "" {
		return Finding{OK: true}, nil
	}
	k.target.doubt()
	dir, name, err := k.at.parent(true)
	if err != nil {
		return Finding{}, fmt.Errorf("open the folder of %s: %w", k.at, err)
	}
	defer dir.Close()
	if l.bytes {
		err = k.write(ctx, dir, name, l)
	} else {
		err = k.setMeta(dir, name, l)
	}
	if err != nil {
		return Finding{}, err
	}
	return Finding{OK: true, Reason: past(l.why)}, nil
}

// past tells what was wrong when it is right again.
func past(why string) string {
	if path, ok := strings.CutSuffix(why, " is missing"); ok {
		return path + " was missing"
	}
	if path, ok := strings.CutSuffix(why, " differs"); ok {
		return path + " differed"
	}
	return why
}

func (k *fileKeeper) setMeta(dir *os.Root, name string, l look) error {
	uid, gid, err := lookupOwner(k.spec.Owner, k.spec.Group)
	if err != nil {
		return err
	}
	if uid >= 0 || gid >= 0 {
		if err := dir.Lchown(name, uid, gid); err != nil {
			return fmt.Errorf("set the owner of %s: %w", k.at, err)
		}
	}
	if mode, said := k.promisedMode(l.want); said {
		if err := dir.Chmod(name, mode); err != nil {
			return fmt.Errorf("set the mode of %s: %w", k.at, err)
		}
	}
	return nil
}

// write makes the new file under a name that only this promise uses, so that a crash leaves at most one
// and the next try takes it away.
func (k *fileKeeper) write(ctx context.Context, dir *os.Root, name string, l look) (err error) {
	aside := asidePrefix + shortHash([]byte(string(k.address)+"\x00"+k.at.abs))
	if err := dir.Remove(aside); err != nil && !isGone(err) {
		return fmt.Errorf("remove what an earlier try left of %s: %w", k.at, err)
	}
	f, err := dir.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", k.at, err)
	}
	defer func() {
		if err != nil {
			dir.Remove(aside)
		}
	}()
	err = k.fill(ctx, f, l)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", k.at, err)
	}
	if err := k.validate(ctx, filepath.Join(filepath.Dir(k.at.abs), aside)); err != nil {
		return err
	}
	if k.edited() {
		if err := k.untouched(dir, name, l); err != nil {
			return fmt.Errorf("put %s in place: %w", k.at, err)
		}
	}
	if err := dir.Rename(aside, name); err != nil {
		return fmt.Errorf("put %s in place: %w", k.at, err)
	}
	return syncDir(dir)
}

// fill writes bytes, owner and mode of the new file, and makes them durable.
func (k *fileKeeper) fill(ctx context.Context, f *os.File, l look) error {
	if l.want.stream {
		src, _, err := k.from.open()
		if err != nil {
			return err
		}
		defer src.Close()
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(f, h), &ctxReader{ctx, src}); err != nil {
			return err
		}
		if !bytes.Equal(h.Sum(nil), l.want.sum[:]) {
			return fmt.Errorf("%s changed while it was copied", k.from)
		}
	} else if _, err := f.Write(l.want.data); err != nil {
		return err
	}
	uid, gid, err := lookupOwner(k.spec.Owner, k.spec.Group)
	if err != nil {
		return err
	}
	mode, said := k.promisedMode(l.want)
	if l.now != nil && l.now.Mode().IsRegular() {
		if u, g, ok := ownerOf(l.now); ok {
			uid, gid = orElse(uid, u), orElse(gid, g)
		}
		if !said {
			mode, said = l.now.Mode()&modeBits, true
		}
	}
	if !said {
		mode = 0o644
	}
	if err := chownFile(f, uid, gid); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// validate asks the score's own command what it thinks of the new file.
func (k *fileKeeper) validate(ctx context.Context, path string) error {
	if len(k.spec.Validate) == 0 {
		return nil
	}
	argv := append(append([]string{}, k.spec.Validate...), path)
	cmd := Cmd{Argv: argv, Env: environ(nil), Dir: k.site.Work}
	code, tail, err := k.site.Host.Exec(ctx, cmd, validateTimeout)
	if err != nil {
		return fmt.Errorf("validate %s: %w", k.at, err)
	}
	if code != 0 {
		return fmt.Errorf("validate %s: %q refused the new file with exit code %d, the old one stays: %s", k.at, argv[0], code, oneLine(tail))
	}
	return nil
}

// Watches names the file and what it is copied from. A file that others may edit settles first.
func (k *fileKeeper) Watches() []Watch {
	w := []Watch{{Path: k.at.abs, Settle: !k.ownText()}}
	if k.from != nil {
		w = append(w, Watch{Path: k.from.abs, Settle: true})
	}
	return w
}

// End leaves the file as it is (POLICY.md: files stay, unwatched).
func (k *fileKeeper) End(context.Context, bool) error { return nil }
