package control

import "encoding/json"

// The types of a Line.
const (
	LineProgress = "progress" // DoneBytes of TotalBytes (0: not known)
	LineItem     = "item"     // one Item of a stream without end
	LineData     = "data"     // DataBytes raw bytes follow the line's end
	LineAlive    = "alive"    // nothing new, still there
	LineResult   = "result"   // the last line: it worked, Item is what came of it
	LineError    = "error"    // the last line: it did not
)

// A Line is one line of an answer that takes time (newline-delimited JSON).
type Line struct {
	Type       string `json:"type"`
	DoneBytes  int64  `json:"done_bytes,omitempty"`
	TotalBytes int64  `json:"total_bytes,omitempty"`
	DataBytes  int64  `json:"data_bytes,omitempty"`
	// How it goes, where it is known: bytes a second of late, and from (or, of a publish, to) how many nodes.
	BytesPerSecond float64         `json:"bytes_per_second,omitempty"`
	Nodes          int             `json:"nodes,omitempty"`
	Item           json.RawMessage `json:"item,omitempty"`
	Error          string          `json:"error,omitempty"`
	Code           Code            `json:"code,omitempty"` // with Error
}
