package catalog

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"meshd/mesh/wire"
	"meshd/store/artifact"

	"github.com/google/go-cmp/cmp"
)

// signed makes a record by hand, so that it may be wrong.
func signed(tb testing.TB, key ed25519.PrivateKey, r Record) []byte {
	tb.Helper()
	core := must(r.core())(tb)
	r.Sig = [64]byte(ed25519.Sign(key, toSign(core, r.Live)))
	return must(r.Encode())(tb)
}

func TestDecodeRecord(t *testing.T) {
	self := newWorld(t, 1).ids[0]
	good := Record{
		Log: LogID{self.ID(), 7, ScopeMain}, Seq: 1, Live: artifact.Sum(nil), Kind: KindArtifact, Name: "app/x",
		Body: offer(t, 1, "x"), At: epochStart,
	}
	tests := []struct {
		name string
		edit func(*Record)
		want error // nil, ErrMalformed, artifact.ErrMalformed or errLimit
	}{
		{"good", func(*Record) {}, nil},
		{"a kind of tomorrow", func(r *Record) { r.Kind = 99 }, nil},
		{"seq 0", func(r *Record) { r.Seq = 0 }, ErrMalformed},
		{"epoch 0", func(r *Record) { r.Log.Epoch = 0 }, ErrMalformed},
		{"kind 0", func(r *Record) { r.Kind = 0 }, ErrMalformed},
		{"no scope", func(r *Record) { r.Log.Scope = "rest" }, ErrMalformed},
		{"the other scope", func(r *Record) { r.Log.Scope = ScopeNodes }, ErrMalformed},
		{"live of an unknown algorithm", func(r *Record) { r.Live[0] = 2 }, ErrMalformed},
		{"before 1970", func(r *Record) { r.At = epochStart.AddDate(-100, 0, 0) }, ErrMalformed},
		{"a name that leaves", func(r *Record) { r.Name = "../x" }, artifact.ErrMalformed},
		{"a control character", func(r *Record) { r.Kind, r.Name = KindPlaced, "a\x1b[2J" }, ErrMalformed},
		{"a named certificate", func(r *Record) { r.Kind, r.Log.Scope = KindCert, ScopeNodes }, ErrMalformed},
		{"a long name", func(r *Record) { r.Kind, r.Name = KindPlaced, strings.Repeat("n", 201) }, errLimit},
		{"1,025 bytes", func(r *Record) { r.Kind, r.Body = KindPlaced, bytes.Repeat([]byte{1}, 1000) }, errLimit},
		{"no artifact", func(r *Record) { r.Body = nil }, wire.ErrMalformed},
		{"keep 0", func(r *Record) {
			r.Body = must(EncodeArtifact(ArtifactBody{Counter: 1, Root: r.Live, Tree: r.Live}))(t)
		}, errLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.edit(&r)
			b := signed(t, self.Key, r)
			got, err := DecodeRecord(b)
			var limit *wire.LimitError
			if tt.want == errLimit && !errors.As(err, &limit) || tt.want != errLimit && !errors.Is(err, tt.want) {
				t.Fatalf("DecodeRecord = %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			r.Sig = got.Sig
			if diff := cmp.Diff(r, got); diff != "" {
				t.Errorf("decoded record differs (-want +got):\n%s", diff)
			}
			if err := got.Verify(self.Public()); err != nil {
				t.Error(err)
			}
		})
	}
}

var errLimit = errors.New("a limit")

func TestVerifyCoversEveryField(t *testing.T) {
	w := newWorld(t, 2)
	self := w.ids[0]
	good := must(DecodeRecord(signed(t, self.Key, Record{
		Log: LogID{self.ID(), 7, ScopeMain}, Seq: 3, Live: artifact.Sum(nil), Kind: KindPlaced, Name: "x", At: epochStart,
	})))(t)
	if err := good.Verify(self.Public()); err != nil {
		t.Fatal(err)
	}
	if err := good.Verify(w.ids[1].Public()); err == nil {
		t.Error("another's key verifies")
	}
	for name, edit := range map[string]func(*Record){
		"epoch": func(r *Record) { r.Log.Epoch++ },
		"scope": func(r *Record) { r.Log.Scope = ScopeNodes },
		"seq":   func(r *Record) { r.Seq++ },
		"live":  func(r *Record) { r.Live[5]++ },
		"kind":  func(r *Record) { r.Kind = 98 },
		"name":  func(r *Record) { r.Name = "y" },
		"body":  func(r *Record) { r.Body = []byte{1} },
		"time":  func(r *Record) { r.At = r.At.Add(1e6) },
		"sig":   func(r *Record) { r.Sig[3]++ },
	} {
		r := good
		edit(&r)
		if err := r.Verify(self.Public()); err == nil {
			t.Errorf("a record with another %s verifies", name)
		}
	}
}

func TestBodiesRoundTrip(t *testing.T) {
	d := artifact.Sum([]byte("x"))
	status := StatusBody{
		Addrs: []string{"10.0.0.1:6374"}, Name: "n", Tags: map[string]string{"a": "1"}, Roles: []string{"child"},
		Score: "1.0.0", Version: "0.1", Platform: "linux/amd64", Kept: 1, Repaired: 2, Failed: 3, Waiting: 4, Drifted: 5,
		Facts: map[string]string{"cores": "2"},
	}
	if got := must(DecodeStatus(must(EncodeStatus(status))(t)))(t); !cmp.Equal(got, status) {
		t.Errorf("status came back as %+v", got)
	}
	placed := PlacedBody{artifact.Version{Counter: 3, Epoch: 4, By: newWorld(t, 1).ids[0].ID()}, d, "want.app", 2}
	if got := must(DecodePlaced(must(EncodePlaced(placed))(t)))(t); got != placed {
		t.Errorf("placed came back as %+v", got)
	}
	if _, err := DecodeWithdraw(must(EncodeWithdraw(WithdrawBody{}))(t)); err != nil {
		t.Error(err)
	}
	r := Record{Kind: KindArtifact, Name: "app", Log: LogID{Origin: placed.Version.By, Epoch: 4}, Body: offer(t, 3, "x")}
	ref, body, err := r.Ref()
	want := artifact.Ref{Name: "app", Version: placed.Version, Root: d, Tree: d, SizeBytes: 1 << 20}
	if err != nil || ref != want || body.Semver != "1.2.3" {
		t.Errorf("Ref = %+v, %+v, %v", ref, body, err)
	}
	r.Kind = KindWithdraw
	if _, _, err := r.Ref(); err == nil {
		t.Error("a withdrawal has a Ref")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	self := newWorld(f, 1).ids[0]
	f.Add(signed(f, self.Key, Record{
		Log: LogID{self.ID(), 7, ScopeMain}, Seq: 1, Live: artifact.Sum(nil), Kind: KindArtifact, Name: "app",
		Body: offer(f, 1, "x"), At: epochStart,
	}))
	f.Add(signed(f, self.Key, Record{
		Log: LogID{self.ID(), 7, ScopeNodes}, Seq: 1, Live: artifact.Sum(nil), Kind: KindCert, At: epochStart,
		Body: must(EncodeCert(CertBody{self.Chain}))(f),
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if again := must(r.Encode())(t); !bytes.Equal(again, b) {
			t.Errorf("%x is read, and written as %x", b, again)
		}
	})
}

func FuzzBodies(f *testing.F) {
	f.Add(offer(f, 1, "x"))
	f.Add(must(EncodeStatus(StatusBody{Tags: map[string]string{"a": "b"}}))(f))
	f.Add(must(EncodePlaced(PlacedBody{Promise: "p"}))(f))
	f.Add(must(EncodeCert(CertBody{[][]byte{{1}, {2}}}))(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := DecodeArtifact(b); err == nil {
			same(t, b, must(EncodeArtifact(v))(t))
		}
		if v, err := DecodeStatus(b); err == nil {
			same(t, b, must(EncodeStatus(v))(t))
		}
		if v, err := DecodePlaced(b); err == nil {
			same(t, b, must(EncodePlaced(v))(t))
		}
		if v, err := DecodeCert(b); err == nil {
			same(t, b, must(EncodeCert(v))(t))
		}
	})
}

func same(t *testing.T, in, out []byte) {
	t.Helper()
	if !bytes.Equal(in, out) {
		t.Errorf("%x is read, and written as %x", in, out)
	}
}
