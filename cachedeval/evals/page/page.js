"use strict";
// Sorts, filters and opens the questions. All text of models and judges enters the page as text nodes.
const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("questions");
const body = table.tBodies[0];
const rows = Array.from(body.rows).map((row, index) => ({ row, index, found: data.rows[index], detail: null }));
const status = document.getElementById("shown");
const MOST_WORDS = 1500; // of an answer whose difference is shown: the work grows with their product

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function figure(value, digits = 1) {
  return value === null || value === undefined ? "—" : value.toFixed(digits);
}

// The words of b: [text, whether a lacks them], and before them the words of a that b lacks.
function difference(a, b) {
  const left = a.split(/(\s+)/), right = b.split(/(\s+)/);
  if (left.length > 2 * MOST_WORDS || right.length > 2 * MOST_WORDS) return null;
  const width = right.length + 1;
  const common = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i--)
    for (let j = right.length - 1; j >= 0; j--)
      common[i * width + j] = left[i] === right[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const parts = [];
  const add = (kind, text) => {
    const last = parts[parts.length - 1];
    if (last && last[0] === kind) last[1] += text; else parts.push([kind, text]);
  };
  let i = 0, j = 0;
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && left[i] === right[j]) { add("same", right[j]); i++; j++; }
    else if (j >= right.length || (i < left.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) add("del", left[i++]);
    else add("ins", right[j++]);
  }
  return parts;
}

function answerText(cell, first) {
  const box = element("div", undefined, "text");
  box.dir = "auto";
  const parts = first && first !== cell && first.response && cell.response && first.response !== cell.response
    ? difference(first.response, cell.response) : null;
  if (parts === null) box.textContent = cell.response ?? "";
  else for (const [kind, text] of parts) box.append(kind === "same" ? text : element(kind, text));
  return box;
}

function answer(subject, cell, first) {
  const section = element("section");
  section.append(element("h3", subject));
  if (cell === null) {
    section.append(element("p", "not asked", "soft"));
    return section;
  }
  const facts = [cell.error ? cell.error : `score ${figure(cell.score)}`];
  for (const [judge, score] of Object.entries(cell.scores)) facts.push(`${judge} ${figure(score)}`);
  for (const [name, score] of Object.entries(cell.criteria)) facts.push(`${name} ${figure(score, 2)}`);
  if (cell.truncated) facts.push("truncated");
  section.append(element("p", facts.join(" · "), cell.error ? "bad" : "soft"), answerText(cell, first));
  if (first && first !== cell && cell.response && first.response === cell.response)
    section.append(element("p", `the same answer as ${data.subjects[0]}`, "soft"));
  for (const [title, text] of [["Reasoning of the model", cell.reasoning], ["Rationale of the judge", cell.rationale]]) {
    if (!text) continue;
    const details = element("details");
    details.open = title.startsWith("Rationale");
    const inside = element("div", text, "text");
    inside.dir = "auto";
    details.append(element("summary", title), inside);
    section.append(details);
  }
  return section;
}

function open(entry) {
  const detail = element("tr", undefined, "detail");
  const cell = element("td");
  cell.colSpan = entry.row.cells.length;
  const question = element("div", entry.found.question, "text");
  question.dir = "auto";
  cell.append(element("h3", "Question"), question);
  if (entry.found.reference !== null) {
    const reference = element("div", entry.found.reference, "text");
    reference.dir = "auto";
    cell.append(element("h3", "Reference"), reference);
  }
  const answers = element("div", undefined, "answers");
  entry.found.cells.forEach((found, at) => answers.append(answer(data.subjects[at], found, at ? entry.found.cells[0] : null)));
  cell.append(answers);
  detail.id = `detail-${entry.index}`;
  detail.append(cell);
  entry.detail = detail;
  entry.row.after(detail);
}

function toggle(entry) {
  const button = entry.row.querySelector("button");
  const opens = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(opens));
  if (opens) open(entry);
  else { entry.detail.remove(); entry.detail = null; }
}

const FILTERS = {
  all: () => true,
  failed: (found) => found.cells.some((cell) => cell && cell.error),
  truncated: (found) => found.cells.some((cell) => cell && cell.truncated),
  different: (found) => new Set(found.cells.map((cell) => cell ? cell.score : null)).size > 1,
};

function filter() {
  const keep = FILTERS[document.getElementById("which").value];
  const words = document.getElementById("search").value.toLowerCase();
  let shown = 0;
  for (const entry of rows) {
    const found = entry.found;
    const texts = () => [found.question, ...found.cells.map((cell) => cell?.response ?? "")];
    const visible = keep(found) && (!words || texts().some((text) => text.toLowerCase().includes(words)));
    entry.row.hidden = !visible;
    if (entry.detail) entry.detail.hidden = !visible;
    shown += visible;
  }
  status.textContent = `${shown} of ${rows.length} questions`;
}

// The value that a column sorts by; a question without a score comes first, as it is the worst.
function value(entry, column) {
  if (column === 0) return entry.index;
  if (column <= data.subjects.length) return entry.found.cells[column - 1]?.score ?? -1;
  return entry.found.difference ?? Infinity;
}

function sort(header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const values = new Map(rows.map((entry) => [entry, value(entry, header.cellIndex)]));
  rows.sort((a, b) => (values.get(a) - values.get(b)) * (ascending ? 1 : -1) || a.index - b.index);
  const all = document.createDocumentFragment();
  for (const entry of rows) all.append(...(entry.detail ? [entry.row, entry.detail] : [entry.row]));
  body.append(all);
}

for (const entry of rows) entry.row.querySelector("button").addEventListener("click", () => toggle(entry));
for (const header of table.tHead.rows[0].cells) header.querySelector("button").addEventListener("click", () => sort(header));
document.getElementById("which").addEventListener("change", filter);
document.getElementById("search").addEventListener("input", filter);
filter();
