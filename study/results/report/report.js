"use strict";
// Draws the study in the element #data. No library, no network. A model is one object of data.models.
const data = JSON.parse(document.getElementById("data").textContent);
const { metrics, models } = data;
const m = metrics.length;
const front = models.filter((model) => model.front);
const shown = { measured: false, validated: true };
let pinned = data.best;

const sign = metrics.map((metric) => (metric.maximize ? 1 : -1));
const element = (name, attributes = {}, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
};
// Two digits of the error, as many as mean something.
const digits = (error) => (error > 0 ? Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(error)))) : 3);
const plain = (value, places) => value.toFixed(places).replace(/^-(0(\.0*)?)$/, "$1");
const number = (value, error) =>
  value == null ? "" : error == null ? value.toPrecision(3) : `${plain(value, digits(error))} ± ${error.toFixed(digits(error))}`;
const name = (model) => `trial ${model.n}${model.role && model.role !== "search" ? `, ${model.role}` : ""}`;
const spoken = (model) =>
  `${name(model)}: ${metrics.map((metric, j) => `${metric.name} ${number(model.believed[j], model.errors[j])}`).join(", ")}`;

// What is drawn: two axes a panel, each with a value, an error, and the other two kinds of values.
const objective = (j) => ({
  label: `${metrics[j].name} (${metrics[j].maximize ? "higher" : "lower"} is better)`,
  get: (model, kind) => (kind === "believed" ? model.believed : kind === "measured" ? model.measured : model.validated)?.[j],
  error: (model, kind) => (kind === "believed" ? model.errors : kind === "measured" ? model.measuredErrors : model.validatedErrors)?.[j],
});
const fixed = (label, get) => ({ label, get: (model) => get(model), error: () => null });
const panels =
  m === 1
    ? [
        { x: fixed("trial", (model) => model.n), y: objective(0) },
        { x: fixed("mean weight: 0 base, 1 expert", (model) => model.meanWeight), y: objective(0), curve: true },
      ]
    : metrics.flatMap((_, j) => metrics.slice(j + 1).map((_, k) => ({ x: objective(j + 1 + k), y: objective(j), plane: [j + 1 + k, j], curve: true })));

function scale(values, from, to) {
  const most = Math.max(2, Math.min(6, Math.floor(Math.abs(to - from) / 52)));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const step = [1, 2, 5, 10, 20].map((f) => f * 10 ** Math.floor(Math.log10((high - low) / 5))).find((s) => (high - low) / s <= most) ?? high - low;
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(Math.abs(t) < step * 1e-6 ? 0 : Number(t.toPrecision(6)));
  return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks, to };
}

