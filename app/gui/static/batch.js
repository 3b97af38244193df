// The table of a batch: a row for each file, which fills itself while the job runs.

import { ask, at, duration, follow, make, style } from "./api.js";
import { makeRow } from "./batch_rows.js";
import { look } from "./batch_look.js";
import { copy } from "./clip.js";
import { keysOn } from "./keys.js";

const ENDED = ["done", "failed", "interrupted"];

/** Fill the element; prop `job` is the job that is shown. */
export function mount(element, g) {
  style("keys");
  style("batch");
  const view = new View(element, g);
  g.watch(["job"], () => g.props.job && view.show(g.props.job));

  const onJob = (detail) => {
    if (detail?.tab !== "batch" || typeof detail.id !== "string") return;
    delete window.preimage?.pending?.["preimage:job"];
    view.show(detail.id);
  };
  const onSettings = (detail) => {
    if (!detail?.recipe) return;
    delete window.preimage?.pending?.["preimage:batch"];
    const { recipe, options, job } = detail;
    g.props.value = { recipe, options: options ?? {}, job: job ?? "" };
    g.trigger("change");
    view.say("Settings taken over. Now add the files.");
  };
  window.addEventListener("preimage:job", (event) => onJob(event.detail));
  window.addEventListener("preimage:batch", (event) => onSettings(event.detail));
  // what was sent before this tab was opened
  const { "preimage:batch": settings, "preimage:job": job } = window.preimage?.pending ?? {};
  onSettings(settings);
  if (job?.tab === "batch") onJob(job);
  else if (g.props.job) view.show(g.props.job);
  keysOn(element);
}

class View {
  constructor(element, g) {
    this.g = g;
    this.job = "";
    this.turn = 0; // answers for a job that is no longer shown are thrown away
    this.root = make("section", { class: "pi-batch", "aria-label": "Batch", "data-state": "empty" });
    this.note = make("p", { role: "status", class: "pi-batch-note" });
    this.heard = make("p", { role: "status", class: "pi-hidden" }); // for those who cannot see the line
    this.lost = make("p", { role: "alert", class: "pi-batch-lost", hidden: true });
    this.line = make("p", { class: "pi-batch-line" });
    this.bar = make("progress", { class: "pi-batch-bar", max: 1, value: 0, "aria-label": "Files that have ended" });
    this.body = make("div", { role: "rowgroup" });
    const heads = ["Name", "Size", "State", "Time", "Residual", "Result"];
    this.table = make(
      "div",
      { role: "table", class: "pi-batch-table", "aria-label": "Files of the batch" },
      make(
        "div",
        { role: "rowgroup", class: "pi-batch-head" },
        make("div", { role: "row" }, ...heads.map((text) => make("span", { role: "columnheader" }, text))),
      ),
      this.body,
    );
    const button = (text, f) => make("button", { type: "button", class: "pi-button", onclick: f }, text);
    this.after = button("Stop after this file", () => this.post("cancel?after=case"));
    this.now = button("Stop now", () => this.post("cancel"));
    this.go = button("Continue", () => this.post("resume"));
    this.zip = make("a", { class: "pi-button", download: "batch.zip" }, "Download finished .zip");
    this.tools = make("div", { class: "pi-batch-tools" }, this.after, this.now, this.go, this.zip);
    this.command = make("div", { class: "pi-batch-command" });
    this.empty = make(
      "p",
      { class: "pi-batch-empty" },
      "No batch is shown. Start one above, or open one from Jobs; rows appear here as files are finished.",
    );
    this.full = make("div", { hidden: true }, this.line, this.bar, this.tools, this.table, this.command);
    this.root.append(this.heard, this.note, this.lost, this.empty, this.full);
    element.replaceChildren(this.root);
    this.root.setAttribute("data-ready", "");
  }

  say(text) {
    if (this.note.textContent !== text) this.note.textContent = text;
  }

