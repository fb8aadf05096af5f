package main

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meshd/agent"
	"meshd/agent/control"
	"meshd/mesh/link"
)

const (
	defaultPort = "6374"           // M-E-S-H on a telephone
	joinTime    = 30 * time.Second // for a token to be redeemed
	maxToken    = 4096             // bytes read from @FILE or -
)

// options are the flags of the node.
type options struct {
	dataDir, name, listen, policy, workDir, socket, group, level, format, join string
	http, config                                                               string
	tags, advertise, peers, egress, ingress                                    []string
	maxSize                                                                    string
	leaf, once                                                                 bool
	leafPoll                                                                   time.Duration

	values map[string]string        // every flag as text, to tell what a reload changes
	again  func() (*options, error) // the same settings, read once more
}

func runCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "run", Short: "Run the node (the same as meshd with no command)", Args: noArgs,
		Example: `  meshd run --data-dir /tmp/m --listen 127.0.0.1:0
  meshd run --data-dir /tmp/n --name web-1 --tag tier=web --join @token`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := givenFlags(cmd.Flags())
			if _, err := settle(cmd.Flags()); err != nil {
				return err
			}
			o.values = valuesOf(cmd.Flags())
			o.again = func() (*options, error) { return reread(given) }
			return o.run(cmd.Context(), cmd.InOrStdin())
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func (o *options) flags(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data-dir", control.DefaultDataDir(), "where this node keeps its key and all it remembers")
	f.StringVar(&o.name, "name", "", "name of this node, where its certificate binds none (default: host name)")
	f.StringArrayVar(&o.tags, "tag", nil, "declare a tag, KEY=VALUE (repeatable)")
	f.StringVar(&o.listen, "listen", "", "ADDR:PORT for TCP and UDP; port 0 finds one and remembers it (default :"+defaultPort+")")
	f.StringArrayVar(&o.advertise, "advertise", nil, "HOST:PORT where others reach this node (repeatable; default: what was bound)")
	f.StringArrayVar(&o.peers, "peer", nil, "[ID@]HOST:PORT of a node to begin with (repeatable)")
	f.StringArrayVar(&o.egress, "egress", nil, "cap what artifacts send: RATE or CLASS=RATE a second, as 1MB or wan=8Mbit (repeatable; meshctl limit)")
	f.StringArrayVar(&o.ingress, "ingress", nil, "cap what artifacts bring in: RATE or CLASS=RATE a second (repeatable)")
	f.StringVar(&o.maxSize, "max-size", "none", "the most that artifacts may take of the disk, as 500MB or 20GiB; what passes it is not fetched")
	f.StringVar(&o.policy, "policy", "", "play the score in DIR in place of the mesh's")
	f.StringVar(&o.workDir, "work-dir", "", "where relative paths of the score live (default: DATA/work)")
	f.StringVar(&o.socket, "socket", "", "the operator's door (default: DATA/meshd.sock)")
	f.StringVar(&o.group, "socket-group", "", "a group that may use the door besides root and this user")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.format, "log-format", "text", "text or json")
	f.StringVar(&o.join, "join", "", "a token from meshctl invite: TOKEN, @FILE, or - for standard input")
	f.StringVar(&o.http, "http", "", "ADDR:PORT for /healthz, /readyz, /metrics and the page; the page only on loopback (default: no port)")
	f.StringVar(&o.config, "config", "", "a file of NAME = VALUE, names as of these flags; read again on SIGHUP")
	f.BoolVar(&o.leaf, "leaf", false, "only dial out: be attached to members, bind no port; without it a node is a leaf by itself where no peer reaches it")
	f.DurationVar(&o.leafPoll, "leaf-poll", 0, "be a leaf that rests: attach and exchange what is new this often, as 15m (1m to 24h), and when something here is worth telling; hold no session between")
	f.BoolVar(&o.once, "once", false, "converge, tell the peers, leave; exit 1 if a promise failed; starts no process")
}

func (o *options) run(ctx context.Context, stdin io.Reader) error {
	if err := o.checkAddresses(); err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	level := new(slog.LevelVar)
	told, err := o.logLevel()
	if err != nil {
		return err
	}
	level.Set(told)
	log, err := o.logger(level)
	if err != nil {
		return err
	}
	tags, err := parseTags(o.tags)
	if err != nil {
		return err
	}
	if _, err := parseSize(o.maxSize); err != nil {
		return err
	}
	if _, err := o.limits(); err != nil {
		return err
	}
	if err := o.polls(); err != nil {
		return err
	}
	if o.name == "" {
		if o.name, err = hostName(); err != nil {
			return err
		}
	}
	if err := agent.CheckName(o.name); err != nil {
		return err
	}
	dir, err := dataFolder(o.dataDir)
	if err != nil {
		return err
	}
	node, err := o.node(ctx, dir, stdin)
	if err != nil {
		return err
	}
	s := &service{options: o, log: log, level: level, hangups: hangups, notify: notifier(log)}
	return s.serve(ctx, node, tags)
}

