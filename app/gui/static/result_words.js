// What is said of a result: plain sentences from its figures and maps. No elements here.

import { duration } from "./api.js";
import { level } from "./compare_map.js";
import { levels } from "./compare_paint.js";
import { short } from "./result_curve.js";

/** A figure of an outcome as a number; infinity and the like travel as strings. Null where there is none. */
export function figure(value) {
  const number = value === null || value === undefined ? NaN : Number(value);
  return Number.isNaN(number) ? null : number;
}

/**
 * How a picture fits the measurement: {grade: "good"|"poor"|"bad"|"unknown", head, text}.
 *
 * The residual is |A x - y| in sigma of the noise; about 1 is what the true picture would have.
 */
export function fit(residual, state = "done") {
  if (residual === null || !Number.isFinite(residual))
    return { grade: "unknown", head: "Fit unknown", text: "The residual of this picture is not a number." };
  const r = short(residual);
  if (state === "partial")
    return { grade: "unknown", head: "Stopped early", text: `Residual ${r} sigma so far, which says little before the end.` };
  if (residual > 3)
    return { grade: "bad", head: "Does not fit the measurement", text: `Residual ${r} sigma: the described blur or damage probably is not the real one.` };
  if (residual > 1.5)
    return { grade: "poor", head: "Fits the measurement loosely", text: `Residual ${r} sigma (expected about 1). More steps may help, or the noise level is too low.` };
  if (residual < 0.35)
    return { grade: "poor", head: "Fits the measurement too well", text: `Residual ${r} sigma: the noise level is probably too high.` };
  return { grade: "good", head: "Fits the measurement: good", text: `Residual ${r} sigma (expected about 1).` };
}

const ROWS = ["upper", "middle", "lower"];
const COLUMNS = ["left", "centre", "right"];

/** Where a loaded heat map is brightest, of nine parts: "upper left", "the centre"; null where it is even. */
export function brightest(map) {
  const all = levels(map);
  const sums = Array.from({ length: 9 }, () => [0, 0]);
  const every = Math.max(1, Math.floor(Math.max(map.width, map.height) / 256));
  for (let y = 0; y < map.height; y += every) {
    for (let x = 0; x < map.width; x += every) {
      const k = 4 * (y * map.width + x);
      const part = sums[3 * Math.floor((3 * y) / map.height) + Math.floor((3 * x) / map.width)];
      part[0] += level(all[k], all[k + 1], all[k + 2]);
      part[1] += 1;
    }
  }
  const means = sums.map(([sum, count]) => (count ? sum / count : 0));
  const most = Math.max(...means);
  if (most <= (1.25 * means.reduce((a, b) => a + b)) / 9) return null;
  const [row, column] = [ROWS[Math.floor(means.indexOf(most) / 3)], COLUMNS[means.indexOf(most) % 3]];
  return row === "middle" ? (column === "centre" ? "the centre" : `the ${column}`) : `${row} ${column}`;
}

/** What a map means, in words. `share` is the mean share of the contrast that was imagined, or null. */
export function meaning(name, share) {
  if (name === "spread")
    return "Where samples disagree. High: do not trust detail. Low does not prove correctness: all samples share the same learned prior.";
  if (name !== "imagined") return "";
  const part = share === null ? "" : ` On average ${Math.round(100 * share)} % of the contrast is imagined.`;
  return `Measured or imagined. Dark: the measurement fixes the picture there. Bright: the measurement says nothing, and the prior made it up from what pictures usually look like.${part}`;
}

/** Figures of an outcome as [name, text]. */
export function figures(entry, recipe) {
  const given = entry.figures || {};
  const found = [];
  const add = (name, value, text) => value !== null && found.push([name, text(value)]);
  add("Time", figure(given.seconds), (v) => (v < 10 ? `${v.toFixed(1)} s` : duration(v)));
  add("Network calls", figure(given.nfe), (v) => String(Math.round(v)));
  add("Imagined", figure(given.imagined), (v) => `${Math.round(100 * v)} % of the contrast`);
  add("PSNR", figure(given.psnr), (v) => `${v.toFixed(2)} dB`);
  add("SSIM", figure(given.ssim), (v) => v.toFixed(3));
  const { bits, width, height } = entry.facts || {};
  if (width && height) found.push(["Input", `${width} × ${height}${bits ? `, ${bits} bit` : ""}`]);
  if (recipe?.method?.kind) found.push(["Method", `${recipe.method.kind}, prior ${recipe.model?.name ?? recipe.model?.kind ?? "none"}`]);
  return found;
}

/** What is said of a run that ended before its time, after `step` steps as far as is known. */
export function stopped({ message }, step, restarted = false) {
  if (restarted)
    return `The server was restarted meanwhile, and the run stopped${step ? ` at step ${step}` : ""}. What is done is kept.`;
  if (/before it was begun/.test(message)) return "Cancelled before it began. Nothing was done yet.";
  if (/process that worked|worker to finish/.test(message))
    return `The server was restarted, or the run's process ended${step ? ` at step ${step}` : ""}. What is done is kept.`;
  if (/^Stopped on request|^Aborted/.test(message) || !message)
    return step ? `Stopped at step ${step}. Partial result kept.` : "Stopped. What is done is kept.";
  return message;
}
