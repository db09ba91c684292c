"use strict";
const percent = (value) => (value == null ? "–" : (100 * value).toFixed(1) + " %");
const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
const plain = (value) => (value == null ? "–" : String(Math.round(value * 1000) / 1000));

function node(tag, text) { const made = document.createElement(tag); if (text !== undefined) made.textContent = text; return made; }

function section(title, head, rows, note) {
  const box = node("section"), table = node("table"), header = node("thead"), body = node("tbody"), top = node("tr");
  box.append(node("h2", title));
  if (note) { const line = node("p", note); line.className = "soft"; box.append(line); }
  top.append(...head.map((text) => node("th", text)));
  header.append(top);
  body.append(...rows.map((cells) => {
    const row = node("tr");
    row.append(...cells.map((text) => node("td", text)));
    [...row.children].forEach((cell, i) => { cell.dataset.label = head[i]; }); // a phone shows the column's name before the value
    return row;
  }));
  table.append(header, body);
  if (rows.length) box.append(table);
  return box;
}

async function refresh() {
  const r = await (await fetch("/api/results")).json();
  document.getElementById("summary").textContent = `${r.title}: ${r.num_answered.toLocaleString("en")} of ${count(r.num_items, "pair")} answered, ${count(r.num_votes, "vote")}; A ${r.labels.a}, B ${r.labels.b}, same ${r.labels.same} (sides of the record, not of the screen)`;
  const boxes = [section("Annotators", ["name", "answers", "skipped", "same", "median s", "control questions", "chose left"], r.annotators.map((a) => [a.name, a.answers, a.skipped, a.same, plain(a.median_seconds), a.gold_asked ? `${a.gold_right} of ${a.gold_asked}` : "–", percent(a.left_share)]))];
  const g = r.agreement;
  boxes.push(section("Agreement", ["annotators", "shared pairs", "same answer", "Cohen's kappa"], g.pairs.map((p) => [`${p.first} and ${p.second}`, p.n, percent(p.agree), plain(p.kappa)]), g.num_shared ? `Krippendorff's alpha (nominal) over ${count(g.num_shared, "pair")} with two or more answers: ${plain(g.alpha)}` : "No pair has two answers yet."));
  if (r.gsb) boxes.push(section(`GSB: ${r.gsb.after} against ${r.gsb.before}`, ["good", "same", "bad", "(G − B) / n", "95 % interval", "p"], [[r.gsb.good, r.gsb.same, r.gsb.bad, percent(r.gsb.value), `${percent(r.gsb.low)} … ${percent(r.gsb.high)}`, plain(r.gsb.p_value)]]));
  document.getElementById("sections").replaceChildren(...boxes);
}
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
