"use strict";
// Everything the run said is data: it reaches the page as text nodes, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const VERTICAL = 200, HORIZONTAL = 520, LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 22;
const PAGE = 12; // tasks drawn at once: a phone scrolls through them without waiting

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function picture(name, alt) {
  const image = el("img", { class: "pic", src: data.images[name], alt, loading: "lazy", decoding: "async" });
  const mark = () => image.classList.toggle("pixel", image.naturalWidth <= 128);
  image.addEventListener("load", mark);
  return image;
}

const show = (value) => (value == null ? "–" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4)));

// --- theme

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

// --- curves

// Centred, so that it does not lag behind a trend.
function runningMean(values) {
  const width = Math.round(values.length / 30);
  return values.map((value, i) => {
    if (value == null) return null;
    const near = values.slice(Math.max(0, i - width), i + width + 1).filter((other) => other != null);
    return near.reduce((sum, other) => sum + other, 0) / near.length;
  });
}

function line(xs, ys, x, y) {
  let path = "", pen = "M";
  ys.forEach((value, i) => {
    if (value == null) { pen = "M"; return; }
    path += pen + x(xs[i]).toFixed(1) + " " + y(value).toFixed(1); pen = "L";
  });
  return path;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

function chart(series) {
  const { steps, values } = series, known = values.filter((value) => value != null);
  const last = known.length ? known[known.length - 1] : null;
  const figure = el("figure", { class: "card chart" }, el("figcaption", {}, el("span", {}, series.name), el("span", {}, "last " + show(last))));
  if (!known.length) { figure.append(el("p", { class: "muted" }, "no finite value was logged")); return figure; }
  let low = Math.min(...known), high = Math.max(...known);
  if (low === high) { const pad = Math.abs(low) || 1; low -= pad / 2; high += pad / 2; }
  const pad = (high - low) * 0.06; low -= pad; high += pad;
  const first = steps[0], end = steps[steps.length - 1], span = end - first || 1;
  const x = (step) => LEFT + (HORIZONTAL - LEFT - RIGHT) * (steps.length === 1 ? 0.5 : (step - first) / span);
  const y = (value) => TOP + (VERTICAL - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const plot = svg("svg", { viewBox: `0 0 ${HORIZONTAL} ${VERTICAL}`, role: "img", tabindex: "0", "aria-label": `${series.name}: first ${show(known[0])}, last ${show(last)}, lowest ${show(Math.min(...known))}, highest ${show(Math.max(...known))}; arrow keys read single points` });
  for (const tick of ticks(low, high, 4)) {
    plot.append(svg("line", { class: "gridline", x1: LEFT, x2: HORIZONTAL - RIGHT, y1: y(tick), y2: y(tick) }), svg("text", { x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, show(tick)));
  }
  for (const tick of end > first ? ticks(first, end, 5).filter(Number.isInteger) : [first]) plot.append(svg("text", { x: x(tick), y: VERTICAL - 5, "text-anchor": "middle" }, tick));
  const smooth = values.length > 24;
  plot.append(svg("path", { class: smooth ? "raw" : "mean", d: line(steps, values, x, y) }));
  if (smooth) plot.append(svg("path", { class: "mean", d: line(steps, runningMean(values), x, y) }));
  if (values.length === 1) plot.append(svg("circle", { r: 4, cx: x(first), cy: y(known[0]) }));
  figure.append(plot);
  readable(plot, series, x, y);
  return figure;
}

function readable(plot, series, x, y) {
  const cross = svg("line", { class: "cross", y1: TOP, y2: VERTICAL - BOTTOM, visibility: "hidden" });
  const dot = svg("circle", { r: 4.5, visibility: "hidden" }), tip = document.getElementById("tip-box");
  plot.append(cross, dot);
  let at = series.steps.length - 1;
  const read = (index) => {
    at = index;
    const value = series.values[index], px = x(series.steps[index]);
    cross.setAttribute("x1", px); cross.setAttribute("x2", px); cross.setAttribute("visibility", "visible");
    dot.setAttribute("visibility", value == null ? "hidden" : "visible");
    if (value != null) { dot.setAttribute("cx", px); dot.setAttribute("cy", y(value)); }
    const box = plot.getBoundingClientRect();
    tip.textContent = `step ${series.steps[index]}  ${show(value)}`; tip.hidden = false;
    const left = box.left + (px / HORIZONTAL) * box.width;
    tip.style.left = Math.min(left + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = box.top + ((value == null ? 40 : y(value)) / VERTICAL) * box.height - 34 + "px";
  };
  const hide = () => { cross.setAttribute("visibility", "hidden"); dot.setAttribute("visibility", "hidden"); tip.hidden = true; };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * HORIZONTAL;
    let best = 0;
    series.steps.forEach((step, i) => { if (Math.abs(x(step) - px) < Math.abs(x(series.steps[best]) - px)) best = i; });
    read(best);
  });
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault(); read(Math.max(0, Math.min(series.steps.length - 1, at + move)));
  });
  plot.addEventListener("pointerleave", hide); plot.addEventListener("blur", hide);
}

