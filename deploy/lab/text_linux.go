package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	metricsAddr = "127.0.0.1:9374" // each host has a loopback of its own
	logLines    = " of log lines"
)

// measureText brings lines of a log to one and to eight, and random bytes beside them: what shrinks is compressed on
// its way.
func measureText(ctx context.Context, l *lab) ([]figure, error) {
	var figures []figure
	for _, receivers := range []int{1, 8} {
		more, err := l.text(ctx, receivers, fanSize, true)
		if err != nil {
			return nil, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// text has meshd, and where beside says so rsync and then meshd with random bytes, bring a log from one to all.
func (l *lab) text(ctx context.Context, receivers, size int, beside bool) (figures []figure, err error) {
	c, err := l.newCrew(ctx, receivers, size, fanRate)
	if err != nil {
		return skippedOr(err, "lines of a log behind shaped links")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	play := func(of string, others ...string) error {
		c.of, c.count = of, true
		r, err := c.spread(ctx, 0)
		if err != nil {
			return err
		}
		figures = append(figures, r.figures(c, 0, 0)...)
		for _, name := range others {
			more, err := c.other(ctx, name)
			if err != nil {
				return err
			}
			figures = append(figures, more...)
		}
		return nil
	}
	if !beside {
		return figures, play(logLines)
	}
	if err := play(logLines, "rsync -z", "rsync"); err != nil {
		return nil, err
	}
	return figures, play(" of random bytes")
}

// flags are those of every node.
func (c *crew) flags() []string {
	if c.count {
		return []string{"--http", metricsAddr}
	}
	return nil
}

// prepare makes the file that is sent.
func (c *crew) prepare(path string) error {
	if c.of == logLines {
		return logFile(path, c.size)
	}
	_, err := randomFile(path, c.size)
	return err
}

// packing is what compressing did, of all nodes together.
type packing struct{ spared, seconds, spent float64 }

func (c *crew) packing(ctx context.Context) (*packing, error) {
	sum := &packing{}
	for _, h := range c.hosts {
		text, err := h.metrics(ctx)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", h.name, err)
		}
		for name, to := range map[string]*float64{
			"meshd_artifacts_spared_bytes_total": &sum.spared, "meshd_artifacts_compress_seconds_total": &sum.seconds,
			"meshd_artifacts_compress_spent_total": &sum.spent,
		} {
			v, ok := text[name]
			if !ok {
				return nil, fmt.Errorf("metrics of %s: no %s", h.name, name)
			}
			*to += v
		}
	}
	return sum, nil
}

// metrics reads those of a host's node that have no label.
func (h *host) metrics(ctx context.Context) (map[string]float64, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = h.do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(rest, 64); err == nil {
			out[name] = v
		}
	}
	return out, lines.Err()
}

// logFile writes lines as servers log them, the same ones each time: requests with ids, addresses and times of their
// own, and among them warnings and errors of a few kinds. zstd at its fastest makes about a fifth of it.
func logFile(path string, size int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriter(f)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of []string) string { return of[int(float64(len(of))*random.Float64()*random.Float64())] } // the first ones more often
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for left := size; left > 0; {
		at = at.Add(time.Duration(random.ExpFloat64() * float64(7*time.Millisecond)))
		line := fmt.Sprintf("%s %s %s[%d]: ", at.Format("2006-01-02T15:04:05.000000Z"), pick(logHosts), pick(logPrograms), 1000+random.IntN(300))
		id := random.Uint64()
		switch kind := random.IntN(20); {
		case kind < 16:
			line += fmt.Sprintf(`level=info request=%016x client=10.%d.%d.%d method=%s path="%s/%d" status=%s bytes=%d took=%.3fms agent=%q`,
				id, random.IntN(4), random.IntN(256), random.IntN(256), pick(logMethods), pick(logPaths), random.IntN(100000),
				pick(logStatus), int(random.ExpFloat64()*9000), random.ExpFloat64()*40, pick(logAgents))
		case kind < 19:
			line += fmt.Sprintf(`level=warn request=%016x msg="%s" attempt=%d after=%dms`, id, pick(logWarnings), 1+random.IntN(5), random.IntN(5000))
		default:
			line += fmt.Sprintf(`level=error request=%016x msg="%s" account=%d trace=%016x%016x`,
				id, pick(logErrors), random.IntN(1e6), random.Uint64(), random.Uint64())
		}
		line += "\n"
		n, err := out.WriteString(line[:min(left, len(line))])
		if err != nil {
			return err
		}
		left -= n
	}
	return out.Flush()
}

var (
	logHosts    = strings.Fields("web-1 web-2 web-3 api-1 api-2 cart-1 cart-2 auth-1 mail-1 till-17 till-18 till-23 depot-4")
	logPrograms = strings.Fields("nginx api cart auth billing search mailer scheduler")
	logMethods  = strings.Fields("GET POST PUT DELETE HEAD")
	logStatus   = strings.Fields("200 200 204 304 201 404 302 400 401 500 503")
	logPaths    = strings.Fields("/api/v2/items /api/v2/carts /static/img /api/v2/users /search /login /api/v1/orders /api/v2/stock/shelf /health /reports/daily")
	logAgents   = []string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "till/4.2.1 (linux; arm64)",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148", "curl/8.11.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36", "kube-probe/1.31",
	}
	logWarnings = []string{
		"upstream answered late, trying the next", "token is about to expire", "cache miss on a hot key", "queue is longer than usual",
		"connection reset by peer while reading the response header",
	}
	logErrors = []string{
		"payment was declined by the issuer", "deadlock detected, transaction rolled back", "no such item in stock", "context deadline exceeded",
	}
)
