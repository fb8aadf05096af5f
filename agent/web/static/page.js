// Draws what /live tells. Names come from other nodes: they only ever become text.
const $ = id => document.getElementById(id);
const words = {k: 'kept', r: 'repaired', w: 'waiting', d: 'drifted', '?': 'no word', f: 'failed'};
const letters = 'krwd?f', cells = 120; // letters: how bad, rising
const ranges = [{ms: 5e3, name: '10 min', half: '5 min'}, {ms: 6e4, name: '2 h', half: '1 h'}, {ms: 72e4, name: '24 h', half: '12 h'}];
const storyMax = 400, groupsMax = 7; // shown at most
const crowd = 20; // more nodes than this begin with trouble first
const svgNS = 'http://www.w3.org/2000/svg';

const mesh = {head: null, nodes: new Map(), order: [], artifacts: [], strips: new Map(), rows: new Map()};
let skew = 0, heardAt = 0, said = 0, range = 0, calls = 0, source, first = true;

// clean shows what would hide or turn text around: control characters, bidi overrides, zero widths.
const clean = s => String(s ?? '').replace(/[\p{Cc}\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu,
  c => `\\u{${c.codePointAt(0).toString(16)}}`);

// el makes an element: properties, then children. Strings are text.
function el(tag, props, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (k === 'onclick') e.addEventListener('click', v);
    else e.setAttribute(k, v);
  }
  e.append(...kids.flat().filter(k => k != null && k !== ''));
  return e;
}
const svg = (tag, props) => {
  const e = document.createElementNS(svgNS, tag);
  for (const [k, v] of Object.entries(props ?? {})) e.setAttribute(k, v);
  return e;
};
const bdi = s => el('bdi', {}, clean(s));
const put = (e, text) => { if (e.textContent !== text) e.textContent = text; };
const now = () => Date.now() + skew;
const clock = t => new Date(t).toLocaleTimeString([], {hour12: false});
const day = t => new Date(t).toLocaleDateString() === new Date(now()).toLocaleDateString() ? clock(t) : new Date(t).toLocaleString([], {hour12: false});
const count = (n, one, many = one + 's') => `${n.toLocaleString()} ${n === 1 ? one : many}`;
function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  return s < 100 ? `${s} s` : s < 6000 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}
const ago = t => span(now() - t) + ' ago';
const agoTag = t => el('time', {'data-ago': t, datetime: new Date(t).toISOString()}, ago(t));
function size(n) {
  for (const u of ['B', 'KiB', 'MiB', 'GiB']) { if (n < 1024 || u === 'GiB') return `${n < 10 && u !== 'B' ? n.toFixed(1) : Math.round(n)} ${u}`; n /= 1024; }
}

// stateOf is how a node stands now, as a letter.
const stateOf = n => !['alive', 'suspect', 'asleep'].includes(n.status) ? '?' : n.promises.failed ? 'f' : n.promises.drifted ? 'd' : n.promises.waiting ? 'w' : 'k';
const keptOf = p => p.kept + p.repaired;
const totalOf = p => p.kept + p.repaired + p.failed + p.waiting + p.drifted;
const roleClass = outcome => 't-' + (outcome === 'no word' ? 'noword' : outcome in {kept: 1, repaired: 1, waiting: 1, drifted: 1, failed: 1} ? outcome : 'none');

