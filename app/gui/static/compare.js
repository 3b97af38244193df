// CompareView: pictures over or beside each other, looked at together.

import { make, style } from "./api.js";
import { level } from "./compare_map.js";
import { Camera, difference, draw, levels, load } from "./compare_paint.js";

const VIEWS = { slider: "Slider", flip: "Flip", side: "Side by side", difference: "Difference" };
const GAINS = [1, 2, 5, 10, 20, 50];
const HINT = "Wheel or two fingers zoom, drag moves, 0 fits. F flips.";
let number = 0;

/**
 * Two or more pictures in one frame.
 *
 * `new CompareView(parent, {label, view})`, then `show([{url, title, alt, scale}, ...])`: the first is the original,
 * the second is what it is compared with until a person chooses others. `scale` ({low, high, unit}) marks a heat map,
 * whose value is then told in place of its colour. `element.dataset.state` is empty, loading, ready or failed;
 * `element.dataset.view` one of slider, flip, side, difference.
 */
export class CompareView {
  constructor(parent, { label = "Pictures", view = "slider", onchange = null } = {}) {
    style("compare");
    this.id = `pi-compare-${(number += 1)}`;
    this.onchange = onchange;
    this.pictures = [];
    this.camera = new Camera();
    this.split = 0.5;
    this.second = false; // which of the two is seen in the view "flip"
    this.held = false; // the original is shown in place of the others
    this.pair = [0, 1];
    this.gain = 5;
    this.pointers = new Map();
    this.build(label);
    parent.append(this.element);
    this.choose(view);
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.stage);
  }

  build(label) {
    const radios = Object.entries(VIEWS).map(([value, text]) =>
      make("label", {},
        make("input", { type: "radio", name: this.id, value, onchange: () => this.choose(value) }),
        make("span", {}, text)));
    this.views = make("fieldset", { class: "pi-segments" }, make("legend", { class: "pi-hidden" }, "View"), ...radios);
    const pick = (which, text) =>
      make("select", { "aria-label": text, onchange: (event) => this.pick(which, Number(event.target.value)) });
    this.picks = [pick(0, "First picture"), pick(1, "Second picture")];
    this.pickers = make("span", { class: "pi-compare-picks", hidden: true }, this.picks[0], " with ", this.picks[1]);
    this.gains = make("label", { class: "pi-compare-gain", hidden: true }, "times ",
      make("select", { onchange: (event) => ((this.gain = Number(event.target.value)), this.draw()) },
        ...GAINS.map((gain) => make("option", { value: gain, selected: gain === this.gain }, String(gain)))));
    const hold = make("button", { type: "button", class: "pi-small", title: "Key C, while held" });
    hold.addEventListener("pointerdown", (event) => (hold.setPointerCapture(event.pointerId), this.hold(true)));
    for (const end of ["pointerup", "pointercancel", "blur"]) hold.addEventListener(end, () => this.hold(false));
    hold.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && this.hold(true));
    hold.addEventListener("keyup", () => this.hold(false));
    this.original = hold;
    this.percent = make("output", { class: "pi-compare-percent", "aria-label": "Zoom" });
    const button = (text, label, act) =>
      make("button", { type: "button", class: "pi-small", title: label, "aria-label": label, onclick: act }, text);
    const zooms = make("span", { class: "pi-compare-zoom", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", () => this.zoom(0.5)), this.percent, button("+", "Zoom in", () => this.zoom(2)),
      button("Fit", "Fit: whole picture (key 0)", () => this.fit()),
      button("1:1", "1:1: one pixel for one pixel (key Z)", () => this.actual()));
    this.handle = make("div", {
      class: "pi-compare-handle", role: "slider", tabindex: 0, "aria-orientation": "horizontal",
      "aria-valuemin": 0, "aria-valuemax": 100, onkeydown: (event) => this.slideByKey(event),
    }, make("span", { "aria-hidden": "true" }, "◂▸"));
    this.panes = make("div", { class: "pi-compare-panes" });
    this.stage = make("div", { class: "pi-compare-stage", tabindex: 0, role: "group", "aria-label": label },
      this.panes, this.handle);
    this.message = make("p", { class: "pi-compare-message", role: "status" });
    this.reading = make("p", { class: "pi-compare-reading" }, HINT);
    this.element = make("div", { class: "pi-compare", role: "group", "aria-label": label, "data-state": "empty" },
      make("div", { class: "pi-compare-tools" }, this.views, this.pickers, this.gains, hold, zooms),
      this.stage, this.message, this.reading);
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("keyup", (event) => event.key.toLowerCase() === "c" && this.hold(false));
    this.element.addEventListener("focusout", () => this.hold(false));
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel", "pointerleave"])
      this.stage.addEventListener(name, (event) => this.pointer(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("dblclick", () => (this.camera.fitted ? this.actual() : this.fit()));
  }

  /** Show other pictures; what is on screen stays until all of them are decoded. */
  async show(pictures) {
    const call = (this.call = {});
    if (!this.pictures.length) this.element.dataset.state = "loading";
    this.message.textContent = this.pictures.length ? "" : "Loading the pictures…";
    let loaded;
    try {
      loaded = await Promise.all(pictures.map(async (picture) => ({ ...picture, ...(await load(picture.url, picture.blob)) })));
    } catch {
      if (call !== this.call) return;
      this.element.dataset.state = "failed";
      const again = make("button", { type: "button", class: "pi-small", onclick: () => this.show(pictures) }, "Try again");
      this.message.replaceChildren("The pictures could not be loaded. ", again);
      return;
    }
    if (call !== this.call) return;
    this.message.textContent = "";
    this.pictures = loaded;
    this.cached = null;
    this.pair = this.pair.map((k) => Math.max(0, Math.min(k, loaded.length - 1)));
    if (loaded.length > 1 && this.pair[0] === this.pair[1]) this.pair = [0, 1];
    this.arrange();
    this.element.dataset.state = loaded.length ? "ready" : "empty";
  }

  /** Change the view: slider, flip, side or difference. */
  choose(view) {
    this.view = view;
    this.element.dataset.view = view;
    for (const radio of this.views.querySelectorAll("input")) radio.checked = radio.value === view;
    this.gains.hidden = view !== "difference";
    this.arrange();
    this.onchange?.();
  }

  pick(which, k) {
    this.pair[which] = k;
    this.arrange();
    this.onchange?.();
  }

  /** Forget the pictures and end watching. */
  close() {
    this.call = null;
    this.watcher.disconnect();
    this.element.remove();
  }

  // what is on screen

  arrange() {
    const n = this.pictures.length;
    for (const [which, select] of this.picks.entries()) {
      const options = this.pictures.map((p, k) => make("option", { value: k, selected: k === this.pair[which] }, p.title));
      select.replaceChildren(...options);
    }
    this.pickers.hidden = n < 3 || this.view === "side";
    this.original.hidden = n < 2;
    this.original.textContent = n < 2 ? "" : `Hold for ${this.pictures[0].brief ?? this.pictures[0].title}`;
    const shown = this.view === "side" ? this.pictures.map((_, k) => k) : n ? [null] : [];
    this.panes.replaceChildren(...shown.map((k) => this.pane(k)));
    this.panes.dataset.count = shown.length;
    this.handle.hidden = this.view !== "slider" || n < 2;
    this.draw();
  }

  pane(k) {
    const canvas = make("canvas", { role: "img" });
    const captions = [make("span", {}), make("span", {})];
    const element = make("div", { class: "pi-compare-pane" }, canvas, ...captions);
    return Object.assign(element, { pi: { k, canvas, captions } });
  }

  /** Draw at the next frame. */
  draw() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      if (this.pictures.length) this.paint();
    });
  }

  paint() {
    const [whole] = this.pictures;
    this.stage.style.setProperty("--pi-aspect", whole.width / whole.height);
    const panes = [...this.panes.children];
    const box = panes[0]?.querySelector("canvas").getBoundingClientRect();
    if (!box || !box.width || !box.height) return; // in a tab that is not shown
    const ratio = window.devicePixelRatio || 1;
    this.camera.resize(whole.width, whole.height, { width: box.width, height: box.height });
    for (const pane of panes) {
      const { canvas } = pane.pi;
      const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      else canvas.getContext("2d").clearRect(0, 0, width, height);
      this.fill(pane.pi);
    }
    this.percent.textContent = `${Math.round(this.camera.scale * ratio * 100)} %`;
    this.stage.classList.toggle("pi-zoomed", !this.camera.fitted);
    this.placeHandle();
  }

  fill({ k, canvas, captions }) {
    const [a, b] = this.pair.map((place) => this.pictures[place]);
    const say = (alt, ...titles) => {
      canvas.setAttribute("aria-label", alt);
      captions.forEach((caption, place) => {
        caption.textContent = titles[place] ?? "";
        caption.hidden = !titles[place];
      });
    };
    const one = (picture) => {
      draw(canvas, picture, this.camera);
      say(picture.alt || picture.title, picture.title);
    };
    if (k !== null) one(this.held ? this.pictures[0] : this.pictures[k]);
    else if (this.held) one(this.pictures[0]);
    else if (this.pictures.length < 2) one(a);
    else if (this.view === "flip") one(this.second ? b : a);
    else if (this.view === "slider") {
      draw(canvas, a, this.camera, 0, this.split);
      draw(canvas, b, this.camera, this.split, 1);
      say(`Left: ${a.alt || a.title}. Right: ${b.alt || b.title}.`, a.title, b.title);
    } else this.fillDifference(canvas, say, a, b);
  }

  fillDifference(canvas, say, a, b) {
    if (a.width !== b.width || a.height !== b.height) {
      this.message.textContent = "These pictures have different sizes, so that they cannot be subtracted.";
      return say("No difference: the sizes differ.");
    }
    this.message.textContent = "";
    const key = `${a.url} ${b.url} ${this.gain}`;
    if (this.cached?.key !== key) this.cached = { key, ...difference(a, b, this.gain) };
    draw(canvas, this.cached, this.camera);
    const words = `mean ${this.cached.mean.toFixed(2)}, largest ${this.cached.largest} of 255`;
    say(`Difference of ${a.title} and ${b.title}: ${words}.`, `|${a.title} − ${b.title}| × ${this.gain}`, words);
  }

  placeHandle() {
    if (this.handle.hidden) return;
    const [a, b] = this.pair.map((k) => this.pictures[k].title);
    const percent = Math.round(this.split * 100);
    this.handle.style.left = `${this.split * 100}%`;
    this.handle.setAttribute("aria-valuenow", percent);
    this.handle.setAttribute("aria-valuetext", `${percent} % ${a}, ${100 - percent} % ${b}`);
    this.handle.setAttribute("aria-label", `Boundary between ${a} and ${b}`);
  }

  // zoom, keys and pointers

  fit() {
    this.camera.fit();
    this.draw();
  }

  actual() {
    this.camera.zoom(1 / (window.devicePixelRatio || 1));
    this.draw();
  }

  zoom(factor, px, py) {
    this.camera.zoom(this.camera.scale * factor, px, py);
    this.draw();
  }

  hold(held) {
    if (this.held === held || (held && this.pictures.length < 2)) return;
    this.held = held;
    this.draw();
  }

  slide(split) {
    this.split = Math.min(1, Math.max(0, split));
    this.draw();
  }

  slideByKey(event) {
    const by = event.shiftKey ? 0.1 : 0.01;
    const steps = { ArrowLeft: -by, ArrowDown: -by, ArrowRight: by, ArrowUp: by, PageDown: -0.1, PageUp: 0.1 };
    if (event.key === "Home") this.slide(0);
    else if (event.key === "End") this.slide(1);
    else if (event.key in steps) this.slide(this.split + steps[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    const key = event.key.toLowerCase();
    if (key === "0") this.fit();
    else if (key === "z") this.actual();
    else if (key === "+" || key === "=") this.zoom(2);
    else if (key === "-") this.zoom(0.5);
    else if (key === "c") this.hold(true);
    else if (key === "f") this.flip();
    else if (event.key in moves && event.target === this.stage && !this.camera.fitted) {
      this.camera.move(...moves[event.key]);
      this.draw();
    } else return;
    event.preventDefault();
  }

  flip() {
    if (this.pictures.length < 2) return;
    this.second = this.view === "flip" ? !this.second : true;
    this.choose("flip");
  }

  wheel(event) {
    const { x, y } = this.place(event);
    // a page that is scrolled down goes on scrolling: there is nothing to make smaller
    if (event.deltaY > 0 && this.camera.fitted && !event.ctrlKey) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0015) * (event.ctrlKey ? 4 : 1)), x, y);
  }

  /** Where in its pane an event is. */
  place(event) {
    const panes = [...this.panes.children].map((pane) => pane.getBoundingClientRect());
    const box = panes.find((b) => event.clientX <= b.right && event.clientY <= b.bottom) ?? panes[0];
    return box ? { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width } : { x: 0, y: 0, width: 1 };
  }

  pointer(event) {
    const here = this.place(event);
    if (event.type === "pointerdown" && event.button === 0) {
      this.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, here);
      const grabbed = this.handle.contains(event.target);
      this.sliding = this.view === "slider" && !this.handle.hidden && (grabbed || this.camera.fitted);
      (this.sliding ? this.handle : this.stage).focus({ preventScroll: true });
      if (this.sliding) this.slide(here.x / here.width);
      event.preventDefault();
    } else if (event.type === "pointermove" && this.pointers.has(event.pointerId)) this.drag(event, here);
    else if (event.type !== "pointermove") this.pointers.delete(event.pointerId);
    if (event.type === "pointerleave") this.reading.textContent = HINT;
    else this.read(here);
  }

  drag(event, here) {
    const before = this.pointers.get(event.pointerId);
    this.pointers.set(event.pointerId, here);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p.x - other.x, p.y - other.y) || 1;
      this.camera.move((here.x - before.x) / 2, (here.y - before.y) / 2);
      this.zoom(apart(here) / apart(before), (here.x + other.x) / 2, (here.y + other.y) / 2);
    } else if (this.sliding) this.slide(here.x / here.width);
    else {
      this.camera.move(here.x - before.x, here.y - before.y);
      this.draw();
    }
  }

  /** Tell the values of the pixel under the cursor. */
  read({ x, y }) {
    const pixel = this.pictures.length ? this.camera.pixel(x, y) : null;
    if (!pixel) return void (this.reading.textContent = HINT);
    const asked = this.view === "side" ? this.pictures : this.pair.map((k) => this.pictures[k]);
    const shown = [...new Set(asked)].map((picture) => `${picture.title} ${valueAt(picture, pixel, this.camera)}`);
    this.reading.textContent = `x ${pixel.x}, y ${pixel.y} · ${shown.join(" · ")}`;
  }
}

/** The value of a pixel as text: 8-bit levels, or what the colour of a heat map stands for. */
function valueAt(picture, { x, y }, camera) {
  const column = Math.min(picture.width - 1, Math.floor((x * picture.width) / camera.width));
  const row = Math.min(picture.height - 1, Math.floor((y * picture.height) / camera.height));
  const all = levels(picture);
  const [red, green, blue] = all.slice(4 * (row * picture.width + column), 4 * (row * picture.width + column) + 3);
  if (picture.scale) {
    const { low, high, unit } = picture.scale;
    const value = low + ((high - low) * level(red, green, blue)) / 255;
    return `${Number(value.toPrecision(2))}${unit ? ` ${unit}` : ""}`;
  }
  return red === green && green === blue ? String(red) : `${red} ${green} ${blue}`;
}
