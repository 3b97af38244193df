// A job that waits or is under way: where it stands, its latest picture, its residual, and Stop.

import { ask, at, duration, follow, make, style } from "./api.js";
import { curve } from "./result_curve.js";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ENDED = ["done", "failed", "interrupted"];
const LOST = "Lost contact with the server. Your run continues; this page reconnects by itself.";

/** "3.1 s left", "2 min left". */
export function left(seconds) {
  return `${seconds < 9.95 ? `${Math.max(0, seconds).toFixed(1)} s` : duration(seconds)} left`;
}

/** What is said of a job that waits. */
export function waiting(job) {
  const place = job.place ?? 0;
  const runs = place === 0 ? "next in line" : place === 1 ? "1 run before this one" : `${place} runs before this one`;
  return `Waiting: ${runs}${job.wait_seconds > 0 ? `, about ${duration(job.wait_seconds)}` : ""}`;
}

/**
 * Shows one job at a time until it ends. `on.job(job)` is told of every look at it, `on.state(state)` of a state in
 * which it waits or is under way, `on.ended(job)` of its end, `on.gone()` of one that is not there.
 *
 * `restarted` tells whether a run that was interrupted was so by the end of its server, not by a person.
 * `element.dataset.state` is idle, loading, queued, running or stopping; `dataset.frames` counts pictures.
 */
export class Live {
  constructor(parent, on = {}) {
    style("result");
    this.on = on;
    this.line = make("p", { class: "pi-live-line" });
    this.spoken = make("p", { class: "pi-hidden", role: "status" });
    this.bar = make("progress", { max: 1, value: 0, "aria-label": "Progress of the run" });
    this.halt = make("button", { type: "button", class: "pi-small pi-stop", title: "Key Esc", onclick: () => this.stop() }, "Stop");
    const calm = window.matchMedia?.("(prefers-reduced-motion: reduce)").matches;
    this.wanted = make("input", { type: "checkbox", checked: remembered() ?? !calm, onchange: () => this.want() });
    this.banner = make("p", { class: "pi-banner", role: "alert", hidden: true });
    this.picture = make("img", { class: "pi-live-picture", alt: "", hidden: true });
    this.plot = make("div", { class: "pi-live-curve", hidden: true });
    this.refusal = make("p", { class: "pi-warning", role: "alert", hidden: true });
    this.element = make("div", { class: "pi-live", "data-state": "idle", "data-frames": 0, hidden: true },
      this.banner,
      make("div", { class: "pi-live-head" }, this.line, this.halt),
      this.bar, this.refusal,
      make("label", { class: "pi-check" }, this.wanted, " Live preview"),
      this.picture, this.plot, this.spoken);
    parent.append(this.element);
  }

  /** Look after another job from now on. Resolves once the first answer is there. */
  async watch(id) {
    this.leave();
    const turn = (this.turn = {});
    Object.assign(this, { id, trace: [], frames: 0, told: -1, began: null, asked: 0, searching: false, job: null, wasLost: false, halted: false });
    Object.assign(this.element.dataset, { state: "loading", frames: 0 });
    this.element.hidden = false;
    this.picture.hidden = this.plot.hidden = this.refusal.hidden = true;
    this.bar.value = 0;
    this.line.textContent = "Looking up the run…";
    this.halt.hidden = true;
    let job;
    while (!job) {
      try {
        job = await ask(`api/v1/jobs/${id}`);
      } catch (error) {
        if (turn !== this.turn) return;
        if (error.status === 404) return this.gone();
        this.lost(error);
        await pause(2000);
      }
      if (turn !== this.turn) return;
    }
    this.lost(null);
    if (!this.take(job)) return;
    this.end = follow(id, {
      status: (status) => turn === this.turn && this.show(status),
      lost: () => turn === this.turn && this.search(turn),
      found: () => turn === this.turn && ((this.searching = false), this.lost(null)),
      end: () => turn === this.turn && this.finish(turn),
    });
    this.queue(turn);
  }

