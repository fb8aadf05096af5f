package agent

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meshd/mesh"
	"meshd/policies"
)

// Metrics is what a node tells Prometheus: one registry a node, no global one. No label takes a value that
// a peer, a score or an operator makes up.
type Metrics struct {
	registry *prometheus.Registry
	gossip   *gossipSink
}

// Metrics makes the registry of this node. Call it once.
func (a *Agent) Metrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), gossip: newGossipSink()}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.gossip, nodeCollector{a},
	)
	return m
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes})
}

const maxScrapes = 4 // at once

// A meter is one metric: how it is described, and what it is now.
type meter struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) meter {
	return meter{prometheus.NewDesc("meshd_"+name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) meter {
	return meter{prometheus.NewDesc("meshd_"+name, help, labels, nil), prometheus.GaugeValue}
}

func (m meter) is(value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// meters are all metrics of a node besides those of Go, the process and the gossip.
type meters struct {
	info, members, sessions                                                       meter
	promises, looks, repairs, failures, commands                                  meter
	published, publishedBytes, pulledBytes, servedBytes, sparedBytes, wastedBytes meter
	packTime, packSpent                                                           meter
	records, logs, forks, appended, merged                                        meter
	refused, scoresRefused, packets, linkBytes, storeBytes, journal, up           meter
}

func newMeters() meters {
	return meters{
		info:           gauge("build_info", "What runs; always 1.", "version", "platform"),
		up:             gauge("score_in_force", "1 while a score is in force on this node, else 0."),
		members:        gauge("members", "Nodes known here, this one included, by status.", "status"),
		sessions:       gauge("sessions", "Open sync sessions with other nodes."),
		promises:       gauge("promises", "Promises of this node by outcome.", "outcome"),
		looks:          counter("promise_looks_total", "Looks at promises, by promise type.", "type"),
		repairs:        counter("repairs_total", "Repairs made, by promise type.", "type"),
		failures:       counter("promise_failures_total", "Looks that ended in failed, by promise type.", "type"),
		commands:       counter("commands_run_total", "Programs run to their end: commands, checks and facts."),
		published:      counter("artifacts_published_total", "Artifacts this node offered."),
		publishedBytes: counter("artifacts_published_bytes_total", "Bytes of the artifacts this node offered."),
		pulledBytes:    counter("artifacts_pulled_bytes_total", "Bytes of artifacts fetched from other nodes and verified."),
		servedBytes:    counter("artifacts_served_bytes_total", "Bytes of artifacts sent to other nodes, before they were compressed."),
		sparedBytes:    counter("artifacts_spared_bytes_total", "Bytes of those that compressing kept off the links."),
		packTime:       counter("artifacts_compress_seconds_total", "Time that compressing artifacts took, and finding out whether it pays."),
		packSpent:      counter("artifacts_compress_spent_total", "Answers sent uncompressed because the time for that, an eighth of a core a peer and a quarter in all, was spent."),
		wastedBytes:    counter("artifacts_wasted_bytes_total", "Bytes of artifacts received in vain: twice, too late or false."),
		records:        gauge("catalog_records", "Live records in the catalog."),
		logs:           gauge("catalog_logs", "Logs in the catalog."),
		forks:          gauge("catalog_forks", "Logs known to be forked: a restored backup, a cloned disk."),
		appended:       counter("catalog_appended_total", "Own records written to the catalog."),
		merged:         counter("catalog_merged_total", "Records learnt from other nodes."),
		refused:        counter("refused_total", "What came from outside and was refused, by reason.", "reason"),
		scoresRefused:  counter("scores_refused_total", "Newer scores that were refused."),
		packets:        counter("link_packets_total", "Sealed packets that were taken (in) or sent (out).", "direction"),
		linkBytes:      counter("link_packet_bytes_total", "Bytes of sealed packets that were taken (in) or sent (out).", "direction"),
		storeBytes:     gauge("store_bytes", "Bytes of this node's store on disk, by part (packs or state).", "part"),
		journal:        gauge("journal_records", "Records in the journal."),
	}
}

var all = newMeters()

// A nodeCollector reads the node when it is scraped. Nothing is counted for nobody.
type nodeCollector struct{ a *Agent }

// Describe leaves the metrics unchecked: which labels appear depends on the score.
func (c nodeCollector) Describe(chan<- *prometheus.Desc) {}

func (c nodeCollector) Collect(out chan<- prometheus.Metric) {
	c.promises(out)
	s := c.a.mesh.Stats()
	c.mesh(out, s)
	for reason, n := range refusals(s) {
		out <- all.refused.is(float64(n), reason)
	}
	out <- all.refused.is(float64(c.a.tally.bundlesRefused.Load()), "bundle")
	out <- all.info.is(1, c.a.cfg.Version, runtime.GOOS+"/"+runtime.GOARCH)
	out <- all.journal.is(float64(c.a.journal.size()))
	if packs, state, err := c.a.store.SizeBytes(); err == nil { // else it was closed: the node stops
		out <- all.storeBytes.is(float64(packs), "packs")
		out <- all.storeBytes.is(float64(state), "state")
	}
}

func (c nodeCollector) promises(out chan<- prometheus.Metric) {
	kinds, outcomes := c.a.tally.read()
	for _, o := range []policies.Outcome{policies.Kept, policies.Repaired, policies.Failed, policies.Waiting, policies.Drifted} {
		out <- all.promises.is(float64(outcomes[o]), o.String())
	}
	out <- all.promises.is(float64(outcomes[policies.Unknown]), "unknown")
	for kind, k := range kinds {
		out <- all.looks.is(float64(k.looks), kind)
		out <- all.repairs.is(float64(k.repairs), kind)
		out <- all.failures.is(float64(k.failures), kind)
	}
	if h, ok := c.a.cfg.Host.(interface{ Ran() int64 }); ok {
		out <- all.commands.is(float64(h.Ran()))
	}
	out <- all.published.is(float64(c.a.tally.published.Load()))
	out <- all.publishedBytes.is(float64(c.a.tally.publishedBytes.Load()))
	out <- all.scoresRefused.is(float64(c.a.tally.scoresRefused.Load()))
	inForce := 0.0
	if v := c.a.view.Load(); v != nil && v.program != nil {
		inForce = 1
	}
	out <- all.up.is(inForce)
}

func (c nodeCollector) mesh(out chan<- prometheus.Metric, s mesh.Stats) {
	for status, n := range s.Members {
		out <- all.members.is(float64(n), status)
	}
	out <- all.sessions.is(float64(s.Sessions))
	out <- all.pulledBytes.is(float64(s.Swarm.PulledBytes))
	out <- all.servedBytes.is(float64(s.Swarm.ServedBytes))
	out <- all.sparedBytes.is(float64(s.Swarm.SparedBytes))
	out <- all.packTime.is(s.Swarm.PackTime.Seconds())
	out <- all.packSpent.is(float64(s.Swarm.PackSpent))
	out <- all.wastedBytes.is(float64(s.Swarm.WastedBytes))
	out <- all.records.is(float64(s.Catalog.Records))
	out <- all.logs.is(float64(s.Catalog.Logs))
	out <- all.forks.is(float64(s.Catalog.Forks))
	out <- all.appended.is(float64(s.Catalog.Appended))
	out <- all.merged.is(float64(s.Catalog.Merged))
	out <- all.packets.is(float64(s.Link.PacketsIn), "in")
	out <- all.packets.is(float64(s.Link.PacketsOut), "out")
	out <- all.linkBytes.is(float64(s.Link.BytesIn), "in")
	out <- all.linkBytes.is(float64(s.Link.BytesOut), "out")
}

// refusals names every reason for which something from outside is refused.
func refusals(s mesh.Stats) map[string]int64 {
	return map[string]int64{
		"packet_malformed": s.Link.PacketsMalformed, "packet_unknown_sender": s.Link.PacketsUnknown,
		"packet_forged": s.Link.PacketsForged, "packet_replayed": s.Link.PacketsReplayed, "packet_unheard": s.Link.PacketsUnheard,
		"stream_over_cap": s.Link.StreamsRefused, "stream_handshake": s.Link.StreamsFailed,
		"catalog_session": int64(s.Catalog.Refused), "lease": int64(s.LeasesRefused), "catalog_incomplete": int64(s.Catalog.Incomplete),
		"swarm_false_chunk": s.Swarm.Lies, "swarm_protocol": s.Swarm.Violations, "swarm_foreign_chunk": s.Swarm.Foreign,
	}
}
