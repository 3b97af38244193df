// Residuals over steps: a drawing with a logarithmic axis, and the same numbers as a table.

import { make, style } from "./api.js";

const MOST_ROWS = 40;
const watched = new WeakMap(); // drawn for the width that their place had

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Evenly chosen entries of a list, its first and last among them. */
function thinned(list, most) {
  if (list.length <= most) return list;
  return Array.from({ length: most }, (_, k) => list[Math.round((k * (list.length - 1)) / (most - 1))]);
}

/** A number with three digits, as people write it. */
export function short(value) {
  if (!Number.isFinite(value)) return "not a number";
  return Math.abs(value) >= 1000 || (value && Math.abs(value) < 0.01) ? value.toExponential(1) : `${Number(value.toPrecision(3))}`;
}

/**
 * Fill `host` with curves of residuals: `series` is [{name, points: [{x, y}]}], y > 0 in sigma of the noise.
 *
 * Fewer than two points of all series leave it empty.
 */
export function curve(host, series) {
  style("result");
  const shown = series.map((s) => ({ ...s, points: s.points.filter((p) => Number.isFinite(p.y) && p.y > 0) }));
  const points = shown.flatMap((s) => s.points);
  host.hidden = points.length < 2;
  watched.get(host)?.disconnect();
  watched.delete(host);
  if (host.hidden) return void host.replaceChildren();
  const width = Math.max(240, host.clientWidth || 360);
  const watcher = new ResizeObserver(() => {
    if (host.clientWidth && Math.abs(host.clientWidth - width) > 1) curve(host, series);
  });
  watcher.observe(host);
  watched.set(host, watcher);
  const open = host.querySelector("details")?.open;
  const table = make("details", { open }, make("summary", {}, "Residual as a table"), rows(shown));
  host.replaceChildren(drawing(shown, points, width), table);
}

function drawing(series, points, width) {
  const [height, left, right, top, bottom] = [150, 44, 12, 18, 26];
  const last = Math.max(...points.map((p) => p.x), 1);
  const first = Math.min(...points.map((p) => p.x));
  const low = Math.log10(Math.min(0.8, ...points.map((p) => p.y)));
  const high = Math.log10(Math.max(1.3, ...points.map((p) => p.y)));
  const x = (value) => left + ((width - left - right) * (value - first)) / Math.max(1, last - first);
  const y = (value) => top + ((height - top - bottom) * (high - Math.log10(value))) / (high - low);
  const decades = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, k) => 10 ** (Math.ceil(low) + k));
  const ticks = decades.length > 2 ? decades : [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
  const grid = [...new Set([...ticks, 1])].filter((v) => Math.log10(v) >= low && Math.log10(v) <= high).flatMap((value) => [
    svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: value === 1 ? "pi-expected" : "pi-grid" }),
    svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const lines = series.filter((s) => s.points.length).flatMap((s) => {
    const k = (series.indexOf(s) % 4) + 1;
    const end = s.points.at(-1);
    return [
      svg("polyline", { class: `pi-line pi-line-${k}`, points: s.points.map((p) => `${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join(" ") }),
      svg("circle", { class: `pi-dot pi-line-${k}`, cx: x(end.x), cy: y(end.y), r: 3 }),
      ...(series.length > 1 ? [svg("text", { x: Math.min(x(end.x), width - right) - 6, y: y(end.y) - 6, "text-anchor": "end", class: "pi-name" }, s.name)] : []),
    ];
  });
  const words = series.filter((s) => s.points.length).map((s) => `${s.name} ends at ${short(s.points.at(-1).y)} sigma`);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "pi-curve", "aria-label": `Residual over steps: ${words.join(", ")}.` },
    ...grid, ...lines,
    svg("text", { x: left, y: 11 }, "residual / sigma"),
    svg("text", { x: left + 4, y: y(1) - 4 }, series.length > 1 ? "" : "expected about 1"),
    svg("text", { x: left, y: height - 6 }, String(first)),
    svg("text", { x: width - right, y: height - 6, "text-anchor": "end" }, `step ${last}`));
}

function rows(series) {
  const steps = thinned([...new Set(series.flatMap((s) => s.points.map((p) => p.x)))].sort((a, b) => a - b), MOST_ROWS);
  const found = series.map((s) => new Map(s.points.map((p) => [p.x, p.y])));
  const head = make("tr", {}, make("th", { scope: "col" }, "Step"), ...series.map((s) => make("th", { scope: "col" }, s.name)));
  const body = steps.map((step) =>
    make("tr", {}, make("th", { scope: "row" }, String(step)), ...found.map((map) => make("td", {}, map.has(step) ? short(map.get(step)) : "–"))));
  return make("div", { class: "pi-scroll", tabindex: 0, role: "group", "aria-label": "Residuals" },
    make("table", { class: "pi-table" }, make("thead", {}, head), make("tbody", {}, ...body)));
}
