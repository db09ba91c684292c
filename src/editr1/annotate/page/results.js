"use strict";
const percent = (value) => (value == null ? "–" : (100 * value).toFixed(1) + " %");
const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
const plain = (value) => (value == null ? "–" : String(Math.round(value * 1000) / 1000));

function node(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function box(title, note, ...content) {
  const made = node("section");
  made.append(node("h2", title));
  if (note) made.append(node("p", note, "soft"));
  made.append(...content);
  return made;
}

function table(head, rows) {
  const made = node("table"), header = node("thead"), body = node("tbody"), top = node("tr");
  top.append(...head.map((text) => node("th", text)));
  header.append(top);
  body.append(...rows.map((cells) => {
    const row = node("tr");
    row.append(...cells.map((cell) => { const made = node("td"); made.append(cell); return made; }));
    [...row.children].forEach((cell, i) => { cell.dataset.label = head[i]; }); // a phone shows the column's name before the value
    return row;
  }));
  made.append(header, body);
  return rows.length ? made : node("span");
}

// Parts of a whole as one bar; each part names its class, its share of the bar and what stands on it.
function track(parts, total) {
  const made = node("div", undefined, "track");
  for (const [name, value, label] of parts) {
    if (!value) continue;
    const part = node("i", label, name);
    part.style.width = (100 * value) / total + "%";
    made.append(part);
  }
  return made;
}

function legend(...entries) {
  const made = node("p", undefined, "legend");
  for (const [name, text] of entries) { const entry = node("span"); entry.append(node("i", undefined, name), text); made.append(entry); }
  return made;
}

function annotators(rows) {
  const name = (a) => { const cell = node("span", a.name); for (const flag of a.flags) cell.append(node("br"), node("span", "⚑ " + flag, "flag")); return cell; };
  return box("Annotators", "", table(["name", "answers", "skipped", "same", "median s", "control questions", "chose left"], rows.map((a) => [name(a), a.answers, a.skipped, a.same, plain(a.median_seconds), a.gold_asked ? `${a.gold_right} of ${a.gold_asked}` : "–", percent(a.left_share)])));
}

function editors(rows) {
  const bars = rows.map((e) => {
    const bar = node("div", undefined, "bar");
    bar.append(node("span", e.name, "name"), track([["won", e.won], ["tied", e.same], ["lost", e.lost]], e.n), node("span", `${percent(e.rate)} of ${e.n}`, "value"));
    return bar;
  });
  return box("Win rate by editor", "Pairs of two editors, one answer a pair: the owner's decision or that of most. Same and draws count half.", legend(["won", "won"], ["tied", "same or draw"], ["lost", "lost"]), ...bars);
}

function gsb(g) {
  const bar = node("div", undefined, "stack");
  bar.append(track([["won", g.good, `good ${g.good}`], ["tied", g.same, `same ${g.same}`], ["lost", g.bad, `bad ${g.bad}`]], g.n));
  return box(`GSB: ${g.after} against ${g.before}`, `(G − B) / n = ${percent(g.value)}, 95 % interval ${percent(g.low)} … ${percent(g.high)}, p = ${plain(g.p_value)}, ${count(g.n, "pair")}`, bar);
}

function dispute(d) {
  const made = node("div", undefined, "dispute"), trio = node("div", undefined, "trio"), choices = node("div", undefined, "choices");
  const further = d.further.map((digest, index) => [digest, `source ${index + 2}`]);
  for (const [digest, name] of [[d.pictures.a, `A: ${d.editors.a}`], [d.pictures.source, "source"], [d.pictures.b, `B: ${d.editors.b}`], ...further]) {
    const figure = node("figure"), image = node("img");
    image.src = "/image/" + digest; image.alt = name; image.loading = "lazy";
    figure.append(image, node("figcaption", name));
    trio.append(figure);
  }
  for (const label of ["a", "same", "b"]) {
    const button = node("button", { a: "A is better", same: "Same", b: "B is better" }[label]);
    button.setAttribute("aria-pressed", d.decision === label);
    button.addEventListener("click", () => decide(d.item, d.decision === label ? null : label));
    choices.append(button);
  }
  choices.append(node("span", d.decision ? "decided" : `majority: ${d.majority ? { a: "A", b: "B", same: "same" }[d.majority] : "none"}`, "soft"));
  made.append(node("p", d.instruction), trio, node("p", d.votes.map((v) => `${v.annotator}: ${{ a: "A", b: "B", same: "same" }[v.answer]}`).join(", "), "soft"), choices);
  return made;
}

function show(r) {
  const elsewhere = r.num_elsewhere ? `; ${count(r.num_elsewhere, "vote")} of other studies lie in the same file` : "";
  document.getElementById("summary").textContent = `${r.title}, study "${r.study}": ${r.num_answered.toLocaleString("en")} of ${count(r.num_items, "pair")} answered, ${count(r.num_votes, "vote")}; A ${r.labels.a}, B ${r.labels.b}, same ${r.labels.same} (sides of the record, not of the screen)${elsewhere}`;
  const g = r.agreement, boxes = [];
  if (r.gsb) boxes.push(gsb(r.gsb));
  if (r.editors.length) boxes.push(editors(r.editors));
  boxes.push(annotators(r.annotators));
  boxes.push(box("Agreement", g.num_shared ? `Krippendorff's alpha (nominal) over ${count(g.num_shared, "pair")} with two or more answers: ${plain(g.alpha)}` : "No pair has two answers yet.", table(["annotators", "shared pairs", "same answer", "Cohen's kappa"], g.pairs.map((p) => [`${p.first} and ${p.second}`, p.n, percent(p.agree), plain(p.kappa)]))));
  if (r.disputed.length) boxes.push(box(`Disputed: ${count(r.disputed.length, "pair")}`, "People differ here. Your decision counts in place of the majority, above and in the CSV with one answer a pair.", ...r.disputed.map(dispute)));
  document.getElementById("sections").replaceChildren(...boxes);
}

let shown = "";
async function talk(path, options) {
  const reply = await fetch(path, options), text = await reply.text(), value = JSON.parse(text);
  if (!reply.ok) { document.getElementById("summary").textContent = value.error; return; }
  if (text !== shown) show(value); // an unchanged page keeps its scroll position and its focus
  shown = text;
}
const refresh = () => talk("/api/results");
const decide = (item, label) => talk("/api/decide", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ item, label }) });
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
