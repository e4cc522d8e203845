// Numbers to take away. Files are made from what the page holds; nothing is fetched.

function csvOf(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined || Number.isNaN(value) ? "" : String(value);
    // A spreadsheet would run a cell that begins so; tokens of the corpus may.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save(name, rows) {
  const url = URL.createObjectURL(new Blob([csvOf(rows)], { type: "text/csv" }));
  const link = h("a", { href: url, download: `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const textOf = (cell) => cell.textContent.trim().replace(/\s+/g, " ").replace(/−/g, "-");

// A cell that shows several numbers rounded may carry them whole, as data-cells.
function rowsOf(table) {
  return [...table.rows].filter((row) => !("csvSkip" in row.dataset)).map((row) =>
    [...row.cells]
      .filter((cell) => !("csvSkip" in cell.dataset))
      .flatMap((cell) => (cell.dataset.cells ? JSON.parse(cell.dataset.cells) : [textOf(cell)])));
}

function startDownloads() {
  for (const table of document.querySelectorAll("table[data-csv]")) {
    const button = h("button", {
      type: "button", class: "link", onclick: () => save(table.dataset.csv, rowsOf(table)),
    }, "Download CSV");
    table.closest(".scroll").after(h("p", { class: "tools" }, button));
  }
}
