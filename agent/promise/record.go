package promise

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// markVariable is in the environment of each process that a promise keeps; its value is the mark.
const markVariable = "MESHD_PROMISE"

// A record is what Memory holds under ADDRESS 0x00 "process": version byte 1, then this as JSON. Without
// a PID it is an intent: a process with the promise's mark may run.
type record struct {
	PID     int    `json:"pid,omitempty"`
	Start   uint64 `json:"start,omitempty"`
	Hash    string `json:"hash,omitempty"` // of what was started; a change of it restarts
	Restart bool   `json:"restart,omitempty"`
}

const processRecord = 1 // version byte

func (k *processKeeper) memoryKey() string { return string(k.address) + "\x00process" }

func (k *processKeeper) readRecord() (record, error) {
	var r record
	b, err := k.site.Memory.Get(k.memoryKey())
	if err != nil {
		return r, fmt.Errorf("read the record of the process: %w", err)
	}
	if len(b) == 0 {
		return r, nil
	}
	if b[0] != processRecord {
		return r, fmt.Errorf("the record of the process has version %d, this program reads %d", b[0], processRecord)
	}
	if err := json.Unmarshal(b[1:], &r); err != nil {
		return record{}, fmt.Errorf("read the record of the process: %w", err)
	}
	return r, nil
}

// writeRecord is durable on return. The zero record is none.
func (k *processKeeper) writeRecord(r record) error {
	if r == (record{}) {
		return k.site.Memory.Put(k.memoryKey(), nil)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return k.site.Memory.Put(k.memoryKey(), append([]byte{processRecord}, b...))
}

// hash covers what a running process was started with, and nothing of how it is watched.
func (k *processKeeper) hash() string {
	h := sha256.New()
	for _, arg := range k.spec.Run {
		writeField(h, []byte(arg))
	}
	writeField(h, nil)
	for _, name := range sortedKeys(k.spec.Env) {
		writeField(h, []byte(name+"="+k.spec.Env[name]))
	}
	writeField(h, []byte("dir="+k.spec.Dir))
	writeField(h, []byte("user="+k.spec.User))
	return hex.EncodeToString(h.Sum(nil)[:16])
}
