// The list of jobs: what was run here, what runs, and what can be done with it.

import { ask, make, style } from "./api.js";
import { jobRow } from "./jobs_row.js";
import { confirmDelete, showText } from "./jobs_delete.js";
import { copy } from "./clip.js";
import { keysOn } from "./keys.js";
import { tabOf } from "./running.js";

const PAGE = 50;
const EVERY = 2000;
const FILTERS = [
  ["", "all"],
  ["queued running stopping", "waiting or running"],
  ["done", "done"],
  ["interrupted", "stopped"],
  ["failed", "failed"],
];

/** Fill the element; props `keep_days` and `titles`. */
export function mount(element, g) {
  style("keys");
  style("jobs");
  new List(element, g);
  keysOn(element);
}

class List {
  constructor(element, g) {
    this.g = g;
    this.offset = 0;
    this.rows = new Map();
    this.select = make(
      "select",
      { id: "pi-jobs-filter", onchange: () => this.turn(0) },
      ...FILTERS.map(([value, text]) => make("option", { value }, text)),
    );
    this.newer = this.button("Newer", () => this.turn(this.offset - PAGE));
    this.older = this.button("Older", () => this.turn(this.offset + PAGE));
    this.count = make("span", { class: "pi-jobs-count" });
    this.note = make("p", { role: "status", class: "pi-jobs-note" });
    this.lost = make("p", { role: "alert", class: "pi-jobs-lost", hidden: true });
    this.empty = make("p", { class: "pi-jobs-empty", hidden: true });
    this.list = make("ul", { class: "pi-jobs-list", "aria-label": "Runs" });
    const label = make("label", { for: "pi-jobs-filter" }, "Show");
    const bar = make("div", { class: "pi-jobs-bar" }, label, this.select, this.count, this.newer, this.older);
    this.root = make("section", { class: "pi-jobs", "aria-label": "Jobs", "data-state": "loading" });
    this.root.append(make("h2", { class: "pi-hidden" }, "Runs"), bar, this.note, this.lost, this.empty, this.list);
    element.replaceChildren(this.root);

    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.load()).observe(this.root);
    this.timer = setInterval(() => this.tick(), EVERY);
  }

  button(text, onclick) {
    return make("button", { type: "button", class: "pi-button", onclick }, text);
  }

  say(text) {
    this.note.textContent = text;
  }

  turn(offset) {
    this.offset = Math.max(0, offset);
    this.load();
  }

  /** Asks again while somebody looks and something can change. */
  tick() {
    if (!this.root.isConnected) return clearInterval(this.timer);
    const seen = document.visibilityState === "visible" && this.root.offsetParent !== null;
    if (seen && (this.moving || !this.lost.hidden || (this.ticks = ((this.ticks ?? 0) + 1) % 5) === 0)) this.load();
  }

  async load() {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const query = new URLSearchParams({ limit: PAGE, offset: this.offset });
    for (const state of this.select.value.split(" ").filter(Boolean)) query.append("state", state);
    let found;
    try {
      found = await ask(`api/v1/jobs?${query}`);
    } catch (error) {
      this.lost.textContent = error.lost
        ? "Lost contact with the server. Runs continue; this page reconnects by itself."
        : error.message;
      this.lost.hidden = false;
      return;
    }
    if (asked !== this.asked) return; // a later question is under way
    this.lost.hidden = true;
    if (!found.jobs.length && this.offset > 0) return this.turn(this.offset - PAGE);
    this.draw(found);
  }

  draw({ jobs, total }) {
    this.moving = jobs.some((job) => ["queued", "running", "stopping"].includes(job.status.state));
    const shown = new Set(jobs.map((job) => job.id));
    for (const [id, row] of this.rows) {
      if (!shown.has(id)) {
        row.remove();
        this.rows.delete(id);
      }
    }
    jobs.forEach((job, k) => {
      const known = this.rows.get(job.id);
      const row = known ?? jobRow(job, this.g.props.titles ?? {}, (what) => this.act(what, job.id));
      row.update(job);
      this.rows.set(job.id, row);
      if (this.list.children[k] !== row.element) this.list.insertBefore(row.element, this.list.children[k] ?? null);
    });
    this.jobs = new Map(jobs.map((job) => [job.id, job]));
    this.empty.hidden = total > 0;
    this.empty.textContent = this.select.value ? "No such runs." : `No runs yet. Runs made here are kept on this machine ${this.kept()}.`;
    const last = this.offset + jobs.length;
    this.count.textContent = total > PAGE ? `${this.offset + 1} to ${last} of ${total}` : total === 1 ? "1 run" : `${total} runs`;
    this.newer.hidden = this.older.hidden = total <= PAGE;
    this.newer.disabled = this.offset === 0;
    this.older.disabled = last >= total;
    this.root.setAttribute("data-state", "ready");
  }

  kept() {
    const days = this.g.props.keep_days;
    if (days === null || days === undefined) return "until you delete them";
    return days === 1 ? "for one day" : `for ${Number(days.toPrecision(3))} days`;
  }

  async act(what, id) {
    const job = this.jobs.get(id);
    if (!job) return;
    try {
      await this[what](job);
    } catch (error) {
      this.say(error.message);
    }
  }

  async open(job) {
    const detail = { id: job.id, tab: await tabOf(job) };
    window.dispatchEvent(new CustomEvent("preimage:job", { detail }));
  }

  settings(job) {
    const { id, recipe, options } = job;
    window.dispatchEvent(new CustomEvent("preimage:settings", { detail: { recipe, options, job: id } }));
  }

  async reproduce(job) {
    const { cli } = await ask(`api/v1/jobs/${job.id}/commands`);
    if (await copy(cli)) this.say("The command line is copied.");
    else showText("Command line", cli);
  }

  async stop(job) {
    await ask(`api/v1/jobs/${job.id}/cancel`, { method: "POST" });
    this.load();
  }

  async resume(job) {
    await ask(`api/v1/jobs/${job.id}/resume`, { method: "POST" });
    this.load();
  }

  async remove(job) {
    if (!(await confirmDelete(job))) return;
    await ask(`api/v1/jobs/${job.id}`, { method: "DELETE" });
    this.say("Deleted, with all its files.");
    const address = new URL(location.href);
    if (address.searchParams.get("job") === job.id) {
      address.searchParams.delete("job");
      address.searchParams.delete("tab");
      history.replaceState(history.state, "", address);
    }
    await this.load();
    this.select.focus();
  }
}
