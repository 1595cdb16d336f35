"use strict";

// The page is whole without this: headings become buttons that sort, and a menu shows one protocol at a time.

const said = document.getElementById("said");

function compared(a, b, isNumber) {
  return isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
}

/** Sort every group of a table by a column; rows without a value stay last, equal rows keep their order. */
function sortBy(table, heading) {
  const column = [...heading.parentNode.children].indexOf(heading);
  const down = heading.getAttribute("aria-sort") === "ascending";
  const isNumber = heading.classList.contains("number");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const value = (row) => row.cells[column].dataset.value;
    const known = rows.filter((row) => value(row) !== undefined);
    const unknown = rows.filter((row) => value(row) === undefined);
    known.sort((a, b) => (down ? -1 : 1) * compared(value(a), value(b), isNumber));
    body.append(...known, ...unknown);
  }
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  said.textContent = `Sorted by ${heading.textContent}, ${down ? "descending" : "ascending"}.`;
}

for (const table of document.querySelectorAll("table")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
}

const filter = document.getElementById("filter");
const sections = [...document.querySelectorAll("section[data-protocol]")];
filter.hidden = sections.length < 2;
const menu = filter.querySelector("select");

function show(protocol) {
  menu.value = protocol;
  for (const section of sections) section.hidden = protocol !== "" && section.dataset.protocol !== protocol;
  const shown = sections.filter((section) => !section.hidden).length;
  said.textContent = `${shown} ${shown === 1 ? "table" : "tables"} shown.`;
}

menu.addEventListener("change", () => show(menu.value));
// A link to a table that the menu hides would lead nowhere.
document.querySelector("nav ul").addEventListener("click", () => show(""));
