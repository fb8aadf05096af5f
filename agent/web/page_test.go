package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"meshd/agent/control"
)

// shown is how the page writes the hostile name.
const shown = `<script>alert(1)</script>"'\u{1b}[31m\u{202e}evil\u{200b}&amp;`

const maxShift = 0.1 // layout shift in all that is still called good (web.dev/cls)

func TestPageInChromium(t *testing.T) {
	for _, n := range []int{4, 50, 500} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			f := newFake(n)
			_, url := serve(t, f)
			b := open(t, url, "light", 1400, 900)
			b.allNames(f)
			b.contrast("light")
			b.accessible()
			b.lives(f)
			b.tellsWhy()
			b.obeysKeys(n)
			b.keepsStill()
			b.scheme("dark")
			b.do(chromedp.Reload())
			b.allNames(f)
			b.contrast("dark")
			b.accessible()
			b.fitsPhones()
			for _, p := range b.said() {
				t.Errorf("the browser complains: %s", p)
			}
		})
	}
}

// allNames waits for all there is, and checks that each name is shown and none of them became markup.
func (b *tab) allNames(f *fake) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelectorAll('#rows .row').length === %d && document.querySelectorAll('#items li').length === %d && document.querySelectorAll('.box.art').length >= 2",
		len(f.members), len(f.story)))
	names := js[[]string](b, "[...document.querySelectorAll('#rows .open bdi')].map(e => e.textContent)")
	slices.Sort(names)
	var want []string
	for _, m := range f.members {
		want = append(want, strings.ReplaceAll(m.Name, hostile, shown))
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		b.t.Errorf("names are %.300q, want %.300q", names, want)
	}
	if scripts := js[int](b, "document.querySelectorAll('script').length"); scripts != 1 {
		b.t.Errorf("there are %d scripts, want the one of the page", scripts)
	}
	for _, text := range []string{"fleet", "as builder sees it", "Score site 1.0.0", "answer/*", "live, looked"} {
		b.until(fmt.Sprintf("document.body.innerText.includes(%s)", quoted(text)))
	}
}

// lives changes the mesh and waits for the page to tell.
func (b *tab) lives(f *fake) {
	b.t.Helper()
	f.do(func() { f.members[3].Promises.Failed = 5 })
	b.until(`[...document.querySelectorAll('#rows .row')].some(r => r.innerText.includes('web-003') && r.innerText.includes('5 failed') && r.querySelector('path.f'))`)
	b.until(`document.getElementById('said').textContent === 'web-003: failed'`)
	f.happen("failed", "the disk is full")
	b.until(`document.querySelector('#items li').innerText.includes('the disk is full')`)
	gone := f.members[2].Name
	f.do(func() { f.members = slices.Delete(f.members, 2, 3) })
	b.until(fmt.Sprintf("![...document.querySelectorAll('#rows .open')].some(e => e.innerText === %s)", quoted(gone)))
	f.do(func() { f.err = control.Errorf(control.Failed, "the store is closed") })
	b.until(`!document.getElementById('alarm').hidden && document.getElementById('alarm').innerText.includes('the store is closed')`)
	f.do(func() { f.err = nil })
	b.until(`document.getElementById('alarm').hidden`)
}

// tellsWhy opens why with a click, from the story and from an artifact.
func (b *tab) tellsWhy() {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("#items li button")))
	b.until(`document.querySelectorAll('#panel[open] .chain li').length === 2`)
	if text := js[string](b, "document.getElementById('panel').innerText"); !strings.Contains(text, "because of an edit of "+shown) || !strings.Contains(text, "40 ms after its cause") {
		b.t.Errorf("why says %q", text)
	}
	if !js[bool](b, "document.getElementById('panel').contains(document.activeElement)") {
		b.t.Error("the focus is not in the panel")
	}
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.getElementById('panel').open && document.activeElement.closest('#items') !== null`)
	b.do(chromedp.Click(chromedp.CSS(".box.art")))
	b.until(`document.querySelector('#panel[open] .chain') !== null && location.hash === '#why=app'`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.getElementById('panel').open && location.hash === ''`)
	b.do(chromedp.Evaluate[chromedp.Void](`location.hash = '#why=nothing'`))
	b.until(`document.getElementById('panel').innerText.includes('nothing is known here of "nothing"')`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.getElementById('panel').open`)
	drop := func(p string) bool { return strings.Contains(p, "404") } // the browser logs what it was told: there is no such thing
	b.mu.Lock()
	b.problems = slices.DeleteFunc(b.problems, drop)
	b.mu.Unlock()
}

// obeysKeys goes through the page with no mouse.
func (b *tab) obeysKeys(n int) {
	b.t.Helper()
	b.do(chromedp.KeyEvent("n"))
	b.until(`document.activeElement.closest('#rows') !== null`)
	if stops := js[int](b, "document.querySelectorAll('#rows [tabindex=\"0\"]').length"); stops != 1 {
		b.t.Errorf("the nodes are %d stops of the tab key, want 1", stops)
	}
	b.do(chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.ArrowDown))
	b.until(`document.activeElement === document.querySelectorAll('#rows .row:not([hidden]) .open')[1]`)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.until(`document.querySelectorAll('#panel[open] .list li').length === 2 && document.getElementById('panel').innerText.includes('no space left on device')`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`document.activeElement === document.querySelectorAll('#rows .row:not([hidden]) .open')[1]`)
	b.do(chromedp.KeyEvent("/"))
	b.until(`document.activeElement.id === 'filter'`)
	b.do(chromedp.Evaluate[chromedp.Void](`document.getElementById('filter').select()`), chromedp.KeyEvent("builder")) // a synthetic "/" is typed too
	b.until(`[...document.querySelectorAll('#rows .row')].filter(r => !r.hidden).length === 1`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(fmt.Sprintf(`[...document.querySelectorAll('#rows .row')].filter(r => !r.hidden).length === %d`, n-1))
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("2"))
	b.until(`document.querySelector('[name=range][value="1"]').checked && document.getElementById('axis-from').innerText === '2 h ago'`)
	b.do(chromedp.KeyEvent("1"), chromedp.KeyEvent("?"))
	b.until(`document.getElementById('help').open`)
	b.do(chromedp.KeyEvent(kb.Escape))
	b.until(`!document.getElementById('help').open`)
	// Whatever the tab key reaches shows that it has the focus.
	b.do(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`))
	for range 16 {
		b.do(chromedp.KeyEvent(kb.Tab))
		got := js[string](b, `(e => e === document.body ? '' : getComputedStyle(e.matches('[type=radio]') ? e.nextElementSibling : e).outlineStyle === 'none' ? e.outerHTML : '')(document.activeElement)`)
		if got != "" {
			b.t.Errorf("the focus can't be seen on %s", got)
		}
	}
}

