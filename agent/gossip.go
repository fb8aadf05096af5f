package agent

import (
	"strings"
	"sync"

	"github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// gossipNames are the metrics of serf and memberlist that are told, under names of our own. Keys that they
// make from what peers send (event and query names) are not in it, and so are dropped.
var gossipNames = map[string]meter{
	"serf.member.join":          counter("gossip_member_joins_total", "Members that serf saw come."),
	"serf.member.left":          counter("gossip_member_leaves_total", "Members that serf saw leave."),
	"serf.member.failed":        counter("gossip_member_failures_total", "Members that serf saw fail."),
	"serf.member.flap":          counter("gossip_member_flaps_total", "Members that serf saw come back soon after they failed."),
	"serf.member.update":        counter("gossip_member_updates_total", "Changes of members' tags that serf saw."),
	"serf.events":               counter("gossip_events_total", "User events that serf heard."),
	"serf.msgs.received":        counter("gossip_received_bytes_total", "Bytes of serf's messages that came."),
	"serf.msgs.sent":            counter("gossip_sent_bytes_total", "Bytes of serf's messages that went out."),
	"memberlist.udp.sent":       counter("gossip_packet_sent_bytes_total", "Bytes that memberlist sent in packets."),
	"memberlist.tcp.sent":       counter("gossip_stream_sent_bytes_total", "Bytes that memberlist sent over streams."),
	"memberlist.tcp.accept":     counter("gossip_streams_accepted_total", "Streams that memberlist took."),
	"memberlist.tcp.connect":    counter("gossip_streams_opened_total", "Streams that memberlist opened."),
	"memberlist.degraded.probe": counter("gossip_degraded_probes_total", "Probes that memberlist made while it thought itself slow."),
	"memberlist.msg.alive":      counter("gossip_alive_messages_total", "Alive messages that memberlist took."),
	"memberlist.msg.suspect":    counter("gossip_suspect_messages_total", "Suspect messages that memberlist took."),
	"memberlist.msg.dead":       counter("gossip_dead_messages_total", "Dead messages that memberlist took."),
	"memberlist.health.score":   gauge("gossip_health_score", "How slow memberlist thinks this node is; 0 is healthy."),
}

// A gossipSink takes the metrics of serf and memberlist, as their library hands them out, and keeps those of
// gossipNames. It never blocks for longer than an addition.
type gossipSink struct {
	mu     sync.Mutex
	values map[string]float64
}

var (
	_ metrics.MetricSink   = (*gossipSink)(nil)
	_ prometheus.Collector = (*gossipSink)(nil)
)

func newGossipSink() *gossipSink {
	s := &gossipSink{values: make(map[string]float64, len(gossipNames))}
	for key := range gossipNames {
		s.values[key] = 0
	}
	return s
}

// TakeGossip has the metrics of serf and memberlist of this process go to this node's registry. The library
// has one place for all of a process: where several nodes share one, the last call wins. Call it before Run.
func (m *Metrics) TakeGossip() error {
	_, err := metrics.NewGlobal(&metrics.Config{FilterDefault: true}, m.gossip)
	return err
}

func (s *gossipSink) add(key []string, v float32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.Join(key, ".")
	if _, told := s.values[name]; told {
		s.values[name] += float64(v)
	}
}

func (s *gossipSink) set(key []string, v float32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.Join(key, ".")
	if _, told := s.values[name]; told {
		s.values[name] = float64(v)
	}
}

func (s *gossipSink) SetGauge(key []string, v float32) { s.set(key, v) }

func (s *gossipSink) SetGaugeWithLabels(key []string, v float32, _ []metrics.Label) { s.set(key, v) }
func (s *gossipSink) EmitKey([]string, float32)                                     {}
func (s *gossipSink) IncrCounter(key []string, v float32)                           { s.add(key, v) }

func (s *gossipSink) IncrCounterWithLabels(key []string, v float32, _ []metrics.Label) { s.add(key, v) }

func (s *gossipSink) AddSample(key []string, v float32) { s.add(key, v) }

func (s *gossipSink) AddSampleWithLabels(key []string, v float32, _ []metrics.Label) { s.add(key, v) }

// Describe leaves the metrics unchecked.
func (s *gossipSink) Describe(chan<- *prometheus.Desc) {}

// Collect tells all of gossipNames, those that did not happen yet as 0.
func (s *gossipSink) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, m := range gossipNames {
		out <- m.is(s.values[key])
	}
}
