"use strict";
// Headers become buttons that order the rows: one way, the other way, then as the report has them.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const asMade = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];

  const order = (column, direction) => {
    const value = (row) => row.cells[column].dataset.value;
    const numeric = headers[column].classList.contains("number");
    const compare = (one, other) =>
      numeric ? Number(one) - Number(other) : one.localeCompare(other, "en", { numeric: true });
    const sign = direction === "ascending" ? 1 : -1;
    const defined = asMade.filter((row) => value(row) !== undefined);
    const undefinedLast = asMade.filter((row) => value(row) === undefined);
    if (direction !== "none") defined.sort((a, b) => sign * compare(value(a), value(b)));
    body.append(...(direction === "none" ? asMade : [...defined, ...undefinedLast]));
    headers.forEach((header, at) => header.setAttribute("aria-sort", at === column ? direction : "none"));
    table.classList.toggle("sorted", direction !== "none");
  };

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    const ways = header.classList.contains("number") ? ["descending", "ascending"] : ["ascending", "descending"];
    const next = { none: ways[0], [ways[0]]: ways[1], [ways[1]]: "none" };
    button.addEventListener("click", () => order(column, next[header.getAttribute("aria-sort")]));
  });
}