  /** Show a job from its beginning. */
  show(id) {
    this.turn += 1;
    this.unfollow?.();
    this.job = id;
    this.rows = new Map();
    this.outcomes = new Map();
    this.cases = [];
    this.status = null;
    this.waiting = "";
    this.body.replaceChildren();
    this.command.replaceChildren();
    this.say("");
    this.lost.hidden = true;
    this.empty.hidden = true;
    this.full.hidden = false;
    this.zip.href = at(`api/v1/jobs/${id}/archive`);
    const address = new URL(location.href);
    address.searchParams.set("job", id);
    address.searchParams.set("tab", "batch");
    history.replaceState(history.state, "", address);
    this.follow();
    this.commands(this.turn);
    this.place(this.turn);
  }

  /** How many runs wait before this one, as long as it waits itself. */
  async place(turn) {
    const job = await ask(`api/v1/jobs/${this.job}`).catch((error) => error);
    if (turn !== this.turn) return;
    if (job.status === 404) {
      this.unfollow();
      this.full.hidden = true;
      this.root.setAttribute("data-state", "gone");
      this.say("This run is no longer here: it was deleted.");
    }
    if (job.status?.state !== "queued") return;
    const time = job.wait_seconds ? `, about ${duration(job.wait_seconds)}` : "";
    this.waiting = job.place ? `Waiting: ${job.place} before this one${time}.` : "Waiting for the run before this one.";
    this.tell();
    setTimeout(() => turn === this.turn && this.place(turn), 3000);
  }

  follow() {
    const turn = this.turn;
    const mine = (f) => (value) => turn === this.turn && f(value);
    this.unfollow?.();
    this.unfollow = follow(this.job, {
      status: mine((status) => this.onStatus(status)),
      journal: mine((event) => this.onJournal(event)),
      lost: mine(() => {
        this.lost.textContent = "Lost contact with the server. Your run continues; this page reconnects by itself.";
        this.lost.hidden = false;
      }),
      found: mine(() => (this.lost.hidden = true)),
      end: mine(() => this.names(turn)),
    });
  }

  onJournal(event) {
    if (event.event === "start") this.names(this.turn);
    if (event.event !== "case" || !event.outcome) return;
    this.outcomes.set(event.outcome.number, event.outcome);
    this.draw(event.outcome.number);
    this.tell();
  }

  onStatus(status) {
    const was = this.status;
    this.status = status;
    if (!was || was.state !== status.state) this.stepped = null;
    if (status.step > 0 && (!this.stepped || this.stepped.step > status.step)) {
      this.stepped = { step: status.step, at: performance.now() };
    }
    if (status.total && !this.cases.length && this.rows.size < status.total) this.names(this.turn);
    this.tell();
    const running = this.current();
    if (this.drawn && this.drawn !== running) this.draw(this.drawn);
    this.drawn = running;
    if (running) this.draw(running);
  }

  /** The number of the case under way; files are done in their order. */
  current() {
    if (!this.status || !["running", "stopping"].includes(this.status.state)) return 0;
    const last = Math.max(this.status.total, this.cases.length);
    for (let number = 1; number <= last; number += 1) {
      const outcome = this.outcomes.get(number);
      if (!outcome || outcome.state === "partial") return number;
    }
    return 0;
  }

  /** What the files are called. */
  async names(turn) {
    let cases;
    try {
      cases = await ask(`api/v1/jobs/${this.job}/cases`);
    } catch {
      cases = []; // rows have numbers then
    }
    if (turn !== this.turn) return;
    this.cases = cases;
    for (let number = 1; number <= Math.max(cases.length, this.status?.total ?? 0); number += 1) this.draw(number);
    this.tell();
  }