// ---- what is told ----
function apply(c) {
  skew = c.head.now - Date.now();
  heardAt = Date.now();
  if (c.whole) for (const old of [mesh.nodes, mesh.strips]) old.clear();
  if (c.whole) $('items').replaceChildren();
  const before = mesh.head;
  mesh.head = c.head;
  for (const n of c.nodes ?? []) {
    const old = mesh.nodes.get(n.id);
    mesh.nodes.set(n.id, n);
    if (old && stateOf(old) !== stateOf(n)) announce(`${clean(n.name)}: ${words[stateOf(n)]}`);
  }
  if (c.order) {
    mesh.order = c.order;
    const there = new Set(c.order);
    for (const id of mesh.nodes.keys()) if (!there.has(id)) { mesh.nodes.delete(id); mesh.strips.delete(id); }
  }
  if (c.artifacts) mesh.artifacts = c.artifacts;
  c.strips?.forEach((s, i) => applyStrip(s, i));
  drawHead(before);
  if (!before) $('worst').checked = mesh.order.length > crowd;
  if (c.nodes || c.order) { drawSums(); arrange(); }
  if (c.nodes || c.order || c.artifacts) drawFlow();
  if (c.nodes || c.order || c.strips) drawStrips();
  if (c.story) drawStory(c.story);
  tick();
}

function applyStrip(s, i) {
  for (const [id, text] of Object.entries(s.whole ?? {})) {
    const all = mesh.strips.get(id) ?? [];
    all[i] = {text, last: s.last};
    mesh.strips.set(id, all);
  }
  mesh.order.forEach((id, n) => {
    const strip = mesh.strips.get(id)?.[i], step = s.last - strip?.last;
    if (!strip) return;
    if (step > 0) strip.text = (strip.text + ' '.repeat(Math.min(step, cells))).slice(-cells);
    strip.last = Math.max(strip.last, s.last);
    strip.text = strip.text.slice(0, cells - 2) + s.column[0][n] + s.column[1][n];
  });
}

// announce has one sentence in three seconds read out.
function announce(text) {
  if (Date.now() - said < 3000) return;
  [said, $('said').textContent] = [Date.now(), text];
}

function drawHead(before) {
  const h = mesh.head;
  put($('mesh'), clean(h.mesh || 'meshd'));
  if (!before || before.node !== h.node || before.version !== h.version) {
    $('whose').replaceChildren('as ', el('b', {}, bdi(h.node)), ` sees it, meshd ${clean(h.version)}`);
    document.title = `${clean(h.mesh)} as ${clean(h.node)} sees it`;
  }
  if (before && before.score === h.score && before.why === h.why) return;
  $('score').replaceChildren(...h.score ? [el('b', {}, 'Score ', bdi(h.score)), h.why ? ': ' : '', bdi(h.why)] : ['No score is in force.']);
}

function tick() {
  const h = mesh.head, silent = Date.now() - heardAt;
  const lost = source?.readyState !== 1 || silent > 25e3;
  let alarm = '';
  if (h && lost) alarm = `This node’s meshd does not answer. What you see is how things stood at ${clock(heardAt + skew)}.`;
  else if (h?.problem) alarm = clean(h.problem) + (h.at ? ` What you see is from ${clock(h.at)}.` : '');
  else if (h?.refused) alarm = clean(h.refused);
  put($('alarm'), alarm);
  $('alarm').hidden = !alarm;
  $('link').dataset.state = lost ? (h ? 'lost' : 'wait') : 'live';
  put($('age'), lost ? (h ? `silent for ${span(silent)}` : 'connecting') : h.at ? `live, looked ${ago(h.at)}` : 'live, not yet looked');
  for (const t of document.querySelectorAll('time[data-ago]')) put(t, ago(+t.dataset.ago));
}

// ---- sums ----
const shapes = {k: [9, 13], r: [4, 18], w: [11, 11], d: [7, 15], f: [0, 22], '?': [18, 2]}; // top and height of 22: told apart without colour
const classOf = s => s === '?' ? 'q' : s;

function drawSums() {
  const sum = {k: 0, r: 0, w: 0, d: 0, f: 0, '?': 0};
  for (const n of mesh.nodes.values()) {
    if (stateOf(n) === '?') { sum['?']++; continue; }
    const p = n.promises;
    sum.k += p.kept; sum.r += p.repaired; sum.w += p.waiting; sum.d += p.drifted; sum.f += p.failed;
  }
  sum.a = mesh.nodes.size - sum['?'];
  put($('of'), `of ${count(mesh.nodes.size, 'node')} alive`);
  for (const li of $('legend').children) {
    const n = sum[li.dataset.sum];
    put(li.querySelector('b'), n.toLocaleString());
    li.classList.toggle('zero', !n);
  }
}

