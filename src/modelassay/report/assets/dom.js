// Elements. Text always goes in as text nodes: nothing in the data can become markup.

const SVG = "http://www.w3.org/2000/svg";

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

// A number with three significant digits: 0.0123, 1,234, 1.2×10⁻⁵.
function shown(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const sign = value < 0 ? "−" : "";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
    const power = String(Number(exponent)).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
    return `${sign}${mantissa}×10${power}`;
  }
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return sign + size.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

const whole = (value) => Number(value).toLocaleString("en-US");

// Probabilities below a thousandth are all alike.
const probability = (value) => (value < 0.001 ? "< 0.001" : `= ${value.toFixed(3)}`);

// Characters that a reader could not see, or that would reorder the text around them.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

function glyphOf(character) {
  if (character === "\n") return "⏎";
  if (character === "\t") return "⇥";
  const code = character.codePointAt(0);
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// A token's text, its invisible characters as faint glyphs. `breaks`: line breaks also break.
function tokenText(text, breaks) {
  const nodes = [];
  let plain = "";
  const flush = () => { if (plain) nodes.push(plain); plain = ""; };
  for (const character of text) {
    if (!HIDDEN.test(character)) { plain += character; continue; }
    flush();
    nodes.push(h("span", { class: "glyph" }, glyphOf(character)));
    if (breaks && (character === "\n" || character === "\t")) plain += character;
  }
  flush();
  return nodes;
}

// A token on its own, in a box, with spaces that can be seen.
function pieceBox(text) {
  return h("span", { class: "piece-box" }, tokenText(text.replace(/ /g, "·"), false));
}

// Prose in which `backticks` mark code.
const withCode = (text) => text.split("`").map((piece, index) => (index % 2 ? h("code", {}, piece) : piece));

// Tooltips, for everything that carries data-tip.
const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, x - box.width / 2), window.innerWidth - box.width - 8);
  const top = y - box.height - 10 < 8 ? y + 18 : y - box.height - 10;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

function hideTip() { tip.hidden = true; }

function startTips() {
  const over = (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) return hideTip();
    const box = target.getClientRects()[0];
    if (box) showTip(target.dataset.tip, box.left + box.width / 2, box.top);
  };
  document.addEventListener("mouseover", over);
  document.addEventListener("focusin", over);
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });
}

// Axes, as the report's own: positions from 0 to 1, values outside at the ends.
function position(axis, value) {
  const scaled = axis.log ? (v) => Math.log10(Math.max(v, 1e-300)) : (v) => v;
  return Math.min(1, Math.max(0, (scaled(value) - scaled(axis.low)) / (scaled(axis.high) - scaled(axis.low))));
}

function tickLabel(value) {
  const text = shown(value, 4);
  if (text.includes("×")) {
    const [mantissa, power] = text.split("×");
    const short = mantissa.replace(/\.?0+$/, "");
    return short === "1" ? power : `${short}×${power}`;
  }
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// An estimate with its interval before its null, on a small axis. `labelled`: with ticks and the
// threshold, for the panel; without, for a table's cell.
function strip(axis, { value, low, high, nil, threshold, answer }, labelled) {
  const width = labelled ? 250 : 66;
  const height = labelled ? 34 : 16;
  const y = labelled ? 12 : 8;
  const pad = 5;
  const x = (v) => pad + position(axis, v) * (width - 2 * pad);
  const known = (v) => v !== null && v !== undefined && !Number.isNaN(v);
  const line = (cls, x1, x2, y1, y2) => s("line", { class: cls, x1, x2, y1, y2 });
  const parts = [line("rail", pad, width - pad, y, y)];
  if (known(nil)) parts.push(line("null-tick", x(nil), x(nil), y - 6, y + 6));
  if (labelled && known(threshold)) parts.push(line("threshold", x(threshold), x(threshold), y - 11, y + 8));
  if (known(value)) {
    if (known(low) && known(high)) parts.push(line("interval", x(low), x(high), y, y));
    // Beyond the axis the dot is hollow: the value lies further out.
    const beyond = value < axis.low || value > axis.high;
    parts.push(s("circle", { class: beyond ? "beyond" : null, cx: x(value), cy: y, r: labelled ? 4.2 : 3 }));
  }
  if (labelled) {
    for (const tick of axis.ticks) {
      const at = x(tick);
      const anchor = at < 16 ? "start" : at > width - 16 ? "end" : "middle";
      parts.push(s("text", { x: at, y: height - 3, "text-anchor": anchor }, tickLabel(tick)));
    }
  }
  return s("svg", {
    class: `${labelled ? "strip" : "mini"} ${answer || "plainly"}`, viewBox: `0 0 ${width} ${height}`,
    width, height, preserveAspectRatio: "xMinYMid", "aria-hidden": "true",
  }, parts);
}
