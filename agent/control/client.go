package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	connectLimit  = 5 * time.Second
	answerLimit   = 30 * time.Second // for an answer that is no stream, unless ctx says less
	maxAnswer     = 256 << 20        // bytes of an answer that is no stream
	maxLine       = 16 << 20         // bytes of one line
	patienceLimit = 3 * idleLimit    // for the next byte: several lines that say "alive" went missing
)

// A Client asks a daemon. It is a Backend: what the daemon answers, errors with their codes too. Its methods may be
// called at once; it holds no connection between calls. A daemon that cannot be reached is an *Error, Unreachable.
type Client struct {
	places  []string // where to look, in order: unix://PATH or http://HOST:PORT
	dataDir string   // that was named; or empty
	dial    func(ctx context.Context, place string) (net.Conn, error)
}

var _ Backend = (*Client)(nil)

// NewClient returns a client for the daemon at addr (unix://PATH, a path, or http://127.0.0.1:PORT), else at
// $MESHCTL_ADDR, else for the daemon with this data folder, else with $MESHD_DATA_DIR, else at the default places:
// /run/meshd/meshd.sock and DefaultDataDir. It does not connect. A call waits up to half a second for the socket of a data
// folder that was named and has a node: it may have been started just now.
func NewClient(addr, dataDir string) (*Client, error) {
	if addr == "" && dataDir == "" {
		addr = os.Getenv("MESHCTL_ADDR")
	}
	if addr != "" {
		place, err := parsePlace(addr)
		if err != nil {
			return nil, err
		}
		return &Client{places: []string{place}, dial: dialPlace}, nil
	}
	if dataDir == "" {
		dataDir = os.Getenv("MESHD_DATA_DIR")
	}
	if dataDir != "" {
		return &Client{places: []string{"unix://" + SocketPath(dataDir)}, dataDir: dataDir, dial: dialPlace}, nil
	}
	places := []string{"unix:///run/meshd/" + socketName}
	if dir := DefaultDataDir(); dir != "" {
		places = append(places, "unix://"+SocketPath(dir))
	}
	if os.Geteuid() != 0 && len(places) == 2 {
		places[0], places[1] = places[1], places[0] // one's own before the machine's
	}
	return &Client{places: places, dial: dialPlace}, nil
}

// ClientOver returns a client whose calls each take one connection from dial: for listeners that are no socket.
func ClientOver(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{places: []string{"unix://"}, dial: func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }}
}

