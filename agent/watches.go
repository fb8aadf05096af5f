package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"meshd/agent/promise"
	"meshd/policies"
)

// settleTime is how long a path that people or programs edit must be quiet, so that half a write is not
// taken for an edit (SPEC 9).
const settleTime = 50 * time.Millisecond

// folderGone is the name that a host's callback gives when the folder itself went, or changes were lost.
const folderGone = "."

// maxFolders bounds the folders that one recursive watch takes; beyond it the periodic look serves.
const maxFolders = 4096

// A watchTable joins what promises want watched with the host's watches on folders. All but the host's
// callback belongs to the loop; the callback records and kicks.
type watchTable struct {
	host    promise.Host
	folders map[string]*folder                   // by absolute path
	of      map[policies.Address][]promise.Watch // what each promise asked for
	on      map[policies.Address]map[string]bool // folders each promise is in
	refused map[policies.Address]bool            // promises with a folder that the host has no watch left for
	kick    chan struct{}                        // capacity 1

	mu      sync.Mutex
	changed map[string]map[string]bool // folder -> names, since the last take
}

// A folder is one watched folder and who cares for what in it.
type folder struct {
	stop  func()
	names map[string]map[policies.Address]bool // base name -> promise -> settle
	all   map[policies.Address]bool            // anything in it -> settle
}

// A hit is one promise's changed path.
type hit struct {
	path   string
	settle bool
}

func newWatchTable(h promise.Host) *watchTable {
	return &watchTable{
		host: h, folders: map[string]*folder{}, of: map[policies.Address][]promise.Watch{},
		on: map[policies.Address]map[string]bool{}, refused: map[policies.Address]bool{}, kick: make(chan struct{}, 1), changed: map[string]map[string]bool{},
	}
}

// set says what one promise wants watched; nil for nothing. Unchanged wishes cost a comparison.
func (w *watchTable) set(address policies.Address, wishes []promise.Watch) {
	if slices.Equal(w.of[address], wishes) && !w.stale(address) {
		return
	}
	old := w.on[address]
	delete(w.on, address)
	delete(w.refused, address)
	for dir := range old {
		f := w.folders[dir]
		if f == nil {
			continue
		}
		delete(f.all, address)
		for name, who := range f.names {
			delete(who, address)
			if len(who) == 0 {
				delete(f.names, name)
			}
		}
	}
	if len(wishes) == 0 {
		delete(w.of, address)
	} else {
		w.of[address] = wishes
	}
	for _, wish := range wishes {
		w.add(address, wish)
	}
	for dir := range old {
		if f := w.folders[dir]; f != nil && len(f.all) == 0 && len(f.names) == 0 {
			f.stop()
			delete(w.folders, dir)
		}
	}
}

// stale reports whether a promise watches through a folder above one that was missing, or recursively:
// then the folders must be looked up again.
func (w *watchTable) stale(address policies.Address) bool {
	for _, wish := range w.of[address] {
		if wish.Recursive || !w.on[address][filepath.Dir(wish.Path)] {
			return true
		}
	}
	return false
}

func (w *watchTable) add(address policies.Address, wish promise.Watch) {
	// The path itself: its name in the nearest folder above that exists.
	dir, name := filepath.Dir(wish.Path), filepath.Base(wish.Path)
	for {
		err := w.join(address, dir, name, wish.Settle)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir, name = filepath.Dir(dir), filepath.Base(dir)
	}
	// What is in it, where it is a folder.
	if !isFolder(wish.Path) {
		return
	}
	_ = w.join(address, wish.Path, "", wish.Settle) // the periodic look serves where watches ran out
	if !wish.Recursive {
		return
	}
	n := 0
	_ = filepath.WalkDir(wish.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // what can't be read is not watched
		}
		if n++; n > maxFolders {
			return filepath.SkipAll
		}
		return w.join(address, path, "", wish.Settle)
	})
}

// join adds one promise to one folder's watch; name "" means anything in it.
func (w *watchTable) join(address policies.Address, dir, name string, settle bool) error {
	f := w.folders[dir]
	if f == nil {
		stop, err := w.host.Watch(dir, func(name string) { w.record(dir, name) })
		if errors.Is(err, promise.ErrNoWatch) {
			w.refused[address] = true
		}
		if err != nil {
			return err
		}
		f = &folder{stop: stop, names: map[string]map[policies.Address]bool{}, all: map[policies.Address]bool{}}
		w.folders[dir] = f
	}
	if w.on[address] == nil {
		w.on[address] = map[string]bool{}
	}
	w.on[address][dir] = true
	if name == "" {
		f.all[address] = f.all[address] || settle
		return nil
	}
	if f.names[name] == nil {
		f.names[name] = map[policies.Address]bool{}
	}
	f.names[name][address] = f.names[name][address] || settle
	return nil
}

// record is the host's callback: it may come from any goroutine and never blocks.
func (w *watchTable) record(dir, name string) {
	w.mu.Lock()
	if w.changed[dir] == nil {
		w.changed[dir] = map[string]bool{}
	}
	w.changed[dir][name] = true
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// take returns who is concerned by what changed since the last take.
func (w *watchTable) take() map[policies.Address]hit {
	w.mu.Lock()
	changed := w.changed
	w.changed = map[string]map[string]bool{}
	w.mu.Unlock()
	out := map[policies.Address]hit{}
	add := func(who map[policies.Address]bool, path string) {
		for address, settle := range who {
			out[address] = hit{path: path, settle: settle || out[address].settle}
		}
	}
	for dir, names := range changed {
		f := w.folders[dir]
		if f == nil {
			continue
		}
		if names[folderGone] {
			w.lost(dir, f, out)
			continue
		}
		for name := range names {
			add(f.all, filepath.Join(dir, name))
			add(f.names[name], filepath.Join(dir, name))
		}
	}
	return out
}

// lost takes a folder out whose watch is over, or missed something: all that were in it look again, and
// then find the folder anew or the nearest one above it.
func (w *watchTable) lost(dir string, f *folder, out map[policies.Address]hit) {
	f.stop()
	delete(w.folders, dir)
	for address, folders := range w.on {
		if folders[dir] {
			delete(folders, dir)
			out[address] = hit{path: dir}
		}
	}
}

func (w *watchTable) close() {
	for _, f := range w.folders {
		f.stop()
	}
	clear(w.folders)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
