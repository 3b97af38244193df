// The pictures of a run that has ended: compared, explained, and to be taken away.

import { make } from "./api.js";
import { gradient } from "./compare_map.js";
import { load } from "./compare_paint.js";
import { CompareView } from "./compare.js";
import { Take } from "./result_take.js";
import { brightest, figure, figures, fit, meaning } from "./result_words.js";

const MAPS = ["spread", "imagined"];
let number = 0;

/** The views of a case; of a run that made none for the page, what came out as a picture. */
function viewsOf(job, entry) {
  if (entry.views.length || !entry.outputs.includes("restored.png")) return entry.views;
  const place = `${entry.folder}/restored.png`.split("/").map(encodeURIComponent).join("/");
  return [{ name: "mean", title: "Restored", alt: "Restored image", address: `api/v1/jobs/${job.id}/files/${place}`, seed: null }];
}

/** Shows the cases of a job; `on.more()` asks for the same run with more samples. */
export class Done {
  constructor(parent, on) {
    this.on = on;
    this.element = make("div", { class: "pi-done", hidden: true });
    parent.append(this.element);
    this.summary = "";
  }

  hide() {
    this.element.hidden = true;
    this.compare?.close();
    this.compare = null;
    this.element.replaceChildren();
  }

  /** The first link among the downloads. */
  download() {
    if (!this.element.hidden) this.element.querySelector("a.pi-main-download")?.click();
  }

  /** Show a job's cases, the first of them first; resolves when its pictures are on the screen. */
  async show(job, entries, first) {
    this.hide();
    this.job = job;
    this.cases = make("span", { class: "pi-cases" });
    if (entries.length > 1) {
      const options = entries.map((entry, k) => make("option", { value: k }, `Image ${entry.number}`));
      const pick = make("select", { onchange: () => this.choose(entries[pick.value]) }, ...options);
      this.cases.append(make("label", {}, "Show ", pick));
    }
    this.body = make("div", { class: "pi-done-body" });
    this.element.append(this.cases, this.body);
    if (first) this.element.append(make("p", { class: "pi-next" }, "That was the example. Now your own image: step 1, on the left."));
    this.element.hidden = false;
    await this.choose(entries[0]);
  }