  /** Look after no job. */
  leave() {
    this.turn = null;
    this.end?.();
    this.end = null;
    clearTimeout(this.timer);
    this.timer = 0;
    this.lost(null);
    this.element.dataset.state = "idle";
  }

  get restarted() {
    return this.wasLost && !this.halted;
  }

  /** Take it off the screen; its last picture stays in `picture`. */
  hide() {
    this.element.hidden = true;
  }

  /** Ask for the run's end after its present step. */
  async stop() {
    if (this.halt.hidden || this.halt.disabled) return;
    this.halt.disabled = this.halted = true;
    this.line.textContent = "Stopping after this step…";
    const turn = this.turn;
    try {
      await ask(`api/v1/jobs/${this.id}/cancel`, { method: "POST" });
    } catch (error) {
      if (turn !== this.turn || error.status === 409) return; // it has just ended by itself
      this.halt.disabled = this.halted = false;
      this.refuse(error.message);
    }
  }

  // the job

  /** Show a job as it was answered; false when it has ended. */
  take(job) {
    this.job = job;
    this.on.job?.(job);
    if (ENDED.includes(job.status.state)) {
      this.close(job);
      return false;
    }
    this.show(job.status);
    return true;
  }

  /** The run has ended; what is on screen stays until `hide`. */
  close(job) {
    this.leave();
    this.halt.hidden = true;
    this.line.textContent = "Fetching the result…";
    this.on.ended?.(job);
  }

  gone() {
    this.leave();
    this.hide();
    this.on.gone?.();
  }

  async finish(turn) {
    while (turn === this.turn) {
      try {
        const job = await ask(`api/v1/jobs/${this.id}`);
        if (turn === this.turn) {
          this.job = job;
          this.on.job?.(job);
          this.close(job);
        }
        return;
      } catch (error) {
        if (turn !== this.turn) return;
        if (error.status === 404) return this.gone();
        this.lost(error);
        await pause(1000);
      }
    }
  }

  /** Ask again and again while there are no events; the stream may be refused where the server itself answers. */
  async search(turn) {
    if (this.searching) return;
    this.searching = true;
    while (this.searching && turn === this.turn) {
      try {
        const job = await ask(`api/v1/jobs/${this.id}`);
        if (turn !== this.turn || !this.searching) return;
        this.lost(null);
        if (!this.take(job)) return;
      } catch (error) {
        if (turn !== this.turn || !this.searching) return;
        if (error.status === 404) return this.gone();
        this.lost(error);
      }
      await pause(2000);
    }
  }

  /** The place in the queue is no event: ask for it. */
  async queue(turn) {
    while (turn === this.turn && this.element.dataset.state === "queued") {
      await pause(2000);
      if (turn !== this.turn || this.element.dataset.state !== "queued") return;
      const job = await ask(`api/v1/jobs/${this.id}`).catch(() => null);
      if (job && turn === this.turn && job.status.state === "queued") this.line.textContent = waiting((this.job = job));
    }
  }

  lost(error) {
    if (error?.lost) this.wasLost = true;
    this.banner.hidden = !error;
    this.element.classList.toggle("pi-lost", Boolean(error));
    const text = !error ? "" : error.lost ? LOST : error.message;
    if (this.banner.textContent !== text) this.banner.textContent = text;
  }

  refuse(sentence) {
    this.refusal.textContent = sentence;
    this.refusal.hidden = false;
  }

  // where it stands

  show(status) {
    if (ENDED.includes(status.state)) return; // its end is told by itself
    const { state, step, steps } = status;
    this.element.dataset.state = state;
    this.on.state?.(state);
    this.halt.hidden = false;
    this.halt.disabled = state === "stopping";
    if (state === "queued") {
      this.bar.removeAttribute("value");
      this.line.textContent = waiting(this.job ?? {});
      return this.say(-1, this.line.textContent);
    }
    if (state === "running" && steps && this.began?.case !== status.done + status.failed)
      this.began = { case: status.done + status.failed, time: performance.now(), step };
    if (steps) this.bar.value = Math.min(1, this.share(status));
    else this.bar.removeAttribute("value");
    this.line.textContent = this.words(status);
    this.element.dataset.step = step;
    this.say(steps ? Math.floor((4 * step) / steps) : -2, this.line.textContent);
    this.renew();
  }

