package agent

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"meshd/policies"
)

const (
	memoryV1   = 1
	prefixOn   = "on/"   // + address: a promise it is `on` was repaired, and it has not succeeded since
	prefixFact = "fact/" // + name: the last value gathered, as typed JSON
	prefixRest = "rest/" // + address, or nothing for all: paused until, in Unix milliseconds
	prefixGone = "gone/" // + node id: forgotten by an operator, as it was last seen, in Unix milliseconds
	prefixTop  = "top/"  // + artifact name: the highest counter when this node last withdrew it
	prefixKeep = "keep/" // + key: what keepers remember
	maxFacts   = 4096
	maxTimes   = 1 << 20 // moments read under one prefix
)

// A memory is the small durable map of keepers and loop. It is safe for concurrent use.
type memory struct {
	shelf Shelf
	mu    sync.Mutex
	on    map[policies.Address]bool
}

func openMemory(s Shelf) (*memory, error) {
	m := &memory{shelf: s, on: map[policies.Address]bool{}}
	keys, _, err := s.Scan([]byte(prefixOn), []byte("on0"), 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read the memory: %w", err)
	}
	for _, k := range keys {
		m.on[policies.Address(k[len(prefixOn):])] = true
	}
	return m, nil
}

// Get returns what was put under key; nil, nil when there is nothing.
func (m *memory) Get(key string) ([]byte, error) {
	k := []byte(prefixKeep + key)
	_, values, err := m.shelf.Scan(k, append(k, 0), 1)
	if err != nil || len(values) == 0 {
		return nil, err
	}
	if first(values[0]) != memoryV1 {
		return nil, fmt.Errorf("memory of %q: version %d, this program knows %d", key, first(values[0]), memoryV1)
	}
	return values[0][1:], nil
}

// Put is durable on return; nil deletes.
func (m *memory) Put(key string, value []byte) error {
	if value != nil {
		value = append([]byte{memoryV1}, value...)
	}
	return m.shelf.Apply([][]byte{[]byte(prefixKeep + key)}, [][]byte{value})
}

func (m *memory) pending(a policies.Address) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on[a]
}

// setPending remembers that a must be verified. On an error it holds until the next start.
func (m *memory) setPending(a policies.Address) error { return m.mark(a, []byte{memoryV1}) }

func (m *memory) clearPending(a policies.Address) error { return m.mark(a, nil) }

func (m *memory) mark(a policies.Address, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on[a] == (value != nil) {
		return nil
	}
	if value == nil {
		delete(m.on, a)
	} else {
		m.on[a] = true
	}
	return m.shelf.Apply([][]byte{[]byte(prefixOn + string(a))}, [][]byte{value})
}

// putCounter remembers the highest counter of a name before it is withdrawn.
func (m *memory) putCounter(name string, n uint64) error {
	return m.shelf.Apply([][]byte{[]byte(prefixTop + name)}, [][]byte{binary.BigEndian.AppendUint64([]byte{memoryV1}, n)})
}

// counter is what putCounter remembered; 0 for a name that was never withdrawn.
func (m *memory) counter(name string) (uint64, error) {
	k := []byte(prefixTop + name)
	_, values, err := m.shelf.Scan(k, append(k, 0), 1)
	if err != nil || len(values) == 0 {
		return 0, err
	}
	if len(values[0]) != 9 || values[0][0] != memoryV1 {
		return 0, fmt.Errorf("counter of %q: %d bytes of version %d, this program knows %d", name, len(values[0]), first(values[0]), memoryV1)
	}
	return binary.BigEndian.Uint64(values[0][1:]), nil
}

func (m *memory) putFact(name string, v cty.Value) error {
	b, err := ctyjson.SimpleJSONValue{Value: v}.MarshalJSON()
	if err != nil {
		return err
	}
	return m.shelf.Apply([][]byte{[]byte(prefixFact + name)}, [][]byte{append([]byte{memoryV1}, b...)})
}

// putTime remembers a moment under prefix + key; the zero time deletes it.
func (m *memory) putTime(prefix, key string, t time.Time) error {
	var value []byte
	if !t.IsZero() {
		value = binary.BigEndian.AppendUint64([]byte{memoryV1}, uint64(t.UnixMilli()))
	}
	return m.shelf.Apply([][]byte{[]byte(prefix + key)}, [][]byte{value})
}

// times returns what putTime remembers under prefix, by key.
func (m *memory) times(prefix string) (map[string]time.Time, error) {
	end := prefix[:len(prefix)-1] + "0" // what follows "/"
	keys, values, err := m.shelf.Scan([]byte(prefix), []byte(end), maxTimes)
	if err != nil {
		return nil, fmt.Errorf("read the memory: %w", err)
	}
	out := map[string]time.Time{}
	for i, v := range values {
		if len(v) != 9 || v[0] != memoryV1 {
			return nil, fmt.Errorf("memory of %q: %d bytes of version %d, this program knows %d", keys[i], len(v), first(v), memoryV1)
		}
		out[string(keys[i][len(prefix):])] = time.UnixMilli(int64(binary.BigEndian.Uint64(v[1:])))
	}
	return out, nil
}

// facts returns the last values gathered before this start.
func (m *memory) facts() (map[string]cty.Value, error) {
	keys, values, err := m.shelf.Scan([]byte(prefixFact), []byte("fact0"), maxFacts)
	if err != nil {
		return nil, err
	}
	out := map[string]cty.Value{}
	for i, v := range values {
		var s ctyjson.SimpleJSONValue
		if first(v) != memoryV1 || s.UnmarshalJSON(v[1:]) != nil {
			continue // gathered anew soon
		}
		out[string(keys[i][len(prefixFact):])] = s.Value
	}
	return out, nil
}
