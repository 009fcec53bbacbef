"use strict";
// Sorting and filtering of tables; the page is whole without it.
(() => {
  const text = (row, column) => row.cells[column].textContent;

  function order(column, numeric, direction) {
    return (a, b) => {
      const x = text(a, column), y = text(b, column);
      if (x === "" || y === "") return (x === "") - (y === "");  // nothing comes last either way
      const m = parseFloat(x), n = parseFloat(y);
      const difference = numeric && !isNaN(m) && !isNaN(n) ? m - n : (x > y) - (x < y);
      return direction * difference;
    };
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const numeric = head.classList.contains("n");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        // what is asked of figures is mostly: which is the largest
        const descending = was === null ? numeric : was === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(order(column, numeric, descending ? -1 : 1)));
      });
    });
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 8) return;
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    input.type = "search";
    input.autocomplete = "off";
    label.append("Filter ", input);
    const bar = document.createElement("p");
    bar.className = "filter";
    bar.append(label, count);
    table.parentElement.before(bar);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
        row.hidden = !cells.some((cell) => cell.includes(wanted));
        shown += !row.hidden;
      }
      count.textContent = wanted ? `${shown} of ${rows.length}` : "";
    });
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    sortable(table);
    filterable(table);
  }
})();