// ---- nodes ----
function makeRow(id) {
  const row = el('div', {role: 'row', class: 'row'});
  const open = el('button', {class: 'open', type: 'button', tabindex: '-1', onclick: () => openNode(id)});
  const strip = svg('svg', {class: 'strip', viewBox: `0 0 ${cells} 22`, preserveAspectRatio: 'none', role: 'img'});
  const parts = {row, open, strip, roles: el('span', {role: 'cell', class: 'cut'}), state: el('span', {role: 'cell', class: 'now'}), shown: '', drawn: ''};
  row.append(el('span', {role: 'rowheader'}, open), parts.roles, parts.state, el('span', {role: 'cell'}, strip));
  return parts;
}

function fillRow(parts, n) {
  const shown = JSON.stringify(n);
  if (parts.shown === shown) return;
  parts.shown = shown;
  parts.open.replaceChildren(bdi(n.name), n.self ? el('span', {class: 'self'}, ' (this node)') : '');
  parts.open.title = clean(n.name);
  put(parts.roles, n.roles.map(clean).join(', ') || '–');
  parts.roles.title = parts.roles.textContent;
  const p = n.promises, s = stateOf(n), bad = [['failed', p.failed], ['drifted', p.drifted], ['waiting', p.waiting]].filter(x => x[1]);
  let what;
  if (s === '?') what = [el('span', {class: 't-noword'}, n.status === 'left' ? 'left' : 'no word'), n.heard ? [' ', agoTag(n.heard)] : ''].flat();
  else if (bad.length) what = bad.flatMap(([w, k], i) => [i ? ', ' : '', el('span', {class: 't-' + w}, `${k} ${w}`)]);
  else if (!totalOf(p)) what = [el('span', {class: 'quiet'}, 'no promises')];
  else what = [`all ${keptOf(p)} kept`];
  if (n.status === 'suspect' || n.status === 'asleep') what.push(el('span', {class: 'quiet'}, ', ' + n.status));
  parts.state.replaceChildren(...what);
}

const matches = (n, text) => !text || [n.name, n.id, n.address, n.status, words[stateOf(n)], ...n.roles, ...Object.entries(n.tags ?? {}).map(([k, v]) => `${k}=${v}`)]
  .some(x => String(x).toLowerCase().includes(text));

// arrange puts the rows in order, shows those that match, and keeps one of them in the tab order.
function arrange() {
  const text = $('filter').value.trim().toLowerCase();
  let list = mesh.order.map(id => mesh.nodes.get(id)).filter(Boolean);
  if ($('worst').checked) list = list.map((n, i) => [n, i]).sort((a, b) => letters.indexOf(stateOf(b[0])) - letters.indexOf(stateOf(a[0])) || a[1] - b[1]).map(x => x[0]);
  const focused = document.activeElement;
  let shown = 0, prev;
  for (const n of list) {
    let parts = mesh.rows.get(n.id);
    if (!parts) mesh.rows.set(n.id, parts = makeRow(n.id));
    fillRow(parts, n);
    parts.row.hidden = !matches(n, text);
    if (!parts.row.hidden) shown++;
    const next = prev ? prev.nextSibling : $('rows').firstChild;
    if (next !== parts.row) $('rows').insertBefore(parts.row, next);
    prev = parts.row;
  }
  for (const [id, parts] of mesh.rows) if (!mesh.nodes.has(id)) { parts.row.remove(); mesh.rows.delete(id); }
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({preventScroll: true});
  put($('nodes-count'), text ? `${shown.toLocaleString()} of ${list.length.toLocaleString()}` : list.length.toLocaleString());
  $('table').setAttribute('aria-rowcount', list.length + 2);
  $('none').hidden = shown > 0 || !list.length;
  rove($('rows'), '.row:not([hidden]) .open');
}

