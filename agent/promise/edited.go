package promise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Limits of repairing a file that people and programs edit.
const (
	restTime  = 50 * time.Millisecond // a file must lie still for, before it is written anew (SPEC 9)
	restLooks = 20                    // before the repair gives up, to be tried again
)

// errTouched says that a file became another while its repair was prepared.
var errTouched = errors.New("it changed meanwhile")

// edited reports whether others edit the file too, because only some of its lines are promised.
func (k *fileKeeper) edited() bool { return k.edit != nil && !k.ownText() }

// rest looks again until the file has lain still for restTime: what was read first may be the half of what
// somebody is just writing, and a repair made of that would take the other half away.
func (k *fileKeeper) rest(ctx context.Context, l look) (look, error) {
	for range restLooks {
		if l.why == "" || l.now == nil {
			return l, nil
		}
		select {
		case <-time.After(restTime):
		case <-ctx.Done():
			return look{}, context.Cause(ctx)
		}
		before := l.now
		var err error
		if l, err = k.look(ctx); err != nil {
			return look{}, err
		}
		if unchanged(before, l.now) {
			return l, nil
		}
	}
	return look{}, fmt.Errorf("%s is being written all the time: it is repaired when nobody writes it", k.at)
}

// untouched fails with errTouched when the file is not what the look found, or is there where none was.
func (k *fileKeeper) untouched(dir *os.Root, name string, l look) error {
	now, err := dir.Lstat(name)
	if err != nil && !isGone(err) {
		return err
	}
	if err != nil {
		now = nil
	}
	if !unchanged(l.now, now) {
		return errTouched
	}
	return nil
}

// unchanged reports whether two looks found the same file with nothing done to it; nil is no file.
func unchanged(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, ok := stampOf(a)
	y, ok2 := stampOf(b)
	if !ok || !ok2 {
		return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	}
	return x == y
}