// named are the roles that make no sense without a name.
var named = []string{
	"button", "link", "searchbox", "textbox", "checkbox", "radio", "radiogroup", "image", "img", "region", "dialog", "table", "rowheader", "columnheader",
	"heading", "RootWebArea",
}

// accessible checks that whatever a screen reader stops at says what it is.
func (b *tab) accessible() {
	b.t.Helper()
	tree := call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	seen := map[string]int{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := value(n.Role), value(n.Name)
		seen[role]++
		if slices.Contains(named, role) && strings.TrimSpace(name) == "" {
			b.t.Errorf("a %s has no name", role)
		}
	}
	for role, least := range map[string]int{"button": 6, "searchbox": 1, "radio": 3, "checkbox": 1, "table": 1, "rowheader": 4, "heading": 4, "status": 1, "banner": 1, "main": 1} {
		if seen[role] < least {
			b.t.Errorf("a screen reader finds %d of role %s, want at least %d; it finds %v", seen[role], role, least, seen)
		}
	}
}

func value(v *accessibility.Value) string {
	var s string
	if v == nil || json.Unmarshal(v.Value, &s) != nil {
		return ""
	}
	return s
}

// contrast computes WCAG contrast of all text against what is behind it (4.5), and of the strips against theirs (3).
func (b *tab) contrast(scheme string) {
	b.t.Helper()
	bad := js[[]string](b, `(() => {
		const rgb = s => (s.match(/[\d.]+/g) ?? []).map(Number);
		const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
		const ratio = (a, b) => { const [x, y] = [lum(a.slice(0, 3)), lum(b.slice(0, 3))].sort((p, q) => q - p); return (x + .05) / (y + .05); };
		const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
		const bad = new Set();
		for (const e of document.querySelectorAll('body *')) {
			if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
			const r = ratio(rgb(getComputedStyle(e).color), behind(e));
			if (r < 4.5) bad.add(e.tagName + '.' + e.className + ' ' + r.toFixed(2));
		}
		for (const p of document.querySelectorAll('.strip path:not(.base):not(.k), #legend path')) {
			const r = ratio(rgb(getComputedStyle(p).fill), behind(p.closest('section')?.id === 'sums' ? p.closest('li') : p));
			if (r < 3) bad.add('path.' + p.getAttribute('class') + ' ' + r.toFixed(2));
		}
		const ink = getComputedStyle(document.body).color, back = getComputedStyle(document.body).backgroundColor;
		if ((lum(rgb(ink)) > lum(rgb(back))) !== `+fmt.Sprint(scheme == "dark")+`) bad.add('the scheme is not followed');
		return [...bad];
	})()`)
	for _, what := range bad {
		b.t.Errorf("%s: too little contrast: %s", scheme, what)
	}
}

// keepsStill checks that nothing jumped about while the page lived.
func (b *tab) keepsStill() {
	b.t.Helper()
	shift := js[float64](b, `new Promise(done => {
		const shifts = [];
		new PerformanceObserver(l => shifts.push(...l.getEntries())).observe({type: 'layout-shift', buffered: true});
		setTimeout(() => {
			window.shifted = shifts.map(s => s.value.toFixed(4) + ' ' + s.sources.map(x => (x.node?.id || x.node?.className || x.node?.nodeName)).join(' '));
			done(shifts.filter(s => !s.hadRecentInput).reduce((n, s) => n + s.value, 0));
		}, 200);
	})`)
	b.t.Logf("layout shift %.4f: %q", shift, js[[]string](b, "window.shifted"))
	if shift > maxShift {
		b.t.Errorf("the layout shifted by %.3f, want at most %.1f", shift, maxShift)
	}
}

// fitsPhones checks that nothing but the flow, which scrolls in itself, is wider than a small screen.
func (b *tab) fitsPhones() {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(390, 800))
	b.until(`innerWidth === 390`)
	if over := js[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		b.t.Errorf("at 390 pixels the page is %d too wide", over)
	}
}

func TestPageComesBackWithItsNode(t *testing.T) {
	f := newFake(4)
	_, url, end := start(t, f)
	b := open(t, url, "light", 1400, 900)
	b.allNames(f)
	end()
	b.until(`document.getElementById('link').dataset.state === 'lost' && document.getElementById('alarm').innerText.includes('does not answer')`)
	if rows := js[int](b, "document.querySelectorAll('#rows .row').length"); rows != 4 {
		t.Errorf("there are %d rows, want what was last known", rows)
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}
