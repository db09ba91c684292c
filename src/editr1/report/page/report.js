// --- theme

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

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
  history.pushState({ sheet: true }, ""); // the back button of a phone closes the sheet and stays on the page
}

// --- audit: an edit that broke a law opens where the gallery shows it

for (const button of document.querySelectorAll(".broken button")) {
  const card = data.cards.find((shown) => shown.edits.some((edit) => edit.id === button.dataset.edit));
  if (card) button.addEventListener("click", () => open(card, card.edits.find((edit) => edit.id === button.dataset.edit)));
  else button.disabled = true;
}

window.addEventListener("popstate", () => document.getElementById("detail").close());
document.getElementById("detail").addEventListener("close", () => { if (history.state?.sheet) history.back(); });
document.getElementById("detail").addEventListener("click", (event) => { if (event.target.id === "detail") event.target.close(); });

const filters = document.getElementById("filters");
if (filters) {
  const all = data.cards.flatMap((card) => card.edits);
  options(filters.elements.kind, "all", data.cards.map((card) => card.kind));
  options(filters.elements.editor, "all", all.map((edit) => edit.editor));
  options(filters.elements.flag, "everything", all.flatMap((edit) => edit.flags));
  const put = pager(document.getElementById("cards"), document.getElementById("more-cards"), (node) => taskCard(...node));
  const draw = () => {
    const { kind, editor, flag, text } = filters.elements, words = text.value.toLowerCase();
    const nodes = []; let count = 0;
    for (const card of data.cards) {
      if ((kind.value && card.kind !== kind.value) || !card.instruction.toLowerCase().includes(words)) continue;
      const edits = card.edits.filter((edit) => (!editor.value || edit.editor === editor.value) && (!flag.value || edit.flags.includes(flag.value)));
      if (edits.length) { nodes.push([card, edits]); count += edits.length; }
    }
    put(nodes);
    if (!nodes.length) document.getElementById("cards").replaceChildren(el("p", { class: "empty" }, "No edit matches these filters."));
    document.getElementById("shown").textContent = `${count} of ${all.length} edits`;
  };
  filters.addEventListener("input", draw); filters.addEventListener("submit", (event) => event.preventDefault());
  draw();
}

// --- before and after

const points = (value) => (value == null ? "unscored" : value.toFixed(1));

// Fills a box with the first PAGE nodes of a list, and further ones on demand.
function pager(box, more, make) {
  let rows = [], limit = PAGE;
  const draw = () => { box.replaceChildren(...rows.slice(0, limit).map(make)); more.hidden = rows.length <= limit; };
  more.addEventListener("click", () => { limit += PAGE; draw(); });
  return (wanted) => { rows = wanted; limit = PAGE; draw(); };
}

const change = (row) => (row.score_before == null || row.score_after == null ? null : row.score_after - row.score_before);

function pairCard(row, names) {
  const gain = change(row), cut = el("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": `${row.instruction}: from ${names.after} (0) to ${names.before} (100)` });
  const pane = el("div", { class: "slider" }, picture(row.after, `${names.after}, score ${points(row.score_after)}`), el("div", { class: "over" }, picture(row.before, `${names.before}, score ${points(row.score_before)}`)), cut);
  cut.addEventListener("input", () => pane.style.setProperty("--cut", cut.value + "%"));
  const delta = gain == null ? el("span", { class: "chip" }, "no change known") : el("span", { class: "chip " + (gain > 0 ? "good" : gain < 0 ? "bad" : "") }, (gain > 0 ? "▲ +" : gain < 0 ? "▼ −" : "") + Math.abs(gain).toFixed(1));
  return el("article", { class: "card strip" }, el("p", {}, row.instruction, " ", delta),
    el("div", { class: "duo" }, el("figure", {}, picture(row.source, "source"), el("figcaption", {}, "source")),
      el("figure", {}, pane, el("figcaption", {}, el("span", {}, `${names.before} ${points(row.score_before)}`), el("span", {}, `${names.after} ${points(row.score_after)}`)))));
}

const pairFilters = document.getElementById("pair-filters");
if (pairFilters) {
  const { which, kind, order } = pairFilters.elements;
  const put = pager(document.getElementById("comparison"), document.getElementById("more-pairs"), (row) => pairCard(row, data.comparisons[which.value]));
  const kinds = () => { kind.replaceChildren(); options(kind, "all", data.comparisons[which.value].rows.map((row) => row.kind).filter(Boolean)); };
  const keys = { change: (row) => -Math.abs(change(row) ?? 0), gain: (row) => -(change(row) ?? -99), loss: (row) => change(row) ?? 99 };
  const draw = () => {
    const now = data.comparisons[which.value], rows = now.rows.filter((row) => !kind.value || row.kind === kind.value);
    put(order.value === "change" ? rows : rows.toSorted((a, b) => keys[order.value](a) - keys[order.value](b)));
    document.getElementById("pairs-shown").textContent = now.summary + (rows.length < now.num ? ` (${rows.length} shown)` : "");
  };
  which.addEventListener("change", kinds);
  pairFilters.addEventListener("input", draw); pairFilters.addEventListener("submit", (event) => event.preventDefault());
  kinds(); draw();
}

// --- several runs: the same task

if (document.getElementById("same-tasks")) {
  const shown = (name, edit) => el("figure", {}, edit ? picture(edit.image, `edit of ${name}, score ${points(edit.score)}`) : el("span", { class: "pic gone" }, "not shown"), el("figcaption", {}, el("span", {}, name), el("b", {}, edit ? points(edit.score) : "")));
  const put = pager(document.getElementById("same-tasks"), document.getElementById("more-tasks"), (row) => el("article", { class: "card task" },
    el("div", { class: "task-head" }, picture(row.source, "source"), el("div", {}, el("p", { class: "instruction" }, row.instruction))),
    el("div", { class: "shots" }, ...data.names.map((name) => shown(name, row.edits[name])))));
  put(data.tasks);
}

// --- live: load again, and leave the reader where they are

const PLACE = "editr1 " + location.pathname;
const fields = () => [...document.querySelectorAll("select, input[type=search]")];
const folds = () => [...document.querySelectorAll("details")];

function keepPlace() {
  const place = { top: scrollY, theme: document.documentElement.dataset.theme, open: folds().filter((fold) => fold.open).map((fold) => fold.id), fields: fields().map((field) => field.value) };
  sessionStorage.setItem(PLACE, JSON.stringify(place));
}

function findPlace() {
  const place = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
  if (!place) return;
  sessionStorage.removeItem(PLACE);
  if (place.theme) document.documentElement.dataset.theme = place.theme;
  for (const fold of folds()) fold.open = place.open.includes(fold.id);
  fields().forEach((field, i) => {
    if (field.value === place.fields[i] || place.fields[i] === undefined) return;
    field.value = place.fields[i];
    if (field.selectedIndex === -1) field.selectedIndex = 0; // what was chosen is gone
    for (const kind of ["change", "input"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  });
  setTimeout(() => scrollTo({ top: place.top, behavior: "instant" })); // after the folds have filled themselves
}

if (data.refresh) {
  let touched = 0;
  for (const kind of ["pointerdown", "keydown", "input"]) document.addEventListener(kind, () => { touched = Date.now(); });
  history.scrollRestoration = "manual";
  findPlace();
  setInterval(() => {
    if (document.getElementById("detail").open || Date.now() - touched < 3000 || document.hidden) return;
    keepPlace();
    location.reload();
  }, 1000 * data.refresh);
}
