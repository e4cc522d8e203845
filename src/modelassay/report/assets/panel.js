// One latent: its passport, where it fires, what it promotes, what lies near it.

function panelOf(data, latent, moves) {
  const body = h("div", { class: "panel-body" },
    h("h3", { class: "latent", id: "panel-title" }, data.questions.length ? `Latent ${latent}` : data.reasonOf(latent), h("span", { class: `chip ${data.verdictOf(latent).key}` }, data.verdictOf(latent).title)),
    data.questions.length ? h("p", { class: "reason" }, data.reasonOf(latent)) : null);
  // One block that fails must not take the panel with it.
  for (const block of [passportBlock, examplesBlock, effectsBlock, conceptsBlock, neighboursBlock]) {
    try {
      body.append(...block(data, latent));
    } catch (error) {
      body.append(h("div", { class: "broken" }, h("p", {}, h("b", {}, "A part of this panel"), " could not be drawn."), h("pre", {}, String(error))));
    }
  }
  body.append(h("p", { class: "keys" }, h("kbd", {}, "←"), " ", h("kbd", {}, "→"), " previous and next in the table's order · ", h("kbd", {}, "r"), " random · ", h("kbd", {}, "/"), " search · ", h("kbd", {}, "esc"), " close"));
  const button = (label, action, title) => h("button", { type: "button", class: "quiet", onclick: action, title }, label);
  return [h("div", { class: "panel-bar" },
    button("‹ Previous", moves.previous, "Previous latent in the table (←)"), button("Next ›", moves.next, "Next latent in the table (→)"),
    button("Random", moves.random, "Random latent (r)"), h("span", { class: "where" }, moves.where),
    h("span", { class: "grow" }), button("Close ✕", moves.close, "Close (Esc)")), body];
}

function passportBlock(data, latent) {
  const questions = data.questions.map((question) => {
    const answer = data.answerOf(question, latent);
    const dead = data.verdictOf(latent).key === "dead";
    return h("section", { class: "question" },
      h("div", { class: "question-head" }, h("b", {}, question.title), h("span", { class: "asks" }, question.asks), h("span", { class: `answer ${answer}` }, answer)),
      h("p", { class: "says" }, dead ? "Not measured: the latent never fires." : question.says[answer]),
      question.columns.map((column, index) => measure(column, latent, index === 0 ? answer : null)));
  });
  const others = data.others.map((column) => measure(column, latent, null));
  if (!questions.length) return [h("h4", {}, "Statistics"), ...others];
  return [
    h("h4", {}, "Passport", h("small", {}, "dot: estimate · line: 95 % interval · tick: null · dotted: threshold")),
    ...questions, ...(others.length ? [h("h4", {}, "Also measured"), ...others] : []),
  ];
}

function measure(column, latent, answer) {
  const [value, low, high, nil] = [column.value, column.low, column.high, column.null].map((values) => values[latent]);
  if (Number.isNaN(value)) {
    return h("div", { class: "measure second" }, h("div", { class: "name" }, column.title), h("div", { class: "name" }, "not measured"), h("div", {}));
  }
  const interval = Number.isNaN(low) ? "" : ` [${shown(low)}, ${shown(high)}]`;
  const unit = column.unit ? ` ${column.unit}` : "";
  const facts = [`n = ${whole(column.n[latent])}`];
  if (!Number.isNaN(nil)) facts.unshift(`null ${shown(nil)}`);
  if (column.p && !Number.isNaN(column.p[latent])) facts.push(`p ${probability(column.p[latent])}`);
  if (column.q && !Number.isNaN(column.q[latent])) facts.push(`q ${probability(column.q[latent])}`);
  return h("div", { class: `measure ${answer ? "first" : "second"}` },
    h("div", { class: "name", "data-tip": column.nullDescription ? `Null: ${column.nullDescription}` : null }, column.title, h("small", {}, column.unit)),
    strip(column.axis, { value, low, high, nil, threshold: column.threshold, answer }, true),
    h("div", { class: "result", title: `${shown(value)}${unit}` }, shown(value), h("small", { style: { display: "inline" } }, interval), h("small", {}, facts.join(" · "))));
}

