package control

import "time"

// The items below encode themselves so that every program sees one shape: lists and maps never null, times RFC 3339 in
// UTC. A time that is not known is left out.

// A Member is one node as this node sees it.
type Member struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Status     string            `json:"status"` // alive, suspect, left, failed, asleep
	Kind       string            `json:"kind"`   // member, leaf
	Self       bool              `json:"self"`
	Address    string            `json:"address"` // HOST:PORT
	Tags       map[string]string `json:"tags"`
	Roles      []string          `json:"roles"`
	RTTSeconds float64           `json:"rtt_seconds"` // 0: not measured
	Promises   Counts            `json:"promises"`
	Score      string            `json:"score"`
	Version    string            `json:"version"`
	Platform   string            `json:"platform"` // os/arch
	LastSeen   time.Time         `json:"last_seen,omitzero"`
	Forked     bool              `json:"forked,omitzero"` // its key is in two places, or its disk went back in time

	// Of nodes that are away alone; Score, Promises and Roles are their last word.
	AbsentSince  time.Time `json:"absent_since,omitzero"`
	Placed       []Input   `json:"placed"`  // what they had in place of what they want
	Waiting      []Waiting `json:"waiting"` // what is newer than that, or wanted and not there yet
	WaitingBytes int64     `json:"waiting_bytes"`
}

// A Waiting is an artifact that waits for a node to come back.
type Waiting struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Hash      string `json:"hash"`
	SizeBytes int64  `json:"size_bytes"`
}

// Counts says how many promises of a node have each outcome.
type Counts struct {
	Kept     int `json:"kept"`
	Repaired int `json:"repaired"`
	Failed   int `json:"failed"`
	Waiting  int `json:"waiting"`
	Drifted  int `json:"drifted"`
}

// An Artifact is one version that a node offers.
type Artifact struct {
	Name        string    `json:"name"`
	Version     string    `json:"version"` // the semver, or else the counter
	Counter     uint64    `json:"counter"`
	Hash        string    `json:"hash"` // of the content alone: equal content, equal hash
	SizeBytes   int64     `json:"size_bytes"`
	Publisher   string    `json:"publisher"`
	PublisherID string    `json:"publisher_id"`
	PublishedAt time.Time `json:"published_at,omitzero"`
	Holders     []string  `json:"holders"`        // names of the nodes known to have all its bytes
	Wanted      []string  `json:"wanted"`         // names of the nodes that want it
	Local       bool      `json:"local"`          // this node has all its bytes
	Of          []Input   `json:"of"`             // what it was made from
	Pull        *Pull     `json:"pull,omitempty"` // this node is fetching it
}

// A Pull is how far this node has come with fetching an artifact.
type Pull struct {
	DoneBytes      int64   `json:"done_bytes"`
	TotalBytes     int64   `json:"total_bytes"` // 0: not known yet
	BytesPerSecond float64 `json:"bytes_per_second"`
	Nodes          int     `json:"nodes"` // that are asked for it
}

// An Input is a version that an artifact was made from.
type Input struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
}

// A Promise is one promise of a node and how it stands.
type Promise struct {
	Node      string    `json:"node"`
	Address   string    `json:"address"`
	Type      string    `json:"type"`
	Outcome   string    `json:"outcome"` // kept, repaired, failed, waiting, drifted; unknown before the first look
	Reason    string    `json:"reason"`
	Why       string    `json:"why"` // of the score
	Since     time.Time `json:"since,omitzero"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
	Repairs   int       `json:"repairs"`
}

// A Role is one role of the score, as this node holds it or not.
type Role struct {
	Name    string   `json:"name"`
	Held    bool     `json:"held"`
	Unknown bool     `json:"unknown"` // hangs on a fact not yet gathered
	Why     string   `json:"why"`
	Because []string `json:"because"`
}

// A StoryItem is one thing that happened, and the id of the item that caused it.
type StoryItem struct {
	ID      string    `json:"id"` // unique in the mesh
	At      time.Time `json:"at,omitzero"`
	Node    string    `json:"node"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"` // a promise, an artifact, a node
	Outcome string    `json:"outcome"`
	Text    string    `json:"text"`
	Cause   string    `json:"cause"` // "" where the chain begins
}

