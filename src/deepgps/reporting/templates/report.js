// Tables sort by a click on a heading, and one field filters table and gallery. Without scripts, all is there, too.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.ariaSort ? heading.ariaSort === "ascending" : heading.className === "number";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      heading.ariaSort = descending ? "descending" : "ascending";
      const key = (row) => row.cells[column].textContent.trim();
      const number = (text) => (text === "" ? NaN : Number(text.replaceAll(",", "")));
      const compare = heading.className === "number"
        ? (a, b) => number(a) - number(b)
        : (a, b) => a.localeCompare(b, "en", { numeric: true });
      const rows = [...body.rows].map((row) => [key(row), row]);
      // What is missing stays last, in either direction.
      rows.sort(([a], [b]) => (a === "") - (b === "") || (a === "" ? 0 : descending ? compare(b, a) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
const filter = document.querySelector("#filter");
if (filter) {
  filter.hidden = false;
  filter.querySelector("input").addEventListener("input", ({ target }) => {
    const words = target.value.toLowerCase().split(/\s+/);
    for (const each of document.querySelectorAll("table.sortable tbody tr, .tiles li")) {
      const text = each.textContent.toLowerCase();
      each.hidden = !words.every((word) => text.includes(word));
    }
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