function examplesBlock(data, latent) {
  const examples = data.details.examples;
  const [from, to] = [examples.ofLatent[latent], examples.ofLatent[latent + 1]];
  if (from === to) return [h("h4", {}, "Examples"), h("p", { class: "note" }, examples.groupNames ? "There are none." : "It fires on no held-out token.")];
  let largest = 0;
  for (let v = examples.ofValue[from]; v < examples.ofValue[to]; v++) largest = Math.max(largest, examples.values[v]);
  const groups = new Map();
  for (let e = from; e < to; e++) {
    if (!groups.has(examples.groups[e])) groups.set(examples.groups[e], []);
    groups.get(examples.groups[e]).push(e);
  }
  const quantiles = Math.max(...groups.keys());
  const box = h("div", {}, [...groups].map(([group, members]) => h("div", { class: "examples-group" },
    h("p", {}, groupTitle(examples, group, quantiles, members.length)), members.map((e) => exampleOf(data, e, largest)))));
  const toggle = h("button", {
    type: "button", class: "link", "aria-pressed": "false",
    onclick: (event) => {
      const compact = box.classList.toggle("compact");
      event.currentTarget.setAttribute("aria-pressed", String(compact));
      event.currentTarget.textContent = compact ? "Show line breaks" : "One line each";
      box.replaceChildren(...[...groups].map(([group, members]) => h("div", { class: "examples-group" },
        h("p", {}, groupTitle(examples, group, quantiles, members.length)), members.map((e) => exampleOf(data, e, largest, compact)))));
    },
  }, "One line each");
  return [h("h4", {}, examples.groupNames ? "Examples" : "Held-out examples", h("small", {}, `shade: activation, up to ${shown(largest)}; underlined: the token it was chosen for`), h("span", { class: "grow" }), toggle), box];
}

function groupTitle(examples, group, quantiles, count) {
  if (examples.groupNames) return `${examples.groupNames[group]} (${count})`;
  if (group === 0) return `Strongest (${count})`;
  const place = group === 1 ? ", the highest" : group === quantiles ? ", the lowest" : "";
  return `Quantile group ${group} of ${quantiles} of its active values${place} (${count}, sampled)`;
}

function exampleOf(data, e, largest, compact) {
  const examples = data.details.examples;
  const values = new Float64Array(examples.lengths[e]);
  for (let v = examples.ofValue[e]; v < examples.ofValue[e + 1]; v++) values[examples.offsets[v]] = examples.values[v];
  const context = examples.contexts[e];
  const tokens = [...values].map((value, index) => {
    // In one line each, begin a few tokens before the peak, so that it can be seen.
    if (compact && index < examples.peaks[e] - 8) return null;
    const text = data.token(examples.tokens[context * examples.contextTokens + examples.starts[e] + index]);
    const active = value !== 0;
    return h("span", {
      class: index === examples.peaks[e] ? "token top" : "token",
      style: active ? { "--a": (0.08 + 0.72 * Math.min(1, Math.abs(value) / (largest || 1))).toFixed(3) } : null,
      "data-tip": active ? shown(value) : null,
    }, tokenText(text, !compact));
  });
  const document_ = examples.documents[examples.document[context]];
  return h("div", { class: "example" },
    h("div", { class: "peak" }, shown(values[examples.peaks[e]]), h("small", {}, "activation")),
    h("div", {}, h("p", { class: "text" }, tokens), h("div", { class: "document", title: document_ }, document_)));
}

