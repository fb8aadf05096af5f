package policies

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What would end the process, or take it minutes, is refused before the parser sees it.
func TestHostileTextIsRefusedWithItsLimit(t *testing.T) {
	expr := func(e string) string { return head + "locals {\n  x = " + e + "\n}\n" }
	many := strings.Repeat
	tests := []struct{ name, src, want string }{
		{"brackets", expr(many("[", 100_000)), "limit of 64"},
		{"round brackets", expr(many("(", 10_000) + "1" + many(")", 10_000)), "limit of 64"},
		{"braces", many("a {\n", 10_000), "limit of 64"},
		{"not", expr(many("!", 10_000) + "true"), "limit of 64"},
		{"minus", expr(many("-", 10_000) + "1"), "limit of 64"},
		{"interpolations", expr(many(`"${`, 10_000) + "1" + many(`}"`, 10_000)), "limit of 64"},
		{"directives", expr(`"` + many("%{if true}", 10_000) + many("%{endif}", 10_000) + `"`), "limit of 64"},
		{"conditions", expr(many("true ? 1 : ", 10_000) + "1"), "limit of 64"},
		{"sum", expr(many("1 + ", 10_000) + "1"), "limit of 1000"},
		{"indexes", expr("local.y" + many("[0]", 10_000)), "limit of 1000"},
		{"steps", expr("local" + many(".y", 10_000)), "limit of 1000"},
		{"calls", expr(many("upper(", 10_000)), "limit of 64"},
		{"number", expr("1e999999999"), "limit of 308"},
		{"lines of a text", expr("<<A\n" + many("x\n", 200_000) + "A"), "limit of 20000"},
		{"dollars", expr(`"` + many("$", 900_000) + `"`), "limit of 20000"},
		{"roles", head + roles(25_000), "limit of 2000"},
		{"name", expr(many("a", 900_000)), `unknown name "aaa`},
		{"size", expr(`"` + many("x", maxFileBytes) + `"`), "limit of 1048576"},
		{"bytes", head + "# \xff\xfe", "not valid UTF-8"},
		{"locals", head + "locals {\n" + chain(5000) + "}\n", "limit of 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(map[string][]byte{"s.hcl": []byte(tt.src)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.300v, want %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
	if _, err := Compile(map[string][]byte{
		"s.hcl": []byte(head), "a": make([]byte, 1<<20), "b": make([]byte, 1<<20), "c": make([]byte, 7<<20),
	}); err == nil || !strings.Contains(err.Error(), "limit of 8388608") {
		t.Errorf("bundle: %v", err)
	}
}

// roles is a chain of roles, each read by the next.
func roles(n int) string {
	var b strings.Builder
	b.WriteString("role \"r0\" { when = true }\n")
	for i := range n {
		fmt.Fprintf(&b, "role \"r%d\" { when = role.r%d }\n", i+1, i)
	}
	return b.String()
}

func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  l%d = local.l%d\n", i, i+1)
	}
	fmt.Fprintf(&b, "  l%d = 1\n", n)
	return b.String()
}

func TestWhatIsDeepButLegalCompiles(t *testing.T) {
	many := strings.Repeat
	for name, e := range map[string]string{
		"lists":    many("[", 60) + many("]", 60),
		"list":     "[" + many("1, -2, !true, [3], ", 1000) + "]",
		"text":     `"` + many("${1}%{if true}x%{endif}", 1000) + `"`,
		"sum":      many("1 + ", 900) + "1",
		"heredoc":  "<<-X\n" + many("    ${1} + ${2} ? -\n", 1000) + "  X",
		"branches": "[" + many("true ? 1 : 2, ", 1000) + "]",
		"letter":   "<<A\n" + many("a line of a long letter\n", 15_000) + "A",
		"lines":    "[\n" + many("  1,\n", 10_000) + "]",
	} {
		if _, err := Compile(map[string][]byte{"s.hcl": []byte(head + "locals {\n  x = " + e + "\n}\n")}); err != nil {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// Whatever the text, compiling it and playing it here ends soon, in bounded memory, without a panic.
func FuzzCompile(f *testing.F) {
	f.Add(head, "x")
	f.Add(head+`part "p" {
  file "f" {
    for_each = ["a"]
    path     = "x/${each.key}"
    content  = template("data", { a = 1 })
  }
}`, "${a}")
	f.Add(head+`role "r" { when = count("r2") > 1 || any([tag.x == "y", fact.container]) }
role "r2" { when = tag["x"] != "" }
access "a" {
  allow "publish" {
    names = ["x/${publisher.name}"]
    roles = ["r2"]
  }
}
part "p" {
  role = "r"
  want "w" {
    name  = "*"
    from  = "r2"
    place = "x/${artifact.name}"
  }
  report "r" { message = join(",", [for m in members("r2") : "${m.name}-${try(tag.a / 2, 1)}"]) }
}`, "")
	for _, name := range []string{"postcards", "balance"} {
		src, err := os.ReadFile("examples/" + name + "/score.hcl")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src), "")
	}
	f.Fuzz(func(t *testing.T, src, data string) {
		if len(src)+len(data) > 64<<10 {
			t.Skip("longer than this test looks at")
		}
		files := map[string][]byte{"s.hcl": []byte(src), "data": []byte(data)}
		p, err := Compile(files)
		if (err == nil) == (p == nil) {
			t.Fatalf("program %v, error %v", p != nil, err)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		e := world{name: "n", tags: map[string]string{"x": "y"}}.env(p)
		groups, err := p.Expand(e, nil)
		if err != nil {
			return
		}
		for _, g := range groups {
			for _, pr := range g.Promises {
				if (pr.Spec == nil) != (pr.Problem != "") {
					t.Fatalf("%s has spec %v and problem %q", pr.Address, pr.Spec, pr.Problem)
				}
			}
		}
		p.Allows("publish", "x/n", "n", func(string) bool { return true })
		_ = p.Story()
	})
}
