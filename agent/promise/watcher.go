package promise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// A watcher shares one inotify instance among all watches of the agent: a folder is watched once,
// however many promises look at it.
type watcher struct {
	notify *fsnotify.Watcher
	done   chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	folders map[string]map[*subscriber]bool // by clean absolute path
}

type subscriber struct{ changed func(name string) }

func newWatcher() (*watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &watcher{notify: n, done: make(chan struct{}), folders: map[string]map[*subscriber]bool{}}
	go w.read()
	return w, nil
}

// read hands events on until the watcher is closed.
func (w *watcher) read() {
	defer close(w.done)
	events, errs := w.notify.Events, w.notify.Errors
	for events != nil || errs != nil {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			w.event(e)
		case _, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			w.lost()
		}
	}
}

func (w *watcher) event(e fsnotify.Event) {
	if e.Name == "" {
		return
	}
	var tell []func(string)
	dir, name := filepath.Dir(e.Name), filepath.Base(e.Name)
	w.mu.Lock()
	for s := range w.folders[dir] {
		tell = append(tell, s.changed)
	}
	var self []func(string)
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		for s := range w.folders[e.Name] {
			self = append(self, s.changed)
		}
		if len(self) > 0 {
			delete(w.folders, e.Name)
			_ = w.notify.Remove(e.Name) // where it was moved, it is watched still
		}
	}
	w.mu.Unlock()
	for _, f := range tell {
		f(name)
	}
	for _, f := range self {
		f(".")
	}
}

// lost tells everybody to look at everything: the kernel's queue ran over.
func (w *watcher) lost() {
	var tell []func(string)
	w.mu.Lock()
	for _, subs := range w.folders {
		for s := range subs {
			tell = append(tell, s.changed)
		}
	}
	w.mu.Unlock()
	for _, f := range tell {
		f(".")
	}
}

func (w *watcher) watch(dir string, changed func(name string)) (stop func(), err error) {
	dir = filepath.Clean(dir)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &os.PathError{Op: "watch", Path: dir, Err: syscall.ENOTDIR}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.folders[dir] == nil {
		if err := w.notify.Add(dir); err != nil {
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
				return nil, fmt.Errorf("watch %s: %w: raise fs.inotify.max_user_watches to have more (%v)", dir, ErrNoWatch, err)
			}
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
		w.folders[dir] = map[*subscriber]bool{}
	}
	s := &subscriber{changed: changed}
	subs := w.folders[dir]
	subs[s] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(subs, s)
		// After "." the folder may have been watched anew: then subs is no longer the one in the table.
		if current, ok := w.folders[dir]; ok && len(current) == 0 {
			delete(w.folders, dir)
			_ = w.notify.Remove(dir)
		}
	}, nil
}

func (w *watcher) close() error {
	err := w.notify.Close()
	<-w.done
	return err
}