// rove leaves one of many buttons in the tab order: the one last focused, else the first.
function rove(box, which) {
  const all = [...box.querySelectorAll(which)];
  const keep = all.find(b => b === document.activeElement) ?? all.find(b => b.tabIndex === 0) ?? all[0];
  for (const b of box.querySelectorAll('button[tabindex="0"]')) if (b !== keep) b.tabIndex = -1;
  if (keep) keep.tabIndex = 0;
}

function walk(event, box, which) {
  const step = {ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9}[event.key];
  if (!step || !event.target.matches(which)) return;
  const all = [...box.querySelectorAll(which)];
  const to = all[Math.max(0, Math.min(all.length - 1, all.indexOf(event.target) + step))];
  event.preventDefault();
  to.focus();
  rove(box, which);
}

// runs calls each with the state, start and length of every run of like cells.
function runs(text, each) {
  for (let i = 0; i < text.length;) {
    let j = i + 1;
    while (j < text.length && text[j] === text[i]) j++;
    if (text[i] !== ' ') each(text[i], i, j - i);
    i = j;
  }
}

function drawStrips() {
  const total = Array.from({length: cells}, () => ({}));
  for (const [id, parts] of mesh.rows) {
    const text = mesh.strips.get(id)?.[range]?.text ?? ' '.repeat(cells);
    for (let i = 0; i < cells; i++) if (text[i] !== ' ') total[i][text[i]] = (total[i][text[i]] ?? 0) + 1;
    if (parts.drawn === range + text) continue;
    parts.drawn = range + text;
    const paths = {}, sums = {};
    runs(text, (s, at, n) => {
      paths[s] = (paths[s] ?? '') + `M${at} ${shapes[s][0]}h${n}v${shapes[s][1]}h-${n}z`;
      sums[s] = (sums[s] ?? 0) + n;
    });
    parts.strip.replaceChildren(svg('path', {class: 'base', d: `M0 21h${cells}v1h-${cells}z`}), ...Object.entries(paths).map(([s, d]) => svg('path', {class: classOf(s), d})));
    const told = [...letters].reverse().filter(s => sums[s]).map(s => `${words[s]} ${span(sums[s] * ranges[range].ms)}`).join(', ');
    parts.strip.setAttribute('aria-label', `last ${ranges[range].name}: ${told || 'nothing seen yet'}`);
  }
  drawAll(total);
}

// drawAll stacks the states of all nodes in one strip: the worst on the ground.
function drawAll(total) {
  const paths = {};
  total.forEach((cell, i) => {
    const all = Object.values(cell).reduce((a, b) => a + b, 0);
    let y = 44;
    for (const s of [...letters].reverse()) {
      if (!cell[s]) continue;
      const h = Math.max(44 * cell[s] / all, s === 'k' ? 0 : 1.5);
      paths[s] = (paths[s] ?? '') + `M${i} ${(y - h).toFixed(2)}h1v${h.toFixed(2)}h-1z`;
      y -= h;
    }
  });
  const strip = $('all-strip'), key = JSON.stringify(paths);
  if (strip.dataset.key === key) return;
  strip.dataset.key = key;
  strip.replaceChildren(svg('path', {class: 'base', d: `M0 43h${cells}v1h-${cells}z`}), ...Object.entries(paths).map(([s, d]) => svg('path', {class: classOf(s), d})));
  const last = {};
  for (const n of mesh.nodes.values()) last[stateOf(n)] = (last[stateOf(n)] ?? 0) + 1;
  const text = [...letters].reverse().filter(s => last[s] && s !== 'k').map(s => `${last[s]} ${words[s]}`).join(', ') || 'all kept';
  put($('all-now'), text);
  strip.setAttribute('aria-label', `share of nodes in each state over the last ${ranges[range].name}; now: ${text}`);
}

