// A job of the Medical tab: followed while it works, reported when it has ended.

import { ask, at, make } from "./api.js";
import { Live } from "./result_live.js";

const NAMES = {
  "restored.nii.gz": "NIfTI, restored",
  "std.nii.gz": "NIfTI, spread (standard deviation)",
  "imagined.nii.gz": "NIfTI, imagined part",
  "samples.npz": "all samples (NPZ)",
  "preview.png": "preview (PNG)",
  "restored.json": "report (JSON)",
};

/** Shows one job: `show(views)` is told of its volume's views when there are some. */
export class Run {
  constructor(root, show) {
    this.show = show;
    this.place = make("div", { class: "pi-sl-run" });
    this.report = make("div", { class: "pi-sl-report", "data-state": "empty" });
    root.append(this.place);
    this.live = new Live(this.place, {
      job: (job) => (this.job = job),
      ended: (job) => this.ended(job),
      gone: () => this.gone(),
    });
  }

  /** Runs that other tabs want to be shown here. */
  listen() {
    const take = (detail) => detail?.tab === "medical" && this.watch(detail.id);
    window.addEventListener("preimage:job", (event) => {
      if (take(event.detail)) delete window.preimage?.pending?.["preimage:job"];
    });
    const pending = window.preimage?.pending;
    if (pending && take(pending["preimage:job"])) delete pending["preimage:job"];
  }

  watch(id) {
    this.id = id;
    this.report.replaceChildren();
    this.report.dataset.state = "empty";
    const address = new URL(location.href);
    address.searchParams.set("job", id);
    address.searchParams.set("tab", "medical");
    history.replaceState(history.state, "", address);
    this.live.watch(id);
    this.place.scrollIntoView?.({ block: "nearest" });
    return true;
  }

  leave() {
    this.id = null;
    this.live.leave();
    this.live.hide();
    this.report.replaceChildren();
    this.report.dataset.state = "empty";
  }

  gone() {
    this.live.hide();
    this.say("failed", [make("p", {}, "This run is not on the server any more.")]);
  }

  say(state, children) {
    this.report.replaceChildren(...children);
    this.report.dataset.state = state;
  }

  async ended(job) {
    const { id } = this;
    const { state, message } = job.status;
    let cases = [];
    try {
      cases = await ask(`api/v1/jobs/${id}/views`);
      this.models ||= (await ask("api/v1/models")).trained;
    } catch (error) {
      if (id !== this.id) return;
      this.live.hide();
      this.say("failed", [make("p", { class: "pi-sl-fault" }, error.message)]);
      return;
    }
    if (id !== this.id) return;
    this.live.hide();
    const volumes = cases.filter((entry) => entry.views.some((view) => view.shape));
    const failed = cases.filter((entry) => entry.state === "failed");
    const lines = [];
    if (state !== "done") {
      const kept = "Stopped. Slices that are done are kept; Continue goes on from there.";
      const said = message.startsWith("Stopped on request") ? kept : message;
      lines.push(make("p", {}, said || (state === "failed" ? "The run failed." : kept)));
      const go = () => this.resume();
      lines.push(make("button", { type: "button", onclick: go }, "Continue"));
    }
    for (const entry of failed) lines.push(make("p", { class: "pi-sl-fault" }, entry.message));
    const body = make("div");
    if (volumes.length > 1) lines.push(this._choice(volumes, body, job));
    lines.push(body);
    if (volumes.length) this.one(volumes[0], body, job);
    this.say(state, lines);
  }

  async resume() {
    const { id } = this;
    try {
      await ask(`api/v1/jobs/${id}/resume`, { method: "POST" });
      if (id === this.id) this.watch(id);
    } catch (error) {
      this.report.prepend(make("p", { class: "pi-sl-fault", role: "alert" }, error.message));
    }
  }

  _choice(volumes, body, job) {
    const names = volumes.map((entry, n) => make("option", { value: n }, entry.folder.split("/").at(-1)));
    const select = make("select", { onchange: () => this.one(volumes[Number(select.value)], body, job) }, ...names);
    return make("label", {}, "Volume ", select);
  }

  /** Show a volume of the job, and what is said of it. */
  one(entry, body, job) {
    const base = `api/v1/jobs/${this.id}/views/${entry.case}/`;
    this.show(entry.views.filter((view) => view.shape).map((view) => ({ ...view, url: base + view.file })));
    const rows = figures(entry, job, this.models);
    body.replaceChildren(
      make("p", { class: "pi-sl-fit", "data-fit": fit(entry.figures.residual_sigma).kind }, fit(entry.figures.residual_sigma).text),
      make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      this._downloads(entry),
      entry.notes.length
        ? make("details", {}, make("summary", {}, `Notes (${entry.notes.length})`), make("ul", {}, ...entry.notes.map((note) => make("li", {}, note))))
        : null
    );
  }

  _downloads(entry) {
    const link = (href, text) => make("a", { class: "pi-sl-link", href: at(href), download: "" }, text);
    const base = `api/v1/jobs/${this.id}/files/`;
    const path = (name) => base + [...entry.folder.split("/"), ...name.split("/")].map(encodeURIComponent).join("/");
    const named = entry.outputs.filter((name) => !name.startsWith("dicom/"));
    const dicom = entry.outputs.length - named.length;
    return make(
      "p",
      { class: "pi-sl-downloads" },
      make("b", {}, "Download "),
      ...named.map((name) => link(path(name), NAMES[name] || name)),
      link(`api/v1/jobs/${this.id}/archive`, dicom ? `everything (zip, with ${dicom} DICOM images)` : "everything (zip)")
    );
  }
}

function fit(sigma) {
  if (!Number.isFinite(sigma)) return { kind: "unknown", text: "How well the result fits the measurement is not known." };
  const said = `Data consistency ${sigma.toFixed(2)} sigma`;
  if (sigma > 1.5) return { kind: "poor", text: `${said}: the described measurement probably is not the real one.` };
  if (sigma < 0.35) return { kind: "poor", text: `${said}: the noise level is probably set too high.` };
  return { kind: "good", text: `${said} (expected about 1): the result fits the measurement.` };
}

function figures(entry, job, models) {
  const { figures: found } = entry;
  const rows = [];
  const add = (name, value) => value !== undefined && value !== null && rows.push([name, String(value)]);
  const prior = job.recipe?.model;
  const title = models.find((model) => model.name === prior?.name)?.title;
  add("Prior", prior?.kind === "none" ? "none (classical method)" : title ? `${prior.name} (${title})` : prior?.name || prior?.kind);
  add("Method", job.recipe?.method?.kind);
  add("Samples", job.recipe?.seeds?.length);
  add("Seeds", job.recipe?.seeds?.slice(0, 8).join(", "));
  if (Number.isFinite(found.psnr)) add("Against the reference", `PSNR ${found.psnr.toFixed(2)} dB, SSIM ${found.ssim.toFixed(3)}`);
  if (Number.isFinite(found.imagined)) add("Imagined by the prior", `${(100 * found.imagined).toFixed(1)} % of the contrast`);
  if (Number.isFinite(found.seconds)) add("Time", `${found.seconds.toFixed(1)} s`);
  return rows;
}
