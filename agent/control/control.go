// Package control is the operator's door: the questions and orders of meshctl, as HTTP and JSON on a unix socket.
//
// It holds both sides and imports nothing of ours: the daemon gives a Backend to Serve, a command asks through a Client,
// which is a Backend too. The daemon opens no path that an operator names: trees cross the door as tar (Pack, Unpack).
//
// A question is answered by one document, {"apiVersion":"meshd/v1","items":[...]} or the same with "error". What takes
// time is answered by lines (Line), the last one a result or an error.
package control

import (
	"context"
	"io"
	"time"
)

// APIVersion names the shape of every document. Fields are only ever added under one name.
const APIVersion = "meshd/v1"

// A Backend answers the operator. The agent implements it behind the door, Client in front of it.
//
// Its methods may be called at once from many goroutines; each returns soon after ctx ends. An error that is an *Error
// (or wraps one) keeps its code across the door; context.DeadlineExceeded is told as timed out, every other as failed.
// Items come sorted as they are to be shown. progress may be nil; it is given lines of type LineProgress.
type Backend interface {
	// Members tells this node's view of the mesh, known absent nodes included, sorted by name.
	Members(ctx context.Context) ([]Member, error)

	// Artifacts tells the offered artifacts whose name matches pattern ("" for all; * one segment, ** rest): the latest
	// of each name and publisher, or with all every version.
	Artifacts(ctx context.Context, pattern string, all bool) ([]Artifact, error)

	// Promises tells the promises of this node, of the node named, or with all of every node that can be asked; only
	// the one at address unless that is "". An address that nobody has is NotFound.
	Promises(ctx context.Context, address, node string, all bool) ([]Promise, error)

	// Roles tells each role of the score in force, held or not.
	Roles(ctx context.Context) ([]Role, error)

	// Story tells what happened in the last since (0: all that the journal still has), oldest first. With follow it
	// hands each item, past ones first, to follow instead, goes on with new ones until ctx ends or follow returns an
	// error, and returns no items.
	Story(ctx context.Context, since time.Duration, follow func(StoryItem) error) ([]StoryItem, error)

	// Why tells the chain of causes of an artifact, promise or node: itself first, the first cause last.
	Why(ctx context.Context, subject string) ([]StoryItem, error)

	// Publish offers the tree or file of tar (see Pack) under name. version is a semver or "" for the counter alone.
	// When it returns, the artifact is durable and announced.
	Publish(ctx context.Context, name, version string, tar io.Reader, progress func(Line)) (Artifact, error)

	// Get writes the artifact NAME or NAME@VERSION to w as tar (see Unpack), pulling it first where this node lacks it.
	Get(ctx context.Context, ref string, w io.Writer, progress func(Line)) error

	// Withdraw ends this node's offer of name. Who holds it keeps it.
	Withdraw(ctx context.Context, name string) error

	// Retry looks at a promise of this node at once, whatever its backoff.
	Retry(ctx context.Context, address string) error

	// Pause keeps this node's hands off a promise, or off all of its promises (address ""), for d: it looks, tells what
	// is untrue as drifted, and changes nothing. d 0 ends that pause now. It is durable.
	Pause(ctx context.Context, address string, d time.Duration) error

	// Logs writes what the command or process of a promise printed, as far as it is kept. With follow it goes on with
	// what is printed next until ctx ends or the promise does; each write then holds what was new.
	Logs(ctx context.Context, address string, follow bool, w io.Writer) error

	// Invite makes a token for meshd --join.
	Invite(ctx context.Context, r InviteRequest) (token string, err error)

	// Revoke expels a node, given by name or id, for ever.
	Revoke(ctx context.Context, node string) error

	// Forget leaves an absent node, given by name or id, out of what this node lists, until it is heard again.
	Forget(ctx context.Context, node string) error

	// SetTags changes the tags that this node declares; an empty value takes a tag away. It is durable, and roles
	// follow at once. It returns all tags of the node.
	SetTags(ctx context.Context, tags map[string]string) (map[string]string, error)

	// Limits tells the caps on what artifacts take of the links: one item a class, in the order of Classes.
	Limits(ctx context.Context) ([]Limit, error)

	// SetLimit changes caps, at once and durably, and returns all.
	SetLimit(ctx context.Context, c LimitChange) ([]Limit, error)

	// PublishScore checks, signs and publishes the folder in tar as the mesh's score.
	PublishScore(ctx context.Context, tar io.Reader) (Score, error)

	// DiffScore tells what the score in tar would change on this node, sorted by kind, then name. Nothing changes.
	DiffScore(ctx context.Context, tar io.Reader) ([]Change, error)

	// Score tells the score this node plays, and why a newer one was refused.
	Score(ctx context.Context) (Score, error)

	// ExportBundle writes to w the file that carries the artifacts that r asks for, and the records they need, to where
	// no network leads. What it names and this node lacks is pulled first.
	ExportBundle(ctx context.Context, r BundleRequest, w io.Writer, progress func(Line)) (Bundle, error)

	// ImportBundle takes in what ExportBundle of a node of the same mesh wrote. It verifies the whole of it before
	// anything takes effect; sizeBytes is how long it is, for progress alone, 0 for not known. DoneBytes counts what was
	// read.
	ImportBundle(ctx context.Context, bundle io.Reader, sizeBytes int64, progress func(Line)) (Bundle, error)

	// Offline with on closes all links and packets, for a while or (d 0) until called with on false.
	Offline(ctx context.Context, d time.Duration, on bool) error

	// Doctor looks this node over: what is wrong and what to do about it, worst first; nothing for a node that is well.
	Doctor(ctx context.Context) ([]Trouble, error)

	// Version tells which meshd answers.
	Version(ctx context.Context) (Version, error)
}
