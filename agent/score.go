package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"meshd/mesh/id"
	"meshd/policies"
	"meshd/store/artifact"
)

const (
	scoreV1       = 1
	scoreTimeout  = 5 * time.Minute // to pull a score
	scoreKeep     = 5               // versions of the score that its publisher keeps
	maxScoreFile  = 1 << 20
	maxScoreBytes = 8 << 20
	stateInForce  = "in force"
	stateRefused  = "refused"
	stateNone     = "none"
)

// A scoreState is the score in force, or one that was refused. Durable before it is played.
type scoreState struct {
	Semver  string            `json:"semver"`
	Counter uint64            `json:"counter"`
	By      string            `json:"by"`
	Root    string            `json:"root"`
	Since   time.Time         `json:"since"`
	Problem string            `json:"problem,omitempty"`
	Files   map[string][]byte `json:"files,omitempty"`
}

// older orders scores by (semver, counter, publisher, hash), as SPEC 11 says.
func (s scoreState) compare(o scoreState) int {
	x, errX := semver.NewVersion(s.Semver)
	y, errY := semver.NewVersion(o.Semver)
	bySemver := 0
	if errX == nil && errY == nil {
		bySemver = x.Compare(y)
	}
	return cmp.Or(bySemver, cmp.Compare(s.Counter, o.Counter), strings.Compare(s.By, o.By), strings.Compare(s.Root, o.Root))
}

var (
	keyScoreInForce = []byte("in-force")
	keyScoreRefused = []byte("refused")
)

func readScore(shelf Shelf, key []byte) (*scoreState, error) {
	_, values, err := shelf.Scan(key, append(slices.Clone(key), 0), 1)
	if err != nil || len(values) == 0 {
		return nil, err
	}
	if first(values[0]) != scoreV1 {
		return nil, fmt.Errorf("read the score in force: version %d of the format, this program knows %d", first(values[0]), scoreV1)
	}
	var s scoreState
	if err := json.Unmarshal(values[0][1:], &s); err != nil {
		return nil, fmt.Errorf("read the score in force: %w", err)
	}
	return &s, nil
}

func writeScore(shelf Shelf, key []byte, s scoreState) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return shelf.Apply([][]byte{key}, [][]byte{append([]byte{scoreV1}, b...)})
}

// considerScore looks for a newer score among what was heard, and fetches it in a goroutine.
func (l *loop) considerScore(ctx context.Context) {
	if l.policyDir != "" || l.fetchingScore {
		return
	}
	best := l.newestScore()
	if best == nil {
		return
	}
	found := best.state()
	if (l.inForce != nil && found.compare(*l.inForce) <= 0) || (l.refused != nil && found.Root == l.refused.Root) {
		return
	}
	l.fetchingScore = true
	ref := best.ref
	l.wg.Go(func() {
		files, err := l.a.fetchScore(ctx, ref)
		l.post(func() {
			l.fetchingScore = false
			if l.policyDir != "" {
				return // a local score took its place while it was fetched
			}
			if err != nil {
				l.a.cfg.Log.Warn("a newer score can't be fetched yet", "score", found.Semver, "error", err)
				l.scoreRetry = time.Now().Add(redoScore)
				return
			}
			found.Files = files
			l.tryScore(found)
		})
	})
}

const redoScore = 2 * time.Second // after a newer score could not be fetched

func (o offered) state() scoreState {
	return scoreState{
		Semver: o.body.Semver, Counter: o.body.Counter, By: o.ref.Version.By.String(), Root: o.ref.Root.String(),
	}
}

// newestScore is the newest live record of a score key; nil if none.
func (l *loop) newestScore() *offered {
	var best *offered
	for _, o := range l.a.supply.named(scoreName) {
		if !l.a.mesh.Charter().IsScoreKey(o.ref.Version.By) {
			continue
		}
		if cert, ok := l.a.mesh.Catalog().Cert(o.ref.Version.By); !ok || l.a.mesh.Catalog().Revoked(cert.Key) {
			continue
		}
		if best == nil || o.state().compare(best.state()) > 0 {
			best = &o
		}
	}
	return best
}

