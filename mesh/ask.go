package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

const (
	askTimeout  = 5 * time.Second
	maxQuestion = 4 << 10
	maxAnswer   = 1 << 20
	askV1       = 1
	frameAsk    = 1
	frameAnswer = 2
	maxItems    = 4096 // entries or promises in one answer
)

// The kinds of question.
const (
	AskChain    = "chain"    // Entry: the chain of causes that ends in that journal entry
	AskWhy      = "why"      // Subject: the chain of the newest entry about it
	AskPromises = "promises" // Subject: address or "" for all
	AskHave     = "have"     // Subject: a root digest; are all its bytes there?
	AskInvite   = "invite"   // a token for a child of name Subject; answered by sponsors
	AskRenew    = "renew"    // a new certificate for the asker's key; answered by sponsors
)

// A Question is asked of another node. It changes nothing there but what it names.
type Question struct {
	Kind    string
	Subject string
	Entry   uint64
	Tags    map[string]string
	Seconds int64
	Replace bool
}

// An Entry is one record of a node's journal as others see it.
type Entry struct {
	ID      uint64
	At      int64 // unix milliseconds
	Node    string
	Kind    string
	Subject string
	Outcome string
	Text    string
	// Cause: an entry of the same journal, or of another node's (CauseNode), or words.
	Cause     uint64
	CauseNode string
	CauseText string
}

// A Promise is one promise's state as others see it. Times are unix milliseconds.
type Promise struct {
	Address, Type, Outcome, Reason, Why string
	Since, Checked                      int64
	Repairs                             int64
}

// An Answer has what was asked, or a Problem in words.
type Answer struct {
	Problem  string
	Entries  []Entry
	Promises []Promise
	Has      bool
	Token    string
	Chain    [][]byte
}

var (
	questionLimits = wire.Limits{Bytes: maxQuestion, Depth: 4, Items: 64}
	answerLimits   = wire.Limits{Bytes: maxAnswer, Depth: 6, Items: maxItems}
)

// ErrUnreachable is wrapped where a node does not answer now.
var ErrUnreachable = errors.New("unreachable")

// Ask puts q to a node and waits for its answer, at most 5 s.
func (m *Mesh) Ask(ctx context.Context, to id.Node, q Question) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := m.dial(ctx, to, protoAsk)
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s: %w: %v", to.Short(), ErrUnreachable, err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(askTimeout))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := wire.Marshal(askV1, &q)
	if err != nil {
		return Answer{}, err
	}
	if err := wire.WriteFrame(c, frameAsk, b); err != nil {
		return Answer{}, fmt.Errorf("ask %s: %w: %v", to.Short(), ErrUnreachable, err)
	}
	kind, body, err := wire.ReadFrame(c, maxAnswer)
	if err != nil {
		return Answer{}, fmt.Errorf("ask %s: %w: %v", to.Short(), ErrUnreachable, err)
	}
	var a Answer
	if kind != frameAnswer {
		return Answer{}, fmt.Errorf("ask %s: frame kind %d where an answer belongs", to.Short(), kind)
	}
	if err := wire.Unmarshal(body, askV1, answerLimits, &a); err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %w", to.Short(), err)
	}
	return a, nil
}

func (m *Mesh) serveAsk(ctx context.Context, peer trust.Cert, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(askTimeout))
	kind, body, err := wire.ReadFrame(c, maxQuestion)
	if err != nil || kind != frameAsk {
		return
	}
	var q Question
	if err := wire.Unmarshal(body, askV1, questionLimits, &q); err != nil {
		m.cfg.Log.Warn("question refused", "peer", peer.ID.Short(), "error", err)
		return
	}
	a := m.answer(ctx, peer, q)
	if len(a.Entries) > maxItems || len(a.Promises) > maxItems {
		a = Answer{Problem: fmt.Sprintf("the answer has more than %d items; ask for less", maxItems)}
	}
	b, err := wire.Marshal(askV1, &a)
	if err != nil || len(b) > maxAnswer {
		b, err = wire.Marshal(askV1, &Answer{Problem: fmt.Sprintf("the answer is over %d bytes; ask for less", maxAnswer)})
	}
	if err != nil {
		m.cfg.Log.Error("encode an answer", "error", err)
		return
	}
	_ = wire.WriteFrame(c, frameAnswer, b) // the asker asks again
}

func (m *Mesh) answer(ctx context.Context, peer trust.Cert, q Question) Answer {
	switch q.Kind {
	case AskInvite:
		return m.answerInvite(peer, q)
	case AskRenew:
		return m.answerRenew(peer)
	case AskChain, AskWhy, AskPromises, AskHave:
		if m.cfg.Answer == nil {
			return Answer{Problem: "this node answers no questions"}
		}
		return m.cfg.Answer(ctx, peer.ID, q)
	}
	return Answer{Problem: fmt.Sprintf("question %q is not known to this version", q.Kind)}
}

func (m *Mesh) answerInvite(peer trust.Cert, q Question) Answer {
	if !m.cfg.Charter.IsSponsor(m.self) {
		return Answer{Problem: "not a sponsor"}
	}
	if q.Subject == "" || m.cfg.AllowInvite == nil || !m.cfg.AllowInvite(peer.ID, q.Subject) {
		return Answer{Problem: fmt.Sprintf("the score does not let node %s admit %q", peer.ID.Short(), q.Subject)}
	}
	ttl := min(max(time.Duration(q.Seconds)*time.Second, time.Minute), 24*time.Hour)
	token, err := m.invite(InviteRequest{Name: q.Subject, Tags: q.Tags, TTL: ttl, Uses: 1, Replace: q.Replace})
	if err != nil {
		return Answer{Problem: err.Error()}
	}
	return Answer{Token: token}
}
