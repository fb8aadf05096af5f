package promise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"meshd/policies"
)

// Defaults of a process's check (POLICY.md).
const (
	defaultProbeEvery   = 10 * time.Second
	defaultProbeTimeout = 2 * time.Second
	probeStartEvery     = time.Second // until the first passes are there
)

// A probe asks a running process whether it is well, no more often than its every.
type probe struct {
	spec   policies.Process
	site   Site
	passes int // in a row
	fails  int
	well   bool // has had its passes
	last   time.Time
	counts time.Time // when a failure was last counted
	why    string
}

// What a probe says.
const (
	probeWell = iota
	probeWaits
	probeFails
)

func newProbe(p policies.Process, s Site) (*probe, error) {
	c := *p.Check
	said := 0
	for _, is := range []bool{len(c.Run) > 0, c.HTTP != "", c.TCP != ""} {
		if is {
			said++
		}
	}
	if said != 1 {
		return nil, errors.New("check needs one of run, http and tcp")
	}
	if c.HTTP != "" {
		if u, err := url.Parse(c.HTTP); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("check: http %q is no http or https address", c.HTTP)
		}
	}
	if c.TCP != "" {
		if _, _, err := net.SplitHostPort(c.TCP); err != nil {
			return nil, fmt.Errorf("check: tcp %q is no HOST:PORT", c.TCP)
		}
	}
	if c.Every <= 0 {
		c.Every = defaultProbeEvery
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultProbeTimeout
	}
	c.Passes, c.Fails = max(c.Passes, 1), max(c.Fails, 1)
	p.Check = &c
	return &probe{spec: p, site: s}, nil
}

// reset begins anew, for a process that was just started.
func (p *probe) reset() { *p = probe{spec: p.spec, site: p.site, counts: time.Now()} }

// every is when to ask next.
func (p *probe) every() time.Duration {
	if !p.well {
		return min(p.spec.Check.Every, probeStartEvery)
	}
	return p.spec.Check.Every
}

// ask probes if it is time, and says what all answers so far come to.
func (p *probe) ask(ctx context.Context, h Host) (state int, why string) {
	now := time.Now()
	if p.last.IsZero() || now.Sub(p.last) >= p.every() {
		p.last = now
		p.count(now, p.once(ctx, h))
	}
	switch {
	case p.fails >= p.spec.Check.Fails:
		return probeFails, p.why
	case !p.well:
		if p.why == "" {
			return probeWaits, fmt.Sprintf("passed %d of %d times", p.passes, p.spec.Check.Passes)
		}
		return probeWaits, p.why
	}
	return probeWell, p.why
}

// count takes in one answer. While the process is starting up it is asked more often than every, but
// failures count once an every, so that it has as much time as the score gave it.
func (p *probe) count(now time.Time, err error) {
	if err == nil {
		p.passes++
		p.fails, p.why = 0, ""
		p.well = p.well || p.passes >= p.spec.Check.Passes
		return
	}
	p.passes, p.why = 0, err.Error()
	if p.well || now.Sub(p.counts) >= p.spec.Check.Every {
		p.counts = now
		p.fails++
	}
}

func (p *probe) once(ctx context.Context, h Host) error {
	c := p.spec.Check
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	switch {
	case c.TCP != "":
		conn, err := h.Dial(ctx, c.TCP)
		if err != nil {
			return err
		}
		return conn.Close()
	case c.HTTP != "":
		return getOK(ctx, h, c.HTTP)
	}
	code, tail, err := h.Exec(ctx, Cmd{
		Argv: c.Run, Env: environ(p.spec.Env), Dir: workDir(p.site, p.spec.Dir), User: p.spec.User,
	}, c.Timeout)
	if err == nil && code != 0 {
		err = fmt.Errorf("%q ended with exit code %d%s", c.Run[0], code, printed(tail))
	}
	return err
}

// getOK is content with any 2xx answer. It keeps no connection and follows no redirect: the process
// itself is asked, not whom it names.
func getOK(ctx context.Context, h Host, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return h.Dial(ctx, addr)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("GET %s answers %s", address, resp.Status)
	}
	return nil
}
