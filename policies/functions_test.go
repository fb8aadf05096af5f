package policies

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

// say evaluates expressions of a score as the message of a report: its text, or "!" and what is wrong.
func say(t *testing.T, files map[string]string, w world, exprs []string) []string {
	t.Helper()
	var src strings.Builder
	src.WriteString(head + "role \"web\" { when = tag.tier == \"web\" }\nfact \"f\" { command = [\"x\"] }\npart \"p\" {\n")
	for i, x := range exprs {
		src.WriteString("  report \"r" + strings.Repeat("x", i) + "\" { message = " + x + " }\n")
	}
	src.WriteString("}\n")
	bundle := map[string][]byte{"score.hcl": []byte(src.String())}
	for name, text := range files {
		bundle[name] = []byte(text)
	}
	p, err := Compile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := p.Expand(w.env(p), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, g := range groups {
		pr := g.Promises[0]
		if pr.Problem != "" {
			out = append(out, "!"+pr.Problem)
			continue
		}
		out = append(out, pr.Spec.(Report).Message)
	}
	return out
}

func TestFunctions(t *testing.T) {
	files := map[string]string{
		"x.sh":       "echo ${HOME}\n",
		"motd":       "Hello ${name}%{ for p in ports }, ${p}%{ endfor }",
		"sub/a.conf": "a",
	}
	tests := []struct{ expr, want string }{
		{`contains(["a", 1], "1") && !contains(["a"], "b")`, "true"},
		{`any(false, [false, true])`, "true"},
		{`all([true], true) && all([]) && !any([])`, "true"},
		{`any(tag.x == "y", fact.f == "x")`, "!waiting for fact.f"},
		{`any(tag.x == "", fact.f == "x")`, "true"},
		{`not(false)`, "true"},
		{`join("-", keys({ b = 1, a = 2 }))`, "a-b"},
		{`join("-", values({ b = 1, a = 2 }))`, "2-1"},
		{`jsonencode(merge({ a = 1, b = 1 }, { b = 2 }))`, `{"a":1,"b":2}`},
		{`join(",", setunion(["b", "a"], ["c", "a"]))`, "a,b,c"},
		{`join(",", setintersection(["b", "a"], ["a", "a"], ["a", "x"]))`, "a"},
		{`join(",", setsubtract(["b", "a", "c"], ["c"]))`, "a,b"},
		{`join(",", distinct(["b", "a", "b"]))`, "b,a"},
		{`join(",", sort(["b", "a", "b"]))`, "a,b,b"},
		{`"${length([1, 2])}${length({ a = 1 })}${length("äb")}"`, "212"},
		{`lookup({ a = "x" }, "b", "none")`, "none"},
		{`join(",", flatten([["a", ["b"]], "c", []]))`, "a,b,c"},
		{`join(",", ["a"], ["b", 3])`, "a,b,3"},
		{`join("|", split(",", "a,b,,c"))`, "a|b||c"},
		{`format("%s %5.2f %03d %q %%", "a", 1.5, 7, "x")`, `a  1.50 007 "x" %`},
		{`replace("a.b.c", ".", "-")`, "a-b-c"},
		{`"${lower("AB")}${upper("ab")}${trim("  x ")}${trim("--x-", "-")}"`, "abABxx"},
		{`match("*.{c,h}", "x.h") && !match("*.c", "a/x.c") && match("**/*.c", "a/b/x.c")`, "true"},
		{`regex("v([0-9]+)", "app-v12")[0]`, "12"},
		{`regex("[0-9]+", "app-v12")`, "12"},
		{`jsondecode("{\"a\": [1, {\"b\": true}]}").a[1].b`, "true"},
		{`sha256("")`, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{`base64encode("hi")`, "aGk="},
		{`read("x.sh")`, "echo ${HOME}\n"},
		{`template("motd", { name = node.name, ports = [80, 443] })`, "Hello n, 80, 443"},
		{`join(",", [for m in members("web") : m.name])`, "a,b"},
		{`join(",", members("web")[*].addr)`, "addr-a,addr-b"},
		{`count("web") + 1`, "3"},
		{`can(tag.x) && !can({}.y) && !can(jsondecode("["))`, "true"},
		{`try({}.y, jsondecode("["), "last")`, "last"},
		{`coalesce(null, "", tag.none, "x")`, "x"},
		{`semver_match("1.2.9", "~> 1.2") && !semver_match("1.3.0", "~> 1.2")`, "true"},
		{`tag["with-dash"] == "" ? "absent" : "there"`, "absent"},
		{`"${true ? [1][0] : 2}${-1}"`, "1-1"},
		{`"$${HOME}"`, "${HOME}"},
	}
	var exprs, want []string
	for _, tt := range tests {
		exprs, want = append(exprs, tt.expr), append(want, tt.want)
	}
	w := world{name: "n", members: map[string]cty.Value{"web": live("a", "b")}}
	got := say(t, files, w, exprs)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s\n got %q\nwant %q", exprs[i], got[i], want[i])
		}
	}
}

