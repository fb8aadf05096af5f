package roles

import (
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"meshd/policies"
)

func TestBuiltinFactsAreAllThereAndOfTheirTypes(t *testing.T) {
	want := map[string]cty.Type{
		"os": cty.String, "arch": cty.String, "distro": cty.String, "kernel": cty.String, "hostname": cty.String,
		"cpus": cty.Number, "memory_mb": cty.Number, "addresses": cty.List(cty.String), "container": cty.Bool,
		"work_dir": cty.String, "uptime_h": cty.Number,
	}
	got := Builtin(t.Context(), "/w")
	for name, typ := range want {
		v, ok := got[name]
		if !ok {
			t.Logf("this machine does not tell fact.%s", name)
			continue
		}
		if !v.Type().Equals(typ) || !v.IsWhollyKnown() {
			t.Errorf("fact.%s is %#v", name, v)
		}
	}
	if len(got) < 6 || got["work_dir"].AsString() != "/w" {
		t.Errorf("facts %v", got)
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("fact.%s is in no list", name)
		}
	}
}

func TestParse(t *testing.T) {
	list := func(s ...string) cty.Value {
		var l []cty.Value
		for _, e := range s {
			l = append(l, cty.StringVal(e))
		}
		return cty.ListVal(l)
	}
	tests := []struct {
		kind, out string
		want      cty.Value // NilVal: an error
	}{
		{"string", "a b\n", cty.StringVal("a b")},
		{"", "a\nb\n\n", cty.StringVal("a\nb\n")},
		{"string", "\xff", cty.NilVal},
		{"string", strings.Repeat("x", MaxFactBytes+1), cty.NilVal},
		{"lines", "a\r\nb\n", list("a", "b")},
		{"lines", "", cty.ListValEmpty(cty.String)},
		{"number", " 42\n", cty.NumberIntVal(42)},
		{"number", "1.5", cty.NumberFloatVal(1.5)},
		{"number", "1e999999999", cty.NilVal},
		{"number", "Inf", cty.NilVal},
		{"number", "many", cty.NilVal},
		{"number", strings.Repeat("1", 100), cty.NilVal},
		{"bool", "Yes\n", cty.True},
		{"bool", "0", cty.False},
		{"bool", "maybe", cty.NilVal},
		{"json", `{"a":[1,"x",true]}`, cty.ObjectVal(map[string]cty.Value{
			"a": cty.TupleVal([]cty.Value{cty.NumberIntVal(1), cty.StringVal("x"), cty.True}),
		})},
		{"json", `null`, cty.NilVal},
		{"json", `{"a":1e999999999}`, cty.NilVal},
		{"json", `[1] [2]`, cty.NilVal},
		{"json", strings.Repeat("[", 65) + strings.Repeat("]", 65), cty.NilVal},
		{"json", strings.Repeat("[", 60000), cty.NilVal},
		{"json", ``, cty.NilVal},
		{"yaml", "a: b", cty.NilVal},
	}
	for _, tt := range tests {
		v, err := Parse(tt.kind, []byte(tt.out))
		switch {
		case tt.want == cty.NilVal && err == nil:
			t.Errorf("Parse(%s, %.40q) = %#v, want an error", tt.kind, tt.out, v)
		case tt.want != cty.NilVal && (err != nil || !v.RawEquals(tt.want)):
			t.Errorf("Parse(%s, %.40q) = %#v, %v", tt.kind, tt.out, v, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, kind := range []string{"string", "lines", "number", "bool", "json"} {
		f.Add(kind, []byte("1"))
		f.Add(kind, []byte(`{"a":[1,{"b":null}]}`))
		f.Add(kind, []byte("a\nb"))
	}
	f.Fuzz(func(t *testing.T, kind string, out []byte) {
		v, err := Parse(kind, out)
		if err == nil && (v.IsNull() || !v.IsWhollyKnown()) {
			t.Errorf("Parse(%q, %q) = %#v", kind, out, v)
		}
	})
}

func TestPublic(t *testing.T) {
	defined := []policies.Fact{{Name: "a", Public: true}, {Name: "b"}, {Name: "long", Public: true}, {Name: "list", Public: true}, {Name: "none", Public: true}, {Name: "n", Public: true}}
	got := Public(defined, map[string]cty.Value{
		"a": cty.StringVal("x"), "b": cty.StringVal("secret"), "long": cty.StringVal(strings.Repeat("x", 257)),
		"list": cty.ListValEmpty(cty.String), "n": cty.NumberIntVal(12),
	})
	if len(got) != 2 || got["a"] != "x" || got["n"] != "12" {
		t.Errorf("public facts are %v", got)
	}
}
