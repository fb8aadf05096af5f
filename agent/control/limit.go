package control

import (
	"slices"
	"strconv"
	"strings"
)

// The classes of links that have caps of their own, in the order they are listed. What goes over a link counts for
// ClassAll and for one of the others.
const (
	ClassAll = "all"
	ClassLAN = "lan" // loopback, private and link-local addresses
	ClassWAN = "wan" // every other
)

// Classes lists them.
func Classes() []string { return []string{ClassAll, ClassLAN, ClassWAN} }

// MinRate is the least cap (bytes a second): streams that share less look dead to their far ends.
const MinRate = 32 << 10

// A Limit caps what artifacts take of the links of one class; 0 is no cap.
type Limit struct {
	Class                 string `json:"class"`
	EgressBytesPerSecond  int64  `json:"egress_bytes_per_second"`
	IngressBytesPerSecond int64  `json:"ingress_bytes_per_second"`
}

// A LimitChange orders other caps for one class; nil leaves one as it is, 0 takes it away. Reset, alone, goes back to
// those that meshd was started with.
type LimitChange struct {
	Class   string `json:"class"`
	Egress  *int64 `json:"egress_bytes_per_second,omitempty"`
	Ingress *int64 `json:"ingress_bytes_per_second,omitempty"`
	Reset   bool   `json:"reset,omitempty"`
}

// Check refuses what is no change of caps.
func (c LimitChange) Check() error {
	if c.Reset {
		return nil
	}
	if !slices.Contains(Classes(), c.Class) {
		return Errorf(Usage, "class %q: want one of %s", c.Class, strings.Join(Classes(), ", "))
	}
	for _, rate := range []*int64{c.Egress, c.Ingress} {
		if rate != nil && *rate != 0 && *rate < MinRate {
			return Errorf(Usage, "a cap of %d bytes a second: want none, or at least %d (32KiB)", *rate, MinRate)
		}
	}
	return nil
}

// ParseRate reads bytes a second: 800KB, 1.5MiB/s, 8Mbit; "none" and 0 are no cap.
func ParseRate(text string) (bytesPerSecond int64, err error) {
	plain := strings.TrimSpace(text)
	if strings.EqualFold(plain, "none") {
		return 0, nil
	}
	if n := len(plain) - len("/s"); n >= 0 && strings.EqualFold(plain[n:], "/s") {
		plain = plain[:n]
	}
	rate, ok := ParseBytes(plain)
	if !ok {
		return 0, Errorf(Usage, "rate %q: want bytes a second such as 800KB, 1.5MiB or 8Mbit, or none", text)
	}
	if rate > 0 && rate < MinRate {
		return 0, Errorf(Usage, "rate %q: the least cap is 32KiB a second: streams that share less look dead; say none for no cap", text)
	}
	return rate, nil
}

// RateText writes a rate so that ParseRate reads the same one.
func RateText(bytesPerSecond int64) string {
	if bytesPerSecond == 0 {
		return "none"
	}
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}} {
		// Three digits after the point at most: else a smaller unit.
		if thousandths := bytesPerSecond * 1000 / u.bytes; bytesPerSecond >= u.bytes && thousandths*u.bytes == bytesPerSecond*1000 {
			return strconv.FormatFloat(float64(thousandths)/1000, 'f', -1, 64) + u.name + "/s"
		}
	}
	return strconv.FormatInt(bytesPerSecond, 10) + "B/s"
}

// ParseLimits reads settings, each RATE or CLASS=RATE, into caps of every class.
func ParseLimits(egress, ingress []string) ([]Limit, error) {
	var out []Limit
	for _, class := range Classes() {
		out = append(out, Limit{Class: class})
	}
	for i, list := range [][]string{egress, ingress} {
		for _, text := range list {
			class, rate, ok := strings.Cut(text, "=")
			if !ok {
				class, rate = ClassAll, text
			}
			n, err := ParseRate(rate)
			if err != nil {
				return nil, err
			}
			at := slices.Index(Classes(), class)
			if at < 0 {
				return nil, Errorf(Usage, "%q: want RATE or CLASS=RATE, CLASS one of %s", text, strings.Join(Classes(), ", "))
			}
			if i == 0 {
				out[at].EgressBytesPerSecond = n
			} else {
				out[at].IngressBytesPerSecond = n
			}
		}
	}
	return out, nil
}