// ---- flow ----
// groups gathers artifacts that go the same way: feed/a, feed/b, made by like roles, are one card.
function groups() {
  const byName = new Map([...mesh.nodes.values()].map(n => [n.name, n]));
  const rolesOf = name => byName.get(name)?.roles.join(', ') || (byName.has(name) ? 'no role' : 'not listed here');
  const all = new Map(), ofName = new Map();
  for (const a of mesh.artifacts) {
    if (a.name === 'score') continue; // it goes to everybody; the head of the page tells it
    const slash = a.name.indexOf('/'), stem = slash > 0 ? a.name.slice(0, slash) + '/*' : a.name;
    const maker = rolesOf(a.publisher), key = JSON.stringify([stem, maker]);
    const g = all.get(key) ?? {key, stem, maker, makers: new Set(), wants: new Map(), items: [], have: 0, want: 0, of: new Set(), depth: 0};
    all.set(key, g);
    g.items.push(a);
    g.makers.add(a.publisher);
    for (const w of a.wanted) {
      const role = rolesOf(w);
      g.wants.set(role, (g.wants.get(role) ?? new Set()).add(w));
      g.want++;
      if (a.holders.includes(w)) g.have++;
    }
    for (const in_ of a.of) g.of.add(in_.name);
    ofName.set(a.name, [...(ofName.get(a.name) ?? []), g]);
  }
  const list = [...all.values()];
  const depth = (g, path) => path.has(g) ? 0 : Math.max(0, ...[...g.of].flatMap(n => ofName.get(n) ?? []).filter(x => x !== g).map(x => 1 + depth(x, new Set(path).add(g))));
  for (const g of list) g.depth = list.length > 60 ? 0 : depth(g, new Set());
  return list;
}

function drawFlow() {
  const list = groups(), key = JSON.stringify(list.map(g => [g.key, g.depth, g.have, g.want, g.makers.size, [...g.wants].map(([r, w]) => [r, w.size]), g.items.map(a => [a.name, a.version, a.hash])]));
  const box = $('flow-draw');
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  const kept = document.activeElement?.dataset.group;
  const W = [150, 212], H = [52, 76], gapX = 44, gapY = 12;
  const left = col => Math.floor((col + 1) / 2) * (W[0] + gapX) + Math.floor(col / 2) * (W[1] + gapX);
  const cols = new Map(), edges = [];
  const place = (col, id, make) => {
    const c = cols.get(col) ?? new Map();
    cols.set(col, c);
    if (!c.has(id)) c.set(id, {...make, col});
    return c.get(id);
  };
  const dropped = new Map();
  list.sort((a, b) => a.depth - b.depth || (b.want - b.have) - (a.want - a.have) || (a.stem < b.stem ? -1 : 1));
  for (const g of list) {
    const used = cols.get(2 * g.depth + 1)?.size ?? 0;
    if (used >= groupsMax) { dropped.set(g.depth, [...(dropped.get(g.depth) ?? []), g]); continue; }
    const from = place(2 * g.depth, g.maker, {role: g.maker, nodes: new Set()});
    g.makers.forEach(n => from.nodes.add(n));
    const card = place(2 * g.depth + 1, g.key, {group: g});
    edges.push([from, card]);
    for (const [role, nodes] of g.wants) {
      const to = place(2 * g.depth + 2, role, {role, nodes: new Set()});
      nodes.forEach(n => to.nodes.add(n));
      edges.push([card, to]);
    }
  }
  for (const [d, gs] of dropped) place(2 * d + 1, 'more', {more: gs});
  const tall = Math.max(76, ...[...cols].map(([c, m]) => m.size * (H[c % 2] + gapY) - gapY));
  const drawn = [];
  for (const [c, m] of [...cols].sort((a, b) => a[0] - b[0])) {
    const h = H[c % 2], step = m.size > 1 ? (tall - h) / (m.size - 1) : 0;
    let i = 0;
    for (const b of m.values()) {
      b.x = left(c);
      b.y = m.size > 1 ? i * Math.min(step, 1.6 * (h + gapY)) + (tall - h - (m.size - 1) * Math.min(step, 1.6 * (h + gapY))) / 2 : (tall - h) / 2;
      [b.w, b.h] = [W[c % 2], h];
      i++;
      drawn.push(boxOf(b));
    }
  }
  const wide = Math.max(0, ...[...cols.keys()].map(c => left(c) + W[c % 2]));
  const lines = svg('svg', {width: wide, height: tall, 'aria-hidden': 'true'});
  for (const [a, b] of edges) {
    const x1 = a.x + a.w, y1 = a.y + a.h / 2, x2 = b.x - 7, y2 = b.y + b.h / 2, m = (x1 + x2) / 2;
    lines.append(svg('path', {d: `M${x1} ${y1}C${m} ${y1} ${m} ${y2} ${x2} ${y2}`}), svg('path', {class: 'tip', d: `M${x2 + 6} ${y2}l-8 -4v8z`}));
  }
  [box.style.height, box.style.width] = [tall + 'px', wide + 'px'];
  box.replaceChildren(lines, ...(list.length ? drawn : [el('p', {class: 'quiet'}, 'No node offers an artifact yet.')]));
  if (kept) [...box.querySelectorAll('[data-group]')].find(e => e.dataset.group === kept)?.focus({preventScroll: true});
}

