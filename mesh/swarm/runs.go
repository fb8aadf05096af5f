package swarm

import (
	"encoding/binary"
	"fmt"

	"meshd/mesh/wire"
)

// maxRuns is how many runs one message may list.
const maxRuns = 4096

// A run is the chunks from to to-1 of an artifact, in the order of its manifest.
type run struct{ from, to int }

// runs ascend and do not touch.
type runs []run

// runsOf lists the members of ascending indices.
func runsOf(chunks []int) runs {
	var out runs
	for _, c := range chunks {
		if n := len(out); n > 0 && out[n-1].to == c {
			out[n-1].to++
			continue
		}
		out = append(out, run{c, c + 1})
	}
	return out
}

// indices lists what is in the runs.
func (r runs) indices() []int {
	var out []int
	for _, x := range r {
		for c := x.from; c < x.to; c++ {
			out = append(out, c)
		}
	}
	return out
}

// bytes is the wire form: for each run two varints, the chunks left out before it and its length.
func (r runs) bytes() []byte {
	var out []byte
	at := 0
	for _, x := range r {
		out = binary.AppendUvarint(out, uint64(x.from-at))
		out = binary.AppendUvarint(out, uint64(x.to-x.from))
		at = x.to
	}
	return out
}

// parseRuns reads the wire form of runs of chunks below n.
func parseRuns(in []byte, n int) (runs, error) {
	var out runs
	at := 0
	for len(in) > 0 {
		skip, a := binary.Uvarint(in)
		length, b := binary.Uvarint(in[max(a, 0):])
		if a <= 0 || b <= 0 || length == 0 || len(out) > 0 && skip == 0 {
			return nil, fmt.Errorf("runs of chunks: %w", wire.ErrMalformed)
		}
		if skip > uint64(n-at) || length > uint64(n-at)-skip {
			return nil, &wire.LimitError{What: "chunk named of an artifact", Limit: n, Got: at + int(min(skip, 1<<30)) + int(min(length, 1<<30))}
		}
		if len(out) >= maxRuns {
			return nil, &wire.LimitError{What: "runs of chunks", Limit: maxRuns, Got: len(out) + 1}
		}
		from := at + int(skip)
		at = from + int(length)
		out = append(out, run{from, at})
		in = in[a+b:]
	}
	return out, nil
}
