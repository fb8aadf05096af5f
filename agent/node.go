package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"meshd/mesh"
	"meshd/mesh/link"
	"meshd/mesh/trust"
)

// A Node is who this is: the data folder, its key and certificate, the charter, and what it was told at
// init or join. It is read once at start.
type Node struct {
	Dir      string
	Identity *trust.Identity
	Charter  *trust.Charter
	settings
}

// settings are what a node remembers of its init or join, in DATA/node.json.
type settings struct {
	Version int      `json:"version"` // 1
	Name    string   `json:"name"`    // declared, where the certificate binds none
	Seeds   []string `json:"seeds"`   // ID@HOST:PORT of the sponsor
	Listen  string   `json:"listen"`  // the port that ":0" found

	Tags map[string]string `json:"tags,omitempty"` // declared by meshctl tag set
}

const (
	settingsFile = "node.json"
	rootKeyFile  = "root.key"
)

// ErrNoNode is returned for a data dir that no init and no join has filled.
var ErrNoNode = errors.New("no node")

// ErrConfig is wrapped by errors that another start with the same words won't mend: exit 78.
var ErrConfig = errors.New("configuration")

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName refuses what is no node name (SPEC 4).
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%w: node name %q: want 1 to 63 of A-Z a-z 0-9 . _ -, a letter or digit first", ErrConfig, name)
	}
	return nil
}

// LoadNode reads the node that lives in dir. ErrNoNode if there is none.
func LoadNode(dir string) (*Node, error) {
	if _, err := os.Stat(filepath.Join(dir, "node.key")); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoNode
	}
	n := &Node{Dir: dir}
	var err error
	if n.Identity, err = trust.LoadIdentity(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if len(n.Identity.Chain) == 0 {
		return nil, ErrNoNode // a join that did not come to its end
	}
	if n.Charter, err = trust.LoadCharter(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if _, err := n.Charter.VerifyChain(n.Identity.Chain); err != nil {
		return nil, fmt.Errorf("%w: the certificate in %s is not of the mesh in its charter: %w", ErrConfig, dir, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := json.Unmarshal(b, &n.settings); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrConfig, filepath.Join(dir, settingsFile), err)
		}
	}
	return n, nil
}

// InitNode makes a mesh whose first member lives in dir: charter, root key, certificate with attested name
// and tags. It refuses a dir that already has a node.
func InitNode(dir, name string, tags map[string]string, now time.Time) (*Node, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := refuseUsed(dir); err != nil {
		return nil, err
	}
	root, err := trust.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	n, err := Found(dir, root, rand.Reader, name, tags, now)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	remove := removeNew(dir)
	err = trust.SaveKey(filepath.Join(dir, rootKeyFile), root)
	if err == nil {
		err = n.save()
	}
	if err != nil {
		remove() // a mesh that nobody has seen: half of it would only be in the way of the next try
		return nil, err
	}
	return n, nil
}

// removeNew returns what removes the files of a node that are not in dir now.
func removeNew(dir string) (remove func()) {
	var absent []string
	for _, name := range []string{rootKeyFile, "node.key", "node.crt", "charter", settingsFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			absent = append(absent, filepath.Join(dir, name))
		}
	}
	return func() {
		for _, path := range absent {
			_ = os.Remove(path) // what cannot go is told by the next try
		}
	}
}

// Found makes the first node of a mesh and saves nothing: keys come from random.
func Found(dir string, root []byte, random interface{ Read([]byte) (int, error) }, name string, tags map[string]string, now time.Time) (*Node, error) {
	self, err := trust.NewIdentity(random)
	if err != nil {
		return nil, err
	}
	charter, err := trust.NewCharter(root, self.Public(), now)
	if err != nil {
		return nil, err
	}
	pub, _ := self.BoxKey()
	serial := make([]byte, 16)
	if _, err := random.Read(serial); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f
	self.Chain, err = charter.Issue(self, self.Public(), *pub, name, tags, serial, now.Add(-time.Hour), now.Add(30*24*time.Hour))
	if err != nil {
		return nil, err
	}
	return &Node{Dir: dir, Identity: self, Charter: charter, settings: settings{Version: 1, Name: name}}, nil
}

// JoinNode redeems a token for a node that will live in dir.
func JoinNode(ctx context.Context, dir, token, name string, network link.Network, now time.Time) (*Node, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := refuseUsed(dir); err != nil {
		return nil, err
	}
	// The key is kept before it is told: a join whose reply was lost is repeated with the same key.
	self, err := trust.LoadIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if self, err = trust.NewIdentity(rand.Reader); err != nil {
			return nil, err
		}
		err = self.Save(dir)
	}
	if err != nil {
		return nil, err
	}
	joined, err := mesh.Join(ctx, network, self, token, name, now)
	if err != nil {
		if errors.Is(err, trust.ErrTokenCut) || errors.Is(err, trust.ErrTokenMalformed) {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		return nil, err
	}
	n := &Node{Dir: dir, Identity: self, Charter: joined.Charter, settings: settings{Version: 1, Name: name, Seeds: joined.Seeds}}
	return n, n.save()
}

// refuseUsed keeps a folder that has a node from being taken for another.
func refuseUsed(dir string) error {
	switch n, err := LoadNode(dir); {
	case err == nil:
		return fmt.Errorf("%w: %s already has a node of mesh %s; start it with meshd --data-dir, or name another folder", ErrConfig, dir, n.Charter.MeshName())
	case errors.Is(err, ErrNoNode):
		return nil
	default:
		return err
	}
}

// save writes charter and settings first and the certificate last: a folder with a certificate is whole.
func (n *Node) save() error {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	if err := n.Charter.Save(n.Dir); err != nil {
		return err
	}
	if err := n.saveSettings(); err != nil {
		return err
	}
	return n.Identity.Save(n.Dir)
}

func (n *Node) saveSettings() error {
	b, err := json.MarshalIndent(n.settings, "", "  ")
	if err != nil {
		return err
	}
	return trust.ReplaceFile(filepath.Join(n.Dir, settingsFile), append(b, '\n'))
}

// Bound remembers the port that ":0" found, so that the node keeps it.
func (n *Node) Bound(listen string) error {
	if n.Listen == listen {
		return nil
	}
	n.Listen = listen
	return n.saveSettings()
}

// SaveChain keeps a renewed certificate for the next start.
func (n *Node) SaveChain(chain [][]byte) error {
	n.Identity = &trust.Identity{Key: n.Identity.Key, Chain: chain}
	return n.Identity.Save(n.Dir)
}

// Belongs refuses a token of another mesh than this node's. One of the same mesh is not needed any more,
// and does no harm.
func (n *Node) Belongs(token string) error {
	inv, _, err := trust.ParseInvite(token)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if inv.MeshID != n.Charter.MeshID() {
		return fmt.Errorf("%w: %s has a node of mesh %s, and the token is of another mesh; give another --data-dir", ErrConfig, n.Dir, n.Charter.MeshName())
	}
	return nil
}