  share({ total, done, failed, step, steps }) {
    return total > 1 ? (done + failed + step / steps) / total : step / steps;
  }

  words(status) {
    const { state, step, steps, total, done, failed } = status;
    if (state === "stopping") return "Stopping after this step…";
    const of = total > 1 ? `Image ${Math.min(total, done + failed + 1)} of ${total} · ` : "";
    if (!steps) return `${of}Getting ready…`;
    if (step >= steps) return `${of}Step ${step} of ${steps} · writing the result…`;
    const seconds = this.secondsLeft(status);
    return `${of}Step ${step} of ${steps}${seconds === null ? "" : ` · ${left(seconds)}`}`;
  }

  /** As measured by the worker, or by this page's clock until that is known; null before both. */
  secondsLeft({ step, steps, total, done, failed }) {
    const last = this.trace.at(-1);
    let each = last && last.step > 1 && last.seconds > 0 ? last.seconds / last.step : null;
    if (each === null && this.began && step - this.began.step >= 2)
      each = (performance.now() - this.began.time) / 1000 / (step - this.began.step);
    return each === null ? null : each * (steps - step + Math.max(0, total - done - failed - 1) * steps);
  }

  /** Tell people who listen, at every quarter. */
  say(part, text) {
    if (part === this.told) return;
    this.told = part;
    this.spoken.textContent = text;
  }

  // pictures

  /** Look for a new picture and residuals, at most twice a second, more seldom where there are many. */
  renew() {
    if (this.timer) return;
    const every = Math.max(500, 2 * this.trace.length);
    const turn = this.turn;
    this.timer = setTimeout(async () => {
      this.asked = performance.now();
      await this.frame(turn).catch(() => {}); // the stream of events tells of a lost server
      if (turn === this.turn) this.timer = 0;
    }, Math.max(0, this.asked + every - performance.now()));
  }

  async frame(turn) {
    const trace = await ask(`api/v1/jobs/${this.id}/trace`);
    if (turn !== this.turn || trace.length <= this.trace.length) return;
    this.trace = trace;
    const now = trace.filter((entry) => entry.case === trace.at(-1).case);
    const points = now.map((entry) => ({ x: entry.step, y: entry.residual_sigma }));
    curve(this.plot, [{ name: "Residual, sigma", points }]);
    if (!this.wanted.checked) return;
    const answer = await fetch(at(`api/v1/jobs/${this.id}/live`));
    if (answer.status !== 200 || turn !== this.turn) return;
    const url = URL.createObjectURL(await answer.blob());
    const next = new Image();
    next.src = url;
    // decoded first: the old picture stays until the new one can be painted
    await next.decode().catch(() => {});
    if (turn !== this.turn || !next.naturalWidth) return URL.revokeObjectURL(url);
    URL.revokeObjectURL(this.shown);
    this.shown = url;
    this.picture.src = url;
    const { step, residual_sigma: residual } = trace.at(-1);
    this.picture.alt = `Estimate so far, step ${step}${Number.isFinite(residual) ? `, residual ${residual.toFixed(2)} sigma` : ""}`;
    this.picture.hidden = false;
    this.element.dataset.frames = this.frames += 1;
  }

  want() {
    try {
      localStorage.setItem("preimage.live", this.wanted.checked ? "on" : "off");
    } catch {
      // private windows keep nothing
    }
  }
}

function remembered() {
  try {
    const kept = localStorage.getItem("preimage.live");
    return kept === null ? null : kept === "on";
  } catch {
    return null;
  }
}
