package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"meshd/agent"
)

// settled is what a start with args, this environment and this file would have.
func settled(t *testing.T, file string, args ...string) (*options, origins, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meshd.hcl")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	o := &options{}
	flags := pflag.NewFlagSet("meshd", pflag.ContinueOnError)
	o.flags(flags)
	if err := flags.Parse(append(args, "--config", path)); err != nil {
		t.Fatal(err)
	}
	from, err := settle(flags)
	return o, from, err
}

func TestFlagComesBeforeEnvironmentBeforeFileBeforeDefault(t *testing.T) {
	t.Setenv("MESHD_LOG_LEVEL", "warn")
	t.Setenv("MESHD_PEER", "a:1,b:2")
	t.Setenv("MESHD_LISTEN", "127.0.0.1:2")
	o, from, err := settled(t, `# of this test
log-level = "error"
listen    = "127.0.0.1:3"
name      = "filed"
tag       = { tier = "web", rack = 7 }
advertise = ["x:1", "y:2"]
once      = true
`, "--listen", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if o.listen != "127.0.0.1:1" || o.level != "warn" || o.name != "filed" || !o.once || o.format != "text" {
		t.Errorf("settled as %+v", o)
	}
	if !slices.Equal(o.tags, []string{"rack=7", "tier=web"}) || !slices.Equal(o.advertise, []string{"x:1", "y:2"}) || !slices.Equal(o.peers, []string{"a:1", "b:2"}) {
		t.Errorf("lists: tag %q, advertise %q, peer %q", o.tags, o.advertise, o.peers)
	}
	for name, want := range map[string]string{"listen": "flag --listen", "log-level": "environment MESHD_LOG_LEVEL", "log-format": ""} {
		if from[name] != want {
			t.Errorf("%s comes from %q, want %q", name, from[name], want)
		}
	}
	if !strings.HasSuffix(from["name"], "meshd.hcl:4") {
		t.Errorf("name comes from %q, want line 4 of the file", from["name"])
	}
}

func TestFaultyConfigurationNamesTheLine(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "listen = \":1\"\nlog-levle = \"info\"\n", `meshd.hcl:2: unknown name "log-levle" (did you mean "log-level"?)`},
		{"underscore", "data_dir = \"/x\"\n", `did you mean "data-dir"?`},
		{"far from all", "frobnicate = 1\n", "meshd config show lists the names"},
		{"a block", "listen {\n}\n", "meshd.hcl:1:"},
		{"not a bool", "\nonce = \"maybe\"\n", "meshd.hcl:2: once:"},
		{"a list for one", "name = [\"a\", \"b\"]\n", "want one value"},
		{"a variable", "name = host\n", "meshd.hcl:1:"},
		{"config within", "config = \"x\"\n", `unknown name "config"`},
		{"cut short", "name = \"a\n", "meshd.hcl:1:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := settled(t, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, agent.ErrConfig) {
				t.Errorf("error %v, want %q and ErrConfig", err, tt.want)
			}
		})
	}
}

// What config show prints is a file that means the same.
func TestShownConfigurationIsAConfiguration(t *testing.T) {
	o := &options{}
	flags := pflag.NewFlagSet("meshd", pflag.ContinueOnError)
	o.flags(flags)
	if err := flags.Parse([]string{"--name", "a", "--tag", `k=${x} "q"`, "--tag", "l=1,2", "--once", "--join", "secret"}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := showConfig(&out, flags, origins{"name": "flag --name"}, true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the token is told:\n%s", out.String())
	}
	again, _, err := settled(t, out.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if again.name != "a" || !again.once || !slices.Equal(again.tags, o.tags) {
		t.Errorf("read again: %+v", again)
	}
}

func TestAReloadKeepsTheCommandLineAndReadsTheFileAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meshd.hcl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("log-level = \"info\"\nlisten = \":1\"\nname = \"f\"\n")
	o := &options{}
	flags := pflag.NewFlagSet("meshd", pflag.ContinueOnError)
	o.flags(flags)
	if err := flags.Parse([]string{"--config", path, "--name", "typed", "--tag", "a=1", "--tag", "b=2"}); err != nil {
		t.Fatal(err)
	}
	given := givenFlags(flags)
	if _, err := settle(flags); err != nil {
		t.Fatal(err)
	}
	o.values = valuesOf(flags)
	write("log-level = \"debug\"\nlisten = \":2\"\nname = \"g\"\n")
	next, err := reread(given)
	if err != nil {
		t.Fatal(err)
	}
	if next.name != "typed" || next.level != "debug" || !slices.Equal(next.tags, []string{"a=1", "b=2"}) {
		t.Errorf("read again: %+v", next)
	}
	if later := (&service{options: o}).differs(next); !slices.Equal(later, []string{"listen"}) {
		t.Errorf("%q take effect later, want listen alone", later)
	}
	write("log-levle = \"debug\"\n")
	if _, err := reread(given); !errors.Is(err, agent.ErrConfig) {
		t.Errorf("a faulty file: %v", err)
	}
}

func TestTheJournalGetsLevelsAndNoTime(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newJournalHandler(&out, slog.LevelInfo)).With("node", "a").WithGroup("g")
	log.Debug("unseen")
	log.Info("fine", "time", "noon")
	log.Warn("two\nlines")
	log.Error("bad", "level", 3)
	want := "<6>msg=fine node=a g.time=noon\n<4>msg=\"two\\nlines\" node=a\n<3>msg=bad node=a g.level=3\n"
	if out.String() != want {
		t.Errorf("journal gets\n%swant\n%s", out.String(), want)
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, stream := range []string{"", "1", "1:1", "x:y"} {
		if toJournal(f, stream) {
			t.Errorf("JOURNAL_STREAM=%q is taken for this file", stream)
		}
	}
}

func TestVersionComesFromTheBuild(t *testing.T) {
	for in, want := range map[string]string{"v1.2.3": "1.2.3", "(devel)": "0.1.0-dev", "": "0.1.0-dev"} {
		if got := builtVersion(&debug.BuildInfo{Main: debug.Module{Version: in}}, true); got != want {
			t.Errorf("builtVersion(%q) = %q, want %q", in, got, want)
		}
	}
}
