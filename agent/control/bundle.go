package control

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// A BundleRequest says what a bundle is to carry: of the artifacts whose name matches one of Patterns (none: all) and
// whose fields are as Labels say (see Labels), the latest of each name and publisher, or with All every version; and the
// score. Held leaves out, instead of pulling, what this node has not got.
type BundleRequest struct {
	Patterns []string
	Labels   []string
	All      bool
	Held     bool
}

// A Bundle says what a bundle carries, and for an import what of it was new to the node.
type Bundle struct {
	Mesh         string   `json:"mesh"` // as meshctl version tells it
	Records      uint64   `json:"records"`
	RecordsNew   uint64   `json:"records_new"`
	RecordsLeft  uint64   `json:"records_left_out"` // their origins' certificates are unknown here
	Artifacts    []string `json:"artifacts"`        // NAME@VERSION, in the order of the bundle
	ArtifactsNew []string `json:"artifacts_new"`    // those whose bytes were not here
	Chunks       uint64   `json:"chunks"`
	SizeBytes    int64    `json:"size_bytes"` // of the file
}

// MarshalJSON keeps the promise of the other items.
func (b Bundle) MarshalJSON() ([]byte, error) {
	type plain Bundle
	b.Artifacts, b.ArtifactsNew = filled(b.Artifacts), filled(b.ArtifactsNew)
	return encode(plain(b))
}

// bundles adds the two ways of a bundle. Parameters are in the URL alone: the body is the bundle.
func (s *server) bundles(mux *http.ServeMux) {
	b := s.backend
	mux.HandleFunc("GET "+pathBundle, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			q := r.URL.Query()
			buf := bufio.NewWriterSize(out, maxDataBytes)
			item, err := b.ExportBundle(ctx, BundleRequest{
				Patterns: q["pattern"], Labels: q["label"], All: q.Get("all") == "true", Held: q.Get("held") == "true",
			}, buf, out.progress)
			if err != nil {
				return nil, err
			}
			return item, buf.Flush()
		})
	})
	mux.HandleFunc("POST "+pathBundle, func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, r, func(ctx context.Context, out *stream) (any, error) {
			size, err := strconv.ParseInt(r.URL.Query().Get("size_bytes"), 10, 64)
			if err != nil || size < 0 {
				return nil, Errorf(Usage, "size_bytes %q: want a number of bytes, 0 for not known", r.URL.Query().Get("size_bytes"))
			}
			return b.ImportBundle(ctx, r.Body, size, out.progress)
		})
	})
}

// ExportBundle writes the bundle to w. After an error w may have a part of it.
func (c *Client) ExportBundle(ctx context.Context, r BundleRequest, w io.Writer, progress func(Line)) (Bundle, error) {
	q := url.Values{"pattern": r.Patterns, "label": r.Labels, "all": {strconv.FormatBool(r.All)}, "held": {strconv.FormatBool(r.Held)}}
	return result[Bundle](c.stream(ctx, http.MethodGet, pathBundle, q, nil, func(l Line, raw io.Reader) error {
		if l.Type == LineData {
			_, err := io.Copy(w, raw)
			return err
		}
		return only(progress)(l, nil)
	}))
}

// ImportBundle sends the bundle, which it may leave half read when the daemon refuses it.
func (c *Client) ImportBundle(ctx context.Context, bundle io.Reader, sizeBytes int64, progress func(Line)) (Bundle, error) {
	q := url.Values{"size_bytes": {strconv.FormatInt(sizeBytes, 10)}}
	return result[Bundle](c.stream(ctx, http.MethodPost, pathBundle, q, bundle, only(progress)))
}

var _ json.Marshaler = Bundle{}
