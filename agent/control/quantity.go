package control

import (
	"math"
	"strconv"
	"strings"
)

// maxBytes is the most that ParseBytes reads: an exbibyte is nobody's disk or link, and int64 holds it.
const maxBytes = 1e18

// byteUnits are what an amount may end in, longer ones before what they end with; a bit is an eighth of a byte.
var byteUnits = []struct {
	name  string
	bytes float64
}{
	{"kbit", 1e3 / 8},
	{"mbit", 1e6 / 8},
	{"gbit", 1e9 / 8},
	{"kib", 1 << 10},
	{"mib", 1 << 20},
	{"gib", 1 << 30},
	{"tib", 1 << 40},
	{"kb", 1e3},
	{"mb", 1e6},
	{"gb", 1e9},
	{"tb", 1e12},
	{"k", 1e3},
	{"m", 1e6},
	{"g", 1e9},
	{"t", 1e12},
	{"b", 1},
}

// ParseBytes reads an amount of bytes as people write it, such as 500MB, 1.5GiB or 8Mbit, in any case, rounded to whole
// bytes. It is false for all else: signs, exponents, hexadecimal and amounts over 10^18.
func ParseBytes(text string) (n int64, ok bool) {
	s, scale := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range byteUnits {
		if digits, found := strings.CutSuffix(s, u.name); found {
			s, scale = strings.TrimSpace(digits), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*scale > maxBytes || strings.ContainsAny(s, "xpe_+") {
		return 0, false
	}
	return int64(math.Round(f * scale)), true
}
