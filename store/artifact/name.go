package artifact

import (
	"fmt"
	"strings"
)

// MaxName is the longest name of an artifact, in bytes (SPEC 7).
const MaxName = 200

// CheckName reports, wrapping ErrMalformed, why name may not name an artifact: it must be segments of
// [A-Za-z0-9._-] joined by single slashes, at most MaxName bytes in all. The segments "." and ".." are
// refused too, because names end up in paths.
func CheckName(name string) error {
	if name == "" {
		return fmt.Errorf("artifact name: %w: it is empty", ErrMalformed)
	}
	if len(name) > MaxName {
		return fmt.Errorf("artifact name %q...: %w: %d bytes, at most %d are allowed", name[:32], ErrMalformed, len(name), MaxName)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("artifact name %q: %w: segment %q is not allowed", name, ErrMalformed, segment)
		}
		for _, r := range segment {
			if !nameRune(r) {
				return fmt.Errorf("artifact name %q: %w: %q is not one of A-Z a-z 0-9 . _ -", name, ErrMalformed, r)
			}
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}
