package trust

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newInvite(t testing.TB, c *Charter, sponsor *Identity) (Invite, string) {
	t.Helper()
	v, err := NewInvite(seeded(50), c, sponsor, "till-1", map[string]string{"tier": "edge"},
		noon.Add(time.Hour), 1, []string{"192.0.2.1:6374", "mesh.example:6374"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := v.Token(sponsor)
	if err != nil {
		t.Fatal(err)
	}
	return v, text
}

func TestTokenRoundTrip(t *testing.T) {
	c, _, sponsor := founded(t)
	v, text := newInvite(t, c, sponsor)
	for name, in := range map[string]string{
		"as made": text, "with a line end": text + "\r\n", "wrapped": text[:80] + "\n  " + text[80:160] + "\n" + text[160:],
	} {
		got, key, err := ParseInvite(in)
		if err != nil || !key.Equal(sponsor.Public()) {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(v, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if strings.ContainsAny(text, " \n\t") || len(text) > MaxToken {
		t.Errorf("token of %d characters is not one short line", len(text))
	}
	t.Logf("token of %d characters", len(text))
}

func TestCutTokenIsToldFromAWrongOne(t *testing.T) {
	c, _, sponsor := founded(t)
	_, text := newInvite(t, c, sponsor)
	for n := 1; n < len(text); n++ {
		if _, _, err := ParseInvite(text[:n]); !errors.Is(err, ErrTokenCut) {
			t.Fatalf("cut to %d of %d characters: %v, want %v", n, len(text), err, ErrTokenCut)
		}
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for n := range len(text) {
		if n >= len(tokenPrefix) && n < len(tokenPrefix)+3 {
			continue // the length itself: a larger one is as good as a cut
		}
		other := alphabet[(strings.IndexByte(alphabet, text[n])+1)%len(alphabet)]
		if _, _, err := ParseInvite(text[:n] + string(other) + text[n+1:]); !errors.Is(err, ErrTokenMalformed) {
			t.Fatalf("character %d changed: %v, want %v", n, err, ErrTokenMalformed)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "blank": " \n", "word": "hello", "front cut": text[5:], "twice": text + text, "one more": text + "A",
		"not base64": text[:40] + "!" + text[41:], "other version": "meshd2." + text[7:], "huge": strings.Repeat("A", 1<<20),
	} {
		if _, _, err := ParseInvite(in); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("%s: %v, want %v", name, err, ErrTokenMalformed)
		}
	}
}

func TestNewInviteRefuses(t *testing.T) {
	c, _, sponsor := founded(t)
	addrs := []string{"192.0.2.1:6374"}
	wide := map[string]string{}
	for _, k := range strings.Fields("a b c d e f g h") {
		wide[k] = strings.Repeat("v", 100)
	}
	for name, try := range map[string]func() (Invite, error){
		"no sponsor": func() (Invite, error) {
			return NewInvite(nil, c, newIdentity(t, 3), "", nil, noon, 1, addrs)
		},
		"no use":       func() (Invite, error) { return NewInvite(nil, c, sponsor, "", nil, noon, 0, addrs) },
		"too many":     func() (Invite, error) { return NewInvite(nil, c, sponsor, "", nil, noon, 1<<20, addrs) },
		"bad name":     func() (Invite, error) { return NewInvite(nil, c, sponsor, "a b", nil, noon, 1, addrs) },
		"no address":   func() (Invite, error) { return NewInvite(nil, c, sponsor, "", nil, noon, 1, nil) },
		"bad address":  func() (Invite, error) { return NewInvite(nil, c, sponsor, "", nil, noon, 1, []string{"a b"}) },
		"over a kByte": func() (Invite, error) { return NewInvite(nil, c, sponsor, "", wide, noon, 1, addrs) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestAdmit(t *testing.T) {
	c, _, sponsor := founded(t)
	v, _ := newInvite(t, c, sponsor)
	here, elsewhere := []byte("exporter of this connection"), []byte("of another")
	request := func(change func(*JoinRequest)) JoinRequest {
		r := JoinRequest{Invite: v.ID, Proof: v.Proof(here), Name: "till-1", Tags: map[string]string{"rack": "3"}}
		if change != nil {
			change(&r)
		}
		return r
	}
	guess := v
	guess.Secret[0] ^= 1
	tests := []struct {
		name string
		r    JoinRequest
		used int
		now  time.Time
		want error
	}{
		{"as invited", request(nil), 0, noon, nil},
		{"last moment", request(nil), 0, v.Expires, nil},
		{"without a name", request(func(r *JoinRequest) { r.Name = "" }), 0, noon, nil},
		{"expired", request(nil), 0, v.Expires.Add(time.Millisecond), ErrInviteExpired},
		{"used up", request(nil), 1, noon, ErrInviteUsed},
		{"other name", request(func(r *JoinRequest) { r.Name = "till-2" }), 0, noon, ErrInviteRefused},
		{"shadows a tag", request(func(r *JoinRequest) { r.Tags["tier"] = "core" }), 0, noon, ErrInviteRefused},
		{"other invite", request(func(r *JoinRequest) { r.Invite[0]++ }), 0, noon, ErrInviteRefused},
		{"no proof", request(func(r *JoinRequest) { r.Proof = [32]byte{} }), 0, noon, ErrInviteRefused},
		{"guessed secret", request(func(r *JoinRequest) { r.Proof = guess.Proof(here) }), 0, noon, ErrInviteRefused},
		{"proof of another connection", request(func(r *JoinRequest) { r.Proof = v.Proof(elsewhere) }), 0, noon, ErrInviteRefused},
	}
	for _, tt := range tests {
		if err := v.Admit(tt.r, here, tt.used, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func FuzzToken(f *testing.F) {
	c, _, sponsor := founded(f)
	_, text := newInvite(f, c, sponsor)
	f.Add(text)
	f.Add(text[:100])
	f.Fuzz(func(t *testing.T, in string) {
		v, key, err := ParseInvite(in)
		if err != nil {
			if !errors.Is(err, ErrTokenCut) && !errors.Is(err, ErrTokenMalformed) {
				t.Errorf("%q: %v is neither cut nor malformed", in, err)
			}
			return
		}
		if !key.Equal(sponsor.Public()) {
			return // signed by whom the fuzzer dreamt up
		}
		if again, err := v.Token(sponsor); err != nil || again != strings.Join(strings.Fields(in), "") {
			t.Errorf("%q reads to an invite whose token is %q (%v)", in, again, err)
		}
	})
}
