"use strict";
// Two rules above all: the next pair shows only after the server said that the answer is on disk, and only with all its
// pictures, for a browser shows the old picture until the new one has arrived.
const $ = (id) => document.getElementById(id);
const RETRY_MS = 1000, PICTURE_TRIES = 3, LONG = 160; // characters of an instruction that is set small
const state = { flickers: false, name: localStorage.getItem("editr1-name") || "", items: [], shownAt: 0, busy: false, view: { zoom: 1, x: 0, y: 0 } };

// --- talking to the server

async function ask(path, body) {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  const reply = await fetch(path, options);
  const value = await reply.json().catch(() => ({}));
  if (!reply.ok) throw Object.assign(new Error(value.error || `the server answered ${reply.status}`), { status: reply.status });
  return value;
}

// Tries until the server answers; only an answer that says no ends it.
async function askUntilDone(path, body) {
  for (;;) {
    try {
      const value = await ask(path, body);
      complain("");
      return value;
    } catch (error) {
      if (error.status && error.status < 500) throw error;
      complain("The server cannot be reached. Your answer is not saved yet; trying again…");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function complain(text) { $("problem").textContent = text; $("problem").hidden = !text; }

async function exclusively(work) {
  if (state.busy) return;
  state.busy = true;
  document.querySelectorAll("#answers button, #tools button").forEach((button) => (button.disabled = true));
  try { await work(); } catch (error) { complain(error.message); } finally {
    state.busy = false;
    document.querySelectorAll("#answers button, #tools button").forEach((button) => (button.disabled = false));
  }
}

const load = () => exclusively(async () => await take(await askUntilDone("/api/next", { annotator: state.name })));
const undo = () => exclusively(async () => await take(await askUntilDone("/api/undo", { annotator: state.name, item: state.last })));
const answer = (choice) => exclusively(async () => {
  if (!state.items.length) return;
  flicker(false);
  const seconds = (performance.now() - state.shownAt) / 1000;
  await take(await askUntilDone("/api/answer", { item: state.items[0].id, annotator: state.name, answer: choice, seconds }));
});

// --- showing a pair

const count = (value) => value.toLocaleString("en");

const preloaded = new Map();
function preload(url) {
  if (preloaded.has(url)) return preloaded.get(url);
  const image = new Image();
  image.src = url;
  preloaded.set(url, image);
  if (preloaded.size > 60) preloaded.delete(preloaded.keys().next().value);
  return image;
}

const urls = (item) => [item.source, item.left, item.right, ...item.further];

async function arrive(item) {
  for (let attempt = 1; attempt <= PICTURE_TRIES; attempt++) {
    try {
      await Promise.all(urls(item).map((url) => preload(url).decode()));
      return complain("");
    } catch {
      urls(item).forEach((url) => preloaded.delete(url));
      complain("The pictures of the next pair do not arrive; trying again…");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  complain("A picture of this pair cannot be shown. Skip it, and tell the person who runs the study.");
}

async function take(reply) {
  for (const item of reply.items) urls(item).forEach(preload);
  if (reply.items.length) await arrive(reply.items[0]);
  state.items = reply.items;
  state.last = reply.last;
  const total = reply.done + reply.remaining;
  $("bar").value = total ? reply.done / total : 1;
  $("pace").textContent = `${count(reply.done)} done, ${count(reply.remaining)} left` + (reply.seconds_each ? `, ${reply.seconds_each} s a pair` : "");
  $("who").textContent = state.name;
  $("welcome").hidden = true;
  $("desk").hidden = !state.items.length;
  $("done").hidden = !!state.items.length;
  if (state.items.length) draw(state.items[0]);
}

function draw(item) {
  $("desk").dataset.item = item.id;
  $("instruction").textContent = item.instruction;
  $("instruction").classList.toggle("long", item.instruction.length > LONG);
  $("instruction").scrollTop = 0;
  for (const side of ["source", "left", "right"]) $(side).src = item[side];
  $("further").hidden = !item.further.length;
  $("further").replaceChildren(...item.further.map((src, index) => Object.assign(document.createElement("img"), { src, alt: `source picture ${index + 2}` })));
  $("principles").hidden = !item.principles.length;
  $("principles").replaceChildren(...item.principles.map((p) => Object.assign(document.createElement("li"), { textContent: p.text })));
  flicker(false);
  look({ zoom: 1, x: 0, y: 0 });
  const source = preload(item.source), ratio = source.naturalWidth && source.naturalHeight ? source.naturalWidth / source.naturalHeight : 1;
  $("stage").style.setProperty("--ratio", Math.max(0.4, Math.min(2.5, ratio)));
  $("stage").classList.toggle("wide", ratio >= 1.2);
  state.shownAt = performance.now();
}

for (const side of ["source", "left", "right"]) $(side).addEventListener("load", (event) => event.target.classList.toggle("pixel", event.target.naturalWidth <= 128));

// --- the same view of all three pictures; x and y in percent of a pane

function look(view) {
  const reach = 50 * (view.zoom - 1);
  const bound = (value) => Math.max(-reach, Math.min(reach, value));
  state.view = { zoom: view.zoom, x: bound(view.x), y: bound(view.y) };
  const style = $("stage").style;
  style.setProperty("--zoom", state.view.zoom); style.setProperty("--x", state.view.x + "%"); style.setProperty("--y", state.view.y + "%");
  $("stage").classList.toggle("zoomed", view.zoom > 1);
}

// Keeps the point under the pointer where it is.
function zoomAt(pane, clientX, clientY, factor) {
  const box = pane.getBoundingClientRect(), { zoom, x, y } = state.view;
  const next = Math.max(1, Math.min(8, zoom * factor)), ratio = next / zoom;
  const px = ((clientX - box.left) / box.width - 0.5) * 100, py = ((clientY - box.top) / box.height - 0.5) * 100;
  look({ zoom: next, x: px - (px - x) * ratio, y: py - (py - y) * ratio });
}

const toggleZoom = () => look(state.view.zoom > 1 ? { zoom: 1, x: 0, y: 0 } : { zoom: 2.5, x: 0, y: 0 });
const pointers = new Map();
for (const pane of document.querySelectorAll(".pane")) {
  pane.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(pane, event.clientX, event.clientY, Math.exp(-event.deltaY / 400)); }, { passive: false });
  pane.addEventListener("dblclick", (event) => (state.view.zoom > 1 ? toggleZoom() : zoomAt(pane, event.clientX, event.clientY, 2.5)));
  pane.addEventListener("pointerdown", (event) => { pane.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); state.pressed = { x: event.clientX, y: event.clientY }; });
  pane.addEventListener("click", (event) => { // a drag or a pinch is no tap
    if (state.pressed && Math.hypot(event.clientX - state.pressed.x, event.clientY - state.pressed.y) < 8) flicker(!state.flickers);
  });
  for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, (event) => pointers.delete(event.pointerId));
  pane.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
    pointers.set(event.pointerId, event);
    if (others.length) { // pinch
      const apart = (a) => Math.hypot(a.clientX - others[0].clientX, a.clientY - others[0].clientY) || 1;
      zoomAt(pane, (event.clientX + others[0].clientX) / 2, (event.clientY + others[0].clientY) / 2, apart(event) / apart(before));
    } else {
      const box = pane.getBoundingClientRect();
      look({ ...state.view, x: state.view.x + ((event.clientX - before.clientX) / box.width) * 100, y: state.view.y + ((event.clientY - before.clientY) / box.height) * 100 });
    }
  });
}

