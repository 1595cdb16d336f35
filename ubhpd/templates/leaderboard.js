"use strict";

// The page is whole without this: the controls appear, headings become buttons that sort, cut tables say so.

const said = document.getElementById("said");
const tables = [...document.querySelectorAll("table")];
const dataRows = (body) => [...body.rows].filter((row) => !row.classList.contains("group"));

function compared(a, b, isNumber) {
  return isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
}

/** The value of a cell to sort by: its own, or that of the chosen metric; null where there is none. */
function valueOf(cell) {
  return cell.getAttribute("data-value") ?? cell.getAttribute(`data-${document.body.dataset.metric}`);
}

/** Sort every group of a table by a column; rows without a value stay last, equal rows keep their order. */
function sortBy(table, heading) {
  const column = [...heading.parentNode.children].indexOf(heading);
  const down = heading.getAttribute("aria-sort") === "ascending";
  const isNumber = heading.classList.contains("number");
  for (const body of table.tBodies) {
    const rows = dataRows(body);
    const value = (row) => valueOf(row.cells[column]);
    const known = rows.filter((row) => value(row) !== null);
    const unknown = rows.filter((row) => value(row) === null);
    known.sort((a, b) => (down ? -1 : 1) * compared(value(a), value(b), isNumber));
    body.append(...known, ...unknown);
  }
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  said.textContent = `Sorted by ${heading.textContent}, ${down ? "descending" : "ascending"}.`;
}

for (const table of tables) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
}

// Controls: the metric of the order, a search, one protocol, kinds of evidence.

const controls = document.getElementById("controls");
const metric = document.getElementById("metric");
const search = document.getElementById("search");
const filter = document.getElementById("filter");
const menu = filter.querySelector("select");
const boxes = [...document.querySelectorAll("#evidence input")];
const sections = [...document.querySelectorAll("section[data-protocol]")];
controls.hidden = false;
filter.hidden = sections.length < 2;

/** Show values and ranks of a metric, and bring the methods of every table into its order. */
function orderBy(chosen) {
  document.body.dataset.metric = chosen;
  for (const table of tables) {
    for (const body of table.tBodies) {
      const rows = dataRows(body).filter((row) => row.hasAttribute(`data-order-${chosen}`));
      const place = (row) => Number(row.getAttribute(`data-order-${chosen}`));
      body.append(...rows.sort((a, b) => place(a) - place(b)));
    }
    for (const heading of table.tHead.rows[0].cells) {
      heading.removeAttribute("aria-sort");
      if (heading.dataset.key === "rank") heading.setAttribute("aria-sort", "ascending");
    }
  }
  said.textContent = `Ranked by ${metric.selectedOptions[0].textContent}.`;
}

/** Hide the rows that the search or the kinds of evidence leave out. */
function narrow() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const kinds = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  let shown = 0;
  for (const row of document.querySelectorAll("tr[data-search]")) {
    const isFound = words.every((word) => row.dataset.search.includes(word));
    row.hidden = !isFound || (row.dataset.evidence !== undefined && !kinds.has(row.dataset.evidence));
    if (!row.hidden && row.closest("#overview") && row.dataset.evidence !== undefined) shown += 1;
  }
  said.textContent = `${shown} ${shown === 1 ? "method" : "methods"} shown.`;
  markCut();
}

function show(protocol) {
  menu.value = protocol;
  for (const section of sections) section.hidden = protocol !== "" && section.dataset.protocol !== protocol;
  const shown = sections.filter((section) => !section.hidden).length;
  said.textContent = `${shown} ${shown === 1 ? "table" : "tables"} shown.`;
  markCut();
}

metric.addEventListener("change", () => orderBy(metric.value));
search.addEventListener("input", narrow);
for (const box of boxes) box.addEventListener("change", narrow);
menu.addEventListener("change", () => show(menu.value));
controls.addEventListener("submit", (event) => event.preventDefault());
// A link to a table that the menu hides would lead nowhere.
document.querySelector("nav ul").addEventListener("click", () => show(""));

// Tables that are wider than the page: a shadow at the cut edge, and a button that scrolls.

for (const frame of document.querySelectorAll(".frame")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "more";
  button.hidden = true;
  frame.append(button);
  const wide = frame.querySelector(".wide");
  wide.addEventListener("scroll", markCut, { passive: true });
  button.addEventListener("click", () => {
    const isEnd = !frame.classList.contains("cut-right");
    wide.scrollBy({ left: isEnd ? -wide.scrollWidth : 0.7 * wide.clientWidth, behavior: "smooth" });
  });
}

function markCut() {
  for (const frame of document.querySelectorAll(".frame")) {
    const wide = frame.querySelector(".wide");
    const left = wide.scrollLeft > 1;
    const right = wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 1;
    frame.classList.toggle("cut-left", left);
    frame.classList.toggle("cut-right", right);
    const button = frame.querySelector(".more");
    button.hidden = !(left || right);
    button.textContent = right ? "More columns \u2192" : "\u2190 First columns";
  }
}

window.addEventListener("resize", markCut);
markCut();