  /** Show a case. */
  async choose(entry) {
    this.compare?.close();
    this.compare = null;
    this.entry = entry;
    this.views = viewsOf(this.job, entry);
    this.place = make("p", { class: "pi-place" });
    const take = new Take(this.job, entry);
    const facts = make("dl", { class: "pi-figures" },
      ...figures(entry, this.job.recipe).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
    const notes = entry.notes?.length
      ? make("ul", { class: "pi-notes", "aria-label": "Notes" }, ...entry.notes.map((note) => make("li", {}, note)))
      : null;
    if (entry.kind !== "picture") {
      const open = () => window.dispatchEvent(new CustomEvent("preimage:job", { detail: { id: this.job.id, tab: "medical" } }));
      const other = make("p", { class: "pi-said" }, "This is a volume. ", make("button", { type: "button", class: "pi-small", onclick: open }, "Show it in Medical"));
      this.body.replaceChildren(other, facts, ...[notes].filter(Boolean), take.element);
      return;
    }
    if (!this.view("mean")) {
      const none = make("p", { class: "pi-said" }, "This run kept no pictures for the page. Its files are here:");
      this.body.replaceChildren(...[none, facts, notes, take.element].filter(Boolean));
      return;
    }
    const frame = make("div", {});
    this.verdict = make("div", { class: "pi-verdict" });
    this.legend = make("div", { class: "pi-legend", hidden: true });
    this.body.replaceChildren(...[frame, this.legend, this.gallery(), this.verdict, facts, notes, take.element].filter(Boolean));
    this.compare = new CompareView(frame, { label: "Before and after" });
    await this.pick("mean");
    this.summary = `Done. ${fit(this.residual("mean"), entry.state).head}.`;
    this.locate(entry);
  }

  /** A short title. */
  title(view) {
    const samples = this.views.filter((other) => other.name.startsWith("sample-")).length;
    if (view.name !== "mean") return view.title;
    return samples > 1 ? `Mean of ${samples}` : "Restored";
  }

  view(name) {
    return this.views.find((view) => view.name === name);
  }

  url(view) {
    return view.address ?? `api/v1/jobs/${this.job.id}/views/${this.entry.case}/${encodeURIComponent(view.file)}`;
  }

  residual(name) {
    return figure(this.view(name)?.residual_sigma ?? this.entry.figures?.residual_sigma);
  }

  /** What there is to be seen: radio buttons with small pictures. */
  gallery() {
    const group = `pi-shown-${(number += 1)}`;
    const several = this.views.some((view) => view.name === "sample-2");
    const items = this.views.filter((view) => view.name !== "before").map((view) => {
      const radio = make("input", { type: "radio", name: group, value: view.name, checked: view.name === "mean", onchange: () => this.pick(view.name) });
      return make("label", { title: view.alt }, radio,
        make("img", { src: this.url(view), alt: "", loading: "lazy", decoding: "async", width: 64, height: 64 }), make("span", {}, this.title(view)));
    });
    this.seed = make("p", { class: "pi-seed" });
    const more = several ? null : make("button", { type: "button", class: "pi-button", onclick: () => this.on.more() }, "4 samples for a spread map");
    return make("div", { class: "pi-gallery-box" },
      make("fieldset", { class: "pi-gallery" }, make("legend", {}, "Show"), ...items), this.seed, more);
  }

  /** Compare another picture with what was measured; a map is compared with the restored picture. */
  async pick(name) {
    const [chosen, mean, before] = [this.view(name), this.view("mean"), this.view("before")];
    if (!chosen) return;
    this.element.dataset.shown = name;
    const first = MAPS.includes(name) ? mean : before;
    const shown = [first, chosen].filter(Boolean);
    this.explain(chosen);
    await this.compare.show(shown.map((view) => ({
      url: this.url(view), title: this.title(view), alt: view.alt, scale: view.scale,
    })));
  }

  explain(view) {
    const map = MAPS.includes(view.name);
    const verdict = fit(this.residual(view.name), this.entry.state);
    this.legend.hidden = !map || !view.scale;
    if (map) {
      const { low, high, unit } = view.scale ?? {};
      const share = figure(this.entry.figures?.imagined);
      const bar = make("span", { class: "pi-bar", role: "img", "aria-label": `Colours from ${low} to ${high} ${unit}` });
      bar.style.background = gradient();
      this.legend.replaceChildren(
        make("div", { class: "pi-scale" }, make("span", {}, String(low)), bar, make("span", {}, `${high} ${unit ?? ""}`.trim())),
        make("p", {}, meaning(view.name, share)));
      this.legend.hidden = false;
    } else if (view.name !== "truth") {
      this.verdict.replaceChildren(
        make("p", { class: `pi-fit pi-fit-${verdict.grade}` }, make("strong", {}, verdict.head), make("span", {}, verdict.text)), this.place);
      this.verdict.dataset.grade = verdict.grade;
    }
    this.sayTheSeed(view);
  }

  sayTheSeed(view) {
    const seeds = this.job.recipe?.seeds ?? [];
    const seed = view.seed ?? (seeds.length === 1 ? seeds[0] : null);
    this.seed.replaceChildren();
    if (seed === null) {
      if (seeds.length > 1) this.seed.append(`Seeds ${seeds.slice(0, 8).join(", ")}${seeds.length > 8 ? ", …" : ""}`);
      return;
    }
    const use = () => window.dispatchEvent(new CustomEvent("preimage:settings", {
      detail: { recipe: { ...this.job.recipe, seeds: [seed] }, options: this.job.options },
    }));
    this.seed.append(`Seed ${seed} `, make("button", { type: "button", class: "pi-small", onclick: use }, "Use this seed"));
  }

  /** Say where the samples disagree most. */
  async locate(entry) {
    const view = this.view("spread");
    if (!view) {
      const one = (this.job.recipe?.seeds?.length ?? 1) === 1;
      this.place.textContent = one ? "One sample says nothing about what is uncertain." : "";
      return;
    }
    const map = await load(this.url(view)).catch(() => null);
    if (!map || entry !== this.entry) return;
    const place = brightest(map);
    const see = make("button", {
      type: "button", class: "pi-link",
      onclick: () => this.body.querySelector(".pi-gallery input[value=spread]").click(),
    }, "see spread");
    this.place.replaceChildren(place ? `Most uncertain: ${place} (` : "Uncertain about evenly everywhere (", see, ").");
  }
}
