// The result panel: one job, from waiting in the queue to its pictures.

import { ask, duration, make, style } from "./api.js";
import { keysOn } from "./keys.js";
import { Live } from "./result_live.js";
import { Done } from "./result_done.js";
import { figure, stopped } from "./result_words.js";

/** Fill `element` with the panel. Props: `job` (identifier or ""), `tab`. Events: `example`, `more` {job}. */
export function mount(element, g) {
  style("result");
  style("keys");
  const panel = new Panel(g);
  element.append(panel.element);
  g.watch(["job"], () => panel.open(g.props.job));
  const mine = (detail) => (detail?.tab ?? "restore") === (g.props.tab ?? "restore") && detail?.id;
  window.addEventListener("preimage:job", ({ detail }) => {
    if (!mine(detail)) return;
    delete window.preimage?.pending?.["preimage:job"];
    panel.open(detail.id);
  });
  const pending = window.preimage?.pending?.["preimage:job"];
  if (mine(pending)) {
    delete window.preimage.pending["preimage:job"];
    panel.open(pending.id);
  } else panel.open(g.props.job);
}

/** Let the address name a run, so that a reload comes back to it. */
function name(id) {
  const address = new URL(location.href);
  address.searchParams.delete("tab");
  if (id) address.searchParams.set("job", id);
  else address.searchParams.delete("job");
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

class Panel {
  constructor(g) {
    this.g = g;
    this.id = "";
    this.notice = make("div", { class: "pi-notice" });
    this.empty = make("div", { class: "pi-empty" });
    this.line = make("span", { class: "pi-faint pi-result-line" });
    this.spoken = make("p", { class: "pi-hidden", role: "status" });
    this.element = make("section", { class: "pi-result", "aria-label": "Result", "data-state": "empty" },
      make("div", { class: "pi-result-head" }, make("h2", { class: "pi-result-title" }, "Result"), this.line), this.empty, this.notice);
    this.live = new Live(this.element, {
      state: (state) => this.state(state),
      ended: (job) => this.ended(job),
      gone: () => this.blank("That run is no longer here."),
    });
    this.done = new Done(this.element, {
      more: () => g.trigger("more", { job: this.id }),
    });
    this.element.append(this.spoken);
    this.element.addEventListener("keydown", (event) => this.key(event));
    keysOn(this.element);
  }

  state(state) {
    this.element.dataset.state = state;
    this.line.textContent = "";
  }

  /** Show a job, or that there is none. */
  open(id) {
    id ||= "";
    if (id === this.id && id && this.element.dataset.state !== "gone") return;
    if (!/^[0-9a-f]{16}$/.test(id)) return this.blank(id ? "That run is no longer here." : "");
    this.id = id;
    if (this.g.props.tab !== "medical") name(id);
    this.watch();
  }

  watch() {
    this.empty.replaceChildren();
    this.notice.replaceChildren();
    this.done.hide();
    this.state("loading");
    this.element.dataset.job = this.id;
    this.live.watch(this.id);
    // whoever began the run may be far below or, on a narrow screen, above
    const { top } = this.element.getBoundingClientRect();
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (top < 0 || top > 0.6 * window.innerHeight) this.element.scrollIntoView({ behavior: calm ? "auto" : "smooth" });
  }

  /** Nothing to show, and perhaps why. */
  blank(reason) {
    const had = this.id;
    this.id = "";
    this.live.leave();
    this.live.hide();
    this.done.hide();
    this.notice.replaceChildren();
    delete this.element.dataset.job;
    if (had || reason) name("");
    const run = make("button", { type: "button", class: "pi-button", onclick: () => this.example(run) }, "Run the built-in example");
    this.empty.replaceChildren(
      reason ? make("p", { role: "status" }, reason) : make("p", {}, make("strong", {}, "Nothing here yet.")),
      make("p", {}, "Three steps on the left, or"), run,
      make("p", { class: "pi-faint" }, "A small picture with holes; it takes some seconds."));
    this.state(reason ? "gone" : "empty");
  }

  example(button) {
    button.disabled = true;
    this.first = true;
    this.g.trigger("example");
    setTimeout(() => (button.disabled = false), 5000); // Python may have refused
  }

  /** A job has ended: show its pictures, or say why there are none. */
  async ended(job) {
    const { id } = this;
    const { state } = job.status;
    let [entries, trace] = [[], []];
    let failure = "";
    try {
      entries = await ask(`api/v1/jobs/${id}/views`);
      if (state === "interrupted") trace = await ask(`api/v1/jobs/${id}/trace`);
    } catch (error) {
      failure = error.message;
    }
    if (id !== this.id) return;
    const shown = entries.filter((entry) => entry.views.length || entry.outputs.length);
    const broken = entries.filter((entry) => entry.state === "failed");
    this.notice.replaceChildren();
    if (failure) this.say("warning", `The run has ended, but its pictures could not be fetched: ${failure}`, ["Try again", () => this.watch()]);
    if (state === "failed") this.say("error", job.status.message || "The run failed.", ["Try again", () => this.resume()]);
    if (state === "interrupted") {
      const words = stopped(job.status, trace.at(-1)?.step, this.live.restarted);
      this.say("stopped", words, ["Continue", () => this.resume()], ["Discard", () => this.discard()]);
    }
    for (const entry of broken) {
      const of = entries.length > 1 ? `Image ${entry.number}: ` : "";
      this.say("error", of + entry.message);
    }
    if (state === "done" && !shown.length && !broken.length && !failure) this.say("warning", "The run has ended and left no pictures.");
    if (shown.length) {
      await this.done.show(job, shown, this.first);
      if (id !== this.id) return;
      this.live.hide();
    } else this.keep();
    this.state(state === "done" && broken.length && !shown.length ? "failed" : state);
    if (this.element.dataset.state !== "done") return;
    const seconds = shown.reduce((sum, entry) => sum + (figure(entry.figures?.seconds) ?? 0), 0);
    this.line.textContent = seconds ? `Done in ${seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds)}` : "Done";
    this.spoken.textContent = this.done.summary;
  }

  /** Only the last live picture, where there is one. */
  keep() {
    const { picture } = this.live;
    this.live.hide();
    if (picture.hidden || !picture.src) return;
    this.notice.append(make("figure", { class: "pi-kept" },
      make("img", { src: picture.src, alt: `Last good frame. ${picture.alt}` }), make("figcaption", {}, "Last good frame kept.")));
  }

  /** A sentence above the pictures, and what can be done. */
  say(kind, text, ...acts) {
    const buttons = acts.map(([label, act]) => {
      const button = make("button", {
        type: "button", class: "pi-small",
        onclick: async () => {
          button.disabled = true;
          await act().catch?.((error) => this.say("error", error.message));
          button.disabled = false;
        },
      }, label);
      return button;
    });
    this.notice.append(make("p", { class: `pi-said pi-said-${kind}`, role: "status" }, make("span", {}, text), ...buttons));
  }

  async resume() {
    await ask(`api/v1/jobs/${this.id}/resume`, { method: "POST" });
    this.watch();
  }

  async discard() {
    await ask(`api/v1/jobs/${this.id}`, { method: "DELETE" });
    this.blank("Discarded. Nothing of that run is kept.");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "Escape") this.live.stop();
    else if (event.key === "d" || event.key === "D") this.done.download();
    else return;
    event.preventDefault();
  }
}