function boxOf(b) {
  let e;
  if (b.more) e = el('button', {class: 'box more', type: 'button', onclick: () => openGroup({stem: `${b.more.length} more kinds`, items: b.more.flatMap(g => g.items)})}, `and ${count(b.more.length, 'more kind')}`);
  else if (b.role !== undefined) e = el('div', {class: 'box role', title: [...b.nodes].map(clean).join('\n')}, el('b', {}, bdi(b.role)), el('small', {}, count(b.nodes.size, 'node')));
  else {
    const g = b.group, newest = g.items.reduce((x, y) => (x.published_at ?? '') > (y.published_at ?? '') ? x : y), one = g.items.length === 1;
    const have = !g.want ? 'nobody wants it' : `${g.have.toLocaleString()} of ${g.want.toLocaleString()} have it`;
    e = el('button', {class: 'box art', type: 'button', 'data-group': g.key, onclick: () => one ? openWhy(g.items[0].name) : openGroup(g)},
      el('b', {}, bdi(one ? g.items[0].name : g.stem)),
      el('small', {}, one ? `version ${clean(g.items[0].version)}, ${size(g.items[0].size_bytes)}` : `${count(g.items.length, 'artifact')}, ${size(g.items.reduce((n, a) => n + a.size_bytes, 0))}`),
      el('small', {}, el('span', g.have < g.want ? {class: 'short'} : {}, have), newest.published_at ? [', ', agoTag(Date.parse(newest.published_at))] : []));
    e.title = one ? clean(g.items[0].name) : g.items.slice(0, 20).map(a => clean(a.name)).join('\n');
  }
  for (const [k, v] of [['left', b.x], ['top', b.y], ['width', b.w], ['height', b.h]]) e.style[k] = v + 'px';
  return e;
}

// ---- story ----
const subjectOf = i => i.subject || i.kind;