function draw(panel, holder) {
  const width = Math.max(280, holder.clientWidth || 560);
  const height = Math.round(Math.min(430, Math.max(260, width * 0.72)));
  const [left, right, top, bottom] = [46, 12, 10, 42];
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${panel.y.label} over ${panel.x.label}` });
  const kinds = ["believed", ...Object.keys(shown).filter((kind) => shown[kind])];
  const reach = (axis, model, kind) => [-1, 1].map((side) => axis.get(model, kind) + side * (model.front || model.uniform ? axis.error(model, kind) ?? 0 : 0));
  const all = (axis) => models.flatMap((model) => kinds.filter((kind) => axis.get(model, kind) != null).flatMap((kind) => reach(axis, model, kind))).filter(isFinite);
  const reference = (i) => (panel.plane && m === 2 ? [metrics[panel.plane[i]].reference] : []);
  const told = (i) => (panel.plane ? data.predicted.map((one) => one.values[panel.plane[i]]) : []);
  const x = scale([...all(panel.x), ...told(0), ...reference(0)], left, width - right);
  const y = scale([...all(panel.y), ...told(1), ...reference(1)], height - bottom, top);
  for (const t of x.ticks) {
    svg.append(element("line", { class: "grid", x1: x.at(t), x2: x.at(t), y1: top, y2: height - bottom }));
    svg.append(element("text", { class: "tick", x: x.at(t), y: height - bottom + 16, "text-anchor": "middle" }, String(t)));
  }
  for (const t of y.ticks) {
    svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: y.at(t), y2: y.at(t) }));
    svg.append(element("text", { class: "tick", x: left - 6, y: y.at(t) + 4, "text-anchor": "end" }, String(t)));
  }
  svg.append(element("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, panel.x.label));
  svg.append(element("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, panel.y.label));
  if (panel.plane && m === 2 && front.length) stairs(svg, x, y, panel);
  if (panel.curve) {
    const points = models.filter((model) => model.uniform).sort((a, b) => a.meanWeight - b.meanWeight);
    svg.append(element("polyline", { class: "curve", points: points.map((p) => `${x.at(panel.x.get(p, "believed"))},${y.at(panel.y.get(p, "believed"))}`).join(" ") }));
  }
  if (panel.plane) for (const one of data.predicted) svg.append(guess(one, panel.plane, x, y));
  const rank = (model) => (model.front ? 2 : model.uniform ? 1 : 0);
  for (const model of [...models].sort((a, b) => rank(a) - rank(b))) svg.append(mark(model, panel, x, y, kinds));
  holder.replaceChildren(svg);
}

// The dominated area, by steps: between two models there is nothing that anybody measured.
function stairs(svg, x, y, panel) {
  const [i, j] = panel.plane;
  const origin = [x.at(metrics[i].reference), y.at(metrics[j].reference)];
  const inside = front.filter((f) => sign[i] * (f.believed[i] - metrics[i].reference) > 0 && sign[j] * (f.believed[j] - metrics[j].reference) > 0);
  if (!inside.length) return;
  const points = inside.map((f) => [f.believed[i], f.believed[j]]).sort((a, b) => sign[i] * (b[0] - a[0]));
  let path = `M${x.at(points[0][0])},${origin[1]}`;
  points.forEach(([a, b], k) => { path += ` L${x.at(a)},${k ? y.at(points[k - 1][1]) : origin[1]} L${x.at(a)},${y.at(b)}`; });
  path += ` L${origin[0]},${y.at(points[points.length - 1][1])}`;
  svg.append(element("path", { class: "area", d: `${path} L${origin[0]},${origin[1]} Z` }));
  svg.append(element("path", { class: "stairs", d: path }));
  svg.append(element("path", { class: "origin", d: `M${origin[0] - 5},${origin[1]} h10 m-5,-5 v10` }));
  svg.append(element("text", { class: "tick", x: origin[0] + (sign[i] > 0 ? 4 : -4), y: origin[1] - 4, "text-anchor": sign[i] > 0 ? "start" : "end" }, "reference point"));
}

// A recommended model that nobody measured: predicted values, nothing to pin.
function guess(one, [i, j], x, y) {
  const values = metrics.map((metric, k) => `${metric.name} ${number(one.values[k], one.errors[k])}`).join(", ");
  const ring = element("circle", { class: "predicted", cx: x.at(one.values[i]), cy: y.at(one.values[j]), r: 6, role: "img", "aria-label": `${one.html}: ${values}, predicted` });
  ring.append(element("title", {}, `${one.html}, predicted, nobody measured it: ${values}`));
  return ring;
}

function mark(model, panel, x, y, kinds) {
  const at = (kind) => {
    const [a, b] = [panel.x.get(model, kind), panel.y.get(model, kind)];
    return a == null || b == null ? null : [x.at(a), y.at(b)];
  };
  const [cx, cy] = at("believed");
  const style = model.phase === "parent" ? "parent" : model.front ? "front" : model.uniform ? "uniform" : "other";
  const group = element("g", { class: "mark", tabindex: model.front || model.uniform ? 0 : -1, role: "button", "aria-label": spoken(model), "data-n": model.n });
  if (model.front || model.uniform) {
    for (const kind of kinds) {
      const point = at(kind);
      if (!point) continue;
      const [px, py] = point;
      const klass = kind === "believed" ? style : kind;
      if (kind !== "believed") group.append(element("line", { class: "link", x1: cx, y1: cy, x2: px, y2: py }));
      if (kind !== "measured") {
        const [ex, ey] = [panel.x.error(model, kind), panel.y.error(model, kind)];
        const [ax, ay] = [panel.x.get(model, kind), panel.y.get(model, kind)];
        if (ex) group.append(element("line", { class: `bar ${klass}`, x1: x.at(ax - ex), x2: x.at(ax + ex), y1: py, y2: py }));
        if (ey) group.append(element("line", { class: `bar ${klass}`, x1: px, x2: px, y1: y.at(ay - ey), y2: y.at(ay + ey) }));
      }
      if (kind === "validated") group.append(element("path", { class: klass, "stroke-width": 1.6, d: `M${px},${py - 5} l5,5 l-5,5 l-5,-5 Z` }));
      if (kind === "measured") group.append(element("path", { class: klass, d: `M${px - 3},${py - 3} l6,6 m0,-6 l-6,6` }));
    }
  }
  const shape =
    style === "parent" ? element("path", { class: style, d: `M${cx},${cy - 8} l6,13 l-12,0 Z` })
    : model.uniform ? element("rect", { class: style, x: cx - 4, y: cy - 4, width: 8, height: 8 })
    : element("circle", { class: style, cx, cy, r: model.front ? 5 : 3 });
  group.append(shape, element("circle", { class: "ring", cx, cy, r: 10 }), element("circle", { class: "hit", cx, cy, r: model.front || model.uniform ? 12 : 5 }));
  const late = cx > x.to - 50;
  if (style === "parent") group.append(element("text", { x: late ? cx - 10 : cx + 10, y: cy + 16, class: "tick", "text-anchor": late ? "end" : "start" }, model.role));
  const apart = models.filter((one) => one.phase === "parent").every((one) => Math.hypot(x.at(panel.x.get(one, "believed")) - cx, y.at(panel.y.get(one, "believed")) - cy) > 40);
  if (panel.curve && apart && model.role.startsWith("uniform ")) group.append(element("text", { x: cx + 7, y: cy + 14, class: "tick level" }, model.role.slice(8)));
  group.append(element("title", {}, spoken(model)));
  group.addEventListener("mouseenter", () => show(model.n));
  group.addEventListener("mouseleave", () => show(pinned));
  group.addEventListener("focus", () => show(model.n));
  group.addEventListener("click", () => pin(model.n));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(model.n); }
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const place = front.findIndex((f) => f.n === model.n);
    if (step && place >= 0) group.parentNode.querySelector(`[data-n="${front[(place + step + front.length) % front.length].n}"]`).focus();
  });
  return group;
}

// Three objectives and more: one line a model over all axes; up is better.
function parallel(holder) {
  const width = Math.max(280, holder.clientWidth || 560);
  const height = 260;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "All objectives of each model; up is better" });
  const at = metrics.map((_, j) => 40 + (j * (width - 80)) / (m - 1));
  const scales = metrics.map((_, j) => scale(models.map((model) => sign[j] * model.believed[j]), height - 40, 24));
  metrics.forEach((metric, j) => {
    svg.append(element("line", { class: "grid", x1: at[j], x2: at[j], y1: 20, y2: height - 36 }));
    const ends = [Math.max, Math.min].map((end) => sign[j] * end(...models.map((model) => sign[j] * model.believed[j])));
    svg.append(element("text", { class: "tick", x: at[j], y: 14, "text-anchor": "middle" }, ends[0].toPrecision(3)));
    svg.append(element("text", { class: "tick", x: at[j], y: height - 24, "text-anchor": "middle" }, ends[1].toPrecision(3)));
    svg.append(element("text", { x: at[j], y: height - 8, "text-anchor": "middle" }, metric.name));
  });
  for (const model of [...models].sort((a, b) => a.front - b.front)) {
    const points = metrics.map((_, j) => `${at[j]},${scales[j].at(sign[j] * model.believed[j])}`).join(" ");
    const line = element("polyline", { class: `path ${model.front ? "front" : ""}`, points, "data-n": model.n });
    line.append(element("title", {}, spoken(model)));
    line.addEventListener("click", () => pin(model.n));
    svg.append(line);
  }
  holder.replaceChildren(svg);
}

function show(n) {
  const model = models.find((one) => one.n === n);
  if (!model) return;
  document.querySelectorAll("[data-n]").forEach((node) => node.classList.toggle("on", Number(node.dataset.n) === n));
  const rows = metrics.map((metric, j) => {
    const cells = [number(model.believed[j], model.errors[j]), number(model.measured[j], model.measuredErrors?.[j]), ...(data.split ? [number(model.validated?.[j], model.validatedErrors?.[j])] : [])];
    return `<tr><th>${metric.html}</th>${cells.map((cell) => `<td>${cell || "–"}</td>`).join("")}</tr>`;
  });
  const heads = ["", "believed", "measured", ...(data.split ? [data.split] : [])];
  document.getElementById("model").innerHTML =
    `<h2>${model.html}</h2><div class="scroll"><table><thead><tr>${heads.map((head) => `<th>${head}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table></div>` +
    (model.beyond ? '<p class="note">Clearly beyond the uniform curve on fresh questions.</p>' : "");
  const weights = data.layers.map((layer, k) => [layer, model.weights[k]]).filter(([, value]) => value != null);
  const most = Math.max(1, ...weights.map(([, value]) => value));
  const profile = document.getElementById("profile");
  profile.replaceChildren(...weights.map(([layer, value]) => {
    const bar = document.createElement("i");
    bar.style.height = `${Math.max(0, value / most) * 100}%`;
    bar.title = `${layer}: ${value.toFixed(3)}`;
    return bar;
  }));
  profile.setAttribute("aria-label", weights.map(([layer, value]) => `${layer} ${value.toFixed(2)}`).join(", "));
  document.getElementById("command").textContent = `mergefront export ${data.spec} --trial ${n} --out merged-${n}`;
}

function pin(n) {
  pinned = n;
  show(n);
}

// Distribution function of the standard normal (Abramowitz and Stegun 7.1.26, error below 1e-7).
function phi(z) {
  const t = 1 / (1 + 0.3275911 * Math.abs(z) / Math.SQRT2);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp(-z * z / 2);
  return z > 0 ? 1 - tail : tail;
}

// Expected minimum of independent normals: low + integral of P(all of them > t), at so many points.
const POINTS = 2000;
function expectedMinimum(means, errors) {
  const spread = errors.map((error) => Math.max(error, 1e-12));
  const low = Math.min(...means.map((mean, j) => mean - 6 * spread[j]));
  const high = Math.min(...means.map((mean, j) => mean + 6 * spread[j]));
  const step = (high - low) / (POINTS - 1);
  const above = (t) => means.reduce((product, mean, j) => product * phi((mean - t) / spread[j]), 1);
  let sum = (above(low) + above(high)) / 2;
  for (let i = 1; i < POINTS - 1; i += 1) sum += above(low + i * step);
  return low + sum * step;
}

// The same rule as `mergefront pick`: limits first, then the largest expected utility.
function pick() {
  const limits = metrics.map((_, j) => Number(document.getElementById(`limit-${j}`).value));
  const active = metrics.map((_, j) => document.getElementById(`limit-${j}`).dataset.moved === "yes");
  metrics.forEach((metric, j) => {
    document.getElementById(`shown-${j}`).textContent = active[j] ? `${metric.maximize ? "at least" : "at most"} ${limits[j].toPrecision(3)}` : "no limit";
  });
  const kept = front.filter((f) => metrics.every((_, j) => !active[j] || sign[j] * (f.believed[j] - limits[j]) >= -1e-12));
  const free = metrics.map((_, j) => j).filter((j) => !active[j]);
  const counted = free.length ? free : metrics.map((_, j) => j);
  const span = metrics.map((metric, j) => Math.max(1e-12, ...front.map((f) => sign[j] * (f.believed[j] - metric.reference))));
  const utility = (f) => expectedMinimum(
    counted.map((j) => (sign[j] * (f.believed[j] - metrics[j].reference)) / span[j]),
    counted.map((j) => f.errors[j] / span[j]),
  );
  const utilities = new Map(kept.map((f) => [f.n, utility(f)]));
  const best = kept.reduce((a, b) => (a && utilities.get(a.n) >= utilities.get(b.n) ? a : b), null);
  document.getElementById("picked").textContent = best ? `Pick: ${spoken(best)}` : "No model of the front keeps these limits.";
  if (best) pin(best.n);
}

function sort(button) {
  const body = document.querySelector("#models tbody");
  const column = Number(button.dataset.column);
  const head = button.closest("th");
  const down = head.getAttribute("aria-sort") !== "descending";
  document.querySelectorAll("#models th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => { const text = row.cells[column].dataset.value; return text === "" || isNaN(text) ? text : Number(text); };
  const rows = [...body.rows].sort((a, b) => ((key(a) > key(b)) - (key(a) < key(b))) * (down ? -1 : 1));
  body.append(...rows);
}

async function copy(button) {
  const text = document.getElementById("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages opened from a file may not use the clipboard: the old way still works there.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

function drawAll() {
  document.querySelectorAll(".panel[data-panel]").forEach((holder) => draw(panels[Number(holder.dataset.panel)], holder));
  const lines = document.getElementById("parallel");
  if (lines) parallel(lines);
  show(pinned);
}

const holders = document.getElementById("panels");
panels.forEach((_, k) => {
  const holder = document.createElement("div");
  holder.className = "panel";
  holder.dataset.panel = k;
  holders.append(holder);
});
metrics.forEach((_, j) => {
  const slider = document.getElementById(`limit-${j}`);
  slider.addEventListener("input", () => { slider.dataset.moved = "yes"; pick(); });
});
document.getElementById("reset").addEventListener("click", () => {
  metrics.forEach((_, j) => { document.getElementById(`limit-${j}`).dataset.moved = "no"; });
  pick();
});
for (const kind of Object.keys(shown)) {
  const box = document.getElementById(`show-${kind}`);
  if (box) box.addEventListener("change", () => { shown[kind] = box.checked; drawAll(); });
}
document.querySelectorAll("#models th button").forEach((button) => button.addEventListener("click", () => sort(button)));
document.querySelectorAll("#models tbody tr").forEach((row) => {
  const n = Number(row.dataset.n);
  row.addEventListener("click", () => pin(n));
  row.addEventListener("mouseenter", () => show(n));
  row.addEventListener("mouseleave", () => show(pinned));
  row.addEventListener("focus", () => show(n));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") pin(n); });
});
document.getElementById("copy").addEventListener("click", (event) => copy(event.currentTarget));
let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 100); });
drawAll();
