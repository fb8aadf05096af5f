package policies

import "slices"

// kind is what the value of an attribute must be.
type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInt       // whole number, 0 or more
	kindInts      // list of those
	kindDuration  // "10s", "5m", "1h30m": more than nothing, except where 0s is the default
	kindPercent   // "10%"
	kindSpan      // "1s..1m", two durations
	kindStrings   // list or set
	kindStringMap // object or map
	kindKeys      // for_each
	kindPath      // absolute, or inside the work folder
	kindPaths     // list of paths and globs
	kindRole      // name of a role, known from the text alone
	kindRoles     // list of those
	kindRefs      // TYPE.NAME and part.PART.TYPE.NAME, never evaluated
	kindWindow    // "22:00-06:00 Mon-Fri"
	kindAny
)

// attrSpec is one attribute of a block type. The table of these is the only place where an attribute is
// named: reading, checking, hints and documentation all come from it.
type attrSpec struct {
	name     string
	kind     kind
	def      string // default as text; "" none
	required bool
	oneOf    []string // legal texts; nil: any
	later    bool     // in the language, not yet in this version
	doc      string   // for a required one: what to write, as a hint
}

// blockSpec is one block type.
type blockSpec struct {
	name   string
	labels int
	attrs  []attrSpec
	blocks []blockSpec
	later  bool // in the language, not yet in this version
	clash  [][]string
}

func (s *blockSpec) attr(name string) *attrSpec {
	for i := range s.attrs {
		if s.attrs[i].name == name {
			return &s.attrs[i]
		}
	}
	return nil
}

func (s *blockSpec) block(name string) *blockSpec {
	for i := range s.blocks {
		if s.blocks[i].name == name {
			return &s.blocks[i]
		}
	}
	return nil
}

func (s *blockSpec) names() []string {
	var out []string
	for _, a := range s.attrs {
		out = append(out, a.name)
	}
	for _, b := range s.blocks {
		out = append(out, b.name)
	}
	return out
}

// topBlocks is the schema of a score: what may stand at the top of a file.
var topBlocks = blockSpec{
	blocks: []blockSpec{
		{name: "score", labels: 1, attrs: []attrSpec{
			{name: "version", required: true, doc: "semver of the score, such as 1.0.0"},
			{name: "language", kind: kindInt, def: "1", doc: "language of the score"},
			{name: "why"},
			{name: "every", kind: kindDuration, def: "1m", doc: "default pace of all promises"},
			{name: "jitter", kind: kindPercent, def: "10%", doc: "default jitter of all promises"},
		}},
		{name: "locals"},
		{name: "fact", labels: 1, attrs: []attrSpec{
			{name: "command", kind: kindStrings, required: true, doc: "program and arguments that print the fact"},
			{name: "every", kind: kindDuration, def: "10m"},
			{name: "timeout", kind: kindDuration, def: "5s"},
			{name: "parse", def: "string", oneOf: []string{"string", "lines", "number", "bool", "json"}},
			{name: "default", kind: kindAny},
			{name: "public", kind: kindBool, def: "false"},
			{name: "why"},
		}},
		{name: "role", labels: 1, attrs: []attrSpec{
			{name: "when", kind: kindBool, required: true, doc: "when a node plays it, such as tag.kind == \"web\""},
			{name: "pick", later: true},
			{name: "hold", kind: kindDuration, def: "0s", doc: "shortest stay"},
			{name: "why"},
		}},
		{name: "part", labels: 1, attrs: []attrSpec{
			{name: "role", kind: kindRole},
			{name: "when", kind: kindBool},
			{name: "why"},
		}, blocks: promiseBlocks()},
		{name: "access", labels: 1, attrs: []attrSpec{{name: "why"}}, blocks: []blockSpec{
			{name: "allow", labels: 1, attrs: []attrSpec{
				{name: "names", kind: kindStrings, required: true, doc: "patterns such as feed/*"},
				{name: "roles", kind: kindRoles, required: true, doc: "roles that follow from tags and names"},
				{name: "why"},
			}},
		}},
		{name: "method", labels: 1, later: true},
		{name: "test", labels: 1, later: true},
	},
}

// commonAttrs are what every promise has.
var commonAttrs = []attrSpec{
	{name: "why"},
	{name: "when", kind: kindBool},
	{name: "for_each", kind: kindKeys},
	{name: "needs", kind: kindRefs},
	{name: "on", kind: kindRefs},
	{name: "every", kind: kindDuration},
	{name: "jitter", kind: kindPercent},
	{name: "timeout", kind: kindDuration},
	{name: "during", kind: kindWindow},
	{name: "audit", kind: kindBool, def: "false", doc: "true: tell, do not repair"},
	{name: "share", later: true},
}

// promiseBlocks are the promise types, each with what every promise has.
func promiseBlocks() []blockSpec {
	types := []blockSpec{
		fileSpec(), commandSpec(), processSpec(), guestSpec(), artifactSpec(), wantSpec(),
		{name: "report", attrs: []attrSpec{
			{name: "message", required: true, doc: "what people are told"},
			{name: "level", def: "info", oneOf: []string{"info", "warn", "error"}},
		}},
		{name: "package", later: true},
		{name: "service", later: true},
		{name: "use", later: true},
	}
	for i := range types {
		types[i].labels = 1
		types[i].attrs = slices.Concat(commonAttrs, types[i].attrs)
	}
	return types
}

