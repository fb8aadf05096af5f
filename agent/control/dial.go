package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A reply is one answer under way, on a connection of its own. Who has it closes it.
type reply struct {
	status int
	body   io.Reader
	conn   net.Conn
	finish []func()
}

// close ends the connection and waits until what was still being sent has ended too.
func (r *reply) close() {
	r.conn.Close() // whatever it says, nothing more is read or sent
	for _, f := range r.finish {
		f()
	}
}

// send makes one connection for one request, to the first place that answers. body is sent while the answer is read;
// when it is an io.Closer it is closed at the end, and its Read returns soon after that. It does without the Transport
// of net/http: one request a connection needs none of it, and meshctl is 1 MB smaller.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body io.Reader) (*reply, error) {
	if body == nil {
		body = http.NoBody
	}
	conn, place, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	host := "meshd"
	if h, ok := strings.CutPrefix(place, "http://"); ok {
		host = h
	}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Close = true
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	sent := make(chan error, 1)
	go func() { sent <- req.Write(conn) }()
	r := &reply{conn: conn, finish: []func(){
		func() { unwatch() },
		func() { _ = req.Body.Close() },
		func() { <-sent },
	}}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 64<<10), req)
	if err != nil {
		r.close()
		return nil, lost(ctx, err)
	}
	r.status, r.body = resp.StatusCode, resp.Body // which is not to be closed: it would read to the end
	return r, nil
}

// A daemon that was started in the line before has its socket a moment later: in a data folder that has a node it is
// looked for again for so long, so often.
const (
	startLimit = 500 * time.Millisecond
	startLook  = 20 * time.Millisecond
)

// connect tries each place and returns the first connection, or one error that tells of all.
func (c *Client) connect(ctx context.Context) (net.Conn, string, error) {
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	began := time.Now()
	for {
		conn, place, err := c.tryAll(ctx, limited)
		if err == nil || ctx.Err() != nil || !c.mayStart() || time.Since(began) >= startLimit {
			return conn, place, err
		}
		select {
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		case <-time.After(startLook):
		}
	}
}

// mayStart reports whether the daemon is looked for in a data folder that has a node.
func (c *Client) mayStart() bool {
	if c.dataDir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(c.dataDir, "node.key"))
	return err == nil
}

func (c *Client) tryAll(ctx, limited context.Context) (net.Conn, string, error) {
	tried := []string{}
	for _, place := range c.places {
		conn, err := c.dial(limited, place)
		if err == nil {
			return patientConn{conn}, place, nil
		}
		if ctx.Err() != nil {
			return nil, "", context.Cause(ctx)
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", place, plainly(err)))
	}
	return nil, "", Errorf(Unreachable, "meshd is not answering at %s: start it with meshd, or say where it is with --addr or --data-dir",
		strings.Join(tried, " nor at "))
}

func dialPlace(ctx context.Context, place string) (net.Conn, error) {
	var d net.Dialer
	path, isUnix := strings.CutPrefix(place, "unix://")
	if !isUnix {
		return d.DialContext(ctx, "tcp", strings.TrimPrefix(place, "http://"))
	}
	dir := filepath.Dir(path)
	uid, isShort := strings.CutPrefix(dir, "/tmp/meshd-")
	if _, err := strconv.Atoi(uid); isShort && err == nil && dir != shortFolder(ownerOf(dir)) {
		return nil, errors.New("its folder belongs to somebody else")
	}
	return d.DialContext(ctx, "unix", path)
}

// plainly says why a place did not answer, without the address that stands before it anyway.
func plainly(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such socket"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: ask as root or as the user that runs it"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no connection in %v", connectLimit)
	}
	return err.Error()
}

// A patientConn gives each read patienceLimit, so that no call hangs on a daemon that hangs.
type patientConn struct{ net.Conn }

func (c patientConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(patienceLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
