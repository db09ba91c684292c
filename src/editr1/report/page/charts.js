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
  if (!name) return el("span", { class: "pic gone" }, `${alt}: no picture`);
  const image = el("img", { class: "pic", src: data.images[name], alt, loading: "lazy", decoding: "async" });
  const mark = () => image.classList.toggle("pixel", image.naturalWidth <= 128);
  image.addEventListener("load", mark);
  return image;
}

const show = (value) => (value == null ? "–" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4)));

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

// Where the pointer or the arrow keys stand: all steps of all lines.
function chart(drawn) {
  const { lines, axis: [low, high] } = drawn;
  const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
  const last = (line) => line.values.findLast((value) => value != null);
  const legend = lines.length > 1 ? el("span", { class: "keys" }, ...lines.map((line, i) => el("span", { class: `key v${i % 4}` }, `${line.label} ${show(last(line))}`))) : el("span", {}, "last " + show(last(lines[0])));
  const figure = el("figure", { class: "card chart" + (drawn.alarm ? " alarmed" : drawn.outside ? " outside" : "") }, el("figcaption", { title: drawn.names }, el("span", {}, drawn.title), legend));
  if (!lines.some((line) => line.values.some((value) => value != null))) { figure.append(el("p", { class: "muted" }, "no finite value was logged")); return figure; }
  const first = steps[0], end = steps[steps.length - 1], span = end - first || 1;
  const x = (step) => LEFT + (HORIZONTAL - LEFT - RIGHT) * (steps.length === 1 ? 0.5 : (step - first) / span);
  const y = (value) => TOP + (VERTICAL - TOP - BOTTOM) * (1 - (value - low) / (high - low || 1));
  const told = lines.map((line) => `${line.label} from ${show(line.values.find((value) => value != null))} to ${show(last(line))}`).join(", ");
  const plot = svg("svg", { viewBox: `0 0 ${HORIZONTAL} ${VERTICAL}`, role: "img", tabindex: "0", "aria-label": `${drawn.title}: ${told}; arrow keys read single points` });
  if (drawn.band) {
    const top = y(Math.min(high, drawn.band[1] ?? high)), bottom = y(Math.max(low, drawn.band[0] ?? low));
    plot.append(svg("rect", { class: "band", x: LEFT, width: HORIZONTAL - LEFT - RIGHT, y: top, height: Math.max(0, bottom - top) }));
  }
  for (const tick of ticks(low, high, 4)) {
    plot.append(svg("line", { class: "gridline", x1: LEFT, x2: HORIZONTAL - RIGHT, y1: y(tick), y2: y(tick) }), svg("text", { x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end" }, show(tick)));
  }
  for (const tick of end > first ? ticks(first, end, 5).filter(Number.isInteger) : [first]) plot.append(svg("text", { x: x(tick), y: VERTICAL - 5, "text-anchor": "middle" }, tick));
  lines.forEach((one, i) => {
    const smooth = one.values.length > 24;
    plot.append(svg("path", { class: `${smooth ? "raw" : "mean"} s${i % 4}`, d: line(one.steps, one.values, x, y) }));
    if (smooth) plot.append(svg("path", { class: `mean s${i % 4}`, d: line(one.steps, runningMean(one.values), x, y) }));
    if (one.values.length < 12) one.values.forEach((value, k) => { if (value != null) plot.append(svg("circle", { class: `s${i % 4}`, r: 3, cx: x(one.steps[k]), cy: y(value) })); });
  });
  figure.append(plot);
  for (const text of [drawn.alarm, drawn.outside]) if (text) figure.append(el("p", { class: "alarm" }, text));
  readable(plot, lines, steps, x);
  return figure;
}

function readable(plot, lines, steps, x) {
  const cross = svg("line", { class: "cross", y1: TOP, y2: VERTICAL - BOTTOM, visibility: "hidden" }), tip = document.getElementById("tip-box");
  plot.append(cross);
  let at = steps.length - 1;
  const read = (index) => {
    at = index;
    const px = x(steps[index]), box = plot.getBoundingClientRect();
    cross.setAttribute("x1", px); cross.setAttribute("x2", px); cross.setAttribute("visibility", "visible");
    const said = lines.map((line) => [line.label, line.values[line.steps.indexOf(steps[index])]]).filter(([, value]) => value !== undefined);
    tip.textContent = `step ${steps[index]}  ` + said.map(([label, value]) => (lines.length > 1 ? `${label} ` : "") + show(value)).join("  ");
    tip.hidden = false;
    const left = box.left + (px / HORIZONTAL) * box.width;
    tip.style.left = Math.max(8, Math.min(left + 12, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(60, box.top - 8) + "px";
  };
  const hide = () => { cross.setAttribute("visibility", "hidden"); tip.hidden = true; };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect(), px = ((event.clientX - box.left) / box.width) * HORIZONTAL;
    let best = 0;
    steps.forEach((step, i) => { if (Math.abs(x(step) - px) < Math.abs(x(steps[best]) - px)) best = i; });
    read(best);
  });
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault(); read(Math.max(0, Math.min(steps.length - 1, at + move)));
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

