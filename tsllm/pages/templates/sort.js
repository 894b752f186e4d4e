"use strict";
// A click on the name of a column sorts its table; a second click turns the order around.
const words = new Intl.Collator("en", { numeric: true });
function order(one, other) {
  // Numbers come before texts; empty cells are always last, see below.
  if (one.key !== null && other.key !== null) return one.key - other.key;
  if (one.key !== null) return -1;
  if (other.key !== null) return 1;
  return words.compare(one.text, other.text);
}
for (const button of document.querySelectorAll("table.sorts th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    const rows = Array.from(body.rows, (row) => {
      const cell = row.cells[head.cellIndex];
      const key = cell.dataset.key === undefined ? null : Number(cell.dataset.key);
      return { row, key, text: cell.textContent };
    });
    const filled = rows.filter((one) => one.text !== "");
    const empty = rows.filter((one) => one.text === "");
    filled.sort((one, other) => (down ? -order(one, other) : order(one, other)));
    body.append(...[...filled, ...empty].map((one) => one.row));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}
