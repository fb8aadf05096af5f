package agent

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"meshd/agent/control"
)

const (
	maxTagText  = 128 // bytes of a value
	maxTagBytes = 512 // of all declared tags, keys and values: they ride in each status record
)

var tagPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// declared is what this node says of itself: tags set by an operator, under those given at its start.
func (a *Agent) declared() map[string]string {
	out := map[string]string{}
	maps.Copy(out, a.cfg.Node.Tags)
	maps.Copy(out, a.cfg.Tags)
	return out
}

// allTags lays the attested tags over the declared ones.
func (a *Agent) allTags() map[string]string {
	out := a.declared()
	maps.Copy(out, a.attested)
	return out
}

func (d door) SetTags(ctx context.Context, tags map[string]string) (all map[string]string, err error) {
	if doErr := d.a.loop.do(ctx, func() { all, err = d.a.loop.setTags(tags) }); doErr != nil {
		return nil, doErr
	}
	return all, err
}

// setTags keeps the new tags first and derives the roles from them then.
func (l *loop) setTags(tags map[string]string) (map[string]string, error) {
	a := l.a
	if err := a.checkTags(tags); err != nil {
		return nil, err
	}
	old := a.cfg.Node.Tags
	now := maps.Clone(old)
	if now == nil {
		now = map[string]string{}
	}
	var changed, words []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if now[k] == tags[k] {
			continue
		}
		now[k] = tags[k]
		word := fmt.Sprintf("tag %s is %q", k, tags[k])
		if tags[k] == "" {
			delete(now, k)
			word = fmt.Sprintf("tag %s is taken away", k)
		}
		changed, words = append(changed, "tag."+k), append(words, word)
	}
	if len(changed) == 0 {
		return a.allTags(), nil
	}
	a.cfg.Node.Tags = now
	if err := a.fitTags(); err != nil {
		a.cfg.Node.Tags = old
		return nil, err
	}
	if err := a.cfg.Node.saveSettings(); err != nil {
		a.cfg.Node.Tags = old
		return nil, fmt.Errorf("keep the tags: %w", err)
	}
	a.tags = a.allTags()
	entry := l.log.append(Entry{
		At: a.cfg.Wall(), Kind: aboutNode, Subject: a.name, Text: strings.Join(words, ", "), Cause: Cause{Text: "meshctl tag set on " + a.name},
	})
	l.derive(changed, Cause{Entry: entry})
	l.world.hear(l.liveMembers())
	return a.allTags(), nil
}

func (a *Agent) checkTags(tags map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		_, attested := a.attested[k]
		_, given := a.cfg.Tags[k]
		switch {
		case attested:
			return control.Errorf(control.Failed, "tag %s is attested in this node's certificate, as %q: only a new invite changes it (meshctl invite --name %s --replace --tag %s=...)", k, a.attested[k], a.name, k)
		case given:
			return control.Errorf(control.Failed, "tag %s is given at the start of this meshd, as %q: change it there", k, a.cfg.Tags[k])
		case !tagPattern.MatchString(k):
			return control.Errorf(control.Usage, "tag %q: want 1 to 63 of A-Z a-z 0-9 _ -, a letter or _ first", k)
		case len(tags[k]) > maxTagText:
			return control.Errorf(control.Usage, "tag %s: its value has %d bytes, the limit is %d", k, len(tags[k]), maxTagText)
		}
	}
	return nil
}

// fitTags refuses more tags than a status record can tell.
func (a *Agent) fitTags() error {
	tags, size := a.declared(), 0
	for k, v := range tags {
		size += len(k) + len(v)
	}
	if len(tags) > maxDeclared || size > maxTagBytes {
		return control.Errorf(control.Failed, "with these this node would declare %d tags of %d bytes: the limits are %d and %d; take some away with meshctl tag set KEY=",
			len(tags), size, maxDeclared, maxTagBytes)
	}
	return nil
}
