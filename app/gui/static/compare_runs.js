// The Compare tab: up to four runs beside each other, with figures, residuals and settings.

import { ask, make, style } from "./api.js";
import { copy } from "./clip.js";
import { CompareView } from "./compare.js";
import { csv, figure as drawn, save } from "./compare_export.js";
import { psnr, ssim } from "./compare_metrics.js";
import { load } from "./compare_paint.js";
import { differing, words } from "./compare_settings.js";
import { keysOn } from "./keys.js";
import { curve, short } from "./result_curve.js";
import { figure } from "./result_words.js";

const MOST = 4;
const LETTERS = "ABCD";

/** Fill `element` with the tab. */
export function mount(element) {
  for (const name of ["keys", "compare", "result", "compare_runs"]) style(name);
  const runs = new Runs();
  element.append(runs.element);
  window.addEventListener("preimage:compare", ({ detail }) => {
    delete window.preimage?.pending?.["preimage:compare"];
    runs.add(detail?.id);
  });
  const pending = window.preimage?.pending?.["preimage:compare"];
  if (pending) {
    delete window.preimage.pending["preimage:compare"];
    runs.add(pending.id);
  }
}

class Runs {
  constructor() {
    this.runs = [];
    this.reference = null; // {kind: "truth", run} or {kind: "file", url, blob, title}
    this.numbers = []; // scores of the runs against the reference
    this.shown = "mean";
    this.chips = make("div", { class: "pi-row pi-chips", role: "list", "aria-label": "Runs" });
    this.list = make("div", { class: "pi-run-list", hidden: true });
    this.adder = make("button", { type: "button", class: "pi-button", "aria-expanded": "false", onclick: () => this.choose() }, "+ Add a run");
    this.said = make("p", { class: "pi-copied", role: "status" });
    this.which = make("select", { "aria-label": "Show", onchange: () => ((this.shown = this.which.value), this.draw()) });
    this.file = make("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/bmp", class: "pi-hidden", tabindex: -1, "aria-label": "Reference picture", onchange: () => this.take(this.file.files[0]) });
    this.from = make("select", { "aria-label": "Reference", onchange: () => this.refer(this.from.value) });
    this.frame = make("div", {});
    this.table = make("div", { class: "pi-scroll-x", tabindex: 0, role: "group", "aria-label": "Figures" });
    this.plot = make("div", { hidden: true });
    this.settings = make("details", { class: "pi-settings", open: true });
    this.again = make("div", { class: "pi-again" });
    this.body = make("div", { class: "pi-runs-body", hidden: true },
      make("div", { class: "pi-row" }, make("label", {}, "Show ", this.which), make("label", {}, "Reference ", this.from), this.file),
      this.frame,
      make("div", { class: "pi-two" },
        make("div", {}, make("h3", {}, "Figures"), this.table,
          make("div", { class: "pi-row" }, this.button("Table as CSV", () => this.saveTable()), this.button("Figure as PNG", () => this.saveFigure()))),
        make("div", {}, make("h3", {}, "Residual over steps"), this.plot, (this.noPlot = make("p", { class: "pi-faint" }, "These runs kept no residuals.")))),
      this.settings, this.again);
    this.empty = make("div", { class: "pi-empty" },
      make("p", {}, make("strong", {}, "Nothing to compare yet.")),
      make("p", {}, "Add up to four runs from the list, or press “Open in Compare” beside a result."));
    this.element = make("section", { class: "pi-result pi-runs", "aria-label": "Compare", "data-state": "empty" },
      make("div", { class: "pi-row" }, this.chips, this.adder), this.list, this.said, this.empty, this.body);
    keysOn(this.element);
  }

  button(text, act) {
    const run = () => Promise.resolve(act()).catch((error) => this.tell(error.message));
    return make("button", { type: "button", class: "pi-small", onclick: run }, text);
  }

  tell(text) {
    this.said.textContent = text;
  }

  // which runs

  /** Open or close the list of runs that can be added. */
  async choose() {
    const open = this.list.hidden;
    this.list.hidden = !open;
    this.adder.setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.list.replaceChildren(make("p", {}, "Looking up the runs…"));
    let found;
    try {
      found = (await ask("api/v1/jobs?limit=50")).jobs;
    } catch (error) {
      return this.list.replaceChildren(make("p", {}, error.message));
    }
    const ended = found.filter((job) => ["done", "interrupted"].includes(job.status.state) && !this.has(job.id));
    const items = ended.map((job) => {
      const when = new Date(job.created);
      const text = `${job.title || "Untitled"} · ${job.recipe ? words(job) : job.id}`;
      return make("li", {}, make("button", { type: "button", class: "pi-run-choice", onclick: () => (this.choose(), this.add(job.id)) },
        make("span", {}, text),
        make("time", { datetime: job.created }, when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }))));
    });
    this.list.replaceChildren(items.length
      ? make("ul", { "aria-label": "Runs that can be added" }, ...items)
      : make("p", {}, "No other runs here. Run something in Restore first."));
  }

  has(id) {
    return this.runs.some((run) => run.job.id === id);
  }

  /** Add a run by its identifier. */
  async add(id) {
    if (!/^[0-9a-f]{16}$/.test(id ?? "") || this.has(id)) return;
    if (this.runs.length >= MOST) return this.tell("Four runs at most. Remove one first.");
    let run;
    try {
      const [job, entries, trace] = await Promise.all(
        ["", "/views", "/trace"].map((part) => ask(`api/v1/jobs/${id}${part}`)));
      const pictures = entries.filter((entry) => entry.views.some((view) => view.file.endsWith(".png")));
      run = { job, entries: pictures, trace, entry: pictures[0] };
    } catch (error) {
      return this.tell(error.status === 404 ? "That run is no longer here." : error.message);
    }
    if (!run.entry) return this.tell("That run left no pictures to compare. Volumes are compared in Medical.");
    if (this.has(id) || this.runs.length >= MOST) return;
    this.tell("");
    this.runs.push(run);
    this.arrange();
  }

  remove(run) {
    this.runs = this.runs.filter((other) => other !== run);
    if (this.reference?.run === run) this.reference = null;
    this.arrange();
  }

  letter(run) {
    return LETTERS[this.runs.indexOf(run)];
  }

  url(run, view) {
    return `api/v1/jobs/${run.job.id}/views/${run.entry.case}/${encodeURIComponent(view.file)}`;
  }

  view(run, name) {
    return run.entry.views.find((view) => view.name === name);
  }

  // what is shown

  arrange() {
    this.chips.replaceChildren(...this.runs.map((run) => this.chip(run)));
    this.adder.hidden = this.runs.length >= MOST;
    this.empty.hidden = this.runs.length > 0;
    this.body.hidden = !this.runs.length;
    this.draw();
  }

  chip(run) {
    const label = this.letter(run);
    const title = run.job.title || "Untitled";
    const pick = run.entries.length > 1
      ? make("select", { "aria-label": `Image of run ${label}`, onchange: (event) => ((run.entry = run.entries[event.target.value]), this.draw()) },
          ...run.entries.map((entry, k) => make("option", { value: k, selected: entry === run.entry }, `Image ${entry.number}`)))
      : null;
    return make("span", { class: "pi-chip", role: "listitem" }, make("strong", {}, `${label} `), `${title} · ${words(run.job)} `, pick,
      make("button", { type: "button", class: "pi-small", "aria-label": `Remove run ${label}`, onclick: () => this.remove(run) }, "×"));
  }

  /** Everything below the runs. */
  async draw() {
    const turn = (this.turn = {});
    if (!this.runs.length) {
      this.element.dataset.state = "empty";
      this.compare?.close();
      this.compare = null;
      return;
    }
    this.element.dataset.state = "loading";
    this.fillChoices();
    this.numbers = [];
    this.showTable();
    this.showCurves();
    this.showSettings();
    this.showAgain();
    this.compare ??= new CompareView(this.frame, { label: "Runs", view: "side" });
    const runs = [...this.runs];
    const pictures = runs.filter((run) => this.view(run, this.shown)).map((run) => {
      const view = this.view(run, this.shown);
      return { url: this.url(run, view), brief: this.letter(run), title: `${this.letter(run)}: ${run.job.title || "Untitled"}`, alt: `Run ${this.letter(run)}. ${view.alt}`, scale: view.scale };
    });
    const reference = this.referencePicture();
    await this.compare.show(reference ? [...pictures, reference] : pictures);
    if (turn !== this.turn) return;
    if (reference) await this.score(turn, runs, reference);
    if (turn === this.turn) this.element.dataset.state = "ready";
  }

  fillChoices() {
    const names = new Map(this.runs.flatMap((run) => run.entry.views.map((view) => [view.name, view.name === "mean" ? "Restored" : view.title])));
    if (!names.has(this.shown)) this.shown = "mean";
    this.which.replaceChildren(...[...names].map(([name, title]) => make("option", { value: name, selected: name === this.shown }, title)));
    const truths = this.runs.filter((run) => this.view(run, "truth"));
    const { reference } = this;
    const option = (value, text, selected) => make("option", { value, selected }, text);
    this.from.replaceChildren(...[
      option("", "none", !reference),
      ...truths.map((run) => option(run.job.id, `Truth of run ${this.letter(run)}`, reference?.run === run)),
      reference?.kind === "file" ? option("file", reference.title, true) : null,
      option("choose", "A picture file…", false),
    ].filter(Boolean));
  }

  refer(value) {
    if (value === "choose") {
      this.fillChoices(); // until a file was chosen
      return this.file.click();
    }
    if (value === "file") return;
    const run = this.runs.find((other) => other.job.id === value);
    this.reference = run ? { kind: "truth", run } : null;
    this.draw();
  }

  /** A file of the person's as the reference; it stays in the browser. */
  async take(file) {
    if (!file) return;
    const url = `file ${file.name} ${file.size} ${file.lastModified}`;
    try {
      await load(url, file);
    } catch {
      return this.tell(`"${file.name}" is not a picture that this browser can read. Use PNG, JPEG, WebP or BMP.`);
    }
    this.tell("");
    this.file.value = "";
    this.reference = { kind: "file", url, blob: file, title: file.name };
    this.draw();
  }

  referencePicture() {
    const { reference } = this;
    if (!reference) return null;
    if (reference.kind === "file") return { url: reference.url, blob: reference.blob, title: "Reference", alt: "Reference picture" };
    return { url: this.url(reference.run, this.view(reference.run, "truth")), title: "Reference", alt: "Reference picture" };
  }

  /** Compare all runs with the reference, as far as the sizes agree. */
  async score(turn, runs, reference) {
    try {
      const truth = await load(reference.url, reference.blob);
      for (const [k, run] of runs.entries()) {
        const image = await load(this.url(run, this.view(run, "mean")));
        if (image.width !== truth.width || image.height !== truth.height) this.numbers[k] = { other: `${image.width} × ${image.height}` };
        else this.numbers[k] = { psnr: psnr(truth, image), ssim: await ssim(truth, image) };
        if (turn !== this.turn) return;
      }
    } catch {
      return this.tell("The reference could not be read. Choose it again.");
    }
    const others = this.numbers.filter((numbers) => numbers.other);
    this.tell(others.length ? `The reference has another size than ${others.length === 1 ? "one run" : `${others.length} runs`}: no scores there.` : "");
    this.showTable();
  }

  // figures

  rows() {
    const known = (run, name) => figure(run.entry.figures?.[name]);
    const with_ = (k, run, name, form) => {
      const value = this.numbers[k]?.[name] ?? (this.reference ? null : known(run, name));
      return value === null || value === undefined ? "–" : value === Infinity ? "equal" : form(value);
    };
    const line = (name, text) => [name, ...this.runs.map((run, k) => text(run, k) ?? "–")];
    const number = (name, form) => (run) => (known(run, name) === null ? null : form(known(run, name)));
    return [
      line("PSNR, dB", (run, k) => with_(k, run, "psnr", (v) => v.toFixed(2))),
      line("SSIM", (run, k) => with_(k, run, "ssim", (v) => v.toFixed(3))),
      line("Residual, sigma", number("residual_sigma", short)),
      line("Time, s", number("seconds", (v) => v.toFixed(1))),
      line("Network calls", number("nfe", (v) => String(Math.round(v)))),
      line("Imagined, %", number("imagined", (v) => String(Math.round(100 * v)))),
      line("Samples", (run) => String(run.job.recipe.seeds?.length ?? "–")),
    ];
  }

  showTable() {
    const head = ["Figure", ...this.runs.map((run) => this.letter(run))];
    this.table.replaceChildren(grid(head, this.rows()));
    if (this.reference && this.numbers.length)
      this.table.append(make("p", { class: "pi-faint" }, "PSNR and SSIM are of the pictures as shown here, in 8 bit."));
  }

  saveTable() {
    const head = ["", ...this.runs.map((run) => `${this.letter(run)}: ${run.job.title || "Untitled"} (${words(run.job)})`)];
    const settings = differing(this.runs.map((run) => run.job));
    const rows = [head, ["job", ...this.runs.map((run) => run.job.id)], ...this.rows(), ...settings];
    save(new Blob([csv(rows)], { type: "text/csv" }), "preimage-compare.csv");
  }

  async saveFigure() {
    if (!this.compare?.pictures.length) return;
    const canvas = drawn(this.compare.pictures);
    save(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), "preimage-compare.png");
  }

  showCurves() {
    const series = this.runs.map((run) => ({
      name: this.letter(run),
      points: run.trace.filter((entry) => entry.case === run.entry.number).map((entry) => ({ x: entry.step, y: entry.residual_sigma })),
    }));
    curve(this.plot, series);
    this.noPlot.hidden = !this.plot.hidden;
  }

  showSettings() {
    const found = differing(this.runs.map((run) => run.job));
    const summary = make("summary", {}, `Settings that differ (${found.length})`);
    const head = ["Setting", ...this.runs.map((run) => this.letter(run))];
    const table = make("div", { class: "pi-scroll-x", tabindex: 0, role: "group", "aria-label": "Settings that differ" }, grid(head, found));
    this.settings.hidden = this.runs.length < 2;
    this.settings.replaceChildren(summary, found.length ? table : make("p", { class: "pi-faint" }, "All settings are the same."));
  }

  // doing it again

  showAgain() {
    const run = make("select", { "aria-label": "Run", onchange: () => fill() }, ...this.runs.map((r, k) => make("option", { value: k }, this.letter(r))));
    const kinds = { python: "Python", cli: "Command line", curl: "curl" };
    const kind = make("select", { "aria-label": "As", onchange: () => fill() }, ...Object.entries(kinds).map(([value, text]) => make("option", { value }, text)));
    const text = make("textarea", { class: "pi-text", readonly: true, rows: 10, "aria-label": "Text that repeats the run" });
    const texts = () => {
      const chosen = this.runs[run.value];
      chosen.texts ??= ask(`api/v1/jobs/${chosen.job.id}/commands`);
      chosen.texts.catch(() => (chosen.texts = null));
      return chosen.texts;
    };
    const fill = async () => {
      text.value = await texts().then((found) => found[kind.value], (error) => error.message);
    };
    const take = async () => {
      if (await copy((await texts())[kind.value])) return this.tell("Copied.");
      text.focus();
      text.select();
      this.tell("This browser does not let the page copy. The text is selected: press Ctrl+C.");
    };
    const keep = async () => {
      const found = await texts();
      save(new Blob([`${JSON.stringify(found.run_file, null, 2)}\n`], { type: "application/json" }), `preimage-run-${found.run_file.job}.json`);
    };
    const details = make("details", { ontoggle: () => details.open && fill() }, make("summary", {}, "Reproduce"),
      make("div", { class: "pi-row" }, make("label", {}, "Run ", run), make("label", {}, "as ", kind), this.button("Copy", take), this.button("Save run file", keep)),
      text,
      make("p", { class: "pi-faint" }, "Bit by bit the same on a CPU in fp32 with as many threads, closely elsewhere."));
    details.open = Boolean(this.again.querySelector("details")?.open);
    this.again.replaceChildren(details);
  }
}

/** A table; the first cell of each row names it. */
function grid(head, rows) {
  return make("table", { class: "pi-table" },
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map(([name, ...cells]) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell))))));
}