func (a *Agent) fetchScore(ctx context.Context, ref artifact.Ref) (map[string][]byte, error) {
	if ref.SizeBytes > maxScoreBytes {
		return nil, fmt.Errorf("score of %d bytes: the limit is %d", ref.SizeBytes, maxScoreBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, scoreTimeout)
	defer cancel()
	if err := a.supply.pull(ctx, ref); err != nil {
		return nil, err
	}
	return a.readTree(ref.Root)
}

// readTree reads a small artifact whole, from the store.
func (a *Agent) readTree(root artifact.Digest) (map[string][]byte, error) {
	m, err := a.store.Manifest(root)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	total := 0
	for _, e := range m.Entries {
		if e.Kind != artifact.File {
			continue
		}
		var b, part []byte
		for _, c := range e.Chunks {
			if part, err = a.store.Read(c.ID, part); err != nil {
				return nil, err
			}
			b = append(b, part...)
		}
		if total += len(b); total > maxScoreBytes {
			return nil, fmt.Errorf("score of over %d bytes", maxScoreBytes)
		}
		files[e.Name] = b
	}
	return files, nil
}

// tryScore compiles a score and puts it in force, or refuses it and plays on.
func (l *loop) tryScore(s scoreState) {
	program, err := policies.Compile(s.Files)
	if err == nil && program.Score().Version != s.Semver {
		err = fmt.Errorf("the score says version %s, its advert %s", program.Score().Version, s.Semver)
	}
	s.Since = l.a.cfg.Wall()
	if err != nil {
		l.a.tally.scoresRefused.Add(1)
		s.Problem = err.Error()
		l.refused = &s
		l.a.cfg.Log.Error("a newer score is refused; the last good one plays on", "version", s.Semver, "error", err)
		l.log.append(Entry{At: s.Since, Kind: aboutScore, Subject: scoreName + "@" + s.Semver, Outcome: stateRefused, Text: s.Problem})
		if err := writeScore(l.a.scoreShelf, keyScoreRefused, s); err != nil {
			l.a.cfg.Log.Error("the refusal can't be remembered", "error", err)
		}
		l.publishView()
		return
	}
	if l.inForce != nil && l.inForce.Semver == s.Semver && l.inForce.Root != s.Root {
		l.a.cfg.Log.Error("two unlike scores have one version; the later one plays", "version", s.Semver)
	}
	if err := writeScore(l.a.scoreShelf, keyScoreInForce, s); err != nil {
		l.a.cfg.Log.Error("the new score can't be remembered, so it is not played yet", "error", err)
		l.scoreRetry = time.Now().Add(redoScore)
		return
	}
	l.play(program, &s, Cause{Node: s.By, Text: "score " + s.Semver + " by " + l.a.nameOfHex(s.By)})
}

// play puts a program in force. Promises that it did not change are not disturbed.
func (l *loop) play(program *policies.Program, s *scoreState, cause Cause) {
	old := l.blocks
	l.program, l.inForce = program, s
	l.publishView()
	cause.Entry = l.log.append(Entry{
		At: l.a.cfg.Wall(), Kind: aboutScore, Subject: scoreName + "@" + program.Score().Version, Outcome: stateInForce,
		Text: strings.TrimSuffix(program.Score().Name+": "+program.Score().Why, ": "), Cause: cause, Score: program.Score().Hash,
	})
	cause.Node, cause.Text = "", ""
	l.a.cfg.Log.Info("a score is in force", "score", program.Score().Name, "version", program.Score().Version)
	l.world.setEdge(l)
	l.world.restoreFacts(l)
	l.played = map[policies.Address]bool{}
	l.derive(nil, cause)
	for block, addresses := range old {
		if l.played[block] {
			continue
		}
		for _, address := range addresses {
			if in := l.instances[address]; in != nil {
				l.finish(in)
			}
		}
		delete(l.blocks, block)
	}
	l.played = nil
}

// publishView lets other goroutines see which score is in force.
func (l *loop) publishView() {
	l.a.view.Store(&view{program: l.program, inForce: l.inForce, refused: l.refused})
	l.a.copySoon()
}

// A view is what other goroutines may see of the score; it never changes.
type view struct {
	program          *policies.Program
	inForce, refused *scoreState
}

// loadScore puts in force what was in force before, or the local score of --policy.
func (l *loop) loadScore() error {
	if l.policyDir != "" {
		return l.localScore()
	}
	var err error
	if l.refused, err = readScore(l.a.scoreShelf, keyScoreRefused); err != nil {
		return err
	}
	s, err := readScore(l.a.scoreShelf, keyScoreInForce)
	if err != nil {
		return err
	}
	if s == nil {
		l.publishView()
		return nil
	}
	program, err := policies.Compile(s.Files)
	if err != nil {
		l.a.cfg.Log.Error("the score in force does not compile under this version; waiting for a newer one", "error", err)
		l.publishView()
		return nil
	}
	l.play(program, s, Cause{Text: causeStart})
	return nil
}

// localScore plays the folder of --policy in place of the mesh's.
func (l *loop) localScore() error {
	files, program, err := compileFolder(l.policyDir)
	if err != nil {
		return err
	}
	l.playLocal(l.policyDir, files, program)
	return nil
}

// ReadFolder reads the files of a score: all of the folder and below, within the limits of POLICY.md.
func ReadFolder(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	total := 0
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read score %q: %w", dir, err)
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasPrefix(filepath.Base(path), ".") {
			return nil
		}
		b, err := root.ReadFile(path)
		if err != nil {
			return err
		}
		if total += len(b); len(b) > maxScoreFile || total > maxScoreBytes {
			return fmt.Errorf("%s: a score has at most %d bytes a file and %d in all", path, maxScoreFile, maxScoreBytes)
		}
		files[path] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read score %q: %w", dir, err)
	}
	return files, nil
}

