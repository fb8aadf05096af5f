package policies

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
)

// Defaults of POLICY.md that no attribute can change.
const (
	stopGrace      = 10 * time.Second
	commandTimeout = 10 * time.Minute
)

// common takes over what every promise has, as far as it is known.
func (p *Promise) common(vs values) error {
	if vs.has("why") {
		p.Why = vs.str("why")
	}
	if vs.has("jitter") {
		p.Jitter, _ = parsePercent(vs.str("jitter")) // checked by conform
	}
	p.Timeout = vs.duration("timeout")
	p.During = vs.str("during")
	p.Audit = !vs.bool("audit") // the field says whether it repairs
	if vs.has("every") {
		if p.Every = vs.duration("every"); p.Every == 0 {
			return errors.New("every must be above 0s")
		}
	}
	return nil
}

// fill turns known attributes into what the promise type promises.
func (ev *evaluator) fill(p *Promise, i instance, vs values) error {
	var err error
	switch i.b.typ {
	case "file":
		err = ev.file(p, i, vs)
	case "command":
		err = command(p, vs)
	case "process":
		p.Spec, err = ev.process(i, vs)
	case "guest":
		p.Spec, err = ev.guest(i, vs)
	case "artifact":
		err = ev.artifact(p, i, vs)
	case "want":
		err = want(p, vs)
	case "report":
		p.Spec = Report{Message: vs.str("message"), Level: vs.str("level")}
	default:
		err = fmt.Errorf("%s is not yet supported by this version", i.b.typ)
	}
	return err
}

func (ev *evaluator) file(p *Promise, i instance, vs values) error {
	f := File{
		Path: vs.str("path"), State: vs.str("state"), Copy: vs.str("copy"), Purge: vs.bool("purge"),
		Mode: vs.str("mode"), Owner: vs.str("owner"), Group: vs.str("group"), Validate: vs.strs("validate"),
	}
	if vs.has("content") {
		content := vs.str("content")
		f.Content = &content
	}
	if i.b.nested["lines"] {
		f.Lines = &Lines{
			Present: vs.strs("lines.present"), Absent: vs.strs("lines.absent"), Match: vs.str("lines.match"),
		}
		if err := checkLines(*f.Lines); err != nil {
			return err
		}
	}
	if vs.has("tree") {
		if f.Tree = ev.p.tree(vs.str("tree")); len(f.Tree) == 0 {
			return fmt.Errorf("tree %q has no file in the bundle", vs.str("tree"))
		}
	}
	sources := f.Content != nil || f.Copy != "" || f.Lines != nil || f.Tree != nil
	switch {
	case f.State == "dir" && (f.Content != nil || f.Copy != "" || f.Lines != nil):
		return errors.New(`state "dir" clashes with content, copy and lines`)
	case f.Purge && f.Tree == nil:
		return errors.New("purge needs tree")
	case len(f.Validate) > 0 && (!sources || f.Tree != nil):
		return errors.New("validate needs content, copy or lines")
	}
	if err := checkMode(f.Mode); err != nil {
		return err
	}
	p.Spec = f
	p.Makes = []string{"file:" + path.Clean(f.Path)}
	if f.Copy != "" {
		if path.Clean(f.Copy) == path.Clean(f.Path) {
			return fmt.Errorf("copy %q is the path itself", f.Copy)
		}
		p.Reads = []string{"file:" + path.Clean(f.Copy)}
	}
	return nil
}

// tree returns the files of a bundle folder by their names below it.
func (p *Program) tree(dir string) map[string]string {
	out := map[string]string{}
	prefix := strings.Trim(path.Clean(dir), "/") + "/"
	for name, src := range p.data {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out[rest] = string(src)
		}
	}
	return out
}

func checkLines(l Lines) error {
	if l.Match != "" {
		if _, err := compileRegexp(l.Match); err != nil {
			return fmt.Errorf("lines.match: %w", err)
		}
		if len(l.Present) == 0 {
			return errors.New("lines.match needs present: matching lines give way to it")
		}
	}
	for _, line := range slices.Concat(l.Present, l.Absent) {
		if strings.ContainsAny(line, "\n\r") {
			return fmt.Errorf("line %.40q holds a line break: write it as two", line)
		}
	}
	for _, line := range l.Present {
		if slices.Contains(l.Absent, line) {
			return fmt.Errorf("line %.40q is both present and absent", line)
		}
	}
	return nil
}

func checkMode(mode string) error {
	if mode == "" {
		return nil
	}
	n, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || n > 0o7777 {
		return fmt.Errorf("mode %.20q is not octal (such as 0644)", mode)
	}
	return nil
}

func command(p *Promise, vs values) error {
	c := Command{
		Run: vs.strs("run"), Shell: vs.str("shell"), Inputs: vs.strs("inputs"), Outputs: vs.strs("outputs"),
		Env: vs.dict("env"), Dir: vs.str("dir"), User: vs.str("user"), Timeout: vs.duration("timeout"),
		OK: vs.ints("ok"),
	}
	if c.Timeout == 0 {
		c.Timeout = commandTimeout
	}
	if len(c.Run) == 0 && c.Shell == "" {
		return errors.New("command needs run or shell, and both are empty")
	}
	if err := checkArgv(c.Run); err != nil {
		return err
	}
	for _, glob := range slices.Concat(c.Inputs, c.Outputs) {
		if err := checkGlob(glob); err != nil {
			return err
		}
	}
	for _, in := range c.Inputs {
		if slices.ContainsFunc(c.Outputs, func(out string) bool { return path.Clean(out) == path.Clean(in) }) {
			return fmt.Errorf("%q is both input and output: an output may not be its own input", in)
		}
		p.Reads = append(p.Reads, "file:"+prefixOf(in))
	}
	for _, out := range c.Outputs {
		if made := prefixOf(out); made != "." { // the work folder itself is nobody's product
			p.Makes = append(p.Makes, "file:"+made)
		}
	}
	p.Spec = c
	return nil
}

