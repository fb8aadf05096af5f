package roles

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/policies"
)

const score = `
score "t" {
  version  = "1.0.0"
  language = 1
}
role "parent" { when = tag.kind == "parent" }
role "first" { when = node.name == "node_1" }
role "loaded" {
  when = fact.cpus > 4
  hold = "10m"
}
role "both" { when = role.parent && role.loaded }
role "lonely" { when = count("parent") == 0 }
`

func compile(t *testing.T) *policies.Program {
	t.Helper()
	p, err := policies.Compile(map[string][]byte{"score.hcl": []byte(score)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func derive(t *testing.T, self Member, cpus int, wall time.Time, before map[string]Held) map[string]Held {
	t.Helper()
	facts := map[string]cty.Value{}
	if cpus > 0 {
		facts["cpus"] = cty.NumberIntVal(int64(cpus))
	}
	e := policies.Env{Wall: wall, Values: Values(self, facts, before, []Member{{ID: "01", Roles: []string{"parent"}}})}
	return Derive(compile(t), e, before)
}

func TestDerive(t *testing.T) {
	wall := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	self := Member{ID: "02", Name: "node_1", Addr: "10.0.0.1", Tags: map[string]string{"kind": "parent"}}
	tests := []struct {
		name string
		self Member
		cpus int // 0: not gathered
		want string
	}{
		{"all", self, 8, "both first loaded parent"},
		{"a role reads others", self, 2, "first parent"},
		{"an absent tag is empty", Member{Name: "x"}, 8, "loaded"},
		{"unknown is not false", self, 0, "both? first loaded? parent"},
		{"unknown && false is false", Member{Name: "x"}, 0, "loaded?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			held := derive(t, tt.self, tt.cpus, wall, nil)
			for name, h := range held {
				switch {
				case h.Unknown:
					got = append(got, name+"?")
				case h.Holds:
					got = append(got, name)
				}
				if len(h.Because) == 0 {
					t.Errorf("%s: no reason", name)
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != tt.want {
				t.Errorf("holds %v, want %s", got, tt.want)
			}
		})
	}
}

func TestDeriveHoldsForTheShortestStay(t *testing.T) {
	wall := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	self := Member{Tags: map[string]string{"kind": "parent"}}
	at := func(minutes int, cpus int, before map[string]Held) map[string]Held {
		return derive(t, self, cpus, wall.Add(time.Duration(minutes)*time.Minute), before)
	}
	is := func(what string, held map[string]Held, holds bool, since int) {
		t.Helper()
		if h := held["loaded"]; h.Holds != holds || !h.Since.Equal(wall.Add(time.Duration(since)*time.Minute)) {
			t.Errorf("%s: %+v", what, h)
		}
		if held["both"].Holds != holds {
			t.Errorf("%s: the role that reads it is %+v", what, held["both"])
		}
	}
	up := at(0, 8, nil)
	is("up", up, true, 0)
	is("still up", at(3, 8, up), true, 0)
	stays := at(4, 2, up)
	is("down too soon", stays, true, 0)
	if u := stays["loaded"].Until; !u.Equal(wall.Add(10 * time.Minute)) {
		t.Errorf("until %s", u)
	}
	is("down, its time is over", at(10, 2, stays), false, 10)
	if back := at(6, 8, stays)["loaded"]; !back.Until.IsZero() || !back.Holds {
		t.Errorf("up again: %+v", back)
	}
	unknown := at(5, 0, up)["loaded"]
	if !unknown.Unknown || !unknown.Holds || !unknown.Since.Equal(wall) {
		t.Errorf("unknown in between: %+v", unknown)
	}
	stepped := at(-600, 2, up)["loaded"]
	if !stepped.Holds || !stepped.Until.Equal(wall.Add(-590*time.Minute)) {
		t.Errorf("after the clock stepped back: %+v", stepped)
	}
	if unset := derive(t, self, 2, time.Time{}, up)["loaded"]; unset.Holds {
		t.Errorf("clock unset: %+v", unset)
	}
}

func TestAttestedTakesNothingThatANodeClaimsOfItself(t *testing.T) {
	p := compile(t)
	tests := []struct {
		name string
		tags map[string]string
		want string
	}{
		{"node_1", map[string]string{"kind": "parent"}, "first parent"},
		{"", map[string]string{"kind": "parent"}, "parent"},
		{"node_1", nil, "first"},
		{"", nil, ""},
	}
	for _, tt := range tests {
		holds := Attested(p, tt.name, tt.tags)
		var got []string
		for _, role := range []string{"parent", "first", "loaded", "both", "lonely", "no such role"} {
			if holds(role) {
				got = append(got, role)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q %v: holds %v, want %q", tt.name, tt.tags, got, tt.want)
		}
	}
}

func TestValuesOfMembers(t *testing.T) {
	v := Values(Member{}, nil, nil, []Member{
		{ID: "01", Name: "b", Roles: []string{"web", "web"}, Tags: map[string]string{"z": "1"}},
		{ID: "02", Name: "a", Roles: []string{"web", "db"}},
	})["members"]
	web := v.GetAttr("web").AsValueSlice()
	if len(web) != 2 || web[0].GetAttr("name").AsString() != "a" || web[1].GetAttr("tags").Index(cty.StringVal("z")).AsString() != "1" {
		t.Errorf("web is %#v", v.GetAttr("web"))
	}
	if v.Type().HasAttribute("nobody") || v.GetAttr("db").LengthInt() != 1 {
		t.Errorf("members are %#v", v)
	}
}