function effectsBlock(data, latent) {
  const details = data.details;
  const counts = details.histogram.subarray(latent * details.bins, (latent + 1) * details.bins);
  const effects = (ids, logits, kind) => {
    const at = latent * details.ranks;
    const largest = Math.max(...[...details.promotedLogits.subarray(at, at + details.ranks), ...details.suppressedLogits.subarray(at, at + details.ranks)].map(Math.abs)) || 1;
    return h("table", { class: "tokens" }, h("tbody", {}, Array.from({ length: details.ranks }, (_, rank) => h("tr", {},
      h("td", { class: "piece" }, pieceBox(data.token(ids[at + rank]))),
      h("td", { class: "gauge" }, h("i", { class: kind, style: { width: `${Math.max(0, (100 * Math.abs(logits[at + rank])) / largest)}%` } })),
      h("td", {}, shown(logits[at + rank], 2))))));
  };
  const total = counts.reduce((sum, count) => sum + count, 0);
  const drawn = total ? [h("h4", {}, "Activations", h("small", {}, `${whole(total)} non-zero values`)), activationHistogram(details, latent, counts)] : [];
  // Outside the residual stream a direction has no direct effect on the logits.
  if (!details.ranks) return drawn;
  return [...drawn, h("div", { class: "two" },
    h("div", {}, h("h4", {}, "Promotes", h("small", {}, "logit per unit")), effects(details.promoted, details.promotedLogits, "up")),
    h("div", {}, h("h4", {}, "Suppresses", h("small", {}, "logit per unit")), effects(details.suppressed, details.suppressedLogits, "down")))];
}

function activationHistogram(details, latent, counts) {
  const [width, height] = [740, 90];
  const [low, high] = [details.edges[2 * latent], details.edges[2 * latent + 1]];
  const tallest = Math.max(...counts);
  const step = width / counts.length;
  const edge = (bin) => shown(low + ((high - low) * bin) / counts.length);
  const bars = [...counts].map((count, bin) => count ? s("rect", {
    class: "activation", x: bin * step + 0.5, width: step - 1, y: height - (height * count) / tallest, height: (height * count) / tallest,
    style: { fill: "rgb(var(--heat))" }, "data-tip": `${edge(bin)} … ${edge(bin + 1)}: ${whole(count)}`,
  }) : null);
  const label = (x, anchor, text) => s("text", { x, y: height + 14, "text-anchor": anchor, style: { fill: "var(--muted)", font: "11px var(--sans)" } }, text);
  return s("svg", { viewBox: `0 -2 ${width} ${height + 20}`, width, height: height + 20, role: "img", "aria-label": "Histogram of non-zero activations" },
    bars, s("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }),
    label(0, "start", shown(low)), label(width / 2, "middle", shown((low + high) / 2)), label(width, "end", shown(high)));
}

function conceptsBlock(data, latent) {
  if (!data.details.concepts) return [];
  const found = data.conceptsOf(latent);
  const title = h("h4", {}, "Concepts", h("small", {}, "F1 on held-out tokens · tick: best F1 that chance reaches over the whole library"));
  if (!found.length) return [title, h("p", { class: "note" }, "No concept of the library matches.")];
  const axis = { low: 0, high: 1, log: false, ticks: [0, 0.5, 1] };
  return [title, ...found.map((concept) => {
    const above = concept.low > concept.null;
    return h("div", { class: "concept" },
      h("div", {}, concept.name, h("small", {}, withCode(concept.description))),
      strip(axis, { value: concept.f1, low: concept.low, high: concept.high, nil: concept.null, answer: above ? null : "unclear" }, true),
      h("div", {}, h("b", {}, shown(concept.f1, 2)), h("small", {}, `[${shown(concept.low, 2)}, ${shown(concept.high, 2)}]`), h("small", {}, above ? `above null ${shown(concept.null, 2)}` : `not above null ${shown(concept.null, 2)}`)));
  })];
}

function neighboursBlock(data, latent) {
  const details = data.details;
  if (!details.near) return [];
  const links = Array.from({ length: details.near }, (_, rank) => {
    const other = details.neighbours[latent * details.near + rank];
    if (other < 0 || other >= data.width) return null;
    return h("li", {}, h("a", { href: `#latent=${other}`, "data-tip": data.verdictOf(other).title },
      h("i", { class: `swatch ${data.verdictOf(other).key}` }), `#${other}`, h("small", {}, `cos ${details.cosines[latent * details.near + rank].toFixed(2)}`)));
  });
  const nil = details.neighbourNull === null ? null : h("small", {}, `among as many random directions the nearest has cosine ${shown(details.neighbourNull, 2)}`);
  return [h("h4", {}, "Nearest directions", nil), h("ul", { class: "neighbours" }, links)];
}