func checkArgv(argv []string) error {
	if len(argv) > 0 && argv[0] == "" {
		return errors.New("run has no program")
	}
	for _, a := range argv {
		if strings.Contains(a, "\x00") {
			return errors.New("run has a zero byte")
		}
	}
	return nil
}

func (ev *evaluator) process(i instance, vs values) (Spec, error) {
	pr := Process{
		Run: vs.strs("run"), Env: vs.dict("env"), Dir: vs.str("dir"), User: vs.str("user"),
		RestartOn: ev.resolve(i, i.b.refs["restart_on"]), StopSignal: vs.str("stop"), StopGrace: stopGrace,
		StopWithAgent: vs.bool("stop_with_agent"), State: vs.str("state"),
	}
	if len(pr.Run) == 0 {
		return nil, errors.New("run is empty")
	}
	if err := checkArgv(pr.Run); err != nil {
		return nil, err
	}
	pr.BackoffMin, pr.BackoffMax, _ = parseSpan(vs.str("backoff")) // checked by conform
	if !i.b.nested["check"] {
		return pr, nil
	}
	c := Check{
		Run: vs.strs("check.run"), HTTP: vs.str("check.http"), TCP: vs.str("check.tcp"),
		Every: vs.duration("check.every"), Timeout: vs.duration("check.timeout"),
		Passes: vs.int("check.passes"), Fails: vs.int("check.fails"),
	}
	switch {
	case c.HTTP != "":
		u, err := url.Parse(c.HTTP)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("check.http %.80q is no http:// address", c.HTTP)
		}
	case c.TCP != "":
		if _, port, ok := strings.Cut(c.TCP, ":"); !ok || port == "" {
			if _, err := netip.ParseAddrPort(c.TCP); err != nil {
				return nil, fmt.Errorf("check.tcp %.80q is not HOST:PORT", c.TCP)
			}
		}
	case len(c.Run) == 0:
		return nil, errors.New("check needs run, http or tcp, and all are empty")
	}
	if c.Every == 0 || c.Timeout == 0 || c.Passes == 0 || c.Fails == 0 {
		return nil, errors.New("every, timeout, passes and fails of check must be above 0")
	}
	pr.Check = &c
	return pr, nil
}

// nodeName reports whether s may be the name of a node (SPEC 4).
func nodeName(s string) bool {
	if s == "" || len(s) > 63 || strings.Contains("._-", s[:1]) {
		return false
	}
	return !strings.Contains(s, "/") && checkPattern(s, false) == nil
}

func (ev *evaluator) artifact(p *Promise, i instance, vs values) error {
	a := Artifact{
		Name: vs.str("name"), From: vs.str("from"), Version: vs.str("version"), Keep: vs.int("keep"),
		Meta: vs.dict("meta"),
	}
	if a.Name == "" {
		a.Name = i.b.name
	}
	if err := checkPattern(a.Name, false); err != nil {
		return err
	}
	if a.Name == "score" {
		return errors.New(`name "score" is the score's own: use meshctl policy publish`)
	}
	if a.Version != "auto" {
		if _, err := semver.NewVersion(a.Version); err != nil {
			return fmt.Errorf(`version %.80q is neither "auto" nor a semver`, a.Version)
		}
	}
	if a.Keep == 0 {
		return errors.New("keep must be 1 or more")
	}
	if err := checkGlob(a.From); err != nil {
		return err
	}
	if _, said := i.b.raw["of"]; said {
		a.Of = append([]Address{}, ev.resolve(i, i.b.refs["of"])...)
	}
	p.Spec = a
	p.Reads = []string{"file:" + prefixOf(a.From)}
	p.Makes = []string{"artifact:" + a.Name}
	return nil
}

func want(p *Promise, vs values) error {
	w := Want{
		Name: vs.str("name"), From: vs.str("from"), Version: vs.str("version"), Place: vs.str("place"),
		Mode: vs.str("mode"), Owner: vs.str("owner"), Adopt: vs.bool("adopt"), Keep: vs.int("keep"),
	}
	if err := checkPattern(w.Name, true); err != nil {
		return err
	}
	if err := checkMode(w.Mode); err != nil {
		return err
	}
	late := strings.Contains(w.Place, "${artifact.name}") || strings.Contains(w.Place, "${artifact.publisher}")
	if wildcard(w.Name) && !late {
		return fmt.Errorf("place %q must hold ${artifact.name} or ${artifact.publisher}: name %q matches many", w.Place, w.Name)
	}
	if w.Version != "latest" {
		if _, err := semver.NewConstraint(w.Version); err != nil {
			return fmt.Errorf(`version %.80q is neither "latest" nor a semver nor a constraint`, w.Version)
		}
	}
	if w.Keep == 0 {
		return errors.New("keep must be 1 or more")
	}
	p.Spec = w
	if dir := prefixOf(w.Place); dir != "." {
		p.Makes = []string{"file:" + dir}
	}
	if !wildcard(w.Name) {
		p.Reads = []string{"artifact:" + w.Name}
	}
	return nil
}