// --- flicker: the source in place of both edits, while it is held or until the next tap

const HELD_MS = 300;
function flicker(on) {
  const item = state.items[0];
  if (!item) return;
  state.flickers = on;
  for (const side of ["left", "right"]) $(side).src = on ? item.source : item[side];
  for (const [side, name] of [["left", "A"], ["right", "B"]]) $(side).closest("figure").querySelector("figcaption").textContent = on ? "source" : name;
  $("flicker").setAttribute("aria-pressed", on);
}
$("flicker").addEventListener("pointerdown", () => { state.heldSince = performance.now(); state.flickered = state.flickers; flicker(true); });
$("flicker").addEventListener("pointerup", () => flicker(performance.now() - state.heldSince < HELD_MS && !state.flickered));
for (const end of ["pointerleave", "pointercancel"]) $("flicker").addEventListener(end, (event) => { if (event.buttons) flicker(false); });

// --- one picture as large as the screen; a tap shows the next in its place

const ORDER = [["left", "A"], ["source", "source"], ["right", "B"]];
function enlarge(index) {
  if (!state.items.length) return;
  state.large = index % ORDER.length;
  const [side, name] = ORDER[state.large];
  $("large-picture").src = state.items[0][side];
  $("large-name").textContent = name;
  if (!$("large").open) $("large").showModal();
}
$("enlarge").addEventListener("click", () => enlarge(0));
$("large-picture").addEventListener("click", () => enlarge(state.large + 1));
$("large-close").addEventListener("click", () => $("large").close());

// --- keys and buttons

const KEYS = { a: "left", ArrowLeft: "left", 1: "left", b: "right", ArrowRight: "right", 2: "right", s: "same", ArrowDown: "same", 3: "same", k: "skip" };
addEventListener("keydown", (event) => {
  if ($("desk").hidden && $("done").hidden) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("keys").open) return;
  if ($("large").open) { if (event.key === " " || event.key === "e") { event.preventDefault(); enlarge(state.large + 1); } return; }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "u" || key === "Backspace") { event.preventDefault(); undo(); }
  else if ($("desk").hidden) return;
  else if (KEYS[key]) { event.preventDefault(); answer(KEYS[key]); }
  else if (key === "f") flicker(true);
  else if (key === "z") toggleZoom();
  else if (key === "e") enlarge(0);
  else if (key === "?") $("keys").showModal();
});
addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "f") flicker(false); });
addEventListener("blur", () => flicker(false));
for (const button of document.querySelectorAll("[data-answer]")) button.addEventListener("click", () => { button.blur(); answer(button.dataset.answer); });
$("undo").addEventListener("click", (event) => { event.target.blur(); undo(); });
$("undo-last").addEventListener("click", undo);
$("zoom").addEventListener("click", toggleZoom);
$("help").addEventListener("click", () => $("keys").showModal());
$("who").addEventListener("click", () => { localStorage.removeItem("editr1-name"); location.reload(); });
$("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  state.name = $("name").value.trim();
  if (!state.name) return;
  localStorage.setItem("editr1-name", state.name);
  load();
});

if (state.name) load(); else $("name").focus();
