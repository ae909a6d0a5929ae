// What the operator's view draws: bars that fill, a line of the last minute, a histogram. Sizes are
// set by script, as no style may stand in the page.

import { el } from "./dom.js";
import { t } from "./i18n.js";
import { bound, latency, quantile, short } from "./operator_figures.js";

const QUANTILES = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99]];

/** A bar that shows a share; `set(part, whole)`. */
export function bar(label) {
  const fill = el("div", { class: "op-fill" });
  const node = el("div", { class: "op-bar", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  const set = (part, whole) => {
    const share = whole ? Math.min(1, part / whole) : 0;
    fill.style.setProperty("width", `${100 * share}%`);
    node.setAttribute("aria-valuenow", String(Math.round(100 * share)));
    node.classList.toggle("high", share > 0.85);
  };
  return { node, set };
}

/** A line through values, the newest at the right; `set(values)`. */
export function line() {
  const stroke = el("svg:polyline", { class: "op-line" });
  const area = el("svg:polygon", { class: "op-area" });
  const node = el("svg:svg", { class: "op-spark", viewBox: "0 0 60 20", preserveAspectRatio: "none", "aria-hidden": "true" }, area, stroke);
  const set = (values) => {
    const most = Math.max(...values, 1e-9);
    const points = values.map((value, place) => [61 - values.length + place, 19 - (18 * value) / most]);
    stroke.setAttribute("points", points.map(([x, y]) => `${x},${y.toFixed(2)}`).join(" "));
    const ends = points.length ? [[points[points.length - 1][0], 20], [points[0][0], 20]] : [];
    area.setAttribute("points", [...points, ...ends].map(([x, y]) => `${x},${y}`).join(" "));
  };
  return { node, set };
}

/** A histogram with its quantiles; `set({last, ever}, time)`. */
export function histogram(title) {
  const columns = [];
  const plot = el("div", { class: "op-plot", role: "img" });
  const told = QUANTILES.map(([name]) => ({ name, value: el("strong", { class: "num" }, "–") }));
  const count = el("span", { class: "muted" });
  const ever = el("p", { class: "op-ever muted" });
  const node = el("div", { class: "card op-histogram" },
    el("div", { class: "op-head" }, el("h3", null, title), count),
    el("dl", { class: "op-quantiles" },
      told.map(({ name, value }) => el("div", null, el("dt", null, name), el("dd", null, value)))),
    plot, ever);
  const set = (spread, time) => {
    if (!columns.length) columns.push(...draw(plot, spread.last.buckets));
    fill(columns, spread.last);
    const values = quantiles(spread.last);
    told.forEach(({ value }, place) => { value.textContent = values[place]; });
    count.textContent = t(spread.last.count ? "operator.last" : "operator.none", { count: short(spread.last.count), time });
    const [p50, p90, p99] = quantiles(spread.ever);
    ever.textContent = t("operator.ever", { p50, p90, p99, count: short(spread.ever.count) });
    plot.setAttribute("aria-label", `${title}: ${QUANTILES.map(([name], place) => `${name} ${values[place]}`).join(", ")}`);
  };
  return { node, set };
}

function quantiles(spread) {
  const [longest] = spread.buckets[spread.buckets.length - 1];
  return QUANTILES.map(([, share]) => latency(quantile(spread, share), longest));
}

function draw(plot, buckets) {
  return buckets.map(([from, to]) => {
    const fill = el("div", { class: "op-column-fill" });
    const label = to === Infinity ? "∞" : bound(to);
    const column = el("div", { class: "op-column" }, el("div", { class: "op-column-room" }, fill), el("span", { class: "op-column-label" }, label));
    plot.append(column);
    return { column, fill, from, to };
  });
}

function fill(columns, { buckets }) {
  const most = Math.max(...buckets.map(([, , count]) => count), 1);
  columns.forEach(({ column, fill, from, to }, place) => {
    const count = buckets[place][2];
    fill.style.setProperty("height", count ? `max(2px, ${(100 * count) / most}%)` : "0");
    const key = to === Infinity ? "operator.bar.over" : "operator.bar";
    column.title = t(key, { from: bound(from), to: bound(to), count: short(count) });
  });
}