for (const box of document.querySelectorAll(".charts[data-part=headlines]")) box.append(...data.curves[box.dataset.stage].headlines.map(chart));
for (const more of document.querySelectorAll("details.more")) {
  more.addEventListener("toggle", () => {
    const box = more.querySelector(".charts");
    if (more.open && !box.childElementCount) box.append(...data.curves[box.dataset.stage].others.map(chart));
  });
}

// --- edits

const chipClass = (flag) => (flag === "disagreement" || flag === "unparsed" ? "chip warn" : "chip bad");
const mark = (verdict) => (verdict == null ? el("span", { class: "muted" }, "–") : el("span", { class: verdict ? "yes" : "no", "aria-label": verdict ? "yes" : "no" }, verdict ? "✓" : "✗"));
const options = (select, all, values) => select.append(el("option", { value: "" }, all), ...[...new Set(values)].sort().map((value) => el("option", { value }, value)));

function meanScore(edit) {
  const judges = edit.voices.filter((voice) => voice.role === "judge" && voice.score != null);
  const voices = judges.length ? judges : edit.voices.filter((voice) => voice.score != null);
  return voices.length ? voices.reduce((sum, voice) => sum + voice.score, 0) / voices.length : null;
}

function shot(card, edit) {
  const score = meanScore(edit);
  return el("button", { type: "button", class: "shot", "data-id": edit.id, onclick: () => open(card, edit) },
    picture(edit.image, `edit by ${edit.editor}`),
    el("span", { class: "about" },
      el("span", { class: "who" }, el("span", {}, edit.editor), el("b", { title: "mean score of the judges, or of the annotators where no judge spoke" }, score == null ? "unscored" : score.toFixed(1))),
      el("span", { class: "flags" }, ...edit.flags.map((flag) => el("span", { class: chipClass(flag) }, flag)))));
}

function taskCard(card, edits) {
  return el("article", { class: "card task" },
    el("div", { class: "task-head" }, ...card.sources.map((source) => picture(source, "source")), el("div", {}, el("p", { class: "instruction" }, card.instruction), el("span", { class: "chip" }, card.kind.replaceAll("_", " ")))),
    el("div", { class: "shots" }, ...edits.map((edit) => shot(card, edit))));
}

function open(card, edit) {
  const dialog = document.getElementById("detail"), trace = el("div", { class: "trace", hidden: "" });
  const buttons = [];
  const tell = (voice, button) => {
    for (const other of buttons) other.setAttribute("aria-pressed", other === button);
    trace.replaceChildren(el("b", {}, voice.name), voice.failure ? el("span", { class: "chip warn" }, " " + voice.failure) : "", el("pre", {}, voice.text + (voice.cut ? "\n… (cut here; the whole trace is in 04_traces)" : "")));
    trace.hidden = false;
  };
  const heads = edit.voices.map((voice, i) => {
    const button = el("button", { type: "button", "aria-pressed": "false", title: "show the trace", onclick: () => tell(voice, button) }, voice.name + (i === edit.chosen ? " ★" : ""));
    buttons.push(button);
    return el("th", {}, button);
  });
  const rows = card.principles.map((principle, k) => el("tr", { class: edit.split.includes(k) ? "split" : "" },
    el("td", { class: "question" }, el("span", { class: "cat", title: principle.category }, principle.label), principle.text, edit.reasons[k] ? el("span", { class: "reason" }, "inspector: " + edit.reasons[k]) : null),
    el("td", {}, mark(edit.gold[k])), ...edit.voices.map((voice) => el("td", {}, mark(voice.verdicts[k])))));
  const scores = el("tr", { class: "score-row" }, el("td", {}, "score, of 10"), el("td", {}, "–"), ...edit.voices.map((voice) => el("td", {}, voice.score == null ? voice.failure : String(voice.score))));
  dialog.replaceChildren(el("div", { class: "sheet" },
    el("div", { class: "sheet-head" }, el("h3", {}, card.instruction), el("button", { type: "button", onclick: () => dialog.close(), "aria-label": "Close" }, "✕")),
    el("div", { class: "flags" }, el("span", { class: "chip" }, card.kind.replaceAll("_", " ")), ...edit.flags.map((flag) => el("span", { class: chipClass(flag) }, flag)), edit.dropped ? el("span", { class: "muted" }, edit.dropped) : null),
    el("div", { class: "sheet-pics" }, ...card.sources.map((source) => el("figure", {}, picture(source, "source"), el("figcaption", {}, "source"))), el("figure", {}, picture(edit.image, "edit"), el("figcaption", {}, `${edit.editor}, seed ${edit.seed}`))),
    el("div", { class: "scroll" }, el("table", { class: "verdicts" }, el("thead", {}, el("tr", {}, el("th", {}, "principle"), el("th", {}, "inspector"), ...heads)), el("tbody", {}, ...rows, scores))),
    edit.chosen != null ? el("p", { class: "muted" }, "★ the trace that the selector kept for SFT") : null, trace));
  dialog.showModal();
}

