package policies

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

const head = "score \"s\" { version = \"1.0.0\" }\n"

// told is what a test sees of a promise that cannot be played.
type told struct {
	Hold    bool
	Outcome Outcome
	Problem string
}

func TestUnknownIsNotFalse(t *testing.T) {
	p := mustCompile(t, head+`
fact "load" {
  command = ["x"]
  parse   = "number"
}
fact "list" {
  command = ["x"]
  parse   = "lines"
}
role "busy" { when = fact.load > 4 }
part "idle" {
  when = !role.busy
  report "r" { message = "x" }
}
part "busy" {
  role = "busy"
  report "r" { message = "x" }
}
part "all" {
  report "attribute" { message = "load ${fact.load}" }
  report "when" {
    when    = fact.load > 4
    message = "x"
  }
  report "short" {
    when    = fact.load > 4 && tag.x == "y"
    message = "x"
  }
  report "keys" {
    for_each = fact.list
    message  = each.key
  }
  report "follows" {
    needs   = [report.when]
    message = "x"
  }
  report "clock" {
    when    = during("22:00-06:00")
    message = "x"
  }
}`)
	got := map[Address]told{}
	for a, pr := range played(t, p, world{name: "n"}.env(p), nil) {
		got[a] = told{pr.Hold, pr.ProblemOutcome, pr.Problem}
	}
	load := "waiting for fact.load"
	want := map[Address]told{
		"idle.report.r":        {true, Waiting, load},
		"busy.report.r":        {true, Waiting, load},
		"all.report.attribute": {false, Waiting, load},
		"all.report.when":      {true, Waiting, load},
		"all.report.keys":      {true, Waiting, "waiting for fact.list"},
		"all.report.follows":   {true, Waiting, load},
		"all.report.clock":     {true, Waiting, "waiting for the clock"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// An expression that fails when evaluated fails its promise by name; the rest plays on.
func TestAFaultFailsItsPromiseOnly(t *testing.T) {
	p := mustCompile(t, head+`
locals {
  two  = [for i in split("", format("%200s", "")) : i]
  loop = length(flatten([for a in local.two : [for b in local.two : [for c in local.two : [for d in local.two : 1]]]]))
  a0   = ["x", "x"]
  a1   = [local.a0, local.a0, local.a0, local.a0, local.a0, local.a0, local.a0, local.a0]
  a2   = [local.a1, local.a1, local.a1, local.a1, local.a1, local.a1, local.a1, local.a1]
  a3   = [local.a2, local.a2, local.a2, local.a2, local.a2, local.a2, local.a2, local.a2]
  a4   = [local.a3, local.a3, local.a3, local.a3, local.a3, local.a3, local.a3, local.a3]
  a5   = [local.a4, local.a4, local.a4, local.a4, local.a4, local.a4, local.a4, local.a4]
  a6   = [local.a5, local.a5, local.a5, local.a5, local.a5, local.a5, local.a5, local.a5]
}
part "p" {
  report "loop" { message = "${local.loop}" }
  report "laughs" { message = jsonencode(local.a6) }
  report "key" { message = { a = "x" }[tag.key] }
  report "big" { message = join("", [for i in local.two : format("%1000s", join("", [for j in local.two : format("%1000s", "")]))]) }
  report "number" { message = "${1e300 * 1e300 * 1e300}" }
  report "nested" { message = "${try(try(try(try(try(try(try(try(try(try(try(try(try(try(try(try(lookup({}, "x")))))))))))))))))}" }
  report "fine" { message = "fine" }
}`)
	start := time.Now()
	got := played(t, p, world{name: "n"}.env(p), nil)
	t.Logf("took %v", time.Since(start))
	want := map[Address]string{
		"p.report.loop":   "out of fuel",
		"p.report.laughs": "out of fuel",
		"p.report.big":    "out of fuel",
		"p.report.key":    "invalid index",
		"p.report.number": "limit of 1e308",
		"p.report.nested": "no argument of try succeeds",
		"p.report.fine":   "",
	}
	for a, fragment := range want {
		pr := got[a]
		if fragment == "" && (pr.Problem != "" || pr.Spec == nil) {
			t.Errorf("%s: %q", a, pr.Problem)
		}
		if fragment != "" && (pr.ProblemOutcome != Failed || pr.Spec != nil || !strings.Contains(pr.Problem, fragment)) {
			t.Errorf("%s: %v %q, want %q", a, pr.ProblemOutcome, pr.Problem, fragment)
		}
		if len(pr.Problem) > 500 {
			t.Errorf("%s: problem of %d bytes", a, len(pr.Problem))
		}
	}
}

func TestNeedsThatAreNotPlayedHere(t *testing.T) {
	p := mustCompile(t, head+`
role "a" { when = tag.a == "yes" }
part "a" {
  role = "a"
  file "made" { path = "out/made" }
}
part "p" {
  file "off" {
    when = tag.on == "yes"
    path = "off"
  }
  report "follows" {
    needs   = [file.off]
    message = "x"
  }
  report "further" {
    needs   = [report.follows]
    message = "x"
  }
  file "own" {
    needs = [file.off]
    path  = "own"
    copy  = "elsewhere"
  }
  file "theirs" {
    needs = [file.off]
    path  = "theirs"
    copy  = "off"
  }
  artifact "abroad" {
    needs = [part.a.file.made]
    from  = "out"
  }
  file "keyed" {
    for_each = ["x", "y"]
    when     = each.key != tag.without
    path     = "k/${each.key}"
  }
  artifact "keyed" {
    for_each = ["y", "x"]
    name     = "k/${each.key}"
    from     = "k/${each.key}"
    needs    = [file.keyed]
  }
  report "all" {
    needs   = [file.keyed]
    message = "x"
  }
}`)
	play := func(tags map[string]string) map[Address]Promise {
		return played(t, p, world{name: "n", tags: tags}.env(p), nil)
	}
	got := addresses(play(map[string]string{"without": "x"}))
	want := []string{`p.artifact.keyed["y"]`, `p.file.keyed["y"]`, "p.file.own", "p.report.all"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	all := play(map[string]string{"a": "yes", "on": "yes"})
	if diff := cmp.Diff([]Address{"a.file.made"}, all["p.artifact.abroad"].Needs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Address{`p.file.keyed["x"]`}, all[`p.artifact.keyed["x"]`].Needs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Address{`p.file.keyed["x"]`, `p.file.keyed["y"]`}, all["p.report.all"].Needs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Address{"p.file.off"}, all["p.file.own"].Needs); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyWhatReadsAChangedNameIsExpanded(t *testing.T) {
	p := mustCompile(t, head+`
fact "load" {
  command = ["x"]
  parse   = "number"
}
locals { busy = fact.load > 4 }
role "web" { when = tag.tier == "web" }
part "p" {
  report "through" { message = "${local.busy}" }
  report "when" {
    when    = fact.load > 2
    message = "x"
  }
  report "needs" {
    needs   = [report.when]
    message = "x"
  }
  report "content" {
    needs   = [report.through]
    message = "x"
  }
  report "other" { message = node.addr }
  report "tags" { message = jsonencode(tag) }
  report "members" { message = "${count("web")}" }
}
part "web" {
  role = "web"
  report "r" { message = "x" }
}`)
	e := world{name: "n", facts: map[string]cty.Value{"load": cty.NumberIntVal(3)}}.env(p)
	tests := []struct {
		changed []string
		want    []Address
	}{
		{[]string{"fact.load"}, []Address{"p.report.through", "p.report.when", "p.report.needs"}},
		{[]string{"tag.any"}, []Address{"p.report.tags"}},
		{[]string{"members.web"}, []Address{"p.report.members"}},
		{[]string{"role.web"}, []Address{"web.report.r"}},
		{[]string{"node.addr"}, []Address{"p.report.other"}},
		{[]string{"fact.nobody", NameTime}, nil},
		{[]string{}, nil},
	}
	for _, tt := range tests {
		groups, err := p.Expand(e, tt.changed)
		if err != nil {
			t.Fatal(err)
		}
		var got []Address
		for _, g := range groups {
			got = append(got, g.Block)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.changed, got, tt.want)
		}
	}
	// A partial run says the same as a full one.
	full := played(t, p, e, nil)
	for a, pr := range played(t, p, e, []string{"fact.load", "node.addr"}) {
		if pr.Hash != full[a].Hash {
			t.Errorf("%s differs between a partial and a full run", a)
		}
	}
}

func TestTheHashCoversWhatIsKept(t *testing.T) {
	part := func(why, content string) Promise {
		p := mustCompile(t, head+`part "p" {
  file "f" {
    why     = "`+why+`"
    path    = "f"
    content = "`+content+`"
  }
}`)
		return played(t, p, world{name: "n"}.env(p), nil)["p.file.f"]
	}
	base := part("a", "x")
	if base.Hash == ([32]byte{}) || part("b", "x").Hash != base.Hash {
		t.Error("why is no part of the identity")
	}
	if part("a", "y").Hash == base.Hash {
		t.Error("content is")
	}
}

func TestTwoPromisesOnOnePathShowBothPlaces(t *testing.T) {
	p := mustCompile(t, head+`
part "p" {
  file "one" {
    when = tag.x == ""
    path = "etc/./a"
  }
  file "two" { path = "etc/${tag.name}" }
  want "many" {
    name  = "a/*"
    place = "etc/${artifact.name}"
  }
  want "more" {
    name  = "b/*"
    place = "etc/${artifact.publisher}/${artifact.version}"
  }
}`)
	e := world{name: "n", tags: map[string]string{"name": "a"}}.env(p)
	want := `score.hcl:8:3: path "etc/a" is promised twice: here, and by p.file.one at score.hcl:4:3`
	for _, changed := range [][]string{nil, {"tag.name"}} {
		got := played(t, p, e, changed)
		if pr := got["p.file.two"]; pr.ProblemOutcome != Failed || pr.Problem != want || pr.Spec != nil {
			t.Errorf("changed %v: %q", changed, pr.Problem)
		}
	}
	got := played(t, p, e, nil)
	if pr := got["p.file.one"]; pr.Problem != "" {
		t.Errorf("the first one: %q", pr.Problem)
	}
	if w := got["p.want.many"].Spec.(Want); w.Place != "etc/${artifact.name}" {
		t.Errorf("late names stand literally: %q", w.Place)
	}
}

func TestAPromiseHasItsDefaultsAndItsOwn(t *testing.T) {
	p := mustCompile(t, `
score "s" {
  version = "1.2.3"
  every   = "30s"
  jitter  = "20%"
}
part "p" {
  why = "the part's"
  command "plain" { run = ["true"] }
  command "own" {
    why     = "its own"
    run     = ["true", tag.none != "" ? "a" : null]
    every   = "2h"
    jitter  = "0%"
    timeout = "5s"
    during  = "22:00-06:00 Mon-Fri Europe/Oslo"
    audit   = true
    ok      = [0, 3]
    env     = { A = 1, B = null }
    user    = tag.none == "" ? null : "x"
    outputs = ["o/*.txt", "*.log"]
    inputs  = ["in/**/*.c", "one"]
  }
  process "run" {
    run        = ["x"]
    restart_on = [command.own]
    check {
      tcp = "127.0.0.1:80"
    }
  }
}`)
	got := played(t, p, world{name: "n"}.env(p), nil)
	plain, own := got["p.command.plain"], got["p.command.own"]
	if plain.Every != 30*time.Second || plain.Jitter != 0.2 || plain.Why != "the part's" || !plain.Audit {
		t.Errorf("plain: %+v", plain)
	}
	if c := plain.Spec.(Command); c.Timeout != 10*time.Minute || !slices.Equal(c.OK, []int{0}) {
		t.Errorf("plain: %+v", c)
	}
	if own.Every != 2*time.Hour || own.Jitter != 0 || own.Timeout != 5*time.Second || own.Audit || own.Why != "its own" {
		t.Errorf("own: %+v", own)
	}
	if own.Problem == "" {
		t.Error("a null inside a list must fail its promise")
	}
	run := got["p.process.run"]
	if pr := run.Spec.(Process); !slices.Equal(pr.RestartOn, []Address{"p.command.own"}) || pr.Check.Fails != 3 || pr.StopGrace != 10*time.Second {
		t.Errorf("run: %+v", pr)
	}
	if !slices.Equal(run.Needs, []Address{"p.command.own"}) {
		t.Errorf("restart_on is needed too: %v", run.Needs)
	}
}

func TestMorePromisesThanTheLimit(t *testing.T) {
	p := mustCompile(t, head+`
fact "many" {
  command = ["x"]
  parse   = "lines"
}
part "p" {
  report "a" {
    for_each = fact.many
    message  = "x"
  }
  report "b" {
    for_each = fact.many
    message  = "x"
  }
}`)
	var lines []cty.Value
	for i := range maxPromises/2 + 1 {
		lines = append(lines, cty.StringVal(strings.Repeat("x", i%100)+time.Duration(i).String()))
	}
	e := world{name: "n", facts: map[string]cty.Value{"many": cty.ListVal(lines)}}.env(p)
	if _, err := p.Expand(e, nil); err == nil || !strings.Contains(err.Error(), "limit of 20000") {
		t.Errorf("got %v", err)
	}
}
