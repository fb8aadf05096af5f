package policies

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the zones are built in: a device's own may be missing or old
)

// A Window is a span of the day on some days of the week, in one time zone. The zero value contains no
// time. A span that ends before it begins goes over midnight and belongs to the day on which it begins.
type Window struct {
	from, to int     // minutes of the day; to may be 1440
	days     [7]bool // by time.Weekday
	zone     *time.Location
}

// ParseWindow reads "22:00-06:00", "22:00-06:00 Mon-Fri", "02:00-05:00 Sat,Sun". A zone may also stand as
// the last word, "02:00-05:00 Mon-Fri Europe/Oslo"; with none at all it is UTC.
func ParseWindow(text, zone string) (Window, error) {
	bad := func(why string) (Window, error) {
		return Window{}, fmt.Errorf(`time window %.80q: %s (such as "22:00-06:00 Mon-Fri")`, text, why)
	}
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 3 {
		return bad("is no span of the day")
	}
	w := Window{days: [7]bool{true, true, true, true, true, true, true}}
	from, to, ok := strings.Cut(words[0], "-")
	var okFrom, okTo bool
	w.from, okFrom = minutes(from)
	w.to, okTo = minutes(to)
	if !ok || !okFrom || !okTo || w.from == 1440 {
		return bad("is no span of the day")
	}
	if w.from == w.to {
		return bad("begins when it ends")
	}
	rest := words[1:]
	if len(rest) > 0 {
		if days, ok := weekdays(rest[0]); ok {
			w.days, rest = days, rest[1:]
		}
	}
	if len(rest) > 1 || len(rest) == 1 && zone != "" {
		return bad("has a word too much")
	}
	if len(rest) == 1 {
		zone = rest[0]
	}
	if zone == "Local" {
		return bad(`zone "Local" differs between nodes`)
	}
	loc, err := time.LoadLocation(zone) // "" is UTC
	if err != nil {
		return bad(fmt.Sprintf("unknown day or time zone %.80q", zone))
	}
	w.zone = loc
	return w, nil
}

// minutes reads HH:MM, up to 24:00.
func minutes(s string) (int, bool) {
	var h, m int
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for i, c := range s {
		if i != 2 && (c < '0' || c > '9') {
			return 0, false
		}
	}
	h, m = int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return h*60 + m, m < 60 && h*60+m <= 1440
}

// weekdays reads Mon-Fri, Sat,Sun and mixtures.
func weekdays(s string) (days [7]bool, ok bool) {
	index := map[string]int{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
	for _, item := range strings.Split(strings.ToLower(s), ",") {
		from, to, span := strings.Cut(item, "-")
		if !span {
			to = from
		}
		i, okFrom := index[from]
		j, okTo := index[to]
		if !okFrom || !okTo {
			return days, false
		}
		for ; i != j; i = (i + 1) % 7 {
			days[i] = true
		}
		days[j] = true
	}
	return days, true
}

// Contains reports whether t lies in the window.
func (w Window) Contains(t time.Time) bool {
	if w.zone == nil {
		return false
	}
	t = t.In(w.zone)
	now, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.from < w.to {
		return w.days[day] && now >= w.from && now < w.to
	}
	return w.days[day] && now >= w.from || w.days[(day+6)%7] && now < w.to
}

// Next returns the first moment after t at which Contains changes, to the minute; the zero time if it
// never does. A change of the clocks between t and then is seen.
func (w Window) Next(t time.Time) time.Time {
	if w.zone == nil {
		return time.Time{}
	}
	now := w.Contains(t)
	local := t.In(w.zone)
	var best time.Time
	consider := func(edge time.Time) {
		if edge.After(t) && w.Contains(edge) != now && (best.IsZero() || edge.Before(best)) {
			best = edge
		}
	}
	_, turn := local.ZoneBounds() // the clocks change
	consider(turn)
	for day := -1; day <= 15; day++ { // the clocks may take the hour of one week away
		for _, m := range []int{w.from, w.to, 0} { // midnight: the day may stop to count
			edge := time.Date(local.Year(), local.Month(), local.Day()+day, 0, m, 0, 0, w.zone)
			for _, twice := range []time.Duration{-time.Hour, -time.Hour / 2, 0, time.Hour / 2, time.Hour} { // an hour may come twice, on Lord Howe half of one
				consider(edge.Add(twice))
			}
		}
	}
	return best
}
