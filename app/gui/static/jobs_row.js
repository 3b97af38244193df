// One run in the list of jobs.

import { at, duration, make } from "./api.js";
import { clock } from "./running.js";

/** A run as a list item: `element`, and `update(job)` for what changes; `act(name)` is told which button was pressed. */
export function jobRow(first, titles, act) {
  const title = about(first, titles);
  const button = (text, name, more = "") => {
    const label = `${text}: ${title}, ${clock(first.created)}`;
    return make("button", { type: "button", class: `pi-button ${more}`, "aria-label": label, onclick: () => act(name) }, text);
  };
  const buttons = {
    open: button("Open", "open"),
    stop: button("Stop", "stop"),
    resume: button("Continue", "resume"),
    settings: button("Use settings", "settings"),
    reproduce: button("Copy command", "reproduce"),
    remove: button("Delete", "remove", "pi-danger"),
  };
  const frame = make("div", { class: "pi-jobs-picture" });
  const state = make("p", { class: "pi-jobs-state" });
  const element = make(
    "li",
    { class: "pi-jobs-row", "data-job": first.id },
    frame,
    make(
      "div",
      { class: "pi-jobs-what" },
      make("h3", {}, title),
      make("p", {}, make("time", { datetime: first.created }, clock(first.created)), " · ", settings(first, titles)),
      state,
    ),
    make("div", { class: "pi-jobs-tools" }, ...Object.values(buttons)),
  );

  let pictured = "";
  const picture = (job) => {
    if (job.pictured === false || (job.pictured === undefined && !job.status.done)) return;
    const version = `${job.status.state} ${job.status.done} ${job.status.step}`;
    if (version === pictured) return;
    pictured = version;
    const src = `${at(`api/v1/jobs/${job.id}/preview`)}?v=${encodeURIComponent(job.status.updated || version)}`;
    if (frame.firstChild) frame.firstChild.src = src;
    else frame.append(make("img", { src, alt: "Before and after", loading: "lazy" }));
  };
  const update = (job) => {
    const now = job.status.state;
    element.setAttribute("data-state", now);
    state.textContent = words(job);
    buttons.stop.hidden = !["queued", "running"].includes(now);
    buttons.resume.hidden = !["interrupted", "failed"].includes(now);
    buttons.remove.disabled = ["running", "stopping"].includes(now);
    buttons.settings.hidden = buttons.reproduce.hidden = !job.recipe?.operator;
    picture(job);
  };
  update(first);
  return { element, update, remove: () => element.remove() };
}

/** What was done, in a few words. */
function about(job, titles) {
  const kind = job.recipe?.operator?.kind ?? "";
  return job.title || titles.operator?.[kind] || kind || "A damaged run";
}

/** Method, steps, samples and seed. */
function settings(job, titles) {
  const { method, seeds } = job.recipe ?? {};
  if (!method) return "its request cannot be read";
  const steps = method.schedule?.steps ?? method.steps;
  return [
    job.files > 1 ? `${job.files} files` : "",
    titles.method?.[method.kind] ?? method.kind,
    steps ? `${steps} steps` : "",
    seeds?.length > 1 ? `${seeds.length} samples` : seeds?.length ? `seed ${seeds[0]}` : "",
    job.options?.device === "cpu" ? "" : job.options?.device,
  ]
    .filter(Boolean)
    .join(" · ");
}

function words({ status, place, wait_seconds: wait }) {
  const files = status.total > 1 ? `${status.done + status.failed} of ${status.total} files` : "";
  const step = status.steps ? `step ${status.step} of ${status.steps}` : "";
  const failed = status.failed ? `${status.failed} failed` : "";
  const said = {
    queued: ["Waiting", place ? `${place} before it` : "it is next", wait ? `about ${duration(wait)}` : ""],
    running: ["Running", files, step],
    stopping: ["Stopping after the present step"],
    done: [status.failed && !status.done ? "Failed" : "Done", files, status.failed && !status.done ? "" : failed],
    interrupted: ["Stopped", files],
    failed: ["Failed"],
  }[status.state] ?? [status.state];
  const sentence = ["interrupted", "failed"].includes(status.state) ? status.message : "";
  return [...said, sentence].filter(Boolean).join(" · ");
}
