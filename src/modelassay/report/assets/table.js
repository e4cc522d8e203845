// The table of latents: sorted, searched, and drawn one page at a time.

function startTable(data, openLatent, selection) {
  const search = document.getElementById("search");
  const body = document.getElementById("latents-body");
  const state = { order: [], sort: "verdict", descending: false, page: 0, size: 25, verdict: null };
  const columns = columnsOf(data);
  const haystack = haystackOf(data);

  function apply() {
    const matches = matcherOf(search.value, data, haystack);
    const column = columns.find((c) => c.key === state.sort);
    const rows = [];
    for (let latent = 0; latent < data.width; latent++) {
      if (state.verdict !== null && data.verdictOf(latent).key !== state.verdict) continue;
      if (matches(latent)) rows.push(latent);
    }
    // What was not measured comes last in either direction.
    const missing = (v) => v === null || v === undefined || Number.isNaN(v) || v === "";
    const keys = new Map(rows.map((latent) => [latent, column.value(latent)]));
    const sign = state.descending ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b;
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a - b;
    });
    state.order = rows;
    state.page = 0;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(state.order.length / state.size));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const from = state.page * state.size;
    const shownRows = state.order.slice(from, from + state.size);
    body.replaceChildren(...shownRows.map(rowOf));
    if (!shownRows.length) {
      body.append(h("tr", {}, h("td", { class: "empty", colspan: columns.length }, `No ${data.questions.length ? "latent" : "unit"} matches. Clear the search or the filter.`)));
    }
    for (const cell of document.querySelectorAll("#latents-head th")) {
      const sorted = cell.dataset.key === state.sort;
      cell.setAttribute("aria-sort", sorted ? (state.descending ? "descending" : "ascending") : "none");
    }
    const to = Math.min(from + state.size, state.order.length);
    const move = (by, label) => h("button", {
      type: "button", class: "quiet", disabled: by < 0 ? state.page === 0 : state.page === pages - 1,
      onclick: () => { state.page += by; draw(); },
    }, label);
    const sizes = h("select", { "aria-label": "Rows per page", onchange: (event) => { state.size = Number(event.target.value); state.page = 0; draw(); } },
      [25, 50, 100].map((n) => h("option", { value: n, selected: n === state.size }, `${n} rows`)));
    const some = state.order.length < data.width ? ` of ${whole(data.width)}` : "";
    document.getElementById("pager").replaceChildren(
      h("span", { role: "status", id: "matches" }, state.order.length ? `${whole(from + 1)}–${whole(to)} of ${whole(state.order.length)} ${data.questions.length ? "latents" : "units"}${some && ` (all: ${whole(data.width)})`}` : data.questions.length ? "no latents" : "no units"),
      h("span", { class: "grow" }), sizes, move(-1, "Previous"), move(1, "Next"));
  }

  function rowOf(latent) {
    return h("tr", {
      "data-latent": latent, "aria-selected": String(latent === selection.latent),
      onclick: (event) => { if (!event.target.closest("a") && !String(getSelection())) openLatent(latent); },
    }, columns.map((column) => column.cell(latent)));
  }

  document.getElementById("latents-head").append(h("tr", {}, columns.map((column) => h("th", {
    scope: "col", "data-key": column.key, class: column.wide ? "wide" : null,
  }, h("button", {
    type: "button", "data-tip": column.tip || null,
    onclick: () => {
      if (state.sort === column.key) state.descending = !state.descending;
      else { state.sort = column.key; state.descending = Boolean(column.descending); }
      apply();
    },
  }, column.title)))));

  const chips = [{ key: null, title: "all" }, ...data.classes].map((item) => h("button", {
    type: "button", class: "toggle", "data-verdict": item.key || "", "aria-pressed": String(item.key === state.verdict),
    onclick: () => filter(item.key),
  }, item.key && h("i", { class: `swatch ${item.key}` }), item.title));
  document.getElementById("filters").append(...chips);

  function filter(verdict) {
    state.verdict = verdict;
    for (const chip of chips) chip.setAttribute("aria-pressed", String((chip.dataset.verdict || null) === verdict));
    apply();
  }

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 80); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { clearTimeout(waiting); apply(); if (state.order.length) openLatent(state.order[0]); }
    if (event.key === "Escape") { search.value = ""; apply(); search.blur(); }
  });
  for (const card of document.querySelectorAll("[data-filter]")) card.addEventListener("click", () => filter(card.dataset.filter));
  document.getElementById("latents-csv").addEventListener("click", () => save("latents", csvRows(data, state.order)));

  apply();
  return {
    order: () => state.order,
    mark: () => {
      for (const row of body.rows) row.setAttribute("aria-selected", String(Number(row.dataset.latent) === selection.latent));
    },
  };
}

// A column head has no room for a whole title.
const headOf = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");