// node loads who this is, or joins with the token.
func (o *options) node(ctx context.Context, dir string, stdin io.Reader) (*agent.Node, error) {
	node, err := agent.LoadNode(dir)
	if err != nil && !errors.Is(err, agent.ErrNoNode) {
		return nil, err
	}
	if o.join == "" {
		if node == nil {
			return nil, fmt.Errorf("%w: %s has no node yet; start a new mesh with meshd init --data-dir %s, or join one with meshd --data-dir %s --join TOKEN (a token is made by meshctl invite)",
				agent.ErrConfig, dir, dir, dir)
		}
		return node, nil
	}
	token, err := readToken(o.join, stdin)
	if node != nil && errors.Is(err, fs.ErrNotExist) {
		return node, nil // the file went once it had served; a node remembers
	}
	if err != nil {
		return nil, err
	}
	if node != nil {
		return node, node.Belongs(token)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	return agent.JoinNode(ctx, dir, token, o.name, link.Real, time.Now())
}

func readToken(arg string, stdin io.Reader) (string, error) {
	var from io.Reader
	switch {
	case arg == "-":
		from = stdin
	case strings.HasPrefix(arg, "@"):
		f, err := os.Open(arg[1:])
		if err != nil {
			return "", fmt.Errorf("%w: read the token: %w", agent.ErrConfig, err)
		}
		defer func() { _ = f.Close() }()
		from = f
	default:
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(from, maxToken))
	if err != nil {
		return "", fmt.Errorf("%w: read the token: %w", agent.ErrConfig, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// open takes the store and the port first: only the one that has them may take the socket.
func (o *options) open(cfg agent.Config) (*agent.Agent, error) {
	listen, free := o.listenAddr(cfg.Node)
	cfg.Listen = listen
	a, err := agent.New(cfg)
	if err != nil && free != "" {
		cfg.Listen = free // the remembered port is taken: find another
		a, err = agent.New(cfg)
	}
	if err != nil {
		return nil, err
	}
	if free != "" && !o.leaf {
		if err := cfg.Node.Bound(a.Addr()); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	socket := o.socket
	if dir := os.Getenv("RUNTIME_DIRECTORY"); socket == "" && dir != "" {
		socket = filepath.Join(filepath.SplitList(dir)[0], "meshd.sock")
	}
	if socket == "" {
		socket = control.SocketPath(cfg.Node.Dir)
	}
	door, err := control.Listen(socket, o.group)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	a.SetDoor(door)
	return a, nil
}

// listenAddr says where to bind; free is the ":0" to fall back on where a port was found and remembered.
func (o *options) listenAddr(node *agent.Node) (listen, free string) {
	host, port, err := net.SplitHostPort(o.listen)
	switch {
	case o.listen == "" && node.Listen != "":
		return node.Listen, ""
	case o.listen == "":
		return ":" + defaultPort, ""
	case err == nil && port == "0":
		if _, known, err := net.SplitHostPort(node.Listen); err == nil {
			return net.JoinHostPort(host, known), o.listen
		}
		return o.listen, o.listen
	}
	return o.listen, ""
}

// polls has a node that rests be a leaf.
func (o *options) polls() error {
	if o.leafPoll == 0 {
		return nil
	}
	if o.leafPoll < agent.MinLeafPoll || o.leafPoll > agent.MaxLeafPoll {
		return usagef("--leaf-poll %v: want %v to %v, or 0 to stay attached", o.leafPoll, agent.MinLeafPoll, agent.MaxLeafPoll)
	}
	o.leaf = true
	return nil
}

// limits are the caps that the settings name.
func (o *options) limits() ([]control.Limit, error) {
	list, err := control.ParseLimits(o.egress, o.ingress)
	if err != nil {
		return nil, usagef("--egress or --ingress: %v", err)
	}
	return list, nil
}

func parseTags(list []string) (map[string]string, error) {
	tags := map[string]string{}
	for _, t := range list {
		k, v, ok := strings.Cut(t, "=")
		if !ok || k == "" {
			return nil, usagef("--tag %q: want KEY=VALUE", t)
		}
		tags[k] = v
	}
	return tags, nil
}

// dataFolder is the whole path of the data folder. An empty one would be whatever folder the program was started in.
func dataFolder(dir string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("%w: no data folder is named, and this user has no home to put one in: give --data-dir DIR or MESHD_DATA_DIR", agent.ErrConfig)
	}
	return filepath.Abs(dir)
}

func hostName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this machine has no host name (%w); give --name", err)
	}
	name, _, _ = strings.Cut(name, ".")
	return name, nil
}

func randomSeed() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}
