// Euclidean against Fisher variance: thousands of points, so on a canvas.

function startScatter(data, pack, openLatent, selection) {
  const canvas = document.getElementById("scatter-canvas");
  const points = unpacked(readJson("scatter-data"), pack);
  const context = canvas.getContext("2d");
  const hidden = new Set();
  const margin = { left: 62, right: 14, top: 14, bottom: 46 };
  let screen = [];
  let hovered = -1;

  const drawable = (x, y) => x > 0 && y > 0;
  const range = (pick) => {
    let low = Infinity, high = -Infinity;
    for (const series of [points, ...points.nulls]) {
      for (let i = 0; i < series.x.length; i++) {
        if (!drawable(series.x[i], series.y[i])) continue;
        const value = Math.log10(pick(series)[i]);
        low = Math.min(low, value); high = Math.max(high, value);
      }
    }
    const spread = Math.max(0.2, (high - low) * 0.03);
    return low <= high ? [low - spread, high + spread] : [-1, 1];
  };
  const xRange = range((series) => series.x);
  const yRange = range((series) => series.y);

  // The rarer a verdict, the later it is drawn, so that none buries another.
  const counts = data.classes.map((_, index) => data.verdicts.reduce((n, v) => n + (v === index), 0));
  const order = data.classes.map((_, index) => index).sort((a, b) => counts[b] - counts[a]);

  function draw() {
    const { width, height } = canvas.getBoundingClientRect();
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const x = (v) => margin.left + ((Math.log10(v) - xRange[0]) / (xRange[1] - xRange[0])) * (width - margin.left - margin.right);
    const y = (v) => height - margin.bottom - ((Math.log10(v) - yRange[0]) / (yRange[1] - yRange[0])) * (height - margin.top - margin.bottom);
    drawGrid(context, { width, height, margin, xRange, yRange, x, y, color, titles: points });

    if (points.ratio) drawRatio(context, points.ratio, { width, height, margin, xRange, x, y, color });
    const size = width < 600 ? 1.8 : 2.6;
    screen = [];
    context.globalAlpha = 0.8;
    for (const index of order) {
      const key = data.classes[index].key;
      if (hidden.has(key)) continue;
      context.fillStyle = color(key);
      for (let latent = 0; latent < data.width; latent++) {
        if (data.verdicts[latent] !== index || !drawable(points.x[latent], points.y[latent])) continue;
        const at = [x(points.x[latent]), y(points.y[latent]), latent];
        screen.push(at);
        context.beginPath();
        context.arc(at[0], at[1], size, 0, 2 * Math.PI);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    // The nulls go on top, each on a rim of paper: they are few, and what all is compared with.
    for (const series of points.nulls) {
      if (hidden.has(series.key)) continue;
      for (let i = 0; i < series.x.length; i++) {
        if (!drawable(series.x[i], series.y[i])) continue;
        for (const [rim, width] of [["paper", 3.4], ["null", 1.3]]) {
          context.strokeStyle = color(rim);
          context.lineWidth = width;
          drawNull(context, series.key, x(series.x[i]), y(series.y[i]), size);
        }
      }
    }
    for (const latent of [selection.latent, hovered]) {
      const at = screen.find((point) => point[2] === latent);
      if (!at) continue;
      context.strokeStyle = color("ink");
      context.lineWidth = 1.8;
      context.beginPath();
      context.arc(at[0], at[1], 6.5, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const px = event.clientX - box.left, py = event.clientY - box.top;
    let best = -1, distance = 14 ** 2;
    for (const [x, y, latent] of screen) {
      const d = (x - px) ** 2 + (y - py) ** 2;
      if (d < distance) { distance = d; best = latent; }
    }
    return best;
  }

  canvas.addEventListener("mousemove", (event) => {
    const latent = nearest(event);
    if (latent !== hovered) { hovered = latent; draw(); }
    canvas.style.cursor = latent < 0 ? "crosshair" : "pointer";
    if (latent < 0) return hideTip();
    const tokens = data.firesOn(latent, 4).map((id) => JSON.stringify(data.token(id))).join(" ");
    showTip(
      `Latent ${latent}: ${data.verdictOf(latent).title}\nEuclidean ${shown(points.x[latent])} · Fisher ${shown(points.y[latent])}` +
      (tokens ? `\nfires on ${tokens}` : ""), event.clientX, event.clientY);
  });
  canvas.addEventListener("mouseleave", () => { hovered = -1; hideTip(); draw(); });
  canvas.addEventListener("click", (event) => {
    const latent = nearest(event);
    if (latent >= 0) openLatent(latent);
  });

  const toggles = [
    ...data.classes.map((item, index) => ({ ...item, count: counts[index] })),
    ...points.nulls.map((series) => ({ key: series.key, title: series.title, count: series.x.length })),
  ];
  document.getElementById("scatter-controls").append(...toggles.map(({ key, title, count }) => h("button", {
    type: "button", class: "toggle", "aria-pressed": "true",
    onclick: (event) => {
      if (!hidden.delete(key)) hidden.add(key);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(key)));
      draw();
    },
  }, h("i", { class: `swatch ${key}` }), `${title} (${whole(count)})`)));

  document.getElementById("scatter-csv").addEventListener("click", () => {
    const rows = [["kind", "latent", "verdict", "euclidean_variance", "fisher_variance"]];
    for (let i = 0; i < data.width; i++) rows.push(["latent", i, data.verdictOf(i).key, points.x[i], points.y[i]]);
    for (const series of points.nulls) {
      for (let i = 0; i < series.x.length; i++) rows.push([series.key, "", "", series.x[i], series.y[i]]);
    }
    save("euclidean-against-fisher-variance", rows);
  });

  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return draw;
}

// Where y / x is that of the typical null direction.
function drawRatio(context, ratio, { width, height, margin, xRange, x, y, color }) {
  context.save();
  context.beginPath();
  context.rect(margin.left, margin.top, width - margin.left - margin.right, height - margin.top - margin.bottom);
  context.clip();
  context.strokeStyle = color("null");
  context.lineWidth = 1.2;
  context.setLineDash([5, 5]);
  context.beginPath();
  for (const power of xRange) context.lineTo(x(10 ** power), y(10 ** power * ratio));
  context.stroke();
  context.restore();
}

function drawNull(context, key, x, y, size) {
  context.beginPath();
  if (key === "pca") {
    context.moveTo(x - size, y - size); context.lineTo(x + size, y + size);
    context.moveTo(x + size, y - size); context.lineTo(x - size, y + size);
  } else {
    context.arc(x, y, size, 0, 2 * Math.PI);
  }
  context.stroke();
}

function drawGrid(context, { width, height, margin, xRange, yRange, x, y, color, titles }) {
  context.font = `11px ${color("sans")}`;
  context.strokeStyle = color("line"); context.fillStyle = color("muted"); context.lineWidth = 1;
  const powers = ([low, high], about) => {
    const first = Math.ceil(low), last = Math.floor(high);
    const step = Math.max(1, Math.ceil((last - first + 1) / about));
    return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, i) => first + i * step);
  };
  context.textAlign = "center"; context.textBaseline = "top";
  for (const power of powers(xRange, width / 70)) {
    const at = x(10 ** power);
    context.beginPath(); context.moveTo(at, margin.top); context.lineTo(at, height - margin.bottom); context.stroke();
    context.fillText(tickLabel(10 ** power), at, height - margin.bottom + 7);
  }
  context.textAlign = "right"; context.textBaseline = "middle";
  for (const power of powers(yRange, height / 50)) {
    const at = y(10 ** power);
    context.beginPath(); context.moveTo(margin.left, at); context.lineTo(width - margin.right, at); context.stroke();
    context.fillText(tickLabel(10 ** power), margin.left - 8, at);
  }
  context.fillStyle = color("ink");
  context.textAlign = "center"; context.textBaseline = "bottom";
  context.fillText(titles.xTitle, margin.left + (width - margin.left - margin.right) / 2, height - 6);
  context.save();
  context.translate(12, margin.top + (height - margin.top - margin.bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "middle";
  context.fillText(titles.yTitle, 0, 0);
  context.restore();
}
