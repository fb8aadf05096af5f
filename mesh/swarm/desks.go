package swarm

import (
	"slices"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	maxDesks   = 16   // artifacts handed out at once; of more, the one asked for longest ago is sent to whoever asks
	maxFetched = 1024 // artifacts remembered as fetched, not handed out from here
)

// desks are the artifacts that this node had whole when others began to want them. Its methods may be
// called from many goroutines; none of them waits.
type desks struct {
	mu      sync.Mutex
	open    map[artifact.Digest]*openDesk
	fetched map[artifact.Digest]bool // came here by a pull: who gave it away hands it out
}

type openDesk struct {
	*desk
	m       *manifest
	streams map[id.Node][]*session
	used    time.Time
}

// fetch notes that the artifact came here, or begins to, by a pull.
func (k *desks) fetch(root artifact.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fetched == nil || len(k.fetched) >= maxFetched {
		k.fetched = map[artifact.Digest]bool{}
	}
	k.fetched[root] = true
}

// tell notes what the peer at the far end of x has of an artifact that is whole here, and says what it is to be
// told: whether to ask for shares, and who else fetches it.
func (k *desks) tell(x *session, m *manifest, has bitset, now time.Time) (shy bool, others []byte) {
	var news []notice
	shy, others, news = k.note(x, m, has, now)
	for _, n := range news {
		_ = n.to.reply(kindTell, &n.tell) // a stream that takes no more frames ends by itself
	}
	return shy, others
}

// A notice is to be sent when no lock is held.
type notice struct {
	to   *session
	tell tell
}

func (k *desks) note(x *session, m *manifest, has bitset, now time.Time) (shy bool, others []byte, news []notice) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fetched[m.root] || !m.swarms() {
		return false, nil, nil
	}
	d := k.open[m.root]
	if d == nil {
		d = k.begin(m)
	}
	d.used = now
	alone := d.others(id.Node{}) < 2
	d.tell(x.peer, has, now)
	if !slices.Contains(d.streams[x.peer], x) {
		d.streams[x.peer] = append(d.streams[x.peer], x)
	}
	if alone && d.others(id.Node{}) > 1 {
		news = d.announce(x)
	}
	d.kick()
	return d.others(x.peer) > 0, d.company(x.peer), news
}

// begin makes a desk, in place of the one used longest ago if there are too many.
func (k *desks) begin(m *manifest) *openDesk {
	if k.open == nil {
		k.open = map[artifact.Digest]*openDesk{}
	}
	if len(k.open) >= maxDesks {
		var oldest *openDesk
		for _, o := range k.open {
			if oldest == nil || o.used.Before(oldest.used) {
				oldest = o
			}
		}
		delete(k.open, oldest.m.root)
		oldest.kick()
	}
	d := &openDesk{desk: newDesk(m.root, m.chunks), m: m, streams: map[id.Node][]*session{}}
	k.open[m.root] = d
	return d
}

// announce is what the wanters but the one at the far end of x are to be told: that they are not alone.
func (d *openDesk) announce(x *session) (news []notice) {
	for n, of := range d.streams {
		if n != x.peer {
			news = append(news, notice{of[len(of)-1], tell{Root: d.m.root, All: true, Shy: true, Others: d.company(n)}})
		}
	}
	return news
}

// company is some who want the artifact besides n.
func (d *openDesk) company(n id.Node) []byte {
	var others []id.Node
	for o := range d.wanters {
		if o != n {
			others = append(others, o)
		}
	}
	others = id.Rank(n[:], others)
	var out []byte
	for _, o := range others[:min(len(others), maxOthers)] {
		out = append(out, o[:]...)
	}
	return out
}

// kick lets all streams look again at the shares that wait.
func (d *openDesk) kick() {
	for _, of := range d.streams {
		for _, x := range of {
			x.wakeWriter()
		}
	}
}

// more notes what a wanter has got since; false if its list does not fit the artifact.
func (k *desks) more(n id.Node, root artifact.Digest, list []byte, now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.open[root]
	if d == nil || d.wanters[n] == nil {
		return nil
	}
	chunks, err := parseRuns(list, len(d.chunks))
	if err != nil {
		return err
	}
	d.used = now
	if d.more(n, chunks, now) {
		d.kick()
	}
	return nil
}

// bye notes that a node no longer wants the artifact.
func (k *desks) bye(n id.Node, root artifact.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.open[root]; d != nil {
		delete(d.streams, n)
		d.leave(n)
		d.kick()
	}
}

// gone notes that a stream ended.
func (k *desks) gone(x *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for root, d := range k.open {
		of, ok := d.streams[x.peer]
		if !ok {
			continue
		}
		of = slices.DeleteFunc(of, func(o *session) bool { return o == x })
		if len(of) > 0 {
			d.streams[x.peer] = of
			continue
		}
		delete(d.streams, x.peer)
		d.leave(x.peer)
		d.kick()
		if len(d.streams) == 0 {
			delete(k.open, root)
		}
	}
}

// give chooses what the answer to a share is. open is false if the artifact is not handed out here; no chunks
// mean that the share has to wait.
func (k *desks) give(n id.Node, j *job, now time.Time) (chunks []int, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.open[j.root]
	if d == nil || d.wanters[n] == nil {
		return nil, false
	}
	d.used = now
	e, ok := d.give(n, int(j.part), int(j.parts), now)
	if !ok {
		return nil, true
	}
	w := d.wanters[n]
	for c := d.cut[e]; c < d.cut[e+1]; c++ {
		if !w.has.has(c) {
			chunks = append(chunks, c)
		}
	}
	return chunks, true
}

// sent notes that what was given is written.
func (k *desks) sent(n id.Node, root artifact.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.open[root]; d != nil {
		d.desk.sent(n)
		d.kick()
	}
}

// elsewhere says who a want by name is to be made to instead.
func (k *desks) elsewhere(n id.Node, m *manifest, chunk int, now time.Time) (at id.Node, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.open[m.root]; d != nil && d.wanters[n] != nil {
		d.used = now
		return d.elsewhere(n, chunk, now)
	}
	return at, false
}