func parsePlace(addr string) (string, error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok && path != "" {
		return addr, nil
	}
	if !strings.Contains(addr, "://") && strings.ContainsAny(addr, `/\`) {
		return "unix://" + addr, nil
	}
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", Errorf(Usage, "address %q: want unix:///PATH/TO/meshd.sock or http://127.0.0.1:PORT", addr)
	}
	return "http://" + u.Host, nil
}

// Members asks for the members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return ask[Member](ctx, c, http.MethodGet, pathMembers, nil, nil)
}

// Artifacts asks for the artifacts.
func (c *Client) Artifacts(ctx context.Context, pattern string, all bool) ([]Artifact, error) {
	return ask[Artifact](ctx, c, http.MethodGet, pathArtifacts, url.Values{"pattern": {pattern}, "all": {strconv.FormatBool(all)}}, nil)
}

// Promises asks for the promises.
func (c *Client) Promises(ctx context.Context, address, node string, all bool) ([]Promise, error) {
	q := url.Values{"address": {address}, "node": {node}, "all": {strconv.FormatBool(all)}}
	return ask[Promise](ctx, c, http.MethodGet, pathPromises, q, nil)
}

// Roles asks for the roles.
func (c *Client) Roles(ctx context.Context) ([]Role, error) {
	return ask[Role](ctx, c, http.MethodGet, pathRoles, nil, nil)
}

// Story asks for the story. With follow it returns when ctx ends, the daemon stops or follow returns an error.
func (c *Client) Story(ctx context.Context, since time.Duration, follow func(StoryItem) error) ([]StoryItem, error) {
	q := url.Values{"since_seconds": {inSeconds(since)}}
	if follow == nil {
		return ask[StoryItem](ctx, c, http.MethodGet, pathStory, q, nil)
	}
	_, err := c.stream(ctx, http.MethodGet, pathEvents, q, nil, func(l Line, _ io.Reader) error {
		if l.Type != LineItem {
			return nil
		}
		var i StoryItem
		if err := json.Unmarshal(l.Item, &i); err != nil {
			return Errorf(Failed, "read an event: %w", err)
		}
		return follow(i)
	})
	return nil, err
}

// Why asks for the chain of causes.
func (c *Client) Why(ctx context.Context, subject string) ([]StoryItem, error) {
	return ask[StoryItem](ctx, c, http.MethodGet, pathWhy, url.Values{"subject": {subject}}, nil)
}

// Publish sends tar, which it may leave half read when the daemon refuses it.
func (c *Client) Publish(ctx context.Context, name, version string, tar io.Reader, progress func(Line)) (Artifact, error) {
	q := url.Values{"name": {name}, "version": {version}}
	return result[Artifact](c.stream(ctx, http.MethodPost, pathPublish, q, tar, only(progress)))
}

// Get writes the tar to w. After an error w may have a part of it.
func (c *Client) Get(ctx context.Context, ref string, w io.Writer, progress func(Line)) error {
	_, err := c.stream(ctx, http.MethodGet, pathGet, url.Values{"ref": {ref}}, nil, func(l Line, raw io.Reader) error {
		if l.Type == LineData {
			_, err := io.Copy(w, raw)
			return err
		}
		return only(progress)(l, nil)
	})
	return err
}

// Withdraw orders a withdrawal.
func (c *Client) Withdraw(ctx context.Context, name string) error {
	return c.order(ctx, pathWithdraw, url.Values{"name": {name}})
}

// Retry orders a retry.
func (c *Client) Retry(ctx context.Context, address string) error {
	return c.order(ctx, pathRetry, url.Values{"address": {address}})
}

// Pause orders hands off.
func (c *Client) Pause(ctx context.Context, address string, d time.Duration) error {
	return c.order(ctx, pathPause, url.Values{"address": {address}, "for_seconds": {inSeconds(d)}})
}

// Logs writes the log to w.
func (c *Client) Logs(ctx context.Context, address string, follow bool, w io.Writer) error {
	q := url.Values{"address": {address}, "follow": {strconv.FormatBool(follow)}}
	_, err := c.stream(ctx, http.MethodGet, pathLogs, q, nil, func(l Line, raw io.Reader) error {
		if l.Type != LineData {
			return nil
		}
		_, err := io.Copy(w, raw)
		return err
	})
	return err
}

// Invite asks for a token.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (string, error) {
	body, err := encode(r)
	if err != nil {
		return "", err
	}
	items, err := ask[token](ctx, c, http.MethodPost, pathInvite, nil, body)
	t, err := first(items, err)
	return t.Token, err
}

// Revoke orders a revocation.
func (c *Client) Revoke(ctx context.Context, node string) error {
	return c.order(ctx, pathRevoke, url.Values{"node": {node}})
}

// Forget orders a node out of the lists.
func (c *Client) Forget(ctx context.Context, node string) error {
	return c.order(ctx, pathForget, url.Values{"node": {node}})
}

// SetTags orders other tags.
func (c *Client) SetTags(ctx context.Context, tags map[string]string) (map[string]string, error) {
	body, err := encode(Tags{tags})
	if err != nil {
		return nil, err
	}
	items, err := ask[Tags](ctx, c, http.MethodPost, pathTags, nil, body)
	t, err := first(items, err)
	return t.Tags, err
}

// Limits asks for the caps.
func (c *Client) Limits(ctx context.Context) ([]Limit, error) {
	return ask[Limit](ctx, c, http.MethodGet, pathLimits, nil, nil)
}

// SetLimit orders other caps.
func (c *Client) SetLimit(ctx context.Context, change LimitChange) ([]Limit, error) {
	body, err := encode(change)
	if err != nil {
		return nil, err
	}
	return ask[Limit](ctx, c, http.MethodPost, pathLimits, nil, body)
}

// DiffScore sends tar, which it may leave half read when the daemon refuses it.
func (c *Client) DiffScore(ctx context.Context, tar io.Reader) ([]Change, error) {
	return result[[]Change](c.stream(ctx, http.MethodPost, pathDiff, nil, tar, only(nil)))
}

// PublishScore sends tar, which it may leave half read when the daemon refuses it.
func (c *Client) PublishScore(ctx context.Context, tar io.Reader) (Score, error) {
	return result[Score](c.stream(ctx, http.MethodPost, pathScore, nil, tar, only(nil)))
}

// Score asks for the score.
func (c *Client) Score(ctx context.Context) (Score, error) {
	return first(ask[Score](ctx, c, http.MethodGet, pathScore, nil, nil))
}

// Offline orders the node off or back on line.
func (c *Client) Offline(ctx context.Context, d time.Duration, on bool) error {
	return c.order(ctx, pathOffline, url.Values{"for_seconds": {inSeconds(d)}, "on": {strconv.FormatBool(on)}})
}

// Doctor asks what is wrong.
func (c *Client) Doctor(ctx context.Context) ([]Trouble, error) {
	return ask[Trouble](ctx, c, http.MethodGet, pathDoctor, nil, nil)
}

// Version asks which meshd answers.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return first(ask[Version](ctx, c, http.MethodGet, pathVersion, nil, nil))
}

func (c *Client) order(ctx context.Context, path string, q url.Values) error {
	_, err := ask[token](ctx, c, http.MethodPost, path, q, nil)
	return err
}

// ask sends one request and reads the document that answers it.
func ask[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte) ([]T, error) {
	if _, limited := ctx.Deadline(); !limited {
		late := Errorf(TimedOut, "meshd gave no answer in %v: ask again, or look at its log", answerLimit)
		limitedCtx, cancel := context.WithTimeoutCause(ctx, answerLimit, late)
		defer cancel()
		ctx = limitedCtx
	}
	resp, err := c.send(ctx, method, path, q, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.close()
	b, err := io.ReadAll(io.LimitReader(resp.body, maxAnswer+1))
	if err != nil {
		return nil, lost(ctx, err)
	}
	if len(b) > maxAnswer {
		return nil, Errorf(Failed, "the answer is longer than %d bytes: ask for less", maxAnswer)
	}
	var d document[T]
	if err := json.Unmarshal(b, &d); err != nil || d.APIVersion != APIVersion {
		return nil, Errorf(Failed, "what answered is no meshd that speaks %s (HTTP status %d)", APIVersion, resp.status)
	}
	if d.Error != nil {
		return nil, d.Error
	}
	return d.Items, nil
}

// stream sends one request and hands every line but the last to each, with the data that follows it; what each leaves
// of the data is skipped. It returns the item of the last line.
func (c *Client) stream(ctx context.Context, method, path string, q url.Values, body io.Reader, each func(Line, io.Reader) error) (json.RawMessage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if body != nil {
		body = &sending{body, cancel}
	}
	resp, err := c.send(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	defer resp.close()
	if resp.status != http.StatusOK {
		return nil, refusal(resp)
	}
	in := bufio.NewReaderSize(resp.body, 64<<10)
	for {
		b, err := readLine(in)
		if err != nil {
			return nil, lost(ctx, err)
		}
		var l Line
		if err := json.Unmarshal(b, &l); err != nil || l.DataBytes < 0 {
			return nil, Errorf(Failed, "what answered is no meshd that speaks %s", APIVersion)
		}
		switch l.Type {
		case LineResult:
			return l.Item, nil
		case LineError:
			return nil, &Error{Code: l.Code, Message: l.Error}
		}
		raw := &io.LimitedReader{R: in, N: l.DataBytes}
		if err := each(l, raw); err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, raw); err != nil || raw.N > 0 {
			return nil, lost(ctx, io.ErrUnexpectedEOF)
		}
	}
}

// sending is a body that ends the call with its own error when it cannot be read.
type sending struct {
	io.Reader
	fail context.CancelCauseFunc
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.fail(err)
	}
	return n, err
}

func (s *sending) Close() error {
	if c, ok := s.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// refusal reads the error that a stream was refused with before it began.
func refusal(resp *reply) error {
	b, err := io.ReadAll(io.LimitReader(resp.body, maxOrderBytes))
	var d document[token]
	if err != nil || json.Unmarshal(b, &d) != nil || d.Error == nil {
		return Errorf(Failed, "what answered is no meshd that speaks %s (HTTP status %d)", APIVersion, resp.status)
	}
	return d.Error
}

// readLine returns one line without its end; it is valid until the next read.
func readLine(in *bufio.Reader) ([]byte, error) {
	b, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the last line is a result or an error, never the end
		}
		return b, err
	}
	long := bytes.Clone(b)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxLine {
			return nil, fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		b, err = in.ReadSlice('\n')
		long = append(long, b...)
	}
	return long, err
}

func result[T any](item json.RawMessage, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(item, &v); err != nil {
		return v, Errorf(Failed, "read the result: %w", err)
	}
	return v, nil
}

func first[T any](items []T, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	if len(items) != 1 {
		return none, Errorf(Failed, "meshd answered with %d items, want one", len(items))
	}
	return items[0], nil
}

// only passes lines of progress on.
func only(progress func(Line)) func(Line, io.Reader) error {
	return func(l Line, _ io.Reader) error {
		if progress != nil && l.Type == LineProgress {
			progress(l)
		}
		return nil
	}
}

func inSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// lost tells why an answer ended before its end.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return Errorf(TimedOut, "meshd has said nothing for %v: look at its log", patienceLimit)
	}
	return Errorf(Unreachable, "the connection to meshd broke (%v): see whether it still runs", err)
}
