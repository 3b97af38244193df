// One row of the table of a batch.

import { at, duration, make } from "./api.js";

/**
 * A row from `{job, number, entry, outcome, status, ended, look}`: `entry` is the file as the job lists it, `outcome`
 * what became of it, `status` that of the job while the file is under way. Both may be missing.
 */
export function makeRow(facts) {
  const { number, entry, outcome, status } = facts;
  const state = status ? "running" : (outcome?.state ?? "waiting");
  const cell = (label, ...children) => make("span", { role: "cell", "data-label": label }, ...children);
  return make(
    "div",
    { role: "row", class: "pi-batch-row", "data-state": state, "data-number": number },
    make("span", { role: "cell", class: "pi-batch-name" }, entry?.name ?? `File ${number}`),
    cell("Size", size(entry, outcome)),
    make("span", { role: "cell", class: "pi-batch-state", "data-label": "State" }, words(state, facts)),
    cell("Time", outcome && state !== "running" ? duration(outcome.seconds) : ""),
    cell("Residual", residual(outcome)),
    cell("Result", ...results(facts, state)),
  );
}

function size(entry, outcome) {
  const { width, height, shape } = outcome?.facts ?? {};
  if (width && height) return `${width}×${height}`;
  if (Array.isArray(shape)) return shape.join("×");
  const bytes = entry?.bytes;
  if (typeof bytes !== "number") return "";
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function words(state, { outcome, status, ended }) {
  if (state === "running") {
    if (status.state === "stopping") return "stopping";
    return status.steps ? `step ${status.step} of ${status.steps}` : "starting";
  }
  if (state === "failed") return `failed: ${outcome.message}`;
  if (state === "partial") return "stopped on the way";
  if (state === "done") return outcome.proven ? "done before" : "done";
  return ended ? "not begun" : "waiting";
}

function residual(outcome) {
  const value = Number(outcome?.figures?.residual_sigma);
  return outcome && Number.isFinite(value) ? `${value.toFixed(2)} σ` : "";
}

/** Buttons that look at a result and save it. */
function results({ job, number, entry, outcome, look }, state) {
  if (state !== "done" && state !== "partial") return [];
  const name = entry?.name ?? `File ${number}`;
  const view = make("button", { type: "button", class: "pi-button", "aria-label": `View ${name}`, onclick: look }, "View");
  const output = outcome.outputs?.map((one) => one.name).find((one) => /(^|desc-)restored[._][^/]*$/.test(one) && !one.endsWith(".json"));
  if (!entry?.folder || !output || state === "partial") return [view];
  const path = `${entry.folder}/${output}`.split("/").map(encodeURIComponent).join("/");
  const href = at(`api/v1/jobs/${job}/files/${path}`);
  const ending = output.slice(output.lastIndexOf("restored") + "restored".length);
  const download = output.startsWith("restored") ? `${name.replace(/\.(nii\.gz|[^.]+)$/i, "")}-restored${ending}` : output;
  return [view, make("a", { class: "pi-button", href, download, "aria-label": `Save ${name}` }, "Save")];
}