  draw(number) {
    const entry = this.cases.find((found) => found.number === number);
    const facts = {
      job: this.job,
      number,
      entry,
      outcome: this.outcomes.get(number),
      status: number === this.current() ? this.status : null,
      ended: !this.status || ENDED.includes(this.status.state),
      look: () => look(this.job, number, entry?.name ?? `File ${number}`),
    };
    const row = makeRow(facts);
    const old = this.rows.get(number);
    if (old) {
      if (old.textContent === row.textContent && old.dataset.state === row.dataset.state) return; // keeps the focus
      old.replaceWith(row);
    } else {
      const later = [...this.rows.keys()].filter((other) => other > number);
      this.body.insertBefore(row, later.length ? this.rows.get(Math.min(...later)) : null);
    }
    this.rows.set(number, row);
  }

  /** The line above the table, and what can be done now. */
  tell() {
    const status = this.status ?? { state: "queued", total: 0, done: 0, failed: 0 };
    const state = status.state;
    const total = Math.max(status.total, this.cases.length);
    const over = [...this.outcomes.values()].filter((outcome) => outcome.state !== "partial");
    const failed = over.filter((outcome) => outcome.state === "failed").length;
    const left = this.left(total - over.length, over, status);
    const words = {
      queued: this.waiting || "Waiting.",
      running: `${over.length} of ${total || "?"}` + (left ? ` · about ${duration(left)} left` : ""),
      stopping: `${over.length} of ${total || "?"} · stopping after the present step`,
      done: `${over.length - failed} of ${total} done` + (failed ? ` · ${failed} failed` : ""),
      failed: status.message || "The batch could not be run.",
      interrupted: `${over.length} of ${total || "?"} · ${status.message || "stopped"}`,
    };
    this.line.textContent = words[state] ?? state;
    this.root.setAttribute("data-state", state);
    this.bar.max = total || 1;
    this.bar.value = over.length;
    if (this.told !== `${state} ${over.length}`) {
      this.told = `${state} ${over.length}`;
      if (ENDED.includes(state)) this.say("");
      this.heard.textContent = ENDED.includes(state) ? words[state] : `${over.length} of ${total} files have ended.`;
    }
    const going = ["queued", "running"].includes(state);
    this.after.hidden = state !== "running" || total < 2;
    this.now.hidden = !going;
    this.go.hidden = !["interrupted", "failed"].includes(state);
    this.zip.hidden = !over.some((outcome) => outcome.state === "done");
  }

  /** Seconds until the end, from the files that were done, else from the steps of the present one. */
  left(files, over, status) {
    const seconds = over.filter((outcome) => !outcome.proven && outcome.state === "done").map((outcome) => outcome.seconds);
    const share = status.steps ? status.step / status.steps : 0;
    if (seconds.length) return (seconds.reduce((a, b) => a + b) / seconds.length) * Math.max(0, files - share);
    if (!this.stepped || status.step <= this.stepped.step) return 0;
    const each = (performance.now() - this.stepped.at) / 1000 / (status.step - this.stepped.step);
    return each * (files * status.steps - status.step);
  }

  async post(what) {
    try {
      await ask(`api/v1/jobs/${this.job}/${what}`, { method: "POST" });
      if (what === "resume") this.show(this.job);
      if (what === "cancel?after=case") this.say("Stops when the present file is finished.");
    } catch (error) {
      this.say(error.message);
    }
  }

  /** The same from the command line. */
  async commands(turn) {
    let found;
    try {
      found = await ask(`api/v1/jobs/${this.job}/commands`);
    } catch {
      return; // a damaged job has none
    }
    if (turn !== this.turn) return;
    const file = new Blob([JSON.stringify(found.run_file, null, 2)], { type: "application/json" });
    const copied = async () => this.say((await copy(found.cli)) ? "Copied." : "Select the text and copy it.");
    this.command.replaceChildren(
      make("h3", {}, "Same from the command line"),
      make("pre", { tabindex: "0", role: "region", "aria-label": "Command line" }, make("code", {}, found.cli)),
      make("button", { type: "button", class: "pi-button", onclick: copied }, "Copy"),
      make("a", { class: "pi-button", href: URL.createObjectURL(file), download: "run.json" }, "Save run file"),
    );
  }
}