// --- audit: an edit that broke a law opens where the gallery shows it

for (const button of document.querySelectorAll(".broken button")) {
  const card = data.cards.find((candidate) => candidate.edits.some((edit) => edit.id === button.dataset.edit));
  if (card) button.addEventListener("click", () => open(card, card.edits.find((edit) => edit.id === button.dataset.edit)));
  else button.disabled = true;
}

document.getElementById("detail").addEventListener("click", (event) => { if (event.target.id === "detail") event.target.close(); });

const filters = document.getElementById("filters");
if (filters) {
  const all = data.cards.flatMap((card) => card.edits);
  options(filters.elements.kind, "all", data.cards.map((card) => card.kind));
  options(filters.elements.editor, "all", all.map((edit) => edit.editor));
  options(filters.elements.flag, "everything", all.flatMap((edit) => edit.flags));
  const more = document.getElementById("more-cards");
  let limit = PAGE;
  const draw = () => {
    const { kind, editor, flag, text } = filters.elements, words = text.value.toLowerCase();
    const nodes = []; let count = 0;
    for (const card of data.cards) {
      if ((kind.value && card.kind !== kind.value) || !card.instruction.toLowerCase().includes(words)) continue;
      const edits = card.edits.filter((edit) => (!editor.value || edit.editor === editor.value) && (!flag.value || edit.flags.includes(flag.value)));
      if (edits.length) { nodes.push([card, edits]); count += edits.length; }
    }
    document.getElementById("cards").replaceChildren(...(nodes.length ? nodes.slice(0, limit).map((node) => taskCard(...node)) : [el("p", { class: "empty" }, "No edit matches these filters.")]));
    more.hidden = nodes.length <= limit;
    document.getElementById("shown").textContent = `${count} of ${all.length} edits`;
  };
  more.addEventListener("click", () => { limit += PAGE; draw(); });
  filters.addEventListener("input", () => { limit = PAGE; draw(); }); filters.addEventListener("submit", (event) => event.preventDefault());
  draw();
}

// --- strips of the editor

function strip(row) {
  const known = row.score_before != null && row.score_after != null, gain = known ? row.score_after - row.score_before : 0;
  const shown = (value) => (value == null ? "unscored" : value.toFixed(1));
  const cell = (name, label, cls) => el("figure", {}, picture(row[name], name), el("figcaption", {}, label[0], label[1] ? el("span", { class: cls }, label[1]) : ""));
  return el("div", { class: "card strip" }, el("p", {}, row.instruction), el("div", { class: "trio" },
    cell("source", ["source", ""]), cell("before", [`before ${shown(row.score_before)}`, ""]),
    cell("after", [`after ${shown(row.score_after)}`, known && gain ? ` ${gain > 0 ? "▲" : "▼"} ${Math.abs(gain).toFixed(1)}` : ""], gain > 0 ? "up" : "down")));
}

const stripFilters = document.getElementById("strip-filters");
if (stripFilters) {
  options(stripFilters.elements.kind, "all", data.strips.map((row) => row.kind).filter(Boolean));
  const gain = (row) => (row.score_before == null || row.score_after == null ? 0 : row.score_after - row.score_before);
  const draw = () => {
    const { kind, order } = stripFilters.elements;
    const rows = data.strips.filter((row) => !kind.value || row.kind === kind.value);
    if (order.value !== "file") rows.sort((a, b) => (order.value === "gain" ? gain(b) - gain(a) : gain(a) - gain(b)));
    document.getElementById("strips").replaceChildren(...rows.map(strip));
    document.getElementById("strips-shown").textContent = `${rows.length} of ${data.strips.length}`;
  };
  stripFilters.addEventListener("input", draw); stripFilters.addEventListener("submit", (event) => event.preventDefault());
  draw();
}
