package trust

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJoinMessagesRoundTrip(t *testing.T) {
	c, _, sponsor := founded(t)
	who := newIdentity(t, 3)
	request := JoinRequest{
		Invite: [16]byte{1}, Proof: [32]byte{2}, Key: who.Public(), Box: [32]byte{3}, Name: "till-1",
		Tags: map[string]string{"tier": "edge"},
	}
	b, err := request.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseJoinRequest(b); err != nil || cmp.Diff(request, got) != "" {
		t.Errorf("request %+v, want %+v (%v)", got, request, err)
	}
	for name, reply := range map[string]JoinReply{
		"refusal":  {Refused: "invite has expired"},
		"admitted": {Charter: c.Encode(), Chain: sponsor.Chain},
	} {
		b, err := reply.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseJoinReply(b); err != nil || cmp.Diff(reply, got) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	long, err := JoinReply{Refused: strings.Repeat("é", maxRefusal)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseJoinReply(long); err != nil || len(got.Refused) != maxRefusal {
		t.Errorf("a long refusal has %d bytes, want %d (%v)", len(got.Refused), maxRefusal, err)
	}
	for name, r := range map[string]JoinRequest{
		"no key":    {Name: "a"},
		"bad name":  {Key: who.Public(), Name: "\x1b"},
		"many tags": {Key: who.Public(), Tags: manyTags(MaxTags + 1)},
	} {
		if _, err := r.Encode(); err == nil {
			t.Errorf("request with %s: encoded", name)
		}
	}
	for name, r := range map[string]JoinReply{
		"nothing": {}, "both": {Refused: "no", Charter: c.Encode(), Chain: sponsor.Chain},
		"half": {Charter: c.Encode()}, "short chain": {Charter: c.Encode(), Chain: sponsor.Chain[:1]},
	} {
		if _, err := r.Encode(); err == nil {
			t.Errorf("reply with %s: encoded", name)
		}
	}
}

func manyTags(n int) map[string]string {
	tags := map[string]string{}
	for i := range n {
		tags[strings.Repeat("k", i+1)] = "v"
	}
	return tags
}

func TestJoinReplyIsVerified(t *testing.T) {
	c, root, sponsor := founded(t)
	v, _ := newInvite(t, c, sponsor)
	who := newIdentity(t, 3)
	foreign, err := NewCharter(root, sponsor.Public(), noon.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	second := newIdentity(t, 4)
	terms := c.Terms()
	terms.Sponsors = append(terms.Sponsors, second.Public())
	later, err := c.Amend(terms, noon, root)
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := second.BoxKey()
	otherBox, err := c.Issue(sponsor, who.Public(), *pub, "", nil, bytes.Repeat([]byte{1}, 16), noon, noon.Add(LeafLife))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		reply JoinReply
		ok    bool
	}{
		"as invited":         {JoinReply{Charter: c.Encode(), Chain: issue(t, c, sponsor, who, "till-1", nil)}, true},
		"by a later charter": {JoinReply{Charter: later.Encode(), Chain: issue(t, later, sponsor, who, "", nil)}, true},
		"refused":            {JoinReply{Refused: "no"}, false},
		"another mesh":       {JoinReply{Charter: foreign.Encode(), Chain: issue(t, foreign, sponsor, who, "", nil)}, false},
		"another's key":      {JoinReply{Charter: c.Encode(), Chain: issue(t, c, sponsor, second, "", nil)}, false},
		"another's box key":  {JoinReply{Charter: c.Encode(), Chain: otherBox}, false},
		"another sponsor":    {JoinReply{Charter: later.Encode(), Chain: issue(t, later, second, who, "", nil)}, false},
		"no charter":         {JoinReply{Charter: []byte("hello"), Chain: sponsor.Chain}, false},
		"no chain":           {JoinReply{Charter: c.Encode()}, false},
	} {
		charter, cert, err := tt.reply.Verify(v, who)
		if (err == nil) != tt.ok || tt.ok && (charter.MeshID() != v.MeshID || cert.ID != who.ID()) {
			t.Errorf("%s: %v, want accepted %v", name, err, tt.ok)
		}
	}
}

func FuzzJoinRequest(f *testing.F) {
	if b, err := (JoinRequest{Key: newIdentity(f, 3).Public(), Name: "a", Tags: map[string]string{"a": "b"}}).Encode(); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseJoinRequest(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
		}
	})
}

func FuzzJoinReply(f *testing.F) {
	c, _, sponsor := founded(f)
	for _, r := range []JoinReply{{Refused: "no"}, {Charter: c.Encode(), Chain: sponsor.Chain}} {
		if b, err := r.Encode(); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseJoinReply(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
		}
		if _, _, err := r.Verify(Invite{MeshID: c.MeshID(), Sponsor: sponsor.ID()}, newIdentity(t, 3)); err == nil {
			t.Error("a reply that admits somebody else is accepted")
		}
	})
}