function columnsOf(data) {
  const columns = [{
    key: "latent", title: "#", value: (latent) => latent,
    cell: (latent) => h("th", { scope: "row" }, h("a", { href: `#latent=${latent}` }, String(latent))),
  }, {
    key: "verdict", title: data.questions.length ? "Verdict" : "Activity", value: (latent) => data.verdicts[latent],
    cell: (latent) => h("td", { "data-tip": data.reasonOf(latent) }, h("span", { class: "cell" }, h("i", { class: `swatch ${data.verdictOf(latent).key}`, style: { margin: 0 } }), data.questions.length ? data.verdictOf(latent).key : data.verdictOf(latent).title)),
  }];
  if (!data.questions.length) {
    columns.push({
      key: "name", title: "Name", value: (latent) => data.reasonOf(latent),
      cell: (latent) => h("td", {}, data.reasonOf(latent)),
    });
  }
  for (const question of data.questions) {
    const column = question.columns[0];
    if (!column) continue;
    columns.push({
      key: question.key, title: question.title, descending: true,
      tip: `${question.asks}\n${column.title}${column.unit ? ` (${column.unit})` : ""}. Tick: null. Colour: answer.`,
      value: (latent) => column.value[latent],
      cell: (latent) => {
        const answer = data.answerOf(question, latent);
        const value = column.value[latent];
        const text = `${question.title}: ${answer}\n${shown(value)} [${shown(column.low[latent])}, ${shown(column.high[latent])}], null ${shown(column.null[latent])}, n = ${whole(column.n[latent])}`;
        return h("td", { "data-tip": text }, Number.isNaN(value) ? h("span", { class: "glyph" }, "–") : h("span", { class: "cell" },
          strip(column.axis, { value, low: column.low[latent], high: column.high[latent], nil: column.null[latent], answer }, false),
          h("span", { class: "figure" }, shown(value, 2))));
      },
    });
  }
  for (const column of data.others.slice(0, data.questions.length ? 1 : 3)) {
    columns.push({
      key: column.name, title: headOf(column.name), descending: true, wide: true,
      tip: `${column.title}${column.unit ? ` (${column.unit})` : ""}`,
      value: (latent) => column.value[latent],
      cell: (latent) => h("td", { class: "wide" }, shown(column.value[latent], 2)),
    });
  }
  columns.push({
    key: "fires", title: "Fires on", value: (latent) => { const [token] = data.firesOn(latent, 1); return token === undefined ? "" : data.token(token); },
    cell: (latent) => h("td", { class: "tokens-cell" }, data.firesOn(latent, 3).map((id) => pieceBox(data.token(id)))),
  });
  if (data.details.concepts) {
    columns.push({
      key: "concept", title: "Concept (F1)", descending: true, wide: true, value: (latent) => data.conceptsOf(latent)[0]?.f1,
      cell: (latent) => {
        const best = data.conceptsOf(latent)[0];
        return h("td", { class: "wide concept-cell" }, best ? h("span", { class: best.low > best.null ? null : "faint", "data-tip": `F1 ${shown(best.f1, 2)} [${shown(best.low, 2)}, ${shown(best.high, 2)}], null ${shown(best.null, 2)}` }, best.name, " ", h("small", { style: { display: "inline" } }, best.f1.toFixed(2))) : h("span", { class: "glyph" }, "–"));
      },
    });
  }
  return columns;
}

// What can be searched, per latent, in lower case.
function haystackOf(data) {
  const details = data.details;
  const cache = [];
  return (latent) => {
    if (cache[latent]) return cache[latent];
    const effects = [];
    for (let rank = 0; rank < details.ranks; rank++) {
      effects.push(details.promoted[latent * details.ranks + rank], details.suppressed[latent * details.ranks + rank]);
    }
    const verdict = data.verdictOf(latent);
    const fields = {
      token: [...data.firesOn(latent), ...effects].map((id) => data.token(id)).join("\u0001").toLowerCase(),
      concept: data.conceptsOf(latent).map((c) => c.name).join("\u0001").toLowerCase(),
      verdict: `${verdict.key} ${verdict.title}`.toLowerCase(),
      reason: data.reasonOf(latent).toLowerCase(),
    };
    fields.all = Object.values(fields).join("\u0001");
    return (cache[latent] = fields);
  };
}

function matcherOf(query, data, haystack) {
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    if (/^#\d+$/.test(word)) return (latent) => latent === Number(word.slice(1));
    const [, field, rest] = word.match(/^(token|concept|verdict|reason):(.+)$/) || [];
    if (field) return (latent) => haystack(latent)[field].includes(rest);
    if (/^\d+$/.test(word)) return (latent) => String(latent) === word || haystack(latent).all.includes(word);
    return (latent) => haystack(latent).all.includes(word);
  });
  return (latent) => terms.every((matches) => matches(latent));
}

function csvRows(data, order) {
  const names = data.columns.flatMap((c) => [c.name, `${c.name}_low`, `${c.name}_high`, `${c.name}_null`, `${c.name}_n`]);
  const rows = [["latent", "verdict", ...data.questions.map((q) => `${q.key}_answer`), ...names, "concept", "concept_f1", "fires_on", "reason"]];
  for (const latent of order) {
    const best = data.conceptsOf(latent)[0];
    rows.push([
      latent, data.verdictOf(latent).key, ...data.questions.map((q) => data.answerOf(q, latent)),
      ...data.columns.flatMap((c) => [c.value, c.low, c.high, c.null, c.n].map((values) => values[latent])),
      best?.name ?? "", best?.f1 ?? "", data.firesOn(latent, 3).map((id) => JSON.stringify(data.token(id))).join(" "), data.reasonOf(latent),
    ]);
  }
  return rows;
}
