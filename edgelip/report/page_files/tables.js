(() => {
  const words = new Intl.Collator("en", { numeric: true });

  // Rows that are not VALID stay last, and of the others those without a value, whatever the direction.
  function sort(table, place, isText, rising) {
    const keyed = [...table.tBodies[0].rows].map((row) => ({ row, key: row.cells[place].dataset.sort ?? "" }));
    keyed.sort((a, b) => {
      const fit = a.row.classList.contains("invalid") - b.row.classList.contains("invalid") || (a.key === "") - (b.key === "");
      if (fit || a.key === "") return fit;
      return (isText ? words.compare(a.key, b.key) : a.key - b.key) * (rising ? 1 : -1);
    });
    table.tBodies[0].append(...keyed.map((each) => each.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, place) => heading.firstElementChild.addEventListener("click", (event) => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      sort(table, place, event.currentTarget.dataset.kind === "text", rising);
    }));
  }

  // A box a group of columns, to hide those that are not asked about.
  const ledger = document.getElementById("row"), groups = document.getElementById("groups");
  const titles = ledger ? [...ledger.querySelectorAll(".groups [data-group]")].filter((each) => each.textContent.trim()) : [];
  // Titles of groups stay beside the names of the rows, however far the table is moved.
  ledger?.style.setProperty("--first", `${ledger.tBodies[0].rows[0]?.cells[0].offsetWidth ?? 0}px`);
  for (const title of titles) {
    const label = groups.appendChild(document.createElement("label")), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    label.append(box, ` ${title.textContent.trim()}`);
    box.addEventListener("change", () => {
      title.hidden = !box.checked;
      for (const cell of ledger.querySelectorAll(`.g${title.dataset.group}`)) cell.hidden = !box.checked;
    });
  }
  addEventListener("beforeprint", () => {
    const labels = [...ledger.querySelectorAll("th[scope=col]")].map((each) => each.textContent);
    for (const row of ledger.tBodies[0].rows)
      for (const cell of row.cells) cell.dataset.label = labels[cell.cellIndex];
  });
  groups.hidden = titles.length < 2;
})();
