package ring

import (
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// settings is the configuration of serf and memberlist; notes on each deviation from their defaults.
func (r *Ring) settings(t *transport, events chan<- serf.Event) *serf.Config {
	logger := log.New(&logWriter{log: r.cfg.Log}, "", 0)

	m := memberlist.DefaultLANConfig()
	m.Transport = t
	m.Label = r.cfg.Label
	m.Alive = (*aliveDelegate)(r)
	m.Ping = (*pingDelegate)(r)
	m.EnableCompression = false // LZW took two thirds of the CPU and saved nothing at idle
	m.RequireNodeNames = true   // the transport routes by name
	m.UDPBufferSize = 1150      // with label and seal below link.MaxPacket
	m.TCPTimeout = 5 * time.Second
	m.PushPullInterval = statesEvery
	m.Logger = logger

	c := serf.DefaultConfig()
	c.NodeName = name(r.self)
	c.MemberlistConfig = m
	c.EventCh = events
	c.DisableCoordinates = true            // more than half of the idle bytes; RTT comes from acks
	c.EnableNameConflictResolution = false // else a cloned key makes the minority shut itself down
	c.ValidateNodeNames = true
	c.EventBuffer = 64 // sent whole with each exchange of states
	c.QueryBuffer = 64
	c.UserEventSizeLimit = 256
	c.MinQueueDepth = 1024
	// Leaving takes the two broadcasts and the time to pass them on: under a second in all.
	c.BroadcastTimeout = 250 * time.Millisecond
	c.LeavePropagateDelay = 400 * time.Millisecond
	c.Logger = logger
	return c
}

// statesEvery is how often two members compare whom they know, a stream and 8.5 kB each time. memberlist's 30 s
// were half of what an idle node sent; whom gossip did not reach is joined by mesh within seconds, by the
// peer book and the certificates.
const statesEvery = 5 * time.Minute

var errNoCert = errors.New("no certificate of it is known yet")

// An aliveDelegate decides who may be a member. memberlist calls it with its lock held.
type aliveDelegate Ring

// NotifyAlive refuses whoever is not a certified node at its own logical address. This node is always
// accepted: memberlist v0.7.0 panics in Leave where it was not.
func (d *aliveDelegate) NotifyAlive(peer *memberlist.Node) error {
	r := (*Ring)(d)
	n, err := parseName(peer.Name)
	if err != nil {
		return err
	}
	if n == r.self {
		return nil
	}
	if !peer.Addr.Equal(logicalIP(n)) || peer.Port != logicalPort {
		return fmt.Errorf("node %s is announced at %s, want %s", n.Short(), peer.Address(), address(n))
	}
	if r.known(n) {
		return nil
	}
	r.mu.Lock()
	if len(r.refused) < maxRefused {
		r.refused[n] = true
	}
	r.mu.Unlock()
	notify(r.refusal)
	return errNoCert
}

// A pingDelegate carries the catalog root in acks.
type pingDelegate Ring

func (d *pingDelegate) AckPayload() []byte {
	root := d.cfg.Root()
	return root[:]
}

// NotifyPingComplete is called for each ack over UDP, not for those over a stream, which carry no payload.
func (d *pingDelegate) NotifyPingComplete(peer *memberlist.Node, rtt time.Duration, payload []byte) {
	r := (*Ring)(d)
	n, err := parseName(peer.Name)
	if err != nil || len(payload) != 8 {
		return
	}
	root := [8]byte(payload)
	r.mu.Lock()
	h := r.heard[n]
	h.rtt, h.root = rtt, root
	r.heard[n] = h
	r.mu.Unlock()
	if r.cfg.OnRoot != nil {
		r.cfg.OnRoot(n, root)
	}
}
