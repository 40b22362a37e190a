(function () {
  "use strict";
  const head = JSON.parse(document.getElementById("head").textContent);
  const lines = document.getElementById("records").textContent.trim().split("\n").slice(1, -1);
  const size = head.names.length, page = 200, strongest = 999;
  const place = { list: byId("list"), found: byId("found"), more: byId("more"), query: byId("query"), order: byId("order"), feature: byId("feature") };
  const marks = { supported: ["passed", "✓"], refuted: ["failed", "✗"], inconclusive: ["undecided", "?"] };
  let shown = [], open = -1, drawn = 0;

  function byId(name) { return document.getElementById(name); }
  function record(i) { return JSON.parse(lines[i].replace(/,$/, "")); }

  /* An element with its class, what stands in it (text or elements) and its attributes. */
  function make(tag, kind, inside, more) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    for (const item of [].concat(inside === undefined ? [] : inside)) made.append(item);
    for (const name in more || {}) made.setAttribute(name, more[name]);
    return made;
  }
  function figure(x) {
    if (x === null || x === undefined) return "–";
    if (x === 0) return "0";
    const size = Math.abs(x);
    return size >= 1e5 || size < 1e-4 ? x.toExponential(2) : String(Number(x.toPrecision(3)));
  }
  function share(x) { return (x > 0 && x < 0.001 ? (100 * x).toPrecision(2) : Number((100 * x).toPrecision(3))) + "\u00a0%"; }
  function density(i) { return head.counts[i] / Math.max(1, head.tokens); }
  function spaced(word) { return head.spaced[word] === "1"; }
  function link(i, text) { return make("a", "", make("bdi", "", text || head.names[i]), { href: "#feature-" + i }); }
  function table(kind, columns, rows) {
    const body = rows.map((cells) => make("tr", "", cells.map((cell) => make("td", "", cell))));
    const first = columns ? [make("thead", "", make("tr", "", columns.map((c) => (c ? make("th", "", c, { scope: "col" }) : make("td")))))] : [];
    return make("table", "small " + kind, [...first, make("tbody", "", body)]);
  }

  // The list: what is searched, how it is ordered.
  const sought = head.names.map((name, i) =>
    [name, ...(head.labels ? [head.labels[i], head.verdicts[i], head.standings[i]] : []), ...head.peaks[i].map((w) => head.words[w])].join("\n").toLowerCase());
  const orders = [
    ["most often active", (i) => -head.counts[i], (i) => share(density(i))],
    ["least often active", (i) => (head.counts[i] ? head.counts[i] : Infinity), (i) => share(density(i))],
    ["largest activation", (i) => -Math.abs(head.maxima[i]), (i) => figure(head.maxima[i])],
    ["by number", (i) => i, (i) => share(density(i))]
  ];
  const order = { supported: 0, inconclusive: 1, refuted: 2 };
  if (head.labels) {
    orders.unshift(["best label", (i) => (head.scores[i] === null ? Infinity : order[head.verdicts[i]] - head.scores[i]), (i) => (head.scores[i] === null ? "–" : head.scores[i].toFixed(2))]);
  }
  for (const column of head.columns) {
    orders.push([column.name + ", largest", (i) => last(column.values[i]), (i) => figure(column.values[i])]);
    orders.push([column.name + ", smallest", (i) => (column.values[i] === null ? Infinity : column.values[i]), (i) => figure(column.values[i])]);
  }
  function last(x) { return x === null ? Infinity : -x; }
  orders.forEach((order, n) => place.order.append(make("option", "", order[0], { value: n })));

  function search() {
    const words = place.query.value.toLowerCase().trim().split(/\s+/).filter(Boolean);
    const key = orders[Number(place.order.value)][1], keys = head.names.map((_, i) => key(i));
    shown = [];
    for (let i = 0; i < size; i++) if (words.every((word) => sought[i].includes(word))) shown.push(i);
    const named = words.length === 1 ? head.names.findIndex((name) => name.toLowerCase() === words[0]) : -1;
    shown.sort((a, b) => {
      if (a === named || b === named) return a === named ? -1 : 1;
      const x = keys[a], y = keys[b], gone = (v) => v === Infinity || v === -Infinity;
      if (gone(x) || gone(y)) return gone(x) && gone(y) ? a - b : gone(x) ? 1 : -1;
      return x - y || a - b;
    });
    drawn = 0;
    place.list.replaceChildren();
    place.found.textContent = shown.length === size ? size + (size === 1 ? " feature" : " features")
      : shown.length + " of " + size + " features";
    more();
  }
  function more() {
    const said = orders[Number(place.order.value)][2];
    for (const i of shown.slice(drawn, drawn + page)) {
      const item = link(i);
      const text = head.labels && head.labels[i] ? head.labels[i] : head.peaks[i].slice(0, 6).map((w) => head.words[w]).join(" · ");
      const marked = head.labels && marks[head.verdicts[i]] ? [mark(head.verdicts[i])] : [];
      item.replaceChildren(make("span", "", [...marked, make("b", "", make("bdi", "", head.names[i]))]), make("span", "figure", said(i)),
        make("span", "said", make("bdi", "", head.counts[i] ? text : "never active")));
      if (i === open) item.setAttribute("aria-current", "true");
      place.list.append(make("li", "", item));
    }
    drawn = Math.min(shown.length, drawn + page);
    place.more.hidden = drawn >= shown.length;
  }

  function mark(verdict) {
    const [kind, sign] = marks[verdict];
    return make("span", "mark tiny " + kind, sign, { role: "img", "aria-label": verdict, title: verdict });
  }

  // One feature.
  function passage(example, scale) {
    const [text, position, value, at, words, active] = example, values = new Map();
    for (let n = 0; n < active.length; n += 2) values.set(active[n], active[n + 1] / strongest);
    const parts = [make("span", "says", figure(value) + " · text " + text + ", token " + position)];
    words.forEach((word, n) => {
      const v = values.get(n) || 0, said = n === at ? figure(value) : figure(v * scale);
      const kind = "token" + (spaced(word) && n ? " spaced" : "") + (n === at ? " it" : "") + (v > 0 ? " hot" : v < 0 ? " cold" : "");
      const token = make("span", kind, head.words[word], v ? { title: said, "data-v": said } : {});
      if (v) token.style.setProperty("--a", (0.08 + 0.47 * Math.min(1, Math.abs(v))).toFixed(3));
      parts.push(token, make("wbr"));
    });
    return make("li", "", parts);
  }
  function passages(examples, scale) { return make("ul", "passages", examples.map((e) => passage(e, scale))); }
  function histogram(low, high, counts) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), most = Math.max(1, ...counts), n = counts.length;
    svg.setAttribute("viewBox", "0 0 " + n + " 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "histogram");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "Histogram of activations from " + figure(low) + " to " + figure(high));
    counts.forEach((count, i) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), height = count ? Math.max(1.5, (100 * count) / most) : 0;
      [["x", i + 0.06], ["y", 100 - height], ["width", 0.88], ["height", height]].forEach(([name, v]) => bar.setAttribute(name, v));
      svg.append(bar);
    });
    const step = (high - low) / n;
    const rows = counts.map((count, i) => [figure(low + i * step) + " to " + figure(low + (i + 1) * step), String(count)]).filter((row) => row[1] !== "0");
    return [svg, make("div", "ends", [make("span", "", figure(low)), make("span", "", "at most " + most + (most === 1 ? " token" : " tokens") + " in a bar"), make("span", "", figure(high))]),
      make("details", "", [make("summary", "", "The numbers behind it"), table("", ["activation", "tokens"], rows)])];
  }
  function logits(title, pairs) {
    const items = pairs.map(([word, v]) => make("li", "", [make("span", "token", head.words[word]), make("span", "quiet", (v > 0 ? "+" : "") + figure(v))]));
    return make("div", "", [make("h4", "", title), make("ul", "chips", items)]);
  }
  function labelled(i, label) {
    if (!label) return head.labels ? [make("p", "quiet", "No label was made for it.")] : [];
    const text = make("bdi", "", label.text || "no label was found"), badge = make("span", "badge badge-" + label.verdict, label.verdict);
    const beside = label.rows.length ? [table("words", ["", "figure", "95 %", ""], label.rows)] : [];
    return [make("p", "label", [badge, make("span", "tag", label.standing), " ", text]), ...beside];
  }
  function card(title, inside, note) {
    return make("section", "card", [make("h3", "", title), ...inside, ...(note ? [make("p", "quiet", note)] : [])]);
  }
  function show(i) {
    const data = record(i), count = head.counts[i], cards = [];
    const at = shown.indexOf(i), step = (by, words) => (at >= 0 && shown[at + by] !== undefined ? [link(shown[at + by], words)] : []);
    const rows = [["active on", share(density(i)), count + " of " + head.tokens + " tokens"], ["largest activation", figure(head.maxima[i]), ""],
      ["mean when active", figure(data.mean), ""]];
    for (const column of head.columns) rows.push([column.name, figure(column.values[i]), column.says]);
    const drawing = count ? histogram(...data.histogram) : [make("p", "", "It is active on no token of these texts.")];
    cards.push(card("Activation", [...drawing, table("words", null, rows)]));
    if (data.raised) cards.push(card("Logits it raises and lowers directly", [make("div", "pairs-of", [logits("raised", data.raised), logits("lowered", data.lowered)])], head.says.logits));
    const top = data.top.length ? [card("Where it is strongest", [values(), passages(data.top, data.scale)])] : [];
    const shares = data.quantiles.length ? [make("h3", "", "A sample of each share of its activations, the strongest share first")] : [];
    data.quantiles.forEach(([low, high, examples], n) => shares.push(
      make("h4", "", figure(low) + (low === high ? "" : " to " + figure(high)) + " (share " + (n + 1) + " of " + data.quantiles.length + ")"), passages(examples, data.scale)));
    const near = [];
    if (data.together.length) near.push(card("Active together with", [table("", ["feature", "correlation", "Jaccard", "tokens"],
      data.together.map(([j, r, jaccard, both]) => [link(j), figure(r), figure(jaccard), String(both)]))], head.says.together));
    if (data.alike && data.alike.length) near.push(card("Directions most alike", [table("", ["feature", "cosine"], data.alike.map(([j, c]) => [link(j), figure(c)]))], head.says.alike));
    if (data.beside && data.beside.length) near.push(card("Correlated with", [table("", ["beside", "correlation"], data.beside.map(([name, r]) => [make("bdi", "", name), figure(r)]))], head.says.beside));
    if (data.neurons) near.push(card("Neurons that write alike", [table("", ["neuron", "cosine"], data.neurons.map(([j, c]) => [head.neurons + j, figure(c)]))], head.says.neurons));
    if (data.heads) near.push(card("Heads that can write it", [table("", ["head", "share"], data.heads.map(([j, c]) => [head.heads + j, share(c)]))], head.says.heads));
    place.feature.replaceChildren(
      make("p", "steps", [make("a", "back", "all features", { href: "#query" }), ...step(-1, "previous"), ...step(1, "next")]),
      make("h2", "", make("bdi", "", head.names[i])), ...labelled(i, data.label), make("div", "cards", cards), ...top, ...shares, make("div", "cards", near));
    open = i;
    for (const other of place.list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    const mine = place.list.querySelector('[href="#feature-' + i + '"]');
    if (mine) mine.setAttribute("aria-current", "true");
  }
  function values() {
    const box = make("input", "", [], { type: "checkbox", id: "values" });
    box.checked = document.body.classList.contains("figures");
    box.addEventListener("change", () => document.body.classList.toggle("figures", box.checked));
    return make("p", "switch", [box, make("label", "", "write the activations beside the tokens", { for: "values" }), make("span", "scale", [], { "aria-hidden": "true" }), make("span", "quiet", "0 to its largest")]);
  }

  function follow(moved) {
    const asked = /^#feature-(\d+)$/.exec(location.hash), i = asked ? Number(asked[1]) : -1;
    if (location.hash === "#query") { place.query.focus(); return; }
    if (i >= 0 && i < size) {
      show(i);
      if (moved) { place.feature.focus({ preventScroll: true }); place.feature.scrollIntoView({ block: "start" }); }
    }
  }
  place.query.closest("form").addEventListener("submit", (event) => event.preventDefault());
  place.query.addEventListener("input", search);
  place.order.addEventListener("change", search);
  place.more.addEventListener("click", more);
  window.addEventListener("hashchange", () => follow(true));
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); place.query.focus(); }
    const item = event.target.closest ? event.target.closest("#list li") : null;
    if (item && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const next = event.key === "ArrowDown" ? item.nextElementSibling : item.previousElementSibling;
      if (next) { event.preventDefault(); next.firstElementChild.focus(); }
    }
    if (event.target === place.query && event.key === "ArrowDown" && place.list.firstElementChild) {
      event.preventDefault();
      place.list.firstElementChild.firstElementChild.focus();
    }
  });
  search();
  if (/^#feature-\d+$/.test(location.hash)) follow(false);
  else if (shown.length) show(shown[0]);
})();