function drawStory(list) {
  const ol = $('items');
  for (const i of list) {
    const why = el('button', {class: 'open', type: 'button', tabindex: '-1', title: clean(subjectOf(i)), onclick: () => openWhy(i.subject)}, el('span', {class: 'heard-only'}, 'why '), bdi(subjectOf(i)));
    ol.prepend(el('li', {}, el('div', {class: 'meta'}, el('time', i.at ? {datetime: i.at} : {}, i.at ? day(Date.parse(i.at)) : ''), bdi(i.node), el('span', {class: 'out ' + roleClass(i.outcome)}, clean(i.outcome || i.kind))),
      why, i.text ? el('div', {class: 'text', title: clean(i.text)}, bdi(i.text)) : null));
  }
  while (ol.children.length > storyMax) ol.lastChild.remove();
  rove(ol, '.open');
}

// ---- the panel ----
function openPanel(title, hash, ...body) {
  $('panel-title').replaceChildren(...title);
  $('panel-body').replaceChildren(...body);
  history.replaceState(null, '', hash);
  if (!$('panel').open) $('panel').showModal();
  $('panel').scrollTop = 0;
  $('panel-title').focus();
  return ++calls;
}

// fetched asks the node and, unless something else was opened since, shows what draw makes of the answer.
async function fetched(call, box, path, draw) {
  let out;
  try {
    const r = await fetch(path, {signal: AbortSignal.timeout(25e3)});
    const text = await r.text();
    out = r.ok ? draw(JSON.parse(text)) : [el('p', {}, clean(text.trim()))];
  } catch (e) {
    out = [el('p', {}, `This node’s meshd does not answer: ${clean(e.message)}`)];
  }
  if (call === calls) box.replaceChildren(...out);
}

function openWhy(subject) {
  const box = el('div', {}, el('p', {class: 'quiet'}, 'Asking…'));
  const call = openPanel(['Why ', bdi(subject)], '#why=' + encodeURIComponent(subject), el('p', {class: 'quiet'}, 'What happened first, then what caused it, back to the beginning.'), box);
  fetched(call, box, '/why?subject=' + encodeURIComponent(subject), list => [el('ol', {class: 'chain'}, list.map((i, n) => {
    const t = i.at ? Date.parse(i.at) : 0, cause = list[n + 1]?.at ? Date.parse(list[n + 1].at) : 0;
    const late = t && cause && t - cause >= 0 ? `${t - cause < 1e4 ? `${t - cause} ms` : span(t - cause)} after its cause` : '';
    return el('li', {}, el('div', {class: 'say'}, el('b', {}, bdi(subjectOf(i))), ' ', el('span', {class: roleClass(i.outcome)}, clean(i.outcome)), i.text ? [el('br'), bdi(i.text)] : []),
      el('div', {class: 'meta'}, bdi(i.node), t ? [', ', el('time', {datetime: i.at}, day(t))] : [], late ? ', ' + late : ''));
  }))]);
}

function openGroup(g) {
  openPanel([bdi(g.stem)], '#', el('ul', {class: 'list'}, g.items.map(a => el('li', {}, el('div', {}, el('b', {}, bdi(a.name)), ` version ${clean(a.version)}`,
    el('div', {class: 'text'}, `from ${clean(a.publisher)}, ${size(a.size_bytes)}, ${a.wanted.length ? `${a.wanted.filter(w => a.holders.includes(w)).length} of ${a.wanted.length} have it` : 'nobody wants it'}`),
    el('div', {class: 'text mono'}, clean(a.hash))),
    el('button', {type: 'button', 'aria-label': 'why ' + clean(a.name), onclick: () => openWhy(a.name)}, 'Why')))));
}

