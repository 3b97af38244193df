// The slice viewer: volumes of int16 voxels on canvases, beside each other and linked.
//
// Props: `source` {views: [View with "url"]} or null, and `job`, the identifier of a job whose first volume is shown
// when it is there. State for tests and style sheets: data-state (empty, loading, ready, failed), data-ready,
// data-slice (as shown, from 1), data-plane, data-window, data-level, data-overlay.

import { make, style } from "./api.js";
import { keysOn } from "./keys.js";
import { Controls } from "./slices_controls.js";
import { hear, keys } from "./slices_input.js";
import { Look } from "./slices_look.js";
import { Panel } from "./slices_panels.js";
import { PLANES } from "./slices_planes.js";
import { Run } from "./slices_run.js";
import { load, sameGrid } from "./slices_volume.js";

const FIRST = ["before", "mean", "truth"]; // the others are maps, which may come later

class Viewer {
  constructor(element, g) {
    this.g = g;
    this.panels = [];
    this.root = make("section", { class: "pi-sl", "data-state": "empty", "aria-label": "Slice viewer" });
    this.look = new Look(() => this.changed());
    this.controls = new Controls(this.look, this.root);
    this.status = make("p", { class: "pi-sl-status", role: "status" });
    this.stage = make("div", {
      class: "pi-sl-stage",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "slices",
      "aria-label": "Slices. Arrow keys scroll, 1 to 6 set the window, hold H hides the overlay, ? lists all keys.",
    });
    this.words = make("p", { class: "pi-sl-words" });
    this.run = new Run(this.root, (views) => this.show(views));
    this.root.append(this.status, this.controls.bar, this.stage, this.words, this.controls.below, this.run.report);
    element.replaceChildren(this.root);
    keys(this.root, this.look, () => this.ready);
    keysOn(this.root);
    new ResizeObserver(() => this.changed()).observe(this.stage);
    this.controls.slider.addEventListener("pointerup", () => this.stage.focus({ preventScroll: true }));
  }

  get ready() {
    return this.root.dataset.state === "ready";
  }

  say(state, text) {
    this.root.dataset.state = state;
    this.root.toggleAttribute("data-ready", state === "ready");
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  empty() {
    this.loading?.abort();
    this.stage.replaceChildren();
    this.panels = [];
    this.say("empty", "No volume yet. Add one, or take a phantom.");
  }

  /** Load views and show them; maps follow when the images are there. */
  async show(views) {
    this.loading?.abort();
    const segmentation = views.find((view) => view.name === "labels");
    if (segmentation) this.segmentation = segmentation;
    else if (this.segmentation && views[0]?.url.includes("/jobs/")) views = [...views, this.segmentation];
    const loading = (this.loading = new AbortController());
    if (!views.length) return this.empty();
    const grid = views.find((view) => FIRST.includes(view.name)) || views[0];
    const fitting = views.filter((view) => sameGrid(view, grid));
    const images = fitting.filter((view) => FIRST.includes(view.name));
    this.say("loading", "Loading voxels…");
    const shares = {};
    const progress = (name) => (share) => {
      shares[name] = share;
      const all = Object.values(shares).reduce((sum, one) => sum + one, 0) / images.length;
      const text = `Loading voxels… ${Math.floor(4 * all) * 25} %`;
      if (!loading.signal.aborted && text !== this.status.textContent) this.status.textContent = text;
    };
    try {
      const get = (view, heard) => load(view, heard, loading.signal);
      const loaded = await Promise.all(images.map((view) => get(view, progress(view.name))));
      if (loading.signal.aborted) return;
      const volumes = Object.fromEntries(loaded.map((volume) => [volume.view.name, volume]));
      const left = views.length - fitting.length;
      this.say("ready", left ? `${left} of the images have another grid and are not shown.` : "");
      this.look.show(volumes, grid.window);
      for (const view of fitting.filter((one) => !FIRST.includes(one.name))) {
        const map = await get(view);
        if (loading.signal.aborted) return;
        this.look.add(view.name, map);
        if (view.name === "spread" || view.name === "labels") this.look.overlay.name = view.name;
      }
      this.root.dataset.maps = "ready";
      this.changed();
    } catch (error) {
      if (!loading.signal.aborted) this.say("failed", error instanceof TypeError ? LOST : error.message);
    }
  }

  /** Draw once before the next frame, however much has changed. */
  changed() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.ready) this.draw();
    });
  }

  draw() {
    const { look } = this;
    this.arrange();
    for (const panel of this.panels) panel.draw();
    this.controls.update();
    const plane = look.planes[look.main];
    const data = { plane: look.plane, slice: look.slice + 1, window: look.width, level: look.level };
    Object.assign(this.root.dataset, data, { overlay: look.hidden ? "hidden" : look.overlay.name, zoom: look.zoom });
    this.words.textContent = sentence(look, plane);
  }

  /** The panels that the look asks for. */
  arrange() {
    const { look } = this;
    const planes = look.plane === "all" ? look.usable : [look.plane];
    const key = JSON.stringify([planes, look.shown, look.planes]);
    if (key === this.arranged && this.panels.length) return;
    this.arranged = key;
    look.shown = look.shown.filter((name) => look.volumes[name]);
    this.panels = look.shown.flatMap((name) => planes.map((plane) => new Panel(look, name, plane)));
    this.stage.replaceChildren(...this.panels.map((panel) => panel.element));
    this.stage.dataset.columns = planes.length > 1 ? planes.length : look.shown.length;
    for (const panel of this.panels) hear(panel, look, () => this.stage.focus({ preventScroll: true }));
  }
}

const LOST = "Lost contact with the server while voxels were loading. Choose the volume again.";

/** How the pictures lie, in words. */
function sentence(look, plane) {
  const sides =
    look.plane === "all"
      ? "Axial and coronal: left of image = patient right; sagittal: left of image = front."
      : plane.name === "sagittal"
        ? "Left of image = front of the patient."
        : "Left of image = patient right (radiological).";
  const tilt = look.planes.tilt;
  const stored = `Slices are along the stored axes, up to ${tilt.toFixed(0)}° from the patient's.`;
  return tilt > 1 ? `${sides} ${stored}` : sides;
}

/** Fill the element of the widget. */
export async function mount(element, g) {
  style("slices");
  const viewer = new Viewer(element, g);
  viewer.empty();
  const source = () => {
    viewer.segmentation = null;
    return viewer.show(g.props.source?.views || []);
  };
  const job = () => g.props.job && viewer.run.watch(g.props.job);
  g.watch(["source"], () => {
    viewer.run.leave();
    source();
  });
  g.watch(["job"], job);
  if (g.props.source) source();
  job();
  viewer.run.listen();
}