// A Score is what a node plays, or the newer one it refused.
type Score struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Hash    string            `json:"hash"`
	Why     string            `json:"why"`
	Files   map[string]string `json:"files"` // by path in the folder
	Since   time.Time         `json:"since,omitzero"`
	State   string            `json:"state"`   // in force, refused, none
	Problem string            `json:"problem"` // why it, or a newer one, was refused
}

// A Change is one role or promise of a node that another score would have different.
type Change struct {
	Kind    string `json:"kind"`   // role, promise
	Change  string `json:"change"` // added, removed, changed
	Name    string `json:"name"`   // of the role, or the address of the promise
	Why     string `json:"why"`
	Problem string `json:"problem"` // why the promise could not be played now; "" if it could
}

// A Trouble is one thing that is wrong with a node.
type Trouble struct {
	Level   string `json:"level"` // problem: something does not work; warning: it will not, or others have to see to it
	Check   string `json:"check"` // which of the doctor's looks found it
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Advice  string `json:"advice"` // what to do
}

// The levels of a Trouble.
const (
	LevelProblem = "problem"
	LevelWarning = "warning"
)

// Tags are what a node says of itself.
type Tags struct {
	Tags map[string]string `json:"tags"`
}

// A Version says which program answers.
type Version struct {
	Program  string `json:"program"` // meshd, meshctl
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	PID      int    `json:"pid"`
	Node     string `json:"node"` // the rest is empty for meshctl
	NodeID   string `json:"node_id"`
	Mesh     string `json:"mesh"`
}

// An InviteRequest says whom a token may admit.
type InviteRequest struct {
	Name       string            `json:"name"`    // "": any name
	Replace    bool              `json:"replace"` // revoke the key that holds Name now
	Tags       map[string]string `json:"tags"`    // attested in the certificate
	TTLSeconds int64             `json:"ttl_seconds"`
	Uses       int               `json:"uses"`
}

// MarshalJSON keeps the promise made above.
func (m Member) MarshalJSON() ([]byte, error) {
	type plain Member
	m.Tags, m.Roles, m.LastSeen = filledMap(m.Tags), filled(m.Roles), m.LastSeen.UTC()
	m.Placed, m.Waiting, m.AbsentSince = filled(m.Placed), filled(m.Waiting), m.AbsentSince.UTC()
	return encode(plain(m))
}

// MarshalJSON keeps the promise made above.
func (a Artifact) MarshalJSON() ([]byte, error) {
	type plain Artifact
	a.Holders, a.Wanted, a.Of, a.PublishedAt = filled(a.Holders), filled(a.Wanted), filled(a.Of), a.PublishedAt.UTC()
	return encode(plain(a))
}

// MarshalJSON keeps the promise made above.
func (p Promise) MarshalJSON() ([]byte, error) {
	type plain Promise
	p.Since, p.CheckedAt = p.Since.UTC(), p.CheckedAt.UTC()
	return encode(plain(p))
}

// MarshalJSON keeps the promise made above.
func (r Role) MarshalJSON() ([]byte, error) {
	type plain Role
	r.Because = filled(r.Because)
	return encode(plain(r))
}

// MarshalJSON keeps the promise made above.
func (s StoryItem) MarshalJSON() ([]byte, error) {
	type plain StoryItem
	s.At = s.At.UTC()
	return encode(plain(s))
}

// MarshalJSON keeps the promise made above.
func (s Score) MarshalJSON() ([]byte, error) {
	type plain Score
	s.Files, s.Since = filledMap(s.Files), s.Since.UTC()
	return encode(plain(s))
}

// MarshalJSON keeps the promise made above.
func (t Tags) MarshalJSON() ([]byte, error) {
	type plain Tags
	t.Tags = filledMap(t.Tags)
	return encode(plain(t))
}

func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func filledMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