func TestFunctionsRefuse(t *testing.T) {
	w := world{name: "n", tags: map[string]string{"x": "y", "glob": strings.Repeat("{a,b}", 10), "re": "(", "deep": strings.Repeat("[", 1000)}}
	for expr, want := range map[string]string{
		`join(",", "a")`:               "a list is needed",
		`join(",")`:                    "takes at least 2 arguments",
		`lower(["a"])`:                 "a text is needed",
		`lookup({}, "x")`:              `finds no "x"`,
		`match(tag.glob, "ab")`:        "limit of 6 braces",
		`regex(tag.re, "a")`:           "error parsing regexp",
		`regex("b", "a")`:              "finds nothing",
		`jsondecode(tag.deep)`:         "limit of 64",
		`jsondecode("1e99999999") + 1`: "limit of 1e308",
		`format("%99999s", "a")`:       "limit of 1000",
		`format("%s")`:                 "nothing for",
		`format("%x", 1)`:              "format knows",
		`semver_match("x", "1")`:       `version "x"`,
		`read(tag.x)`:                  `no file "y"`,
		`tag.x + 1`:                    "number",
		`"1e999999999" * 1`:            "limit of 1e308",
		`"${[1]}"`:                     "a text is needed",
		`null`:                         "needed, but null",
	} {
		got := say(t, nil, w, []string{"[" + expr + "][tag.none == \"\" ? 0 : 1]"})
		if !strings.HasPrefix(got[0], "!") || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %q", expr, got[0], want)
		}
	}
}

func TestATreeOfTheBundle(t *testing.T) {
	p, err := Compile(map[string][]byte{
		"score.hcl":      []byte(head + "part \"p\" {\n  file \"f\" {\n    path = \"etc\"\n    tree = \"conf\"\n  }\n}\n"),
		"conf/a":         []byte("A"),
		"conf/sub/b.hcl": []byte("not score text"),
		"config":         []byte("not in it"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := played(t, p, world{name: "n"}.env(p), nil)["p.file.f"].Spec.(File)
	if diff := cmp.Diff(map[string]string{"a": "A", "sub/b.hcl": "not score text"}, f.Tree); diff != "" {
		t.Error(diff)
	}
}

// A program is shared by the loop, the plan and the door. Under -race this tells when it is not immutable.
func TestAProgramServesManyAtOnce(t *testing.T) {
	p := mustCompile(t, head+`
role "web" { when = tag.tier == "web" }
part "p" {
  report "r" { message = join(",", members("web")[*].name, [for m in members("web") : upper(m.addr)]) }
}`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			e := world{name: "n", members: map[string]cty.Value{"web": live("a", "b")}}.env(p)
			for range 20 {
				groups, err := p.Expand(e, nil)
				if err != nil || groups[0].Promises[0].Spec.(Report).Message != "a,b,ADDR-A,ADDR-B" {
					t.Errorf("%+v, %v", groups, err)
				}
			}
		})
	}
	wg.Wait()
}
