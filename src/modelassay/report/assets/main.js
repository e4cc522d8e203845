// Puts the parts together: what fails is named on the page and leaves the rest alone.

const selection = { latent: -1 };

function guarded(element, start) {
  try {
    return start();
  } catch (error) {
    element?.prepend(h("div", { class: "broken" }, h("p", {}, h("b", {}, "This part"), " could not be drawn."), h("pre", {}, String(error))));
    return null;
  }
}

async function start() {
  startTips();
  guarded(null, startDownloads);
  const lens = document.getElementById("lens");
  if (lens) {
    const numbers = await readPack();
    guarded(lens, () => startLens(numbers));
  }
  const place = document.getElementById("catalogue");
  if (!place) {
    document.documentElement.dataset.ready = "yes";
    return;
  }
  const pack = await readPack();
  const data = guarded(place, () => catalogueOf(readJson("catalogue-data"), pack));
  if (!data) return;
  const table = guarded(place, () => startTable(data, open, selection));
  const scatter = document.getElementById("scatter");
  const redraw = scatter && guarded(scatter, () => startScatter(data, pack, open, selection));
  const panel = document.getElementById("panel");
  let opener = null;

  function open(latent) {
    const hash = `#latent=${latent}`;
    // Moving on within the panel replaces the entry, so that "back" leaves the panel.
    if (selection.latent >= 0) { history.replaceState(null, "", hash); follow(); } else location.hash = hash;
  }

  function close() {
    if (selection.latent < 0) return;
    history.replaceState(null, "", location.pathname + location.search);
    follow();
  }

  function step(by) {
    const order = table ? table.order() : [];
    if (!order.length) return open((selection.latent + by + data.width) % data.width);
    const at = order.indexOf(selection.latent);
    open(order[at < 0 ? 0 : (at + by + order.length) % order.length]);
  }

  const random = () => {
    const order = table?.order().length ? table.order() : [...data.verdicts.keys()];
    open(order[Math.floor(Math.random() * order.length)]);
  };

  function follow() {
    hideTip();
    const match = location.hash.match(/^#latent=(\d+)$/);
    const latent = match && Number(match[1]) < data.width ? Number(match[1]) : -1;
    const was = selection.latent;
    selection.latent = latent;
    panel.hidden = latent < 0;
    if (latent >= 0) {
      const at = table ? table.order().indexOf(latent) : -1;
      const where = at < 0 ? "not in the table's selection" : `${whole(at + 1)} of ${whole(table.order().length)}`;
      panel.replaceChildren(...panelOf(data, latent, { previous: () => step(-1), next: () => step(1), random, close, where }));
      panel.scrollTop = 0;
      if (was < 0) { opener = document.activeElement; panel.focus({ preventScroll: true }); }
    } else if (was >= 0) {
      panel.replaceChildren();
      opener?.focus?.({ preventScroll: true });
    }
    table?.mark();
    redraw?.();
  }

  document.getElementById("random").addEventListener("click", random);
  window.addEventListener("hashchange", follow);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const opened = selection.latent >= 0;
    const action = {
      "/": () => { close(); document.getElementById("search").focus(); document.getElementById("search").scrollIntoView({ block: "center" }); },
      r: random,
      Escape: opened && close,
      ArrowLeft: opened && (() => step(-1)), ArrowRight: opened && (() => step(1)),
      k: opened && (() => step(-1)), j: opened && (() => step(1)),
    }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  document.addEventListener("mousedown", (event) => {
    // A click beside the panel closes it, unless it opens another latent.
    if (selection.latent >= 0 && !panel.contains(event.target) && !event.target.closest("tr[data-latent], canvas, a, button, input")) close();
  });
  follow();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => guarded(document.getElementById("catalogue"), () => { throw error; }));
