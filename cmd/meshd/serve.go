package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"meshd/agent"
	"meshd/agent/promise"
	"meshd/mesh/link"
)

// A service is a node that runs, with what belongs to it in this process.
type service struct {
	*options
	log     *slog.Logger
	level   *slog.LevelVar
	hangups <-chan os.Signal   // SIGHUP: never deadly, from the start on
	notify  func(state string) // nil where no service manager listens
}

func (s *service) serve(ctx context.Context, node *agent.Node, tags map[string]string) error {
	host, err := promise.NewReal()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	engines := promise.NewEngines()
	defer func() { _ = engines.Close() }()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	work := s.workDir
	if work == "" {
		work = filepath.Join(node.Dir, "work")
	}
	if work, err = filepath.Abs(work); err != nil {
		return err
	}
	limits, err := s.limits()
	if err != nil {
		return err
	}
	maxSize, err := parseSize(s.maxSize)
	if err != nil {
		return err
	}
	cfg := agent.Config{
		Node: node, WorkDir: work, Tags: tags, Advertise: s.advertise, Seeds: s.peers, PolicyDir: s.policy, Limits: limits, Once: s.once, Leaf: s.leaf, LeafPoll: s.leafPoll,
		Network: link.Real, Host: host, Containers: engines.Containers, DoorGroup: s.group, Exe: exe, Wall: time.Now, Seed: randomSeed(), Log: s.log, Version: version,
		Notify: s.notify, Watchdog: watchdog(), MaxSizeBytes: maxSize,
	}
	a, err := s.open(cfg)
	if err != nil {
		return err
	}
	var port *httpPort
	if s.http != "" {
		if port, err = openHTTP(s.http, a, s.log); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	s.log.Info("node is up", "name", a.Name(), "id", node.Identity.ID(), "address", a.Addr(), "mesh", node.Charter.MeshName(), "version", version)
	return s.keep(ctx, a, port)
}

// keep runs the node and what goes along with it; all of it has ended when it returns.
func (s *service) keep(ctx context.Context, a *agent.Agent, port *httpPort) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if port != nil {
		wg.Go(func() { port.run(ctx) })
	}
	wg.Go(func() { s.reload(ctx, a) })
	return a.Run(ctx)
}

// reload reads the settings again on every hangup. Faulty ones are refused, and the node goes on as it was.
func (s *service) reload(ctx context.Context, a *agent.Agent) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hangups:
		}
		reloading(s.notify)
		if err := s.reloadOnce(ctx, a); err != nil {
			s.log.Error("the new settings are refused; the old ones stay", "error", err)
		} else {
			s.log.Info("settings were read again")
		}
		if s.notify != nil {
			s.notify("READY=1")
		}
	}
}

func (s *service) reloadOnce(ctx context.Context, a *agent.Agent) error {
	next, err := s.again()
	if err != nil {
		return err
	}
	level, err := next.logLevel()
	if err != nil {
		return err
	}
	limits, err := next.limits()
	if err != nil {
		return err
	}
	if err := a.ReloadPolicy(ctx, next.policy); err != nil {
		return err
	}
	if err := a.ReloadLimits(ctx, limits); err != nil {
		return err
	}
	s.level.Set(level)
	s.log.Debug("the log has a level", "log_level", level)
	if later := s.differs(next); len(later) > 0 {
		s.log.Warn("these settings take effect at the next start", "settings", strings.Join(later, ", "))
	}
	return nil
}

// live are the settings that a running node takes up.
var live = []string{"egress", "ingress", "log-level", "policy"}

// differs names the settings that next changes and a running node does not take up.
func (s *service) differs(next *options) []string {
	var later []string
	for name, value := range next.values {
		if value != s.values[name] && !slices.Contains(live, name) {
			later = append(later, name)
		}
	}
	slices.Sort(later)
	return later
}

// givenFlags are the flags of the command line as typed; call it before anything else sets some.
func givenFlags(flags *pflag.FlagSet) map[string][]string {
	given := map[string][]string{}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			given[f.Name] = slices.Clone(list.GetSlice())
		} else {
			given[f.Name] = []string{f.Value.String()}
		}
	})
	return given
}

// reread settles the settings once more: the command line as it was, environment and file as they are now.
func reread(given map[string][]string) (*options, error) {
	next := &options{}
	flags := pflag.NewFlagSet("meshd", pflag.ContinueOnError)
	next.flags(flags)
	for name, values := range given {
		if flags.Lookup(name) == nil {
			continue
		}
		for _, v := range values {
			if err := flags.Set(name, v); err != nil {
				return nil, err
			}
		}
	}
	if _, err := settle(flags); err != nil {
		return nil, err
	}
	next.values = valuesOf(flags)
	return next, nil
}

// valuesOf is every setting as text.
func valuesOf(flags *pflag.FlagSet) map[string]string {
	values := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	return values
}