function openNode(id) {
  const n = mesh.nodes.get(id);
  if (!n) return;
  const facts = [['State', `${n.status}${n.heard ? ', last heard ' + ago(n.heard) : ''}`], ['Id', n.id], ['Address', n.address], ['Kind', n.kind + (n.self ? ', this node' : '')],
    ['Roles', n.roles.join(', ')], ['Tags', Object.entries(n.tags ?? {}).map(([k, v]) => `${k}=${v}`).join(', ')], ['Score', n.score], ['meshd', [n.version, n.platform].filter(Boolean).join(', ')]];
  const box = el('div', {}, el('p', {class: 'quiet'}, 'Asking it…'));
  const call = openPanel([bdi(n.name)], '#node=' + encodeURIComponent(n.name), el('dl', {class: 'facts'}, facts.filter(f => f[1]).flatMap(([k, v]) => [el('dt', {}, k), el('dd', k === 'Id' || k === 'Address' ? {class: 'mono'} : {}, bdi(v))])),
    el('h3', {}, 'Its promises'), box);
  fetched(call, box, '/promises?node=' + encodeURIComponent(n.id), list => list.length ? [el('ul', {class: 'list'}, list.map(p => el('li', {}, el('div', {}, el('b', {}, bdi(p.address)), ' ',
    el('span', {class: roleClass(p.outcome)}, clean(p.outcome)), p.since ? [' ', el('small', {}, 'since ', day(Date.parse(p.since)))] : [], p.repairs ? el('small', {}, `, repaired ${p.repairs} ×`) : '',
    p.why ? el('div', {class: 'text'}, bdi(p.why)) : '', p.reason ? el('div', {class: 'text'}, bdi(p.reason)) : ''),
    n.self ? el('button', {type: 'button', 'aria-label': 'why ' + clean(p.address), onclick: () => openWhy(p.address)}, 'Why') : '')))] : [el('p', {class: 'quiet'}, 'It has made none.')]);
}

function fromHash() {
  const [what, subject] = new URLSearchParams(location.hash.slice(1)).entries().next().value ?? [];
  if (what === 'why' && subject) openWhy(subject);
  if (what === 'node') for (const n of mesh.nodes.values()) if (n.name === subject) return openNode(n.id);
}

// ---- hands ----
function setRange(i) {
  document.querySelectorAll('[name=range]')[range = i].checked = true;
  put($('axis-from'), ranges[i].name + ' ago');
  put($('axis-mid'), ranges[i].half);
  drawStrips();
}

const keys = {
  '/': () => $('filter').focus(), '?': () => $('help').showModal(), t: () => $('worst').click(),
  1: () => setRange(0), 2: () => setRange(1), 3: () => setRange(2),
  n: () => ($('rows').querySelector('.open[tabindex="0"]') ?? $('nodes')).focus(), s: () => ($('items').querySelector('.open[tabindex="0"]') ?? $('story')).focus(), f: () => $('flow-scroll').focus(),
};
document.addEventListener('keydown', e => {
  if (e.target === $('filter')) { if (e.key === 'Escape') { $('filter').value = ''; arrange(); } return; }
  if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]') || !$('keys-on').checked) return;
  e.preventDefault();
  keys[e.key]();
});
for (const [id, which] of [['rows', '.row:not([hidden]) .open'], ['items', '.open']]) {
  $(id).addEventListener('keydown', e => walk(e, $(id), which));
  $(id).addEventListener('focusin', () => rove($(id), which));
}
$('filter').addEventListener('input', arrange);
$('worst').addEventListener('change', arrange);
document.querySelectorAll('[name=range]').forEach((r, i) => r.addEventListener('change', () => setRange(i)));
$('help-open').addEventListener('click', () => $('help').showModal());
for (const d of ['panel', 'help']) {
  $(d + '-close').addEventListener('click', () => $(d).close());
  $(d).addEventListener('click', e => { if (e.target === $(d)) $(d).close(); }); // the backdrop
}
$('panel').addEventListener('close', () => { calls++; history.replaceState(null, '', location.pathname); });
addEventListener('hashchange', fromHash);

function connect() {
  source = new EventSource('/live');
  source.addEventListener('change', e => {
    apply(JSON.parse(e.data));
    if (first) { first = false; fromHash(); }
  });
  source.addEventListener('error', () => {
    tick();
    if (source.readyState === 2) setTimeout(connect, 3000); // refused: the browser does not try again by itself
  });
}
connect();
setInterval(tick, 1000);