func fileSpec() blockSpec {
	return blockSpec{
		name: "file",
		attrs: []attrSpec{
			{name: "path", kind: kindPath, required: true, doc: "absolute, or inside the work folder"},
			{name: "state", def: "present", oneOf: []string{"present", "absent", "dir"}},
			{name: "content"},
			{name: "copy", kind: kindPath},
			{name: "tree", doc: "folder of the bundle"},
			{name: "purge", kind: kindBool, def: "false"},
			{name: "mode", doc: "octal, such as 0640"},
			{name: "owner"},
			{name: "group"},
			{name: "validate", kind: kindStrings},
		},
		blocks: []blockSpec{{name: "lines", attrs: []attrSpec{
			{name: "present", kind: kindStrings},
			{name: "absent", kind: kindStrings},
			{name: "match", doc: "regular expression"},
		}}},
		clash: [][]string{{"content", "copy", "tree"}, {"tree", "lines"}},
	}
}

func commandSpec() blockSpec {
	return blockSpec{
		name: "command",
		attrs: []attrSpec{
			{name: "run", kind: kindStrings},
			{name: "shell"},
			{name: "inputs", kind: kindPaths},
			{name: "outputs", kind: kindPaths},
			{name: "env", kind: kindStringMap},
			{name: "dir", kind: kindPath},
			{name: "user"},
			{name: "ok", kind: kindInts, def: "0"},
		},
		clash: [][]string{{"run", "shell"}},
	}
}

func processSpec() blockSpec {
	return blockSpec{
		name: "process",
		attrs: []attrSpec{
			{name: "run", kind: kindStrings, required: true, doc: "program and arguments, no shell"},
			{name: "env", kind: kindStringMap},
			{name: "dir", kind: kindPath},
			{name: "user"},
			{name: "restart_on", kind: kindRefs},
			{name: "stop", def: "TERM", oneOf: []string{"TERM", "INT", "HUP", "QUIT", "KILL", "USR1", "USR2"}},
			{name: "stop_with_agent", kind: kindBool, def: "false"},
			{name: "backoff", kind: kindSpan, def: "1s..1m"},
			{name: "state", def: "running", oneOf: []string{"running", "stopped"}},
		},
		blocks: []blockSpec{{name: "check", attrs: []attrSpec{
			{name: "run", kind: kindStrings},
			{name: "http"},
			{name: "tcp"},
			{name: "every", kind: kindDuration, def: "10s"},
			{name: "timeout", kind: kindDuration, def: "2s"},
			{name: "passes", kind: kindInt, def: "1"},
			{name: "fails", kind: kindInt, def: "3"},
		}, clash: [][]string{{"run", "http", "tcp"}}}},
	}
}

func guestSpec() blockSpec {
	return blockSpec{
		name: "guest",
		attrs: []attrSpec{
			{name: "kind", def: "process", oneOf: []string{"process", "docker", "podman"}},
			{name: "name"},
			{name: "image", def: "meshd:latest"},
			{name: "network", def: "bridge", oneOf: []string{"bridge", "host"}},
			{name: "state", def: "running", oneOf: []string{"running", "stopped", "absent"}},
			{name: "tags", kind: kindStringMap},
			{name: "env", kind: kindStringMap},
			{name: "mounts", kind: kindStrings, doc: "SOURCE:TARGET or SOURCE:TARGET:ro"},
			{name: "ports", kind: kindStrings, doc: "HOST:GUEST, HOST:GUEST/udp"},
			{name: "memory", doc: "such as 256m"},
			{name: "cpus", doc: "such as 0.5"},
			{name: "restart_on", kind: kindRefs},
		},
	}
}

func artifactSpec() blockSpec {
	return blockSpec{
		name: "artifact",
		attrs: []attrSpec{
			{name: "name"},
			{name: "from", kind: kindPath, required: true, doc: "file, folder or glob"},
			{name: "version", def: "auto"},
			{name: "of", kind: kindRefs},
			{name: "keep", kind: kindInt, def: "3"},
			{name: "meta", kind: kindStringMap},
		},
	}
}

func wantSpec() blockSpec {
	return blockSpec{
		name: "want",
		attrs: []attrSpec{
			{name: "name", required: true, doc: "name of the artifact, or a pattern"},
			{name: "from", kind: kindRole},
			{name: "version", def: "latest"},
			{name: "place", kind: kindPath, required: true, doc: "path where it is placed"},
			{name: "proven", later: true},
			{name: "unpack", later: true},
			{name: "mode"},
			{name: "owner"},
			{name: "adopt", kind: kindBool, def: "false"},
			{name: "keep", kind: kindInt, def: "2"},
		},
		blocks: []blockSpec{{name: "rollout", later: true}},
	}
}
