// The banner of a run that goes on elsewhere: in another tab of the browser, or of another person.

import { ask, make, style } from "./api.js";

const EVERY = 10_000;

/** Keep `element` up to date: empty, or a sentence and a button that shows the run. */
export function mountRunning(element) {
  style("keys");
  style("running");
  element.setAttribute("role", "status");
  element.classList.add("pi-running");
  let said = "";

  const say = (job, more) => {
    const text = job
      ? `A run from ${clock(job.created)} is still going` + (more > 0 ? `, ${more} more wait or run.` : ".")
      : "";
    if (text === said) return;
    said = text;
    element.replaceChildren();
    if (!job) return;
    const show = () =>
      tabOf(job).then((tab) => {
        window.dispatchEvent(new CustomEvent("preimage:job", { detail: { id: job.id, tab } }));
        look();
      });
    element.append(make("span", {}, text), make("button", { type: "button", class: "pi-button", onclick: show }, "Show"));
  };

  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const { jobs, total } = await ask("api/v1/jobs?state=running&state=stopping&state=queued&limit=20");
      const shown = new URLSearchParams(location.search).get("job");
      const others = jobs.filter((job) => job.id !== shown && job.status.state !== "queued");
      say(others[0], total - 1 - (jobs.some((job) => job.id === shown) ? 1 : 0));
    } catch {
      // Whoever shows a run says that the server is lost.
    }
  };
  const timer = setInterval(() => (element.isConnected ? look() : clearInterval(timer)), EVERY);
  document.addEventListener("visibilitychange", look);
  return look();
}

/** Which tab shows a job: several cases belong to Batch, a volume to Medical. */
export async function tabOf(job) {
  const cases = await ask(`api/v1/jobs/${job.id}/cases`).catch(() => []);
  if (cases.length > 1 || (!cases.length && job.files > 1)) return "batch";
  return ["dicom", "nifti"].includes(cases[0]?.kind) ? "medical" : "restore";
}

/** "14:02", or with its date when that is another day. */
export function clock(created) {
  const at = new Date(created);
  const today = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return today ? time : `${at.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}
