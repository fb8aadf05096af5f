package artifact

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of an entry's name. 64 levels is what SPEC 7 allows; the others are those of Linux.
const (
	maxDepth     = 64
	maxPathBytes = 4096
	maxPartBytes = 255
)

// checkEntries reports the first rule that sorted entries break, naming the entry, and the bytes of all
// files. What passes can be written below a folder that nobody else changes without leaving it.
func checkEntries(entries []Entry) (sizeBytes int64, err error) {
	if len(entries) == 1 && entries[0].Name == "" {
		if entries[0].Kind != File {
			return 0, malformed("an entry without a name is the only one and a file")
		}
		return entries[0].SizeBytes, checkEntry(entries[0])
	}
	for i, e := range entries {
		if err := checkPath(e.Name); err != nil {
			return 0, err
		}
		if i > 0 && entries[i-1].Name >= e.Name {
			return 0, malformed("%q is out of order or twice", e.Name)
		}
		if err := checkEntry(e); err != nil {
			return 0, err
		}
		if !parentIsDir(entries[:i], e.Name) {
			return 0, malformed("%q: its folder is not in the tree, or is no folder", e.Name)
		}
		sizeBytes += e.SizeBytes
	}
	return sizeBytes, checkCase(entries)
}

func checkEntry(e Entry) error {
	if e.Mode&^0o777 != 0 {
		return malformed("%q: mode %#o: setuid, setgid, sticky and type bits are not allowed", e.Name, e.Mode)
	}
	var size int64
	for _, c := range e.Chunks {
		if err := c.check(); err != nil {
			return err
		}
		size += int64(c.SizeBytes)
	}
	if size != e.SizeBytes {
		return malformed("%q: chunks of %d bytes for a size of %d", e.Name, size, e.SizeBytes)
	}
	switch {
	case e.Kind == File && e.Link == "":
		return nil
	case e.Kind == Dir && e.Link == "" && len(e.Chunks) == 0:
		return nil
	case e.Kind == Symlink && len(e.Chunks) == 0 && e.Mode == 0:
		return CheckLink(e.Name, e.Link)
	}
	return malformed("%q: kind %d with mode %#o, link %q and %d chunks", e.Name, e.Kind, e.Mode, e.Link, len(e.Chunks))
}

// checkPath reports why name may not be the name of an entry.
func checkPath(name string) error {
	if len(name) > maxPathBytes {
		return malformed("%.80q...: name of %d bytes, at most %d are allowed", name, len(name), maxPathBytes)
	}
	if err := checkText("name", name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "/") {
		return malformed("%q: absolute names are not allowed", name)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		depth++
		if part == "" || part == "." || part == ".." || len(part) > maxPartBytes {
			return malformed("%q: part %.80q is not allowed", name, part)
		}
	}
	if depth > maxDepth {
		return malformed("%.80q...: %d levels deep, at most %d are allowed", name, depth, maxDepth)
	}
	return nil
}

// CheckLink reports why a symbolic link of the given name in a tree may not lead to target. A target is
// relative, in its shortest form, and stays in the tree: as all folders above a link are true folders,
// ".." can only stand at its begin, where it means what it seems to mean.
func CheckLink(name, target string) error {
	if target == "" || len(target) > maxPathBytes || path.IsAbs(target) {
		return malformed("%q: link to %.80q: a relative path of 1 to %d bytes is wanted", name, target, maxPathBytes)
	}
	if err := checkText("link", target); err != nil {
		return err
	}
	if path.Clean(target) != target {
		return malformed("%q: link to %q: the shortest form %q is wanted", name, target, path.Clean(target))
	}
	rest, up := target, 0
	for rest == ".." || strings.HasPrefix(rest, "../") {
		rest, up = strings.TrimPrefix(rest[2:], "/"), up+1
	}
	if up > strings.Count(name, "/") {
		return malformed("%q: link to %q leads out of the tree", name, target)
	}
	return nil
}

// parentIsDir reports whether the folder that holds name is one of the sorted entries before it.
func parentIsDir(before []Entry, name string) bool {
	parent := path.Dir(name)
	if parent == "." {
		return true
	}
	i, found := slices.BinarySearchFunc(before, parent, func(e Entry, want string) int { return strings.Compare(e.Name, want) })
	return found && before[i].Kind == Dir
}

// checkCase refuses two names that are one on a file system that ignores case. It sorts numbers, not
// strings: what it allocates stays below what the entries take.
func checkCase(entries []Entry) error {
	if !slices.ContainsFunc(entries, func(e Entry) bool { return strings.ContainsFunc(e.Name, hasOtherCase) }) {
		return nil
	}
	order := make([]uint32, len(entries))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return compareFold(entries[a].Name, entries[b].Name) })
	for i := 1; i < len(order); i++ {
		a, b := entries[order[i-1]].Name, entries[order[i]].Name
		if compareFold(a, b) == 0 {
			return malformed("%q and %q differ only in case: on some machines they are one file", a, b)
		}
	}
	return nil
}

// hasOtherCase leaves out a to z: without another letter no two names clash.
func hasOtherCase(r rune) bool { return r >= utf8.RuneSelf || r >= 'A' && r <= 'Z' }

func compareFold(a, b string) int {
	for a != "" && b != "" {
		ra, na := utf8.DecodeRuneInString(a)
		rb, nb := utf8.DecodeRuneInString(b)
		if ra != rb {
			if c := cmp.Compare(fold(ra), fold(rb)); c != 0 {
				return c
			}
		}
		a, b = a[na:], b[nb:]
	}
	return cmp.Compare(len(a), len(b))
}

// fold returns the smallest rune that differs from r in case alone.
func fold(r rune) rune {
	least := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		least = min(least, other)
	}
	return least
}

func checkText(what, s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return malformed("%s %.80q: UTF-8 without NUL is wanted", what, s)
	}
	return nil
}
