// Data: names come as JSON, numbers as one deflated block of typed arrays.

function readJson(id) {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
}

async function readPack() {
  const text = atob(document.getElementById("pack").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(inflated).arrayBuffer();
}

const KINDS = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array };

function arrayOf(pack, [offset, length, kind]) {
  if (kind === "f2") return Float32Array.from(new Uint16Array(pack, offset, length), half);
  return new KINDS[kind](pack, offset, length);
}

// IEEE half precision: 1 bit sign, 5 bits exponent, 10 bits fraction.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// Every description [offset, length, kind] in the content becomes its array.
function unpacked(content, pack) {
  if (Array.isArray(content)) {
    const described = content.length === 3 && typeof content[2] === "string" && typeof content[0] === "number";
    return described ? arrayOf(pack, content) : content.map((item) => unpacked(item, pack));
  }
  if (content === null || typeof content !== "object") return content;
  return Object.fromEntries(Object.entries(content).map(([key, item]) => [key, unpacked(item, pack)]));
}

// Where each latent's (or example's) entries begin, from how many it has.
function startsOf(counts) {
  const starts = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) starts[i + 1] = starts[i] + counts[i];
  return starts;
}

function catalogueOf(content, pack) {
  const data = unpacked(content, pack);
  const examples = data.details.examples;
  examples.ofLatent = startsOf(examples.perLatent);
  examples.ofValue = startsOf(examples.perExample);
  data.column = Object.fromEntries(data.columns.map((column) => [column.name, column]));
  const asked = new Set(data.questions.flatMap((question) => question.evidence));
  data.others = data.columns.filter((column) => !asked.has(column.name));
  for (const question of data.questions) {
    question.columns = question.evidence.map((name) => data.column[name]);
  }
  data.verdictOf = (latent) => data.classes[data.verdicts[latent]];
  data.answerOf = (question, latent) => data.answerKeys[question.answers[latent]];
  data.reasonOf = (latent) => data.reasons[data.reason[latent]];
  data.token = (id) => data.vocabulary[id];
  data.firesOn = (latent, limit) => firesOn(data, latent, limit);
  data.conceptsOf = (latent) => conceptsOf(data, latent);
  return data;
}

// The distinct tokens at the peaks of a latent's examples, most examples first.
function firesOn(data, latent, limit) {
  const examples = data.details.examples;
  const counts = new Map();
  for (let e = examples.ofLatent[latent]; e < examples.ofLatent[latent + 1]; e++) {
    if (examples.silentFrom !== null && examples.groups[e] >= examples.silentFrom) continue;
    const place = examples.contexts[e] * examples.contextTokens + examples.starts[e] + examples.peaks[e];
    const token = examples.tokens[place];
    counts.set(token, (counts.get(token) || 0) + 1);
  }
  const ordered = [...counts].sort((a, b) => b[1] - a[1]).map(([token]) => token);
  return limit ? ordered.slice(0, limit) : ordered;
}

function conceptsOf(data, latent) {
  const concepts = data.details.concepts;
  if (!concepts) return [];
  const found = [];
  for (let rank = 0; rank < concepts.ranks; rank++) {
    const at = latent * concepts.ranks + rank;
    const index = concepts.indices[at];
    if (index < 0 || !(concepts.f1[at] > 0)) continue;
    found.push({
      name: concepts.names[index], description: concepts.descriptions[index],
      f1: concepts.f1[at], low: concepts.low[at], high: concepts.high[at], null: concepts.null[latent],
    });
  }
  return found;
}