// allowPull is asked for every request of a peer: the score and whatever the score lets it pull.
func (a *Agent) allowPull(peer id.Node, root artifact.Digest, maker id.Node) bool {
	cert, ok := a.mesh.CertOf(peer)
	if !ok || a.mesh.Catalog().Revoked(cert.Key) {
		return false
	}
	names := a.namesOf(root, maker)
	if slices.Contains(names, scoreName) {
		return true
	}
	v := a.view.Load()
	if v == nil || v.program == nil {
		return len(names) > 0 // no rules yet: any member pulls
	}
	holds := a.rights.holds(v.program, cert)
	return slices.ContainsFunc(names, func(name string) bool {
		ok, _ := v.program.Allows("pull", name, cert.Name, holds)
		return ok
	})
}

// namesOf lists the names under which a root is offered by one who may, if that is the maker. Every node knows
// every root: a name that somebody else gives it, to open it for others, must not count.
func (a *Agent) namesOf(root artifact.Digest, maker id.Node) []string {
	var names []string
	for _, o := range a.supply.index.rooted(root) {
		if o.ref.Version.By == maker && a.supply.trusted(o) {
			names = append(names, o.ref.Name)
		}
	}
	return names
}

// allowInvite says whether a peer's role lets it have a child of that name admitted.
func (a *Agent) allowInvite(peer id.Node, name string) bool {
	cert, ok := a.mesh.Catalog().Cert(peer)
	v := a.view.Load()
	if !ok || v == nil || v.program == nil {
		return false
	}
	ok, _ = v.program.Allows("admit", name, cert.Name, a.rights.holds(v.program, cert))
	return ok
}

func (a *Agent) nameOfHex(hex string) string {
	n, err := id.Parse(hex)
	if err != nil {
		return hex
	}
	return a.nameOf(n)
}

var errNoScore = errors.New("no score is in force on this node; publish one with meshctl policy publish DIR")
