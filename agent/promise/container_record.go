package promise

import (
	"context"
	"encoding/json"
	"fmt"

	"meshd/policies"
)

// A containerRecord is what Memory holds under ADDRESS 0x00 "container": version byte 1, then this as
// JSON. It says in which engine the guest was started last.
type containerRecord struct {
	Kind    string `json:"kind,omitempty"`
	Restart bool   `json:"restart,omitempty"`
}

const containerRecordV1 = 1

func containerKey(a policies.Address) string { return string(a) + "\x00container" }

func (k *containerKeeper) readRecord() (containerRecord, error) {
	return readContainer(k.site.Memory, k.address)
}

func readContainer(m Memory, a policies.Address) (containerRecord, error) {
	var r containerRecord
	b, err := m.Get(containerKey(a))
	if err != nil {
		return r, fmt.Errorf("read the record of the container: %w", err)
	}
	if len(b) == 0 {
		return r, nil
	}
	if b[0] != containerRecordV1 {
		return r, fmt.Errorf("the record of the container has version %d, this program reads %d", b[0], containerRecordV1)
	}
	if err := json.Unmarshal(b[1:], &r); err != nil {
		return containerRecord{}, fmt.Errorf("read the record of the container: %w", err)
	}
	return r, nil
}

// writeRecord is durable on return; the zero record is none. What is so already is not written again.
func (k *containerKeeper) writeRecord(r containerRecord) error {
	if was, err := k.readRecord(); err == nil && was == r {
		return nil
	}
	if r == (containerRecord{}) {
		return k.site.Memory.Put(containerKey(k.address), nil)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return k.site.Memory.Put(containerKey(k.address), append([]byte{containerRecordV1}, b...))
}

// succeed stops what an earlier promise of this address, of another kind, left running for this one: the
// same node must not run twice.
func (k *containerKeeper) succeed(ctx context.Context) error {
	rec, err := k.readRecord()
	if err != nil || rec.Kind == k.spec.Kind {
		return err
	}
	if rec.Kind != "" {
		return stopContainer(ctx, policies.Promise{Address: k.address}, k.spec, rec.Kind, k.site)
	}
	former := k.spec
	former.Kind = "process"
	g, err := newGuest(policies.Promise{Address: k.address}, former, k.site)
	if err != nil {
		return err
	}
	if err := g.End(ctx, false); err != nil {
		return fmt.Errorf("stop the process that this container takes over from: %w", err)
	}
	return nil
}

// stopContainer stops the guest of that kind and forgets it.
func stopContainer(ctx context.Context, p policies.Promise, g policies.Guest, kind string, s Site) error {
	g.Kind, g.Mounts = kind, nil
	k, err := newContainer(p, g, s)
	if err != nil {
		return err
	}
	if err := k.End(ctx, false); err != nil {
		return fmt.Errorf("stop the container that was promised before: %w", err)
	}
	return k.writeRecord(containerRecord{})
}
