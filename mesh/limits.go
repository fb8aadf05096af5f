package mesh

import "meshd/mesh/swarm"

// Limits are caps on what artifacts take of the links, by class of link.
type (
	Limits = swarm.Limits
	Limit  = swarm.Limit
)

// The classes of links, places in Limits.
const (
	AllLinks = swarm.All
	LANLinks = swarm.LAN // loopback, private and link-local addresses
	WANLinks = swarm.WAN
)

// MinLimit is the least cap (bytes a second).
const MinLimit = swarm.MinLimit

// SetLimits caps what artifacts take, from now on. Gossip, records and questions are not held up.
func (m *Mesh) SetLimits(l Limits) { m.swarm.SetLimits(l) }
