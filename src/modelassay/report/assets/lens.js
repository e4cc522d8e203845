// The lens: tokens across, layers upwards; the likeliest token in each cell, coloured by a measure.

function startLens(pack) {
  const data = unpacked(readJson("lens-data"), pack);
  const nTokens = data.tokens.length;
  const state = { lens: 0, measure: 0, at: null, kept: false };
  const frame = document.getElementById("lens-frame");
  const detail = document.getElementById("lens-detail");
  const scale = document.getElementById("lens-scale");
  const textOf = (place) => tokenText(data.texts[place].replace(/ /g, "·"), false);
  const lens = () => data.lenses[state.lens];
  const measure = () => data.measures[state.measure];

  // One table of buttons, built once; a change of lens or measure only repaints it.
  const cells = [];
  const rows = [];
  for (let depth = data.depths.length - 1; depth >= 0; depth--) {
    const row = [];
    for (let token = 0; token < nTokens; token++) {
      const cell = h("td", { tabindex: "-1", "data-depth": String(depth), "data-token": String(token) });
      cells.push({ cell, depth, token });
      row.push(cell);
    }
    rows.push(h("tr", {}, h("th", { scope: "row" }, data.depths[depth]), row));
  }
  const inputs = data.tokens.map((place) => h("th", { scope: "col" }, textOf(place)));
  const targets = data.tokens.map((_, t) => h("th", { scope: "col" }, t + 1 < nTokens ? textOf(data.tokens[t + 1]) : "–"));
  const table = h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "row" }, "next"), targets)),
    h("tbody", {}, rows),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "text"), inputs)));
  frame.replaceChildren(table);
  const cellAt = (depth, token) => cells[(data.depths.length - 1 - depth) * nTokens + token].cell;

  function paint() {
    const { key, good, full, unit } = measure();
    const shades = lens().shades[key];
    table.className = good ? "good" : "far";
    for (const { cell, depth, token } of cells) {
      const index = depth * nTokens + token;
      const shade = shades[index] / 255;
      cell.style.setProperty("--s", `${Math.round(shade * 88)}%`);
      cell.classList.toggle("full", shade > 0.55);
      cell.replaceChildren(...textOf(lens().top[index * data.count]));
      cell.setAttribute("aria-label", `${data.depths[depth]}, token ${token}: ${data.texts[lens().top[index * data.count]]}, ${shown(lens().values[key][index])}`);
    }
    const end = key === "probability" || key === "target" ? "1" : shown(full, 2);
    scale.replaceChildren(h("span", {}, "0"), h("i", { class: good ? "good" : "far" }), h("span", {}, `${end}${unit ? ` ${unit}` : ""}${key === "rank" ? " (logarithmic)" : ""}`), h("span", { class: "faint" }, measure().explains));
    show();
  }

  // What stands beside a cell: the likeliest tokens with bars, and all measures.
  function show() {
    for (const { cell } of cells) cell.classList.remove("at");
    if (!state.at) {
      detail.replaceChildren(h("p", { class: "faint" }, "Point at a cell, or move with the arrow keys."));
      return;
    }
    const { depth, token } = state.at;
    const index = depth * nTokens + token;
    cellAt(depth, token).classList.add("at");
    const bars = [];
    for (let rank = 0; rank < data.count; rank++) {
      const place = lens().top[index * data.count + rank];
      const p = lens().p[index * data.count + rank];
      const hit = token + 1 < nTokens && place === data.tokens[token + 1];
      bars.push(h("tr", { class: hit ? "hit" : null }, h("td", { class: "piece" }, textOf(place)), h("td", { class: "gauge" }, h("i", { style: { width: `${Math.max(100 * p, 0.5)}%` } })), h("td", {}, shown(p))));
    }
    const numbers = data.measures.map((each) => h("tr", {}, h("th", { scope: "row" }, each.title), h("td", {}, shown(lens().values[each.key][index]), each.unit && !Number.isNaN(lens().values[each.key][index]) ? ` ${each.unit}` : "")));
    const next = token + 1 < nTokens ? [" · next: ", pieceBox(data.texts[data.tokens[token + 1]])] : [];
    const where = data.depths[depth] === "embedding" ? "embedding" : `layer ${data.depths[depth]}`;
    detail.replaceChildren(
      h("p", {}, h("b", {}, `${lens().name} lens, ${where}`), ` · token ${token}: `, pieceBox(data.texts[data.tokens[token]]), next, state.kept ? h("small", {}, " kept; Escape lets go") : null),
      h("div", { class: "lens-columns" }, h("table", { class: "lens-top" }, h("tbody", {}, bars)), h("table", { class: "lens-numbers" }, h("tbody", {}, numbers))));
  }

  function place(target) {
    const cell = target.closest?.("td[data-depth]");
    return cell && table.contains(cell) ? { depth: Number(cell.dataset.depth), token: Number(cell.dataset.token) } : null;
  }

  function choose(at, keep) {
    state.at = at;
    state.kept = keep;
    show();
  }

  table.addEventListener("mouseover", (event) => {
    const at = place(event.target);
    if (at && !state.kept) choose(at, false);
  });
  table.addEventListener("click", (event) => {
    const at = place(event.target);
    if (!at) return;
    choose(at, true);
    cellAt(at.depth, at.token).focus({ preventScroll: true });
  });
  table.addEventListener("focusin", (event) => {
    const at = place(event.target);
    if (at && !state.kept) choose(at, false);
  });
  table.addEventListener("keydown", (event) => {
    const by = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") return choose(state.at, false);
    if (!by || !state.at) return;
    event.preventDefault();
    const depth = Math.min(data.depths.length - 1, Math.max(0, state.at.depth + by[0]));
    const token = Math.min(nTokens - 1, Math.max(0, state.at.token + by[1]));
    choose({ depth, token }, state.kept);
    cellAt(depth, token).focus();
  });
  // Tab leads into the table at the model's last prediction.
  cellAt(data.depths.length - 1, nTokens - 1).setAttribute("tabindex", "0");

  const option = (title, index) => h("option", { value: String(index) }, title);
  const select = (label, titles, set) => h("label", {}, h("span", {}, label), h("select", { onchange: (event) => { set(Number(event.target.value)); paint(); } }, titles.map(option)));
  document.getElementById("lens-controls").replaceChildren(
    select("Lens", data.lenses.map((each) => each.name), (index) => { state.lens = index; }),
    select("Colour", data.measures.map((each) => each.title), (index) => { state.measure = index; }));
  choose({ depth: data.depths.length - 1, token: nTokens - 1 }, false);
  paint();
}
