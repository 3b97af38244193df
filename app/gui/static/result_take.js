// What can be taken away from a run: files, the texts that do it again, and its settings for other tabs.

import { ask, at, make } from "./api.js";
import { copy } from "./clip.js";

const NAMES = {
  "restored.png": "PNG", "restored.tif": "TIFF", "restored.nii.gz": "NIfTI", "samples.npz": "All samples (NPZ)",
  "std.png": "Spread map", "imagined.png": "Imagined map", "std.nii.gz": "Spread (NIfTI)",
  "imagined.nii.gz": "Imagined (NIfTI)", "restored.json": "Report (JSON)",
};

/** Downloads, copying and sending for one case of a job. */
export class Take {
  constructor(job, entry) {
    Object.assign(this, { job, entry });
    this.said = make("p", { class: "pi-copied", role: "status" });
    this.box = make("textarea", { class: "pi-text", readonly: true, rows: 8, hidden: true, "aria-label": "Text to copy" });
    this.element = make("div", { class: "pi-take" },
      make("div", { class: "pi-row" }, ...this.downloads()),
      make("div", { class: "pi-row" }, make("span", { class: "pi-row-name" }, "Do it again"),
        this.button("Copy as Python", () => this.copy("python", "Python")),
        this.button("CLI", () => this.copy("cli", "command line")),
        this.button("curl", () => this.copy("curl", "curl")),
        this.button("Save run file", () => this.save())),
      make("div", { class: "pi-row" }, make("span", { class: "pi-row-name" }, "Go on"),
        this.button("Send to Batch", () => this.send("preimage:batch", { recipe: job.recipe, options: job.options, job: job.id })),
        this.button("Open in Compare", () => this.send("preimage:compare", { id: job.id }))),
      this.said, this.box);
  }

  button(text, act) {
    const run = () => Promise.resolve(act()).catch((error) => this.tell(error.message));
    return make("button", { type: "button", class: "pi-small", onclick: run }, text);
  }

  /** Links to the files of this case: the restored picture first, the whole as a zip. */
  downloads() {
    const { id } = this.job;
    const parts = this.entry.folder.split("/");
    const partial = parts.at(-1) === "partial" ? `${parts.pop()}-` : "";
    const stem = `${partial}${(parts.at(-1) || "result").replace(/\.[a-z0-9]+$/i, "")}`;
    const link = (name) => {
      const place = `${this.entry.folder}/${name}`.split("/").map(encodeURIComponent).join("/");
      const file = name.split("/").at(-1);
      const main = /(^|[-_])restored\.(png|tif|nii\.gz)$/.test(file);
      return make("a", {
        href: at(`api/v1/jobs/${id}/files/${place}`), download: `${stem}-${file}`,
        class: main ? "pi-button pi-main-download" : "pi-button",
      }, main ? `Download ${NAMES[file] ?? file}` : NAMES[file] ?? file);
    };
    const names = [...this.entry.outputs].sort((a, b) => /restored\.[^j]/.test(b) - /restored\.[^j]/.test(a));
    const [first, others] = [names.filter((n) => /restored\.[^j]/.test(n)), names.filter((n) => !/restored\.[^j]/.test(n))];
    const zip = make("a", { href: at(`api/v1/jobs/${id}/archive`), download: `preimage-${id}.zip`, class: "pi-button" }, "Download all .zip");
    const more = others.length && others.length <= 40
      ? make("details", { class: "pi-more-files" }, make("summary", {}, `${others.length} more ${others.length === 1 ? "file" : "files"}`), make("div", { class: "pi-row" }, ...others.map(link)))
      : null;
    return [...first.map(link), zip, more].filter(Boolean);
  }

  async commands() {
    this.texts ??= await ask(`api/v1/jobs/${this.job.id}/commands`);
    return this.texts;
  }

  async copy(kind, words) {
    const text = (await this.commands())[kind];
    const done = await copy(text);
    this.box.hidden = done;
    if (done) return this.tell(`Copied: ${words}.`);
    this.box.value = text;
    this.box.focus();
    this.box.select();
    this.tell("This browser does not let the page copy. The text is selected: press Ctrl+C.");
  }

  async save() {
    const text = JSON.stringify((await this.commands()).run_file, null, 2);
    const url = URL.createObjectURL(new Blob([`${text}\n`], { type: "application/json" }));
    make("a", { href: url, download: `preimage-run-${this.job.id}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    this.tell("Saved. Drop the file on Restore to have all settings back.");
  }

  send(name, detail) {
    window.dispatchEvent(new CustomEvent(name, { detail }));
  }

  tell(text) {
    this.said.textContent = text;
  }
}
