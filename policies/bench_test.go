package policies

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

// literalScore has n promise blocks; every 400th reads fact.load, half of them a role.
func literalScore(n int) map[string][]byte {
	files := map[string][]byte{}
	var b strings.Builder
	b.WriteString(head + `
role "web" { when = tag.tier == "web" }
fact "load" {
  command = ["x"]
  parse   = "number"
}
fact "nobody" { command = ["x"] }
`)
	for i := range n {
		if i%100 == 0 {
			if i > 0 {
				b.WriteString("}\n")
			}
			if b.Len() > maxFileBytes/2 {
				files[fmt.Sprintf("part%05d.hcl", i)] = []byte(b.String())
				b.Reset()
			}
			fmt.Fprintf(&b, "part \"p%d\" {\n", i)
			if i%200 == 0 {
				b.WriteString("  role = \"web\"\n")
			}
		}
		content := fmt.Sprintf("%q", fmt.Sprint("line ", i))
		if i%400 == 0 {
			content = `"load ${fact.load}"`
		}
		fmt.Fprintf(&b, "  file \"f%d\" {\n    path = \"etc/%d\"\n    mode = \"0644\"\n    content = %s\n  }\n", i, i, content)
	}
	b.WriteString("}\n")
	files["score.hcl"] = []byte(b.String())
	return files
}

func loaded(p *Program, load int64) Env {
	return world{name: "n", tags: map[string]string{"tier": "web"}, facts: map[string]cty.Value{
		"load": cty.NumberIntVal(load), "nobody": cty.StringVal("x"),
	}}.env(p)
}

func mustBundle(b *testing.B, files map[string][]byte) *Program {
	b.Helper()
	p, err := Compile(files)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkCompile10000(b *testing.B) {
	files := literalScore(10_000)
	size := 0
	for _, f := range files {
		size += len(f)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		mustBundle(b, files)
	}
}

// The memory that a compiled program keeps, per block.
func BenchmarkProgramHeap10000(b *testing.B) {
	files := literalScore(10_000)
	var keep *Program
	var before, after runtime.MemStats
	for b.Loop() {
		keep = nil
		runtime.GC()
		runtime.ReadMemStats(&before)
		keep = mustBundle(b, files)
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(keep.blocks)), "heap-B/promise")
}

func BenchmarkExpand10000(b *testing.B) {
	p := mustBundle(b, literalScore(10_000))
	e := loaded(p, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Expand(e, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExpand100BlocksOf100Keys(b *testing.B) {
	var src strings.Builder
	src.WriteString(head + "locals {\n  keys = [for i in split(\"\", format(\"%100s\", \"\")) : i]\n")
	src.WriteString("  names = { for n, i in local.keys : \"k${n}\" => n }\n}\npart \"p\" {\n")
	for i := range 100 {
		fmt.Fprintf(&src, "  file \"f%d\" {\n    for_each = local.names\n    path = \"d%d/${each.key}\"\n    content = \"x ${each.value} ${tag.tier}\"\n  }\n", i, i)
	}
	src.WriteString("}\n")
	p := mustBundle(b, map[string][]byte{"s.hcl": []byte(src.String())})
	e := world{name: "n", tags: map[string]string{"tier": "web"}}.env(p)
	for b.Loop() {
		if _, err := p.Expand(e, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// One fact changes among 10,000 promises (SPEC 13: <= 1 ms), 25 of which read it.
func BenchmarkOneFactAmong10000(b *testing.B) {
	p := mustBundle(b, literalScore(10_000))
	e := loaded(p, 2)
	for _, name := range []string{"fact.load", "fact.nobody", "role.web"} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				groups, err := p.Expand(e, []string{name})
				if err != nil {
					b.Fatal(err)
				}
				n = len(groups)
			}
			b.ReportMetric(float64(n), "groups")
		})
	}
}

// members() in a heredoc and in join, which cty alone would make quadratic.
func BenchmarkMembers(b *testing.B) {
	p := mustCompile(b, head+`
role "web" { when = tag.tier == "web" }
part "p" {
  report "join" { message = join("\n", [for m in members("web") : "${m.name} ${m.addr}"]) }
}`)
	for _, n := range []int{1000, 8000} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("node-%05d", i))
		}
		e := world{name: "n", members: map[string]cty.Value{"web": live(names...)}}.env(p)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				groups, err := p.Expand(e, nil)
				if err != nil || groups[0].Promises[0].Problem != "" {
					b.Fatal(err, groups[0].Promises[0].Problem)
				}
			}
		})
	}
}
